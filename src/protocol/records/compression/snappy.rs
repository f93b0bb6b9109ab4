//! Snappy in its two framings: Java's (xerial: a header, then chunks with a length each), which most clients write, and
//! one raw block, which some do. Snappy's own frame format is not used in Kafka.

use std::io::{self, Read};

use super::{LIMIT_KIND, invalid};

/// `0x82 "SNAPPY" 0`, then version and oldest compatible version, both 1.
const HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
const MAGIC_LENGTH: usize = 8;
/// Uncompressed bytes in a chunk, as Java writes them.
const CHUNK_LENGTH: usize = 32 * 1024;

pub(super) fn compress(input: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
    output.extend_from_slice(&HEADER);
    let mut encoder = snap::raw::Encoder::new();
    let mut compressed = vec![0; snap::raw::max_compress_len(CHUNK_LENGTH.min(input.len()))];
    for chunk in input.chunks(CHUNK_LENGTH) {
        let length = encoder.compress(chunk, &mut compressed)?;
        let block = compressed.get(..length).ok_or_else(|| invalid("snappy encoder wrote too much"))?;
        let length = u32::try_from(length).map_err(|_| invalid("snappy chunk is too long"))?;
        output.extend_from_slice(&length.to_be_bytes());
        output.extend_from_slice(block);
    }
    Ok(())
}

/// Holds one decompressed chunk at a time.
pub(in super::super) struct Decoder<'a> {
    input: &'a [u8],
    framed: bool,
    block: Vec<u8>,
    position: usize,
    /// Bytes that may still come out.
    left: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(input: &'a [u8], limit: usize) -> Self {
        let framed = input.len() >= HEADER.len() && input.get(..MAGIC_LENGTH) == HEADER.get(..MAGIC_LENGTH);
        let input = if framed { input.get(HEADER.len()..).unwrap_or_default() } else { input };
        Decoder { input, framed, block: Vec::new(), position: 0, left: limit }
    }

    /// The next block's compressed bytes.
    fn next_block(&mut self) -> io::Result<Option<&'a [u8]>> {
        if !self.framed {
            return Ok(Some(std::mem::take(&mut self.input)).filter(|block| !block.is_empty()));
        }
        loop {
            let Some((length, rest)) = self.input.split_first_chunk::<4>() else {
                // As Java: too few bytes for another chunk are the end.
                return Ok(None);
            };
            // Streams may be concatenated: a header stands where a chunk's length is expected.
            if HEADER.starts_with(length) {
                self.input = self.input.get(HEADER.len()..).ok_or_else(|| invalid("snappy header is truncated"))?;
                continue;
            }
            let length =
                usize::try_from(i32::from_be_bytes(*length)).map_err(|_| invalid("negative snappy chunk length"))?;
            let (block, rest) = rest.split_at_checked(length).ok_or_else(|| invalid("snappy chunk is truncated"))?;
            self.input = rest;
            return Ok(Some(block));
        }
    }

    /// False at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let Some(compressed) = self.next_block()? else {
            return Ok(false);
        };
        let length = snap::raw::decompress_len(compressed)?;
        if length > self.left {
            return Err(io::Error::new(LIMIT_KIND, "snappy block is larger than the limit"));
        }
        // No three bytes of snappy make more than 64, so a length beyond that is a lie, not worth the memory.
        if length / 64 > compressed.len() / 3 + 1 {
            return Err(invalid("snappy block promises more than it can hold"));
        }
        self.left -= length;
        self.block.resize(length, 0);
        self.position = 0;
        snap::raw::Decoder::new().decompress(compressed, &mut self.block)?;
        Ok(true)
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        while self.position >= self.block.len() {
            if !self.fill()? {
                return Ok(0);
            }
        }
        let mut rest = self.block.get(self.position..).unwrap_or_default();
        let count = rest.read(output)?;
        self.position += count;
        Ok(count)
    }
}
