//! Metadata, key 3, versions 0-13.
//!
//! v1 names the controller and tells "all" (null) from "none" (empty), v4 lets the client forbid creation (KIP-204), v7 has leader
//! epochs (KIP-320), v8 authorized operations (KIP-430), v9 is flexible, v10 has topic ids, v12 asks by id (KIP-516), v13 has an
//! error for the whole answer (KIP-1102).
//!
//! Differs from Apache Kafka: a topic that is created because it was asked for is in the answer at once, where Kafka answers
//! UNKNOWN_TOPIC_OR_PARTITION and has it ready when the client asks again; the controller is the broker itself.
//! Each partition has one replica, its leader.

use std::{collections::HashSet, sync::Arc};

use kafka_protocol::{
    ResponseError,
    messages::{
        BrokerId, MetadataRequest, MetadataResponse, TopicName as WireTopicName,
        metadata_request::MetadataRequestTopic,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{
    Request, Services,
    cluster::{CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED, TOPIC_OPERATIONS, operations},
    errors,
    partitions::{Named, look_for_topics},
};
use crate::{
    model::TopicId,
    net::Caller,
    topics::{Topic, names},
};

/// The first version that can ask by id; 10 and 11 have the field, and refuse what is in it.
const BY_ID: i16 = 12;

pub(super) async fn handle(services: &Services, request: &Request<MetadataRequest>) -> MetadataResponse {
    let body = &request.body;
    if request.version < BY_ID && body.topics.iter().flatten().any(|one| one.name.is_none() || !one.topic_id.is_nil()) {
        return refused(body);
    }
    let brokers = services
        .brokers(&request.caller)
        .into_iter()
        .map(|broker| {
            MetadataResponseBroker::default()
                .with_node_id(broker.node.0.into())
                .with_host(broker.host)
                .with_port(broker.port)
                .with_rack(broker.rack)
        })
        .collect();
    let asked_operations = (8..=10).contains(&request.version) && body.include_cluster_authorized_operations;
    MetadataResponse::default()
        .with_brokers(brokers)
        .with_cluster_id(Some(StrBytes::from_string(services.identity.cluster_id.clone())))
        .with_controller_id(services.identity.node.0.into())
        .with_topics(topics(services, request).await)
        .with_cluster_authorized_operations(if asked_operations {
            operations(CLUSTER_OPERATIONS)
        } else {
            OPERATIONS_NOT_ASKED
        })
}

/// Kafka's answer to a request that it throws out as a whole: no brokers either.
fn refused(body: &MetadataRequest) -> MetadataResponse {
    let refuse = |one: &MetadataRequestTopic| {
        MetadataResponseTopic::default()
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_name(Some(one.name.clone().unwrap_or_default()))
            .with_topic_id(one.topic_id)
    };
    MetadataResponse::default().with_cluster_id(None).with_topics(body.topics.iter().flatten().map(refuse).collect())
}

async fn topics(services: &Services, request: &Request<MetadataRequest>) -> Vec<MetadataResponseTopic> {
    let body = &request.body;
    let answer = Answer {
        services,
        caller: &request.caller,
        version: request.version,
        with_operations: body.include_topic_authorized_operations,
    };
    let asked = match &body.topics {
        Some(asked) if !(request.version == 0 && asked.is_empty()) => asked,
        _ => return services.topics.snapshot().topics().map(|topic| answer.known(topic)).collect(),
    };
    let named = asked.iter().map(|one| Named::by(one.name.as_deref().map_or("", |name| name), one.topic_id));
    look_for_topics(&services.topics, named).await;
    let may_create = body.allow_auto_topic_creation && services.topics.settings().load().auto_create_topics_enable;
    let mut seen = HashSet::new();
    // One id is enough to make names without one be overlooked.
    let any_by_id = asked.iter().any(|one| !one.topic_id.is_nil());
    // Kafka puts names it can't answer behind the rest, and ids before it.
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for one in asked {
        let by_id = !one.topic_id.is_nil();
        if (any_by_id && !by_id) || !seen.insert((&one.name, one.topic_id)) {
            continue;
        }
        let found = match &one.name {
            _ if by_id => services.topics.get_by_id(TopicId(one.topic_id)),
            Some(name) => services.topics.get(name),
            None => None,
        };
        match (found, &one.name) {
            (Some(topic), _) => known.push(answer.known(&topic)),
            (None, _) if by_id => unknown.push(answer.refused(None, one.topic_id, ResponseError::UnknownTopicId)),
            (None, None) => unknown.push(answer.refused(None, Uuid::nil(), ResponseError::UnknownTopicId)),
            (None, Some(name)) if names::validate(name).is_err() => {
                unknown.push(answer.refused(Some(&name.0), Uuid::nil(), ResponseError::InvalidTopicException));
            }
            (None, Some(name)) if may_create && !names::is_reserved(name) => {
                match services.topics.auto_create(name).await {
                    Ok(topic) => known.push(answer.known(&topic)),
                    Err(error) => {
                        unknown.push(answer.refused(Some(&name.0), Uuid::nil(), errors::automatic_creation(&error)));
                    }
                }
            }
            (None, Some(name)) => {
                unknown.push(answer.refused(Some(&name.0), Uuid::nil(), ResponseError::UnknownTopicOrPartition));
            }
        }
    }
    if any_by_id {
        std::mem::swap(&mut known, &mut unknown);
    }
    known.append(&mut unknown);
    known
}

struct Answer<'a> {
    services: &'a Services,
    caller: &'a Caller,
    version: i16,
    with_operations: bool,
}

impl Answer<'_> {
    fn known(&self, topic: &Arc<Topic>) -> MetadataResponseTopic {
        let reachable = self.services.reachable_brokers(self.caller);
        let partitions = (0..topic.partitions)
            .map(|index| {
                let leader = reachable.leader_of(topic.id, index);
                let error = match leader.node {
                    Some(node) if reachable.contains(node) => None,
                    Some(_) if self.version >= 6 => Some(ResponseError::ListenerNotFound),
                    _ => Some(ResponseError::LeaderNotAvailable),
                };
                let replicas: Vec<BrokerId> = leader.node.map(|node| node.0.into()).into_iter().collect();
                MetadataResponsePartition::default()
                    .with_error_code(error.map_or(0, |error| error.code()))
                    .with_partition_index(index)
                    .with_leader_id(if error.is_none() { leader.id().into() } else { BrokerId(-1) })
                    .with_leader_epoch(leader.epoch)
                    .with_replica_nodes(replicas.clone())
                    .with_isr_nodes(replicas)
            })
            .collect();
        let with_operations = self.version >= 8 && self.with_operations;
        MetadataResponseTopic::default()
            .with_name(Some(WireTopicName(StrBytes::from_string(topic.name.to_string()))))
            .with_topic_id(topic.id.0)
            .with_partitions(partitions)
            .with_topic_authorized_operations(if with_operations {
                operations(TOPIC_OPERATIONS)
            } else {
                OPERATIONS_NOT_ASKED
            })
    }

    fn refused(&self, name: Option<&StrBytes>, id: Uuid, error: ResponseError) -> MetadataResponseTopic {
        // Before v12 a topic without a name can't be said.
        let name = name.cloned().or_else(|| (self.version < 12).then(StrBytes::default));
        MetadataResponseTopic::default()
            .with_error_code(error.code())
            .with_name(name.map(WireTopicName))
            .with_topic_id(id)
            .with_topic_authorized_operations(OPERATIONS_NOT_ASKED)
    }
}
