//! CreateTopics, key 19, versions 2-7.
//!
//! v4 takes -1 for the broker's default of partitions and replication factor (KIP-464); v5 is flexible and answers with
//! counts and configs (KIP-525); v6 may answer THROTTLING_QUOTA_EXCEEDED (KIP-599); v7 answers with the topic id (KIP-516).
//!
//! Differs from Apache Kafka: any replication factor from 1 on is taken, whatever the number of brokers; a manual assignment
//! is checked and then decides only the numbers of partitions and replicas; `__transaction_state` and `__share_group_state`
//! exist always.

use std::collections::HashSet;

use kafka_protocol::{
    ResponseError,
    messages::{
        CreateTopicsRequest, CreateTopicsResponse,
        create_topics_request::CreatableTopic,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
    },
    protocol::StrBytes,
};

use super::{Request, assignments, errors};
use crate::topics::{Catalog, CreateError, NewTopic, Topic, configs};

/// Partitions that one request may create, and topics and partitions together, as in Kafka's controller.
const MAX_PER_REQUEST: usize = 10_000;

/// The topic of KRaft's own log.
const CLUSTER_METADATA: &str = "__cluster_metadata";

/// A refusal with its code.
type Refused = (ResponseError, String);

pub(super) async fn handle(
    catalog: &Catalog,
    brokers: &[i32],
    request: &Request<CreateTopicsRequest>,
) -> CreateTopicsResponse {
    let body = &request.body;
    if body.topics.iter().any(|topic| catalog.get(&topic.name).is_some()) {
        // Another broker may have deleted it a moment ago.
        catalog.catch_up().await;
    }
    let (named, repeated) = once_each(&body.topics);
    let mut outcomes: Vec<Result<Topic, Refused>> =
        named.iter().map(|topic| planned(catalog, brokers, topic)).collect();
    refuse_too_many(&mut outcomes);
    if !body.validate_only {
        let wanted: Vec<Topic> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok().cloned()).collect();
        let mut created = catalog.create(wanted).await.into_iter();
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
            match created.next() {
                Some(Ok(topic)) => *outcome = Ok(Topic::clone(&topic)),
                Some(Err(error)) => *outcome = Err(refused(&error)),
                None => *outcome = Err((ResponseError::KafkaStorageError, "the topic was not created".to_owned())),
            }
        }
    }
    let mut topics: Vec<CreatableTopicResult> = named
        .iter()
        .zip(outcomes)
        .map(|(topic, outcome)| {
            let result = CreatableTopicResult::default().with_name(topic.name.clone());
            match outcome {
                Ok(topic) => created(result, &topic, catalog, request.version),
                Err((code, message)) => failed(result, code, message),
            }
        })
        .collect();
    topics.extend(repeated.into_iter().map(|topic| {
        let result = CreatableTopicResult::default().with_name(topic.name.clone());
        failed(result, ResponseError::InvalidRequest, "Duplicate topic name.".to_owned())
    }));
    CreateTopicsResponse::default().with_topics(topics)
}

/// Topics that are named once, and one of each that is named more often.
fn once_each(topics: &[CreatableTopic]) -> (Vec<&CreatableTopic>, Vec<&CreatableTopic>) {
    let (mut seen, mut repeated) = (HashSet::new(), HashSet::new());
    for topic in topics {
        if !seen.insert(&topic.name) {
            repeated.insert(&topic.name);
        }
    }
    let mut told = HashSet::new();
    let (mut once, mut more) = (Vec::new(), Vec::new());
    for topic in topics {
        if !repeated.contains(&topic.name) {
            once.push(topic);
        } else if told.insert(&topic.name) {
            more.push(topic);
        }
    }
    (once, more)
}

fn planned(catalog: &Catalog, brokers: &[i32], topic: &CreatableTopic) -> Result<Topic, Refused> {
    if topic.name.as_str() == CLUSTER_METADATA {
        let message = format!("Creation of internal topic {CLUSTER_METADATA} is prohibited.");
        return Err((ResponseError::InvalidRequest, message));
    }
    let refuse = |error: CreateError| refused(&error);
    catalog.check_name(&topic.name).map_err(refuse)?;
    let mut new = NewTopic { name: topic.name.to_string(), ..NewTopic::default() };
    let nulls: Vec<&str> =
        topic.configs.iter().filter(|config| config.value.is_none()).map(|config| config.name.as_str()).collect();
    if !nulls.is_empty() {
        let message = format!("Null value not supported for topic configs: {}", nulls.join(","));
        return Err((ResponseError::InvalidConfig, message));
    }
    for config in &topic.configs {
        new.configs.insert(config.name.to_string(), config.value.as_ref().map(StrBytes::to_string).unwrap_or_default());
    }
    catalog.check_configs(&new.name, &new.configs).map_err(refuse)?;
    if topic.assignments.is_empty() {
        new.partitions = (topic.num_partitions != -1).then_some(topic.num_partitions);
        new.replication_factor = (topic.replication_factor != -1).then_some(topic.replication_factor);
    } else {
        let (partitions, replication_factor) = assigned(brokers, topic)?;
        (new.partitions, new.replication_factor) = (Some(partitions), Some(replication_factor));
    }
    catalog.plan(&new).map_err(refuse)
}

/// The numbers of partitions and replicas that a manual assignment makes.
fn assigned(brokers: &[i32], topic: &CreatableTopic) -> Result<(i32, i16), Refused> {
    let illegal = |message: &str| Err((ResponseError::InvalidRequest, message.to_owned()));
    if topic.replication_factor != -1 {
        return illegal("A manual partition assignment was specified, but replication factor was not set to -1.");
    }
    if topic.num_partitions != -1 {
        return illegal("A manual partition assignment was specified, but numPartitions was not set to -1.");
    }
    let refuse = |message| (ResponseError::InvalidReplicaAssignment, message);
    let mut indexes = HashSet::new();
    let mut replicas = None;
    for assignment in &topic.assignments {
        let index = assignment.partition_index;
        if !indexes.insert(index) {
            return Err(refuse(format!("Found multiple manual partition assignments for partition {index}")));
        }
        let named: Vec<i32> = assignment.broker_ids.iter().map(|id| id.0).collect();
        replicas = Some(assignments::validate(&named, brokers, replicas).map_err(refuse)?);
    }
    let partitions = i32::try_from(indexes.len()).unwrap_or(i32::MAX);
    if !indexes.iter().all(|index| (0..partitions).contains(index)) {
        return Err(refuse("partitions should be a consecutive 0-based integer sequence".to_owned()));
    }
    Ok((partitions, replicas.and_then(|count| i16::try_from(count).ok()).unwrap_or(i16::MAX)))
}

/// Refuses all where they are too many together.
fn refuse_too_many(outcomes: &mut [Result<Topic, Refused>]) {
    let counts = outcomes.iter().flatten().map(|topic| usize::try_from(topic.partitions).unwrap_or(usize::MAX));
    let partitions = counts.fold(0, usize::saturating_add);
    let error = if partitions > MAX_PER_REQUEST {
        CreateError::TooManyPartitions
    } else if partitions + outcomes.iter().flatten().count() > MAX_PER_REQUEST {
        CreateError::TooManyChanges
    } else {
        return;
    };
    for outcome in outcomes {
        *outcome = Err(refused(&error));
    }
}

fn refused(error: &CreateError) -> Refused {
    (errors::create_topic(error), error.to_string())
}

fn created(result: CreatableTopicResult, topic: &Topic, catalog: &Catalog, version: i16) -> CreatableTopicResult {
    let result = if version >= 7 { result.with_topic_id(topic.id.0) } else { result };
    if version < 5 {
        return result.with_error_message(None);
    }
    let snapshot = catalog.snapshot();
    let pattern = snapshot.pattern_configs(topic.name.as_str());
    let configs = configs::TOPIC.iter().map(|definition| {
        let resolved = snapshot.topic_config(definition, &topic.configs, &pattern);
        // Kafka gives what was set as it was sent.
        let value = topic.configs.get(definition.name).cloned().or(resolved.value);
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(definition.name))
            .with_value(value.map(StrBytes::from_string))
            .with_config_source(resolved.source.code())
    });
    result
        .with_error_message(None)
        .with_num_partitions(topic.partitions)
        .with_replication_factor(topic.replication_factor)
        .with_configs(Some(configs.collect()))
}

fn failed(result: CreatableTopicResult, code: ResponseError, message: String) -> CreatableTopicResult {
    result.with_error_code(code.code()).with_error_message(Some(StrBytes::from_string(message)))
}
