//! The story told by the `rdkafka` crate (librdkafka).

mod story;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use story::{DEADLINE, Record, Story, ok, until};

fn config(story: &Story) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &story.bootstrap);
    config
}

/// What the broker acknowledged.
#[derive(Default)]
struct Deliveries(Mutex<Vec<(i32, i64)>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let placed = match result {
            Ok(message) => (message.partition(), message.offset()),
            Err((error, message)) => panic!("producing to {}: {error}", message.partition()),
        };
        self.0.lock().expect("deliveries").push(placed);
    }
}

fn produce(story: &Story, records: &[Record], codec: &str) {
    let producer: ThreadedProducer<Deliveries> = config(story)
        .set("compression.type", codec)
        .set("linger.ms", "20")
        .set("acks", "all")
        .create_with_context(Deliveries::default())
        .expect("a producer");
    for record in records {
        let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (name, data)| {
            headers.insert(Header { key: name, value: data.as_ref() })
        });
        let mut sent = BaseRecord::<[u8], [u8]>::to(&story.topic)
            .partition(record.partition)
            .timestamp(record.timestamp)
            .headers(headers);
        sent.key = record.key.as_deref();
        sent.payload = record.value.as_deref();
        producer.send(sent).map_err(|(error, _)| error).expect("the producer's queue has room");
    }
    producer.flush(DEADLINE).expect("everything is acknowledged");
    let mut acknowledged = producer.context().0.lock().expect("deliveries").clone();
    let mut wanted: Vec<_> = records.iter().map(|r| (r.partition, r.offset)).collect();
    acknowledged.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(acknowledged, wanted, "acknowledged with {codec}");
}

/// Notes that partitions were assigned: what was read before does not count.
#[derive(Default)]
struct Assignments(AtomicBool);

impl ClientContext for Assignments {}

impl ConsumerContext for Assignments {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Assign(_)) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

struct Member {
    consumer: BaseConsumer<Assignments>,
    records: Vec<Record>,
}

fn taken(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}

impl Member {
    fn new(story: &Story) -> Self {
        let consumer = config(story)
            .set("group.id", &story.group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "300")
            .create_with_context(Assignments::default())
            .expect("a consumer");
        Self { consumer, records: Vec::new() }
    }

    fn join(story: &Story) -> Self {
        let member = Self::new(story);
        member.consumer.subscribe(&[&story.topic]).expect("subscribe");
        member
    }

    fn reading(story: &Story, partition: i32, offset: Offset) -> Self {
        let member = Self::new(story);
        member.consumer.assign(&at(story, &[(partition, offset)])).expect("assign");
        member
    }

    fn read(&mut self) {
        let mut wait = Duration::from_millis(50);
        loop {
            let polled = self.consumer.poll(wait);
            if self.consumer.context().0.swap(false, Ordering::SeqCst) {
                self.records.clear();
            }
            let Some(polled) = polled else { return };
            self.records.push(taken(&polled.expect("a record")));
            wait = Duration::ZERO;
        }
    }

    fn poll(&mut self, count: usize) -> &[Record] {
        until("records", || {
            self.read();
            self.records.len() >= count
        });
        &self.records
    }

    fn held(&self) -> BTreeSet<i32> {
        let assignment = self.consumer.assignment().expect("an assignment");
        assignment.elements().iter().map(|element| element.partition()).collect()
    }

    fn commit(&self) {
        self.consumer.commit_consumer_state(CommitMode::Sync).expect("commit");
    }
}

fn at(story: &Story, offsets: &[(i32, Offset)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(&story.topic, *partition, *offset).expect("an offset");
    }
    list
}

fn offsets(list: &TopicPartitionList) -> Vec<i64> {
    let raw = |offset: Offset| offset.to_raw().expect("an offset");
    list.elements().iter().map(|element| raw(element.offset())).collect()
}

fn listed(reader: &Member, topic: &str) -> bool {
    let metadata = reader.consumer.fetch_metadata(None, DEADLINE).expect("metadata");
    metadata.topics().iter().any(|listed| listed.name() == topic)
}

fn watermarks(story: &Story, reader: &Member) -> Vec<(i64, i64)> {
    let fetch = |partition| reader.consumer.fetch_watermarks(&story.topic, partition, DEADLINE);
    (0..story.partitions).map(|partition| fetch(partition).expect("watermarks")).collect()
}

fn committed(story: &Story, reader: &Member) -> TopicPartitionList {
    let asked = (0..story.partitions).map(|partition| (partition, Offset::Invalid));
    let asked = at(story, &asked.collect::<Vec<_>>());
    reader.consumer.committed_offsets(asked, DEADLINE).expect("committed offsets")
}

fn create(story: &Story, admin: &AdminClient<DefaultClientContext>, reader: &Member) {
    let topic =
        NewTopic::new(&story.topic, story.partitions, TopicReplication::Fixed(1)).set("cleanup.policy", "delete");
    let created = block_on(admin.create_topics([&topic], &AdminOptions::new())).expect("create");
    assert_eq!(created, [Ok(story.topic.clone())]);
    ok("create");
    until("the topic in the list", || listed(reader, &story.topic));
    let metadata = reader.consumer.fetch_metadata(Some(&story.topic), DEADLINE).expect("metadata");
    let leaders: Vec<_> = metadata.topics()[0].partitions().iter().map(|p| p.leader()).collect();
    assert_eq!(leaders.len(), story.expected.len(), "partitions");
    assert!(leaders.iter().all(|leader| *leader >= 0), "a partition has no leader");
    ok("list");
}

fn consume(story: &mut Story, reader: &Member) {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let records = story.round(None);
        produce(story, &records, codec);
    }
    let ends: Vec<_> = watermarks(story, reader).iter().map(|(_, high)| *high).collect();
    assert_eq!(ends, story.ends());
    ok("produce");

    // Two members share the partitions.
    let (mut first, mut second) = (Member::join(story), Member::join(story));
    until("both members have partitions, and together every record", || {
        first.read();
        second.read();
        let (a, b) = (first.held().len(), second.held().len());
        a > 0 && b > 0 && a + b == story.expected.len() && first.records.len() + second.records.len() >= story.produced
    });
    story.compare(&[first.records.clone(), second.records.clone()].concat(), &story.everything());
    for member in [&first, &second] {
        let read: BTreeSet<_> = member.records.iter().map(|record| record.partition).collect();
        assert_eq!(read, member.held(), "partitions read");
        member.commit();
    }
    ok("consume");

    // One member leaves.
    drop(first);
    until("the other member has every partition", || {
        second.read();
        second.held().len() == story.expected.len()
    });
    second.records.clear();
    let more = story.round(Some(6));
    produce(story, &more, "none");
    story.compare(second.poll(more.len()), &more);
    second.commit();
    ok("takeover");

    // While a member is there.
    let groups = reader.consumer.fetch_group_list(None, DEADLINE).expect("groups");
    let group = groups.groups().iter().find(|group| group.name() == story.group);
    let group = group.expect("the group is listed");
    assert_eq!((group.state(), group.members().len()), ("Stable", 1));
    assert_eq!(offsets(&committed(story, reader)), story.ends());
    ok("groups");

    let middle: Vec<_> = story.ends().iter().map(|end| end / 2).collect();
    let mut half = TopicPartitionList::new();
    for (partition, offset) in (0..).zip(&middle) {
        let mut element = half.add_partition(&story.topic, partition);
        element.set_offset(Offset::Offset(*offset)).expect("an offset");
        element.set_metadata("half");
    }
    second.consumer.commit(&half, CommitMode::Sync).expect("commit");
    drop(second);
    let mut third = Member::join(story);
    let mut rest = story.everything();
    rest.retain(|record| record.offset >= middle[record.partition as usize]);
    story.compare(third.poll(rest.len()), &rest);
    assert_eq!(committed(story, reader).elements()[0].metadata(), "half");
    ok("resume");
}

fn administer(story: &Story, admin: &AdminClient<DefaultClientContext>, reader: &Member) {
    let wanted = &story.expected[1][story.expected[1].len() / 2];
    let asked = at(story, &[(1, Offset::Offset(wanted.timestamp - 500))]);
    let found = reader.consumer.offsets_for_times(asked, DEADLINE).expect("offsets for times");
    assert_eq!(offsets(&found), [wanted.offset], "offset of a time");
    let got = Member::reading(story, 1, Offset::Offset(wanted.offset)).poll(1)[0].clone();
    assert_eq!(&got, wanted, "record at a time");
    ok("seek");

    let options = AdminOptions::new();
    let resource = ResourceSpecifier::Topic(&story.topic);
    let alter = AlterConfig::new(resource).set("retention.ms", "123456789");
    let altered = block_on(admin.alter_configs([&alter], &options)).expect("alter");
    assert!(altered.iter().all(Result::is_ok), "{altered:?}");
    until("the altered config reads back", || {
        let described = block_on(admin.describe_configs([&resource], &options)).expect("describe");
        let configs = described[0].as_ref().expect("the topic's configs");
        let retention = configs.get("retention.ms").expect("retention.ms");
        retention.value.as_deref() == Some("123456789") && !retention.is_default
    });
    ok("config");

    let trim = at(story, &[(0, Offset::Offset(5))]);
    let trimmed = block_on(admin.delete_records(&trim, &options)).expect("delete records");
    assert_eq!(offsets(&trimmed), [5], "log start");
    let starts: Vec<_> = watermarks(story, reader).iter().map(|(low, _)| *low).collect();
    assert_eq!(starts, [5, 0, 0]);
    let got = Member::reading(story, 0, Offset::Beginning).poll(1)[0].clone();
    assert_eq!(got, story.expected[0][5], "record at the log start");
    ok("trim");

    let deleted = block_on(admin.delete_groups(&[&story.group], &options)).expect("delete groups");
    assert_eq!(deleted, [Ok(story.group.clone())]);
    let groups = reader.consumer.fetch_group_list(None, DEADLINE).expect("groups");
    assert!(groups.groups().iter().all(|group| group.name() != story.group), "still listed");
    let deleted = block_on(admin.delete_topics(&[&story.topic], &options)).expect("delete topics");
    assert_eq!(deleted, [Ok(story.topic.clone())]);
    until("the topic is gone from the list", || !listed(reader, &story.topic));
    ok("delete");
}

fn transactions(story: &Story) {
    let producer: ThreadedProducer<Deliveries> = config(story)
        .set("transactional.id", &story.group)
        .create_with_context(Deliveries::default())
        .expect("a producer");
    let started = Instant::now();
    let error = producer.init_transactions(Duration::from_secs(10)).expect_err("refused");
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
    let KafkaError::Transaction(error) = error else { panic!("{error}") };
    assert_eq!(error.code(), RDKafkaErrorCode::TransactionalIdAuthorizationFailed);
    ok("transactions");
}

fn main() {
    let mut story = Story::new();
    let admin: AdminClient<_> = config(&story).create().expect("an admin client");
    let reader = Member::new(&story);
    create(&story, &admin, &reader);
    consume(&mut story, &reader);
    administer(&story, &admin, &reader);
    if story.refuses_transactions {
        transactions(&story);
    }
}
