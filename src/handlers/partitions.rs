//! What the handlers of partitions share.

use std::{sync::Arc, time::Duration};

use kafka_protocol::{ResponseError, protocol::StrBytes};

use super::Services;
use crate::{log::Partition, model::TopicName, topics::Topic};

/// A client's timeout in milliseconds; a negative one is none.
pub(super) fn timeout(milliseconds: i32) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

/// A leader epoch of a request; -1 stands for none.
pub(super) fn known_epoch(epoch: i32) -> Option<i32> {
    Some(epoch).filter(|epoch| *epoch != -1)
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
