//! One partition: what is copied when, what the storage is told, and what retention removes.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info};

use super::{Archiver, JobError, Work};
use crate::{
    log::{
        archive::{Cold, ColdBounds, Table, TableChange},
        store::{LogState, Read, StoreError},
    },
    tasks::hurry,
};

/// What is read from the storage at once: producers wait for as long as Redis takes to answer it.
const READ_BYTES: usize = 128 << 10;
/// A file that grows slowly (`archive.rate.bytes`) is closed after this.
const LONGEST_COPY: Duration = Duration::from_secs(3_600);

impl Archiver {
    /// Once for each leader: the archive may have more than is noted, if the leader before died in between. The first time it
    /// notes that retention stops at what is archived.
    pub(super) async fn compare(&self, work: &Work<'_>, state: LogState) -> Result<LogState, JobError> {
        let is_noted = state.cold.is_some_and(|cold| cold.holds_back == work.tier.copies);
        if is_noted && self.compared.lock().get(work.id) == Some(&state.leader_epoch) {
            return Ok(state);
        }
        let (state, _) = self.level(work, state).await?;
        self.compared.lock().insert(work.id.clone(), state.leader_epoch);
        Ok(state)
    }

    /// Notes what the archive has, where that is more than is noted. Returns its end too, if it has anything.
    async fn level(&self, work: &Work<'_>, state: LogState) -> Result<(LogState, Option<i64>), JobError> {
        let found = self.ask(self.tier.archive.bounds(work.id)).await?;
        let start = state.local_start_offset;
        let nothing = ColdBounds { start_offset: start, end_offset: start, max_timestamp: -1, size_bytes: 0 };
        let noted = state.cold.map(|cold| cold.bounds);
        let bounds = match (noted, found) {
            (None, None) => nothing,
            (None, Some(found)) => found,
            (Some(noted), None) if noted.start_offset < noted.end_offset => {
                return Err(JobError::Shrunk { noted: noted.end_offset, found: noted.start_offset });
            }
            (Some(noted), None) => noted,
            // All that is missing was deleted meanwhile.
            (Some(noted), Some(found))
                if found.end_offset < noted.end_offset && noted.start_offset >= noted.end_offset =>
            {
                noted
            }
            (Some(noted), Some(found)) if found.end_offset < noted.end_offset => {
                return Err(JobError::Shrunk { noted: noted.end_offset, found: found.end_offset });
            }
            (Some(noted), Some(found)) => {
                ColdBounds { start_offset: noted.start_offset.max(found.start_offset), ..found }
            }
        };
        if bounds.end_offset > state.next_offset {
            return Err(JobError::Ahead { archived: bounds.end_offset, next: state.next_offset });
        }
        let cold = Cold { bounds, holds_back: work.tier.copies };
        let state = if state.cold == Some(cold) { state } else { self.note(work, &state, cold).await? };
        Ok((state, found.map(|found| found.end_offset)))
    }

    /// Tells the storage, and so all brokers, what is archived.
    async fn note(&self, work: &Work<'_>, state: &LogState, cold: Cold) -> Result<LogState, JobError> {
        let noted = self.tier.notes.note_cold(work.id, state.cold, Some(cold), state.leader_epoch).await;
        let noted = match noted {
            Err(StoreError::NoSuchPartition) => {
                // Deleted meanwhile; what was committed must not stay behind.
                let (topic, topic_id) = (work.topic.name.clone(), work.topic.id);
                let table = Table { topic, topic_id, is_leaving: false };
                self.tier.notes.note_table(&table, TableChange::Begins).await?;
                return Err(StoreError::NoSuchPartition.into());
            }
            noted => noted?,
        };
        if noted.cold != Some(cold) {
            // Records were deleted meanwhile, or another copies too: the next round looks again.
            self.compared.lock().remove(work.id);
        }
        self.partitions.learnt(work.id, &noted);
        Ok(noted)
    }

    /// Whether a file is full, or its records have waited for long enough.
    pub(super) async fn is_due(&self, work: &Work<'_>, state: &LogState, end: i64) -> Result<bool, JobError> {
        let from = state.archived_end_offset();
        if from >= end {
            return Ok(false);
        }
        let is_full = state.unarchived_bytes() >= self.file_bytes(work);
        // Half of what may stay: less would be a small file in each round.
        let is_over = |most: u64| state.size_bytes > most && state.unarchived_bytes() >= most / 2;
        if is_full || work.tier.local_retention_bytes.is_some_and(is_over) {
            return Ok(true);
        }
        let first = self.store.read(work.id, Read::for_copy(from, 1, end)).await?;
        let lag = i64::try_from(self.options.lag.as_millis()).unwrap_or(i64::MAX);
        let longest = work.tier.local_retention_ms.map_or(lag, |kept| kept.min(lag));
        let oldest = self.clock.now_ms().saturating_sub(longest);
        Ok(first.first().is_some_and(|batch| batch.max_timestamp <= oldest))
    }

    /// Whether so much waits that Redis holds more than it should: clients are given way to only until then.
    fn is_behind(&self, work: &Work<'_>, state: &LogState) -> bool {
        let waiting = state.unarchived_bytes();
        let beyond = |most: Option<u64>| most.is_some_and(|most| waiting >= most);
        let hot_limit = self.tier.options.hot_limit_bytes;
        beyond(work.tier.local_retention_bytes) || beyond(hot_limit.map(|limit| limit / 2))
    }

    fn file_bytes(&self, work: &Work<'_>) -> u64 {
        work.tier.files.file_bytes.unwrap_or(self.options.file_bytes)
    }

    /// Copies up to a file's worth below `end`. None where there was nothing to copy.
    pub(super) async fn copy_file(
        &self,
        work: &Work<'_>,
        state: &LogState,
        end: i64,
    ) -> Result<Option<LogState>, JobError> {
        let (state, archived_end) = self.level(work, state.clone()).await?;
        let mut offset = state.archived_end_offset();
        let max_bytes = usize::try_from(self.file_bytes(work)).unwrap_or(READ_BYTES).min(READ_BYTES);
        let mut copy = None;
        let (began, mut bytes, mut records) = (Instant::now(), 0_u64, 0_u64);
        let is_behind = self.is_behind(work, &state);
        loop {
            if is_behind {
                hurry();
            }
            let batches = self.store.read(work.id, Read::for_copy(offset, max_bytes, end)).await?;
            let (Some(first), Some(last)) = (batches.first(), batches.last()) else { break };
            if copy.is_none() {
                let from = archived_end.unwrap_or(first.base_offset);
                copy = Some(self.ask(self.tier.archive.begin(work.id, from, work.tier.files)).await?);
            }
            let Some(copy) = copy.as_mut() else { break };
            self.ask(copy.write(&batches)).await?;
            offset = last.last_offset.saturating_add(1);
            let written: u64 = batches.iter().map(|batch| batch.size() as u64).sum();
            bytes += written;
            records += batches.iter().map(|batch| batch.count()).sum::<u64>();
            if let Some(rate) = &self.rate {
                rate.pay(written).await;
            }
            if copy.size_bytes() >= self.file_bytes(work) || offset >= end || began.elapsed() >= LONGEST_COPY {
                break;
            }
        }
        let Some(copy) = copy else { return Ok(None) };
        let committed = self.ask(copy.commit(state.leader_epoch)).await?;
        let start_offset = state.cold.map_or(committed.start_offset, |cold| cold.bounds.start_offset);
        let bounds = ColdBounds { start_offset: start_offset.max(committed.start_offset), ..committed };
        let noted = self.note(work, &state, Cold { bounds, holds_back: true }).await?;
        let metrics = &self.tier.options.metrics;
        metrics.copied_records.inc_by(records);
        metrics.copied_bytes.inc_by(bytes);
        debug!(partition = %work.id, end = committed.end_offset, records, bytes, took = ?began.elapsed(), "records are archived");
        Ok(Some(noted))
    }

    /// Removes what the whole log's retention, or a client, has done with.
    pub(super) async fn retain_whole(&self, work: &Work<'_>, state: LogState) -> Result<LogState, JobError> {
        let state = self.expire(work, state).await?;
        let Some(cold) = state.cold else { return Ok(state) };
        let start = cold.bounds.start_offset;
        if start == 0 || self.cut.lock().get(work.id) == Some(&start) {
            return Ok(state);
        }
        let found = self.ask(self.tier.archive.bounds(work.id)).await?;
        let mut noted = state;
        if found.is_some_and(|found| found.start_offset < start) {
            let left = self.ask(self.tier.archive.delete_before(work.id, start)).await?;
            let bounds = ColdBounds { size_bytes: left.size_bytes, ..cold.bounds };
            noted = self.note(work, &noted, Cold { bounds, ..cold }).await?;
        }
        self.cut.lock().insert(work.id.clone(), start);
        Ok(noted)
    }

    async fn expire(&self, work: &Work<'_>, state: LogState) -> Result<LogState, JobError> {
        let Some(cold) = state.cold.filter(|cold| !cold.is_empty()) else { return Ok(state) };
        let pause = Duration::from_millis(self.topics.settings().load().log_retention_check_interval_ms);
        {
            let mut retained_at = self.retained_at.lock();
            if retained_at.get(work.id).is_some_and(|last| last.elapsed() < pause) {
                return Ok(state);
            }
            retained_at.insert(work.id.clone(), Instant::now());
        }
        let whole = work.topic.log_config.whole_retention(self.clock.now_ms());
        let mut before = 0;
        if whole.before_timestamp.is_some() || whole.max_bytes.is_some() {
            let max_bytes = whole.max_bytes.map(|most| most.saturating_sub(state.unarchived_bytes()));
            before = self.ask(self.tier.archive.expired(work.id, whole.before_timestamp, max_bytes)).await?;
        }
        if let Some(records) = whole.max_records {
            let kept = i64::try_from(records).unwrap_or(i64::MAX);
            before = before.max(state.next_offset.saturating_sub(kept));
        }
        let before = before.min(cold.bounds.end_offset);
        if before <= state.log_start_offset {
            return Ok(state);
        }
        let log_start = self.store.delete_records(work.id, before).await?;
        info!(partition = %work.id, from = state.log_start_offset, to = log_start, "retention moves the start of the log");
        let state = self.store.load(work.id).await?;
        self.partitions.learnt(work.id, &state);
        Ok(state)
    }
}
