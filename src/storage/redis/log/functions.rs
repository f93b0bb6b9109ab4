//! Typed calls of the Functions in `scripts/log.lua`.

use redis::{Cmd, Value};

use super::core::{Core, EntryId, format_cold, parse_cold, parse_epochs};
use crate::{
    log::{
        archive::Cold,
        durability::Life,
        store::{Claim, StoreError},
    },
    model::{PartitionId, TopicId},
    storage::redis::{
        nodes::{At, Nodes},
        shards::Slot,
    },
};

/// A partition's keys, in the order that the Functions take them.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) stream: String,
    pub(super) state: String,
    pub(super) marks: String,
    pub(super) slot: Slot,
}

impl Keys {
    pub(super) fn of(nodes: &Nodes, partition: &PartitionId) -> Self {
        let keyspace = nodes.keyspace();
        let stream = keyspace.stream(&partition.topic, partition.index);
        Self {
            slot: nodes.slot_of(&stream),
            stream,
            state: keyspace.state(&partition.topic, partition.index),
            marks: keyspace.marks(&partition.topic, partition.index),
        }
    }
}

/// `FCALL name` with the partition's keys; arguments follow.
pub(super) fn call(name: &str, keys: &Keys) -> Cmd {
    let mut command = Cmd::with_capacity(24, 1_024);
    command.arg("FCALL");
    command.arg(name).arg(3).arg(&keys.stream).arg(&keys.state).arg(&keys.marks);
    command
}

/// What a Function answers: a word, then what belongs to it.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) word: String,
    pub(super) rest: Vec<Value>,
}

impl Answer {
    pub(super) fn of(value: Value) -> Option<Self> {
        let Value::Array(parts) = value else { return None };
        let mut parts = parts.into_iter();
        let word = text(&parts.next()?)?;
        Some(Self { word, rest: parts.collect() })
    }

    pub(super) fn text(&self, index: usize) -> Option<String> {
        text(self.rest.get(index)?)
    }

    pub(super) fn number(&self, index: usize) -> Option<i64> {
        match self.rest.get(index)? {
            Value::Int(number) => Some(*number),
            other => text(other)?.parse().ok(),
        }
    }

    pub(super) fn core(&self, index: usize) -> Option<Core> {
        match self.rest.get(index)? {
            Value::BulkString(bytes) => Core::parse(bytes),
            _ => None,
        }
    }

    /// The values of state fields from `index` on.
    pub(super) fn values(&self, index: usize) -> Vec<Option<Vec<u8>>> {
        self.rest.iter().skip(index).map(bytes).collect()
    }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes.clone()),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        _ => None,
    }
}

pub(super) fn unexpected(function: &str, answer: &impl std::fmt::Debug) -> StoreError {
    StoreError::Refused(format!("{function} answered {answer:?}"))
}

/// A partition's state at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) core: Core,
    /// Entries in the stream; `None` where there is no stream.
    pub(super) length: Option<i64>,
    /// The end at the last retention check.
    pub(super) checked: i64,
    pub(super) epochs: Vec<(i32, i64)>,
    pub(super) cold: Option<Cold>,
    /// Of the fields that were asked for.
    pub(super) values: Vec<Option<Vec<u8>>>,
}

#[derive(Debug)]
pub(super) enum Loaded {
    Here(Box<Snapshot>),
    /// No state that can be read.
    Gone {
        cause: String,
        stream_exists: bool,
    },
    /// Of another topic id.
    Other,
}

/// The field that notes what is archived.
const COLD: &str = "cold";

pub(super) async fn load(at: At<'_>, keys: &Keys, topic: TopicId, fields: &[String]) -> Result<Loaded, StoreError> {
    let mut command = call("weir1_load", keys);
    command.arg(topic.to_string()).arg(COLD).arg(fields);
    loaded("weir1_load", at.query(&command).await?)
}

/// As [`load`], and takes the lead.
pub(super) async fn claim(at: At<'_>, keys: &Keys, topic: TopicId, claim: &Claim) -> Result<Loaded, StoreError> {
    let mut command = call("weir1_claim", keys);
    command.arg(topic.to_string()).arg(claim.epoch).arg(&claim.leader).arg(COLD);
    loaded("weir1_claim", at.query(&command).await?)
}

fn loaded(function: &str, answer: Value) -> Result<Loaded, StoreError> {
    let answer = Answer::of(answer).ok_or_else(|| unexpected(function, &"no words"))?;
    let loaded = match answer.word.as_str() {
        "ok" => snapshot(&answer).map(|snapshot| Loaded::Here(Box::new(snapshot))),
        "gone" => answer.text(0).map(|cause| Loaded::Gone { cause, stream_exists: answer.number(1) == Some(1) }),
        "other" => Some(Loaded::Other),
        "fenced" => match answer.number(0).map(i32::try_from) {
            Some(Ok(epoch)) => return Err(StoreError::FencedLeader(epoch)),
            _ => None,
        },
        _ => None,
    };
    loaded.ok_or_else(|| unexpected(function, &answer))
}

fn snapshot(answer: &Answer) -> Option<Snapshot> {
    let fixed = answer.values(1);
    Some(Snapshot {
        length: Some(answer.number(0)?).filter(|length| *length >= 0),
        core: answer.core(1)?,
        checked: match fixed.get(1)? {
            Some(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
            None => 0,
        },
        epochs: parse_epochs(fixed.get(2)?.as_deref().unwrap_or_default()),
        cold: match answer.values(4).into_iter().next().flatten() {
            Some(text) => Some(parse_cold(&text)?),
            None => None,
        },
        values: answer.values(5),
    })
}

/// Replaces the note of what is archived, if it is `expected` and the leader's epoch is `epoch`.
pub(super) async fn note_cold(
    at: At<'_>,
    keys: &Keys,
    topic: TopicId,
    (expected, cold): (Option<Cold>, Option<Cold>),
    epoch: i32,
) -> Result<(), StoreError> {
    let text = |cold: Option<Cold>| cold.map(|cold| format_cold(&cold)).unwrap_or_default();
    let mut command = call("weir1_note_cold", keys);
    command.arg(topic.to_string()).arg(epoch).arg(text(expected)).arg(text(cold));
    let answer: Value = at.query(&command).await?;
    let answer = Answer::of(answer).ok_or_else(|| unexpected("weir1_note_cold", &"no words"))?;
    match (answer.word.as_str(), answer.number(0).map(i32::try_from)) {
        ("ok" | "stale", _) => Ok(()),
        ("fenced", Some(Ok(stored))) => Err(StoreError::FencedLeader(stored)),
        ("other", _) => Err(StoreError::NoSuchPartition),
        ("gone", _) if answer.text(0).as_deref() == Some("missing") => Err(StoreError::NoSuchPartition),
        ("gone", _) => Err(StoreError::Quarantined(answer.text(0).unwrap_or_default())),
        _ => Err(unexpected("weir1_note_cold", &answer)),
    }
}

/// The field that says in which life of the server the log was compared with the archive.
const COMPARED: &str = "compared";

/// What that field says of a life: short, since each state has it.
pub(super) fn mark_of(life: &Life) -> String {
    if life.name().is_empty() { String::new() } else { format!("{:08x}", crc32c::crc32c(life.name().as_bytes())) }
}

pub(super) async fn compared_in(at: At<'_>, keys: &Keys) -> Result<Option<String>, StoreError> {
    let noted: Option<String> = at.query(redis::cmd("HGET").arg(&keys.state).arg(COMPARED)).await?;
    Ok(noted.filter(|mark| !mark.is_empty()))
}

/// Moves the end of the log behind what the archive has, where it is not, and keeps in which life that was seen to.
pub(super) async fn follow_archive(
    at: At<'_>,
    keys: &Keys,
    topic: TopicId,
    cold: &Cold,
    (epoch, life): (i32, &Life),
) -> Result<Core, StoreError> {
    let mut command = call("weir1_follow_archive", keys);
    command.arg(topic.to_string()).arg(epoch).arg(cold.bounds.end_offset).arg(cold.bounds.max_timestamp);
    command.arg(format_cold(cold)).arg(mark_of(life));
    let answer: Value = at.query(&command).await?;
    let answer = Answer::of(answer).ok_or_else(|| unexpected("weir1_follow_archive", &"no words"))?;
    match (answer.word.as_str(), answer.number(0).map(i32::try_from)) {
        ("ok", _) => answer.core(0).ok_or_else(|| unexpected("weir1_follow_archive", &answer)),
        ("fenced", Some(Ok(stored))) => Err(StoreError::FencedLeader(stored)),
        ("other", _) => Err(StoreError::NoSuchPartition),
        ("gone", _) if answer.text(0).as_deref() == Some("missing") => Err(StoreError::NoSuchPartition),
        ("gone" | "closed", _) => Err(StoreError::Quarantined(answer.text(0).unwrap_or_default())),
        _ => Err(unexpected("weir1_follow_archive", &answer)),
    }
}

/// Calls a Function that answers `ok` and the core, or refuses.
pub(super) async fn change(at: At<'_>, command: &Cmd) -> Result<(Core, Answer), StoreError> {
    let answer: Value = at.query(command).await?;
    let answer = Answer::of(answer).ok_or_else(|| unexpected("a Function", &"no words"))?;
    match answer.word.as_str() {
        "ok" | "void" | "landed" => {
            let core = answer.core(0).ok_or_else(|| unexpected("a Function", &answer))?;
            Ok((core, answer))
        }
        "other" => Err(StoreError::NoSuchPartition),
        "gone" if answer.text(0).as_deref() == Some("missing") => Err(StoreError::NoSuchPartition),
        "gone" | "closed" => Err(StoreError::Quarantined(answer.text(0).unwrap_or_default())),
        _ => Err(unexpected("a Function", &answer)),
    }
}

/// What `XINFO STREAM` tells about interference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamFacts {
    pub(super) last_entry: Option<EntryId>,
    pub(super) last_deleted: Option<EntryId>,
}

/// Dear (Redis copies the first and the last entry), so only where something is wrong. The text of Redis' error where
/// there is no stream.
pub(super) async fn stream_facts(at: At<'_>, keys: &Keys) -> Result<Result<StreamFacts, String>, StoreError> {
    let answer: Value = match at.query(redis::cmd("XINFO").arg("STREAM").arg(&keys.stream)).await {
        Err(StoreError::Refused(text)) => return Ok(Err(text)),
        answer => answer?,
    };
    let mut facts = StreamFacts::default();
    let pairs: Vec<(Value, Value)> = match answer {
        Value::Map(pairs) => pairs,
        Value::Array(items) => {
            let mut items = items.into_iter();
            std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
        }
        other => return Err(unexpected("XINFO", &other)),
    };
    for (name, value) in pairs {
        match text(&name).as_deref() {
            Some("last-entry") => {
                facts.last_entry = match &value {
                    Value::Array(parts) => parts.first().and_then(bytes).and_then(|id| EntryId::parse(&id)),
                    _ => None,
                };
            }
            Some("max-deleted-entry-id") => {
                facts.last_deleted =
                    bytes(&value).and_then(|id| EntryId::parse(&id)).filter(|id| *id != EntryId::default());
            }
            _ => {}
        }
    }
    Ok(Ok(facts))
}
