//! How topics, configs and unfinished work are written in Redis.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::Cmd;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    model::{TopicId, TopicName},
    topics::{
        configs::Values,
        names,
        store::{Change, Resource, StoredTopic, Unfinished, Work},
    },
};

#[derive(Serialize, Deserialize)]
struct TopicText {
    id: String,
    partitions: i32,
    replication_factor: i16,
    created_ms: i64,
    revision: u64,
    configs: Values,
}

fn encode_topic(topic: &StoredTopic) -> String {
    let text = TopicText {
        id: topic.id.to_string(),
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        created_ms: topic.created_ms,
        revision: topic.revision,
        configs: topic.configs.clone(),
    };
    serde_json::to_string(&text).expect("text and numbers are JSON")
}

pub(super) fn decode_topic(name: &str, text: &str) -> Result<StoredTopic, String> {
    names::validate(name).map_err(|error| error.to_string())?;
    let topic: TopicText = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if topic.partitions < 1 {
        return Err(format!("{} partitions", topic.partitions));
    }
    Ok(StoredTopic {
        name: TopicName::new(name),
        id: decode_id(&topic.id)?,
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        created_ms: topic.created_ms,
        configs: topic.configs,
        revision: topic.revision,
    })
}

fn decode_id(text: &str) -> Result<TopicId, String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| error.to_string())?;
    Uuid::from_slice(&bytes).map(TopicId).map_err(|error| error.to_string())
}

fn encode_values(values: &Values) -> String {
    serde_json::to_string(values).expect("text is JSON")
}

pub(super) fn decode_values(text: &str) -> Result<Values, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn encode_resource(resource: &Resource) -> String {
    match resource {
        Resource::Cluster => "broker:".to_owned(),
        Resource::Broker(node) => format!("broker:{node}"),
        Resource::Group(group) => format!("group:{group}"),
        Resource::ClientMetrics(name) => format!("client-metrics:{name}"),
    }
}

pub(super) fn decode_resource(text: &str) -> Result<Resource, String> {
    match text.split_once(':') {
        Some(("broker", "")) => Ok(Resource::Cluster),
        Some(("broker", node)) => node.parse().map(Resource::Broker).map_err(|error| format!("{node:?}: {error}")),
        Some(("group", group)) => Ok(Resource::Group(group.to_owned())),
        Some(("client-metrics", name)) => Ok(Resource::ClientMetrics(name.to_owned())),
        _ => Err(format!("{text:?} is no resource")),
    }
}

pub(super) fn work_name(work: Work) -> &'static str {
    match work {
        Work::Create => "create",
        Work::Delete => "delete",
    }
}

/// `create 3 orders`
pub(super) fn decode_unfinished(id: &str, text: &str) -> Result<Unfinished, String> {
    let illegal = || format!("{text:?} is no unfinished work");
    let mut parts = text.splitn(3, ' ');
    let work = match parts.next() {
        Some("create") => Work::Create,
        Some("delete") => Work::Delete,
        _ => return Err(illegal()),
    };
    let partitions = parts.next().and_then(|count| count.parse().ok()).ok_or_else(illegal)?;
    let name = parts.next().filter(|name| names::validate(name).is_ok()).ok_or_else(illegal)?;
    Ok(Unfinished { name: TopicName::new(name), id: decode_id(id)?, partitions, work })
}

pub(super) fn encode_change(call: &mut Cmd, change: &Change) {
    match change {
        Change::Create(topic) => {
            call.arg("create").arg(topic.name.as_str()).arg(topic.id.to_string());
            call.arg(encode_topic(topic)).arg(topic.partitions);
        }
        Change::Delete { name, id } => {
            call.arg("delete").arg(name.as_str()).arg(id.to_string());
        }
        Change::Replace { old, new } => {
            call.arg("replace").arg(old.name.as_str()).arg(old.id.to_string()).arg(old.revision);
            call.arg(encode_topic(new)).arg(new.partitions);
        }
        Change::Configure { resource, old, new } => {
            call.arg("configure").arg(encode_resource(resource));
            call.arg(encode_values(old)).arg(encode_values(new));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_resource_is_read_as_it_was_written(group in ".{0,20}", node in any::<i32>()) {
            for resource in [
                Resource::Cluster,
                Resource::Broker(node),
                Resource::Group(group.clone()),
                Resource::ClientMetrics(group.clone()),
            ] {
                prop_assert_eq!(decode_resource(&encode_resource(&resource)), Ok(resource));
            }
        }

        #[test]
        fn a_topic_is_read_as_it_was_written(
            name in "[a-zA-Z0-9_-]{1,249}",
            partitions in 1..i32::MAX,
            created_ms in any::<i64>(),
            configs in proptest::collection::btree_map("[a-z.]{1,20}", ".{0,20}", 0..4),
        ) {
            let topic = StoredTopic {
                name: TopicName::new(&name),
                id: TopicId::random(),
                partitions,
                replication_factor: 3,
                created_ms,
                configs,
                revision: 7,
            };
            prop_assert_eq!(decode_topic(&name, &encode_topic(&topic)), Ok(topic));
        }
    }

    #[test]
    fn unreadable_text_is_refused() {
        assert!(decode_topic("a", "{}").is_err());
        assert!(decode_topic("a b", "{}").is_err());
        assert!(decode_resource("broker:x").is_err());
        assert!(decode_unfinished("x", "create 1 a").is_err());
        let id = TopicId::random().to_string();
        assert!(decode_unfinished(&id, "create 1").is_err());
        assert!(decode_unfinished(&id, "create 1 a").is_ok());
    }
}
