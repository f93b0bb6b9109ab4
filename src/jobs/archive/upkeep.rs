//! The upkeep of tables, beside the copies: joining a large table's files may take long.

use std::time::Duration;

use tracing::{debug, warn};

use super::Archiver;
use crate::{
    log::archive::{Table, TableChange},
    model::PartitionId,
    topics::Topic,
};

/// After the start, so that a process that often starts anew gets to it too.
const FIRST_AFTER: Duration = Duration::from_secs(60);

impl Archiver {
    pub(super) async fn keep_tidy(&self) {
        let interval = self.options.tidy_interval;
        let mut pause = interval.min(FIRST_AFTER);
        loop {
            tokio::time::sleep(pause).await;
            self.tidy_all().await;
            pause = interval;
        }
    }

    /// Every table once, where this process has its first partition.
    pub async fn tidy_all(&self) {
        let topics: Vec<_> = self.topics.snapshot().topics().cloned().collect();
        for topic in topics {
            let Some(tier) = topic.log_config.tier else { continue };
            let first = PartitionId { topic: topic.name.clone(), topic_id: topic.id, index: 0 };
            if !self.partitions.takes(&first) || !self.has_table(&topic).await {
                continue;
            }
            if let Err(error) = self.tier.archive.tidy(&topic.name, topic.id, tier.files).await {
                let again_in = self.options.tidy_interval;
                warn!(topic = %topic.name, %error, ?again_in, "a table's upkeep failed; it is tried again");
            }
            // Whoever has removed it meanwhile did not see what was written last.
            if !self.has_table(&topic).await {
                self.note_again(&topic).await;
            }
        }
    }

    /// It may have one, and keeps it. True where that is not known now.
    async fn has_table(&self, topic: &Topic) -> bool {
        match self.tier.notes.tables().await {
            Ok(tables) => tables.iter().any(|table| table.topic_id == topic.id && !table.is_leaving),
            Err(error) => {
                debug!(%error, "the archive's tables are not known now");
                true
            }
        }
    }

    /// A copy has failed: where its topic is gone the table may be removed already, and what it has written is found only if the
    /// table is noted again.
    pub(super) async fn note_what_may_stay(&self, topic: &Topic) {
        if self.topics.get_by_id(topic.id).is_none() {
            self.note_again(topic).await;
        }
    }

    async fn note_again(&self, topic: &Topic) {
        let table = Table { topic: topic.name.clone(), topic_id: topic.id, is_leaving: false };
        if let Err(error) = self.tier.notes.note_table(&table, TableChange::Begins).await {
            debug!(topic = %topic.name, %error, "a table can't be noted");
        }
    }
}
