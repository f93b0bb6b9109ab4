//! A partition as Kafka sees it: append, fetch plan, retention, waiters, tail cache; and the port to its storage.

pub mod archive;
mod cold_reads;
pub mod config;
pub mod durability;
mod fetch;
#[cfg(test)]
mod memory_store;
pub mod missing;
mod partition;
pub mod pressure;
pub mod producer_ids;
mod queue;
pub mod session;
pub mod store;
mod tail;
#[cfg(test)]
mod tests;
pub mod tiered;
mod waiters;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use futures::{StreamExt, stream};
use parking_lot::RwLock;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use fetch::FetchMemory;
pub use fetch::{Divergence, FetchError, FetchLimits, Fetched, FetchedPartition, Wanted, check_leader_epoch};
pub use partition::{Answer, Bounds, LogView, Partition, Pending};
pub use queue::GroupLimits;

use self::{
    config::LogConfig,
    durability::{Dial, Unkept},
    missing::Missing,
    pressure::Pressure,
    session::Sessions,
    store::{AppendRefusal, Capacity, LogState, LogStore, ProducerState, Retention, StoreError},
    tail::TailCache,
};
use crate::{
    clock::Clock,
    cluster::Cluster,
    model::{NodeId, PartitionId, TopicId, TopicName},
    tasks::Tasks,
    telemetry::metrics::LogMetrics,
};

/// Bounds of the log's memory and work.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of recently appended batches kept for consumers at the tail, all partitions together.
    pub tail_cache_bytes: usize,
    /// Bytes of batches that fetches may hold for their answers, all together.
    pub fetch_bytes: usize,
    /// Bytes of batches that may wait for the storage, all partitions together.
    pub append_bytes: usize,
    /// What goes to the storage in one step.
    pub group: GroupLimits,
    /// `producer.id.expiration.ms`; the cell changes with the setting.
    pub producer_id_expiration_ms: Arc<AtomicI64>,
    pub sessions: session::Options,
    pub dial: Dial,
    /// Where older records go; none without an archive.
    pub cold: Option<tiered::ColdTier>,
    /// Refuses appends while the storage has little room.
    pub pressure: Arc<Pressure>,
    /// Told what the storage lacks.
    pub missing: Arc<Missing>,
    pub metrics: LogMetrics,
    /// Says which partitions this broker leads.
    pub cluster: Arc<Cluster>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tail_cache_bytes: 64 << 20,
            fetch_bytes: 64 << 20,
            append_bytes: 64 << 20,
            group: GroupLimits::default(),
            producer_id_expiration_ms: Arc::new(AtomicI64::new(24 * 60 * 60 * 1000)),
            sessions: session::Options::default(),
            dial: Dial::default(),
            cold: None,
            pressure: Arc::default(),
            missing: Arc::default(),
            metrics: LogMetrics::default(),
            cluster: Arc::new(Cluster::alone(NodeId(0))),
        }
    }
}

/// What all partitions share.
struct Shared {
    store: Arc<dyn LogStore>,
    clock: Clock,
    tasks: Tasks,
    options: Options,
    tail: TailCache,
    fetch_memory: FetchMemory,
    append_memory: Arc<Semaphore>,
}

/// Where a batch landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedAt {
    pub base_offset: i64,
    /// -1 unless the topic has LogAppendTime.
    pub log_append_time_ms: i64,
    pub log_start_offset: i64,
}

/// Why a batch is not known to be in the log.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AppendError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{refusal}")]
    Refused { refusal: AppendRefusal, log_start_offset: i64 },
    /// Fewer replicas are connected than the topic promises; nothing was sent.
    #[error("too few replicas are connected")]
    NotEnoughReplicas,
    /// The batch is stored, but on too few replicas; it may be lost.
    #[error("too few replicas have the batch")]
    NotEnoughReplicasAfterAppend,
    /// The storage can't keep what the topic promises; nothing was sent.
    #[error("{0}")]
    CannotPromise(String),
    /// The batch was taken back before it went to the storage.
    #[error("the storage did not take the batch in time")]
    NotSentInTime,
    /// The batch is with the storage; it may land yet.
    #[error("the storage did not answer in time")]
    NotAnsweredInTime,
    /// The broker stopped under the batch.
    #[error("the append was abandoned")]
    Abandoned,
}

/// The partitions that this broker has to do with.
pub struct Log {
    shared: Arc<Shared>,
    sessions: Sessions,
    partitions: RwLock<Registry>,
}

#[derive(Default)]
struct Registry {
    by_topic: HashMap<TopicId, Topic>,
    /// The incarnations of a name; mostly one.
    by_name: HashMap<TopicName, Vec<TopicId>>,
}

struct Topic {
    name: TopicName,
    partitions: HashMap<i32, Arc<Partition>>,
}

impl Log {
    pub fn new(store: Arc<dyn LogStore>, clock: Clock, tasks: Tasks, options: Options) -> Self {
        let permits = |bytes: usize| Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)));
        let shared = Shared {
            store,
            clock,
            tasks,
            tail: TailCache::new(options.tail_cache_bytes),
            fetch_memory: FetchMemory::new(options.fetch_bytes),
            append_memory: permits(options.append_bytes),
            options,
        };
        let sessions = Sessions::new(shared.options.sessions);
        Self { shared: Arc::new(shared), sessions, partitions: RwLock::default() }
    }

    /// The clients' fetch sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The broker's clock.
    pub fn now_ms(&self) -> i64 {
        self.shared.clock.now_ms()
    }

    /// Whether this broker leads a partition.
    pub fn leads(&self, partition: &PartitionId) -> bool {
        self.shared.options.cluster.leads(partition.topic_id, partition.index).is_ok()
    }

    /// The live brokers have changed: what this broker does not lead any more is forgotten, and whoever waits for it is answered.
    pub fn follow_leadership(&self) {
        let registry = self.partitions.read();
        for partition in registry.by_topic.values().flat_map(|topic| topic.partitions.values()) {
            partition.follow_leadership();
        }
    }

    /// The bounds of a partition that this broker need not lead.
    pub async fn look_at(&self, id: &PartitionId) -> Result<Bounds, StoreError> {
        if self.leads(id) {
            return self.partition(&id.topic, id.topic_id, id.index).bounds().await;
        }
        self.shared.store.load(id).await.map(|state| Bounds::of_stored(&state))
    }

    /// The partition, which the catalog says exists. Reads nothing yet.
    pub fn partition(&self, topic: &TopicName, topic_id: TopicId, index: i32) -> Arc<Partition> {
        if let Some(known) = self.partitions.read().find(topic_id, index) {
            return known;
        }
        let mut registry = self.partitions.write();
        if let Some(known) = registry.find(topic_id, index) {
            return known;
        }
        let id = PartitionId { topic: topic.clone(), topic_id, index };
        let partition = Arc::new(Partition::new(id, self.shared.clone()));
        if !registry.by_topic.contains_key(&topic_id) {
            registry.by_name.entry(topic.clone()).or_default().push(topic_id);
        }
        registry
            .by_topic
            .entry(topic_id)
            .or_insert_with(|| Topic { name: topic.clone(), partitions: HashMap::new() })
            .partitions
            .insert(index, partition.clone());
        partition
    }

    /// The topic was deleted: whoever waits for its partitions is answered, and their memory is freed.
    pub fn forget(&self, topic_id: TopicId) {
        let removed = {
            let mut registry = self.partitions.write();
            let Some(topic) = registry.by_topic.remove(&topic_id) else { return };
            if let Some(ids) = registry.by_name.get_mut(&topic.name) {
                ids.retain(|id| *id != topic_id);
                if ids.is_empty() {
                    registry.by_name.remove(&topic.name);
                }
            }
            topic
        };
        for partition in removed.partitions.values() {
            partition.mark_deleted();
        }
    }

    /// Somebody else changed the log of a partition.
    pub fn changed(&self, topic: &str, index: i32) {
        let registry = self.partitions.read();
        for id in registry.by_name.get(topic).into_iter().flatten() {
            if let Some(partition) = registry.find(*id, index) {
                partition.doubt();
            }
        }
    }

    /// Changes of others may have been missed: what is known of every partition is in doubt, and nothing is cached.
    pub fn everything_changed(&self) {
        self.shared.tail.clear();
        let registry = self.partitions.read();
        for partition in registry.by_topic.values().flat_map(|topic| topic.partitions.values()) {
            partition.doubt_everything();
        }
    }

    /// The storage may have lost records: looks at every partition that this broker has led, if `is_concerned` names it.
    ///
    /// # Errors
    /// The storage's, where some could not be looked at.
    pub async fn look_for_losses(&self, is_concerned: impl Fn(&PartitionId) -> bool) -> Result<(), StoreError> {
        /// Partitions that are looked at at a time.
        const CONCURRENT: usize = 16;
        let known: Vec<Arc<Partition>> = {
            let registry = self.partitions.read();
            let all = registry.by_topic.values().flat_map(|topic| topic.partitions.values());
            all.filter(|partition| is_concerned(partition.id())).cloned().collect()
        };
        let looks = stream::iter(known).map(|partition| async move { partition.look_for_loss().await });
        looks.buffer_unordered(CONCURRENT).fold(Ok(()), async |all, one| all.and(one)).await
    }

    /// The storage has forgotten a topic that was there: what it held is lost.
    pub fn lost(&self, topic_id: TopicId) {
        let registry = self.partitions.read();
        for partition in registry.by_topic.get(&topic_id).iter().flat_map(|topic| topic.partitions.values()) {
            partition.tell_lost_whole();
        }
    }

    /// Where the log of a partition ends that this broker need not lead.
    pub async fn end_of(&self, id: &PartitionId) -> Result<i64, StoreError> {
        self.shared.store.load(id).await.map(|state| state.next_offset)
    }

    /// As [`Log::everything_changed`], for those partitions that `is_concerned` names.
    pub fn changed_where(&self, is_concerned: impl Fn(&PartitionId) -> bool) {
        let registry = self.partitions.read();
        let partitions = registry.by_topic.values().flat_map(|topic| topic.partitions.values());
        partitions.filter(|partition| is_concerned(partition.id())).for_each(|partition| partition.doubt_everything());
    }

    /// Memory for a batch that is about to wait for the storage.
    ///
    /// # Errors
    /// [`AppendError::NotSentInTime`] when there is none until `deadline`; what the storage would say when it were full, while
    /// it is nearly so.
    pub async fn admit_append(&self, bytes: usize, deadline: Instant) -> Result<OwnedSemaphorePermit, AppendError> {
        self.shared.options.pressure.check()?;
        let most = self.shared.options.append_bytes.min(Semaphore::MAX_PERMITS);
        let wanted = u32::try_from(bytes.min(most)).unwrap_or(u32::MAX);
        let memory = self.shared.append_memory.clone();
        match memory.clone().try_acquire_many_owned(wanted) {
            Ok(held) => Ok(held),
            Err(_) => tokio::time::timeout_at(deadline, memory.acquire_many_owned(wanted))
                .await
                .map_err(|_| AppendError::NotSentInTime)?
                .map_err(|_| AppendError::Abandoned),
        }
    }

    /// Whether a batch may be taken whose producer waits for what its topic promises.
    ///
    /// # Errors
    /// [`AppendError::NotEnoughReplicas`] or [`AppendError::CannotPromise`].
    pub fn check_promise(&self, partition: &PartitionId, config: &LogConfig) -> Result<(), AppendError> {
        self.shared.options.dial.durability.check(config.promise, Some(partition)).map_err(|unkept| match unkept {
            Unkept::TooFewReplicas { .. } => AppendError::NotEnoughReplicas,
            Unkept::Impossible(text) | Unkept::NotYet(text) => AppendError::CannotPromise(text),
            Unkept::OtherLife => AppendError::CannotPromise(unkept.to_string()),
        })
    }

    /// Removes what is below `before_offset`. Returns the log start after it.
    pub async fn delete_records(&self, partition: &Partition, before_offset: i64) -> Result<i64, StoreError> {
        let log_start_offset = self.shared.store.delete_records(partition.id(), before_offset).await?;
        partition.take_log_start(log_start_offset);
        Ok(log_start_offset)
    }

    /// The retention check of one partition; `known` only if it is loaded.
    pub async fn retain(&self, id: &PartitionId, retention: Retention) -> Result<LogState, StoreError> {
        let state = self.shared.store.retain(id, retention).await?;
        self.take_state(id, state.clone());
        Ok(state)
    }

    /// Takes over what a change by this broker made of a log, if the partition is loaded.
    pub fn take_state(&self, id: &PartitionId, state: LogState) {
        let known = self.partitions.read().find(id.topic_id, id.index);
        if let Some(partition) = known {
            partition.take_state(state);
        }
    }

    pub async fn producers(&self, partition: &Partition) -> Result<Vec<ProducerState>, StoreError> {
        partition.leads()?;
        self.shared.store.producers(partition.id()).await
    }

    /// Whether appends are refused for want of room.
    pub fn pressure(&self) -> &Arc<Pressure> {
        &self.shared.options.pressure
    }

    /// How much the storage can hold; `None` where that is not known.
    pub async fn capacity(&self) -> Result<Option<Capacity>, StoreError> {
        self.shared.store.capacity().await
    }

    /// Bytes that the tail cache holds.
    pub fn tail_cache_bytes(&self) -> usize {
        self.shared.tail.bytes()
    }
}

impl Registry {
    fn find(&self, topic_id: TopicId, index: i32) -> Option<Arc<Partition>> {
        self.by_topic.get(&topic_id)?.partitions.get(&index).cloned()
    }
}

/// The longest that anything waits where a client asks for longer; keeps deadlines within what a clock can hold.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// `wait` from now.
pub fn deadline_in(wait: Duration) -> Instant {
    Instant::now() + wait.min(LONGEST_WAIT)
}
