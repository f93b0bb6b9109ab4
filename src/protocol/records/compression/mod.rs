//! The codecs of record batches. Decompression never produces more than its caller allows.

mod lz4;
mod snappy;
mod zstd;

use std::io::{self, Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::error::MalformedRecords;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// The number in a batch's attributes.
    pub fn id(self) -> u8 {
        match self {
            Codec::None => 0,
            Codec::Gzip => 1,
            Codec::Snappy => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        }
    }

    pub fn from_id(id: u8) -> Option<Self> {
        Some(match id {
            0 => Codec::None,
            1 => Codec::Gzip,
            2 => Codec::Snappy,
            3 => Codec::Lz4,
            4 => Codec::Zstd,
            _ => return None,
        })
    }

    /// The name in `compression.type`, where [`Codec::None`] is `uncompressed`.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "uncompressed",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

/// A codec with its level: `compression.gzip.level` (1 to 9, -1 is the default), `compression.zstd.level`
/// (-131072 to 22), `compression.lz4.level` (accepted, without effect: this encoder has one level).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    pub codec: Codec,
    pub level: Option<i32>,
}

impl Compression {
    pub fn new(codec: Codec) -> Self {
        Compression { codec, level: None }
    }
}

/// Appends `input`, compressed, to `output`.
///
/// # Errors
/// If the encoder fails; what `output` then holds after its former content is of no use.
pub fn compress(compression: Compression, input: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
    match compression.codec {
        Codec::None => output.extend_from_slice(input),
        Codec::Gzip => {
            let level = compression.level.and_then(|level| u32::try_from(level).ok());
            let level = level.map_or_else(flate2::Compression::default, |level| flate2::Compression::new(level.min(9)));
            let mut encoder = GzEncoder::new(output, level);
            encoder.write_all(input)?;
            encoder.finish()?;
        }
        Codec::Snappy => snappy::compress(input, output)?,
        Codec::Lz4 => lz4::compress(input, output)?,
        Codec::Zstd => zstd::compress(compression.level.unwrap_or(zstd::DEFAULT_LEVEL), input, output)?,
    }
    Ok(())
}

/// Decompresses `input` into at most `limit` bytes.
///
/// # Errors
/// [`MalformedRecords::OutputLimit`] if it holds more, before more than that is in memory; `Decompression` if it is
/// no output of the codec's encoder.
pub fn decompress(codec: Codec, input: &[u8], limit: usize) -> Result<Vec<u8>, MalformedRecords> {
    let decompressor = Decompressor::new(codec, input, limit)?;
    let mut output = Vec::with_capacity(input.len().saturating_mul(4).min(limit));
    let one_more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    decompressor.take(one_more).read_to_end(&mut output).map_err(|error| output_error(&error, limit))?;
    if output.len() > limit {
        return Err(MalformedRecords::OutputLimit(limit));
    }
    Ok(output)
}

/// Decompresses while it is read. The memory it takes is bounded by the codec's own block or window size, for raw
/// snappy blocks by `limit`.
pub(super) enum Decompressor<'a> {
    None(&'a [u8]),
    Gzip(Box<MultiGzDecoder<&'a [u8]>>),
    Snappy(snappy::Decoder<'a>),
    Lz4(Box<lz4::Decoder<'a>>),
    Zstd(zstd::Decoder<'a>),
}

impl<'a> Decompressor<'a> {
    pub(super) fn new(codec: Codec, input: &'a [u8], limit: usize) -> Result<Self, MalformedRecords> {
        Ok(match codec {
            Codec::None => Decompressor::None(input),
            Codec::Gzip => Decompressor::Gzip(Box::new(MultiGzDecoder::new(input))),
            Codec::Snappy => Decompressor::Snappy(snappy::Decoder::new(input, limit)),
            Codec::Lz4 => Decompressor::Lz4(Box::new(lz4::Decoder::new(input))),
            Codec::Zstd => Decompressor::Zstd(zstd::Decoder::new(input).map_err(|error| output_error(&error, limit))?),
        })
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        match self {
            Decompressor::None(input) => input.read(output),
            Decompressor::Gzip(decoder) => decoder.read(output),
            Decompressor::Snappy(decoder) => decoder.read(output),
            Decompressor::Lz4(decoder) => decoder.read(output),
            Decompressor::Zstd(decoder) => decoder.read(output),
        }
    }
}

/// A decompressor that would have to hold more than the limit at once says so with this kind.
const LIMIT_KIND: io::ErrorKind = io::ErrorKind::FileTooLarge;

pub(super) fn output_error(error: &io::Error, limit: usize) -> MalformedRecords {
    if error.kind() == LIMIT_KIND {
        MalformedRecords::OutputLimit(limit)
    } else {
        MalformedRecords::Decompression(error.to_string())
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
