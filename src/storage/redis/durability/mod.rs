//! The dial on Redis: what the server is set up for is looked at once a second, and what its answer does not promise is
//! waited for apart from the connection that appends.

mod barrier;
mod node;
mod standing;
pub(super) mod torn;

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::future::join_all;
use redis::{RedisError, aio::ConnectionLike};
use tokio_util::sync::CancellationToken;

use self::node::NodeDurability;
pub use self::standing::{AppendFsync, Standing};
pub(super) use self::standing::{life, number_pair};
use super::{client::Client, embedded::Syncer, nodes::Nodes, shards::Slot};
use crate::{
    log::{
        durability::{Durability, Life, Promise, Unkept},
        store::StoreError,
    },
    model::PartitionId,
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

#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzzed(info: &HashMap<String, String>, appendfsync: &str) {
    use crate::log::durability::Disk;
    let standing = Standing::of(info, Some(appendfsync), false);
    let _ = standing.survives();
    for disk in [Disk::Memory, Disk::Written, Disk::Fsync] {
        let promise = Promise { disk, replicas: 1 };
        assert!(!standing.holds_at_once(promise), "replicas are always waited for");
        assert!(standing.check(promise).is_err() || standing.replicas > 0);
    }
}

pub struct RedisDurability {
    nodes: Nodes,
    /// Of the embedded server.
    syncer: Option<Arc<Syncer>>,
    tasks: Tasks,
    /// One for each node that was ever asked about and still is one.
    each: ArcSwap<Vec<Arc<NodeDurability>>>,
}

impl RedisDurability {
    /// Asks each server once. `syncer` is there where the server is Weir's own.
    pub async fn start(nodes: Nodes, syncer: Option<Arc<Syncer>>, tasks: Tasks) -> Result<Arc<Self>, StoreError> {
        let this = Arc::new(Self { nodes, syncer, tasks, each: ArcSwap::default() });
        for client in this.nodes.all() {
            let looked = this.of(&client).look().await;
            if matches!(this.nodes, Nodes::One(_)) {
                looked?;
            }
        }
        Ok(this)
    }

    /// Looks at the servers again and again until `stopping`.
    pub async fn keep_looking(self: Arc<Self>, stopping: CancellationToken) {
        /// Redis is asked to write its file anew no more often than this.
        const BETWEEN_REWRITES: u32 = 10;
        let mut until_rewrite: u32 = 0;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(BETWEEN_LOOKS) => {}
            }
            let clients = self.nodes.all();
            self.each.rcu(|each| {
                let is_there = |node: &&Arc<NodeDurability>| clients.iter().any(|client| node.is_of(client));
                each.iter().filter(is_there).cloned().collect::<Vec<_>>()
            });
            // A lost connection is told of elsewhere; one that hangs holds up its own look only.
            let looks = clients.iter().map(|client| {
                let node = self.of(client);
                async move { tokio::time::timeout(BETWEEN_LOOKS, node.look()).await }
            });
            join_all(looks).await;
            until_rewrite = until_rewrite.saturating_sub(1);
            if until_rewrite == 0 && self.failure().is_some() {
                until_rewrite = BETWEEN_REWRITES;
                // What a failed sync has lost can't be synced again: all of it is written to new files.
                for client in &clients {
                    self.of(client).rewrite().await;
                }
            }
        }
    }

    /// Why what was written is not known to be safe, if it is not.
    pub fn failure(&self) -> Option<String> {
        self.syncer.as_ref().and_then(|syncer| syncer.failure())
    }

    /// Where the embedded server keeps its data.
    pub fn data_dir(&self) -> Option<PathBuf> {
        self.syncer.as_ref().map(|syncer| syncer.data_dir().to_owned())
    }

    fn of(&self, client: &Arc<Client>) -> Arc<NodeDurability> {
        let known = |each: &[Arc<NodeDurability>]| each.iter().find(|node| node.is_of(client)).cloned();
        if let Some(node) = known(&self.each.load()) {
            return node;
        }
        let new = NodeDurability::new(client.clone(), self.nodes.clone(), self.syncer.clone(), self.tasks.clone());
        let before = self.each.rcu(|each| {
            if known(each).is_some() { each.to_vec() } else { [&each[..], std::slice::from_ref(&new)].concat() }
        });
        known(&before).unwrap_or(new)
    }

    /// Of the server that has the partition; none while nobody knows which that is.
    fn at(&self, partition: &PartitionId) -> Option<Arc<NodeDurability>> {
        match &self.nodes {
            Nodes::One(client) => Some(self.of(client)),
            Nodes::Many(shards) => {
                let stream = shards.keyspace().stream(&partition.topic, partition.index);
                self.of_slot(Slot::of(stream.as_bytes()))
            }
        }
    }

    fn of_slot(&self, slot: Slot) -> Option<Arc<NodeDurability>> {
        match &self.nodes {
            Nodes::One(client) => Some(self.of(client)),
            Nodes::Many(shards) => shards.client(slot).map(|client| self.of(&client)),
        }
    }

    /// What is known to stand against the promise at the slot's server.
    pub(super) fn check_at(&self, promise: Promise, slot: Slot) -> Result<(), Unkept> {
        if promise == Promise::MEMORY {
            return Ok(());
        }
        self.of_slot(slot).map_or(Ok(()), |node| node.check(promise))
    }

    /// Taken before a write to the slot's server; what it returns ends when the promise holds for the write.
    pub(super) fn expect(
        &self,
        promise: Promise,
        slot: Slot,
    ) -> impl Future<Output = Result<(), Unkept>> + Send + use<> {
        let node = if promise == Promise::MEMORY { None } else { self.of_slot(slot) };
        let expected = node.map(|node| {
            let life = node.life();
            (node, life)
        });
        async move {
            match expected {
                Some((node, life)) => node.barrier(promise, &life).await,
                None if promise == Promise::MEMORY => Ok(()),
                None => Err(Unkept::NotYet("no node of the cluster has the slot".to_owned())),
            }
        }
    }
}

#[async_trait]
impl Durability for RedisDurability {
    fn check(&self, promise: Promise, partition: Option<&PartitionId>) -> Result<(), Unkept> {
        if promise == Promise::MEMORY {
            return Ok(());
        }
        match partition {
            Some(partition) => self.at(partition).map_or(Ok(()), |node| node.check(promise)),
            None => self.nodes.all().iter().try_for_each(|client| self.of(client).check(promise)),
        }
    }

    fn holds_at_once(&self, promise: Promise, partition: &PartitionId) -> bool {
        promise == Promise::MEMORY || self.at(partition).is_some_and(|node| node.holds_at_once(promise))
    }

    fn life(&self, partition: &PartitionId) -> Life {
        self.at(partition).map_or_else(|| Life::new(""), |node| node.life())
    }

    async fn barrier(&self, promise: Promise, partition: &PartitionId, life: &Life) -> Result<(), Unkept> {
        if promise == Promise::MEMORY {
            return Ok(());
        }
        match self.at(partition) {
            Some(node) => node.barrier(promise, life).await,
            None => Err(Unkept::NotYet("no node of the cluster has the partition".to_owned())),
        }
    }
}
