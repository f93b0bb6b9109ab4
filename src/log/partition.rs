//! One partition: what is known of it, its appends one at a time, and who waits for it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};
use tracing::{debug, warn};

use super::{
    AppendError, AppendedAt, Shared,
    config::LogConfig,
    queue::{Entry, Queue},
    store::{Append, AppendOutcome, LogState, Read, StoreError, StoredBatch},
    tail::Key,
    waiters::{Waiter, Waiters},
};
use crate::{model::PartitionId, protocol::records::ValidatedBatch};

/// A push about a foreign write is lost when Redis handled it in one go with a write of ours; so this long after our
/// last append a waited-for partition is looked at once more.
const RECHECK_AFTER: Duration = Duration::from_millis(200);

/// A partition as this broker knows it. Costs no task and no connection while idle.
pub struct Partition {
    id: PartitionId,
    shared: Arc<Shared>,
    /// Held while the state is being read, so that it is read once for all who need it.
    loading: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Option<LogState>,
    /// Counts what made the state doubtful.
    doubts: u64,
    /// The doubts that the state was read after.
    settled: u64,
    /// Another broker may lead by now: no append before the state was read.
    leadership_doubted: bool,
    /// Counts appends of this process.
    appends: u64,
    /// The last append of this process since the state was last read.
    appended_at: Option<Instant>,
    deleted: bool,
    queue: Queue,
    appending: bool,
    waiters: Waiters,
}

/// A partition's bounds at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub log_start_offset: i64,
    pub high_watermark: i64,
    pub leader_epoch: i32,
    pub size_bytes: u64,
}

/// A batch on its way into the log.
pub struct Pending {
    partition: Arc<Partition>,
    ticket: u64,
    reply: oneshot::Receiver<Result<AppendedAt, AppendError>>,
}

impl Pending {
    /// Where the batch landed. Dropping this does not take the batch back.
    pub async fn outcome(mut self, deadline: Instant) -> Result<AppendedAt, AppendError> {
        match tokio::time::timeout_at(deadline, &mut self.reply).await {
            Ok(reply) => reply.unwrap_or(Err(AppendError::Abandoned)),
            Err(_) => {
                let waiting = self.partition.inner.lock().queue.withdraw(self.ticket);
                Err(if waiting.is_some() { AppendError::NotSentInTime } else { AppendError::NotAnsweredInTime })
            }
        }
    }
}

impl Partition {
    pub(super) fn new(id: PartitionId, shared: Arc<Shared>) -> Self {
        Self { id, shared, loading: tokio::sync::Mutex::default(), inner: Mutex::default() }
    }

    pub fn id(&self) -> &PartitionId {
        &self.id
    }

    pub(super) fn key(&self) -> Key {
        (self.id.topic_id, self.id.index)
    }

    /// The state as far as it is known without asking the storage.
    pub fn known_bounds(&self) -> Option<Bounds> {
        self.inner.lock().state.as_ref().map(Bounds::of)
    }

    /// The partition's bounds, read from the storage where they are not known or in doubt.
    pub async fn bounds(&self) -> Result<Bounds, StoreError> {
        self.with_state(Bounds::of).await
    }

    /// Looks at the whole state, read from the storage where it is not known or in doubt.
    pub async fn with_state<T>(&self, look: impl FnOnce(&LogState) -> T) -> Result<T, StoreError> {
        {
            let inner = self.inner.lock();
            if inner.deleted {
                return Err(StoreError::NoSuchPartition);
            }
            if let (Some(state), false) = (&inner.state, inner.is_doubtful(Instant::now())) {
                return Ok(look(state));
            }
        }
        self.load().await?;
        let inner = self.inner.lock();
        match &inner.state {
            Some(state) if !inner.deleted => Ok(look(state)),
            _ => Err(StoreError::NoSuchPartition),
        }
    }

    async fn load(&self) -> Result<(), StoreError> {
        let _loading = self.loading.lock().await;
        let (doubts, appends) = {
            let inner = self.inner.lock();
            if inner.state.is_some() && !inner.is_doubtful(Instant::now()) {
                return Ok(());
            }
            (inner.doubts, inner.appends)
        };
        let started = Instant::now();
        let loaded = self.shared.store.load(&self.id).await?;
        let mut inner = self.inner.lock();
        let raced = inner.appends != appends;
        inner.settled = doubts;
        inner.leadership_doubted = false;
        if inner.appended_at.is_some_and(|appended_at| started >= appended_at + RECHECK_AFTER) {
            inner.appended_at = None;
        }
        let changed = self.install(&mut inner, loaded, raced);
        if changed {
            inner.waiters.wake();
        }
        Ok(())
    }

    /// Takes over what was read. `raced` tells that an append of ours ended while it was read.
    fn install(&self, inner: &mut Inner, loaded: LogState, raced: bool) -> bool {
        let Some(known) = &mut inner.state else {
            inner.state = Some(loaded);
            return true;
        };
        if raced && loaded.next_offset < known.next_offset {
            // The append's answer is the newer of the two.
            return false;
        }
        if loaded.next_offset < known.next_offset || loaded.leader_epoch != known.leader_epoch {
            if loaded.next_offset < known.next_offset {
                warn!(
                    partition = %self.id, known = known.next_offset, stored = loaded.next_offset,
                    "the log ends earlier than it did: the storage has lost records"
                );
            }
            self.shared.tail.remove(self.key());
        }
        let changed = *known != loaded;
        *known = loaded;
        self.shared.tail.trim(self.key(), known.log_start_offset);
        changed
    }

    /// The records may have changed in the storage.
    pub(super) fn doubt(&self) {
        let mut inner = self.inner.lock();
        inner.doubts += 1;
        inner.waiters.wake();
    }

    /// Anything may have changed in the storage, the leadership too.
    pub(super) fn doubt_everything(&self) {
        self.inner.lock().leadership_doubted = true;
        self.shared.tail.remove(self.key());
        self.doubt();
    }

    /// The topic is gone: whoever waits is answered.
    pub(super) fn mark_deleted(&self) {
        let waiting: Vec<Entry> = {
            let mut inner = self.inner.lock();
            inner.deleted = true;
            inner.waiters.wake();
            inner.queue.drain().collect()
        };
        self.shared.tail.remove(self.key());
        for entry in waiting {
            let _ = entry.reply.send(Err(AppendError::Store(StoreError::NoSuchPartition)));
        }
    }

    /// Puts a batch behind those that wait; batches land in the order of these calls. `held` is the batch's memory.
    pub fn append(
        self: &Arc<Self>,
        batch: ValidatedBatch,
        config: Arc<LogConfig>,
        held: OwnedSemaphorePermit,
    ) -> Pending {
        let (sender, reply) = oneshot::channel();
        let mut inner = self.inner.lock();
        let ticket = inner.queue.push(batch, config, held, sender);
        if inner.deleted {
            if let Some(entry) = inner.queue.withdraw(ticket) {
                let _ = entry.reply.send(Err(AppendError::Store(StoreError::NoSuchPartition)));
            }
        } else if !inner.appending {
            inner.appending = true;
            let partition = self.clone();
            self.shared.tasks.spawn("append", async move { partition.append_all().await });
        }
        drop(inner);
        Pending { partition: self.clone(), ticket, reply }
    }

    /// Appends group after group until nothing waits.
    async fn append_all(self: Arc<Self>) {
        let turn = Turn(&self);
        loop {
            let group = {
                let mut inner = self.inner.lock();
                let group = inner.queue.take_group(&self.shared.options.group);
                if group.is_empty() {
                    inner.appending = false;
                    std::mem::forget(turn);
                    return;
                }
                group
            };
            self.append_group(group).await;
        }
    }

    async fn append_group(&self, group: Vec<Entry>) {
        let Some(config) = group.first().map(|entry| entry.config.clone()) else { return };
        let (batches, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|entry| (entry.batch, (entry.reply, entry.held))).unzip();
        let timestamps: Vec<i64> = batches.iter().map(ValidatedBatch::max_timestamp).collect();
        match self.store_group(&config, batches).await {
            Ok(outcome) => {
                let answers = self.take_outcome(outcome, &timestamps);
                for ((reply, _held), answer) in replies.into_iter().zip(answers) {
                    let _ = reply.send(answer);
                }
            }
            Err(error) => {
                debug!(partition = %self.id, %error, batches = replies.len(), "an append failed");
                self.doubt_everything();
                for (reply, _held) in replies {
                    let _ = reply.send(Err(AppendError::Store(error.clone())));
                }
            }
        }
    }

    async fn store_group(&self, config: &LogConfig, batches: Vec<ValidatedBatch>) -> Result<AppendOutcome, StoreError> {
        let now_ms = self.shared.clock.now_ms();
        let leader_epoch = self.leader_epoch().await?;
        let append = Append {
            batches,
            layout: config.layout,
            timestamp_type: config.timestamp_type,
            now_ms,
            retention: config.retention(now_ms),
            leader_epoch,
            producers_expire_before_ms: now_ms
                .saturating_sub(self.shared.options.producer_id_expiration_ms.load(Ordering::Relaxed)),
        };
        match self.shared.store.append(&self.id, append.clone()).await {
            Err(StoreError::FencedLeader(newer)) if newer > leader_epoch => {
                self.doubt_everything();
                let leader_epoch = self.leader_epoch().await?;
                self.shared.store.append(&self.id, Append { leader_epoch, ..append }).await
            }
            outcome => outcome,
        }
    }

    /// The epoch is all that must be known for an append; the storage judges the rest.
    async fn leader_epoch(&self) -> Result<i32, StoreError> {
        let known = {
            let inner = self.inner.lock();
            inner.state.as_ref().filter(|_| !inner.leadership_doubted).map(|state| state.leader_epoch)
        };
        match known {
            Some(epoch) => Ok(epoch),
            None => self.with_state(|state| state.leader_epoch).await,
        }
    }

    /// `timestamps` has the largest of each batch.
    fn take_outcome(&self, outcome: AppendOutcome, timestamps: &[i64]) -> Vec<Result<AppendedAt, AppendError>> {
        let log_start_offset = outcome.log_start_offset;
        let mut stored: Vec<StoredBatch> = Vec::new();
        let answers = outcome
            .batches
            .into_iter()
            .zip(timestamps)
            .map(|(batch, timestamp)| {
                let batch = batch.map_err(|refusal| AppendError::Refused { refusal, log_start_offset })?;
                stored.extend(batch.stored);
                // As Kafka: a repetition is told the time that its batch has, of whatever type.
                let untold = batch.duplicate && batch.log_append_time_ms == -1;
                Ok(AppendedAt {
                    base_offset: batch.base_offset,
                    log_append_time_ms: if untold { *timestamp } else { batch.log_append_time_ms },
                    log_start_offset,
                })
            })
            .collect();
        let mut inner = self.inner.lock();
        inner.appends += 1;
        if let Some(state) = &mut inner.state {
            if let Some(first) = stored.first()
                && state.epoch_starts.last().is_none_or(|(epoch, _)| *epoch < state.leader_epoch)
            {
                state.epoch_starts.push((state.leader_epoch, first.base_offset));
            }
            state.log_start_offset = outcome.log_start_offset;
            state.next_offset = outcome.next_offset;
            state.max_timestamp = outcome.max_timestamp;
            state.size_bytes = outcome.size_bytes;
        }
        if !stored.is_empty() {
            let metrics = &self.shared.options.metrics;
            metrics.appended_records.inc_by(stored.iter().map(StoredBatch::count).sum());
            metrics.appended_bytes.inc_by(stored.iter().map(|batch| batch.bytes.len() as u64).sum());
            inner.appended_at = Some(Instant::now());
            self.shared.tail.append(self.key(), stored);
            inner.waiters.wake();
        }
        answers
    }

    /// Batches from the one that holds `offset`, at least one where there is one.
    pub async fn read(&self, read: Read) -> Result<Vec<StoredBatch>, StoreError> {
        let metrics = &self.shared.options.metrics;
        if let Some(batches) = self.read_cached(&read) {
            metrics.cache_hits.inc();
            return Ok(batches);
        }
        metrics.cache_misses.inc();
        self.shared.store.read(&self.id, read).await
    }

    pub(super) fn read_cached(&self, read: &Read) -> Option<Vec<StoredBatch>> {
        self.shared.tail.read(self.key(), read.offset, read.max_bytes)
    }

    pub(super) fn cached_bytes(&self, offset: i64, enough: usize) -> Option<usize> {
        self.shared.tail.available(self.key(), offset, enough)
    }

    /// Takes over what a change by this broker made of the log (retention, deleted records).
    pub(super) fn take_log_start(&self, log_start_offset: i64) {
        let mut inner = self.inner.lock();
        if let Some(state) = &mut inner.state
            && state.log_start_offset < log_start_offset
        {
            state.log_start_offset = log_start_offset;
            inner.waiters.wake();
        }
        self.shared.tail.trim(self.key(), log_start_offset);
    }

    pub(super) fn take_state(&self, state: LogState) {
        let mut inner = self.inner.lock();
        if self.install(&mut inner, state, true) {
            inner.waiters.wake();
        }
    }

    pub(super) fn wait(&self, waiter: &Arc<Waiter>, place: usize) {
        self.inner.lock().waiters.add(waiter, place);
    }

    pub(super) fn stop_waiting(&self, waiter: &Arc<Waiter>) {
        self.inner.lock().waiters.remove(waiter);
    }

    /// When a fetch that waits has to look again without being woken.
    pub(super) fn recheck_at(&self) -> Option<Instant> {
        self.inner.lock().appended_at.map(|appended_at| appended_at + RECHECK_AFTER)
    }
}

/// The right to append to a partition. Where it ends otherwise than by an empty queue (a panic, the runtime's end), whoever
/// waits is answered and the next append starts afresh.
struct Turn<'a>(&'a Partition);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner.lock();
        inner.appending = false;
        inner.doubts += 1;
        for entry in inner.queue.drain() {
            let _ = entry.reply.send(Err(AppendError::Abandoned));
        }
    }
}

impl Inner {
    fn is_doubtful(&self, now: Instant) -> bool {
        self.settled != self.doubts || self.appended_at.is_some_and(|appended_at| now >= appended_at + RECHECK_AFTER)
    }
}

impl Bounds {
    pub fn of(state: &LogState) -> Self {
        Self {
            log_start_offset: state.log_start_offset,
            high_watermark: state.next_offset,
            leader_epoch: state.leader_epoch,
            size_bytes: state.size_bytes,
        }
    }
}
