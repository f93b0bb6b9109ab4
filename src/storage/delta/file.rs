//! One Parquet file: written row group by row group, read one row group at a time.

use std::sync::Arc;

use bytes::{Buf, Bytes, buf::Reader};
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
        arrow_writer::ArrowWriterOptions,
    },
    errors::ParquetError,
    file::{
        metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader},
        reader::{ChunkReader, Length},
    },
};
use serde::{Deserialize, Serialize};

use arrow_array::RecordBatch;

use super::{
    batches::{Rows, RowsError},
    schema,
};

/// Under this key a file's footer says what its row groups hold.
const ROW_GROUPS_KEY: &str = "weir.row_groups";
const MAGIC: &[u8] = b"PAR1";
/// The length of the metadata, and the magic bytes: what ends a file.
const TAIL: usize = 8;

/// What is wrong with a file that was read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    #[error(transparent)]
    Arrow(#[from] arrow_schema::ArrowError),
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error("the footer is not Weir's: {0}")]
    Footer(String),
    #[error("the checksum of row group {0} is wrong")]
    Checksum(usize),
    #[error("row group {0} does not hold the offsets that the footer says")]
    Offsets(usize),
}

/// What a row group holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RowGroup {
    pub(super) first_offset: i64,
    /// Inclusive.
    pub(super) last_offset: i64,
    /// The largest record timestamp (ms), -1 for none.
    pub(super) max_timestamp: i64,
    /// Of the row group's bytes.
    pub(super) crc32c: u32,
}

/// Encodes rows as a Parquet file; the bytes are taken out as they come.
pub(super) struct FileEncoder {
    writer: ArrowWriter<Vec<u8>>,
    groups: Vec<RowGroup>,
    taken: usize,
}

impl FileEncoder {
    pub(super) fn new(zstd_level: i32) -> Result<Self, FileError> {
        let options = ArrowWriterOptions::new().with_properties(schema::writer_properties(zstd_level)?);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), schema::columns(), options)?;
        Ok(Self { writer, groups: Vec::new(), taken: 0 })
    }

    /// One row group. Returns the bytes to be stored.
    pub(super) fn write(&mut self, rows: &RecordBatch, max_timestamp: i64) -> Result<Bytes, FileError> {
        self.writer.write(rows)?;
        self.writer.flush()?;
        let before = self.taken;
        let bytes = self.take()?;
        let group = if before == 0 { bytes.slice(MAGIC.len().min(bytes.len())..) } else { bytes.clone() };
        let offsets = rows.column(schema::column::OFFSET);
        let offsets: &arrow_array::Int64Array = arrow_array::cast::AsArray::as_primitive(offsets);
        let bounds = offsets.values().first().zip(offsets.values().last());
        let (first_offset, last_offset) = bounds.map_or((0, -1), |(first, last)| (*first, *last));
        let crc32c = crc32c::crc32c(&group);
        self.groups.push(RowGroup { first_offset, last_offset, max_timestamp, crc32c });
        Ok(bytes)
    }

    /// The bytes of the footer; the file is whole with them.
    pub(super) fn finish(mut self) -> Result<(Bytes, Vec<RowGroup>), FileError> {
        let groups = serde_json::to_string(&self.groups).map_err(|error| FileError::Footer(error.to_string()))?;
        self.writer.append_key_value_metadata(KeyValue::new(ROW_GROUPS_KEY.to_owned(), groups));
        self.writer.finish()?;
        Ok((self.take()?, self.groups))
    }

    fn take(&mut self) -> Result<Bytes, FileError> {
        self.writer.sync().map_err(ParquetError::from)?;
        let bytes = std::mem::take(self.writer.inner_mut());
        self.taken += bytes.len();
        Ok(bytes.into())
    }
}

/// What must be known of a file to read from it.
pub(super) struct FileIndex {
    metadata: ArrowReaderMetadata,
    groups: Vec<RowGroup>,
}

impl FileIndex {
    /// `tail` is the end of the file, at least what [`FileEncoder::finish`] returned.
    pub(super) fn parse(tail: &Bytes) -> Result<Self, FileError> {
        let damaged = || FileError::Footer("its end is not that of a Parquet file".to_owned());
        let end = tail.len().checked_sub(TAIL).ok_or_else(damaged)?;
        let (length, magic) = tail.get(end..).and_then(|tail| tail.split_at_checked(4)).ok_or_else(damaged)?;
        let length = length.first_chunk().copied().map(u32::from_le_bytes).ok_or_else(damaged)?;
        let start = usize::try_from(length).ok().and_then(|length| end.checked_sub(length));
        let encoded = start.and_then(|start| tail.get(start..end)).filter(|_| magic == MAGIC).ok_or_else(damaged)?;
        let metadata = ParquetMetaDataReader::decode_metadata(encoded)?;
        let groups = stored_groups(&metadata)?;
        Ok(Self { metadata: ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())?, groups })
    }

    pub(super) fn groups(&self) -> &[RowGroup] {
        &self.groups
    }

    pub(super) fn memory(&self) -> usize {
        self.metadata.metadata().memory_size() + self.groups.len() * size_of::<RowGroup>()
    }

    /// Where the bytes of a row group lie.
    pub(super) fn range(&self, group: usize) -> std::ops::Range<u64> {
        let Some(metadata) = self.metadata.metadata().row_groups().get(group) else { return 0..0 };
        let ranges = || metadata.columns().iter().map(|column| column.byte_range());
        let start = ranges().map(|(start, _)| start).min().unwrap_or(0);
        start..ranges().map(|(start, length)| start.saturating_add(length)).max().unwrap_or(0)
    }

    /// The rows of a row group, whose bytes are those of [`FileIndex::range`].
    pub(super) fn decode(&self, group: usize, bytes: Bytes) -> Result<Rows, FileError> {
        let expected = self.groups.get(group).ok_or(FileError::Offsets(group))?;
        if crc32c::crc32c(&bytes) != expected.crc32c {
            return Err(FileError::Checksum(group));
        }
        let count = self.metadata.metadata().row_groups().get(group).map_or(0, |metadata| metadata.num_rows());
        let window = Window { start: self.range(group).start, bytes };
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(window, self.metadata.clone())
            .with_row_groups(vec![group])
            .with_batch_size(usize::try_from(count).unwrap_or(0).max(1))
            .build()?;
        let batch = reader.into_iter().next().ok_or(FileError::Offsets(group))??;
        let rows = Rows::new(batch)?;
        let offsets = rows.offsets();
        let bounds = offsets.first().zip(offsets.last());
        if bounds != Some((&expected.first_offset, &expected.last_offset)) {
            return Err(FileError::Offsets(group));
        }
        Ok(rows)
    }
}

fn stored_groups(metadata: &ParquetMetaData) -> Result<Vec<RowGroup>, FileError> {
    let file = metadata.file_metadata();
    let entry = file.key_value_metadata().and_then(|entries| entries.iter().find(|entry| entry.key == ROW_GROUPS_KEY));
    let text = entry.and_then(|entry| entry.value.as_deref());
    let text = text.ok_or_else(|| FileError::Footer(format!("without {ROW_GROUPS_KEY}")))?;
    let groups: Vec<RowGroup> = serde_json::from_str(text).map_err(|error| FileError::Footer(error.to_string()))?;
    if groups.len() != metadata.num_row_groups() {
        return Err(FileError::Footer("the count of row groups differs".to_owned()));
    }
    Ok(groups)
}

/// A part of a file, at its place.
struct Window {
    start: u64,
    bytes: Bytes,
}

impl Window {
    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        let at = start.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let at = at.filter(|at| *at <= self.bytes.len());
        Ok(self.bytes.slice(at.ok_or_else(|| ParquetError::EOF(format!("byte {start} is not in the row group")))?..))
    }
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Window {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.from(start)?;
        if length > bytes.len() {
            return Err(ParquetError::EOF(format!("{length} bytes from {start} are not in the row group")));
        }
        Ok(bytes.slice(..length))
    }
}
