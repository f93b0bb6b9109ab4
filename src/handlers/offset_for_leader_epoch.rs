//! OffsetForLeaderEpoch, key 23, versions 2-4.
//!
//! v2 checks the client's leader epoch (KIP-320), v3 has the replica's id, v4 is flexible.
//!
//! Differs from Apache Kafka: nothing.

use std::sync::Arc;

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
    partitions::{Named, known_epoch},
};
use crate::log::{Divergence, FetchError, check_leader_epoch};

/// Partitions that the storage is asked about at the same time for one request.
const CONCURRENT: usize = 16;

pub(super) async fn handle(
    services: Arc<Services>,
    request: Request<OffsetForLeaderEpochRequest>,
) -> OffsetForLeaderEpochResponse {
    let named = request
        .body
        .topics
        .iter()
        .map(|topic| (Named::Name(&topic.topic), topic.partitions.iter().map(|partition| partition.partition)));
    if services.lacks(named) {
        services.topics.catch_up().await;
    }
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
