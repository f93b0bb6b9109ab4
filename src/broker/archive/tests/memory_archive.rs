//! An archive in memory that outlives the brokers of a test, with faults on demand.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    log::{
        archive::{Archive, ArchiveError, Cold, ColdBounds, ColdCopy, ColdNotes, FileOptions, Table, TableChange},
        durability::Life,
        store::{LogState, Read, StoreError, StoredBatch, TimestampedOffset},
    },
    model::{PartitionId, TopicId, TopicName},
    protocol::records::Batch,
};

/// Where a process may die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Begun,
    Written,
    Committing,
    Committed,
    Noting,
    Noted,
    Removing,
    Removed,
    Tidying,
}

#[derive(Default)]
pub(super) struct MemoryArchive {
    parts: Mutex<HashMap<PartitionId, Part>>,
    pub(super) faults: Faults,
}

#[derive(Clone, Default)]
struct Part {
    batches: Vec<StoredBatch>,
    end: i64,
}

/// What goes wrong next.
#[derive(Default)]
pub(super) struct Faults {
    stuck_at: Mutex<Option<Step>>,
    is_held: Mutex<bool>,
    pub(super) reached: Notify,
    pub(super) go_on: Notify,
    pub(super) unreachable: Mutex<bool>,
}

impl Faults {
    /// Whoever comes to `step` first stays there for good.
    pub(super) fn die_at(&self, step: Step) {
        *self.stuck_at.lock() = Some(step);
    }

    /// Whoever comes to `step` first waits for `go_on`.
    pub(super) fn hold_at(&self, step: Step) {
        *self.is_held.lock() = true;
        self.die_at(step);
    }

    async fn pass(&self, step: Step) {
        let is_here = {
            let mut stuck_at = self.stuck_at.lock();
            let is_here = *stuck_at == Some(step);
            if is_here {
                *stuck_at = None;
            }
            is_here
        };
        if is_here {
            self.reached.notify_one();
            if *self.is_held.lock() {
                return self.go_on.notified().await;
            }
            std::future::pending::<()>().await;
        }
    }

    fn check(&self) -> Result<(), ArchiveError> {
        if *self.unreachable.lock() { Err(ArchiveError::Unavailable("cut off".to_owned())) } else { Ok(()) }
    }
}

impl MemoryArchive {
    pub(super) fn tables(&self) -> usize {
        self.parts.lock().len()
    }

    /// Every offset that is there, in order.
    pub(super) fn offsets(&self, id: &PartitionId) -> Vec<i64> {
        let parts = self.parts.lock();
        let batches = parts.get(id).map(|part| part.batches.clone()).unwrap_or_default();
        batches.iter().flat_map(|batch| batch.base_offset..=batch.last_offset).collect()
    }

    /// Somebody removes what lies from `offset` on.
    pub(super) fn cut(&self, id: &PartitionId, offset: i64) {
        let mut parts = self.parts.lock();
        let part = parts.entry(id.clone()).or_default();
        part.batches.retain(|batch| batch.last_offset < offset);
        part.end = offset;
    }

    fn part(&self, id: &PartitionId) -> Option<Part> {
        self.parts.lock().get(id).cloned()
    }
}

fn bounds_of(part: &Part) -> ColdBounds {
    ColdBounds {
        start_offset: part.batches.first().map_or(part.end, |first| first.base_offset),
        end_offset: part.end,
        max_timestamp: part.batches.iter().map(|batch| batch.max_timestamp).max().unwrap_or(-1),
        size_bytes: part.batches.iter().map(|batch| batch.size() as u64).sum(),
    }
}

fn times(batch: &StoredBatch) -> Vec<(i64, i64)> {
    let parsed = Batch::parse(batch.batch.to_bytes()).expect("it was written");
    let records = parsed.records(100 << 20).expect("it was written");
    records
        .iter()
        .map(|record| record.expect("it was written"))
        .map(|record| (record.offset, record.timestamp))
        .collect()
}

#[async_trait]
impl Archive for Arc<MemoryArchive> {
    async fn bounds(&self, id: &PartitionId) -> Result<Option<ColdBounds>, ArchiveError> {
        self.faults.check()?;
        Ok(self.part(id).as_ref().map(bounds_of))
    }

    async fn begin(&self, id: &PartitionId, from: i64, _: FileOptions) -> Result<Box<dyn ColdCopy>, ArchiveError> {
        self.faults.check()?;
        self.faults.pass(Step::Begun).await;
        if let Some(end_offset) = self.part(id).map(|part| part.end).filter(|end| *end != from) {
            return Err(ArchiveError::Overtaken { end_offset });
        }
        Ok(Box::new(Copy { archive: self.clone(), id: id.clone(), from, batches: Vec::new() }))
    }

    async fn read(&self, id: &PartitionId, read: Read) -> Result<Vec<StoredBatch>, ArchiveError> {
        self.faults.check()?;
        let mut bytes = 0;
        let mut found: Vec<StoredBatch> = Vec::new();
        let part = self.part(id).unwrap_or_default();
        for batch in part.batches.iter().filter(|batch| (read.offset..read.end_offset).contains(&batch.last_offset)) {
            bytes += batch.size();
            if bytes > read.max_bytes && !found.is_empty() {
                break;
            }
            found.push(batch.clone());
        }
        Ok(found)
    }

    async fn find_timestamp(
        &self,
        id: &PartitionId,
        start_offset: i64,
        timestamp: i64,
    ) -> Result<Option<TimestampedOffset>, ArchiveError> {
        self.faults.check()?;
        let part = self.part(id).unwrap_or_default();
        let found =
            part.batches.iter().flat_map(times).find(|(offset, at)| *offset >= start_offset && *at >= timestamp);
        Ok(found.map(|(offset, timestamp)| TimestampedOffset { offset, timestamp, leader_epoch: 0 }))
    }

    async fn find_max_timestamp(
        &self,
        id: &PartitionId,
        start_offset: i64,
    ) -> Result<Option<TimestampedOffset>, ArchiveError> {
        let part = self.part(id).unwrap_or_default();
        let all = part.batches.iter().flat_map(times).filter(|(offset, _)| *offset >= start_offset);
        let found = all.max_by_key(|(offset, timestamp)| (*timestamp, -offset));
        Ok(found.map(|(offset, timestamp)| TimestampedOffset { offset, timestamp, leader_epoch: 0 }))
    }

    async fn expired(
        &self,
        id: &PartitionId,
        before_timestamp: Option<i64>,
        _: Option<u64>,
    ) -> Result<i64, ArchiveError> {
        let part = self.part(id).unwrap_or_default();
        let old = |batch: &&StoredBatch| before_timestamp.is_some_and(|before| batch.max_timestamp < before);
        Ok(part.batches.iter().take_while(old).last().map_or(0, |last| last.last_offset + 1))
    }

    async fn delete_before(&self, id: &PartitionId, before_offset: i64) -> Result<ColdBounds, ArchiveError> {
        self.faults.check()?;
        let mut parts = self.parts.lock();
        let part = parts.entry(id.clone()).or_default();
        part.batches.retain(|batch| batch.last_offset >= before_offset);
        Ok(bounds_of(part))
    }

    async fn delete_topic(&self, _: &TopicName, topic_id: TopicId) -> Result<(), ArchiveError> {
        self.faults.check()?;
        self.faults.pass(Step::Removing).await;
        self.parts.lock().retain(|id, _| id.topic_id != topic_id);
        self.faults.pass(Step::Removed).await;
        Ok(())
    }

    async fn tidy(&self, _: &TopicName, _: TopicId, _: FileOptions) -> Result<(), ArchiveError> {
        self.faults.pass(Step::Tidying).await;
        Ok(())
    }
}

struct Copy {
    archive: Arc<MemoryArchive>,
    id: PartitionId,
    from: i64,
    batches: Vec<StoredBatch>,
}

#[async_trait]
impl ColdCopy for Copy {
    async fn write(&mut self, batches: &[StoredBatch]) -> Result<(), ArchiveError> {
        self.archive.faults.check()?;
        self.batches.extend_from_slice(batches);
        self.archive.faults.pass(Step::Written).await;
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.batches.iter().map(|batch| batch.size() as u64).sum()
    }

    async fn commit(self: Box<Self>, _: i32) -> Result<ColdBounds, ArchiveError> {
        let archive = self.archive.clone();
        archive.faults.check()?;
        archive.faults.pass(Step::Committing).await;
        let bounds = {
            let mut parts = archive.parts.lock();
            let end = parts.get(&self.id).map(|part| part.end);
            if let Some(end_offset) = end.filter(|end| *end != self.from) {
                return Err(ArchiveError::Overtaken { end_offset });
            }
            let part = parts.entry(self.id.clone()).or_default();
            part.end = self.batches.last().map_or(self.from, |last| last.last_offset + 1);
            part.batches.extend(self.batches);
            bounds_of(part)
        };
        archive.faults.pass(Step::Committed).await;
        Ok(bounds)
    }
}

/// Notes that pass the same faults.
pub(super) struct FaultyNotes {
    pub(super) notes: Arc<dyn ColdNotes>,
    pub(super) archive: Arc<MemoryArchive>,
}

#[async_trait]
impl ColdNotes for FaultyNotes {
    async fn note_cold(
        &self,
        id: &PartitionId,
        expected: Option<Cold>,
        cold: Option<Cold>,
        leader_epoch: i32,
    ) -> Result<LogState, StoreError> {
        let advances = cold.is_some_and(|cold| !cold.is_empty());
        if advances {
            self.archive.faults.pass(Step::Noting).await;
        }
        let state = self.notes.note_cold(id, expected, cold, leader_epoch).await;
        if advances {
            self.archive.faults.pass(Step::Noted).await;
        }
        state
    }

    async fn is_compared(&self, id: &PartitionId, life: &Life) -> Result<bool, StoreError> {
        self.notes.is_compared(id, life).await
    }

    async fn follow_archive(
        &self,
        id: &PartitionId,
        cold: Cold,
        leader_epoch: i32,
        life: &Life,
    ) -> Result<LogState, StoreError> {
        self.notes.follow_archive(id, cold, leader_epoch, life).await
    }

    async fn tables(&self) -> Result<Vec<Table>, StoreError> {
        self.notes.tables().await
    }

    async fn note_table(&self, table: &Table, change: TableChange) -> Result<(), StoreError> {
        self.notes.note_table(table, change).await
    }
}
