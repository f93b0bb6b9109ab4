//! A storage that comes back with less than it had: noticed, told, and never gone on with in the same leader epoch, since the
//! offsets of what was lost are given to other records (docs/adr/0013).

use std::sync::Arc;

use tracing::{error, warn};

use super::{Inner, Partition};
use crate::log::store::{LogState, StoreError};

/// The end of the log as this broker learnt it while it led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) epoch: i32,
    /// Exclusive, as `seen`.
    pub(super) end: i64,
    /// What was promised held up to here, and consumers saw it.
    pub(super) seen: i64,
    /// What lies below is archived, and so not lost with the storage.
    pub(super) archived: i64,
    /// The storage had less: this epoch must not go on.
    pub(super) is_over: bool,
}

impl Known {
    /// Where what is left of the known records ends; none where nothing was lost.
    fn cut_at(&self, stored: &LogState) -> Option<i64> {
        // Where others have led since, their epochs begin where this one ended. None: the storage has forgotten the epoch.
        let left = stored.end_of_epoch(self.epoch).map_or(stored.next_offset, |end| end.end_offset);
        (left < self.end).then_some(left)
    }
}

impl Partition {
    /// The epoch, at least `epoch`, that is over since the storage has lost records of it.
    pub(super) fn epoch_over(&self, epoch: i32) -> Option<i32> {
        self.inner.lock().known.filter(|known| known.is_over && known.epoch >= epoch).map(|known| known.epoch)
    }

    /// Whether records that were `known` before `stored` was asked for are missing in it; tells once of each.
    pub(super) fn tell_loss(&self, known: Option<Known>, stored: &LogState) -> bool {
        let Some(left) = known.and_then(|known| known.cut_at(stored)) else { return false };
        let mut inner = self.inner.lock();
        // Appends of the same storage may have ended meanwhile; another look may have told.
        let Some(known) = inner.known.filter(|known| known.end > left) else { return false };
        inner.known = Some(Known { end: left, seen: known.seen.min(left), is_over: true, ..known });
        drop(inner);
        self.tell_lost(left.max(known.archived), known);
        true
    }

    fn tell_lost(&self, from: i64, known: Known) {
        let (topic, partition) = (&self.id.topic, self.id.index);
        #[cfg(feature = "planted-faults")]
        let Some((from, known)) =
            crate::faults::told_loss(from, known.epoch).map(|(from, epoch)| (from, Known { epoch, ..known }))
        else {
            return;
        };
        if from < known.seen {
            let metrics = &self.shared.options.metrics;
            metrics.lost_ranges.inc();
            metrics.lost_records.inc_by(u64::try_from(known.seen - from).unwrap_or(0));
            error!(
                %topic, partition, first_lost = from, last_lost = known.seen - 1, records = known.seen - from,
                epoch = known.epoch,
                "Redis came back without records that were acknowledged: they are lost, and their offsets go to other records in a \
                 newer leader epoch"
            );
        }
        let unpromised = from.max(known.seen);
        if unpromised < known.end {
            warn!(
                %topic, partition, first_lost = unpromised, last_lost = known.end - 1, records = known.end - unpromised,
                epoch = known.epoch,
                "Redis came back without records for which weir.durability did not hold yet: acks=all was not answered for them"
            );
        }
    }

    /// The storage may have lost records: looks, where this broker has led.
    pub(in crate::log) async fn look_for_loss(self: &Arc<Self>) -> Result<(), StoreError> {
        let known = self.inner.lock().known;
        if known.is_none() {
            return Ok(());
        }
        if self.leads().is_ok() {
            self.doubt();
            return match self.load().await {
                // A loss is seen to, the topic's is told by the catalog, and a partition is made again where there is still the topic.
                Err(StoreError::FencedLeader(_) | StoreError::NoSuchPartition) => Ok(()),
                looked => looked,
            };
        }
        let stored = match self.shared.store.load(&self.id).await {
            Err(error @ StoreError::NoSuchPartition) => {
                self.note_missing(&error);
                return Ok(());
            }
            stored => stored?,
        };
        self.tell_loss(known, &stored);
        // Whoever leads knows the rest.
        self.inner.lock().known = None;
        Ok(())
    }

    /// The catalog says that the partition is there.
    pub(super) fn note_missing(&self, error: &StoreError) {
        if *error == StoreError::NoSuchPartition && !self.inner.lock().deleted {
            self.shared.options.missing.note(self.id.topic_id);
        }
    }

    /// The storage has forgotten the topic: all of the log is lost.
    pub(in crate::log) fn tell_lost_whole(&self) {
        let lost = self.inner.lock().known.take();
        if let Some(known) = lost.filter(|known| known.end > 0) {
            self.tell_lost(0, known);
        }
    }
}

impl Inner {
    /// The state is what the storage has.
    pub(super) fn learn_known(&mut self) {
        let Some(state) = &self.state else { return };
        let (epoch, end) = (state.leader_epoch, state.next_offset);
        let seen = self.high_watermark.unwrap_or(0).min(end);
        let seen = self.known.map_or(seen, |known| known.seen.max(seen));
        let archived = self.known.map_or(0, |known| known.archived);
        self.known = Some(Known { epoch, end, seen: seen.min(end), archived, is_over: false });
        self.learn_archived();
    }

    /// An append of this broker has ended at `end`.
    pub(super) fn learn_appended(&mut self, end: i64) {
        if let Some(known) = &mut self.known {
            known.end = known.end.max(end);
        }
    }
}
