//! OffsetDelete, key 47, version 0 (KIP-496).
//!
//! Differs from Apache Kafka: nothing.

use std::collections::HashMap;

use kafka_protocol::{
    ResponseError,
    messages::{
        OffsetDeleteRequest, OffsetDeleteResponse, TopicName,
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
    },
};

use super::{
    Outcome, Request, Services, errors,
    partitions::{Named, look_for},
};
use crate::{groups::TopicPartition, model::GroupId};

pub(super) async fn handle(
    services: &Services,
    request: Request<OffsetDeleteRequest>,
) -> Outcome<OffsetDeleteResponse> {
    let body = request.body;
    let named = body
        .topics
        .iter()
        .map(|topic| (Named::Name(&topic.name), topic.partitions.iter().map(|partition| partition.partition_index)));
    look_for(&services.topics, named).await;
    let mut answer = Answer::default();
    let mut known = Vec::new();
    let mut partitions = Vec::new();
    for topic in body.topics {
        let found = services.topics.get(&topic.name);
        let mut indexes = Vec::new();
        for partition in topic.partitions {
            let index = partition.partition_index;
            match found.as_ref().and_then(|topic| topic.partition(index)) {
                None => answer.add(&topic.name, index, ResponseError::UnknownTopicOrPartition.code()),
                Some(at) => {
                    indexes.push(index);
                    partitions.push((at.topic, TopicPartition { topic: at.topic_id, partition: index }));
                }
            }
        }
        known.push((topic.name, indexes));
    }
    if partitions.is_empty() {
        return answer.response().into();
    }
    let pending = services.groups.delete_offsets(&GroupId::new(&body.group_id), partitions).await;
    Outcome::Later(Box::pin(async move {
        let mut results = match pending.answer().await {
            Ok(results) => results.into_iter(),
            Err(error) => {
                return OffsetDeleteResponse::default().with_error_code(errors::coordinator(&error).code());
            }
        };
        for (name, indexes) in known {
            for index in indexes {
                let error = results.next().and_then(Result::err);
                answer.add(&name, index, error.map_or(0, |error| errors::group(&error).code()));
            }
        }
        answer.response()
    }))
}

/// Partitions by topic, in the order in which the topics are first named.
#[derive(Default)]
struct Answer {
    topics: Vec<OffsetDeleteResponseTopic>,
    places: HashMap<TopicName, usize>,
}

impl Answer {
    fn add(&mut self, name: &TopicName, index: i32, code: i16) {
        let partition = OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code);
        let place = *self.places.entry(name.clone()).or_insert(self.topics.len());
        match self.topics.get_mut(place) {
            Some(topic) => topic.partitions.push(partition),
            None => self
                .topics
                .push(OffsetDeleteResponseTopic::default().with_name(name.clone()).with_partitions(vec![partition])),
        }
    }

    fn response(self) -> OffsetDeleteResponse {
        OffsetDeleteResponse::default().with_topics(self.topics)
    }
}
