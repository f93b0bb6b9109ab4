//! OffsetForLeaderEpoch, key 23, versions 2-4.
//!
//! v2 checks the client's leader epoch (KIP-320), v3 has the replica's id, v4 is flexible.
//!
//! Differs from Apache Kafka: an answer with an error is held back for a moment.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use kafka_protocol::{
    ResponseError,
    messages::{
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
        offset_for_leader_epoch_request::OffsetForLeaderPartition,
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    },
};

use super::{
    Request, Services, errors,
    partitions::{Named, known_epoch, look_for},
};
use crate::log::{Divergence, FetchError, check_leader_epoch};

/// Partitions that the storage is asked about at the same time for one request.
const CONCURRENT: usize = 16;

/// How long an answer with an error is held back: librdkafka 2.12 refreshes its metadata at once after any error here, and asks
/// again at once after the metadata, 3,000 times a second while Redis is away.
const HELD_BACK: Duration = Duration::from_millis(200);

pub(super) async fn handle(
    services: Arc<Services>,
    request: Request<OffsetForLeaderEpochRequest>,
) -> OffsetForLeaderEpochResponse {
    let named = request
        .body
        .topics
        .iter()
        .map(|topic| (Named::Name(&topic.topic), topic.partitions.iter().map(|partition| partition.partition)));
    look_for(&services.topics, named).await;
    let mut topics = Vec::with_capacity(request.body.topics.len());
    for topic in request.body.topics {
        let (services, name) = (&services, &topic.topic);
        let partitions = stream::iter(topic.partitions)
            .map(|partition| async move {
                let answer = EpochEndOffset::default().with_partition(partition.partition);
                match end(services, name, &partition).await {
                    Ok(Some(end)) => answer.with_leader_epoch(end.epoch).with_end_offset(end.end_offset),
                    Ok(None) => answer,
                    Err(error) => answer.with_error_code(error.code()),
                }
            })
            .buffered(CONCURRENT)
            .collect()
            .await;
        topics.push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
    }
    if topics.iter().flat_map(|topic| &topic.partitions).any(|partition| partition.error_code != 0) {
        tokio::time::sleep(HELD_BACK).await;
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

async fn end(
    services: &Services,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<Option<Divergence>, ResponseError> {
    let partition = services.partition_named(topic, asked.partition)?;
    let current = known_epoch(asked.current_leader_epoch);
    partition
        .with_state(|state| {
            check_leader_epoch(state.leader_epoch, current)?;
            Ok(state.end_of_epoch(asked.leader_epoch))
        })
        .await
        .map_err(|error| errors::reading(&error))?
        .map_err(|error: FetchError| errors::fetch(&error))
}
