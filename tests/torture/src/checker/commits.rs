//! Committed offsets: what a group was told to remember against what it remembers.

use std::collections::{BTreeMap, HashMap};

use super::{CLOCKS_DIFFER, Fault, Finding, Run};
use crate::history::{Kind, Operation, Role};

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
    /// What was surely committed before `time`, at least.
    fn least(&self, time: u64) -> i64 {
        let surely = self
            .all
            .iter()
            .filter(|commit| matches!(commit.answered, Some((answered, Kind::Ok)) if answered + CLOCKS_DIFFER < time));
        surely.map(|commit| commit.offset).max().unwrap_or(0)
    }

    /// What may have been committed up to `time`, at most.
    fn most(&self, time: u64) -> i64 {
        let perhaps =
            self.all.iter().filter(|commit| commit.may_have_happened() && commit.invoked < time + CLOCKS_DIFFER);
        perhaps.map(|commit| commit.offset).max().unwrap_or(0)
    }

    /// A commit whose answer was lost may take effect late, as with Kafka: then its offset is remembered after newer ones.
    fn was_left_open(&self, offset: i64, time: u64) -> bool {
        self.all.iter().any(|commit| {
            commit.offset == offset
                && commit.invoked < time + CLOCKS_DIFFER
                && matches!(commit.answered, None | Some((_, Kind::Info)))
        })
    }
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
    for observed in observations(run) {
        let commits = commits.get(&(observed.group, observed.partition)).unwrap_or(&none);
        let (least, most) = (commits.least(observed.from), commits.most(observed.until));
        let Observation { group, partition, client, offset, .. } = observed;
        let what = if observed.is_first_read { "went on at" } else { "was told" };
        let fault = if offset < least && !commits.was_left_open(offset, observed.until) && run.losses.is_empty() {
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
