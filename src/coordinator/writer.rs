//! The writes of all groups: those that wait while one call of the storage is on its way go together as the next one.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::store::{GroupEpoch, GroupStore, GroupWrite, StoreError, WriteError};
use crate::model::GroupId;

/// Writes in one call of the storage.
const WRITES_PER_CALL: usize = 200;

/// Offsets in one call of the storage, unless a single write has more.
const OFFSETS_PER_CALL: usize = 2_000;

/// Writes that may wait; then their groups wait, each of which has one on its way at most.
const QUEUED: usize = 1_000;

struct Waiting {
    group: GroupId,
    write: GroupWrite,
    written: oneshot::Sender<Result<GroupEpoch, WriteError>>,
}

/// The way to [`Queue::run`], which goes on for as long as there is one.
#[derive(Clone)]
pub(super) struct Writer(mpsc::Sender<Waiting>);

/// A way that keeps nothing running.
pub(super) struct WeakWriter(mpsc::WeakSender<Waiting>);

pub(super) struct Queue {
    writer: Writer,
    waiting: mpsc::Receiver<Waiting>,
}

impl Writer {
    /// As [`GroupStore::write`], for one group.
    pub(super) async fn write(&self, group: GroupId, write: GroupWrite) -> Result<GroupEpoch, WriteError> {
        let (written, answer) = oneshot::channel();
        let ended = || StoreError::OutcomeUnknown("the groups' writes have ended".to_owned());
        self.0.send(Waiting { group, write, written }).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl WeakWriter {
    /// `None` once the broker stops.
    pub(super) fn upgrade(&self) -> Option<Writer> {
        self.0.upgrade().map(Writer)
    }
}

pub(super) fn queue() -> (WeakWriter, Queue) {
    let (sender, waiting) = mpsc::channel(QUEUED);
    (WeakWriter(sender.downgrade()), Queue { writer: Writer(sender), waiting })
}

impl Queue {
    /// Writes what comes, one call at a time, until `stopping` and until every group has written its last.
    pub(super) async fn run(self, store: Arc<dyn GroupStore>, stopping: CancellationToken) {
        let Self { writer, mut waiting } = self;
        let keep_open = async move {
            stopping.cancelled().await;
            drop(writer);
        };
        let work = async move {
            let mut taken = Vec::with_capacity(WRITES_PER_CALL);
            while waiting.recv_many(&mut taken, WRITES_PER_CALL).await > 0 {
                let mut rest = taken.drain(..).peekable();
                while rest.peek().is_some() {
                    let mut offsets = 0;
                    let mut writes = Vec::new();
                    let mut answers = Vec::new();
                    while let Some(next) = rest.next_if(|next| {
                        offsets += next.write.offsets.len();
                        writes.is_empty() || offsets <= OFFSETS_PER_CALL
                    }) {
                        writes.push((next.group, next.write));
                        answers.push(next.written);
                    }
                    for (written, result) in answers.into_iter().zip(store.write(writes).await) {
                        // A group that was dropped meanwhile is loaded again.
                        let _ = written.send(result);
                    }
                }
            }
        };
        tokio::join!(keep_open, work);
    }
}
