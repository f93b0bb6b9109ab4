//! Where a key's commands go: to the one Redis there is, or to the node of a Redis Cluster that serves the key's slot.
//! With one Redis no slot is ever worked out.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use futures::future::{BoxFuture, try_join_all};
use redis::{Cmd, FromRedisValue, RedisError, ServerError, Value};
use tokio_util::sync::CancellationToken;

use super::{
    changes::Changes,
    client::{self, Client},
    connection::Request,
    keys::Keyspace,
    shards::{Shards, Slot, SlotSet},
};
use crate::{
    log::{durability::Life, store::StoreError},
    model::{GroupId, PartitionId},
    telemetry::metrics::RedisMetrics,
};

/// The Redis that Weir keeps everything in.
#[derive(Clone)]
pub enum Nodes {
    One(Arc<Client>),
    Many(Arc<Shards>),
}

impl From<Arc<Client>> for Nodes {
    fn from(client: Arc<Client>) -> Self {
        Self::One(client)
    }
}

impl Nodes {
    /// Connects, and loads the Function libraries.
    pub async fn connect(
        options: client::Options,
        is_cluster: bool,
        metrics: RedisMetrics,
    ) -> Result<Self, RedisError> {
        Ok(if is_cluster {
            Self::Many(Shards::connect(options, metrics).await?)
        } else {
            Self::One(Client::connect_counted(options, metrics).await?)
        })
    }

    /// Renews connections that are lost, until `stopping`.
    pub async fn supervise(self, stopping: CancellationToken) {
        match self {
            Self::One(client) => client.supervise(stopping).await,
            Self::Many(shards) => shards.supervise(stopping).await,
        }
    }

    pub fn keyspace(&self) -> &Keyspace {
        match self {
            Self::One(client) => client.keyspace(),
            Self::Many(shards) => shards.keyspace(),
        }
    }

    /// What others changed in Redis.
    pub fn changes(&self) -> &Arc<Changes> {
        match self {
            Self::One(client) => client.changes(),
            Self::Many(shards) => shards.changes(),
        }
    }

    /// The slot of a key.
    pub fn slot_of(&self, key: &str) -> Slot {
        match self {
            Self::One(_) => Slot::default(),
            Self::Many(_) => Slot::of(key.as_bytes()),
        }
    }

    pub fn slot_of_partition(&self, partition: &PartitionId) -> Slot {
        match self {
            Self::One(_) => Slot::default(),
            Self::Many(_) => self.slot_of(&self.keyspace().stream(&partition.topic, partition.index)),
        }
    }

    /// Where a group's offsets and members are.
    pub fn slot_of_group(&self, group: &GroupId) -> Slot {
        match self {
            Self::One(_) => Slot::default(),
            Self::Many(_) => self.slot_of(&self.keyspace().group(group)),
        }
    }

    /// The lives of the nodes that serve `slots`, as far as they were ever connected.
    pub fn lives_at(&self, slots: &SlotSet) -> HashSet<Life> {
        match self {
            Self::One(client) => HashSet::from([client.life()]),
            Self::Many(shards) => shards.clients_at(slots).iter().map(|client| client.life()).collect(),
        }
    }

    /// The life of the node that serves the slot; empty where none was ever connected.
    pub fn life_at(&self, slot: Slot) -> Life {
        self.at(slot).life()
    }

    /// The life of the one Redis. A cluster goes on for as long as it is one: its nodes' lives are the dial's.
    pub fn life(&self) -> Life {
        match self {
            Self::One(client) => client.life(),
            Self::Many(_) => Life::new("cluster"),
        }
    }

    pub(super) fn at(&self, slot: Slot) -> At<'_> {
        At { nodes: self, slot }
    }

    /// Where `key` is. One request may hold several keys only if they have one slot.
    pub(super) fn of(&self, key: &str) -> At<'_> {
        self.at(self.slot_of(key))
    }

    /// Whether the node answers that has the catalog.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.of(&self.keyspace().topics()).query(&redis::cmd("PING")).await
    }

    /// Every node that takes writes.
    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        match self {
            Self::One(client) => vec![client.clone()],
            Self::Many(shards) => shards.clients(),
        }
    }

    /// A key that only this node writes, to have something to wait for; another one each time as `attempt` counts up.
    pub(super) fn barrier_key(&self, client: &Arc<Client>, attempt: u32) -> String {
        const KEYS: u32 = 8;
        match self {
            Self::One(client) => client.keyspace().barrier(),
            Self::Many(shards) => {
                let keys = (0..).map(|number| shards.keyspace().shard_barrier(number));
                let mut keys = keys.take(1 << 16).filter(|key| shards.serves(client, Slot::of(key.as_bytes())));
                let skipped = usize::try_from(attempt % KEYS).unwrap_or(0);
                keys.nth(skipped).unwrap_or_else(|| shards.keyspace().shard_barrier(0))
            }
        }
    }

    /// Sends commands that need not go together, each with the key that it is about. After an error, the others may have
    /// been done.
    pub(super) async fn query_all<T: FromRedisValue>(&self, commands: &[(String, Cmd)]) -> Result<Vec<T>, StoreError> {
        try_join_all(commands.iter().map(|(key, command)| self.of(key).query(command))).await
    }
}

/// A slot's place.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    nodes: &'a Nodes,
    slot: Slot,
}

impl At<'_> {
    /// Names the connection of the moment: another one means that answers, and pushes, may have been lost.
    pub(super) fn generation(self) -> Option<u64> {
        match self.nodes {
            Nodes::One(client) => client.generation(),
            Nodes::Many(shards) => shards.client(self.slot)?.generation(),
        }
    }

    /// Of the server that was last connected; empty where none is known.
    pub(super) fn life(self) -> Life {
        match self.nodes {
            Nodes::One(client) => client.life(),
            Nodes::Many(shards) => shards.client(self.slot).map_or_else(|| Life::new(""), |client| client.life()),
        }
    }

    /// Sends one command.
    pub(super) async fn query<T: FromRedisValue>(self, command: &Cmd) -> Result<T, StoreError> {
        match self.nodes {
            Nodes::One(client) => client.query(command).await,
            Nodes::Many(shards) => shards.query(self.slot, Request::command(command)).await,
        }
    }

    /// As [`At::query`], of the one command that `request` makes.
    pub(super) async fn query_with<T: FromRedisValue>(self, request: impl Fn() -> Request) -> Result<T, StoreError> {
        match self.nodes {
            Nodes::One(client) => client.query_with(request).await,
            Nodes::Many(shards) => shards.query(self.slot, request()).await,
        }
    }

    /// Sends a request of one command or one transaction. Errors of the server, also those within an answer, are values.
    pub(super) async fn answer_to(self, request: Request) -> Result<Value, StoreError> {
        match self.nodes {
            Nodes::One(client) => client.answer_to(request).await,
            Nodes::Many(shards) => shards.answer_to(self.slot, request).await,
        }
    }

    /// Sends one command or one transaction whose answer is large, on a connection where it delays neither writes nor small
    /// reads.
    pub(super) async fn query_aside<T: FromRedisValue>(self, request: Request) -> Result<T, StoreError> {
        match self.nodes {
            Nodes::One(client) => {
                let answer = client.answer_aside(request).await?;
                client.read(answer)
            }
            Nodes::Many(shards) => shards.query_aside(self.slot, request).await,
        }
    }

    /// What a refusal by the server means, which an answer held as a value.
    pub(super) fn refused(self, error: ServerError) -> StoreError {
        match self.nodes {
            Nodes::One(client) => client.refused(error),
            Nodes::Many(shards) => shards.refused(self.slot, error),
        }
    }

    /// Loads the Function libraries again; for a caller that finds "Function not found" inside an answer.
    pub(super) async fn load_libraries(self) -> Result<(), StoreError> {
        match self.nodes {
            Nodes::One(client) => client.load_libraries().await,
            Nodes::Many(shards) => shards.load_libraries(self.slot).await,
        }
    }

    /// Sends one command whose answer is large, on a connection where it delays neither writes nor small reads. The answer
    /// is given as its bytes, of which about `bytes` are expected.
    pub(super) fn read_long(self, command: Cmd, bytes: usize) -> BoxFuture<'static, Result<Bytes, StoreError>> {
        match self.nodes {
            Nodes::One(client) => Box::pin(client.clone().read_long(command, bytes)),
            Nodes::Many(shards) => Box::pin(shards.clone().read_long(self.slot, command, bytes)),
        }
    }

    /// As [`At::read_long`], to be polled once and left until the answer is wanted; none where no connection is open.
    pub(super) fn read_ahead(
        self,
        command: &Cmd,
        bytes: usize,
    ) -> Option<BoxFuture<'static, Result<Bytes, StoreError>>> {
        let client = match self.nodes {
            Nodes::One(client) => client.clone(),
            // One that has moved on refuses; then it is read when it is wanted.
            Nodes::Many(shards) => shards.client(self.slot)?,
        };
        Some(Box::pin(client.read_ahead(command, bytes)?))
    }
}
