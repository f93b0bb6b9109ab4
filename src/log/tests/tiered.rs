//! Reads of what is archived: nobody waits for the archive who need not, and no more is asked of it than the bound says.

use std::collections::HashMap;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::*;
use crate::log::{
    archive::{Archive, ArchiveError, Cold, ColdBounds, ColdCopy, ColdNotes, FileOptions, Table, TableChange},
    durability::Life,
    store::{Read, StoredBatch, TimestampedOffset},
    tiered::{self, ColdTier, SeekError},
};

/// Answers reads one by one, as it gets permits.
struct SlowArchive {
    permits: Semaphore,
    batches: Mutex<HashMap<PartitionId, Vec<StoredBatch>>>,
    reads: Mutex<Vec<i32>>,
    /// Nothing is found by its time.
    is_silent: Mutex<bool>,
}

#[async_trait]
impl Archive for SlowArchive {
    async fn bounds(&self, _: &PartitionId) -> Result<Option<ColdBounds>, ArchiveError> {
        Ok(None)
    }

    async fn begin(&self, _: &PartitionId, _: i64, _: FileOptions) -> Result<Box<dyn ColdCopy>, ArchiveError> {
        unreachable!("nothing is copied")
    }

    async fn read(&self, id: &PartitionId, read: Read) -> Result<Vec<StoredBatch>, ArchiveError> {
        self.reads.lock().push(id.index);
        self.permits.acquire().await.expect("it is never closed").forget();
        let batches = self.batches.lock().get(id).cloned().unwrap_or_default();
        Ok(batches.into_iter().filter(|batch| batch.last_offset >= read.offset).collect())
    }

    async fn find_timestamp(
        &self,
        id: &PartitionId,
        _: i64,
        _: i64,
    ) -> Result<Option<TimestampedOffset>, ArchiveError> {
        if *self.is_silent.lock() {
            std::future::pending::<()>().await;
        }
        let batches = self.batches.lock();
        let first = batches.get(id).and_then(|batches| batches.first());
        Ok(first.map(|batch| TimestampedOffset { offset: batch.base_offset, timestamp: 1_000, leader_epoch: 0 }))
    }

    async fn find_max_timestamp(&self, id: &PartitionId, _: i64) -> Result<Option<TimestampedOffset>, ArchiveError> {
        self.find_timestamp(id, 0, 0).await
    }

    async fn expired(&self, _: &PartitionId, _: Option<i64>, _: Option<u64>) -> Result<i64, ArchiveError> {
        Ok(0)
    }

    async fn delete_before(&self, _: &PartitionId, _: i64) -> Result<ColdBounds, ArchiveError> {
        Ok(ColdBounds::default())
    }

    async fn delete_topic(&self, _: &TopicName, _: TopicId) -> Result<(), ArchiveError> {
        Ok(())
    }

    async fn tidy(&self, _: &TopicName, _: TopicId, _: FileOptions) -> Result<(), ArchiveError> {
        Ok(())
    }
}

/// The storage is the one that was there before.
struct Compared;

#[async_trait]
impl ColdNotes for Compared {
    async fn note_cold(
        &self,
        _: &PartitionId,
        _: Option<Cold>,
        _: Option<Cold>,
        _: i32,
    ) -> Result<LogState, StoreError> {
        unreachable!("nothing is copied")
    }

    async fn is_compared(&self, _: &PartitionId, _: &Life) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn follow_archive(&self, _: &PartitionId, _: Cold, _: i32, _: &Life) -> Result<LogState, StoreError> {
        unreachable!("it is compared")
    }

    async fn tables(&self) -> Result<Vec<Table>, StoreError> {
        Ok(Vec::new())
    }

    async fn note_table(&self, _: &Table, _: TableChange) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Partitions of two batches with three records each; of those below `cold` the first batch is in the archive only.
async fn tiered_world(partitions: i32, cold: i32) -> (World, Arc<SlowArchive>) {
    let archive = Arc::new(SlowArchive {
        permits: Semaphore::new(0),
        batches: Mutex::default(),
        reads: Mutex::default(),
        is_silent: Mutex::default(),
    });
    let tier = ColdTier::new(archive.clone(), Arc::new(Compared), tiered::Options::default());
    let world = world_with(Options { cold: Some(tier), tail_cache_bytes: 0, ..Options::default() }).await;
    for index in 0..partitions {
        world.store.create(&partition_id(index)).await.expect("memory is there");
        for _ in 0..2 {
            world.append(index, 3, 10).await.expect("stored");
        }
        if index < cold {
            world.archive(&archive, index, 3);
        }
    }
    (world, archive)
}

impl World {
    fn archive(&self, archive: &SlowArchive, index: i32, end: i64) {
        self.archive_untold(archive, index, end);
        self.log.changed(partition_id(index).topic.as_str(), index);
    }

    /// The log has not heard of it.
    fn archive_untold(&self, archive: &SlowArchive, index: i32, end: i64) {
        let id = partition_id(index);
        let gone = self.store.archive_below(&id, end);
        archive.batches.lock().entry(id).or_default().extend(gone);
    }

    fn all_wanted(&self, partitions: i32) -> Vec<Wanted> {
        (0..partitions).map(|index| self.wanted(index, 0)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_waits_is_woken_when_the_archive_has_answered() {
    let (world, archive) = tiered_world(1, 1).await;
    let began = Instant::now();
    let answering = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        archive.permits.add_permits(1);
    };
    let (fetched, ()) = tokio::join!(world.log.fetch(world.all_wanted(1), limits(1, 10_000)), answering);
    assert_eq!(base_offsets(&fetched), [[0]]);
    assert_eq!(began.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_may_not_wait_waits_a_little_for_the_archive_if_it_has_nothing_else() {
    let (world, archive) = tiered_world(1, 1).await;
    let began = Instant::now();
    let fetched = world.log.fetch(world.all_wanted(1), limits(1, 0)).await;
    assert_eq!(base_offsets(&fetched), [Vec::<i64>::new()]);
    assert_eq!(began.elapsed().as_millis(), 500);
    archive.permits.add_permits(1);
    let fetched = world.log.fetch(world.all_wanted(1), limits(1, 0)).await;
    assert_eq!(base_offsets(&fetched), [[0]]);
    assert_eq!(archive.reads.lock().len(), 1, "the read went on");
}

#[tokio::test(start_paused = true)]
async fn hot_partitions_are_given_at_once_while_the_archive_is_asked() {
    let (world, archive) = tiered_world(21, 20).await;
    let began = Instant::now();
    let fetched = world.log.fetch(world.all_wanted(21), limits(1, 10_000)).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    let found = base_offsets(&fetched);
    assert_eq!(found[20], [0, 3]);
    assert!(found[..20].iter().all(Vec::is_empty));
    archive.permits.add_permits(20);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let fetched = world.log.fetch(world.all_wanted(20), limits(1, 10_000)).await;
    assert!(base_offsets(&fetched).iter().all(|found| found == &[0]));
}

#[tokio::test(start_paused = true)]
async fn no_more_reads_are_under_way_than_the_bound_and_all_partitions_get_their_turn() {
    const PARTITIONS: i32 = 70;
    let (world, archive) = tiered_world(PARTITIONS, PARTITIONS).await;
    for _ in 0..3 {
        world.log.fetch(world.all_wanted(PARTITIONS), limits(1, 0)).await;
        assert_eq!(archive.reads.lock().len(), 32);
    }
    archive.permits.add_permits(1_000);
    let mut left: Vec<i32> = (0..PARTITIONS).collect();
    for _ in 0..PARTITIONS {
        let wanted = left.iter().map(|index| world.wanted(*index, 0)).collect();
        let found = base_offsets(&world.log.fetch(wanted, limits(1, 10_000)).await);
        let mut found = found.iter();
        left.retain(|_| found.next().is_some_and(Vec::is_empty));
    }
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_the_archive_does_not_answer_ends_with_the_broker() {
    let (world, _archive) = tiered_world(1, 1).await;
    world.log.fetch(world.all_wanted(1), limits(1, 0)).await;
    assert_eq!(world.tasks.stop(Duration::from_secs(5)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_time_is_found_though_it_is_archived_while_it_is_looked_for() {
    let (world, archive) = tiered_world(1, 0).await;
    let partition = world.partition(0);
    partition.bounds().await.expect("it is led");
    for largest in [false, true] {
        let end = if largest { 6 } else { 3 };
        world.store.before_next_search({
            let archive = archive.clone();
            move |store| {
                let gone = store.archive_below(&partition_id(0), end);
                archive.batches.lock().entry(partition_id(0)).or_default().extend(gone);
            }
        });
        let found = match largest {
            false => world.log.find_timestamp(&partition, 1_000, soon()).await,
            true => world.log.find_max_timestamp(&partition, soon()).await,
        };
        assert_eq!(found.map(|found| found.map(|found| found.offset)), Ok(Some(0)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_is_looked_for_in_the_archive_no_longer_than_the_client_waits() {
    let (world, archive) = tiered_world(2, 1).await;
    *archive.is_silent.lock() = true;
    let began = Instant::now();
    let deadline = began + Duration::from_secs(7);
    let found = world.log.find_timestamp(&world.partition(0), 1_000, deadline).await;
    assert_eq!(found, Err(SeekError::NotInTime));
    assert_eq!(began.elapsed().as_secs(), 7);
    assert_eq!(world.log.find_max_timestamp(&world.partition(0), deadline).await, Err(SeekError::NotInTime));
    let hot = world.log.find_timestamp(&world.partition(1), 1_000, deadline).await;
    assert_eq!(hot.map(|found| found.map(|found| found.offset)), Ok(Some(0)), "Redis is asked however late it is");
}

#[tokio::test(start_paused = true)]
async fn what_is_archived_is_learnt_from_a_state_that_is_older_otherwise() {
    let (world, archive) = tiered_world(1, 0).await;
    let partition = world.partition(0);
    world.archive_untold(&archive, 0, 3);
    let noted = world.store.load(&partition_id(0)).await.expect("memory is there");
    // The note came while the append was under way, and its answer is taken over after it.
    let older = LogState { next_offset: 5, ..noted };
    world.log.take_state(&partition_id(0), older);
    let (end, next) = partition
        .with_state(|state| (state.cold.map(|cold| cold.bounds.end_offset), state.next_offset))
        .await
        .expect("it is led");
    assert_eq!((end, next), (Some(3), 6));
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_does_not_come_back_with_a_state_that_is_older() {
    let (world, archive) = tiered_world(1, 0).await;
    let partition = world.partition(0);
    world.archive_untold(&archive, 0, 3);
    let before = world.store.load(&partition_id(0)).await.expect("memory is there");
    world.log.take_state(&partition_id(0), before.clone());
    // A second answer of the same kind is taken over after the deletion.
    world.log.delete_records(&partition, 5).await.expect("deleted");
    world.log.take_state(&partition_id(0), before);
    assert_eq!(partition.bounds().await.expect("it is led").log_start_offset, 5);
}
