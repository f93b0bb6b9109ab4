//! One table's log: read version by version, written by putting the next version where none is yet.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Mutex as AsyncMutex;
use uuid::Uuid;

use super::{
    actions::{Action, Format, MetaData},
    checkpoint,
    listing::{self, Checkpoint, Form, Listing},
    schema,
    snapshot::{PROTOCOL, Snapshot},
    store,
};
use crate::{log::archive::ArchiveError, tasks::in_background};

/// Others are first this many times in a row before a commit is given up for now.
const MOST_CONFLICTS: usize = 50;
/// A snapshot older than this lists the log first: versions that it has not seen may be gone. Must be well below the time for
/// which versions are kept.
const LOOK_AROUND: Duration = Duration::from_secs(600);
/// What was read of the log so lately is not read again before a copy or a commit: each look is a request that somebody pays for.
pub(super) const RECENT: Duration = Duration::from_secs(5);
/// Others may clean up while the log is read; more often than this, something else is wrong.
const MOST_LOOKS: usize = 3;

/// Which checkpoint is the newest, as `_last_checkpoint` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LastCheckpoint {
    pub(super) version: i64,
    pub(super) size: i64,
}

struct Known {
    snapshot: Arc<Snapshot>,
    /// When the log was last read to its end.
    read_at: Option<Instant>,
    /// When the whole of it was listed.
    looked_at: Option<Instant>,
    checkpoint_version: i64,
}

pub(super) struct Table {
    store: Arc<dyn ObjectStore>,
    /// The table's folder.
    root: Path,
    known: Mutex<Known>,
    /// Held while the log is read or written, so that this process does it once at a time.
    log: AsyncMutex<()>,
}

impl Table {
    pub(super) fn new(store: Arc<dyn ObjectStore>, root: Path) -> Self {
        let known = Known { snapshot: Arc::default(), read_at: None, looked_at: None, checkpoint_version: -1 };
        Self { store, root, known: Mutex::new(known), log: AsyncMutex::new(()) }
    }

    pub(super) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The topic's name, as the path has it.
    fn topic(&self) -> &str {
        self.root.as_ref().rsplit('/').nth(1).unwrap_or_default()
    }

    /// The place of a file of the table.
    pub(super) fn path(&self, below: &str) -> Path {
        Path::from(format!("{}/{below}", self.root))
    }

    pub(super) fn version_path(&self, version: i64) -> Path {
        self.path(&format!("_delta_log/{}", listing::version_name(version)))
    }

    pub(super) fn checkpoint_path(&self, version: i64) -> Path {
        self.path(&format!("_delta_log/{}", listing::classic_name(version)))
    }

    /// What is known now, however old.
    pub(super) fn known(&self) -> Arc<Snapshot> {
        self.known.lock().snapshot.clone()
    }

    /// What is known, read anew if that was longer ago.
    pub(super) async fn snapshot(&self, at_most: Duration) -> Result<Arc<Snapshot>, ArchiveError> {
        if let Some(snapshot) = self.read_within(at_most) {
            return Ok(snapshot);
        }
        let asked = Instant::now();
        let _log = self.log.lock().await;
        // Somebody else may just have read it for us.
        if let Some(snapshot) = self.read_within(at_most.max(asked.elapsed())) {
            return Ok(snapshot);
        }
        self.read_log().await
    }

    fn read_within(&self, at_most: Duration) -> Option<Arc<Snapshot>> {
        let known = self.known.lock();
        known.read_at.is_some_and(|at| at.elapsed() <= at_most).then(|| known.snapshot.clone())
    }

    /// Reads the log to its end.
    async fn read_log(&self) -> Result<Arc<Snapshot>, ArchiveError> {
        let (snapshot, look) = {
            let known = self.known.lock();
            let recent = known.looked_at.is_some_and(|at| at.elapsed() < LOOK_AROUND);
            (known.snapshot.clone(), !recent)
        };
        let read_at = Instant::now();
        let snapshot = if look { self.catch_up(snapshot).await? } else { self.read_versions(snapshot).await? };
        let mut known = self.known.lock();
        known.snapshot = snapshot.clone();
        known.read_at = Some(read_at);
        if look {
            known.looked_at = Some(read_at);
        }
        Ok(snapshot)
    }

    /// Reads the versions after the snapshot's, up to the first that is not there.
    async fn read_versions(&self, mut snapshot: Arc<Snapshot>) -> Result<Arc<Snapshot>, ArchiveError> {
        while let Some(bytes) = self.get(&self.version_path(snapshot.version + 1)).await? {
            let version = snapshot.version + 1;
            let actions = parse_version(version, &bytes)?;
            Arc::make_mut(&mut snapshot).apply(version, actions).map_err(|error| self.foreign(&error))?;
        }
        Ok(snapshot)
    }

    /// As [`Self::read_versions`], also where versions that were never seen are gone from the log. A version that is missing
    /// before others is an error: it would be taken for the log's end, and overwritten.
    async fn catch_up(&self, known: Arc<Snapshot>) -> Result<Arc<Snapshot>, ArchiveError> {
        let mut missing = 0;
        for _ in 0..MOST_LOOKS {
            let hint = self.last_checkpoint().await?.map(|last| last.version);
            let from = if known.exists() { hint.map(|hint| hint.min(known.version)) } else { hint };
            let mut listing = self.list_log(from).await?;
            // Where it says is no checkpoint: whoever wrote it is gone, or others cleaned up.
            if from.is_some() && listing.checkpoints().is_empty() {
                listing = self.list_log(None).await?;
            }
            let start = self.start(&known, from, &listing).await?;
            let snapshot = self.read_versions(start).await?;
            if snapshot.version >= listing.newest_version() {
                return Ok(snapshot);
            }
            // Another's upkeep may have removed it while the log was read.
            missing = snapshot.version + 1;
        }
        Err(self.foreign(&format!("version {missing} is missing from its log, though later ones are there")))
    }

    /// What the versions that are still in the log are read from: what is known, or else a checkpoint.
    async fn start(
        &self,
        known: &Arc<Snapshot>,
        from: Option<i64>,
        listing: &Listing,
    ) -> Result<Arc<Snapshot>, ArchiveError> {
        let mut checkpoints = listing.checkpoints();
        let goes_on = |listing: &Listing| {
            listing.has_version(known.version + 1) || known.exists() && listing.newest_version() <= known.version
        };
        if known.exists() && goes_on(listing) {
            self.note_checkpoint(checkpoints.first().map_or(-1, |checkpoint| checkpoint.version));
            return Ok(known.clone());
        }
        let Some(newest) = checkpoints.first().cloned() else { return Ok(known.clone()) };
        let damage = match self.read_checkpoint(&newest).await {
            Ok(snapshot) => return Ok(snapshot),
            Err(error @ ArchiveError::Refused(_)) => error,
            Err(error) => return Err(error),
        };
        // Versions are kept for a while after a checkpoint, so an older one may do.
        tracing::warn!(table = %self.root, %damage, "the table's newest checkpoint can't be read; looking for an older one");
        if from.is_some() {
            checkpoints = self.list_log(None).await?.checkpoints();
        }
        for older in checkpoints.iter().filter(|checkpoint| checkpoint.version < newest.version) {
            if let Ok(snapshot) = self.read_checkpoint(older).await {
                return Ok(snapshot);
            }
        }
        if self.get(&self.version_path(0)).await?.is_some() { Ok(Arc::default()) } else { Err(damage) }
    }

    /// The names in the log, or those of this version and later.
    async fn list_log(&self, from: Option<i64>) -> Result<Listing, ArchiveError> {
        let folder = self.path("_delta_log");
        let found = match from {
            Some(version) => {
                self.store.list_with_offset(Some(&folder), &self.path(&format!("_delta_log/{version:020}")))
            }
            None => self.store.list(Some(&folder)),
        };
        let objects: Vec<ObjectMeta> = found.try_collect().await.map_err(store::error)?;
        Ok(Listing::of(objects.iter().filter_map(|object| object.location.filename())))
    }

    fn foreign(&self, error: &dyn std::fmt::Display) -> ArchiveError {
        ArchiveError::Refused(format!("the table `{}`: {error}", self.root))
    }

    async fn get(&self, path: &Path) -> Result<Option<Bytes>, ArchiveError> {
        let answer = match self.store.get(path).await {
            Ok(answer) => answer.bytes().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error @ object_store::Error::NotFound { .. }) if !store::is_no_bucket(&error) => Ok(None),
            Err(error) => Err(store::error(error)),
        }
    }

    /// A hint, no more: one that is missing, damaged or outdated costs a longer listing.
    async fn last_checkpoint(&self) -> Result<Option<LastCheckpoint>, ArchiveError> {
        let bytes = self.get(&self.path("_delta_log/_last_checkpoint")).await?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    async fn read_checkpoint(&self, checkpoint: &Checkpoint) -> Result<Arc<Snapshot>, ArchiveError> {
        let version = checkpoint.version;
        let Form::Parquet(names) = &checkpoint.form else {
            let text =
                format!("its checkpoint of version {version} has sidecars (V2), for which reader version 3 is needed");
            return Err(self.foreign(&text));
        };
        let mut actions = Vec::new();
        for name in names {
            let path = self.path(&format!("_delta_log/{name}"));
            let bytes = self.get(&path).await?;
            let bytes =
                bytes.ok_or_else(|| ArchiveError::Unavailable(format!("the checkpoint `{path}` is missing")))?;
            let decoded = tokio::task::spawn_blocking(move || checkpoint::decode(bytes))
                .await
                .map_err(|error| ArchiveError::Unavailable(error.to_string()))?;
            actions.extend(decoded.map_err(|error| self.foreign(&format!("`{name}`: {error}")))?);
        }
        let mut snapshot = Snapshot::default();
        snapshot.apply(version, actions).map_err(|error| self.foreign(&error))?;
        if snapshot.meta_data.is_none() {
            return Err(self.foreign(&format!("its checkpoint of version {version} has no metadata")));
        }
        self.note_checkpoint(version);
        Ok(Arc::new(snapshot))
    }

    fn note_checkpoint(&self, version: i64) {
        let mut known = self.known.lock();
        known.checkpoint_version = known.checkpoint_version.max(version);
    }

    /// The version of the newest checkpoint that is known, -1 for none.
    pub(super) fn checkpoint_version(&self) -> i64 {
        self.known.lock().checkpoint_version
    }

    /// A checkpoint of the snapshot, which is the newest that is known.
    pub(super) async fn write_checkpoint(&self, snapshot: Arc<Snapshot>) -> Result<(), ArchiveError> {
        let version = snapshot.version;
        let encoded = in_background(move || {
            let actions = snapshot.actions();
            checkpoint::encode(&actions).map(|bytes| (bytes, actions.len()))
        });
        let encoded = encoded.await.map_err(|error| ArchiveError::Unavailable(error.to_string()))?;
        let (bytes, size) = encoded.map_err(|error| self.foreign(&error))?;
        let put = |path: Path, bytes: Bytes| async move {
            self.store.put(&path, PutPayload::from_bytes(bytes)).await.map_err(store::error)
        };
        put(self.checkpoint_path(version), bytes).await?;
        let last = LastCheckpoint { version, size: i64::try_from(size).unwrap_or(i64::MAX) };
        let last = serde_json::to_vec(&last).map_err(|error| self.foreign(&error))?;
        put(self.path("_delta_log/_last_checkpoint"), last.into()).await?;
        self.note_checkpoint(version);
        Ok(())
    }

    /// Files that were taken out up to this time (ms) are gone: no checkpoint names them any more.
    pub(super) fn forget_tombstones(&self, before: i64) {
        Arc::make_mut(&mut self.known.lock().snapshot).forget_tombstones(before);
    }

    /// Makes the next version of what `decide` says, given the newest one; again, if another was first. `None`: there is nothing
    /// to do. What `decide` answers holds for the version before the one that is made: nothing comes between.
    pub(super) async fn commit(
        &self,
        operation: &'static str,
        mut decide: impl FnMut(&Snapshot) -> Result<Option<Vec<Action>>, ArchiveError> + Send,
    ) -> Result<Arc<Snapshot>, ArchiveError> {
        let _log = self.log.lock().await;
        // The next version can only be made once: if others were first, it is seen there.
        let mut recent = self.read_within(RECENT);
        for _ in 0..MOST_CONFLICTS {
            let (snapshot, is_newest) = match recent.take() {
                Some(snapshot) => (snapshot, false),
                None => (self.read_log().await?, true),
            };
            let actions = match decide(&snapshot) {
                Ok(Some(actions)) => actions,
                // Only the newest tells that nothing can be made.
                _ if !is_newest => continue,
                Ok(None) => return Ok(snapshot),
                Err(error) => return Err(error),
            };
            let version = snapshot.version + 1;
            let body = self.version_body(version, operation, actions)?;
            if self.put_version(version, &body).await? {
                return self.advance(version, &body);
            }
        }
        Err(ArchiveError::Unavailable(format!(
            "others changed the table `{}` {MOST_CONFLICTS} times meanwhile",
            self.root
        )))
    }

    fn advance(&self, version: i64, body: &Bytes) -> Result<Arc<Snapshot>, ArchiveError> {
        let actions = parse_version(version, body)?;
        let mut known = self.known.lock();
        Arc::make_mut(&mut known.snapshot).apply(version, actions).map_err(|error| self.foreign(&error))?;
        Ok(known.snapshot.clone())
    }

    fn version_body(&self, version: i64, operation: &str, actions: Vec<Action>) -> Result<Bytes, ArchiveError> {
        let mut lines = vec![Action::commit_info(json!({
            "timestamp": now_ms(),
            "operation": operation,
            "operationParameters": {},
            "engineInfo": concat!("weir/", env!("CARGO_PKG_VERSION")),
            "isBlindAppend": operation == WRITE,
            // Tells this attempt from all others, so that one whose answer was lost is recognised.
            "txnId": Uuid::new_v4().to_string(),
        }))];
        if version == 0 {
            lines.push(Action::protocol(PROTOCOL));
            lines.push(Action::meta_data(new_meta_data(self.topic())));
        }
        lines.extend(actions);
        let mut body = Vec::new();
        for line in &lines {
            serde_json::to_writer(&mut body, line).map_err(|error| self.foreign(&error))?;
            body.push(b'\n');
        }
        Ok(body.into())
    }

    /// Whether the version is ours now.
    async fn put_version(&self, version: i64, body: &Bytes) -> Result<bool, ArchiveError> {
        let path = self.version_path(version);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let Err(error) = self.store.put_opts(&path, PutPayload::from_bytes(body.clone()), options).await else {
            return Ok(true);
        };
        // The answer may have been lost, or been answered by a second attempt at the same put: what is there tells.
        match self.get(&path).await {
            Ok(Some(found)) => Ok(found == *body),
            Ok(None) | Err(_) => Err(store::error(error)),
        }
    }
}

/// Operations as the table's history shows them.
pub(super) const WRITE: &str = "WRITE";
pub(super) const DELETE: &str = "DELETE";
pub(super) const OPTIMIZE: &str = "OPTIMIZE";

pub(super) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn new_meta_data(name: &str) -> MetaData {
    MetaData {
        id: Uuid::new_v4().to_string(),
        name: Some(name.to_owned()),
        format: Format { provider: "parquet".to_owned(), options: Default::default() },
        schema_string: schema::schema_string(),
        partition_columns: schema::PARTITION_COLUMNS.map(str::to_owned).to_vec(),
        configuration: Default::default(),
        created_time: Some(now_ms()),
    }
}

fn parse_version(version: i64, bytes: &[u8]) -> Result<Vec<Action>, ArchiveError> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()
        .map_err(|error| ArchiveError::Refused(format!("version {version} of the table's log can't be read: {error}")))
}
