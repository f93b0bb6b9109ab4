//! Fetch, key 1, versions 4-18.
//!
//! v5 knows the log start (KIP-107), v7 sessions (KIP-227), v9 leader epochs (KIP-320), v11 racks (KIP-392), v12 is flexible
//! and tells of truncation (KIP-595), v13 names topics by id (KIP-516), v15 moves the replica's id (KIP-903), v16 tells leaders
//! and their addresses (KIP-951), v17 and v18 are for replicas (KIP-853, KIP-1166).
//!
//! Differs from Apache Kafka: whole batches only; an unknown isolation level is INVALID_REQUEST, where Kafka answers
//! UNKNOWN_SERVER_ERROR. A request of a replica is answered as by a leader that has no such replica.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, FetchRequest, FetchResponse,
        fetch_response::{EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData},
    },
};
use uuid::Uuid;

use super::{
    Outcome, Request, Services,
    cluster::PartitionLeader,
    encode, errors,
    partitions::{known_epoch, timeout},
};
use crate::{
    log::{
        FetchError, FetchLimits, Fetched, FetchedPartition, Wanted,
        session::{PartitionAnswer, PartitionRequest, SessionPartition, SessionRequest, SessionTopic},
        store::{StoreError, StoredBatch},
    },
    model::{NodeId, TopicId, TopicName},
    net::{Close, Frame},
    protocol::{
        fetch_response,
        records::{Codec, PlacedBatch},
    },
};

/// Versions from this one on name topics by id.
pub(super) const TOPIC_IDS: i16 = 13;
/// Versions from this one on tell where the leader is.
const LEADER_HINTS: i16 = 16;

const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;

/// All of it happens once the earlier answers of the connection are written: a session's requests must not overtake each
/// other.
pub(super) fn handle(
    services: &Arc<Services>,
    correlation_id: i32,
    request: Request<FetchRequest>,
) -> Outcome<FetchResponse> {
    let services = services.clone();
    Outcome::Encoded(Box::pin(async move { answer(&services, correlation_id, request).await }))
}

/// How a partition is answered, before it is known whether it is sent.
struct Answer {
    partition: SessionPartition,
    data: PartitionData,
    batches: Vec<StoredBatch>,
    summary: PartitionAnswer,
}

async fn answer(services: &Services, correlation_id: i32, request: Request<FetchRequest>) -> Result<Frame, Close> {
    let Request { body, version, caller, .. } = request;
    let failed = |error: ResponseError| {
        let response = FetchResponse::default().with_error_code(error.code());
        services.count_errors(ApiKey::Fetch, &response);
        encode(correlation_id, version, &response)
    };
    if body.isolation_level != READ_UNCOMMITTED && body.isolation_level != READ_COMMITTED {
        let response = refusal_of_all(body, version, ResponseError::InvalidRequest);
        return encode(correlation_id, version, &response);
    }
    let settings = services.topics.settings().load_full();
    let bytes = |asked: i32| usize::try_from(asked).unwrap_or(0).min(settings.fetch_max_bytes);
    let limits = FetchLimits {
        max_bytes: bytes(body.max_bytes),
        min_bytes: bytes(body.min_bytes),
        max_wait: timeout(body.max_wait_ms),
    };
    let replica = if version >= 15 { body.replica_state.replica_id } else { body.replica_id };
    let read_committed = body.isolation_level == READ_COMMITTED;
    let begun = match services.log.sessions().begin(session_request(body, version), services.log.now_ms()) {
        Ok(begun) => begun,
        Err(error) => return failed(errors::session(error)),
    };

    let mut unknown = Vec::new();
    let mut wanted = Vec::new();
    let mut answers = Vec::with_capacity(begun.partitions.len());
    let find =
        || begun.partitions.iter().map(|(partition, asked)| want(services, partition, asked)).collect::<Vec<_>>();
    let mut found = find();
    if found.iter().any(Result::is_err) && services.topics.catch_up().await {
        found = find();
    }
    for ((partition, _), found) in begun.partitions.iter().zip(found) {
        match found {
            Ok(want) if replica.0 < 0 => wanted.push((partition.clone(), want)),
            Ok(want) => {
                let id = want.partition.id();
                let leader = services.leader_of(id.topic_id, id.index);
                let data = failure(partition.index, ResponseError::NotLeaderOrFollower).with_aborted_transactions(None);
                let data = if version >= LEADER_HINTS { with_leader(data, leader) } else { data };
                answers.push(Answer::failed(partition.clone(), data));
            }
            // Kafka puts what it does not know behind the rest.
            Err(error) => unknown.push(Answer::failed(partition.clone(), failure(partition.index, error))),
        }
    }
    let ids: Vec<(TopicId, i32)> =
        wanted.iter().map(|(_, want)| (want.partition.id().topic_id, want.partition.id().index)).collect();
    let (partitions, wanted): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
    // A replica that is refused need not wait. Who asks for what is not there as well waits as for the rest.
    let max_wait = if answers.is_empty() { limits.max_wait } else { Duration::ZERO };
    let limits = FetchLimits { max_wait, ..limits };
    let Fetched { partitions: fetched, held } = services.log.fetch(wanted, limits).await;
    let mut leaders: BTreeSet<NodeId> = BTreeSet::new();
    for ((partition, (topic, index)), fetched) in partitions.into_iter().zip(ids).zip(fetched) {
        answers.push(match fetched {
            Ok(found) => Answer::found(partition, found, read_committed),
            Err(error) => {
                let mut data = failure(partition.index, errors::fetch(&error)).with_aborted_transactions(None);
                let leader = match &error {
                    FetchError::FencedLeaderEpoch(epoch) => {
                        Some(PartitionLeader { node: Some(services.identity.node), epoch: *epoch })
                    }
                    FetchError::Store(StoreError::FencedLeader(_)) => services.other_leader_of(topic, index),
                    _ => None,
                };
                if let Some(leader) = leader.filter(|_| version >= LEADER_HINTS) {
                    data = with_leader(data, leader);
                    leaders.extend(leader.node);
                }
                Answer::failed(partition, data)
            }
        });
    }
    answers.extend(unknown);

    let summaries: Vec<_> = answers.iter().map(|answer| (answer.partition.clone(), answer.summary)).collect();
    let finished = match services.log.sessions().finish(&begun, &summaries, services.log.now_ms()) {
        Ok(finished) => finished,
        Err(error) => return failed(errors::session(error)),
    };
    let sent = answers.into_iter().zip(finished.sent).filter_map(|(answer, sent)| sent.then_some(answer));
    let (topics, records) = by_topic(sent);
    let mut response = FetchResponse::default().with_responses(topics).with_session_id(finished.session_id);
    let addresses = leaders.into_iter().filter_map(|node| services.broker_address(node, &caller));
    response.node_endpoints = addresses
        .map(|broker| {
            NodeEndpoint::default()
                .with_node_id(broker.node.0.into())
                .with_host(broker.host)
                .with_port(broker.port)
                .with_rack(broker.rack)
        })
        .collect();
    services.count_errors(ApiKey::Fetch, &response);
    match fetch_response::encode(correlation_id, version, &response, records) {
        Ok(segments) => Ok(Frame { segments, held }),
        Err(error) => Err(Close(error.to_string())),
    }
}

/// As Kafka answers what it can't serve at all: clients that name topics find each of their partitions.
fn refusal_of_all(body: FetchRequest, version: i16, error: ResponseError) -> FetchResponse {
    let mut response = FetchResponse::default().with_error_code(error.code());
    if version < TOPIC_IDS {
        response.responses = body
            .topics
            .into_iter()
            .map(|topic| {
                let partitions = topic.partitions.iter().map(|partition| failure(partition.partition, error));
                FetchableTopicResponse::default().with_topic(topic.topic).with_partitions(partitions.collect())
            })
            .collect();
    }
    response
}

fn session_request(body: FetchRequest, version: i16) -> SessionRequest {
    let by_id = version >= TOPIC_IDS;
    let named = |name: &str, id: Uuid| {
        if by_id { SessionTopic::Id(TopicId(id)) } else { SessionTopic::Name(TopicName::new(name)) }
    };
    let mut partitions = Vec::new();
    for topic in body.topics {
        let name = named(&topic.topic, topic.topic_id);
        partitions.extend(topic.partitions.into_iter().map(|partition| {
            let asked = PartitionRequest {
                fetch_offset: partition.fetch_offset,
                max_bytes: partition.partition_max_bytes,
                current_leader_epoch: known_epoch(partition.current_leader_epoch),
                last_fetched_epoch: known_epoch(partition.last_fetched_epoch),
                topic_known: false,
            };
            (SessionPartition { topic: name.clone(), index: partition.partition }, asked)
        }));
    }
    let mut forgotten = Vec::new();
    for topic in body.forgotten_topics_data {
        let name = named(&topic.topic, topic.topic_id);
        forgotten.extend(topic.partitions.into_iter().map(|index| SessionPartition { topic: name.clone(), index }));
    }
    SessionRequest {
        session_id: body.session_id,
        epoch: body.session_epoch,
        uses_topic_ids: by_id,
        partitions,
        forgotten,
    }
}

fn want(services: &Services, partition: &SessionPartition, asked: &PartitionRequest) -> Result<Wanted, ResponseError> {
    let topic = match &partition.topic {
        SessionTopic::Id(id) => services.topics.get_by_id(*id).ok_or(if asked.topic_known {
            // Deleted since the session had it.
            ResponseError::UnknownTopicOrPartition
        } else {
            ResponseError::UnknownTopicId
        })?,
        SessionTopic::Name(name) => services.topics.get(name.as_str()).ok_or(ResponseError::UnknownTopicOrPartition)?,
    };
    Ok(Wanted {
        partition: services.partition_of(&topic, partition.index)?,
        offset: asked.fetch_offset,
        max_bytes: usize::try_from(asked.max_bytes).unwrap_or(0),
        codec: topic.log_config.compression.map_or(Codec::None, |(codec, _)| codec),
        current_leader_epoch: asked.current_leader_epoch,
        last_fetched_epoch: asked.last_fetched_epoch,
    })
}

fn failure(index: i32, error: ResponseError) -> PartitionData {
    PartitionData::default().with_partition_index(index).with_error_code(error.code()).with_high_watermark(-1)
}

fn with_leader(data: PartitionData, leader: PartitionLeader) -> PartitionData {
    let (node, epoch) = (leader.id().into(), leader.epoch);
    data.with_current_leader(LeaderIdAndEpoch::default().with_leader_id(node).with_leader_epoch(epoch))
}

impl Answer {
    fn failed(partition: SessionPartition, data: PartitionData) -> Self {
        let summary = PartitionAnswer {
            high_watermark: -1,
            log_start_offset: -1,
            has_records: false,
            failed: true,
            diverged: false,
            topic_known: data.error_code != ResponseError::UnknownTopicId.code(),
        };
        Self { partition, data, batches: Vec::new(), summary }
    }

    fn found(partition: SessionPartition, found: FetchedPartition, read_committed: bool) -> Self {
        let FetchedPartition { bounds, batches, divergence } = found;
        let summary = PartitionAnswer {
            high_watermark: bounds.high_watermark,
            log_start_offset: bounds.log_start_offset,
            has_records: !batches.is_empty(),
            failed: false,
            diverged: divergence.is_some(),
            topic_known: true,
        };
        let mut data = PartitionData::default()
            .with_partition_index(partition.index)
            .with_high_watermark(bounds.high_watermark)
            .with_last_stable_offset(bounds.high_watermark)
            .with_log_start_offset(bounds.log_start_offset)
            .with_aborted_transactions(read_committed.then(Vec::new));
        if let Some(divergence) = divergence {
            data.diverging_epoch =
                EpochEndOffset::default().with_epoch(divergence.epoch).with_end_offset(divergence.end_offset);
        }
        Self { partition, data, batches, summary }
    }
}

/// Neighbours of one topic share an entry, as in Kafka's answers.
fn by_topic(answers: impl Iterator<Item = Answer>) -> (Vec<FetchableTopicResponse>, Vec<Vec<PlacedBatch>>) {
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    let mut records = Vec::new();
    let mut last: Option<SessionTopic> = None;
    for Answer { partition, data, batches, .. } in answers {
        if last.as_ref() != Some(&partition.topic) {
            let topic = FetchableTopicResponse::default();
            topics.push(match &partition.topic {
                SessionTopic::Id(id) => topic.with_topic_id(id.0),
                SessionTopic::Name(name) => topic.with_topic(super::partitions::wire_name(name)),
            });
            last = Some(partition.topic);
        }
        if let Some(topic) = topics.last_mut() {
            topic.partitions.push(data);
            records.push(batches.into_iter().map(|stored| stored.batch).collect());
        }
    }
    (topics, records)
}
