//! High watermarks as clients were told them.

use std::collections::BTreeMap;

use super::{CLOCKS_DIFFER, Fault, Finding, Run, log::Log, produced::Produced};
use crate::history::{Kind, Operation};

struct Seen<'a> {
    client: &'a str,
    asked: u64,
    told: u64,
    offset: i64,
    epoch: i32,
}

pub(super) fn check<'a>(run: &Run<'a>, log: &Log<'a>, produced: &Produced<'a>, findings: &mut Vec<Finding>) {
    let mut seen: BTreeMap<&str, Vec<Seen<'_>>> = BTreeMap::new();
    for (asked, answer) in run.pairs(|operation| matches!(operation, Operation::Ends { .. })) {
        let Some(answer) = answer.filter(|answer| answer.kind == Kind::Ok) else { continue };
        let Operation::Ends { offsets } = &answer.operation else { continue };
        for (partition, &(offset, epoch)) in offsets {
            let (asked, told) = (asked.time, answer.time);
            seen.entry(partition).or_default().push(Seen { client: &answer.client, asked, told, offset, epoch });
        }
    }
    let intervals = produced.intervals();
    for (partition, mut seen) in seen {
        let mut report = |fault, seen: &Seen<'_>, text| {
            findings.push(Finding {
                fault,
                partition: partition.to_owned(),
                offset: Some(seen.offset),
                record: None,
                time: seen.told,
                text,
            });
        };
        seen.sort_unstable_by_key(|seen| seen.asked);
        let end = log.end(partition);
        let mut earlier: Vec<&Seen<'_>> = seen.iter().collect();
        earlier.sort_unstable_by_key(|seen| seen.told);
        let mut earlier = earlier.into_iter().peekable();
        let mut acknowledged = intervals.get(partition).cloned().unwrap_or_default();
        // What was lost is no longer covered in a newer epoch, and what was told of the epoch before is checked no further.
        acknowledged.retain(|(_, at, offset, _)| run.loss_of(partition, *offset, *at).is_none());
        acknowledged.sort_unstable_by_key(|(_, answered, ..)| *answered);
        let mut acknowledged = acknowledged.into_iter().peekable();
        let mut highest: Option<&Seen<'_>> = None;
        let mut covered: Option<(i64, u64, (&str, u64))> = None;
        for now in &seen {
            while let Some(before) = earlier.next_if(|before| before.told + CLOCKS_DIFFER < now.asked) {
                if highest.is_none_or(|highest| (highest.epoch, highest.offset) <= (before.epoch, before.offset)) {
                    highest = Some(before);
                }
            }
            while let Some((_, at, offset, record)) =
                acknowledged.next_if(|(_, answered, ..)| answered + CLOCKS_DIFFER < now.asked)
            {
                if covered.is_none_or(|(covered, ..)| covered < offset) {
                    covered = Some((offset, at, record));
                }
            }
            if let Some(before) = highest.filter(|before| before.offset > now.offset && before.epoch >= now.epoch) {
                let text = format!(
                    "{} was told {} (epoch {}) after {} had been told {} (epoch {}) at {} µs",
                    now.client, now.offset, now.epoch, before.client, before.offset, before.epoch, before.told
                );
                report(Fault::WatermarkWentBack, now, text);
            }
            if let Some((offset, at, (client, sequence))) = covered.filter(|(offset, ..)| *offset >= now.offset) {
                let text = format!(
                    "{} was told {}, but {client}:{sequence} had been acknowledged at offset {offset} at {at} µs",
                    now.client, now.offset
                );
                report(Fault::WatermarkTooLate, now, text);
            }
            if now.offset > end && run.loss_of(partition, now.offset - 1, now.told).is_none() {
                let text = format!("{} was told {}, and the log ends at {end}", now.client, now.offset);
                report(Fault::WatermarkTooEarly, now, text);
            }
        }
    }
}
