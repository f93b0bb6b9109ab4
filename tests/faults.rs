//! What is killed comes back with everything that was acknowledged, in order, once.

mod support;

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{
    Connection, PATIENCE, Weir,
    ledger::{create_topic, new_producer, read_all, write_until},
};

/// `kill -9` of the private Redis whose folder is `data`.
fn kill_redis(data: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let is_ours = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(data));
            let is_redis =
                fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.starts_with("redis-server"));
            if is_ours && is_redis {
                let pid = entry.file_name().into_string().expect("a number");
                assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill").success());
                return;
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("no redis-server runs in {}", data.display());
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
