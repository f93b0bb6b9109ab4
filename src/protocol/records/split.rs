use bytes::Bytes;

use super::compression::Codec;
use super::error::{InvalidBatch, MalformedRecords};
use super::header::{BatchHeader, HEADER_LENGTH, LOG_OVERHEAD, check_length, check_magic};
use super::view::Records;

/// Bytes up to and including the magic byte, which all formats have at the same place.
const LENGTH_UP_TO_MAGIC: usize = 17;
/// The smallest `batch_length` that Kafka takes for a batch of any format.
const MINIMUM_LENGTH_OF_ANY_FORMAT: usize = 14;

/// One v2 batch: its whole bytes and a copy of its header. Nothing is checked but magic and length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

impl Batch {
    /// Reads the batch that `bytes` consists of.
    ///
    /// # Errors
    /// As [`BatchHeader::parse`]; [`InvalidBatch::Missing`] if bytes are missing and `MoreThanOne` if some are left.
    pub fn parse(bytes: Bytes) -> Result<Self, InvalidBatch> {
        let header = BatchHeader::parse(&bytes)?;
        match bytes.len().cmp(&header.size()) {
            std::cmp::Ordering::Less => Err(InvalidBatch::Missing),
            std::cmp::Ordering::Equal => Ok(Batch { header, bytes }),
            std::cmp::Ordering::Greater => Err(InvalidBatch::MoreThanOne),
        }
    }

    /// `bytes` must be `header` encoded and what follows it.
    pub(super) fn from_parts(header: BatchHeader, bytes: Bytes) -> Self {
        debug_assert_eq!(header.size(), bytes.len());
        Batch { header, bytes }
    }

    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The records as they are stored: compressed, if the batch is.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(HEADER_LENGTH.min(self.bytes.len())..)
    }

    /// # Errors
    /// [`InvalidBatch::CrcMismatch`].
    pub fn check_crc(&self) -> Result<(), InvalidBatch> {
        let covered = self.bytes.get(super::header::ATTRIBUTES_POSITION..).unwrap_or_default();
        let computed = crc32c::crc32c(covered);
        if computed == self.header.crc {
            Ok(())
        } else {
            Err(InvalidBatch::CrcMismatch { stored: self.header.crc, computed })
        }
    }

    /// Decompresses the records, at most `max_decompressed_bytes` of them (an uncompressed batch is never too large).
    ///
    /// # Errors
    /// [`MalformedRecords::Decompression`], `UnknownCodec` or `OutputLimit`.
    pub fn records(&self, max_decompressed_bytes: usize) -> Result<Records, MalformedRecords> {
        Records::open(self, max_decompressed_bytes)
    }
}

/// Splits concatenated batches without copying. As Kafka, it ends before a batch that is not there as a whole:
/// [`Batches::rest`] tells what was left. It ends after an error too.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
    failed: bool,
}

impl Batches {
    pub fn new(bytes: Bytes) -> Self {
        Batches { rest: bytes, failed: false }
    }

    /// The bytes that are not yet split off.
    pub fn rest(&self) -> &Bytes {
        &self.rest
    }

    /// Length of the next batch, `None` where too few bytes for one are left.
    fn next_size(&self) -> Result<Option<usize>, InvalidBatch> {
        let Some(length) = self.rest.get(LOG_OVERHEAD - 4..LOG_OVERHEAD).and_then(|field| field.first_chunk()) else {
            return Ok(None);
        };
        let size = check_length(i32::from_be_bytes(*length), LOG_OVERHEAD + MINIMUM_LENGTH_OF_ANY_FORMAT)?;
        let Some(magic) = self.rest.get(LENGTH_UP_TO_MAGIC - 1) else {
            return Ok(None);
        };
        if let Err(unknown @ InvalidBatch::UnknownMagic(_)) = check_magic(magic.cast_signed()) {
            return Err(unknown);
        }
        Ok(Some(size).filter(|size| *size <= self.rest.len()))
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, InvalidBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let batch = match self.next_size() {
            Ok(None) => return None,
            Ok(Some(size)) => read_batch(&self.rest.split_to(size)),
            Err(error) => Err(error),
        };
        self.failed = batch.is_err();
        Some(batch)
    }
}

fn read_batch(bytes: &Bytes) -> Result<Batch, InvalidBatch> {
    if let Some(magic) = bytes.get(LENGTH_UP_TO_MAGIC - 1) {
        check_magic(magic.cast_signed())?;
    }
    if bytes.len() < HEADER_LENGTH {
        let length = i64::try_from(bytes.len().saturating_sub(LOG_OVERHEAD)).unwrap_or(i64::MAX);
        return Err(InvalidBatch::TooShort(length));
    }
    Batch::parse(bytes.clone())
}

/// Takes the batch out of the records of a partition in a Produce request of version 3 or newer, as Kafka's
/// `ProduceRequest.validateRecords`: there must be exactly one. Bytes after it that do not make a whole batch are
/// dropped, as Kafka drops them. `zstd_allowed` is true from Produce v7 on (KIP-110).
///
/// # Errors
/// `Missing`, `MoreThanOne`, `OldMagic`, `UnknownMagic`, `TooShort` and `ZstdNotAllowed`.
pub fn single_batch(bytes: Bytes, zstd_allowed: bool) -> Result<Batch, InvalidBatch> {
    let mut batches = Batches::new(bytes);
    let batch = batches.next().ok_or(InvalidBatch::Missing)??;
    if !zstd_allowed && batch.header.codec() == Ok(Codec::Zstd) {
        return Err(InvalidBatch::ZstdNotAllowed);
    }
    match batches.next() {
        None => Ok(batch),
        Some(Err(error @ InvalidBatch::UnknownMagic(_))) => Err(error),
        Some(Err(error @ InvalidBatch::TooShort(length))) if length < MINIMUM_LENGTH_OF_ANY_FORMAT as i64 => Err(error),
        Some(_) => Err(InvalidBatch::MoreThanOne),
    }
}
