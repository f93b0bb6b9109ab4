//! What the log needs of a storage: a written contract, implemented by `storage`.
//!
//! Every method may be called for the same partition by several tasks and several brokers at once; the storage decides
//! atomically. No method is cancel-safe in the sense of undoing: a dropped write may have happened.

use std::collections::HashSet;

use async_trait::async_trait;

use super::archive::Cold;
use crate::{
    model::PartitionId,
    protocol::records::{Codec, PlacedBatch, TimestampType, ValidatedBatch},
};

/// Why a storage did not do what it was asked, and whether it may have happened.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// Nothing reached the storage: nothing happened.
    #[error("the storage can't be reached: {0}")]
    NotSent(String),
    /// The answer was lost: it may have happened.
    #[error("the storage's answer was lost: {0}")]
    OutcomeUnknown(String),
    /// The storage is out of memory; nothing happened.
    #[error("the storage is out of memory")]
    OutOfMemory,
    /// The storage is up but not ready (Redis loads its data, a replica has no master); nothing happened.
    #[error("the storage is not ready: {0}")]
    NotReady(String),
    /// The storage refused the command; nothing happened.
    #[error("the storage refused: {0}")]
    Refused(String),
    /// The partition of this topic id is not there: deleted, or another topic of the same name took its place.
    #[error("the partition does not exist")]
    NoSuchPartition,
    /// The partition's data and its state disagree (somebody else wrote to or deleted the stream). Appends fail until
    /// it is repaired; the text names the cause and the ID.
    #[error("the partition is quarantined: {0}")]
    Quarantined(String),
    /// Another broker leads with a newer epoch.
    #[error("a newer leader has epoch {0}")]
    FencedLeader(i32),
}

/// How entries of a topic are laid out when they are written; readers tell the layouts apart entry by entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One entry per record, readable in Redis.
    Record(ValueFormat),
    /// One entry per record batch, as the client sent it.
    Batch,
}

/// How a record's value is stored in the `record` layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueFormat {
    /// JSON objects are flattened where that gives back identical bytes.
    Auto,
    /// Always one field `value`.
    Raw,
    /// As `Auto`, but a value that is not a JSON object is refused.
    Json,
}

/// Limits of a log; `None` is no limit. All `None` where the topic's policy lacks `delete`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Records whose running maximum timestamp is below this are removed (exclusive bound in ms: now - retention.ms).
    pub before_timestamp: Option<i64>,
    /// Keep at most about this many bytes of wire batches.
    pub max_bytes: Option<u64>,
    /// Keep at most about this many records (`weir.retention.records`).
    pub max_records: Option<u64>,
    pub hold: Hold,
}

impl Retention {
    pub fn has_limits(&self) -> bool {
        self.before_timestamp.is_some() || self.max_bytes.is_some() || self.max_records.is_some()
    }
}

/// What retention must leave alone, besides what was written since the last check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// What the storage has noted ([`Cold::holds_back`]).
    #[default]
    AsNoted,
    /// What is not archived.
    Unarchived,
    /// Nothing: records may go that are nowhere else.
    Nothing,
}

/// What the storage knows of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The first offset that can be read, be it from the archive.
    pub log_start_offset: i64,
    /// The first offset that the storage itself has.
    pub local_start_offset: i64,
    /// The offset of the next record; also the high watermark, and the last stable offset while there are no transactions.
    pub next_offset: i64,
    pub leader_epoch: i32,
    /// Epoch and the first offset written in it, oldest first; empty while nothing was written.
    pub epoch_starts: Vec<(i32, i64)>,
    /// The largest record timestamp so far, -1 while there is none.
    pub max_timestamp: i64,
    /// Bytes of wire batches between the local start and the end, as DescribeLogDirs reports them.
    pub size_bytes: u64,
    /// What is noted of the archive; none without a cold tier.
    pub cold: Option<Cold>,
}

impl LogState {
    /// Offsets below this are archived.
    pub fn archived_end_offset(&self) -> i64 {
        self.cold.map_or(self.log_start_offset, |cold| cold.bounds.end_offset)
    }

    /// Takes over what an otherwise older state has newer: the archive's part of the log only grows, and its start only moves on.
    /// Whether it was any.
    pub(super) fn learn_cold(&mut self, other: &LogState) -> bool {
        let place = |state: &LogState| state.cold.map(|cold| (cold.bounds.end_offset, cold.bounds.start_offset));
        if other.leader_epoch != self.leader_epoch || place(other) <= place(self) {
            return false;
        }
        self.cold = other.cold;
        self.log_start_offset = self.log_start_offset.max(other.log_start_offset);
        self.local_start_offset = self.local_start_offset.max(other.local_start_offset);
        true
    }

    /// Records before this offset are deleted. Whether the log did not start there already.
    pub(super) fn move_start(&mut self, log_start_offset: i64) -> bool {
        if log_start_offset <= self.log_start_offset {
            return false;
        }
        self.log_start_offset = log_start_offset;
        self.local_start_offset = self.local_start_offset.max(log_start_offset);
        if let Some(Cold { bounds, .. }) = &mut self.cold {
            bounds.start_offset = bounds.start_offset.max(log_start_offset.min(bounds.end_offset));
        }
        true
    }

    /// What is known to be deleted does not come back with a state that was read before: within an epoch the start goes back only
    /// to an archive that is new to the log.
    pub(super) fn keep_start_of(&mut self, known: &LogState) {
        let archive_is_new = known.cold.is_none() && self.cold.is_some();
        if known.leader_epoch == self.leader_epoch && !archive_is_new {
            self.move_start(known.log_start_offset);
        }
    }

    /// About the bytes that are not archived yet: in proportion to their offsets.
    pub fn unarchived_bytes(&self) -> u64 {
        let there = self.next_offset.saturating_sub(self.local_start_offset);
        let missing = self.next_offset.saturating_sub(self.archived_end_offset().max(self.local_start_offset));
        match (u128::try_from(there), u128::try_from(missing)) {
            (Ok(there @ 1..), Ok(missing)) => {
                u64::try_from(u128::from(self.size_bytes) * missing / there).unwrap_or(u64::MAX)
            }
            _ => 0,
        }
    }
}

/// Who takes the lead of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub epoch: i32,
    /// Node id and incarnation.
    pub leader: String,
}

/// Batches that go to one partition in one atomic step.
#[derive(Clone, Debug)]
pub struct Append {
    /// At least one. Each is judged by itself: an idempotent duplicate among them does not hold up the others.
    pub batches: Vec<ValidatedBatch>,
    pub layout: Layout,
    pub timestamp_type: TimestampType,
    /// The broker's clock: the timestamp of `LogAppendTime` records, and the last use of a producer's state.
    pub now_ms: i64,
    /// What the append trims when it is done. Never past the end that the log had at the last [`LogStore::retain`].
    pub retention: Retention,
    /// The epoch this broker leads with.
    pub leader_epoch: i32,
    /// Where the leader knows the log to end, at least. A storage that has less has lost records, and must not give their
    /// offsets to others before the leader knows: it answers [`StoreError::NotReady`].
    pub known_end: i64,
    /// Producers that were not heard of since this time are forgotten (ms; `producer.id.expiration.ms`).
    pub producers_expire_before_ms: i64,
    /// Places of batches behind one of their producer's that was not taken and may come yet. They are out of order where the
    /// storage would take any sequence number: from a producer of which nothing is known, or behind what was lost.
    pub behind_passed_over: HashSet<usize>,
}

/// Where a batch landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: i64,
    /// For `LogAppendTime` the time that its records got, else -1; for a duplicate the largest timestamp of its records
    /// (as Kafka answers).
    pub log_append_time_ms: i64,
    /// The batch is an idempotent producer's repetition: `base_offset` is the first answer's, nothing was stored.
    pub duplicate: bool,
    /// The batch as consumers get it (base offset, epoch and times filled in); `None` for a duplicate.
    pub stored: Option<StoredBatch>,
}

/// Why one batch was not taken, though the storage works.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AppendRefusal {
    #[error("the sequence number is out of order")]
    OutOfOrderSequence,
    #[error("the sequence number is an old one, not among the last five batches")]
    DuplicateSequence,
    #[error("the producer's epoch is older than one seen before")]
    FencedProducer,
    /// Kafka's UNKNOWN_PRODUCER_ID has the log start in its answer.
    #[error("nothing is known of this producer, and its first sequence number is not 0")]
    UnknownProducer,
    #[error("the value of record {record_index} is not a JSON object")]
    NotJson { record_index: i32 },
    #[error("the batch has too many records or bytes for the record layout")]
    TooLarge,
}

/// What an append did to the log as a whole.
#[derive(Clone, Debug)]
pub struct AppendOutcome {
    /// One for each batch of the request, in order.
    pub batches: Vec<Result<Appended, AppendRefusal>>,
    pub log_start_offset: i64,
    pub local_start_offset: i64,
    pub next_offset: i64,
    pub max_timestamp: i64,
    pub size_bytes: u64,
}

/// A batch as the wire has it, with the offsets it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    pub base_offset: i64,
    /// Inclusive.
    pub last_offset: i64,
    /// The largest record timestamp in it.
    pub max_timestamp: i64,
    pub batch: PlacedBatch,
}

impl StoredBatch {
    /// Bytes as the wire has it.
    pub fn size(&self) -> usize {
        self.batch.size()
    }

    /// How many offsets it covers.
    pub fn count(&self) -> u64 {
        u64::try_from(self.last_offset - self.base_offset + 1).unwrap_or(0)
    }
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Reading starts with the batch that holds this offset.
    pub offset: i64,
    /// Stop before the batch that would pass this many bytes; the first batch is always returned.
    pub max_bytes: usize,
    /// Nothing from this offset on is returned (exclusive).
    pub end_offset: i64,
    /// How `record` entries are encoded.
    pub codec: Codec,
    /// No client waits for it: what takes long gives way to those that do.
    pub in_background: bool,
}

impl Read {
    /// For who encodes it another way, and has time.
    pub fn for_copy(offset: i64, max_bytes: usize, end_offset: i64) -> Self {
        Self { offset, max_bytes, end_offset, codec: Codec::None, in_background: true }
    }
}

/// A record's place and time, for ListOffsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampedOffset {
    pub offset: i64,
    pub timestamp: i64,
    pub leader_epoch: i32,
}

/// What is known of one idempotent producer, for DescribeProducers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    pub id: i64,
    pub epoch: i16,
    /// -1 when it has written nothing in this epoch.
    pub last_sequence: i32,
    pub last_timestamp_ms: i64,
}

/// How much the storage can hold, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub total: u64,
    pub used: u64,
}

#[async_trait]
pub trait LogStore: Send + Sync + 'static {
    /// Makes an empty log. Repeating it for the same topic id changes nothing.
    async fn create(&self, partition: &PartitionId) -> Result<(), StoreError>;

    /// As [`LogStore::create`], of a log that was there before: an archive may have some of it.
    async fn create_again(&self, partition: &PartitionId) -> Result<(), StoreError> {
        self.create(partition).await
    }

    /// # Errors
    /// [`StoreError::NoSuchPartition`] also when the stored topic id is another.
    async fn load(&self, partition: &PartitionId) -> Result<LogState, StoreError>;

    /// As [`LogStore::load`], and takes the lead: raises the leader epoch to `claim.epoch`, so that no earlier leader can append
    /// any more. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`StoreError::FencedLeader`] when another leader has this epoch or a newer one.
    async fn claim(&self, partition: &PartitionId, claim: &Claim) -> Result<LogState, StoreError>;

    /// Writes all batches that are not refused, or none. A lost answer is resolved inside (the writer's own append
    /// number in the state) before [`StoreError::OutcomeUnknown`] is given up to; the caller sends one append at a time
    /// per partition.
    async fn append(&self, partition: &PartitionId, append: Append) -> Result<AppendOutcome, StoreError>;

    /// Batches from the one that holds `read.offset` (its base may be lower) in order; empty at or past the end.
    async fn read(&self, partition: &PartitionId, read: Read) -> Result<Vec<StoredBatch>, StoreError>;

    /// The first record at or after the log start whose own timestamp is at least `timestamp`.
    async fn find_timestamp(
        &self,
        partition: &PartitionId,
        timestamp: i64,
    ) -> Result<Option<TimestampedOffset>, StoreError>;

    /// The first record that has the largest timestamp of all that are left; `None` for an empty log.
    async fn find_max_timestamp(&self, partition: &PartitionId) -> Result<Option<TimestampedOffset>, StoreError>;

    /// Removes what is below `before_offset` (at most the next offset), archived or not. Returns the new log start.
    async fn delete_records(&self, partition: &PartitionId, before_offset: i64) -> Result<i64, StoreError>;

    /// The periodic retention check: trims by `retention`, never past the end of the previous check, and remembers
    /// today's end for the next one. Also notices what others trimmed. Returns the state after it.
    async fn retain(&self, partition: &PartitionId, retention: Retention) -> Result<LogState, StoreError>;

    /// The producers that the partition remembers.
    async fn producers(&self, partition: &PartitionId) -> Result<Vec<ProducerState>, StoreError>;

    /// `None` where the storage has no limit that it knows of.
    async fn capacity(&self) -> Result<Option<Capacity>, StoreError> {
        Ok(None)
    }

    /// Takes the partition away at once and frees its memory in bounded steps. Repeating it is harmless.
    async fn delete(&self, partition: &PartitionId) -> Result<(), StoreError>;
}
