//! DescribeLogDirs, key 35, versions 1-4.
//!
//! v2 is flexible, v3 has an error of its own, v4 tells the volume's size (KIP-827).
//!
//! Differs from Apache Kafka: v5 is not served. There is the directory `redis`, whose volume is Redis' `maxmemory` (-1 where there is
//! none), and with an archive another one, its URL, with the partitions that have something there: their bytes at rest, and as their
//! offset lag the records that are not archived yet. A partition whose state can't be read is left out. Each broker tells of the
//! partitions that it leads.

use std::{collections::BTreeSet, sync::Arc};

use futures::{StreamExt, stream};
use kafka_protocol::{
    messages::{
        DescribeLogDirsRequest, DescribeLogDirsResponse,
        describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic},
    },
    protocol::StrBytes,
};

use super::{
    Request, Services, errors,
    partitions::{Named, look_for, wire_name},
};
use crate::topics::Topic;

const DIRECTORY: &str = "redis";
const UNKNOWN_VOLUME_BYTES: i64 = -1;

/// Partitions that the storage is asked about at the same time for one request.
const CONCURRENT: usize = 64;

pub(super) async fn handle(
    services: Arc<Services>,
    request: Request<DescribeLogDirsRequest>,
) -> DescribeLogDirsResponse {
    let named = request.body.topics.iter().flatten();
    let named = named.map(|topic| (Named::Name(&topic.topic), topic.partitions.iter().copied()));
    look_for(&services.topics, named).await;
    let asked: Vec<(Arc<Topic>, BTreeSet<i32>)> = match request.body.topics {
        None => {
            let all = services.topics.snapshot();
            all.topics().map(|topic| (topic.clone(), (0..topic.partitions).collect())).collect()
        }
        Some(topics) => topics
            .into_iter()
            .filter_map(|asked| {
                let topic = services.topics.get(&asked.topic)?;
                let known = asked.partitions.into_iter().filter(|index| topic.partition(*index).is_some()).collect();
                Some((topic, known))
            })
            .collect(),
    };
    let mut error_code = 0;
    let (mut topics, mut archived) = (Vec::new(), Vec::new());
    for (topic, indexes) in asked {
        let services = &services;
        let topic = &topic;
        let described: Vec<_> = stream::iter(indexes)
            .filter(|index| {
                std::future::ready(services.leader_of(topic.id, *index).node == Some(services.identity.node))
            })
            .map(|index| async move {
                let partition = services.log.partition(&topic.name, topic.id, index);
                let look = partition.with_state(|state| {
                    let described = DescribeLogDirsPartition::default().with_partition_index(index);
                    let cold = state.cold.filter(|cold| !cold.is_empty()).map(|cold| {
                        let lag = state.high_watermark.saturating_sub(cold.bounds.end_offset).max(0);
                        described.clone().with_partition_size(bytes(cold.bounds.size_bytes)).with_offset_lag(lag)
                    });
                    (described.with_partition_size(bytes(state.size_bytes)), cold)
                });
                look.await
            })
            .buffered(CONCURRENT)
            .collect()
            .await;
        let (mut hot, mut cold) = (Vec::with_capacity(described.len()), Vec::new());
        for partition in described {
            match partition {
                Ok((local, archived)) => {
                    hot.push(local);
                    cold.extend(archived);
                }
                Err(error) => error_code = errors::reading(&error).code(),
            }
        }
        for (partitions, topics) in [(hot, &mut topics), (cold, &mut archived)] {
            if !partitions.is_empty() {
                let described = DescribeLogDirsTopic::default().with_name(wire_name(&topic.name));
                topics.push(described.with_partitions(partitions));
            }
        }
    }
    let (total, usable) = match services.log.capacity().await {
        Ok(Some(capacity)) => (bytes(capacity.total), bytes(capacity.total.saturating_sub(capacity.used))),
        Ok(None) | Err(_) => (UNKNOWN_VOLUME_BYTES, UNKNOWN_VOLUME_BYTES),
    };
    let redis = DescribeLogDirsResult::default()
        .with_error_code(error_code)
        .with_log_dir(StrBytes::from_static_str(DIRECTORY))
        .with_topics(topics)
        .with_total_bytes(total)
        .with_usable_bytes(usable);
    let mut directories = vec![redis];
    if let Some(url) = &services.archive_url {
        let archive = DescribeLogDirsResult::default()
            .with_log_dir(StrBytes::from_string(url.clone()))
            .with_topics(archived)
            .with_total_bytes(UNKNOWN_VOLUME_BYTES)
            .with_usable_bytes(UNKNOWN_VOLUME_BYTES);
        directories.push(archive);
    }
    DescribeLogDirsResponse::default().with_results(directories)
}

fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
