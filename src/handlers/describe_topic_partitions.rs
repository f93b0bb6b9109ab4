//! DescribeTopicPartitions, key 75, version 0 (KIP-966).
//!
//! Differs from Apache Kafka: the empty topic name is INVALID_TOPIC_EXCEPTION instead of UNKNOWN_SERVER_ERROR.

use std::collections::BTreeSet;

use kafka_protocol::{
    ResponseError,
    messages::{
        BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
        describe_topic_partitions_response::{
            Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
        },
    },
    protocol::StrBytes,
};

use super::{
    Request, Services,
    cluster::{OPERATIONS_NOT_ASKED, ReachableBrokers, TOPIC_OPERATIONS, operations},
    partitions::{Named, look_for_topics},
};
use crate::topics::{Topic, names};

pub(super) async fn handle(
    services: &Services,
    request: &Request<DescribeTopicPartitionsRequest>,
) -> DescribeTopicPartitionsResponse {
    let body = &request.body;
    look_for_topics(&services.topics, body.topics.iter().map(|topic| Named::Name(&topic.name))).await;
    let snapshot = services.topics.snapshot();
    let all = body.topics.is_empty();
    let names: BTreeSet<&str> = if all {
        snapshot.topics().map(|topic| topic.name.as_str()).collect()
    } else {
        body.topics.iter().map(|topic| topic.name.as_str()).collect()
    };
    let (from, first_partition) =
        body.cursor.as_ref().map_or(("", 0), |cursor| (cursor.topic_name.as_str(), cursor.partition_index));
    if body.cursor.is_some() && (first_partition < 0 || !all && !names.contains(from)) {
        let refused = body.topics.iter().map(|topic| {
            DescribeTopicPartitionsResponseTopic::default()
                .with_error_code(ResponseError::InvalidRequest.code())
                .with_name(Some(topic.name.clone()))
                .with_topic_authorized_operations(OPERATIONS_NOT_ASKED)
        });
        return DescribeTopicPartitionsResponse::default().with_topics(refused.collect());
    }
    let most = i32::try_from(snapshot.settings().max_request_partition_size_limit).unwrap_or(i32::MAX);
    let mut left = body.response_partition_limit.min(most).max(1);
    let reachable = services.reachable_brokers(&request.caller);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names.range(from..) {
        if left == 0 {
            return response.with_next_cursor(Some(cursor(name, 0)));
        }
        let Some(topic) = snapshot.get(name) else {
            response.topics.push(unknown(name));
            continue;
        };
        let first = if *name == from { first_partition } else { 0 };
        let end = topic.partitions.min(first.saturating_add(left));
        response.topics.push(described(&reachable, topic, first..end));
        left -= (end - first).max(0);
        if end < topic.partitions && end >= first {
            return response.with_next_cursor(Some(cursor(name, end)));
        }
    }
    response
}

fn wire_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn cursor(name: &str, partition: i32) -> Cursor {
    Cursor::default().with_topic_name(wire_name(name)).with_partition_index(partition)
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = if names::validate(name).is_err() {
        ResponseError::InvalidTopicException
    } else {
        ResponseError::UnknownTopicOrPartition
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(wire_name(name)))
        .with_topic_authorized_operations(operations(TOPIC_OPERATIONS))
}

fn described(
    reachable: &ReachableBrokers,
    topic: &Topic,
    indexes: std::ops::Range<i32>,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = indexes.map(|index| {
        let leader = reachable.leader_of(topic.id, index);
        let error = match leader.node {
            Some(node) if reachable.contains(node) => None,
            Some(_) => Some(ResponseError::ListenerNotFound),
            None => Some(ResponseError::LeaderNotAvailable),
        };
        let replicas: Vec<BrokerId> = leader.node.map(|node| node.0.into()).into_iter().collect();
        DescribeTopicPartitionsResponsePartition::default()
            .with_error_code(error.map_or(0, |error| error.code()))
            .with_partition_index(index)
            .with_leader_id(if error.is_none() { leader.id().into() } else { BrokerId(-1) })
            .with_leader_epoch(leader.epoch)
            .with_replica_nodes(replicas.clone())
            .with_isr_nodes(replicas)
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(wire_name(topic.name.as_str())))
        .with_topic_id(topic.id.0)
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(operations(TOPIC_OPERATIONS))
}
