//! Each finding by a history made by hand, and that a history without a fault gives none.

use std::collections::BTreeMap;

use super::{Allowed, Fault, Loss, check};
use crate::history::{Event, Kind, Operation, Role};

const P: &str = "t/0";
const MS: u64 = 1_000;

/// A history that a test writes down line by line; times are milliseconds.
#[derive(Default)]
struct Story {
    events: Vec<Event>,
    allowed: Allowed,
}

impl Story {
    /// Two idempotent producers, a plain one, a reader, two members of a group, an observer, the final reader.
    fn new() -> Self {
        let mut story = Self::default();
        for (client, role, idempotent, group) in [
            ("p", Role::Producer, true, None),
            ("q", Role::Producer, true, None),
            ("plain", Role::Producer, false, None),
            ("reader", Role::Reader, false, None),
            ("m", Role::Member, false, Some("g")),
            ("n", Role::Member, false, Some("g")),
            ("observer", Role::Observer, false, None),
            ("final", Role::Final, false, None),
        ] {
            let (library, group) = (String::new(), group.map(str::to_owned));
            story.add(0, client, Kind::Info, Operation::Start { role, library, idempotent, group });
        }
        story
    }

    fn add(&mut self, time: u64, client: &str, kind: Kind, operation: Operation) {
        self.events.push(Event { time: time * MS, client: client.to_owned(), kind, operation });
    }

    fn sent(&mut self, time: u64, client: &str, sequence: u64) -> &mut Self {
        let partition = P.to_owned();
        self.add(time, client, Kind::Invoke, Operation::Produce { partition, sequence, offset: None, error: None });
        self
    }

    fn told(&mut self, time: u64, client: &str, sequence: u64, kind: Kind, offset: Option<i64>) -> &mut Self {
        self.add(time, client, kind, Operation::Produce { partition: P.to_owned(), sequence, offset, error: None });
        self
    }

    fn acknowledged(&mut self, time: u64, client: &str, sequence: u64, offset: i64) -> &mut Self {
        self.sent(time, client, sequence).told(time + 10, client, sequence, Kind::Ok, Some(offset))
    }

    fn read(&mut self, time: u64, client: &str, offset: i64, records: &[(&str, u64)]) -> &mut Self {
        let records = records.iter().map(|(client, sequence)| ((*client).to_owned(), *sequence)).collect();
        self.add(time, client, Kind::Ok, Operation::Read { partition: P.to_owned(), offset, records });
        self
    }

    fn is_in_the_end(&mut self, records: &[(&str, u64)]) -> &mut Self {
        self.read(1_000_000, "final", 0, records)
    }

    fn assigned(&mut self, time: u64, client: &str, generation: i32) -> &mut Self {
        let partitions = vec![P.to_owned()];
        self.add(time, client, Kind::Ok, Operation::Assign { partitions, generation: Some(generation) });
        self
    }

    fn revoked(&mut self, time: u64, client: &str) -> &mut Self {
        self.add(time, client, Kind::Ok, Operation::Revoke { partitions: vec![P.to_owned()] });
        self
    }

    fn committed(&mut self, time: u64, client: &str, offset: i64, kind: Kind) -> &mut Self {
        let offsets = BTreeMap::from([(P.to_owned(), offset)]);
        self.add(time, client, Kind::Invoke, Operation::Commit { offsets: offsets.clone(), error: None });
        self.add(time + 10, client, kind, Operation::Commit { offsets, error: None });
        self
    }

    fn told_commit(&mut self, time: u64, offset: i64) -> &mut Self {
        let ask = |offsets| Operation::Committed { group: "g".to_owned(), offsets };
        self.add(time, "observer", Kind::Invoke, ask(BTreeMap::new()));
        self.add(time + 10, "observer", Kind::Ok, ask(BTreeMap::from([(P.to_owned(), offset)])));
        self
    }

    fn told_end(&mut self, time: u64, offset: i64, epoch: i32) -> &mut Self {
        self.add(time, "observer", Kind::Invoke, Operation::Ends { offsets: BTreeMap::new() });
        let offsets = BTreeMap::from([(P.to_owned(), (offset, epoch))]);
        self.add(time + 10, "observer", Kind::Ok, Operation::Ends { offsets });
        self
    }

    /// Reported by a broker; the epoch is the one that is over.
    fn lost(&mut self, time: u64, from: i64, end: i64, epoch: i32) -> &mut Self {
        self.allowed.losses.push(Loss { partition: P.to_owned(), from, end, epoch, time: time * MS });
        self
    }

    fn has_problem(&mut self, time: u64, client: &str) -> &mut Self {
        self.add(time, client, Kind::Info, Operation::Problem { error: "no answer".to_owned() });
        self
    }

    fn faults(&mut self) -> Vec<Fault> {
        self.events.sort_by_key(|event| event.time);
        let mut faults: Vec<Fault> = check(&self.events, &self.allowed).iter().map(|finding| finding.fault).collect();
        faults.dedup();
        faults
    }

    /// Three records that were written and read as they should be.
    fn sound() -> Self {
        let mut story = Self::new();
        story.acknowledged(100, "p", 0, 0).acknowledged(200, "q", 0, 1).acknowledged(300, "p", 1, 2);
        story.is_in_the_end(&[("p", 0), ("q", 0), ("p", 1)]);
        story
    }
}

#[test]
fn a_sound_history_gives_no_finding() {
    let mut story = Story::sound();
    story.read(320, "reader", 0, &[("p", 0), ("q", 0)]).read(330, "reader", 2, &[("p", 1)]);
    story.assigned(10, "m", 1).read(150, "m", 0, &[("p", 0)]).committed(160, "m", 1, Kind::Ok).revoked(180, "m");
    story.assigned(250, "n", 2).read(260, "n", 1, &[("q", 0)]).committed(270, "n", 2, Kind::Ok);
    story.told_commit(20, -1).told_commit(200, 1).told_commit(300, 2);
    story.told_end(50, 0, 0).told_end(150, 1, 0).told_end(400, 3, 4);
    assert_eq!(story.faults(), []);
}

#[test]
fn an_acknowledged_write_that_is_nowhere_is_lost() {
    let mut story = Story::sound();
    story.acknowledged(400, "q", 1, 3);
    assert_eq!(story.faults(), [Fault::LostWrite]);
}

#[test]
fn a_write_without_an_answer_may_be_there_or_not() {
    let mut story = Story::new();
    story.sent(100, "p", 0).sent(100, "q", 0).told(200, "q", 0, Kind::Info, None).is_in_the_end(&[("q", 0)]);
    assert_eq!(story.faults(), []);
}

#[test]
fn a_write_that_was_refused_and_is_there_is_a_finding() {
    let mut story = Story::new();
    story.sent(100, "p", 0).told(200, "p", 0, Kind::Fail, None).is_in_the_end(&[("p", 0)]);
    assert_eq!(story.faults(), [Fault::Invented]);
}

#[test]
fn a_record_that_nobody_sent_is_invented() {
    let mut story = Story::new();
    story.is_in_the_end(&[("p", 7)]);
    assert_eq!(story.faults(), [Fault::Invented]);
}

#[test]
fn a_loss_that_was_reported_with_its_range_is_none_and_another_is() {
    let mut story = Story::sound();
    story.acknowledged(400, "q", 1, 3).acknowledged(500, "q", 2, 4).lost(600, 3, 5, 0);
    assert_eq!(story.faults(), []);
    story.acknowledged(610, "q", 3, 5);
    assert_eq!(story.faults(), [Fault::LostWrite]);
}

#[test]
fn a_loss_excuses_only_what_was_acknowledged_before_it() {
    let mut story = Story::sound();
    story.lost(600, 3, 5, 0).acknowledged(60_000, "q", 1, 3);
    assert_eq!(story.faults(), [Fault::LostWrite]);
}

#[test]
fn a_record_that_was_reported_lost_is_not_there() {
    let mut story = Story::sound();
    story.lost(5_000, 1, 9, 0);
    assert_eq!(story.faults(), [Fault::LossTooWide]);
    let mut story = Story::new();
    story.acknowledged(100, "p", 0, 0).acknowledged(200, "q", 0, 1).lost(5_000, 1, 2, 0);
    story.acknowledged(5_100, "q", 1, 1).is_in_the_end(&[("p", 0), ("q", 1)]);
    assert_eq!(story.faults(), [], "its offset is another's now");
}

#[test]
fn after_a_loss_the_epoch_is_newer() {
    let told = |epoch| {
        let mut story = Story::sound();
        story.acknowledged(400, "q", 1, 3).told_end(450, 4, 6).lost(600, 3, 4, 6).told_end(700, 3, epoch);
        story.faults()
    };
    assert_eq!(told(7), []);
    assert_eq!(told(6), [Fault::WatermarkWentBack, Fault::LossWithoutEpoch]);
}

#[test]
fn a_loss_sends_a_reader_back_once() {
    let mut story = Story::sound();
    story.sent(310, "q", 1).read(340, "reader", 0, &[("p", 0), ("q", 0), ("p", 1), ("q", 1)]).lost(600, 3, 4, 0);
    story.read(700, "reader", 1, &[("q", 0), ("p", 1)]);
    assert_eq!(story.faults(), []);
    story.read(800, "reader", 0, &[("p", 0)]);
    assert_eq!(story.faults(), [Fault::WentBack]);
}

#[test]
fn a_loss_of_one_partition_excuses_no_other() {
    let mut story = Story::sound();
    story.lost(600, 3, 5, 0);
    story.allowed.losses[0].partition = "t/1".to_owned();
    story.acknowledged(400, "q", 1, 3);
    assert_eq!(story.faults(), [Fault::LostWrite]);
}

#[test]
fn an_acknowledgement_names_the_offset_where_the_record_is() {
    let mut story = Story::new();
    story.acknowledged(100, "p", 0, 1).is_in_the_end(&[("p", 0), ("p", 1)]).sent(200, "p", 1);
    assert_eq!(story.faults(), [Fault::Moved]);
}

#[test]
fn an_idempotent_producers_record_is_there_once_and_a_plain_ones_may_be_twice() {
    let mut story = Story::new();
    story.acknowledged(100, "plain", 0, 1).is_in_the_end(&[("plain", 0), ("plain", 0)]);
    assert_eq!(story.faults(), []);
    let mut story = Story::new();
    story.acknowledged(100, "p", 0, 0).is_in_the_end(&[("p", 0), ("p", 0)]);
    assert_eq!(story.faults(), [Fault::Duplicate]);
}

#[test]
fn the_records_of_an_idempotent_producer_are_in_order() {
    let mut story = Story::new();
    story.sent(100, "p", 0).sent(100, "p", 1).is_in_the_end(&[("p", 1), ("p", 0)]);
    assert_eq!(story.faults(), [Fault::Reordered]);
}

#[test]
fn what_is_sent_after_an_acknowledgement_lies_behind_it() {
    let mut story = Story::new();
    story.acknowledged(100, "p", 0, 1).acknowledged(200, "q", 0, 0).is_in_the_end(&[("q", 0), ("p", 0)]);
    assert_eq!(story.faults(), [Fault::Reordered]);
    let mut overlapping = Story::new();
    overlapping.acknowledged(100, "p", 0, 1).acknowledged(105, "q", 0, 0).is_in_the_end(&[("q", 0), ("p", 0)]);
    assert_eq!(overlapping.faults(), []);
}

#[test]
fn one_offset_for_two_records_is_a_finding() {
    let mut story = Story::sound();
    story.acknowledged(310, "q", 1, 2);
    assert!(story.faults().contains(&Fault::OffsetGivenTwice));
}

#[test]
fn offsets_without_records_are_a_gap() {
    let mut story = Story::new();
    story.acknowledged(100, "p", 0, 0).acknowledged(200, "p", 1, 2);
    story.is_in_the_end(&[("p", 0)]).read(1_000_000, "final", 2, &[("p", 1)]);
    assert_eq!(story.faults(), [Fault::Gap, Fault::Skipped]);
}

#[test]
fn what_a_consumer_was_shown_stays_there() {
    let mut story = Story::sound();
    story.sent(400, "q", 1).read(410, "reader", 0, &[("p", 0), ("q", 0), ("p", 1), ("q", 1)]);
    assert_eq!(story.faults(), [Fault::Vanished]);
}

#[test]
fn a_reader_reads_every_offset_once() {
    let mut story = Story::sound();
    story.read(320, "reader", 0, &[("p", 0)]).read(330, "reader", 2, &[("p", 1)]);
    assert_eq!(story.faults(), [Fault::Skipped]);
    let mut story = Story::sound();
    story.read(320, "reader", 0, &[("p", 0), ("q", 0)]).read(330, "reader", 1, &[("q", 0)]);
    assert_eq!(story.faults(), [Fault::WentBack]);
}

#[test]
fn a_member_goes_on_where_its_group_committed() {
    let begin = |offset, record| {
        let mut story = Story::sound();
        story.assigned(310, "m", 1).read(320, "m", 0, &[("p", 0)]).committed(330, "m", 1, Kind::Ok).revoked(350, "m");
        story.assigned(360, "n", 2).read(370, "n", offset, &[record]);
        story.faults()
    };
    assert_eq!(begin(1, ("q", 0)), []);
    assert_eq!(begin(2, ("p", 1)), [Fault::Skipped]);
    assert_eq!(begin(0, ("p", 0)), [Fault::WentBack]);
}

#[test]
fn a_commit_that_was_not_answered_may_count_and_one_that_was_refused_may_not() {
    let told = |kind| {
        let mut story = Story::sound();
        story.committed(330, "m", 2, kind).told_commit(400, 2);
        story.faults()
    };
    assert_eq!(told(Kind::Info), []);
    assert_eq!(told(Kind::Fail), [Fault::CommitInvented]);
}

#[test]
fn a_committed_offset_does_not_go_back() {
    let mut story = Story::sound();
    story.committed(330, "m", 2, Kind::Ok).told_commit(400, 1);
    assert_eq!(story.faults(), [Fault::CommitWentBack]);
    let mut late = Story::sound();
    late.committed(320, "m", 1, Kind::Info).committed(340, "m", 2, Kind::Ok).told_commit(400, 1);
    assert_eq!(late.faults(), [], "the first commit may have come late");
}

#[test]
fn what_was_told_of_a_committed_offset_does_not_go_back() {
    let told = |first: Kind| {
        let mut story = Story::sound();
        story.committed(310, "m", 1, first).committed(330, "m", 2, Kind::Info).told_commit(400, 2).told_commit(450, 1);
        story.faults()
    };
    assert_eq!(told(Kind::Ok), [Fault::CommitWentBack]);
    assert_eq!(told(Kind::Info), [], "the first commit may have come late");
}

#[test]
fn a_committed_offset_goes_back_only_where_redis_died_before_it_was_saved() {
    let told = |death: u64| {
        let mut story = Story::sound();
        story.committed(330, "m", 2, Kind::Ok).told_commit(350, 2).told_commit(60_000, 1).committed(
            100,
            "m",
            1,
            Kind::Ok,
        );
        story.allowed.deaths.push((death * MS, (death + 500) * MS));
        story.faults()
    };
    assert_eq!(told(1_000), []);
    assert_eq!(told(50_000), [Fault::CommitWentBack], "it was saved by then");
    assert_eq!(told(70_000), [Fault::CommitWentBack], "it died later");
}

#[test]
fn a_partition_has_one_owner_in_a_generation() {
    let mut story = Story::sound();
    story.assigned(310, "m", 3).revoked(320, "m").assigned(330, "n", 3);
    assert_eq!(story.faults(), [Fault::TwoOwners]);
}

#[test]
fn a_high_watermark_goes_back_only_with_a_new_epoch() {
    let mut story = Story::sound();
    story.told_end(320, 3, 0).sent(330, "q", 9).told_end(340, 2, 0);
    assert_eq!(story.faults(), [Fault::WatermarkWentBack, Fault::WatermarkTooLate]);
    let mut story = Story::sound();
    story.told_end(50, 3, 0).told_end(80, 0, 1);
    assert_eq!(story.faults(), []);
}

#[test]
fn a_high_watermark_covers_what_was_acknowledged_and_no_more_than_there_is() {
    let mut story = Story::sound();
    story.told_end(400, 2, 0);
    assert_eq!(story.faults(), [Fault::WatermarkTooLate]);
    let mut story = Story::sound();
    story.told_end(400, 4, 0);
    assert_eq!(story.faults(), [Fault::WatermarkTooEarly]);
}

#[test]
fn a_client_that_does_not_get_on_is_a_finding() {
    let mut story = Story::sound();
    story.has_problem(500, "p");
    assert_eq!(story.faults(), [Fault::Stuck]);
}

#[test]
fn after_a_loss_an_idempotent_producer_or_a_reader_may_give_up_and_nobody_else() {
    for (client, may) in
        [("p", true), ("reader", true), ("plain", false), ("m", false), ("observer", false), ("final", false)]
    {
        let mut story = Story::sound();
        story.lost(600, 3, 4, 0).has_problem(700, client);
        assert_eq!(story.faults().is_empty(), may, "{client}");
    }
    let mut story = Story::sound();
    story.has_problem(500, "p").lost(5_000, 3, 4, 0);
    assert_eq!(story.faults(), [Fault::Stuck], "the loss came later");
}
