//! Checkpoints: all actions of a version in one Parquet file, so that a reader need not walk the log from its beginning.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_json::{LineDelimitedWriter, ReaderBuilder};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef};
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};

use super::actions::Action;

#[derive(Debug, thiserror::Error)]
pub(super) enum CheckpointError {
    #[error("the checkpoint can't be read or written: {0}")]
    Parquet(#[from] ParquetError),
    #[error("the checkpoint can't be read or written: {0}")]
    Arrow(#[from] ArrowError),
    #[error("the checkpoint can't be read: {0}")]
    Action(#[from] serde_json::Error),
}

/// Rows that are made and encoded together.
const BATCH_ROWS: usize = 8 * 1024;

fn text(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, nullable)
}

fn map(name: &str, nullable_values: bool) -> Field {
    let entries = Fields::from(vec![text("key", false), text("value", nullable_values)]);
    let entries = Field::new("key_value", DataType::Struct(entries), false);
    Field::new(name, DataType::Map(Arc::new(entries), false), true)
}

fn group(name: &str, fields: Vec<Field>) -> Field {
    Field::new(name, DataType::Struct(Fields::from(fields)), true)
}

/// The columns that the Delta protocol demands of a checkpoint.
fn columns() -> SchemaRef {
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let integer = |name: &str| Field::new(name, DataType::Int32, true);
    let flag = |name: &str| Field::new(name, DataType::Boolean, true);
    Arc::new(Schema::new(vec![
        group("protocol", vec![integer("minReaderVersion"), integer("minWriterVersion")]),
        group(
            "metaData",
            vec![
                text("id", true),
                text("name", true),
                group("format", vec![text("provider", true), map("options", true)]),
                text("schemaString", true),
                Field::new("partitionColumns", DataType::List(Arc::new(text("element", true))), true),
                map("configuration", true),
                long("createdTime"),
            ],
        ),
        group("txn", vec![text("appId", true), long("version"), long("lastUpdated")]),
        group(
            "add",
            vec![
                text("path", true),
                map("partitionValues", true),
                long("size"),
                long("modificationTime"),
                flag("dataChange"),
                text("stats", true),
                map("tags", true),
            ],
        ),
        group(
            "remove",
            vec![
                text("path", true),
                long("deletionTimestamp"),
                flag("dataChange"),
                flag("extendedFileMetadata"),
                map("partitionValues", true),
                long("size"),
            ],
        ),
    ]))
}

/// What of a checkpoint is read, by its paths in Parquet.
fn leaves() -> Vec<String> {
    let mut leaves = Vec::new();
    for group in columns().fields() {
        if let DataType::Struct(fields) = group.data_type() {
            leaves.extend(fields.iter().map(|field| format!("{}.{}", group.name(), field.name())));
        }
    }
    leaves
}

pub(super) fn encode(actions: &[Action]) -> Result<Bytes, CheckpointError> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), columns(), Some(properties))?;
    for actions in actions.chunks(BATCH_ROWS) {
        let mut decoder = ReaderBuilder::new(columns()).with_batch_size(BATCH_ROWS).build_decoder()?;
        decoder.serialize(actions)?;
        if let Some(rows) = decoder.flush()? {
            writer.write(&rows)?;
        }
    }
    Ok(writer.into_inner()?.into())
}

pub(super) fn decode(bytes: Bytes) -> Result<Vec<Action>, CheckpointError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    // Others add columns, statistics in columns for one, of types that JSON may not have.
    let wanted = ProjectionMask::columns(reader.parquet_schema(), leaves().iter().map(String::as_str));
    let reader = reader.with_projection(wanted).with_batch_size(BATCH_ROWS).build()?;
    let mut actions = Vec::new();
    for rows in reader {
        actions.extend(rows_to_actions(&rows?)?);
    }
    Ok(actions)
}

fn rows_to_actions(rows: &RecordBatch) -> Result<Vec<Action>, CheckpointError> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(rows)?;
    writer.finish()?;
    let lines = writer.into_inner();
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(serde_json::from_slice).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::delta::{
        actions::Remove,
        snapshot::{DataFile, Snapshot, bounds_actions},
    };

    #[test]
    fn a_checkpoint_gives_back_the_snapshot() {
        let mut snapshot = Snapshot::default();
        let mut actions = bounds_actions(3, 5, 20, 7);
        for start in [5, 10, 15] {
            let file = DataFile {
                path: format!("partition=3/date=2026-11-23/{start}.parquet"),
                partition: 3,
                date: (start > 5).then(|| "2026-11-23".to_owned()),
                start,
                end: start + 5,
                max_timestamp: 99,
                size: 1_000,
                footer: 100,
                modified: 1_234,
                stats: r#"{"numRecords":5}"#.to_owned(),
            };
            actions.push(Action::add(file.add(true)));
        }
        snapshot.apply(0, actions).expect("a snapshot");
        let remove = Remove {
            path: "partition=3/date=2026-11-23/10.parquet".to_owned(),
            deletion_timestamp: Some(77),
            data_change: true,
            extended_file_metadata: None,
            partition_values: None,
            size: None,
        };
        snapshot.apply(1, vec![Action::remove(remove)]).expect("a snapshot");

        let decoded = decode(encode(&snapshot.actions()).expect("a checkpoint")).expect("actions");
        let mut read = Snapshot::default();
        read.apply(1, decoded).expect("a snapshot");
        let (before, after) = (snapshot.partition(3).expect("before"), read.partition(3).expect("after"));
        assert_eq!(after.files, before.files);
        assert_eq!((after.start, after.end, after.epoch), (5, 20, 7));
        assert_eq!(read.tombstones, snapshot.tombstones);
        assert_eq!(read.tombstones.len(), 1);
    }
}
