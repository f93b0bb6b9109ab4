//! Zigzag varints, as records of the v2 format carry them (Kafka's `ByteUtils`, protobuf's `sint32` and `sint64`).

use super::MalformedRecords;

/// Longest encoding of an `i32` and of an `i64`, in bytes.
const MAX_VARINT_LENGTH: usize = 5;
const MAX_VARLONG_LENGTH: usize = 10;

/// Reads an `i32` from bytes that `next` hands out one by one.
#[inline]
pub(super) fn read_varint(mut next: impl FnMut() -> Result<u8, MalformedRecords>) -> Result<i32, MalformedRecords> {
    let raw = read_unsigned(&mut next, MAX_VARINT_LENGTH)?;
    let raw = u32::try_from(raw).map_err(|_| MalformedRecords::VarintTooLong)?;
    Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
}

/// Reads an `i64`, like [`read_varint`].
#[inline]
pub(super) fn read_varlong(mut next: impl FnMut() -> Result<u8, MalformedRecords>) -> Result<i64, MalformedRecords> {
    let raw = read_unsigned(&mut next, MAX_VARLONG_LENGTH)?;
    Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
}

#[inline]
fn read_unsigned(
    next: &mut impl FnMut() -> Result<u8, MalformedRecords>,
    max_length: usize,
) -> Result<u64, MalformedRecords> {
    let first = next()?;
    if first < 0x80 {
        return Ok(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    for position in 1..max_length {
        let byte = next()?;
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * position;
        // The tenth byte of a varlong has room for one bit only.
        if shift == 63 && bits > 1 {
            return Err(MalformedRecords::VarintTooLong);
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(MalformedRecords::VarintTooLong)
}

pub(super) fn write_varint(value: i32, output: &mut Vec<u8>) {
    write_varlong(i64::from(value), output);
}

pub(super) fn write_varlong(value: i64, output: &mut Vec<u8>) {
    let mut raw = zigzag(value);
    while raw >= 0x80 {
        output.push((raw & 0x7f) as u8 | 0x80);
        raw >>= 7;
    }
    output.push(raw as u8);
}

/// Bytes that [`write_varint`] or [`write_varlong`] take for `value`.
pub(super) fn varint_length(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn next_of(bytes: &[u8]) -> impl FnMut() -> Result<u8, MalformedRecords> + '_ {
        let mut bytes = bytes.iter();
        move || bytes.next().copied().ok_or(MalformedRecords::Truncated)
    }

    #[test]
    fn known_encodings_are_those_of_protobuf() {
        for (value, bytes) in [
            (0_i64, &[0x00_u8][..]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            let mut written = Vec::new();
            write_varlong(value, &mut written);
            assert_eq!(written, bytes, "{value}");
            assert_eq!(varint_length(value), bytes.len());
            assert_eq!(read_varlong(next_of(bytes)), Ok(value));
            if let Ok(small) = i32::try_from(value) {
                assert_eq!(read_varint(next_of(bytes)), Ok(small));
            }
        }
    }

    #[test]
    fn overlong_and_truncated_encodings_are_refused() {
        let too_long = Err(MalformedRecords::VarintTooLong);
        assert_eq!(read_varint(next_of(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00])), too_long);
        assert_eq!(read_varint(next_of(&[0xff, 0xff, 0xff, 0xff, 0x10])), too_long);
        assert_eq!(
            read_varlong(next_of(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02])),
            Err(MalformedRecords::VarintTooLong)
        );
        assert_eq!(read_varint(next_of(&[0x80])), Err(MalformedRecords::Truncated));
        assert_eq!(read_varint(next_of(&[])), Err(MalformedRecords::Truncated));
    }

    proptest! {
        #[test]
        fn every_number_reads_back(value: i64) {
            let mut written = Vec::new();
            write_varlong(value, &mut written);
            prop_assert_eq!(written.len(), varint_length(value));
            prop_assert_eq!(read_varlong(next_of(&written)), Ok(value));
        }

        #[test]
        fn every_32_bit_number_reads_back(value: i32) {
            let mut written = Vec::new();
            write_varint(value, &mut written);
            prop_assert_eq!(read_varint(next_of(&written)), Ok(value));
        }
    }
}
