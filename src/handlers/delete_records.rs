//! DeleteRecords, key 21, versions 0-2.
//!
//! v2 is flexible. Records go when the log start moves to the offset (KIP-107); in the `batch` layout a batch goes with its
//! last record.
//!
//! Differs from Apache Kafka: nothing; there are no replicas to wait for.

use std::{collections::HashMap, sync::Arc};

use futures::{StreamExt, stream};
use kafka_protocol::{
    ResponseError,
    messages::{
        DeleteRecordsRequest, DeleteRecordsResponse,
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
    },
};

use super::{
    Request, Services, errors,
    partitions::{Named, look_for},
};
use crate::topics::names;

/// In place of an offset: all records that there are.
const HIGH_WATERMARK: i64 = -1;

/// Partitions that are worked on at the same time for one request.
const CONCURRENT: usize = 16;

pub(super) async fn handle(services: Arc<Services>, request: Request<DeleteRecordsRequest>) -> DeleteRecordsResponse {
    let named =
        request.body.topics.iter().map(|topic| {
            (Named::Name(&topic.name), topic.partitions.iter().map(|partition| partition.partition_index))
        });
    look_for(&services.topics, named).await;
    let mut topics: Vec<DeleteRecordsTopicResult> = Vec::new();
    for topic in request.body.topics {
        // A partition that is named twice is cut at the offset named last.
        let mut offsets: HashMap<i32, i64> = HashMap::new();
        let mut order = Vec::new();
        for partition in topic.partitions {
            if offsets.insert(partition.partition_index, partition.offset).is_none() {
                order.push(partition.partition_index);
            }
        }
        let (services, name) = (&services, &topic.name);
        let offsets = &offsets;
        let partitions: Vec<_> = stream::iter(order)
            .map(|index| async move {
                let offset = offsets.get(&index).copied().unwrap_or(HIGH_WATERMARK);
                let result = DeleteRecordsPartitionResult::default().with_partition_index(index);
                match cut(services, name, index, offset).await {
                    Ok(log_start_offset) => result.with_low_watermark(log_start_offset),
                    Err(error) => result.with_low_watermark(-1).with_error_code(error.code()),
                }
            })
            .buffered(CONCURRENT)
            .collect()
            .await;
        if !partitions.is_empty() {
            topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
        }
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

/// Returns the log start after it.
async fn cut(services: &Services, name: &str, index: i32, offset: i64) -> Result<i64, ResponseError> {
    if names::is_reserved(name) {
        return Err(ResponseError::InvalidTopicException);
    }
    let topic = services.topics.get(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let partition = services.partition_of(&topic, index)?;
    if !topic.log_config.delete {
        return Err(ResponseError::PolicyViolation);
    }
    let bounds = partition.bounds().await.map_err(|error| errors::storage(&error))?;
    let before = if offset == HIGH_WATERMARK { bounds.high_watermark } else { offset };
    if !(0..=bounds.high_watermark).contains(&before) {
        return Err(ResponseError::OffsetOutOfRange);
    }
    if before <= bounds.log_start_offset {
        return Ok(bounds.log_start_offset);
    }
    services.log.delete_records(&partition, before).await.map_err(|error| errors::storage(&error))
}
