//! The dial on real servers: what is acknowledged under a level survives what the level promises, what can't be promised is refused,
//! and consumers see nothing that is not safe.

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, ListOffsetsRequest,
        ListOffsetsResponse, ProduceResponse,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        list_offsets_request,
    },
    protocol::StrBytes,
};
use support::{
    Connection, PATIENCE, Weir,
    ledger::{
        attempt, batch, commit, committed, create_topic, new_producer, produce_request, read_all, topic,
        try_create_topic, write_until,
    },
    process::{eventually, redis_server_in, signal, weir},
    servers::{Broker, OLD, Redis, newer},
};

/// The end of the log that consumers are told.
fn high_watermark(address: SocketAddr) -> i64 {
    const LATEST: i64 = -1;
    offset_at(address, LATEST)
}

fn offset_at(address: SocketAddr, timestamp: i64) -> i64 {
    let partition = list_offsets_request::ListOffsetsPartition::default().with_timestamp(timestamp);
    let asked = list_offsets_request::ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
    let answer: ListOffsetsResponse = Connection::to(address).call(ApiKey::ListOffsets as i16, 7, &request);
    let partition = &answer.topics[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    partition.offset
}

/// Sends records `first..first + count` once.
fn send(address: SocketAddr, producer: i64, first: u64, count: u64, acks: i16) -> Result<i64, Option<ResponseError>> {
    let request = produce_request(batch(producer, first, count)).with_acks(acks).with_timeout_ms(1_500);
    let answer: ProduceResponse = Connection::to(address).call(ApiKey::Produce as i16, 9, &request);
    let partition = &answer.responses[0].partition_responses[0];
    match partition.error_code {
        0 => Ok(partition.base_offset),
        code => Err(ResponseError::try_from_code(code)),
    }
}

/// Strikes again and again while an idempotent producer writes with acks=all, then compares what is there with what was
/// acknowledged.
fn nothing_is_lost(address: SocketAddr, strikes: u32, progress: u64, mut strike: impl FnMut(u32)) {
    let producer = new_producer(&mut Connection::to(address));
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writer = thread::spawn({
        let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
        move || write_until(address, producer, &stop, &acknowledged)
    });
    for number in 0..strikes {
        let before = acknowledged.load(Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(60);
        while acknowledged.load(Ordering::Relaxed) < before + progress {
            assert!(!writer.is_finished(), "the writer gave up");
            assert!(Instant::now() < deadline, "the writer does not get on");
            thread::sleep(Duration::from_millis(2));
        }
        strike(number);
    }
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().expect("the writer's checks hold");
    assert_eq!(read_all(address), (0..written).collect::<Vec<_>>(), "every acknowledged record once, in order");
}

fn killed_redis_loses_nothing(program: &str, appendfsync: &str, level: &'static str, strikes: u32, progress: u64) {
    let mut redis = Redis::run(program, &["--appendonly", "yes", "--appendfsync", appendfsync]);
    let broker = Broker::start(&["--redis-url", &redis.url()]).expect("a broker");
    create_topic(broker.address, &[("weir.durability", level), ("weir.layout", "batch")]);
    nothing_is_lost(broker.address, strikes, progress, |_| redis.restart());
}

#[test]
fn written_survives_kill_9_where_redis_writes_before_it_answers() {
    killed_redis_loses_nothing(OLD, "no", "written", 3, 300);
    killed_redis_loses_nothing(newer(), "no", "written", 3, 300);
}

#[test]
fn fsync_survives_kill_9_where_redis_syncs_before_it_answers() {
    killed_redis_loses_nothing(OLD, "always", "fsync", 3, 300);
    killed_redis_loses_nothing(newer(), "always", "fsync", 3, 300);
}

#[test]
fn fsync_survives_kill_9_where_redis_is_waited_for() {
    // Redis syncs once a second, and each record waits for that.
    killed_redis_loses_nothing(newer(), "everysec", "fsync", 2, 5);
}

#[test]
fn the_embedded_redis_keeps_fsync_through_kills_and_rewrites_of_its_file() {
    let weir = Weir::start(&["--override", "weir.durability=fsync"]);
    create_topic(weir.address, &[]);
    let folder = weir.data_dir();
    nothing_is_lost(weir.address, 6, 200, |number| match number % 3 {
        0 => signal(redis_server_in(&folder).expect("a running Redis"), "KILL"),
        _ => {
            let url = format!("redis+unix://{}", folder.join("redis.sock").display());
            let mut connection = redis::Client::open(url).and_then(|client| client.get_connection()).expect("Redis");
            // It may be writing already.
            let _ = redis::cmd("BGREWRITEAOF").exec(&mut connection);
        }
    });
}

/// A master with one replica, and a broker with a topic that waits for it.
fn replicated(program: &str) -> (Redis, Redis, Broker) {
    let master = Redis::run(program, &[]);
    let replica = master.replica();
    let broker = Broker::start(&["--redis-url", &master.url()]).expect("a broker");
    create_topic(broker.address, &[("weir.durability", "replicas:1")]);
    (master, replica, broker)
}

fn a_paused_replica_holds_up_acks_all_alone(program: &str) {
    let (_master, replica, broker) = replicated(program);
    let (safe, fast) =
        (new_producer(&mut Connection::to(broker.address)), new_producer(&mut Connection::to(broker.address)));
    assert_eq!(send(broker.address, safe, 0, 3, -1), Ok(0));
    assert_eq!(high_watermark(broker.address), 3);
    replica.signal("STOP");
    assert_eq!(send(broker.address, safe, 3, 2, -1), Err(Some(ResponseError::RequestTimedOut)));
    assert_eq!(send(broker.address, safe, 3, 2, -1), Err(Some(ResponseError::RequestTimedOut)), "the retry too");
    assert_eq!(send(broker.address, fast, 0, 1, 1), Ok(5), "acks=1 goes on");
    assert_eq!(high_watermark(broker.address), 3, "consumers do not see what may be lost");
    replica.signal("CONT");
    let resent = || send(broker.address, safe, 3, 2, -1);
    let mut answer = resent();
    assert!(eventually(|| {
        answer = resent();
        answer.is_ok()
    }));
    assert_eq!(answer, Ok(3), "the retry is the first attempt's batch");
    assert!(eventually(|| high_watermark(broker.address) == 6));
    assert_eq!(read_all(broker.address), [0, 1, 2, 3, 4, 0]);
}

#[test]
fn while_the_replica_is_paused_acks_all_errs_acks_1_goes_on_and_nothing_is_doubled() {
    a_paused_replica_holds_up_acks_all_alone(OLD);
    a_paused_replica_holds_up_acks_all_alone(newer());
}

#[test]
fn the_largest_timestamp_is_looked_for_among_what_consumers_see() {
    const MAX_TIMESTAMP: i64 = -3;
    let (_master, replica, broker) = replicated(OLD);
    assert_eq!(high_watermark(broker.address), 0);
    replica.signal("STOP");
    assert_eq!(send(broker.address, -1, 0, 1, 1), Ok(0));
    assert_eq!(
        offset_at(broker.address, MAX_TIMESTAMP),
        -1,
        "as Kafka where it is behind the last that may be fetched"
    );
    replica.signal("CONT");
    assert!(eventually(|| offset_at(broker.address, MAX_TIMESTAMP) == 0));
}

#[test]
fn without_the_replica_acks_all_is_refused_before_the_append_and_a_restarted_broker_still_takes_acks_1() {
    let (master, mut replica, mut broker) = replicated(OLD);
    let (safe, fast) =
        (new_producer(&mut Connection::to(broker.address)), new_producer(&mut Connection::to(broker.address)));
    assert_eq!(send(broker.address, safe, 0, 1, -1), Ok(0));
    replica.kill();
    assert!(eventually(|| send(broker.address, safe, 1, 1, -1) == Err(Some(ResponseError::NotEnoughReplicas))));
    let length = || redis::cmd("XLEN").arg("korvet:stream:ledger:0").query::<i64>(&mut master.connection());
    let before = length().expect("a stream");
    assert_eq!(send(broker.address, safe, 1, 1, -1), Err(Some(ResponseError::NotEnoughReplicas)));
    assert_eq!(length().expect("a stream"), before, "nothing is stored");
    signal(broker.child.id(), "TERM");
    support::process::wait(&mut broker.child);
    let broker = Broker::start(&["--redis-url", &master.url()]).expect("a broker starts without the replica");
    assert!(send(broker.address, fast, 0, 1, 1).is_ok());
    replica.start_again();
    let resent = || send(broker.address, safe, 1, 1, -1);
    assert!(eventually(|| resent().is_ok()), "{:?}", resent());
    let read = read_all(broker.address);
    assert_eq!(read.iter().filter(|value| **value == 1).count(), 1, "{read:?}");
}

#[test]
fn a_first_batch_that_was_refused_for_want_of_a_replica_is_not_overtaken() {
    let (_master, mut replica, broker) = replicated(OLD);
    let (late, other) =
        (new_producer(&mut Connection::to(broker.address)), new_producer(&mut Connection::to(broker.address)));
    replica.kill();
    let first = || send(broker.address, late, 0, 1, -1);
    assert!(eventually(|| send(broker.address, other, 0, 1, -1) == Err(Some(ResponseError::NotEnoughReplicas))));
    assert_eq!(first(), Err(Some(ResponseError::NotEnoughReplicas)));
    replica.start_again();
    assert!(eventually(|| send(broker.address, other, 0, 1, -1).is_ok()));
    let second = || send(broker.address, late, 1, 1, -1);
    assert_eq!(second(), Err(Some(ResponseError::KafkaStorageError)), "it is to come again");
    assert_eq!((first(), second()), (Ok(1), Ok(2)));
    assert_eq!(read_all(broker.address), [0, 0, 1]);
}

/// Sets a config of the topic, if it can be kept.
fn alter(address: SocketAddr, name: &'static str, value: &'static str) -> Option<ResponseError> {
    const TOPIC: i8 = 2;
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_static_str(name))
        .with_value(Some(StrBytes::from_static_str(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(topic().0)
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer: IncrementalAlterConfigsResponse =
        Connection::to(address).call(ApiKey::IncrementalAlterConfigs as i16, 1, &request);
    ResponseError::try_from_code(answer.responses[0].error_code)
}

#[test]
fn min_insync_replicas_above_what_is_connected_refuses_acks_all_alone() {
    let (master, mut first, broker) = replicated(OLD);
    let insync = |replicas| alter(broker.address, "min.insync.replicas", replicas);
    assert_eq!(insync("3"), Some(ResponseError::InvalidConfig), "there is one replica");
    let _second = master.replica();
    assert!(eventually(|| insync("3").is_none()));
    let sent = |acks| send(broker.address, -1, 0, 1, acks).map(|_| ());
    assert!(eventually(|| sent(-1) == Ok(())), "Redis and two replicas are three");
    first.kill();
    let not_enough = || sent(-1) == Err(Some(ResponseError::NotEnoughReplicas));
    assert!(eventually(not_enough));
    assert_eq!(sent(1), Ok(()));
    assert!(not_enough(), "for as long as one is missing");
    assert_eq!(insync("2"), None);
    assert!(eventually(|| sent(-1) == Ok(())), "one replica is enough for this and for replicas:1");
}

#[test]
fn a_level_that_redis_can_t_keep_is_refused_with_the_remedy_and_taken_once_it_can() {
    const INVALID_CONFIG: i16 = 40;
    let redis = Redis::start(&[]);
    let broker = Broker::start(&["--redis-url", &redis.url()]).expect("a broker");
    for (level, remedy) in [
        ("written", "set `appendonly yes` and `appendfsync no` or `always`"),
        ("fsync", "set `appendonly yes` and `appendfsync always`"),
        ("replicas:2", "0 of 2 replicas are connected: connect more replicas to Redis"),
        ("replicas:0", "must be memory, written, fsync or replicas:N"),
    ] {
        let (code, message) = try_create_topic(broker.address, &[("weir.durability", level)]).expect_err("a refusal");
        assert_eq!(code, INVALID_CONFIG, "{level}: {message}");
        assert!(message.contains(remedy), "{level}: {message}");
    }
    redis.config("appendfsync", "always");
    redis.config("appendonly", "yes");
    assert!(eventually(|| try_create_topic(broker.address, &[("weir.durability", "fsync")]).is_ok()));
    let producer = new_producer(&mut Connection::to(broker.address));
    assert_eq!(send(broker.address, producer, 0, 1, -1), Ok(0));
    // What it kept it does not keep any more.
    redis.config("appendfsync", "no");
    assert!(eventually(|| send(broker.address, producer, 1, 1, -1) == Err(Some(ResponseError::KafkaStorageError))));
    assert!(eventually(|| broker.log().contains("Redis is set up otherwise than before")), "{}", broker.log());
    redis.config("appendfsync", "always");
    assert!(eventually(|| send(broker.address, producer, 1, 1, -1).is_ok()));
}

#[test]
fn a_broker_does_not_start_with_a_promise_that_its_redis_can_t_keep() {
    let redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "no"]);
    for setting in ["weir.durability=fsync", "weir.durability.floor=fsync"] {
        let ended = weir(&["--check", "--redis-url", &redis.url(), "--override", setting]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("can't be kept: Redis leaves syncing to the system"), "{ended:?}");
        assert!(ended.stderr.contains("set `appendonly yes` and `appendfsync always`"), "{ended:?}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let arguments = ["--check", "--data-dir", data.to_str().expect("text"), "--override"];
    let ended = weir(&[&arguments[..], &["weir.durability=replicas:1"]].concat());
    assert!(ended.stderr.contains("the embedded Redis has no replicas"), "{ended:?}");
    assert_eq!(weir(&[&arguments[..], &["weir.durability.floor=fsync"]].concat()).code, Some(0));
}

#[test]
fn a_topic_that_asks_for_nothing_waits_for_nobody() {
    let (_master, replica, broker) = replicated(OLD);
    replica.signal("STOP");
    let request = produce_request(batch(-1, 0, 1)).with_acks(-1);
    let deadline = Instant::now() + PATIENCE;
    assert_eq!(attempt(broker.address, &request), Some(ResponseError::RequestTimedOut.code()));
    let redis = Redis::start(&[]);
    let plain = Broker::start(&["--redis-url", &redis.url()]).expect("a broker");
    create_topic(plain.address, &[("weir.durability", "memory"), ("min.insync.replicas", "3")]);
    assert_eq!(attempt(plain.address, &request), Some(0), "min.insync.replicas counts with replicas:N only");
    assert!(Instant::now() < deadline);
}

/// A master with one replica, and a broker whose groups are kept on both.
fn replicated_groups(program: &str) -> (Redis, Redis, Broker) {
    let master = Redis::run(program, &[]);
    let replica = master.replica();
    let broker = Broker::start(&["--redis-url", &master.url(), "--override", "weir.durability=replicas:1"]);
    let broker = broker.expect("a broker");
    create_topic(broker.address, &[]);
    assert!(eventually(|| commit(broker.address, "g", 3).is_none()), "the replica is there");
    (master, replica, broker)
}

fn a_commit_without_a_replica_is_not_told(program: &str) {
    let (_master, replica, broker) = replicated_groups(program);
    replica.signal("STOP");
    assert!(commit(broker.address, "g", 9).is_some(), "nobody but the master has it");
    // It is there, and would be gone after a failover.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let (error, offset) = committed(broker.address, "g");
        assert!(error != 0 && offset == -1, "{offset} is told, error {error}");
    }
    replica.signal("CONT");
    assert!(eventually(|| committed(broker.address, "g") == (0, 9)), "the replica has it now");
}

#[test]
fn a_commit_that_a_failover_could_take_back_is_told_to_nobody() {
    a_commit_without_a_replica_is_not_told(OLD);
    a_commit_without_a_replica_is_not_told(newer());
}

#[test]
fn groups_commit_to_replicas_while_redis_is_out_of_memory() {
    for program in [OLD, newer()] {
        let (master, _replica, broker) = replicated_groups(program);
        master.config("maxmemory", "1");
        assert_eq!(commit(broker.address, "g", 9), None);
        assert_eq!(committed(broker.address, "g"), (0, 9));
    }
}

#[test]
fn a_group_stays_while_its_commits_are_refused_for_want_of_a_replica() {
    let (_master, mut replica, broker) = replicated_groups(OLD);
    replica.kill();
    assert!(eventually(|| broker.log().contains("the number of Redis' replicas has changed")), "{}", broker.log());
    assert!(commit(broker.address, "g", 9).is_some(), "there is no replica");
    assert_eq!(committed(broker.address, "g"), (0, 3), "what was promised is still told");
    replica.start_again();
    assert!(eventually(|| commit(broker.address, "g", 9).is_none()), "{}", broker.log());
}
