//! Builds every part once, starts it, drains it; the only place that knows them all.

mod archive;
mod domain;
mod durability;
mod losses;
mod probe;

use std::{io, io::Write, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::archive::run_job;
use self::domain::Domain;
use crate::{
    clock::Clock,
    cluster::{Cluster, Endpoint},
    config::{Config, Listener, RedisServer, masked},
    handlers::{self, Identity, RequestLimits, Services},
    log::store::StoreError,
    model::NodeId,
    net::{
        Admission, Limits,
        bind::bind_host,
        listener::{ConnectionCounts, Shared, accept},
    },
    protocol::api,
    storage::redis::{
        durability::RedisDurability,
        embedded::{self, EmbeddedError, EmbeddedRedis},
        nodes::Nodes,
        registry::{self, Registration, RegistryError},
        server::{self, Server, ServerError},
    },
    tasks::Tasks,
    telemetry::{
        Metrics,
        http::{self, Probe},
        metrics::ApiRow,
    },
    topics::{CatalogEvent, settings::StaticSettings},
};

/// Why the broker did not start or go on, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error("Redis at {url}: {reason}")]
    Server { url: String, reason: ServerError },
    #[error("Redis at {url}: {reason}")]
    Durability { url: String, reason: String },
    #[error("Redis at {url} can't be used: {reason}")]
    Redis { url: String, reason: String },
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("Redis failed during the start: {0}")]
    Storage(#[from] StoreError),
    #[error("listener {name} can't listen on {address} ({reason}): give another address with --listen")]
    Listen { name: String, address: String, reason: io::Error },
    #[error("the HTTP port can't listen on {address} ({reason}): give another address with --http")]
    Http { address: String, reason: io::Error },
    #[error(
        "`cluster.id` is {configured}, but the data in this Redis belongs to cluster {stored}: remove the setting, or give another \
         --keyspace"
    )]
    ClusterId { configured: String, stored: String },
    #[error("another broker has taken node id {0}: give one of them another with --node-id")]
    Replaced(NodeId),
    #[error("the archive at {url}: {reason}")]
    Archive { url: String, reason: String },
    #[error("`weir archive` needs archive.url, and a Redis that brokers share: set redis.url (--redis-url)")]
    Job,
    #[error("the system refuses to tell of signals: {0}")]
    Signals(io::Error),
}

/// How long what was read may take to be answered when the broker stops.
const DRAIN_PATIENCE: Duration = Duration::from_secs(20);

/// How long a broker that leaves goes on telling clients where to go: they ask again after 100 ms, and once more if need be.
const HANDING_OVER: Duration = Duration::from_millis(500);

/// How long a request waits for the memory that others hold before its connection is closed.
const CONGESTION_PATIENCE: Duration = Duration::from_secs(30);

/// Runs a broker until `stop`, then drains it. Prints one line on standard output when clients can connect.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), BrokerError> {
    info!(version = env!("CARGO_PKG_VERSION"), node = %config.node, "Weir starts");
    let redis = tokio::select! {
        started = StartedRedis::start(&config) => started?,
        () = stop.cancelled() => return Ok(()),
    };
    let server = &redis.server;
    info!(%server, survives = server.survives(), "Redis is there");
    for warning in &server.warnings {
        warn!("{warning}");
    }
    let served = serve(&config, &redis, stop).await;
    redis.stop().await;
    info!("Weir has stopped");
    served
}

/// Tells whether a broker would start with this configuration, in a line for people. Starts and ends an embedded Redis.
pub async fn check(config: &Config) -> Result<String, BrokerError> {
    archive::open(config, &Tasks::new())?;
    let redis = StartedRedis::start(config).await?;
    let StartedRedis { place, server, .. } = &redis;
    let mut lines = vec![format!(
        "weir: the settings are good; the data is {place}, {server}; acks=all survives {}",
        server.survives()
    )];
    lines.extend(server.warnings.iter().map(|warning| format!("weir: note: {warning}")));
    redis.stop().await;
    Ok(lines.join("\n"))
}

/// The server in use: somebody else's or a private one.
struct StartedRedis {
    url: String,
    /// For people: where the data is.
    place: String,
    server: Server,
    /// Kafka's settings with the defaults that suit the server.
    settings: StaticSettings,
    embedded: Option<EmbeddedRedis>,
}

impl StartedRedis {
    async fn start(config: &Config) -> Result<Self, BrokerError> {
        let (url, place, embedded) = match &config.redis.server {
            RedisServer::Url(url) => (url.clone(), format!("at {}", masked(url)), None),
            RedisServer::Embedded(options) => {
                let maxmemory_bytes = options.maxmemory.bytes();
                let embedded = embedded::start(embedded::Options {
                    data_dir: options.data_dir.clone(),
                    program: options.program.clone(),
                    maxmemory_bytes,
                })
                .await?;
                let place = format!(
                    "in {} (an embedded Redis of at most {})",
                    embedded.data_dir().display(),
                    sized(maxmemory_bytes)
                );
                (embedded.url().to_owned(), place, Some(embedded))
            }
        };
        let refusal =
            match server::check(&url, embedded.is_some(), &config.keyspace, config.redis.connect_timeout).await {
                Ok(mut server) => {
                    let settings = durability::with_default_level(config.settings.clone(), &server.standings);
                    match durability::check(&settings, &server.standings, server.promotable) {
                        Ok(notes) => {
                            server.warnings.extend(notes);
                            return Ok(Self { url, place, server, settings, embedded });
                        }
                        Err(reason) => BrokerError::Durability { url: masked(&url), reason },
                    }
                }
                Err(reason) => BrokerError::Server { url: masked(&url), reason },
            };
        if let Some(embedded) = embedded {
            embedded.stop().await;
        }
        Err(refusal)
    }

    async fn stop(self) {
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}

async fn serve(config: &Config, redis: &StartedRedis, stop: CancellationToken) -> Result<(), BrokerError> {
    let apis: Vec<ApiRow> = api::SERVED.iter().map(counted).collect();
    let metrics = Metrics::new(&apis, config.metrics_max_series);
    let options = domain::client_options(config, &redis.url);
    let nodes = Nodes::connect(options, redis.server.is_cluster, metrics.redis.clone())
        .await
        .map_err(|error| BrokerError::Redis { url: masked(&redis.url), reason: error.to_string() })?;

    // What the others need while they drain ends after them.
    let foundations = Tasks::new();
    foundations.spawn("redis connections", nodes.clone().supervise(foundations.stopping().clone()));
    let tasks = Tasks::new();
    let replaced = CancellationToken::new();
    let served = match start(config, redis, &nodes, &metrics, &tasks, &foundations, &replaced).await {
        Ok(registered) => {
            let served = tokio::select! {
                () = stop.cancelled() => Ok(()),
                () = replaced.cancelled() => Err(BrokerError::Replaced(config.node)),
            };
            if served.is_ok() {
                registered.hand_over().await;
            }
            info!("Weir drains");
            served
        }
        Err(error) => Err(error),
    };
    let unfinished = tasks.stop(DRAIN_PATIENCE).await;
    if unfinished > 0 {
        warn!(unfinished, "some tasks did not end in time");
    }
    foundations.stop(DRAIN_PATIENCE).await;
    served
}

async fn start(
    config: &Config,
    redis: &StartedRedis,
    nodes: &Nodes,
    metrics: &Arc<Metrics>,
    tasks: &Tasks,
    foundations: &Tasks,
    replaced: &CancellationToken,
) -> Result<Registered, BrokerError> {
    let archive = archive::open(config, tasks)?;
    server::claim_layout(nodes).await?;
    let syncer = redis.embedded.as_ref().map(EmbeddedRedis::syncer);
    let durability = RedisDurability::start(nodes.clone(), syncer, tasks.clone()).await?;
    let domain = Domain::start(config, &redis.settings, nodes, durability.clone(), archive, metrics, tasks).await?;
    if let Some(note) = durability::check_topics(&domain.topics, &redis.server.standings) {
        warn!("{note}");
    }
    let settings = domain.topics.settings().load_full();
    let cluster_id = server::cluster_id(nodes, settings.cluster_id.as_deref()).await?;
    if let Some(configured) = settings.cluster_id.as_ref().filter(|configured| **configured != cluster_id) {
        return Err(BrokerError::ClusterId { configured: configured.clone(), stored: cluster_id });
    }
    let bound = config.listeners.iter().map(bind_listener).collect::<Result<Vec<_>, _>>()?;
    let listeners: Vec<handlers::Listener> = config
        .listeners
        .iter()
        .zip(&bound)
        .map(|(listener, bound)| handlers::Listener {
            name: listener.name.clone(),
            advertised_host: listener.advertised.as_ref().map_or_else(|| told_host(listener), |to| to.host.clone()),
            advertised_port: listener.advertised.as_ref().map_or(bound.port, |to| to.port),
        })
        .collect();
    let registration = Registration::new(
        nodes.clone(),
        Clock::system(),
        registry::Identity {
            node: config.node,
            incarnation: domain.cluster.incarnation().to_owned(),
            rack: settings.broker_rack.clone(),
            endpoints: listeners.iter().map(endpoint).collect(),
            session_timeout: Duration::from_millis(settings.broker_session_timeout_ms),
            heartbeat_interval: Duration::from_millis(settings.broker_heartbeat_interval_ms),
        },
    )
    .await?;
    let registered = Registered { cluster: domain.cluster.clone(), leaving: foundations.stopping().child_token() };
    let (cluster, leaving, replaced) = (domain.cluster.clone(), registered.leaving.clone(), replaced.clone());
    foundations.spawn("registration", async move {
        if !cluster.keep_registered(&registration, &leaving).await {
            replaced.cancel();
        }
    });
    domain.cluster.refreshed().await;
    let probe: Arc<dyn Probe> = Arc::new(probe::State {
        nodes: nodes.clone(),
        tasks: tasks.clone(),
        metrics: metrics.clone(),
        topics: domain.topics.clone(),
        log: domain.log.clone(),
        groups: domain.groups.clone(),
        durability,
    });
    let limits = RequestLimits {
        max_bytes: settings.socket_request_max_bytes,
        max_structured_bytes: settings.weir_structured_request_max_bytes,
    };
    let services = Arc::new(Services {
        identity: Identity { node: config.node, cluster_id, listeners: listeners.clone() },
        limits,
        metrics: metrics.clone(),
        cluster: domain.cluster,
        topics: domain.topics,
        archive_url: config.archive.as_ref().map(|archive| archive.url.clone()),
        log: domain.log,
        groups: domain.groups,
        producer_ids: domain.producer_ids,
    });
    let counts = Arc::new(ConnectionCounts::new(settings.max_connections, settings.max_connections_per_ip));
    services.topics.subscribe({
        let (counts, settings) = (counts.clone(), services.topics.settings().clone());
        move |event| {
            if let CatalogEvent::SettingsChanged = event {
                let settings = settings.load();
                counts.limit(settings.max_connections, settings.max_connections_per_ip);
            }
        }
    });
    let shared = Shared {
        service: Arc::new(services),
        admission: Admission::new(
            settings.queued_max_request_bytes.unwrap_or(Semaphore::MAX_PERMITS),
            limits.longest(),
            CONGESTION_PATIENCE,
        ),
        limits: Limits {
            queued_replies: settings.weir_connection_queued_replies,
            idle: Duration::from_millis(settings.connections_max_idle_ms),
            stall: Duration::from_millis(settings.weir_connection_stall_ms),
        },
        counts,
        metrics: metrics.network.clone(),
        tasks: tasks.clone(),
    };
    serve_http(config, metrics, &probe, foundations)?;
    for (index, bound) in bound.into_iter().enumerate() {
        for socket in bound.sockets {
            tasks.spawn("listener", accept(socket, index, shared.clone()));
        }
    }
    let told: Vec<String> = listeners.iter().map(told_address).collect();
    let first = told.first().cloned().unwrap_or_default();
    println!(
        "Weir {} is ready: Kafka clients connect to {}, the data is {}. Try: echo hello | kcat -P -b {first} -t greetings",
        env!("CARGO_PKG_VERSION"),
        told.join(", "),
        redis.place,
    );
    let _ = io::stdout().flush();
    info!(listeners = told.join(", "), data = redis.place, "Weir is ready");
    Ok(registered)
}

/// Where the configuration asks for it.
fn serve_http(
    config: &Config,
    metrics: &Arc<Metrics>,
    probe: &Arc<dyn Probe>,
    tasks: &Tasks,
) -> Result<(), BrokerError> {
    let Some(address) = &config.http else { return Ok(()) };
    let failed = |reason| BrokerError::Http { address: address.to_string(), reason };
    for socket in bind_host(&address.host, address.port).map_err(failed)? {
        info!(address = %socket.local_addr().map_err(failed)?, "HTTP: /livez, /readyz and /metrics");
        tasks.spawn("http", http::serve(socket, metrics.clone(), probe.clone(), tasks.clone()));
    }
    Ok(())
}

/// A broker that the others know.
struct Registered {
    cluster: Arc<Cluster>,
    leaving: CancellationToken,
}

impl Registered {
    /// Hands over to the others, if there are any, while clients still find this broker: it tells them where to go.
    async fn hand_over(&self) {
        if !self.cluster.has_others() {
            return;
        }
        info!("Weir hands over to the other brokers");
        self.leaving.cancel();
        tokio::time::sleep(HANDING_OVER).await;
    }
}

fn endpoint(listener: &handlers::Listener) -> Endpoint {
    Endpoint { listener: listener.name.clone(), host: listener.advertised_host.clone(), port: listener.advertised_port }
}

fn counted(row: &api::Api) -> ApiRow {
    ApiRow { key: row.key as i16, name: format!("{:?}", row.key), last_version: row.versions.1 }
}

struct Bound {
    sockets: Vec<TcpListener>,
    port: u16,
}

fn bind_listener(listener: &Listener) -> Result<Bound, BrokerError> {
    let bind = || {
        let sockets = bind_host(&listener.bind.host, listener.bind.port)?;
        let port = sockets.first().map_or(Ok(0), |socket| socket.local_addr().map(|address| address.port()))?;
        Ok(Bound { sockets, port })
    };
    bind().map_err(|reason| BrokerError::Listen {
        name: listener.name.clone(),
        address: listener.bind.to_string(),
        reason,
    })
}

/// The host that clients are told where none was given: the one that was bound or, where that is every address, the machine's
/// name if it can be resolved here.
fn told_host(listener: &Listener) -> String {
    use std::net::ToSocketAddrs;
    if !listener.bind.is_everywhere() {
        return listener.bind.host.clone();
    }
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let resolves = !name.is_empty() && (name.as_str(), 0).to_socket_addrs().is_ok();
    let host = if resolves { name } else { "localhost".to_owned() };
    info!(listener = listener.name, host, "clients are told this host; give another with --advertise");
    host
}

fn told_address(listener: &handlers::Listener) -> String {
    let handlers::Listener { advertised_host: host, advertised_port: port, .. } = listener;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn sized(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;
    if bytes >= GIB {
        format!("{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB)
    } else {
        format!("{} MiB", bytes / MIB)
    }
}
