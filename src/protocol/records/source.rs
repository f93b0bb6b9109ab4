//! Reads records from bytes that lie in memory, or as they come out of a decompressor.

use std::io::Read;

use super::compression::{Decompressor, output_error};
use super::error::MalformedRecords;
use super::varint::{read_varint, read_varlong};

pub(super) trait Source {
    fn byte(&mut self) -> Result<u8, MalformedRecords>;
    fn skip(&mut self, count: usize) -> Result<(), MalformedRecords>;
    /// Bytes read so far.
    fn position(&self) -> usize;
    fn is_at_end(&mut self) -> Result<bool, MalformedRecords>;
}

#[derive(Debug, Clone, Copy)]
pub(super) struct SliceSource<'a> {
    rest: &'a [u8],
    position: usize,
}

impl<'a> SliceSource<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        SliceSource { rest: bytes, position: 0 }
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], MalformedRecords> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(MalformedRecords::Truncated)?;
        self.rest = rest;
        self.position += count;
        Ok(taken)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl Source for SliceSource<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, MalformedRecords> {
        let (byte, rest) = self.rest.split_first().ok_or(MalformedRecords::Truncated)?;
        self.rest = rest;
        self.position += 1;
        Ok(*byte)
    }

    #[inline]
    fn skip(&mut self, count: usize) -> Result<(), MalformedRecords> {
        self.take(count).map(|_| ())
    }

    #[inline]
    fn position(&self) -> usize {
        self.position
    }

    fn is_at_end(&mut self) -> Result<bool, MalformedRecords> {
        Ok(self.rest.is_empty())
    }
}

/// Holds one buffer of decompressed bytes at a time, and stops once more than `limit` came out.
pub(super) struct StreamSource<'a> {
    decompressor: Decompressor<'a>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    position: usize,
    produced: usize,
    limit: usize,
}

impl<'a> StreamSource<'a> {
    const BUFFER_LENGTH: usize = 32 * 1024;

    pub(super) fn new(decompressor: Decompressor<'a>, limit: usize) -> Self {
        StreamSource {
            decompressor,
            buffer: vec![0; Self::BUFFER_LENGTH],
            start: 0,
            end: 0,
            position: 0,
            produced: 0,
            limit,
        }
    }

    /// False at the end of the stream.
    fn fill(&mut self) -> Result<bool, MalformedRecords> {
        let count = self.decompressor.read(&mut self.buffer).map_err(|error| output_error(&error, self.limit))?;
        self.start = 0;
        self.end = count;
        self.produced = self.produced.saturating_add(count);
        if self.produced > self.limit {
            return Err(MalformedRecords::OutputLimit(self.limit));
        }
        Ok(count > 0)
    }
}

impl Source for StreamSource<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, MalformedRecords> {
        if self.start == self.end && !self.fill()? {
            return Err(MalformedRecords::Truncated);
        }
        let byte = self.buffer.get(self.start).ok_or(MalformedRecords::Truncated)?;
        self.start += 1;
        self.position += 1;
        Ok(*byte)
    }

    #[inline]
    fn skip(&mut self, count: usize) -> Result<(), MalformedRecords> {
        let mut left = count;
        loop {
            let step = left.min(self.end - self.start);
            self.start += step;
            self.position += step;
            left -= step;
            if left == 0 {
                return Ok(());
            }
            if !self.fill()? {
                return Err(MalformedRecords::Truncated);
            }
        }
    }

    #[inline]
    fn position(&self) -> usize {
        self.position
    }

    fn is_at_end(&mut self) -> Result<bool, MalformedRecords> {
        Ok(self.start == self.end && !self.fill()?)
    }
}

/// What checking a record needs to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordSummary {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) has_key: bool,
}

/// Reads over one record. Every length in it is checked; as in Kafka, any negative one of key, value or header value
/// means null.
#[inline]
pub(super) fn summarize_record<S: Source>(source: &mut S) -> Result<RecordSummary, MalformedRecords> {
    let length = read_varint(|| source.byte())?;
    let length = usize::try_from(length).map_err(|_| MalformedRecords::LengthMismatch)?;
    let end = source.position().saturating_add(length);
    let _attributes = source.byte()?;
    let timestamp_delta = read_varlong(|| source.byte())?;
    let offset_delta = read_varint(|| source.byte())?;
    let key_length = read_varint(|| source.byte())?;
    skip_field(source, key_length, end)?;
    let value_length = read_varint(|| source.byte())?;
    skip_field(source, value_length, end)?;
    let headers = read_varint(|| source.byte())?;
    check_header_count(headers, end.saturating_sub(source.position()))?;
    for _ in 0..headers {
        let name_length = read_varint(|| source.byte())?;
        if name_length < 0 {
            return Err(MalformedRecords::HeaderName(name_length));
        }
        skip_field(source, name_length, end)?;
        let value_length = read_varint(|| source.byte())?;
        skip_field(source, value_length, end)?;
    }
    if source.position() != end {
        return Err(MalformedRecords::LengthMismatch);
    }
    Ok(RecordSummary { timestamp_delta, offset_delta, has_key: key_length >= 0 })
}

#[inline]
fn skip_field<S: Source>(source: &mut S, length: i32, end: usize) -> Result<(), MalformedRecords> {
    let length = usize::try_from(length).unwrap_or(0);
    if length > end.saturating_sub(source.position()) {
        return Err(MalformedRecords::LengthBeyondRecord);
    }
    source.skip(length)
}

/// A header takes two bytes at least.
pub(super) fn check_header_count(count: i32, bytes_left: usize) -> Result<usize, MalformedRecords> {
    usize::try_from(count).ok().filter(|count| *count <= bytes_left / 2).ok_or(MalformedRecords::HeaderCount(count))
}
