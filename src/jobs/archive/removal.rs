//! Tables of topics that are gone, or that are archived no more: removed, however often brokers die over it.

use tracing::{debug, info, warn};

use super::{Archiver, JobError};
use crate::{
    log::archive::{Table, TableChange},
    topics::Topic,
};

impl Archiver {
    pub(super) async fn remove_tables(&self, tables: &[Table]) {
        let is_archived = |table: &Table| {
            let topic = self.topics.get_by_id(table.topic_id);
            topic.is_some_and(|topic| topic.log_config.tier.is_some()) && !table.is_leaving
        };
        if tables.iter().all(is_archived) {
            return;
        }
        // A topic that another broker has created is in the catalog before its table is noted, so from here on it is known.
        if let Err(error) = self.topics.refresh().await {
            debug!(%error, "the catalog can't be read now");
            return;
        }
        for table in tables.iter().filter(|table| !is_archived(table)) {
            if let Err(error) = self.remove(table).await {
                if error.is_of_no_concern() {
                    continue;
                }
                self.tier.options.metrics.copy_errors.inc();
                warn!(topic = %table.topic, id = %table.topic_id, %error, "a table is not removed yet; the next round tries again");
            }
        }
    }

    async fn remove(&self, table: &Table) -> Result<(), JobError> {
        if let Some(topic) = self.topics.get_by_id(table.topic_id)
            && !self.is_left(&topic).await?
        {
            return Ok(());
        }
        self.tier.notes.note_table(table, TableChange::Leaves).await?;
        self.tier.archive.delete_topic(&table.topic, table.topic_id).await?;
        self.tier.notes.note_table(table, TableChange::Gone).await?;
        info!(topic = %table.topic, id = %table.topic_id, "the archive's table is removed");
        Ok(())
    }

    /// A topic that is archived no more: its logs start where the storage has them from now on. Whether all do.
    async fn is_left(&self, topic: &Topic) -> Result<bool, JobError> {
        let mut all = true;
        for id in topic.partition_ids() {
            let mut state = self.store.load(&id).await?;
            if state.cold.is_some() && self.partitions.takes(&id) {
                state = self.tier.notes.note_cold(&id, state.cold, None, state.leader_epoch).await?;
                self.partitions.learnt(&id, &state);
            }
            all &= state.cold.is_none();
        }
        Ok(all)
    }
}
