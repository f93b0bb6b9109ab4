//! Zstandard. A context takes 20 us to set up, as long as a small batch takes in everything else, so each thread keeps
//! one of either kind for the next batch.

use std::cell::Cell;
use std::io::{self, Read};

use ::zstd::zstd_safe::{
    self, CCtx, CParameter, DCtx, ErrorCode, InBuffer, OutBuffer, ResetDirective, compress_bound, get_error_name,
    zstd_sys::ZSTD_EndDirective,
};

use super::invalid;

pub(super) const DEFAULT_LEVEL: i32 = zstd_safe::CLEVEL_DEFAULT;

/// A context that has grown beyond this (large windows, high levels) is freed at once. In bytes.
const KEPT_CONTEXT_LENGTH: usize = 2 * 1024 * 1024;

thread_local! {
    static IDLE_DECODER: Cell<Option<DCtx<'static>>> = const { Cell::new(None) };
    static IDLE_ENCODER: Cell<Option<CCtx<'static>>> = const { Cell::new(None) };
}

pub(super) fn compress(level: i32, input: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
    let kept = IDLE_ENCODER.try_with(Cell::take).ok().flatten();
    let mut context = kept.or_else(CCtx::try_create).ok_or(io::ErrorKind::OutOfMemory)?;
    context.reset(ResetDirective::SessionAndParameters).map_err(named)?;
    context.set_parameter(CParameter::CompressionLevel(level)).map_err(named)?;
    output.reserve(compress_bound(input.len()));
    let start = output.len();
    let mut source = InBuffer::around(input);
    let mut target = OutBuffer::around_pos(output, start);
    // All the input is there and all of it fits, so one call is enough; the window is then as small as the input.
    let left = context.compress_stream2(&mut target, &mut source, ZSTD_EndDirective::ZSTD_e_end).map_err(named)?;
    if left != 0 {
        return Err(invalid("zstd did not finish its frame"));
    }
    if context.sizeof() <= KEPT_CONTEXT_LENGTH {
        // Where the thread is about to end, nothing is kept.
        let _ended = IDLE_ENCODER.try_with(|idle| idle.set(Some(context)));
    }
    Ok(())
}

/// Reads frames until the input ends.
pub(in super::super) struct Decoder<'a> {
    /// Taken only when dropped.
    context: Option<DCtx<'static>>,
    input: &'a [u8],
    in_frame: bool,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(input: &'a [u8]) -> io::Result<Self> {
        let kept = IDLE_DECODER.try_with(Cell::take).ok().flatten();
        let mut context = kept.or_else(DCtx::try_create).ok_or(io::ErrorKind::OutOfMemory)?;
        context.reset(ResetDirective::SessionAndParameters).map_err(named)?;
        Ok(Decoder { context: Some(context), input, in_frame: false })
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let Some(context) = &mut self.context else {
            return Ok(0);
        };
        while !output.is_empty() && (self.in_frame || !self.input.is_empty()) {
            let mut source = InBuffer::around(self.input);
            let mut target = OutBuffer::around(&mut *output);
            let expected = context.decompress_stream(&mut target, &mut source).map_err(named)?;
            let (consumed, produced) = (source.pos(), target.pos());
            self.input = self.input.get(consumed..).unwrap_or_default();
            self.in_frame = expected != 0;
            if produced > 0 {
                return Ok(produced);
            }
            if consumed == 0 && self.in_frame {
                return Err(invalid("zstd frame is truncated"));
            }
        }
        Ok(0)
    }
}

impl Drop for Decoder<'_> {
    fn drop(&mut self) {
        if let Some(context) = self.context.take()
            && context.sizeof() <= KEPT_CONTEXT_LENGTH
        {
            let _ended = IDLE_DECODER.try_with(|idle| idle.set(Some(context)));
        }
    }
}

fn named(code: ErrorCode) -> io::Error {
    invalid(get_error_name(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(level: i32, input: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        compress(level, input, &mut output).expect("it compresses");
        output
    }

    fn decompressed(input: &[u8]) -> io::Result<Vec<u8>> {
        let mut output = Vec::new();
        Decoder::new(input)?.read_to_end(&mut output)?;
        Ok(output)
    }

    #[test]
    fn a_context_works_on_after_broken_and_abandoned_input() {
        let input: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
        let good = compressed(DEFAULT_LEVEL, &input);
        for _ in 0..3 {
            assert!(decompressed(b"no zstd frame at all").is_err());
            assert!(decompressed(&good[..good.len() / 2]).is_err());
            let mut abandoned = Decoder::new(&good).expect("a decoder");
            assert!(abandoned.read(&mut [0; 10]).is_ok_and(|count| count == 10));
            drop(abandoned);
            assert!(decompressed(&good).is_ok_and(|output| output == input));
        }
    }

    #[test]
    fn frames_follow_one_another_and_may_be_empty() {
        let frames = [compressed(1, b"one"), compressed(1, b""), compressed(1, b"two")].concat();
        assert!(decompressed(&frames).is_ok_and(|output| output == b"onetwo"));
        assert!(decompressed(b"").is_ok_and(|output| output.is_empty()));
    }

    #[test]
    fn every_level_that_kafka_knows_can_be_used() {
        let input = b"the same words over and over, ".repeat(5_000);
        for level in [-131_072, -1, 0, 1, 3, 19, 22] {
            assert!(decompressed(&compressed(level, &input)).is_ok_and(|output| output == input), "{level}");
        }
    }
}
