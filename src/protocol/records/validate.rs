use bytes::Bytes;

use super::compression::{Codec, Decompressor, decompress};
use super::error::{InvalidBatch, MalformedRecords, RecordFault, RejectedRecord, RejectedRecords};
use super::header::{BatchHeader, NO_TIMESTAMP, TimestampType};
use super::source::{RecordSummary, SliceSource, Source, StreamSource, summarize_record};
use super::split::Batch;
use super::view::Records;

/// What a topic and the broker accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidationLimits {
    /// Milliseconds since 1970.
    pub now: i64,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max: i64,
    /// `cleanup.policy` contains `compact`: every record needs a key.
    pub compacted: bool,
    /// `max.message.bytes`: of the batch as it is sent, compressed.
    pub max_batch_bytes: usize,
    /// Weir's own, inclusive.
    pub max_records: i32,
    /// Weir's own, inclusive: of the records of a compressed batch. An uncompressed one has `max_batch_bytes`.
    pub max_decompressed_bytes: usize,
    /// Keep the decompressed records for [`ValidatedBatch::records`], instead of only reading over them.
    pub keep_records: bool,
}

/// A batch from a client that may be appended.
#[derive(Debug, Clone)]
pub struct ValidatedBatch {
    pub(super) batch: Batch,
    pub(super) payload: Option<Bytes>,
    pub(super) max_timestamp: i64,
    pub(super) max_timestamp_index: Option<i32>,
    pub(super) offsets_contiguous: bool,
}

impl ValidatedBatch {
    /// The header as the client sent it.
    pub fn header(&self) -> &BatchHeader {
        self.batch.header()
    }

    /// The batch as the client sent it.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    pub fn record_count(&self) -> i32 {
        self.header().record_count
    }

    /// The largest timestamp of the records, at least -1. The header may have stated another one.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Position of the first record that has the largest timestamp; none if all are below -1.
    /// With LogAppendTime, where all records get the same timestamp, Kafka takes the first record instead.
    pub fn max_timestamp_index(&self) -> Option<i32> {
        self.max_timestamp_index
    }

    /// False if the records do not count their offsets from 0 without gaps; see [`ValidatedBatch::needs_rebuild`].
    pub fn offsets_contiguous(&self) -> bool {
        self.offsets_contiguous
    }

    /// Kept from the validation, or decompressed now, at most `max_decompressed_bytes`. Offsets count from the
    /// header's base offset, also where [`ValidatedBatch::offsets_contiguous`] is false.
    /// Timestamps are the records' own (of type CreateTime).
    ///
    /// # Errors
    /// [`MalformedRecords::OutputLimit`]; others can't occur, since the batch was read before.
    pub fn records(&self, max_decompressed_bytes: usize) -> Result<Records, MalformedRecords> {
        let header = self.stored_header();
        let payload = match &self.payload {
            Some(payload) => payload.clone(),
            None => self.batch.records(max_decompressed_bytes)?.payload().clone(),
        };
        Ok(Records::from_parts(header, payload, !self.offsets_contiguous))
    }

    /// The header with what Kafka corrects in it: a producer can't choose LogAppendTime, and the maximum timestamp is that of the records.
    pub(super) fn stored_header(&self) -> BatchHeader {
        let mut header = *self.header();
        header.attributes = header.attributes.with_timestamp_type(TimestampType::CreateTime);
        header.max_timestamp = self.max_timestamp;
        header
    }
}

/// Checks a batch from a client as Kafka 4.3.1 does (`UnifiedLog.analyzeAndValidateRecords`, then `LogValidator`), in
/// the same order. Differences: malformed lengths inside a compressed batch are refused too, and see
/// [`RecordCheck::timestamp_fault`]. Whether the producer's sequence is the next one is not decided here.
///
/// # Errors
/// [`InvalidBatch`]: tell the client.
pub fn validate(batch: Batch, limits: &ValidationLimits) -> Result<ValidatedBatch, InvalidBatch> {
    let header = *batch.header();
    if header.base_offset != 0 {
        return Err(InvalidBatch::BaseOffsetNotZero(header.base_offset));
    }
    if header.size() > limits.max_batch_bytes {
        return Err(InvalidBatch::TooLarge { size: header.size(), limit: limits.max_batch_bytes });
    }
    batch.check_crc()?;
    let codec = header.codec().map_err(InvalidBatch::UnknownCodec)?;
    check_header(&header)?;
    if header.record_count > limits.max_records {
        return Err(InvalidBatch::TooManyRecords { count: header.record_count, limit: limits.max_records });
    }

    let stored = batch.payload();
    let mut check = RecordCheck::new(&header, limits);
    let payload = if codec == Codec::None {
        check.read_all(&mut SliceSource::new(&stored))?;
        Some(stored)
    } else if limits.keep_records {
        let payload = decompress(codec, &stored, limits.max_decompressed_bytes).map_err(|cause| malformed(0, cause))?;
        check.read_all(&mut SliceSource::new(&payload))?;
        Some(Bytes::from(payload))
    } else {
        let decompressor =
            Decompressor::new(codec, &stored, limits.max_decompressed_bytes).map_err(|cause| malformed(0, cause))?;
        check.read_all(&mut StreamSource::new(decompressor, limits.max_decompressed_bytes))?;
        None
    };
    if let Some(rejected) = check.rejected {
        return Err(InvalidBatch::Rejected(*rejected));
    }
    Ok(ValidatedBatch {
        payload,
        max_timestamp: check.max_timestamp,
        max_timestamp_index: check.max_timestamp_index,
        offsets_contiguous: check.offsets_contiguous,
        batch,
    })
}

fn check_header(header: &BatchHeader) -> Result<(), InvalidBatch> {
    let last_offset_delta = header.last_offset_delta;
    let count = header.record_count;
    if last_offset_delta < 0 {
        return Err(InvalidBatch::InvalidOffsetRange(last_offset_delta));
    }
    if count <= 0 {
        return Err(InvalidBatch::InvalidCount(count));
    }
    if last_offset_delta != count - 1 {
        return Err(InvalidBatch::InconsistentCount { last_offset_delta, count });
    }
    if header.is_control() {
        return Err(InvalidBatch::ControlBatch);
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        return Err(InvalidBatch::InvalidSequence { producer_id: header.producer_id, sequence: header.base_sequence });
    }
    Ok(())
}

fn malformed(index: i32, cause: MalformedRecords) -> InvalidBatch {
    match cause {
        MalformedRecords::OutputLimit(limit) => InvalidBatch::DecompressedTooLarge { limit },
        cause => InvalidBatch::Malformed { index, cause },
    }
}

struct RecordCheck<'a> {
    header: &'a BatchHeader,
    limits: &'a ValidationLimits,
    max_timestamp: i64,
    max_timestamp_index: Option<i32>,
    offsets_contiguous: bool,
    rejected: Option<Box<RejectedRecords>>,
}

impl<'a> RecordCheck<'a> {
    fn new(header: &'a BatchHeader, limits: &'a ValidationLimits) -> Self {
        RecordCheck {
            header,
            limits,
            max_timestamp: NO_TIMESTAMP,
            max_timestamp_index: None,
            offsets_contiguous: true,
            rejected: None,
        }
    }

    fn read_all<S: Source>(&mut self, source: &mut S) -> Result<(), InvalidBatch> {
        let count = self.header.record_count;
        for index in 0..count {
            let record = summarize_record(source).map_err(|cause| malformed(index, cause))?;
            self.check(index, record);
        }
        if source.is_at_end().map_err(|cause| malformed(count, cause))? {
            Ok(())
        } else {
            Err(malformed(count, MalformedRecords::TrailingBytes))
        }
    }

    #[inline]
    fn check(&mut self, index: i32, record: RecordSummary) {
        let timestamp = self.header.base_timestamp.wrapping_add(record.timestamp_delta);
        if self.limits.compacted && !record.has_key {
            self.reject(index, RecordFault::MissingKey);
        } else if let Some(fault) = self.timestamp_fault(timestamp, record.offset_delta) {
            self.reject(index, fault);
        }
        if timestamp > self.max_timestamp {
            self.max_timestamp = timestamp;
            self.max_timestamp_index = Some(index);
        }
        self.offsets_contiguous &= record.offset_delta == index;
    }

    /// On a topic with CreateTime, Kafka judges a batch that a producer marked as LogAppendTime by its maximum
    /// timestamp, then clears the mark, and with it the records' own timestamps count, unchecked. Here those must be in
    /// range too.
    #[inline]
    fn timestamp_fault(&self, timestamp: i64, offset_delta: i32) -> Option<RecordFault> {
        let offset = i64::from(offset_delta);
        let marked = self.header.timestamp_type() == TimestampType::LogAppendTime;
        let judged = if marked { self.header.max_timestamp } else { timestamp };
        if self.limits.timestamp_type == TimestampType::CreateTime && judged != NO_TIMESTAMP {
            self.out_of_range(judged, offset).or_else(|| self.out_of_range(timestamp, offset).filter(|_| marked))
        } else if marked {
            Some(RecordFault::LogAppendTimeFromProducer { timestamp: judged, offset })
        } else {
            None
        }
    }

    #[inline]
    fn out_of_range(&self, timestamp: i64, offset: i64) -> Option<RecordFault> {
        let limits = self.limits;
        let age = limits.now.wrapping_sub(timestamp);
        (age > limits.timestamp_before_max || age.wrapping_neg() > limits.timestamp_after_max).then(|| {
            RecordFault::TimestampOutOfRange {
                timestamp,
                offset,
                earliest: limits.now.wrapping_sub(limits.timestamp_before_max),
                latest: limits.now.wrapping_add(limits.timestamp_after_max),
            }
        })
    }

    #[cold]
    fn reject(&mut self, index: i32, fault: RecordFault) {
        let rejected = self
            .rejected
            .get_or_insert_with(|| Box::new(RejectedRecords { records: Vec::new(), total: 0, any_timestamp: false }));
        rejected.total += 1;
        rejected.any_timestamp |= !matches!(fault, RecordFault::MissingKey);
        if rejected.records.len() < RejectedRecords::MAX_LISTED {
            rejected.records.push(RejectedRecord { index, fault });
        }
    }
}
