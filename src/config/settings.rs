//! Weir's own settings: their names, defaults and what they mean. Names are an interface.

/// One of Weir's own settings, as opposed to Kafka's broker settings.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    /// The flag that sets it, where there is one; `--override NAME=VALUE` sets any.
    pub flag: Option<&'static str>,
    /// As it would be written; empty where it is not set.
    pub default: &'static str,
    /// The setting takes several values, separated by commas where they are written as text.
    pub list: bool,
    /// One line for docs/configuration.md.
    pub doc: &'static str,
}

const fn setting(name: &'static str, flag: Option<&'static str>, default: &'static str, doc: &'static str) -> Setting {
    Setting { name, flag, default, list: false, doc }
}

const fn list(name: &'static str, flag: Option<&'static str>, default: &'static str, doc: &'static str) -> Setting {
    Setting { name, flag, default, list: true, doc }
}

/// Every setting of Weir's own, in the order of the documentation.
pub const SETTINGS: &[Setting] = &[
    list(
        "listen",
        Some("--listen"),
        "PLAINTEXT://localhost:9092",
        "Where to listen, as `[NAME://]HOST:PORT`; once for each listener. `localhost` is 127.0.0.1 and ::1, no host is every \
         address, port 0 takes a free one.",
    ),
    list(
        "advertise",
        Some("--advertise"),
        "",
        "The address that clients of a listener are told, as `[NAME://]HOST:PORT`. Not given: the host and port it listens on, \
         or the machine's host name where it listens on every address.",
    ),
    setting(
        "node.id",
        Some("--node-id"),
        "1",
        "This broker's id, 0 to 2147483647; unique among the brokers on one Redis.",
    ),
    setting("keyspace", Some("--keyspace"), "korvet", "What all of Weir's keys in Redis begin with."),
    setting(
        "http",
        Some("--http"),
        "",
        "Where `/livez`, `/readyz` and `/metrics` are served, as `HOST:PORT`. Not given: nowhere.",
    ),
    setting(
        "redis.url",
        Some("--redis-url"),
        "",
        "The Redis to use: `redis://`, `rediss://` (TLS) or `redis+unix://`, with user, password and database; or the Sentinels that \
         know it: `redis-sentinel://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…]/MASTER[/DB]` (`rediss-sentinel://` with TLS for them and \
         the servers), with the login of the Sentinels themselves, if they have one, as \
         `?sentinel_username=USER&sentinel_password=PASSWORD`. A node of a Redis \
         Cluster leads to all others; several are given as `redis://HOST:PORT,HOST:PORT…`, so that a start survives the loss of one. \
         Not given: an embedded one.",
    ),
    setting(
        "redis.connections",
        None,
        "8",
        "Connections for long reads, 1 to 1000 (to each shard of a cluster), besides the shared one that writes go through.",
    ),
    setting("redis.connect.timeout.ms", None, "5000", "How long connecting to Redis may take."),
    setting("redis.response.timeout.ms", None, "15000", "A command without an answer by then counts as lost."),
    setting(
        "data.dir",
        Some("--data-dir"),
        "",
        "Where the embedded Redis keeps its data. Not given: `$XDG_DATA_HOME/weir`, `~/.local/share/weir` or `/var/lib/weir`, the \
         first that applies.",
    ),
    setting("redis.server.path", None, "redis-server", "The embedded server's program: a path, or a name on PATH."),
    setting(
        "redis.server.maxmemory",
        None,
        "50%",
        "The embedded server's memory limit: bytes, with kb, mb or gb, or a share of the machine's (or container's) memory. Writes \
         are refused above it; nothing is evicted.",
    ),
    setting(
        "threads",
        None,
        "",
        "Threads that serve clients, 1 to 1024. Not given: half of the cores, at least one, since Redis and the clients beside \
         it need the others; more help with TLS, compression and the record layout on a machine of Weir's own.",
    ),
    setting(
        "metrics.max.series",
        None,
        "10000",
        "Partitions, and partitions of groups, that `/metrics` shows one by one; the others are only counted.",
    ),
    setting(
        "archive.url",
        None,
        "",
        "Where topics with `remote.storage.enable` are archived: `s3://BUCKET/PREFIX` or `file:///PATH`, with credentials from the \
         usual environment (`AWS_ACCESS_KEY_ID` and so on). Needs a build with the feature `archive`. Not given: nowhere.",
    ),
    setting(
        "archive.endpoint",
        None,
        "",
        "The S3 server, where it is not Amazon's: `http://` or `https://`, host and port.",
    ),
    setting("archive.region", None, "", "The bucket's region. Not given: `AWS_REGION` or us-east-1."),
    setting(
        "archive.path.style",
        None,
        "false",
        "`true` where the bucket stands in the path and not in the host's name, as with MinIO.",
    ),
    setting("archive.allow.http", None, "false", "`true` allows an endpoint without TLS."),
    setting("archive.cache.bytes", None, "134217728", "Bytes of the archive that are kept in memory for readers."),
    setting("archive.zstd.level", None, "3", "How hard the archive's files are compressed, 1 to 22."),
    setting(
        "archive.file.bytes",
        None,
        "134217728",
        "At what size a file of the archive is closed, about; also how much of a partition waits before it is copied, unless time \
         or `local.retention.*` wants it sooner.",
    ),
    setting(
        "archive.lag.ms",
        None,
        "3600000",
        "Records older than this are copied also where they do not fill a file.",
    ),
    setting("archive.interval.ms", None, "30000", "The pause between two rounds of the archival job."),
    setting(
        "archive.upkeep.interval.ms",
        None,
        "3600000",
        "The pause between two rounds of a table's upkeep: small files are joined, checkpoints written, what no version needs removed.",
    ),
    setting(
        "archive.join.files",
        None,
        "8",
        "So many small files in a row, and upkeep makes one of them; two are enough where nothing can follow them any more.",
    ),
    setting(
        "archive.checkpoint.versions",
        None,
        "20",
        "A checkpoint is written when the table's log has grown by so many versions.",
    ),
    setting(
        "archive.keep.removed.ms",
        None,
        "86400000",
        "How long a file that was taken out of its table stays there, for readers that have an older version of the table.",
    ),
    setting(
        "archive.keep.versions.ms",
        None,
        "604800000",
        "How long versions in the table's log stay that a checkpoint has made unnecessary.",
    ),
    setting(
        "archive.rate.bytes",
        None,
        "0",
        "The most bytes a second that the archival job copies, so that it leaves Redis and the network to clients; 0 is no limit.",
    ),
    setting(
        "archive.hot.limit.bytes",
        None,
        "1073741824",
        "How many bytes of a partition may wait to be archived while the archive can't be reached; 0 is no limit.",
    ),
    setting(
        "archive.when.full",
        None,
        "refuse",
        "What happens at that limit: `refuse` answers appends with a retriable error, `drop` removes the oldest records, archived or \
         not.",
    ),
    setting(
        "archive.job",
        None,
        "broker",
        "Who copies: `broker`, each broker what it leads; `off`, nobody here, since `weir archive` runs as a process of its own.",
    ),
    setting("log.format", None, "text", "`text` or `json`, on standard error."),
    setting(
        "log.level",
        None,
        "info",
        "`error`, `warn`, `info`, `debug`, `trace`, or filters by module such as `info,weir::net=debug`. RUST_LOG sets it too.",
    ),
];

/// The setting of this name.
pub(super) fn setting_named(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The environment's name for a setting: `WEIR_` and the name in capitals, with `_` for anything else.
pub fn environment_name(name: &str) -> String {
    let letters = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    "WEIR_".chars().chain(letters).collect()
}
