//! Tests of the parts together; what one file does alone is tested in it.

mod clients;
mod hostile;
mod kafka_rules;
mod round_trip;

use bytes::Bytes;

use super::*;

const NOW: i64 = 1_800_000_000_000;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const MEBIBYTE: usize = 1024 * 1024;

/// What Kafka accepts by default.
fn default_limits() -> ValidationLimits {
    ValidationLimits {
        now: NOW,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max: i64::MAX,
        timestamp_after_max: 3_600_000,
        compacted: false,
        max_batch_bytes: MEBIBYTE,
        max_records: 100_000,
        max_decompressed_bytes: 16 * MEBIBYTE,
        keep_records: false,
    }
}

type OwnedHeaders = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnedRecord {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: OwnedHeaders,
}

impl OwnedRecord {
    fn at(offset: i64, timestamp: i64) -> Self {
        OwnedRecord { offset, timestamp, key: Some(b"k".to_vec()), value: Some(b"v".to_vec()), headers: Vec::new() }
    }

    fn of(view: &RecordView<'_>) -> Self {
        OwnedRecord {
            offset: view.offset,
            timestamp: view.timestamp,
            key: view.key.map(<[u8]>::to_vec),
            value: view.value.map(<[u8]>::to_vec),
            headers: view.headers.clone().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
        }
    }
}

fn build(options: BatchOptions, records: &[OwnedRecord]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for record in records {
        let headers = record.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref()));
        builder
            .push(NewRecord {
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers,
            })
            .expect("the test's records fit into a batch");
    }
    builder.finish().expect("the test's batch is not empty")
}

fn with_codec(codec: Codec) -> BatchOptions {
    BatchOptions { compression: Compression::new(codec), ..BatchOptions::default() }
}

fn read(records: &Records) -> Vec<OwnedRecord> {
    records.iter().map(|record| OwnedRecord::of(&record.expect("a record can be read"))).collect()
}

fn check(bytes: Bytes, limits: &ValidationLimits) -> Result<ValidatedBatch, InvalidBatch> {
    validate(single_batch(bytes, true)?, limits)
}

/// Changes the header of a batch and makes its length and CRC right again.
fn edit(bytes: &Bytes, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let batch = Batch::parse(bytes.clone()).expect("the test's batch can be parsed");
    let mut header = *batch.header();
    change(&mut header);
    resealed(header, &batch.payload())
}

/// A batch of this header and these stored records.
fn resealed(mut header: BatchHeader, payload: &[u8]) -> Bytes {
    header.batch_length = i32::try_from(HEADER_LENGTH - LOG_OVERHEAD + payload.len()).expect("a small batch");
    header.crc = header.compute_crc(payload);
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(payload);
    Bytes::from(bytes)
}

/// An uncompressed batch that claims to hold `count` records and holds `payload`.
fn batch_of_payload(count: i32, payload: &[u8]) -> Bytes {
    let sample = Batch::parse(build(BatchOptions::default(), &[OwnedRecord::at(0, NOW)])).expect("a batch");
    let header = BatchHeader { record_count: count, last_offset_delta: count - 1, ..*sample.header() };
    resealed(header, payload)
}
