//! Partitions that the catalog has and the storage does not: one of several servers came back without what it had.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::TopicId;

/// Topics whose partitions were looked for in vain, until somebody takes them: at most those that there are.
#[derive(Debug, Default)]
pub struct Missing {
    topics: Mutex<HashSet<TopicId>>,
    noted: Notify,
}

impl Missing {
    pub(super) fn note(&self, topic: TopicId) {
        self.topics.lock().insert(topic);
        self.noted.notify_one();
    }

    /// Waits for some. Cancel-safe.
    pub async fn next(&self) -> HashSet<TopicId> {
        loop {
            let noted = self.noted.notified();
            let taken = std::mem::take(&mut *self.topics.lock());
            if !taken.is_empty() {
                return taken;
            }
            noted.await;
        }
    }
}
