//! The connections to Redis: one shared, pipelined connection for writes and small reads, watched and renewed here, and
//! a pool of exclusive ones for long reads.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, Pipeline, ProtocolVersion, PushInfo, PushKind, RedisError,
    ServerErrorKind, Value, aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{keys::Keyspace, scripts};
use crate::log::store::StoreError;

/// How Redis is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// `redis://`, `rediss://` or `redis+unix://`, with user, password and database. A secret: never logged.
    pub url: String,
    pub keyspace: Keyspace,
    /// Connections for long reads and administration.
    pub pool_size: usize,
    pub connect_timeout: Duration,
    /// A command that has no answer by then counts as lost.
    pub response_timeout: Duration,
}

/// One life of the shared connection.
struct Link {
    connection: MultiplexedConnection,
    generation: u64,
}

pub struct Client {
    options: Options,
    client: redis::Client,
    link: ArcSwapOption<Link>,
    generations: AtomicU64,
    lost: Notify,
    changes: Arc<Changes>,
    pool: deadpool_redis::Pool,
}

impl Client {
    /// Connects, loads the Function libraries, and asks Redis to push the names of changed streams.
    pub async fn connect(options: Options) -> Result<Arc<Self>, RedisError> {
        let client = redis::Client::open(options.url.as_str())?;
        let info = client.get_connection_info().clone();
        let info = info.clone().set_tcp_settings(TcpSettings::default().set_nodelay(true)).set_redis_settings(
            info.redis_settings()
                .clone()
                .set_protocol(ProtocolVersion::RESP3)
                .set_lib_name("weir", env!("CARGO_PKG_VERSION")),
        );
        let client = redis::Client::open(info.clone())?;
        let manager = deadpool_redis::Manager::new_with_config(
            info,
            AsyncConnectionConfig::new()
                .set_connection_timeout(Some(options.connect_timeout))
                .set_response_timeout(Some(options.response_timeout)),
        )?;
        let pool = deadpool_redis::Pool::builder(manager)
            .max_size(options.pool_size)
            .wait_timeout(Some(options.response_timeout))
            .runtime(deadpool_redis::Runtime::Tokio1)
            .build()
            .map_err(|error| RedisError::from((ErrorKind::InvalidClientConfig, "the pool", error.to_string())))?;
        let this = Arc::new(Self {
            options,
            client,
            link: ArcSwapOption::empty(),
            generations: AtomicU64::new(0),
            lost: Notify::new(),
            changes: Arc::new(Changes::default()),
            pool,
        });
        this.establish().await?;
        Ok(this)
    }

    pub fn keyspace(&self) -> &Keyspace {
        &self.options.keyspace
    }

    /// What others changed in Redis.
    pub fn changes(&self) -> &Arc<Changes> {
        &self.changes
    }

    /// The number of times the shared connection was made; a change means that answers, and pushes, may have been lost.
    pub fn generation(&self) -> Option<u64> {
        self.link.load().as_ref().map(|link| link.generation)
    }

    async fn establish(&self) -> Result<(), RedisError> {
        let changes = self.changes.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.options.connect_timeout))
            .set_response_timeout(Some(self.options.response_timeout))
            .set_push_sender(move |push: PushInfo| {
                changes.take_push(push);
                Ok::<(), std::convert::Infallible>(())
            });
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        scripts::load(&mut connection).await?;
        // NOLOOP leaves out what this connection writes itself, so an append wakes readers once, in this process.
        redis::cmd("CLIENT")
            .arg("TRACKING")
            .arg("ON")
            .arg("BCAST")
            .arg("PREFIX")
            .arg(self.options.keyspace.stream_prefix())
            .arg("PREFIX")
            .arg(self.options.keyspace.catalog_version())
            .arg("NOLOOP")
            .exec_async(&mut connection)
            .await?;
        let generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        self.link.store(Some(Arc::new(Link { connection, generation })));
        self.changes.reset();
        Ok(())
    }

    /// Renews the shared connection whenever it is lost, until `stopping`.
    pub async fn supervise(self: Arc<Self>, stopping: CancellationToken) {
        const FIRST_PAUSE: Duration = Duration::from_millis(20);
        const LONGEST_PAUSE: Duration = Duration::from_secs(1);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.lost.notified() => {}
            }
            let mut pause = FIRST_PAUSE;
            while self.link.load().is_none() {
                match self.establish().await {
                    Ok(()) => info!("Redis is back"),
                    Err(error) => {
                        if pause == FIRST_PAUSE {
                            warn!(%error, "Redis can't be reached; retrying");
                        }
                        tokio::select! {
                            () = stopping.cancelled() => return,
                            () = tokio::time::sleep(pause) => {}
                        }
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        }
    }

    fn link(&self) -> Result<Arc<Link>, StoreError> {
        self.link.load_full().ok_or_else(|| StoreError::NotSent("no connection to Redis".to_owned()))
    }

    fn drop_link(&self, generation: u64) {
        let current = self.link.load_full();
        if let Some(link) = current.filter(|link| link.generation == generation) {
            self.link.compare_and_swap(&link, None);
            self.lost.notify_one();
        }
    }

    /// Sends one command on the shared connection.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let link = self.link()?;
        let mut connection = link.connection.clone();
        let mut answer = command.query_async(&mut connection).await;
        if matches!(&answer, Err(error) if scripts::is_missing(error)) {
            // Nothing ran: the server has no such Function (a new server, FUNCTION FLUSH).
            scripts::load(&mut connection).await.map_err(|error| self.failed(error, link.generation))?;
            answer = command.query_async(&mut connection).await;
        }
        answer.map_err(|error| self.failed(error, link.generation))
    }

    /// Sends a pipeline or, when it is `atomic`, a transaction on the shared connection.
    pub async fn query_pipeline<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, StoreError> {
        let link = self.link()?;
        let mut connection = link.connection.clone();
        pipeline.query_async(&mut connection).await.map_err(|error| self.failed(error, link.generation))
    }

    /// An exclusive connection, for long reads that must not delay the shared one.
    pub async fn exclusive(&self) -> Result<deadpool_redis::Connection, StoreError> {
        self.pool.get().await.map_err(|error| StoreError::NotSent(error.to_string()))
    }

    fn failed(&self, error: RedisError, generation: u64) -> StoreError {
        if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() {
            self.drop_link(generation);
        }
        store_error(&error)
    }
}

/// What a failed command means for the caller.
pub fn store_error(error: &RedisError) -> StoreError {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::TryAgain) => {
            StoreError::NotReady(text)
        }
        ErrorKind::Server(_) | ErrorKind::Extension if is_out_of_memory(&text) => StoreError::OutOfMemory,
        ErrorKind::Server(_) | ErrorKind::Extension => match error.code() {
            Some("BUSY" | "MISCONF" | "NOAUTH" | "READONLY") => StoreError::NotReady(text),
            _ => StoreError::Refused(text),
        },
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => StoreError::NotSent(text),
        _ if error.is_connection_refusal() => StoreError::NotSent(text),
        _ => StoreError::OutcomeUnknown(text),
    }
}

/// Redis answers `OOM …` to a command, and wraps that text when it comes out of a script.
fn is_out_of_memory(text: &str) -> bool {
    text.contains("OOM ") || text.contains("-OOM")
}

/// The keys that others changed, coalesced until somebody takes them.
#[derive(Default)]
pub struct Changes {
    pending: Mutex<Pending>,
    notify: Notify,
}

/// What has changed since the last time.
#[derive(Debug, Default)]
pub struct Pending {
    /// Names of changed keys; what is not UTF-8 is none of ours.
    pub keys: HashSet<String>,
    /// Changes may have been missed (a new connection, FLUSHALL): everything may have changed.
    pub everything: bool,
}

impl Changes {
    /// Waits for changes and takes them. Cancel-safe.
    pub async fn next(&self) -> Pending {
        loop {
            let notified = self.notify.notified();
            let taken = std::mem::take(&mut *self.pending.lock());
            if taken.everything || !taken.keys.is_empty() {
                return taken;
            }
            notified.await;
        }
    }

    fn reset(&self) {
        let mut pending = self.pending.lock();
        pending.keys.clear();
        pending.everything = true;
        drop(pending);
        self.notify.notify_one();
    }

    fn take_push(&self, push: PushInfo) {
        if push.kind != PushKind::Invalidate {
            return;
        }
        let Some(Value::Array(keys)) = push.data.into_iter().next() else {
            return self.reset();
        };
        let mut pending = self.pending.lock();
        if !pending.everything {
            pending.keys.extend(keys.into_iter().filter_map(|key| match key {
                Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
                Value::SimpleString(text) => Some(text),
                _ => None,
            }));
        }
        drop(pending);
        self.notify.notify_one();
    }
}
