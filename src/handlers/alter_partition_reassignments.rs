//! AlterPartitionReassignments, key 45, versions 0-1 (KIP-455).
//!
//! v1 may forbid changes of the replication factor.
//!
//! Differs from Apache Kafka: a partition's data is in Redis, so naming brokers that exist is agreed to and moves nothing.

use kafka_protocol::{
    ResponseError,
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
        alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
        alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse},
    },
    protocol::StrBytes,
};

use super::{
    Request, assignments,
    partitions::{Named, look_for},
};
use crate::topics::Catalog;

pub(super) async fn handle(
    catalog: &Catalog,
    brokers: &[i32],
    request: &Request<AlterPartitionReassignmentsRequest>,
) -> AlterPartitionReassignmentsResponse {
    let body = &request.body;
    let named = body
        .topics
        .iter()
        .map(|topic| (Named::Name(&topic.name), topic.partitions.iter().map(|partition| partition.partition_index)));
    look_for(catalog, named).await;
    let responses = body.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let response = ReassignablePartitionResponse::default().with_partition_index(partition.partition_index);
            match reassigned(catalog, brokers, topic, partition) {
                Ok(()) => response.with_error_message(None),
                Err((code, message)) => {
                    response.with_error_code(code.code()).with_error_message(message.map(StrBytes::from_string))
                }
            }
        });
        ReassignableTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    let response = AlterPartitionReassignmentsResponse::default()
        .with_error_message(body.topics.is_empty().then(StrBytes::default))
        .with_responses(responses.collect());
    if request.version >= 1 {
        response.with_allow_replication_factor_change(body.allow_replication_factor_change)
    } else {
        response
    }
}

fn reassigned(
    catalog: &Catalog,
    brokers: &[i32],
    topic: &ReassignableTopic,
    partition: &ReassignablePartition,
) -> Result<(), (ResponseError, Option<String>)> {
    let (name, index) = (topic.name.as_str(), partition.partition_index);
    let unknown = |message| (ResponseError::UnknownTopicOrPartition, Some(message));
    let there = catalog.get(name).ok_or_else(|| unknown(format!("Unable to find a topic named {name}.")))?;
    if there.partition(index).is_none() {
        return Err(unknown(format!("Unable to find partition {name}:{index}.")));
    }
    let Some(replicas) = &partition.replicas else {
        return Err((ResponseError::NoReassignmentInProgress, None));
    };
    let named: Vec<i32> = replicas.iter().map(|id| id.0).collect();
    assignments::validate(&named, brokers, None)
        .map(|_| ())
        .map_err(|message| (ResponseError::InvalidReplicaAssignment, Some(message)))
}
