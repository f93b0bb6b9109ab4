//! Reading ahead: while what a reader asked for is made ready and sent, Redis answers what it will ask for next.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;

use super::{Partition, core::EntryId};
use crate::log::store::StoreError;

/// Partitions that something is kept for; what was read ahead longest ago goes first.
const MOST_PARTITIONS: usize = 16;
/// More is not read ahead for one partition.
const MOST_BYTES: u64 = 2 << 20;

/// What one `XRANGE` is to give: entries with `from <= ID < until`, about `bytes` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: EntryId,
    pub(super) until: EntryId,
    pub(super) count: u64,
    pub(super) bytes: u64,
}

/// An answer that is on its way or there.
pub(super) struct Ahead {
    range: Range,
    /// Of the connection to the server that was asked.
    generation: Option<u64>,
    reading: BoxFuture<'static, Result<Bytes, StoreError>>,
}

/// The partitions that something was read ahead for, the latest last.
#[derive(Default)]
pub(super) struct ReadAhead {
    partitions: Mutex<VecDeque<Arc<Partition>>>,
}

impl ReadAhead {
    /// Sends the request that `reading` makes, and keeps its answer for whoever reads on from there.
    pub(super) fn begin(
        &self,
        partition: &Arc<Partition>,
        generation: Option<u64>,
        range: Range,
        mut reading: BoxFuture<'static, Result<Bytes, StoreError>>,
    ) {
        if range.bytes > MOST_BYTES || range.from >= range.until {
            return;
        }
        // The first poll sends it; the connection's own task takes the answer in. One that fails at once is not needed.
        if reading.as_mut().now_or_never().is_some() {
            return;
        }
        partition.view.lock().ahead = Some(Ahead { range, generation, reading });
        let mut partitions = self.partitions.lock();
        partitions.retain(|kept| !Arc::ptr_eq(kept, partition));
        partitions.push_back(partition.clone());
        let forgotten = if partitions.len() > MOST_PARTITIONS { partitions.pop_front() } else { None };
        drop(partitions);
        if let Some(forgotten) = forgotten {
            forgotten.view.lock().ahead = None;
        }
    }

    /// What was asked for from `from` on, and the answer, if it is of the same server and came.
    pub(super) async fn take(
        &self,
        partition: &Partition,
        generation: Option<u64>,
        from: EntryId,
    ) -> Option<(Range, Bytes)> {
        let is_it = |ahead: &mut Ahead| ahead.range.from == from && ahead.generation == generation;
        let ahead = partition.view.lock().ahead.take_if(is_it)?;
        Some((ahead.range, ahead.reading.await.ok()?))
    }
}
