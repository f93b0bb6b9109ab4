//! The domain over a storage in memory, in paused time.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    memory_store::{Counts, MemoryStore, batch, config, partition_id},
    store::LogStore,
    *,
};
use crate::{
    cluster::View,
    protocol::records::{Codec, ValidatedBatch},
};

mod durability;
mod tiered;

struct World {
    store: Arc<MemoryStore>,
    log: Log,
    cluster: Arc<Cluster>,
    metrics: LogMetrics,
    tasks: Tasks,
}

async fn world_with(options: Options) -> World {
    let store = Arc::new(MemoryStore::default());
    for index in 0..4 {
        store.create(&partition_id(index)).await.expect("memory is there");
    }
    let tasks = Tasks::new();
    let cluster = options.cluster.clone();
    let metrics = options.metrics.clone();
    let log = Log::new(store.clone(), Clock::fixed(1_000), tasks.clone(), options);
    World { store, log, cluster, metrics, tasks }
}

async fn world() -> World {
    world_with(Options::default()).await
}

impl World {
    fn partition(&self, index: i32) -> Arc<Partition> {
        let id = partition_id(index);
        self.log.partition(&id.topic, id.topic_id, index)
    }

    async fn send(&self, index: i32, batch: ValidatedBatch) -> Pending {
        let held = self.log.admit_append(batch.header().size(), soon()).await.expect("there is memory");
        self.partition(index).append(batch, Arc::new(config()), Answer::WhenPromised, held)
    }

    async fn append(&self, index: i32, records: i64, value_size: usize) -> Result<AppendedAt, AppendError> {
        self.send(index, batch(records, value_size)).await.outcome(soon()).await
    }

    fn wanted(&self, index: i32, offset: i64) -> Wanted {
        Wanted {
            partition: self.partition(index),
            offset,
            max_bytes: 1 << 20,
            codec: Codec::None,
            current_leader_epoch: None,
            last_fetched_epoch: None,
        }
    }

    /// The broker comes back with the next epoch.
    fn lead_anew(&self) {
        let mut view = View::clone(&self.cluster.view());
        view.generation += 1;
        view.live[0].joined = view.generation;
        self.cluster.set_view(view);
        self.log.follow_leadership();
    }

    /// Another broker takes everything over.
    fn lose_leadership(&self) {
        let mut view = View::clone(&self.cluster.view());
        view.generation += 1;
        view.live[0].node = NodeId(9);
        view.live[0].joined = view.generation;
        self.cluster.set_view(view);
        self.log.follow_leadership();
    }

    /// Ranges and records that were told to be lost.
    fn lost(&self) -> (u64, u64) {
        (self.metrics.lost_ranges.get(), self.metrics.lost_records.get())
    }

    fn counts(&self) -> Counts {
        *self.store.counts.lock()
    }

    async fn until_an_append_is_under_way(&self) {
        while self.counts().appends == 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn limits(min_bytes: usize, max_wait_ms: u64) -> FetchLimits {
    FetchLimits { max_bytes: 50 << 20, min_bytes, max_wait: Duration::from_millis(max_wait_ms) }
}

fn base_offsets(fetched: &Fetched) -> Vec<Vec<i64>> {
    let partitions = fetched.partitions.iter();
    partitions
        .map(|found| match found {
            Ok(found) => found.batches.iter().map(|batch| batch.base_offset).collect(),
            Err(_) => Vec::new(),
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn batches_that_wait_together_go_in_one_append_and_keep_their_order() {
    let world = world().await;
    let gate = world.store.hold_appends();
    let mut pending = Vec::new();
    for _ in 0..6 {
        pending.push(world.send(0, batch(2, 10)).await);
        tokio::task::yield_now().await;
    }
    gate.add_permits(100);
    let mut offsets = Vec::new();
    for pending in pending {
        offsets.push(pending.outcome(soon()).await.expect("stored").base_offset);
    }
    assert_eq!(offsets, [0, 2, 4, 6, 8, 10]);
    assert!(world.counts().appends <= 3, "{:?}", world.counts());
}

#[tokio::test(start_paused = true)]
async fn a_group_is_bounded_in_bytes() {
    let group = GroupLimits { batches: 64, bytes: 2_500, records: 1_000 };
    let world = world_with(Options { group, ..Options::default() }).await;
    let gate = world.store.hold_appends();
    let mut pending = Vec::new();
    for _ in 0..5 {
        pending.push(world.send(0, batch(1, 1_000)).await);
    }
    gate.add_permits(100);
    for pending in pending {
        pending.outcome(soon()).await.expect("stored");
    }
    assert_eq!(world.counts().appends, 3);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_fails_is_answered_as_it_failed_and_the_next_one_works() {
    let world = world().await;
    assert_eq!(world.append(0, 1, 10).await.map(|at| at.base_offset), Ok(0));
    for error in [StoreError::OutOfMemory, StoreError::OutcomeUnknown("lost".to_owned())] {
        world.store.fail_next(StoreError::NotSent("down".to_owned()));
        assert_eq!(world.append(0, 1, 10).await, Err(AppendError::Store(StoreError::NotSent("down".to_owned()))));
        // The state is read again first; it is the append that fails.
        world.partition(0).bounds().await.expect("the storage is back");
        world.store.fail_next(error.clone());
        assert_eq!(world.append(0, 1, 10).await, Err(AppendError::Store(error)));
    }
    assert_eq!(world.append(0, 1, 10).await.map(|at| at.base_offset), Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_not_sent_in_time_is_taken_back_and_one_that_was_is_not() {
    let world = world().await;
    let gate = world.store.hold_appends();
    let first = world.send(0, batch(1, 10)).await;
    world.until_an_append_is_under_way().await;
    let second = world.send(0, batch(1, 10)).await;
    let deadline = Instant::now() + Duration::from_millis(100);
    assert_eq!(first.outcome(deadline).await, Err(AppendError::NotAnsweredInTime));
    assert_eq!(second.outcome(deadline).await, Err(AppendError::NotSentInTime));
    gate.add_permits(100);
    assert_eq!(world.append(0, 1, 10).await.map(|at| at.base_offset), Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_batch_lands_though_its_client_is_gone() {
    let world = world().await;
    drop(world.send(0, batch(1, 10)).await);
    assert_eq!(world.append(0, 1, 10).await.map(|at| at.base_offset), Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_fenced_appends_and_answers_nothing_more() {
    let world = world().await;
    world.append(0, 1, 10).await.expect("stored");
    world.store.raise_epoch(&partition_id(0));
    let fenced = StoreError::FencedLeader(1);
    assert_eq!(world.append(0, 1, 10).await, Err(AppendError::Store(fenced.clone())));
    assert_eq!(world.partition(0).bounds().await, Err(fenced.clone()), "nothing is answered from memory");
    let fetched = world.log.fetch(vec![world.wanted(0, 0)], limits(1, 0)).await;
    assert_eq!(fetched.partitions, [Err(FetchError::Store(fenced))]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_partition_that_moves_away_is_told_at_once() {
    let world = Arc::new(world().await);
    world.append(0, 1, 10).await.expect("stored");
    let waiting = {
        let world = world.clone();
        tokio::spawn(async move { world.log.fetch(vec![world.wanted(0, 1)], limits(1, 60_000)).await })
    };
    tokio::task::yield_now().await;
    world.lose_leadership();
    let moved = StoreError::FencedLeader(1);
    let fetched = waiting.await.expect("no panic");
    assert_eq!(fetched.partitions, [Err(FetchError::Store(moved.clone()))]);
    assert_eq!(world.append(0, 1, 10).await, Err(AppendError::Store(moved)));
    let appends = world.counts().appends;
    assert_eq!(appends, 1, "the storage is not asked for what another leads");
}

#[tokio::test(start_paused = true)]
async fn the_lead_is_taken_once_and_again_only_with_a_new_epoch() {
    let world = world().await;
    for _ in 0..3 {
        world.append(0, 1, 10).await.expect("stored");
    }
    assert_eq!(world.counts().loads, 1);
    world.lead_anew();
    for _ in 0..3 {
        world.append(0, 1, 10).await.expect("stored");
    }
    assert_eq!(world.counts().loads, 2);
    let epochs = world.partition(0).with_state(|state| state.epoch_starts.clone()).await;
    assert_eq!(epochs, Ok(vec![(0, 0), (1, 3)]));
}

#[tokio::test(start_paused = true)]
async fn memory_for_appends_is_bounded_and_comes_back() {
    let world = world_with(Options { append_bytes: 3_000, ..Options::default() }).await;
    let gate = world.store.hold_appends();
    let first = world.send(0, batch(1, 2_000)).await;
    assert_eq!(world.log.admit_append(2_000, soon()).await.err(), Some(AppendError::NotSentInTime));
    gate.add_permits(100);
    first.outcome(soon()).await.expect("stored");
    assert!(world.log.admit_append(usize::MAX, soon()).await.is_ok(), "more than there is counts as all");
}

#[tokio::test(start_paused = true)]
async fn consumers_at_the_tail_are_served_without_reading_the_storage() {
    let world = world().await;
    for _ in 0..3 {
        world.append(0, 5, 100).await.expect("stored");
    }
    let fetched = world.log.fetch(vec![world.wanted(0, 7)], limits(1, 0)).await;
    assert_eq!(base_offsets(&fetched), [[5, 10]]);
    assert_eq!(fetched.partitions[0].as_ref().map(|found| found.bounds.high_watermark), Ok(15));
    assert_eq!(world.counts().reads, 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_fetch_is_woken_by_an_append_and_counts_what_it_has_once() {
    let world = world().await;
    let fetch = world.log.fetch(vec![world.wanted(0, 0), world.wanted(1, 0)], limits(2_500, 60_000));
    let appends = async {
        for index in [0, 1, 0] {
            tokio::time::sleep(Duration::from_millis(50)).await;
            world.append(index, 1, 1_000).await.expect("stored");
        }
    };
    let (fetched, ()) = timeout(Duration::from_secs(1), async { tokio::join!(fetch, appends) }).await.expect("woken");
    assert_eq!(base_offsets(&fetched), [vec![0, 1], vec![0]]);
    assert_eq!(world.counts().reads, 0);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_answers_at_its_deadline_with_what_there_is() {
    let world = world().await;
    world.append(0, 1, 10).await.expect("stored");
    let started = Instant::now();
    let fetched = world.log.fetch(vec![world.wanted(0, 0)], limits(1_000_000, 500)).await;
    assert_eq!(started.elapsed(), Duration::from_millis(500));
    assert_eq!(base_offsets(&fetched), [[0]]);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_fetch_ends_when_the_broker_stops() {
    let world = world().await;
    let fetch = world.log.fetch(vec![world.wanted(0, 0)], limits(1, 3_600_000));
    let stop = async { world.tasks.stop(Duration::from_secs(1)).await };
    let (fetched, _) = timeout(Duration::from_secs(2), async { tokio::join!(fetch, stop) }).await.expect("ended");
    assert_eq!(base_offsets(&fetched), [[0_i64; 0]]);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_append_wakes_a_waiting_fetch_when_it_is_told_of() {
    let world = world().await;
    let fetch = world.log.fetch(vec![world.wanted(0, 0)], limits(1, 60_000));
    let foreign = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.store.append_behind_the_back(&partition_id(0), &batch(1, 10));
        world.log.changed("t", 0);
    };
    let (fetched, ()) = timeout(Duration::from_secs(2), async { tokio::join!(fetch, foreign) }).await.expect("woken");
    assert_eq!(base_offsets(&fetched), [[0]]);
    assert_eq!(world.counts().reads, 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_load_is_tried_again_on_the_next_use() {
    let world = world().await;
    world.store.fail_next(StoreError::NotSent("down".to_owned()));
    assert!(world.partition(0).bounds().await.is_err());
    assert_eq!(world.partition(0).bounds().await.map(|bounds| bounds.high_watermark), Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_loaded_once_for_all_who_ask_at_the_same_time() {
    let world = world().await;
    let partition = world.partition(0);
    let all = futures::future::join_all((0..50).map(|_| partition.bounds())).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(world.counts().loads, 1);
}

#[tokio::test(start_paused = true)]
async fn an_offset_outside_of_the_log_is_refused_at_once() {
    let world = world().await;
    world.append(0, 5, 10).await.expect("stored");
    let partition = world.partition(0);
    world.log.delete_records(&partition, 2).await.expect("deleted");
    for offset in [1, 6, -1] {
        let fetched = world.log.fetch(vec![world.wanted(0, offset)], limits(1, 60_000)).await;
        assert_eq!(fetched.partitions, [Err(FetchError::OffsetOutOfRange(offset))]);
    }
    let fetched = world.log.fetch(vec![world.wanted(0, 2)], limits(1, 0)).await;
    assert_eq!(base_offsets(&fetched), [[0]]);
}

#[tokio::test(start_paused = true)]
async fn leader_epochs_are_checked_and_truncation_is_told() {
    let world = world().await;
    world.append(0, 5, 10).await.expect("stored");
    world.lead_anew();
    world.append(0, 5, 10).await.expect("stored");
    for (epoch, error) in [(0, FetchError::FencedLeaderEpoch(1)), (2, FetchError::UnknownLeaderEpoch(1))] {
        let wanted = Wanted { current_leader_epoch: Some(epoch), ..world.wanted(0, 0) };
        assert_eq!(world.log.fetch(vec![wanted], limits(1, 0)).await.partitions, [Err(error)]);
    }
    let wanted = Wanted { last_fetched_epoch: Some(0), ..world.wanted(0, 7) };
    let fetched = world.log.fetch(vec![wanted], limits(1, 60_000)).await;
    let divergence = fetched.partitions[0].as_ref().expect("no error").divergence;
    assert_eq!(divergence, Some(Divergence { epoch: 0, end_offset: 5 }));
    let wanted = Wanted { last_fetched_epoch: Some(0), ..world.wanted(0, 5) };
    assert_eq!(base_offsets(&world.log.fetch(vec![wanted], limits(1, 0)).await), [[5]]);
}

#[tokio::test(start_paused = true)]
async fn only_the_answers_first_batch_may_exceed_the_limits() {
    let world = world().await;
    for index in 0..3 {
        world.append(index, 1, 5_000).await.expect("stored");
    }
    let all = || (0..3).map(|index| world.wanted(index, 0)).collect::<Vec<_>>();
    let fetched = world.log.fetch(all(), FetchLimits { max_bytes: 100, ..limits(1, 0) }).await;
    assert_eq!(base_offsets(&fetched), [vec![0], vec![], vec![]]);
    let fetched = world.log.fetch(all(), FetchLimits { max_bytes: 11_000, ..limits(1, 0) }).await;
    assert_eq!(base_offsets(&fetched), [vec![0], vec![0], vec![]]);
    let narrow = all().into_iter().map(|wanted| Wanted { max_bytes: 10, ..wanted }).collect();
    assert_eq!(base_offsets(&world.log.fetch(narrow, limits(1, 0)).await), [vec![0], vec![], vec![]]);
}

#[tokio::test(start_paused = true)]
async fn fetches_make_progress_when_memory_is_scarce_and_give_it_back() {
    let world = world_with(Options { fetch_bytes: 80_000, ..Options::default() }).await;
    for _ in 0..10 {
        world.append(0, 1, 5_000).await.expect("stored");
    }
    let first = world.log.fetch(vec![world.wanted(0, 0)], limits(1, 0)).await;
    let held = first.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    assert!((15_000..=20_000).contains(&held), "{held}");
    let second = world.log.fetch(vec![world.wanted(0, 3)], limits(1, 0));
    let release = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(first);
    };
    let (second, ()) = tokio::join!(second, release);
    assert_eq!(base_offsets(&second), [[3, 4, 5]]);
    drop(second);
    assert_eq!(world.log.shared.fetch_memory.tail.permits.available_permits(), 20_000);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_has_something_does_not_wait_for_memory() {
    let world = world_with(Options { fetch_bytes: 40_000, ..Options::default() }).await;
    world.append(0, 1, 4_000).await.expect("stored");
    let fetch = world.log.fetch(vec![world.wanted(0, 0)], limits(1_000_000, 60_000));
    let rival = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let left = world.log.shared.fetch_memory.tail.permits.available_permits();
        let all = u32::try_from(left).expect("a small budget");
        let taken = world
            .log
            .shared
            .fetch_memory
            .tail
            .permits
            .clone()
            .try_acquire_many_owned(all)
            .expect("nobody else takes it");
        world.append(0, 1, 4_000).await.expect("stored");
        taken
    };
    let (fetched, _taken) = timeout(Duration::from_secs(1), async { tokio::join!(fetch, rival) }).await.expect("soon");
    assert_eq!(base_offsets(&fetched), [[0]]);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_ends_by_a_panic_does_not_block_the_partition() {
    let world = world().await;
    let gate = world.store.hold_appends();
    let first = world.send(0, batch(1, 10)).await;
    world.until_an_append_is_under_way().await;
    let second = world.send(0, batch(1, 10)).await;
    gate.close();
    assert_eq!(first.outcome(soon()).await, Err(AppendError::Abandoned));
    assert_eq!(second.outcome(soon()).await, Err(AppendError::Abandoned));
    world.store.hold_appends().add_permits(10);
    assert_eq!(world.append(0, 1, 10).await.map(|at| at.base_offset), Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_answers_those_who_wait_for_it() {
    let world = world().await;
    let gate = world.store.hold_appends();
    let _first = world.send(0, batch(1, 10)).await;
    world.until_an_append_is_under_way().await;
    let second = world.send(0, batch(1, 10)).await;
    let partition = world.partition(0);
    let fetch = world.log.fetch(vec![world.wanted(0, 0)], limits(1, 60_000));
    let forget = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.log.forget(partition.id().topic_id);
    };
    let (fetched, ()) = tokio::join!(fetch, forget);
    assert_eq!(fetched.partitions, [Err(FetchError::Store(StoreError::NoSuchPartition))]);
    assert_eq!(second.outcome(soon()).await, Err(AppendError::Store(StoreError::NoSuchPartition)));
    gate.add_permits(10);
}

#[tokio::test(start_paused = true)]
async fn offsets_that_the_storage_has_lost_are_given_again_only_in_a_newer_epoch() {
    let world = world().await;
    for _ in 0..3 {
        world.append(0, 1, 10).await.expect("stored");
    }
    world.store.lose_all(&partition_id(0));
    // Nobody has told of it yet: the storage refuses what would give the offsets again.
    let refused = world.append(0, 1, 10).await;
    assert!(matches!(refused, Err(AppendError::Store(StoreError::NotReady(_)))), "{refused:?}");
    world.log.everything_changed();
    for _ in 0..2 {
        let fetched = world.log.fetch(vec![world.wanted(0, 3)], limits(1, 0)).await;
        assert!(matches!(fetched.partitions[0], Err(FetchError::Store(StoreError::FencedLeader(_)))), "{fetched:?}");
    }
    assert_eq!(world.log.tail_cache_bytes(), 0);
    assert!(world.append(0, 1, 10).await.is_err());
    world.lead_anew();
    assert_eq!(world.append(0, 1, 10).await.map(|at| at.base_offset), Ok(0));
    let end = world.partition(0).with_state(|state| state.end_of_epoch(0)).await.expect("known");
    assert_eq!(end.map(|end| end.end_offset), Some(0), "consumers of the old epoch learn where it ended");
    assert_eq!(world.lost(), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_told_once_and_also_by_the_broker_that_has_come_anew_before_it_looked() {
    let world = world().await;
    for index in [0, 1] {
        world.append(index, 5, 10).await.expect("stored");
    }
    world.append(2, 5, 10).await.expect("stored");
    world.store.lose_all(&partition_id(0));
    world.store.lose_all(&partition_id(1));
    world.lead_anew();
    assert_eq!(world.partition(0).bounds().await.map(|bounds| bounds.high_watermark), Ok(0));
    world.log.look_for_losses(|_| true).await.expect("looked");
    world.log.look_for_losses(|_| true).await.expect("looked");
    assert_eq!(world.lost(), (2, 10));
    world.append(0, 1, 10).await.expect("a new epoch goes on");
    world.lose_leadership();
    world.store.lose_all(&partition_id(0));
    world.log.look_for_losses(|_| true).await.expect("looked");
    world.log.look_for_losses(|_| true).await.expect("looked");
    assert_eq!(world.lost(), (3, 11), "who led last tells too");
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_the_storage_lacks_is_noted_and_once_it_is_made_again_what_it_held_is_told() {
    let missing = Arc::new(missing::Missing::default());
    let world = world_with(Options { missing: missing.clone(), ..Options::default() }).await;
    world.append(0, 3, 10).await.expect("stored");
    let id = partition_id(0);
    world.store.forget(&id);
    world.log.everything_changed();
    assert_eq!(world.append(0, 1, 10).await, Err(AppendError::Store(StoreError::NoSuchPartition)));
    assert_eq!(missing.next().await, [id.topic_id].into());
    assert_eq!(world.lost(), (0, 0), "whether the topic is gone with it is not known yet");
    world.store.create(&id).await.expect("memory is there");
    world.log.look_for_losses(|partition| *partition == id).await.expect("looked");
    assert_eq!(world.lost(), (1, 3));
    assert_eq!(world.append(0, 1, 10).await, Err(AppendError::Store(StoreError::FencedLeader(0))));
    world.lead_anew();
    assert_eq!(world.append(0, 1, 10).await.map(|at| at.base_offset), Ok(0));
}

#[tokio::test(start_paused = true)]
async fn an_append_that_is_answered_after_the_lead_was_lost_and_came_back_takes_nothing_back() {
    let world = world().await;
    let answers = world.store.hold_answers();
    let late = world.send(0, batch(1, 10)).await;
    world.until_an_append_is_under_way().await;
    world.lose_leadership();
    world.store.append_behind_the_back(&partition_id(0), &batch(2, 10));
    let mut view = View::clone(&world.cluster.view());
    view.generation += 1;
    view.live[0].node = NodeId(0);
    view.live[0].joined = view.generation;
    world.cluster.set_view(view);
    world.log.follow_leadership();
    let end = async || world.partition(0).bounds().await.map(|bounds| bounds.high_watermark);
    assert_eq!(end().await, Ok(3));
    answers.add_permits(1);
    assert_eq!(late.outcome(soon()).await.map(|at| at.base_offset), Ok(0));
    assert_eq!(end().await, Ok(3));
}

#[test]
fn the_end_of_an_epoch_is_where_the_next_one_starts() {
    let state = LogState {
        log_start_offset: 3,
        next_offset: 40,
        leader_epoch: 7,
        epoch_starts: vec![(1, 0), (4, 10), (6, 25)],
        ..LogState::default()
    };
    let end = |epoch| state.end_of_epoch(epoch).map(|end| (end.epoch, end.end_offset));
    assert_eq!(end(-1), None);
    assert_eq!(end(-2), Some((-2, 3)));
    assert_eq!(end(0), Some((0, 3)));
    assert_eq!(end(1), Some((1, 10)));
    assert_eq!(end(3), Some((1, 10)));
    assert_eq!(end(5), Some((4, 25)));
    assert_eq!(end(6), Some((6, 40)));
    assert_eq!(end(7), Some((7, 40)));
    assert_eq!(end(8), None);
}
