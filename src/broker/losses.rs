//! What Redis came back without: looked for whenever it is another server, or has another history, than before.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    cluster::Cluster,
    coordinator::{Coordinator, CoordinatorError, Fetch},
    log::{Log, durability::Life, missing::Missing, store::StoreError},
    model::{GroupId, PartitionId},
    storage::redis::{nodes::Nodes, shards::SlotSet},
    topics::Catalog,
};

pub(super) struct Losses {
    /// The last that was looked at.
    life: Life,
    is_due: bool,
    /// Of a Redis Cluster, where that is due only there.
    slots: SlotSet,
    nodes: Nodes,
    cluster: Arc<Cluster>,
    log: Arc<Log>,
    groups: Arc<Coordinator>,
    /// Of the nodes of a Redis Cluster, in which groups were loaded.
    lives: HashSet<Life>,
    audit: Arc<Notify>,
}

impl Losses {
    pub(super) fn new(
        nodes: Nodes,
        cluster: Arc<Cluster>,
        (log, groups): (Arc<Log>, Arc<Coordinator>),
        audit: Arc<Notify>,
    ) -> Self {
        Self {
            life: nodes.life(),
            is_due: false,
            slots: SlotSet::default(),
            lives: nodes.lives_at(&SlotSet::all()),
            nodes,
            cluster,
            log,
            groups,
            audit,
        }
    }

    /// Redis was connected anew, in `life`.
    pub(super) fn connected(&mut self, life: Life) {
        if self.life == life {
            return;
        }
        warn!(
            "Redis is another server, or was started again: leader epochs rise, topics and groups are read again, and what it \
             has lost is told"
        );
        self.life = life;
        self.is_due = true;
        self.cluster.storage_replaced();
    }

    /// Slots of a Redis Cluster are served by another node, or by one that was connected anew. Where a log there has lost
    /// records its own epoch ends; the others' go on.
    pub(super) fn moved(&mut self, slots: &SlotSet) {
        self.slots.extend(slots);
    }

    /// Looks at the logs, where that is due; when it fails, it still is.
    pub(super) async fn look(&mut self) -> Result<(), StoreError> {
        if self.is_due || !self.slots.is_empty() {
            self.load_groups_again().await;
            let is_due =
                |partition: &PartitionId| self.is_due || self.slots.contains(self.nodes.slot_of_partition(partition));
            self.log.look_for_losses(is_due).await?;
            self.is_due = false;
            self.slots = SlotSet::default();
            self.audit.notify_one();
        }
        Ok(())
    }

    /// Those whose slots are served by a node of which nothing was known, or in another life than before. Where slots only moved, or
    /// a connection was lost, all that was known holds. With one Redis the groups have other epochs, and so are loaded again.
    async fn load_groups_again(&mut self) {
        let lives = self.nodes.lives_at(&self.slots);
        let is_doubtful = |group: &GroupId| {
            let slot = self.nodes.slot_of_group(group);
            self.slots.contains(slot) && !self.lives.contains(&self.nodes.life_at(slot))
        };
        self.groups.load_again(is_doubtful).await;
        self.lives.extend(lives);
        let served = self.nodes.lives_at(&SlotSet::all());
        self.lives.retain(|life| served.contains(life));
    }
}

/// Makes partitions again that Redis came back without although the catalog has them, and tells what they held: a shard of a
/// Redis Cluster may be lost while that of the catalog is not.
pub(super) async fn make_again(
    missing: Arc<Missing>,
    log: Arc<Log>,
    topics: Arc<Catalog>,
    stopping: CancellationToken,
) {
    /// Who asks for them asks again.
    const BETWEEN_TRIES: Duration = Duration::from_millis(200);
    let work = async {
        loop {
            for topic in missing.next().await {
                let made = async {
                    topics.make_again(topic).await?;
                    log.look_for_losses(|partition| partition.topic_id == topic).await
                };
                if let Err(error) = made.await {
                    debug!(%topic, %error, "partitions that are not in Redis could not be made yet");
                }
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    };
    stopping.run_until_cancelled(work).await;
}

/// Tells of offsets that groups have committed beyond the end of a log, when the broker starts and when `wanted`: of a loss that no
/// running broker has seen this is all that can be known.
pub(super) async fn audit_offsets(
    wanted: Arc<Notify>,
    (log, groups, topics): (Arc<Log>, Arc<Coordinator>, Arc<Catalog>),
    stopping: CancellationToken,
) {
    /// Groups may be loading, and Redis be gone again.
    const PAUSE: Duration = Duration::from_secs(1);
    let audits = async {
        loop {
            while audit(&log, &groups, &topics).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
            wanted.notified().await;
        }
    };
    stopping.run_until_cancelled(audits).await;
}

async fn audit(log: &Log, groups: &Coordinator, topics: &Catalog) -> Result<(), CoordinatorError> {
    for (group, _) in groups.list().await? {
        let fetched = groups.fetch(&group, Fetch { partitions: None, stable: false }).await.answer().await;
        let fetched = match fetched {
            // Its new coordinator looks.
            Err(CoordinatorError::NotCoordinator) => continue,
            fetched => fetched?,
        };
        for (at, committed) in fetched {
            let (Some(committed), Some(topic)) = (committed, topics.get_by_id(at.topic)) else { continue };
            let partition = PartitionId { topic: topic.name.clone(), topic_id: at.topic, index: at.partition };
            let end = match log.end_of(&partition).await {
                Ok(end) => end,
                Err(StoreError::NotSent(_) | StoreError::OutcomeUnknown(_) | StoreError::NotReady(_)) => {
                    return Err(CoordinatorError::NotAvailable);
                }
                Err(_) => continue,
            };
            if committed.offset > end {
                warn!(
                    %group, topic = %partition.topic, partition = partition.index, committed = committed.offset, end,
                    records = committed.offset - end,
                    "a group has committed an offset beyond the end of the log, of records that Redis has lost: its consumers get \
                     OFFSET_OUT_OF_RANGE, or are told where the epoch ended, and go on as their auto.offset.reset says"
                );
            }
        }
    }
    Ok(())
}
