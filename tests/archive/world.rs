//! Where the archive of a test is, and brokers that have it.

#![allow(dead_code, reason = "without planted faults some of it is not needed")]

use std::{
    fs::FileTimes,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use kafka_protocol::messages::{ApiKey, ListOffsetsRequest, ListOffsetsResponse, list_offsets_request};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    s3::{ENVIRONMENT, Gateway, S3, python},
    support::{
        Connection,
        ledger::topic,
        process::eventually,
        servers::{Broker, Redis, free_port, http},
    },
};

pub(crate) const EARLIEST: i64 = -2;
pub(crate) const EARLIEST_LOCAL: i64 = -4;
pub(crate) const LATEST_TIERED: i64 = -5;

/// Archived in files of a few records, and gone from Redis then.
pub(crate) const ALL_COLD: &[(&str, &str)] = &[
    ("remote.storage.enable", "true"),
    ("retention.ms", "-1"),
    ("local.retention.ms", "0"),
    ("weir.archive.file.bytes", "4096"),
];

pub(crate) enum Place {
    Folder(TempDir),
    /// A bucket of a server in memory, with weather.
    Bucket(S3),
    /// A bucket of a server that can be killed.
    Lasting(Gateway),
}

impl Place {
    pub(crate) fn folder() -> Self {
        Self::Folder(tempfile::tempdir().expect("a temporary folder"))
    }

    fn port(&self) -> Option<u16> {
        match self {
            Self::Folder(_) => None,
            Self::Bucket(server) => Some(server.port),
            Self::Lasting(server) => Some(server.port),
        }
    }

    /// Settings of a broker that archives at once.
    pub(crate) fn settings(&self) -> Vec<String> {
        let mut settings = match self {
            Self::Folder(folder) => vec![format!("archive.url=file://{}", folder.path().display())],
            _ => vec!["archive.url=s3://archive/weir".to_owned()],
        };
        if let Some(port) = self.port() {
            settings.push(format!("archive.endpoint=http://127.0.0.1:{port}"));
            settings.extend(["archive.allow.http=true", "archive.path.style=true"].map(str::to_owned));
        }
        settings.extend(["archive.interval.ms=20", "archive.lag.ms=0"].map(str::to_owned));
        settings
    }

    /// Every file or object that is there, also what its store does not list.
    pub(crate) fn files(&self) -> Vec<String> {
        match self {
            Self::Folder(folder) => files_in(folder.path()).iter().map(|path| path.display().to_string()).collect(),
            Self::Bucket(server) => server.keys(),
            Self::Lasting(server) => {
                let files = files_in(&server.bucket().join("weir"));
                files.iter().map(|path| path.display().to_string()).collect()
            }
        }
    }

    /// Parquet files of the tables, beside their logs.
    pub(crate) fn data_files(&self) -> Vec<String> {
        self.files().into_iter().filter(|path| path.contains("/partition=")).collect()
    }

    /// Makes everything that is there two days old, where that can be done.
    pub(crate) fn grow_old(&self) {
        let files = match self {
            Self::Folder(folder) => files_in(folder.path()),
            Self::Lasting(server) => files_in(&server.bucket().join("weir")),
            Self::Bucket(_) => Vec::new(),
        };
        let then = SystemTime::now() - Duration::from_secs(2 * 24 * 3_600);
        for file in files.iter().filter_map(|path| std::fs::File::options().write(true).open(path).ok()) {
            let _ = file.set_times(FileTimes::new().set_modified(then));
        }
    }

    /// What delta-rs and Polars find in the only table that is there: `rows`, `offsets` (different ones), `low`, `high`, `files`.
    pub(crate) fn ask_others(&self) -> Value {
        let version = self.files().into_iter().find(|path| path.contains("/_delta_log/")).expect("a table");
        let table = version.split("/_delta_log/").next().expect("its place").to_owned();
        let mut command = Command::new(python());
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archive/count.py"));
        match self {
            Self::Folder(_) => command.arg(table),
            _ => {
                let key = &table[table.find("weir/").expect("below the prefix")..];
                let endpoint = format!("http://127.0.0.1:{}", self.port().expect("a server"));
                command.arg(format!("s3://archive/{key}")).arg(endpoint)
            }
        };
        let ended = command.output().expect("the reader");
        let (told, failed) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success(), "{told}{failed}");
        serde_json::from_str(&told).expect("JSON")
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}

/// Where one process stands still (`src/faults/steps.rs`).
pub(crate) struct Stops(TempDir);

impl Stops {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn folder(&self) -> &str {
        self.0.path().to_str().expect("UTF-8")
    }

    pub(crate) fn at(&self, step: &str) {
        std::fs::write(self.0.path().join(step), []).expect("a file");
    }

    pub(crate) fn is_reached(&self, step: &str) -> bool {
        self.0.path().join(format!("{step}.reached")).exists()
    }

    pub(crate) fn wait_for(&self, step: &str) {
        assert!(eventually(|| self.is_reached(step)), "nobody comes to {step}");
    }

    /// Whoever stands there goes on.
    pub(crate) fn clear(&self, step: &str) {
        for name in [format!("{step}.reached"), step.to_owned()] {
            let _ = std::fs::remove_file(self.0.path().join(name));
        }
    }
}

pub(crate) fn broker(redis: &Redis, place: &Place, node: i32, stops: Option<&Stops>, more: &[&str]) -> Broker {
    let settings = place.settings();
    let (url, node) = (redis.url(), node.to_string());
    let mut arguments = vec!["--redis-url", &url, "--node-id", &node];
    for setting in settings.iter().map(String::as_str).chain(more.iter().copied()) {
        arguments.extend(["--override", setting]);
    }
    let mut environment: Vec<_> = ENVIRONMENT.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    if let Some(stops) = stops {
        environment.push(("PLANTED_STOPS", stops.folder().to_owned()));
    }
    Broker::start_in(&arguments, &environment).unwrap_or_else(|ended| panic!("{ended:?}"))
}

/// `weir archive`; ended when dropped.
pub(crate) struct Job(pub(crate) Child);

impl Job {
    pub(crate) fn start(redis: &Redis, place: &Place, stops: Option<&Stops>) -> Self {
        Self::start_with(redis, place, stops, &[])
    }

    pub(crate) fn start_with(redis: &Redis, place: &Place, stops: Option<&Stops>, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(["archive", "--redis-url", &redis.url()]).envs(ENVIRONMENT);
        for setting in place.settings().iter().map(String::as_str).chain(more.iter().copied()) {
            command.args(["--override", setting]);
        }
        if let Some(stops) = stops {
            command.env("PLANTED_STOPS", stops.folder());
        }
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the weir binary"))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a process serves its health and metrics.
pub(crate) struct Http(SocketAddr);

impl Http {
    pub(crate) fn new() -> Self {
        Self(SocketAddr::from(([127, 0, 0, 1], free_port())))
    }

    pub(crate) fn setting(&self) -> String {
        format!("http={}", self.0)
    }

    pub(crate) fn get(&self, path: &str) -> String {
        http(self.0, path)
    }

    /// Of a metric, with its labels.
    pub(crate) fn value(&self, metric: &str) -> f64 {
        let shown = self.get("/metrics");
        let line = shown.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("there is no {metric} in {shown}"))
    }
}

/// None while the broker can't tell.
pub(crate) fn offset_of(address: SocketAddr, timestamp: i64) -> Option<i64> {
    let partition = list_offsets_request::ListOffsetsPartition::default().with_timestamp(timestamp);
    let asked = list_offsets_request::ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
    let answer: ListOffsetsResponse = Connection::to(address).call(ApiKey::ListOffsets as i16, 9, &request);
    let partition = &answer.topics[0].partitions[0];
    (partition.error_code == 0).then_some(partition.offset)
}

/// Whether all below `end` is archived, and gone from Redis.
pub(crate) fn is_cold_up_to(address: SocketAddr, end: u64) -> bool {
    let end = i64::try_from(end).expect("a short test");
    eventually(|| offset_of(address, EARLIEST_LOCAL) == Some(end))
}
