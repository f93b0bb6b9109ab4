//! Members join groups together: the time until every group's members share one generation.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use tokio::{sync::watch, task::JoinSet};

use super::{Outcome, connection::PATIENCE, member::Member, outcome::Latency, topic::Target, until_input_ends};

#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    groups: Groups,
    /// Once stable, prints a line and keeps the groups alive until standard input ends.
    #[arg(long)]
    hold: bool,
}

/// The generation that holds every member, once there is one.
type Complete = Arc<watch::Sender<Option<i32>>>;

/// The groups whose members join.
#[derive(Args)]
pub(super) struct Groups {
    #[command(flatten)]
    pub(super) target: Target,
    /// The groups' names begin with this.
    #[arg(long, default_value = "load")]
    group: String,
    #[arg(long, default_value_t = 1)]
    groups: usize,
    /// Of each group.
    #[arg(long, default_value_t = 1)]
    members: usize,
    /// How often a member asks whether the group rebalances.
    #[arg(long, default_value_t = 50)]
    heartbeat_ms: u64,
}

/// Members of stable groups, and how long that took.
pub(super) struct Stable {
    pub(super) members: Vec<Member>,
    times: Latency,
    elapsed: Duration,
}

impl Groups {
    pub(super) async fn join(&self) -> Result<Stable> {
        let heartbeat = Duration::from_millis(self.heartbeat_ms);
        let mut members = Vec::new();
        for number in 0..self.groups {
            let complete: Complete = Arc::new(watch::Sender::new(None));
            for _ in 0..self.members {
                let member =
                    Member::new(self.target.bootstrap, &format!("{}-{number}", self.group), &self.target.topic).await?;
                members.push((member, Arc::clone(&complete)));
            }
        }
        let started = Instant::now();
        let mut joining = JoinSet::new();
        for (member, complete) in members {
            joining.spawn(settle(member, self.members, heartbeat, complete, started));
        }
        let mut stable = Stable { members: Vec::new(), times: Latency::default(), elapsed: Duration::ZERO };
        while let Some(joined) = tokio::time::timeout(PATIENCE, joining.join_next()).await.context("no stable group")? {
            let (member, time) = joined??;
            stable.times.add(time);
            stable.members.push(member);
        }
        stable.elapsed = started.elapsed();
        Ok(stable)
    }
}

pub(super) async fn run(options: Options) -> Result<Outcome> {
    let stable = options.groups.join().await?;
    let count = u64::try_from(stable.members.len())?;
    let outcome =
        Outcome::new("join").with_rate("members", count, stable.elapsed).with_latency("stable_us", &stable.times);
    if options.hold {
        println!("{}", outcome.json());
        hold(stable.members).await?;
    }
    Ok(outcome.with("errors", 0))
}

/// Joins, again whenever the group rebalances, until all are in one generation.
async fn settle(
    mut member: Member,
    wanted: usize,
    heartbeat: Duration,
    complete: Complete,
    started: Instant,
) -> Result<(Member, Duration)> {
    let mut known = complete.subscribe();
    member.join().await?;
    loop {
        if member.members == Some(wanted) {
            complete.send_replace(Some(member.generation));
        }
        if *known.borrow_and_update() == Some(member.generation) {
            return Ok((member, started.elapsed()));
        }
        let _ = tokio::time::timeout(heartbeat, known.changed()).await;
        if *known.borrow() != Some(member.generation) && !member.heartbeat().await? {
            member.join().await?;
        }
    }
}

async fn hold(members: Vec<Member>) -> Result<()> {
    /// As often as the Java consumer by default.
    const PAUSE: Duration = Duration::from_secs(3);
    let mut alive = JoinSet::new();
    for (number, mut member) in members.into_iter().enumerate() {
        // Spread over the pause, as they would be.
        let first = PAUSE.mul_f64((number % 100) as f64 / 100.0);
        alive.spawn(async move {
            tokio::time::sleep(first).await;
            while member.heartbeat().await? {
                tokio::time::sleep(PAUSE).await;
            }
            anyhow::bail!("a stable group rebalances")
        });
    }
    tokio::select! {
        () = until_input_ends() => Ok(()),
        Some(ended) = alive.join_next() => ended?,
    }
}
