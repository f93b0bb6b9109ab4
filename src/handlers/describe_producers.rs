//! DescribeProducers, key 61, version 0 (KIP-664).
//!
//! Differs from Apache Kafka: nothing; no transaction is ever open.

use std::sync::Arc;

use futures::{StreamExt, stream};
use kafka_protocol::{
    ResponseError,
    messages::{
        DescribeProducersRequest, DescribeProducersResponse,
        describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
    },
    protocol::StrBytes,
};

use super::{
    Request, Services, errors,
    partitions::{Named, look_for},
};
use crate::{log::store, topics::names};

/// Partitions that the storage is asked about at the same time for one request.
const CONCURRENT: usize = 16;

pub(super) async fn handle(
    services: Arc<Services>,
    request: Request<DescribeProducersRequest>,
) -> DescribeProducersResponse {
    let named = request.body.topics.iter();
    let named = named.map(|topic| (Named::Name(&topic.name), topic.partition_indexes.iter().copied()));
    look_for(&services.topics, named).await;
    let mut topics = Vec::with_capacity(request.body.topics.len());
    for topic in request.body.topics {
        let (services, name) = (&services, &topic.name);
        let is_known = services.topics.get(name).is_some();
        let partitions = stream::iter(topic.partition_indexes)
            .map(|index| async move {
                let response = PartitionResponse::default().with_partition_index(index);
                match producers(services, name, index).await {
                    Ok(producers) => response.with_active_producers(producers.iter().map(active).collect()),
                    // Kafka has a message for a topic that it does not know, and none for a partition.
                    Err(error) => response.with_error_code(error.code()).with_error_message(
                        (!is_known)
                            .then(|| StrBytes::from_static_str("This server does not host this topic-partition.")),
                    ),
                }
            })
            .buffered(CONCURRENT)
            .collect()
            .await;
        topics.push(TopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    DescribeProducersResponse::default().with_topics(topics)
}

async fn producers(services: &Services, topic: &str, index: i32) -> Result<Vec<store::ProducerState>, ResponseError> {
    names::validate(topic).map_err(|_| ResponseError::InvalidTopicException)?;
    let partition = services.partition_named(topic, index)?;
    services.log.producers(&partition).await.map_err(|error| errors::reading(&error))
}

fn active(producer: &store::ProducerState) -> ProducerState {
    ProducerState::default()
        .with_producer_id(producer.id.into())
        .with_producer_epoch(i32::from(producer.epoch))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_timestamp_ms)
        .with_coordinator_epoch(-1)
        .with_current_txn_start_offset(-1)
}
