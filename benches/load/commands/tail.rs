//! One producer at a fixed rate, and consumers that wait at the end of the same topic, which must be empty: how long each batch takes to reach each.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::{
    Outcome,
    batches::Shape,
    connection::PATIENCE,
    fetcher::{Fetcher, Limits},
    outcome::Latency,
    topic::Target,
};

#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    shape: Shape,
    /// Consumers, each with a connection of its own and all partitions.
    #[arg(long, default_value_t = 1)]
    groups: usize,
    /// Records a second.
    #[arg(long, default_value_t = 10_000.0)]
    rate: f64,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    acks: i16,
    #[command(flatten)]
    limits: Limits,
}

/// When each batch of each partition was sent.
type SendTimes = Arc<Vec<Mutex<Vec<Instant>>>>;

pub(super) async fn run(options: Options) -> Result<Outcome> {
    let (connection, topic) = options.target.open().await?;
    let topic = Arc::new(topic);
    let batches = Arc::new(options.shape.build()?);
    let records = u64::from(batches.first().context("no batch")?.records().unsigned_abs());
    ensure!(batches.iter().all(|batch| u64::from(batch.records().unsigned_abs()) == records), "batches differ");
    let count = (options.rate * options.seconds / records as f64).ceil().max(1.0) as u64;
    let interval = Duration::from_secs_f64(records as f64 / options.rate);

    let times: SendTimes = Arc::new((0..topic.partitions).map(|_| Mutex::default()).collect());
    let mut consumers = JoinSet::new();
    for _ in 0..options.groups {
        let mut fetcher = Fetcher::open(options.target.bootstrap, &topic, true, options.limits.clone()).await?;
        fetcher.send().await?;
        let times = Arc::clone(&times);
        consumers.spawn(async move { follow(fetcher, count * records, records, &times).await });
    }
    let produce = super::produce::Options {
        target: options.target,
        shape: options.shape,
        acks: options.acks,
        connections: 1,
        in_flight: 5,
        records: None,
        seconds: options.seconds,
        rate: Some(options.rate),
        idempotent: false,
    };
    let partitions = times.len();
    let mut producer =
        super::produce::Producer::new(connection, Arc::clone(&topic), Arc::clone(&batches), 0, &produce).await?;
    let started = Instant::now();
    for number in 0..count {
        let due = started + interval.mul_f64(number as f64);
        producer.receive_until(due).await?;
        let partition = usize::try_from(number)? % partitions;
        let now = Instant::now();
        times[partition].lock().push(now);
        producer.send(now).await?;
    }
    let sent = producer.finish().await?;
    let produced = started.elapsed();
    let mut delivery = Latency::default();
    let mut received = 0;
    while let Some(followed) = consumers.join_next().await {
        let followed = followed??;
        delivery.merge(&followed.latency);
        received += followed.records;
    }
    Ok(sent.outcome("tail", produced).with("received", received).with_latency("delivery_us", &delivery))
}

struct Followed {
    records: u64,
    latency: Latency,
}

async fn follow(mut fetcher: Fetcher, wanted: u64, records_per_batch: u64, times: &SendTimes) -> Result<Followed> {
    let mut followed = Followed { records: 0, latency: Latency::default() };
    let patience = PATIENCE + fetcher.max_wait();
    loop {
        let mut problem = None;
        let received = fetcher.receive(|batch| {
            followed.records += batch.records;
            let number = u64::try_from(batch.base_offset).unwrap_or(0) / records_per_batch;
            // Answers in the record layout may join batches: the first one's time counts.
            match times[batch.partition].lock().get(usize::try_from(number).unwrap_or(usize::MAX)) {
                Some(sent) => followed.latency.add(sent.elapsed()),
                None => problem = Some(number),
            }
        });
        tokio::time::timeout(patience, received).await.context("no answer to a fetch")??;
        ensure!(problem.is_none(), "batch {problem:?} was received and never sent: the topic was not empty");
        if followed.records >= wanted {
            return Ok(followed);
        }
        fetcher.send().await?;
    }
}
