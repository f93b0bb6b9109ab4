//! The archival job and reads across the seam: a real Redis, and an archive in memory.

mod memory_archive;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::memory_archive::{FaultyNotes, MemoryArchive, Step};
use crate::{
    clock::Clock,
    jobs::archive::{Archiver, Led, Options, Partitions, Unled},
    log::{
        self, Answer, AppendError, FetchError, FetchLimits, Log, Partition, Wanted,
        durability::{Dial, Promise},
        store::{LogStore, StoreError},
        tiered::{self, ColdTier},
    },
    model::{NodeId, PartitionId, TopicId},
    protocol::records::{
        Batch, BatchBuilder, BatchOptions, Codec, NewRecord, TimestampType, ValidatedBatch, ValidationLimits,
        single_batch, validate,
    },
    storage::redis::{
        catalog::RedisCatalogStore,
        durability::RedisDurability,
        log::{self as redis_log, RedisLog},
        testing::TestRedis,
    },
    tasks::Tasks,
    topics::{self, Catalog, NewTopic, Topic, configs::Values, settings::StaticSettings},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What outlives the brokers.
struct World {
    redis: TestRedis,
    archive: Arc<MemoryArchive>,
}

struct Broker {
    logs: Arc<RedisLog>,
    log: Arc<Log>,
    topics: Arc<Catalog>,
    tier: ColdTier,
    _supervised: DropGuard,
}

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Archived at once, and gone from Redis then.
const ALL_COLD: &[(&str, &str)] = &[
    ("remote.storage.enable", "true"),
    ("retention.ms", "-1"),
    ("local.retention.ms", "0"),
    ("weir.archive.file.bytes", "1000"),
];

impl World {
    async fn new() -> Self {
        Self { redis: TestRedis::start().await, archive: Arc::default() }
    }

    async fn broker(&self) -> Broker {
        self.broker_with(tiered::Options::default()).await
    }

    async fn broker_with(&self, options: tiered::Options) -> Broker {
        let client = self.redis.client().await;
        let stopping = CancellationToken::new();
        tokio::spawn(client.clone().supervise(stopping.clone()));
        let durability = RedisDurability::start(client.clone().into(), None, Tasks::new()).await.expect("Redis is up");
        let logs = Arc::new(RedisLog::new(client.clone(), Clock::system(), redis_log::Options::default()));
        let settings = [("remote.log.storage.system.enable", "true"), ("log.retention.check.interval.ms", "1")];
        let topics = Catalog::load(
            Arc::new(RedisCatalogStore::new(client)),
            logs.clone(),
            topics::Options {
                node: NodeId(0),
                settings: StaticSettings::new(values(&settings), Vec::new()).expect("legal settings"),
                clock: Clock::system(),
                durability: Dial::default().durability,
            },
        )
        .await
        .expect("Redis is up");
        let notes = Arc::new(FaultyNotes { notes: logs.clone(), archive: self.archive.clone() });
        let tier = ColdTier::new(Arc::new(self.archive.clone()), notes, options);
        // Without a cache every read goes to Redis or the archive.
        let dial = Dial { durability, ..Dial::default() };
        let log_options =
            log::Options { cold: Some(tier.clone()), tail_cache_bytes: 0, dial, ..log::Options::default() };
        let log = Arc::new(Log::new(logs.clone(), Clock::system(), Tasks::new(), log_options));
        Broker { logs, log, topics, tier, _supervised: stopping.drop_guard() }
    }
}

impl Broker {
    async fn create(&self, configs: &[(&str, &str)]) -> Arc<Topic> {
        let new = NewTopic { name: "orders".to_owned(), configs: values(configs), ..NewTopic::default() };
        let planned = self.topics.plan(&new).expect("legal");
        self.topics.create(vec![planned]).await.pop().expect("one").expect("created")
    }

    fn job_options() -> Options {
        Options { lag: Duration::ZERO, ..Options::default() }
    }

    fn job_of(&self, partitions: Arc<dyn Partitions>) -> Arc<Archiver> {
        self.job_with(partitions, Self::job_options())
    }

    fn job_with(&self, partitions: Arc<dyn Partitions>, options: Options) -> Arc<Archiver> {
        let (store, tier, topics) = (self.logs.clone(), self.tier.clone(), self.topics.clone());
        Arc::new(Archiver::new(store, tier, topics, partitions, Clock::system(), options))
    }

    fn job(&self) -> Arc<Archiver> {
        self.job_of(Arc::new(Led(self.log.clone())))
    }

    /// As `weir archive` sees it.
    fn job_apart(&self) -> Arc<Archiver> {
        let dial = Dial { promised: Arc::new(|_| Promise::MEMORY), ..Dial::default() };
        self.job_of(Arc::new(Unled { store: self.logs.clone(), dial }))
    }

    fn partition(&self, topic: &Topic) -> Arc<Partition> {
        self.log.partition(&topic.name, topic.id, 0)
    }

    async fn append(&self, topic: &Topic, first: i64, count: i64) -> Result<i64, AppendError> {
        let config = self.topics.get_by_id(topic.id).expect("it is there").log_config.clone();
        let batch = batch(first, count);
        let held = self.log.admit_append(batch.header().size(), Instant::now() + PATIENCE).await?;
        let pending = self.partition(topic).append(batch, config, Answer::WhenPromised, held);
        pending.outcome(Instant::now() + PATIENCE).await.map(|at| at.base_offset)
    }

    /// As a consumer does: fetch after fetch from `offset` until `end`.
    async fn consume(&self, topic: &Topic, offset: i64, end: i64) -> Vec<(i64, i64, Bytes)> {
        let mut got = Vec::new();
        let mut next = offset;
        let deadline = Instant::now() + PATIENCE;
        while next < end {
            assert!(Instant::now() < deadline, "the consumer stands still at {next}");
            let fetched = self.fetch(topic, next).await.expect("it can be read");
            for record in fetched.into_iter().filter(|(offset, ..)| *offset >= next) {
                got.push(record);
            }
            next = got.last().map_or(next, |(offset, ..)| offset + 1);
        }
        got
    }

    async fn fetch(&self, topic: &Topic, offset: i64) -> Result<Vec<(i64, i64, Bytes)>, FetchError> {
        let wanted = Wanted {
            partition: self.partition(topic),
            offset,
            max_bytes: 2_000,
            codec: Codec::None,
            current_leader_epoch: None,
            last_fetched_epoch: None,
        };
        let limits = FetchLimits { max_bytes: 2_000, min_bytes: 1, max_wait: Duration::from_millis(100) };
        let fetched = self.log.fetch(vec![wanted], limits).await.partitions.pop().expect("one")?;
        Ok(fetched.batches.iter().flat_map(|batch| records(batch.batch.to_bytes())).collect())
    }
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn id(topic: &Topic) -> PartitionId {
    PartitionId { topic: topic.name.clone(), topic_id: topic.id, index: 0 }
}

fn value(offset: i64) -> Vec<u8> {
    format!("{{\"number\":{offset},\"padding\":\"{}\"}}", "x".repeat(40)).into_bytes()
}

/// Records of the offsets `first..`, whose timestamps are 1000 and the offset.
fn batch(first: i64, count: i64) -> ValidatedBatch {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for at in 0..count {
        let headers = std::iter::empty::<(&[u8], Option<&[u8]>)>();
        let (value, timestamp) = (value(first + at), 1_000 + first + at);
        let record = NewRecord { offset: at, timestamp, key: None, value: Some(&value), headers };
        builder.push(record).expect("it is small");
    }
    let limits = ValidationLimits {
        now: 1_000,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max: i64::MAX,
        timestamp_after_max: i64::MAX,
        compacted: false,
        max_batch_bytes: 1 << 20,
        max_records: i32::MAX,
        max_decompressed_bytes: 1 << 20,
        keep_records: false,
    };
    let bytes = builder.finish().expect("it has records");
    validate(single_batch(bytes, true).expect("it was just built"), &limits).expect("it is well-formed")
}

fn records(batch: Bytes) -> Vec<(i64, i64, Bytes)> {
    let batch = Batch::parse(batch).expect("a consumer can read it");
    let records = batch.records(1 << 20).expect("a consumer can read it");
    records
        .iter()
        .map(|record| record.expect("a consumer can read it"))
        .map(|record| (record.offset, record.timestamp, Bytes::copy_from_slice(record.value.unwrap_or_default())))
        .collect()
}

fn expected(offsets: std::ops::Range<i64>) -> Vec<(i64, i64, Bytes)> {
    offsets.map(|offset| (offset, 1_000 + offset, Bytes::from(value(offset)))).collect()
}

/// Rounds until nothing is left to copy.
async fn rounds(job: &Archiver) {
    while job.round().await {}
}

#[tokio::test]
async fn what_is_archived_leaves_redis_and_is_read_as_before() {
    for layout in ["record", "batch"] {
        let world = World::new().await;
        let broker = world.broker().await;
        let topic = broker.create(&[ALL_COLD, &[("weir.layout", layout)]].concat()).await;
        for first in (0..100).step_by(5) {
            broker.append(&topic, first, 5).await.expect("stored");
        }
        rounds(&broker.job()).await;
        assert_eq!(world.archive.offsets(&id(&topic)), (0..100).collect::<Vec<_>>());
        broker.append(&topic, 100, 5).await.expect("stored");
        let state = broker.logs.load(&id(&topic)).await.expect("Redis is up");
        assert_eq!((state.log_start_offset, state.local_start_offset, state.next_offset), (0, 100, 105));
        assert_eq!(broker.consume(&topic, 0, 105).await, expected(0..105));
        assert_eq!(broker.consume(&topic, 97, 105).await, expected(97..105), "across the seam");
        let bounds = broker.partition(&topic).bounds().await.expect("Redis is up");
        assert_eq!((bounds.log_start_offset, bounds.local_start_offset), (0, 100));
    }
}

#[tokio::test]
async fn a_consumer_gets_every_record_once_while_the_archive_takes_them() {
    let world = World::new().await;
    let broker = Arc::new(world.broker().await);
    let topic = broker.create(ALL_COLD).await;
    let stopping = CancellationToken::new();
    let job = tokio::spawn(broker.job_apart().run(stopping.clone()));
    let consumer = tokio::spawn({
        let (broker, topic) = (broker.clone(), topic.clone());
        async move { broker.consume(&topic, 0, 600).await }
    });
    for first in (0..600).step_by(3) {
        broker.append(&topic, first, 3).await.expect("stored");
    }
    let got = consumer.await.expect("it ends");
    assert_eq!(got, expected(0..600));
    // From the start, with a broker that has none of it in memory, while the rest is being archived.
    assert_eq!(world.broker().await.consume_as_another(&topic, 600).await, expected(0..600));
    stopping.cancel();
    job.await.expect("it ends");
}

#[tokio::test]
async fn whoever_dies_at_whatever_step_the_next_one_goes_on_without_loss_or_repetition() {
    let steps = [Step::Begun, Step::Written, Step::Committing, Step::Committed, Step::Noting, Step::Noted];
    for step in steps {
        let world = World::new().await;
        let first = world.broker().await;
        let topic = first.create(ALL_COLD).await;
        for at in (0..60).step_by(5) {
            first.append(&topic, at, 5).await.expect("stored");
        }
        // Something is archived already, so that a copy goes on from there.
        first.job_apart().round().await;
        world.archive.faults.die_at(step);
        let reached = world.archive.faults.reached.notified();
        let dying = tokio::spawn({
            let job = first.job_apart();
            async move { rounds(&job).await }
        });
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("nobody came to {step:?}"));
        dying.abort();
        let second = world.broker().await;
        rounds(&second.job_apart()).await;
        assert_eq!(world.archive.offsets(&id(&topic)), (0..60).collect::<Vec<_>>(), "{step:?}");
        let state = second.logs.load(&id(&topic)).await.expect("Redis is up");
        assert_eq!((state.log_start_offset, state.local_start_offset), (0, 60), "{step:?}");
        assert_eq!(second.consume_as_another(&topic, 60).await, expected(0..60), "{step:?}");
    }
}

#[tokio::test]
async fn two_that_copy_one_partition_at_once_copy_nothing_twice() {
    let world = World::new().await;
    let brokers = [world.broker().await, world.broker().await];
    let topic = brokers[0].create(ALL_COLD).await;
    brokers[1].topics.refresh().await.expect("Redis is up");
    let jobs = [brokers[0].job_apart(), brokers[1].job_apart()];
    for at in (0..200).step_by(5) {
        brokers[0].append(&topic, at, 5).await.expect("stored");
        tokio::join!(jobs[0].round(), jobs[1].round());
    }
    rounds(&jobs[0]).await;
    assert_eq!(world.archive.offsets(&id(&topic)), (0..200).collect::<Vec<_>>());
    assert_eq!(brokers[0].consume(&topic, 0, 200).await, expected(0..200));
}

#[tokio::test]
async fn while_the_archive_is_cut_off_redis_takes_so_much_and_then_refuses() {
    let world = World::new().await;
    let options = tiered::Options { hot_limit_bytes: Some(3_000), ..tiered::Options::default() };
    let broker = world.broker_with(options).await;
    let topic = broker.create(ALL_COLD).await;
    let job = broker.job();
    *world.archive.faults.unreachable.lock() = true;
    let mut taken = 0;
    let refused = loop {
        job.round().await;
        match broker.append(&topic, taken, 5).await {
            Ok(_) => taken += 5,
            Err(error) => break error,
        }
        assert!(taken < 1_000, "there is a limit");
    };
    assert!(matches!(refused, AppendError::Store(StoreError::NotReady(_))), "{refused}");
    assert!(taken >= 25, "{taken} records are fewer than fit");
    assert_eq!(broker.consume(&topic, 0, taken).await, expected(0..taken), "what was taken is still there");
    *world.archive.faults.unreachable.lock() = false;
    rounds(&job).await;
    broker.append(&topic, taken, 5).await.expect("there is room again");
    assert_eq!(broker.consume(&topic, 0, taken + 5).await, expected(0..taken + 5));
}

fn dropping(limit: u64) -> tiered::Options {
    tiered::Options { hot_limit_bytes: Some(limit), drops_when_full: true, ..tiered::Options::default() }
}

#[tokio::test]
async fn where_the_settings_say_so_the_oldest_records_go_instead() {
    const LIMIT: u64 = 20_000;
    let world = World::new().await;
    let options = dropping(LIMIT);
    let metrics = options.metrics.clone();
    let broker = world.broker_with(options).await;
    // The log is trimmed in steps of what is local.
    let topic = broker.create(&[ALL_COLD, &[("local.retention.bytes", "20000")]].concat()).await;
    let job = broker.job();
    broker.append(&topic, 0, 20).await.expect("stored");
    rounds(&job).await;
    for at in (20..420).step_by(100) {
        broker.append(&topic, at, 100).await.expect("stored");
    }
    for _ in 0..2 {
        job.make_room().await;
    }
    let state = broker.logs.load(&id(&topic)).await.expect("Redis is up");
    assert!(state.unarchived_bytes() > LIMIT && state.local_start_offset == 20, "what can be archived will be");
    *world.archive.faults.unreachable.lock() = true;
    let mut end = 420;
    for _ in 0..8 {
        job.round().await;
        assert_eq!(broker.append(&topic, end, 100).await, Ok(end), "nothing is refused");
        end += 100;
        // What was written since the look before stays.
        for _ in 0..2 {
            job.make_room().await;
        }
        let state = broker.logs.load(&id(&topic)).await.expect("Redis is up");
        assert!(state.unarchived_bytes() <= LIMIT, "{} bytes", state.unarchived_bytes());
    }
    let start = broker.logs.load(&id(&topic)).await.expect("Redis is up").local_start_offset;
    assert!((421..end).contains(&start), "{start}");
    assert_eq!(Some(metrics.dropped_records.get()), u64::try_from(start - 20).ok());
    *world.archive.faults.unreachable.lock() = false;
    rounds(&job).await;
    assert_eq!(world.archive.offsets(&id(&topic)), (0..20).chain(start..end).collect::<Vec<_>>());
    let left = [expected(0..20), expected(start..end)].concat();
    assert_eq!(broker.consume(&topic, 0, end).await, left);
}

#[tokio::test]
async fn room_is_made_while_a_copy_waits_for_the_archive() {
    let world = World::new().await;
    let broker = world.broker_with(dropping(3_000)).await;
    let topic = broker.create(ALL_COLD).await;
    let options = Options { silence: Duration::from_millis(1), ..Broker::job_options() };
    let job = broker.job_with(Arc::new(Led(broker.log.clone())), options);
    world.archive.faults.die_at(Step::Written);
    broker.append(&topic, 0, 100).await.expect("stored");
    let stopping = CancellationToken::new();
    let running = tokio::spawn(job.run(stopping.clone()));
    tokio::time::timeout(PATIENCE, world.archive.faults.reached.notified()).await.expect("it is copied");
    let dropped = async {
        while broker.logs.load(&id(&topic)).await.expect("Redis is up").unarchived_bytes() > 3_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dropped).await.expect("the oldest records go");
    stopping.cancel();
    running.await.expect("it ends");
}

#[tokio::test]
async fn upkeep_that_takes_long_holds_up_no_copy() {
    let world = World::new().await;
    let broker = world.broker().await;
    let topic = broker.create(ALL_COLD).await;
    let tidy_interval = Duration::from_millis(1);
    let options = Options { tidy_interval, interval: tidy_interval, ..Broker::job_options() };
    let job = broker.job_with(Arc::new(Led(broker.log.clone())), options);
    world.archive.faults.die_at(Step::Tidying);
    let stopping = CancellationToken::new();
    let running = tokio::spawn(job.run(stopping.clone()));
    tokio::time::timeout(PATIENCE, world.archive.faults.reached.notified()).await.expect("the table is looked after");
    broker.append(&topic, 0, 20).await.expect("stored");
    let archived = async {
        while world.archive.offsets(&id(&topic)).len() < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, archived).await.expect("records are archived meanwhile");
    stopping.cancel();
    running.await.expect("it ends");
}

#[tokio::test]
async fn a_table_whose_topic_goes_during_its_upkeep_is_removed_all_the_same() {
    let world = World::new().await;
    let broker = world.broker().await;
    let topic = broker.create(ALL_COLD).await;
    broker.append(&topic, 0, 20).await.expect("stored");
    rounds(&broker.job()).await;
    world.archive.faults.hold_at(Step::Tidying);
    let tidying = tokio::spawn({
        let job = broker.job();
        async move { job.tidy_all().await }
    });
    tokio::time::timeout(PATIENCE, world.archive.faults.reached.notified()).await.expect("the table is looked after");
    broker.topics.delete(topic.id).await.expect("deleted");
    broker.job().round().await;
    assert_eq!(broker.tier.notes.tables().await, Ok(Vec::new()));
    world.archive.faults.go_on.notify_one();
    tidying.await.expect("it ends");
    assert_eq!(broker.tier.notes.tables().await.expect("Redis is up").len(), 1, "what it has written is looked for");
    broker.job().round().await;
    assert_eq!(broker.tier.notes.tables().await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_damaged_or_missing_archive_is_an_error_of_that_partition_and_not_a_gap() {
    let world = World::new().await;
    let broker = world.broker().await;
    let topic = broker.create(ALL_COLD).await;
    broker.append(&topic, 0, 20).await.expect("stored");
    rounds(&broker.job()).await;
    broker.append(&topic, 20, 5).await.expect("stored");
    *world.archive.faults.unreachable.lock() = true;
    let cold = broker.fetch(&topic, 3).await;
    assert!(matches!(cold, Err(FetchError::Store(StoreError::NotReady(_)))), "{cold:?}");
    assert_eq!(broker.fetch(&topic, 20).await, Ok(expected(20..25)), "what is hot is there");
    *world.archive.faults.unreachable.lock() = false;
    assert_eq!(broker.consume(&topic, 3, 25).await, expected(3..25));
}

#[tokio::test]
async fn an_archive_that_somebody_removed_from_is_gone_on_with_once_the_rest_is_deleted() {
    let world = World::new().await;
    let broker = world.broker().await;
    let topic = broker.create(&[ALL_COLD, &[("weir.layout", "batch")]].concat()).await;
    for at in [0, 10] {
        broker.append(&topic, at, 10).await.expect("stored");
    }
    rounds(&broker.job()).await;
    world.archive.cut(&id(&topic), 10);
    broker.append(&topic, 20, 20).await.expect("stored");
    // A new leader looks.
    let job = broker.job();
    assert!(!job.round().await);
    assert!(job.is_failing(&id(&topic)));
    assert_eq!(world.archive.offsets(&id(&topic)), (0..10).collect::<Vec<_>>());
    broker.log.delete_records(&broker.partition(&topic), 20).await.expect("deleted");
    rounds(&job).await;
    assert!(!job.is_failing(&id(&topic)));
    assert_eq!(world.archive.offsets(&id(&topic)), (20..40).collect::<Vec<_>>());
    assert_eq!(broker.consume(&topic, 20, 40).await, expected(20..40));
}

#[tokio::test]
async fn times_are_found_on_both_sides_of_the_seam() {
    let world = World::new().await;
    let broker = world.broker().await;
    let topic = broker.create(ALL_COLD).await;
    broker.append(&topic, 0, 20).await.expect("stored");
    rounds(&broker.job()).await;
    broker.append(&topic, 20, 5).await.expect("stored");
    let partition = broker.partition(&topic);
    for wanted in [0, 7, 19, 20, 24] {
        let found = broker.log.find_timestamp(&partition, 1_000 + wanted, soon()).await.expect("it can be read");
        assert_eq!(found.map(|found| found.offset), Some(wanted));
    }
    assert_eq!(broker.log.find_timestamp(&partition, 2_000, soon()).await, Ok(None));
    let largest = broker.log.find_max_timestamp(&partition, soon()).await.expect("it can be read");
    assert_eq!(largest.map(|found| (found.offset, found.timestamp)), Some((24, 1_024)));
}

#[tokio::test]
async fn deleted_and_expired_records_leave_the_archive_too() {
    let world = World::new().await;
    let broker = world.broker().await;
    let topic = broker.create(&[ALL_COLD, &[("weir.layout", "batch")]].concat()).await;
    for at in (0..40).step_by(5) {
        broker.append(&topic, at, 5).await.expect("stored");
    }
    let job = broker.job();
    rounds(&job).await;
    let partition = broker.partition(&topic);
    assert_eq!(broker.log.delete_records(&partition, 12).await, Ok(12));
    let below = broker.fetch(&topic, 11).await;
    assert_eq!(below, Err(FetchError::OffsetOutOfRange(11)));
    assert_eq!(broker.consume(&topic, 12, 40).await, expected(12..40));
    rounds(&job).await;
    assert_eq!(world.archive.offsets(&id(&topic)).first(), Some(&10), "a file that holds more stays");
    // Everything is older than a second.
    broker.alter(topic.id, &[("retention.ms", "1000")]).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    rounds(&job).await;
    let bounds = partition.bounds().await.expect("Redis is up");
    assert_eq!((bounds.log_start_offset, bounds.high_watermark), (40, 40));
    assert_eq!(world.archive.offsets(&id(&topic)), Vec::<i64>::new());
    assert_eq!(broker.append(&topic, 40, 5).await, Ok(40));
    rounds(&job).await;
}

#[tokio::test]
async fn a_deleted_topics_table_goes_however_often_its_removal_is_interrupted() {
    for step in [Step::Removing, Step::Removed] {
        let world = World::new().await;
        let broker = world.broker().await;
        let topic = broker.create(ALL_COLD).await;
        broker.append(&topic, 0, 20).await.expect("stored");
        rounds(&broker.job()).await;
        assert_eq!(world.archive.tables(), 1);
        broker.topics.delete(topic.id).await.expect("deleted");
        *world.archive.faults.unreachable.lock() = true;
        broker.job().round().await;
        *world.archive.faults.unreachable.lock() = false;
        world.archive.faults.die_at(step);
        let dying = tokio::spawn({
            let job = broker.job();
            async move { job.round().await }
        });
        tokio::time::timeout(PATIENCE, world.archive.faults.reached.notified()).await.expect("somebody removes it");
        dying.abort();
        let next = world.broker().await;
        next.job().round().await;
        assert_eq!(world.archive.tables(), 0, "{step:?}");
        assert_eq!(next.tier.notes.tables().await, Ok(Vec::new()));
        let anew = next.create(ALL_COLD).await;
        next.append(&anew, 0, 5).await.expect("stored");
        rounds(&next.job()).await;
        assert_eq!(next.consume(&anew, 0, 5).await, expected(0..5));
    }
}

#[tokio::test]
async fn a_topic_that_is_archived_no_more_keeps_what_redis_has_and_may_be_archived_again() {
    let world = World::new().await;
    let broker = world.broker().await;
    let topic = broker.create(ALL_COLD).await;
    broker.append(&topic, 0, 20).await.expect("stored");
    let job = broker.job();
    rounds(&job).await;
    broker.append(&topic, 20, 5).await.expect("stored");
    broker.alter(topic.id, &[("remote.storage.enable", "false"), ("remote.log.delete.on.disable", "true")]).await;
    rounds(&job).await;
    assert_eq!(world.archive.tables(), 0);
    let bounds = broker.partition(&topic).bounds().await.expect("Redis is up");
    assert_eq!((bounds.log_start_offset, bounds.high_watermark), (20, 25));
    broker.alter(topic.id, &[("remote.storage.enable", "true")]).await;
    rounds(&job).await;
    assert_eq!(world.archive.offsets(&id(&topic)), (20..25).collect::<Vec<_>>());
    assert_eq!(broker.consume(&topic, 20, 25).await, expected(20..25));
}

impl Broker {
    async fn alter(&self, topic: TopicId, configs: &[(&str, &str)]) {
        let edit = |current: &Values| {
            let mut after: BTreeMap<String, String> = current.clone();
            after.extend(values(configs));
            Ok::<_, std::convert::Infallible>(after)
        };
        self.topics.alter_topic_configs(topic, edit).await.expect("altered");
    }

    /// A broker that did not lead the partition before reads it from the storage and the archive alone.
    async fn consume_as_another(&self, topic: &Topic, end: i64) -> Vec<(i64, i64, Bytes)> {
        let claimed = self.logs.load(&id(topic)).await.expect("Redis is up");
        let mut got = Vec::new();
        let mut next = claimed.log_start_offset;
        while next < end {
            let read = log::store::Read {
                offset: next,
                max_bytes: 2_000,
                end_offset: end,
                codec: Codec::None,
                in_background: false,
            };
            let Some(batches) = self.partition(topic).read(read).await.expect("it can be read") else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            let found = batches.iter().flat_map(|batch| records(batch.batch.to_bytes()));
            got.extend(found.filter(|(offset, ..)| *offset >= next));
            next = got.last().map_or(next, |(offset, ..)| offset + 1);
        }
        got
    }
}
