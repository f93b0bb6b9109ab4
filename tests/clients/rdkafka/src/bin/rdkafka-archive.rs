//! Writes the numbered records of tests/archive/proof (tests/archive/README.md says what each is), and reads them back with librdkafka.

use std::{
    env,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::{ClientContext, DefaultClientContext},
    config::ClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, Headers, Message, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
    topic_partition_list::{Offset, TopicPartitionList},
};

const STALLED: Duration = Duration::from_secs(120);
/// Records that one partition gets in a row.
const RUN: i64 = 500;

struct Numbered {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(&'static str, Option<Vec<u8>>)>,
}

fn mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

fn timestamp(seed: u64, start: i64, offset: i64) -> i64 {
    let late = if offset % 11 == 0 { (seed >> 5 & 0xffff) % 50 } else { 0 };
    start + offset * 10 - i64::try_from(late).expect("less than 50")
}

fn seed_of(partition: i32, offset: i64) -> u64 {
    mix(u64::try_from(partition).expect("a partition") << 40 | u64::try_from(offset).expect("an offset"))
}

fn numbered(partition: i32, start: i64, offset: i64) -> Numbered {
    let seed = seed_of(partition, offset);
    let (customer, cents) = ((seed >> 16 & 0xffff) % 20_000, (seed >> 32 & 0xffff) % 99_900);
    let key = match offset {
        _ if offset % 8 == 7 => None,
        _ if offset % 64 == 12 => Some(Vec::new()),
        _ => Some(format!("cust-{customer:05}").into_bytes()),
    };
    let value = match offset % 16 {
        11 => Some(format!(r#"{{"order_id": "ord-{partition}-{offset}", "tags": ["a", "b"], "total": {cents}}}"#).into_bytes()),
        12 => {
            let bytes = (0..seed >> 24 & 0xff).map(|at| mix(seed.wrapping_add(at / 8)).to_le_bytes()[at as usize % 8]);
            Some(bytes.collect())
        }
        13 => None,
        14 => Some(Vec::new()),
        15 => {
            let text: String = (0..seed >> 56 & 7).map(|at| format!("{:016x}", mix(seed.wrapping_add(at)))).collect();
            Some(format!(r#"{{"order_id":"ord-{partition}-{offset}","text":"{text}"}}"#).into_bytes())
        }
        _ => Some(
            format!(
                r#"{{"order_id":"ord-{partition}-{offset}","customer_id":"cust-{customer:05}","quantity":{},"total":{}.{:02},"status":"paid","note":null}}"#,
                1 + (seed >> 8 & 7),
                cents / 100,
                cents % 100
            )
            .into_bytes(),
        ),
    };
    let mut headers = Vec::new();
    if offset % 5 == 0 {
        headers.push(("trace", Some(seed.to_le_bytes().to_vec())));
    }
    if offset % 10 == 0 {
        headers.push(("trace", None));
    }
    if offset % 20 == 0 {
        headers.push(("", Some(Vec::new())));
    }
    Numbered { timestamp: timestamp(seed, start, offset), key, value, headers }
}

struct World {
    bootstrap: String,
    topic: String,
    partitions: i32,
    /// In each partition.
    records: i64,
    start: i64,
    /// Offsets below it are archived, in each partition.
    cold: i64,
    /// Records a second that are written at most; 0 is no limit.
    rate: i64,
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

fn number(name: &str) -> i64 {
    variable(name).parse().unwrap_or_else(|_| panic!("{name} is not a number"))
}

impl World {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    fn create(&self, configs: &[(String, String)]) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().expect("an admin client");
        let mut topic = NewTopic::new(&self.topic, self.partitions, TopicReplication::Fixed(1));
        for (name, value) in configs {
            topic = topic.set(name, value);
        }
        let created = block_on(admin.create_topics([&topic], &AdminOptions::new())).expect("an answer");
        assert!(created[0].is_ok(), "creating the topic: {:?}", created[0]);
    }

    fn write(&self) {
        let producer: BaseProducer<Placed> = self
            .config()
            .set("enable.idempotence", "true")
            .set("linger.ms", "20")
            .set("batch.size", "131072")
            .set("queue.buffering.max.messages", "50000")
            .set("message.timeout.ms", "600000")
            .create_with_context(Placed)
            .expect("a producer");
        let begun = Instant::now();
        for first in (0..self.records).step_by(RUN as usize) {
            if self.rate > 0 {
                let due =
                    Duration::from_millis((first * i64::from(self.partitions) * 1_000 / self.rate).unsigned_abs());
                while let Some(early) = due.checked_sub(begun.elapsed()).filter(|early| !early.is_zero()) {
                    producer.poll(early);
                }
            }
            for partition in 0..self.partitions {
                for offset in first..(first + RUN).min(self.records) {
                    self.send(&producer, partition, offset);
                }
            }
        }
        producer.flush(STALLED).expect("everything is acknowledged");
    }

    fn send(&self, producer: &BaseProducer<Placed>, partition: i32, offset: i64) {
        let record = numbered(partition, self.start, offset);
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: value.as_ref() });
        }
        let mut sent =
            BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.topic, usize::try_from(offset).expect("an offset"))
                .partition(partition)
                .timestamp(record.timestamp)
                .headers(headers);
        sent.key = record.key.as_deref();
        sent.payload = record.value.as_deref();
        loop {
            match producer.send(sent) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    sent = back;
                    producer.poll(Duration::from_millis(50));
                }
                Err((error, _)) => panic!("producing: {error}"),
            }
        }
    }

    fn consumer(&self, offsets: &[(i32, i64)]) -> BaseConsumer {
        let consumer: BaseConsumer = self
            .config()
            .set("group.id", "rdkafka-archive")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .create()
            .expect("a consumer");
        let mut assigned = TopicPartitionList::new();
        for (partition, offset) in offsets {
            assigned.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset)).expect("an offset");
        }
        consumer.assign(&assigned).expect("an assignment");
        consumer
    }

    fn check<M: Message>(&self, got: &M, partition: i32, offset: i64) {
        assert_eq!((got.partition(), got.offset()), (partition, offset), "a record is lost, doubled or out of order");
        let wanted = numbered(partition, self.start, offset);
        let headers: Vec<(&str, Option<&[u8]>)> = got
            .headers()
            .map_or_else(Vec::new, |headers| headers.iter().map(|header| (header.key, header.value)).collect());
        let expected: Vec<(&str, Option<&[u8]>)> =
            wanted.headers.iter().map(|(name, value)| (*name, value.as_deref())).collect();
        assert!(
            got.timestamp().to_millis() == Some(wanted.timestamp)
                && got.key() == wanted.key.as_deref()
                && got.payload() == wanted.value.as_deref()
                && headers == expected,
            "{partition}/{offset} is not what was sent: {:?} {:?} {:?} {headers:?}",
            got.timestamp(),
            got.key(),
            got.payload(),
        );
    }

    fn read(&self) {
        let mut next = vec![0_i64; usize::try_from(self.partitions).expect("partitions")];
        let consumer = self.consumer(&(0..self.partitions).map(|partition| (partition, 0)).collect::<Vec<_>>());
        let (mut left, mut last) = (self.records * i64::from(self.partitions), Instant::now());
        while left > 0 {
            match consumer.poll(Duration::from_millis(200)) {
                Some(got) => {
                    let got = got.expect("a record");
                    let expected = &mut next[usize::try_from(got.partition()).expect("a partition")];
                    self.check(&got, got.partition(), *expected);
                    *expected += 1;
                    (left, last) = (left - 1, Instant::now());
                }
                None => assert!(last.elapsed() < STALLED, "nothing comes any more, {left} records are missing"),
            }
        }
        assert!(next.iter().all(|offset| *offset == self.records), "too many records: {next:?}");
    }

    fn seek(&self) {
        for partition in 0..self.partitions {
            for step in 0..8 {
                let time = self.start + self.cold * step / 8 * 10 - 3;
                let mut offset = ((time - self.start).max(0) + 9) / 10;
                if timestamp(seed_of(partition, offset), self.start, offset) < time {
                    offset += 1;
                }
                let consumer = self.consumer(&[(partition, offset)]);
                let mut times = TopicPartitionList::new();
                times.add_partition_offset(&self.topic, partition, Offset::Offset(time)).expect("a time");
                let found = consumer.offsets_for_times(times, STALLED).expect("an answer");
                let found = found.elements()[0].offset();
                assert_eq!(found, Offset::Offset(offset), "partition {partition} at {time}");
                let got = consumer.poll(STALLED).expect("a record soon").expect("a record");
                self.check(&got, partition, offset);
            }
        }
    }
}

/// Each record gets the offset that it was made for.
struct Placed;

impl ClientContext for Placed {}

impl ProducerContext for Placed {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, offset: usize) {
        match result {
            Ok(message) => assert_eq!(usize::try_from(message.offset()), Ok(offset), "acknowledged"),
            Err((error, message)) => panic!("{}/{offset} is not written: {error}", message.partition()),
        }
    }
}

fn main() {
    let world = World {
        bootstrap: variable("BOOTSTRAP"),
        topic: variable("TOPIC"),
        partitions: i32::try_from(number("PARTITIONS")).expect("few partitions"),
        records: number("RECORDS"),
        start: number("START"),
        cold: number("COLD"),
        rate: number("RATE"),
    };
    let mut arguments = env::args().skip(1);
    let mode = arguments.next().expect("a mode");
    let begun = Instant::now();
    match mode.as_str() {
        "create" => {
            let split = |pair: String| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            world.create(&arguments.map(|pair| split(pair).expect("NAME=VALUE")).collect::<Vec<_>>());
        }
        "write" => world.write(),
        "read" => world.read(),
        "seek" => world.seek(),
        _ => panic!("no mode {mode}"),
    }
    println!("ok {mode} {:.1}", begun.elapsed().as_secs_f64());
}
