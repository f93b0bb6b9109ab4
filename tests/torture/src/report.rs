//! Figures of a run as a Markdown table, and findings in words.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::{
    checker::Finding,
    history::{Event, Kind, Operation},
    nemesis::What,
};

/// Events of this long before and after a finding are told (µs).
const AROUND: u64 = 3_000_000;
const EXPLAINED: usize = 20;

#[derive(Default)]
struct Recovery {
    /// From the strike to the next acknowledged write anywhere, and to one in every partition (µs).
    first: Vec<u64>,
    everywhere: Vec<u64>,
}

pub fn figures(events: &[Event]) -> String {
    let count = |is_meant: &dyn Fn(&Event) -> bool| events.iter().filter(|event| is_meant(event)).count();
    let produced = |kind| count(&|event| event.kind == kind && matches!(event.operation, Operation::Produce { .. }));
    let commits = |kind| count(&|event| event.kind == kind && matches!(event.operation, Operation::Commit { .. }));
    let read: usize = events
        .iter()
        .map(|event| match &event.operation {
            Operation::Read { records, .. } => records.len(),
            _ => 0,
        })
        .sum();
    let assigned = count(&|event| matches!(event.operation, Operation::Assign { .. }));
    let mut text = String::from(
        "| records sent | acknowledged | outcome not told | read | commits | assignments |\n|---|---|---|---|---|---|\n",
    );
    let (sent, acknowledged) = (produced(Kind::Invoke), produced(Kind::Ok));
    let unknown = sent - acknowledged;
    let _ = writeln!(text, "| {sent} | {acknowledged} | {unknown} | {read} | {} | {assigned} |\n", commits(Kind::Ok));
    text.push_str("| strike | times | next acknowledged write: median | longest | in every partition: median | longest |\n|---|---|---|---|---|---|\n");
    for (kind, mut recovery) in recoveries(events) {
        let times = recovery.first.len();
        let cells = |micros: &mut Vec<u64>| {
            micros.sort_unstable();
            let seconds =
                |micros: Option<&u64>| micros.map_or("-".to_owned(), |micros| format!("{:.2} s", *micros as f64 / 1e6));
            format!("{} | {}", seconds(micros.get(micros.len() / 2)), seconds(micros.last()))
        };
        let (first, everywhere) = (cells(&mut recovery.first), cells(&mut recovery.everywhere));
        let _ = writeln!(text, "| {kind} | {times} | {first} | {everywhere} |");
    }
    text
}

fn recoveries(events: &[Event]) -> BTreeMap<String, Recovery> {
    let mut partitions: BTreeSet<&str> = BTreeSet::new();
    let mut invoked: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    // When it was acknowledged, when it was sent, where.
    let mut acknowledged: Vec<(u64, u64, &str)> = Vec::new();
    for event in events {
        let Operation::Produce { partition, sequence, .. } = &event.operation else { continue };
        partitions.insert(partition);
        let identity = (event.client.as_str(), *sequence);
        match event.kind {
            Kind::Invoke => drop(invoked.insert(identity, event.time)),
            Kind::Ok => acknowledged.push((event.time, invoked.get(&identity).copied().unwrap_or(0), partition)),
            Kind::Fail | Kind::Info => {}
        }
    }
    let mut recoveries: BTreeMap<String, Recovery> = BTreeMap::new();
    for event in events.iter().filter(|event| event.kind == Kind::Invoke) {
        let Operation::Strike { action } = &event.operation else { continue };
        let from = acknowledged.partition_point(|(at, ..)| *at < event.time);
        let mut open = partitions.clone();
        let recovery = recoveries.entry(What::kind(action)).or_default();
        let mut is_first = true;
        for (at, sent, partition) in &acknowledged[from..] {
            if *sent < event.time {
                continue;
            }
            if std::mem::take(&mut is_first) {
                recovery.first.push(at - event.time);
            }
            if open.remove(partition) && open.is_empty() {
                recovery.everywhere.push(at - event.time);
                break;
            }
        }
    }
    recoveries
}

/// What is wrong, with which operations and strikes were around it.
pub fn explain(findings: &[Finding], events: &[Event]) -> String {
    let mut text = String::new();
    let mut by_fault: BTreeMap<String, usize> = BTreeMap::new();
    for finding in findings {
        *by_fault.entry(finding.fault.to_string()).or_default() += 1;
    }
    for (fault, count) in by_fault {
        let _ = writeln!(text, "{count} × {fault}");
    }
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for finding in findings {
        let already = told.entry(finding.fault.to_string()).or_default();
        *already += 1;
        if *already <= EXPLAINED {
            explain_one(&mut text, finding, events);
        }
    }
    text
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06} s", micros / 1_000_000, micros % 1_000_000)
}

fn explain_one(text: &mut String, finding: &Finding, events: &[Event]) {
    let at = seconds(finding.time);
    let _ = writeln!(text, "\n{} ({}, about {at})\n  {}", finding.fault, finding.partition, finding.text);
    let own = events.iter().filter(|event| finding.record.as_ref().is_some_and(|record| concerns(event, record)));
    for event in own.take(20) {
        tell(text, event, finding);
    }
    // A write that was lost after it was acknowledged, or a consumer that went wrong: what was done in between.
    let from = finding.time.saturating_sub(AROUND);
    let strikes = events.iter().filter(|event| matches!(event.operation, Operation::Strike { .. }));
    for event in strikes.filter(|event| (from..finding.time + AROUND).contains(&event.time)) {
        tell(text, event, finding);
    }
}

fn concerns(event: &Event, record: &(String, u64)) -> bool {
    match &event.operation {
        Operation::Produce { sequence, .. } => event.client == record.0 && *sequence == record.1,
        Operation::Read { records, .. } => records.contains(record),
        _ => false,
    }
}

fn tell(text: &mut String, event: &Event, finding: &Finding) {
    let at = seconds(event.time);
    let client = &event.client;
    let _ = match &event.operation {
        Operation::Produce { partition, sequence, offset, error } => {
            writeln!(
                text,
                "  {at}  {client}: {:?} of {sequence} to {partition}, offset {offset:?}, error {error:?}",
                event.kind
            )
        }
        Operation::Read { partition, offset, records } => {
            let place = finding.record.as_ref().and_then(|record| records.iter().position(|other| other == record));
            let exact = offset + i64::try_from(place.unwrap_or(0)).unwrap_or(0);
            writeln!(text, "  {at}  {client}: read it from {partition} at offset {exact}")
        }
        Operation::Strike { action } => {
            let what = if event.kind == Kind::Invoke { "begins" } else { "is over" };
            writeln!(text, "  {at}  {action} {what}")
        }
        other => writeln!(text, "  {at}  {client}: {:?} {other:?}", event.kind),
    };
}
