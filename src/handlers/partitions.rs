//! What the handlers of partitions share.

use std::{sync::Arc, time::Duration};

use kafka_protocol::{ResponseError, protocol::StrBytes};

use uuid::Uuid;

use super::Services;
use crate::{
    log::Partition,
    model::{TopicId, TopicName},
    topics::{Catalog, Snapshot, Topic, names},
};

/// How a request names a topic.
#[derive(Clone, Copy)]
pub(super) enum Named<'a> {
    Name(&'a str),
    Id(Uuid),
}

impl<'a> Named<'a> {
    /// By its name, unless there is an id.
    pub(super) fn by(name: &'a str, id: Uuid) -> Self {
        if id.is_nil() { Self::Name(name) } else { Self::Id(id) }
    }
}

/// A client's timeout in milliseconds; a negative one is none.
pub(super) fn timeout(milliseconds: i32) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

/// A leader epoch of a request; -1 stands for none.
pub(super) fn known_epoch(epoch: i32) -> Option<i32> {
    Some(epoch).filter(|epoch| *epoch != -1)
}

/// Looks once for what a request names and this broker does not know, before it is answered to be unknown: another broker
/// may have made it a moment ago ([`Catalog::catch_up`]).
pub(super) async fn look_for<'a, I: Iterator<Item = i32>>(
    catalog: &Catalog,
    named: impl Iterator<Item = (Named<'a>, I)>,
) {
    if lacks(&catalog.snapshot(), named) {
        catalog.catch_up().await;
    }
}

/// The same for topics alone.
pub(super) async fn look_for_topics<'a>(catalog: &Catalog, named: impl Iterator<Item = Named<'a>>) {
    look_for(catalog, named.map(|topic| (topic, std::iter::empty()))).await;
}

fn lacks<'a, I: Iterator<Item = i32>>(snapshot: &Snapshot, mut named: impl Iterator<Item = (Named<'a>, I)>) -> bool {
    named.any(|(topic, mut partitions)| {
        let known = match topic {
            Named::Name(name) => snapshot.get(name),
            Named::Id(id) => snapshot.get_by_id(TopicId(id)),
        };
        match (known, topic) {
            (Some(known), _) => partitions.any(|index| index >= known.partitions),
            // What can't be there is not looked for.
            (None, Named::Name(name)) => names::validate(name).is_ok() && !names::is_reserved(name),
            (None, Named::Id(id)) => !id.is_nil(),
        }
    })
}

impl Services {
    /// The partition of a topic that is known.
    pub(super) fn partition_of(&self, topic: &Topic, index: i32) -> Result<Arc<Partition>, ResponseError> {
        topic.partition(index).ok_or(ResponseError::UnknownTopicOrPartition)?;
        Ok(self.log.partition(&topic.name, topic.id, index))
    }

    /// The partition of a topic that a request names.
    pub(super) fn partition_named(&self, topic: &str, index: i32) -> Result<Arc<Partition>, ResponseError> {
        let topic = self.topics.get(topic).ok_or(ResponseError::UnknownTopicOrPartition)?;
        self.partition_of(&topic, index)
    }
}

/// A topic's name for an answer.
pub(super) fn wire_name(name: &TopicName) -> kafka_protocol::messages::TopicName {
    StrBytes::from_string(name.as_str().to_owned()).into()
}
