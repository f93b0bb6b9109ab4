//! Committed offsets: what a group was told to remember against what it remembers.

use std::collections::{BTreeMap, HashMap};

use super::{CLOCKS_DIFFER, Fault, Finding, Run, TOLD_LATE};
use crate::history::{Kind, Operation, Role};

/// Redis saves what it has within this time (µs), where it is set up to save at all.
const SAVED_WITHIN: u64 = 20_000_000;

struct Commit {
    invoked: u64,
    /// None: never answered.
    answered: Option<(u64, Kind)>,
    offset: i64,
}

/// The commits of one partition by one group.
#[derive(Default)]
struct Commits {
    all: Vec<Commit>,
}

impl Commits {
    /// What was surely committed before `time`, at least: answered well, and not since a death at which it may not have been saved.
    fn least(&self, time: u64, deaths: &[(u64, u64)]) -> i64 {
        let surely = self.all.iter().filter(|commit| {
            let Some((answered, Kind::Ok)) = commit.answered else { return false };
            answered + CLOCKS_DIFFER < time && !may_be_lost(answered, time, deaths)
        });
        surely.map(|commit| commit.offset).max().unwrap_or(0)
    }

    /// What may have been committed up to `time`, at most.
    fn most(&self, time: u64) -> i64 {
        let perhaps =
            self.all.iter().filter(|commit| commit.may_have_happened() && commit.invoked < time + CLOCKS_DIFFER);
        perhaps.map(|commit| commit.offset).max().unwrap_or(0)
    }

    /// Whether a commit of `offset` may have taken effect after `from`: one that was not over by then, or whose answer was lost. As
    /// with Kafka that may come late, and its offset is remembered after newer ones.
    fn may_have_come_late(&self, offset: i64, from: u64, until: u64) -> bool {
        self.all.iter().any(|commit| {
            let is_open = match commit.answered {
                None | Some((_, Kind::Info)) => true,
                Some((answered, Kind::Ok)) => answered + CLOCKS_DIFFER >= from,
                Some(_) => false,
            };
            commit.offset == offset && commit.invoked < until + CLOCKS_DIFFER && is_open
        })
    }
}

/// Whether what a client was told at `told` may be gone at `time`.
fn may_be_lost(told: u64, time: u64, deaths: &[(u64, u64)]) -> bool {
    deaths.iter().any(|(begin, end)| told < end + TOLD_LATE && *begin < told + SAVED_WITHIN && *begin < time)
}

impl Commit {
    fn may_have_happened(&self) -> bool {
        !matches!(self.answered, Some((_, Kind::Fail)))
    }
}

/// An offset at which a group went on, or that it was told.
struct Observation<'a> {
    group: &'a str,
    partition: &'a str,
    client: &'a str,
    /// Asked no earlier.
    from: u64,
    /// Answered no later.
    until: u64,
    offset: i64,
    is_first_read: bool,
}

pub(super) fn check(run: &Run<'_>, findings: &mut Vec<Finding>) {
    let mut commits: HashMap<(&str, &str), Commits> = HashMap::new();
    for (asked, answer) in run.pairs(|operation| matches!(operation, Operation::Commit { .. })) {
        let (Some(group), Operation::Commit { offsets, .. }) = (run.group(&asked.client), &asked.operation) else {
            continue;
        };
        let answered = answer.map(|answer| (answer.time, answer.kind));
        for (partition, &offset) in offsets {
            let commits = commits.entry((group, partition)).or_default();
            commits.all.push(Commit { invoked: asked.time, answered, offset });
        }
    }
    let none = Commits::default();
    let deaths = &run.allowed.deaths;
    let mut observed: HashMap<(&str, &str), Vec<Observation<'_>>> = HashMap::new();
    for seen in observations(run) {
        observed.entry((seen.group, seen.partition)).or_default().push(seen);
    }
    for (key, observed) in observed {
        let commits = commits.get(&key).unwrap_or(&none);
        check_observed(commits, deaths, observed, findings);
    }
}

fn check_observed(
    commits: &Commits,
    deaths: &[(u64, u64)],
    mut observed: Vec<Observation<'_>>,
    findings: &mut Vec<Finding>,
) {
    observed.sort_unstable_by_key(|seen| seen.from);
    let mut by_answer: Vec<(u64, u64, i64)> =
        observed.iter().map(|seen| (seen.until, seen.from, seen.offset)).collect();
    by_answer.sort_unstable();
    let mut by_answer = by_answer.into_iter().peekable();
    // Of what was told before, the highest: when it was asked for, when it was told.
    let mut told: Option<(i64, u64, u64)> = None;
    for observed in observed {
        while let Some((until, from, offset)) = by_answer.next_if(|(until, ..)| until + CLOCKS_DIFFER < observed.from) {
            if told.is_none_or(|(highest, ..)| highest <= offset) {
                told = Some((offset, from, until));
            }
        }
        let (least, most) = (commits.least(observed.from, deaths), commits.most(observed.until));
        let Observation { group, partition, client, offset, .. } = observed;
        let what = if observed.is_first_read { "went on at" } else { "was told" };
        if let Some((before, from, until)) = told.filter(|(before, ..)| offset < *before) {
            let is_lost = may_be_lost(until, observed.until, deaths);
            if !is_lost && !commits.may_have_come_late(offset, from, observed.until) {
                findings.push(Finding {
                    fault: if observed.is_first_read { Fault::WentBack } else { Fault::CommitWentBack },
                    partition: partition.to_owned(),
                    offset: Some(offset),
                    record: None,
                    time: observed.until,
                    text: format!("{client} {what} offset {offset} for group {group}; {before} was told at {until} µs"),
                });
                continue;
            }
            // From here on it counts from there.
            told = Some((offset, observed.from, observed.until));
        }
        let fault = if offset < least && !commits.may_have_come_late(offset, u64::MAX, observed.until) {
            if observed.is_first_read { Fault::WentBack } else { Fault::CommitWentBack }
        } else if offset > most {
            if observed.is_first_read { Fault::Skipped } else { Fault::CommitInvented }
        } else {
            continue;
        };
        findings.push(Finding {
            fault,
            partition: partition.to_owned(),
            offset: Some(offset),
            record: None,
            time: observed.until,
            text: format!("{client} {what} offset {offset} for group {group}; committed were {least} to {most}"),
        });
    }
}

fn observations<'a>(run: &'a Run<'a>) -> Vec<Observation<'a>> {
    let mut found = Vec::new();
    for (asked, answer) in run.pairs(|operation| matches!(operation, Operation::Committed { .. })) {
        let Some(answer) = answer.filter(|answer| answer.kind == Kind::Ok) else { continue };
        let Operation::Committed { group, offsets } = &answer.operation else { continue };
        for (partition, offset) in offsets {
            found.push(Observation {
                group,
                partition,
                client: &answer.client,
                from: asked.time,
                until: answer.time,
                offset: (*offset).max(0),
                is_first_read: false,
            });
        }
    }
    // Partitions that a member got and has not read yet, with when it got them.
    let mut fresh: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for event in run.events.iter().filter(|event| run.role(&event.client) == Some(Role::Member)) {
        let client = event.client.as_str();
        match &event.operation {
            Operation::Assign { partitions, .. } => {
                fresh.extend(partitions.iter().map(|partition| ((client, partition.as_str()), event.time)));
            }
            Operation::Revoke { partitions } => partitions.iter().for_each(|partition| {
                fresh.remove(&(client, partition.as_str()));
            }),
            Operation::Read { partition, offset, .. } => {
                if let (Some(from), Some(group)) = (fresh.remove(&(client, partition.as_str())), run.group(client)) {
                    let (offset, until) = (*offset, event.time);
                    found.push(Observation { group, partition, client, from, until, offset, is_first_read: true });
                }
            }
            _ => {}
        }
    }
    found
}
