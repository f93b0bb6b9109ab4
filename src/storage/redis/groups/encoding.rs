//! Groups and offsets as Redis holds them: readable text, with base64 for what is opaque.

use std::{collections::HashMap, fmt::Write, sync::Arc};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use redis::Cmd;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    coordinator::store::{GroupEpoch, GroupWrite, Loaded},
    groups::{
        CommittedOffset, Offsets, StoredGroup, TopicPartition,
        classic::{Protocol, Record, StoredMember},
    },
    model::{GroupInstanceId, MemberId, TopicId},
};

/// A hash as Redis gives it.
pub(super) type Hash = HashMap<Vec<u8>, Vec<u8>>;

/// The value of `type`, in the group's hash and in the index of groups.
pub(super) const CLASSIC: &str = "classic";

const MEMBER: &str = "member:";

/// Why a stored group can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {reason}")]
pub(super) struct Malformed {
    field: String,
    reason: String,
}

fn malformed(field: impl Into<String>, reason: impl std::fmt::Display) -> Malformed {
    Malformed { field: field.into(), reason: reason.to_string() }
}

#[derive(Serialize, Deserialize)]
struct MemberText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance_id: Option<String>,
    client_id: String,
    client_host: String,
    session_timeout_ms: i32,
    rebalance_timeout_ms: i32,
    /// Name and metadata, in the member's order.
    protocols: Vec<(String, String)>,
    assignment: String,
}

/// The fields of a group's hash, except its epoch, which Redis counts.
fn record_fields(record: &Record) -> Vec<(String, String)> {
    let mut fields =
        vec![("type".to_owned(), CLASSIC.to_owned()), ("generation".to_owned(), record.generation.to_string())];
    let mut optional = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            fields.push((name.to_owned(), value));
        }
    };
    optional("protocol_type", record.protocol_type.clone());
    optional("protocol", record.protocol.clone());
    optional("leader", record.leader.as_ref().map(MemberId::to_string));
    optional("state_since", record.state_since_ms.map(|since| since.to_string()));
    for member in &record.members {
        let text = MemberText {
            instance_id: member.instance_id.as_ref().map(GroupInstanceId::to_string),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            session_timeout_ms: member.session_timeout_ms,
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            protocols: member
                .protocols
                .iter()
                .map(|protocol| (protocol.name.clone(), STANDARD.encode(&protocol.metadata)))
                .collect(),
            assignment: STANDARD.encode(&member.assignment),
        };
        let text = serde_json::to_string(&text).expect("strings and numbers are always JSON");
        fields.push((format!("{MEMBER}{}", member.id), text));
    }
    fields
}

/// The arguments of one group's write, their count first.
pub(super) fn encode_write(call: &mut Cmd, write: &GroupWrite) {
    let fields = write.record.as_ref().map(record_fields);
    let set = write.offsets.iter().filter_map(|(at, offset)| Some((*at, offset.as_ref()?)));
    let removed = write.offsets.iter().filter(|(_, offset)| offset.is_none());
    let fields_count = fields.as_ref().map_or(0, |fields| fields.len() * 2);
    let set_count = set.clone().count() * 2;
    call.arg(3 + fields_count + set_count + removed.clone().count());
    match write.expected {
        Some(epoch) => call.arg(epoch.0),
        None => call.arg(""),
    };
    match fields {
        None => {
            call.arg("");
        }
        Some(fields) => {
            call.arg(fields_count);
            for (name, value) in fields {
                call.arg(name).arg(value);
            }
        }
    }
    call.arg(set_count);
    for (at, offset) in set {
        call.arg(offset_field(at)).arg(offset_value(offset));
    }
    for (at, _) in removed {
        call.arg(offset_field(*at));
    }
}

pub(super) fn loaded(group: Hash, offsets: Hash) -> Loaded {
    if group.is_empty() {
        return Loaded::Nothing;
    }
    let read = || {
        Ok::<_, Malformed>((epoch(&group)?, StoredGroup { record: record(&group)?, offsets: all_offsets(&offsets)? }))
    };
    match read() {
        Ok((epoch, stored)) => Loaded::Group(epoch, Box::new(stored)),
        Err(malformed) => Loaded::Unreadable(malformed.to_string()),
    }
}

fn text<'a>(hash: &'a Hash, field: &str) -> Result<Option<&'a str>, Malformed> {
    hash.get(field.as_bytes())
        .map(|value| std::str::from_utf8(value).map_err(|error| malformed(field, error)))
        .transpose()
}

fn number<T: std::str::FromStr<Err: std::fmt::Display>>(hash: &Hash, field: &str) -> Result<Option<T>, Malformed> {
    text(hash, field)?.map(|value| value.parse().map_err(|error| malformed(field, error))).transpose()
}

fn epoch(group: &Hash) -> Result<GroupEpoch, Malformed> {
    number(group, "epoch")?.map(GroupEpoch).ok_or_else(|| malformed("epoch", "is missing"))
}

fn record(group: &Hash) -> Result<Record, Malformed> {
    match text(group, "type")? {
        Some(CLASSIC) => {}
        other => return Err(malformed("type", format!("{other:?} is none that this version knows"))),
    }
    let mut members = Vec::new();
    for (field, value) in group {
        if let Some(id) = field.strip_prefix(MEMBER.as_bytes()) {
            let id = std::str::from_utf8(id).map_err(|error| malformed(MEMBER, error))?;
            members.push(member(id, value).map_err(|reason| malformed(format!("{MEMBER}{id}"), reason))?);
        }
    }
    members.sort_by(|one: &StoredMember, other| one.id.cmp(&other.id));
    Ok(Record {
        generation: number(group, "generation")?.ok_or_else(|| malformed("generation", "is missing"))?,
        protocol_type: text(group, "protocol_type")?.map(str::to_owned),
        protocol: text(group, "protocol")?.map(str::to_owned),
        leader: text(group, "leader")?.map(MemberId::new),
        state_since_ms: number(group, "state_since")?,
        members,
    })
}

fn member(id: &str, value: &[u8]) -> Result<StoredMember, String> {
    let text: MemberText = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let bytes = |text: &str| STANDARD.decode(text).map(Bytes::from).map_err(|error| error.to_string());
    let protocols =
        text.protocols.into_iter().map(|(name, metadata)| Ok(Protocol { name, metadata: bytes(&metadata)? }));
    Ok(StoredMember {
        id: MemberId::new(id),
        instance_id: text.instance_id.as_deref().map(GroupInstanceId::new),
        client_id: text.client_id,
        client_host: text.client_host,
        session_timeout_ms: text.session_timeout_ms,
        rebalance_timeout_ms: text.rebalance_timeout_ms,
        protocols: protocols.collect::<Result<_, String>>()?,
        assignment: bytes(&text.assignment)?,
    })
}

/// `<topic id>:<partition>`.
fn offset_field(at: TopicPartition) -> String {
    format!("{}:{}", at.topic, at.partition)
}

/// `<offset> <leader epoch> <committed at> <expires at, or -> <metadata>`.
fn offset_value(offset: &CommittedOffset) -> String {
    let CommittedOffset { offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms } = offset;
    let mut out = format!("{offset} {leader_epoch} {commit_timestamp_ms} ");
    match expire_timestamp_ms {
        Some(expires) => write!(out, "{expires}").expect("a String takes any text"),
        None => out.push('-'),
    }
    out.push(' ');
    out.push_str(metadata);
    out
}

fn all_offsets(hash: &Hash) -> Result<Offsets, Malformed> {
    let mut offsets = Offsets::default();
    for (field, value) in hash {
        let name = String::from_utf8_lossy(field);
        let (at, offset) = one_offset(field, value).ok_or_else(|| malformed(name, "is no committed offset"))?;
        offsets.set(at, offset);
    }
    Ok(offsets)
}

fn one_offset(field: &[u8], value: &[u8]) -> Option<(TopicPartition, CommittedOffset)> {
    let (topic, partition) = std::str::from_utf8(field).ok()?.split_once(':')?;
    let topic = TopicId(Uuid::from_slice(&URL_SAFE_NO_PAD.decode(topic).ok()?).ok()?);
    let mut parts = std::str::from_utf8(value).ok()?.splitn(5, ' ');
    let offset = parts.next()?.parse().ok()?;
    let leader_epoch = parts.next()?.parse().ok()?;
    let commit_timestamp_ms = parts.next()?.parse().ok()?;
    let expire_timestamp_ms = match parts.next()? {
        "-" => None,
        expires => Some(expires.parse().ok()?),
    };
    let metadata: Arc<str> = parts.next()?.into();
    let at = TopicPartition { topic, partition: partition.parse().ok()? };
    Some((at, CommittedOffset { offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(fields: Vec<(String, String)>) -> Hash {
        fields.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect()
    }

    prop_compose! {
        fn some_member()(
            id in ".{1,20}", instance in proptest::option::of(".{1,10}"), client in ".{0,10}",
            timeouts in any::<(i32, i32)>(),
            protocols in proptest::collection::vec((".{0,8}", proptest::collection::vec(any::<u8>(), 0..20)), 0..3),
            assignment in proptest::collection::vec(any::<u8>(), 0..20),
        ) -> StoredMember {
            StoredMember {
                id: MemberId::new(&id),
                instance_id: instance.as_deref().map(GroupInstanceId::new),
                client_host: format!("/{client}"),
                client_id: client,
                session_timeout_ms: timeouts.0,
                rebalance_timeout_ms: timeouts.1,
                protocols: protocols
                    .into_iter()
                    .map(|(name, metadata)| Protocol { name, metadata: metadata.into() })
                    .collect(),
                assignment: assignment.into(),
            }
        }
    }

    proptest! {
        #[test]
        fn a_stored_group_is_read_back(
            generation in any::<i32>(), texts in any::<[Option<String>; 3]>(), since in any::<Option<i64>>(),
            members in proptest::collection::btree_map(".{1,20}", some_member(), 0..4),
            offsets in proptest::collection::vec(
                (any::<u128>(), any::<i32>(), any::<(i64, i32, i64, Option<i64>)>(), "(?s).{0,20}"), 0..5),
        ) {
            let [protocol_type, protocol, leader] = texts;
            let members = members.into_iter().map(|(id, member)| StoredMember { id: MemberId::new(&id), ..member });
            let mut stored = StoredGroup {
                record: Record {
                    generation,
                    protocol_type,
                    protocol,
                    leader: leader.as_deref().map(MemberId::new),
                    state_since_ms: since,
                    members: members.collect(),
                },
                offsets: Offsets::default(),
            };
            for (topic, partition, (offset, leader_epoch, commit_timestamp_ms, expire_timestamp_ms), metadata) in offsets {
                let at = TopicPartition { topic: TopicId(Uuid::from_u128(topic)), partition };
                let metadata = metadata.into();
                let offset =
                    CommittedOffset { offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms };
                stored.offsets.set(at, offset);
            }
            let mut group = hash(record_fields(&stored.record));
            group.insert(b"epoch".to_vec(), b"7".to_vec());
            let offsets = stored.offsets.iter().map(|(at, offset)| (offset_field(at), offset_value(offset))).collect();
            match loaded(group, hash(offsets)) {
                Loaded::Group(epoch, read) => {
                    prop_assert_eq!(epoch, GroupEpoch(7));
                    prop_assert_eq!(*read, stored);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn what_others_wrote_panics_nothing(
            fields in proptest::collection::hash_map(
                prop_oneof![Just(b"epoch".to_vec()), Just(b"type".to_vec()), Just(b"member:a".to_vec()), any::<Vec<u8>>()],
                prop_oneof![Just(b"classic".to_vec()), Just(b"1".to_vec()), any::<Vec<u8>>()], 0..6),
        ) {
            let _ = loaded(fields.clone(), fields);
        }
    }
}
