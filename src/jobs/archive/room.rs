//! `archive.when.full=drop`: while the archive takes nothing, the oldest records go where there is no room for more.

use std::time::Duration;

use tracing::{debug, warn};

use super::Archiver;
use crate::{
    log::store::{Hold, Retention, StoreError},
    model::PartitionId,
};

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Archiver {
    /// Beside the copies, of which one may wait for minutes.
    pub(super) async fn keep_room(&self) {
        if !self.tier.options.drops_when_full {
            return;
        }
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            self.make_room().await;
        }
    }

    /// Looks once at every partition that the archive takes nothing of.
    pub async fn make_room(&self) {
        let Some(limit) = self.tier.options.hot_limit_bytes.filter(|_| self.tier.options.drops_when_full) else {
            return;
        };
        let is_silent = self.asked_at.lock().is_some_and(|at| at.elapsed() >= self.options.silence);
        let topics: Vec<_> = self.topics.snapshot().topics().cloned().collect();
        for topic in topics {
            if !topic.log_config.tier.is_some_and(|tier| tier.copies) {
                continue;
            }
            let stuck = |id: &PartitionId| is_silent || self.is_failing(id);
            for id in topic.partition_ids().filter(|id| stuck(id) && self.partitions.takes(id)) {
                match self.drop_beyond(&id, limit).await {
                    Ok(()) | Err(StoreError::NoSuchPartition) => {}
                    Err(error) => debug!(partition = %id, %error, "there is no room, and none can be made now"),
                }
            }
        }
    }

    async fn drop_beyond(&self, id: &PartitionId, limit: u64) -> Result<(), StoreError> {
        let state = self.store.load(id).await?;
        if state.unarchived_bytes() <= limit {
            return Ok(());
        }
        let retention = Retention { max_bytes: Some(limit), hold: Hold::Nothing, ..Retention::default() };
        let after = self.store.retain(id, retention).await?;
        let from = state.local_start_offset.max(state.archived_end_offset());
        let to = after.local_start_offset;
        if let Ok(records @ 1..) = u64::try_from(to - from) {
            self.tier.options.metrics.dropped_records.inc_by(records);
            warn!(partition = %id, from, to, "records that were never archived are dropped (archive.when.full)");
        }
        self.partitions.learnt(id, &after);
        Ok(())
    }
}
