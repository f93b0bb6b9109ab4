//! The data directory: who it belongs to, and where its socket is.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, OpenOptionsExt, symlink},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tracing::info;

use super::EmbeddedError;

/// `sun_path` has 108 bytes on Linux and 104 elsewhere, with a zero at the end.
const LONGEST_SOCKET_PATH: usize = 103;

/// A server that is told to end writes and syncs what it has first.
const PATIENCE: Duration = Duration::from_secs(30);

/// A data directory that belongs to this process until it is dropped.
pub(super) struct Directory {
    path: PathBuf,
    /// Held, not read.
    _lock: File,
}

impl Directory {
    /// Makes the directory where it is missing, and takes it.
    pub(super) fn claim(path: &Path) -> Result<Self, EmbeddedError> {
        let failed = |error: io::Error| EmbeddedError::directory(path, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let path = fs::canonicalize(path).map_err(failed)?;
        let mut lock = open(&path.join("weir.lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = lock.read_to_string(&mut holder);
                return Err(EmbeddedError::InUse { dir: path, holder: holder.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        lock.set_len(0).and_then(|()| lock.rewind()).map_err(failed)?;
        writeln!(lock, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn failed(&self, error: &io::Error) -> EmbeddedError {
        EmbeddedError::directory(&self.path, error)
    }

    /// Where the server listens: in the directory or, where that is too long for a socket, in a private folder for temporary
    /// files with a link from the directory.
    pub(super) fn socket(&self) -> Result<PathBuf, EmbeddedError> {
        let link = self.path.join("redis.sock");
        self.remove_socket().map_err(|error| self.failed(&error))?;
        if link.as_os_str().as_bytes().len() <= LONGEST_SOCKET_PATH {
            return Ok(link);
        }
        let folder = std::env::temp_dir().join(format!("weir-{}", uuid::Uuid::new_v4().simple()));
        let socket = folder.join("redis.sock");
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .and_then(|()| symlink(&socket, &link))
            .map_err(|error| self.failed(&error))?;
        Ok(socket)
    }

    fn group_file(&self) -> PathBuf {
        self.path.join("redis.group")
    }

    /// The lock that the server's processes will hold, once those of an earlier server are gone.
    pub(super) async fn server_lock(&self) -> Result<File, EmbeddedError> {
        let lock = open(&self.path.join("redis.lock")).map_err(|error| self.failed(&error))?;
        if !self.try_lock(&lock)? {
            info!("ending the redis-server that an earlier Weir left behind");
            self.signal(Signal::TERM);
            if !self.locked_within(&lock, PATIENCE).await? {
                self.signal(Signal::KILL);
                if !self.locked_within(&lock, PATIENCE).await? {
                    let group = fs::read_to_string(self.group_file()).unwrap_or_default().trim().to_owned();
                    return Err(EmbeddedError::Orphan { dir: self.path.clone(), group });
                }
            }
        }
        // The next group writes its own; a signal must never go to a number that is somebody else's by now.
        match fs::remove_file(self.group_file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(&error)),
            _ => Ok(lock),
        }
    }

    async fn locked_within(&self, lock: &File, patience: Duration) -> Result<bool, EmbeddedError> {
        const PAUSE: Duration = Duration::from_millis(5);
        let deadline = tokio::time::Instant::now() + patience;
        while !self.try_lock(lock)? {
            if tokio::time::Instant::now() > deadline {
                return Ok(false);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(true)
    }

    fn try_lock(&self, lock: &File) -> Result<bool, EmbeddedError> {
        match lock.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(self.failed(&error)),
        }
    }

    /// Signals the group whose number stands in the directory. While the lock is held that group lives, so the number is its.
    fn signal(&self, signal: Signal) {
        let group = fs::read_to_string(self.group_file()).ok().and_then(|text| text.trim().parse().ok());
        if let Some(group) = group.filter(|group| *group > 1).and_then(Pid::from_raw) {
            let _ = kill_process_group(group, signal);
        }
    }

    /// Takes away what only a running server has.
    fn remove_socket(&self) -> io::Result<()> {
        let link = self.path.join("redis.sock");
        if let Ok(elsewhere) = fs::read_link(&link) {
            let _ = fs::remove_file(&elsewhere);
            if let Some(folder) = elsewhere.parent() {
                // Only if it is empty, so only if it is the one that was made for the socket.
                let _ = fs::remove_dir(folder);
            }
        }
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = self.remove_socket();
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}
