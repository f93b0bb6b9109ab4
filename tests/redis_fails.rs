//! Redis refuses, restarts, hangs and answers half: clients are told what makes them try again, nothing is lost or doubled, and Weir
//! goes on by itself when Redis does.

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
        ApiKey, FetchResponse, JoinGroupRequest, JoinGroupResponse, ListOffsetsRequest, ListOffsetsResponse,
        ProduceResponse, join_group_request::JoinGroupRequestProtocol, list_offsets_request,
    },
    protocol::StrBytes,
};
use support::{
    Connection, PATIENCE,
    ledger::{
        attempt, batch, commit, committed, create_topic, end_of_epoch, fetch_request, new_producer, produce_request,
        read_all, topic, write_until,
    },
    process::eventually,
    proxy::{Proxy, Weather},
    servers::{Broker, OLD, Redis, newer},
};

const SHORT: [&str; 4] = ["--override", "redis.response.timeout.ms=700", "--override", "redis.connect.timeout.ms=700"];

/// Sends one batch with acks=all.
fn produce(address: SocketAddr, producer: i64, first: u64) -> Result<i64, ResponseError> {
    let request = produce_request(batch(producer, first, 3)).with_timeout_ms(1_500);
    let answer: ProduceResponse = Connection::to(address).call(ApiKey::Produce as i16, 9, &request);
    let partition = &answer.responses[0].partition_responses[0];
    match ResponseError::try_from_code(partition.error_code) {
        None => Ok(partition.base_offset),
        Some(error) => Err(error),
    }
}

/// What a producer tries again after, and a broker answers while its Redis is not well, or has been away for longer than the broker's
/// registration lasts.
fn is_tried_again(error: ResponseError) -> bool {
    matches!(
        error,
        ResponseError::KafkaStorageError
            | ResponseError::NotEnoughReplicas
            | ResponseError::NotLeaderOrFollower
            | ResponseError::RequestTimedOut
    )
}

/// The request's name, how it is asked, and the errors after which clients try again.
type Asked<'a> = (&'a str, fn(SocketAddr) -> i16, &'a [ResponseError]);

/// What a consumer and its group ask, each with what clients of Kafka try again after; none where all is well.
fn consumers_are_told(address: SocketAddr, state: &str) {
    const BOUND: Duration = Duration::from_secs(5);
    const HELD_BACK: Duration = Duration::from_millis(200);
    let of_partitions = [ResponseError::KafkaStorageError, ResponseError::NotLeaderOrFollower];
    let of_groups = [
        ResponseError::CoordinatorNotAvailable,
        ResponseError::CoordinatorLoadInProgress,
        ResponseError::NotCoordinator,
    ];
    let asked: [Asked<'_>; 6] = [
        ("Fetch", fetch, &of_partitions),
        ("ListOffsets", list_offsets, &of_partitions),
        ("OffsetForLeaderEpoch", |address| end_of_epoch(address, 0).0, &of_partitions),
        ("JoinGroup", join, &of_groups),
        ("OffsetFetch", |address| committed(address, "g").0, &of_groups),
        // A commit may be told too that nobody knows what became of it.
        (
            "OffsetCommit",
            |address| commit(address, "g", 3).map_or(0, |error| error.code()),
            &[
                ResponseError::CoordinatorNotAvailable,
                ResponseError::CoordinatorLoadInProgress,
                ResponseError::NotCoordinator,
                ResponseError::RequestTimedOut,
            ],
        ),
    ];
    for (name, ask, tried_again) in asked {
        let began = Instant::now();
        let told = ResponseError::try_from_code(ask(address));
        assert!(told.is_none_or(|error| tried_again.contains(&error)), "{state}: {name} is told {told:?}");
        assert!(began.elapsed() < BOUND, "{state}: {name} took {:?}", began.elapsed());
        // librdkafka asks again at once after an error here.
        let is_held_back = told.is_some() && name == "OffsetForLeaderEpoch";
        assert!(!is_held_back || began.elapsed() >= HELD_BACK, "{state}: {name} is told {told:?} at once");
    }
}

fn fetch(address: SocketAddr) -> i16 {
    let answer: FetchResponse = Connection::to(address).call(ApiKey::Fetch as i16, 12, &fetch_request(0, 0, -1));
    answer.responses[0].partitions[0].error_code
}

fn list_offsets(address: SocketAddr) -> i16 {
    let partition = list_offsets_request::ListOffsetsPartition::default().with_timestamp(-1);
    let asked = list_offsets_request::ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
    let answer: ListOffsetsResponse = Connection::to(address).call(ApiKey::ListOffsets as i16, 7, &request);
    answer.topics[0].partitions[0].error_code
}

/// As the one member of a group that is new each time.
fn join(address: SocketAddr) -> i16 {
    static JOINED: AtomicU64 = AtomicU64::new(0);
    let group = format!("members-{}", JOINED.fetch_add(1, Ordering::Relaxed));
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"))
        .with_metadata(bytes::Bytes::from_static(b"\0\0\0\0\0\0\xff\xff\xff\xff"));
    let request = JoinGroupRequest::default()
        .with_group_id(StrBytes::from_string(group).into())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]);
    let answer: JoinGroupResponse = Connection::to(address).call(ApiKey::JoinGroup as i16, 3, &request);
    answer.error_code
}

/// Breaks Redis, sees that a produce is refused with `code`, mends Redis, and sees that the same producer goes on.
fn refused_until_mended(
    broker: &Broker,
    (state, code): (&str, ResponseError),
    break_it: impl FnOnce(),
    mend_it: impl FnOnce(),
) {
    let producer = new_producer(&mut Connection::to(broker.address));
    let base = produce(broker.address, producer, 0).unwrap_or_else(|error| panic!("before {state}: {error:?}"));
    break_it();
    let mut told = Vec::new();
    let refused = eventually(|| {
        let answer = produce(broker.address, producer, 3);
        told.push(answer);
        answer == Err(code)
    });
    assert!(refused, "{state}: {told:?}");
    // Until the broker notices, what was under way is told that nobody knows.
    let well = |answer: &Result<i64, ResponseError>| {
        answer.is_ok_and(|at| at == base + 3) || answer.is_err_and(is_tried_again)
    };
    assert!(told.iter().all(well), "{state}: {told:?}");
    consumers_are_told(broker.address, state);
    mend_it();
    let mut answer = Err(code);
    let taken = eventually(|| {
        answer = produce(broker.address, producer, 3);
        answer.is_ok()
    });
    assert!(taken, "{state}: {answer:?} {}", broker.log());
    assert_eq!(answer, Ok(base + 3), "{state}");
    assert!(eventually(|| commit(broker.address, "g", 6).is_none()), "{state}");
}

fn run(redis: &Redis, words: &[&str]) {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(*word);
    }
    let _ = command.exec(&mut redis.connection());
}

fn each_refusal_is_told_so_that_clients_try_again(program: &str) {
    let redis = Redis::run(
        program,
        &[
            "--appendonly",
            "yes",
            "--appendfsync",
            "no",
            "--busy-reply-threshold",
            "50",
            "--enable-protected-configs",
            "yes",
        ],
    );
    let at_once = ["--override", "group.initial.rebalance.delay.ms=0"];
    let broker = Broker::start(&[&["--redis-url", &redis.url()][..], &SHORT, &at_once].concat()).expect("a broker");
    create_topic(broker.address, &[]);
    refused_until_mended(
        &broker,
        ("OOM", ResponseError::NotEnoughReplicas),
        || redis.config("maxmemory", "1"),
        || redis.config("maxmemory", "0"),
    );
    let folder = tempfile::tempdir().expect("a folder");
    refused_until_mended(
        &broker,
        ("MISCONF", ResponseError::KafkaStorageError),
        || {
            run(&redis, &["CONFIG", "SET", "save", "3600 1"]);
            run(&redis, &["CONFIG", "SET", "dir", folder.path().to_str().expect("text")]);
            std::fs::remove_dir_all(folder.path()).expect("removed");
            run(&redis, &["BGSAVE"]);
            assert!(eventually(|| redis.info("persistence").contains("rdb_last_bgsave_status:err")));
        },
        || redis.config("stop-writes-on-bgsave-error", "no"),
    );
    refused_until_mended(
        &broker,
        ("READONLY", ResponseError::KafkaStorageError),
        || run(&redis, &["REPLICAOF", "127.0.0.1", "1"]),
        || run(&redis, &["REPLICAOF", "NO", "ONE"]),
    );
    refused_until_mended(
        &broker,
        ("MASTERDOWN", ResponseError::KafkaStorageError),
        || {
            redis.config("replica-serve-stale-data", "no");
            run(&redis, &["REPLICAOF", "127.0.0.1", "1"]);
        },
        || run(&redis, &["REPLICAOF", "NO", "ONE"]),
    );
    let mut guarded = redis.connection();
    refused_until_mended(
        &broker,
        ("NOAUTH", ResponseError::KafkaStorageError),
        || {
            redis.config("requirepass", "secret");
            // Those who are logged in stay so.
            redis::cmd("CLIENT")
                .arg("KILL")
                .arg("TYPE")
                .arg("normal")
                .arg("SKIPME")
                .arg("yes")
                .exec(&mut guarded)
                .expect("cut");
        },
        || {
            let url = format!("redis://:secret@127.0.0.1:{}", redis.port);
            let mut connection = redis::Client::open(url).and_then(|client| client.get_connection()).expect("a login");
            redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("").exec(&mut connection).expect("no password");
        },
    );
    let mut looping = redis.connection();
    let mut busy = None;
    refused_until_mended(
        &broker,
        ("BUSY", ResponseError::KafkaStorageError),
        || {
            busy = Some(thread::spawn(move || redis::cmd("EVAL").arg("while true do end").arg(0).exec(&mut looping)));
            assert!(eventually(|| redis::cmd("GET").arg("x").exec(&mut redis.connection()).is_err()));
        },
        || run(&redis, &["SCRIPT", "KILL"]),
    );
    let busy = busy.expect("it ran").join();
    assert!(busy.expect("no panic").is_err(), "the script was killed");
}

#[test]
fn each_refusal_is_told_so_that_clients_try_again_and_ends_without_a_restart() {
    each_refusal_is_told_so_that_clients_try_again(OLD);
    each_refusal_is_told_so_that_clients_try_again(newer());
}

#[test]
fn while_redis_loads_its_data_clients_try_again() {
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "no", "--aof-use-rdb-preamble", "no"]);
    let broker = Broker::start(&[&["--redis-url", &redis.url()][..], &SHORT].concat()).expect("a broker");
    create_topic(broker.address, &[]);
    let mut pipeline = redis::pipe();
    for key in 0..2_000 {
        pipeline.set(format!("other:{key}"), key).ignore();
    }
    pipeline.exec(&mut redis.connection()).expect("written");
    let producer = new_producer(&mut Connection::to(broker.address));
    assert_eq!(produce(broker.address, producer, 0), Ok(0));
    redis.kill();
    redis.start_again_with(&["--key-load-delay", "500"]);
    let mut errors = Vec::new();
    assert!(eventually(|| match produce(broker.address, producer, 3) {
        Ok(base) => {
            assert_eq!(base, 3);
            true
        }
        Err(error) => {
            errors.push(error);
            false
        }
    }));
    assert!(errors.iter().all(|error| is_tried_again(*error)), "{errors:?}");
    assert_eq!(read_all(broker.address), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn whatever_the_link_does_nothing_is_lost_or_doubled() {
    let redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "no"]);
    let proxy = Proxy::to(redis.port);
    let broker = Broker::start(&[&["--redis-url", &proxy.url()][..], &SHORT].concat()).expect("a broker");
    create_topic(broker.address, &[]);
    let producer = new_producer(&mut Connection::to(broker.address));
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = thread::spawn({
        let (stop, acknowledged, address) = (stop.clone(), acknowledged.clone(), broker.address);
        move || write_until(address, producer, &stop, &acknowledged)
    });
    let gets_on = |state: &str| {
        let before = acknowledged.load(Ordering::Relaxed);
        let gets_on = eventually(|| acknowledged.load(Ordering::Relaxed) > before + 100);
        assert!(gets_on, "after {state}: {}", broker.log());
    };
    gets_on("the start");
    for bytes in [0, 1, 5, 40, 200, 1_000] {
        proxy.set(Weather::CutAnswersAfter(bytes));
        assert!(eventually(|| broker.log().contains("Redis is lost")));
        thread::sleep(Duration::from_millis(100));
        proxy.set(Weather::Clear);
        gets_on(&format!("answers cut after {bytes} bytes"));
    }
    for _ in 0..3 {
        proxy.drop_all();
        gets_on("every connection dropped");
    }
    for (state, weather, lasting) in [
        ("closed", Weather::Closed, 300),
        ("silent", Weather::Silent, 1_500),
        ("slow", Weather::Slow(Duration::from_millis(100)), 500),
        ("slower than is waited for", Weather::Slow(Duration::from_millis(1_000)), 2_500),
    ] {
        proxy.set(weather);
        if weather == Weather::Closed {
            proxy.drop_all();
        }
        thread::sleep(Duration::from_millis(lasting));
        proxy.set(Weather::Clear);
        gets_on(state);
    }
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().expect("the writer's checks hold");
    assert_eq!(read_all(broker.address), (0..written).collect::<Vec<_>>(), "every record once, in order");
}

#[test]
fn an_append_whose_answer_was_lost_is_found_and_not_stored_twice_without_idempotence() {
    let redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "no"]);
    let proxy = Proxy::to(redis.port);
    let broker = Broker::start(&[&["--redis-url", &proxy.url()][..], &SHORT].concat()).expect("a broker");
    create_topic(broker.address, &[]);
    let plain = |first: u64| produce_request(batch(-1, first, 1)).with_timeout_ms(10_000);
    assert_eq!(attempt(broker.address, &plain(0)), Some(0));
    let length = || redis::cmd("XLEN").arg("korvet:stream:ledger:0").query::<u64>(&mut redis.connection());
    let length = || length().expect("a stream");
    let mut number = 1;
    let deadline = Instant::now() + PATIENCE;
    while number < 6 {
        assert!(Instant::now() < deadline, "{}", broker.log());
        // After a reconnect the partition's state is read first: let it be.
        assert_eq!(read_all(broker.address).len() as u64, number);
        proxy.set(Weather::CutAnswersAfter(0));
        let sent = thread::spawn({
            let (address, request) = (broker.address, plain(number));
            move || attempt(address, &request)
        });
        let cut_until = Instant::now() + Duration::from_millis(500);
        // What is on its way when the link is cut may arrive or not.
        assert!(eventually(|| length() > number || sent.is_finished() || Instant::now() > cut_until));
        proxy.set(Weather::Clear);
        match sent.join().expect("no panic").and_then(ResponseError::try_from_code) {
            None => number += 1,
            // Another command's answer was cut before, and with it the connection: then nothing was stored.
            Some(ResponseError::KafkaStorageError | ResponseError::RequestTimedOut) => assert_eq!(length(), number),
            Some(error) => panic!("{error:?} {}", broker.log()),
        }
    }
    assert_eq!(read_all(broker.address), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn memory_stays_bounded_while_redis_does_not_answer() {
    const SENDERS: u64 = 40;
    const BATCH: usize = 500 << 10;
    const BUDGET_MIB: u64 = 160;
    let redis = Redis::start(&[]);
    let proxy = Proxy::to(redis.port);
    let small = ["--override", "weir.append.bytes=8388608", "--override", "queued.max.request.bytes=33554432"];
    let small = [&small[..], &["--override", "socket.request.max.bytes=16777216"]].concat();
    let broker = Broker::start(&[&["--redis-url", &proxy.url()][..], &SHORT, &small].concat()).expect("a broker");
    create_topic(broker.address, &[("weir.layout", "batch")]);
    proxy.set(Weather::Silent);
    let deadline = Instant::now() + Duration::from_secs(4);
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (address, request) = (broker.address, produce_request(large_batch(BATCH)).with_timeout_ms(1_000));
            thread::spawn(move || {
                let mut refused = 0;
                while Instant::now() < deadline {
                    match attempt(address, &request).and_then(ResponseError::try_from_code) {
                        Some(error) if !is_tried_again(error) => panic!("{error:?}"),
                        _ => refused += 1,
                    }
                }
                refused
            })
        })
        .collect();
    thread::sleep(deadline.saturating_duration_since(Instant::now()));
    proxy.set(Weather::Clear);
    for sender in senders {
        assert!(sender.join().expect("told to try again") > 0);
    }
    let peak = broker.peak_mib();
    assert!(peak < BUDGET_MIB, "{peak} MiB");
    let deadline = Instant::now() + PATIENCE;
    while attempt(broker.address, &produce_request(large_batch(1))) != Some(0) {
        assert!(Instant::now() < deadline, "{}", broker.log());
    }
}

fn large_batch(size: usize) -> bytes::Bytes {
    support::ledger::batch_of(&vec![b'x'; size])
}
