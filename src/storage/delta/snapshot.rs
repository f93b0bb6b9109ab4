//! What a table holds at one version of its log: pure, the log's actions go in.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde_json::json;

use super::{
    actions::{Action, Add, MetaData, Protocol, Remove, Transaction},
    calendar,
    schema::PARTITION_COLUMNS,
};
use crate::log::archive::ColdBounds;

/// What a table needs of whoever reads and writes it: the lowest that Delta has, so everything can.
pub(super) const PROTOCOL: Protocol = Protocol { min_reader_version: 1, min_writer_version: 2 };

/// The applications whose versions (Delta's SetTransaction) are a partition's bounds and its leader's epoch.
const END: &str = "weir-end-";
const START: &str = "weir-start-";
const EPOCH: &str = "weir-epoch-";

/// What only Weir needs to know of a file, in its tags.
const TAG_START: &str = "weir.start_offset";
const TAG_END: &str = "weir.end_offset";
const TAG_MAX_TIMESTAMP: &str = "weir.max_timestamp";
const TAG_FOOTER: &str = "weir.footer_bytes";

/// The log says what Weir never wrote.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("another program has changed the table: {0}")]
pub(super) struct ForeignTable(String);

/// A file with the offsets from `start` to `end` (exclusive) of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DataFile {
    /// Below the table.
    pub(super) path: String,
    pub(super) partition: i32,
    pub(super) date: Option<String>,
    pub(super) start: i64,
    pub(super) end: i64,
    /// The largest record timestamp (ms), -1 for none.
    pub(super) max_timestamp: i64,
    pub(super) size: u64,
    /// Bytes of the footer, at the file's end.
    pub(super) footer: u64,
    /// When it was written (ms).
    pub(super) modified: i64,
    /// Statistics as Delta has them.
    pub(super) stats: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Partition {
    pub(super) start: i64,
    pub(super) end: i64,
    /// Of the leader that committed last, -1 for none.
    pub(super) epoch: i32,
    /// By their first offset. They do not overlap, and follow each other without a gap, but for ranges that hold no record.
    pub(super) files: BTreeMap<i64, Arc<DataFile>>,
}

#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// -1: the table does not exist.
    pub(super) version: i64,
    pub(super) meta_data: Option<MetaData>,
    partitions: HashMap<i32, Arc<Partition>>,
    /// Files that are not part of the table any more, and since when (ms): older snapshots may still be read.
    pub(super) tombstones: HashMap<String, i64>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { version: -1, meta_data: None, partitions: HashMap::new(), tombstones: HashMap::new() }
    }
}

impl Snapshot {
    pub(super) fn exists(&self) -> bool {
        self.version >= 0
    }

    pub(super) fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(&index)
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = (i32, &Arc<Partition>)> {
        self.partitions.iter().map(|(index, partition)| (*index, partition))
    }

    pub(super) fn file_count(&self) -> usize {
        self.partitions.values().map(|partition| partition.files.len()).sum()
    }

    pub(super) fn holds(&self, file: &DataFile) -> bool {
        let partition = self.partitions.get(&file.partition);
        partition.and_then(|partition| partition.files.get(&file.start)).is_some_and(|held| held.path == file.path)
    }

    /// Goes on to `version`, whose actions are these.
    pub(super) fn apply(&mut self, version: i64, actions: Vec<Action>) -> Result<(), ForeignTable> {
        let removed: HashSet<&str> =
            actions.iter().filter_map(|action| action.remove.as_ref()).map(|remove| remove.path.as_str()).collect();
        if !removed.is_empty() {
            for partition in self.partitions.values_mut() {
                if partition.files.values().any(|file| removed.contains(file.path.as_str())) {
                    Arc::make_mut(partition).files.retain(|_, file| !removed.contains(file.path.as_str()));
                }
            }
        }
        for action in actions {
            if let Some(protocol) = action.protocol {
                check_protocol(&protocol)?;
            }
            if let Some(meta_data) = action.meta_data {
                check_meta_data(&meta_data)?;
                self.meta_data = Some(meta_data);
            }
            if let Some(transaction) = action.txn {
                self.move_bound(&transaction);
            }
            if let Some(remove) = action.remove {
                self.tombstones.insert(remove.path, remove.deletion_timestamp.unwrap_or(0));
            }
            if let Some(add) = action.add {
                let file = DataFile::from_add(add)?;
                self.tombstones.remove(&file.path);
                let partition = Arc::make_mut(self.partitions.entry(file.partition).or_insert_with(new_partition));
                if let Some(other) = partition.files.insert(file.start, Arc::new(file)) {
                    return Err(ForeignTable(format!("two files hold the offset {}", other.start)));
                }
            }
        }
        self.version = version;
        Ok(())
    }

    fn move_bound(&mut self, transaction: &Transaction) {
        let bound = [START, END, EPOCH].into_iter().find_map(|kind| {
            let index = transaction.app_id.strip_prefix(kind)?.parse::<i32>().ok()?;
            Some((kind, index))
        });
        let Some((kind, index)) = bound else { return };
        let partition = Arc::make_mut(self.partitions.entry(index).or_insert_with(new_partition));
        match kind {
            START => partition.start = transaction.version,
            END => partition.end = transaction.version,
            _ => partition.epoch = i32::try_from(transaction.version).unwrap_or(i32::MAX),
        }
    }

    pub(super) fn forget_tombstones(&mut self, before: i64) {
        self.tombstones.retain(|_, since| *since > before);
    }

    /// Everything that makes this snapshot, for a checkpoint.
    pub(super) fn actions(&self) -> Vec<Action> {
        let mut actions = vec![Action::protocol(PROTOCOL)];
        actions.extend(self.meta_data.clone().map(Action::meta_data));
        for (index, partition) in &self.partitions {
            actions.extend(bounds_actions(*index, partition.start, partition.end, partition.epoch));
            actions.extend(partition.files.values().map(|file| Action::add(file.add(false))));
        }
        actions.extend(self.tombstones.iter().map(|(path, since)| {
            Action::remove(Remove {
                path: path.clone(),
                deletion_timestamp: Some(*since),
                data_change: false,
                extended_file_metadata: Some(false),
                partition_values: None,
                size: None,
            })
        }));
        actions
    }
}

impl Partition {
    pub(super) fn bounds(&self) -> ColdBounds {
        ColdBounds {
            start_offset: self.start,
            end_offset: self.end,
            max_timestamp: self.files.values().map(|file| file.max_timestamp).max().unwrap_or(-1),
            size_bytes: self.files.values().map(|file| file.size).sum(),
        }
    }

    /// The files that hold something of the offsets from `offset` on, in order.
    pub(super) fn files_from(&self, offset: i64) -> impl Iterator<Item = &Arc<DataFile>> {
        let first = self.files.range(..=offset).next_back().map_or(offset, |(start, _)| *start);
        self.files.range(first..).map(|(_, file)| file).filter(move |file| file.end > offset)
    }
}

fn new_partition() -> Arc<Partition> {
    Arc::new(Partition { epoch: -1, ..Partition::default() })
}

pub(super) fn bounds_actions(partition: i32, start: i64, end: i64, epoch: i32) -> Vec<Action> {
    [(START, start), (END, end), (EPOCH, i64::from(epoch))]
        .map(|(kind, version)| {
            Action::txn(Transaction { app_id: format!("{kind}{partition}"), version, last_updated: None })
        })
        .to_vec()
}

fn check_protocol(protocol: &Protocol) -> Result<(), ForeignTable> {
    if protocol.min_reader_version > PROTOCOL.min_reader_version
        || protocol.min_writer_version > PROTOCOL.min_writer_version
    {
        return Err(ForeignTable(format!(
            "it now asks for reader version {} and writer version {}",
            protocol.min_reader_version, protocol.min_writer_version
        )));
    }
    Ok(())
}

fn check_meta_data(meta_data: &MetaData) -> Result<(), ForeignTable> {
    if meta_data.partition_columns != PARTITION_COLUMNS {
        return Err(ForeignTable(format!("it is partitioned by {:?}", meta_data.partition_columns)));
    }
    // Writer version 2 has to respect it, and retention can't.
    if meta_data.configuration.get("delta.appendOnly").is_some_and(|value| value == "true") {
        return Err(ForeignTable("it is append-only now (delta.appendOnly)".to_owned()));
    }
    Ok(())
}

/// A file's statistics, as Delta has them. `timestamps`: the smallest and the largest that a calendar shows.
pub(super) fn statistics(
    rows: u64,
    offsets: (i64, i64),
    timestamps: Option<(i64, i64)>,
    without_timestamp: u64,
) -> String {
    let mut smallest = json!({"offset": offsets.0});
    let mut largest = json!({"offset": offsets.1});
    if let Some((first, last)) = timestamps {
        smallest["timestamp"] = json!(calendar::instant(first));
        largest["timestamp"] = json!(calendar::instant(last));
    }
    json!({
        "numRecords": rows,
        "minValues": smallest,
        "maxValues": largest,
        "nullCount": {"offset": 0, "timestamp": without_timestamp},
    })
    .to_string()
}

impl DataFile {
    fn partition_values(&self) -> BTreeMap<String, Option<String>> {
        BTreeMap::from([
            ("partition".to_owned(), Some(self.partition.to_string())),
            ("date".to_owned(), self.date.clone()),
        ])
    }

    pub(super) fn add(&self, data_change: bool) -> Add {
        let tags = [
            (TAG_START, self.start.to_string()),
            (TAG_END, self.end.to_string()),
            (TAG_MAX_TIMESTAMP, self.max_timestamp.to_string()),
            (TAG_FOOTER, self.footer.to_string()),
        ];
        Add {
            path: self.path.clone(),
            partition_values: self.partition_values(),
            size: i64::try_from(self.size).unwrap_or(i64::MAX),
            modification_time: self.modified,
            data_change,
            stats: Some(self.stats.clone()),
            tags: Some(tags.into_iter().map(|(name, value)| (name.to_owned(), Some(value))).collect()),
        }
    }

    pub(super) fn remove(&self, now: i64, data_change: bool) -> Remove {
        Remove {
            path: self.path.clone(),
            deletion_timestamp: Some(now),
            data_change,
            extended_file_metadata: Some(true),
            partition_values: Some(self.partition_values()),
            size: i64::try_from(self.size).ok(),
        }
    }

    fn from_add(add: Add) -> Result<Self, ForeignTable> {
        let foreign = || ForeignTable(format!("it added `{}`", add.path));
        let tags = add.tags.as_ref().ok_or_else(foreign)?;
        let tag = |name: &str| {
            let text = tags.get(name).and_then(Option::as_deref);
            text.and_then(|text| text.parse::<i64>().ok()).ok_or_else(foreign)
        };
        let partition = add.partition_values.get("partition").and_then(Option::as_deref);
        Ok(Self {
            partition: partition.and_then(|text| text.parse().ok()).ok_or_else(foreign)?,
            date: add.partition_values.get("date").cloned().flatten(),
            start: tag(TAG_START)?,
            end: tag(TAG_END)?,
            max_timestamp: tag(TAG_MAX_TIMESTAMP)?,
            size: u64::try_from(add.size).map_err(|_| foreign())?,
            footer: u64::try_from(tag(TAG_FOOTER)?).map_err(|_| foreign())?,
            modified: add.modification_time,
            stats: add.stats.clone().unwrap_or_default(),
            path: add.path,
        })
    }
}
