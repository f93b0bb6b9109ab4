//! What Weir expects of a Redis Cluster at the start.

use std::{collections::HashMap, time::Duration};

use redis::{AsyncConnectionConfig, ConnectionInfo, RedisError, aio::MultiplexedConnection};
use tokio::time::Instant;
use tracing::info;

use super::{
    super::{
        address::Address,
        keys::Keyspace,
        server::{self, Server, ServerError},
    },
    Slot, Topology, seeds,
    slot::SLOTS,
};

/// How long a cluster is waited for that does not take commands, as during a failover.
const PATIENCE: Duration = Duration::from_secs(10);

const STOPS_WHOLE: &str = "when one shard of this Redis Cluster is lost, the others refuse commands too until it is replaced: set \
                           cluster-require-full-coverage to no on every node";

/// Looks at every shard of the cluster that the URL leads to; none where it leads to a server that is in no cluster, or
/// names one server that can't be asked.
pub(in crate::storage::redis) async fn check(
    url: &str,
    keyspace: &Keyspace,
    connect_timeout: Duration,
) -> Result<Option<Server>, ServerError> {
    let Ok(seeds) = seeds(url) else { return Ok(None) };
    let mut failure = None;
    for seed in &seeds {
        match connect(seed, connect_timeout).await {
            Ok(connection) => return check_at(seed, connection, seeds.len(), keyspace, connect_timeout).await,
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if seeds.len() > 1 => Err(server::failed(error)),
        _ => Ok(None),
    }
}

async fn check_at(
    seed: &ConnectionInfo,
    mut connection: MultiplexedConnection,
    seeds: usize,
    keyspace: &Keyspace,
    connect_timeout: Duration,
) -> Result<Option<Server>, ServerError> {
    let info = server::loaded(&mut connection).await?;
    if info.get("redis_mode").map(String::as_str) != Some("cluster") {
        return if seeds > 1 { Err(ServerError::Several(Address::of(seed).to_string())) } else { Ok(None) };
    }
    let topology = whole(seed, &mut connection).await?;
    let catalog = topology.master_of(Slot::of(keyspace.layout().as_bytes())).cloned();
    let mut all: Option<Server> = None;
    for (address, _) in &topology.masters {
        let keyspace = (catalog.as_ref() == Some(address)).then_some(keyspace);
        let shard = check_shard(&address.placed_in(seed), keyspace, connect_timeout).await;
        let shard =
            shard.map_err(|reason| ServerError::Shard { node: address.to_string(), reason: Box::new(reason) })?;
        match &mut all {
            None => all = Some(shard),
            Some(all) => all.join(shard),
        }
    }
    Ok(all)
}

async fn connect(info: &ConnectionInfo, timeout: Duration) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout.max(Duration::from_secs(5))));
    redis::Client::open(info.clone())?.get_multiplexed_async_connection_with_config(&config).await
}

/// Who serves what, once every slot is served.
async fn whole(seed: &ConnectionInfo, connection: &mut MultiplexedConnection) -> Result<Topology, ServerError> {
    const PAUSE: Duration = Duration::from_millis(100);
    let deadline = Instant::now() + PATIENCE;
    let mut reported = false;
    loop {
        let mut answers = Vec::new();
        for command in Topology::commands() {
            answers.push(command.query_async(connection).await.map_err(server::failed)?);
        }
        let topology = Topology::parse(answers, &Address::of(seed));
        let topology = topology.ok_or_else(|| ServerError::Unexpected("CLUSTER SLOTS can't be read".to_owned()))?;
        let served = topology.slots();
        if topology.is_ok && served == usize::from(SLOTS) {
            return Ok(topology);
        }
        if served == 0 || Instant::now() >= deadline {
            return Err(ServerError::ClusterDown { served, all: SLOTS });
        }
        if !reported {
            reported = true;
            info!(served, "the Redis Cluster does not take commands for every slot; waiting");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn check_shard(
    info: &ConnectionInfo,
    keyspace: Option<&Keyspace>,
    timeout: Duration,
) -> Result<Server, ServerError> {
    let mut connection = connect(info, timeout).await.map_err(server::failed)?;
    let info = server::loaded(&mut connection).await?;
    let mut server = server::examine(&mut connection, &info, false, keyspace).await?;
    // Some providers refuse CONFIG.
    let command = redis::cmd("CONFIG").arg("GET").arg("cluster-require-full-coverage").to_owned();
    let config: Result<HashMap<String, String>, RedisError> = command.query_async(&mut connection).await;
    if config.is_ok_and(|config| config.values().any(|value| value == "yes")) {
        server.warnings.push(STOPS_WHOLE.to_owned());
    }
    Ok(server)
}
