//! Syncs the append-only file: once a second, so that the machine's death loses at most about that much without Redis ever
//! waiting for the disk, and at once for those who wait for it.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

type Asked = oneshot::Sender<Result<(), String>>;

/// Syncs for all who ask: each sync serves those who asked before it began.
#[derive(Debug)]
pub struct Syncer {
    folder: PathBuf,
    /// At most one for each partition that waits.
    asked: Mutex<Vec<Asked>>,
    wanted: Notify,
    /// Why what was written is not known to be on the disk.
    failure: Mutex<Option<String>>,
}

impl Syncer {
    pub(super) fn new(data_dir: &Path) -> Arc<Self> {
        Arc::new(Self {
            folder: data_dir.join(super::APPEND_ONLY_FOLDER),
            asked: Mutex::default(),
            wanted: Notify::new(),
            failure: Mutex::default(),
        })
    }

    pub(in crate::storage::redis) fn data_dir(&self) -> &Path {
        self.folder.parent().unwrap_or(&self.folder)
    }

    /// Waits until all that Redis answered before this call is on the disk. Cancel-safe.
    pub async fn sync(&self) -> Result<(), String> {
        let (sender, answer) = oneshot::channel();
        self.asked.lock().push(sender);
        self.wanted.notify_one();
        answer.await.unwrap_or_else(|_| Err("the broker stops".to_owned()))
    }

    /// Why what was written is not known to be on the disk, if it is not.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    pub(super) async fn run(self: Arc<Self>, stopping: CancellationToken) {
        let mut files = Files::default();
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            // Before the sync begins: what is asked from here on waits for the next one.
            let asked: Vec<Asked> = std::mem::take(&mut *self.asked.lock());
            let folder = self.folder.clone();
            let work = move || {
                let result = files.sync(&folder);
                (files, result)
            };
            let Ok((after, result)) = tokio::task::spawn_blocking(work).await else { break };
            files = after;
            let result = result.map_err(|error| error.to_string());
            self.tell(&result);
            for sender in asked {
                let _ = sender.send(result.clone());
            }
        }
        self.asked.lock().clear();
    }

    fn tell(&self, result: &Result<(), String>) {
        let mut failure = self.failure.lock();
        match (result, failure.is_some()) {
            (Ok(()), true) => info!("the data can be synced to disk again"),
            (Err(error), false) => error!(%error, folder = %self.folder.display(), "the data can't be synced to disk"),
            _ => {}
        }
        *failure = result.as_ref().err().cloned();
    }
}

/// What is known of the append-only files.
#[derive(Debug, Default)]
struct Files {
    /// The length at which each was synced last.
    synced: HashMap<PathBuf, u64>,
    /// Those that could not be synced. The system forgets what it failed to write, so a later sync that succeeds says nothing:
    /// they are not safe until Redis has written all of it to new files.
    failed: HashSet<PathBuf>,
}

impl Files {
    /// Syncs the files that grew since the last time. Redis itself syncs those that a rewrite makes.
    fn sync(&mut self, folder: &Path) -> io::Result<()> {
        let mut lengths = HashMap::new();
        let mut failure = None;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if !path.to_string_lossy().ends_with(".incr.aof") {
                continue;
            }
            let file = match File::open(&path) {
                Ok(file) => file,
                // A rewrite that has just ended takes its file away; what was in it is in the new base, which Redis has synced.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let length = file.metadata()?.len();
            if self.synced.get(&path) != Some(&length)
                && let Err(error) = file.sync_data()
            {
                self.failed.insert(path.clone());
                failure = Some(error);
            }
            lengths.insert(path, length);
        }
        if lengths.keys().any(|path| !self.synced.contains_key(path)) {
            // A new file's name has to be on the disk too.
            File::open(folder)?.sync_all()?;
        }
        self.failed.retain(|path| lengths.contains_key(path));
        self.synced = lengths;
        match (failure, self.failed.iter().next()) {
            (Some(error), _) => Err(error),
            (None, Some(path)) => {
                let text = format!("{} could not be synced before; Redis has to write it anew", path.display());
                Err(io::Error::other(text))
            }
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_a_rewrite_adds_and_removes_are_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |number: u32| folder.path().join(format!("appendonly.aof.{number}.incr.aof"));
        let mut files = Files::default();
        fs::write(folder.path().join("appendonly.aof.manifest"), "x").expect("written");
        fs::write(file(1), "one").expect("written");
        files.sync(folder.path()).expect("synced");
        assert_eq!(files.synced, HashMap::from([(file(1), 3)]));
        fs::write(file(1), "one more").expect("written");
        fs::write(file(2), "two").expect("written");
        files.sync(folder.path()).expect("synced");
        assert_eq!(files.synced, HashMap::from([(file(1), 8), (file(2), 3)]));
        fs::remove_file(file(1)).expect("removed");
        files.sync(folder.path()).expect("synced");
        assert_eq!(files.synced, HashMap::from([(file(2), 3)]));
    }

    #[test]
    fn a_file_that_could_not_be_synced_is_not_trusted_until_it_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("appendonly.aof.1.incr.aof");
        fs::write(&path, "one").expect("written");
        let mut files = Files { failed: HashSet::from([path.clone()]), ..Files::default() };
        for _ in 0..2 {
            assert!(files.sync(folder.path()).is_err_and(|error| error.to_string().contains("has to write it anew")));
        }
        fs::remove_file(&path).expect("removed");
        files.sync(folder.path()).expect("synced");
    }
}
