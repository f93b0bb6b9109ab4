//! OffsetFetch, key 9, versions 1-10.
//!
//! v2 may ask for all of a group's offsets and has an error for the group, v5 has leader epochs (KIP-320), v6 is flexible, v7 can
//! wait for offsets that are being committed (KIP-447), v8 asks for several groups (KIP-709), v9 names a member (KIP-848), v10
//! has topic ids instead of names (KIP-848).
//!
//! Differs from Apache Kafka: nothing.

use std::collections::BTreeMap;

use futures::future::join_all;
use kafka_protocol::{
    ResponseError,
    messages::{
        OffsetFetchResponse, TopicName,
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
    protocol::StrBytes,
};

use super::{
    Outcome, Request, Services, errors, group_wire,
    partitions::{Named, look_for_topics},
};
use crate::{
    coordinator::{Fetch, Fetched, Pending},
    groups::{CommittedOffset, TopicPartition},
    model::{GroupId, TopicId},
    protocol::offsets_by_id,
    topics::Catalog,
};

const SEVERAL_GROUPS: i16 = 8;
const BY_ID: i16 = 10;

/// One group's part of the request, on its way.
struct Asked {
    group: OffsetFetchRequestGroup,
    /// For each topic that was asked for by name or id; `None` where all are wanted.
    topics: Option<Vec<Wanted>>,
    pending: Pending<Fetched>,
}

struct Wanted {
    name: TopicName,
    /// As the client spells it, zero before v10.
    topic_id: uuid::Uuid,
    /// `None` for a topic that is not there.
    known: Option<TopicId>,
    partitions: Vec<i32>,
}

pub(super) async fn handle(
    services: &Services,
    request: Request<offsets_by_id::OffsetFetch>,
) -> Outcome<OffsetFetchResponse> {
    let Request { body: offsets_by_id::OffsetFetch(body), version, .. } = request;
    let groups = if version >= SEVERAL_GROUPS {
        body.groups
    } else {
        let topics = body.topics.map(|topics| {
            topics
                .into_iter()
                .map(|topic| {
                    OffsetFetchRequestTopics::default()
                        .with_name(topic.name)
                        .with_partition_indexes(topic.partition_indexes)
                })
                .collect()
        });
        vec![OffsetFetchRequestGroup::default().with_group_id(body.group_id).with_topics(topics)]
    };
    // A topic that is not known has no offsets, and its consumer begins anew.
    let named = groups.iter().flat_map(|group| group.topics.iter().flatten());
    look_for_topics(&services.topics, named.map(|topic| Named::by(&topic.name, topic.topic_id))).await;
    let mut asked = Vec::with_capacity(groups.len());
    for group in groups {
        asked.push(ask(services, version, group, body.require_stable).await);
    }
    let catalog = services.topics.clone();
    Outcome::Later(Box::pin(async move {
        let answered = join_all(asked.into_iter().map(|asked| answer(asked, version, &catalog))).await;
        if version >= SEVERAL_GROUPS {
            return OffsetFetchResponse::default().with_groups(answered);
        }
        let single = answered.into_iter().next().unwrap_or_default();
        let topics = single.topics.into_iter().map(|topic| {
            OffsetFetchResponseTopic::default()
                .with_name(topic.name)
                .with_partitions(topic.partitions.into_iter().map(single_group_partition).collect())
        });
        OffsetFetchResponse::default()
            .with_topics(topics.collect())
            // v1 has no place for it; its partitions carry the error.
            .with_error_code(if version >= 2 { single.error_code } else { 0 })
    }))
}

async fn ask(services: &Services, version: i16, mut group: OffsetFetchRequestGroup, require_stable: bool) -> Asked {
    let known = |topic: &OffsetFetchRequestTopics| {
        if version >= BY_ID {
            services.topics.get_by_id(TopicId(topic.topic_id))
        } else {
            services.topics.get(&topic.name)
        }
    };
    let topics: Option<Vec<Wanted>> = group.topics.take().map(|topics| {
        topics
            .into_iter()
            .map(|topic| Wanted {
                known: known(&topic).map(|topic| topic.id),
                name: topic.name,
                topic_id: topic.topic_id,
                partitions: topic.partition_indexes,
            })
            .collect()
    });
    let partitions = topics.as_ref().map(|topics| {
        let partitions_of = |wanted: &Wanted| {
            let known = wanted.known;
            wanted
                .partitions
                .clone()
                .into_iter()
                .filter_map(move |partition| Some(TopicPartition { topic: known?, partition }))
        };
        topics.iter().flat_map(partitions_of).collect()
    });
    let fetch = Fetch { partitions, stable: require_stable };
    let pending = services.groups.fetch(&GroupId::new(&group.group_id), fetch).await;
    Asked { group, topics, pending }
}

async fn answer(asked: Asked, version: i16, catalog: &Catalog) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup::default().with_group_id(asked.group.group_id);
    let fetched = match asked.pending.answer().await {
        Ok(fetched) => fetched,
        Err(error) => {
            let code = errors::coordinator(&error).code();
            let topics = asked.topics.filter(|_| version < 2).unwrap_or_default();
            let topics = topics.into_iter().map(|wanted| failed(wanted, code)).collect();
            return response.with_error_code(code).with_topics(topics);
        }
    };
    let topics = match asked.topics {
        None => all(fetched, version, catalog).await,
        Some(wanted) => some(wanted, fetched, version),
    };
    response.with_topics(topics)
}

fn some(wanted: Vec<Wanted>, fetched: Fetched, version: i16) -> Vec<OffsetFetchResponseTopics> {
    let mut fetched = fetched.into_iter();
    let mut topics = Vec::with_capacity(wanted.len());
    let mut unknown = Vec::new();
    for topic in wanted {
        if topic.known.is_none() && version >= BY_ID {
            unknown.push(failed(topic, ResponseError::UnknownTopicId.code()));
            continue;
        }
        let known = topic.known.is_some();
        let mut found = |index| {
            let offset = if known { fetched.next().and_then(|(_, offset)| offset) } else { None };
            partition(index, offset)
        };
        let partitions = topic.partitions.iter().map(|index| found(*index)).collect();
        topics.push(response_topic(topic.name, topic.topic_id).with_partitions(partitions));
    }
    topics.append(&mut unknown);
    topics
}

/// Offsets of topics that are gone are left out.
async fn all(fetched: Fetched, version: i16, catalog: &Catalog) -> Vec<OffsetFetchResponseTopics> {
    let mut by_topic: BTreeMap<TopicId, Vec<OffsetFetchResponsePartitions>> = BTreeMap::new();
    for (at, offset) in fetched {
        by_topic.entry(at.topic).or_default().push(partition(at.partition, offset));
    }
    look_for_topics(catalog, by_topic.keys().map(|id| Named::Id(id.0))).await;
    let named = by_topic.into_iter().filter_map(|(id, partitions)| {
        let topic = catalog.get_by_id(id)?;
        let (name, id) = if version >= BY_ID {
            (TopicName::default(), id.0)
        } else {
            (TopicName(group_wire::text(topic.name.as_str())), TopicId::ZERO.0)
        };
        Some(response_topic(name, id).with_partitions(partitions))
    });
    named.collect()
}

fn response_topic(name: TopicName, topic_id: uuid::Uuid) -> OffsetFetchResponseTopics {
    OffsetFetchResponseTopics::default().with_name(name).with_topic_id(topic_id)
}

fn partition(index: i32, offset: Option<CommittedOffset>) -> OffsetFetchResponsePartitions {
    let response = OffsetFetchResponsePartitions::default().with_partition_index(index);
    match offset {
        None => response.with_committed_offset(-1).with_metadata(Some(StrBytes::default())),
        Some(offset) => response
            .with_committed_offset(offset.offset)
            .with_committed_leader_epoch(offset.leader_epoch)
            .with_metadata(Some(group_wire::text(&offset.metadata))),
    }
}

fn failed(wanted: Wanted, code: i16) -> OffsetFetchResponseTopics {
    let partitions = wanted.partitions.into_iter().map(|index| partition(index, None).with_error_code(code));
    response_topic(wanted.name, wanted.topic_id).with_partitions(partitions.collect())
}

fn single_group_partition(from: OffsetFetchResponsePartitions) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition::default()
        .with_partition_index(from.partition_index)
        .with_committed_offset(from.committed_offset)
        .with_committed_leader_epoch(from.committed_leader_epoch)
        .with_metadata(from.metadata)
        .with_error_code(from.error_code)
}
