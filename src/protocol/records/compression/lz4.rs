//! LZ4 frames as Kafka has them: one frame of format version 1 with independent blocks (Java's consumer reads no other).

use std::io::{self, Read, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::invalid;

const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
const VERSION_MASK: u8 = 0b1100_0000;
const VERSION_1: u8 = 0b0100_0000;
const INDEPENDENT_BLOCKS: u8 = 0b0010_0000;

pub(super) fn compress(input: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, output);
    encoder.write_all(input)?;
    encoder.finish()?;
    Ok(())
}

pub(in super::super) struct Decoder<'a> {
    state: State<'a>,
}

enum State<'a> {
    Start(&'a [u8]),
    Frame(FrameDecoder<&'a [u8]>),
    End,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Decoder { state: State::Start(input) }
    }
}

fn check_frame(input: &[u8]) -> io::Result<()> {
    let Some((magic, [flags, ..])) = input.split_first_chunk::<4>() else {
        return Err(invalid("lz4 frame is truncated"));
    };
    if *magic != MAGIC {
        return Err(invalid("not an lz4 frame"));
    }
    if flags & VERSION_MASK != VERSION_1 {
        return Err(invalid("unknown version of the lz4 frame format"));
    }
    if flags & INDEPENDENT_BLOCKS == 0 {
        return Err(invalid("lz4 frame with dependent blocks"));
    }
    Ok(())
}

impl Read for Decoder<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if let State::Start(input) = self.state {
            check_frame(input)?;
            self.state = State::Frame(FrameDecoder::new(input));
        }
        let State::Frame(decoder) = &mut self.state else {
            return Ok(0);
        };
        let count = decoder.read(output)?;
        if count == 0 && !output.is_empty() {
            // As Java, read no second frame.
            self.state = State::End;
        }
        Ok(count)
    }
}
