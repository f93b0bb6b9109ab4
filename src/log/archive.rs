//! What the log needs of its cold tier: a written contract, implemented by `storage` where the feature `archive` is built.
//!
//! The archive holds a prefix of each partition: every record from its start up to its end. Several brokers may call it for one
//! partition at once; it decides atomically.

use async_trait::async_trait;

use super::{
    durability::Life,
    store::{LogState, Read, StoreError, StoredBatch, TimestampedOffset},
};
use crate::model::{PartitionId, TopicId, TopicName};

/// Why the archive did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArchiveError {
    /// Worth another try: it can't be reached, is slow, or failed inside.
    #[error("the archive can't be reached: {0}")]
    Unavailable(String),
    /// Only the operator can mend it: credentials, permissions, a bucket that is not there.
    #[error("the archive refuses: {0}")]
    Refused(String),
    /// Another copy of this partition was committed meanwhile, or this one already.
    #[error("the archive already ends at offset {end_offset}")]
    Overtaken { end_offset: i64 },
    /// What is stored for these offsets (`end_offset` exclusive) can't be read; the rest can.
    #[error("the archive's copy of the offsets {start_offset} to {end_offset} is damaged: {text}")]
    Damaged { start_offset: i64, end_offset: i64, text: String },
}

/// What the archive has of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ColdBounds {
    /// The first offset that is there.
    pub start_offset: i64,
    /// The offset after the last one that is there; what is copied next begins with it.
    pub end_offset: i64,
    /// The largest record timestamp, -1 while there is none.
    pub max_timestamp: i64,
    /// Bytes at rest.
    pub size_bytes: u64,
}

/// How a topic's files are written where its configs say so; else as the archive's own settings say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileOptions {
    /// At what size a file is closed, about.
    pub file_bytes: Option<u64>,
    /// 1 to 22.
    pub zstd_level: Option<i32>,
}

#[async_trait]
pub trait Archive: Send + Sync + 'static {
    /// `None` while nothing of the partition is there.
    async fn bounds(&self, partition: &PartitionId) -> Result<Option<ColdBounds>, ArchiveError>;

    /// Begins a copy of what follows the archive's end: `from` is that end, or where the copy begins if nothing is there yet.
    ///
    /// # Errors
    /// [`ArchiveError::Overtaken`] when `from` is not the end.
    async fn begin(
        &self,
        partition: &PartitionId,
        from: i64,
        files: FileOptions,
    ) -> Result<Box<dyn ColdCopy>, ArchiveError>;

    /// As [`super::store::LogStore::read`], of the archive's part of the log. Sequential reads are read ahead and cached
    /// within a bound. Another process may have copied more: where by what is known here nothing is there, it looks again.
    async fn read(&self, partition: &PartitionId, read: Read) -> Result<Vec<StoredBatch>, ArchiveError>;

    /// The first archived record at or after `start_offset` whose own timestamp is at least `timestamp`.
    async fn find_timestamp(
        &self,
        partition: &PartitionId,
        start_offset: i64,
        timestamp: i64,
    ) -> Result<Option<TimestampedOffset>, ArchiveError>;

    /// The first archived record at or after `start_offset` that has the largest timestamp of these.
    async fn find_max_timestamp(
        &self,
        partition: &PartitionId,
        start_offset: i64,
    ) -> Result<Option<TimestampedOffset>, ArchiveError>;

    /// Of the whole log's oldest records, those that retention by time or size may remove: the offset up to which (exclusive)
    /// records are older than `before_timestamp`, or lie beyond the newest `max_bytes` at rest. In steps of a file.
    async fn expired(
        &self,
        partition: &PartitionId,
        before_timestamp: Option<i64>,
        max_bytes: Option<u64>,
    ) -> Result<i64, ArchiveError>;

    /// Removes what lies wholly below `before_offset`; a file that holds more stays, and is not read below it.
    async fn delete_before(&self, partition: &PartitionId, before_offset: i64) -> Result<ColdBounds, ArchiveError>;

    /// Removes the topic's table. Repeating it is harmless.
    async fn delete_topic(&self, topic: &TopicName, topic_id: TopicId) -> Result<(), ArchiveError>;

    /// The table's upkeep: joins small files, writes a checkpoint, removes files that no version needs any more.
    async fn tidy(&self, topic: &TopicName, topic_id: TopicId, files: FileOptions) -> Result<(), ArchiveError>;
}

/// A copy under way. Dropped without a commit, it leaves nothing that a reader sees.
#[async_trait]
pub trait ColdCopy: Send {
    /// Batches in order. They are copied whole. Offsets may be missing between them, also before the first: records that
    /// somebody deleted. The archive then ends after the last batch, and reads go on behind the gap.
    async fn write(&mut self, batches: &[StoredBatch]) -> Result<(), ArchiveError>;

    /// About the bytes at rest so far; the caller commits when a file is large enough.
    fn size_bytes(&self) -> u64;

    /// Makes all of it readable in one step.
    ///
    /// # Errors
    /// [`ArchiveError::Overtaken`] when the archive's end is not where this copy began any more, or a leader of a newer epoch has
    /// committed.
    async fn commit(self: Box<Self>, leader_epoch: i32) -> Result<ColdBounds, ArchiveError>;
}

/// What the storage notes of the archive's part of a partition, in one step with the log's own bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cold {
    /// The start is the log's: what lies below it was removed, though a file that holds more may stay.
    pub bounds: ColdBounds,
    /// Retention removes nothing from the storage that is not archived.
    pub holds_back: bool,
}

impl Cold {
    /// Nothing of the log is there, or nothing any more.
    pub fn is_empty(&self) -> bool {
        self.bounds.start_offset >= self.bounds.end_offset
    }
}

/// Where it is noted what the archive has: the storage, so that a broker with a stale view can't remove what is not archived.
#[async_trait]
pub trait ColdNotes: Send + Sync + 'static {
    /// Replaces `expected` by `cold` where it is still what is noted and `leader_epoch` is the partition's; returns the state
    /// after it, whatever it is. Where `expected` is of nothing archived, the log does not start below where it does: what was
    /// deleted meanwhile does not come back. Other brokers hear of it.
    ///
    /// # Errors
    /// [`StoreError::FencedLeader`] when a newer leader has claimed the partition.
    async fn note_cold(
        &self,
        partition: &PartitionId,
        expected: Option<Cold>,
        cold: Option<Cold>,
        leader_epoch: i32,
    ) -> Result<LogState, StoreError>;

    /// Whether the end of the log was compared with the archive's in this life of the storage, or the log began in it: then nothing
    /// that is archived is lost.
    async fn is_compared(&self, partition: &PartitionId, life: &Life) -> Result<bool, StoreError>;

    /// Notes that in `life` the end of the log was compared with the archive's. Where the log ends before `cold` does, the storage
    /// has lost what the archive has: the log goes on behind it, none of what lies below stays in the storage, and `cold` is noted.
    /// Returns the state after it.
    ///
    /// # Errors
    /// [`StoreError::FencedLeader`] when another leader has claimed the partition.
    async fn follow_archive(
        &self,
        partition: &PartitionId,
        cold: Cold,
        leader_epoch: i32,
        life: &Life,
    ) -> Result<LogState, StoreError>;

    /// The topics that have, or may have, a table.
    async fn tables(&self) -> Result<Vec<Table>, StoreError>;

    /// Notes that a topic may have a table from now on, or that it is being removed; removes the note of one that is gone.
    /// A table that is being removed stays so until it is gone.
    async fn note_table(&self, table: &Table, change: TableChange) -> Result<(), StoreError>;
}

/// A topic that has a table in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub topic: TopicName,
    pub topic_id: TopicId,
    /// Nothing is copied into it any more.
    pub is_leaving: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableChange {
    Begins,
    Leaves,
    Gone,
}
