//! Room in the storage: appends are refused some way before the storage would refuse everything, so that reads, trims and
//! groups go on in what is left.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

use super::store::{Capacity, StoreError};
use crate::telemetry::metrics::PressureMetrics;

/// How much more room there must be before appends are taken again: a share of all of it, so that they do not come and go.
const AGAIN: f64 = 0.05;

/// What there is too little of.
#[derive(Clone, Debug, PartialEq)]
pub enum Shortage {
    /// The storage's memory is used up to the mark.
    Memory { capacity: Capacity, mark: f64 },
    /// The disk below the storage is full but for this.
    Disk { folder: String, free: u64, reserve: u64 },
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        match self {
            Shortage::Memory { capacity: Capacity { total, used }, mark } => write!(
                f,
                "Redis' memory is nearly full ({} of {} MiB, weir.redis.memory.high.watermark={mark}): raise maxmemory, or let \
                 retention remove more, or delete topics",
                used / MIB,
                total / MIB
            ),
            Shortage::Disk { folder, free, reserve } => write!(
                f,
                "the disk of {folder} is nearly full ({} MiB free, {} MiB are kept free, weir.redis.disk.reserve.bytes): make room \
                 there",
                free / MIB,
                reserve / MIB
            ),
        }
    }
}

/// Whether appends are refused for want of room, and why.
#[derive(Debug)]
pub struct Pressure {
    /// Whether `now` has any; read by every append.
    refusing: AtomicBool,
    now: watch::Sender<Now>,
    metrics: PressureMetrics,
}

/// The two kinds come and go by themselves.
#[derive(Clone, Debug, Default, PartialEq)]
struct Now {
    memory: Option<Shortage>,
    disk: Option<Shortage>,
}

impl Default for Pressure {
    fn default() -> Self {
        Self::new(PressureMetrics::default())
    }
}

impl Pressure {
    pub fn new(metrics: PressureMetrics) -> Self {
        Self { refusing: AtomicBool::new(false), now: watch::Sender::default(), metrics }
    }

    /// Takes a reading of the storage's memory; `None` where it has no limit. Refuses from the share `mark` on.
    pub fn take_memory(&self, capacity: Option<Capacity>, mark: f64) {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.memory_used.set(capacity.map_or(0, |capacity| bytes(capacity.used)));
        self.metrics.memory_limit.set(capacity.map_or(0, |capacity| bytes(capacity.total)));
        self.update(|now| {
            let mark_now = if now.memory.is_some() { mark - AGAIN } else { mark };
            let is_short = |capacity: &Capacity| share(capacity) >= mark_now;
            now.memory = capacity.filter(is_short).map(|capacity| Shortage::Memory { capacity, mark });
        });
    }

    /// Takes a reading of the disk below the storage: refuses while less than `reserve` bytes of it are free.
    pub fn take_disk(&self, folder: &str, disk: Capacity, reserve: u64) {
        // Of a small disk most is to be used all the same.
        let reserve = reserve.min(disk.total / 4);
        let free = disk.total.saturating_sub(disk.used);
        self.update(|now| {
            let wanted = if now.disk.is_some() { reserve + reserve / 4 } else { reserve };
            now.disk = (free < wanted).then(|| Shortage::Disk { folder: folder.to_owned(), free, reserve });
        });
    }

    fn update(&self, change: impl FnOnce(&mut Now)) {
        self.now.send_if_modified(|now| {
            let before = (now.memory.is_some(), now.disk.is_some());
            change(now);
            let after = (now.memory.is_some(), now.disk.is_some());
            let refusing = after != (false, false);
            self.refusing.store(refusing, Ordering::Relaxed);
            self.metrics.refusing.set(i64::from(refusing));
            before != after
        });
    }

    /// What there is too little of, the disk first.
    pub fn shortage(&self) -> Option<Shortage> {
        if !self.refusing.load(Ordering::Relaxed) {
            return None;
        }
        let now = self.now.borrow();
        now.disk.clone().or_else(|| now.memory.clone())
    }

    /// Tells each time that a shortage begins or ends.
    pub fn changes(&self) -> Changes {
        Changes(self.now.subscribe())
    }

    /// Whether an append may go to the storage.
    ///
    /// # Errors
    /// As the storage would answer if it were full.
    pub fn check(&self) -> Result<(), StoreError> {
        let Some(shortage) = self.shortage() else { return Ok(()) };
        self.metrics.refused.inc();
        Err(match shortage {
            Shortage::Memory { .. } => StoreError::OutOfMemory,
            Shortage::Disk { .. } => StoreError::NotReady(shortage.to_string()),
        })
    }
}

/// The news of one who follows a [`Pressure`].
#[derive(Debug)]
pub struct Changes(watch::Receiver<Now>);

impl Changes {
    /// Waits for a shortage to begin or end; for ever once the pressure is gone. Cancel-safe.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more than its first digits")]
fn share(capacity: &Capacity) -> f64 {
    capacity.used as f64 / capacity.total.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(used: u64) -> Option<Capacity> {
        Some(Capacity { total: 1_000, used })
    }

    #[test]
    fn appends_are_refused_from_the_mark_on_until_there_is_clearly_room_again() {
        let pressure = Pressure::default();
        for (used, refuses) in [(899, false), (900, true), (860, true), (849, false), (880, false), (1_200, true)] {
            pressure.take_memory(memory(used), 0.9);
            assert_eq!(pressure.check().is_err(), refuses, "{used}");
        }
        assert_eq!(pressure.check(), Err(StoreError::OutOfMemory));
        pressure.take_memory(None, 0.9);
        assert_eq!(pressure.check(), Ok(()), "there is no limit any more");
    }

    #[test]
    fn a_disk_and_a_memory_that_fill_up_are_told_apart() {
        let pressure = Pressure::default();
        let disk = |free: u64| Capacity { total: 100 << 20, used: (100 << 20) - free };
        pressure.take_disk("/data", disk(9 << 20), 10 << 20);
        pressure.take_memory(memory(950), 0.9);
        assert!(matches!(pressure.check(), Err(StoreError::NotReady(text)) if text.contains("/data")));
        pressure.take_disk("/data", disk(11 << 20), 10 << 20);
        assert!(matches!(pressure.check(), Err(StoreError::NotReady(_))), "not yet enough room");
        pressure.take_disk("/data", disk(13 << 20), 10 << 20);
        assert_eq!(pressure.check(), Err(StoreError::OutOfMemory));
    }

    #[test]
    fn a_small_disk_is_used_for_the_most_part() {
        let pressure = Pressure::default();
        pressure.take_disk("/data", Capacity { total: 100, used: 70 }, 1 << 30);
        assert_eq!(pressure.check(), Ok(()));
        pressure.take_disk("/data", Capacity { total: 100, used: 76 }, 1 << 30);
        assert!(pressure.check().is_err());
    }

    #[tokio::test]
    async fn only_beginning_and_end_are_news() {
        let pressure = Pressure::default();
        let mut changes = pressure.changes();
        pressure.take_memory(memory(950), 0.9);
        changes.next().await;
        pressure.take_memory(memory(960), 0.9);
        assert!(futures::FutureExt::now_or_never(changes.next()).is_none());
        pressure.take_memory(memory(100), 0.9);
        changes.next().await;
    }
}
