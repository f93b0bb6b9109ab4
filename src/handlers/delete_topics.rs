//! DeleteTopics, key 20, versions 1-6.
//!
//! v3 may answer TOPIC_DELETION_DISABLED; v4 is flexible; v5 answers with messages (KIP-599); v6 names topics by name or by id
//! (KIP-516).
//!
//! Differs from Apache Kafka: the order of the results is the request's.

use std::collections::HashSet;

use kafka_protocol::{
    ResponseError,
    messages::{
        DeleteTopicsRequest, DeleteTopicsResponse, TopicName, delete_topics_request::DeleteTopicState,
        delete_topics_response::DeletableTopicResult,
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{
    Request, errors,
    partitions::{Named, look_for_topics},
};
use crate::{
    model::TopicId,
    topics::{Catalog, ChangeError},
};

type Refused = (ResponseError, String);

pub(super) async fn handle(catalog: &Catalog, request: &Request<DeleteTopicsRequest>) -> DeleteTopicsResponse {
    let body = &request.body;
    let named: Vec<DeleteTopicState> = if request.version >= 6 {
        body.topics.clone()
    } else {
        body.topic_names.iter().map(|name| DeleteTopicState::default().with_name(Some(name.clone()))).collect()
    };
    let names = named.iter().map(|topic| Named::by(topic.name.as_deref().map_or("", |name| name), topic.topic_id));
    look_for_topics(catalog, names).await;
    let enabled = catalog.snapshot().settings().delete_topic_enable;
    let twice = by_name_and_by_id(catalog, &named);
    let mut responses = Vec::with_capacity(named.len());
    let mut answered = HashSet::new();
    for topic in &named {
        let key = (topic.name.clone(), topic.topic_id);
        if !answered.insert(key) || (topic.name.is_none() && twice.contains(&topic.topic_id)) {
            continue;
        }
        let supplied = id_of(catalog, topic).filter(|id| twice.contains(id));
        let outcome = if !enabled {
            Err(disabled(request.version))
        } else if let Some(id) = supplied {
            let message = "The provided topic name maps to an ID that was already supplied.";
            let refused = Err((ResponseError::InvalidRequest, message.to_owned()));
            responses.push(answer(&topic.clone().with_topic_id(id), refused, request.version));
            continue;
        } else if named.iter().filter(|other| same(other, topic)).count() > 1 {
            let what = if topic.name.is_some() { "name" } else { "id" };
            Err((ResponseError::InvalidRequest, format!("Duplicate topic {what}.")))
        } else {
            delete(catalog, topic).await
        };
        responses.push(answer(topic, outcome, request.version));
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

/// Ids of topics that one entry names and another gives the id of: neither entry is followed, and Kafka answers them as one.
fn by_name_and_by_id(catalog: &Catalog, named: &[DeleteTopicState]) -> HashSet<Uuid> {
    let ids: HashSet<Uuid> = named.iter().filter(|topic| topic.name.is_none()).map(|topic| topic.topic_id).collect();
    named.iter().filter_map(|topic| id_of(catalog, topic)).filter(|id| ids.contains(id)).collect()
}

/// The id of a topic that is given by name alone.
fn id_of(catalog: &Catalog, topic: &DeleteTopicState) -> Option<Uuid> {
    let name = topic.name.as_ref().filter(|_| topic.topic_id.is_nil())?;
    catalog.get(name.as_str()).map(|found| found.id.0)
}

/// Topics without name and id are not the same topic.
fn same(a: &DeleteTopicState, b: &DeleteTopicState) -> bool {
    (a.name.is_some() || !a.topic_id.is_nil()) && a.name == b.name && a.topic_id == b.topic_id
}

fn disabled(version: i16) -> Refused {
    let code = if version < 3 { ResponseError::InvalidRequest } else { ResponseError::TopicDeletionDisabled };
    (code, "Topic deletion is disabled.".to_owned())
}

async fn delete(catalog: &Catalog, topic: &DeleteTopicState) -> Result<(TopicName, Uuid), Refused> {
    let unknown = |by_id: bool| {
        if by_id {
            (ResponseError::UnknownTopicId, "This server does not host this topic ID.".to_owned())
        } else {
            let message = "This server does not host this topic-partition.";
            (ResponseError::UnknownTopicOrPartition, message.to_owned())
        }
    };
    let by_id = topic.name.is_none();
    let found = match (&topic.name, topic.topic_id.is_nil()) {
        (Some(_), false) => {
            let message = "You may not specify both topic name and topic id.";
            return Err((ResponseError::InvalidRequest, message.to_owned()));
        }
        (None, true) => {
            return Err((ResponseError::InvalidRequest, "Neither topic name nor id were specified.".to_owned()));
        }
        (Some(name), true) => catalog.get(name.as_str()),
        (None, false) => catalog.get_by_id(TopicId(topic.topic_id)),
    };
    let found = found.ok_or_else(|| unknown(by_id))?;
    match catalog.delete(found.id).await {
        Ok(()) => Ok((TopicName(StrBytes::from_string(found.name.to_string())), found.id.0)),
        Err(ChangeError::Missing) => Err(unknown(by_id)),
        Err(error) => Err((errors::change_topic(&error), error.to_string())),
    }
}

fn answer(topic: &DeleteTopicState, outcome: Result<(TopicName, Uuid), Refused>, version: i16) -> DeletableTopicResult {
    let result = DeletableTopicResult::default();
    match outcome {
        Ok((name, id)) => {
            let result = result.with_name(Some(name));
            if version >= 6 { result.with_topic_id(id) } else { result }
        }
        Err((code, message)) => {
            let result = result.with_name(topic.name.clone()).with_error_code(code.code());
            let result = if version >= 6 { result.with_topic_id(topic.topic_id) } else { result };
            if version >= 5 { result.with_error_message(Some(StrBytes::from_string(message))) } else { result }
        }
    }
}
