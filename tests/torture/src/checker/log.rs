//! The log as it is in the end, against what producers were told and consumers were shown.

use std::collections::{BTreeMap, HashMap};

use super::{Fault, Finding, HEARD_LATE, Run, produced::Produced};
use crate::history::{Kind, Operation, Role};

type Record<'a> = (&'a str, u64);

#[derive(Default)]
struct FinalPartition<'a> {
    records: BTreeMap<i64, Record<'a>>,
    places: HashMap<Record<'a>, Vec<i64>>,
    read_at: u64,
}

pub(super) struct Log<'a> {
    partitions: BTreeMap<&'a str, FinalPartition<'a>>,
}

impl<'a> Log<'a> {
    pub(super) fn of(run: &Run<'a>) -> Self {
        let mut partitions: BTreeMap<&str, FinalPartition<'_>> = BTreeMap::new();
        for event in run.events.iter().filter(|event| run.role(&event.client) == Some(Role::Final)) {
            let Operation::Read { partition, offset, records } = &event.operation else { continue };
            let log = partitions.entry(partition).or_default();
            log.read_at = event.time;
            for (at, (client, sequence)) in (*offset..).zip(records) {
                let record = (client.as_str(), *sequence);
                if log.records.insert(at, record).is_none() {
                    log.places.entry(record).or_default().push(at);
                }
            }
        }
        Self { partitions }
    }

    /// The offset after the last record.
    pub(super) fn end(&self, partition: &str) -> i64 {
        let last = self.partitions.get(partition).and_then(|log| log.records.last_key_value());
        last.map_or(0, |(offset, _)| offset + 1)
    }

    pub(super) fn at(&self, partition: &str, offset: i64) -> Option<Record<'a>> {
        self.partitions.get(partition)?.records.get(&offset).copied()
    }

    pub(super) fn check(&self, run: &Run<'a>, produced: &Produced<'a>, findings: &mut Vec<Finding>) {
        for (partition, log) in &self.partitions {
            log.check(run, partition, produced, findings);
        }
        let mut given: HashMap<(&str, i64), (Record<'_>, u64)> = HashMap::new();
        for event in run.events {
            if let (Kind::Ok, Operation::Produce { partition, sequence, offset: Some(offset @ 0..), .. }) =
                (event.kind, &event.operation)
            {
                let record = (event.client.as_str(), *sequence);
                let (before, at) = *given.entry((partition, *offset)).or_insert((record, event.time));
                if run.loss_of(partition, *offset, at).is_some() {
                    // It is the other's now.
                    given.insert((partition, *offset), (record, event.time));
                } else if before != record {
                    let text = format!(
                        "offset {offset} was given to {}:{} and to {}:{sequence}",
                        before.0, before.1, event.client
                    );
                    findings.push(finding(Fault::OffsetGivenTwice, partition, *offset, record, event.time, text));
                }
            }
        }
        for ((client, sequence), sent) in &produced.sent {
            let Some((time, offset)) = sent.acknowledged else { continue };
            let partition = sent.partition;
            let places = self.partitions.get(partition).and_then(|log| log.places.get(&(*client, *sequence)));
            let excused = match offset {
                Some(offset) => run.loss_of(partition, offset, time).is_some(),
                None => run.losses(partition).any(|loss| time < loss.time + HEARD_LATE),
            };
            let who = format!("{client}:{sequence}");
            match (places, offset) {
                _ if excused => {}
                (None, _) => {
                    let at = offset.map_or("an offset that it was not told".to_owned(), |at| format!("offset {at}"));
                    let now = offset.and_then(|offset| self.at(partition, offset));
                    let now = now.map_or("nothing".to_owned(), |(client, sequence)| format!("{client}:{sequence}"));
                    let text = format!("{who} was acknowledged at {time} µs with {at}; it is nowhere, there is {now}");
                    let offset = offset.unwrap_or(-1);
                    findings.push(finding(Fault::LostWrite, partition, offset, (client, *sequence), time, text));
                }
                (Some(places), Some(offset)) if !places.contains(&offset) => {
                    let text = format!("{who} was acknowledged with offset {offset}, and is at {places:?}");
                    findings.push(finding(Fault::Moved, partition, offset, (client, *sequence), time, text));
                }
                (Some(_), _) => {}
            }
        }
    }
}

impl<'a> FinalPartition<'a> {
    fn check(&self, run: &Run<'a>, partition: &str, produced: &Produced<'a>, findings: &mut Vec<Finding>) {
        let mut next = 0;
        let mut latest: HashMap<&str, (u64, i64)> = HashMap::new();
        for (&offset, &record) in &self.records {
            let (client, sequence) = record;
            if offset != next {
                let text = format!("there is nothing from {next} to before {offset}");
                findings.push(finding(Fault::Gap, partition, next, record, self.read_at, text));
            }
            next = offset + 1;
            let sent = produced.sent.get(&record);
            if sent.is_none_or(|sent| sent.partition != partition || sent.failed) {
                let text = match sent {
                    None => format!("{client}:{sequence} at offset {offset} was never sent"),
                    Some(sent) if sent.failed => {
                        format!("{client}:{sequence} at offset {offset} was refused, as its producer was told")
                    }
                    Some(sent) => format!("{client}:{sequence} at offset {offset} was sent to {}", sent.partition),
                };
                findings.push(finding(Fault::Invented, partition, offset, record, self.read_at, text));
            }
            if !run.is_idempotent(client) {
                continue;
            }
            match latest.get(client) {
                Some((before, at)) if *before > sequence && self.places[&record].first() == Some(&offset) => {
                    let text = format!("{client}:{sequence} at offset {offset} lies behind {client}:{before} at {at}");
                    findings.push(finding(Fault::Reordered, partition, offset, record, self.read_at, text));
                }
                _ => {}
            }
            let highest = latest.entry(client).or_insert((sequence, offset));
            if highest.0 < sequence {
                *highest = (sequence, offset);
            }
        }
        for (record, places) in &self.places {
            if places.len() > 1 && run.is_idempotent(record.0) {
                let time = produced.sent.get(record).map_or(self.read_at, |sent| sent.invoked);
                let text = format!("{}:{} is at the offsets {places:?}", record.0, record.1);
                findings.push(finding(Fault::Duplicate, partition, places[1], *record, time, text));
            }
        }
    }
}

fn finding(fault: Fault, partition: &str, offset: i64, record: Record<'_>, time: u64, text: String) -> Finding {
    let record = Some((record.0.to_owned(), record.1));
    Finding { fault, partition: partition.to_owned(), offset: Some(offset), record, time, text }
}
