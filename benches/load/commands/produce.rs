//! Produce requests of one batch each, as many in flight as asked for.

use std::{
    collections::{BTreeMap, VecDeque},
    io::IoSlice,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, BytesMut};
use clap::Args;
use kafka_protocol::{
    messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse},
    protocol::{HeaderVersion, Request},
};
use tokio::task::JoinSet;
use weir::protocol::records::ProducerStamp;

use super::{
    Outcome,
    batches::{Batch, Shape},
    connection::{Connection, check},
    outcome::Latency,
    topic::{Target, Topic},
};

pub(super) const PRODUCE_VERSION: i16 = 13;
const TIMEOUT_MS: i32 = 30_000;

#[derive(Args, Clone)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) shape: Shape,
    /// 1, or -1 for all; 0 has no answers to check.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true, value_parser = clap::value_parser!(i16).range(-1..=1))]
    pub(super) acks: i16,
    /// Producers, each with a connection of its own. They begin at different partitions and take all in turns.
    #[arg(long, default_value_t = 1)]
    pub(super) connections: usize,
    /// Requests that a producer has in flight, as max.in.flight.requests.per.connection.
    #[arg(long, default_value_t = 5)]
    pub(super) in_flight: usize,
    /// Ends after so many records of all producers together.
    #[arg(long)]
    pub(super) records: Option<u64>,
    /// Ends after so much time, unless --records is given.
    #[arg(long, default_value_t = 3.0)]
    pub(super) seconds: f64,
    /// Records a second of all producers together; without it, as fast as the broker answers.
    #[arg(long)]
    pub(super) rate: Option<f64>,
    /// With producer ids and sequences.
    #[arg(long)]
    pub(super) idempotent: bool,
}

pub(super) async fn run(options: Options) -> Result<Outcome> {
    ensure!(options.acks != 0, "acks=0 has no answers: nothing could be checked");
    ensure!(options.connections > 0 && options.in_flight > 0, "there is nobody to send");
    let batches = Arc::new(options.shape.build()?);
    let mut topic = None;
    let mut producers = Vec::new();
    for number in 0..options.connections {
        let mut connection = Connection::open(options.target.bootstrap).await?;
        if topic.is_none() {
            topic = Some(Arc::new(Topic::find(&mut connection, &options.target.topic).await?));
        }
        let topic = Arc::clone(topic.as_ref().context("it was just found")?);
        producers.push(Producer::new(connection, topic, Arc::clone(&batches), number, &options).await?);
    }
    let records_per_batch = batches.iter().map(|batch| u64::from(batch.records().unsigned_abs())).max().unwrap_or(1);
    let per_producer =
        options.records.map(|records| records.div_ceil(records_per_batch).div_ceil(options.connections as u64));
    let interval =
        options.rate.map(|rate| Duration::from_secs_f64(records_per_batch as f64 * options.connections as f64 / rate));
    let until = (per_producer.is_none()).then(|| Duration::from_secs_f64(options.seconds));

    let started = Instant::now();
    let mut running = JoinSet::new();
    for (number, producer) in producers.into_iter().enumerate() {
        let first = interval.map_or(Duration::ZERO, |interval| interval * number as u32 / options.connections as u32);
        let pace = Pace { started, first, interval, batches: per_producer, until };
        running.spawn(producer.run(pace));
    }
    let mut total = Sent::default();
    while let Some(sent) = running.join_next().await {
        total.merge(sent??);
    }
    Ok(total.outcome("produce", started.elapsed()))
}

/// When a producer sends, and when it ends.
pub(super) struct Pace {
    pub(super) started: Instant,
    pub(super) first: Duration,
    pub(super) interval: Option<Duration>,
    pub(super) batches: Option<u64>,
    pub(super) until: Option<Duration>,
}

impl Pace {
    /// When batch `number` is to leave; none: at once.
    fn due(&self, number: u64) -> Option<Instant> {
        let interval = self.interval?;
        Some(self.started + self.first + interval.mul_f64(number as f64))
    }

    fn is_over(&self, sent: u64) -> bool {
        self.batches.is_some_and(|batches| sent >= batches)
            || self.until.is_some_and(|until| self.started.elapsed() >= until)
    }
}

#[derive(Default)]
pub(super) struct Sent {
    records: u64,
    batches: u64,
    bytes: u64,
    value_bytes: u64,
    errors: BTreeMap<String, u64>,
    latency: Latency,
}

impl Sent {
    fn merge(&mut self, other: Sent) {
        self.records += other.records;
        self.batches += other.batches;
        self.bytes += other.bytes;
        self.value_bytes += other.value_bytes;
        for (name, count) in other.errors {
            *self.errors.entry(name).or_default() += count;
        }
        self.latency.merge(&other.latency);
    }

    pub(super) fn outcome(self, command: &str, elapsed: Duration) -> Outcome {
        Outcome::new(command)
            .with_rate("records", self.records, elapsed)
            .with("batches", self.batches)
            .with("bytes", self.bytes)
            .with("value_bytes", self.value_bytes)
            .with_latency("latency_us", &self.latency)
            .with("errors", self.errors.values().sum::<u64>())
            .with("error_names", serde_json::json!(self.errors))
    }
}

/// What waits for its answer.
struct InFlight {
    since: Instant,
    partition: usize,
    batch: usize,
}

pub(super) struct Producer {
    connection: Connection,
    topic: Arc<Topic>,
    batches: Arc<Vec<Batch>>,
    acks: i16,
    most_in_flight: usize,
    /// Producer id, epoch and each partition's next sequence.
    identity: Option<(i64, i16, Vec<i32>)>,
    next_partition: usize,
    next_offsets: Vec<i64>,
    waiting: VecDeque<InFlight>,
    sent: Sent,
}

impl Producer {
    pub(super) async fn new(
        mut connection: Connection,
        topic: Arc<Topic>,
        batches: Arc<Vec<Batch>>,
        number: usize,
        options: &Options,
    ) -> Result<Self> {
        let partitions = usize::try_from(topic.partitions)?;
        let identity = if options.idempotent { Some(identity(&mut connection, partitions).await?) } else { None };
        Ok(Self {
            connection,
            topic,
            batches,
            acks: options.acks,
            most_in_flight: options.in_flight,
            identity,
            next_partition: number % partitions,
            next_offsets: vec![0; partitions],
            waiting: VecDeque::new(),
            sent: Sent::default(),
        })
    }

    pub(super) async fn run(mut self, pace: Pace) -> Result<Sent> {
        let mut number = 0;
        // Whether the broker holds up what is due: then that time counts.
        let mut is_late = false;
        while !pace.is_over(number) {
            let is_free = self.waiting.len() < self.most_in_flight;
            let due = pace.due(number);
            match due {
                Some(due) if is_free && due > Instant::now() => {
                    self.receive_until(due).await?;
                    // The timer is coarse: what it is late is not the broker's.
                    self.send(Instant::now()).await?;
                    number += 1;
                    is_late = false;
                }
                _ if is_free => {
                    self.send(due.filter(|_| is_late).unwrap_or_else(Instant::now)).await?;
                    number += 1;
                }
                _ => {
                    self.receive().await?;
                    is_late = true;
                }
            }
        }
        self.finish().await
    }

    pub(super) async fn send(&mut self, since: Instant) -> Result<()> {
        let partition = self.next_partition;
        self.next_partition = (partition + 1) % self.next_offsets.len();
        let number = usize::try_from(self.sent.batches).unwrap_or(0) % self.batches.len();
        let batch = &self.batches[number];
        let stamp = self.identity.as_mut().map(|(producer_id, producer_epoch, sequences)| {
            let base_sequence = sequences[partition];
            // Sequences go round after the largest number.
            sequences[partition] = base_sequence.checked_add(batch.records()).unwrap_or_else(|| {
                (i64::from(base_sequence) + i64::from(batch.records()) - i64::from(i32::MAX) - 1) as i32
            });
            ProducerStamp { producer_id: *producer_id, producer_epoch: *producer_epoch, base_sequence }
        });
        let header = batch.header(stamp);
        let head = head(self.connection.next_id(), &self.topic, self.acks, partition, batch.size())?;
        // No tagged fields of partition, topic and request.
        let tail = [0; 3];
        let mut pieces = [&head[..], &header[..], &batch.payload[..], &tail[..]].map(IoSlice::new);
        self.connection.send_pieces(&mut pieces).await?;
        self.waiting.push_back(InFlight { since, partition, batch: number });
        self.sent.batches += 1;
        Ok(())
    }

    /// Takes answers until `due`, and longer while no more may be in flight.
    pub(super) async fn receive_until(&mut self, due: Instant) -> Result<()> {
        loop {
            tokio::select! {
                answer = self.connection.receive(PRODUCE_VERSION), if !self.waiting.is_empty() => {
                    self.settle(&answer?)?;
                }
                () = tokio::time::sleep_until(due.into()), if self.waiting.len() < self.most_in_flight => return Ok(()),
            }
        }
    }

    /// Waits for what is in flight.
    pub(super) async fn finish(mut self) -> Result<Sent> {
        while !self.waiting.is_empty() {
            self.receive().await?;
        }
        Ok(self.sent)
    }

    pub(super) async fn receive(&mut self) -> Result<()> {
        let answer = self.connection.receive(PRODUCE_VERSION).await?;
        self.settle(&answer)
    }

    fn settle(&mut self, answer: &ProduceResponse) -> Result<()> {
        let asked = self.waiting.pop_front().context("an answer to nothing")?;
        let batch = &self.batches[asked.batch];
        let partition = answer
            .responses
            .first()
            .and_then(|topic| topic.partition_responses.first())
            .context("an answer without a partition")?;
        ensure!(usize::try_from(partition.index) == Ok(asked.partition), "an answer for another partition");
        self.sent.latency.add(asked.since.elapsed());
        match check("Produce", partition.error_code) {
            Ok(()) => {
                let next = &mut self.next_offsets[asked.partition];
                ensure!(partition.base_offset >= *next, "offset {} was given twice", partition.base_offset);
                *next = partition.base_offset + i64::from(batch.records());
                self.sent.records += u64::from(batch.records().unsigned_abs());
                self.sent.bytes += batch.size() as u64;
                self.sent.value_bytes += batch.value_bytes();
            }
            Err(error) => *self.sent.errors.entry(error.to_string()).or_default() += 1,
        }
        Ok(())
    }
}

async fn identity(connection: &mut Connection, partitions: usize) -> Result<(i64, i16, Vec<i32>)> {
    const RETRIES: u32 = 100;
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(TIMEOUT_MS)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    for retry in 1.. {
        let answer = connection.call(4, &request).await?;
        match check("InitProducerId", answer.error_code) {
            Ok(()) => return Ok((answer.producer_id.0, answer.producer_epoch, vec![0; partitions])),
            // Kafka's first block of ids comes late.
            Err(_) if retry < RETRIES => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => return Err(error),
        }
    }
    unreachable!("the loop returns")
}

/// All of a Produce request before its only batch: version 13 is flexible and names the topic by id.
fn head(id: i32, topic: &Topic, acks: i16, partition: usize, batch_size: usize) -> Result<BytesMut> {
    const CLIENT: &[u8] = b"load";
    debug_assert_eq!(ProduceRequest::header_version(PRODUCE_VERSION), 2);
    let mut head = BytesMut::with_capacity(80);
    head.put_i32(0);
    head.put_i16(ProduceRequest::KEY);
    head.put_i16(PRODUCE_VERSION);
    head.put_i32(id);
    head.put_i16(i16::try_from(CLIENT.len())?);
    head.put_slice(CLIENT);
    // No tagged fields of the header, no transactional id.
    head.put_slice(&[0, 0]);
    head.put_i16(acks);
    head.put_i32(TIMEOUT_MS);
    // Compact lengths are one more than what they count: one topic, one partition.
    head.put_u8(2);
    head.put_slice(topic.id.as_bytes());
    head.put_u8(2);
    head.put_i32(i32::try_from(partition)?);
    let mut rest = batch_size + 1;
    while rest >= 0x80 {
        head.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    head.put_u8(rest as u8);
    const TAGS: usize = 3;
    let length = i32::try_from(head.len() - 4 + batch_size + TAGS)?;
    head[..4].copy_from_slice(&length.to_be_bytes());
    Ok(head)
}
