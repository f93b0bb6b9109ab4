//! Memory for requests in flight, taken before their bytes are read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// A request that takes up to this much gets it from the part of the budget that larger ones can't take.
const SMALL: usize = 1 << 20;

/// How much of a large frame is admitted at a time, so that a client which announces much and sends little holds little.
pub(super) const STEP: usize = 256 << 10;

/// One connection may hold this part of the budget; its next request waits until it holds less.
const SHARES: usize = 8;

/// The budget of bytes of all requests that are being read or served.
#[derive(Clone, Debug)]
pub struct Admission {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    /// The right to go on with the bytes that are kept back for that; one request at a time has it.
    finishing: Arc<Semaphore>,
    /// Bytes that one connection may hold.
    share: usize,
    patience: Duration,
}

/// What the requests of one connection hold together.
#[derive(Debug)]
pub struct ConnectionShare {
    admission: Admission,
    held: Arc<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: AtomicUsize,
    given_back: Notify,
}

/// Bytes taken for one request; given back when dropped.
#[derive(Debug)]
pub struct Admitted {
    pool: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    finishing: Arc<Semaphore>,
    finisher: Option<OwnedSemaphorePermit>,
    /// Of its connection, with what this one put there.
    connection: Arc<Held>,
    bytes: usize,
    patience: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("no memory for the request within {0:?} (queued.max.request.bytes)")]
pub struct Congested(Duration);

impl Admission {
    /// `total` bytes. About a quarter is for requests of up to 1 MiB alone; up to a quarter, which is as much as the `longest` request
    /// needs if that is less, is for one at a time of those that are half read when there is no more for anybody. Only
    /// a request longer than that quarter can exceed the total, by the difference. A request waits at most `patience` for its
    /// bytes.
    pub fn new(total: usize, longest: usize, patience: Duration) -> Self {
        let pools = total - longest.min(total / 4);
        let small = (pools / 3).clamp(SMALL, Semaphore::MAX_PERMITS);
        let large = pools.saturating_sub(small).clamp(SMALL, Semaphore::MAX_PERMITS);
        Self {
            small: Arc::new(Semaphore::new(small)),
            large: Arc::new(Semaphore::new(large)),
            finishing: Arc::new(Semaphore::new(1)),
            share: (total / SHARES).max(SMALL),
            patience,
        }
    }

    /// The share of a connection that holds nothing yet.
    pub fn connection(&self) -> ConnectionShare {
        ConnectionShare { admission: self.clone(), held: Arc::default() }
    }
}

impl ConnectionShare {
    /// An empty hold for a request that will take `size` bytes, once the connection's earlier requests leave room for it in its
    /// share; the only request of a connection may be larger. Requests of a connection begin one after the other. Cancel-safe.
    pub async fn begin(&self, size: usize) -> Admitted {
        let Admission { small, large, finishing, share, patience } = &self.admission;
        loop {
            let held = self.held.bytes.load(Ordering::Acquire);
            if held == 0 || held.saturating_add(size) <= *share {
                break;
            }
            // Told after each reduction; what came before this wait is kept for it.
            self.held.given_back.notified().await;
        }
        let pool = if size <= SMALL { small } else { large };
        Admitted {
            pool: pool.clone(),
            permit: None,
            finishing: finishing.clone(),
            finisher: None,
            connection: self.held.clone(),
            bytes: 0,
            patience: *patience,
        }
    }
}

impl Admitted {
    /// Waits for `bytes` more. Cancel-safe: what was held stays held.
    ///
    /// Requests that hold a part of the budget and wait for more could wait for each other, so one of them at a time goes on
    /// with what is kept back.
    pub async fn grow(&mut self, bytes: usize) -> Result<(), Congested> {
        if bytes == 0 {
            return Ok(());
        }
        if self.finisher.is_none() {
            self.take(bytes).await?;
        }
        self.bytes += bytes;
        self.connection.bytes.fetch_add(bytes, Ordering::AcqRel);
        Ok(())
    }

    async fn take(&mut self, bytes: usize) -> Result<(), Congested> {
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

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connection.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.connection.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// With as much for small requests as one of them takes at most.
    fn admission() -> Admission {
        Admission::new(3 * SMALL, 0, PATIENCE)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_hold_half_of_what_they_need_do_not_wait_for_each_other() {
        let admission = admission();
        let mut requests = Vec::new();
        for _ in 0..4 {
            requests.push(admission.connection().begin(2 * STEP).await);
        }
        for request in &mut requests {
            request.grow(STEP).await.expect("there is room for one step of each");
        }
        let all = requests.into_iter().map(|mut request| async move { request.grow(STEP).await.map(drop) });
        let served = futures::future::join_all(all).await;
        assert!(served.iter().all(Result::is_ok), "{served:?}");
        assert_eq!(admission.small.available_permits(), SMALL);
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_nothing_waits_for_the_budget() {
        let admission = admission();
        let mut first = admission.connection().begin(SMALL).await;
        first.grow(SMALL).await.expect("room");
        let mut second = admission.connection().begin(STEP).await;
        assert!(second.grow(STEP).await.is_err(), "its patience ends");
        drop(first);
        second.grow(STEP).await.expect("room again");
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_can_not_take_the_whole_budget() {
        let admission = Admission::new(80 * SMALL, 10 * SMALL, PATIENCE);
        let greedy = admission.connection();
        let mut taken = Vec::new();
        while let Ok(mut request) = tokio::time::timeout(PATIENCE, greedy.begin(2 * SMALL)).await {
            request.grow(2 * SMALL).await.expect("there is room");
            taken.push(request);
        }
        assert_eq!(taken.len(), 5, "an eighth");
        let other = admission.connection();
        other.begin(30 * SMALL).await.grow(30 * SMALL).await.expect("room for others");
        taken.pop();
        greedy.begin(2 * SMALL).await.grow(2 * SMALL).await.expect("its share has room again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_waits_for_its_connections_share_is_told_when_there_is_room() {
        let admission = Admission::new(8 * SMALL, 0, PATIENCE);
        let connection = admission.connection();
        let mut first = connection.begin(SMALL).await;
        first.grow(SMALL).await.expect("room");
        let (next, ()) = tokio::join!(connection.begin(SMALL), async {
            tokio::task::yield_now().await;
            drop(first);
        });
        assert_eq!(next.bytes, 0);
    }

    #[test]
    fn what_is_kept_back_for_the_last_request_is_part_of_the_total() {
        let admission = Admission::new(100 * SMALL, 10 * SMALL, PATIENCE);
        assert_eq!(admission.small.available_permits() + admission.large.available_permits(), 90 * SMALL);
        let admission = Admission::new(100 * SMALL, 90 * SMALL, PATIENCE);
        assert_eq!(admission.small.available_permits() + admission.large.available_permits(), 75 * SMALL);
    }
}
