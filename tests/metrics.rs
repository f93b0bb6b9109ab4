//! `/metrics` of a real broker tells what clients did.

mod support;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use kafka_protocol::{
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse, GroupId, ListOffsetsRequest,
        ListOffsetsResponse, OffsetCommitRequest, OffsetCommitResponse, ProduceRequest, ProduceResponse, TopicName,
        create_topics_request::CreatableTopic,
        fetch_request::{FetchPartition, FetchTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};
use support::{Connection, Weir, process::eventually};
use weir::protocol::records::{BatchBuilder, BatchOptions, NewRecord};

const RECORDS: i64 = 10;
const PARTITIONS: i32 = 3;

fn name(text: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(text))
}

fn produce(connection: &mut Connection) {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for offset in 0..RECORDS {
        builder
            .push(NewRecord {
                offset,
                timestamp: 1_700_000_000_000,
                key: Some(b"k".as_slice()),
                value: Some(b"v".as_slice()),
                headers: std::iter::empty::<(&[u8], Option<&[u8]>)>(),
            })
            .expect("a legal record");
    }
    let data =
        PartitionProduceData::default().with_index(0).with_records(Some(builder.finish().expect("a legal batch")));
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![TopicProduceData::default().with_name(name("counted")).with_partition_data(vec![data])]);
    let answer: ProduceResponse = connection.call(ApiKey::Produce as i16, 9, &request);
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
}

fn commit(connection: &mut Connection, offset: i64) {
    let partition = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(offset);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("readers")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![
            OffsetCommitRequestTopic::default().with_name(name("counted")).with_partitions(vec![partition]),
        ]);
    let answer: OffsetCommitResponse = connection.call(ApiKey::OffsetCommit as i16, 8, &request);
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
}

fn fetch(connection: &mut Connection) {
    let partition = FetchPartition::default().with_partition(0).with_partition_max_bytes(1 << 20);
    let request = FetchRequest::default()
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![FetchTopic::default().with_topic(name("counted")).with_partitions(vec![partition])]);
    let answer: FetchResponse = connection.call(ApiKey::Fetch as i16, 12, &request);
    assert_eq!(answer.responses[0].partitions[0].error_code, 0);
}

fn ask_for_what_is_not_there(connection: &mut Connection) {
    let partition = ListOffsetsPartition::default().with_partition_index(0).with_timestamp(-1);
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![ListOffsetsTopic::default().with_name(name("nowhere")).with_partitions(vec![partition])]);
    let answer: ListOffsetsResponse = connection.call(ApiKey::ListOffsets as i16, 6, &request);
    assert_eq!(answer.topics[0].partitions[0].error_code, 3);
}

fn broker(arguments: &[&str]) -> (Weir, impl Fn() -> String) {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    let http = format!("127.0.0.1:{port}");
    let weir = Weir::start(&[&["--http", http.as_str()][..], arguments].concat());
    let metrics = move || {
        let mut stream = TcpStream::connect(&http).expect("listening");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n").expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        answer
    };
    let topic =
        CreatableTopic::default().with_name(name("counted")).with_num_partitions(PARTITIONS).with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic]);
    let answer: CreateTopicsResponse = weir.connect().call(ApiKey::CreateTopics as i16, 7, &request);
    assert_eq!(answer.topics[0].error_code, 0);
    (weir, metrics)
}

fn assert_shows(shown: &str, lines: &[&str]) {
    for line in lines {
        assert!(shown.lines().any(|shown| shown == *line), "{line} is not in {shown}");
    }
}

#[test]
fn what_clients_did_is_shown() {
    let (weir, metrics) = broker(&[]);
    let mut connection = weir.connect();
    produce(&mut connection);
    fetch(&mut connection);
    commit(&mut connection, 4);
    ask_for_what_is_not_there(&mut connection);
    let shown = metrics();
    assert_shows(
        &shown,
        &[
            "weir_requests_total{api=\"Produce\",version=\"9\"} 1",
            "weir_request_duration_seconds_count{api=\"Fetch\"} 1",
            "weir_request_errors_total{api=\"ListOffsets\",error=\"UNKNOWN_TOPIC_OR_PARTITION\"} 1",
            "weir_appended_records_total 10",
            "weir_fetched_records_total 10",
            "weir_tail_cache_hits_total 1",
            "weir_tail_cache_misses_total 0",
            "weir_redis_connected 1",
            "weir_partition_log_start_offset{topic=\"counted\",partition=\"0\"} 0",
            "weir_partition_next_offset{topic=\"counted\",partition=\"0\"} 10",
            "weir_partition_next_offset{topic=\"counted\",partition=\"2\"} 0",
            "weir_group_committed_offset{group=\"readers\",topic=\"counted\",partition=\"0\"} 4",
            "weir_group_lag_records{group=\"readers\",topic=\"counted\",partition=\"0\"} 6",
            "weir_metrics_hidden_series 0",
        ],
    );
    assert!(shown.contains("content-type: application/openmetrics-text"), "{shown}");
    drop(connection);
    assert!(eventually(|| metrics().lines().any(|line| line == "weir_connections 0")), "{}", metrics());
}

#[test]
fn figures_of_what_was_written_before_a_restart_are_shown_after_it() {
    let (mut weir, metrics) = broker(&[]);
    produce(&mut weir.connect());
    commit(&mut weir.connect(), 7);
    assert!(weir.stop());
    weir.restart();
    let shows =
        || metrics().contains("weir_group_lag_records{group=\"readers\",topic=\"counted\",partition=\"0\"} 3\n");
    assert!(eventually(shows), "{}", metrics());
}

#[test]
fn series_are_capped() {
    let (weir, metrics) = broker(&["--override", "metrics.max.series=2"]);
    produce(&mut weir.connect());
    let shown = metrics();
    assert_eq!(shown.lines().filter(|line| line.starts_with("weir_partition_next_offset{")).count(), 2);
    assert_shows(&shown, &["weir_metrics_hidden_series 1"]);
}
