//! Fetches that wait for partitions to change.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// One waiting fetch. It is told which of its partitions changed.
#[derive(Debug, Default)]
pub(super) struct Waiter {
    changed: Mutex<BTreeSet<usize>>,
    notify: Notify,
}

impl Waiter {
    fn wake(&self, place: usize) {
        self.changed.lock().insert(place);
        self.notify.notify_one();
    }

    /// The places of the partitions that changed, at least one. Cancel-safe.
    pub(super) async fn changed(&self) -> BTreeSet<usize> {
        loop {
            let changed = std::mem::take(&mut *self.changed.lock());
            if !changed.is_empty() {
                return changed;
            }
            self.notify.notified().await;
        }
    }
}

/// The fetches that wait for one partition, each with the partition's place among its own.
#[derive(Debug, Default)]
pub(super) struct Waiters(Vec<(Arc<Waiter>, usize)>);

impl Waiters {
    pub(super) fn add(&mut self, waiter: &Arc<Waiter>, place: usize) {
        self.0.push((waiter.clone(), place));
    }

    pub(super) fn remove(&mut self, waiter: &Arc<Waiter>) {
        self.0.retain(|(other, _)| !Arc::ptr_eq(other, waiter));
        if self.0.is_empty() {
            // A partition that nobody waits for holds no memory for it.
            self.0 = Vec::new();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn wake(&self) {
        for (waiter, place) in &self.0 {
            waiter.wake(*place);
        }
    }
}
