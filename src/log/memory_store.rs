//! A storage in memory, for tests of the domain: batches as they are, no idempotence, and faults on demand.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{
    archive::{Cold, ColdBounds},
    config::LogConfig,
    durability::Promise,
    store::{
        Append, AppendOutcome, Appended, Claim, Layout, LogState, LogStore, ProducerState, Read, Retention, StoreError,
        StoredBatch, TimestampedOffset,
    },
};
use crate::{
    model::{PartitionId, TopicId, TopicName},
    protocol::records::{
        BatchBuilder, BatchOptions, NewRecord, Placement, TimestampType, ValidatedBatch, ValidationLimits,
        single_batch, validate,
    },
};

type Event = Box<dyn FnOnce(&MemoryStore) + Send>;

#[derive(Default)]
pub(super) struct MemoryStore {
    logs: Mutex<HashMap<PartitionId, StoredLog>>,
    pub(super) counts: Mutex<Counts>,
    faults: Mutex<VecDeque<StoreError>>,
    /// Appends wait here while a test holds them up.
    gate: Mutex<Option<Arc<Semaphore>>>,
    /// Or here once they are stored.
    answers: Mutex<Option<Arc<Semaphore>>>,
    /// What happens just before the next search by time.
    before_search: Mutex<Option<Event>>,
}

#[derive(Clone, Debug, Default)]
struct StoredLog {
    state: LogState,
    batches: Vec<StoredBatch>,
}

/// How often each method was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) loads: usize,
    pub(super) appends: usize,
    pub(super) reads: usize,
}

impl MemoryStore {
    /// The next load or append fails.
    pub(super) fn fail_next(&self, error: StoreError) {
        self.faults.lock().push_back(error);
    }

    /// Appends wait until the semaphore gives them a permit.
    pub(super) fn hold_appends(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.gate.lock() = Some(gate.clone());
        gate
    }

    /// Appends are stored, and answered when the semaphore gives them a permit.
    pub(super) fn hold_answers(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.answers.lock() = Some(gate.clone());
        gate
    }

    /// What another broker does: an append that this process hears of only if told.
    pub(super) fn append_behind_the_back(&self, id: &PartitionId, batch: &ValidatedBatch) {
        self.logs.lock().entry(id.clone()).or_default().push(batch, None);
    }

    pub(super) fn raise_epoch(&self, id: &PartitionId) {
        let mut logs = self.logs.lock();
        let log = logs.entry(id.clone()).or_default();
        log.state.leader_epoch += 1;
    }

    /// The storage comes back with less than it had.
    pub(super) fn lose_all(&self, id: &PartitionId) {
        self.logs.lock().insert(id.clone(), StoredLog::default());
    }

    /// It comes back without the partition.
    pub(super) fn forget(&self, id: &PartitionId) {
        self.logs.lock().remove(id);
    }

    fn append_now(&self, partition: &PartitionId, append: &Append) -> Result<AppendOutcome, StoreError> {
        let mut logs = self.logs.lock();
        let log = logs.get_mut(partition).ok_or(StoreError::NoSuchPartition)?;
        if log.state.leader_epoch > append.leader_epoch {
            return Err(StoreError::FencedLeader(log.state.leader_epoch));
        }
        if log.state.next_offset < append.known_end {
            return Err(StoreError::NotReady("the log has lost records".to_owned()));
        }
        let log_append_time = (append.timestamp_type == TimestampType::LogAppendTime).then_some(append.now_ms);
        let batches = append
            .batches
            .iter()
            .map(|batch| {
                let stored = log.push(batch, log_append_time);
                Ok(Appended {
                    base_offset: stored.base_offset,
                    log_append_time_ms: log_append_time.unwrap_or(-1),
                    duplicate: false,
                    stored: Some(stored),
                })
            })
            .collect();
        Ok(AppendOutcome {
            batches,
            log_start_offset: log.state.log_start_offset,
            local_start_offset: log.state.local_start_offset,
            next_offset: log.state.next_offset,
            max_timestamp: log.state.max_timestamp,
            size_bytes: log.state.size_bytes,
        })
    }

    /// What is archived and gone from here: all below `end`. Returns it.
    pub(super) fn archive_below(&self, id: &PartitionId, end: i64) -> Vec<StoredBatch> {
        let mut logs = self.logs.lock();
        let log = logs.entry(id.clone()).or_default();
        let (gone, left): (Vec<_>, Vec<_>) = log.batches.drain(..).partition(|batch| batch.last_offset < end);
        log.batches = left;
        log.state.local_start_offset = end;
        let bounds = ColdBounds { start_offset: 0, end_offset: end, max_timestamp: 1_000, size_bytes: 1 };
        log.state.cold = Some(Cold { bounds, holds_back: true });
        gone
    }

    pub(super) fn before_next_search(&self, event: impl FnOnce(&MemoryStore) + Send + 'static) {
        *self.before_search.lock() = Some(Box::new(event));
    }

    fn first_left(&self, id: &PartitionId) -> Option<TimestampedOffset> {
        let event = self.before_search.lock().take();
        event.into_iter().for_each(|event| event(self));
        let logs = self.logs.lock();
        let first = logs.get(id)?.batches.first()?;
        Some(TimestampedOffset { offset: first.base_offset, timestamp: first.max_timestamp, leader_epoch: 0 })
    }

    fn fault(&self) -> Result<(), StoreError> {
        self.faults.lock().pop_front().map_or(Ok(()), Err)
    }
}

impl StoredLog {
    fn push(&mut self, batch: &ValidatedBatch, log_append_time: Option<i64>) -> StoredBatch {
        let state = &mut self.state;
        let base_offset = state.next_offset;
        let placement = Placement { base_offset, partition_leader_epoch: state.leader_epoch, log_append_time };
        let max_timestamp = log_append_time.unwrap_or(batch.max_timestamp());
        let last_offset = base_offset + i64::from(batch.record_count()) - 1;
        let stored = StoredBatch { base_offset, last_offset, max_timestamp, batch: batch.place(&placement) };
        if state.epoch_starts.last().is_none_or(|(epoch, _)| *epoch < state.leader_epoch) {
            state.epoch_starts.push((state.leader_epoch, base_offset));
        }
        state.next_offset = last_offset + 1;
        state.max_timestamp = state.max_timestamp.max(max_timestamp);
        state.size_bytes += u64::try_from(stored.size()).expect("a length");
        self.batches.push(stored.clone());
        stored
    }

    fn trim(&mut self, before_offset: i64) {
        self.state.log_start_offset = self.state.log_start_offset.max(before_offset);
        self.state.local_start_offset = self.state.log_start_offset;
        self.batches.retain(|batch| batch.last_offset >= before_offset);
    }
}

#[async_trait]
impl LogStore for MemoryStore {
    async fn create(&self, partition: &PartitionId) -> Result<(), StoreError> {
        self.logs.lock().entry(partition.clone()).or_default();
        Ok(())
    }

    async fn claim(&self, partition: &PartitionId, claim: &Claim) -> Result<LogState, StoreError> {
        self.counts.lock().loads += 1;
        tokio::task::yield_now().await;
        self.fault()?;
        let mut logs = self.logs.lock();
        let log = logs.get_mut(partition).ok_or(StoreError::NoSuchPartition)?;
        if log.state.leader_epoch > claim.epoch {
            return Err(StoreError::FencedLeader(log.state.leader_epoch));
        }
        log.state.leader_epoch = claim.epoch;
        Ok(log.state.clone())
    }

    async fn load(&self, partition: &PartitionId) -> Result<LogState, StoreError> {
        self.counts.lock().loads += 1;
        tokio::task::yield_now().await;
        self.fault()?;
        self.logs.lock().get(partition).map(|log| log.state.clone()).ok_or(StoreError::NoSuchPartition)
    }

    async fn append(&self, partition: &PartitionId, append: Append) -> Result<AppendOutcome, StoreError> {
        self.counts.lock().appends += 1;
        let gate = self.gate.lock().clone();
        if let Some(gate) = gate {
            gate.acquire().await.expect("the gate stays").forget();
        }
        self.fault()?;
        let outcome = self.append_now(partition, &append);
        let gate = self.answers.lock().clone();
        if let Some(gate) = gate {
            gate.acquire().await.expect("the gate stays").forget();
        }
        outcome
    }

    async fn read(&self, partition: &PartitionId, read: Read) -> Result<Vec<StoredBatch>, StoreError> {
        self.counts.lock().reads += 1;
        let logs = self.logs.lock();
        let log = logs.get(partition).ok_or(StoreError::NoSuchPartition)?;
        let mut bytes = 0;
        let mut found: Vec<StoredBatch> = Vec::new();
        for batch in log.batches.iter().filter(|batch| batch.last_offset >= read.offset) {
            bytes += batch.size();
            if bytes > read.max_bytes && !found.is_empty() {
                break;
            }
            found.push(batch.clone());
        }
        Ok(found)
    }

    /// All records have one timestamp.
    async fn find_timestamp(&self, id: &PartitionId, _: i64) -> Result<Option<TimestampedOffset>, StoreError> {
        Ok(self.first_left(id))
    }

    async fn find_max_timestamp(&self, id: &PartitionId) -> Result<Option<TimestampedOffset>, StoreError> {
        Ok(self.first_left(id))
    }

    async fn delete_records(&self, partition: &PartitionId, before_offset: i64) -> Result<i64, StoreError> {
        let mut logs = self.logs.lock();
        let log = logs.get_mut(partition).ok_or(StoreError::NoSuchPartition)?;
        log.trim(before_offset);
        Ok(log.state.log_start_offset)
    }

    async fn retain(&self, partition: &PartitionId, _: Retention) -> Result<LogState, StoreError> {
        let logs = self.logs.lock();
        logs.get(partition).map(|log| log.state.clone()).ok_or(StoreError::NoSuchPartition)
    }

    async fn producers(&self, _: &PartitionId) -> Result<Vec<ProducerState>, StoreError> {
        Ok(Vec::new())
    }

    async fn delete(&self, partition: &PartitionId) -> Result<(), StoreError> {
        self.logs.lock().remove(partition);
        Ok(())
    }
}

pub(super) fn partition_id(index: i32) -> PartitionId {
    PartitionId { topic: TopicName::new("t"), topic_id: TopicId::ZERO, index }
}

/// A batch of `records` records with values of `value_size` bytes.
pub(super) fn batch(records: i64, value_size: usize) -> ValidatedBatch {
    let value = vec![b'x'; value_size];
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for offset in 0..records {
        let headers = std::iter::empty::<(&[u8], Option<&[u8]>)>();
        let record = NewRecord { offset, timestamp: 1_000, key: None, value: Some(&value), headers };
        builder.push(record).expect("offsets increase");
    }
    let bytes: Bytes = builder.finish().expect("it is not empty");
    let limits = ValidationLimits {
        now: 1_000,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max: i64::MAX,
        timestamp_after_max: i64::MAX,
        compacted: false,
        max_batch_bytes: usize::MAX,
        max_records: i32::MAX,
        max_decompressed_bytes: usize::MAX,
        keep_records: false,
    };
    validate(single_batch(bytes, true).expect("one batch"), &limits).expect("it is valid")
}

pub(super) fn config() -> LogConfig {
    LogConfig {
        layout: Layout::Batch,
        max_message_bytes: 1 << 20,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        compression: None,
        compact: false,
        delete: true,
        retention_ms: None,
        retention_bytes: None,
        retention_records: None,
        tier: None,
        promise: Promise::MEMORY,
    }
}
