//! What Weir expects of a Redis server, and what it keeps there about the cluster as a whole.

use std::{collections::HashMap, fmt, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::future::join_all;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError, ServerErrorKind, aio::MultiplexedConnection};
use tracing::info;

use super::{
    client::Client,
    durability::{self, Standing, number_pair},
    keys::Keyspace,
    nodes::Nodes,
    sentinel::Nowhere,
    shards,
    whereabouts::Whereabouts,
};
use crate::log::{
    durability::Level,
    store::{Capacity, StoreError},
};

/// How the keys and their contents are laid out (DESIGN: what Redis holds).
const LAYOUT_VERSION: &str = "1";

const LEAST_VERSION: (u32, u32) = (7, 0);

/// What is wrong with a server, in one sentence with the remedy. Names no password.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("nothing answers ({0}): start Redis there, or correct --redis-url")]
    Unreachable(String),
    #[error(
        "its certificate is not trusted ({0}): add the authority that signed it to the system's, or name its file in the environment \
         as SSL_CERT_FILE"
    )]
    Certificate(String),
    #[error(
        "it refuses the user or password ({0}): put the right ones into --redis-url, as redis://USER:PASSWORD@HOST:PORT"
    )]
    Login(String),
    #[error(
        "its user may not do what Weir needs ({0}): grant it in Redis' ACL (docs/configuration.md lists the commands)"
    )]
    Forbidden(String),
    #[error("it has no database {0}: name one that is there at the end of --redis-url, or none")]
    Database(String),
    #[error("it is {flavour} {version}: Weir needs Redis 7.0 or newer, or Valkey")]
    TooOld { flavour: &'static str, version: String },
    #[error("it is a replica of {master}: give the address of the master with --redis-url")]
    Replica { master: String },
    #[error(
        "it is a Sentinel: give it, and the others, with the name of the master that they watch, as \
         --redis-url redis-sentinel://HOST:PORT,HOST:PORT/MASTER"
    )]
    Sentinel,
    #[error(transparent)]
    Nowhere(#[from] Nowhere),
    #[error(
        "the Sentinels say that the master is at {master}, and nothing answers there ({reason}): start it, or wait for the failover; if \
         it runs, let it be announced by an address that can be reached from here (replica-announce-ip, sentinel announce-ip)"
    )]
    MasterUnreachable { master: String, reason: String },
    #[error(
        "it is a node of a Redis Cluster, which Sentinels can't fail over: give the cluster's nodes with --redis-url"
    )]
    WatchedCluster,
    #[error(
        "several addresses name the nodes of a Redis Cluster, and {0} is in none: give one address, or a cluster's nodes"
    )]
    Several(String),
    #[error("a Redis Cluster has no databases ({0}): leave the number at the end of --redis-url out")]
    ClusterDatabase(String),
    #[error(
        "its cluster takes no commands, or not for all slots ({served} of {all} are served): see `redis-cli --cluster check`"
    )]
    ClusterDown { served: usize, all: u16 },
    #[error("its node {node}: {reason}")]
    Shard { node: String, reason: Box<ServerError> },
    #[error(
        "its maxmemory-policy is {0}, with which it would delete records when memory runs out: set it with `redis-cli CONFIG SET \
         maxmemory-policy noeviction`, and in redis.conf"
    )]
    Evicts(String),
    #[error("it has no Functions ({0}): Weir needs them (FUNCTION, FCALL)")]
    NoFunctions(String),
    #[error(
        "the keyspace {keyspace} there was written in layout {found}, and this Weir knows layout {LAYOUT_VERSION}: use the Weir that \
         wrote it, or another --keyspace"
    )]
    Layout { keyspace: String, found: String },
    #[error("it does not answer as Redis does ({0})")]
    Unexpected(String),
}

/// A server that Weir can use.
#[derive(Clone, Debug)]
pub struct Server {
    pub flavour: &'static str,
    pub version: String,
    pub is_cluster: bool,
    /// Of each shard.
    pub standings: Vec<Standing>,
    /// Replicas that Sentinels may promote, whether they are connected or not.
    pub promotable: u16,
    /// What the operator should know, a sentence each.
    pub warnings: Vec<String>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.flavour, self.version)?;
        if self.is_cluster { write!(f, ", a cluster of {} shards", self.standings.len()) } else { Ok(()) }
    }
}

impl Server {
    /// What acknowledged records survive with all that it does before it answers: on the weakest shard.
    pub fn survives(&self) -> &'static str {
        let weakness = |standing: &&Standing| {
            let holds = [Level::Written, Level::Fsync].map(|level| standing.holds_at_once(level.into()));
            holds.into_iter().filter(|holds| *holds).count()
        };
        self.standings.iter().min_by_key(weakness).map_or("what is not known", Standing::survives)
    }

    /// Takes another shard of the same cluster in.
    pub(super) fn join(&mut self, other: Self) {
        self.standings.extend(other.standings);
        for warning in other.warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }
}

/// Connects once and tells whether Weir can use the server. Waits while the server loads its data. Changes nothing.
///
/// `is_embedded`: it is Weir's own private server.
pub async fn check(
    url: &str,
    is_embedded: bool,
    keyspace: &Keyspace,
    connect_timeout: Duration,
) -> Result<Server, ServerError> {
    if let Some(cluster) = shards::check::check(url, keyspace, connect_timeout).await? {
        return Ok(cluster);
    }
    let whereabouts =
        Whereabouts::of(url, connect_timeout).map_err(|error| ServerError::Unreachable(error.to_string()))?;
    let info = whereabouts.find().await?;
    let unreachable = |error| match (failed(error), &whereabouts) {
        (ServerError::Unreachable(reason), Whereabouts::Sentinels(_)) => {
            ServerError::MasterUnreachable { master: info.addr().to_string(), reason }
        }
        (other, _) => other,
    };
    let client = redis::Client::open(info.clone()).map_err(unreachable)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(connect_timeout))
        .set_response_timeout(Some(connect_timeout.max(Duration::from_secs(5))));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.map_err(unreachable)?;
    let info = loaded(&mut connection).await?;
    let found = |name: &str| info.get(name).map(String::as_str).unwrap_or_default();

    match found("redis_mode") {
        "sentinel" => return Err(ServerError::Sentinel),
        // Only what Sentinels watch: the rest was seen above.
        "cluster" => return Err(ServerError::WatchedCluster),
        _ => {}
    }
    let mut server = examine(&mut connection, &info, is_embedded, Some(keyspace)).await?;
    server.promotable = whereabouts.promotable().await;
    Ok(server)
}

/// Whether Weir can use the server that answered `INFO` so, as far as one server is concerned. `keyspace`: where it has the
/// catalog.
pub(super) async fn examine(
    connection: &mut MultiplexedConnection,
    info: &HashMap<String, String>,
    is_embedded: bool,
    keyspace: Option<&Keyspace>,
) -> Result<Server, ServerError> {
    let found = |name: &str| info.get(name).map(String::as_str).unwrap_or_default();
    // Valkey gives the version of Redis that it is compatible with, and its own.
    let (flavour, version) = match info.get("valkey_version") {
        Some(own) => ("Valkey", own.clone()),
        None => ("Redis", found("redis_version").to_owned()),
    };
    if number_pair(found("redis_version")).is_none_or(|version| version < LEAST_VERSION) {
        return Err(ServerError::TooOld { flavour, version });
    }
    if found("role") != "master" {
        return Err(ServerError::Replica { master: format!("{}:{}", found("master_host"), found("master_port")) });
    }
    match found("maxmemory_policy") {
        "noeviction" | "" => {}
        other => return Err(ServerError::Evicts(other.to_owned())),
    }
    redis::cmd("FUNCTION").arg("STATS").exec_async(connection).await.map_err(|error| match failed(error) {
        ServerError::Unexpected(text) => ServerError::NoFunctions(text),
        other => other,
    })?;
    if let Some(keyspace) = keyspace {
        let layout: Option<String> =
            redis::cmd("GET").arg(keyspace.layout()).query_async(connection).await.map_err(failed)?;
        if let Some(found) = layout.filter(|layout| layout != LAYOUT_VERSION) {
            return Err(ServerError::Layout { keyspace: keyspace.as_str().to_owned(), found });
        }
    }
    // Some providers refuse CONFIG.
    let command = redis::cmd("CONFIG").arg("GET").arg("appendfsync").to_owned();
    let config: Result<HashMap<String, String>, RedisError> = command.query_async(connection).await;
    let appendfsync = config.ok().and_then(|config| config.get("appendfsync").cloned());
    let standing = Standing::of(info, appendfsync.as_deref(), is_embedded);
    let mut warnings: Vec<String> = loss(&standing).into_iter().map(str::to_owned).collect();
    if found("maxmemory") == "0" {
        warnings.push(
            "Redis has no maxmemory: when the machine's memory runs out, the system ends Redis instead of Redis refusing writes; set \
             a limit with `redis-cli CONFIG SET maxmemory`"
                .to_owned(),
        );
    }
    let is_cluster = found("redis_mode") == "cluster";
    Ok(Server { flavour, version, is_cluster, standings: vec![standing], promotable: 0, warnings })
}

/// The memory that all nodes may take (`maxmemory`) and take; none where one has no limit.
pub(super) async fn capacity(nodes: &Nodes) -> Result<Option<Capacity>, StoreError> {
    let each = capacities(nodes).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let sum = |sum: Capacity, one: Capacity| Capacity {
        total: sum.total.saturating_add(one.total),
        used: sum.used.saturating_add(one.used),
    };
    Ok(each.into_iter().collect::<Option<Vec<_>>>().and_then(|each| each.into_iter().reduce(sum)))
}

/// The memory of the node that has the least of it left, of those that answer and have a limit.
///
/// # Errors
/// Of the first node, where none answers.
pub(super) async fn fullest(nodes: &Nodes) -> Result<Option<Capacity>, StoreError> {
    let used = |capacity: &Capacity| u128::from(capacity.used) * 1_000_000 / u128::from(capacity.total.max(1));
    let each = capacities(nodes).await;
    if each.iter().all(Result::is_err) {
        return each.into_iter().next().unwrap_or(Ok(None));
    }
    Ok(each.into_iter().flatten().flatten().max_by_key(used))
}

async fn capacities(nodes: &Nodes) -> Vec<Result<Option<Capacity>, StoreError>> {
    /// One that hangs is not waited for.
    const PATIENCE: Duration = Duration::from_secs(1);
    let late = || StoreError::NotReady(format!("no answer within {PATIENCE:?}"));
    let each = nodes.all();
    join_all(each.iter().map(|client| async move {
        tokio::time::timeout(PATIENCE, capacity_of(client)).await.unwrap_or_else(|_| Err(late()))
    }))
    .await
}

async fn capacity_of(client: &Client) -> Result<Option<Capacity>, StoreError> {
    let text: String = client.query(redis::cmd("INFO").arg("memory")).await?;
    Ok(capacity_in(&text))
}

/// From the answer to `INFO memory`.
pub(super) fn capacity_in(text: &str) -> Option<Capacity> {
    let bytes = |name: &str| {
        let value = text.lines().filter_map(|line| line.split_once(':')).find(|(field, _)| *field == name)?.1;
        value.trim().parse::<u64>().ok()
    };
    let total = bytes("maxmemory").filter(|total| *total > 0);
    // What Redis itself leaves out when it compares.
    let used = bytes("used_memory").unwrap_or(0).saturating_sub(bytes("mem_not_counted_for_evict").unwrap_or(0));
    total.map(|total| Capacity { total, used })
}

/// `INFO`, once the server has loaded its data.
pub(super) async fn loaded(connection: &mut MultiplexedConnection) -> Result<HashMap<String, String>, ServerError> {
    const PAUSE: Duration = Duration::from_millis(100);
    let mut reported = false;
    loop {
        let text: String = redis::cmd("INFO").query_async(connection).await.map_err(failed)?;
        let info = durability::fields(&text);
        if info.get("loading").map(String::as_str) != Some("1") {
            return Ok(info);
        }
        if !reported {
            reported = true;
            info!("Redis loads its data; waiting");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn loss(standing: &Standing) -> Option<&'static str> {
    if standing.holds_at_once(Level::Written.into()) {
        None
    } else if standing.aof.is_none() || (standing.aof == Some(true) && standing.appendfsync.is_none()) {
        Some("this Redis does not tell how it keeps its data, so what acks=all survives is not known")
    } else {
        Some(
            "acks=all does not survive the death of this Redis: it keeps no append-only file, or syncs it every second and may then \
             answer before it has written; set `appendonly yes` with `appendfsync no` (survives the death of any process) or \
             `appendfsync always` (survives the machine's)",
        )
    }
}

pub(super) fn failed(error: RedisError) -> ServerError {
    let text = error.to_string();
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => ServerError::Login(text),
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) | (_, Some("NOPERM")) => ServerError::Forbidden(text),
        (ErrorKind::Io, _) if text.contains("certificate") => ServerError::Certificate(text),
        _ if text.contains("cluster mode") => ServerError::ClusterDatabase(text),
        _ if text.contains("DB index") => ServerError::Database(text),
        (ErrorKind::Io | ErrorKind::InvalidClientConfig, _) => ServerError::Unreachable(text),
        _ => ServerError::Unexpected(text),
    }
}

/// Writes down the layout of a keyspace that is new.
pub async fn claim_layout(nodes: &Nodes) -> Result<(), StoreError> {
    set_once(nodes, &nodes.keyspace().layout(), LAYOUT_VERSION).await.map(drop)
}

/// The cluster's id: the one in Redis or, where there is none, `configured` or a new one that is kept there from now on.
pub async fn cluster_id(nodes: &Nodes, configured: Option<&str>) -> Result<String, StoreError> {
    let key = nodes.keyspace().cluster();
    // Kafka's form of a random UUID.
    let new = configured.map_or_else(|| URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes()), str::to_owned);
    set_once(nodes, &key, &new).await
}

/// Sets what is not there, and gives what is. Reads first: a server that is out of memory takes no `SET` at all.
async fn set_once(nodes: &Nodes, key: &str, value: &str) -> Result<String, StoreError> {
    let get = redis::cmd("GET").arg(key).to_owned();
    if let Some(there) = nodes.of(key).query::<Option<String>>(&get).await? {
        return Ok(there);
    }
    nodes.of(key).query::<()>(redis::cmd("SET").arg(key).arg(value).arg("NX")).await?;
    nodes.of(key).query(&get).await
}
