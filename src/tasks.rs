//! Every task of the broker is spawned here: it has a name, and shutdown waits for it.

use std::{future::Future, io, thread, time::Duration};

use tokio::{sync::oneshot, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// Spawns tasks and ends them. Clones share the same set.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `work` to its end; work that waits must also watch [`Tasks::stopping`].
    pub fn spawn<F>(&self, name: &'static str, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(work.instrument(tracing::debug_span!("task", name)))
    }

    /// Cancelled once, when the broker drains.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Tells every task to end and waits for them, at most `patience`. Returns how many were still running then.
    pub async fn stop(&self, patience: Duration) -> usize {
        self.stopping.cancel();
        self.tracker.close();
        let _ = tokio::time::timeout(patience, self.tracker.wait()).await;
        self.tracker.len()
    }
}

/// Runs `work`, which takes long, without keeping the other tasks of this thread waiting.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::current().runtime_flavor() {
        tokio::runtime::RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Runs `work`, which takes long and can wait, on a thread that gives way to those that serve clients.
///
/// # Errors
/// There is no thread for it, or it panicked.
pub async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    /// About a tenth of a core where all cores are wanted.
    const NICE: i32 = 10;
    let (done, result) = oneshot::channel();
    thread::Builder::new().name("background".to_owned()).spawn(move || {
        // Elsewhere a priority is the whole process's. A thread whose priority can't be lowered does not give way, and works.
        if cfg!(target_os = "linux") {
            let _ = rustix::process::setpriority_process(None, NICE);
        }
        let _ = done.send(work());
    })?;
    result.await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_can_wait_gives_way_and_says_where_it_failed() {
        let priority = || rustix::process::getpriority_process(None).expect("a thread has one");
        let lowered = in_background(priority).await.expect("a thread");
        assert!(lowered > priority() || lowered == 19, "{lowered}");
        assert!(in_background(|| panic!("a bad file")).await.is_err());
    }
}
