//! Looks at the room that Redis has left: its memory limit and, for the embedded server, the disk of its files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{nodes::Nodes, server};
use crate::log::{pressure::Pressure, store::Capacity};

/// At the rate at which one Redis can be filled, the reserve lasts longer than this.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// A shortage that comes and goes is told of no more often.
const BETWEEN_COMPLAINTS: Duration = Duration::from_secs(30);

/// From where on appends are refused.
#[derive(Clone, Debug)]
pub struct Options {
    /// `weir.redis.memory.high.watermark`: a share of `maxmemory`.
    pub memory_mark: f64,
    /// Of the embedded server.
    pub data_dir: Option<PathBuf>,
    /// `weir.redis.disk.reserve.bytes`
    pub disk_reserve: u64,
}

/// Keeps `pressure` up to date until `stopping`. What can't be looked at stays as it was.
pub async fn watch(nodes: Nodes, pressure: Arc<Pressure>, options: Options, stopping: CancellationToken) {
    let mut complained: Option<Instant> = None;
    let mut was_short = false;
    loop {
        let Some(()) = stopping.run_until_cancelled(look(&nodes, &pressure, &options)).await else { return };
        match pressure.shortage() {
            Some(shortage) if !was_short => {
                was_short = true;
                if complained.is_none_or(|at| at.elapsed() > BETWEEN_COMPLAINTS) {
                    complained = Some(Instant::now());
                    error!("appends are refused until there is room: {shortage}");
                }
            }
            None if was_short => {
                was_short = false;
                info!("there is room in Redis again: appends are taken");
            }
            _ => {}
        }
        let pause = tokio::time::sleep(BETWEEN_LOOKS);
        if stopping.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

async fn look(nodes: &Nodes, pressure: &Pressure, options: &Options) {
    if let Some(folder) = &options.data_dir
        && let Some(disk) = disk(folder)
    {
        pressure.take_disk(&folder.display().to_string(), disk, options.disk_reserve);
    }
    if let Ok(memory) = server::fullest(nodes).await {
        pressure.take_memory(memory, options.memory_mark);
    }
}

/// The disk of a folder, as far as this user may fill it; `None` where the system does not tell.
pub(super) fn disk(folder: &Path) -> Option<Capacity> {
    let told = rustix::fs::statvfs(folder).ok()?;
    let free = told.f_bavail.saturating_mul(told.f_frsize);
    // What is kept for the system's own user is not there for this one.
    let total = told.f_blocks.saturating_sub(told.f_bfree.saturating_sub(told.f_bavail)).saturating_mul(told.f_frsize);
    Some(Capacity { total, used: total.saturating_sub(free) })
}
