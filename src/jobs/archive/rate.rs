//! `archive.rate.bytes`: what a job copies a second, of all partitions together.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// So much is paid at once at most.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3_600);

pub(super) struct Rate {
    /// Bytes a second, more than none.
    bytes: u64,
    /// What was copied so far is paid for then.
    paid_at: Mutex<Instant>,
}

impl Rate {
    /// None where there is no limit.
    pub(super) fn new(bytes: u64) -> Option<Self> {
        (bytes > 0).then(|| Self { bytes, paid_at: Mutex::new(Instant::now()) })
    }

    /// Waits until these bytes, and all before them, are paid for. Time in which nothing was copied is not saved up.
    pub(super) async fn pay(&self, bytes: u64) {
        let millis = u128::from(bytes) * 1_000 / u128::from(self.bytes);
        let price = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)).min(LONGEST_WAIT);
        let due = {
            let mut paid_at = self.paid_at.lock();
            *paid_at = (*paid_at).max(Instant::now()) + price;
            *paid_at
        };
        tokio::time::sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_byte_is_paid_for_however_many_copies_it_takes() {
        let rate = Rate::new(1_000_000).expect("a limit");
        let began = Instant::now();
        for _ in 0..50 {
            rate.pay(2_000_000).await;
        }
        for _ in 0..1_000 {
            rate.pay(20_000).await;
        }
        assert_eq!(began.elapsed().as_secs(), 120);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_not_made_up_for() {
        let rate = Rate::new(1_000).expect("a limit");
        tokio::time::advance(Duration::from_secs(600)).await;
        let began = Instant::now();
        rate.pay(5_000).await;
        assert_eq!(began.elapsed().as_secs(), 5);
    }

    #[test]
    fn no_limit_is_no_rate() {
        assert!(Rate::new(0).is_none());
    }
}
