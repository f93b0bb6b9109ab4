use bytes::Bytes;

use super::compression::{Codec, Compression, compress};
use super::header::{
    Attributes, BatchHeader, HEADER_LENGTH, LOG_OVERHEAD, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID,
    NO_SEQUENCE, NO_TIMESTAMP, TimestampType,
};
use super::varint::{varint_length, write_varint, write_varlong};

/// What a batch says about itself, apart from its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOptions {
    pub compression: Compression,
    /// With LogAppendTime every record reads as having the largest timestamp that was pushed.
    pub timestamp_type: TimestampType,
    pub partition_leader_epoch: i32,
    pub producer: Option<ProducerStamp>,
    pub is_transactional: bool,
    pub is_control: bool,
}

impl Default for BatchOptions {
    fn default() -> Self {
        BatchOptions {
            compression: Compression::new(Codec::None),
            timestamp_type: TimestampType::CreateTime,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer: None,
            is_transactional: false,
            is_control: false,
        }
    }
}

/// The producer that wrote a batch. `base_sequence` is that of the batch's first record, or [`NO_SEQUENCE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
}

/// A record to be encoded. `headers` is read twice.
#[derive(Debug, Clone)]
pub struct NewRecord<'a, H> {
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: H,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("offset {offset} does not come after offset {previous}")]
    OffsetNotIncreasing { previous: i64, offset: i64 },
    #[error("offset {offset} is too far from the batch's base offset {base_offset}")]
    OffsetTooFar { base_offset: i64, offset: i64 },
    #[error("a record or batch of more than 2 GiB")]
    TooLarge,
    #[error("a batch without records")]
    Empty,
    #[error("the records can't be compressed: {0}")]
    Compression(String),
}

/// Encodes records into one batch. The first record's offset becomes the base offset; later ones may leave gaps.
///
/// ```
/// use weir::protocol::records::{BatchBuilder, BatchOptions, NewRecord};
///
/// let mut builder = BatchBuilder::new(BatchOptions::default());
/// let headers = [(&b"trace"[..], Some(&b"1"[..])), (b"empty", None)];
/// builder.push(NewRecord { offset: 7, timestamp: 1_000, key: None, value: Some(b"v"), headers: headers.iter().copied() })?;
/// let batch = builder.finish()?;
/// # Ok::<(), weir::protocol::records::BuildError>(())
/// ```
#[derive(Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    base_offset: i64,
    last_offset: i64,
    base_timestamp: i64,
    max_timestamp: i64,
    record_count: i32,
    payload: Vec<u8>,
}

impl BatchBuilder {
    pub fn new(options: BatchOptions) -> Self {
        BatchBuilder {
            options,
            base_offset: 0,
            last_offset: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            record_count: 0,
            payload: Vec::new(),
        }
    }

    /// # Errors
    /// All but `Empty` and `Compression`; the builder is then as it was before.
    pub fn push<'a, H>(&mut self, record: NewRecord<'a, H>) -> Result<(), BuildError>
    where
        H: Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone,
    {
        let offset = record.offset;
        if self.record_count == 0 {
            self.base_offset = offset;
            self.base_timestamp = record.timestamp;
        } else if offset <= self.last_offset {
            return Err(BuildError::OffsetNotIncreasing { previous: self.last_offset, offset });
        }
        let offset_delta = offset
            .checked_sub(self.base_offset)
            .and_then(|delta| i32::try_from(delta).ok())
            .ok_or(BuildError::OffsetTooFar { base_offset: self.base_offset, offset })?;
        encode_record(
            record.timestamp.wrapping_sub(self.base_timestamp),
            offset_delta,
            record.key,
            record.value,
            record.headers,
            &mut self.payload,
        )?;
        self.last_offset = offset;
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.record_count += 1;
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Bytes of the batch so far, before compression.
    pub fn size(&self) -> usize {
        HEADER_LENGTH + self.payload.len()
    }

    pub fn base_offset(&self) -> Option<i64> {
        (!self.is_empty()).then_some(self.base_offset)
    }

    pub fn last_offset(&self) -> Option<i64> {
        (!self.is_empty()).then_some(self.last_offset)
    }

    /// The whole batch.
    ///
    /// # Errors
    /// `Empty`, `TooLarge` or `Compression`.
    pub fn finish(self) -> Result<Bytes, BuildError> {
        if self.is_empty() {
            return Err(BuildError::Empty);
        }
        let options = &self.options;
        let mut header = BatchHeader {
            base_offset: self.base_offset,
            batch_length: 0,
            partition_leader_epoch: options.partition_leader_epoch,
            crc: 0,
            attributes: Attributes::default()
                .with_codec(options.compression.codec)
                .with_timestamp_type(options.timestamp_type)
                .with_transactional(options.is_transactional)
                .with_control(options.is_control),
            last_offset_delta: i32::try_from(self.last_offset - self.base_offset).map_err(|_| BuildError::TooLarge)?,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: options.producer.map_or(NO_PRODUCER_ID, |producer| producer.producer_id),
            producer_epoch: options.producer.map_or(NO_PRODUCER_EPOCH, |producer| producer.producer_epoch),
            base_sequence: options.producer.map_or(NO_SEQUENCE, |producer| producer.base_sequence),
            record_count: self.record_count,
        };
        assemble(&mut header, options.compression, &self.payload)
    }
}

/// Makes the batch of a header and uncompressed records, and sets the header's length and CRC.
pub(super) fn assemble(
    header: &mut BatchHeader,
    compression: Compression,
    records: &[u8],
) -> Result<Bytes, BuildError> {
    let mut bytes = Vec::with_capacity(HEADER_LENGTH + records.len());
    bytes.resize(HEADER_LENGTH, 0);
    compress(compression, records, &mut bytes).map_err(|error| BuildError::Compression(error.to_string()))?;
    header.batch_length = i32::try_from(bytes.len() - LOG_OVERHEAD).map_err(|_| BuildError::TooLarge)?;
    let (head, payload) = bytes.split_at_mut(HEADER_LENGTH);
    header.crc = header.compute_crc(payload);
    head.copy_from_slice(&header.encode());
    Ok(Bytes::from(bytes))
}

/// Appends one record to `output`, which is left as it was on an error.
pub(super) fn encode_record<'a, H>(
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: H,
    output: &mut Vec<u8>,
) -> Result<(), BuildError>
where
    H: Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone,
{
    let mut header_count = 0_usize;
    let mut length = 1 + varint_length(timestamp_delta) + varint_length(i64::from(offset_delta));
    length += nullable_length(key)? + nullable_length(value)?;
    for (name, value) in headers.clone() {
        length += nullable_length(Some(name))? + nullable_length(value)?;
        header_count += 1;
    }
    let header_count = to_length(header_count)?;
    length += varint_length(i64::from(header_count));

    write_varint(to_length(length)?, output);
    // Attributes: no bit of them is in use.
    output.push(0);
    write_varlong(timestamp_delta, output);
    write_varint(offset_delta, output);
    write_nullable(key, output);
    write_nullable(value, output);
    write_varint(header_count, output);
    for (name, value) in headers {
        write_nullable(Some(name), output);
        write_nullable(value, output);
    }
    Ok(())
}

fn to_length(length: usize) -> Result<i32, BuildError> {
    i32::try_from(length).map_err(|_| BuildError::TooLarge)
}

fn nullable_length(field: Option<&[u8]>) -> Result<usize, BuildError> {
    match field {
        None => Ok(varint_length(-1)),
        Some(bytes) => Ok(varint_length(i64::from(to_length(bytes.len())?)) + bytes.len()),
    }
}

/// The length was checked by [`nullable_length`].
fn write_nullable(field: Option<&[u8]>, output: &mut Vec<u8>) {
    match field {
        None => write_varint(-1, output),
        Some(bytes) => {
            write_varint(i32::try_from(bytes.len()).unwrap_or(i32::MAX), output);
            output.extend_from_slice(bytes);
        }
    }
}
