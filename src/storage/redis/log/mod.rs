//! A partition's log on a Redis Stream: what the design calls the heart. `docs/redis-layout.md` says what lies in Redis;
//! `scripts/log.lua` is the part that Redis runs.

mod ahead;
mod append;
mod archived;
mod core;
mod entries;
mod entry;
mod functions;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod json;
mod plan;
mod producers;
mod read;
mod retain;
mod seek;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use self::{
    core::{Core, EntryId, log_start},
    functions::{Keys, Loaded, Snapshot},
    producers::{LostProducer, Producer},
};
use super::{
    nodes::{At, Nodes},
    server,
};
use crate::{
    clock::Clock,
    log::{
        archive::Cold,
        store::{
            Append, AppendOutcome, Capacity, Claim, LogState, LogStore, ProducerState, Read, Retention, StoreError,
            StoredBatch, TimestampedOffset,
        },
    },
    model::PartitionId,
};

/// Kafka's default of `producer.id.expiration.ms`, until an append says otherwise.
const PRODUCERS_EXPIRE_AFTER_MS: i64 = 86_400_000;

/// What a log on Redis may take.
#[derive(Clone, Debug)]
pub struct Options {
    /// Batches with more records are refused in the `record` layout: a transaction holds Redis for all of them.
    pub record_layout_max_records: usize,
    /// And batches whose records take more bytes, decompressed.
    pub record_layout_max_bytes: usize,
    /// Further batches of an append go into a transaction of their own.
    pub transaction_max_entries: usize,
    pub transaction_max_bytes: usize,
    /// An append of no more bytes and records than these is one Function call instead of a transaction.
    pub small_append_max_bytes: usize,
    pub small_append_max_records: usize,
    /// Fields of a partition's state, nearly all of them idempotent producers: the least recently used go first.
    pub state_max_fields: usize,
    /// How long the outcome of an append is asked for after its answer was lost.
    pub resolve_patience: Duration,
    /// Time between trims by appends to one partition.
    pub trim_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            record_layout_max_records: 10_000,
            record_layout_max_bytes: 8 << 20,
            transaction_max_entries: 4_000,
            transaction_max_bytes: 8 << 20,
            small_append_max_bytes: 3 << 10,
            small_append_max_records: 5,
            state_max_fields: 10_000,
            resolve_patience: Duration::from_secs(10),
            trim_interval: Duration::from_secs(1),
        }
    }
}

/// The logs of all partitions.
pub struct RedisLog {
    nodes: Nodes,
    clock: Clock,
    options: Options,
    /// The state field in which Redis keeps this writer's last append: `w:` and a number that no other writer has.
    writer_field: String,
    partitions: Mutex<HashMap<PartitionId, Arc<Partition>>>,
    read_ahead: ahead::ReadAhead,
    /// Turns to encode many records that were read, so that readers who catch up leave a core to everybody else.
    encoders: Semaphore,
    /// How long producers are remembered (ms), as the last append had it.
    producers_expire_after_ms: AtomicI64,
}

/// What this process knows of a partition. None of it is needed for correctness.
struct Partition {
    id: PartitionId,
    keys: Keys,
    /// Appends pass one at a time.
    writer: tokio::sync::Mutex<Writer>,
    view: Mutex<View>,
}

/// What appends need.
#[derive(Default)]
struct Writer {
    /// Of the last append that was sent.
    number: u64,
    /// As of the core `producers_at`; `None` for a producer that Redis does not know.
    producers: HashMap<i64, Option<Producer>>,
    producers_at: Option<Core>,
    /// How far producers had come whose latest batches Redis has lost.
    lost: HashMap<i64, LostProducer>,
    /// Records below this offset have a field `__ts` even if it is 0.
    timestamps_until: i64,
    trimmed_at: Option<Instant>,
}

/// The latest that is known.
#[derive(Default)]
struct View {
    generation: Option<u64>,
    core: Option<Core>,
    epochs: Vec<(i32, i64)>,
    checked: i64,
    cold: Option<Cold>,
    /// Where readers went on, oldest first.
    cursors: VecDeque<read::Cursor>,
    /// What the latest of them will ask for next.
    ahead: Option<ahead::Ahead>,
    /// What was logged as an error and still stands.
    reported: Vec<String>,
    /// The length and last ID at which interference was looked for in vain.
    inspected: Option<(Option<i64>, EntryId)>,
}

impl View {
    /// Takes over a core that was read or written on the `generation`th connection, unless a newer one is known.
    fn take(&mut self, generation: Option<u64>, core: &Core) {
        let is_older = self.generation == generation
            && self.core.as_ref().is_some_and(|known| {
                (core.next_offset, core.log_start, core.fence) < (known.next_offset, known.log_start, known.fence)
            });
        if !is_older {
            self.generation = generation;
            self.core = Some(core.clone());
        }
    }
}

impl RedisLog {
    pub fn new(nodes: impl Into<Nodes>, clock: Clock, options: Options) -> Self {
        Self {
            nodes: nodes.into(),
            clock,
            options,
            writer_field: format!("w:{:016x}", rand::random::<u64>()),
            partitions: Mutex::default(),
            read_ahead: ahead::ReadAhead::default(),
            encoders: Semaphore::new(std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))),
            producers_expire_after_ms: AtomicI64::new(PRODUCERS_EXPIRE_AFTER_MS),
        }
    }

    fn partition(&self, id: &PartitionId) -> Arc<Partition> {
        let mut partitions = self.partitions.lock();
        if let Some(partition) = partitions.get(id) {
            return partition.clone();
        }
        let partition = Arc::new(Partition {
            id: id.clone(),
            keys: Keys::of(&self.nodes, id),
            writer: tokio::sync::Mutex::default(),
            view: Mutex::default(),
        });
        partitions.insert(id.clone(), partition.clone());
        partition
    }

    /// Where the partition's keys are.
    fn at(&self, partition: &Partition) -> At<'_> {
        self.nodes.at(partition.keys.slot)
    }

    fn forget(&self, id: &PartitionId) {
        self.partitions.lock().remove(id);
    }

    /// Reads the state, with `fields` of it.
    async fn snapshot(&self, partition: &Partition, fields: &[String]) -> Result<Snapshot, StoreError> {
        let generation = self.at(partition).generation();
        let loaded = functions::load(self.at(partition), &partition.keys, partition.id.topic_id, fields).await?;
        self.take_loaded(partition, generation, loaded)
    }

    fn take_loaded(
        &self,
        partition: &Partition,
        generation: Option<u64>,
        loaded: Loaded,
    ) -> Result<Snapshot, StoreError> {
        match loaded {
            Loaded::Here(snapshot) => {
                let mut view = partition.view.lock();
                view.take(generation, &snapshot.core);
                view.epochs.clone_from(&snapshot.epochs);
                view.checked = snapshot.checked;
                view.cold = snapshot.cold;
                Ok(*snapshot)
            }
            Loaded::Gone { cause, stream_exists: false } if cause == "missing" => {
                self.forget(&partition.id);
                Err(StoreError::NoSuchPartition)
            }
            Loaded::Gone { cause, .. } => {
                let state = &partition.keys.state;
                Err(self.quarantined(partition, format!("the state {state} can't be read: {cause}")))
            }
            Loaded::Other => {
                self.forget(&partition.id);
                Err(StoreError::NoSuchPartition)
            }
        }
    }

    async fn inspected_state(&self, partition: &Partition, mut snapshot: Snapshot) -> Result<LogState, StoreError> {
        if snapshot.length != Some(snapshot.core.entries) {
            snapshot = self.inspect(partition, snapshot).await?;
        }
        Ok(log_state(&snapshot.core, &snapshot.epochs, snapshot.cold))
    }

    /// `mark`: in which life the log needs no comparison with the archive.
    async fn create_with(&self, partition: &Partition, mark: String) -> Result<(), StoreError> {
        let mut command = functions::call("weir1_create", &partition.keys);
        command.arg(partition.id.topic_id.to_string()).arg(mark);
        let answer: redis::Value = self.at(partition).query(&command).await?;
        let answer = functions::Answer::of(answer).ok_or_else(|| functions::unexpected("weir1_create", &"nothing"))?;
        match answer.word.as_str() {
            "ok" => Ok(()),
            "other" => Err(StoreError::Refused(format!(
                "{} still holds a partition of another topic id",
                partition.keys.state
            ))),
            "occupied" => Err(self.quarantined(
                partition,
                format!("{} is there, but there is no state of it", answer.text(0).unwrap_or_default()),
            )),
            _ => Err(functions::unexpected("weir1_create", &answer)),
        }
    }

    /// The core as far as it is known, else read.
    async fn known_core(&self, partition: &Partition) -> Result<Core, StoreError> {
        let known = {
            let view = partition.view.lock();
            view.core.clone().filter(|_| view.generation == self.at(partition).generation())
        };
        match known {
            Some(core) => Ok(core),
            None => Ok(self.snapshot(partition, &[]).await?.core),
        }
    }
}

/// Epochs and their first offsets, as far as their records are left.
fn epoch_starts(core: &Core, epochs: &[(i32, i64)], log_start: i64) -> Vec<(i32, i64)> {
    if core.next_offset == 0 {
        return Vec::new();
    }
    let mut starts = if epochs.is_empty() { vec![(core.leader_epoch, 0)] } else { epochs.to_vec() };
    let below = starts.iter().filter(|(_, start)| *start <= log_start).count();
    starts.drain(..below.saturating_sub(1));
    if let Some(first) = starts.first_mut() {
        first.1 = first.1.max(log_start);
    }
    starts
}

fn log_state(core: &Core, epochs: &[(i32, i64)], cold: Option<Cold>) -> LogState {
    let log_start = log_start(core, cold.as_ref());
    let cold_timestamp = cold.filter(|cold| !cold.is_empty()).map_or(-1, |cold| cold.bounds.max_timestamp);
    LogState {
        log_start_offset: log_start,
        local_start_offset: core.log_start,
        next_offset: core.next_offset,
        leader_epoch: core.leader_epoch,
        epoch_starts: epoch_starts(core, epochs, log_start),
        max_timestamp: core.max_timestamp.max(cold_timestamp),
        size_bytes: core.size_bytes(),
        cold,
    }
}

#[async_trait]
impl LogStore for RedisLog {
    async fn create(&self, id: &PartitionId) -> Result<(), StoreError> {
        let partition = self.partition(id);
        // There is nothing in the archive that it would have to be compared with.
        let mark = functions::mark_of(&self.at(&partition).life());
        self.create_with(&partition, mark).await
    }

    async fn create_again(&self, id: &PartitionId) -> Result<(), StoreError> {
        self.create_with(&self.partition(id), String::new()).await
    }

    async fn load(&self, id: &PartitionId) -> Result<LogState, StoreError> {
        let partition = self.partition(id);
        let snapshot = self.snapshot(&partition, &[]).await?;
        self.inspected_state(&partition, snapshot).await
    }

    async fn claim(&self, id: &PartitionId, claim: &Claim) -> Result<LogState, StoreError> {
        let partition = self.partition(id);
        let generation = self.at(&partition).generation();
        let loaded = functions::claim(self.at(&partition), &partition.keys, id.topic_id, claim).await?;
        let snapshot = self.take_loaded(&partition, generation, loaded)?;
        self.inspected_state(&partition, snapshot).await
    }

    async fn append(&self, id: &PartitionId, append: Append) -> Result<AppendOutcome, StoreError> {
        let expire_after = append.now_ms.saturating_sub(append.producers_expire_before_ms);
        self.producers_expire_after_ms.store(expire_after, Ordering::Relaxed);
        self.append_all(&self.partition(id), append).await
    }

    async fn read(&self, id: &PartitionId, read: Read) -> Result<Vec<StoredBatch>, StoreError> {
        self.read_batches(&self.partition(id), read).await
    }

    async fn find_timestamp(&self, id: &PartitionId, timestamp: i64) -> Result<Option<TimestampedOffset>, StoreError> {
        self.first_at_or_after(&self.partition(id), timestamp).await
    }

    async fn find_max_timestamp(&self, id: &PartitionId) -> Result<Option<TimestampedOffset>, StoreError> {
        self.first_of_largest(&self.partition(id)).await
    }

    async fn delete_records(&self, id: &PartitionId, before_offset: i64) -> Result<i64, StoreError> {
        self.delete_below(&self.partition(id), before_offset).await
    }

    async fn retain(&self, id: &PartitionId, retention: Retention) -> Result<LogState, StoreError> {
        self.check_retention(&self.partition(id), retention).await
    }

    async fn producers(&self, id: &PartitionId) -> Result<Vec<ProducerState>, StoreError> {
        self.all_producers(&self.partition(id)).await
    }

    async fn capacity(&self) -> Result<Option<Capacity>, StoreError> {
        server::capacity(&self.nodes).await
    }

    async fn delete(&self, id: &PartitionId) -> Result<(), StoreError> {
        let keys = Keys::of(&self.nodes, id);
        let mut command = functions::call("weir1_delete", &keys);
        command.arg(id.topic_id.to_string());
        let _: redis::Value = self.nodes.at(keys.slot).query(&command).await?;
        self.forget(id);
        Ok(())
    }
}
