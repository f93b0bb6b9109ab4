//! Histories in, findings out: no clock, no files, no network. `docs/adr/0015` says how it decides.

mod commits;
mod consumers;
mod log;
mod losses;
mod produced;
#[cfg(test)]
mod tests;
mod watermarks;

use std::{collections::HashMap, fmt};

use crate::history::{Event, Kind, Operation, PartitionName, Role};

/// Clocks of two processes differ by less than this (µs).
const CLOCKS_DIFFER: u64 = 5_000;
/// A client that is slow hears of an answer, or gives records to its application, this long after they came (µs).
const HEARD_LATE: u64 = 10_000_000;
/// What is told of a loss may be told this much later than others can see it (µs).
const TOLD_LATE: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    LostWrite,
    Moved,
    Duplicate,
    Reordered,
    OffsetGivenTwice,
    Gap,
    Vanished,
    Invented,
    Skipped,
    WentBack,
    CommitWentBack,
    CommitInvented,
    TwoOwners,
    WatermarkWentBack,
    WatermarkTooEarly,
    WatermarkTooLate,
    LossTooWide,
    LossWithoutEpoch,
    Stuck,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::LostWrite => "an acknowledged write is lost",
            Self::Moved => "an acknowledged write is at another offset",
            Self::Duplicate => "a record of an idempotent producer is stored twice",
            Self::Reordered => "records are out of order",
            Self::OffsetGivenTwice => "an offset was given twice",
            Self::Gap => "offsets have a gap",
            Self::Vanished => "a consumer was shown what is not in the log",
            Self::Invented => "a record is in the log that nobody sent",
            Self::Skipped => "a consumer skipped records",
            Self::WentBack => "a consumer went back",
            Self::CommitWentBack => "a committed offset went back",
            Self::CommitInvented => "a committed offset that nobody committed",
            Self::TwoOwners => "a partition had two owners in one generation",
            Self::WatermarkWentBack => "a high watermark went back without a new leader epoch",
            Self::WatermarkTooEarly => "a high watermark was beyond the end of the log",
            Self::WatermarkTooLate => "a high watermark did not cover an acknowledged write",
            Self::LossTooWide => "a record was reported lost and is there",
            Self::LossWithoutEpoch => "records were lost without a newer leader epoch",
            Self::Stuck => "a client did not get on after all was healed",
        })
    }
}

/// A record by who produced it, and its number.
pub type Identity = (String, u64);

#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub fault: Fault,
    pub partition: PartitionName,
    pub offset: Option<i64>,
    pub record: Option<Identity>,
    /// Around when (µs of the run).
    pub time: u64,
    pub text: String,
}

/// Acknowledged records that a broker said it lost: offsets from `from` to below `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub partition: PartitionName,
    pub from: i64,
    pub end: i64,
    /// The leader epoch that ended with it: what comes after has a newer one.
    pub epoch: i32,
    /// When the broker said it (µs of the run).
    pub time: u64,
}

/// What a setting allows that loses what Redis had not saved. Nothing of it where nothing may be lost.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    pub losses: Vec<Loss>,
    /// When Redis lost what it had not saved, if anything: it was killed after the first and was back by the second (µs). Committed
    /// offsets are among it, and no broker knows which.
    pub deaths: Vec<(u64, u64)>,
}

pub fn check(events: &[Event], allowed: &Allowed) -> Vec<Finding> {
    let run = Run::of(events, allowed);
    let produced = produced::Produced::of(&run);
    let log = log::Log::of(&run);
    let mut findings = Vec::new();
    log.check(&run, &produced, &mut findings);
    produced.check_order(&run, &mut findings);
    commits::check(&run, &mut findings);
    consumers::check(&run, &log, &mut findings);
    watermarks::check(&run, &log, &produced, &mut findings);
    losses::check(&run, &log, &produced, &mut findings);
    for event in events {
        if let Operation::Problem { error } = &event.operation
            && !run.may_give_up(event)
        {
            let text = format!("{}: {error}", event.client);
            findings.push(Finding {
                fault: Fault::Stuck,
                partition: String::new(),
                offset: None,
                record: None,
                time: event.time,
                text,
            });
        }
    }
    findings.sort_by(|a, b| (a.fault, &a.partition, a.offset, a.time).cmp(&(b.fault, &b.partition, b.offset, b.time)));
    findings
}

/// A client as its first event tells.
#[derive(Clone, Debug)]
struct Client {
    role: Role,
    idempotent: bool,
    group: Option<String>,
}

/// The events with what every check needs to know of them.
struct Run<'a> {
    events: &'a [Event],
    allowed: &'a Allowed,
    clients: HashMap<&'a str, Client>,
}

impl<'a> Run<'a> {
    fn of(events: &'a [Event], allowed: &'a Allowed) -> Self {
        let mut clients = HashMap::new();
        for event in events {
            if let Operation::Start { role, idempotent, group, .. } = &event.operation {
                let client = Client { role: *role, idempotent: *idempotent, group: group.clone() };
                clients.insert(event.client.as_str(), client);
            }
        }
        Self { events, allowed, clients }
    }

    fn role(&self, client: &str) -> Option<Role> {
        self.clients.get(client).map(|client| client.role)
    }

    fn is_idempotent(&self, client: &str) -> bool {
        self.clients.get(client).is_some_and(|client| client.idempotent)
    }

    fn group(&self, client: &str) -> Option<&str> {
        self.clients.get(client)?.group.as_deref()
    }

    fn losses(&self, partition: &str) -> impl Iterator<Item = &'a Loss> {
        self.allowed.losses.iter().filter(move |loss| loss.partition == partition)
    }

    /// The loss that took what a client was told at `time` of this offset.
    fn loss_of(&self, partition: &str, offset: i64, time: u64) -> Option<&'a Loss> {
        self.losses(partition).find(|loss| (loss.from..loss.end).contains(&offset) && time < loss.time + HEARD_LATE)
    }

    /// After records were lost an idempotent producer may have to give up, and a reader that is not to begin elsewhere.
    fn may_give_up(&self, problem: &Event) -> bool {
        let may = match self.role(&problem.client) {
            Some(Role::Producer) => self.is_idempotent(&problem.client),
            role => role == Some(Role::Reader),
        };
        may && self.allowed.losses.iter().any(|loss| loss.time < problem.time + TOLD_LATE)
    }

    /// Pairs what a client asked with the answer: for clients that do one thing of a kind at a time.
    fn pairs(&self, is_wanted: impl Fn(&Operation) -> bool) -> Vec<(&'a Event, Option<&'a Event>)> {
        let mut open: HashMap<&str, usize> = HashMap::new();
        let mut pairs: Vec<(&Event, Option<&Event>)> = Vec::new();
        for event in self.events.iter().filter(|event| is_wanted(&event.operation)) {
            if event.kind == Kind::Invoke {
                open.insert(&event.client, pairs.len());
                pairs.push((event, None));
            } else if let Some(place) = open.remove(event.client.as_str()) {
                pairs[place].1 = Some(event);
            }
        }
        pairs
    }
}
