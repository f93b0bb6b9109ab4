use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::RedisCatalogStore;
use crate::{
    clock::Clock,
    log::durability::Dial,
    log::store::{
        Append, AppendOutcome, Claim, LogState, LogStore, ProducerState, Read, Retention, StoreError, StoredBatch,
        TimestampedOffset,
    },
    model::{NodeId, PartitionId, TopicId},
    storage::redis::{client::Client, testing::TestRedis},
    topics::{
        Catalog, CatalogEvent, CreateError, NewTopic, Options,
        configs::Values,
        settings::StaticSettings,
        store::{CatalogStore, Resource},
    },
};

/// Remembers which partitions there are; can be told to fail.
#[derive(Default)]
struct Partitions {
    there: Mutex<BTreeSet<(TopicId, i32)>>,
    broken: AtomicBool,
    /// Only this topic's fail.
    refused: Mutex<Option<TopicId>>,
}

impl Partitions {
    fn count(&self) -> usize {
        self.there.lock().len()
    }

    /// Waits until there are so many.
    async fn until(&self, count: usize) {
        until(async || self.count() == count).await;
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.broken.load(Ordering::Relaxed) { Err(StoreError::NotSent("broken".to_owned())) } else { Ok(()) }
    }
}

#[async_trait::async_trait]
impl LogStore for Partitions {
    async fn create(&self, partition: &PartitionId) -> Result<(), StoreError> {
        self.check()?;
        if *self.refused.lock() == Some(partition.topic_id) {
            return Err(StoreError::NotSent("refused".to_owned()));
        }
        self.there.lock().insert((partition.topic_id, partition.index));
        Ok(())
    }

    async fn delete(&self, partition: &PartitionId) -> Result<(), StoreError> {
        self.check()?;
        self.there.lock().remove(&(partition.topic_id, partition.index));
        Ok(())
    }

    async fn load(&self, _: &PartitionId) -> Result<LogState, StoreError> {
        Err(StoreError::NoSuchPartition)
    }

    async fn claim(&self, _: &PartitionId, _: &Claim) -> Result<LogState, StoreError> {
        Err(StoreError::NoSuchPartition)
    }

    async fn append(&self, _: &PartitionId, _: Append) -> Result<AppendOutcome, StoreError> {
        Err(StoreError::NoSuchPartition)
    }

    async fn read(&self, _: &PartitionId, _: Read) -> Result<Vec<StoredBatch>, StoreError> {
        Err(StoreError::NoSuchPartition)
    }

    async fn find_timestamp(&self, _: &PartitionId, _: i64) -> Result<Option<TimestampedOffset>, StoreError> {
        Err(StoreError::NoSuchPartition)
    }

    async fn find_max_timestamp(&self, _: &PartitionId) -> Result<Option<TimestampedOffset>, StoreError> {
        Err(StoreError::NoSuchPartition)
    }

    async fn delete_records(&self, _: &PartitionId, _: i64) -> Result<i64, StoreError> {
        Err(StoreError::NoSuchPartition)
    }

    async fn retain(&self, _: &PartitionId, _: Retention) -> Result<LogState, StoreError> {
        Err(StoreError::NoSuchPartition)
    }

    async fn producers(&self, _: &PartitionId) -> Result<Vec<ProducerState>, StoreError> {
        Err(StoreError::NoSuchPartition)
    }
}

/// Waits until it holds, at most 20 s.
async fn until(holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.expect("it holds within 20 s");
}

struct World {
    redis: TestRedis,
    partitions: Arc<Partitions>,
}

impl World {
    async fn new() -> Self {
        Self { redis: TestRedis::start().await, partitions: Arc::default() }
    }

    /// Redis comes back without the creation of this topic, its last write.
    async fn lose_latest(&self, topic: &str) {
        self.redis.command(&["HDEL", &self.redis.keyspace().topics(), topic]).await;
        self.redis.command(&["DECR", &self.redis.keyspace().catalog_version()]).await;
    }

    async fn broker(&self, node: i32) -> (Arc<Client>, Arc<Catalog>) {
        let client = self.redis.client().await;
        let store = Arc::new(RedisCatalogStore::new(client.clone()));
        let options = Options {
            node: NodeId(node),
            settings: StaticSettings::default(),
            clock: Clock::fixed(1_700_000_000_000),
            durability: Dial::default().durability,
        };
        let catalog = Catalog::load(store, self.partitions.clone(), options).await.expect("Redis is up");
        (client, catalog)
    }

    async fn catalog(&self, node: i32) -> Arc<Catalog> {
        self.broker(node).await.1
    }
}

fn new_topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions: Some(partitions), ..NewTopic::default() }
}

async fn create(catalog: &Catalog, name: &str, partitions: i32) -> Result<TopicId, CreateError> {
    let planned = catalog.plan(&new_topic(name, partitions))?;
    catalog.create(vec![planned]).await.pop().expect("one answer").map(|topic| topic.id)
}

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_topic_is_seen_by_every_broker_and_after_a_restart() {
    let world = World::new().await;
    let (one, two) = (world.catalog(1).await, world.catalog(2).await);
    let id = create(&one, "orders", 3).await.expect("created");
    assert_eq!(world.partitions.count(), 3);
    assert!(two.get("orders").is_none());
    two.refresh().await.expect("Redis is up");
    assert_eq!(two.get("orders"), one.get("orders"));
    assert_eq!(world.catalog(3).await.get_by_id(id), one.get("orders"));
    let grown = two.grow(id, 5).await.expect("grown");
    assert_eq!((grown.partitions, world.partitions.count()), (5, 5));
    one.refresh().await.expect("Redis is up");
    one.delete(id).await.expect("deleted");
    assert_eq!(world.partitions.count(), 0);
    two.refresh().await.expect("Redis is up");
    assert!(two.get("orders").is_none() && two.get_by_id(id).is_none());
    assert!(two.delete(id).await.is_err());
}

#[tokio::test]
async fn of_two_brokers_that_create_one_name_one_wins() {
    let world = World::new().await;
    let (one, two) = (world.catalog(1).await, world.catalog(2).await);
    for round in 0..20 {
        let name = format!("race-{round}");
        let (a, b) = tokio::join!(create(&one, &name, 1), create(&two, &name, 1));
        let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
        let id = won.expect("one wins");
        assert_eq!(lost, Err(CreateError::Exists(name.clone())));
        one.refresh().await.expect("Redis is up");
        two.refresh().await.expect("Redis is up");
        assert_eq!(one.get(&name).map(|topic| topic.id), Some(id));
        assert_eq!(two.get(&name).map(|topic| topic.id), Some(id));
    }
    assert_eq!(world.partitions.count(), 20);
}

#[tokio::test]
async fn what_is_created_by_many_at_once_in_one_broker_is_all_there() {
    let world = World::new().await;
    let catalog = world.catalog(1).await;
    let names: Vec<String> = (0..100).map(|index| format!("t-{index}")).collect();
    let created = futures::future::join_all(names.iter().map(|name| create(&catalog, name, 2))).await;
    assert!(created.iter().all(Result::is_ok));
    assert_eq!(catalog.snapshot().topics().len(), 100);
    assert_eq!(world.partitions.count(), 200);
}

#[tokio::test]
async fn a_topic_that_its_broker_did_not_finish_is_finished_by_the_next() {
    let world = World::new().await;
    let one = world.catalog(1).await;
    world.partitions.broken.store(true, Ordering::Relaxed);
    assert!(matches!(create(&one, "orders", 2).await, Err(CreateError::Store(_))));
    world.partitions.broken.store(false, Ordering::Relaxed);
    let id = one.get("orders").expect("the name is claimed").id;
    assert_eq!(world.partitions.count(), 0);
    let two = world.catalog(2).await;
    let stopping = CancellationToken::new();
    let finishing = tokio::spawn(two.clone().keep_finishing(stopping.clone()));
    world.partitions.until(2).await;
    let store = RedisCatalogStore::new(world.redis.client().await);
    until(async || store.unfinished().await == Ok(Vec::new())).await;
    stopping.cancel();
    finishing.await.expect("it ends");

    world.partitions.broken.store(true, Ordering::Relaxed);
    two.delete(id).await.expect("deleted, to be freed later");
    world.partitions.broken.store(false, Ordering::Relaxed);
    assert_eq!(world.partitions.count(), 2);
    let again = create(&two, "orders", 1).await.expect("the name is free");
    assert_ne!(again, id);
    assert_eq!(world.partitions.count(), 1, "the old partitions went before the new ones came");
}

#[tokio::test]
async fn a_broker_that_could_not_make_partitions_tries_again_by_itself() {
    let world = World::new().await;
    let one = world.catalog(1).await;
    let stopping = CancellationToken::new();
    let finishing = tokio::spawn(one.clone().keep_finishing(stopping.clone()));
    world.partitions.broken.store(true, Ordering::Relaxed);
    assert!(create(&one, "orders", 2).await.is_err());
    world.partitions.broken.store(false, Ordering::Relaxed);
    world.partitions.until(2).await;
    stopping.cancel();
    finishing.await.expect("it ends");
}

#[tokio::test]
async fn a_topic_that_can_not_be_finished_holds_up_no_other() {
    let world = World::new().await;
    let one = world.catalog(1).await;
    world.partitions.broken.store(true, Ordering::Relaxed);
    for name in ["lost", "orders"] {
        assert!(create(&one, name, 2).await.is_err());
    }
    *world.partitions.refused.lock() = one.get("lost").map(|topic| topic.id);
    world.partitions.broken.store(false, Ordering::Relaxed);
    let stopping = CancellationToken::new();
    let finishing = tokio::spawn(one.clone().keep_finishing(stopping.clone()));
    world.partitions.until(2).await;
    *world.partitions.refused.lock() = None;
    world.partitions.until(4).await;
    stopping.cancel();
    finishing.await.expect("it ends");
}

#[tokio::test]
async fn partitions_that_are_lost_are_made_again_unless_their_topic_is_deleted() {
    let world = World::new().await;
    let (one, two) = (world.catalog(1).await, world.catalog(2).await);
    let id = create(&one, "orders", 3).await.expect("created");
    world.partitions.there.lock().pop_first();
    two.make_again(id).await.expect("Redis is up");
    assert_eq!(world.partitions.count(), 3);
    one.delete(id).await.expect("deleted");
    two.make_again(id).await.expect("Redis is up");
    assert_eq!(world.partitions.count(), 0);
}

#[tokio::test]
async fn who_asks_for_what_is_not_known_finds_what_others_made_and_a_flood_of_them_shares_a_few_looks() {
    let world = World::new().await;
    let (one, two) = (world.catalog(1).await, world.catalog(2).await);
    let flooded = two.clone();
    let flood = tokio::spawn(async move {
        loop {
            futures::future::join_all((0..20).map(|_| flooded.catch_up())).await;
        }
    });
    for round in 0..30 {
        let name = format!("t-{round}");
        create(&one, &name, 1).await.expect("created");
        two.catch_up().await;
        assert!(two.get(&name).is_some(), "{name}");
    }
    flood.abort();
    let _ = flood.await;
    let calls = async || {
        let stats: String = redis::cmd("INFO")
            .arg("commandstats")
            .query_async(&mut world.redis.connection().await)
            .await
            .expect("it is up");
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_fcall:calls=")?.split(',').next());
        calls.and_then(|calls| calls.parse::<u32>().ok()).expect("a count")
    };
    let before = calls().await;
    let newer = futures::future::join_all((0..1_000).map(|_| two.catch_up())).await;
    assert!(newer.iter().all(|newer| !newer));
    let looks = calls().await - before;
    assert!((1..=2).contains(&looks), "{looks}");
}

#[tokio::test]
async fn partitions_made_for_a_topic_that_was_deleted_meanwhile_are_removed_again() {
    let world = World::new().await;
    let one = world.catalog(1).await;
    let id = create(&one, "orders", 2).await.expect("created");
    let topic = one.get("orders").expect("there");
    let store = RedisCatalogStore::new(world.redis.client().await);
    one.delete(id).await.expect("deleted");
    // As if the broker that created it had been slow: it makes the partitions and then asks whether they are wanted.
    let done = crate::topics::store::Unfinished {
        name: topic.name.clone(),
        id,
        partitions: 2,
        work: crate::topics::store::Work::Create,
    };
    assert_eq!(store.finish(&done).await, Ok(false));
}

#[tokio::test]
async fn configs_of_two_brokers_are_both_kept() {
    let world = World::new().await;
    let (one, two) = (world.catalog(1).await, world.catalog(2).await);
    let id = create(&one, "orders", 1).await.expect("created");
    two.refresh().await.expect("Redis is up");
    let set = |name: &'static str, value: &'static str| {
        move |values: &Values| {
            let mut values = values.clone();
            values.insert(name.to_owned(), value.to_owned());
            Ok::<_, std::convert::Infallible>(values)
        }
    };
    one.alter_topic_configs(id, set("retention.ms", "1000")).await.expect("altered");
    two.alter_topic_configs(id, set("weir.layout", "batch")).await.expect("altered although it was stale");
    one.refresh().await.expect("Redis is up");
    let topic = one.get("orders").expect("there");
    assert_eq!(topic.configs, values(&[("retention.ms", "1000"), ("weir.layout", "batch")]));
    assert_eq!(topic.log_config.retention_ms, Some(1000));

    one.alter_configs(&Resource::Cluster, set("message.max.bytes", "5")).await.expect("altered");
    two.alter_configs(&Resource::Cluster, set("max.connections", "9")).await.expect("altered although it was stale");
    one.refresh().await.expect("Redis is up");
    for catalog in [&one, &two] {
        assert_eq!(catalog.settings().load().max_connections, 9);
        assert_eq!(catalog.get("orders").expect("there").log_config.max_message_bytes, 5);
    }
    one.alter_configs(&Resource::Broker(1), set("message.max.bytes", "6")).await.expect("altered");
    assert_eq!(one.get("orders").expect("there").log_config.max_message_bytes, 6);
    two.refresh().await.expect("Redis is up");
    assert_eq!(two.get("orders").expect("there").log_config.max_message_bytes, 5, "another broker's own value");
}

#[tokio::test]
async fn listeners_are_told_of_changes_by_this_and_other_brokers() {
    let world = World::new().await;
    let (one, two) = (world.catalog(1).await, world.catalog(2).await);
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    two.subscribe({
        let told = told.clone();
        move |event| {
            told.lock().push(match event {
                CatalogEvent::Created(topic) => format!("created {}", topic.name),
                CatalogEvent::Deleted { name, .. } => format!("deleted {name}"),
                CatalogEvent::Grown(topic) => format!("grown {} {}", topic.name, topic.partitions),
                CatalogEvent::ConfigsChanged(topic) => format!("configs {}", topic.name),
                CatalogEvent::SettingsChanged => "settings".to_owned(),
                CatalogEvent::Lost(id) => format!("lost {id}"),
            });
        }
    });
    let id = create(&one, "orders", 1).await.expect("created");
    two.refresh().await.expect("Redis is up");
    two.grow(id, 2).await.expect("grown");
    let edit = |_: &Values| Ok::<_, std::convert::Infallible>(values(&[("retention.ms", "1")]));
    two.alter_topic_configs(id, edit).await.expect("altered");
    let edit = |_: &Values| Ok::<_, std::convert::Infallible>(values(&[("max.connections", "1")]));
    one.alter_configs(&Resource::Cluster, edit).await.expect("altered");
    two.refresh().await.expect("Redis is up");
    two.delete(id).await.expect("deleted");
    let again = create(&one, "orders", 1).await;
    assert_eq!(again, Err(CreateError::Exists("orders".to_owned())), "one has not heard of the deletion yet");
    one.refresh().await.expect("Redis is up");
    create(&one, "orders", 1).await.expect("created again");
    two.refresh().await.expect("Redis is up");
    assert_eq!(
        *told.lock(),
        ["created orders", "grown orders 2", "configs orders", "settings", "deleted orders", "created orders"]
    );
}

#[tokio::test]
async fn a_change_by_another_broker_is_pushed() {
    let world = World::new().await;
    let (client, one) = world.broker(1).await;
    let two = world.catalog(2).await;
    assert!(client.changes().next().await.everything, "a new connection may have missed anything");
    create(&two, "orders", 1).await.expect("created");
    let version = client.keyspace().catalog_version();
    assert!(client.changes().next().await.keys.contains(&version));
    one.refresh().await.expect("Redis is up");
    assert!(one.get("orders").is_some());
}

#[tokio::test]
async fn a_repeated_change_is_done_once() {
    let world = World::new().await;
    let one = world.catalog(1).await;
    let topic = one.plan(&new_topic("orders", 1)).expect("legal");
    let first = one.create(vec![topic.clone()]).await.pop().expect("one answer").expect("created");
    let second = one.create(vec![topic]).await.pop().expect("one answer").expect("the same topic");
    assert_eq!(first.id, second.id);
}

#[tokio::test]
async fn ten_thousand_topics_load_and_change_quickly() {
    let world = World::new().await;
    let one = world.catalog(1).await;
    let planned = (0..10_000).map(|index| one.plan(&new_topic(&format!("t.{index}"), 1)).expect("legal")).collect();
    assert!(one.create(planned).await.iter().all(Result::is_ok));
    let started = std::time::Instant::now();
    let two = world.catalog(2).await;
    assert_eq!(two.snapshot().topics().len(), 10_000);
    create(&two, "one-more", 1).await.expect("created");
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

/// What `catalog` knows, to compare.
fn known(catalog: &Catalog) -> Vec<(String, TopicId, i32, Values)> {
    let snapshot = catalog.snapshot();
    let topics = snapshot.topics();
    topics.map(|topic| (topic.name.to_string(), topic.id, topic.partitions, topic.configs.clone())).collect()
}

async fn command_stats(world: &World) -> String {
    let mut connection = world.redis.connection().await;
    redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.expect("told")
}

#[tokio::test]
async fn a_refresh_reads_only_what_was_changed() {
    let world = World::new().await;
    let one = world.catalog(1).await;
    let planned = (0..300).map(|index| one.plan(&new_topic(&format!("t.{index}"), 1)).expect("legal")).collect();
    assert!(one.create(planned).await.iter().all(Result::is_ok));
    let two = world.catalog(2).await;
    let gone = create(&one, "gone", 1).await.expect("created");
    let id = create(&one, "more", 1).await.expect("created");
    one.grow(id, 3).await.expect("grown");
    one.delete(gone).await.expect("deleted");
    one.delete(one.get("t.7").expect("created").id).await.expect("deleted");
    create(&one, "t.7", 2).await.expect("created again");
    let edit = |_: &Values| Ok::<_, std::convert::Infallible>(values(&[("max.connections", "1")]));
    one.alter_configs(&Resource::Broker(2), edit).await.expect("altered");

    world.redis.command(&["CONFIG", "RESETSTAT"]).await;
    two.refresh().await.expect("Redis is up");
    let stats = command_stats(&world).await;
    assert!(!stats.contains("cmdstat_hgetall:"), "{stats}");
    assert!(stats.contains("cmdstat_hget:calls=4,"), "three topics and the configs, each once: {stats}");
    assert_eq!(known(&two), known(&one));
    assert!(two.get_by_id(gone).is_none() && two.settings().load().max_connections == 1);

    world.redis.command(&["CONFIG", "RESETSTAT"]).await;
    two.refresh().await.expect("Redis is up");
    assert!(!command_stats(&world).await.contains("cmdstat_hget:"), "there is nothing new");
}

#[tokio::test]
async fn a_broker_that_is_behind_the_changes_that_are_kept_reads_everything() {
    let world = World::new().await;
    let (one, two) = (world.catalog(1).await, world.catalog(2).await);
    for name in ["a", "b", "c"] {
        create(&one, name, 1).await.expect("created");
    }
    world.redis.command(&["XTRIM", &world.redis.keyspace().catalog_changes(), "MAXLEN", "1"]).await;
    two.refresh().await.expect("Redis is up");
    assert_eq!(known(&two), known(&one));
    for index in 0..1_200 {
        let edit = |_: &Values| Ok::<_, std::convert::Infallible>(values(&[("retention.ms", &index.to_string())]));
        let id = one.get("a").expect("created").id;
        one.alter_topic_configs(id, edit).await.expect("altered");
    }
    two.refresh().await.expect("Redis is up");
    assert_eq!(known(&two), known(&one));
}

#[tokio::test]
async fn a_history_that_went_another_way_is_noticed_at_the_same_version() {
    let world = World::new().await;
    let one = world.catalog(1).await;
    create(&one, "kept", 1).await.expect("created");
    create(&one, "lost", 1).await.expect("created");
    // Somebody else makes another change of the same number.
    world.lose_latest("lost").await;
    world.redis.command(&["XTRIM", &world.redis.keyspace().catalog_changes(), "MAXLEN", "0"]).await;
    let two = world.catalog(2).await;
    create(&two, "other", 1).await.expect("created");
    one.refresh().await.expect("Redis is up");
    assert!(one.get("lost").is_none() && one.get("other").is_some());
    assert_eq!(known(&one), known(&two));
}

#[tokio::test]
async fn the_loss_of_the_latest_change_alone_is_noticed() {
    let world = World::new().await;
    let one = world.catalog(1).await;
    create(&one, "kept", 1).await.expect("created");
    create(&one, "lost", 1).await.expect("created");
    world.lose_latest("lost").await;
    world.redis.command(&["XTRIM", &world.redis.keyspace().catalog_changes(), "MAXLEN", "1"]).await;
    let last: redis::streams::StreamRangeReply = redis::from_redis_value(
        world.redis.command(&["XRANGE", &world.redis.keyspace().catalog_changes(), "-", "+"]).await,
    )
    .expect("a stream");
    world.redis.command(&["XDEL", &world.redis.keyspace().catalog_changes(), &last.ids[0].id]).await;
    one.refresh().await.expect("Redis is up");
    assert!(one.get("lost").is_none() && one.get("kept").is_some());
}

#[tokio::test]
async fn brokers_that_change_things_at_once_come_to_know_the_same() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let mut below = |end: usize| rand::Rng::random_range(&mut random, 0..end);
    let world = World::new().await;
    let brokers = [world.catalog(1).await, world.catalog(2).await, world.catalog(3).await];
    for _ in 0..150 {
        let catalog = &brokers[below(3)];
        let name = format!("t{}", below(6));
        let there = catalog.get(&name);
        match (below(4), there) {
            (0, Some(topic)) => drop(catalog.delete(topic.id).await),
            (1, Some(topic)) => drop(catalog.grow(topic.id, topic.partitions + 1).await),
            (2, Some(topic)) => {
                let edit = |_: &Values| Ok::<_, std::convert::Infallible>(values(&[("retention.ms", "5")]));
                drop(catalog.alter_topic_configs(topic.id, edit).await);
            }
            (3, _) => catalog.refresh().await.expect("Redis is up"),
            _ => drop(create(catalog, &name, 1).await),
        }
    }
    let fresh = world.catalog(4).await;
    for catalog in &brokers {
        catalog.refresh().await.expect("Redis is up");
        assert_eq!(known(catalog), known(&fresh), "seed {seed}");
    }
}
