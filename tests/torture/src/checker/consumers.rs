//! What consumers read, in which order, and who owned what.

use std::collections::HashMap;

use super::{Fault, Finding, Run, TOLD_LATE, log::Log};
use crate::history::{Event, Operation, Role};

pub(super) fn check<'a>(run: &Run<'a>, log: &Log<'a>, findings: &mut Vec<Finding>) {
    // The offset that comes next; none where a member begins anew.
    let mut next: HashMap<(&str, &str), Option<i64>> = HashMap::new();
    // When the latest loss was reported that sent a consumer back.
    let mut sent_back: HashMap<(&str, &str), u64> = HashMap::new();
    let mut owners: HashMap<(&str, i32, &str), &str> = HashMap::new();
    for event in run.events {
        let client = event.client.as_str();
        let role = run.role(client);
        match &event.operation {
            Operation::Assign { partitions, generation } => {
                next.extend(partitions.iter().map(|partition| ((client, partition.as_str()), None)));
                let (Some(group), Some(generation)) = (run.group(client), generation) else { continue };
                for partition in partitions {
                    let owner = *owners.entry((group, *generation, partition)).or_insert(client);
                    if owner != client {
                        let text = format!("{owner} and {client} had it in generation {generation} of group {group}");
                        findings.push(finding(Fault::TwoOwners, event, partition, None, text));
                    }
                }
            }
            Operation::Revoke { partitions } => partitions.iter().for_each(|partition| {
                next.remove(&(client, partition.as_str()));
            }),
            Operation::Read { partition, offset, records } => {
                let expected = match next.get(&(client, partition.as_str())) {
                    Some(expected) => *expected,
                    None if matches!(role, Some(Role::Reader | Role::Final)) => Some(0),
                    // Read before it heard that the partition was taken from it.
                    None => None,
                };
                let end = offset + i64::try_from(records.len()).expect("records that fit memory");
                next.insert((client, partition.as_str()), Some(end));
                if role != Some(Role::Final) {
                    check_content(run, log, event, partition, *offset, records, findings);
                }
                let Some(expected) = expected.filter(|expected| expected != offset) else { continue };
                // Each loss sends it back once.
                let latest = sent_back.entry((client, partition.as_str())).or_default();
                let loss = run.losses(partition).find(|loss| {
                    let is_new = *latest < loss.time && loss.time < event.time + TOLD_LATE;
                    is_new && loss.from < expected && *offset < expected
                });
                if let Some(loss) = loss {
                    *latest = loss.time;
                    continue;
                }
                let fault = if *offset > expected { Fault::Skipped } else { Fault::WentBack };
                let text = format!("{client} read offset {offset} when {expected} was next");
                findings.push(finding(fault, event, partition, Some(*offset), text));
            }
            _ => {}
        }
    }
}

/// What was shown is what is there.
fn check_content(
    run: &Run<'_>,
    log: &Log<'_>,
    event: &Event,
    partition: &str,
    first: i64,
    records: &[(String, u64)],
    findings: &mut Vec<Finding>,
) {
    for (offset, (client, sequence)) in (first..).zip(records) {
        let there = log.at(partition, offset);
        if there == Some((client.as_str(), *sequence)) || run.loss_of(partition, offset, event.time).is_some() {
            continue;
        }
        let there = there.map_or("nothing".to_owned(), |(client, sequence)| format!("{client}:{sequence}"));
        let text = format!("{} read {client}:{sequence} at offset {offset}, where in the end is {there}", event.client);
        let mut finding = finding(Fault::Vanished, event, partition, Some(offset), text);
        finding.record = Some((client.clone(), *sequence));
        findings.push(finding);
    }
}

fn finding(fault: Fault, event: &Event, partition: &str, offset: Option<i64>, text: String) -> Finding {
    Finding { fault, partition: partition.to_owned(), offset, record: None, time: event.time, text }
}
