//! One partition: what is known of it, its appends one at a time, and who waits for it.

mod append;
mod archived;
mod high_watermark;
mod loss;
mod passed_over;

use std::{
    ops::Deref,
    sync::{Arc, atomic::AtomicBool},
};

use parking_lot::Mutex;
use tracing::debug;

pub use self::append::Pending;
use self::{archived::Compared, loss::Known, passed_over::PassedOver};
use super::{
    AppendError, Shared,
    durability::{Acks, Life, Unkept},
    queue::{Entry, Queue},
    store::{Claim, LogState, LogStore, Read, StoreError, StoredBatch},
    tail::Key,
    tiered::{ColdTier, Seam},
    waiters::{Waiter, Waiters},
};
use crate::{model::PartitionId, tasks::Tasks};

/// A partition as this broker knows it. Costs no task and no connection while idle.
pub struct Partition {
    id: PartitionId,
    shared: Arc<Shared>,
    /// Held while the state is being read, so that it is read once for all who need it.
    loading: tokio::sync::Mutex<()>,
    /// Appends are refused until more is archived; told once.
    is_full: AtomicBool,
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
    /// The epoch that the storage knows this broker to lead with.
    claimed: Option<i32>,
    /// Outlives the state.
    known: Option<Known>,
    compared: Option<Compared>,
    /// Counts appends of this process.
    appends: u64,
    /// Counts deletions of records by this process.
    deletions: u64,
    deleted: bool,
    queue: Queue,
    passed_over: PassedOver,
    appending: bool,
    /// What consumers may see ends here: no further than what is promised of it holds. None before that was looked at.
    high_watermark: Option<i64>,
    /// The storage's life in which the end of the log was learnt; none where nothing is promised beyond its answer.
    life: Option<Life>,
    acks: Acks,
    /// A task raises the high watermark.
    following: bool,
    waiters: Waiters,
}

/// When a batch is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The storage has it.
    WhenStored,
    /// What its topic promises holds.
    WhenPromised,
}

/// A partition's log as its readers may see it.
#[derive(Clone, Copy, Debug)]
pub struct LogView<'a> {
    state: &'a LogState,
    /// At most the next offset.
    pub high_watermark: i64,
}

impl Deref for LogView<'_> {
    type Target = LogState;

    fn deref(&self) -> &LogState {
        self.state
    }
}

/// A partition's bounds at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub log_start_offset: i64,
    /// The first offset that is not only in the archive.
    pub local_start_offset: i64,
    pub high_watermark: i64,
    pub leader_epoch: i32,
    pub size_bytes: u64,
}

impl Partition {
    pub(super) fn new(id: PartitionId, shared: Arc<Shared>) -> Self {
        Self {
            id,
            shared,
            loading: tokio::sync::Mutex::default(),
            is_full: AtomicBool::default(),
            inner: Mutex::default(),
        }
    }

    pub fn id(&self) -> &PartitionId {
        &self.id
    }

    pub(super) fn key(&self) -> Key {
        (self.id.topic_id, self.id.index)
    }

    /// The epoch that this broker leads the partition with.
    ///
    /// # Errors
    /// [`StoreError::FencedLeader`] when another broker leads it.
    pub(super) fn leads(&self) -> Result<i32, StoreError> {
        self.shared.options.cluster.leads(self.id.topic_id, self.id.index).map_err(StoreError::FencedLeader)
    }

    /// The partition's bounds, read from the storage where they are not known or in doubt.
    pub async fn bounds(self: &Arc<Self>) -> Result<Bounds, StoreError> {
        self.with_state(Bounds::of).await
    }

    /// Looks at the whole state, read from the storage where it is not known or in doubt. The first look takes the lead.
    ///
    /// # Errors
    /// [`StoreError::FencedLeader`] when another broker leads the partition.
    pub async fn with_state<T>(self: &Arc<Self>, look: impl FnOnce(&LogView<'_>) -> T) -> Result<T, StoreError> {
        let epoch = self.leads()?;
        {
            let inner = self.inner.lock();
            if inner.deleted {
                return Err(StoreError::NoSuchPartition);
            }
            if let (Some(view), true) = (inner.view(), self.is_settled(&inner, epoch)) {
                return Ok(look(&view));
            }
        }
        self.load().await?;
        if self.inner.lock().high_watermark.is_none() {
            self.find_high_watermark().await?;
        }
        let inner = self.inner.lock();
        match inner.view() {
            _ if inner.deleted => Err(StoreError::NoSuchPartition),
            Some(view) => Ok(look(&view)),
            None => Err(StoreError::NotReady(Unkept::OtherLife.to_string())),
        }
    }

    /// Whether what is known can be answered: this broker leads with `epoch`, nothing is in doubt, and no other broker can have
    /// taken over unnoticed.
    fn is_settled(&self, inner: &Inner, epoch: i32) -> bool {
        inner.state.is_some()
            && inner.claimed == Some(epoch)
            && !inner.is_doubtful()
            && self.shared.options.cluster.is_registered()
    }

    async fn load(self: &Arc<Self>) -> Result<(), StoreError> {
        let _loading = self.loading.lock().await;
        let epoch = self.leads()?;
        let (doubts, appends, deletions, is_claimed) = {
            let inner = self.inner.lock();
            if self.is_settled(&inner, epoch) {
                return Ok(());
            }
            (inner.doubts, inner.appends, inner.deletions, inner.claimed == Some(epoch))
        };
        let promise = self.promised();
        let life = self.waited_for(promise);
        let loaded = self.load_as_leader(epoch, is_claimed).await;
        let mut loaded = loaded.inspect_err(|error| self.note_missing(error))?;
        let mut inner = self.inner.lock();
        if let Some(known) = inner.state.as_ref().filter(|_| inner.deletions != deletions) {
            loaded.keep_start_of(known);
        }
        inner.claimed = Some(epoch);
        let raced = inner.appends != appends;
        inner.settled = doubts;
        inner.leadership_doubted = false;
        let changed = self.install(&mut inner, loaded, raced);
        inner.learn_known();
        self.learn_end(&mut inner, promise, life);
        if changed {
            inner.waiters.wake();
        }
        Ok(())
    }

    async fn load_as_leader(&self, epoch: i32, is_claimed: bool) -> Result<LogState, StoreError> {
        if let Some(over) = self.epoch_over(epoch) {
            return Err(self.fenced(over));
        }
        let known = self.inner.lock().known;
        if is_claimed {
            let loaded = self.shared.store.load(&self.id).await?;
            if self.tell_loss(known, &loaded)
                && let Some(over) = self.epoch_over(epoch)
            {
                return Err(self.fenced(over));
            }
            match loaded.leader_epoch {
                stored if stored == epoch => return Ok(loaded),
                stored if stored > epoch => return Err(self.fenced(stored)),
                // The state was lost and made anew.
                _ => {}
            }
        }
        let claim = Claim { epoch, leader: self.shared.options.cluster.identity() };
        match self.shared.store.claim(&self.id, &claim).await {
            Err(StoreError::FencedLeader(stored)) => Err(self.fenced(stored)),
            Ok(claimed) => {
                let claimed = self.claimed_behind_archive(epoch, claimed).await;
                self.tell_loss(known, &claimed);
                match self.epoch_over(epoch) {
                    Some(over) => Err(self.fenced(over)),
                    None => Ok(claimed),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The storage knows another leader with epoch `stored`.
    fn fenced(&self, stored: i32) -> StoreError {
        debug!(partition = %self.id, stored, "another broker leads");
        self.forget_state(stored);
        self.shared.options.cluster.refused(self.id.topic_id, self.id.index, stored);
        StoreError::FencedLeader(stored)
    }

    /// This broker leads no more: nothing is answered from memory, and who waits is told.
    fn forget_state(&self, stored: i32) {
        let mut inner = self.inner.lock();
        inner.claimed = None;
        inner.state = None;
        inner.high_watermark = None;
        inner.life = None;
        inner.doubts += 1;
        inner.acks.fail(&AppendError::Store(StoreError::FencedLeader(stored)));
        inner.waiters.wake();
        drop(inner);
        self.shared.tail.remove(self.key());
    }

    pub(super) fn follow_leadership(&self) {
        let leads = self.leads();
        let has_changed = {
            let inner = self.inner.lock();
            let is_known = inner.claimed.is_some() || !inner.waiters.is_empty();
            is_known && leads.as_ref().ok() != inner.claimed.as_ref()
        };
        if has_changed {
            self.forget_state(leads.unwrap_or_else(|error| match error {
                StoreError::FencedLeader(epoch) => epoch,
                _ => -1,
            }));
        }
    }

    /// Takes over what was read. `raced` tells that an append of ours ended while it was read.
    fn install(&self, inner: &mut Inner, loaded: LogState, raced: bool) -> bool {
        let Some(known) = &mut inner.state else {
            inner.state = Some(loaded);
            return true;
        };
        if raced && loaded.next_offset < known.next_offset {
            // The append's answer is the newer of the two, and knows nothing of the archive.
            return known.learn_cold(&loaded);
        }
        if loaded.next_offset < known.next_offset || loaded.leader_epoch != known.leader_epoch {
            self.shared.tail.remove(self.key());
        }
        let changed = *known != loaded;
        inner.high_watermark = inner.high_watermark.map(|seen| seen.min(loaded.next_offset));
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
        self.inner.lock().acks.fail(&AppendError::Store(StoreError::NoSuchPartition));
        for entry in waiting {
            let _ = entry.reply.send(Err(AppendError::Store(StoreError::NoSuchPartition)));
        }
    }

    /// Batches from the one that holds `offset`, at least one where there is one. `None` while the archive is being asked; who waits
    /// for the partition is woken then, and reads again.
    pub async fn read(self: &Arc<Self>, read: Read) -> Result<Option<Vec<StoredBatch>>, StoreError> {
        let metrics = &self.shared.options.metrics;
        if let Some(batches) = self.read_cached(&read) {
            metrics.cache_hits.inc();
            return Ok(Some(batches));
        }
        metrics.cache_misses.inc();
        self.read_stored(read).await
    }

    pub(super) fn store(&self) -> &dyn LogStore {
        &*self.shared.store
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.shared.tasks
    }

    pub(super) fn cold_tier(&self) -> Option<&ColdTier> {
        self.shared.options.cold.as_ref()
    }

    pub(super) fn is_full(&self) -> &AtomicBool {
        &self.is_full
    }

    /// As far as it is known; none of a log without a cold part.
    pub(super) fn seam(&self) -> Option<Seam> {
        self.inner.lock().state.as_ref().and_then(Seam::of)
    }

    /// As far as it is known.
    pub(super) fn unarchived_bytes(&self) -> Option<u64> {
        self.inner.lock().state.as_ref().map(LogState::unarchived_bytes)
    }

    pub(super) fn read_cached(&self, read: &Read) -> Option<Vec<StoredBatch>> {
        self.shared.tail.read(self.key(), read.offset, read.max_bytes, read.end_offset)
    }

    pub(super) fn cached_bytes(&self, offset: i64, enough: usize) -> Option<usize> {
        self.shared.tail.available(self.key(), offset, enough)
    }

    /// Takes over what a change by this broker made of the log (retention, deleted records).
    pub(super) fn take_log_start(&self, log_start_offset: i64) {
        let mut inner = self.inner.lock();
        inner.deletions += 1;
        if inner.state.as_mut().is_some_and(|state| state.move_start(log_start_offset)) {
            inner.waiters.wake();
        }
        self.shared.tail.trim(self.key(), log_start_offset);
    }

    pub(super) fn take_state(self: &Arc<Self>, mut state: LogState) {
        let promise = self.promised();
        let mut inner = self.inner.lock();
        if let Some(known) = &inner.state {
            state.keep_start_of(known);
        }
        if inner.claimed == Some(state.leader_epoch) && self.install(&mut inner, state, true) {
            let life = self.waited_for(promise);
            inner.learn_archived();
            self.learn_end(&mut inner, promise, life);
            inner.waiters.wake();
        }
    }

    pub(super) fn wait(&self, waiter: &Arc<Waiter>, place: usize) {
        self.inner.lock().waiters.add(waiter, place);
    }

    pub(super) fn wake(&self) {
        self.inner.lock().waiters.wake();
    }

    pub(super) fn stop_waiting(&self, waiter: &Arc<Waiter>) {
        self.inner.lock().waiters.remove(waiter);
    }
}

impl Inner {
    fn view(&self) -> Option<LogView<'_>> {
        let state = self.state.as_ref()?;
        // What was removed, or lost, is not there to be seen.
        let high_watermark = self.high_watermark?.min(state.next_offset).max(state.log_start_offset);
        Some(LogView { state, high_watermark })
    }

    fn is_doubtful(&self) -> bool {
        self.settled != self.doubts
    }
}

impl Bounds {
    /// Of a log that another broker leads: how far its consumers see is not known, so this is the end.
    pub(super) fn of_stored(state: &LogState) -> Self {
        Self::of(&LogView { state, high_watermark: state.next_offset })
    }

    pub fn of(state: &LogView<'_>) -> Self {
        Self {
            log_start_offset: state.log_start_offset,
            local_start_offset: state.local_start_offset,
            high_watermark: state.high_watermark,
            leader_epoch: state.leader_epoch,
            size_bytes: state.size_bytes,
        }
    }
}
