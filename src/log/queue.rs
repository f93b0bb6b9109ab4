//! Batches of one partition that wait for the storage, and which of them go together.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Answer, AppendError, AppendedAt, config::LogConfig, store::Layout};
use crate::protocol::records::ValidatedBatch;

/// Bounds of what goes to the storage in one step; the first batch goes whatever its size.
#[derive(Clone, Copy, Debug)]
pub struct GroupLimits {
    pub batches: usize,
    /// Bytes of the batches as sent.
    pub bytes: usize,
    /// Records, where each becomes an entry of its own.
    pub records: usize,
}

impl Default for GroupLimits {
    /// Together they hold Redis for a few milliseconds.
    fn default() -> Self {
        Self { batches: 64, bytes: 1 << 20, records: 1_000 }
    }
}

/// A batch that waits.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) ticket: u64,
    pub(super) batch: ValidatedBatch,
    pub(super) config: Arc<LogConfig>,
    pub(super) reply: oneshot::Sender<Result<AppendedAt, AppendError>>,
    pub(super) answer: Answer,
    /// The memory of the batch, given back once it is stored.
    pub(super) held: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    next_ticket: u64,
}

impl Queue {
    /// Returns the ticket to take the batch back with.
    pub(super) fn push(
        &mut self,
        batch: ValidatedBatch,
        config: Arc<LogConfig>,
        held: OwnedSemaphorePermit,
        reply: oneshot::Sender<Result<AppendedAt, AppendError>>,
        answer: Answer,
    ) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.entries.push_back(Entry { ticket, batch, config, reply, answer, held });
        ticket
    }

    /// Takes a batch back that was not sent yet.
    pub(super) fn withdraw(&mut self, ticket: u64) -> Option<Entry> {
        let place = self.entries.binary_search_by_key(&ticket, |entry| entry.ticket).ok()?;
        self.entries.remove(place)
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Entry> {
        std::mem::take(&mut self.entries).into_iter()
    }

    /// The batches that go next, in order: those that are stored alike and fit the limits together.
    pub(super) fn take_group(&mut self, limits: &GroupLimits) -> Vec<Entry> {
        let Some(first) = self.entries.front() else { return Vec::new() };
        let config = first.config.clone();
        let mut bytes = 0_usize;
        let mut records = 0_usize;
        let fitting = self.entries.iter().take(limits.batches.max(1)).enumerate().take_while(|(place, entry)| {
            bytes = bytes.saturating_add(entry.batch.header().size());
            if matches!(config.layout, Layout::Record(_)) {
                records = records.saturating_add(usize::try_from(entry.batch.record_count()).unwrap_or(0));
            }
            let alike = Arc::ptr_eq(&entry.config, &config) || *entry.config == *config;
            *place == 0 || (alike && bytes <= limits.bytes && records <= limits.records)
        });
        let count = fitting.count();
        self.entries.drain(..count).collect()
    }
}
