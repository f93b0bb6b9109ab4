//! One record at a time: the clock runs from the send of the record until a fetch that was waiting has it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;

use super::{
    Outcome,
    batches::Shape,
    fetcher::{Fetcher, Limits},
    outcome::Latency,
    produce::{self, Producer},
    topic::Target,
};

#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 1024)]
    record_size: usize,
    #[arg(long, default_value_t = 2_000)]
    records: u64,
    /// Ends earlier when this is over.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    acks: i16,
    #[command(flatten)]
    limits: Limits,
}

pub(super) async fn run(options: Options) -> Result<Outcome> {
    let (connection, topic) = options.target.open().await?;
    let topic = Arc::new(topic);
    let shape = Shape::single(options.record_size);
    let batches = Arc::new(shape.build()?);
    let mut fetcher = Fetcher::open(options.target.bootstrap, &topic, true, options.limits).await?;
    let produce = produce::Options {
        target: options.target,
        shape,
        acks: options.acks,
        connections: 1,
        in_flight: 1,
        records: None,
        seconds: options.seconds,
        rate: None,
        idempotent: false,
    };
    let mut producer = Producer::new(connection, topic, batches, 0, &produce).await?;
    fetcher.send().await?;

    let until = Duration::from_secs_f64(options.seconds);
    let started = Instant::now();
    let mut whole = Latency::default();
    let mut records = 0;
    while records < options.records && started.elapsed() < until {
        let sent = Instant::now();
        producer.send(sent).await?;
        let arrival = async {
            let mut arrived = 0;
            while arrived == 0 {
                fetcher.receive(|batch| arrived += batch.records).await?;
                if arrived == 0 {
                    fetcher.send().await?;
                }
            }
            let time = sent.elapsed();
            fetcher.send().await?;
            Ok::<_, anyhow::Error>(time)
        };
        let (acknowledged, arrived) = tokio::join!(producer.receive(), arrival);
        acknowledged.context("the produce request")?;
        whole.add(arrived.context("the fetch")?);
        records += 1;
    }
    let elapsed = started.elapsed();
    Ok(producer.finish().await?.outcome("end-to-end", elapsed).with_latency("delivery_us", &whole))
}
