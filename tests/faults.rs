//! What is killed comes back with everything that was acknowledged, in order, once.

mod support;

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse, InitProducerIdRequest,
        InitProducerIdResponse, ProduceRequest, ProduceResponse, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        fetch_request::{FetchPartition, FetchTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};
use support::{Connection, PATIENCE, Weir, encoded};
use weir::protocol::records::{BatchBuilder, BatchOptions, Batches, NewRecord, ProducerStamp};

const TOPIC: &str = "ledger";

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

fn create_topic(weir: &Weir, layout: &'static str) {
    let config = CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str("weir.layout"))
        .with_value(Some(StrBytes::from_static_str(layout)));
    let request = CreateTopicsRequest::default().with_timeout_ms(10_000).with_topics(vec![
        CreatableTopic::default()
            .with_name(topic())
            .with_num_partitions(1)
            .with_replication_factor(1)
            .with_configs(vec![config]),
    ]);
    let answer: CreateTopicsResponse = weir.connect().call(ApiKey::CreateTopics as i16, 7, &request);
    assert_eq!(answer.topics[0].error_code, 0, "{:?}", answer.topics[0].error_message);
}

/// Records `first..first + count`, each with its number as its value.
fn batch(producer_id: i64, first: u64, count: u64) -> Bytes {
    let producer =
        ProducerStamp { producer_id, producer_epoch: 0, base_sequence: i32::try_from(first).expect("a short test") };
    let mut builder = BatchBuilder::new(BatchOptions { producer: Some(producer), ..BatchOptions::default() });
    for number in first..first + count {
        let value = number.to_string();
        builder
            .push(NewRecord {
                offset: i64::try_from(number - first).expect("small"),
                timestamp: 1_700_000_000_000,
                key: Some(b"k".as_slice()),
                value: Some(value.as_bytes()),
                headers: std::iter::empty::<(&[u8], Option<&[u8]>)>(),
            })
            .expect("a legal record");
    }
    builder.finish().expect("a legal batch")
}

fn produce_request(records: Bytes) -> ProduceRequest {
    ProduceRequest::default().with_acks(-1).with_timeout_ms(5_000).with_topic_data(vec![
        TopicProduceData::default()
            .with_name(topic())
            .with_partition_data(vec![PartitionProduceData::default().with_index(0).with_records(Some(records))]),
    ])
}

/// One attempt; `None` when the connection failed.
fn attempt(address: SocketAddr, request: &ProduceRequest) -> Option<i16> {
    let mut connection = Connection::try_to(address)?;
    connection.try_send(&encoded(ApiKey::Produce as i16, 9, 1, request))?;
    let answer: ProduceResponse = connection.try_receive(9)?;
    Some(answer.responses.first()?.partition_responses.first()?.error_code)
}

/// Produces numbered records until `stop`, as an idempotent producer that retries; returns how many were acknowledged.
fn write_until(address: SocketAddr, producer_id: i64, stop: &AtomicBool, acknowledged: &AtomicU64) -> u64 {
    let mut next = 0;
    let mut size = 1;
    while !stop.load(Ordering::Relaxed) {
        let request = produce_request(batch(producer_id, next, size));
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(Instant::now() < deadline, "record {next} was not taken for a minute");
            match attempt(address, &request).map(ResponseError::try_from_code) {
                Some(None | Some(ResponseError::DuplicateSequenceNumber)) => break,
                None => thread::sleep(Duration::from_millis(5)),
                Some(Some(
                    ResponseError::KafkaStorageError
                    | ResponseError::RequestTimedOut
                    | ResponseError::NotEnoughReplicas
                    | ResponseError::NotLeaderOrFollower,
                )) => thread::sleep(Duration::from_millis(5)),
                Some(Some(other)) => panic!("record {next}: {other:?}"),
            }
        }
        next += size;
        acknowledged.store(next, Ordering::Relaxed);
        // Small appends and transactions, in turn.
        size = size % 40 + 1;
    }
    next
}

fn read_all(weir: &Weir) -> Vec<u64> {
    let mut connection = weir.connect();
    let mut offset = 0;
    let mut values = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let partition = FetchPartition::default()
            .with_partition(0)
            .with_fetch_offset(offset)
            .with_current_leader_epoch(-1)
            .with_partition_max_bytes(1 << 20);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(100)
            .with_min_bytes(1)
            .with_max_bytes(8 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![FetchTopic::default().with_topic(topic()).with_partitions(vec![partition])]);
        let answer: FetchResponse = connection.call(ApiKey::Fetch as i16, 12, &request);
        let got = &answer.responses[0].partitions[0];
        if got.error_code == ResponseError::KafkaStorageError.code() && Instant::now() < deadline {
            // The strike may have been the last thing that happened.
            continue;
        }
        assert_eq!(got.error_code, 0);
        let before = offset;
        for batch in Batches::new(got.records.clone().unwrap_or_default()) {
            let batch = batch.expect("a whole batch");
            let records = batch.records(64 << 20).expect("readable records");
            for record in records.iter() {
                let record = record.expect("a readable record");
                let at = batch.header().base_offset + i64::from(record.offset_delta);
                if at < offset {
                    continue;
                }
                assert_eq!(at, offset, "offsets have no gaps");
                let text = std::str::from_utf8(record.value.expect("a value")).expect("digits");
                values.push(text.parse().expect("a number"));
                offset += 1;
            }
        }
        if offset == before && offset >= got.high_watermark {
            return values;
        }
    }
}

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

fn new_producer(weir: &Weir) -> i64 {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(1_000)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let answer: InitProducerIdResponse = weir.connect().call(ApiKey::InitProducerId as i16, 4, &request);
    assert_eq!(answer.error_code, 0);
    answer.producer_id.0
}

/// Kills by `strike` several times while an idempotent producer writes, then compares what is there with what was acknowledged.
fn nothing_is_lost(layout: &'static str, mut strike: impl FnMut(&mut Weir)) {
    const STRIKES: u64 = 5;
    let mut weir = Weir::start(&[]);
    create_topic(&weir, layout);
    let producer_id = new_producer(&weir);
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
    let read = read_all(&weir);
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
