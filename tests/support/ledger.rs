//! One topic with one partition, written by a producer that numbers its records, and read back.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse, FindCoordinatorRequest,
        FindCoordinatorResponse, InitProducerIdRequest, InitProducerIdResponse, OffsetCommitRequest,
        OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, OffsetForLeaderEpochRequest,
        OffsetForLeaderEpochResponse, ProduceRequest, ProduceResponse, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        fetch_request::{FetchPartition, FetchTopic},
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};
use weir::protocol::records::{BatchBuilder, BatchOptions, Batches, NewRecord, ProducerStamp};

use super::{Connection, PATIENCE, encoded};

pub const TOPIC: &str = "ledger";

pub fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

/// Creates the topic; the error and its message if it is refused.
pub fn try_create_topic(address: SocketAddr, configs: &[(&'static str, &'static str)]) -> Result<(), (i16, String)> {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_static_str(value)))
    });
    let request = CreateTopicsRequest::default().with_timeout_ms(10_000).with_topics(vec![
        CreatableTopic::default()
            .with_name(topic())
            .with_num_partitions(1)
            .with_replication_factor(1)
            .with_configs(configs.collect()),
    ]);
    let answer: CreateTopicsResponse = Connection::to(address).call(ApiKey::CreateTopics as i16, 7, &request);
    let topic = &answer.topics[0];
    if topic.error_code == 0 {
        Ok(())
    } else {
        Err((topic.error_code, topic.error_message.as_ref().map(StrBytes::to_string).unwrap_or_default()))
    }
}

pub fn create_topic(address: SocketAddr, configs: &[(&'static str, &'static str)]) {
    assert_eq!(try_create_topic(address, configs), Ok(()));
}

/// Records `first..first + count`, each with its number as its value; of nobody where the producer id is negative.
pub fn batch(producer_id: i64, first: u64, count: u64) -> Bytes {
    let base_sequence = i32::try_from(first).expect("a short test");
    let producer = (producer_id >= 0).then_some(ProducerStamp { producer_id, producer_epoch: 0, base_sequence });
    let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
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

/// One record of nobody's.
pub fn batch_of(value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let headers = std::iter::empty::<(&[u8], Option<&[u8]>)>();
    let record = NewRecord { offset: 0, timestamp: 1_700_000_000_000, key: None, value: Some(value), headers };
    builder.push(record).expect("a legal record");
    builder.finish().expect("a legal batch")
}

pub fn produce_request(records: Bytes) -> ProduceRequest {
    partition_produce_request(0, records)
}

pub fn partition_produce_request(partition: i32, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(5_000).with_topic_data(vec![topic])
}

pub fn fetch_request(partition: i32, offset: i64, leader_epoch: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(leader_epoch)
        .with_partition_max_bytes(1 << 20);
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(100)
        .with_min_bytes(1)
        .with_max_bytes(8 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![FetchTopic::default().with_topic(topic()).with_partitions(vec![partition])])
}

/// The epoch that was found, and where it ends; the error where there is one.
pub fn end_of_epoch(address: SocketAddr, epoch: i32) -> (i16, i32, i64) {
    let partition = OffsetForLeaderPartition::default().with_partition(0).with_leader_epoch(epoch);
    let asked = OffsetForLeaderTopic::default().with_topic(topic()).with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
    let answer: OffsetForLeaderEpochResponse =
        Connection::to(address).call(ApiKey::OffsetForLeaderEpoch as i16, 4, &request);
    let partition = &answer.topics[0].partitions[0];
    (partition.error_code, partition.leader_epoch, partition.end_offset)
}

/// One attempt; `None` when the connection failed.
pub fn attempt(address: SocketAddr, request: &ProduceRequest) -> Option<i16> {
    let mut connection = Connection::try_to(address)?;
    connection.try_send(&encoded(ApiKey::Produce as i16, 9, 1, request))?;
    let answer: ProduceResponse = connection.try_receive(9)?;
    Some(answer.responses.first()?.partition_responses.first()?.error_code)
}

/// Produces numbered records until `stop`, as an idempotent producer that retries; returns how many were acknowledged.
pub fn write_until(address: SocketAddr, producer_id: i64, stop: &AtomicBool, acknowledged: &AtomicU64) -> u64 {
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
                    | ResponseError::NotEnoughReplicasAfterAppend
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

pub fn read_all(address: SocketAddr) -> Vec<u64> {
    let mut connection = Connection::to(address);
    let mut offset = 0;
    let mut values = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer: FetchResponse = connection.call(ApiKey::Fetch as i16, 12, &fetch_request(0, offset, -1));
        let got = &answer.responses[0].partitions[0];
        if got.error_code == ResponseError::KafkaStorageError.code() && Instant::now() < deadline {
            // The strike may have been the last thing that happened.
            continue;
        }
        assert_eq!(got.error_code, 0);
        let before = offset;
        read_on(got.records.clone(), &mut offset, &mut values);
        if offset == before && offset >= got.high_watermark {
            return values;
        }
    }
}

/// Takes the values of the records from `offset` on, which must have no gap.
pub fn read_on(records: Option<Bytes>, offset: &mut i64, values: &mut Vec<u64>) {
    for batch in Batches::new(records.unwrap_or_default()) {
        let batch = batch.expect("a whole batch");
        let records = batch.records(64 << 20).expect("readable records");
        for record in records.iter() {
            let record = record.expect("a readable record");
            let at = batch.header().base_offset + i64::from(record.offset_delta);
            if at < *offset {
                continue;
            }
            assert_eq!(at, *offset, "offsets have no gaps");
            let text = std::str::from_utf8(record.value.expect("a value")).expect("digits");
            values.push(text.parse().expect("a number"));
            *offset += 1;
        }
    }
}

pub fn new_producer(broker: &mut Connection) -> i64 {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(1_000)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let answer: InitProducerIdResponse = broker.call(ApiKey::InitProducerId as i16, 4, &request);
    assert_eq!(answer.error_code, 0);
    answer.producer_id.0
}

/// A commit by somebody who is no member, as administrators and simple consumers do; they ask for the coordinator first.
pub fn commit(address: SocketAddr, group: &'static str, offset: i64) -> Option<ResponseError> {
    let group = StrBytes::from_static_str(group);
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![group.clone()]);
    let found: FindCoordinatorResponse = Connection::to(address).call(ApiKey::FindCoordinator as i16, 4, &request);
    assert_eq!(found.coordinators[0].error_code, 0);
    let partition = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(offset);
    let request = OffsetCommitRequest::default()
        .with_group_id(group.into())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition])]);
    let answer: OffsetCommitResponse = Connection::to(address).call(ApiKey::OffsetCommit as i16, 8, &request);
    ResponseError::try_from_code(answer.topics[0].partitions[0].error_code)
}

/// The error of the group, and the offset that it committed in partition 0; -1: none.
pub fn committed(address: SocketAddr, group: &'static str) -> (i16, i64) {
    let topic = OffsetFetchRequestTopics::default().with_name(topic()).with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(StrBytes::from_static_str(group).into())
        .with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    let answer: OffsetFetchResponse = Connection::to(address).call(ApiKey::OffsetFetch as i16, 8, &request);
    let group = &answer.groups[0];
    let offset = group.topics.first().map_or(-1, |topic| topic.partitions[0].committed_offset);
    (group.error_code, offset)
}
