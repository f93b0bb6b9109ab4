//! The dial on Redis: what the server is set up for is looked at once a second, and what its answer does not promise is
//! waited for apart from the connection that appends.

mod barrier;
mod standing;

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use parking_lot::Mutex;
use redis::{RedisError, Value, aio::ConnectionLike};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use self::standing::{AppendFsync, Standing};
pub(super) use self::standing::{life, number_pair};
use self::{
    barrier::{Barrier, Kind},
    standing::Means,
};
use super::{client::Client, connection::Request, embedded::Syncer};
use crate::{
    log::{
        durability::{Durability, Life, Promise, Unkept},
        store::StoreError,
    },
    tasks::Tasks,
};

/// How often the server is asked what it is set up for.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// The fields of `INFO` that say who the server is and how it keeps its data.
pub(super) async fn info(connection: &mut impl ConnectionLike) -> Result<HashMap<String, String>, RedisError> {
    let text: String = info_command().query_async(connection).await?;
    Ok(fields(&text))
}

pub(super) fn info_command() -> redis::Cmd {
    redis::cmd("INFO").arg("server").arg("replication").arg("persistence").to_owned()
}

/// The fields of an answer to `INFO`.
pub(super) fn fields(text: &str) -> HashMap<String, String> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// What the server said on one connection.
struct Look {
    generation: u64,
    standing: Standing,
}

pub struct RedisDurability {
    client: Arc<Client>,
    /// Of the embedded server.
    syncer: Option<Arc<Syncer>>,
    tasks: Tasks,
    latest: ArcSwapOption<Look>,
    /// Held while the server is asked, so that it is asked once for all who need it.
    looking: tokio::sync::Mutex<()>,
    /// One for each kind of wait that was ever wanted.
    barriers: Mutex<HashMap<Kind, Arc<Barrier>>>,
}

impl RedisDurability {
    /// Asks the server once. `syncer` is there where the server is Weir's own.
    pub async fn start(
        client: Arc<Client>,
        syncer: Option<Arc<Syncer>>,
        tasks: Tasks,
    ) -> Result<Arc<Self>, StoreError> {
        let this = Arc::new(Self {
            client,
            syncer,
            tasks,
            latest: ArcSwapOption::empty(),
            looking: tokio::sync::Mutex::default(),
            barriers: Mutex::default(),
        });
        this.look().await?;
        Ok(this)
    }

    /// Looks at the server again and again until `stopping`.
    pub async fn keep_looking(self: Arc<Self>, stopping: CancellationToken) {
        /// Redis is asked to write its file anew no more often than this.
        const BETWEEN_REWRITES: u32 = 10;
        let mut until_rewrite = 0;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(BETWEEN_LOOKS) => {}
            }
            // A lost connection is told of elsewhere.
            let _ = self.look().await;
            until_rewrite = if until_rewrite > 0 { until_rewrite - 1 } else { 0 };
            if until_rewrite == 0 && self.syncer.as_ref().is_some_and(|syncer| syncer.failure().is_some()) {
                until_rewrite = BETWEEN_REWRITES;
                // What a failed sync has lost can't be synced again: all of it is written to new files.
                if let Err(error) = self.client.query::<Value>(&redis::cmd("BGREWRITEAOF")).await {
                    warn!(%error, "Redis does not write its file anew yet");
                }
            }
        }
    }

    /// What the server is set up for, as of the connection of the moment.
    pub async fn standing(&self) -> Result<Standing, StoreError> {
        match self.current() {
            Some(look) => Ok(look.standing.clone()),
            None => self.look().await,
        }
    }

    /// Why what was written is not known to be safe, if it is not.
    pub fn failure(&self) -> Option<String> {
        self.syncer.as_ref().and_then(|syncer| syncer.failure())
    }

    fn current(&self) -> Option<Arc<Look>> {
        let generation = self.client.generation()?;
        self.latest.load_full().filter(|look| look.generation == generation)
    }

    async fn look(&self) -> Result<Standing, StoreError> {
        let before = self.current();
        let _looking = self.looking.lock().await;
        // Who waited for another's look takes that.
        if let Some(look) =
            self.current().filter(|look| before.as_ref().is_none_or(|before| !Arc::ptr_eq(before, look)))
        {
            return Ok(look.standing.clone());
        }
        let not_connected = || StoreError::NotSent("no connection to Redis".to_owned());
        let generation = self.client.generation().ok_or_else(not_connected)?;
        let mut commands = vec![info_command()];
        let may_ask = self
            .latest
            .load()
            .as_ref()
            .is_none_or(|look| look.generation != generation || look.standing.appendfsync.is_some());
        if may_ask {
            commands.push(redis::cmd("CONFIG").arg("GET").arg("appendfsync").to_owned());
        }
        let answers = self.client.send(Request::pipeline(&commands)).await?;
        let mut answers = answers.into_iter();
        let told = answers.next().and_then(|answer| redis::from_redis_value::<String>(answer).ok());
        let told = told.ok_or_else(|| StoreError::NotReady("Redis does not answer INFO".to_owned()))?;
        let config = answers.next().and_then(|answer| redis::from_redis_value::<HashMap<String, String>>(answer).ok());
        let appendfsync = config.as_ref().and_then(|config| config.get("appendfsync")).map(String::as_str);
        let standing = Standing::of(&fields(&told), appendfsync, self.syncer.is_some());
        if self.client.generation() != Some(generation) {
            return Err(not_connected());
        }
        if standing.life != self.client.life() {
            // It was a replica in between, and took over another's data: nothing that is known of it holds.
            warn!("Redis has another replication history than when it was connected; everything is read again");
            self.client.renew(generation);
            return Err(not_connected());
        }
        self.tell_changes(&standing);
        self.latest.store(Some(Arc::new(Look { generation, standing: standing.clone() })));
        Ok(standing)
    }

    fn tell_changes(&self, standing: &Standing) {
        let Some(before) = self.latest.load_full() else { return };
        if before.standing.survives() != standing.survives() {
            error!(
                before = before.standing.survives(),
                now = standing.survives(),
                "Redis is set up otherwise than before: what an answer of it survives has changed"
            );
        }
        if before.standing.replicas != standing.replicas {
            info!(
                replicas = standing.replicas,
                before = before.standing.replicas,
                "the number of Redis' replicas has changed"
            );
        }
    }

    fn shared(&self, kind: Kind) -> Arc<Barrier> {
        let mut barriers = self.barriers.lock();
        let barrier = barriers.entry(kind).or_insert_with(|| {
            let barrier = Barrier::new(self.client.clone(), kind);
            self.tasks.spawn("durability barrier", barrier.clone().serve(self.tasks.stopping().clone()));
            barrier
        });
        barrier.clone()
    }

    async fn disk_barrier(&self, means: Means, life: &Life) -> Result<(), Unkept> {
        match (means, &self.syncer) {
            (Means::Answer, _) => Ok(()),
            // The file outlives the process that wrote it.
            (Means::OwnSync, Some(syncer)) => syncer.sync().await.map_err(Unkept::NotYet),
            (Means::OwnSync, None) => Err(Unkept::NotYet("there is no file of an embedded Redis".to_owned())),
            (Means::WaitAof, _) => same(self.shared(Kind::Aof).wait().await?, life),
        }
    }

    async fn replica_barrier(&self, replicas: u16, life: &Life) -> Result<(), Unkept> {
        if replicas == 0 {
            return Ok(());
        }
        same(self.shared(Kind::Replicas(replicas)).wait().await?, life)
    }
}

fn same(held: Life, life: &Life) -> Result<(), Unkept> {
    if held == *life { Ok(()) } else { Err(Unkept::OtherLife) }
}

#[async_trait]
impl Durability for RedisDurability {
    fn check(&self, promise: Promise) -> Result<(), Unkept> {
        if promise == Promise::MEMORY {
            return Ok(());
        }
        // Of a server that was only now connected nothing is known yet; the barrier will ask it.
        self.current().map_or(Ok(()), |look| look.standing.check(promise))
    }

    fn holds_at_once(&self, promise: Promise) -> bool {
        promise == Promise::MEMORY || self.current().is_some_and(|look| look.standing.holds_at_once(promise))
    }

    fn life(&self) -> Life {
        self.client.life()
    }

    async fn barrier(&self, promise: Promise, life: &Life) -> Result<(), Unkept> {
        if promise == Promise::MEMORY {
            return Ok(());
        }
        let standing = self.standing().await.map_err(|error| Unkept::NotYet(error.to_string()))?;
        if standing.life != *life {
            return Err(Unkept::OtherLife);
        }
        standing.check(promise)?;
        let means = standing.means(promise.disk).map_err(Unkept::Impossible)?;
        tokio::try_join!(self.disk_barrier(means, life), self.replica_barrier(promise.replicas, life))?;
        Ok(())
    }
}
