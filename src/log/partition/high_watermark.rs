//! How far consumers see: up to where what the topic promises holds (`weir.durability`).

use std::{sync::Arc, time::Duration};

use tracing::debug;

use super::{Inner, Partition};
use crate::log::{
    AppendError,
    durability::{Durability, Life, Promise, Unkept},
    store::StoreError,
};

impl Partition {
    pub(super) fn promised(&self) -> Promise {
        (self.shared.options.dial.promised)(&self.id)
    }

    pub(super) fn durability(&self) -> &dyn Durability {
        &*self.shared.options.dial.durability
    }

    /// The life that the storage's next answer comes from, where its answer is not all that is promised.
    pub(super) fn waited_for(&self, promise: Promise) -> Option<Life> {
        (!self.durability().holds_at_once(promise, &self.id)).then(|| self.durability().life(&self.id))
    }

    /// The end of the log was learnt from the storage in `life`: consumers see it at once, or as soon as the promise holds.
    pub(super) fn learn_end(self: &Arc<Self>, inner: &mut Inner, promise: Promise, life: Option<Life>) {
        let Some(state) = &inner.state else { return };
        let end = state.next_offset;
        inner.life = life;
        if inner.life.is_none() && self.durability().holds_at_once(promise, &self.id) {
            inner.raise(end);
            if !inner.acks.is_empty() {
                // They were promised more than the storage's answer, which may have been another storage's.
                inner.acks.release(end, &self.durability().life(&self.id));
                inner.acks.fail(&AppendError::Store(StoreError::OutcomeUnknown(Unkept::OtherLife.to_string())));
            }
        } else {
            // What was promised under another setting, or of a storage that is only now known, is waited for all the same.
            inner.life.get_or_insert_with(|| self.durability().life(&self.id));
            self.follow(inner);
        }
    }

    /// Sees to it that the high watermark reaches the end of the log.
    fn follow(self: &Arc<Self>, inner: &mut Inner) {
        if !inner.following && inner.is_behind() && !self.shared.tasks.stopping().is_cancelled() {
            inner.following = true;
            let partition = self.clone();
            self.shared.tasks.spawn("durability", async move { partition.raise_until_level().await });
        }
    }

    /// Waits for the promise again and again until it holds up to the end of the log.
    async fn raise_until_level(self: Arc<Self>) {
        /// What is answered at once, as a refused connection is, is not asked again at once.
        const PAUSE: Duration = Duration::from_millis(100);
        let stopping = self.shared.tasks.stopping().clone();
        let following = Following(&self);
        loop {
            let (end, life) = {
                let mut inner = self.inner.lock();
                inner.acks.forget_abandoned();
                match (&inner.state, &inner.life) {
                    (Some(state), Some(life)) if inner.is_behind() => (state.next_offset, life.clone()),
                    _ => {
                        inner.following = false;
                        std::mem::forget(following);
                        return;
                    }
                }
            };
            let barrier = self.durability().barrier(self.promised(), &self.id, &life);
            let Some(held) = stopping.run_until_cancelled(barrier).await else { return };
            match held {
                Ok(()) => self.take_barrier(end, &life),
                Err(unkept) => {
                    debug!(partition = %self.id, %unkept, "what is promised does not hold yet");
                    self.take_failed_barrier(&unkept);
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                    if unkept == Unkept::OtherLife {
                        // Fails where the storage does; then it is tried again.
                        let _ = self.load().await;
                    }
                }
            }
        }
    }

    fn take_barrier(&self, end: i64, life: &Life) {
        let mut inner = self.inner.lock();
        if inner.life.as_ref() == Some(life) {
            inner.raise(end);
            inner.acks.release(end, life);
            inner.waiters.wake();
        }
    }

    fn take_failed_barrier(&self, unkept: &Unkept) {
        let mut inner = self.inner.lock();
        match unkept {
            Unkept::TooFewReplicas { .. } => inner.acks.fail(&AppendError::NotEnoughReplicasAfterAppend),
            Unkept::OtherLife => {
                let lost = StoreError::OutcomeUnknown(unkept.to_string());
                inner.acks.fail(&AppendError::Store(lost));
                inner.doubts += 1;
            }
            // It may still hold in time; who can't wait gives up by themselves.
            Unkept::Impossible(_) | Unkept::NotYet(_) => {}
        }
    }

    /// Where nothing is known of what consumers have seen, they see nothing before the promise holds for all that is there.
    pub(super) async fn find_high_watermark(self: &Arc<Self>) -> Result<(), StoreError> {
        let (end, life) = {
            let inner = self.inner.lock();
            let Some(state) = &inner.state else { return Err(StoreError::NoSuchPartition) };
            (state.next_offset, inner.life.clone().unwrap_or_else(|| self.durability().life(&self.id)))
        };
        let held = self.durability().barrier(self.promised(), &self.id, &life).await;
        held.map_err(|unkept| StoreError::NotReady(unkept.to_string()))?;
        self.take_barrier(end, &life);
        Ok(())
    }
}

/// The task that raises the high watermark; where it ends otherwise than level, the next change starts another.
struct Following<'a>(&'a Partition);

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.0.inner.lock().following = false;
    }
}

impl Inner {
    /// Whether consumers do not see all that is there yet.
    pub(super) fn is_behind(&self) -> bool {
        self.state.as_ref().is_some_and(|state| self.high_watermark.is_none_or(|end| end < state.next_offset))
    }

    /// What is promised holds for all below `end`.
    pub(super) fn raise(&mut self, end: i64) {
        let Some(state) = &self.state else { return };
        let reached = self.high_watermark.map_or(end, |known| known.max(end)).min(state.next_offset);
        self.high_watermark = Some(reached);
        if let Some(known) = &mut self.known {
            known.seen = known.seen.max(reached);
        }
    }
}
