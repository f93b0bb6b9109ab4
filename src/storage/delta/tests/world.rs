//! An archive in a temporary folder, and records to put into it.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    log::{
        archive::{Archive, ArchiveError, ColdBounds, FileOptions},
        store::{Read, StoredBatch},
    },
    model::{PartitionId, TopicId, TopicName},
    protocol::records::{Batch, BatchBuilder, BatchOptions, Codec, NewRecord, PlacedBatch},
    storage::delta::{DeltaArchive, DeltaOptions},
    tasks::Tasks,
};

/// 2026-11-23 00:00 UTC.
pub(super) const MIDNIGHT: i64 = 1_795_392_000_000;
pub(super) const EVERYTHING: Read =
    Read { offset: 0, max_bytes: usize::MAX, end_offset: i64::MAX, codec: Codec::None, in_background: false };

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Record {
    pub(super) fn new(offset: i64, timestamp: i64) -> Self {
        let value = format!(r#"{{"order": {offset}, "customer": "cust-{:05}"}}"#, offset % 97);
        Self { offset, timestamp, key: None, value: Some(value.into_bytes()), headers: Vec::new() }
    }
}

pub(super) fn batch(options: BatchOptions, records: &[Record]) -> StoredBatch {
    let mut builder = BatchBuilder::new(options);
    for record in records {
        let headers = record.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref()));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder
            .push(NewRecord { offset: record.offset, timestamp: record.timestamp, key, value, headers })
            .expect("a record");
    }
    let bytes = builder.finish().expect("a batch");
    StoredBatch {
        base_offset: records.first().expect("a record").offset,
        last_offset: records.last().expect("a record").offset,
        max_timestamp: records.iter().map(|record| record.timestamp).max().expect("a record"),
        batch: PlacedBatch::split(&bytes).expect("a batch"),
    }
}

/// One batch of JSON records with these offsets, a second apart.
pub(super) fn orders(offsets: std::ops::Range<i64>, first_timestamp: i64) -> StoredBatch {
    let start = offsets.start;
    let records: Vec<_> =
        offsets.map(|offset| Record::new(offset, first_timestamp + (offset - start) * 1_000)).collect();
    batch(BatchOptions { partition_leader_epoch: 4, ..BatchOptions::default() }, &records)
}

pub(super) fn parsed(stored: &StoredBatch) -> Batch {
    let batch = Batch::parse(stored.batch.to_bytes()).expect("one batch");
    batch.check_crc().expect("its checksum");
    batch
}

pub(super) fn records(batches: &[StoredBatch]) -> Vec<Record> {
    let mut found = Vec::new();
    for stored in batches {
        for record in &parsed(stored).records(usize::MAX).expect("records") {
            let record = record.expect("a record");
            found.push(Record {
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record.headers.map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
            });
        }
    }
    found
}

pub(super) fn offsets(batches: &[StoredBatch]) -> Vec<i64> {
    records(batches).iter().map(|record| record.offset).collect()
}

pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) topic: TopicName,
    pub(super) topic_id: TopicId,
    pub(super) archive: Arc<DeltaArchive>,
    pub(super) tasks: Tasks,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl Fn(&mut DeltaOptions)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let tasks = Tasks::new();
        let archive = open(&folder, change, &tasks);
        Self { folder, topic: TopicName::new("orders"), topic_id: TopicId(Uuid::from_u128(7)), archive, tasks }
    }

    /// As another broker sees it.
    pub(super) fn other(&self) -> Arc<DeltaArchive> {
        open(&self.folder, |_| {}, &Tasks::new())
    }

    pub(super) fn partition(&self, index: i32) -> PartitionId {
        PartitionId { topic: self.topic.clone(), topic_id: self.topic_id, index }
    }

    pub(super) async fn copy(&self, index: i32, batches: &[StoredBatch]) -> Result<ColdBounds, ArchiveError> {
        copy(&self.archive, &self.partition(index), batches, 4).await
    }

    pub(super) async fn tidy(&self) {
        self.archive.tidy(&self.topic, self.topic_id, FileOptions::default()).await.expect("upkeep");
    }

    pub(super) async fn read(&self, read: Read) -> Result<Vec<StoredBatch>, ArchiveError> {
        self.archive.read(&self.partition(0), read).await
    }

    /// All that partition 0 has, read as a consumer does.
    pub(super) async fn read_all(&self) -> Vec<StoredBatch> {
        let mut all: Vec<StoredBatch> = Vec::new();
        loop {
            let offset = all.last().map_or(0, |last| last.last_offset + 1);
            let next = self.read(Read { offset, max_bytes: 10_000, ..EVERYTHING }).await.expect("a read");
            if next.is_empty() {
                return all;
            }
            all.extend(next);
        }
    }

    pub(super) fn table(&self) -> PathBuf {
        self.folder.path().join(self.topic.as_str()).join(self.topic_id.to_string())
    }

    /// The Parquet files of the table, by name.
    pub(super) fn data_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.table()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.expect("an entry").path();
                if path.is_dir() && !path.ends_with("_delta_log") {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "parquet") {
                    files.push(path);
                }
            }
        }
        files.sort();
        files
    }
}

fn open(folder: &TempDir, change: impl Fn(&mut DeltaOptions), tasks: &Tasks) -> Arc<DeltaArchive> {
    let url = url::Url::from_directory_path(folder.path()).expect("a URL");
    let mut options = DeltaOptions::at(url.as_str());
    change(&mut options);
    Arc::new(DeltaArchive::open(options, tasks.clone()).expect("an archive"))
}

/// One copy from the archive's end on, or from the first batch.
pub(super) async fn copy(
    archive: &DeltaArchive,
    partition: &PartitionId,
    batches: &[StoredBatch],
    epoch: i32,
) -> Result<ColdBounds, ArchiveError> {
    let from = batches.first().map_or(0, |first| first.base_offset);
    let mut copy = archive.begin(partition, from, FileOptions::default()).await?;
    copy.write(batches).await?;
    copy.commit(epoch).await
}

/// A file with some bytes changed.
pub(super) fn rewrite(path: &PathBuf, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("a file");
    change(&mut bytes);
    std::fs::write(path, Bytes::from(bytes)).expect("a written file");
}
