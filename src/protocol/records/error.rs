/// Why a batch from a client is refused. Each variant names the error code that Kafka 4.3.1 answers with.
///
/// What else is in Kafka's answer (asked of a running one): the log start offset, but for CORRUPT_MESSAGE,
/// MESSAGE_TOO_LARGE and what [`super::single_batch`] refuses; an error message with [`InvalidBatch::Rejected`] alone,
/// together with the `record_errors`. `UnknownMagic` and `TooShort`, though, fail the whole request: every
/// partition of it gets CORRUPT_MESSAGE and the variant's `Display` as its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBatch {
    /// INVALID_RECORD: no bytes, or not one whole batch.
    #[error("a produce request must have at least one record batch per partition")]
    Missing,
    /// INVALID_RECORD.
    #[error("a produce request may have only one record batch per partition")]
    MoreThanOne,
    /// INVALID_RECORD: the message formats v0 and v1.
    #[error("record batches of magic {0} are not supported, only of magic 2")]
    OldMagic(i8),
    /// CORRUPT_MESSAGE: neither v0, v1 nor v2.
    #[error("Invalid magic found in record: {0}")]
    UnknownMagic(i8),
    /// CORRUPT_MESSAGE.
    #[error("Record size {0} is less than the minimum record overhead ({minimum})", minimum = minimum_length(*.0))]
    TooShort(i64),
    /// CORRUPT_MESSAGE.
    #[error("record batch is corrupt (stored crc = {stored}, computed crc = {computed})")]
    CrcMismatch { stored: u32, computed: u32 },
    /// INVALID_RECORD: a producer counts offsets within its batch.
    #[error("the base offset of a batch in a produce request should be 0, but it is {0}")]
    BaseOffsetNotZero(i64),
    /// MESSAGE_TOO_LARGE: `max.message.bytes`.
    #[error("the record batch takes {size} bytes, more than the {limit} that the topic accepts")]
    TooLarge { size: usize, limit: usize },
    /// MESSAGE_TOO_LARGE: a limit of Weir's own.
    #[error("the record batch has {count} records, more than the {limit} that are accepted in one batch")]
    TooManyRecords { count: i32, limit: i32 },
    /// MESSAGE_TOO_LARGE: a limit of Weir's own.
    #[error("the records of the batch take more than the {limit} decompressed bytes that are accepted in one batch")]
    DecompressedTooLarge { limit: usize },
    /// UNSUPPORTED_COMPRESSION_TYPE: zstd needs Produce v7.
    #[error("this version of Produce requests may not use ZStandard compression")]
    ZstdNotAllowed,
    /// UNSUPPORTED_COMPRESSION_TYPE (Kafka fails on it with UNKNOWN_SERVER_ERROR).
    #[error("unknown compression type {0}")]
    UnknownCodec(u8),
    /// INVALID_RECORD.
    #[error("record batch has an invalid last offset delta {0}")]
    InvalidOffsetRange(i32),
    /// INVALID_RECORD.
    #[error("invalid reported count for record batch: {0}")]
    InvalidCount(i32),
    /// INVALID_RECORD.
    #[error("the last offset delta {last_offset_delta} and the count of records {count} do not fit together")]
    InconsistentCount { last_offset_delta: i32, count: i32 },
    /// INVALID_RECORD.
    #[error("clients are not allowed to write control records")]
    ControlBatch,
    /// INVALID_RECORD.
    #[error("invalid sequence number {sequence} in a record batch with producer id {producer_id}")]
    InvalidSequence { producer_id: i64, sequence: i32 },
    /// INVALID_RECORD, also where decompression fails (for which Kafka answers UNKNOWN_SERVER_ERROR). No
    /// `record_errors`.
    #[error("record {index} of the batch can't be read: {cause}")]
    Malformed { index: i32, cause: MalformedRecords },
    /// INVALID_TIMESTAMP or INVALID_RECORD (see [`RejectedRecords::any_timestamp`]), with `record_errors`.
    #[error("{} records have been rejected", .0.total)]
    Rejected(RejectedRecords),
}

/// Why the records inside of a batch can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedRecords {
    #[error("the bytes end inside of a record")]
    Truncated,
    #[error("a variable-length number is too long")]
    VarintTooLong,
    #[error("a length points beyond the end of the record")]
    LengthBeyondRecord,
    #[error("the record's length does not match its fields")]
    LengthMismatch,
    #[error("invalid number of record headers {0}")]
    HeaderCount(i32),
    #[error("negative length {0} of a header's name")]
    HeaderName(i32),
    #[error("bytes are left after the last record")]
    TrailingBytes,
    #[error("the records can't be decompressed: {0}")]
    Decompression(String),
    #[error("unknown compression type {0}")]
    UnknownCodec(u8),
    /// The limit that the caller gave; the bytes may be well-formed.
    #[error("the records take more than {0} decompressed bytes")]
    OutputLimit(usize),
}

/// The records that made a whole batch fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRecords {
    /// The first of them, at most [`RejectedRecords::MAX_LISTED`].
    pub records: Vec<RejectedRecord>,
    /// How many there are in total.
    pub total: usize,
    /// One of them, perhaps not listed, has an invalid timestamp: the code is INVALID_TIMESTAMP, else INVALID_RECORD.
    pub any_timestamp: bool,
}

impl RejectedRecords {
    /// Kafka lists them all; this bounds what an answer to a small compressed batch can take.
    pub const MAX_LISTED: usize = 1_000;

    /// Kafka's error message for the partition.
    pub fn message(&self, topic: &str, partition: i32) -> String {
        const SHOWN: usize = 3;
        if self.any_timestamp {
            return "One or more records have been rejected due to invalid timestamp".to_owned();
        }
        let shown: Vec<String> = self
            .records
            .iter()
            .take(SHOWN)
            .map(|record| {
                format!("RecordError(batchIndex={}, message='{}')", record.index, record.message(topic, partition))
            })
            .collect();
        format!(
            "One or more records have been rejected due to {} record errors in total, and only showing the first three errors at most: [{}]",
            self.total,
            shown.join(", ")
        )
    }
}

/// One entry of Produce's `record_errors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RejectedRecord {
    /// `batch_index`: the record's position in the batch, from 0.
    pub index: i32,
    pub fault: RecordFault,
}

impl RejectedRecord {
    /// Kafka's `batch_index_error_message`.
    pub fn message(&self, topic: &str, partition: i32) -> String {
        match self.fault {
            RecordFault::MissingKey => {
                format!("Compacted topic cannot accept message without key in topic partition {topic}-{partition}")
            }
            RecordFault::TimestampOutOfRange { timestamp, offset, earliest, latest } => format!(
                "Timestamp {timestamp} of message with offset {offset} is out of range. The timestamp should be within [{earliest}, {latest}]"
            ),
            RecordFault::LogAppendTimeFromProducer { timestamp, offset } => format!(
                "Invalid timestamp type in message with offset {offset} and timestamp {timestamp}. Producer should not set timestamp type to LogAppendTime."
            ),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFault {
    /// INVALID_RECORD: a compacted topic needs keys.
    MissingKey,
    /// INVALID_TIMESTAMP; all in milliseconds, both bounds inclusive.
    TimestampOutOfRange { timestamp: i64, offset: i64, earliest: i64, latest: i64 },
    /// INVALID_TIMESTAMP: only the broker sets this type.
    LogAppendTimeFromProducer { timestamp: i64, offset: i64 },
}

/// Kafka looks at the length twice: for any format, then for that of v2.
fn minimum_length(length: i64) -> i64 {
    const ANY_FORMAT: i64 = 14;
    const V2: i64 = 49;
    if length < ANY_FORMAT { ANY_FORMAT } else { V2 }
}
