//! What the HTTP port asks: readiness, and figures that are looked up when somebody looks.

use std::{collections::HashMap, sync::Arc};

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
        metrics::{ColdFigures, Figures, GroupFigures, PartitionFigures},
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

/// As much as `weir archive` can tell.
pub(super) struct JobState {
    pub(super) nodes: Nodes,
    pub(super) tasks: Tasks,
}

#[async_trait]
impl Probe for JobState {
    async fn ready(&self) -> Result<Option<String>, String> {
        reachable(&self.nodes, &self.tasks).await.map(|()| None)
    }

    async fn figures(&self) -> Figures {
        Figures::default()
    }
}

async fn reachable(nodes: &Nodes, tasks: &Tasks) -> Result<(), String> {
    if tasks.stopping().is_cancelled() {
        return Err("Weir stops".to_owned());
    }
    nodes.ping().await.map_err(|error| error.to_string())
}

#[async_trait]
impl Probe for State {
    async fn ready(&self) -> Result<Option<String>, String> {
        let shortage = self.log.pressure().shortage();
        reachable(&self.nodes, &self.tasks).await.map_err(|reason| match &shortage {
            Some(shortage) => format!("{reason}: {shortage}"),
            None => reason,
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
        let cold = self.cold().await;
        let (partitions, hidden_partitions) = self.partitions(&cold).await;
        let (groups, hidden_groups) = self.groups().await;
        Figures { partitions, groups, hidden: hidden_partitions + hidden_groups }
    }
}

impl State {
    /// The partitions with a cold tier that this broker leads. Shows the sums of all: whoever copies them, this broker knows how far.
    async fn cold(&self) -> HashMap<PartitionId, ColdFigures> {
        let snapshot = self.topics.snapshot().clone();
        let tiered: Vec<PartitionId> = snapshot
            .topics()
            .filter(|topic| topic.log_config.tier.is_some())
            .flat_map(|topic| topic.partition_ids())
            .filter(|partition| self.log.leads(partition))
            .collect();
        drop(snapshot);
        let found: Vec<_> = stream::iter(tiered)
            .map(|id| async move {
                let partition = self.log.partition(&id.topic, id.topic_id, id.index);
                let look = partition.with_state(|state| {
                    let figures = ColdFigures {
                        local_start_offset: state.local_start_offset,
                        archived_end_offset: state.archived_end_offset(),
                        size_bytes: state.cold.map_or(0, |cold| cold.bounds.size_bytes),
                    };
                    (figures, state.unarchived_bytes(), state.next_offset.saturating_sub(state.archived_end_offset()))
                });
                look.await.ok().map(|figures| (id, figures))
            })
            .buffer_unordered(CONCURRENT)
            .filter_map(|found| async { found })
            .collect()
            .await;
        let shown = |sum: u64| i64::try_from(sum).unwrap_or(i64::MAX);
        let metrics = &self.metrics.cold;
        metrics.lag_bytes.set(shown(found.iter().map(|(_, (_, bytes, _))| bytes).sum()));
        metrics.lag_records.set(found.iter().map(|(_, (_, _, records))| records).sum());
        metrics.size_bytes.set(shown(found.iter().map(|(_, (figures, ..))| figures.size_bytes).sum()));
        found.into_iter().map(|(id, (figures, ..))| (id, figures)).collect()
    }

    /// The first by name of the partitions that this broker leads, and how many more there are.
    async fn partitions(&self, cold: &HashMap<PartitionId, ColdFigures>) -> (Vec<PartitionFigures>, usize) {
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
                    cold: cold.get(&partition).copied(),
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
