use bytes::Bytes;

use super::compression::{Codec, decompress};
use super::error::MalformedRecords;
use super::header::BatchHeader;
use super::source::{SliceSource, Source, check_header_count};
use super::split::Batch;
use super::varint::{read_varint, read_varlong};

/// The decompressed records of one batch.
#[derive(Debug, Clone)]
pub struct Records {
    header: BatchHeader,
    payload: Bytes,
    /// Offsets are counted instead of read: those in the batch are not contiguous.
    renumber: bool,
}

impl Records {
    /// See [`Batch::records`].
    pub(super) fn open(batch: &Batch, max_decompressed_bytes: usize) -> Result<Self, MalformedRecords> {
        let header = *batch.header();
        let payload = match header.codec().map_err(MalformedRecords::UnknownCodec)? {
            Codec::None => batch.payload(),
            codec => Bytes::from(decompress(codec, &batch.payload(), max_decompressed_bytes)?),
        };
        Ok(Records { header, payload, renumber: false })
    }

    pub(super) fn from_parts(header: BatchHeader, payload: Bytes, renumber: bool) -> Self {
        Records { header, payload, renumber }
    }

    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The records' bytes, one record after the other.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter {
            header: &self.header,
            source: SliceSource::new(&self.payload),
            next_index: 0,
            renumber: self.renumber,
            failed: false,
        }
    }

    /// A slice of a record of these as `Bytes` that shares their memory, without a copy.
    ///
    /// # Panics
    /// If `part` is not from a record of these.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.payload.slice_ref(part)
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<RecordView<'a>, MalformedRecords>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One record, borrowed from [`Records`].
#[derive(Debug, Clone)]
pub struct RecordView<'a> {
    /// Position in the batch, from 0.
    pub index: i32,
    pub offset: i64,
    /// Milliseconds since 1970; -1 is none. With LogAppendTime that of the batch.
    pub timestamp: i64,
    pub offset_delta: i32,
    pub timestamp_delta: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: HeaderIter<'a>,
}

/// Reads the records one after the other; ends after the batch's count of them, or after an error.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    header: &'a BatchHeader,
    source: SliceSource<'a>,
    next_index: i32,
    renumber: bool,
    failed: bool,
}

impl<'a> RecordIter<'a> {
    fn read(&mut self) -> Result<RecordView<'a>, MalformedRecords> {
        let length = read_varint(|| self.source.byte())?;
        let length = usize::try_from(length).map_err(|_| MalformedRecords::LengthMismatch)?;
        let mut record = SliceSource::new(self.source.take(length)?);
        let _attributes = record.byte()?;
        let timestamp_delta = read_varlong(|| record.byte())?;
        let stored_delta = read_varint(|| record.byte())?;
        let key = read_nullable(&mut record)?;
        let value = read_nullable(&mut record)?;
        let headers = read_headers(&mut record)?;

        let index = self.next_index;
        self.next_index = index.saturating_add(1);
        if self.next_index == self.header.record_count && !self.source.is_at_end()? {
            return Err(MalformedRecords::TrailingBytes);
        }
        let offset_delta = if self.renumber { index } else { stored_delta };
        Ok(RecordView {
            index,
            offset: self.header.base_offset.wrapping_add(i64::from(offset_delta)),
            timestamp: self.header.record_timestamp(timestamp_delta),
            offset_delta,
            timestamp_delta,
            key,
            value,
            headers,
        })
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, MalformedRecords>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.next_index >= self.header.record_count {
            return None;
        }
        let record = self.read();
        self.failed = record.is_err();
        Some(record)
    }
}

fn read_nullable<'a>(record: &mut SliceSource<'a>) -> Result<Option<&'a [u8]>, MalformedRecords> {
    match usize::try_from(read_varint(|| record.byte())?) {
        Ok(length) => record.take(length).map(Some).map_err(|_| MalformedRecords::LengthBeyondRecord),
        Err(_) => Ok(None),
    }
}

fn read_header<'a>(record: &mut SliceSource<'a>) -> Result<(&'a [u8], Option<&'a [u8]>), MalformedRecords> {
    let length = read_varint(|| record.byte())?;
    let length = usize::try_from(length).map_err(|_| MalformedRecords::HeaderName(length))?;
    let name = record.take(length).map_err(|_| MalformedRecords::LengthBeyondRecord)?;
    Ok((name, read_nullable(record)?))
}

fn read_headers<'a>(record: &mut SliceSource<'a>) -> Result<HeaderIter<'a>, MalformedRecords> {
    let count = read_varint(|| record.byte())?;
    let left = check_header_count(count, record.rest().len())?;
    let headers = HeaderIter { source: *record, left };
    for _ in 0..left {
        read_header(record)?;
    }
    if !record.rest().is_empty() {
        return Err(MalformedRecords::LengthMismatch);
    }
    Ok(headers)
}

/// The headers of a record in their order: name (any bytes, not always UTF-8) and value. Names may repeat.
#[derive(Debug, Clone)]
pub struct HeaderIter<'a> {
    source: SliceSource<'a>,
    left: usize,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // The record was read as a whole before, so this can't fail.
        read_header(&mut self.source).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for HeaderIter<'_> {}
