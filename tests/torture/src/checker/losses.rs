//! What brokers said was lost: nothing else, and never again in the same leader epoch.

use super::{CLOCKS_DIFFER, Fault, Finding, Run, TOLD_LATE, log::Log, produced::Produced};
use crate::history::{Kind, Operation};

pub(super) fn check<'a>(run: &Run<'a>, log: &Log<'a>, produced: &Produced<'a>, findings: &mut Vec<Finding>) {
    let intervals = produced.intervals();
    for loss in &run.allowed.losses {
        let acknowledged = intervals.get(loss.partition.as_str()).into_iter().flatten();
        for (_, at, offset, (client, sequence)) in acknowledged {
            let was_before = at + TOLD_LATE < loss.time && (loss.from..loss.end).contains(offset);
            if was_before && log.at(&loss.partition, *offset) == Some((client, *sequence)) {
                findings.push(Finding {
                    fault: Fault::LossTooWide,
                    partition: loss.partition.clone(),
                    offset: Some(*offset),
                    record: Some(((*client).to_owned(), *sequence)),
                    time: loss.time,
                    text: format!(
                        "{client}:{sequence} was acknowledged at {at} µs with offset {offset}, {} to {} was reported lost, and it is there",
                        loss.from,
                        loss.end - 1
                    ),
                });
            }
        }
    }
    for (asked, answer) in run.pairs(|operation| matches!(operation, Operation::Ends { .. })) {
        let Some(answer) = answer.filter(|answer| answer.kind == Kind::Ok) else { continue };
        let Operation::Ends { offsets } = &answer.operation else { continue };
        for (partition, &(offset, epoch)) in offsets {
            let is_over =
                run.losses(partition).find(|loss| loss.time + CLOCKS_DIFFER < asked.time && epoch <= loss.epoch);
            if let Some(loss) = is_over {
                findings.push(Finding {
                    fault: Fault::LossWithoutEpoch,
                    partition: partition.clone(),
                    offset: Some(offset),
                    record: None,
                    time: answer.time,
                    text: format!(
                        "{} was told {offset} (epoch {epoch}); at {} µs {} to {} of epoch {} was reported lost",
                        answer.client,
                        loss.time,
                        loss.from,
                        loss.end - 1,
                        loss.epoch
                    ),
                });
            }
        }
    }
}
