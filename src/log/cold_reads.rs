//! Reads of the archive: each goes on without the fetch that began it, and the next fetch at its place takes the outcome.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    archive::{Archive, ArchiveError},
    partition::Partition,
    store::{Read, StoredBatch},
    tail::Key,
};

/// Reads that are under way, or whose outcome nobody has taken yet; of the latter the oldest gives way.
const MOST_READS: usize = 32;

type Outcome = Result<Vec<StoredBatch>, ArchiveError>;

#[derive(Default)]
pub(super) struct ColdReads(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// The oldest first.
    reads: VecDeque<ColdRead>,
    begun: u64,
    /// Partitions that were not read, since all places were taken.
    turned_away: HashMap<Key, Arc<Partition>>,
}

struct ColdRead {
    number: u64,
    partition: Key,
    read: Read,
    /// None while it is under way.
    outcome: Option<Outcome>,
}

impl ColdRead {
    /// How much was asked for does not matter: an outcome is cut to what is wanted of it.
    fn is_of(&self, partition: Key, read: &Read) -> bool {
        (self.partition, self.read.offset, self.read.codec) == (partition, read.offset, read.codec)
    }
}

impl ColdReads {
    /// What was read at this place. None as long as the archive has not answered: who waits for the partition is woken then.
    pub(super) fn take_or_begin(
        self: &Arc<Self>,
        archive: &Arc<dyn Archive>,
        partition: &Arc<Partition>,
        read: Read,
    ) -> Option<Outcome> {
        let key = partition.key();
        let mut inner = self.0.lock();
        if let Some(at) = inner.reads.iter().position(|known| known.is_of(key, &read)) {
            inner.reads.get(at)?.outcome.as_ref()?;
            let outcome = inner.reads.remove(at)?.outcome?;
            return Some(outcome.map(|batches| within(batches, read.max_bytes)));
        }
        if inner.reads.len() >= MOST_READS {
            let Some(untaken) = inner.reads.iter().position(|known| known.outcome.is_some()) else {
                inner.turned_away.insert(key, partition.clone());
                return None;
            };
            inner.reads.remove(untaken);
        }
        inner.begun += 1;
        let number = inner.begun;
        inner.reads.push_back(ColdRead { number, partition: key, read, outcome: None });
        drop(inner);
        let under_way = UnderWay { reads: self.clone(), partition: partition.clone(), number };
        let (archive, stopping) = (archive.clone(), partition.tasks().stopping().clone());
        partition.tasks().spawn("cold read", async move {
            let reading = archive.read(under_way.partition.id(), read);
            let outcome = stopping.run_until_cancelled(reading).await;
            if let Some(outcome) = outcome {
                under_way.end_with(outcome);
            }
        });
        None
    }
}

/// A place that is given back however the read ends.
struct UnderWay {
    reads: Arc<ColdReads>,
    partition: Arc<Partition>,
    number: u64,
}

impl UnderWay {
    fn end_with(self, outcome: Outcome) {
        let mut inner = self.reads.0.lock();
        if let Some(read) = inner.reads.iter_mut().find(|read| read.number == self.number) {
            read.outcome = Some(outcome);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let turned_away = {
            let mut inner = self.reads.0.lock();
            inner.reads.retain(|read| read.number != self.number || read.outcome.is_some());
            std::mem::take(&mut inner.turned_away)
        };
        self.partition.wake();
        turned_away.into_values().for_each(|partition| partition.wake());
    }
}

/// The first batches that together have no more bytes; at least one.
fn within(mut batches: Vec<StoredBatch>, max_bytes: usize) -> Vec<StoredBatch> {
    let mut bytes = 0;
    let fit = batches.iter().take_while(|batch| {
        bytes += batch.size();
        bytes <= max_bytes
    });
    let fit = fit.count().max(1);
    batches.truncate(fit);
    batches
}
