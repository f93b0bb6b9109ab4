//! Memory for requests in flight, taken before their bytes are read.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A frame up to this size comes out of the share that large ones can't take.
const SMALL_FRAME: usize = 1 << 20;

/// How much of a large frame is admitted at a time, so that a client which announces much and sends little holds little.
pub(super) const STEP: usize = 256 << 10;

/// The budget of bytes of all requests that are being read or served.
#[derive(Clone, Debug)]
pub struct Admission {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    /// The right to go on without bytes of the budget; one request at a time has it.
    finishing: Arc<Semaphore>,
    patience: Duration,
}

/// Bytes taken for one request; given back when dropped.
#[derive(Debug)]
pub struct Admitted {
    pool: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    finishing: Arc<Semaphore>,
    finisher: Option<OwnedSemaphorePermit>,
    patience: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("no memory for the request within {0:?} (queued.max.request.bytes)")]
pub struct Congested(Duration);

impl Admission {
    /// `total` bytes, of which a fifth is for frames of up to 1 MiB alone. A request waits at most `patience` for its bytes.
    pub fn new(total: usize, patience: Duration) -> Self {
        let small = (total / 5).clamp(SMALL_FRAME, Semaphore::MAX_PERMITS);
        let large = total.saturating_sub(small).clamp(SMALL_FRAME, Semaphore::MAX_PERMITS);
        Self {
            small: Arc::new(Semaphore::new(small)),
            large: Arc::new(Semaphore::new(large)),
            finishing: Arc::new(Semaphore::new(1)),
            patience,
        }
    }

    /// An empty hold for a frame of `size` bytes.
    pub fn begin(&self, size: usize) -> Admitted {
        let pool = if size <= SMALL_FRAME { &self.small } else { &self.large };
        Admitted {
            pool: pool.clone(),
            permit: None,
            finishing: self.finishing.clone(),
            finisher: None,
            patience: self.patience,
        }
    }
}

impl Admitted {
    /// Waits for `bytes` more. Cancel-safe: what was held stays held.
    ///
    /// Requests that hold a part of the budget and wait for more could wait for each other, so one of them at a time goes on
    /// without: the budget is exceeded by at most one request.
    pub async fn grow(&mut self, bytes: usize) -> Result<(), Congested> {
        if self.finisher.is_some() {
            return Ok(());
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let more = match self.pool.clone().try_acquire_many_owned(bytes) {
            Ok(permit) => permit,
            Err(_) => {
                let holds_some = self.permit.is_some();
                tokio::select! {
                    biased;
                    more = self.pool.clone().acquire_many_owned(bytes) => more.expect("the pool is never closed"),
                    right = self.finishing.clone().acquire_owned(), if holds_some => {
                        self.finisher = Some(right.expect("it is never closed"));
                        return Ok(());
                    }
                    () = tokio::time::sleep(self.patience) => return Err(Congested(self.patience)),
                }
            }
        };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_that_hold_half_of_what_they_need_do_not_wait_for_each_other() {
        let admission = Admission::new(5 * SMALL_FRAME, Duration::from_secs(30));
        let mut requests: Vec<Admitted> = (0..4).map(|_| admission.begin(2 * STEP)).collect();
        for request in &mut requests {
            request.grow(STEP).await.expect("there is room for one step of each");
        }
        let all = requests.into_iter().map(|mut request| async move { request.grow(STEP).await.map(drop) });
        let served = futures::future::join_all(all).await;
        assert!(served.iter().all(Result::is_ok), "{served:?}");
        assert_eq!(admission.small.available_permits(), SMALL_FRAME);
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_nothing_waits_for_the_budget() {
        let admission = Admission::new(5 * SMALL_FRAME, Duration::from_secs(30));
        let mut first = admission.begin(SMALL_FRAME);
        first.grow(SMALL_FRAME).await.expect("room");
        let mut second = admission.begin(STEP);
        assert!(second.grow(STEP).await.is_err(), "its patience ends");
        drop(first);
        second.grow(STEP).await.expect("room again");
    }
}
