//! Produce, key 0, versions 3-13.
//!
//! v3 takes batches of format v2 only (KIP-98), v5 answers the log start offset (KIP-107), v7 allows zstd (KIP-110), v8 tells
//! which records were refused (KIP-467), v9 is flexible, v10 tells the current leader (KIP-951), v11 and v12 are for
//! transactions (KIP-890), v13 names topics by id (KIP-516).
//!
//! Differs from Apache Kafka: a transactional batch is answered with TRANSACTIONAL_ID_AUTHORIZATION_FAILED, since there are
//! no transactions; missing records are INVALID_RECORD, where Kafka does not answer at all; the timeout covers the storage
//! with acks=1 and 0 too, and is a second at least.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, ProduceRequest, ProduceResponse, TopicName as WireTopicName,
        produce_request::PartitionProduceData,
        produce_response::{
            BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
        },
    },
    protocol::StrBytes,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Outcome, Request, Services, errors,
    partitions::{Named, look_for, timeout},
};
use crate::{
    log::{self, Answer, AppendError, AppendedAt, Pending, config::LogConfig, store::Layout},
    model::{NodeId, TopicId},
    net::{Caller, Close, Frame},
    protocol::records::{
        self, Batch, Codec, Compression, InvalidBatch, RebuildError, ValidatedBatch, ValidationLimits, single_batch,
    },
    tasks::aside,
    topics::{Topic, names},
};

/// Versions from this one on tell where the leader is.
const LEADER_HINTS: i16 = 10;

/// A batch from here on is checked aside, so that the connections of this thread need not wait for it.
const LARGE_COMPRESSED: usize = 64 << 10;
const LARGE: usize = 1 << 20;

/// Bytes that the records of one compressed batch may come to in the `batch` layout, where they are only read over.
const MAX_DECOMPRESSED: usize = 128 << 20;

/// The least that the storage is given.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// Why a partition takes nothing, as the answer tells it.
#[derive(Debug)]
struct Rejection {
    error: ResponseError,
    /// -1 where Kafka does not tell it.
    log_start_offset: i64,
    message: Option<String>,
    records: Vec<(i32, String)>,
    /// Kafka refuses the whole request for it.
    of_all: bool,
}

impl From<ResponseError> for Rejection {
    fn from(error: ResponseError) -> Self {
        Self { error, log_start_offset: -1, message: None, records: Vec::new(), of_all: false }
    }
}

/// A topic of the request.
struct TopicRow {
    name: WireTopicName,
    id: Uuid,
    topic: Option<Arc<Topic>>,
    partitions: Vec<PartitionRow>,
}

/// A partition of the request. Kafka appends the last good batch of those that name the partition, and answers the last
/// error, if there is one.
struct PartitionRow {
    index: i32,
    batch: Option<Batch>,
    rejection: Option<Rejection>,
    pending: Option<Pending>,
}

pub(super) async fn handle(services: &Arc<Services>, request: Request<ProduceRequest>) -> Outcome<ProduceResponse> {
    let Request { body, version, caller, frame_bytes, .. } = request;
    let acks = body.acks;
    let deadline = log::deadline_in(timeout(body.timeout_ms).max(LEAST_PATIENCE));
    let named = body.topic_data.iter().map(|topic| {
        let indexes = topic.partition_data.iter().map(|partition| partition.index);
        (Named::by(&topic.name, topic.topic_id), indexes)
    });
    look_for(&services.topics, named).await;
    let mut rows = rows(services, body, version, frame_bytes);
    if let Some((error, message)) = refusal_of_all(&rows) {
        for partition in rows.iter_mut().flat_map(|topic| &mut topic.partitions) {
            let rejection = Rejection::from(error);
            partition.batch = None;
            partition.rejection = Some(Rejection { message: message.clone(), ..rejection });
        }
    }
    let accepting = Accepting { services, acks, version, deadline };
    for row in &mut rows {
        for partition in &mut row.partitions {
            let Some(batch) = partition.batch.take() else { continue };
            match accepting.enqueue(row.topic.as_ref(), partition.index, batch).await {
                Ok(pending) => partition.pending = Some(pending),
                Err(rejection) => {
                    partition.rejection.get_or_insert(rejection);
                }
            }
        }
    }
    if acks == 0 {
        let services = services.clone();
        return Outcome::Encoded(Box::pin(async move {
            let response = answer(rows, &services, &caller, version, deadline).await;
            services.count_errors(ApiKey::Produce, &response);
            let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
            match partitions.map(|partition| partition.error_code).find(|code| *code != 0) {
                // The only way to tell a producer that wants no answers.
                Some(code) => Err(Close(format!("a Produce with acks=0 failed with error {code}"))),
                None => Ok(Frame::default()),
            }
        }));
    }
    let services = services.clone();
    Outcome::Later(Box::pin(async move { answer(rows, &services, &caller, version, deadline).await }))
}

/// The request's partitions, each once, in the order of their first mention.
fn rows(services: &Services, body: ProduceRequest, version: i16, frame_bytes: usize) -> Vec<TopicRow> {
    let mut rows: Vec<TopicRow> = Vec::new();
    let mut places = HashMap::new();
    for topic in body.topic_data {
        let place = *places.entry((topic.name.clone(), topic.topic_id)).or_insert_with(|| {
            let found = if version >= 13 {
                services.topics.get_by_id(TopicId(topic.topic_id))
            } else {
                services.topics.get(&topic.name)
            };
            rows.push(TopicRow { name: topic.name, id: topic.topic_id, topic: found, partitions: Vec::new() });
            rows.len() - 1
        });
        let Some(row) = rows.get_mut(place) else { continue };
        let mut indexes: HashMap<i32, usize> =
            row.partitions.iter().enumerate().map(|(place, partition)| (partition.index, place)).collect();
        for PartitionProduceData { index, records, .. } in topic.partition_data {
            let place = *indexes.entry(index).or_insert_with(|| {
                row.partitions.push(PartitionRow { index, batch: None, rejection: None, pending: None });
                row.partitions.len() - 1
            });
            let Some(partition) = row.partitions.get_mut(place) else { continue };
            let records = apart(records.unwrap_or_default(), frame_bytes);
            match resolve(&row.name, row.topic.as_deref(), index, records, version) {
                Ok(batch) => partition.batch = Some(batch),
                Err(rejection) => partition.rejection = Some(rejection),
            }
        }
    }
    rows.retain(|row| !row.partitions.is_empty());
    rows
}

/// A batch stays in the tail cache for a while: it may keep its request's memory alive only where it is most of it.
fn apart(records: Bytes, frame_bytes: usize) -> Bytes {
    /// Below it the buffer that the request was read into may be much larger than the request.
    const LEAST: usize = 16 << 10;
    if records.len() >= LEAST && records.len() >= frame_bytes / 2 { records } else { Bytes::copy_from_slice(&records) }
}

fn resolve(name: &str, topic: Option<&Topic>, index: i32, records: Bytes, version: i16) -> Result<Batch, Rejection> {
    if names::is_reserved(name) {
        return Err(ResponseError::InvalidTopicException.into());
    }
    let Some(topic) = topic else {
        return Err(unknown_topic(version).into());
    };
    if topic.partition(index).is_none() {
        return Err(ResponseError::UnknownTopicOrPartition.into());
    }
    single_batch(records, version >= 7).map_err(|invalid| Rejection {
        of_all: fails_all(&invalid),
        message: fails_all(&invalid).then(|| invalid.to_string()),
        ..errors::invalid_batch(&invalid).into()
    })
}

fn unknown_topic(version: i16) -> ResponseError {
    if version >= 13 { ResponseError::UnknownTopicId } else { ResponseError::UnknownTopicOrPartition }
}

/// Kafka fails to read such a batch at all, and with it the whole request.
fn fails_all(invalid: &InvalidBatch) -> bool {
    const LEAST_OF_ANY_FORMAT: i64 = 14;
    match invalid {
        InvalidBatch::UnknownMagic(_) => true,
        InvalidBatch::TooShort(length) => *length < LEAST_OF_ANY_FORMAT,
        _ => false,
    }
}

/// What Kafka refuses as a whole.
fn refusal_of_all(rows: &[TopicRow]) -> Option<(ResponseError, Option<String>)> {
    let partitions = || rows.iter().flat_map(|topic| &topic.partitions);
    let unreadable = partitions().find_map(|partition| {
        let rejection = partition.rejection.as_ref().filter(|rejection| rejection.of_all)?;
        Some((rejection.error, rejection.message.clone()))
    });
    let transactional = || {
        partitions()
            .any(|partition| partition.batch.as_ref().is_some_and(|batch| batch.header().is_transactional()))
            .then_some((ResponseError::TransactionalIdAuthorizationFailed, None))
    };
    unreadable.or_else(transactional)
}

/// What the batches of one request have in common.
struct Accepting<'a> {
    services: &'a Services,
    acks: i16,
    version: i16,
    deadline: Instant,
}

impl Accepting<'_> {
    /// Checks a batch and puts it in its partition's line.
    async fn enqueue(&self, topic: Option<&Arc<Topic>>, index: i32, batch: Batch) -> Result<Pending, Rejection> {
        let log = &self.services.log;
        let topic = topic.ok_or_else(|| unknown_topic(self.version))?;
        if !(-1..=1).contains(&self.acks) {
            return Err(ResponseError::InvalidRequiredAcks.into());
        }
        let partition = log.partition(&topic.name, topic.id, index);
        let config = topic.log_config.clone();
        let answer = if self.acks == -1 { Answer::WhenPromised } else { Answer::WhenStored };
        let limits = Limits::new(self.services, &config);
        let uncompressed = batch.header().codec() == Ok(Codec::None);
        let heavy = batch.header().size() > if uncompressed { LARGE } else { LARGE_COMPRESSED };
        let checked = if heavy { aside(|| check(batch, &config, &limits)) } else { check(batch, &config, &limits) };
        let batch = match checked {
            Ok(batch) => batch,
            Err(invalid) => {
                let log_start_offset = if tells_log_start(&invalid, self.version) {
                    partition.bounds().await.map_or(-1, |bounds| bounds.log_start_offset)
                } else {
                    -1
                };
                return Err(rejected(&invalid, topic, index, log_start_offset));
            }
        };
        if answer == Answer::WhenPromised {
            log.check_promise(partition.id(), &config).map_err(|error| {
                partition.pass_over(batch.header());
                refused(&error, self.version)
            })?;
        }
        let held = log.admit_append(batch.header().size(), self.deadline).await.map_err(|error| {
            partition.pass_over(batch.header());
            Rejection::from(append_error(&error, self.version))
        })?;
        Ok(partition.append(batch, config, answer, held))
    }
}

struct Limits {
    now_ms: i64,
    max_records: i32,
    max_decompressed_bytes: usize,
}

impl Limits {
    fn new(services: &Services, config: &LogConfig) -> Self {
        let now_ms = services.log.now_ms();
        match config.layout {
            Layout::Batch => Self { now_ms, max_records: i32::MAX, max_decompressed_bytes: MAX_DECOMPRESSED },
            Layout::Record(_) => {
                let settings = services.topics.settings().load();
                Self {
                    now_ms,
                    max_records: i32::try_from(settings.weir_record_max_records_per_batch).unwrap_or(i32::MAX),
                    max_decompressed_bytes: settings.weir_record_max_bytes_per_batch,
                }
            }
        }
    }
}

fn check(batch: Batch, config: &LogConfig, limits: &Limits) -> Result<ValidatedBatch, InvalidBatch> {
    let validation = ValidationLimits {
        now: limits.now_ms,
        timestamp_type: config.timestamp_type,
        timestamp_before_max: config.timestamp_before_max_ms,
        timestamp_after_max: config.timestamp_after_max_ms,
        compacted: config.compact,
        max_batch_bytes: config.max_message_bytes,
        max_records: limits.max_records,
        max_decompressed_bytes: limits.max_decompressed_bytes,
        keep_records: matches!(config.layout, Layout::Record(_)),
    };
    let batch = records::validate(batch, &validation)?;
    let target = config.compression.map(|(codec, level)| Compression { codec, level: Some(level) });
    if !batch.needs_rebuild(target) {
        return Ok(batch);
    }
    let malformed = |cause| InvalidBatch::Malformed { index: 0, cause };
    let rebuilt = batch.rebuild(target, limits.max_decompressed_bytes).map_err(|error| match error {
        RebuildError::Records(records::MalformedRecords::OutputLimit(limit)) => {
            InvalidBatch::DecompressedTooLarge { limit }
        }
        RebuildError::Records(cause) => malformed(cause),
        RebuildError::Build(error) => malformed(records::MalformedRecords::Decompression(error.to_string())),
    })?;
    let size = rebuilt.header().size();
    if size > config.max_message_bytes {
        return Err(InvalidBatch::TooLarge { size, limit: config.max_message_bytes });
    }
    Ok(rebuilt)
}

fn tells_log_start(invalid: &InvalidBatch, version: i16) -> bool {
    match errors::invalid_batch(invalid) {
        ResponseError::CorruptMessage | ResponseError::MessageTooLarge => false,
        ResponseError::UnsupportedCompressionType => version >= 7,
        _ => true,
    }
}

fn rejected(invalid: &InvalidBatch, topic: &Topic, index: i32, log_start_offset: i64) -> Rejection {
    let rejection = Rejection { log_start_offset, ..errors::invalid_batch(invalid).into() };
    match invalid {
        InvalidBatch::Rejected(rejected) => Rejection {
            message: Some(rejected.message(topic.name.as_str(), index)),
            records: rejected
                .records
                .iter()
                .map(|record| (record.index, record.message(topic.name.as_str(), index)))
                .collect(),
            ..rejection
        },
        _ => rejection,
    }
}

fn append_error(error: &AppendError, version: i16) -> ResponseError {
    match errors::append(error) {
        ResponseError::UnknownTopicOrPartition => unknown_topic(version),
        error => error,
    }
}

/// Waits for what was put in line and tells how all of it went.
async fn answer(
    rows: Vec<TopicRow>,
    services: &Services,
    caller: &Caller,
    version: i16,
    deadline: Instant,
) -> ProduceResponse {
    let mut responses = Vec::with_capacity(rows.len());
    let mut leaders: BTreeSet<NodeId> = BTreeSet::new();
    for row in rows {
        let mut partitions = Vec::with_capacity(row.partitions.len());
        for PartitionRow { index, rejection, pending, .. } in row.partitions {
            let landed = match pending {
                Some(pending) => pending.outcome(deadline).await.map_err(|error| refused(&error, version)),
                None => Err(ResponseError::UnknownTopicOrPartition.into()),
            };
            let mut response = partition_response(index, rejection.map_or(landed, Err));
            if version >= LEADER_HINTS
                && response.error_code == ResponseError::NotLeaderOrFollower.code()
                && let Some(leader) = row.topic.as_ref().and_then(|topic| services.other_leader_of(topic.id, index))
            {
                leaders.extend(leader.node);
                response.current_leader =
                    LeaderIdAndEpoch::default().with_leader_id(leader.id().into()).with_leader_epoch(leader.epoch);
            }
            partitions.push(response);
        }
        let response = TopicProduceResponse::default().with_partition_responses(partitions);
        responses.push(if version >= 13 { response.with_topic_id(row.id) } else { response.with_name(row.name) });
    }
    let addresses = leaders.into_iter().filter_map(|node| services.broker_address(node, caller));
    let endpoints = addresses.map(|broker| {
        NodeEndpoint::default()
            .with_node_id(broker.node.0.into())
            .with_host(broker.host)
            .with_port(broker.port)
            .with_rack(broker.rack)
    });
    ProduceResponse::default().with_responses(responses).with_node_endpoints(endpoints.collect())
}

fn refused(error: &AppendError, version: i16) -> Rejection {
    let rejection = Rejection::from(append_error(error, version));
    match error {
        AppendError::Refused { refusal, log_start_offset } => Rejection {
            log_start_offset: *log_start_offset,
            records: match refusal {
                log::store::AppendRefusal::NotJson { record_index } => vec![(*record_index, refusal.to_string())],
                _ => Vec::new(),
            },
            ..rejection
        },
        AppendError::CannotPromise(reason) => Rejection { message: Some(reason.clone()), ..rejection },
        _ => rejection,
    }
}

fn partition_response(index: i32, landed: Result<AppendedAt, Rejection>) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    match landed {
        Ok(at) => response
            .with_base_offset(at.base_offset)
            .with_log_append_time_ms(at.log_append_time_ms)
            .with_log_start_offset(at.log_start_offset),
        Err(Rejection { error, log_start_offset, message, records, .. }) => {
            let records = records.into_iter().map(|(index, message)| {
                BatchIndexAndErrorMessage::default()
                    .with_batch_index(index)
                    .with_batch_index_error_message(Some(StrBytes::from_string(message)))
            });
            response
                .with_error_code(error.code())
                .with_base_offset(-1)
                .with_log_append_time_ms(-1)
                .with_log_start_offset(log_start_offset)
                .with_record_errors(records.collect())
                .with_error_message(message.map(StrBytes::from_string))
        }
    }
}
