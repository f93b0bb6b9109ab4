//! Failovers by Sentinel, and a Redis that comes back with less than it had: clients carry on, what was promised is there, and what
//! was lost is told with its exact range and never given again in the same leader epoch.

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, FetchResponse, MetadataRequest, MetadataResponse, ProduceResponse},
};
use support::{
    Connection,
    ledger::{
        attempt, batch, commit, create_topic, end_of_epoch, fetch_request, new_producer, produce_request, read_all,
        write_until,
    },
    process::{eventually, signal, weir},
    servers::{Broker, OLD, Redis, Watched, free_port, http, newer},
};

/// Sends records `first..first + count` until they are taken; the offset of the first.
fn produce(address: SocketAddr, producer: i64, first: u64, count: u64) -> i64 {
    let request = produce_request(batch(producer, first, count)).with_timeout_ms(1_500);
    let mut taken = None;
    let mut last = None;
    let is_taken = || {
        let answer: ProduceResponse = Connection::to(address).call(ApiKey::Produce as i16, 9, &request);
        let partition = &answer.responses[0].partition_responses[0];
        last = ResponseError::try_from_code(partition.error_code);
        if partition.error_code == 0 {
            taken = Some(partition.base_offset);
        }
        taken.is_some()
    };
    assert!(eventually(is_taken), "record {first} is not taken: {last:?}");
    taken.expect("taken")
}

fn leader_epoch(address: SocketAddr) -> i32 {
    let request = MetadataRequest::default().with_topics(None);
    let answer: MetadataResponse = Connection::to(address).call(ApiKey::Metadata as i16, 12, &request);
    answer.topics[0].partitions[0].leader_epoch
}

/// Where a consumer is told that its log diverges, which has read up to `offset` in `epoch`.
fn divergence(address: SocketAddr, offset: i64, epoch: i32) -> (i32, i64) {
    let mut request = fetch_request(0, offset, -1);
    request.topics[0].partitions[0].last_fetched_epoch = epoch;
    let answer: FetchResponse = Connection::to(address).call(ApiKey::Fetch as i16, 12, &request);
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    (partition.diverging_epoch.epoch, partition.diverging_epoch.end_offset)
}

fn metric(http_address: SocketAddr, name: &str) -> u64 {
    let shown = http(http_address, "/metrics");
    let line = shown.lines().find(|line| line.starts_with(&format!("{name}_total "))).expect("the metric");
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

fn says(broker: &Broker, words: &str) {
    assert!(eventually(|| broker.log().contains(words)), "{words:?} is not in the log:\n{}", broker.log());
}

/// Writes as an idempotent producer while `strike` does something, and goes on for a while. Prints how long nothing was
/// acknowledged; every acknowledged record must be there once, in order.
fn nothing_is_lost(address: SocketAddr, what: &str, strike: impl FnOnce()) {
    let producer = new_producer(&mut Connection::to(address));
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let longest = Arc::new(Mutex::new(Duration::ZERO));
    let writer = thread::spawn({
        let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
        move || write_until(address, producer, &stop, &acknowledged)
    });
    let watch = thread::spawn({
        let (stop, acknowledged, longest) = (stop.clone(), acknowledged.clone(), longest.clone());
        move || {
            let (mut last, mut at) = (0, Instant::now());
            while !stop.load(Ordering::Relaxed) {
                let now = acknowledged.load(Ordering::Relaxed);
                if now != last {
                    (last, at) = (now, Instant::now());
                }
                let mut longest = longest.lock().expect("no panic");
                *longest = at.elapsed().max(*longest);
                drop(longest);
                thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let progress = |wanted: u64| {
        let before = acknowledged.load(Ordering::Relaxed);
        let goes_on = || writer.is_finished() || acknowledged.load(Ordering::Relaxed) >= before + wanted;
        assert!(eventually(goes_on) && !writer.is_finished(), "the writer does not get on");
    };
    progress(500);
    strike();
    progress(500);
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().expect("the writer's checks hold");
    watch.join().expect("it only looks");
    println!("{what}: nothing was acknowledged for {:?}", longest.lock().expect("no panic"));
    assert_eq!(read_all(address), (0..written).collect::<Vec<_>>(), "every acknowledged record once, in order");
}

fn failover_loses_nothing(
    program: &str,
    what: &str,
    take_away: impl FnOnce(&mut Redis),
    bring_back: impl FnOnce(&mut Redis),
) {
    let mut watched = Watched::run(program, 2);
    let broker = Broker::start(&["--redis-url", &watched.url()]).expect("a broker");
    create_topic(broker.address, &[("weir.durability", "replicas:2"), ("weir.layout", "batch")]);
    let mut fresh = None;
    nothing_is_lost(broker.address, what, || {
        take_away(&mut watched.servers[0]);
        // The promise holds again once there are two replicas.
        fresh = Some(watched.successor().replica());
        bring_back(&mut watched.servers[0]);
    });
    assert!(!broker.log().contains("they are lost"), "{}", broker.log());
}

#[test]
fn a_master_that_is_killed_takes_nothing_with_it_that_all_replicas_were_promised_to_have() {
    failover_loses_nothing(OLD, "killed master", Redis::kill, |_| {});
    failover_loses_nothing(newer(), "killed master of a newer Redis", Redis::kill, |_| {});
}

#[test]
fn a_master_that_hangs_and_comes_back_is_left_behind_at_once() {
    failover_loses_nothing(OLD, "paused master", |master| master.signal("STOP"), |master| master.signal("CONT"));
}

#[test]
fn two_sentinels_of_three_fail_over_and_one_that_answers_is_enough_to_find_the_master() {
    let mut watched = Watched::start(1);
    let (dead, _) = &mut watched.sentinels[0];
    dead.kill().and_then(|()| dead.wait()).expect("it ends");
    let broker = Broker::start(&["--redis-url", &watched.url()]).expect("a broker");
    create_topic(broker.address, &[("weir.durability", "memory")]);
    assert_eq!(produce(broker.address, -1, 0, 3), 0);
    watched.servers[0].kill();
    let promoted = watched.successor().port.to_string();
    produce(broker.address, -1, 3, 3);
    assert!(eventually(|| watched.masters()[2].get("port") == Some(&promoted)), "the third Sentinel hears of it");
    let hangs = watched.sentinels[1].0.id();
    signal(hangs, "STOP");
    let started = Broker::start(&["--redis-url", &watched.url(), "--node-id", "2"]);
    let knows = started.as_ref().is_ok_and(|second| eventually(|| leader_epoch(second.address) >= 0));
    signal(hangs, "CONT");
    assert!(knows, "{:?}", started.err());
}

#[test]
fn an_old_master_that_goes_on_serving_acknowledges_nothing_under_replicas_once_another_was_promoted() {
    let watched = Watched::start(1);
    let old = &watched.servers[0];
    // Hears nothing of the Sentinels.
    let broker = Broker::start(&["--redis-url", &old.url()]).expect("a broker");
    create_topic(broker.address, &[("weir.durability", "replicas:1")]);
    let mut acknowledged = 0;
    let send = |acknowledged: &mut u64| {
        let request = produce_request(batch(-1, *acknowledged, 1)).with_timeout_ms(1_000);
        *acknowledged += u64::from(attempt(broker.address, &request) == Some(0));
    };
    assert!(eventually(|| {
        send(&mut acknowledged);
        acknowledged >= 20
    }));
    assert!(eventually(|| watched.fail_over()), "a failover is asked for");
    assert!(eventually(|| {
        send(&mut acknowledged);
        watched.servers[1].is_master()
    }));
    let before = acknowledged;
    for _ in 0..3 {
        send(&mut acknowledged);
    }
    assert_eq!(acknowledged, before, "nothing is acknowledged by who is no master any more");
    let kept: u64 = redis::cmd("XLEN")
        .arg("korvet:stream:ledger:0")
        .query(&mut watched.servers[1].connection())
        .expect("the promoted one has it");
    assert!(kept >= acknowledged, "{kept} of {acknowledged}");
}

/// Ten records are there for good, and a group's commit of offset 17; of seven more only this Redis knows.
fn write_what_will_be_lost(address: SocketAddr, keep: impl FnOnce(), producer: i64) {
    create_topic(address, &[("weir.durability", "memory"), ("weir.layout", "batch")]);
    assert_eq!(produce(address, producer, 0, 10), 0);
    assert_eq!(commit(address, "g", 17), None);
    keep();
    assert_eq!(produce(address, producer, 10, 7), 10);
}

/// What everybody is told of the seven records; `next`, a producer's and its next sequence number, goes on.
fn the_loss_is_told(broker: &Broker, http_address: SocketAddr, epoch_before: i32, (producer, next): (i64, u64)) {
    let address = broker.address;
    says(broker, "first_lost=10 last_lost=16 records=7");
    says(broker, "committed=17 end=10 records=7");
    assert_eq!(metric(http_address, "weir_lost_ranges"), 1);
    assert_eq!(metric(http_address, "weir_lost_records"), 7);
    assert!(eventually(|| leader_epoch(address) > epoch_before), "the epoch does not rise");
    let epoch = leader_epoch(address);
    assert!(eventually(|| end_of_epoch(address, epoch_before) == (0, epoch_before, 10)), "where the old epoch ended");
    assert_eq!(divergence(address, 17, epoch_before), (epoch_before, 10));
    // The freed offsets go to others, in the new epoch.
    assert_eq!(produce(address, producer, next, 3), 10);
    assert_eq!(end_of_epoch(address, epoch_before), (0, epoch_before, 10));
    assert_eq!(end_of_epoch(address, epoch), (0, epoch, 13));
    assert_eq!(read_all(address), (0..10).chain(next..next + 3).collect::<Vec<_>>());
    assert_eq!(broker.log().matches("they are lost").count(), 1, "told once");
}

fn with_http(url: &str) -> (Broker, SocketAddr) {
    let http_address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let broker = Broker::start(&["--redis-url", url, "--http", &http_address.to_string()]).expect("a broker");
    (broker, http_address)
}

#[test]
fn what_a_failover_lost_is_told_with_its_range_and_its_offsets_come_again_in_a_newer_epoch() {
    let mut watched = Watched::start(1);
    let (broker, http_address) = with_http(&watched.url());
    let [master, replica] = &watched.servers[..] else { panic!("two servers") };
    let cut_off = || {
        let has_all = || {
            let mut connection = master.connection();
            let waited: i64 = redis::cmd("WAIT").arg(1).arg(1_000).query(&mut connection).expect("an answer");
            waited == 1
        };
        assert!(eventually(has_all), "the replica keeps up");
        // A password where none is wanted: it can't come back.
        replica.config("masterauth", "wrong");
        let mut connection = master.connection();
        redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("replica").exec(&mut connection).expect("it is cut off");
        assert!(eventually(|| master.info("replication").contains("connected_slaves:0")), "it is gone");
    };
    write_what_will_be_lost(broker.address, cut_off, -1);
    let epoch = leader_epoch(broker.address);
    let killed = Instant::now();
    watched.servers[0].kill();
    the_loss_is_told(&broker, http_address, epoch, (-1, 500));
    println!("a loss was told, and its offsets were given again, {:?} after the kill", killed.elapsed());
}

#[test]
fn a_redis_restored_from_an_older_snapshot_is_told_of_in_the_same_way_and_an_idempotent_producer_goes_on() {
    let mut redis = Redis::start(&[]);
    let (broker, http_address) = with_http(&redis.url());
    let save = || redis::cmd("SAVE").exec(&mut redis.connection()).expect("saved");
    let producer = new_producer(&mut Connection::to(broker.address));
    write_what_will_be_lost(broker.address, save, producer);
    let epoch = leader_epoch(broker.address);
    redis.restart();
    the_loss_is_told(&broker, http_address, epoch, (producer, 17));
    // A gap that no loss explains is refused as ever.
    let request = produce_request(batch(producer, 25, 1));
    let refused = attempt(broker.address, &request);
    assert_eq!(refused, Some(ResponseError::OutOfOrderSequenceNumber.code()));
}

#[test]
fn a_redis_that_comes_back_empty_has_lost_topics_which_are_named_with_their_records() {
    let mut redis = Redis::start(&[]);
    let (broker, http_address) = with_http(&redis.url());
    create_topic(broker.address, &[("weir.durability", "memory")]);
    assert_eq!(produce(broker.address, -1, 0, 5), 0);
    redis.restart();
    says(&broker, "lost_topics=[\"ledger\"]");
    says(&broker, "first_lost=0 last_lost=4 records=5");
    assert_eq!(metric(http_address, "weir_lost_records"), 5);
    create_topic(broker.address, &[]);
    assert_eq!(produce(broker.address, -1, 0, 2), 0);
    assert_eq!(read_all(broker.address), [0, 1]);
}

#[test]
fn a_replica_that_is_away_counts_where_a_promise_does_not_cover_all_that_could_be_promoted() {
    let mut watched = Watched::start(2);
    watched.servers[2].kill();
    let is_gone = || watched.servers[0].info("replication").contains("connected_slaves:1");
    assert!(eventually(is_gone), "the master notices");
    let url = watched.url();
    let started = |level: &str| {
        let ended = weir(&["--check", "--redis-url", &url, "--override", &format!("weir.durability={level}")]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout
    };
    let said = started("replicas:1");
    assert!(said.contains("waits for 1 of 2 replicas"), "{said}");
    assert!(!started("replicas:2").contains("of 2 replicas: a failover"), "all are covered");
}

#[test]
fn where_sentinels_do_not_lead_to_a_master_the_start_fails_in_a_sentence_that_says_why() {
    let mut watched = Watched::start(0);
    let refusal = |url: &str| {
        let ended = weir(&["--check", "--redis-url", url]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        ended.stderr
    };
    let url = watched.url();
    let first = url.split_once(',').expect("several Sentinels").0;
    assert!(refusal(&format!("{first}/other")).contains("watch no master named other"));
    let silent = format!("redis-sentinel://127.0.0.1:{}/main", free_port());
    assert!(refusal(&silent).contains("no Sentinel answers"), "{}", refusal(&silent));
    let server = watched.servers[0].url().replace("redis://", "redis-sentinel://") + "/main";
    assert!(refusal(&server).contains("is not a Sentinel"));
    let sentinel = first.replace("redis-sentinel://", "redis://");
    assert!(refusal(&sentinel).contains("redis-sentinel://HOST:PORT,HOST:PORT/MASTER"));
    watched.servers[0].kill();
    assert!(refusal(&url).contains("the Sentinels say that the master is at"), "{}", refusal(&url));
}
