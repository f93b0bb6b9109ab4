//! Steps at which a test stops the process, and kills what it likes: a process that comes to a step whose file is in the folder
//! `PLANTED_STOPS` makes a file `<step>.reached` beside it, and goes on when the step's file is gone.

use std::{env, fs, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    log::{
        archive::{Archive, ArchiveError, Cold, ColdBounds, ColdCopy, ColdNotes, FileOptions, Table, TableChange},
        durability::Life,
        store::{LogState, Read, StoreError, StoredBatch, TimestampedOffset},
    },
    model::{PartitionId, TopicId, TopicName},
};

pub(super) async fn reach(step: &str) {
    const LOOK_AGAIN: Duration = Duration::from_millis(5);
    let Some(folder) = env::var_os("PLANTED_STOPS").map(PathBuf::from) else { return };
    let stop = folder.join(step);
    if !stop.exists() {
        return;
    }
    // Without the file nobody waits for this process, and it goes on at once.
    if fs::write(folder.join(format!("{step}.reached")), []).is_ok() {
        while stop.exists() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

pub fn archive(archive: Arc<dyn Archive>) -> Arc<dyn Archive> {
    Arc::new(StoppingArchive(archive))
}

pub fn notes(notes: Arc<dyn ColdNotes>) -> Arc<dyn ColdNotes> {
    Arc::new(StoppingNotes(notes))
}

struct StoppingArchive(Arc<dyn Archive>);

#[async_trait]
impl Archive for StoppingArchive {
    async fn bounds(&self, partition: &PartitionId) -> Result<Option<ColdBounds>, ArchiveError> {
        self.0.bounds(partition).await
    }

    async fn begin(
        &self,
        partition: &PartitionId,
        from: i64,
        files: FileOptions,
    ) -> Result<Box<dyn ColdCopy>, ArchiveError> {
        let copy = self.0.begin(partition, from, files).await?;
        reach("copy-begun").await;
        Ok(Box::new(StoppingCopy(copy)))
    }

    async fn read(&self, partition: &PartitionId, read: Read) -> Result<Vec<StoredBatch>, ArchiveError> {
        self.0.read(partition, read).await
    }

    async fn find_timestamp(
        &self,
        partition: &PartitionId,
        start_offset: i64,
        timestamp: i64,
    ) -> Result<Option<TimestampedOffset>, ArchiveError> {
        self.0.find_timestamp(partition, start_offset, timestamp).await
    }

    async fn find_max_timestamp(
        &self,
        partition: &PartitionId,
        start_offset: i64,
    ) -> Result<Option<TimestampedOffset>, ArchiveError> {
        self.0.find_max_timestamp(partition, start_offset).await
    }

    async fn expired(
        &self,
        partition: &PartitionId,
        before_timestamp: Option<i64>,
        max_bytes: Option<u64>,
    ) -> Result<i64, ArchiveError> {
        self.0.expired(partition, before_timestamp, max_bytes).await
    }

    async fn delete_before(&self, partition: &PartitionId, before_offset: i64) -> Result<ColdBounds, ArchiveError> {
        self.0.delete_before(partition, before_offset).await
    }

    async fn delete_topic(&self, topic: &TopicName, topic_id: TopicId) -> Result<(), ArchiveError> {
        self.0.delete_topic(topic, topic_id).await
    }

    async fn tidy(&self, topic: &TopicName, topic_id: TopicId, files: FileOptions) -> Result<(), ArchiveError> {
        self.0.tidy(topic, topic_id, files).await
    }
}

struct StoppingCopy(Box<dyn ColdCopy>);

#[async_trait]
impl ColdCopy for StoppingCopy {
    async fn write(&mut self, batches: &[StoredBatch]) -> Result<(), ArchiveError> {
        self.0.write(batches).await?;
        reach("records-written").await;
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    async fn commit(self: Box<Self>, leader_epoch: i32) -> Result<ColdBounds, ArchiveError> {
        self.0.commit(leader_epoch).await
    }
}

struct StoppingNotes(Arc<dyn ColdNotes>);

#[async_trait]
impl ColdNotes for StoppingNotes {
    async fn note_cold(
        &self,
        partition: &PartitionId,
        expected: Option<Cold>,
        cold: Option<Cold>,
        leader_epoch: i32,
    ) -> Result<LogState, StoreError> {
        let advances = cold.is_some_and(|cold| !cold.is_empty());
        if advances {
            reach("before-note").await;
        }
        let state = self.0.note_cold(partition, expected, cold, leader_epoch).await?;
        if advances {
            reach("noted").await;
        }
        Ok(state)
    }

    async fn is_compared(&self, partition: &PartitionId, life: &Life) -> Result<bool, StoreError> {
        self.0.is_compared(partition, life).await
    }

    async fn follow_archive(
        &self,
        partition: &PartitionId,
        cold: Cold,
        leader_epoch: i32,
        life: &Life,
    ) -> Result<LogState, StoreError> {
        self.0.follow_archive(partition, cold, leader_epoch, life).await
    }

    async fn tables(&self) -> Result<Vec<Table>, StoreError> {
        self.0.tables().await
    }

    async fn note_table(&self, table: &Table, change: TableChange) -> Result<(), StoreError> {
        if change == TableChange::Gone {
            reach("table-removed").await;
        }
        self.0.note_table(table, change).await?;
        match change {
            TableChange::Begins => reach("table-noted").await,
            TableChange::Leaves => reach("table-leaves").await,
            TableChange::Gone => reach("table-forgotten").await,
        }
        Ok(())
    }
}
