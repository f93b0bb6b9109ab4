//! Copies what topics with a cold tier have into the archive, then lets the storage trim it.
//!
//! The order is: copy, commit, note the new end in the storage, trim. Each step can be the last one before a crash: whoever
//! leads next asks the archive where it ends and goes on from there.

mod copy;
mod failing;
mod partitions;
mod rate;
mod removal;
mod room;
mod upkeep;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::debug;

pub use partitions::{Led, Partitions, Unled};

use crate::{
    clock::Clock,
    log::{
        archive::{ArchiveError, Table, TableChange},
        config::Tier,
        store::{LogState, LogStore, StoreError},
        tiered::ColdTier,
    },
    model::PartitionId,
    topics::{Catalog, Topic},
};

use failing::Failing;
use rate::Rate;

/// Bounds of the job's work.
#[derive(Clone, Debug)]
pub struct Options {
    /// At what size a file is closed, and how much waits for one.
    pub file_bytes: u64,
    /// Older records are copied also where they do not fill a file.
    pub lag: Duration,
    /// Between two rounds where there is nothing more to do at once.
    pub interval: Duration,
    /// Bytes a second; `None` is no limit.
    pub rate_bytes: Option<u64>,
    /// Between two rounds of a table's upkeep.
    pub tidy_interval: Duration,
    /// An archive that has not answered for so long takes nothing.
    pub silence: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            file_bytes: 128 << 20,
            lag: Duration::from_secs(3_600),
            interval: Duration::from_secs(30),
            rate_bytes: None,
            tidy_interval: Duration::from_secs(3_600),
            silence: Duration::from_secs(30),
        }
    }
}

/// Why a partition is not archived for now.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum JobError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the archive ends at offset {found}, and the log knows it to end at {noted}: somebody removed from it")]
    Shrunk { noted: i64, found: i64 },
    #[error("the archive ends at offset {archived}, beyond the log's end {next}: the storage has lost what it had")]
    Ahead { archived: i64, next: i64 },
}

impl JobError {
    /// The topic was deleted, or another broker leads by now.
    fn is_of_no_concern(&self) -> bool {
        matches!(self, JobError::Store(StoreError::NoSuchPartition | StoreError::FencedLeader(_)))
            || matches!(self, JobError::Archive(ArchiveError::Overtaken { .. }))
    }
}

/// The archival job.
pub struct Archiver {
    store: Arc<dyn LogStore>,
    tier: ColdTier,
    topics: Arc<Catalog>,
    partitions: Arc<dyn Partitions>,
    clock: Clock,
    options: Options,
    /// The epoch in which a partition's note was compared with the archive.
    compared: Mutex<HashMap<PartitionId, i32>>,
    /// Below which offset the archive was told to remove.
    cut: Mutex<HashMap<PartitionId, i64>>,
    retained_at: Mutex<HashMap<PartitionId, Instant>>,
    failing: Failing,
    /// When the archive was asked what it has not answered yet.
    asked_at: Mutex<Option<Instant>>,
    rate: Option<Rate>,
    wake: Notify,
}

/// A partition in a round.
struct Work<'a> {
    id: &'a PartitionId,
    topic: &'a Topic,
    tier: Tier,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lag {
    bytes: u64,
    records: i64,
    archived_bytes: u64,
}

impl Archiver {
    pub fn new(
        store: Arc<dyn LogStore>,
        tier: ColdTier,
        topics: Arc<Catalog>,
        partitions: Arc<dyn Partitions>,
        clock: Clock,
        options: Options,
    ) -> Self {
        Self {
            store,
            tier,
            topics,
            partitions,
            clock,
            rate: options.rate_bytes.and_then(Rate::new),
            options,
            compared: Mutex::default(),
            cut: Mutex::default(),
            retained_at: Mutex::default(),
            failing: Failing::default(),
            asked_at: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Runs until `stopping`. A copy may wait for the archive for long, and a table's upkeep may take long: neither holds up the
    /// others.
    pub async fn run(self: Arc<Self>, stopping: CancellationToken) {
        let work = async { tokio::join!(self.keep_copying(), self.keep_room(), self.keep_tidy()) };
        // What a copy has not committed leaves nothing behind.
        stopping.run_until_cancelled(work).await;
    }

    /// Whether the last try to archive a partition failed.
    pub fn is_failing(&self, partition: &PartitionId) -> bool {
        self.failing.contains(partition)
    }

    async fn keep_copying(&self) {
        loop {
            if self.round().await {
                continue;
            }
            let _ = tokio::time::timeout(self.options.interval, self.wake.notified()).await;
        }
    }

    /// A question to the archive, as [`Archiver::make_room`] sees it.
    async fn ask<T>(&self, question: impl Future<Output = Result<T, ArchiveError>>) -> Result<T, ArchiveError> {
        *self.asked_at.lock() = Some(Instant::now());
        let answer = question.await;
        *self.asked_at.lock() = None;
        answer
    }

    /// Looks at every partition once, one file each. Returns whether there is more to do at once.
    pub async fn round(&self) -> bool {
        let tables = match self.tier.notes.tables().await {
            Ok(tables) => tables,
            Err(error) => {
                debug!(%error, "the archive's tables are not known now");
                return false;
            }
        };
        let topics: Vec<Arc<Topic>> = self.topics.snapshot().topics().cloned().collect();
        let mut seen = HashSet::new();
        let mut lag = Lag::default();
        let mut has_more = false;
        for topic in &topics {
            let Some(tier) = topic.log_config.tier else { continue };
            if tables.iter().any(|table| table.topic_id == topic.id && table.is_leaving) {
                // Archived anew only when the former table is gone.
                continue;
            }
            if !self.begin_table(topic, &tables).await {
                continue;
            }
            for id in topic.partition_ids().filter(|id| self.partitions.takes(id)) {
                seen.insert(id.clone());
                match self.archive(&Work { id: &id, topic, tier }).await {
                    Ok((state, copied)) => {
                        self.failing.works(&id);
                        has_more |= copied;
                        lag.bytes += state.unarchived_bytes();
                        lag.records += state.next_offset.saturating_sub(state.archived_end_offset());
                        lag.archived_bytes += state.cold.map_or(0, |cold| cold.bounds.size_bytes);
                    }
                    Err(error) => {
                        self.compared.lock().remove(&id);
                        if !error.is_of_no_concern() {
                            self.tier.options.metrics.copy_errors.inc();
                            self.failing.fails(&id, &error);
                        }
                        self.note_what_may_stay(topic).await;
                    }
                }
            }
        }
        self.compared.lock().retain(|id, _| seen.contains(id));
        self.cut.lock().retain(|id, _| seen.contains(id));
        self.retained_at.lock().retain(|id, _| seen.contains(id));
        self.failing.end_round(&seen);
        self.show(lag);
        self.remove_tables(&tables).await;
        has_more
    }

    /// Notes that the topic may have a table from now on, so that it is found when the topic is gone.
    async fn begin_table(&self, topic: &Topic, tables: &[Table]) -> bool {
        if tables.iter().any(|table| table.topic_id == topic.id) {
            return true;
        }
        let table = Table { topic: topic.name.clone(), topic_id: topic.id, is_leaving: false };
        let noted = self.tier.notes.note_table(&table, TableChange::Begins).await;
        noted.inspect_err(|error| debug!(topic = %topic.name, %error, "a table can't be noted")).is_ok()
    }

    /// Takes one partition a step on: a file at most.
    async fn archive(&self, work: &Work<'_>) -> Result<(LogState, bool), JobError> {
        let (state, end) = self.partitions.look(work.id).await?;
        let mut state = self.compare(work, state).await?;
        let mut copied = false;
        if work.tier.copies
            && self.is_due(work, &state, end).await?
            && let Some(noted) = self.copy_file(work, &state, end).await?
        {
            (state, copied) = (noted, true);
        }
        if state.local_start_offset < state.archived_end_offset() {
            state = self.store.retain(work.id, work.topic.log_config.retention(self.clock.now_ms())).await?;
        }
        state = self.retain_whole(work, state).await?;
        self.partitions.learnt(work.id, &state);
        Ok((state, copied))
    }

    fn show(&self, lag: Lag) {
        let metrics = &self.tier.options.metrics;
        metrics.lag_bytes.set(i64::try_from(lag.bytes).unwrap_or(i64::MAX));
        metrics.lag_records.set(lag.records);
        metrics.size_bytes.set(i64::try_from(lag.archived_bytes).unwrap_or(i64::MAX));
    }
}
