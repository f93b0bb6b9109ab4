//! What the HTTP port asks: readiness, and figures that are looked up when somebody looks.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, stream};

use crate::{
    coordinator::{Coordinator, Fetch},
    log::{Bounds, Log},
    model::{GroupId, PartitionId},
    storage::redis::{durability::RedisDurability, nodes::Nodes},
    tasks::Tasks,
    telemetry::{
        Metrics,
        http::Probe,
        metrics::{Figures, GroupFigures, PartitionFigures},
    },
    topics::Catalog,
};

/// Partitions and groups that are looked up at a time.
const CONCURRENT: usize = 16;

pub(super) struct State {
    pub(super) nodes: Nodes,
    pub(super) tasks: Tasks,
    pub(super) metrics: Arc<Metrics>,
    pub(super) topics: Arc<Catalog>,
    pub(super) log: Arc<Log>,
    pub(super) groups: Arc<Coordinator>,
    pub(super) durability: Arc<RedisDurability>,
}

#[async_trait]
impl Probe for State {
    async fn ready(&self) -> Result<Option<String>, String> {
        if self.tasks.stopping().is_cancelled() {
            return Err("Weir stops".to_owned());
        }
        let shortage = self.log.pressure().shortage();
        self.nodes.ping().await.map_err(|error| match &shortage {
            Some(shortage) => format!("{error}: {shortage}"),
            None => error.to_string(),
        })?;
        if let Some(failure) = self.durability.failure() {
            return Err(format!("the data can't be synced to disk: {failure}"));
        }
        if !self.groups.is_ready() {
            return Err("the groups are being loaded".to_owned());
        }
        // Reads go on, so clients are still to be sent here.
        Ok(shortage.map(|shortage| format!("appends are refused: {shortage}")))
    }

    async fn figures(&self) -> Figures {
        self.metrics.redis.unsynced.set(i64::from(self.durability.failure().is_some()));
        self.metrics.log.cache_bytes.set(i64::try_from(self.log.tail_cache_bytes()).unwrap_or(i64::MAX));
        let (partitions, hidden_partitions) = self.partitions().await;
        let (groups, hidden_groups) = self.groups().await;
        Figures { partitions, groups, hidden: hidden_partitions + hidden_groups }
    }
}

impl State {
    /// The first by name of the partitions that this broker leads, and how many more there are.
    async fn partitions(&self) -> (Vec<PartitionFigures>, usize) {
        let snapshot = self.topics.snapshot().clone();
        let mut all: Vec<PartitionId> = snapshot
            .topics()
            .flat_map(|topic| topic.partition_ids())
            .filter(|partition| self.log.leads(partition))
            .collect();
        drop(snapshot);
        all.sort_unstable();
        let hidden = all.len().saturating_sub(self.metrics.max_series());
        all.truncate(self.metrics.max_series());
        let figures = stream::iter(all)
            .map(|partition| async move {
                let bounds = self.bounds(&partition).await?;
                Some(PartitionFigures {
                    topic: partition.topic.to_string(),
                    partition: partition.index,
                    log_start_offset: bounds.log_start_offset,
                    next_offset: bounds.high_watermark,
                    size_bytes: bounds.size_bytes,
                })
            })
            .buffer_unordered(CONCURRENT)
            .filter_map(|figures| async { figures })
            .collect()
            .await;
        (figures, hidden)
    }

    /// The bounds of a partition, unless it was deleted meanwhile or Redis can't be asked.
    async fn bounds(&self, partition: &PartitionId) -> Option<Bounds> {
        self.log.look_at(partition).await.ok()
    }

    /// What the first groups by name have committed, and how many partitions more there are.
    async fn groups(&self) -> (Vec<GroupFigures>, usize) {
        let mut groups: Vec<GroupId> =
            self.groups.list().await.unwrap_or_default().into_iter().map(|(group, _)| group).collect();
        groups.sort_unstable();
        let mut figures = Vec::new();
        let mut hidden = 0;
        for group in groups {
            let all = Fetch { partitions: None, stable: false };
            let Ok(committed) = self.groups.fetch(&group, all).await.answer().await else { continue };
            for (at, offset) in committed {
                let (Some(offset), Some(topic)) = (offset, self.topics.get_by_id(at.topic)) else { continue };
                if figures.len() >= self.metrics.max_series() {
                    hidden += 1;
                    continue;
                }
                let partition = PartitionId { topic: topic.name.clone(), topic_id: at.topic, index: at.partition };
                let Some(bounds) = self.bounds(&partition).await else { continue };
                // What retention has removed is not behind anybody any more.
                let next = offset.offset.clamp(bounds.log_start_offset, bounds.high_watermark);
                figures.push(GroupFigures {
                    group: group.to_string(),
                    topic: topic.name.to_string(),
                    partition: at.partition,
                    committed_offset: offset.offset,
                    lag: bounds.high_watermark - next,
                });
            }
        }
        (figures, hidden)
    }
}
