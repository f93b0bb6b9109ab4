//! ListOffsets, key 2, versions 1-10.
//!
//! v2 knows isolation levels (KIP-98), v4 leader epochs (KIP-320), v6 is flexible, v7 asks for the largest timestamp (KIP-734),
//! v8 for the local log start (KIP-405), v9 for the end of the tiered log (KIP-1005), v10 has a timeout (KIP-1075).
//!
//! Differs from Apache Kafka: v11 (KIP-1023) is not served; an unknown isolation level is INVALID_REQUEST, where Kafka answers
//! UNKNOWN_SERVER_ERROR.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use kafka_protocol::{
    ResponseError,
    messages::{
        ListOffsetsRequest, ListOffsetsResponse,
        list_offsets_request::ListOffsetsPartition,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    },
};
use tokio::time::Instant;

use super::{
    Request, Services, errors,
    partitions::{Named, known_epoch, look_for},
};
use crate::log::{Bounds, FetchError, check_leader_epoch, deadline_in, store::TimestampedOffset};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// How long the archive is waited for where the client does not say (Kafka's `remote.list.offsets.request.timeout.ms`).
const ARCHIVE_PATIENCE: Duration = Duration::from_secs(30);

/// Partitions that the storage is asked about at the same time for one request.
const CONCURRENT: usize = 16;

pub(super) async fn handle(services: Arc<Services>, request: Request<ListOffsetsRequest>) -> ListOffsetsResponse {
    let Request { body, version, .. } = request;
    let named = body
        .topics
        .iter()
        .map(|topic| (Named::Name(&topic.name), topic.partitions.iter().map(|partition| partition.partition_index)));
    look_for(&services.topics, named).await;
    let patience = match u64::try_from(body.timeout_ms) {
        Ok(millis @ 1..) if version >= 10 => Duration::from_millis(millis),
        _ => ARCHIVE_PATIENCE,
    };
    let deadline = deadline_in(patience);
    let known_isolation = (0..=1).contains(&body.isolation_level);
    let mut seen: HashMap<_, usize> = HashMap::new();
    for topic in &body.topics {
        for partition in &topic.partitions {
            *seen.entry((topic.name.clone(), partition.partition_index)).or_default() += 1;
        }
    }
    let mut told = HashSet::new();
    let mut topics = Vec::with_capacity(body.topics.len());
    for topic in body.topics {
        let mut asked = Vec::new();
        for partition in topic.partitions {
            let key = (topic.name.clone(), partition.partition_index);
            let repeated = seen.get(&key).is_some_and(|times| *times > 1);
            // A partition that is named twice is answered once, and refused.
            if told.insert(key) {
                asked.push((partition, repeated || !known_isolation));
            }
        }
        let services = &services;
        let name = &topic.name;
        let partitions: Vec<_> = stream::iter(asked)
            .map(|(partition, refused)| async move {
                let found = if refused {
                    Err(ResponseError::InvalidRequest)
                } else {
                    find(services, name, &partition, version, deadline).await
                };
                response(partition.partition_index, found, version)
            })
            .buffered(CONCURRENT)
            .collect()
            .await;
        if !partitions.is_empty() {
            topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
        }
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// The offset of a timestamp, or none where no record has it.
async fn find(
    services: &Services,
    topic: &str,
    asked: &ListOffsetsPartition,
    version: i16,
    deadline: Instant,
) -> Result<Option<TimestampedOffset>, ResponseError> {
    let timestamp = asked.timestamp;
    let partition = services.partition_named(topic, asked.partition_index)?;
    if !is_known(timestamp, version) {
        return Err(ResponseError::UnsupportedVersion);
    }
    let failed = |error| errors::reading(&error);
    let epoch = known_epoch(asked.current_leader_epoch);
    let (bounds, first_epoch, local, tiered) = partition
        .with_state(|state| {
            check_leader_epoch(state.leader_epoch, epoch)?;
            let placed = |offset| (offset, state.epoch_at(offset));
            let tiered = state.cold.filter(|cold| !cold.is_empty()).map(|cold| placed(cold.bounds.end_offset - 1));
            let first_epoch = state.epoch_at(state.log_start_offset);
            Ok((Bounds::of(state), first_epoch, placed(state.local_start_offset), tiered))
        })
        .await
        .map_err(failed)?
        .map_err(|error: FetchError| errors::fetch(&error))?;
    let at = |offset, leader_epoch| Some(TimestampedOffset { offset, timestamp: -1, leader_epoch });
    match timestamp {
        LATEST => Ok(at(bounds.high_watermark, bounds.leader_epoch)),
        EARLIEST => Ok(at(bounds.log_start_offset, first_epoch)),
        EARLIEST_LOCAL => Ok(at(local.0, local.1)),
        LATEST_TIERED => Ok(tiered.and_then(|(offset, epoch)| at(offset, epoch))),
        MAX_TIMESTAMP => {
            let found = services.log.find_max_timestamp(&partition, deadline).await;
            let found = found.map_err(|error| errors::seek(&error))?;
            // Records without any timestamp: the first of them has the largest, -1.
            let found = found.or_else(|| at(bounds.log_start_offset, first_epoch));
            Ok(found.filter(|found| found.offset < bounds.high_watermark))
        }
        timestamp => {
            let found = services.log.find_timestamp(&partition, timestamp, deadline).await;
            let found = found.map_err(|error| errors::seek(&error))?;
            Ok(found.filter(|found| found.offset < bounds.high_watermark))
        }
    }
}

/// Whether a version may ask for one of the special timestamps.
fn is_known(timestamp: i64, version: i16) -> bool {
    match timestamp {
        0.. | LATEST | EARLIEST => true,
        MAX_TIMESTAMP => version >= 7,
        EARLIEST_LOCAL => version >= 8,
        LATEST_TIERED => version >= 9,
        _ => false,
    }
}

fn response(
    index: i32,
    found: Result<Option<TimestampedOffset>, ResponseError>,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
    match found {
        Ok(Some(found)) => response
            .with_timestamp(found.timestamp)
            .with_offset(found.offset)
            .with_leader_epoch(if version >= 4 { found.leader_epoch } else { -1 }),
        Ok(None) => response,
        Err(error) => response.with_error_code(error.code()),
    }
}
