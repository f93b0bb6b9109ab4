//! Redis Sentinel: which server is the master now, asked of every Sentinel and heard from each when it changes.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, Value};
use tokio::{sync::Notify, time::Instant};

use super::{
    address::Address,
    connection::{self, Connection, Event, Request},
    whereabouts::with_settings,
};

/// The form of a URL that names Sentinels.
pub const URL_FORM: &str = "redis-sentinel://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…]/MASTER[/DB]";

const DEFAULT_PORT: u16 = 26_379;

/// Where Sentinels tell each other's clients that they have a new master.
const SWITCHED: &str = "+switch-master";

/// Sentinels that are remembered: those given and those that they name.
const MOST_KNOWN: usize = 32;

/// How often the Sentinels are asked, besides being listened to.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// How long the others are waited for after one has answered: a Sentinel that was cut off knows an older master.
const FOR_THE_OTHERS: Duration = Duration::from_millis(250);

/// Why the master is not known.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Nowhere {
    #[error("no Sentinel answers ({0}): start them, or correct the addresses in --redis-url")]
    Silent(String),
    #[error(
        "the Sentinels watch no master named {0}: correct the name in --redis-url, after the addresses (`SENTINEL MASTERS` lists \
         those that they watch)"
    )]
    UnknownMaster(String),
    #[error("{0} is not a Sentinel: give the addresses of Sentinels, or the server itself as redis://HOST:PORT")]
    NotASentinel(String),
    #[error(
        "the Sentinels refuse the login ({0}): put theirs at the end of --redis-url, as \
         ?sentinel_username=USER&sentinel_password=PASSWORD"
    )]
    Login(String),
    #[error(
        "the Sentinels' certificates are not trusted ({0}): add the authority that signed them to the system's, or name its file in \
         the environment as SSL_CERT_FILE"
    )]
    Certificate(String),
    #[error("the Sentinels answer otherwise than expected ({0})")]
    Unexpected(String),
}

impl From<Nowhere> for RedisError {
    fn from(nowhere: Nowhere) -> Self {
        RedisError::from((ErrorKind::Client, "the master is not known", nowhere.to_string()))
    }
}

/// `HOST[:PORT]`, IPv6 in brackets.
fn parse_address(text: &str) -> Option<Address> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| Address { host: host.to_owned(), port })
}

/// What a URL says of Sentinels and the servers that they watch.
pub(super) struct SentinelUrl {
    sentinels: Vec<Address>,
    master: String,
    /// How the servers are connected to; the address is none of theirs.
    server: ConnectionInfo,
    /// The same for the Sentinels.
    sentinel: ConnectionInfo,
}

impl SentinelUrl {
    /// None where the URL is of another kind. `redis+sentinel` is how Python's and Java's libraries spell it.
    pub(super) fn parse(url: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = url.split_once("://")?;
        let plain = match scheme {
            "redis-sentinel" | "redis+sentinel" => "redis",
            "rediss-sentinel" | "rediss+sentinel" => "rediss",
            _ => return None,
        };
        Some(Self::parse_rest(plain, rest))
    }

    fn parse_rest(plain: &str, rest: &str) -> Result<Self, String> {
        let malformed = || format!("it must be {URL_FORM}");
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, place) = place.rsplit_once('@').map_or(("", place), |(login, place)| (login, place));
        let mut path = place.split('/');
        let sentinels: Option<Vec<Address>> = path.next().unwrap_or_default().split(',').map(parse_address).collect();
        let sentinels = sentinels.ok_or_else(malformed)?;
        let master = path.next().filter(|name| !name.is_empty()).ok_or_else(malformed)?.to_owned();
        let database = path.next().unwrap_or_default();
        if path.next().is_some() {
            return Err(malformed());
        }
        // The crate reads the rest, as for a server that is given itself.
        let info = |login: &str, database: &str| {
            let at = if login.is_empty() { "" } else { "@" };
            let url = format!("{plain}://{login}{at}placeholder:1/{database}");
            url.as_str().into_connection_info().map(with_settings).map_err(|_| malformed())
        };
        let mut own_login = (String::new(), String::new());
        for (name, value) in query.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| pair.split_once('=')) {
            match name {
                "sentinel_username" => own_login.0 = value.to_owned(),
                "sentinel_password" => own_login.1 = value.to_owned(),
                _ => return Err("after ? it may have sentinel_username and sentinel_password".to_owned()),
            }
        }
        let own_login = match own_login {
            (user, password) if user.is_empty() && password.is_empty() => String::new(),
            (user, password) => format!("{user}:{password}"),
        };
        Ok(Self { sentinels, master, server: info(login, database)?, sentinel: info(&own_login, "")? })
    }
}

/// One Sentinel, with the connection that it is asked and listened to on.
struct Sentinel {
    address: Address,
    link: tokio::sync::Mutex<Option<Arc<Connection>>>,
}

impl Sentinel {
    fn new(address: Address) -> Arc<Self> {
        Arc::new(Self { address, link: tokio::sync::Mutex::default() })
    }
}

/// What one Sentinel said.
#[derive(Debug, PartialEq)]
struct Told {
    /// Counts the failovers that it knows of.
    epoch: u64,
    master: Address,
    others: Vec<Address>,
    /// Replicas that it may promote, also those that are not connected now.
    promotable: u16,
}

pub(super) struct Sentinels {
    name: String,
    server: ConnectionInfo,
    sentinel: ConnectionInfo,
    options: connection::Options,
    known: Mutex<Vec<Arc<Sentinel>>>,
    /// Of the failovers that any of them told of.
    newest_epoch: AtomicU64,
    /// One of them has a new master.
    switched: Arc<Notify>,
}

impl Sentinels {
    pub(super) fn new(url: SentinelUrl, patience: Duration) -> Self {
        Self {
            name: url.master,
            server: url.server,
            sentinel: url.sentinel,
            options: connection::Options { connect_timeout: patience, response_timeout: patience },
            known: Mutex::new(url.sentinels.into_iter().map(Sentinel::new).collect()),
            newest_epoch: AtomicU64::new(0),
            switched: Arc::default(),
        }
    }

    /// Where the newest failover that any of them knows of led.
    pub(super) async fn master(&self) -> Result<ConnectionInfo, Nowhere> {
        let told = self.ask_all(FOR_THE_OTHERS).await?;
        let newest = told.into_iter().max_by_key(|told| told.epoch);
        let newest = newest.ok_or_else(|| Nowhere::Silent("none is known".to_owned()))?;
        Ok(newest.master.placed_in(&self.server))
    }

    pub(super) async fn moved_from(&self, address: &ConnectionAddr) {
        loop {
            let mut told = self.ask_all(FOR_THE_OTHERS).await;
            // Only those who know of an older failover were quick; one that hangs is not waited for otherwise.
            let known = told.as_deref().ok().and_then(newest_epoch);
            if known < Some(self.newest_epoch.load(Ordering::Relaxed)) {
                told = self.ask_all(self.options.connect_timeout).await;
            }
            if let Ok(told) = &told {
                let epoch = newest_epoch(told);
                let mut newest = told.iter().filter(|told| Some(told.epoch) == epoch).peekable();
                if newest.peek().is_some() && !newest.any(|told| told.master.is_at(address)) {
                    return;
                }
            }
            tokio::select! {
                () = self.switched.notified() => {}
                () = tokio::time::sleep(BETWEEN_LOOKS) => {}
            }
        }
    }

    /// Replicas that any of them may promote.
    pub(super) async fn promotable(&self) -> u16 {
        let told = self.ask_all(FOR_THE_OTHERS).await.unwrap_or_default();
        told.iter().map(|told| told.promotable).max().unwrap_or(0)
    }

    pub(super) async fn news(&self) {
        self.switched.notified().await;
    }

    /// Asks all at once; those who have not answered by `patience` after the first are not waited for.
    async fn ask_all(&self, patience: Duration) -> Result<Vec<Told>, Nowhere> {
        let known = self.known.lock().clone();
        let mut asked: FuturesUnordered<_> = known.iter().map(|sentinel| self.ask(sentinel)).collect();
        let mut told = Vec::new();
        let mut failure: Option<Nowhere> = None;
        let mut deadline = Instant::now();
        loop {
            tokio::select! {
                answer = asked.next() => match answer {
                    None => break,
                    Some(Ok(answer)) => {
                        if told.is_empty() {
                            deadline = Instant::now() + patience;
                        }
                        told.push(answer);
                    }
                    // One that answers knows more than one that does not.
                    Some(Err(nowhere)) => {
                        if failure.as_ref().is_none_or(|failure| matches!(failure, Nowhere::Silent(_))) {
                            failure = Some(nowhere);
                        }
                    }
                },
                () = tokio::time::sleep_until(deadline), if !told.is_empty() => break,
            }
        }
        drop(asked);
        if let (true, Some(failure)) = (told.is_empty(), failure) {
            return Err(failure);
        }
        self.learn(told.iter().flat_map(|told| &told.others));
        self.newest_epoch.fetch_max(newest_epoch(&told).unwrap_or(0), Ordering::Relaxed);
        Ok(told)
    }

    fn learn<'a>(&self, others: impl Iterator<Item = &'a Address>) {
        let mut known = self.known.lock();
        for other in others {
            if known.len() < MOST_KNOWN && known.iter().all(|sentinel| sentinel.address != *other) {
                known.push(Sentinel::new(other.clone()));
            }
        }
    }

    async fn ask(&self, sentinel: &Sentinel) -> Result<Told, Nowhere> {
        let silent = |reason: String| Nowhere::Silent(format!("{}: {reason}", sentinel.address));
        let mut link = sentinel.link.lock().await;
        let connection = match &*link {
            Some(connection) if !connection.is_closed() => connection.clone(),
            _ => link.insert(Arc::new(self.connect(sentinel).await?)).clone(),
        };
        let commands = ["MASTER", "GET-MASTER-ADDR-BY-NAME", "SENTINELS", "REPLICAS"]
            .map(|word| redis::cmd("SENTINEL").arg(word).arg(&self.name).to_owned());
        let answers = connection.send(Request::pipeline(&commands)).await.map_err(|failure| {
            connection.give_up();
            silent(failure.to_string())
        })?;
        read(answers, &self.name, &sentinel.address)
    }

    async fn connect(&self, sentinel: &Sentinel) -> Result<Connection, Nowhere> {
        let (switched, name) = (self.switched.clone(), self.name.clone());
        let info = sentinel.address.placed_in(&self.sentinel);
        let events = move |event| match event {
            Event::Push(push) if tells_of(&push, &name) => switched.notify_one(),
            _ => {}
        };
        let subscribed = async {
            let connection = Connection::open(&info, self.options, events).await?;
            connection.subscribe(SWITCHED).await?;
            Ok::<_, RedisError>(connection)
        };
        subscribed.await.map_err(|error| {
            let text = format!("{}: {error}", sentinel.address);
            match error.code() {
                _ if error.kind() == ErrorKind::AuthenticationFailed => Nowhere::Login(text),
                Some("WRONGPASS" | "NOAUTH" | "NOPERM") => Nowhere::Login(text),
                _ if text.contains("certificate") => Nowhere::Certificate(text),
                _ => Nowhere::Silent(text),
            }
        })
    }
}

/// From the answers to what [`Sentinels::ask`] asks of the master of this name.
fn read(answers: Vec<Value>, name: &str, told_by: &Address) -> Result<Told, Nowhere> {
    let unexpected = || Nowhere::Unexpected(told_by.to_string());
    let [facts, master, others, replicas] = <[Value; 4]>::try_from(answers).map_err(|_| unexpected())?;
    if let Value::ServerError(error) = facts {
        let text = error.details().unwrap_or_default().to_lowercase();
        return Err(match error.code() {
            "NOAUTH" | "NOPERM" => Nowhere::Login(told_by.to_string()),
            _ if text.contains("no such master") => Nowhere::UnknownMaster(name.to_owned()),
            _ if text.contains("unknown command") => Nowhere::NotASentinel(told_by.to_string()),
            code => Nowhere::Unexpected(format!("{}: {code} {text}", told_by)),
        });
    }
    let facts: HashMap<String, String> = redis::from_redis_value(facts).map_err(|_| unexpected())?;
    let master: Option<(String, u16)> = redis::from_redis_value(master).map_err(|_| unexpected())?;
    let (host, port) = master.ok_or_else(|| Nowhere::UnknownMaster(name.to_owned()))?;
    // A Sentinel's user may not be allowed to ask for the others, or for replicas.
    let replicas: Vec<HashMap<String, String>> = redis::from_redis_value(replicas).unwrap_or_default();
    let is_promotable = |facts: &&HashMap<String, String>| {
        // Redis' way to say that it never becomes the master.
        facts.get("slave-priority").is_none_or(|priority| priority != "0")
    };
    let others: Vec<HashMap<String, String>> = redis::from_redis_value(others).unwrap_or_default();
    let other = |facts: &HashMap<String, String>| {
        Some(Address { host: facts.get("ip")?.clone(), port: facts.get("port")?.parse().ok()? })
    };
    Ok(Told {
        epoch: facts.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
        master: Address { host, port },
        others: others.iter().filter_map(other).collect(),
        promotable: u16::try_from(replicas.iter().filter(is_promotable).count()).unwrap_or(u16::MAX),
    })
}

#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzzed(answers: Vec<Value>, told_by: &Address) {
    let _ = tells_of(&answers, "main");
    if let Ok(told) = read(answers, "main", told_by) {
        let _ = newest_epoch(&[told]);
    }
}

fn newest_epoch(told: &[Told]) -> Option<u64> {
    told.iter().map(|told| told.epoch).max()
}

/// Whether a push says that the master of this name was switched: `message`, the channel, `name host port host port`.
fn tells_of(push: &[Value], name: &str) -> bool {
    match push {
        [_, Value::BulkString(channel), Value::BulkString(message)] => {
            channel == SWITCHED.as_bytes()
                && message.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b' '))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> SentinelUrl {
        SentinelUrl::parse(url).expect("of Sentinels").unwrap_or_else(|text| panic!("{url}: {text}"))
    }

    #[test]
    fn a_url_names_sentinels_a_master_and_both_logins() {
        let url = parsed(
            "redis-sentinel://me:p%40ss@one:1,two,[::1]:3/main/5?sentinel_username=watcher&sentinel_password=s%2Fx",
        );
        let told: Vec<String> = url.sentinels.iter().map(Address::to_string).collect();
        assert_eq!(told, ["one:1", "two:26379", "[::1]:3"]);
        assert_eq!(url.master, "main");
        let server = url.server.redis_settings();
        assert_eq!((server.username(), server.password(), server.db()), (Some("me"), Some("p@ss"), 5));
        let sentinel = url.sentinel.redis_settings();
        assert_eq!((sentinel.username(), sentinel.password(), sentinel.db()), (Some("watcher"), Some("s/x"), 0));
        assert!(matches!(url.server.addr(), ConnectionAddr::Tcp(..)));
        let bare = parsed("rediss+sentinel://one/main?sentinel_password=s");
        assert_eq!(bare.server.redis_settings().password(), None);
        assert_eq!(bare.sentinel.redis_settings().password(), Some("s"));
        let placed = parse_address("node:7").expect("an address").placed_in(&bare.server);
        assert!(
            matches!(placed.addr(), ConnectionAddr::TcpTls { host, port: 7, insecure: false, .. } if host == "node")
        );
    }

    #[test]
    fn a_url_without_a_master_or_with_unknown_words_is_refused() {
        for url in [
            "redis-sentinel://one:1",
            "redis-sentinel://one:1/",
            "redis-sentinel://one:port/main",
            "redis-sentinel://,/main",
            "redis-sentinel:///main",
            "redis-sentinel://one/main/x",
            "redis-sentinel://one/main/0/1",
            "redis-sentinel://one/main?timeout=5",
        ] {
            assert!(SentinelUrl::parse(url).is_some_and(|parsed| parsed.is_err()), "{url}");
        }
        assert!(SentinelUrl::parse("redis://one:1").is_none());
    }

    #[test]
    fn a_push_counts_when_it_is_of_this_master() {
        let push = |channel: &str, message: &str| {
            [Value::BulkString(b"message".into()), Value::BulkString(channel.into()), Value::BulkString(message.into())]
        };
        assert!(tells_of(&push("+switch-master", "main 127.0.0.1 1 127.0.0.1 2"), "main"));
        assert!(!tells_of(&push("+switch-master", "mains 127.0.0.1 1 127.0.0.1 2"), "main"));
        assert!(!tells_of(&push("+sdown", "main 127.0.0.1 1"), "main"));
    }
}
