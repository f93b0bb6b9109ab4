//! Plain fetchers that name their offsets: each reads the whole topic.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use tokio::task::JoinSet;

use super::{
    Outcome,
    fetcher::{Fetcher, Limits},
    outcome::Latency,
    topic::Target,
};

#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 1)]
    consumers: usize,
    /// From what is written from now on, not from the start.
    #[arg(long)]
    at_end: bool,
    /// Each consumer ends after so many records, or when the time is over.
    #[arg(long)]
    records: Option<u64>,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    #[command(flatten)]
    limits: Limits,
}

#[derive(Default)]
struct Read {
    records: u64,
    bytes: u64,
    fetches: u64,
    latency: Latency,
}

pub(super) async fn run(options: Options) -> Result<Outcome> {
    let (_, topic) = options.target.open().await?;
    let mut fetchers = Vec::new();
    for _ in 0..options.consumers {
        fetchers.push(Fetcher::open(options.target.bootstrap, &topic, options.at_end, options.limits.clone()).await?);
    }
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(options.seconds);
    let wanted = options.records.unwrap_or(u64::MAX);
    let mut running = JoinSet::new();
    for fetcher in fetchers {
        running.spawn(read(fetcher, wanted, until));
    }
    let mut total = Read::default();
    while let Some(read) = running.join_next().await {
        let read = read??;
        total.records += read.records;
        total.bytes += read.bytes;
        total.fetches += read.fetches;
        total.latency.merge(&read.latency);
    }
    let missing = options.records.map_or(0, |wanted| (wanted * options.consumers as u64).saturating_sub(total.records));
    Ok(Outcome::new("consume")
        .with_rate("records", total.records, started.elapsed())
        .with("bytes", total.bytes)
        .with("fetches", total.fetches)
        .with_latency("latency_us", &total.latency)
        .with("errors", u64::from(missing > 0))
        .with("missing", missing))
}

async fn read(mut fetcher: Fetcher, wanted: u64, until: Instant) -> Result<Read> {
    let mut read = Read::default();
    while read.records < wanted && Instant::now() < until {
        let sent = Instant::now();
        fetcher.send().await?;
        fetcher
            .receive(|batch| {
                read.records += batch.records;
                read.bytes += batch.bytes;
            })
            .await?;
        read.fetches += 1;
        read.latency.add(sent.elapsed());
    }
    Ok(read)
}
