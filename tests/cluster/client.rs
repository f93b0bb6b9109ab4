//! A client that does what Kafka's clients do: asks who leads, goes there, and asks again when it is told to.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

pub(crate) use crate::support::ledger::{
    TOPIC, batch, fetch_request, new_producer, partition_produce_request as produce_request, topic,
};
use crate::support::{Connection, encoded, ledger::read_on};
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse, FetchResponse, FindCoordinatorRequest,
        FindCoordinatorResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
        ProduceRequest, ProduceResponse, TopicName,
        create_topics_request::CreatableTopic,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
    },
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
};

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(crate) fn create_topic(broker: &mut Connection, partitions: i32) {
    let topic = CreatableTopic::default().with_name(topic()).with_num_partitions(partitions).with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic]);
    let answer: CreateTopicsResponse = broker.call(ApiKey::CreateTopics as i16, 7, &request);
    assert_eq!(answer.topics[0].error_code, 0, "{:?}", answer.topics[0].error_message);
}

pub(crate) fn metadata(broker: &mut Connection, topics: &[&str]) -> MetadataResponse {
    let topics = topics.iter().map(|name| MetadataRequestTopic::default().with_name(Some(TopicName(text(name)))));
    let request = MetadataRequest::default().with_topics(Some(topics.collect()));
    broker.call(ApiKey::Metadata as i16, 12, &request)
}

/// Each partition's leader and epoch, as one broker tells.
pub(crate) fn leaders(broker: &mut Connection) -> Vec<(i32, i32)> {
    let answer = metadata(broker, &[TOPIC]);
    let mut led: Vec<_> = answer.topics[0]
        .partitions
        .iter()
        .map(|partition| (partition.partition_index, (partition.leader_id.0, partition.leader_epoch)))
        .collect();
    led.sort_unstable();
    led.into_iter().map(|(_, leader)| leader).collect()
}

/// One request; `None` where the connection fails or is slow.
pub(crate) fn try_call<Q, A>(address: SocketAddr, api: ApiKey, version: i16, request: &Q) -> Option<A>
where
    Q: Encodable + HeaderVersion,
    A: Decodable + HeaderVersion,
{
    const PATIENCE: Duration = Duration::from_millis(700);
    let mut connection = Connection::try_to(address)?;
    connection.stream.set_read_timeout(Some(PATIENCE)).ok()?;
    connection.try_send(&encoded(api as i16, version, 1, request))?;
    connection.try_receive(version)
}

/// Asks the brokers in turn until one tells where a partition's leader is.
pub(crate) fn find_leader(addresses: &[SocketAddr], partition: i32) -> Option<SocketAddr> {
    let wanted = MetadataRequestTopic::default().with_name(Some(topic()));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    addresses.iter().find_map(|address| {
        let answer: MetadataResponse = try_call(*address, ApiKey::Metadata, 12, &request)?;
        let led = answer.topics.first()?.partitions.iter().find(|led| led.partition_index == partition)?;
        let leader = answer.brokers.iter().find(|broker| broker.node_id == led.leader_id)?;
        format!("{}:{}", leader.host, leader.port).parse().ok()
    })
}

pub(crate) fn find_coordinator(address: SocketAddr, group: &str) -> Option<(i32, SocketAddr)> {
    let request = FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(vec![text(group)]);
    let answer: FindCoordinatorResponse = try_call(address, ApiKey::FindCoordinator, 4, &request)?;
    let found = answer.coordinators.first()?;
    Some((found.node_id.0, format!("{}:{}", found.host, found.port).parse().ok()?))
}

/// The end of a partition's log as one broker tells it, or its error.
pub(crate) fn end_of_log(broker: &mut Connection, partition: i32) -> Result<i64, i16> {
    let partition = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(-1);
    let topic = ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
    let answer: ListOffsetsResponse = broker.call(ApiKey::ListOffsets as i16, 7, &request);
    let told = &answer.topics[0].partitions[0];
    if told.error_code == 0 { Ok(told.offset) } else { Err(told.error_code) }
}

/// Errors after which a client looks for the leader and tries again.
fn is_retried(code: i16) -> bool {
    ResponseError::try_from_code(code).is_some_and(|error| error.is_retriable())
}

/// An idempotent producer of numbered records.
pub(crate) struct Writer {
    addresses: Vec<SocketAddr>,
    partition: i32,
    producer_id: i64,
    leader: Option<(SocketAddr, Connection)>,
    next: u64,
    pub(crate) longest_wait: Duration,
    /// Requests that were answered with an error, or not at all.
    pub(crate) failures: u64,
}

impl Writer {
    pub(crate) fn new(addresses: Vec<SocketAddr>, partition: i32) -> Self {
        let producer_id = new_producer(&mut Connection::to(addresses[0]));
        let longest_wait = Duration::ZERO;
        Self { addresses, partition, producer_id, leader: None, next: 0, longest_wait, failures: 0 }
    }

    /// Appends the next records, however often it takes.
    pub(crate) fn write(&mut self, count: u64) {
        const BACKOFF: Duration = Duration::from_millis(20);
        let request = produce_request(self.partition, batch(self.producer_id, self.next, count));
        let began = Instant::now();
        loop {
            match self.attempt(&request) {
                Some(0) => break,
                Some(code) => assert!(is_retried(code), "an application would see error {code}"),
                None => {}
            }
            self.failures += 1;
            self.leader = None;
            assert!(began.elapsed() < Duration::from_secs(30), "record {} was not taken", self.next);
            std::thread::sleep(BACKOFF);
        }
        self.next += count;
        self.longest_wait = self.longest_wait.max(began.elapsed());
    }

    fn attempt(&mut self, request: &ProduceRequest) -> Option<i16> {
        if self.leader.is_none() {
            let address = find_leader(&self.addresses, self.partition)?;
            let connection = Connection::try_to(address)?;
            connection.stream.set_read_timeout(Some(Duration::from_millis(700))).ok()?;
            self.leader = Some((address, connection));
        }
        let (_, connection) = self.leader.as_mut()?;
        connection.try_send(&encoded(ApiKey::Produce as i16, 9, 1, request))?;
        let answer: ProduceResponse = connection.try_receive(9)?;
        Some(answer.responses.first()?.partition_responses.first()?.error_code)
    }

    /// Writes until `stop`; tells how many were acknowledged all the while.
    pub(crate) fn write_until(mut self, stop: &AtomicBool, acknowledged: &AtomicU64) -> Self {
        let mut size = 1;
        while !stop.load(Ordering::Relaxed) {
            self.write(size);
            acknowledged.store(self.next, Ordering::Relaxed);
            size = size % 40 + 1;
        }
        self
    }

    pub(crate) fn written(&self) -> u64 {
        self.next
    }
}

/// All values of a partition, in order.
pub(crate) fn read_all(addresses: &[SocketAddr], partition: i32) -> Vec<u64> {
    let mut offset = 0;
    let mut values = Vec::new();
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(30), "partition {partition} can't be read");
        let Some(leader) = find_leader(addresses, partition) else { continue };
        let answer: Option<FetchResponse> = try_call(leader, ApiKey::Fetch, 12, &fetch_request(partition, offset, -1));
        let Some(answer) = answer else { continue };
        let got = &answer.responses[0].partitions[0];
        if got.error_code != 0 {
            assert!(is_retried(got.error_code), "an application would see error {}", got.error_code);
            continue;
        }
        let before = offset;
        read_on(got.records.clone(), &mut offset, &mut values);
        if offset == before && offset >= got.high_watermark {
            return values;
        }
    }
}
