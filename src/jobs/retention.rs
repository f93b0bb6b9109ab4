//! Retention of logs that are not written to: each `log.retention.check.interval.ms` every partition whose topic has the
//! policy `delete` is looked at.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    log::{Log, store::StoreError},
    topics::Catalog,
};

/// The first check comes this long after the start, as Kafka's `log.initial.task.delay.ms`.
const FIRST_AFTER: Duration = Duration::from_secs(30);

/// Between two rounds while there is too little room: appends, which trim too, are refused.
const WHILE_SHORT: Duration = Duration::from_secs(10);

/// Partitions that are checked at the same time; the rest of the broker's work goes on beside.
const CONCURRENT: usize = 4;

/// Between the starts of two partitions' checks, so that a round over thousands of partitions delays nobody.
const BETWEEN_PARTITIONS: Duration = Duration::from_millis(5);

/// Runs until `stopping`.
pub async fn run(log: Arc<Log>, topics: Arc<Catalog>, stopping: CancellationToken) {
    let mut pause = FIRST_AFTER;
    let mut pressure = log.pressure().changes();
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            // What may go is wanted at once when room is scarce.
            () = pressure.next() => {}
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = check(&log, &topics) => {}
        }
        pause = interval(&topics);
        if log.pressure().shortage().is_some() {
            pause = pause.min(WHILE_SHORT);
        }
    }
}

fn interval(topics: &Catalog) -> Duration {
    Duration::from_millis(topics.settings().load().log_retention_check_interval_ms)
}

/// A round of so many partitions takes no more than half of `interval`.
fn between(partitions: usize, interval: Duration) -> Duration {
    let partitions = u32::try_from(partitions.max(1)).unwrap_or(u32::MAX);
    (interval / 2 / partitions).clamp(Duration::from_nanos(1), BETWEEN_PARTITIONS)
}

/// Checks every partition that this broker leads once.
async fn check(log: &Log, topics: &Catalog) {
    let now_ms = log.now_ms();
    let mut partitions = Vec::new();
    for topic in topics.snapshot().topics().filter(|topic| topic.log_config.is_trimmed()) {
        let retention = topic.log_config.retention(now_ms);
        let led = topic.partition_ids().filter(|partition| log.leads(partition));
        partitions.extend(led.map(|partition| (partition, retention)));
    }
    let pace = tokio::time::interval(between(partitions.len(), interval(topics)));
    let paced = stream::unfold((partitions.into_iter(), pace), |(mut rest, mut pace)| async {
        let next = rest.next()?;
        pace.tick().await;
        Some((next, (rest, pace)))
    });
    let (failed, first) = paced
        .map(|(partition, retention)| async move {
            let checked = log.retain(&partition, retention).await;
            checked.inspect_err(|error| debug!(%partition, %error, "the retention check failed")).err()
        })
        .buffer_unordered(CONCURRENT)
        // A topic may be deleted meanwhile.
        .filter_map(|failure| async { failure.filter(|error| *error != StoreError::NoSuchPartition) })
        .fold((0_usize, None), |(count, first), error| async move { (count + 1, first.or(Some(error))) })
        .await;
    if let Some(error) = first {
        warn!(partitions = failed, %error, "retention checks failed; the next round tries again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_spread_out_and_still_ends_within_half_its_interval() {
        let minutes = Duration::from_secs(300);
        assert_eq!(between(1, minutes), BETWEEN_PARTITIONS);
        assert_eq!(between(10_000, minutes), BETWEEN_PARTITIONS);
        assert!(between(100_000, minutes) * 100_000 <= minutes / 2);
        assert!(between(0, Duration::ZERO) > Duration::ZERO, "an interval of zero would panic");
    }
}
