//! What keeps a table small and quick: retention, small files joined, checkpoints, files that no version needs removed.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};

use super::{
    DeltaOptions,
    actions::Action,
    reading::Reader,
    snapshot::{DataFile, Partition, Snapshot, bounds_actions},
    store,
    table::{DELETE, OPTIMIZE, Table, now_ms},
    writing::{Encoder, Uploads, remove_files},
};
use crate::{
    log::archive::{ArchiveError, ColdBounds},
    tasks::Tasks,
};

/// A file that no version names is taken for abandoned after this; a copy under way is younger ([`super::copy::LONGEST_COPY`]).
pub(super) const ABANDONED: Duration = Duration::from_secs(24 * 3_600);
/// Objects that are removed at once.
const PARALLEL_DELETES: usize = 8;

/// Up to where (exclusive) retention may remove files.
pub(super) fn expired(partition: &Partition, before_timestamp: Option<i64>, max_bytes: Option<u64>) -> i64 {
    let total = partition.bounds().size_bytes;
    let mut removed = 0;
    let mut end = partition.start;
    for file in partition.files.values() {
        // As Kafka does with a segment that has no timestamp: the time it was written.
        let newest = if file.max_timestamp < 0 { file.modified } else { file.max_timestamp };
        let too_old = before_timestamp.is_some_and(|before| newest < before);
        let too_much = max_bytes.is_some_and(|most| total - removed - file.size >= most);
        if !too_old && !too_much {
            break;
        }
        removed += file.size;
        end = file.end;
    }
    end
}

pub(super) async fn delete_before(table: &Table, index: i32, before: i64) -> Result<ColdBounds, ArchiveError> {
    let decide = |snapshot: &Snapshot| {
        let Some(partition) = snapshot.partition(index).filter(|partition| partition.start < before) else {
            return Ok(None);
        };
        let end = partition.end.max(before);
        let mut actions = bounds_actions(index, before, end, partition.epoch);
        let gone = partition.files.values().filter(|file| file.end <= before);
        actions.extend(gone.map(|file| Action::remove(file.remove(now_ms(), true))));
        Ok(Some(actions))
    };
    let snapshot = table.commit(DELETE, decide).await?;
    Ok(snapshot.partition(index).map(|partition| partition.bounds()).unwrap_or_default())
}

pub(super) async fn delete_table(store: &Arc<dyn ObjectStore>, root: &Path) -> Result<(), ArchiveError> {
    let found = store.list(Some(root)).map_ok(|object| object.location);
    let paths: Vec<Path> = found.try_collect().await.map_err(store::error)?;
    remove(store, paths).await
}

async fn remove(store: &Arc<dyn ObjectStore>, paths: Vec<Path>) -> Result<(), ArchiveError> {
    let removals = stream::iter(paths).map(|path| async move {
        match store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store::error(error)),
        }
    });
    removals.buffer_unordered(PARALLEL_DELETES).try_collect().await
}

pub(super) async fn tidy(
    table: &Arc<Table>,
    reader: &Reader,
    options: &DeltaOptions,
    tasks: &Tasks,
) -> Result<(), ArchiveError> {
    let snapshot = table.snapshot(Duration::ZERO).await?;
    if !snapshot.exists() {
        return Ok(());
    }
    for (index, partition) in snapshot.partitions() {
        for run in small_files(partition, options) {
            let uploads = Uploads::new(table.clone(), index, tasks.clone());
            join(uploads, reader, options, &run).await?;
        }
    }
    vacuum(table, options).await?;
    let snapshot = table.snapshot(Duration::ZERO).await?;
    if snapshot.version - table.checkpoint_version() >= options.checkpoint_interval {
        table.write_checkpoint(snapshot).await?;
    }
    clean_log(table, options).await
}

/// Runs of files that follow each other, are of one day, and are worth to be one.
fn small_files(partition: &Partition, options: &DeltaOptions) -> Vec<Vec<Arc<DataFile>>> {
    let newest = partition.files.values().next_back().map(|file| file.start);
    let mut runs = Vec::new();
    let mut run: Vec<Arc<DataFile>> = Vec::new();
    let mut bytes = 0;
    for file in partition.files.values() {
        let fits = file.size < options.file_bytes / 2 && bytes + file.size <= options.file_bytes;
        let goes_on = run.last().is_none_or(|last| last.date == file.date && last.end == file.start);
        if !(fits && goes_on) {
            runs.push((std::mem::take(&mut run), true));
            bytes = 0;
        }
        if file.size < options.file_bytes / 2 {
            run.push(file.clone());
            bytes += file.size;
        }
    }
    let ended = run.last().map(|file| file.start) != newest;
    runs.push((run, ended));
    // A run that still grows waits until it is worth it, so that a file is not rewritten again and again.
    let worth = |run: &Vec<Arc<DataFile>>, ended: bool| run.len() >= if ended { 2 } else { options.join_files };
    runs.into_iter().filter(|(run, ended)| worth(run, *ended)).map(|(run, _)| run).collect()
}

/// Writes the records of these files as one, and puts it in their place, if they are still all there.
async fn join(
    mut uploads: Uploads,
    reader: &Reader,
    options: &DeltaOptions,
    run: &[Arc<DataFile>],
) -> Result<(), ArchiveError> {
    let Some(first) = run.first() else { return Ok(()) };
    let table = uploads.table().clone();
    let encoder = Encoder::new(options.zstd_level, first.start);
    let written = write_joined(&table, reader, run, &mut uploads, encoder).await;
    if let Err(error) = written {
        uploads.discard().await;
        // A damaged file stays as it is; the other files are not its concern.
        return if matches!(error, ArchiveError::Damaged { .. }) { Ok(()) } else { Err(error) };
    }
    let files = uploads.kept();
    let mut gone = false;
    let result = table
        .commit(OPTIMIZE, |snapshot| {
            gone = !run.iter().all(|file| snapshot.holds(file));
            if gone {
                return Ok(None);
            }
            let mut actions: Vec<Action> =
                run.iter().map(|file| Action::remove(file.remove(now_ms(), false))).collect();
            actions.extend(files.iter().map(|file| Action::add(file.add(false))));
            Ok(Some(actions))
        })
        .await;
    if gone {
        remove_files(&table, &files).await;
    }
    result.map(drop)
}

async fn write_joined(
    table: &Arc<Table>,
    reader: &Reader,
    run: &[Arc<DataFile>],
    uploads: &mut Uploads,
    mut encoder: Encoder,
) -> Result<(), ArchiveError> {
    for file in run {
        let mut group = 0;
        while let Some(batches) = reader.row_group(table, file, group).await? {
            let push = move |encoder: &mut Encoder| batches.iter().try_for_each(|batch| encoder.push_batch(batch));
            encoder = encoder.in_background(push).await?;
            uploads.take(&mut encoder).await?;
            group += 1;
        }
        encoder.skip_to(file.end);
    }
    encoder = encoder.in_background(Encoder::end_file).await?;
    uploads.take(&mut encoder).await
}

/// Removes the objects that were taken out of the table long enough ago, and those that no version ever named.
async fn vacuum(table: &Table, options: &DeltaOptions) -> Result<(), ArchiveError> {
    let now = now_ms();
    let (taken_out, abandoned) = (now - to_ms(options.keep_removed), now - to_ms(ABANDONED));
    // Listed before the log is read: what was committed until then is in the snapshot.
    let prefix = table.root().clone();
    let objects: Vec<ObjectMeta> = table.store().list(Some(&prefix)).try_collect().await.map_err(store::error)?;
    let snapshot = table.snapshot(Duration::ZERO).await?;
    let held: HashSet<&str> = snapshot
        .partitions()
        .flat_map(|(_, partition)| partition.files.values())
        .map(|file| file.path.as_str())
        .collect();
    let start = format!("{prefix}/");
    let useless = objects.into_iter().filter(|object| {
        let Some(path) = object.location.as_ref().strip_prefix(&start) else { return false };
        if !path.starts_with("partition=") || held.contains(path) {
            return false;
        }
        match snapshot.tombstones.get(path) {
            Some(since) => *since <= taken_out,
            None => object.last_modified.timestamp_millis() < abandoned.min(taken_out),
        }
    });
    remove(table.store(), useless.map(|object| object.location).collect()).await?;
    table.forget_tombstones(taken_out);
    Ok(())
}

/// Removes versions, and checkpoints, that the newest checkpoint makes unnecessary.
async fn clean_log(table: &Table, options: &DeltaOptions) -> Result<(), ArchiveError> {
    let before = now_ms() - to_ms(options.keep_versions);
    let folder = table.path("_delta_log");
    let objects: Vec<ObjectMeta> = table.store().list(Some(&folder)).try_collect().await.map_err(store::error)?;
    let needed_from = table.checkpoint_version();
    let old = objects.into_iter().filter(|object| {
        let version = object.location.filename().and_then(|name| name.split_once('.')).map(|(version, _)| version);
        let version = version.and_then(|version| version.parse::<i64>().ok());
        version.is_some_and(|version| version < needed_from) && object.last_modified.timestamp_millis() < before
    });
    remove(table.store(), old.map(|object| object.location).collect()).await
}

fn to_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
