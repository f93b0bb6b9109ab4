//! What processes that died leave in a folder: object_store writes `X` as `X#1` first, and listings leave that out.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::log::archive::ArchiveError;

/// Removes the staged files below `folder` that nothing was written to for so long.
pub(super) async fn remove_staged(folder: PathBuf, for_so_long: Duration) -> Result<(), ArchiveError> {
    let before = SystemTime::now().checked_sub(for_so_long).unwrap_or(SystemTime::UNIX_EPOCH);
    aside(move || remove_below(&folder, before)).await
}

/// Removes a table's folder with all that may be left in it, and its topic's if that was the last.
pub(super) async fn remove_folder(folder: PathBuf) -> Result<(), ArchiveError> {
    aside(move || {
        missing_is_fine(fs::remove_dir_all(&folder))?;
        // Not empty where a topic of the same name has a table.
        drop(folder.parent().map(fs::remove_dir));
        Ok(())
    })
    .await
}

async fn aside(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), ArchiveError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| ArchiveError::Unavailable(error.to_string()))?;
    done.map_err(|error| ArchiveError::Unavailable(error.to_string()))
}

fn remove_below(folder: &Path, before: SystemTime) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            remove_below(&entry.path(), before)?;
        } else if kind.is_file() && is_staged(&entry.file_name().to_string_lossy()) {
            let is_old = entry.metadata().and_then(|found| found.modified()).is_ok_and(|modified| modified < before);
            if is_old {
                missing_is_fine(fs::remove_file(entry.path()))?;
            }
        }
    }
    Ok(())
}

fn is_staged(name: &str) -> bool {
    let suffix = name.rsplit_once('#').map(|(_, suffix)| suffix);
    suffix.is_some_and(|suffix| !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_digit()))
}

fn missing_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
