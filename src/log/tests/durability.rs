//! What the high watermark and the answers of `acks=all` do while a promise does not hold yet.

use async_trait::async_trait;
use tokio::sync::watch;

use super::*;
use crate::log::{
    config::LogConfig,
    durability::{Dial, Disk, Durability, Life, Promise, Unkept},
};

const PROMISE: Promise = Promise { disk: Disk::Memory, replicas: 1 };

/// A storage whose barriers a test opens.
struct Gated {
    /// What barriers answer; none while they wait.
    verdict: watch::Sender<Option<Result<(), Unkept>>>,
    life: parking_lot::Mutex<Life>,
}

#[async_trait]
impl Durability for Gated {
    fn check(&self, _promise: Promise, _partition: Option<&PartitionId>) -> Result<(), Unkept> {
        Ok(())
    }

    fn holds_at_once(&self, promise: Promise, _partition: &PartitionId) -> bool {
        promise == Promise::MEMORY
    }

    fn life(&self, _partition: &PartitionId) -> Life {
        self.life.lock().clone()
    }

    async fn barrier(&self, promise: Promise, partition: &PartitionId, life: &Life) -> Result<(), Unkept> {
        if self.holds_at_once(promise, partition) {
            return Ok(());
        }
        if *life != self.life(partition) {
            return Err(Unkept::OtherLife);
        }
        let mut verdict = self.verdict.subscribe();
        let verdict = verdict.wait_for(Option::is_some).await.expect("the test goes on").clone();
        if *life != self.life(partition) { Err(Unkept::OtherLife) } else { verdict.expect("waited for") }
    }
}

async fn gated() -> (World, Arc<Gated>) {
    let gated = Arc::new(Gated { verdict: watch::channel(None).0, life: parking_lot::Mutex::new(Life::new("first")) });
    let dial = Dial { durability: gated.clone(), promised: Arc::new(|_| PROMISE) };
    let world = world_with(Options { dial, ..Options::default() }).await;
    (world, gated)
}

impl World {
    async fn send_asking(&self, answer: Answer) -> Pending {
        let held = self.log.admit_append(1, soon()).await.expect("there is memory");
        let config = LogConfig { promise: PROMISE, ..config() };
        self.partition(0).append(batch(1, 10), Arc::new(config), answer, held)
    }

    async fn high_watermark(&self) -> i64 {
        self.partition(0).bounds().await.expect("known").high_watermark
    }
}

impl Gated {
    fn answer(&self, verdict: Option<Result<(), Unkept>>) {
        self.verdict.send_replace(verdict);
    }
}

#[tokio::test(start_paused = true)]
async fn acks_all_and_consumers_wait_for_the_promise_and_acks_1_does_not() {
    let (world, gated) = gated().await;
    gated.answer(Some(Ok(())));
    assert_eq!(world.high_watermark().await, 0);
    gated.answer(None);
    let all = world.send_asking(Answer::WhenPromised).await;
    let one = world.send_asking(Answer::WhenStored).await;
    assert_eq!(one.outcome(soon()).await.map(|at| at.base_offset), Ok(1));
    assert_eq!(world.high_watermark().await, 0);
    let fetch = world.log.fetch(vec![world.wanted(0, 0)], limits(1, 60_000));
    let later = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        gated.answer(Some(Ok(())));
        all.outcome(soon()).await
    };
    let started = Instant::now();
    let (fetched, answered) = tokio::join!(fetch, later);
    assert_eq!(answered.map(|at| at.base_offset), Ok(0));
    assert!((5..6).contains(&started.elapsed().as_secs()), "the consumer is woken by the promise");
    assert_eq!(base_offsets(&fetched), [[0, 1]]);
    assert_eq!(world.high_watermark().await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_at_a_record_that_is_not_safe_yet_waits_and_gets_no_error() {
    let (world, gated) = gated().await;
    gated.answer(Some(Ok(())));
    assert_eq!(world.high_watermark().await, 0);
    gated.answer(None);
    world.send_asking(Answer::WhenStored).await.outcome(soon()).await.expect("stored");
    for offset in [0, 1] {
        let fetched = world.log.fetch(vec![world.wanted(0, offset)], limits(1, 10)).await;
        let found = fetched.partitions[0].as_ref().expect("no error");
        assert_eq!((found.batches.len(), found.bounds.high_watermark), (0, 0));
    }
    let fetched = world.log.fetch(vec![world.wanted(0, 2)], limits(1, 10)).await;
    assert_eq!(fetched.partitions, [Err(FetchError::OffsetOutOfRange(2))]);
}

#[tokio::test(start_paused = true)]
async fn a_promise_that_is_not_kept_in_time_is_an_error_and_holds_later() {
    let (world, gated) = gated().await;
    gated.answer(Some(Ok(())));
    assert_eq!(world.high_watermark().await, 0);
    gated.answer(Some(Err(Unkept::NotYet("the replica sleeps".to_owned()))));
    let pending = world.send_asking(Answer::WhenPromised).await;
    let deadline = Instant::now() + Duration::from_secs(2);
    assert_eq!(pending.outcome(deadline).await, Err(AppendError::NotAnsweredInTime));
    gated.answer(Some(Err(Unkept::TooFewReplicas { connected: 0, promised: 1 })));
    let pending = world.send_asking(Answer::WhenPromised).await;
    assert_eq!(pending.outcome(soon()).await, Err(AppendError::NotEnoughReplicasAfterAppend));
    assert_eq!(world.high_watermark().await, 0);
    gated.answer(Some(Ok(())));
    let pending = world.send_asking(Answer::WhenPromised).await;
    assert_eq!(pending.outcome(soon()).await.map(|at| at.base_offset), Ok(2));
    assert_eq!(world.high_watermark().await, 3);
}

#[tokio::test(start_paused = true)]
async fn what_another_life_of_the_storage_promises_answers_no_append_of_this_one() {
    let (world, gated) = gated().await;
    gated.answer(Some(Ok(())));
    assert_eq!(world.high_watermark().await, 0);
    gated.answer(None);
    let pending = world.send_asking(Answer::WhenPromised).await;
    world.until_an_append_is_under_way().await;
    *gated.life.lock() = Life::new("second");
    gated.answer(Some(Ok(())));
    let answer = pending.outcome(soon()).await;
    assert!(matches!(answer, Err(AppendError::Store(StoreError::OutcomeUnknown(_)))), "{answer:?}");
    // It is still there in the new life, so it is shown once that life promises it.
    while world.high_watermark().await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.high_watermark().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_knows_nothing_shows_nothing_before_the_promise_holds_and_still_takes_acks_1() {
    let (world, gated) = gated().await;
    world.store.append_behind_the_back(&partition_id(0), &batch(3, 10));
    gated.answer(Some(Err(Unkept::NotYet("the replica sleeps".to_owned()))));
    let bounds = world.partition(0).bounds().await;
    assert!(matches!(bounds, Err(StoreError::NotReady(_))), "{bounds:?}");
    let pending = world.send_asking(Answer::WhenStored).await;
    assert_eq!(pending.outcome(soon()).await.map(|at| at.base_offset), Ok(3));
    gated.answer(Some(Ok(())));
    while world.partition(0).bounds().await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.high_watermark().await, 4);
}
