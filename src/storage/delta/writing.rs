//! Rows become files: split by day, cut into row groups, uploaded as they are encoded.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use object_store::{ObjectStoreExt, buffered::BufWriter};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use super::{
    calendar,
    file::{FileEncoder, FileError},
    rows::RowBuilder,
    snapshot::{DataFile, statistics},
    store,
    table::{Table, now_ms},
};
use crate::{
    log::{archive::ArchiveError, store::StoredBatch},
    protocol::records::{Batch, MalformedRecords, NO_TIMESTAMP, RecordView},
    tasks::{Tasks, in_background},
};

/// A row group is cut when its rows take this much before they are encoded, or are so many: what a seek reads and decodes.
const ROW_GROUP_BYTES: usize = 4 * 1024 * 1024;
const ROW_GROUP_ROWS: usize = 64 * 1024;
/// What one batch may decompress to.
const MAX_DECOMPRESSED_BYTES: usize = 1024 * 1024 * 1024;
/// Uploaded at once, and kept in memory for it.
const UPLOAD_PART_BYTES: usize = 8 * 1024 * 1024;
/// A copy that is stopped is not waited for longer.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("a batch can't be read: {0}")]
    Batch(String),
    #[error(transparent)]
    Records(#[from] MalformedRecords),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Arrow(#[from] arrow_schema::ArrowError),
}

impl From<WriteError> for ArchiveError {
    fn from(error: WriteError) -> Self {
        ArchiveError::Refused(error.to_string())
    }
}

/// What the encoder has made, in order.
enum Made {
    Begin { date: Option<String> },
    Bytes(Bytes),
    End(Finished),
}

/// A file's contents, all handed out.
struct Finished {
    date: Option<String>,
    start: i64,
    end: i64,
    footer: u64,
    max_timestamp: i64,
    stats: String,
}

/// The file that is being written.
struct OpenFile {
    encoder: FileEncoder,
    date: Option<String>,
    start: i64,
    rows: u64,
    without_timestamp: u64,
    timestamps: Option<(i64, i64)>,
    group_max_timestamp: i64,
    size: u64,
}

impl OpenFile {
    fn count(&mut self, timestamp: i64) {
        self.rows += 1;
        self.group_max_timestamp = self.group_max_timestamp.max(timestamp);
        if timestamp != NO_TIMESTAMP && (calendar::FIRST_MS..=calendar::LAST_MS).contains(&timestamp) {
            let (first, last) = self.timestamps.unwrap_or((timestamp, timestamp));
            self.timestamps = Some((first.min(timestamp), last.max(timestamp)));
        } else {
            self.without_timestamp += 1;
        }
    }
}

/// Rows in, bytes of files out; knows no store.
pub(super) struct Encoder {
    zstd_level: i32,
    builder: RowBuilder,
    open: Option<OpenFile>,
    made: VecDeque<Made>,
    /// The offset after the last that was pushed: where the next file begins.
    next_offset: i64,
    /// The largest timestamp of what was pushed: its day is the file's.
    running_max: i64,
    finished_bytes: u64,
}

impl Encoder {
    pub(super) fn new(zstd_level: i32, next_offset: i64) -> Self {
        Self {
            zstd_level,
            builder: RowBuilder::new(),
            open: None,
            made: VecDeque::new(),
            next_offset,
            running_max: NO_TIMESTAMP,
            finished_bytes: 0,
        }
    }

    pub(super) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Nothing was pushed yet: the first file begins here.
    pub(super) fn begin_at(&mut self, offset: i64) {
        self.next_offset = offset;
    }

    /// Runs `work`, which encodes much, where clients need not wait for it.
    pub(super) async fn in_background(
        mut self,
        work: impl FnOnce(&mut Self) -> Result<(), WriteError> + Send + 'static,
    ) -> Result<Self, ArchiveError> {
        let worked = in_background(move || work(&mut self).map(|()| self)).await;
        Ok(worked.map_err(|error| ArchiveError::Unavailable(error.to_string()))??)
    }

    /// About the bytes at rest; rows that are not yet encoded count a quarter.
    pub(super) fn size(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |open| open.size);
        self.finished_bytes + open + self.builder.bytes() as u64 / 4
    }

    /// The records of the batch that are not below the next offset.
    pub(super) fn push_batch(&mut self, stored: &StoredBatch) -> Result<(), WriteError> {
        let batch = Batch::parse(stored.batch.to_bytes()).map_err(|error| WriteError::Batch(error.to_string()))?;
        let records = batch.records(MAX_DECOMPRESSED_BYTES)?;
        for record in &records {
            let record = record?;
            if record.offset < self.next_offset {
                continue;
            }
            self.begin_record(&record)?;
            self.builder.push(records.header(), &record);
            self.next_offset = record.offset + 1;
            self.end_record(record.timestamp)?;
        }
        self.next_offset = self.next_offset.max(stored.last_offset + 1);
        Ok(())
    }

    /// Opens a file if none is open, or the open one is of another day.
    fn begin_record(&mut self, record: &RecordView<'_>) -> Result<(), WriteError> {
        let before = self.running_max;
        self.running_max = before.max(record.timestamp);
        let same_day = calendar::day(before) == calendar::day(self.running_max) && before != NO_TIMESTAMP;
        if self.open.is_some() && self.running_max != before && !same_day {
            self.end_file()?;
        }
        let date = Some(self.running_max).filter(|max| *max != NO_TIMESTAMP).and_then(calendar::date);
        self.begin_file(date)
    }

    fn begin_file(&mut self, date: Option<String>) -> Result<(), WriteError> {
        if self.open.is_none() {
            self.made.push_back(Made::Begin { date: date.clone() });
            self.open = Some(OpenFile {
                encoder: FileEncoder::new(self.zstd_level)?,
                date,
                start: self.next_offset,
                rows: 0,
                without_timestamp: 0,
                timestamps: None,
                group_max_timestamp: NO_TIMESTAMP,
                size: 0,
            });
        }
        Ok(())
    }

    fn end_record(&mut self, timestamp: i64) -> Result<(), WriteError> {
        if let Some(open) = &mut self.open {
            open.count(timestamp);
        }
        if self.builder.bytes() >= ROW_GROUP_BYTES || self.builder.rows() >= ROW_GROUP_ROWS {
            self.end_row_group()?;
        }
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<(), WriteError> {
        if self.builder.rows() == 0 {
            return Ok(());
        }
        let rows = self.builder.finish()?;
        let Some(open) = &mut self.open else { return Ok(()) };
        let bytes = open.encoder.write(&rows, open.group_max_timestamp)?;
        open.group_max_timestamp = NO_TIMESTAMP;
        open.size += bytes.len() as u64;
        self.made.push_back(Made::Bytes(bytes));
        Ok(())
    }

    /// Ends the open file where the next offset is.
    pub(super) fn end_file(&mut self) -> Result<(), WriteError> {
        self.end_row_group()?;
        let Some(open) = self.open.take() else { return Ok(()) };
        let (footer, groups) = open.encoder.finish()?;
        let offsets = groups.first().zip(groups.last()).map(|(first, last)| (first.first_offset, last.last_offset));
        self.finished_bytes += open.size + footer.len() as u64;
        self.made.push_back(Made::Bytes(footer.clone()));
        self.made.push_back(Made::End(Finished {
            date: open.date,
            start: open.start,
            end: self.next_offset,
            footer: footer.len() as u64,
            max_timestamp: groups.iter().map(|group| group.max_timestamp).max().unwrap_or(NO_TIMESTAMP),
            stats: statistics(
                open.rows,
                offsets.unwrap_or((open.start, open.start)),
                open.timestamps,
                open.without_timestamp,
            ),
        }));
        Ok(())
    }

    /// The next file, or the end of this one, begins here, though no record does.
    pub(super) fn skip_to(&mut self, offset: i64) {
        self.next_offset = self.next_offset.max(offset);
    }
}

/// Takes what an encoder makes to the table's folder. Dropped before [`Uploads::kept`], it removes it again.
pub(super) struct Uploads {
    table: Arc<Table>,
    partition: i32,
    tasks: Tasks,
    open: Option<Upload>,
    files: Vec<DataFile>,
}

struct Upload {
    /// Below the table.
    path: String,
    writer: BufWriter,
    size: u64,
}

impl Uploads {
    pub(super) fn new(table: Arc<Table>, partition: i32, tasks: Tasks) -> Self {
        Self { table, partition, tasks, open: None, files: Vec::new() }
    }

    pub(super) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    pub(super) fn partition(&self) -> i32 {
        self.partition
    }

    /// The files are whole, and whoever asks decides what becomes of them.
    pub(super) fn kept(mut self) -> Vec<DataFile> {
        std::mem::take(&mut self.files)
    }

    /// Uploads what was made since. A file's object is not there until the file is whole.
    pub(super) async fn take(&mut self, encoder: &mut Encoder) -> Result<(), ArchiveError> {
        while let Some(made) = encoder.made.pop_front() {
            match made {
                Made::Begin { date } => {
                    let path = file_path(self.partition, date.as_deref());
                    let place = self.table.path(&path);
                    let writer = BufWriter::with_capacity(self.table.store().clone(), place, UPLOAD_PART_BYTES);
                    self.open = Some(Upload { path, writer, size: 0 });
                }
                Made::Bytes(bytes) => {
                    let Some(upload) = &mut self.open else { continue };
                    upload.size += bytes.len() as u64;
                    upload.writer.put(bytes).await.map_err(store::error)?;
                }
                Made::End(finished) => {
                    let Some(mut upload) = self.open.take() else { continue };
                    upload.writer.shutdown().await.map_err(|error| store::error(unwrap_io(error)))?;
                    self.files.push(DataFile {
                        path: upload.path,
                        partition: self.partition,
                        date: finished.date,
                        start: finished.start,
                        end: finished.end,
                        max_timestamp: finished.max_timestamp,
                        size: upload.size,
                        footer: finished.footer,
                        modified: now_ms(),
                        stats: finished.stats,
                    });
                }
            }
        }
        Ok(())
    }

    /// Removes what was uploaded, as far as that is possible; upkeep removes the rest.
    pub(super) async fn discard(mut self) {
        remove(&self.table, self.open.take(), &std::mem::take(&mut self.files)).await;
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        let (table, open, files) = (self.table.clone(), self.open.take(), std::mem::take(&mut self.files));
        let is_nothing_left = open.is_none() && files.is_empty();
        if is_nothing_left || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let removal = async move {
            drop(tokio::time::timeout(REMOVAL_PATIENCE, remove(&table, open, &files)).await);
        };
        self.tasks.spawn("archive-discard", removal);
    }
}

/// Also the parts of an upload that was not ended, which nothing else finds.
async fn remove(table: &Table, open: Option<Upload>, files: &[DataFile]) {
    if let Some(mut upload) = open {
        drop(upload.writer.abort().await);
        drop(table.store().delete(&table.path(&upload.path)).await);
    }
    remove_files(table, files).await;
}

/// Files that no version names.
pub(super) async fn remove_files(table: &Table, files: &[DataFile]) {
    for file in files {
        drop(table.store().delete(&table.path(&file.path)).await);
    }
}

/// Hive's names, which every reader knows; a null has a name of its own there.
fn file_path(partition: i32, date: Option<&str>) -> String {
    let date = date.unwrap_or("__HIVE_DEFAULT_PARTITION__");
    format!("partition={partition}/date={date}/{}.parquet", Uuid::new_v4())
}

fn unwrap_io(error: std::io::Error) -> object_store::Error {
    let text = error.to_string();
    match error.into_inner().map(|inner| inner.downcast::<object_store::Error>()) {
        Some(Ok(error)) => *error,
        _ => object_store::Error::Generic { store: "archive", source: text.into() },
    }
}
