//! One fetch over several partitions: what to read within the limits, and the wait for more.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    Log, deadline_in,
    partition::{Bounds, LogView, Partition},
    store::{LogState, Read, StoreError, StoredBatch},
    waiters::Waiter,
};
use crate::protocol::records::Codec;

/// Partitions that are read or loaded from the storage at the same time for one fetch.
const CONCURRENT_READS: usize = 16;

/// A fetch gets at least this much memory, however scarce it is; then a batch or two fit in.
const LEAST_MEMORY: usize = 1 << 20;

/// A partition to read.
#[derive(Clone)]
pub struct Wanted {
    pub partition: Arc<Partition>,
    pub offset: i64,
    pub max_bytes: usize,
    /// How records that are stored one by one are encoded.
    pub codec: Codec,
    /// The leader epoch that the client knows of, if it checks it.
    pub current_leader_epoch: Option<i32>,
    /// The epoch of the last record the client has, if it wants to hear of truncation (KIP-595).
    pub last_fetched_epoch: Option<i32>,
}

#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// Of all partitions together. The first batch of the first partition that has one is given whatever its size.
    pub max_bytes: usize,
    /// Answer when there is this much.
    pub min_bytes: usize,
    /// Answer after this time whatever there is.
    pub max_wait: Duration,
}

/// Where the client's log and this one part (KIP-595).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    pub epoch: i32,
    pub end_offset: i64,
}

/// Why a partition gives no records.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FetchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("offset {0} is outside of the log")]
    OffsetOutOfRange(i64),
    /// The client's leader epoch is older than the partition's.
    #[error("the leader epoch is {0} by now")]
    FencedLeaderEpoch(i32),
    #[error("the leader epoch is only {0} here")]
    UnknownLeaderEpoch(i32),
}

/// What a partition gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedPartition {
    pub bounds: Bounds,
    pub batches: Vec<StoredBatch>,
    pub divergence: Option<Divergence>,
}

/// The outcome of a fetch: one entry for each partition, in order.
#[derive(Debug)]
pub struct Fetched {
    pub partitions: Vec<Result<FetchedPartition, FetchError>>,
    /// The memory of the batches.
    pub held: Option<OwnedSemaphorePermit>,
}

/// Compares the client's leader epoch with the partition's (KIP-320).
pub fn check_leader_epoch(current: i32, asked: Option<i32>) -> Result<(), FetchError> {
    match asked {
        Some(asked) if asked < current => Err(FetchError::FencedLeaderEpoch(current)),
        Some(asked) if asked > current => Err(FetchError::UnknownLeaderEpoch(current)),
        _ => Ok(()),
    }
}

impl LogState {
    /// The largest epoch at or below `epoch` that has records, and the offset after its last; none for an epoch that
    /// has not begun, or for -1. An epoch older than all that are known ends where the oldest begins.
    pub fn end_of_epoch(&self, epoch: i32) -> Option<Divergence> {
        if epoch == -1 || epoch > self.leader_epoch {
            return None;
        }
        if epoch == self.leader_epoch {
            return Some(Divergence { epoch, end_offset: self.next_offset });
        }
        let after = self.epoch_starts.partition_point(|(known, _)| *known <= epoch);
        let end_offset = self.epoch_starts.get(after).map_or(self.next_offset, |(_, start)| *start);
        let found = after.checked_sub(1).and_then(|place| self.epoch_starts.get(place));
        let found = found.filter(|_| end_offset > self.log_start_offset).map_or(epoch, |(known, _)| *known);
        Some(Divergence { epoch: found, end_offset: end_offset.max(self.log_start_offset) })
    }

    /// The epoch that the record at `offset` was written in; the current one where there is none yet.
    pub fn epoch_at(&self, offset: i64) -> i32 {
        let after = self.epoch_starts.partition_point(|(_, start)| *start <= offset);
        let found = after.checked_sub(1).and_then(|place| self.epoch_starts.get(place));
        found.or(self.epoch_starts.first()).map_or(self.leader_epoch, |(epoch, _)| *epoch)
    }
}

/// How one partition stands before anything is read.
enum Standing {
    Failed(FetchError),
    Diverged(Bounds, Divergence),
    Readable(Bounds),
}

fn judge(state: &LogView<'_>, wanted: &Wanted, position: i64) -> Standing {
    let bounds = Bounds::of(state);
    if let Err(error) = check_leader_epoch(state.leader_epoch, wanted.current_leader_epoch) {
        return Standing::Failed(error);
    }
    if let Some(fetched) = wanted.last_fetched_epoch {
        match state.end_of_epoch(fetched) {
            None => return Standing::Failed(FetchError::OffsetOutOfRange(wanted.offset)),
            Some(end) if end.epoch < fetched || end.end_offset < wanted.offset => {
                return Standing::Diverged(bounds, end);
            }
            Some(_) => {}
        }
    }
    // Behind the high watermark there may be records that are not safe yet: a place to wait at, not an error.
    if (bounds.log_start_offset..=state.next_offset).contains(&position) {
        Standing::Readable(bounds)
    } else {
        Standing::Failed(FetchError::OffsetOutOfRange(wanted.offset))
    }
}

/// The memory of answers: one part for those whose records are still in the tail cache, so that consumers at the end do not
/// stand in line behind those that read old data.
#[derive(Debug)]
pub(super) struct FetchMemory {
    pub(super) tail: MemoryPart,
    old: MemoryPart,
}

#[derive(Clone, Debug)]
pub(super) struct MemoryPart {
    pub(super) permits: Arc<Semaphore>,
    bytes: usize,
}

impl MemoryPart {
    fn new(bytes: usize) -> Self {
        let bytes = bytes.max(1);
        Self { permits: Arc::new(Semaphore::new(bytes)), bytes }
    }
}

impl FetchMemory {
    pub(super) fn new(bytes: usize) -> Self {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        Self { tail: MemoryPart::new(bytes / 4), old: MemoryPart::new(bytes - bytes / 4) }
    }
}

/// A fetch under way.
struct Fetch<'a> {
    log: &'a Log,
    wanted: Vec<Wanted>,
    limits: FetchLimits,
    found: Vec<Result<FetchedPartition, FetchError>>,
    bytes: usize,
    held: Option<OwnedSemaphorePermit>,
    /// There was no memory for more.
    squeezed: bool,
    /// Places of partitions that the archive is being asked about.
    late: BTreeSet<usize>,
}

impl Log {
    /// Reads up to the limits; waits while there is less than wanted and nothing to report. Dropping it ends the wait.
    pub async fn fetch(&self, wanted: Vec<Wanted>, limits: FetchLimits) -> Fetched {
        let patience = self.cold_tier().map(|tier| tier.options.read_patience).unwrap_or_default();
        let deadlines = Deadlines { of_all: deadline_in(limits.max_wait), of_late: deadline_in(patience) };
        let empty = Bounds {
            log_start_offset: -1,
            local_start_offset: -1,
            high_watermark: -1,
            leader_epoch: -1,
            size_bytes: 0,
        };
        let found = wanted
            .iter()
            .map(|_| Ok(FetchedPartition { bounds: empty, batches: Vec::new(), divergence: None }))
            .collect();
        let late = BTreeSet::new();
        let mut fetch = Fetch { log: self, wanted, limits, found, bytes: 0, held: None, squeezed: false, late };
        let all: BTreeSet<usize> = (0..fetch.wanted.len()).collect();
        fetch.read(&all).await;
        let may_wait = !limits.max_wait.is_zero() || !fetch.late.is_empty();
        if may_wait && !fetch.is_complete() {
            fetch.wait(&all, deadlines).await;
        }
        if let Some(tier) = self.cold_tier() {
            tier.options.metrics.delayed_reads.inc_by(fetch.late.len() as u64);
        }
        let metrics = &self.shared.options.metrics;
        for batch in fetch.found.iter().flatten().flat_map(|partition| &partition.batches) {
            metrics.fetched_records.inc_by(batch.count());
            metrics.fetched_bytes.inc_by(batch.size() as u64);
        }
        Fetched { partitions: fetch.found, held: fetch.held }
    }
}

/// Until when a fetch waits for more.
#[derive(Clone, Copy)]
struct Deadlines {
    of_all: Instant,
    /// Where the archive is being asked.
    of_late: Instant,
}

impl Fetch<'_> {
    fn is_complete(&self) -> bool {
        let reports = |found: &Result<FetchedPartition, FetchError>| match found {
            Ok(partition) => partition.divergence.is_some(),
            Err(_) => true,
        };
        self.wanted.is_empty() || self.squeezed || self.bytes >= self.limits.min_bytes || self.found.iter().any(reports)
    }

    async fn wait(&mut self, all: &BTreeSet<usize>, deadlines: Deadlines) {
        let waiting = Waiting::new(self.wanted.iter().map(|wanted| wanted.partition.clone()).collect());
        // What happened before the registration woke nobody.
        self.read(all).await;
        let stopping = self.log.shared.tasks.stopping().clone();
        while !self.is_complete() {
            let deadline =
                if self.late.is_empty() { deadlines.of_all } else { deadlines.of_all.max(deadlines.of_late) };
            tokio::select! {
                changed = waiting.waiter.changed() => self.read(&changed).await,
                () = tokio::time::sleep_until(deadline) => return,
                () = stopping.cancelled() => return,
            }
        }
    }

    /// The offset after what was read of a partition.
    fn position(&self, place: usize) -> Option<i64> {
        let wanted = self.wanted.get(place)?;
        match self.found.get(place)? {
            Ok(found) => Some(found.batches.last().map_or(wanted.offset, |last| last.last_offset.saturating_add(1))),
            Err(_) => None,
        }
    }

    /// Looks at some partitions and reads what is new in them, as far as the limits allow.
    async fn read(&mut self, places: &BTreeSet<usize>) {
        self.late.retain(|place| !places.contains(place));
        let looks: Vec<_> = places
            .iter()
            .filter_map(|&place| {
                let position = self.position(place)?;
                let wanted = self.wanted.get(place)?.clone();
                Some(async move {
                    let judged = wanted.partition.with_state(|state| judge(state, &wanted, position)).await;
                    (place, position, judged.unwrap_or_else(|error| Standing::Failed(FetchError::Store(error))))
                })
            })
            .collect();
        let judged: Vec<_> = stream::iter(looks).buffered(CONCURRENT_READS).collect().await;
        let mut readable = Vec::new();
        for (place, position, standing) in judged {
            let Some(found) = self.found.get_mut(place) else { continue };
            match standing {
                Standing::Failed(error) => {
                    if found.as_ref().is_ok_and(|found| found.batches.is_empty()) {
                        *found = Err(error);
                    }
                }
                Standing::Diverged(bounds, divergence) => {
                    *found = Ok(FetchedPartition { bounds, batches: Vec::new(), divergence: Some(divergence) });
                }
                Standing::Readable(bounds) => {
                    if let Ok(found) = found {
                        found.bounds = bounds;
                    }
                    if position < bounds.high_watermark {
                        readable.push((place, position, bounds));
                    }
                }
            }
        }
        if !readable.is_empty() && self.bytes < self.limits.max_bytes.max(1) {
            self.read_records(&readable).await;
        }
    }

    async fn read_records(&mut self, readable: &[(usize, i64, Bounds)]) {
        let budget = self.take_memory(readable).await;
        let mut rest = readable.iter().peekable();
        while rest.peek().is_some() {
            let mut left = budget.saturating_sub(self.bytes);
            if left == 0 && self.bytes > 0 {
                break;
            }
            // As many at a time as fit the limits for sure.
            let mut reads = Vec::new();
            while let Some(&&(place, position, bounds)) = rest.peek() {
                let Some(wanted) = self.wanted.get(place) else { break };
                let taken = self.taken(place);
                let max_bytes = wanted.max_bytes.saturating_sub(taken).min(left);
                if !reads.is_empty() && (max_bytes == 0 || reads.len() == CONCURRENT_READS) {
                    break;
                }
                rest.next();
                if max_bytes == 0 && self.bytes > 0 {
                    continue;
                }
                left -= max_bytes;
                let read = Read {
                    offset: position,
                    max_bytes,
                    end_offset: bounds.high_watermark,
                    codec: wanted.codec,
                    in_background: false,
                };
                let partition = wanted.partition.clone();
                reads.push(async move { (place, max_bytes, partition.read(read).await) });
            }
            let mut read = stream::iter(reads).buffered(CONCURRENT_READS);
            while let Some((place, max_bytes, batches)) = read.next().await {
                match batches.transpose() {
                    // Nothing waits for the archive: what others have is given meanwhile.
                    None => drop(self.late.insert(place)),
                    Some(batches) => take_batches(&mut self.found, &mut self.bytes, place, max_bytes, batches),
                }
            }
        }
        self.settle_memory();
    }

    fn taken(&self, place: usize) -> usize {
        match self.found.get(place) {
            Some(Ok(found)) => found.batches.iter().map(|batch| batch.size()).sum(),
            _ => 0,
        }
    }

    /// Takes memory for what is about to be read: less than the limits allow where it is scarce. Returns how many bytes
    /// the fetch may have in total.
    async fn take_memory(&mut self, readable: &[(usize, i64, Bounds)]) -> usize {
        let limit = self.limits.max_bytes.saturating_sub(self.bytes);
        let mut estimate = 0_usize;
        let mut is_at_tail = true;
        for (place, position, bounds) in readable {
            let Some(wanted) = self.wanted.get(*place) else { continue };
            let stored = usize::try_from(bounds.size_bytes).unwrap_or(usize::MAX);
            // What the archive has of it is not known.
            let stored = if *position < bounds.local_start_offset { usize::MAX } else { stored };
            let cached = wanted.partition.cached_bytes(*position, wanted.max_bytes);
            is_at_tail &= cached.is_some();
            let there = cached.unwrap_or(stored);
            estimate = estimate.saturating_add(there.min(wanted.max_bytes));
            if estimate >= limit {
                break;
            }
        }
        let FetchMemory { tail, old } = &self.log.shared.fetch_memory;
        let part = match &self.held {
            // One answer's memory is of one kind.
            Some(held) if Arc::ptr_eq(held.semaphore(), &tail.permits) => tail,
            Some(_) => old,
            None if is_at_tail => tail,
            None => old,
        };
        let memory = &part.permits;
        let asked = estimate.min(limit).min(part.bytes).max(1);
        // Nobody takes more than half of what is left, so that there is some for the next.
        let least = asked.min(LEAST_MEMORY);
        let mut wanted = asked.min(memory.available_permits() / 2).max(least);
        let permit = loop {
            if let Some(permit) = try_take(memory, wanted) {
                break Some(permit);
            }
            if wanted <= least && self.bytes > 0 {
                // Who holds memory must not wait for more: all could wait for each other.
                self.squeezed = true;
                return self.bytes;
            }
            if wanted <= least {
                break memory.clone().acquire_many_owned(u32::try_from(least).unwrap_or(u32::MAX)).await.ok();
            }
            wanted = (wanted / 2).max(least);
        };
        if let Some(permit) = permit {
            match &mut self.held {
                Some(held) => held.merge(permit),
                none => *none = Some(permit),
            }
        }
        // An estimate that was too small (foreign writes) still lets the first batch through.
        self.bytes.saturating_add(wanted)
    }

    /// Gives back what the answer does not take, or takes what it took more: one batch at most, which is not waited for.
    fn settle_memory(&mut self) {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let memory = self.held.as_ref().map(|held| held.semaphore().clone());
        let more = memory.and_then(|memory| try_take(&memory, self.bytes.saturating_sub(held)));
        if self.bytes < held {
            drop(self.held.as_mut().and_then(|permit| permit.split(held - self.bytes)));
        } else if let (Some(permit), Some(more)) = (&mut self.held, more) {
            permit.merge(more);
        }
    }
}

/// Adds what was read of one partition, whole batches within the limit. The answer's first batch is taken whatever its size.
fn take_batches(
    found: &mut [Result<FetchedPartition, FetchError>],
    bytes: &mut usize,
    place: usize,
    max_bytes: usize,
    batches: Result<Vec<StoredBatch>, StoreError>,
) {
    let Some(found) = found.get_mut(place) else { return };
    let Ok(partition) = found else { return };
    match batches {
        Ok(batches) => {
            let mut taken = 0;
            for batch in batches {
                let size = batch.size();
                if taken + size > max_bytes && *bytes > 0 {
                    break;
                }
                taken += size;
                *bytes += size;
                partition.batches.push(batch);
            }
        }
        Err(error) if partition.batches.is_empty() => *found = Err(FetchError::Store(error)),
        Err(_) => {}
    }
}

fn try_take(memory: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    memory.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
}

/// The registration of a fetch with its partitions; ends when dropped.
struct Waiting {
    waiter: Arc<Waiter>,
    partitions: Vec<Arc<Partition>>,
}

impl Waiting {
    fn new(partitions: Vec<Arc<Partition>>) -> Self {
        let waiter = Arc::new(Waiter::default());
        for (place, partition) in partitions.iter().enumerate() {
            partition.wait(&waiter, place);
        }
        Self { waiter, partitions }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for partition in &self.partitions {
            partition.stop_waiting(&self.waiter);
        }
    }
}
