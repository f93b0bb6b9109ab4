//! A private redis-server on a Unix socket in the data directory.
//!
//! Two locks in that directory keep order, both released by the kernel when their holder dies, however it dies:
//! `weir.lock` is held by the broker; `redis.lock` is the standard output of the server's process group, so it is free exactly when
//! the last process that may write the data is gone. The server ends when its broker does: a shell beside it waits for the end of
//! a pipe that only the broker holds.

mod config;
mod directory;
mod process;
mod sync;
mod torn;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use directory::Directory;
use process::Process;
pub use sync::Syncer;

/// Where the server keeps its append-only files, below the data directory.
const APPEND_ONLY_FOLDER: &str = "appendonlydir";

/// How the private server is run.
#[derive(Clone, Debug)]
pub struct Options {
    pub data_dir: PathBuf,
    /// A path, or a name on PATH.
    pub program: PathBuf,
    /// Above it Redis refuses writes.
    pub maxmemory_bytes: u64,
}

/// Why the private server did not start, in one sentence with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(
        "the data directory {dir} can't be used ({reason}): give one that this user can write with --data-dir, or a Redis with \
         --redis-url"
    )]
    Directory { dir: PathBuf, reason: String },
    #[error(
        "the data directory {dir} belongs to a running Weir{}: stop it, or give another directory with --data-dir",
        holder.map_or_else(String::new, |pid| format!(" (process {pid})"))
    )]
    InUse { dir: PathBuf, holder: Option<u32> },
    #[error(
        "an earlier redis-server of the data directory {dir} does not end (its process group is {group}): end it by hand, then start \
         again"
    )]
    Orphan { dir: PathBuf, group: String },
    #[error(
        "{program} can't be started ({reason}): install Redis 7.0 or newer (the package redis-server), name it with --override \
         redis.server.path=PATH, or give a running one with --redis-url"
    )]
    Program { program: PathBuf, reason: String },
    #[error(
        "{program} is version {version}: install Redis 7.0 or newer, or Valkey, name it with --override redis.server.path=PATH, or \
         give a running one with --redis-url"
    )]
    TooOld { program: PathBuf, version: String },
    #[error("the disk of the data directory {dir} is full: make room there, or give another directory with --data-dir")]
    DiskFull { dir: PathBuf },
    #[error("the embedded redis-server ended at once: {reason} (its log is {log})")]
    Ended { reason: String, log: PathBuf },
}

impl EmbeddedError {
    fn directory(dir: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { dir: dir.to_owned() },
            _ => Self::Directory { dir: dir.to_owned(), reason: error.to_string() },
        }
    }
}

/// A server that runs until [`EmbeddedRedis::stop`].
pub struct EmbeddedRedis {
    url: String,
    data_dir: PathBuf,
    stopping: CancellationToken,
    syncer: Arc<Syncer>,
    supervision: JoinHandle<()>,
    syncing: JoinHandle<()>,
}

impl EmbeddedRedis {
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What syncs the data to disk.
    pub fn syncer(&self) -> Arc<Syncer> {
        self.syncer.clone()
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Ends the server and waits until its data is written and synced and all its processes are gone.
    pub async fn stop(self) {
        self.stopping.cancel();
        for task in [self.supervision, self.syncing] {
            if let Err(error) = task.await {
                error!(%error, "a task of the embedded Redis failed");
            }
        }
    }
}

/// Starts a server, after ending one that an earlier broker left behind, and waits until it serves.
pub async fn start(options: Options) -> Result<EmbeddedRedis, EmbeddedError> {
    let directory = Directory::claim(&options.data_dir)?;
    let socket = directory.socket()?;
    let url = format!("redis+unix://{}", url_path(&socket));
    let process = Process::start(&directory, &options, &socket, &url).await?;
    let stopping = CancellationToken::new();
    let data_dir = directory.path().to_owned();
    let syncer = Syncer::new(&data_dir);
    let syncing = tokio::spawn(syncer.clone().run(stopping.clone()));
    let supervision = tokio::spawn(supervise(process, directory, options, socket, url.clone(), stopping.clone()));
    Ok(EmbeddedRedis { url, data_dir, stopping, syncer, supervision, syncing })
}

/// Starts the server again whenever it ends, until `stopping`.
async fn supervise(
    mut process: Process,
    directory: Directory,
    options: Options,
    socket: PathBuf,
    url: String,
    stopping: CancellationToken,
) {
    const FIRST_PAUSE: Duration = Duration::from_millis(50);
    const LONGEST_PAUSE: Duration = Duration::from_secs(5);
    /// A server that lived this long did not die of how it was started.
    const STEADY: Duration = Duration::from_secs(30);
    let mut pause = FIRST_PAUSE;
    loop {
        // What kept the server from starting, told once.
        let mut told = None;
        let started = tokio::time::Instant::now();
        let ended = tokio::select! {
            () = stopping.cancelled() => {
                process.stop().await;
                return;
            }
            ended = process.ended() => ended,
        };
        warn!(how = %ended, "the embedded Redis ended; starting it again");
        if started.elapsed() > STEADY {
            pause = FIRST_PAUSE;
        }
        process = loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            let starting = Process::start(&directory, &options, &socket, &url);
            tokio::select! {
                () = stopping.cancelled() => return,
                started = starting => match started {
                    Ok(process) => break process,
                    Err(error) => {
                        let error = error.to_string();
                        if told.as_ref() != Some(&error) {
                            error!(%error, "the embedded Redis does not start; it is tried again until it does");
                        }
                        told = Some(error);
                    }
                }
            }
        };
        info!("the embedded Redis runs again");
    }
}

/// What a URL may not have bare is percent-encoded.
fn url_path(path: &Path) -> String {
    use std::{fmt::Write, os::unix::ffi::OsStrExt};
    let mut out = String::new();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes any text");
        }
    }
    out
}
