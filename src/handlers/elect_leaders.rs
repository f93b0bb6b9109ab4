//! ElectLeaders, key 43, versions 0-2.
//!
//! v1 tells preferred from unclean elections (KIP-460); v2 is flexible.
//!
//! Differs from Apache Kafka: a partition has one replica, its leader, so no election is ever needed.

use kafka_protocol::{
    ResponseError,
    messages::{
        ElectLeadersRequest, ElectLeadersResponse, TopicName,
        elect_leaders_request::TopicPartitions,
        elect_leaders_response::{PartitionResult, ReplicaElectionResult},
    },
    protocol::StrBytes,
};

use super::{
    Request,
    partitions::{Named, look_for},
};
use crate::topics::Catalog;

pub(super) async fn handle(catalog: &Catalog, request: &Request<ElectLeadersRequest>) -> ElectLeadersResponse {
    let body = &request.body;
    let response = ElectLeadersResponse::default();
    let Some(named) = &body.topic_partitions else {
        // All: only those with an error worth telling are listed, and these have none.
        let snapshot = catalog.snapshot();
        let all = snapshot.topics().map(|topic| {
            ReplicaElectionResult::default().with_topic(TopicName(StrBytes::from_string(topic.name.to_string())))
        });
        return response.with_replica_election_results(all.collect());
    };
    if !matches!(body.election_type, 0 | 1) {
        let message = format!("Unknown election type {}", body.election_type);
        let refused = |_| (ResponseError::InvalidRequest, message.clone());
        let results = named.iter().map(|topic| results(topic, refused)).collect();
        return response.with_error_code(ResponseError::InvalidRequest.code()).with_replica_election_results(results);
    }
    look_for(catalog, named.iter().map(|topic| (Named::Name(&topic.topic), topic.partitions.iter().copied()))).await;
    let elected = |topic: &TopicPartitions| {
        let name = topic.topic.as_str();
        let there = catalog.get(name);
        results(topic, |partition| match &there {
            None => (ResponseError::UnknownTopicOrPartition, format!("No such topic as {name}")),
            Some(there) if there.partition(partition).is_none() => {
                (ResponseError::UnknownTopicOrPartition, format!("No such partition as {name}-{partition}"))
            }
            Some(_) => (ResponseError::ElectionNotNeeded, "Leader election not needed for topic partition.".to_owned()),
        })
    };
    response.with_replica_election_results(named.iter().map(elected).collect())
}

fn results(topic: &TopicPartitions, outcome: impl Fn(i32) -> (ResponseError, String)) -> ReplicaElectionResult {
    let partitions = topic.partitions.iter().map(|partition| {
        let (code, message) = outcome(*partition);
        PartitionResult::default()
            .with_partition_id(*partition)
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(message)))
    });
    ReplicaElectionResult::default().with_topic(topic.topic.clone()).with_partition_result(partitions.collect())
}
