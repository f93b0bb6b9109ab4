//! Redis Cluster: topics spread over its shards, each key's commands sent to the node that serves its slot
//! (docs/adr/0014).

pub(super) mod check;
mod slot;
mod topology;

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use redis::{Cmd, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError, ServerError, Value};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::slot::{Slot, SlotSet};
pub(super) use self::topology::Topology;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use self::topology::fuzzed;
use self::{slot::SLOTS, topology::Redirection};
use super::{
    address::Address,
    changes::Changes,
    client::{Client, Options, store_error},
    connection::{self, Connection, Request},
    keys::Keyspace,
    scripts,
    whereabouts::with_settings,
};
use crate::{log::store::StoreError, telemetry::metrics::RedisMetrics};

/// How often the nodes are asked who serves what, where all is well.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// And while a slot has no node that is connected.
const BETWEEN_HASTY_LOOKS: Duration = Duration::from_millis(200);
/// What is asked again and again is not asked more often.
const LEAST_BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// Another node's answer is taken instead.
const LONGEST_LOOK: Duration = Duration::from_millis(500);
/// How long one command follows redirections, and waits for a slot that is half moved.
const PATIENCE: Duration = Duration::from_secs(1);
const BETWEEN_TRIES: Duration = Duration::from_millis(10);
/// A node that has no slots is kept for so long after it was asked last.
const KEPT_UNUSED: Duration = Duration::from_secs(60);

/// A node that takes writes.
struct Node {
    address: Address,
    client: Arc<Client>,
    retired: CancellationToken,
    /// It was connected.
    connected: Notify,
    /// When a command was last sent here although it has no slots.
    asked: Mutex<Instant>,
}

impl Node {
    /// Waits until it is connected, for a while.
    async fn until_connected(&self) {
        let connected = async {
            loop {
                let notified = self.connected.notified();
                if self.client.generation().is_some() {
                    return;
                }
                notified.await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, connected).await;
    }
}

/// Who serves which slot.
#[derive(Clone)]
struct Map {
    nodes: Vec<Arc<Node>>,
    /// For each slot an index into `nodes`.
    owners: Vec<u16>,
}

impl Map {
    const NOBODY: u16 = u16::MAX;

    fn owner(&self, slot: Slot) -> Option<&Arc<Node>> {
        self.nodes.get(usize::from(*self.owners.get(slot.index())?))
    }

    fn set(&mut self, slot: Slot, node: &Arc<Node>) {
        let known = self.nodes.iter().position(|known| Arc::ptr_eq(known, node)).unwrap_or_else(|| {
            self.nodes.push(node.clone());
            self.nodes.len() - 1
        });
        if let Some(owner) = self.owners.get_mut(slot.index()) {
            *owner = u16::try_from(known).unwrap_or(Self::NOBODY);
        }
    }

    fn all_slots() -> impl Iterator<Item = Slot> {
        (0..SLOTS).filter_map(Slot::new)
    }

    /// Whether every slot has a node that is connected.
    fn is_whole(&self) -> bool {
        !self.owners.contains(&Self::NOBODY) && self.nodes.iter().all(|node| node.client.generation().is_some())
    }
}

impl Default for Map {
    fn default() -> Self {
        Self { nodes: Vec::new(), owners: vec![Self::NOBODY; usize::from(SLOTS)] }
    }
}

/// A Redis Cluster.
pub struct Shards {
    this: Weak<Self>,
    options: Options,
    seeds: Vec<ConnectionInfo>,
    /// The first of them: how nodes are logged in to.
    seed: ConnectionInfo,
    metrics: RedisMetrics,
    changes: Arc<Changes>,
    map: ArcSwap<Map>,
    /// Held while the map is changed. Also those that have no slots.
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    /// To be supervised; bounded by the nodes there are.
    new: mpsc::UnboundedSender<Arc<Node>>,
    unsupervised: Mutex<Option<mpsc::UnboundedReceiver<Arc<Node>>>>,
    /// Something is not where it was said to be.
    doubted: Notify,
}

impl Shards {
    /// Connects to every node that has slots, and loads the Function libraries there.
    pub(super) async fn connect(options: Options, metrics: RedisMetrics) -> Result<Arc<Self>, RedisError> {
        let seeds = seeds(&options.url)?;
        let seed = seeds.first().cloned().ok_or_else(|| unexpected("no address is given"))?;
        let (new, unsupervised) = mpsc::unbounded_channel();
        let this = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            options,
            seed,
            seeds,
            metrics,
            changes: Arc::default(),
            map: ArcSwap::default(),
            nodes: Mutex::default(),
            new,
            unsupervised: Mutex::new(Some(unsupervised)),
            doubted: Notify::new(),
        });
        let topology = this.ask_seeds().await?;
        this.take(&topology);
        let clients = this.clients();
        let connected = join_all(clients.iter().map(|client| client.establish())).await;
        // A node that is lost just now is tried again; all of them are a mistake.
        match connected.into_iter().reduce(Result::or) {
            Some(Err(error)) => Err(error),
            _ => Ok(this),
        }
    }

    pub(super) fn keyspace(&self) -> &Keyspace {
        &self.options.keyspace
    }

    pub(super) fn changes(&self) -> &Arc<Changes> {
        &self.changes
    }

    /// Of every node that has slots.
    pub(super) fn clients(&self) -> Vec<Arc<Client>> {
        self.map.load().nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// Of the nodes that serve some of the slots.
    pub(super) fn clients_at(&self, slots: &SlotSet) -> Vec<Arc<Client>> {
        let map = self.map.load();
        let serves = |node: &Arc<Node>| {
            let mut slots = Map::all_slots().filter(|slot| slots.contains(*slot));
            slots.any(|slot| map.owner(slot).is_some_and(|owner| Arc::ptr_eq(owner, node)))
        };
        map.nodes.iter().filter(|node| serves(node)).map(|node| node.client.clone()).collect()
    }

    /// Of the node that serves the slot.
    pub(super) fn client(&self, slot: Slot) -> Option<Arc<Client>> {
        self.map.load().owner(slot).map(|node| node.client.clone())
    }

    /// Whether it is the client's node that serves the slot.
    pub(super) fn serves(&self, client: &Arc<Client>, slot: Slot) -> bool {
        self.map.load().owner(slot).is_some_and(|node| Arc::ptr_eq(&node.client, client))
    }

    /// Sends one command or one transaction of keys of one slot.
    pub(super) async fn query<T: FromRedisValue>(&self, slot: Slot, request: Request) -> Result<T, StoreError> {
        let request = request.whole();
        let (node, answer) = self.follow(slot, |client, asking| sent(client, copy(&request, asking))).await?;
        self.read(&node, answer)
    }

    /// As [`Shards::query`], on a connection for long reads.
    pub(super) async fn query_aside<T: FromRedisValue>(&self, slot: Slot, request: Request) -> Result<T, StoreError> {
        let request = request.whole();
        let answer = self.follow(slot, |client, asking| {
            let request = copy(&request, asking);
            async move { Ok(split(client.answer_aside(request).await?)) }
        });
        let (node, answer) = answer.await?;
        self.read(&node, answer)
    }

    /// As [`Shards::query`]; errors of the server are values.
    pub(super) async fn answer_to(&self, slot: Slot, request: Request) -> Result<Value, StoreError> {
        let request = request.whole();
        let (_, answer) = self.follow(slot, |client, asking| sent(client, copy(&request, asking))).await?;
        Ok(answer.unwrap_or_else(Value::ServerError))
    }

    pub(super) async fn read_long(
        self: Arc<Self>,
        slot: Slot,
        command: Cmd,
        bytes: usize,
    ) -> Result<Bytes, StoreError> {
        let request = Client::long_request(&command, bytes).whole();
        let answer = self.follow(slot, |client, asking| {
            let request = copy(&request, asking);
            async move { client.answer_long(request).await }
        });
        let (node, answer) = answer.await?;
        answer.map_err(|error| node.client.refused(error))
    }

    pub(super) fn refused(&self, slot: Slot, error: ServerError) -> StoreError {
        match self.client(slot) {
            Some(client) => client.refused(error),
            None => store_error(&error.into()),
        }
    }

    pub(super) async fn load_libraries(&self, slot: Slot) -> Result<(), StoreError> {
        self.owner(slot)?.client.load_libraries().await
    }

    /// Keeps nodes connected and the map right, until `stopping`.
    pub(super) async fn supervise(self: Arc<Self>, stopping: CancellationToken) {
        let Some(new) = self.unsupervised.lock().take() else { return };
        let supervised = async { tokio::join!(self.keep_looking(), keep_connected(new)) };
        stopping.run_until_cancelled(supervised).await;
    }

    async fn keep_looking(&self) {
        loop {
            let pause = if self.map.load().is_whole() { BETWEEN_LOOKS } else { BETWEEN_HASTY_LOOKS };
            tokio::time::sleep(LEAST_BETWEEN_LOOKS).await;
            let _ = tokio::time::timeout(pause, self.doubted.notified()).await;
            match self.ask_nodes().await {
                Some(topology) => self.take(&topology),
                None => match self.ask_seeds().await {
                    Ok(topology) => self.take(&topology),
                    Err(error) => warn!(%error, "no node of the Redis Cluster answers; trying on"),
                },
            }
            self.metrics.connected.set(i64::from(self.map.load().is_whole()));
            self.forget_unused();
        }
    }

    fn owner(&self, slot: Slot) -> Result<Arc<Node>, StoreError> {
        let owner = self.map.load().owner(slot).cloned();
        owner.ok_or_else(|| {
            self.doubted.notify_one();
            StoreError::NotReady(format!("no node of the cluster serves slot {slot}"))
        })
    }

    fn read<T: FromRedisValue>(&self, node: &Node, answer: Result<Value, ServerError>) -> Result<T, StoreError> {
        node.client.read(answer.unwrap_or_else(Value::ServerError))
    }

    /// Sends something to the node that serves the slot, and on to where that sends it. `send` is told whether it must say
    /// that it was sent there by another (`ASKING`). What a node refuses by a redirection it has not begun.
    async fn follow<A, F>(
        &self,
        slot: Slot,
        send: impl Fn(Arc<Client>, bool) -> F,
    ) -> Result<(Arc<Node>, Result<A, ServerError>), StoreError>
    where
        F: Future<Output = Result<Result<A, ServerError>, StoreError>>,
    {
        let began = Instant::now();
        let mut asked = None;
        loop {
            let (node, asking) = match asked.take() {
                Some(node) => (node, true),
                None => (self.owner(slot)?, false),
            };
            let answer = send(node.client.clone(), asking).await.inspect_err(|_| self.doubted.notify_one())?;
            let Err(error) = &answer else { return Ok((node, answer)) };
            if began.elapsed() > PATIENCE {
                return Ok((node, answer));
            }
            match Redirection::of(error, &node.address) {
                Some(Redirection::Moved(slot, address)) => self.moved(slot, &address).until_connected().await,
                Some(Redirection::Ask(address)) => {
                    let target = self.node(&address);
                    *target.asked.lock() = Instant::now();
                    target.until_connected().await;
                    asked = Some(target);
                }
                Some(Redirection::Later) => tokio::time::sleep(BETWEEN_TRIES).await,
                Some(Redirection::Down) => {
                    self.doubted.notify_one();
                    return Ok((node, answer));
                }
                None if scripts::is_missing(error) => {
                    // Nothing ran: a new server, FUNCTION FLUSH.
                    node.client.load_libraries().await?;
                    asked = asking.then_some(node);
                }
                None => return Ok((node, answer)),
            }
        }
    }

    /// The node at an address, whether it has slots or not.
    fn node(&self, address: &Address) -> Arc<Node> {
        let mut nodes = self.nodes.lock();
        if let Some(node) = nodes.get(address) {
            return node.clone();
        }
        let info = address.placed_in(&self.seed);
        let shards = self.this.clone();
        let renewed = {
            let address = address.clone();
            move || {
                if let Some(shards) = shards.upgrade() {
                    shards.connected(&address);
                }
            }
        };
        // What counts is whether all are connected.
        let mut metrics = self.metrics.clone();
        metrics.connected = Gauge::default();
        let node = Arc::new(Node {
            address: address.clone(),
            client: Client::at(info, self.options.clone(), metrics, self.changes.clone(), renewed),
            retired: CancellationToken::new(),
            connected: Notify::new(),
            asked: Mutex::new(Instant::now()),
        });
        nodes.insert(address.clone(), node.clone());
        // Nobody listens any more when the broker ends.
        let _ = self.new.send(node.clone());
        node
    }

    /// A node has a new connection: what was published before may have been missed.
    fn connected(&self, address: &Address) {
        let node = self.nodes.lock().get(address).cloned();
        let Some(node) = node else { return };
        let map = self.map.load();
        self.doubt(Map::all_slots().filter(|slot| map.owner(*slot).is_some_and(|owner| Arc::ptr_eq(owner, &node))));
        node.connected.notify_waiters();
    }

    /// Whatever lies in these slots may have changed.
    fn doubt(&self, slots: impl Iterator<Item = Slot>) {
        let mut doubtful = SlotSet::default();
        slots.for_each(|slot| doubtful.insert(slot));
        if doubtful.is_empty() {
            return;
        }
        let keyspace = &self.options.keyspace;
        let watched = [keyspace.catalog_version(), keyspace.brokers()];
        let keys = watched.into_iter().filter(|key| doubtful.contains(Slot::of(key.as_bytes())));
        self.changes.doubt(&doubtful, keys);
    }

    /// A slot is served by the node at `address` from now on, as the one before says.
    fn moved(&self, slot: Slot, address: &Address) -> Arc<Node> {
        let node = self.node(address);
        let nodes = self.nodes.lock();
        let map = self.map.load();
        if !map.owner(slot).is_some_and(|owner| Arc::ptr_eq(owner, &node)) {
            let mut map = Map::clone(&map);
            map.set(slot, &node);
            self.map.store(Arc::new(map));
            drop(nodes);
            self.doubt(std::iter::once(slot));
        }
        // What else has moved is asked for.
        self.doubted.notify_one();
        node
    }

    /// Takes over what a node says of all slots.
    fn take(&self, topology: &Topology) {
        if topology.masters.is_empty() {
            // Of a node that was cut out of the cluster.
            return;
        }
        let mut new = Map::default();
        for (address, ranges) in &topology.masters {
            let node = self.node(address);
            ranges.iter().cloned().flatten().filter_map(Slot::new).for_each(|slot| new.set(slot, &node));
        }
        let mut nodes = self.nodes.lock();
        let old = self.map.load_full();
        let same = |slot: &Slot| match (old.owner(*slot), new.owner(*slot)) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        let changed: Vec<Slot> = Map::all_slots().filter(|slot| !same(slot)).collect();
        if changed.is_empty() {
            return;
        }
        let retired: Vec<Arc<Node>> =
            old.nodes.iter().filter(|old| !new.nodes.iter().any(|new| Arc::ptr_eq(old, new))).cloned().collect();
        let unserved = new.owners.iter().filter(|owner| **owner == Map::NOBODY).count();
        let masters = new.nodes.len();
        self.map.store(Arc::new(new));
        for node in &retired {
            nodes.remove(&node.address);
        }
        drop(nodes);
        for node in retired {
            // It may go on answering, or hang: what it says does not count any more.
            info!(node = %node.address, "a node of the Redis Cluster has no slots any more");
            node.retired.cancel();
            node.client.abandon();
        }
        info!(slots = changed.len(), masters, "slots of the Redis Cluster are served by other nodes than before");
        if unserved > 0 {
            warn!(slots = unserved, "slots of the Redis Cluster are served by no node");
        }
        self.doubt(changed.into_iter());
    }

    fn forget_unused(&self) {
        let map = self.map.load_full();
        self.nodes.lock().retain(|_, node| {
            let is_kept =
                map.nodes.iter().any(|owner| Arc::ptr_eq(owner, node)) || node.asked.lock().elapsed() < KEPT_UNUSED;
            if !is_kept {
                node.retired.cancel();
            }
            is_kept
        });
    }

    /// What the best informed of the connected nodes says; none where no node answers.
    async fn ask_nodes(&self) -> Option<Topology> {
        let nodes: Vec<Arc<Node>> = self.nodes.lock().values().cloned().collect();
        let asked = nodes.iter().filter(|node| node.client.generation().is_some()).map(|node| async move {
            let answers = node.client.send(Request::pipeline(&Topology::commands()));
            let answers = tokio::time::timeout(LONGEST_LOOK, answers).await.ok()?.ok()?;
            Topology::parse(answers, &node.address)
        });
        let told = join_all(asked).await;
        told.into_iter().flatten().max_by_key(|told| (told.epoch, told.is_ok, told.slots()))
    }

    /// What the first seed that answers says.
    async fn ask_seeds(&self) -> Result<Topology, RedisError> {
        let options = connection::Options {
            connect_timeout: self.options.connect_timeout,
            response_timeout: self.options.connect_timeout,
        };
        ask_first(&self.seeds, options).await.map(|(_, topology)| topology)
    }
}

/// The first of the seeds that answers, and what it says.
async fn ask_first(
    seeds: &[ConnectionInfo],
    options: connection::Options,
) -> Result<(ConnectionInfo, Topology), RedisError> {
    let mut failure = unexpected("no address is given");
    for seed in seeds {
        match ask(seed, options).await {
            Ok(topology) => return Ok((seed.clone(), topology)),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn ask(seed: &ConnectionInfo, options: connection::Options) -> Result<Topology, RedisError> {
    let connection = Connection::open(seed, options, |_| {}).await?;
    let mut answers = Vec::new();
    for command in Topology::commands() {
        answers.push(connection.command(&command).await?);
    }
    let topology = Topology::parse(answers, &Address::of(seed));
    topology.ok_or_else(|| unexpected("the nodes' addresses, as CLUSTER SLOTS has them, can't be read"))
}

fn unexpected(text: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Client, text))
}

/// The nodes that a URL names: `redis://HOST:PORT,HOST:PORT…`, with login and the rest as for one.
pub(super) fn seeds(url: &str) -> Result<Vec<ConnectionInfo>, RedisError> {
    let info = |url: &str| Ok::<_, RedisError>(with_settings(url.into_connection_info()?));
    let Some((head, places, tail)) = places(url) else { return Ok(vec![info(url)?]) };
    places.split(',').map(|place| info(&format!("{head}{place}{tail}"))).collect()
}

/// What comes before the addresses of a URL, these, and what comes after them.
fn places(url: &str) -> Option<(&str, &str, &str)> {
    let begin = url.find("://")? + 3;
    let end = url.get(begin..)?.find(['/', '?', '#']).map_or(url.len(), |at| begin + at);
    let begin = url.get(begin..end)?.rfind('@').map_or(begin, |at| begin + at + 1);
    Some((url.get(..begin)?, url.get(begin..end)?, url.get(end..)?))
}

/// Renews the connections of every node, until it is retired.
async fn keep_connected(mut new: mpsc::UnboundedReceiver<Arc<Node>>) {
    let mut supervised = FuturesUnordered::new();
    loop {
        tokio::select! {
            node = new.recv() => match node {
                Some(node) => supervised.push(node.client.clone().supervise(node.retired.clone())),
                None => return,
            },
            Some(()) = supervised.next(), if !supervised.is_empty() => {}
        }
    }
}

fn copy(request: &Request, asking: bool) -> Request {
    if asking { request.clone().asking() } else { request.clone() }
}

async fn sent(client: Arc<Client>, request: Request) -> Result<Result<Value, ServerError>, StoreError> {
    Ok(split(client.answer_to(request).await?))
}

fn split(answer: Value) -> Result<Value, ServerError> {
    match answer {
        Value::ServerError(error) => Err(error),
        answer => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_name_several_nodes_with_one_login() {
        let told = |url: &str| {
            let seeds = seeds(url).expect("a URL");
            let login = |seed: &ConnectionInfo| seed.redis_settings().password().map(str::to_owned);
            seeds.iter().map(|seed| (Address::of(seed).to_string(), login(seed))).collect::<Vec<_>>()
        };
        let none = |place: &str| (place.to_owned(), None);
        assert_eq!(told("redis://one:1"), [none("one:1")]);
        assert_eq!(told("redis://one:1,two,[::1]:3/0"), [none("one:1"), none("two:6379"), none("[::1]:3")]);
        let secret = |place: &str| (place.to_owned(), Some("a,b".to_owned()));
        assert_eq!(told("rediss://me:a,b@one:1,two:2?x=y"), [secret("one:1"), secret("two:2")]);
        assert!(seeds("redis://one:1,two:port").is_err());
        assert!(seeds("redis+unix:///a,b.sock").is_ok_and(|seeds| seeds.len() == 1));
    }
}
