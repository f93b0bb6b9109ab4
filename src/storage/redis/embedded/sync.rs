//! Syncs the append-only file once a second, so that the machine's death loses at most about that much, without Redis ever
//! waiting for the disk.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub(super) async fn every_second(data_dir: PathBuf, stopping: CancellationToken) {
    let folder = data_dir.join("appendonlydir");
    let mut synced = HashMap::new();
    let mut failing = false;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        let (next, result) = {
            let folder = folder.clone();
            let mut synced = std::mem::take(&mut synced);
            let work = move || {
                let result = sync(&folder, &mut synced);
                (synced, result)
            };
            match tokio::task::spawn_blocking(work).await {
                Ok(done) => done,
                Err(_) => return,
            }
        };
        synced = next;
        match result {
            Ok(()) if failing => {
                failing = false;
                info!("the data can be synced to disk again");
            }
            Err(error) if !failing => {
                failing = true;
                error!(%error, folder = %folder.display(), "the data can't be synced to disk");
            }
            _ => {}
        }
    }
}

/// Syncs the files that grew since the last time. Redis itself syncs those that a rewrite makes.
fn sync(folder: &Path, synced: &mut HashMap<PathBuf, u64>) -> io::Result<()> {
    let mut lengths = HashMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.to_string_lossy().ends_with(".incr.aof") {
            continue;
        }
        // A rewrite that has just ended takes its file away.
        let Ok(file) = File::open(&path) else { continue };
        let length = file.metadata()?.len();
        if synced.get(&path) != Some(&length) {
            file.sync_data()?;
        }
        lengths.insert(path, length);
    }
    *synced = lengths;
    Ok(())
}
