//! A consumer of a topic of one partition that comes anew and starts somewhere, again and again: the time until it has the first record.

use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;
use rand::{Rng, SeedableRng, rngs::StdRng};

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
    #[arg(long, default_value_t = 50)]
    seeks: u64,
    /// Offsets below it.
    #[arg(long)]
    below: i64,
    #[command(flatten)]
    limits: Limits,
}

/// Fetches that may come back empty before the record is there.
const MOST_FETCHES: u32 = 100;

pub(super) async fn run(options: Options) -> Result<Outcome> {
    let (_, topic) = options.target.open().await?;
    ensure!(topic.partitions == 1, "{} has several partitions", options.target.topic);
    let mut random = StdRng::seed_from_u64(42);
    let (mut latency, begun) = (Latency::default(), Instant::now());
    for _ in 0..options.seeks {
        let offset = random.random_range(0..options.below);
        let mut fetcher = Fetcher::open(options.target.bootstrap, &topic, false, options.limits.clone()).await?;
        fetcher.seek(0, offset);
        let (sent, mut is_there, mut fetches) = (Instant::now(), false, 0);
        while !is_there {
            ensure!(fetches < MOST_FETCHES, "nothing comes at offset {offset}");
            fetcher.send().await?;
            fetcher.receive(|_| is_there = true).await?;
            fetches += 1;
        }
        latency.add(sent.elapsed());
    }
    Ok(Outcome::new("seek").with_rate("seeks", options.seeks, begun.elapsed()).with_latency("latency_us", &latency))
}
