//! The cold tier on Delta Lake: one table per topic, in a folder or in a bucket of S3. `docs/archive.md` says what lies where.
//!
//! The table's log is read and written here, by its protocol, rather than by a library: what makes a commit safe (the next
//! version is put only where none is yet), and what a partition's bounds are (versions of applications in that log), is then in sight.

mod actions;
mod batches;
mod cache;
mod calendar;
mod checkpoint;
mod copy;
mod file;
mod leftovers;
mod listing;
mod reading;
mod rows;
mod schema;
mod snapshot;
mod store;
mod table;
mod upkeep;
mod writing;

#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use object_store::{ObjectStore, path::Path};
use parking_lot::Mutex;

use crate::{
    log::{
        archive::{Archive, ArchiveError, ColdBounds, ColdCopy, FileOptions},
        store::{Read, StoredBatch, TimestampedOffset},
    },
    model::{PartitionId, TopicId, TopicName},
    tasks::Tasks,
};
use reading::Reader;
use table::Table;
use writing::Uploads;

/// Files of all tables that are known at once; tables that were not used for longest are forgotten, and read again when needed.
const KNOWN_FILES: usize = 1_000_000;

/// What upkeep reads is kept in no more memory than this.
const UPKEEP_CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Where the archive is, and how it is kept.
#[derive(Clone, Debug)]
pub struct DeltaOptions {
    /// `file:///folder` or `s3://bucket/prefix`.
    pub url: String,
    /// Of an S3-compatible server (`http://…` or `https://…`); AWS itself if there is none.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`, as MinIO and most others want it.
    pub path_style: bool,
    /// Instead of those that the environment has (`AWS_ACCESS_KEY_ID` and so on, a role of the machine or container).
    pub credentials: Option<Credentials>,
    /// One request to the store.
    pub request_timeout: Duration,
    /// Of a request that failed inside the store, or on the way.
    pub retries: usize,
    /// 1 to 22.
    pub zstd_level: i32,
    /// Rows that were read, in memory; footers take a quarter of it besides.
    pub cache_bytes: usize,
    /// What upkeep makes of small files; what is less than half of it is small.
    pub file_bytes: u64,
    /// So many small files in a row, and upkeep joins them. A run that can't grow any more is joined from two on.
    pub join_files: usize,
    /// Versions between two checkpoints.
    pub checkpoint_interval: i64,
    /// How long a file that was taken out of the table stays, for readers with an older version of it.
    pub keep_removed: Duration,
    /// How long a version stays in the log, for who wants to look at an older one.
    pub keep_versions: Duration,
}

#[derive(Clone)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl DeltaOptions {
    /// Everything but the place as it is by default.
    pub fn at(url: &str) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3_600);
        Self {
            url: url.to_owned(),
            endpoint: None,
            region: None,
            path_style: false,
            credentials: None,
            request_timeout: Duration::from_secs(30),
            retries: 3,
            zstd_level: 3,
            cache_bytes: 128 * 1024 * 1024,
            file_bytes: 128 * 1024 * 1024,
            join_files: 8,
            checkpoint_interval: 20,
            keep_removed: DAY,
            keep_versions: 7 * DAY,
        }
    }
}

pub struct DeltaArchive {
    store: Arc<dyn ObjectStore>,
    root: Path,
    options: DeltaOptions,
    reader: Arc<Reader>,
    /// Upkeep reads each file once: that must not drive out what consumers read.
    upkeep_reader: Arc<Reader>,
    tasks: Tasks,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    by_topic: HashMap<TopicId, (Arc<Table>, u64)>,
    clock: u64,
}

impl DeltaArchive {
    /// Nothing is asked of the store yet; a folder is made.
    ///
    /// # Errors
    /// [`ArchiveError::Refused`] for a URL or settings that make no sense.
    pub fn open(options: DeltaOptions, tasks: Tasks) -> Result<Self, ArchiveError> {
        let (store, root) = store::open(&options)?;
        let reader = Arc::new(Reader::new(tasks.clone(), options.cache_bytes));
        let upkeep_reader = Arc::new(Reader::new(tasks.clone(), UPKEEP_CACHE_BYTES).in_background());
        Ok(Self { store, root, options, reader, upkeep_reader, tasks, tables: Mutex::default() })
    }

    /// The place of a topic's table, below the archive's URL.
    fn table_root(&self, topic: &TopicName, topic_id: TopicId) -> Path {
        // What a path can't have is percent-encoded here. Two folders, since the two names together may be too long for one.
        self.root.clone().join(topic.as_str()).join(topic_id.to_string())
    }

    fn table(&self, topic: &TopicName, topic_id: TopicId) -> Arc<Table> {
        let mut tables = self.tables.lock();
        tables.clock += 1;
        let now = tables.clock;
        if let Some((table, used)) = tables.by_topic.get_mut(&topic_id) {
            *used = now;
            return table.clone();
        }
        let table = Arc::new(Table::new(self.store.clone(), self.table_root(topic, topic_id)));
        tables.by_topic.insert(topic_id, (table.clone(), now));
        tables.forget_old();
        table
    }

    /// Row groups and footers of consumers that are in memory.
    #[cfg(test)]
    fn cached(&self) -> (usize, usize) {
        self.reader.cached()
    }

    fn table_of(&self, partition: &PartitionId) -> Arc<Table> {
        self.table(&partition.topic, partition.topic_id)
    }
}

impl Tables {
    fn forget_old(&mut self) {
        while self.by_topic.len() > 1
            && self.by_topic.values().map(|(table, _)| table.known().file_count()).sum::<usize>() > KNOWN_FILES
        {
            let oldest = self.by_topic.iter().min_by_key(|(_, (_, used))| *used).map(|(topic_id, _)| *topic_id);
            let Some(oldest) = oldest else { return };
            self.by_topic.remove(&oldest);
        }
    }
}

#[async_trait]
impl Archive for DeltaArchive {
    async fn bounds(&self, partition: &PartitionId) -> Result<Option<ColdBounds>, ArchiveError> {
        let snapshot = self.table_of(partition).snapshot(Duration::ZERO).await?;
        Ok(snapshot.partition(partition.index).map(|partition| partition.bounds()))
    }

    async fn begin(
        &self,
        partition: &PartitionId,
        from: i64,
        files: FileOptions,
    ) -> Result<Box<dyn ColdCopy>, ArchiveError> {
        let uploads = Uploads::new(self.table_of(partition), partition.index, self.tasks.clone());
        let copy = copy::Copy::begin(uploads, from, files.zstd_level.unwrap_or(self.options.zstd_level)).await?;
        Ok(Box::new(copy))
    }

    async fn read(&self, partition: &PartitionId, read: Read) -> Result<Vec<StoredBatch>, ArchiveError> {
        self.reader.read(&self.table_of(partition), partition.index, read).await
    }

    async fn find_timestamp(
        &self,
        partition: &PartitionId,
        start_offset: i64,
        timestamp: i64,
    ) -> Result<Option<TimestampedOffset>, ArchiveError> {
        let table = self.table_of(partition);
        self.reader.find_timestamp(&table, partition.index, start_offset, timestamp).await
    }

    async fn find_max_timestamp(
        &self,
        partition: &PartitionId,
        start_offset: i64,
    ) -> Result<Option<TimestampedOffset>, ArchiveError> {
        let table = self.table_of(partition);
        self.reader.find_max_timestamp(&table, partition.index, start_offset).await
    }

    async fn expired(
        &self,
        partition: &PartitionId,
        before_timestamp: Option<i64>,
        max_bytes: Option<u64>,
    ) -> Result<i64, ArchiveError> {
        let snapshot = self.table_of(partition).snapshot(Duration::ZERO).await?;
        let found = snapshot.partition(partition.index);
        Ok(found.map_or(0, |partition| upkeep::expired(partition, before_timestamp, max_bytes)))
    }

    async fn delete_before(&self, partition: &PartitionId, before_offset: i64) -> Result<ColdBounds, ArchiveError> {
        upkeep::delete_before(&self.table_of(partition), partition.index, before_offset).await
    }

    async fn delete_topic(&self, topic: &TopicName, topic_id: TopicId) -> Result<(), ArchiveError> {
        self.tables.lock().by_topic.remove(&topic_id);
        let root = self.table_root(topic, topic_id);
        upkeep::delete_table(&self.store, &root).await?;
        match store::folder(&self.options.url, &root) {
            Some(folder) => leftovers::remove_folder(folder).await,
            None => Ok(()),
        }
    }

    async fn tidy(&self, topic: &TopicName, topic_id: TopicId, files: FileOptions) -> Result<(), ArchiveError> {
        let options = DeltaOptions {
            zstd_level: files.zstd_level.unwrap_or(self.options.zstd_level),
            file_bytes: files.file_bytes.unwrap_or(self.options.file_bytes),
            ..self.options.clone()
        };
        let table = self.table(topic, topic_id);
        upkeep::tidy(&table, &self.upkeep_reader, &options, &self.tasks).await?;
        match store::folder(&self.options.url, table.root()) {
            Some(folder) => leftovers::remove_staged(folder, upkeep::ABANDONED).await,
            None => Ok(()),
        }
    }
}
