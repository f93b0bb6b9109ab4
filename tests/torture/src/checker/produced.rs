//! What producers sent, and what they were told.

use std::collections::{BTreeMap, HashMap};

use super::{CLOCKS_DIFFER, Fault, Finding, Run};
use crate::history::{Kind, Operation};

pub(super) struct Sent<'a> {
    pub(super) partition: &'a str,
    pub(super) invoked: u64,
    /// When it was acknowledged, and the offset if the client was told one.
    pub(super) acknowledged: Option<(u64, Option<i64>)>,
    pub(super) failed: bool,
}

pub(super) struct Produced<'a> {
    pub(super) sent: HashMap<(&'a str, u64), Sent<'a>>,
}

/// An acknowledged write: when it was sent, when it was acknowledged, where it is.
pub(super) type Interval<'a> = (u64, u64, i64, (&'a str, u64));

impl<'a> Produced<'a> {
    pub(super) fn of(run: &Run<'a>) -> Self {
        let mut sent: HashMap<(&str, u64), Sent<'_>> = HashMap::new();
        for event in run.events {
            let Operation::Produce { partition, sequence, offset, .. } = &event.operation else { continue };
            let identity = (event.client.as_str(), *sequence);
            if event.kind == Kind::Invoke {
                sent.insert(identity, Sent { partition, invoked: event.time, acknowledged: None, failed: false });
            } else if let Some(sent) = sent.get_mut(&identity) {
                match event.kind {
                    Kind::Ok => sent.acknowledged = Some((event.time, offset.filter(|offset| *offset >= 0))),
                    Kind::Fail => sent.failed = true,
                    Kind::Invoke | Kind::Info => {}
                }
            }
        }
        Self { sent }
    }

    /// Acknowledged writes with known offsets, by partition.
    pub(super) fn intervals(&self) -> BTreeMap<&'a str, Vec<Interval<'a>>> {
        let mut intervals: BTreeMap<&str, Vec<Interval<'_>>> = BTreeMap::new();
        for (identity, sent) in &self.sent {
            if let Some((at, Some(offset))) = sent.acknowledged {
                intervals.entry(sent.partition).or_default().push((sent.invoked, at, offset, *identity));
            }
        }
        intervals
    }

    /// What was sent after another record was acknowledged lies behind it, whoever sent the two.
    pub(super) fn check_order(&self, run: &Run<'a>, findings: &mut Vec<Finding>) {
        for (partition, mut by_invocation) in self.intervals() {
            // Where records are lost, later ones get their offsets.
            by_invocation.retain(|(_, at, offset, _)| run.loss_of(partition, *offset, *at).is_none());
            by_invocation.sort_unstable();
            let mut by_answer = by_invocation.clone();
            by_answer.sort_unstable_by_key(|(_, answered, ..)| *answered);
            let mut answered = by_answer.into_iter().peekable();
            let mut furthest: Option<Interval<'_>> = None;
            for (invoked, _, offset, identity) in by_invocation {
                while let Some(earlier) = answered.next_if(|(_, at, ..)| at + CLOCKS_DIFFER < invoked) {
                    if furthest.is_none_or(|(.., furthest, _)| furthest < earlier.2) {
                        furthest = Some(earlier);
                    }
                }
                if let Some((_, at, before, (client, sequence))) = furthest.filter(|furthest| furthest.2 > offset) {
                    findings.push(Finding {
                        fault: Fault::Reordered,
                        partition: partition.to_owned(),
                        offset: Some(offset),
                        record: Some((identity.0.to_owned(), identity.1)),
                        time: invoked,
                        text: format!(
                            "{}:{} was sent at {invoked} µs and got offset {offset}, but {client}:{sequence}, acknowledged \
                             before that at {at} µs, has offset {before}",
                            identity.0, identity.1
                        ),
                    });
                }
            }
        }
    }
}
