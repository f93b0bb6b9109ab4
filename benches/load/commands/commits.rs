//! Members of classic groups commit one partition each, one commit at a time, as fast as they are answered.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use kafka_protocol::messages::{
    OffsetCommitRequest, TopicName,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
};
use kafka_protocol::protocol::StrBytes;
use tokio::task::JoinSet;

use super::{Outcome, connection::check, join::Groups, member::Member, outcome::Latency};

#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    groups: Groups,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

pub(super) async fn run(options: Options) -> Result<Outcome> {
    let groups = &options.groups;
    let (_, topic) = groups.target.open().await?;
    let members = groups.join().await?.members;
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(options.seconds);
    let mut running = JoinSet::new();
    for (number, member) in members.into_iter().enumerate() {
        let partition = i32::try_from(number)? % topic.partitions;
        running.spawn(commit(member, groups.target.topic.clone(), partition, until));
    }
    let mut latency = Latency::default();
    let mut commits = 0;
    while let Some(committed) = running.join_next().await {
        let (count, times) = committed??;
        commits += count;
        latency.merge(&times);
    }
    Ok(Outcome::new("commits")
        .with_rate("commits", commits, started.elapsed())
        .with_latency("latency_us", &latency)
        .with("errors", 0))
}

async fn commit(mut member: Member, topic: String, partition: i32, until: Instant) -> Result<(u64, Latency)> {
    let mut latency = Latency::default();
    let mut count = 0;
    let name = TopicName(StrBytes::from_string(topic));
    while Instant::now() < until {
        let offset = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(i64::try_from(count)?)
            .with_committed_metadata(Some(StrBytes::default()));
        let request = OffsetCommitRequest::default()
            .with_group_id(member.group.clone())
            .with_generation_id_or_member_epoch(member.generation)
            .with_member_id(member.id.clone())
            .with_topics(vec![
                OffsetCommitRequestTopic::default().with_name(name.clone()).with_partitions(vec![offset]),
            ]);
        let sent = Instant::now();
        let answer = member.connection.call(9, &request).await?;
        latency.add(sent.elapsed());
        let committed = answer.topics.first().and_then(|topic| topic.partitions.first());
        check("OffsetCommit", committed.context("an answer without a partition")?.error_code)?;
        count += 1;
    }
    Ok((count, latency))
}
