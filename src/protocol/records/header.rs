use bytes::Buf;

use super::compression::Codec;
use super::error::InvalidBatch;

/// Bytes of the header of a v2 batch, base offset and length included.
pub const HEADER_LENGTH: usize = 61;
/// Base offset and length: what `batch_length` does not count.
pub const LOG_OVERHEAD: usize = 12;

/// The CRC covers everything from here on.
pub(super) const ATTRIBUTES_POSITION: usize = 21;
pub(super) const MAGIC: i8 = 2;

pub const NO_TIMESTAMP: i64 = -1;
pub const NO_PRODUCER_ID: i64 = -1;
pub const NO_PRODUCER_EPOCH: i16 = -1;
pub const NO_SEQUENCE: i32 = -1;
pub const NO_PARTITION_LEADER_EPOCH: i32 = -1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// A batch's attribute bits, kept as they are: unused ones too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(pub u16);

impl Attributes {
    const CODEC_MASK: u16 = 0x07;
    const TIMESTAMP_TYPE: u16 = 0x08;
    const TRANSACTIONAL: u16 = 0x10;
    const CONTROL: u16 = 0x20;
    const DELETE_HORIZON: u16 = 0x40;

    /// # Errors
    /// The number in the codec bits, if no codec has it.
    pub fn codec(self) -> Result<Codec, u8> {
        let id = self.0.to_be_bytes()[1] & Self::CODEC_MASK as u8;
        Codec::from_id(id).ok_or(id)
    }

    pub fn timestamp_type(self) -> TimestampType {
        if self.has(Self::TIMESTAMP_TYPE) { TimestampType::LogAppendTime } else { TimestampType::CreateTime }
    }

    pub fn is_transactional(self) -> bool {
        self.has(Self::TRANSACTIONAL)
    }

    pub fn is_control(self) -> bool {
        self.has(Self::CONTROL)
    }

    /// The base timestamp is then the time from which on a compacted log may drop the batch's tombstones (KIP-534).
    pub fn has_delete_horizon(self) -> bool {
        self.has(Self::DELETE_HORIZON)
    }

    #[must_use]
    pub fn with_codec(self, codec: Codec) -> Self {
        Attributes(self.0 & !Self::CODEC_MASK | u16::from(codec.id()))
    }

    #[must_use]
    pub fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        self.with(Self::TIMESTAMP_TYPE, timestamp_type == TimestampType::LogAppendTime)
    }

    #[must_use]
    pub fn with_transactional(self, transactional: bool) -> Self {
        self.with(Self::TRANSACTIONAL, transactional)
    }

    #[must_use]
    pub fn with_control(self, control: bool) -> Self {
        self.with(Self::CONTROL, control)
    }

    fn has(self, bit: u16) -> bool {
        self.0 & bit != 0
    }

    fn with(self, bit: u16, on: bool) -> Self {
        Attributes(if on { self.0 | bit } else { self.0 & !bit })
    }
}

/// A copy of the 61-byte header of a v2 batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes after this field; at least 49. The whole batch is [`BatchHeader::size`].
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    /// CRC-32C of everything after it.
    pub crc: u32,
    pub attributes: Attributes,
    pub last_offset_delta: i32,
    /// Milliseconds since 1970, as all timestamps here.
    pub base_timestamp: i64,
    /// The largest timestamp of the records; with LogAppendTime, the timestamp of each.
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`; what follows it is not looked at.
    ///
    /// # Errors
    /// [`InvalidBatch::Missing`] when there are fewer than 61 bytes, else `OldMagic`, `UnknownMagic` or `TooShort`.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidBatch> {
        let mut input = bytes.get(..HEADER_LENGTH).ok_or(InvalidBatch::Missing)?;
        let base_offset = input.get_i64();
        let batch_length = input.get_i32();
        let partition_leader_epoch = input.get_i32();
        check_magic(input.get_i8())?;
        check_length(batch_length, HEADER_LENGTH)?;
        Ok(BatchHeader {
            base_offset,
            batch_length,
            partition_leader_epoch,
            crc: input.get_u32(),
            attributes: Attributes(input.get_u16()),
            last_offset_delta: input.get_i32(),
            base_timestamp: input.get_i64(),
            max_timestamp: input.get_i64(),
            producer_id: input.get_i64(),
            producer_epoch: input.get_i16(),
            base_sequence: input.get_i32(),
            record_count: input.get_i32(),
        })
    }

    pub fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        let mut rest = bytes.as_mut_slice();
        let mut put = |field: &[u8]| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(field.len());
            head.copy_from_slice(field);
            rest = tail;
        };
        put(&self.base_offset.to_be_bytes());
        put(&self.batch_length.to_be_bytes());
        put(&self.partition_leader_epoch.to_be_bytes());
        put(&MAGIC.to_be_bytes());
        put(&self.crc.to_be_bytes());
        put(&self.attributes.0.to_be_bytes());
        put(&self.last_offset_delta.to_be_bytes());
        put(&self.base_timestamp.to_be_bytes());
        put(&self.max_timestamp.to_be_bytes());
        put(&self.producer_id.to_be_bytes());
        put(&self.producer_epoch.to_be_bytes());
        put(&self.base_sequence.to_be_bytes());
        put(&self.record_count.to_be_bytes());
        bytes
    }

    /// The CRC that a batch with this header and these (compressed) records has.
    pub fn compute_crc(&self, payload: &[u8]) -> u32 {
        let header = self.encode();
        let covered = header.get(ATTRIBUTES_POSITION..).unwrap_or_default();
        crc32c::crc32c_append(crc32c::crc32c(covered), payload)
    }

    /// Bytes of the whole batch, its first 12 included.
    pub fn size(&self) -> usize {
        LOG_OVERHEAD + usize::try_from(self.batch_length).unwrap_or(0)
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset.wrapping_add(i64::from(self.last_offset_delta))
    }

    /// The offset after the last.
    pub fn end_offset(&self) -> i64 {
        self.last_offset().wrapping_add(1)
    }

    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        increment_sequence(self.base_sequence, self.last_offset_delta)
    }

    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// # Errors
    /// The number in the codec bits, if no codec has it.
    pub fn codec(&self) -> Result<Codec, u8> {
        self.attributes.codec()
    }

    pub fn timestamp_type(&self) -> TimestampType {
        self.attributes.timestamp_type()
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes.is_transactional()
    }

    pub fn is_control(&self) -> bool {
        self.attributes.is_control()
    }

    /// The timestamp of a record of this batch.
    pub fn record_timestamp(&self, timestamp_delta: i64) -> i64 {
        match self.timestamp_type() {
            TimestampType::CreateTime => self.base_timestamp.wrapping_add(timestamp_delta),
            TimestampType::LogAppendTime => self.max_timestamp,
        }
    }
}

pub(super) fn check_magic(magic: i8) -> Result<(), InvalidBatch> {
    match magic {
        MAGIC => Ok(()),
        0 | 1 => Err(InvalidBatch::OldMagic(magic)),
        other => Err(InvalidBatch::UnknownMagic(other)),
    }
}

/// `batch_length` -> bytes of the whole batch, which must be at least `minimum`.
pub(super) fn check_length(batch_length: i32, minimum: usize) -> Result<usize, InvalidBatch> {
    usize::try_from(batch_length)
        .ok()
        .and_then(|length| length.checked_add(LOG_OVERHEAD))
        .filter(|size| *size >= minimum)
        .ok_or(InvalidBatch::TooShort(i64::from(batch_length)))
}

/// Sequence numbers go from `i32::MAX` to 0. Both arguments are expected not to be negative.
pub fn increment_sequence(sequence: i32, increment: i32) -> i32 {
    match sequence.checked_add(increment) {
        Some(next) => next,
        None => increment.wrapping_sub(i32::MAX.wrapping_sub(sequence)).wrapping_sub(1),
    }
}
