//! What is killed comes back with everything that was acknowledged, in order, once.

mod support;

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use kafka_protocol::messages::ProduceRequest;
use support::{
    Connection, Weir,
    ledger::{attempt, batch, create_topic, new_producer, produce_request, read_all, write_until},
    process::{eventually, newest_increment_file, processes_in, redis_server_in, signal},
    servers::{Broker, OLD, Redis, newer},
};

/// `kill -9` of the private Redis whose folder is `data`.
fn kill_redis(data: &Path) {
    let mut found = None;
    let runs = eventually(|| {
        found = redis_server_in(data);
        found.is_some()
    });
    assert!(runs, "no redis-server runs in {}", data.display());
    signal(found.expect("it runs"), "KILL");
}

/// Kills by `strike` several times while an idempotent producer writes, then compares what is there with what was acknowledged.
fn nothing_is_lost(layout: &'static str, mut strike: impl FnMut(&mut Weir)) {
    const STRIKES: u64 = 5;
    let mut weir = Weir::start(&[]);
    create_topic(weir.address, &[("weir.layout", layout)]);
    let producer_id = new_producer(&mut Connection::to(weir.address));
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writer = thread::spawn({
        let (stop, acknowledged, address) = (stop.clone(), acknowledged.clone(), weir.address);
        move || write_until(address, producer_id, &stop, &acknowledged)
    });
    for _ in 0..STRIKES {
        let before = acknowledged.load(Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(60);
        while acknowledged.load(Ordering::Relaxed) < before + 300 {
            assert!(!writer.is_finished(), "the writer gave up");
            assert!(Instant::now() < deadline, "the writer does not get on");
            thread::sleep(Duration::from_millis(5));
        }
        strike(&mut weir);
    }
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().expect("the writer's checks hold");
    let read = read_all(weir.address);
    assert_eq!(read, (0..written).collect::<Vec<_>>(), "every acknowledged record once, in order");
}

#[test]
fn a_killed_redis_loses_nothing_in_the_record_layout() {
    nothing_is_lost("record", |weir| kill_redis(&weir.data_dir()));
}

#[test]
fn a_killed_redis_loses_nothing_in_the_batch_layout() {
    nothing_is_lost("batch", |weir| kill_redis(&weir.data_dir()));
}

#[test]
fn a_killed_broker_loses_nothing_in_the_record_layout() {
    nothing_is_lost("record", |weir| {
        weir.kill();
        weir.restart();
    });
}

#[test]
fn a_killed_broker_loses_nothing_in_the_batch_layout() {
    nothing_is_lost("batch", |weir| {
        weir.kill();
        weir.restart();
    });
}

#[test]
fn a_stopped_broker_ends_well_and_keeps_everything() {
    nothing_is_lost("record", |weir| {
        assert!(weir.stop(), "SIGTERM ends it with code 0");
        weir.restart();
    });
}

/// Takes away the second half of the last transaction that Redis wrote in this folder, as a death in the middle of a write does.
fn cut_the_last_transaction(data: &Path) {
    let path = newest_increment_file(data);
    let bytes = fs::read(&path).expect("readable");
    let begin = b"*1\r\n$5\r\nMULTI\r\n";
    let start = bytes.windows(begin.len()).rposition(|window| window == begin).expect("a transaction");
    assert!(bytes[start..].windows(4).filter(|window| window == b"XADD").count() > 10, "it is an append");
    let length = (start + bytes.len()) / 2;
    File::options().write(true).open(&path).and_then(|file| file.set_len(length as u64)).expect("cut");
}

fn acknowledged(address: SocketAddr, request: &ProduceRequest) {
    assert!(eventually(|| attempt(address, request) == Some(0)), "the batch is not taken");
}

/// `die` kills Redis, does what it is told to its files, and starts it again.
fn a_torn_write_takes_nothing_with_it(address: SocketAddr, mut die: impl FnMut(&dyn Fn(&Path))) {
    create_topic(address, &[("weir.layout", "record")]);
    let append = |first, count| {
        let producer = new_producer(&mut Connection::to(address));
        acknowledged(address, &produce_request(batch(producer, first, count)));
    };
    append(0, 10);
    append(1_010, 40);
    die(&cut_the_last_transaction);
    append(10, 40);
    assert_eq!(read_all(address), (0..50).collect::<Vec<_>>());
    die(&|_| {});
    append(50, 10);
    assert_eq!(read_all(address), (0..60).collect::<Vec<_>>(), "after the second death");
}

#[test]
fn a_torn_write_of_the_embedded_redis_takes_nothing_with_it() {
    let mut weir = Weir::start(&[]);
    let folder = weir.data_dir();
    a_torn_write_takes_nothing_with_it(weir.address, |cut| {
        weir.kill();
        assert!(eventually(|| processes_in(&folder).is_empty()), "Redis goes on");
        cut(&folder);
        weir.restart();
    });
}

#[test]
fn a_torn_write_of_an_own_redis_takes_nothing_with_it() {
    for program in [OLD, newer()] {
        let mut redis = Redis::run(program, &["--appendonly", "yes", "--appendfsync", "no"]);
        let broker = Broker::start(&["--redis-url", &redis.url()]).expect("a broker");
        a_torn_write_takes_nothing_with_it(broker.address, |cut| {
            redis.kill();
            cut(redis.folder.path());
            redis.start_again();
        });
    }
}
