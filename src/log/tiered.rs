//! A partition whose older part is archived: reads on both sides of the seam, and no more in the storage than it may hold.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use tracing::{debug, error, info};

use super::{
    Log,
    archive::{Archive, ArchiveError, Cold, ColdNotes},
    config::LogConfig,
    partition::Partition,
    store::{LogState, Read, StoreError, StoredBatch, TimestampedOffset},
    tail::Key,
};
use crate::telemetry::metrics::ColdMetrics;

/// Reads of the archive that are under way, or whose outcome nobody has fetched yet; the oldest gives way.
const MOST_READS: usize = 32;

/// The most that one read takes from the archive, whatever the client would take.
const MOST_BYTES: usize = 8 << 20;

/// Within which bounds a log uses its archive.
#[derive(Clone, Debug)]
pub struct Options {
    /// A fetch is answered without what the archive has not given by then; the next one gets it.
    pub read_patience: Duration,
    /// Bytes of a partition that may wait to be archived; `None` is no limit.
    pub hot_limit_bytes: Option<u64>,
    /// At the limit the oldest records go, instead of appends being refused.
    pub drops_when_full: bool,
    pub metrics: ColdMetrics,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read_patience: Duration::from_millis(500),
            hot_limit_bytes: Some(1 << 30),
            drops_when_full: false,
            metrics: ColdMetrics::default(),
        }
    }
}

/// The cold tier of all partitions.
#[derive(Clone)]
pub struct ColdTier {
    pub archive: Arc<dyn Archive>,
    pub notes: Arc<dyn ColdNotes>,
    pub options: Options,
    reads: Arc<Mutex<VecDeque<UnderWay>>>,
}

impl std::fmt::Debug for ColdTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColdTier").field("options", &self.options).finish_non_exhaustive()
    }
}

type ColdBatches = Result<Vec<StoredBatch>, ArchiveError>;

struct UnderWay {
    partition: Key,
    offset: i64,
    max_bytes: usize,
    batches: Shared<BoxFuture<'static, ColdBatches>>,
}

impl ColdTier {
    pub fn new(archive: Arc<dyn Archive>, notes: Arc<dyn ColdNotes>, options: Options) -> Self {
        Self { archive, notes, options, reads: Arc::default() }
    }

    /// The read that was begun for the same place, or a new one.
    fn read(&self, partition: &Partition, read: Read) -> Shared<BoxFuture<'static, ColdBatches>> {
        let key = partition.key();
        let mut reads = self.reads.lock();
        let is_same =
            |known: &UnderWay| (known.partition, known.offset, known.max_bytes) == (key, read.offset, read.max_bytes);
        if let Some(known) = reads.iter().find(|known| is_same(known)) {
            return known.batches.clone();
        }
        let (archive, id) = (self.archive.clone(), partition.id().clone());
        let batches = async move { archive.read(&id, read).await }.boxed().shared();
        if reads.len() >= MOST_READS {
            reads.pop_front();
        }
        let (offset, max_bytes) = (read.offset, read.max_bytes);
        reads.push_back(UnderWay { partition: key, offset, max_bytes, batches: batches.clone() });
        partition.tasks().spawn("cold read", batches.clone().map(drop));
        batches
    }

    fn forget_read(&self, partition: Key, read: &Read) {
        self.reads.lock().retain(|known| (known.partition, known.offset) != (partition, read.offset));
    }
}

/// Where a log goes over from the archive to the storage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seam {
    local_start_offset: i64,
    cold: Cold,
}

impl Seam {
    pub(super) fn of(state: &LogState) -> Option<Self> {
        let cold = state.cold.filter(|cold| !cold.is_empty())?;
        Some(Self { local_start_offset: state.local_start_offset, cold })
    }

    /// What of a read only the archive has; between its end and the local start there is nothing.
    fn cold_part(&self, read: Read) -> Option<Read> {
        let end = self.cold.bounds.end_offset;
        (read.offset < self.local_start_offset && read.offset < end).then_some(Read {
            end_offset: read.end_offset.min(end),
            max_bytes: read.max_bytes.min(MOST_BYTES),
            ..read
        })
    }
}

impl Partition {
    /// Reads from the storage or, what only that has, from the archive.
    pub(super) async fn read_stored(&self, read: Read) -> Result<Vec<StoredBatch>, StoreError> {
        if let Some(cold) = self.seam().and_then(|seam| seam.cold_part(read)) {
            return self.read_cold(cold).await;
        }
        let batches = self.store().read(self.id(), read).await?;
        if batches.first().is_some_and(|first| first.base_offset <= read.offset) {
            return Ok(batches);
        }
        // A gap: what was asked for may have been archived and trimmed since the seam was looked at.
        let state = self.store().load(self.id()).await?;
        match Seam::of(&state).and_then(|seam| seam.cold_part(read)) {
            Some(cold) => self.read_cold(cold).await,
            None => Ok(batches),
        }
    }

    async fn read_cold(&self, read: Read) -> Result<Vec<StoredBatch>, StoreError> {
        let Some(tier) = self.cold_tier() else {
            let text = format!("offset {} is archived, and this broker has no archive: set archive.url", read.offset);
            return Err(StoreError::NotReady(text));
        };
        let metrics = &tier.options.metrics;
        let reading = tier.read(self, read);
        let Ok(outcome) = tokio::time::timeout(tier.options.read_patience, reading).await else {
            metrics.delayed_reads.inc();
            debug!(partition = %self.id(), offset = read.offset, "the archive has not answered yet; the next fetch asks again");
            return Ok(Vec::new());
        };
        tier.forget_read(self.key(), &read);
        let outcome = outcome.and_then(|batches| match batches.is_empty() {
            // The record before the archive's end is always there.
            true => Err(ArchiveError::Damaged {
                start_offset: read.offset,
                end_offset: read.end_offset,
                text: "there is nothing".to_owned(),
            }),
            false => Ok(batches),
        });
        match outcome {
            Ok(batches) => {
                metrics.read_bytes.inc_by(batches.iter().map(|batch| batch.size() as u64).sum());
                Ok(batches)
            }
            Err(error) => {
                metrics.read_errors.inc();
                error!(partition = %self.id(), offset = read.offset, %error, "the archive can't be read");
                Err(unreadable(&error))
            }
        }
    }

    /// Whether there is room for more that is not archived yet.
    ///
    /// # Errors
    /// [`StoreError::NotReady`] where a copying topic has reached the limit.
    pub(super) async fn check_room(self: &Arc<Self>, config: &LogConfig) -> Result<(), StoreError> {
        let Some(tier) = self.cold_tier().filter(|tier| !tier.options.drops_when_full) else { return Ok(()) };
        let (true, Some(limit)) = (config.tier.is_some_and(|tier| tier.copies), tier.options.hot_limit_bytes) else {
            return Ok(());
        };
        if self.unarchived_bytes().is_none_or(|waiting| waiting < limit) {
            self.note_room(limit);
            return Ok(());
        }
        // Others may have archived meanwhile.
        let waiting = self.with_state(|state| state.unarchived_bytes()).await?;
        if waiting < limit {
            self.note_room(limit);
            return Ok(());
        }
        if !self.is_full().swap(true, Ordering::Relaxed) {
            error!(
                partition = %self.id(), waiting, limit,
                "appends are refused: too much waits to be archived; see why the archive takes nothing, or raise \
                 archive.hot.limit.bytes"
            );
        }
        tier.options.metrics.refused_appends.inc();
        Err(StoreError::NotReady(format!("{waiting} bytes wait to be archived, the limit is {limit}")))
    }

    fn note_room(&self, limit: u64) {
        if self.is_full().swap(false, Ordering::Relaxed) {
            info!(partition = %self.id(), limit, "appends are taken again: the archive has caught up");
        }
    }
}

/// What was read is not there for now.
fn unreadable(error: &ArchiveError) -> StoreError {
    StoreError::NotReady(error.to_string())
}

impl Log {
    /// The archive, where there is one.
    pub fn cold_tier(&self) -> Option<&ColdTier> {
        self.shared.options.cold.as_ref()
    }

    /// Sees to it that the partition's log does not end before the archive does.
    ///
    /// # Errors
    /// [`StoreError::NotReady`] where that is not known now.
    pub async fn compare_with_archive(&self, partition: &Arc<Partition>) -> Result<(), StoreError> {
        partition.compare_with_archive().await
    }

    /// The first record at or after the log start whose timestamp is at least `timestamp`.
    pub async fn find_timestamp(
        &self,
        partition: &Arc<Partition>,
        timestamp: i64,
    ) -> Result<Option<TimestampedOffset>, StoreError> {
        if let Some((tier, cold)) = self.cold_part(partition).await?
            && timestamp <= cold.bounds.max_timestamp
        {
            let found = tier.archive.find_timestamp(partition.id(), cold.bounds.start_offset, timestamp).await;
            let found = found.map_err(|error| unreadable(&error))?;
            if let Some(found) = found.filter(|found| found.offset < cold.bounds.end_offset) {
                return Ok(Some(found));
            }
        }
        self.shared.store.find_timestamp(partition.id(), timestamp).await
    }

    /// The first record with the largest timestamp.
    pub async fn find_max_timestamp(
        &self,
        partition: &Arc<Partition>,
    ) -> Result<Option<TimestampedOffset>, StoreError> {
        let local = self.shared.store.find_max_timestamp(partition.id()).await?;
        let Some((tier, cold)) = self.cold_part(partition).await? else { return Ok(local) };
        if local.is_some_and(|local| local.timestamp > cold.bounds.max_timestamp) {
            return Ok(local);
        }
        let found = tier.archive.find_max_timestamp(partition.id(), cold.bounds.start_offset).await;
        let found = found.map_err(|error| unreadable(&error))?;
        Ok(match (found, local) {
            (Some(cold), Some(local)) if local.timestamp > cold.timestamp => Some(local),
            (Some(cold), _) => Some(cold),
            (None, local) => local,
        })
    }

    async fn cold_part(&self, partition: &Arc<Partition>) -> Result<Option<(&ColdTier, Cold)>, StoreError> {
        let cold = partition.with_state(|state| state.cold).await?.filter(|cold| !cold.is_empty());
        let Some(cold) = cold else { return Ok(None) };
        match self.cold_tier() {
            Some(tier) => Ok(Some((tier, cold))),
            None => {
                Err(StoreError::NotReady("the log's beginning is archived, and this broker has no archive".to_owned()))
            }
        }
    }
}
