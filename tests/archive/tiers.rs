use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use kafka_protocol::messages::{
    ApiKey, DeleteTopicsRequest, DeleteTopicsResponse, ListOffsetsRequest, ListOffsetsResponse,
    delete_topics_request::DeleteTopicState, list_offsets_request,
};
use tempfile::TempDir;

use super::support::{
    Connection, Weir,
    ledger::{attempt, batch, create_topic, new_producer, produce_request, read_all, topic},
    process::eventually,
    servers::{Broker, Redis},
};

const EARLIEST: i64 = -2;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// Archived in files of a few records, and gone from Redis then.
const ALL_COLD: &[(&str, &str)] = &[
    ("remote.storage.enable", "true"),
    ("retention.ms", "-1"),
    ("local.retention.ms", "0"),
    ("weir.archive.file.bytes", "4096"),
];

fn start(folder: &Path) -> Weir {
    let url = format!("archive.url=file://{}", folder.display());
    let settings = [url.as_str(), "archive.interval.ms=20", "archive.lag.ms=0"];
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--override", setting]).collect();
    Weir::start(&arguments)
}

fn offset_of(address: SocketAddr, timestamp: i64) -> i64 {
    let partition = list_offsets_request::ListOffsetsPartition::default().with_timestamp(timestamp);
    let asked = list_offsets_request::ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
    let answer: ListOffsetsResponse = Connection::to(address).call(ApiKey::ListOffsets as i16, 9, &request);
    let partition = &answer.topics[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    partition.offset
}

fn write(address: SocketAddr, producer: i64, first: u64, records: u64) {
    for at in (first..first + records).step_by(10) {
        assert!(
            eventually(|| attempt(address, &produce_request(batch(producer, at, 10))) == Some(0)),
            "record {at} is not taken"
        );
    }
}

#[test]
fn a_topic_outlives_redis_memory_and_the_brokers_death() {
    let folder = TempDir::new().expect("a temporary folder");
    let mut weir = start(folder.path());
    create_topic(weir.address, ALL_COLD);
    let producer = new_producer(&mut Connection::to(weir.address));
    // It dies with whatever it is about to archive, again and again.
    for round in 0..4 {
        write(weir.address, producer, round * 200, 200);
        weir.kill();
        weir.restart();
    }
    let address = weir.address;
    assert!(eventually(|| offset_of(address, EARLIEST_LOCAL) == 800), "all of it is archived");
    assert_eq!(offset_of(address, EARLIEST), 0);
    assert_eq!(offset_of(address, LATEST_TIERED), 799);
    assert_eq!(read_all(address), (0..800).collect::<Vec<u64>>());
    write(address, producer, 800, 10);
    assert_eq!(read_all(address), (0..810).collect::<Vec<u64>>());
}

#[test]
fn a_deleted_topic_leaves_no_table_behind() {
    let folder = TempDir::new().expect("a temporary folder");
    let weir = start(folder.path());
    create_topic(weir.address, ALL_COLD);
    let producer = new_producer(&mut Connection::to(weir.address));
    write(weir.address, producer, 0, 100);
    let address = weir.address;
    assert!(eventually(|| offset_of(address, EARLIEST_LOCAL) == 100), "all of it is archived");
    assert!(files_in(folder.path()) > 0);
    let doomed = DeleteTopicState::default().with_name(Some(topic()));
    let request = DeleteTopicsRequest::default().with_topics(vec![doomed]).with_timeout_ms(10_000);
    let answer: DeleteTopicsResponse = Connection::to(address).call(ApiKey::DeleteTopics as i16, 6, &request);
    assert_eq!(answer.responses[0].error_code, 0);
    assert!(eventually(|| files_in(folder.path()) == 0), "files are left");
}

#[test]
fn a_process_of_its_own_archives_for_the_brokers_and_may_be_killed() {
    let folder = TempDir::new().expect("a temporary folder");
    let redis = Redis::start(&[]);
    let (redis_url, archive_url) = (redis.url(), format!("archive.url=file://{}", folder.path().display()));
    let shared = ["--redis-url", &redis_url, "--override", &archive_url, "--override"];
    let broker = Broker::start(&[&shared[..], &["archive.job=off"]].concat()).expect("it starts");
    let address = broker.address;
    create_topic(address, ALL_COLD);
    let producer = new_producer(&mut Connection::to(address));
    for round in 0..3 {
        write(address, producer, round * 100, 100);
        let mut job = Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("archive")
            .args(shared)
            .args(["archive.interval.ms=20", "--override", "archive.lag.ms=0"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the weir binary");
        let end = i64::try_from(round * 100 + 100).expect("a short test");
        let archived = eventually(|| offset_of(address, EARLIEST_LOCAL) == end);
        job.kill().expect("a child that can be killed");
        job.wait().expect("a child that ends");
        assert!(archived, "the broker does not hear that all up to {end} is archived");
        assert_eq!(read_all(address), (0..(round + 1) * 100).collect::<Vec<u64>>());
    }
    assert_eq!(offset_of(address, EARLIEST), 0);
}

fn files_in(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.map(|path| if path.is_dir() { files_in(&path) } else { 1 }).sum()
}
