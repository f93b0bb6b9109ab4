//! The connections to Redis: one shared, pipelined connection for writes and small reads, watched and renewed here; others
//! for long reads; a pool of those for commands that block.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, RedisError, ServerError, ServerErrorKind,
    Value,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    changes::Changes,
    connection::{self, Connection, Event, Failure, Request},
    durability,
    keys::Keyspace,
    readers::Readers,
    scripts,
    whereabouts::Whereabouts,
};
use crate::{
    log::{durability::Life, store::StoreError},
    telemetry::metrics::RedisMetrics,
};

/// No command is made to block for longer.
pub(super) const LONGEST_BLOCK: Duration = Duration::from_secs(3);
/// Connections for commands that block: one for each kind of barrier that topics ask for.
const MOST_BLOCKING: usize = 32;

/// How Redis is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// `redis://`, `rediss://`, `redis+unix://` or `redis-sentinel://`, with user, password and database. A secret: never logged.
    pub url: String,
    pub keyspace: Keyspace,
    /// Connections for long reads.
    pub readers: usize,
    pub connect_timeout: Duration,
    /// A command that has no answer by then counts as lost.
    pub response_timeout: Duration,
}

/// One life of the shared connection.
struct Link {
    connection: Connection,
    /// What others publish comes on a connection of its own, since Redis allows one that is subscribed less unread output.
    news: Connection,
    generation: u64,
}

impl Link {
    /// Nobody waits any longer for an answer on it.
    fn abort(&self) {
        self.connection.abort();
        self.news.abort();
    }
}

/// A server, and the connections to it besides the shared one.
struct Place {
    info: ConnectionInfo,
    readers: Readers,
    /// Made when it is first needed.
    blocking: OnceLock<deadpool_redis::Pool>,
}

impl Place {
    fn new(info: ConnectionInfo, options: &Options) -> Self {
        Self { info, readers: Readers::new(options.readers), blocking: OnceLock::new() }
    }

    fn blocking(&self, options: &Options) -> Result<deadpool_redis::Pool, RedisError> {
        if let Some(pool) = self.blocking.get() {
            return Ok(pool.clone());
        }
        let manager = deadpool_redis::Manager::new_with_config(
            self.info.clone(),
            AsyncConnectionConfig::new()
                .set_connection_timeout(Some(options.connect_timeout))
                .set_response_timeout(Some(LONGEST_BLOCK + options.response_timeout)),
        )?;
        let pool = deadpool_redis::Pool::builder(manager)
            .max_size(MOST_BLOCKING)
            .wait_timeout(Some(options.response_timeout))
            .runtime(deadpool_redis::Runtime::Tokio1)
            .build()
            .map_err(|error| RedisError::from((ErrorKind::InvalidClientConfig, "the pool", error.to_string())))?;
        Ok(self.blocking.get_or_init(|| pool).clone())
    }
}

/// The shared connection of the moment, and the news that it is gone.
#[derive(Default)]
struct Current {
    link: ArcSwapOption<Link>,
    /// The newest generation that is known to be gone.
    gone: watch::Sender<u64>,
    metrics: RedisMetrics,
    /// When it was last said that Redis refuses work, for one line a while instead of one a command.
    complained: Mutex<Option<Instant>>,
}

impl Current {
    fn take(&self, link: Link) {
        let generation = link.generation;
        self.link.store(Some(Arc::new(link)));
        self.metrics.connected.set(1);
        // It may have been lost before it was stored.
        if *self.gone.borrow() >= generation {
            self.give_up(generation);
        }
    }

    fn give_up(&self, generation: u64) {
        // Told when it is no longer there to be taken.
        self.remove(generation);
        self.gone.send_if_modified(|gone| std::mem::replace(gone, generation.max(*gone)) < generation);
        // It may have been stored meanwhile.
        self.remove(generation);
    }

    fn remove(&self, generation: u64) {
        let current = self.link.load_full();
        if let Some(link) = current.filter(|link| link.generation == generation) {
            let before = self.link.compare_and_swap(&link, None);
            if before.as_ref().is_some_and(|before| before.generation == generation) {
                self.metrics.connected.set(0);
                self.metrics.connections_lost.inc();
            }
        }
    }
}

pub struct Client {
    options: Options,
    whereabouts: Whereabouts,
    /// Where the newest connection leads.
    place: ArcSwap<Place>,
    current: Arc<Current>,
    /// The server's life on the newest connection.
    life: ArcSwap<Life>,
    changes: Arc<Changes>,
    /// Called when there is a new shared connection: what others changed before may have been missed.
    renewed: Box<dyn Fn() + Send + Sync>,
}

/// Shared connections of this process, so that no two have one number: a key's node may change.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

impl Client {
    /// Connects, loads the Function libraries, and asks Redis to push the names of changed streams.
    pub async fn connect(options: Options) -> Result<Arc<Self>, RedisError> {
        Self::connect_counted(options, RedisMetrics::default()).await
    }

    /// As [`Client::connect`], counting in `metrics`.
    pub async fn connect_counted(options: Options, metrics: RedisMetrics) -> Result<Arc<Self>, RedisError> {
        let whereabouts = Whereabouts::of(&options.url, options.connect_timeout)?;
        let place = Place::new(whereabouts.find().await?, &options);
        let changes = Arc::new(Changes::default());
        let renewed = {
            let changes = changes.clone();
            move || changes.reset()
        };
        let this = Self::of(options, whereabouts, place, metrics, changes, renewed);
        this.establish().await?;
        Ok(this)
    }

    /// A client of the server that `info` names, which is connected once it is supervised, or by [`Client::establish`].
    pub(super) fn at(
        info: ConnectionInfo,
        options: Options,
        metrics: RedisMetrics,
        changes: Arc<Changes>,
        renewed: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let place = Place::new(info.clone(), &options);
        Self::of(options, Whereabouts::Given(Box::new(info)), place, metrics, changes, renewed)
    }

    fn of(
        options: Options,
        whereabouts: Whereabouts,
        place: Place,
        metrics: RedisMetrics,
        changes: Arc<Changes>,
        renewed: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            options,
            whereabouts,
            place: ArcSwap::from_pointee(place),
            current: Arc::new(Current { metrics, ..Current::default() }),
            life: ArcSwap::from_pointee(Life::new("")),
            changes,
            renewed: Box::new(renewed),
        })
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
        self.current.link.load().as_ref().map(|link| link.generation)
    }

    /// The life of the server that the newest connection leads to.
    pub fn life(&self) -> Life {
        Life::clone(&self.life.load())
    }

    /// Gives the shared connection up if it still is the `generation`th: another is made.
    pub fn renew(&self, generation: u64) {
        self.current.give_up(generation);
    }

    /// Waits until the `generation`th shared connection is gone.
    pub(super) async fn until_lost(&self, generation: u64) {
        // The sender lives as long as this client.
        let _ = self.current.gone.subscribe().wait_for(|gone| *gone >= generation).await;
    }

    /// A connection of one's own, for commands that block for up to [`LONGEST_BLOCK`].
    pub(super) async fn exclusive(&self) -> Result<deadpool_redis::Connection, StoreError> {
        let pool = self.place.load().blocking(&self.options).map_err(|error| self.failed(&error))?;
        pool.get().await.map_err(|error| self.failure(Failure::NotSent(error.to_string())))
    }

    /// Makes the shared connection.
    pub(super) async fn establish(&self) -> Result<(), RedisError> {
        let info = self.whereabouts.find().await?;
        let at = info.addr().clone();
        tokio::select! {
            made = self.establish_at(info) => made,
            // A server that hangs still accepts connections, and would be waited for.
            () = self.whereabouts.moved_from(&at) => {
                Err(RedisError::from((ErrorKind::Io, "the Sentinels name another master")))
            }
        }
    }

    async fn establish_at(&self, info: ConnectionInfo) -> Result<(), RedisError> {
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed) + 1;
        let open = || {
            let (changes, current) = (self.changes.clone(), self.current.clone());
            Connection::open(&info, self.connection_options(), move |event| match event {
                Event::Push(push) => changes.take_push(push),
                Event::Closed => current.give_up(generation),
            })
        };
        let (connection, news) = (open().await?, open().await?);
        let told = connection.command(&durability::info_command()).await?;
        let told = durability::fields(&redis::from_redis_value::<String>(told)?);
        if told.get("role").map(String::as_str) == Some("slave") {
            let refusal = (ErrorKind::Server(ServerErrorKind::ReadOnly), "it is a replica");
            return Err(RedisError::from(refusal));
        }
        durability::torn::leave(&connection, &told).await?;
        scripts::load(&connection).await?;
        for channel in self.options.keyspace.channels() {
            news.subscribe(&channel).await?;
        }
        let place = self.place.load_full();
        if *place.info.addr() != *info.addr() || place.readers.are_aborted() {
            self.place.store(Arc::new(Place::new(info, &self.options)));
        }
        self.life.store(Arc::new(durability::life(&told)));
        self.current.take(Link { connection, news, generation });
        (self.renewed)();
        Ok(())
    }

    /// Renews the shared connection whenever it is lost, or should lead elsewhere, until `stopping`.
    pub async fn supervise(self: Arc<Self>, stopping: CancellationToken) {
        let supervised = async {
            loop {
                match self.current.link.load_full() {
                    Some(link) => self.watch(&link).await,
                    None => self.reconnect().await,
                }
            }
        };
        stopping.run_until_cancelled(supervised).await;
    }

    /// Returns when the connection is given up.
    async fn watch(&self, link: &Link) {
        /// Nothing else tells that a connection on which nothing is sent has died.
        const BETWEEN_LOOKS: Duration = Duration::from_secs(5);
        let has_died = async {
            loop {
                tokio::time::sleep(BETWEEN_LOOKS).await;
                // A server that can't write its files refuses even a ping; the connection is good.
                if link.news.command(&redis::cmd("PING")).await.is_err_and(|error| error.is_io_error()) {
                    return;
                }
            }
        };
        let place = self.place.load_full();
        tokio::select! {
            () = self.until_lost(link.generation) => {}
            () = has_died => self.current.give_up(link.generation),
            () = self.whereabouts.moved_from(place.info.addr()) => {
                // The server there may go on answering, or hang: what it says does not count any more.
                warn!("the Sentinels name another master");
                self.abandon();
            }
        }
    }

    /// Gives all connections up, and those who wait for an answer.
    pub(super) fn abandon(&self) {
        if let Some(link) = self.current.link.load_full() {
            self.current.give_up(link.generation);
            link.abort();
        }
        self.place.load().readers.abort();
    }

    async fn reconnect(&self) {
        const FIRST_PAUSE: Duration = Duration::from_millis(20);
        /// Whoever waits for Redis waits this much longer at most.
        const LONGEST_PAUSE: Duration = Duration::from_millis(250);
        const UNTIL_REPORTED: Duration = Duration::from_secs(1);
        let at = self.place.load().info.addr().clone();
        warn!(%at, "Redis is lost");
        let lost = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut reported = false;
        while self.current.link.load().is_none() {
            match self.establish().await {
                Ok(()) => info!(%at, after = ?lost.elapsed(), "Redis is back"),
                Err(error) => {
                    // The first try often comes before a restarted server listens.
                    if !reported && lost.elapsed() > UNTIL_REPORTED {
                        reported = true;
                        warn!(%at, %error, "Redis can't be reached; trying on");
                    }
                    tokio::select! {
                        () = self.whereabouts.news() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn link(&self) -> Result<Arc<Link>, StoreError> {
        let link = self.current.link.load_full();
        link.ok_or_else(|| self.failure(Failure::NotSent("no connection to Redis".to_owned())))
    }

    /// Sends one command on the shared connection.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        self.query_with(|| Request::command(command)).await
    }

    /// As [`Client::query`], of the one command that `request` makes.
    pub(super) async fn query_with<T: FromRedisValue>(&self, request: impl Fn() -> Request) -> Result<T, StoreError> {
        let answer = match self.answer_to(request()).await? {
            // Nothing ran: the server has no such Function (a new server, FUNCTION FLUSH).
            Value::ServerError(error) if scripts::is_missing(&error) => {
                self.load_libraries().await?;
                self.answer_to(request()).await?
            }
            answer => answer,
        };
        self.read(answer)
    }

    /// Sends a request of one command or one transaction on the shared connection. Errors of the server, also those
    /// within an answer, are values.
    pub(super) async fn answer_to(&self, request: Request) -> Result<Value, StoreError> {
        Ok(self.send(request).await?.pop().unwrap_or_default())
    }

    /// Sends a request on the shared connection. Errors of the server are values.
    pub(super) async fn send(&self, request: Request) -> Result<Vec<Value>, StoreError> {
        let link = self.link()?;
        let started = Instant::now();
        let answers = link.connection.send(request).await;
        self.current.metrics.duration.observe(started.elapsed());
        answers.map_err(|failure| {
            self.current.give_up(link.generation);
            self.failure(failure)
        })
    }

    fn failure(&self, failure: Failure) -> StoreError {
        let error = match failure {
            Failure::NotSent(text) => StoreError::NotSent(text),
            Failure::Lost(text) => StoreError::OutcomeUnknown(text),
        };
        self.current.metrics.failed(failure_kind(&error));
        error
    }

    fn connection_options(&self) -> connection::Options {
        connection::Options {
            connect_timeout: self.options.connect_timeout,
            response_timeout: self.options.response_timeout,
        }
    }

    /// An answer as `T`; an error of the server is an error.
    pub(super) fn read<T: FromRedisValue>(&self, answer: Value) -> Result<T, StoreError> {
        answer
            .extract_error()
            .and_then(|answer| Ok(redis::from_redis_value(answer)?))
            .map_err(|error| self.failed(&error))
    }

    /// What a refusal by the server means, which an answer held as a value.
    pub(super) fn refused(&self, error: ServerError) -> StoreError {
        self.failed(&error.into())
    }

    /// Loads the Function libraries again; for a caller that finds "Function not found" inside an answer.
    pub async fn load_libraries(&self) -> Result<(), StoreError> {
        let link = self.link()?;
        scripts::load(&link.connection).await.map_err(|error| {
            if error.is_io_error() {
                self.current.give_up(link.generation);
            }
            self.failed(&error)
        })
    }

    /// Sends one command whose answer is large, on a connection where it delays neither writes nor small reads. The answer
    /// is given as its bytes, of which about `bytes` are expected.
    pub(super) async fn read_long(self: Arc<Self>, command: Cmd, bytes: usize) -> Result<Bytes, StoreError> {
        let answer = self.answer_long(Self::long_request(&command, bytes)).await?;
        answer.map_err(|error| self.refused(error))
    }

    /// One command whose answer has about `bytes`.
    pub(super) fn long_request(command: &Cmd, bytes: usize) -> Request {
        /// More is only allotted as it arrives.
        const MOST_EXPECTED: usize = 3 << 20;
        Request::raw(command, bytes.min(MOST_EXPECTED))
    }

    /// As [`Client::read_long`]; an error of the server is the inner one.
    pub(super) async fn answer_long(&self, request: Request) -> Result<Result<Bytes, ServerError>, StoreError> {
        let connection = self.reader().await?;
        self.answer_long_on(&connection, request).await
    }

    /// As [`Client::read_long`], on a connection that is open already: who polls it once, and then leaves it, holds nothing
    /// that others wait for.
    pub(super) fn read_ahead(
        self: Arc<Self>,
        command: &Cmd,
        bytes: usize,
    ) -> Option<impl Future<Output = Result<Bytes, StoreError>> + use<>> {
        let connection = self.place.load().readers.open()?;
        let request = Self::long_request(command, bytes);
        Some(async move {
            let answer = self.answer_long_on(&connection, request).await?;
            answer.map_err(|error| self.refused(error))
        })
    }

    async fn answer_long_on(
        &self,
        connection: &Connection,
        request: Request,
    ) -> Result<Result<Bytes, ServerError>, StoreError> {
        let answer = connection.send_raw(request).await;
        let answer = answer.map_err(|failure| {
            connection.give_up();
            self.failure(failure)
        })?;
        if answer.first() == Some(&b'-') {
            return match redis::parse_redis_value(&answer) {
                Ok(Value::ServerError(error)) => Ok(Err(error)),
                _ => Err(StoreError::OutcomeUnknown("an error that can't be read".to_owned())),
            };
        }
        Ok(Ok(answer))
    }

    /// Sends a request of one command or one transaction on a connection for long reads. Errors of the server are values.
    pub(super) async fn answer_aside(&self, request: Request) -> Result<Value, StoreError> {
        let connection = self.reader().await?;
        let answers = connection.send(request).await.map_err(|failure| {
            connection.give_up();
            self.failure(failure)
        });
        Ok(answers?.pop().unwrap_or_default())
    }

    async fn reader(&self) -> Result<Arc<Connection>, StoreError> {
        let place = self.place.load_full();
        let reader = place.readers.take(&place.info, self.connection_options()).await;
        reader.map_err(|error| self.failure(Failure::NotSent(error.to_string())))
    }

    fn failed(&self, error: &RedisError) -> StoreError {
        // A server that became a replica takes no writes: its address may lead to another one by now.
        if error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
            && let Some(generation) = self.generation()
        {
            self.current.give_up(generation);
        }
        let error = store_error(error);
        self.current.metrics.failed(failure_kind(&error));
        self.complain(&error);
        error
    }

    /// Tells the operator of what only they can mend.
    fn complain(&self, error: &StoreError) {
        const BETWEEN_COMPLAINTS: Duration = Duration::from_secs(30);
        let advice = match error {
            StoreError::OutOfMemory => "its memory is full (maxmemory): raise the limit, or let retention remove more",
            StoreError::NotReady(text) if text.contains("MISCONF") => {
                "it can't write its files: see its log and the disk"
            }
            StoreError::NotReady(_) => "it is not ready",
            _ => return,
        };
        let mut complained = self.current.complained.lock();
        if complained.is_none_or(|at| at.elapsed() > BETWEEN_COMPLAINTS) {
            *complained = Some(Instant::now());
            warn!(%error, "Redis refuses work; {advice}");
        }
    }
}

/// The metric's label of an error.
fn failure_kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::NotSent(_) => "not_sent",
        StoreError::OutcomeUnknown(_) => "outcome_unknown",
        StoreError::OutOfMemory => "out_of_memory",
        StoreError::NotReady(_) => "not_ready",
        StoreError::Refused(_) => "refused",
        StoreError::NoSuchPartition => "no_such_partition",
        StoreError::Quarantined(_) => "quarantined",
        StoreError::FencedLeader(_) => "fenced_leader",
    }
}

/// What a failed command means for the caller.
pub fn store_error(error: &RedisError) -> StoreError {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::MasterDown
            | ServerErrorKind::TryAgain
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::ReadOnly,
        ) => StoreError::NotReady(text),
        ErrorKind::Server(_) | ErrorKind::Extension if is_out_of_memory(&text) => StoreError::OutOfMemory,
        ErrorKind::Server(_) | ErrorKind::Extension => match error.code() {
            Some("BUSY" | "MISCONF" | "NOAUTH" | "NOREPLICAS") => StoreError::NotReady(text),
            _ => StoreError::Refused(text),
        },
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig | ErrorKind::Client => {
            StoreError::NotSent(text)
        }
        _ if error.is_connection_refusal() => StoreError::NotSent(text),
        _ => StoreError::OutcomeUnknown(text),
    }
}

/// Redis answers `OOM …` to a command, and wraps that text when it comes out of a script. The crate shows an error's
/// code in quotes.
fn is_out_of_memory(text: &str) -> bool {
    text.contains("OOM ") || text.contains("-OOM") || text.contains("\"OOM\"")
}
