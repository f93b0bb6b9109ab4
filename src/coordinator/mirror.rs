//! Committed offsets in the streams' native consumer groups: coalesced, behind the commits, never part of an answer.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    TopicNames,
    store::{GroupStore, MirrorMove},
};
use crate::{
    groups::TopicPartition,
    model::{GroupId, PartitionId},
};

/// Moves that may wait. Beyond that a commit is not mirrored until the partition's next one.
const PENDING: usize = 200_000;

/// Moves in one call of the storage.
const CHUNK: usize = 200;

#[derive(Default)]
pub(super) struct Mirror {
    /// The last of a partition's moves; `None` takes the group away.
    pending: Mutex<HashMap<(GroupId, TopicPartition), Option<i64>>>,
    noted: Notify,
}

impl Mirror {
    pub(super) fn note(&self, group: &GroupId, at: TopicPartition, offset: Option<i64>) {
        let mut pending = self.pending.lock();
        let was_empty = pending.is_empty();
        if pending.len() < PENDING || offset.is_none() {
            pending.insert((group.clone(), at), offset);
        }
        drop(pending);
        if was_empty {
            self.noted.notify_one();
        }
    }

    /// Mirrors what was noted, at most once per `interval` for each group and partition, until `stopping`; then once more.
    pub(super) async fn run(
        &self,
        store: Arc<dyn GroupStore>,
        topics: Arc<dyn TopicNames>,
        interval: Duration,
        stopping: CancellationToken,
    ) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = stopping.cancelled() => {
                    let _ = self.flush(&*store, &*topics).await;
                    return;
                }
                () = self.noted.notified() => {}
            }
            let flushed = self.flush(&*store, &*topics).await;
            if let Err(error) = &flushed {
                if failing {
                    debug!(%error, "committed offsets can't be mirrored yet");
                } else {
                    warn!(%error, "committed offsets can't be mirrored into native groups; retrying");
                }
                self.noted.notify_one();
            }
            failing = flushed.is_err();
            tokio::select! {
                () = stopping.cancelled() => {}
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    async fn flush(&self, store: &dyn GroupStore, topics: &dyn TopicNames) -> Result<(), super::store::StoreError> {
        let taken = std::mem::take(&mut *self.pending.lock());
        // A topic that is gone took its streams and their groups along.
        let moves: Vec<(TopicPartition, MirrorMove)> = taken
            .into_iter()
            .filter_map(|((group, at), offset)| {
                let topic = topics.name_of(at.topic)?;
                let partition = PartitionId { topic, topic_id: at.topic, index: at.partition };
                Some((at, MirrorMove { group, partition, offset }))
            })
            .collect();
        let mut rest = moves.as_slice();
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(rest.len().min(CHUNK));
            let chunk: Vec<MirrorMove> = chunk.iter().map(|(_, one)| one.clone()).collect();
            if let Err(error) = store.mirror(&chunk).await {
                let mut pending = self.pending.lock();
                for (at, one) in rest {
                    pending.entry((one.group.clone(), *at)).or_insert(one.offset);
                }
                return Err(error);
            }
            rest = after;
        }
        Ok(())
    }
}
