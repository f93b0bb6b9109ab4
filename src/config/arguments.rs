//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// A Kafka broker whose log is Redis Streams.
///
/// Without a Redis URL, Weir runs a private redis-server in its data directory.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "weir", version, max_term_width = 110)]
pub struct Arguments {
    /// What to be instead of a broker.
    #[arg(value_enum)]
    pub role: Option<Role>,

    /// Settings in TOML (config/weir.toml shows them all). Also WEIR_CONFIG.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where to listen; once for each listener. `localhost` is 127.0.0.1 and ::1, port 0 takes a free one.
    #[arg(long, value_name = "[NAME://]HOST:PORT")]
    pub listen: Vec<String>,

    /// How clients of a listener reach it, where that differs from where it listens.
    #[arg(long, value_name = "[NAME://]HOST:PORT")]
    pub advertise: Vec<String>,

    /// redis://, rediss:// or redis+unix://, with user, password and database. Better in WEIR_REDIS_URL or the file if it
    /// holds a password.
    #[arg(long, value_name = "URL")]
    pub redis_url: Option<String>,

    /// What all of Weir's keys in Redis begin with.
    #[arg(long, value_name = "KS")]
    pub keyspace: Option<String>,

    /// Where the embedded Redis keeps its data.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, value_name = "HOST:PORT")]
    pub http: Option<String>,

    /// This broker's id, unique among the brokers on one Redis.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub node_id: Option<String>,

    /// A broker setting under Kafka's name, a topic default such as weir.layout=batch, or any other setting.
    #[arg(long = "override", value_name = "NAME=VALUE")]
    pub overrides: Vec<String>,

    /// Print every setting and where its value came from, then exit.
    #[arg(long)]
    pub print_config: bool,

    /// Check the settings and Redis, then exit: 0 if Weir would start, 1 or 2 if not.
    #[arg(long)]
    pub check: bool,
}

/// What this process does instead of serving clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Copies topics to the archive for all brokers on one Redis, which have archive.job=off.
    Archive,
}

impl Arguments {
    /// The flags that set something, each with the setting's name.
    pub(super) fn given(&self) -> Vec<(&'static str, &'static str, Vec<String>)> {
        let one = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
        [
            ("--listen", "listen", self.listen.clone()),
            ("--advertise", "advertise", self.advertise.clone()),
            ("--redis-url", "redis.url", one(&self.redis_url)),
            ("--keyspace", "keyspace", one(&self.keyspace)),
            ("--data-dir", "data.dir", one(&self.data_dir)),
            ("--http", "http", one(&self.http)),
            ("--node-id", "node.id", one(&self.node_id)),
        ]
        .into_iter()
        .filter(|(_, _, values)| !values.is_empty())
        .collect()
    }
}
