//! OffsetCommit, key 8, versions 2-10.
//!
//! v2-4 may name a retention time, v6 has leader epochs (KIP-320), v7 static members (KIP-345), v8 is flexible, v9 tells
//! GROUP_ID_NOT_FOUND (KIP-848), v10 has topic ids instead of names (KIP-848).
//!
//! Differs from Apache Kafka: nothing.

use std::collections::HashMap;

use kafka_protocol::{
    ResponseError,
    messages::{
        OffsetCommitResponse, TopicName,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    },
};
use uuid::Uuid;

use super::{
    Outcome, Request, Services, errors,
    partitions::{Named, look_for},
};
use crate::{
    coordinator::CoordinatorError,
    groups::{Commit, CommitRequest, GroupError, TopicPartition},
    model::{GroupId, GroupInstanceId, MemberId, TopicId},
    protocol::offsets_by_id,
};

const BY_ID: i16 = 10;

pub(super) async fn handle(
    services: &Services,
    request: Request<offsets_by_id::OffsetCommit>,
) -> Outcome<OffsetCommitResponse> {
    let Request { body: offsets_by_id::OffsetCommit(body), version, .. } = request;
    let mut answer = Answer::default();
    let mut known = Vec::new();
    let mut offsets = Vec::new();
    let named = body.topics.iter().map(|topic| {
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        (Named::by(&topic.name, topic.topic_id), indexes)
    });
    look_for(&services.topics, named).await;
    for topic in body.topics {
        let found = if version >= BY_ID {
            services.topics.get_by_id(TopicId(topic.topic_id)).ok_or(ResponseError::UnknownTopicId)
        } else {
            services.topics.get(&topic.name).ok_or(ResponseError::UnknownTopicOrPartition)
        };
        let OffsetCommitRequestTopic { name, topic_id, partitions, .. } = topic;
        let mut indexes = Vec::new();
        for partition in partitions {
            let index = partition.partition_index;
            let topic = found.as_ref().map_err(|error| *error);
            match topic.and_then(|topic| topic.partition(index).ok_or(ResponseError::UnknownTopicOrPartition)) {
                Err(error) => answer.add(&name, topic_id, index, error.code()),
                Ok(at) => {
                    indexes.push(index);
                    offsets.push(commit(TopicPartition { topic: at.topic_id, partition: index }, partition));
                }
            }
        }
        known.push((name, topic_id, indexes));
    }
    if offsets.is_empty() {
        return answer.response().into();
    }
    let commit = CommitRequest {
        member_id: MemberId::new(&body.member_id),
        instance_id: body.group_instance_id.as_deref().map(GroupInstanceId::new),
        generation: body.generation_id_or_member_epoch,
        retention_ms: Some(body.retention_time_ms).filter(|retention| version <= 4 && *retention != -1),
        offsets,
    };
    let pending = services.groups.commit(&GroupId::new(&body.group_id), commit).await;
    Outcome::Later(Box::pin(async move {
        let (results, code) = match pending.answer().await {
            Ok(results) => (results, 0),
            Err(CoordinatorError::Group(GroupError::GroupNotFound)) if version < 9 => {
                (Vec::new(), ResponseError::IllegalGeneration.code())
            }
            Err(error) => (Vec::new(), errors::coordinator(&error).code()),
        };
        let mut results = results.into_iter();
        for (name, topic_id, indexes) in known {
            for index in indexes {
                let own = results.next().and_then(Result::err).map(|error| errors::group(&error).code());
                answer.add(&name, topic_id, index, own.unwrap_or(code));
            }
        }
        answer.response()
    }))
}

fn commit(partition: TopicPartition, from: OffsetCommitRequestPartition) -> Commit {
    Commit {
        partition,
        offset: from.committed_offset,
        leader_epoch: from.committed_leader_epoch,
        metadata: from.committed_metadata.as_deref().unwrap_or("").into(),
    }
}

/// Partitions by topic, in the order in which the topics are first named.
#[derive(Default)]
struct Answer {
    topics: Vec<OffsetCommitResponseTopic>,
    places: HashMap<(TopicName, Uuid), usize>,
}

impl Answer {
    fn add(&mut self, name: &TopicName, topic_id: Uuid, index: i32, code: i16) {
        let partition = OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code);
        let place = *self.places.entry((name.clone(), topic_id)).or_insert(self.topics.len());
        match self.topics.get_mut(place) {
            Some(topic) => topic.partitions.push(partition),
            None => self.topics.push(
                OffsetCommitResponseTopic::default()
                    .with_name(name.clone())
                    .with_topic_id(topic_id)
                    .with_partitions(vec![partition]),
            ),
        }
    }

    fn response(self) -> OffsetCommitResponse {
        OffsetCommitResponse::default().with_topics(self.topics)
    }
}
