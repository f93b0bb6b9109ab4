//! Reads of the archived part of a log: a seek opens one file and one row group; sequential readers are read ahead for.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use object_store::ObjectStoreExt;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{
    batches::{Filling, Rows},
    cache::Cache,
    file::{FileError, FileIndex, RowGroup},
    snapshot::{DataFile, Partition},
    store,
    table::Table,
};
use crate::{
    log::{
        archive::ArchiveError,
        store::{Read, StoredBatch, TimestampedOffset},
    },
    protocol::records::Codec,
    tasks::{Tasks, in_background},
};

/// Row groups that are fetched and decoded at once.
const PARALLEL_READS: usize = 8;
/// Row groups that are read ahead for a sequential reader.
const READ_AHEAD: usize = 2;
/// Where so many reads ended is remembered, to tell sequential readers.
const REMEMBERED_ENDS: usize = 1024;
/// Upkeep may take a file away while it is looked for; then the newer snapshot is tried, this many times.
const TRIES: usize = 3;

/// A row group of a file of a table.
type GroupKey = (Arc<str>, usize);

pub(super) struct Reader {
    tasks: Tasks,
    /// Nobody waits for what it decodes.
    is_in_background: bool,
    indexes: Cache<Arc<str>, FileIndex>,
    rows: Cache<GroupKey, Rows>,
    reads: Semaphore,
    /// Table's place, partition, and offset.
    ends: Mutex<VecDeque<(String, i32, i64)>>,
}

/// Why something of a file can't be had.
enum Fault {
    /// The object of the file at this path below the table is not there.
    Missing(String),
    Damaged(String),
    Archive(ArchiveError),
}

impl From<FileError> for Fault {
    fn from(error: FileError) -> Self {
        Fault::Damaged(error.to_string())
    }
}

/// A fault, and the offsets it is about.
struct RangeFault {
    fault: Fault,
    start: i64,
    end: i64,
}

impl Reader {
    /// `cache_bytes`: of decoded rows; footers take a quarter of it besides.
    pub(super) fn new(tasks: Tasks, cache_bytes: usize) -> Self {
        Self {
            tasks,
            is_in_background: false,
            indexes: Cache::new(cache_bytes / 4),
            rows: Cache::new(cache_bytes),
            reads: Semaphore::new(PARALLEL_READS),
            ends: Mutex::default(),
        }
    }

    /// A reader whose work gives way to clients.
    pub(super) fn in_background(self) -> Self {
        Self { is_in_background: true, ..self }
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
        if self.is_in_background {
            in_background(work).await.map_err(|error| unavailable(&error))
        } else {
            tokio::task::spawn_blocking(work).await.map_err(|error| unavailable(&error))
        }
    }

    #[cfg(test)]
    pub(super) fn cached(&self) -> (usize, usize) {
        (self.rows.len(), self.indexes.len())
    }

    /// The partition as it is known; read anew if it does not reach `offset`.
    async fn partition(&self, table: &Table, index: i32, offset: i64) -> Result<Option<Arc<Partition>>, ArchiveError> {
        let known = table.known();
        if let Some(partition) = known.partition(index).filter(|partition| offset < partition.end) {
            return Ok(Some(partition.clone()));
        }
        Ok(table.snapshot(Duration::ZERO).await?.partition(index).cloned())
    }

    pub(super) async fn read(
        self: &Arc<Self>,
        table: &Arc<Table>,
        index: i32,
        read: Read,
    ) -> Result<Vec<StoredBatch>, ArchiveError> {
        for _ in 0..TRIES {
            let Some(partition) = self.partition(table, index, read.offset).await? else { return Ok(Vec::new()) };
            let mut filling = Filling::default();
            match self.fill(table, index, &partition, read, &mut filling).await {
                Ok(()) => return Ok(filling.batches),
                // The next read meets it again.
                Err(_) if !filling.batches.is_empty() => return Ok(filling.batches),
                Err(fault) => self.resolve(table, index, fault).await?,
            }
        }
        Err(ArchiveError::Unavailable("the table's files changed too often meanwhile".to_owned()))
    }

    /// Nothing, if another try with a newer snapshot makes sense.
    async fn resolve(&self, table: &Table, index: i32, fault: RangeFault) -> Result<(), ArchiveError> {
        let (start_offset, end_offset) = (fault.start, fault.end);
        match fault.fault {
            Fault::Archive(error) => Err(error),
            Fault::Damaged(text) => Err(ArchiveError::Damaged { start_offset, end_offset, text }),
            Fault::Missing(path) => {
                let snapshot = table.snapshot(Duration::ZERO).await?;
                let partition = snapshot.partition(index);
                let file = partition.and_then(|partition| partition.files_from(start_offset).next());
                if file.is_none_or(|file| file.path != path) {
                    return Ok(());
                }
                let text = format!("the file `{path}` is missing");
                Err(ArchiveError::Damaged { start_offset, end_offset, text })
            }
        }
    }

    async fn fill(
        self: &Arc<Self>,
        table: &Arc<Table>,
        index: i32,
        partition: &Arc<Partition>,
        read: Read,
        filling: &mut Filling,
    ) -> Result<(), RangeFault> {
        let start = read.offset.max(partition.start);
        let sequential = self.follows(table, index, start);
        let mut at = start;
        for file in partition.files_from(start).take_while(|file| file.start < read.end_offset) {
            let footer = self.index_of(table, file).await?;
            let first = footer.groups().partition_point(|group| group.last_offset < at);
            for (group, held) in footer.groups().iter().enumerate().skip(first) {
                if held.first_offset >= read.end_offset {
                    return Ok(());
                }
                let rows = self.rows_of(table, file, &footer, group).await?;
                if sequential {
                    self.read_ahead(table, partition, file, group + 1);
                }
                let (filled, result) = self.encode(rows, at, read, std::mem::take(filling)).await;
                *filling = filled;
                result.map_err(|fault| RangeFault { fault, start: held.first_offset, end: held.last_offset + 1 })?;
                at = filling.batches.last().map_or(at, |batch| batch.last_offset + 1);
                if filling.full || at >= read.end_offset {
                    self.remember(table, index, at);
                    return Ok(());
                }
            }
            at = at.max(file.end);
        }
        self.remember(table, index, at);
        Ok(())
    }

    fn follows(&self, table: &Table, index: i32, offset: i64) -> bool {
        let place = table.root().as_ref();
        self.ends
            .lock()
            .iter()
            .any(|(root, partition, end)| (root.as_str(), *partition, *end) == (place, index, offset))
    }

    fn remember(&self, table: &Table, index: i32, offset: i64) {
        let mut ends = self.ends.lock();
        if ends.len() >= REMEMBERED_ENDS {
            ends.pop_front();
        }
        ends.push_back((table.root().to_string(), index, offset));
    }

    fn read_ahead(self: &Arc<Self>, table: &Arc<Table>, partition: &Partition, file: &Arc<DataFile>, group: usize) {
        let next = partition.files.range(file.start + 1..).next().map(|(_, file)| file.clone());
        let (this, table, file) = (self.clone(), table.clone(), file.clone());
        let work = async move {
            let Ok(footer) = this.index_of(&table, &file).await else { return };
            let here = (group..footer.groups().len()).map(|group| (file.clone(), group));
            for (file, group) in here.chain(next.map(|file| (file, 0))).take(READ_AHEAD) {
                let Ok(footer) = this.index_of(&table, &file).await else { return };
                // What fails here fails again for the reader, and is told then.
                if this.rows_of(&table, &file, &footer, group).await.is_err() {
                    return;
                }
            }
        };
        let stopping = self.tasks.stopping().clone();
        drop(self.tasks.spawn("archive-read-ahead", async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = work => {}
            }
        }));
    }

    async fn index_of(&self, table: &Table, file: &DataFile) -> Result<Arc<FileIndex>, RangeFault> {
        let key: Arc<str> = table.path(&file.path).as_ref().into();
        let load = async {
            let footer = file.size.saturating_sub(file.footer)..file.size;
            let tail = self.fetch(table, file, footer).await?;
            // A file of many row groups has a long one.
            Ok(self.work(move || FileIndex::parse(&tail)).await??)
        };
        let index = self.indexes.get(key, FileIndex::memory, load).await;
        index.map_err(|fault| RangeFault { fault, start: file.start, end: file.end })
    }

    async fn rows_of(
        &self,
        table: &Table,
        file: &DataFile,
        footer: &Arc<FileIndex>,
        group: usize,
    ) -> Result<Arc<Rows>, RangeFault> {
        let key: GroupKey = (table.path(&file.path).as_ref().into(), group);
        let load = async {
            let _permit = self.reads.acquire().await.map_err(|error| unavailable(&error))?;
            let bytes = self.fetch(table, file, footer.range(group)).await?;
            let footer = footer.clone();
            Ok(self.work(move || footer.decode(group, bytes)).await??)
        };
        let held = footer.groups().get(group);
        let (start, end) = held.map_or((file.start, file.end), |held| (held.first_offset, held.last_offset + 1));
        self.rows.get(key, Rows::memory, load).await.map_err(|fault| RangeFault { fault, start, end })
    }

    /// What it was filled with so far comes back even where more fails.
    async fn encode(&self, rows: Arc<Rows>, at: i64, read: Read, mut filling: Filling) -> (Filling, Result<(), Fault>) {
        let encoded = self.work(move || {
            let result = rows.encode(at, read.end_offset, read.max_bytes, read.codec, &mut filling);
            (filling, result)
        });
        match encoded.await {
            Ok((filling, result)) => (filling, result.map_err(|error| Fault::Damaged(error.to_string()))),
            Err(fault) => (Filling::default(), Err(fault)),
        }
    }

    async fn fetch(&self, table: &Table, file: &DataFile, range: std::ops::Range<u64>) -> Result<Bytes, Fault> {
        let path = table.path(&file.path);
        let expected = range.end.saturating_sub(range.start);
        match table.store().get_range(&path, range).await {
            Ok(bytes) if bytes.len() as u64 == expected => Ok(bytes),
            Ok(bytes) => Err(Fault::Damaged(format!("`{path}` ended after {} of {expected} bytes", bytes.len()))),
            Err(object_store::Error::NotFound { .. }) => Err(Fault::Missing(file.path.clone())),
            Err(error) => match table.store().head(&path).await {
                Ok(found) if found.size != file.size => {
                    Err(Fault::Damaged(format!("`{path}` has {} bytes instead of {}", found.size, file.size)))
                }
                _ => Err(Fault::Archive(store::error(error))),
            },
        }
    }

    /// As [`crate::log::archive::Archive::find_timestamp`].
    pub(super) async fn find_timestamp(
        &self,
        table: &Table,
        index: i32,
        start_offset: i64,
        timestamp: i64,
    ) -> Result<Option<TimestampedOffset>, ArchiveError> {
        for _ in 0..TRIES {
            let snapshot = table.snapshot(Duration::ZERO).await?;
            let Some(partition) = snapshot.partition(index) else { return Ok(None) };
            match self.first_at_or_after(table, partition, start_offset, timestamp).await {
                Ok(found) => return Ok(found),
                Err(fault) => self.resolve(table, index, fault).await?,
            }
        }
        Err(ArchiveError::Unavailable("the table's files changed too often meanwhile".to_owned()))
    }

    async fn first_at_or_after(
        &self,
        table: &Table,
        partition: &Partition,
        start_offset: i64,
        timestamp: i64,
    ) -> Result<Option<TimestampedOffset>, RangeFault> {
        let start = start_offset.max(partition.start);
        for file in partition.files_from(start).filter(|file| file.max_timestamp >= timestamp) {
            let footer = self.index_of(table, file).await?;
            for (group, held) in footer.groups().iter().enumerate() {
                if held.last_offset < start || held.max_timestamp < timestamp {
                    continue;
                }
                let rows = self.rows_of(table, file, &footer, group).await?;
                if let Some(found) = rows.first_at_or_after(start, timestamp) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// As [`crate::log::archive::Archive::find_max_timestamp`].
    pub(super) async fn find_max_timestamp(
        &self,
        table: &Table,
        index: i32,
        start_offset: i64,
    ) -> Result<Option<TimestampedOffset>, ArchiveError> {
        for _ in 0..TRIES {
            let snapshot = table.snapshot(Duration::ZERO).await?;
            let Some(partition) = snapshot.partition(index) else { return Ok(None) };
            match self.largest_timestamp(table, partition, start_offset).await {
                Ok(found) => return Ok(found),
                Err(fault) => self.resolve(table, index, fault).await?,
            }
        }
        Err(ArchiveError::Unavailable("the table's files changed too often meanwhile".to_owned()))
    }

    /// Looks into row groups by falling bounds of what they may hold, until none can hold more.
    async fn largest_timestamp(
        &self,
        table: &Table,
        partition: &Partition,
        start_offset: i64,
    ) -> Result<Option<TimestampedOffset>, RangeFault> {
        let start = start_offset.max(partition.start);
        let mut best: Option<TimestampedOffset> = None;
        let mut files: Vec<_> = partition.files_from(start).collect();
        files.sort_by_key(|file| (std::cmp::Reverse(file.max_timestamp), file.start));
        for file in files {
            if !could_beat(best.as_ref(), file.max_timestamp, file.start) {
                break;
            }
            let footer = self.index_of(table, file).await?;
            let mut groups: Vec<(usize, &RowGroup)> =
                footer.groups().iter().enumerate().filter(|(_, held)| held.last_offset >= start).collect();
            groups.sort_by_key(|(_, held)| (std::cmp::Reverse(held.max_timestamp), held.first_offset));
            for (group, held) in groups {
                if !could_beat(best.as_ref(), held.max_timestamp, held.first_offset) {
                    break;
                }
                let rows = self.rows_of(table, file, &footer, group).await?;
                let found = rows.largest_timestamp(start);
                best = found.filter(|found| could_beat(best.as_ref(), found.timestamp, found.offset)).or(best);
            }
        }
        Ok(best)
    }

    /// The batches of one row group, for upkeep; `None` after the last.
    pub(super) async fn row_group(
        &self,
        table: &Table,
        file: &DataFile,
        group: usize,
    ) -> Result<Option<Vec<StoredBatch>>, ArchiveError> {
        let told = |fault: RangeFault| match fault.fault {
            Fault::Archive(error) => error,
            Fault::Missing(path) => ArchiveError::Unavailable(format!("the file `{path}` is missing")),
            Fault::Damaged(text) => ArchiveError::Damaged { start_offset: fault.start, end_offset: fault.end, text },
        };
        let footer = self.index_of(table, file).await.map_err(told)?;
        if group >= footer.groups().len() {
            return Ok(None);
        }
        let rows = self.rows_of(table, file, &footer, group).await.map_err(told)?;
        let everything = Read {
            offset: file.start,
            max_bytes: usize::MAX,
            end_offset: file.end,
            codec: Codec::None,
            in_background: self.is_in_background,
        };
        let (filling, result) = self.encode(rows, file.start, everything, Filling::default()).await;
        result.map_err(|fault| told(RangeFault { fault, start: file.start, end: file.end }))?;
        Ok(Some(filling.batches))
    }
}

/// Whether something whose largest timestamp is at most this, and which begins at this offset, may come before the best so far.
fn could_beat(best: Option<&TimestampedOffset>, timestamp: i64, offset: i64) -> bool {
    best.is_none_or(|best| (timestamp, best.offset) > (best.timestamp, offset))
}

fn unavailable(error: &dyn std::fmt::Display) -> Fault {
    Fault::Archive(ArchiveError::Unavailable(error.to_string()))
}
