//! One server's part of the dial: what it is set up for, and the waits for it.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::Value;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    barrier::{Barrier, Kind},
    fields, info_command,
    standing::{Means, Standing},
};
use crate::{
    log::{
        durability::{Life, Promise, Unkept},
        store::StoreError,
    },
    storage::redis::{client::Client, connection::Request, embedded::Syncer, nodes::Nodes},
    tasks::Tasks,
};

/// What the server said on one connection.
struct Look {
    generation: u64,
    standing: Standing,
}

pub(super) struct NodeDurability {
    client: Arc<Client>,
    nodes: Nodes,
    /// Of the embedded server.
    syncer: Option<Arc<Syncer>>,
    tasks: Tasks,
    /// Its tasks end with it.
    ended: CancellationToken,
    latest: ArcSwapOption<Look>,
    /// Held while the server is asked, so that it is asked once for all who need it.
    looking: tokio::sync::Mutex<()>,
    /// One for each kind of wait that was ever wanted.
    barriers: Mutex<HashMap<Kind, Arc<Barrier>>>,
}

impl NodeDurability {
    pub(super) fn new(client: Arc<Client>, nodes: Nodes, syncer: Option<Arc<Syncer>>, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            client,
            nodes,
            syncer,
            ended: tasks.stopping().child_token(),
            tasks,
            latest: ArcSwapOption::empty(),
            looking: tokio::sync::Mutex::default(),
            barriers: Mutex::default(),
        })
    }

    pub(super) fn is_of(&self, client: &Arc<Client>) -> bool {
        Arc::ptr_eq(&self.client, client)
    }

    /// Has the server write all that it has to new files.
    pub(super) async fn rewrite(&self) {
        if let Err(error) = self.client.query::<Value>(&redis::cmd("BGREWRITEAOF")).await {
            warn!(%error, "Redis does not write its file anew yet");
        }
    }

    /// What the server is set up for, as of the connection of the moment.
    async fn standing(&self) -> Result<Standing, StoreError> {
        match self.current() {
            Some(look) => Ok(look.standing.clone()),
            None => self.look().await,
        }
    }

    fn current(&self) -> Option<Arc<Look>> {
        let generation = self.client.generation()?;
        self.latest.load_full().filter(|look| look.generation == generation)
    }

    /// Asks the server what it is set up for.
    pub(super) async fn look(&self) -> Result<Standing, StoreError> {
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

    pub(super) fn check(&self, promise: Promise) -> Result<(), Unkept> {
        // Of a server that was only now connected nothing is known yet; the barrier will ask it.
        self.current().map_or(Ok(()), |look| look.standing.check(promise))
    }

    pub(super) fn holds_at_once(&self, promise: Promise) -> bool {
        self.current().is_some_and(|look| look.standing.holds_at_once(promise))
    }

    pub(super) fn life(&self) -> Life {
        self.client.life()
    }

    pub(super) async fn barrier(&self, promise: Promise, life: &Life) -> Result<(), Unkept> {
        let standing = self.standing().await.map_err(|error| Unkept::NotYet(error.to_string()))?;
        if standing.life != *life {
            return Err(Unkept::OtherLife);
        }
        standing.check(promise)?;
        let means = standing.means(promise.disk).map_err(Unkept::Impossible)?;
        tokio::try_join!(self.disk_barrier(means, life), self.replica_barrier(promise.replicas, life))?;
        Ok(())
    }

    fn shared(&self, kind: Kind) -> Arc<Barrier> {
        let mut barriers = self.barriers.lock();
        let barrier = barriers.entry(kind).or_insert_with(|| {
            let barrier = Barrier::new(self.client.clone(), self.nodes.clone(), kind);
            self.tasks.spawn("durability barrier", barrier.clone().serve(self.ended.clone()));
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

impl Drop for NodeDurability {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

fn same(held: Life, life: &Life) -> Result<(), Unkept> {
    if held == *life { Ok(()) } else { Err(Unkept::OtherLife) }
}
