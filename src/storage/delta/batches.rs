//! Rows made into record batches again.

use arrow_array::{
    Array, BinaryArray, BooleanArray, Int16Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    StructArray, TimestampMicrosecondArray,
    cast::AsArray,
    types::{Int16Type, Int32Type, Int64Type, TimestampMicrosecondType},
};

use super::{
    rows::LOG_APPEND_TIME,
    schema::{self, column},
};
use crate::{
    log::store::{StoredBatch, TimestampedOffset},
    protocol::records::{
        BatchBuilder, BatchOptions, BuildError, Codec, Compression, HEADER_LENGTH, NO_SEQUENCE, NO_TIMESTAMP,
        NewRecord, PlacedBatch, ProducerStamp, TimestampType, increment_sequence,
    },
};

/// A batch is ended when its records take this much (bytes, uncompressed).
const BATCH_BYTES: usize = 256 * 1024;

/// What lengths and differences of a record take at most.
const RECORD_OVERHEAD: usize = 36;

/// Rows of one row group, in memory.
pub(super) struct Rows {
    batch: RecordBatch,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum RowsError {
    #[error("the columns are not those of an archived topic")]
    Columns,
    #[error("the rows make no batch: {0}")]
    Build(#[from] BuildError),
}

/// What is filled so far of what was asked for.
#[derive(Default)]
pub(super) struct Filling {
    pub(super) batches: Vec<StoredBatch>,
    pub(super) bytes: usize,
    pub(super) full: bool,
}

struct Columns<'a> {
    offset: &'a Int64Array,
    timestamp: &'a TimestampMicrosecondArray,
    timestamp_type: &'a StringArray,
    key: &'a BinaryArray,
    value: &'a BinaryArray,
    value_json: &'a StringArray,
    headers: &'a ListArray,
    header_names: &'a StringArray,
    header_values: &'a BinaryArray,
    header_name_bytes: &'a BinaryArray,
    leader_epoch: &'a Int32Array,
    producer_id: &'a Int64Array,
    producer_epoch: &'a Int16Array,
    sequence: &'a Int32Array,
    transactional: &'a BooleanArray,
    control: &'a StringArray,
    timestamp_ms: &'a Int64Array,
}

/// What records of one batch have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Common {
    timestamp_type: TimestampType,
    /// With LogAppendTime all records of a batch have one.
    append_time: Option<i64>,
    leader_epoch: i32,
    producer: Option<(i64, i16)>,
    transactional: bool,
    control: bool,
}

impl Rows {
    /// # Errors
    /// [`RowsError::Columns`] if a column is missing or has another type.
    pub(super) fn new(batch: RecordBatch) -> Result<Self, RowsError> {
        if batch.schema().fields() != schema::columns().fields() {
            return Err(RowsError::Columns);
        }
        Ok(Self { batch })
    }

    pub(super) fn memory(&self) -> usize {
        self.batch.get_array_memory_size()
    }

    pub(super) fn offsets(&self) -> &[i64] {
        self.batch.column(column::OFFSET).as_primitive::<Int64Type>().values()
    }

    /// Of the records from `start_offset` on the first whose timestamp is at least `timestamp`.
    pub(super) fn first_at_or_after(&self, start_offset: i64, timestamp: i64) -> Option<TimestampedOffset> {
        let columns = Columns::of(&self.batch);
        self.range(start_offset, i64::MAX)
            .find(|row| columns.timestamp(*row) >= timestamp)
            .map(|row| columns.place(row))
    }

    /// Of the records from `start_offset` on the first that has the largest timestamp.
    pub(super) fn largest_timestamp(&self, start_offset: i64) -> Option<TimestampedOffset> {
        let columns = Columns::of(&self.batch);
        let row = self.range(start_offset, i64::MAX).min_by_key(|row| std::cmp::Reverse(columns.timestamp(*row)))?;
        Some(columns.place(row))
    }

    fn range(&self, start_offset: i64, end_offset: i64) -> std::ops::Range<usize> {
        let offsets = self.offsets();
        let start = offsets.partition_point(|offset| *offset < start_offset);
        start..offsets.partition_point(|offset| *offset < end_offset).max(start)
    }

    /// Encodes the records of the offsets from `start_offset` to `end_offset` (exclusive), up to `max_bytes` in all. The first
    /// batch is made whatever it takes.
    pub(super) fn encode(
        &self,
        start_offset: i64,
        end_offset: i64,
        max_bytes: usize,
        codec: Codec,
        filling: &mut Filling,
    ) -> Result<(), RowsError> {
        let columns = Columns::of(&self.batch);
        let rows = self.range(start_offset, end_offset);
        let mut next = rows.start;
        while next < rows.end && !filling.full {
            let room = max_bytes.saturating_sub(filling.bytes);
            if !filling.batches.is_empty() && room < (BATCH_BYTES / 8).min(max_bytes / 8) {
                filling.full = true;
                break;
            }
            let (end, stored) = columns.batch(next, rows.end, room.min(BATCH_BYTES), codec)?;
            if !filling.batches.is_empty() && stored.size() > room {
                filling.full = true;
                break;
            }
            filling.bytes += stored.size();
            filling.full = filling.bytes >= max_bytes;
            filling.batches.push(stored);
            next = end;
        }
        Ok(())
    }
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Self {
        let headers: &ListArray = batch.column(column::HEADERS).as_list();
        let header: &StructArray = headers.values().as_struct();
        Self {
            offset: batch.column(column::OFFSET).as_primitive::<Int64Type>(),
            timestamp: batch.column(column::TIMESTAMP).as_primitive::<TimestampMicrosecondType>(),
            timestamp_type: batch.column(column::TIMESTAMP_TYPE).as_string(),
            key: batch.column(column::KEY).as_binary(),
            value: batch.column(column::VALUE).as_binary(),
            value_json: batch.column(column::VALUE_JSON).as_string(),
            headers,
            header_names: header.column(0).as_string(),
            header_values: header.column(1).as_binary(),
            header_name_bytes: header.column(2).as_binary(),
            leader_epoch: batch.column(column::LEADER_EPOCH).as_primitive::<Int32Type>(),
            producer_id: batch.column(column::PRODUCER_ID).as_primitive::<Int64Type>(),
            producer_epoch: batch.column(column::PRODUCER_EPOCH).as_primitive::<Int16Type>(),
            sequence: batch.column(column::SEQUENCE).as_primitive::<Int32Type>(),
            transactional: batch.column(column::TRANSACTIONAL).as_boolean(),
            control: batch.column(column::CONTROL).as_string(),
            timestamp_ms: batch.column(column::TIMESTAMP_MS).as_primitive::<Int64Type>(),
        }
    }

    fn timestamp(&self, row: usize) -> i64 {
        if self.timestamp.is_valid(row) {
            self.timestamp.value(row).div_euclid(1_000)
        } else if self.timestamp_ms.is_valid(row) {
            self.timestamp_ms.value(row)
        } else {
            NO_TIMESTAMP
        }
    }

    fn place(&self, row: usize) -> TimestampedOffset {
        TimestampedOffset {
            offset: self.offset.value(row),
            timestamp: self.timestamp(row),
            leader_epoch: self.leader_epoch.value(row),
        }
    }

    fn common(&self, row: usize) -> Common {
        let append_time = self.timestamp_type.value(row) == LOG_APPEND_TIME;
        Common {
            timestamp_type: if append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
            append_time: append_time.then(|| self.timestamp(row)),
            leader_epoch: self.leader_epoch.value(row),
            producer: self
                .producer_id
                .is_valid(row)
                .then(|| (self.producer_id.value(row), self.producer_epoch.value(row))),
            transactional: self.transactional.value(row),
            control: self.control.is_valid(row),
        }
    }

    fn sequence(&self, row: usize) -> i32 {
        if self.sequence.is_valid(row) { self.sequence.value(row) } else { NO_SEQUENCE }
    }

    /// Whether the record of `row` may stand in a batch that begins with that of `first`.
    fn belongs(&self, first: usize, row: usize) -> bool {
        let Ok(delta) = i32::try_from(self.offset.value(row) - self.offset.value(first)) else { return false };
        let follows = match self.sequence(first) {
            NO_SEQUENCE => self.sequence(row) == NO_SEQUENCE,
            sequence => self.sequence(row) == increment_sequence(sequence, delta),
        };
        follows && self.common(row) == self.common(first)
    }

    /// A batch of the rows from `first` on, and the row after its last.
    fn batch(&self, first: usize, end: usize, bytes: usize, codec: Codec) -> Result<(usize, StoredBatch), RowsError> {
        let common = self.common(first);
        let mut builder = BatchBuilder::new(BatchOptions {
            compression: Compression::new(codec),
            timestamp_type: common.timestamp_type,
            partition_leader_epoch: common.leader_epoch,
            producer: common.producer.map(|(producer_id, producer_epoch)| ProducerStamp {
                producer_id,
                producer_epoch,
                base_sequence: self.sequence(first),
            }),
            is_transactional: common.transactional,
            is_control: common.control,
        });
        let mut next = first;
        let mut max_timestamp = NO_TIMESTAMP;
        while next < end && (next == first || self.belongs(first, next)) {
            let key = self.key.is_valid(next).then(|| self.key.value(next));
            let value = if self.value_json.is_valid(next) {
                Some(self.value_json.value(next).as_bytes())
            } else {
                self.value.is_valid(next).then(|| self.value.value(next))
            };
            let length = RECORD_OVERHEAD + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
            let in_headers = |(name, value): (&[u8], Option<&[u8]>)| 10 + name.len() + value.map_or(0, <[u8]>::len);
            let length = length + self.headers(next).map(in_headers).sum::<usize>();
            if next > first && builder.size() + length > bytes.max(HEADER_LENGTH) {
                break;
            }
            let timestamp = self.timestamp(next);
            let record =
                NewRecord { offset: self.offset.value(next), timestamp, key, value, headers: self.headers(next) };
            builder.push(record)?;
            max_timestamp = max_timestamp.max(timestamp);
            next += 1;
        }
        let (base_offset, last_offset) = (self.offset.value(first), self.offset.value(next - 1));
        let bytes = builder.finish()?;
        let batch = PlacedBatch::split(&bytes).ok_or(BuildError::Empty)?;
        Ok((next, StoredBatch { base_offset, last_offset, max_timestamp, batch }))
    }

    fn headers(&self, row: usize) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone + use<'a> {
        let offsets = self.headers.value_offsets();
        let bound = |at: usize| usize::try_from(offsets[at]).unwrap_or(0);
        let (names, values, exact) = (self.header_names, self.header_values, self.header_name_bytes);
        (bound(row)..bound(row + 1)).map(move |at| {
            let name = if exact.is_valid(at) { exact.value(at) } else { names.value(at).as_bytes() };
            (name, values.is_valid(at).then(|| values.value(at)))
        })
    }
}
