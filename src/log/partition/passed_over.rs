//! Batches of idempotent producers that were not taken for a reason that passes, so that a batch that was sent behind one of them is
//! told no worse, and does not take its place. OUT_OF_ORDER_SEQUENCE_NUMBER would be true of it, but librdkafka then goes on in a new
//! producer epoch, and what is stored and waits for its answer would be stored again. If it were taken, as the first of a producer
//! of which nothing is known, the one before it would be out of order for good.
//!
//! The leader's memory is enough for what clients have under way: it was sent to this leader, and when another leads by the time of the
//! answers, they send again in order. What is left is Kafka's too: a producer's first batch lies unanswered at a leader that
//! hangs, and its second one goes to the new leader, who knows nothing of it.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::protocol::records::BatchHeader;

/// A client that does not come back with the batch within this time has given it up.
const KEPT: Duration = Duration::from_secs(30);
/// Producers of one partition; beyond that what is too old goes, and new ones are not noted.
const MOST: usize = 1_000;

/// Who sent a batch, and where in its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    producer_id: i64,
    epoch: i16,
    first_sequence: i32,
}

impl Sent {
    /// None where the producer is not idempotent.
    pub(super) fn of(header: &BatchHeader) -> Option<Self> {
        header.has_producer_id().then_some(Self {
            producer_id: header.producer_id,
            epoch: header.producer_epoch,
            first_sequence: header.base_sequence,
        })
    }

    /// Sequences go round after `i32::MAX`.
    fn is_behind(&self, other: &Self) -> bool {
        let ahead = (i64::from(self.first_sequence) - i64::from(other.first_sequence)).rem_euclid(1 << 31);
        self.epoch == other.epoch && (1..1 << 30).contains(&ahead)
    }
}

/// The first batch of each producer that was not taken.
#[derive(Default)]
pub(super) struct PassedOver {
    first: HashMap<i64, (Sent, Instant)>,
}

impl PassedOver {
    pub(super) fn note(&mut self, sent: Option<Sent>) {
        let Some(sent) = sent else { return };
        let now = Instant::now();
        let is_told = |(first, at): &(Sent, Instant)| sent.is_behind(first) && now < *at + KEPT;
        if self.first.get(&sent.producer_id).is_some_and(is_told) {
            return;
        }
        if self.first.len() >= MOST {
            self.first.retain(|_, (_, at)| now < *at + KEPT);
        }
        if self.first.len() < MOST {
            self.first.insert(sent.producer_id, (sent, now));
        }
    }

    /// The producer has come back with it.
    pub(super) fn forget(&mut self, sent: Option<Sent>) {
        let Some(sent) = sent.filter(|_| !self.first.is_empty()) else { return };
        if self.first.get(&sent.producer_id).is_some_and(|(first, _)| !first.is_behind(&sent)) {
            self.first.remove(&sent.producer_id);
        }
    }

    /// Whether a batch is out of order only since one before it was not taken.
    pub(super) fn explains(&self, sent: Option<Sent>) -> bool {
        let Some(sent) = sent else { return false };
        let first = self.first.get(&sent.producer_id);
        first.is_some_and(|(first, at)| sent.is_behind(first) && Instant::now() < *at + KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(epoch: i16, first_sequence: i32) -> Option<Sent> {
        Some(Sent { producer_id: 7, epoch, first_sequence })
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_behind_one_that_was_not_taken_is_explained_until_that_one_comes_again() {
        let mut passed = PassedOver::default();
        assert!(!passed.explains(sent(0, 9)));
        passed.note(sent(0, 5));
        passed.note(sent(0, 9));
        for (epoch, first_sequence, explained) in [(0, 6, true), (0, 5, false), (0, 4, false), (1, 6, false)] {
            assert_eq!(passed.explains(sent(epoch, first_sequence)), explained, "{epoch} {first_sequence}");
        }
        passed.forget(sent(0, 4));
        assert!(passed.explains(sent(0, 9)), "an older one changes nothing");
        passed.forget(sent(0, 5));
        assert!(!passed.explains(sent(0, 9)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_does_not_come_again_is_forgotten_and_sequences_go_round() {
        let mut passed = PassedOver::default();
        passed.note(sent(0, i32::MAX - 1));
        assert!(passed.explains(sent(0, 3)));
        tokio::time::advance(KEPT).await;
        assert!(!passed.explains(sent(0, 3)));
    }
}
