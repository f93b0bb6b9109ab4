//! What a partition remembers of an idempotent producer, and how Kafka judges its next batch by it
//! (`ProducerAppendInfo`, `ProducerStateEntry`).

use std::fmt::Write;

use crate::{log::store::AppendRefusal, model::ProducerIdentity, protocol::records::increment_sequence};

/// Batches that are kept for telling duplicates: as many as a client may have in flight.
const KEPT_BATCHES: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PastBatch {
    /// The largest timestamp of its records.
    pub(super) timestamp: i64,
    pub(super) first_sequence: i32,
    pub(super) last_sequence: i32,
    pub(super) base_offset: i64,
}

/// The value of the state's field `p:<producer id>`: `<epoch> <last use> <timestamp>:<first>-<last>@<offset>…`, oldest
/// batch first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Producer {
    pub(super) epoch: i16,
    /// The broker's clock, in ms.
    pub(super) last_use_ms: i64,
    pub(super) batches: Vec<PastBatch>,
}

/// What Kafka says of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    Duplicate(PastBatch),
    Refused(AppendRefusal),
}

impl Producer {
    pub(super) fn field(id: i64) -> String {
        format!("p:{id}")
    }

    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let epoch = words.next()?.parse().ok()?;
        let last_use_ms = words.next()?.parse().ok()?;
        let batches = words.map(PastBatch::parse).collect::<Option<Vec<_>>>()?;
        Some(Self { epoch, last_use_ms, batches })
    }

    pub(super) fn last_sequence(&self) -> Option<i32> {
        self.batches.last().map(|batch| batch.last_sequence)
    }

    pub(super) fn value(&self) -> String {
        let mut text = format!("{} {}", self.epoch, self.last_use_ms);
        for batch in &self.batches {
            write!(text, " {batch}").expect("a String takes any text");
        }
        text
    }

    /// The state after a batch was taken. The new value without the batch's offset, which ends it.
    pub(super) fn value_without_offset(
        known: Option<&Producer>,
        identity: ProducerIdentity,
        last_use_ms: i64,
        batch: PastBatch,
    ) -> String {
        let mut text = format!("{} {last_use_ms}", identity.epoch);
        for kept in kept(known, identity) {
            write!(text, " {kept}").expect("a String takes any text");
        }
        write!(text, " {}:{}-{}@", batch.timestamp, batch.first_sequence, batch.last_sequence)
            .expect("a String takes any text");
        text
    }

    pub(super) fn with(
        known: Option<&Producer>,
        identity: ProducerIdentity,
        last_use_ms: i64,
        batch: PastBatch,
    ) -> Producer {
        let mut batches = kept(known, identity).to_vec();
        batches.push(batch);
        Producer { epoch: identity.epoch, last_use_ms, batches }
    }
}

/// The batches that stay when another one comes; a new epoch starts anew.
fn kept(known: Option<&Producer>, identity: ProducerIdentity) -> &[PastBatch] {
    let batches = known.filter(|known| known.epoch == identity.epoch).map_or(&[][..], |known| &known.batches);
    &batches[batches.len().saturating_sub(KEPT_BATCHES - 1)..]
}

impl PastBatch {
    fn parse(text: &str) -> Option<Self> {
        let (timestamp, rest) = text.split_once(':')?;
        let (sequences, offset) = rest.split_once('@')?;
        let (first, last) = sequences.split_once('-')?;
        Some(Self {
            timestamp: timestamp.parse().ok()?,
            first_sequence: first.parse().ok()?,
            last_sequence: last.parse().ok()?,
            base_offset: offset.parse().ok()?,
        })
    }
}

impl std::fmt::Display for PastBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}-{}@{}", self.timestamp, self.first_sequence, self.last_sequence, self.base_offset)
    }
}

/// Judges a batch of `count` records by what is known of its producer. An unknown producer may start anywhere: its state
/// may have expired.
pub(super) fn judge(known: Option<&Producer>, epoch: i16, first_sequence: i32, count: i32) -> Verdict {
    #[cfg(feature = "planted-faults")]
    let known = known.filter(|_| !crate::faults::forgets_producers());
    let Some(known) = known else { return Verdict::Accepted };
    let last_sequence = increment_sequence(first_sequence, count.saturating_sub(1));
    if epoch == known.epoch {
        let same = |batch: &&PastBatch| batch.first_sequence == first_sequence && batch.last_sequence == last_sequence;
        if let Some(batch) = known.batches.iter().find(same) {
            return Verdict::Duplicate(*batch);
        }
    }
    if epoch < known.epoch {
        return Verdict::Refused(AppendRefusal::FencedProducer);
    }
    let expected = match known.last_sequence() {
        Some(last) if epoch == known.epoch => increment_sequence(last, 1),
        _ => 0,
    };
    if first_sequence == expected { Verdict::Accepted } else { Verdict::Refused(AppendRefusal::OutOfOrderSequence) }
}

/// How far a producer had come that Redis knows less of than it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LostProducer {
    epoch: i16,
    last_sequence: i32,
}

impl LostProducer {
    pub(super) fn of(known: &Producer) -> Option<Self> {
        Some(Self { epoch: known.epoch, last_sequence: known.last_sequence()? })
    }

    /// Whether a batch that is out of order by what is left follows what was lost: nothing from its first sequence on is
    /// stored, and what lies before it was answered and will not come again.
    pub(super) fn explains(&self, left: &Producer, epoch: i16, first_sequence: i32) -> bool {
        let expected = match left.last_sequence() {
            Some(last) if left.epoch == epoch => increment_sequence(last, 1),
            _ => 0,
        };
        // Sequences go round after i32::MAX.
        let ahead = |sequence: i32| (i64::from(sequence) - i64::from(expected)).rem_euclid(1 << 31);
        epoch == self.epoch
            && left.epoch <= epoch
            && ahead(first_sequence) <= ahead(increment_sequence(self.last_sequence, 1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_is_explained_by_what_was_lost_and_by_no_more() {
        let known = |epoch, last_sequence| Producer {
            epoch,
            last_use_ms: 0,
            batches: vec![PastBatch { timestamp: 0, first_sequence: last_sequence, last_sequence, base_offset: 0 }],
        };
        let lost = LostProducer::of(&known(2, 20)).expect("it had written");
        for (first_sequence, explained) in [(11, true), (15, true), (21, true), (22, false), (10, false), (3, false)] {
            assert_eq!(lost.explains(&known(2, 10), 2, first_sequence), explained, "{first_sequence}");
        }
        assert!(lost.explains(&known(1, 99), 2, 21), "its new epoch was lost too");
        assert!(!lost.explains(&known(2, 10), 3, 21), "of a newer epoch nothing was lost");
        let round = LostProducer::of(&known(2, 3)).expect("it had written");
        assert!(round.explains(&known(2, i32::MAX - 1), 2, 4) && !round.explains(&known(2, i32::MAX - 1), 2, 5));
    }

    fn batch(first: i32, last: i32, offset: i64) -> PastBatch {
        PastBatch { timestamp: 5, first_sequence: first, last_sequence: last, base_offset: offset }
    }

    fn producer(epoch: i16, batches: &[PastBatch]) -> Producer {
        Producer { epoch, last_use_ms: 1, batches: batches.to_vec() }
    }

    #[test]
    fn an_unknown_producer_may_start_anywhere() {
        assert_eq!(judge(None, 0, 17, 3), Verdict::Accepted);
    }

    #[test]
    fn the_next_sequence_is_taken_and_a_gap_is_not() {
        let known = producer(0, &[batch(0, 4, 0)]);
        assert_eq!(judge(Some(&known), 0, 5, 1), Verdict::Accepted);
        assert_eq!(judge(Some(&known), 0, 6, 1), Verdict::Refused(AppendRefusal::OutOfOrderSequence));
    }

    #[test]
    fn a_repetition_is_answered_with_the_first_answers_offset() {
        let known = producer(0, &[batch(0, 4, 10), batch(5, 5, 15)]);
        assert_eq!(judge(Some(&known), 0, 0, 5), Verdict::Duplicate(batch(0, 4, 10)));
        assert_eq!(judge(Some(&known), 0, 5, 1), Verdict::Duplicate(batch(5, 5, 15)));
        // The same start with another length is no repetition.
        assert_eq!(judge(Some(&known), 0, 5, 2), Verdict::Refused(AppendRefusal::OutOfOrderSequence));
    }

    #[test]
    fn an_older_epoch_is_fenced_and_a_newer_one_starts_at_zero() {
        let known = producer(3, &[batch(0, 4, 10)]);
        assert_eq!(judge(Some(&known), 2, 5, 1), Verdict::Refused(AppendRefusal::FencedProducer));
        assert_eq!(judge(Some(&known), 4, 5, 1), Verdict::Refused(AppendRefusal::OutOfOrderSequence));
        assert_eq!(judge(Some(&known), 4, 0, 1), Verdict::Accepted);
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let known = producer(0, &[batch(i32::MAX - 1, i32::MAX, 10)]);
        assert_eq!(judge(Some(&known), 0, 0, 1), Verdict::Accepted);
        let known = producer(0, &[batch(i32::MAX - 1, 1, 10)]);
        assert_eq!(judge(Some(&known), 0, i32::MAX - 1, 4), Verdict::Duplicate(batch(i32::MAX - 1, 1, 10)));
        assert_eq!(judge(Some(&known), 0, 2, 1), Verdict::Accepted);
    }

    #[test]
    fn five_batches_are_kept_and_a_new_epoch_forgets_them() {
        let identity = ProducerIdentity { id: 9, epoch: 0 };
        let mut known: Option<Producer> = None;
        for sequence in 0..7 {
            known = Some(Producer::with(known.as_ref(), identity, 1, batch(sequence, sequence, sequence.into())));
        }
        let known = known.expect("it was written to");
        let kept: Vec<i32> = known.batches.iter().map(|batch| batch.first_sequence).collect();
        assert_eq!(kept, [2, 3, 4, 5, 6]);
        let newer = Producer::with(Some(&known), ProducerIdentity { id: 9, epoch: 1 }, 1, batch(0, 0, 7));
        assert_eq!(newer.batches, [batch(0, 0, 7)]);
    }

    proptest! {
        #[test]
        fn a_producers_value_reads_back(
            epoch in 0..i16::MAX, used in 0..i64::MAX, timestamp in -1..i64::MAX,
            sequences in proptest::collection::vec((0..i32::MAX, 0..i32::MAX, 0..i64::MAX), 0..8),
        ) {
            let identity = ProducerIdentity { id: 1, epoch };
            let mut known: Option<Producer> = None;
            for (first, last, offset) in sequences {
                let past = PastBatch { timestamp, first_sequence: first, last_sequence: last, base_offset: offset };
                let text = format!("{}{offset}", Producer::value_without_offset(known.as_ref(), identity, used, past));
                known = Some(Producer::with(known.as_ref(), identity, used, past));
                prop_assert_eq!(Producer::parse(text.as_bytes()), known.clone());
                prop_assert_eq!(known.as_ref().map(Producer::value), Some(text));
            }
        }
    }
}
