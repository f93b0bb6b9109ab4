//! A partition whose older part is archived: reads on both sides of the seam, and no more in the storage than it may hold.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{error, info};

use super::{
    Log,
    archive::{Archive, ArchiveError, Cold, ColdNotes},
    cold_reads::ColdReads,
    config::LogConfig,
    partition::Partition,
    store::{LogState, Read, StoreError, StoredBatch, TimestampedOffset},
};
use crate::telemetry::metrics::ColdMetrics;

/// The most that one read takes from the archive, whatever the client would take.
const MOST_BYTES: usize = 8 << 20;

/// More may be archived while a time is looked for; then it is looked for again, this many times.
const TRIES: usize = 4;

/// Within which bounds a log uses its archive.
#[derive(Clone, Debug)]
pub struct Options {
    /// A fetch that has nothing else is answered without what the archive has not given by then, or until it waits no longer; the
    /// next one gets it.
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

/// Why a record is not found by its time.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SeekError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the archive did not answer in time")]
    NotInTime,
}

/// The cold tier of all partitions.
#[derive(Clone)]
pub struct ColdTier {
    pub archive: Arc<dyn Archive>,
    pub notes: Arc<dyn ColdNotes>,
    pub options: Options,
    pub(super) reads: Arc<ColdReads>,
}

impl std::fmt::Debug for ColdTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColdTier").field("options", &self.options).finish_non_exhaustive()
    }
}

impl ColdTier {
    pub fn new(archive: Arc<dyn Archive>, notes: Arc<dyn ColdNotes>, options: Options) -> Self {
        Self { archive, notes, options, reads: Arc::default() }
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
    /// Reads from the storage or, what only that has, from the archive. `None` while that is being asked.
    pub(super) async fn read_stored(self: &Arc<Self>, read: Read) -> Result<Option<Vec<StoredBatch>>, StoreError> {
        if let Some(cold) = self.seam().and_then(|seam| seam.cold_part(read)) {
            return self.read_cold(cold);
        }
        let batches = self.store().read(self.id(), read).await?;
        if batches.first().is_some_and(|first| first.base_offset <= read.offset) {
            return Ok(Some(batches));
        }
        // A gap: what was asked for may have been archived and trimmed since the seam was looked at.
        let state = self.store().load(self.id()).await?;
        match Seam::of(&state).and_then(|seam| seam.cold_part(read)) {
            Some(cold) => self.read_cold(cold),
            None => Ok(Some(batches)),
        }
    }

    fn read_cold(self: &Arc<Self>, read: Read) -> Result<Option<Vec<StoredBatch>>, StoreError> {
        let Some(tier) = self.cold_tier() else {
            let text = format!("offset {} is archived, and this broker has no archive: set archive.url", read.offset);
            return Err(StoreError::NotReady(text));
        };
        let Some(outcome) = tier.reads.take_or_begin(&tier.archive, self, read) else { return Ok(None) };
        let metrics = &tier.options.metrics;
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
                Ok(Some(batches))
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

    /// The first record at or after the log start whose timestamp is at least `timestamp`. The archive is waited for until
    /// `deadline`.
    pub async fn find_timestamp(
        &self,
        partition: &Arc<Partition>,
        timestamp: i64,
        deadline: Instant,
    ) -> Result<Option<TimestampedOffset>, SeekError> {
        let mut cold = partition.with_state(|state| state.cold).await?;
        for _ in 0..TRIES {
            if let Some((tier, cold)) = self.readable(cold)?
                && timestamp <= cold.bounds.max_timestamp
            {
                let found = tier.archive.find_timestamp(partition.id(), cold.bounds.start_offset, timestamp);
                let found = sought(found, deadline).await?;
                if let Some(found) = found.filter(|found| found.offset < cold.bounds.end_offset) {
                    return Ok(Some(found));
                }
            }
            let found = self.shared.store.find_timestamp(partition.id(), timestamp).await?;
            if !self.has_moved(partition, &mut cold).await? {
                return Ok(found);
            }
        }
        Err(moved_too_often().into())
    }

    /// The first record with the largest timestamp. The archive is waited for until `deadline`.
    pub async fn find_max_timestamp(
        &self,
        partition: &Arc<Partition>,
        deadline: Instant,
    ) -> Result<Option<TimestampedOffset>, SeekError> {
        let mut cold = partition.with_state(|state| state.cold).await?;
        for _ in 0..TRIES {
            let local = self.shared.store.find_max_timestamp(partition.id()).await?;
            let readable = self.readable(cold)?;
            let archived = match readable {
                Some((tier, cold)) if local.is_none_or(|local| local.timestamp <= cold.bounds.max_timestamp) => {
                    let found = tier.archive.find_max_timestamp(partition.id(), cold.bounds.start_offset);
                    sought(found, deadline).await?
                }
                _ => None,
            };
            if !self.has_moved(partition, &mut cold).await? {
                return Ok(match (archived, local) {
                    (Some(archived), Some(local)) if local.timestamp > archived.timestamp => Some(local),
                    (Some(archived), _) => Some(archived),
                    (None, local) => local,
                });
            }
        }
        Err(moved_too_often().into())
    }

    /// Whether more is archived than `cold` says, which the storage may have trimmed before it was asked. Then `cold` is the newer.
    async fn has_moved(&self, partition: &Partition, cold: &mut Option<Cold>) -> Result<bool, StoreError> {
        if self.cold_tier().is_none() {
            return Ok(false);
        }
        let end = |cold: Option<Cold>| cold.filter(|cold| !cold.is_empty()).map(|cold| cold.bounds.end_offset);
        let state = self.shared.store.load(partition.id()).await?;
        let has_moved = end(state.cold) != end(*cold);
        *cold = state.cold;
        Ok(has_moved)
    }

    /// Where there is something in the archive.
    fn readable(&self, cold: Option<Cold>) -> Result<Option<(&ColdTier, Cold)>, StoreError> {
        let Some(cold) = cold.filter(|cold| !cold.is_empty()) else { return Ok(None) };
        match self.cold_tier() {
            Some(tier) => Ok(Some((tier, cold))),
            None => {
                Err(StoreError::NotReady("the log's beginning is archived, and this broker has no archive".to_owned()))
            }
        }
    }
}

/// What the archive finds by `deadline`.
async fn sought<T>(search: impl Future<Output = Result<T, ArchiveError>>, deadline: Instant) -> Result<T, SeekError> {
    let found = tokio::time::timeout_at(deadline, search).await.map_err(|_| SeekError::NotInTime)?;
    Ok(found.map_err(|error| unreadable(&error))?)
}

fn moved_too_often() -> StoreError {
    StoreError::NotReady("more was archived each time that a time was looked for".to_owned())
}
