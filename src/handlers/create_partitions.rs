//! CreatePartitions, key 37, versions 0-3.
//!
//! v2 is flexible; v3 may answer THROTTLING_QUOTA_EXCEEDED (KIP-599).
//!
//! Differs from Apache Kafka: more than 10,000 new partitions are refused with POLICY_VIOLATION instead of
//! UNKNOWN_SERVER_ERROR; the number of replicas of an assignment is not compared with the topic's.

use std::collections::HashSet;

use kafka_protocol::{
    ResponseError,
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, create_partitions_request::CreatePartitionsTopic,
        create_partitions_response::CreatePartitionsTopicResult,
    },
    protocol::StrBytes,
};

use super::{
    Request, assignments, errors,
    partitions::{Named, look_for_topics},
};
use crate::{
    model::TopicId,
    topics::{Catalog, ChangeError},
};

/// Partitions that one request may add to a topic.
const MAX_NEW_PARTITIONS: i32 = 10_000;

type Refused = (ResponseError, Option<String>);

pub(super) async fn handle(
    catalog: &Catalog,
    brokers: &[i32],
    request: &Request<CreatePartitionsRequest>,
) -> CreatePartitionsResponse {
    let topics = &request.body.topics;
    look_for_topics(catalog, topics.iter().map(|topic| Named::Name(&topic.name))).await;
    let mut results = Vec::with_capacity(topics.len());
    let mut answered = HashSet::new();
    for topic in topics {
        if !answered.insert(&topic.name) {
            continue;
        }
        let outcome = if topics.iter().filter(|other| other.name == topic.name).count() > 1 {
            Err((ResponseError::InvalidRequest, Some("Duplicate topic name.".to_owned())))
        } else {
            match checked(catalog, brokers, topic) {
                Ok(id) if !request.body.validate_only => grow(catalog, id, topic.count).await,
                checked => checked.map(|_| ()),
            }
        };
        let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        results.push(match outcome {
            Ok(()) => result.with_error_message(None),
            Err((code, message)) => {
                result.with_error_code(code.code()).with_error_message(message.map(StrBytes::from_string))
            }
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

fn checked(catalog: &Catalog, brokers: &[i32], wanted: &CreatePartitionsTopic) -> Result<TopicId, Refused> {
    let topic = catalog.get(wanted.name.as_str()).ok_or((ResponseError::UnknownTopicOrPartition, None))?;
    let (now, count) = (topic.partitions, wanted.count);
    let refuse = |code, message| Err((code, Some(message)));
    if count == now {
        return refuse(ResponseError::InvalidPartitions, format!("Topic already has {now} partition(s)."));
    }
    if count < now {
        return refuse(
            ResponseError::InvalidPartitions,
            format!("The topic {} currently has {now} partition(s); {count} would not be an increase.", topic.name),
        );
    }
    let added = count - now;
    if added > MAX_NEW_PARTITIONS {
        return refuse(
            ResponseError::PolicyViolation,
            "Excessively large number of partitions per request.".to_owned(),
        );
    }
    if let Some(assigned) = &wanted.assignments {
        if usize::try_from(added) != Ok(assigned.len()) {
            return refuse(
                ResponseError::InvalidReplicaAssignment,
                format!(
                    "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
                    assigned.len()
                ),
            );
        }
        for assignment in assigned {
            let named: Vec<i32> = assignment.broker_ids.iter().map(|id| id.0).collect();
            assignments::validate(&named, brokers, None)
                .map_err(|message| (ResponseError::InvalidReplicaAssignment, Some(message)))?;
        }
    }
    Ok(topic.id)
}

async fn grow(catalog: &Catalog, id: TopicId, count: i32) -> Result<(), Refused> {
    match catalog.grow(id, count).await {
        Ok(_) => Ok(()),
        Err(ChangeError::Missing) => Err((ResponseError::UnknownTopicOrPartition, None)),
        Err(error) => Err((errors::change_topic(&error), Some(error.to_string()))),
    }
}
