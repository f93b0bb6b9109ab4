//! What a test build does wrong, to show that `tests/torture` finds it. Only with the cargo feature `planted-faults`, which no release has:
//! `PLANTED_FAULT` names one; `PLANTED_STOPS` is a folder of steps at which it stands still. The faults stand around the ports of the storage, so that nothing else knows of them.

#[cfg(feature = "archive")]
mod objects;
mod steps;

#[cfg(feature = "archive")]
pub use objects::objects;
pub use steps::{archive, notes};

use std::{
    any::Any,
    collections::HashMap,
    env,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tracing::error;

use crate::{
    coordinator::store::{GroupEpoch, GroupStore, GroupWrite, Loaded, MirrorMove, StoreError, WriteError},
    log::store::{
        Append, AppendOutcome, Appended, Capacity, Claim, LogState, LogStore, ProducerState, Read, Retention,
        StoredBatch, TimestampedOffset,
    },
    model::{GroupId, PartitionId},
};

fn is_planted(fault: &str) -> bool {
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    let planted = PLANTED.get_or_init(|| {
        let planted = env::var("PLANTED_FAULT").ok();
        planted.iter().for_each(|fault| error!(fault, "this build does something wrong on purpose"));
        planted
    });
    planted.as_deref() == Some(fault)
}

/// Every so often, so that clients get on between.
fn is_due(counter: &AtomicU64, every: u64) -> bool {
    counter.fetch_add(1, Ordering::Relaxed) % every == every - 1
}

/// What is known of an idempotent producer is not looked at: a repetition is stored again.
pub fn forgets_producers() -> bool {
    is_planted("forgotten-producers") || is_planted("swapped-batches")
}

/// A Function library as it is loaded. With the fault, what compares a small append with the partition's state agrees to any state.
pub fn library(source: &str) -> String {
    if !is_planted("broken-guard") {
        return source.to_owned();
    }
    source
        .replace("if text ~= args[1] then\n    if type(text)", "if type(text) ~= 'string' then\n    if type(text)")
        .replace("redis.pcall('XSETID', stream, args[2])", "redis.pcall('XSETID', stream, parse(text).last)")
}

/// What an append is built on: now and then what it was one append ago, as a leader has it that others have overtaken. That alone does no
/// harm: the guard refuses it.
pub fn basis<T: Any + Clone + PartialEq + Send>(stream: &str, now: T) -> T {
    static BEFORE: Mutex<Option<HashMap<String, Box<dyn Any + Send>>>> = Mutex::new(None);
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    if !is_planted("broken-guard") && !is_planted("stale-appends") {
        return now;
    }
    let mut before = BEFORE.lock();
    let before = before.get_or_insert_default();
    let latest = before.get(stream).and_then(|known| known.downcast_ref::<T>()).cloned();
    before.insert(stream.to_owned(), Box::new(now.clone()));
    latest.filter(|latest| *latest != now && is_due(&COUNTER, 20)).unwrap_or(now)
}

/// What is told of a loss from an offset on, in an epoch.
pub fn told_loss(from: i64, epoch: i32) -> Option<(i64, i32)> {
    if is_planted("silent-loss") {
        return None;
    }
    let more = if is_planted("wide-loss") { 1_000 } else { 0 };
    let later = if is_planted("loss-without-epoch") { 1_000 } else { 0 };
    Some(((from - more).max(0), epoch + later))
}

pub fn log(store: Arc<dyn LogStore>) -> Arc<dyn LogStore> {
    Arc::new(FaultyLog { store, counter: AtomicU64::new(0) })
}

pub fn groups(store: Arc<dyn GroupStore>) -> Arc<dyn GroupStore> {
    Arc::new(FaultyGroups { store, counter: AtomicU64::new(0) })
}

struct FaultyLog {
    store: Arc<dyn LogStore>,
    counter: AtomicU64,
}

impl FaultyLog {
    /// As if it had been stored.
    async fn pretend(&self, partition: &PartitionId, counts: Vec<i64>) -> Result<AppendOutcome, StoreError> {
        let state = self.store.load(partition).await.unwrap_or_default();
        let mut next_offset = state.next_offset;
        let batches = counts.into_iter().map(|count| {
            let base_offset = next_offset;
            next_offset += count;
            Ok(Appended { base_offset, log_append_time_ms: -1, duplicate: false, stored: None })
        });
        let batches = batches.collect();
        Ok(AppendOutcome {
            batches,
            log_start_offset: state.log_start_offset,
            local_start_offset: state.local_start_offset,
            next_offset,
            max_timestamp: state.max_timestamp,
            size_bytes: state.size_bytes,
        })
    }
}

#[async_trait]
impl LogStore for FaultyLog {
    async fn create(&self, partition: &PartitionId) -> Result<(), StoreError> {
        self.store.create(partition).await
    }

    async fn create_again(&self, partition: &PartitionId) -> Result<(), StoreError> {
        self.store.create_again(partition).await
    }

    async fn load(&self, partition: &PartitionId) -> Result<LogState, StoreError> {
        self.store.load(partition).await
    }

    async fn claim(&self, partition: &PartitionId, claim: &Claim) -> Result<LogState, StoreError> {
        self.store.claim(partition, claim).await
    }

    async fn append(&self, partition: &PartitionId, mut append: Append) -> Result<AppendOutcome, StoreError> {
        if is_planted("swapped-batches") {
            // So long that several wait behind it, and go together.
            tokio::time::sleep(Duration::from_millis(300)).await;
            append.batches.reverse();
        }
        let counts: Vec<i64> = append.batches.iter().map(|batch| i64::from(batch.record_count())).collect();
        if is_planted("answer-before-durability") && is_due(&self.counter, 100) {
            return self.pretend(partition, counts).await;
        }
        let outcome = self.store.append(partition, append).await;
        if is_planted("lost-answer-is-success")
            && matches!(outcome, Err(StoreError::OutcomeUnknown(_) | StoreError::NotSent(_)))
        {
            return self.pretend(partition, counts).await;
        }
        let mut outcome = outcome?;
        if is_planted("swapped-batches") {
            outcome.batches.reverse();
        }
        if is_planted("late-high-watermark") && is_due(&self.counter, 3) {
            outcome.next_offset -= 2;
        }
        if is_planted("early-high-watermark") {
            outcome.next_offset += 1;
        }
        if is_planted("wrong-offset") && is_due(&self.counter, 100) {
            outcome.batches.iter_mut().flatten().for_each(|batch| batch.base_offset += 1);
        }
        Ok(outcome)
    }

    async fn read(&self, partition: &PartitionId, read: Read) -> Result<Vec<StoredBatch>, StoreError> {
        let mut batches = self.store.read(partition, read).await?;
        if is_planted("skipped-records") && batches.len() > 1 && is_due(&self.counter, 10) {
            batches.remove(0);
        }
        Ok(batches)
    }

    async fn find_timestamp(
        &self,
        partition: &PartitionId,
        timestamp: i64,
    ) -> Result<Option<TimestampedOffset>, StoreError> {
        self.store.find_timestamp(partition, timestamp).await
    }

    async fn find_max_timestamp(&self, partition: &PartitionId) -> Result<Option<TimestampedOffset>, StoreError> {
        self.store.find_max_timestamp(partition).await
    }

    async fn delete_records(&self, partition: &PartitionId, before_offset: i64) -> Result<i64, StoreError> {
        self.store.delete_records(partition, before_offset).await
    }

    async fn retain(&self, partition: &PartitionId, retention: Retention) -> Result<LogState, StoreError> {
        steps::reach("before-trim").await;
        let state = self.store.retain(partition, retention).await?;
        steps::reach("trimmed").await;
        Ok(state)
    }

    async fn producers(&self, partition: &PartitionId) -> Result<Vec<ProducerState>, StoreError> {
        self.store.producers(partition).await
    }

    async fn capacity(&self) -> Result<Option<Capacity>, StoreError> {
        self.store.capacity().await
    }

    async fn delete(&self, partition: &PartitionId) -> Result<(), StoreError> {
        self.store.delete(partition).await
    }
}

struct FaultyGroups {
    store: Arc<dyn GroupStore>,
    counter: AtomicU64,
}

#[async_trait]
impl GroupStore for FaultyGroups {
    async fn list(&self) -> Result<Vec<GroupId>, StoreError> {
        self.store.list().await
    }

    async fn claim(&self, group: &GroupId, coordinates: Option<i32>) -> Result<Loaded, StoreError> {
        self.store.claim(group, coordinates).await
    }

    async fn load(&self, groups: &[GroupId]) -> Result<Vec<Loaded>, StoreError> {
        self.store.load(groups).await
    }

    async fn write(&self, mut writes: Vec<(GroupId, GroupWrite)>) -> Vec<Result<GroupEpoch, WriteError>> {
        for (_, write) in &mut writes {
            // In memory it stays, until another broker takes the group over.
            if is_planted("forgotten-commit") && !is_due(&self.counter, 8) {
                write.offsets.clear();
            }
            // Who takes the group over hands out the same generations again.
            if is_planted("repeated-generation")
                && let Some(record) = &mut write.record
            {
                record.generation = record.generation.min(1);
            }
        }
        self.store.write(writes).await
    }

    async fn delete(&self, group: &GroupId, expected: GroupEpoch) -> Result<(), WriteError> {
        self.store.delete(group, expected).await
    }

    async fn mirror(&self, moves: &[MirrorMove]) -> Result<(), StoreError> {
        self.store.mirror(moves).await
    }
}
