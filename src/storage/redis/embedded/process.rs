//! The server's process group.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStdin, Command};
use tracing::{info, warn};

use super::{super::room, EmbeddedError, Options, config, directory::Directory, torn};

/// Runs the server, and ends it when the pipe on standard input closes, which is when the broker is gone.
/// Standard output is the lock: the server inherits it, the watcher gives it back. The kernel hangs up a process group that loses
/// its parent while one of it is stopped: that must not end the watcher before it has ended the server.
const SCRIPT: &str = r#"
trap '' HUP
echo $$ > redis.group
exec 3<&0
"$@" 3<&- </dev/null &
server=$!
{ read -r _ <&3; kill -TERM "$server"; } >&- 2>&- &
watcher=$!
exec 3<&-
wait "$server"
status=$?
kill "$watcher" 2>&-
wait "$watcher"
exit "$status"
"#;

/// Told to end, the server writes and syncs what it has.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Process {
    child: Child,
    /// Closing it ends the server.
    alive: Option<ChildStdin>,
    group: Option<Pid>,
}

impl Process {
    /// Starts the server and waits until it answers; loading much data may take long.
    pub(super) async fn start(
        directory: &Directory,
        options: &Options,
        socket: &Path,
        url: &str,
    ) -> Result<Self, EmbeddedError> {
        /// The server writes this much before it serves.
        const LEAST_ROOM: u64 = 1 << 20;
        let lock = directory.server_lock().await?;
        // The server could not even say in its log why it ends.
        if room::disk(directory.path()).is_some_and(|disk| disk.total - disk.used < LEAST_ROOM) {
            return Err(EmbeddedError::DiskFull { dir: directory.path().to_owned() });
        }
        let program = found(&options.program)?;
        let data_dir = directory.path().to_owned();
        let cut = tokio::task::spawn_blocking(move || torn::cut(&data_dir)).await.map_err(io::Error::other).flatten();
        let cut = cut.map_err(|error| directory.failed(&error))?;
        if cut > 0 {
            info!(
                bytes = cut,
                "the append-only file ended in half a write of an earlier redis-server, which is cut off"
            );
        }
        let log_path = directory.path().join("redis.log");
        let config_path = directory.path().join("redis.conf");
        let log = fs::write(&config_path, config::text(options, directory.path(), socket, &log_path))
            .and_then(|()| OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path))
            .map_err(|error| directory.failed(&error))?;
        let log_start = log.metadata().map_or(0, |metadata| metadata.len());
        let failed = |reason: String| EmbeddedError::Program { program: options.program.clone(), reason };
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(SCRIPT)
            .arg("weir-redis")
            .arg(&program)
            .arg(&config_path)
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(lock)
            .stderr(log)
            // Ctrl-C in a terminal reaches the broker alone, which stops the server last.
            .process_group(0)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let alive = child.stdin.take();
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let mut process = Self { child, alive, group };
        tokio::select! {
            served = serving(url) => served.map_err(|error| failed(error.to_string()))?,
            ended = process.ended() => {
                if let Some(version) = version(&program).await.filter(|version| is_too_old(version)) {
                    return Err(EmbeddedError::TooOld { program, version });
                }
                let reason = last_words(&log_path, log_start).unwrap_or_else(|| ended.to_string());
                return Err(EmbeddedError::Ended { reason, log: log_path });
            }
        }
        Ok(process)
    }

    /// Waits until the server has ended, then ends what it may have left (a child that rewrites the file). Cancel-safe.
    pub(super) async fn ended(&mut self) -> Ended {
        let status = self.child.wait().await;
        self.kill();
        Ended(status.ok())
    }

    fn kill(&mut self) {
        if let Some(group) = self.group.take() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    pub(super) async fn stop(mut self) {
        drop(self.alive.take());
        if tokio::time::timeout(PATIENCE, self.ended()).await.is_err() {
            warn!(patience = ?PATIENCE, "the embedded Redis did not end when told to; it is killed");
            self.kill();
            let _ = self.child.wait().await;
        }
        info!("the embedded Redis has stopped");
    }
}

/// How the server ended.
pub(super) struct Ended(Option<ExitStatus>);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.and_then(|status| status.code()) {
            // As a shell reports the death of what it waited for.
            Some(code) if code > 128 => write!(f, "signal {}", code - 128),
            Some(code) => write!(f, "exit code {code}"),
            None => f.write_str("killed"),
        }
    }
}

/// Waits until the server answers a ping.
async fn serving(url: &str) -> Result<(), redis::RedisError> {
    const PAUSE: Duration = Duration::from_millis(5);
    const BETWEEN_REPORTS: Duration = Duration::from_secs(5);
    let client = redis::Client::open(url)?;
    let mut reported = tokio::time::Instant::now();
    loop {
        if let Ok(mut connection) = client.get_multiplexed_async_connection().await
            && redis::cmd("PING").exec_async(&mut connection).await.is_ok()
        {
            return Ok(());
        }
        if reported.elapsed() > BETWEEN_REPORTS {
            reported = tokio::time::Instant::now();
            info!("the embedded Redis is still loading its data");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The program's path; without one, the first of that name on PATH.
fn found(program: &Path) -> Result<PathBuf, EmbeddedError> {
    let missing = |reason: &str| EmbeddedError::Program { program: program.to_owned(), reason: reason.to_owned() };
    if program.components().count() > 1 {
        let program = fs::canonicalize(program).map_err(|error| missing(&error.to_string()))?;
        return if is_program(&program) { Ok(program) } else { Err(missing("it is not a program")) };
    }
    // Debian keeps servers' programs for root in sbin.
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .chain(["/usr/local/sbin", "/usr/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| is_program(candidate))
        .ok_or_else(|| missing("it is not on PATH"))
}

fn is_program(path: &Path) -> bool {
    const ANYONE_RUNS: u32 = 0o111;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & ANYONE_RUNS != 0)
}

/// What `--version` tells: `Redis server v=7.0.15 sha=…`.
async fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().await.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.split_whitespace().find_map(|word| word.strip_prefix("v="))?.to_owned())
}

fn is_too_old(version: &str) -> bool {
    version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major < 7)
}

/// The last line that the server logged since `start`.
fn last_words(log: &Path, start: u64) -> Option<String> {
    let bytes = fs::read(log).ok()?;
    let text = String::from_utf8_lossy(bytes.get(usize::try_from(start).ok()?..)?).into_owned();
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().to_owned())
}
