//! What Redis notes of the archive: in a partition's state how far it is archived, in the catalog which topics have a table.

use async_trait::async_trait;

use super::{RedisLog, functions};
use crate::{
    log::{
        archive::{Cold, ColdNotes, Table, TableChange},
        durability::Life,
        store::{LogState, LogStore, StoreError},
    },
    model::{PartitionId, TopicName},
};

/// Follows the name of a topic whose table is being removed.
const LEAVING: &str = " leaving";

#[async_trait]
impl ColdNotes for RedisLog {
    async fn note_cold(
        &self,
        id: &PartitionId,
        expected: Option<Cold>,
        cold: Option<Cold>,
        leader_epoch: i32,
    ) -> Result<LogState, StoreError> {
        let partition = self.partition(id);
        functions::note_cold(self.at(&partition), &partition.keys, id.topic_id, (expected, cold), leader_epoch).await?;
        self.load(id).await
    }

    async fn is_compared(&self, id: &PartitionId, life: &Life) -> Result<bool, StoreError> {
        let partition = self.partition(id);
        let noted = functions::compared_in(self.at(&partition), &partition.keys).await?;
        Ok(noted.is_some_and(|noted| noted == functions::mark_of(life)))
    }

    async fn follow_archive(
        &self,
        id: &PartitionId,
        cold: Cold,
        leader_epoch: i32,
        life: &Life,
    ) -> Result<LogState, StoreError> {
        let partition = self.partition(id);
        let at = (leader_epoch, life);
        let core = functions::follow_archive(self.at(&partition), &partition.keys, id.topic_id, &cold, at).await?;
        if core.log_start == core.next_offset {
            self.free(&partition, &core).await?;
        }
        self.load(id).await
    }

    async fn tables(&self) -> Result<Vec<Table>, StoreError> {
        let key = self.nodes.keyspace().tables();
        let fields: Vec<(String, String)> = self.nodes.of(&key).query(redis::cmd("HGETALL").arg(&key)).await?;
        Ok(fields.into_iter().filter_map(|(id, value)| parse_table(&id, &value)).collect())
    }

    async fn note_table(&self, table: &Table, change: TableChange) -> Result<(), StoreError> {
        let (key, id) = (self.nodes.keyspace().tables(), table.topic_id.to_string());
        let mut command = redis::Cmd::new();
        match change {
            TableChange::Begins => command.arg("HSETNX").arg(&key).arg(id).arg(table.topic.to_string()),
            TableChange::Leaves => command.arg("HSET").arg(&key).arg(id).arg(format!("{}{LEAVING}", table.topic)),
            TableChange::Gone => command.arg("HDEL").arg(&key).arg(id),
        };
        let _: redis::Value = self.nodes.of(&key).query(&command).await?;
        Ok(())
    }
}

fn parse_table(id: &str, value: &str) -> Option<Table> {
    let topic_id = super::core::parse_topic_id(id)?;
    let name = value.strip_suffix(LEAVING);
    let topic = TopicName::new(name.unwrap_or(value));
    Some(Table { topic, topic_id, is_leaving: name.is_some() })
}

#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzzed(text: &str) {
    let (id, value) = text.split_once(' ').unwrap_or_default();
    let _ = parse_table(id, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TopicId;

    #[test]
    fn a_table_that_leaves_reads_back() {
        let topic_id = TopicId::random();
        let table = |is_leaving| Some(Table { topic: TopicName::new("orders"), topic_id, is_leaving });
        assert_eq!(parse_table(&topic_id.to_string(), "orders"), table(false));
        assert_eq!(parse_table(&topic_id.to_string(), "orders leaving"), table(true));
        assert_eq!(parse_table("no id", "orders"), None);
    }
}
