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
    patience: Duration,
}

/// Bytes taken for one request; given back when dropped.
#[derive(Debug)]
pub struct Admitted {
    pool: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
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
        Self { small: Arc::new(Semaphore::new(small)), large: Arc::new(Semaphore::new(large)), patience }
    }

    /// An empty hold for a frame of `size` bytes.
    pub fn begin(&self, size: usize) -> Admitted {
        let pool = if size <= SMALL_FRAME { &self.small } else { &self.large };
        Admitted { pool: pool.clone(), permit: None, patience: self.patience }
    }
}

impl Admitted {
    /// Waits for `bytes` more. Cancel-safe: what was held stays held.
    pub async fn grow(&mut self, bytes: usize) -> Result<(), Congested> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let more = match self.pool.clone().try_acquire_many_owned(bytes) {
            Ok(permit) => permit,
            Err(_) => tokio::time::timeout(self.patience, self.pool.clone().acquire_many_owned(bytes))
                .await
                .map_err(|_| Congested(self.patience))?
                .expect("the pool is never closed"),
        };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }
}
