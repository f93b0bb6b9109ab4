//! A Redis Cluster of real servers: topics lie on all shards, slots move under load, shards fail over, and nothing is lost or
//! doubled.

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse, FetchResponse, FindCoordinatorRequest,
        FindCoordinatorResponse, GroupId, MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse,
        OffsetFetchRequest, OffsetFetchResponse, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        metadata_request::MetadataRequestTopic,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::OffsetFetchRequestGroup,
    },
    protocol::StrBytes,
};
use support::{
    Connection, PATIENCE,
    ledger::{
        TOPIC, attempt, batch, commit, create_topic, fetch_request, new_producer, partition_produce_request, read_all,
        read_on, topic, write_until,
    },
    process::{Ended, eventually, weir},
    redis_cluster::Cluster,
    servers::{Broker, OLD, Redis, newer},
};
use weir::storage::redis::{keys::Keyspace, shards::Slot};

const PARTITIONS: i32 = 8;

const CATALOG: &str = "{korvet:catalog}:topics";

/// Held by those who measure pauses.
static QUIET: Mutex<()> = Mutex::new(());

fn broker(url: &str, more: &[&str]) -> Broker {
    let short = ["--override", "redis.response.timeout.ms=3000", "--override", "redis.connect.timeout.ms=1000"];
    Broker::start(&[&["--redis-url", url][..], &short, more].concat()).unwrap_or_else(|ended| panic!("{ended:?}"))
}

fn stream(partition: i32) -> String {
    format!("korvet:stream:{TOPIC}:{partition}")
}

fn create(address: SocketAddr, name: TopicName, durability: &'static str) {
    let mut refusal = None;
    let is_created = || {
        refusal = try_create(address, name.clone(), durability);
        // A machine that is busy may take longer than is waited for what it promises.
        matches!(refusal, None | Some(ResponseError::TopicAlreadyExists))
    };
    assert!(eventually(is_created), "{refusal:?}");
}

fn try_create(address: SocketAddr, name: TopicName, durability: &'static str) -> Option<ResponseError> {
    let config = CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str("weir.durability"))
        .with_value(Some(StrBytes::from_static_str(durability)));
    let new = CreatableTopic::default()
        .with_name(name)
        .with_num_partitions(PARTITIONS)
        .with_replication_factor(1)
        .with_configs(vec![config]);
    let request = CreateTopicsRequest::default().with_timeout_ms(10_000).with_topics(vec![new]);
    let answer: CreateTopicsResponse = Connection::to(address).call(ApiKey::CreateTopics as i16, 7, &request);
    ResponseError::try_from_code(answer.topics[0].error_code)
}

/// The values of a partition, in order: all that consumers may see when it is called.
fn read_partition(address: SocketAddr, partition: i32) -> Vec<u64> {
    let mut connection = Connection::to(address);
    let (mut offset, mut end, mut values) = (0, None, Vec::new());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = fetch_request(partition, offset, -1);
        let answer: FetchResponse = connection.call(ApiKey::Fetch as i16, 12, &request);
        let got = &answer.responses[0].partitions[0];
        if got.error_code != 0 {
            assert!(Instant::now() < deadline, "partition {partition} at {offset}: error {}", got.error_code);
            thread::sleep(Duration::from_millis(10));
            continue;
        }
        // It may be written meanwhile.
        let end = *end.get_or_insert(got.high_watermark);
        read_on(got.records.clone(), &mut offset, &mut values);
        if offset >= end {
            return values;
        }
    }
}

/// How an idempotent producer with acks=all fared.
#[derive(Debug, Default)]
struct Written {
    records: u64,
    /// The longest time between two acknowledgements.
    longest_pause: Duration,
}

/// Produces numbered records to one partition until `stop`, and tries each again until it is acknowledged.
fn write_partition(address: SocketAddr, partition: i32, stop: &AtomicBool) -> Written {
    let producer = new_producer(&mut Connection::to(address));
    let mut written = Written::default();
    let mut acknowledged = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let request = partition_produce_request(partition, batch(producer, written.records, 3));
        loop {
            match attempt(address, &request).map(ResponseError::try_from_code) {
                Some(None | Some(ResponseError::DuplicateSequenceNumber)) => break,
                Some(Some(error)) if !error.is_retriable() => panic!("partition {partition}: {error:?}"),
                _ => thread::sleep(Duration::from_millis(5)),
            }
            assert!(acknowledged.elapsed() < PATIENCE, "partition {partition} does not come back");
        }
        written.longest_pause = written.longest_pause.max(acknowledged.elapsed());
        acknowledged = Instant::now();
        written.records += 3;
        thread::sleep(Duration::from_millis(10));
    }
    written
}

fn refusal(url: &str) -> Ended {
    weir(&["--check", "--redis-url", url, "--override", "log.level=error"])
}

#[test]
fn topics_and_groups_lie_on_all_shards_and_brokers_hear_of_each_other() {
    let cluster = Cluster::start(false);
    for key in ["", "somekey", "korvet:stream:a:0", "{korvet:stream:a:0}:state", "korvet:group:{%}:offsets", "a{}{b}"] {
        let told: u16 = redis::from_redis_value(cluster.nodes[0].cluster(&["KEYSLOT", key])).expect("a slot");
        assert_eq!(Slot::of(key.as_bytes()).to_string(), told.to_string(), "{key:?}");
    }
    let one = broker(&cluster.url(), &["--node-id", "1"]);
    // The first of the addresses is nobody's.
    let seeds = format!("redis://127.0.0.1:1,127.0.0.1:{}", cluster.nodes[2].redis.port);
    let two = broker(&seeds, &["--node-id", "2"]);
    create(one.address, topic(), "written");
    let knows = |broker: &Broker| {
        let wanted = MetadataRequestTopic::default().with_name(Some(topic()));
        let request = MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(false);
        let answer: MetadataResponse = Connection::to(broker.address).call(ApiKey::Metadata as i16, 9, &request);
        answer.topics[0].partitions.iter().map(|partition| partition.leader_id.0).collect::<Vec<_>>()
    };
    let mut leaders = Vec::new();
    let began = Instant::now();
    assert!(eventually(|| {
        leaders = knows(&two);
        !leaders.is_empty()
    }));
    assert!(began.elapsed() < Duration::from_secs(3), "the other broker heard of the topic by chance only");
    let led_by = |partition: i32| {
        let at = usize::try_from(partition).expect("it counts");
        if leaders[at] == 1 { one.address } else { two.address }
    };
    for partition in 0..PARTITIONS {
        let request = partition_produce_request(partition, batch(-1, 0, 10));
        let mut code = None;
        let taken = eventually(|| {
            code = attempt(led_by(partition), &request);
            code == Some(0)
        });
        assert!(taken, "partition {partition}: {code:?} {}", one.log());
    }
    for partition in 0..PARTITIONS {
        assert_eq!(read_partition(led_by(partition), partition), (0..10).collect::<Vec<u64>>());
    }
    for node in &cluster.nodes {
        let streams = node.keys().into_iter().filter(|key| key.starts_with("korvet:stream:")).count();
        assert!(streams > 0, "a shard has no partition");
    }
    commit_and_read_back(&[one.address, two.address], &cluster);
}

/// Twenty groups commit, all at once, and read what they committed.
fn commit_and_read_back(addresses: &[SocketAddr], cluster: &Cluster) {
    let coordinator = |group: &str| {
        let request =
            FindCoordinatorRequest::default().with_coordinator_keys(vec![StrBytes::from_string(group.to_owned())]);
        let mut found = None;
        assert!(eventually(|| {
            let answer: FindCoordinatorResponse =
                Connection::to(addresses[0]).call(ApiKey::FindCoordinator as i16, 4, &request);
            let coordinator = &answer.coordinators[0];
            found = addresses.iter().find(|address| i32::from(address.port()) == coordinator.port).copied();
            coordinator.error_code == 0
        }));
        found.expect("one of the brokers")
    };
    thread::scope(|scope| {
        for number in 0..20 {
            scope.spawn(move || {
                let group = format!("group-{number}");
                let address = coordinator(&group);
                let partition =
                    OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(number);
                let commit = OffsetCommitRequest::default()
                    .with_group_id(GroupId(StrBytes::from_string(group.clone())))
                    .with_generation_id_or_member_epoch(-1)
                    .with_topics(vec![
                        OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition]),
                    ]);
                let mut code = None;
                let committed = eventually(|| {
                    let answer: OffsetCommitResponse =
                        Connection::to(address).call(ApiKey::OffsetCommit as i16, 8, &commit);
                    code = Some(answer.topics[0].partitions[0].error_code);
                    code == Some(0)
                });
                assert!(committed, "{group}: {code:?}");
                let wanted = OffsetFetchRequestGroup::default().with_group_id(GroupId(StrBytes::from_string(group)));
                let request = OffsetFetchRequest::default().with_groups(vec![wanted.with_topics(None)]);
                let answer: OffsetFetchResponse = Connection::to(address).call(ApiKey::OffsetFetch as i16, 8, &request);
                assert_eq!(answer.groups[0].topics[0].partitions[0].committed_offset, number);
            });
        }
    });
    for node in &cluster.nodes {
        let groups = node.keys().into_iter().filter(|key| key.starts_with("korvet:group:")).count();
        assert!(groups > 0, "a shard has no group");
    }
}

#[test]
fn a_slot_moves_under_load_also_to_a_new_node_and_nothing_is_lost_or_doubled() {
    let mut cluster = Cluster::start(false);
    let broker = broker(&cluster.url(), &[]);
    create_topic(broker.address, &[]);
    let producer = new_producer(&mut Connection::to(broker.address));
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = thread::spawn({
        let (stop, acknowledged, address) = (stop.clone(), acknowledged.clone(), broker.address);
        move || write_until(address, producer, &stop, &acknowledged)
    });
    let gets_on = || {
        let before = acknowledged.load(Ordering::Relaxed);
        let gets_on = eventually(|| acknowledged.load(Ordering::Relaxed) > before + 200);
        assert!(gets_on, "{}", broker.log());
    };
    gets_on();
    let new = cluster.add();
    let slot = Slot::of(stream(0).as_bytes());
    let mut at = cluster.master_of(&stream(0));
    for to in [new, (at + 1) % 3, (at + 2) % 3, at] {
        cluster.move_slot(slot, at, to);
        at = to;
        gets_on();
        assert!(cluster.nodes[to].keys().contains(&stream(0)));
    }
    let libraries: Vec<redis::Value> = redis::cmd("FUNCTION")
        .arg("LIST")
        .query(&mut cluster.nodes[new].redis.connection())
        .expect("the new node's libraries");
    assert!(!libraries.is_empty(), "Functions are loaded on a new node when it is needed");
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().expect("no panic");
    assert_eq!(read_all(broker.address), (0..written).collect::<Vec<_>>());
}

/// A producer for each partition, until the end.
struct Load<'a> {
    broker: &'a Broker,
    stop: Arc<AtomicBool>,
    writers: Vec<thread::JoinHandle<Written>>,
}

impl<'a> Load<'a> {
    /// Returns when all partitions are led, and have been written.
    fn on(broker: &'a Broker) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let write = |partition| {
            let (stop, address) = (stop.clone(), broker.address);
            thread::spawn(move || write_partition(address, partition, &stop))
        };
        let load = Self { broker, writers: (0..PARTITIONS).map(write).collect(), stop };
        load.gets_on();
        load
    }

    /// Waits until every partition has more records than now.
    fn gets_on(&self) {
        let written = |partition| read_partition(self.broker.address, partition).len();
        let before: Vec<usize> = (0..PARTITIONS).map(written).collect();
        for (partition, before) in (0..PARTITIONS).zip(before) {
            assert!(eventually(|| written(partition) > before), "partition {partition}: {}", self.broker.log());
        }
    }

    /// How each has fared; every record that was acknowledged is there once, in order.
    fn end(self) -> Vec<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let written: Vec<Written> = self.writers.into_iter().map(|writer| writer.join().expect("no panic")).collect();
        for (partition, written) in (0..PARTITIONS).zip(&written) {
            let values = read_partition(self.broker.address, partition);
            assert_eq!(values, (0..written.records).collect::<Vec<_>>(), "partition {partition}");
        }
        written
    }
}

/// Kills the master that has `key` while every partition is written, and tells how each fared, with whether it was that
/// master's.
fn strike(program: &str, durability: &'static str, key: &str) -> Vec<(bool, Written)> {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let mut cluster = Cluster::run(program, &[], true);
    let broker = broker(&cluster.url(), &[]);
    create(broker.address, topic(), durability);
    let victim = cluster.master_of(key);
    let struck: Vec<bool> = (0..PARTITIONS).map(|partition| cluster.master_of(&stream(partition)) == victim).collect();
    assert!(struck.contains(&true) && struck.contains(&false));
    let load = Load::on(&broker);
    cluster.nodes[victim].redis.kill();
    let promoted = cluster.master_of(key);
    assert_ne!(promoted, victim);
    // As a replica of the promoted one: what is promised asks for one.
    cluster.nodes[victim].redis.start_again();
    load.gets_on();
    struck.into_iter().zip(load.end()).collect()
}

fn assert_only_the_struck_paused(written: &[(bool, Written)]) {
    let pauses = |of_struck: bool| {
        written.iter().filter(move |(struck, _)| *struck == of_struck).map(|(_, written)| written.longest_pause)
    };
    let (shortest, longest) = (pauses(true).min(), pauses(false).max());
    // Milliseconds against seconds, were the machine not busy with other tests.
    assert!(longest < shortest, "those of other shards paused for {longest:?}, those of the lost one {shortest:?}");
    let least =
        |of_struck: bool| written.iter().filter(move |(struck, _)| *struck == of_struck).map(|(_, w)| w.records);
    assert!(least(false).min() > least(true).max(), "{written:?}");
}

/// The place of the master that has a key, as [`Cluster::start`] shares the slots out.
fn shard(key: &str) -> usize {
    let slot: usize = Slot::of(key.as_bytes()).to_string().parse().expect("a number");
    slot.min(16_382) / 5_461
}

/// Not the shard of the catalog.
fn stream_elsewhere() -> String {
    let key = (0..PARTITIONS).map(stream).find(|key| shard(key) != shard(CATALOG));
    key.expect("partitions lie on all shards")
}

#[test]
fn when_a_shard_is_lost_only_its_partitions_pause_and_nothing_acknowledged_is_lost() {
    assert_only_the_struck_paused(&strike(OLD, "replicas:1", &stream_elsewhere()));
}

#[test]
fn when_the_shard_of_the_catalog_is_lost_the_others_partitions_go_on() {
    assert_only_the_struck_paused(&strike(newer(), "replicas:1", CATALOG));
}

#[test]
fn a_planned_failover_and_a_master_that_hangs_lose_nothing_under_load() {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::start(true);
    let broker = broker(&cluster.url(), &[]);
    create(broker.address, topic(), "replicas:1");
    let load = Load::on(&broker);
    let is_promoted = |shard: usize| eventually(|| cluster.nodes[shard + 3].redis.is_master());
    cluster.nodes[3].cluster(&["FAILOVER"]);
    assert!(is_promoted(0));
    load.gets_on();
    cluster.nodes[1].redis.signal("STOP");
    assert!(is_promoted(1));
    cluster.nodes[1].redis.signal("CONT");
    load.gets_on();
    load.end();
}

#[test]
fn a_topic_that_promises_replicas_is_not_acknowledged_before_they_have_it_too() {
    let cluster = Cluster::start(true);
    let broker = broker(&cluster.url(), &[]);
    // Of the shard that has the catalog.
    let replica = &cluster.nodes[shard(CATALOG) + 3].redis;
    replica.signal("STOP");
    let answered = try_create(broker.address, topic(), "replicas:1");
    replica.signal("CONT");
    assert_eq!(answered, Some(ResponseError::RequestTimedOut));
    create(broker.address, TopicName(StrBytes::from_static_str("another")), "replicas:1");
    assert!(eventually(|| attempt(broker.address, &partition_produce_request(0, batch(-1, 0, 1))) == Some(0)));
}

#[test]
fn a_master_without_a_replica_is_waited_for_and_where_it_comes_back_empty_that_is_told_and_its_partitions_go_on() {
    let mut cluster = Cluster::start(false);
    let broker = broker(&cluster.url(), &["--override", "weir.redis.memory.high.watermark=0.5"]);
    create(broker.address, topic(), "memory");
    let load = Load::on(&broker);
    let victim = shard(&stream_elsewhere());
    let is_struck = |partition: i32| shard(&stream(partition)) == victim;
    let group = ["g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7"].into_iter().find(|group| {
        let keyspace = Keyspace::new("korvet").expect("a legal keyspace");
        shard(&keyspace.group(&weir::model::GroupId::new(group))) == victim
    });
    let group = group.expect("one of them lies there");
    assert!(eventually(|| commit(broker.address, group, 2).is_none()));
    let producer = new_producer(&mut Connection::to(broker.address));
    cluster.nodes[victim].redis.restart();
    load.gets_on();
    let written = load.end();
    assert!(!broker.log().contains("they are lost") && !broker.log().contains("without a commit"), "{}", broker.log());

    cluster.nodes[victim].redis.kill();
    let files = cluster.nodes[victim].redis.folder.path().join("appendonlydir");
    std::fs::remove_dir_all(files).expect("its files are there");
    cluster.nodes[victim].redis.start_again();
    for (partition, written) in (0..PARTITIONS).zip(&written) {
        let request = partition_produce_request(partition, batch(producer, 700, 3));
        assert!(eventually(|| attempt(broker.address, &request) == Some(0)), "{partition}: {}", broker.log());
        let told =
            format!("partition={partition} first_lost=0 last_lost={} records={}", written.records - 1, written.records);
        assert_eq!(broker.log().matches(&told).count(), usize::from(is_struck(partition)), "{}", broker.log());
        let kept = if is_struck(partition) { 0 } else { written.records };
        assert_eq!(read_partition(broker.address, partition), (0..kept).chain(700..703).collect::<Vec<_>>());
    }
    let told = format!("group={group} topic={TOPIC} partition=0 committed=2 left=None");
    assert!(eventually(|| broker.log().contains(&told)), "{}", broker.log());

    // A shard that hangs does not hide that another one is full.
    let full = &cluster.nodes[shard(CATALOG)].redis;
    let partition = (0..PARTITIONS).find(|partition| shard(&stream(*partition)) == shard(CATALOG));
    let request = partition_produce_request(partition.expect("partitions lie on all shards"), batch(-1, 0, 1));
    cluster.nodes[victim].redis.signal("STOP");
    let used =
        full.info("memory").lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse::<u64>().ok());
    full.config("maxmemory", &(used.expect("a number") * 3 / 2).to_string());
    let refused = Some(ResponseError::NotEnoughReplicas.code());
    let is_refused = eventually(|| attempt(broker.address, &request) == refused);
    cluster.nodes[victim].redis.signal("CONT");
    assert!(is_refused, "{}", broker.log());
}

#[test]
fn a_cluster_that_weir_can_not_use_is_refused_with_the_remedy() {
    let redis = Redis::start(&[]);
    let several = refusal(&format!("redis://127.0.0.1:1,127.0.0.1:{}", redis.port));
    assert!(several.stderr.contains("is in none: give one address, or a cluster's nodes"), "{several:?}");
    let cluster = Cluster::start(false);
    let database = refusal(&format!("{}/1", cluster.url()));
    assert!(database.stderr.contains("a Redis Cluster has no databases"), "{database:?}");
    for node in &cluster.nodes {
        node.redis.config("cluster-require-full-coverage", "yes");
    }
    let warned = refusal(&cluster.url());
    assert!(warned.stdout.contains("set cluster-require-full-coverage to no"), "{warned:?}");
    assert!(warned.stdout.contains("a cluster of 3 shards"), "{warned:?}");
    cluster.nodes[1].redis.config("maxmemory-policy", "allkeys-lru");
    let evicting = refusal(&cluster.url());
    let node = format!("its node 127.0.0.1:{}: its maxmemory-policy is allkeys-lru", cluster.nodes[1].redis.port);
    assert!(evicting.stderr.contains(&node), "{evicting:?}");
}
