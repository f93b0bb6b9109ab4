//! File, environment and flags become one checked [`Config`].

mod archive;
mod arguments;
mod broker;
mod listeners;
mod memory;
mod print;
mod settings;
mod sources;

use std::{collections::BTreeMap, path::PathBuf, str::FromStr, time::Duration};

pub use archive::Archive;
pub use arguments::{Arguments, Role};
pub use listeners::{Address, Listener};
pub use memory::MemoryLimit;
pub use settings::{SETTINGS, Setting, environment_name};
pub use sources::{Given, Origin};

use crate::{
    model::NodeId,
    storage::redis::{keys::Keyspace, whereabouts},
    topics::settings::StaticSettings,
};
use sources::Sources;

/// What is wrong with the settings, in one sentence that names the setting and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration file {path} can't be read ({reason}): give the path of a TOML file with --config")]
    UnreadableFile { path: String, reason: String },
    #[error(
        "{path} line {line} is not TOML: {message} (put names with dots in quotes where one is the beginning of another, as in \
         \"max.connections\" = 100)"
    )]
    InvalidFile { path: String, line: usize, message: String },
    #[error("`{name}` ({origin}) is not a setting{}", hint.as_ref().map_or_else(String::new, |hint| format!(": {hint}")))]
    Unknown { name: String, origin: Origin, hint: Option<String> },
    #[error("`{name}` is {value:?} ({origin}): it must be {expected}")]
    Invalid { name: String, value: String, origin: Origin, expected: String },
    #[error("`{name}` is {value:?} ({origin}): {reason}")]
    Refused { name: String, value: String, origin: Origin, reason: String },
    #[error("--override {0:?} must be NAME=VALUE, as in --override num.partitions=3")]
    Override(String),
    #[error("{0}")]
    Conflict(String),
}

/// Everything that was configured, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub node: NodeId,
    /// At least one, with distinct names.
    pub listeners: Vec<Listener>,
    pub http: Option<Address>,
    pub redis: Redis,
    /// Where topics are archived.
    pub archive: Option<Archive>,
    pub keyspace: Keyspace,
    /// That serve clients.
    pub threads: usize,
    pub metrics_max_series: usize,
    pub log: Log,
    /// Kafka's broker settings and the defaults of topics, as given; what is not there has its default.
    pub settings: StaticSettings,
    sources: Sources,
}

/// Where the data is and how it is reached.
#[derive(Clone, Debug)]
pub struct Redis {
    pub server: RedisServer,
    pub connections: usize,
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
}

#[derive(Clone)]
pub enum RedisServer {
    /// A server that somebody else runs. The URL may hold a password.
    Url(String),
    Embedded(Embedded),
}

impl std::fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RedisServer::Url(url) => f.debug_tuple("Url").field(&masked(url)).finish(),
            RedisServer::Embedded(embedded) => embedded.fmt(f),
        }
    }
}

/// The private server.
#[derive(Clone, Debug)]
pub struct Embedded {
    pub data_dir: PathBuf,
    pub program: PathBuf,
    pub maxmemory: MemoryLimit,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub format: LogFormat,
    /// As `tracing_subscriber::EnvFilter` reads it.
    pub filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Config {
    /// Reads the file, `environment` and `arguments`, in this order; later ones win.
    pub fn load(
        arguments: &Arguments,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        let data_home = data_home(&environment);
        let mut sources = Sources::gather(arguments, environment)?;
        for setting in SETTINGS {
            sources.own.entry(setting.name.to_owned()).or_insert_with(|| Given {
                values: if setting.default.is_empty() { Vec::new() } else { vec![setting.default.to_owned()] },
                origin: Origin::BuiltIn,
            });
        }
        let own = Own(&sources.own);
        let url = own.text("redis.url")?;
        let server = if url.is_empty() {
            let given = own.text("data.dir")?;
            let data_dir = if given.is_empty() { data_home } else { PathBuf::from(given) };
            RedisServer::Embedded(Embedded {
                data_dir,
                program: PathBuf::from(own.non_empty("redis.server.path", "a program's path, or a name on PATH")?),
                maxmemory: own.parsed("redis.server.maxmemory", "bytes as in 512mb or 2gb, or a share as in 50%")?,
            })
        } else {
            if let Err(expected) = check_url(&url) {
                return Err(own.invalid_text("redis.url", &masked(&url), expected));
            }
            RedisServer::Url(url)
        };
        let http = own.text("http")?;
        let archive = Archive::of(&own)?;
        Ok(Self {
            node: NodeId(own.number("node.id", 0, i64::from(i32::MAX))?),
            listeners: listeners::listeners(own.given("listen"), own.given("advertise"))?,
            http: match http.as_str() {
                "" => None,
                text => Some(Address::parse(text).map_err(|expected| own.invalid("http", &expected))?),
            },
            redis: Redis {
                server,
                connections: own.number("redis.connections", 1, 1000)?,
                connect_timeout: Duration::from_millis(own.number("redis.connect.timeout.ms", 1, 600_000)?),
                response_timeout: Duration::from_millis(own.number("redis.response.timeout.ms", 100, 600_000)?),
            },
            keyspace: Keyspace::new(&own.text("keyspace")?)
                .map_err(|_| own.invalid("keyspace", "1 to 100 printable ASCII characters without braces or blanks"))?,
            threads: match own.text("threads")?.as_str() {
                "" => std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
                _ => own.number("threads", 1, 1024)?,
            },
            metrics_max_series: own.number("metrics.max.series", 0, 1_000_000)?,
            log: Log {
                format: own.parsed("log.format", "text or json")?,
                filter: {
                    let filter = own.text("log.level")?;
                    let expected = "error, warn, info, debug, trace or a list such as info,weir::net=debug";
                    tracing_subscriber::EnvFilter::try_new(&filter).map_err(|_| own.invalid("log.level", expected))?;
                    filter
                },
            },
            settings: broker::settings(&sources, archive.is_some())?,
            archive,
            sources,
        })
    }
}

/// Weir's own settings with typed access.
struct Own<'a>(&'a BTreeMap<String, Given>);

impl Own<'_> {
    fn given(&self, name: &str) -> &Given {
        self.0.get(name).expect("every setting has a default")
    }

    fn text(&self, name: &str) -> Result<String, ConfigError> {
        match self.given(name).values.as_slice() {
            [] => Ok(String::new()),
            [one] => Ok(one.trim().to_owned()),
            _ => Err(self.invalid(name, "one value, not a list")),
        }
    }

    fn non_empty(&self, name: &str, expected: &str) -> Result<String, ConfigError> {
        self.text(name).and_then(|text| if text.is_empty() { Err(self.invalid(name, expected)) } else { Ok(text) })
    }

    fn number<T: TryFrom<i64>>(&self, name: &str, least: i64, most: i64) -> Result<T, ConfigError> {
        let text = self.text(name)?;
        text.parse::<i64>()
            .ok()
            .filter(|value| (least..=most).contains(value))
            .and_then(|value| T::try_from(value).ok())
            .ok_or_else(|| self.invalid(name, &format!("a number from {least} to {most}")))
    }

    fn parsed<T: FromStr>(&self, name: &str, expected: &str) -> Result<T, ConfigError> {
        self.text(name)?.parse().map_err(|_| self.invalid(name, expected))
    }

    fn invalid(&self, name: &str, expected: &str) -> ConfigError {
        self.invalid_text(name, &self.given(name).text(), expected)
    }

    fn invalid_text(&self, name: &str, value: &str, expected: &str) -> ConfigError {
        ConfigError::Invalid {
            name: name.to_owned(),
            value: value.to_owned(),
            origin: self.given(name).origin.clone(),
            expected: expected.to_owned(),
        }
    }
}

#[derive(Debug)]
pub struct NotOneOfThem;

impl FromStr for LogFormat {
    type Err = NotOneOfThem;

    fn from_str(text: &str) -> Result<Self, NotOneOfThem> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(NotOneOfThem),
        }
    }
}

fn data_home(environment: &BTreeMap<String, String>) -> PathBuf {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_DATA_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("weir")
}

fn check_url(url: &str) -> Result<(), &'static str> {
    let expected = "redis://HOST:PORT, rediss://HOST:PORT or redis+unix:///PATH, with USER:PASSWORD@ before the host and /DB after it \
                    where needed, or redis-sentinel://HOST:PORT,HOST:PORT/MASTER";
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    let plain = scheme.strip_suffix("-sentinel").or_else(|| scheme.strip_suffix("+sentinel"));
    let is_known = match plain {
        Some(plain) => ["redis", "rediss"].contains(&plain),
        None => ["redis", "rediss", "valkey", "valkeys", "redis+unix", "valkey+unix", "unix"].contains(&scheme),
    };
    if !is_known {
        return Err(expected);
    }
    if url.ends_with("#insecure") {
        return Err(
            "without #insecure: the server's certificate is always checked, against the system's or those in SSL_CERT_FILE",
        );
    }
    whereabouts::check_url(url).map_err(|_| expected)
}

/// A URL without its password.
pub fn masked(url: &str) -> String {
    let mut out = url.to_owned();
    if let Some(start) = out.find("://").map(|at| at + 3)
        && let Some(end) = out.rfind('@').filter(|end| *end > start)
        && let Some(colon) = out[start..end].find(':').map(|at| start + at)
    {
        out.replace_range(colon + 1..end, "***");
    }
    for secret in ["pass=", "password="] {
        if let Some(start) = out.find(secret).map(|at| at + secret.len()) {
            let end = out[start..].find('&').map_or(out.len(), |at| start + at);
            out.replace_range(start..end, "***");
        }
    }
    out
}

#[cfg(test)]
mod tests;
