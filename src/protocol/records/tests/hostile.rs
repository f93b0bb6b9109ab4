//! Bytes from whoever wants harm: nothing panics, nothing takes more memory than its limit.

use std::io::Write;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn zeros(codec: Codec, length: usize) -> Vec<u8> {
    let mut compressed = Vec::new();
    compress(Compression::new(codec), &vec![0; length], &mut compressed).expect("zeros compress");
    compressed
}

fn cause(bytes: Bytes, limits: &ValidationLimits) -> MalformedRecords {
    match check(bytes, limits) {
        Err(InvalidBatch::Malformed { cause, .. }) => cause,
        other => panic!("{other:?}"),
    }
}

/// The outcome must not depend on how the records are read.
fn cause_in_every_codec(count: i32, payload: &[u8]) -> MalformedRecords {
    let mut causes = CODECS.iter().flat_map(|codec| {
        let mut compressed = Vec::new();
        compress(Compression::new(*codec), payload, &mut compressed).expect("it compresses");
        let bytes = edit(&batch_of_payload(count, &compressed), |header| {
            header.attributes = header.attributes.with_codec(*codec);
        });
        [false, true].map(|keep_records| cause(bytes.clone(), &ValidationLimits { keep_records, ..default_limits() }))
    });
    let first = causes.next().expect("five codecs");
    for other in causes {
        assert_eq!(first, other);
    }
    first
}

#[test]
fn bombs_stop_at_the_limit() {
    const BOMB: usize = 32 * MEBIBYTE;
    for codec in CODECS {
        let compressed = zeros(codec, BOMB);
        for limit in [0, 1, 1_000, MEBIBYTE, BOMB - 1] {
            assert_eq!(decompress(codec, &compressed, limit), Err(MalformedRecords::OutputLimit(limit)), "{codec:?}");
        }
        assert_eq!(decompress(codec, &compressed, BOMB).map(|bytes| bytes.len()), Ok(BOMB), "{codec:?}");
    }
}

#[test]
fn a_bomb_as_one_huge_value_is_refused_while_it_streams() {
    let value = vec![0; 40 * MEBIBYTE];
    for codec in CODECS.into_iter().filter(|codec| *codec != Codec::None) {
        let record = OwnedRecord { value: Some(value.clone()), ..OwnedRecord::at(0, NOW) };
        let bytes = build(with_codec(codec), &[record]);
        for keep_records in [false, true] {
            let limits = ValidationLimits { keep_records, max_batch_bytes: usize::MAX, ..default_limits() };
            let limit = limits.max_decompressed_bytes;
            let refused = check(bytes.clone(), &limits).map(|valid| valid.record_count());
            assert_eq!(refused, Err(InvalidBatch::DecompressedTooLarge { limit }), "{codec:?}");
        }
    }
}

#[test]
fn a_raw_snappy_block_cannot_promise_what_it_does_not_hold() {
    // Claims 4 GiB - 1 and 100 MiB in a handful of bytes.
    let claims = [&[0xff, 0xff, 0xff, 0xff, 0x0f, 0][..], &[0x80, 0x80, 0x80, 0x32, 0, 1]];
    for claim in claims {
        assert_eq!(decompress(Codec::Snappy, claim, 1_000), Err(MalformedRecords::OutputLimit(1_000)));
        assert!(matches!(decompress(Codec::Snappy, claim, usize::MAX), Err(MalformedRecords::Decompression(_))));
    }
}

#[test]
fn snappy_is_read_in_both_framings_and_concatenated() {
    let input: Vec<u8> = (0..100_000_u32).flat_map(|number| (number / 7).to_be_bytes()).collect();
    let raw = snap::raw::Encoder::new().compress_vec(&input).expect("it compresses");
    assert_eq!(decompress(Codec::Snappy, &raw, MEBIBYTE).as_ref(), Ok(&input));
    let mut framed = Vec::new();
    compress(Compression::new(Codec::Snappy), &input, &mut framed).expect("it compresses");
    assert_eq!(framed.get(..8), Some(&b"\x82SNAPPY\0"[..]));
    assert_eq!(decompress(Codec::Snappy, &framed, MEBIBYTE).as_ref(), Ok(&input));
    let twice = [framed.as_slice(), framed.as_slice()].concat();
    let expected = [input.as_slice(), input.as_slice()].concat();
    assert_eq!(decompress(Codec::Snappy, &twice, MEBIBYTE), Ok(expected));
    for truncated in [framed.len() - 1, 25, 19] {
        let result = decompress(Codec::Snappy, framed.get(..truncated).expect("shorter"), MEBIBYTE);
        assert_ne!(result.as_ref(), Ok(&input));
    }
}

#[test]
fn lz4_frames_may_have_checksums_and_sizes_but_no_dependent_blocks() {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let input = b"a line that repeats itself, ".repeat(10_000);
    let encode = |info: FrameInfo| {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(&input).expect("a Vec takes it");
        encoder.finish().expect("a Vec takes it")
    };
    let independent = || FrameInfo::new().block_mode(BlockMode::Independent);
    for info in [
        independent(),
        independent().content_checksum(true),
        independent().block_checksums(true),
        independent().block_size(BlockSize::Max4MB),
        independent().content_size(Some(u64::try_from(input.len()).expect("it fits"))),
    ] {
        assert_eq!(decompress(Codec::Lz4, &encode(info), MEBIBYTE).as_ref(), Ok(&input));
    }
    let linked = encode(FrameInfo::new().block_mode(BlockMode::Linked));
    assert!(matches!(decompress(Codec::Lz4, &linked, MEBIBYTE), Err(MalformedRecords::Decompression(_))));
    let legacy = [0x02, 0x21, 0x4c, 0x18, 2, 0, 0, 0, 0x10, b'x'];
    assert!(matches!(decompress(Codec::Lz4, &legacy, MEBIBYTE), Err(MalformedRecords::Decompression(_))));
}

#[test]
fn header_counts_that_lie_are_refused_at_once() {
    // One record: attributes, deltas, null key, null value, then 2^31 - 1 headers.
    let payload = [0x14, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(cause_in_every_codec(1, &payload), MalformedRecords::HeaderCount(i32::MAX));
    let payload = [0x0c, 0, 0, 0, 1, 1, 1];
    assert_eq!(cause_in_every_codec(1, &payload), MalformedRecords::HeaderCount(-1));
    // A name of length -1.
    let payload = [0x10, 0, 0, 0, 1, 1, 2, 1, 0];
    assert_eq!(cause_in_every_codec(1, &payload), MalformedRecords::HeaderName(-1));
}

#[test]
fn record_counts_that_lie_are_refused() {
    let payload = [0x0c, 0, 0, 0, 1, 1, 0];
    assert!(check(batch_of_payload(1, &payload), &default_limits()).is_ok());
    assert_eq!(cause_in_every_codec(100_000, &payload), MalformedRecords::Truncated);
    let refused = check(batch_of_payload(i32::MAX, &payload), &default_limits()).map(|valid| valid.record_count());
    assert_eq!(refused, Err(InvalidBatch::TooManyRecords { count: i32::MAX, limit: 100_000 }));
    let sneaky = edit(&batch_of_payload(1, &payload), |header| header.record_count = i32::MAX);
    let records = Batch::parse(sneaky).expect("a batch").records(0).expect("uncompressed");
    assert_eq!(records.iter().map(|record| record.is_ok()).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    // Overlong length of the record.
    let payload = [0x80, 0x80, 0x80, 0x80, 0x80, 0];
    assert_eq!(cause_in_every_codec(1, &payload), MalformedRecords::VarintTooLong);
    // A record of length -1.
    assert_eq!(cause_in_every_codec(1, &[1, 0, 0, 0, 1, 1, 0]), MalformedRecords::LengthMismatch);
    // One byte less and one more than the fields take.
    assert_eq!(cause_in_every_codec(1, &[0x0a, 0, 0, 0, 1, 1, 0]), MalformedRecords::LengthMismatch);
    assert_eq!(cause_in_every_codec(1, &[0x0e, 0, 0, 0, 1, 1, 0, 0]), MalformedRecords::LengthMismatch);
    // A key of 2 GiB, in a record that is short, and in one that says it is long.
    let payload = [0x14, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f, 1, 0];
    assert_eq!(cause_in_every_codec(1, &payload), MalformedRecords::LengthBeyondRecord);
    let payload = [0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x08, 1, 0];
    assert_eq!(cause_in_every_codec(1, &payload), MalformedRecords::Truncated);
}

#[test]
fn codecs_that_do_not_match_the_bytes_are_refused() {
    let plain = build(BatchOptions::default(), &[OwnedRecord::at(0, NOW)]);
    for codec in CODECS.into_iter().filter(|codec| *codec != Codec::None) {
        let bytes = edit(&plain, |header| header.attributes = header.attributes.with_codec(codec));
        for keep_records in [false, true] {
            let found = cause(bytes.clone(), &ValidationLimits { keep_records, ..default_limits() });
            assert!(matches!(found, MalformedRecords::Decompression(_)), "{codec:?}: {found:?}");
        }
    }
    for codec in CODECS {
        // Nothing at all.
        let bytes = edit(&batch_of_payload(1, &[]), |header| header.attributes = header.attributes.with_codec(codec));
        assert!(matches!(
            cause(bytes, &default_limits()),
            MalformedRecords::Decompression(_) | MalformedRecords::Truncated
        ));
    }
}

#[test]
fn many_rejected_records_are_counted_and_not_all_listed() {
    let records: Vec<OwnedRecord> =
        (0..5_000).map(|offset| OwnedRecord { key: None, ..OwnedRecord::at(offset, NOW) }).collect();
    let bytes = build(with_codec(Codec::Gzip), &records);
    match check(bytes, &ValidationLimits { compacted: true, ..default_limits() }) {
        Err(InvalidBatch::Rejected(rejected)) => {
            assert_eq!(rejected.total, 5_000);
            assert_eq!(rejected.records.len(), RejectedRecords::MAX_LISTED);
        }
        other => panic!("{other:?}"),
    }
}

/// Reads a batch in every way there is.
fn exercise(bytes: Bytes) {
    for batch in Batches::new(bytes.clone()).flatten() {
        let _ = batch.check_crc();
        if let Ok(records) = batch.records(MEBIBYTE) {
            for record in records.iter().flatten().take(10_000) {
                assert_eq!(record.headers.clone().count(), record.headers.len());
            }
        }
    }
    for keep_records in [false, true] {
        let limits = ValidationLimits { keep_records, compacted: keep_records, ..default_limits() };
        let Ok(valid) = check(bytes.clone(), &limits) else { continue };
        let records = valid.records(16 * MEBIBYTE).expect("what was validated can be read");
        assert!(records.iter().all(|record| record.is_ok()));
        assert_eq!(records.iter().count(), usize::try_from(valid.record_count()).expect("a count"));
        let rebuilt = valid.rebuild(Some(Compression::new(Codec::Lz4)), 16 * MEBIBYTE).expect("and stored anew");
        let placement = Placement { base_offset: 9, partition_leader_epoch: 1, log_append_time: Some(NOW) };
        for placed in [valid.place(&placement).to_bytes(), rebuilt.place(&placement).to_bytes()] {
            let placed = Batch::parse(placed).expect("a batch");
            assert!(placed.check_crc().is_ok());
            assert!(placed.records(16 * MEBIBYTE).expect("records").iter().all(|record| record.is_ok()));
        }
    }
}

fn sample(codec: Codec) -> Bytes {
    let records: Vec<OwnedRecord> = (0..6)
        .map(|offset| OwnedRecord {
            headers: vec![(b"name".to_vec(), Some(b"value".to_vec())), (Vec::new(), None)],
            value: Some(vec![b'x'; 30]),
            ..OwnedRecord::at(offset, NOW + offset)
        })
        .collect();
    build(with_codec(codec), &records)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        exercise(bytes.into());
    }

    #[test]
    fn arbitrary_records_under_a_right_crc_never_panic(
        codec in prop::sample::select(CODECS.to_vec()),
        stored_as_is: bool,
        count in prop_oneof![1..20_i32, any::<i32>()],
        payload in vec(any::<u8>(), 0..200),
    ) {
        let mut stored = Vec::new();
        if stored_as_is {
            stored = payload;
        } else {
            compress(Compression::new(codec), &payload, &mut stored).expect("it compresses");
        }
        let bytes = batch_of_payload(1, &stored);
        exercise(edit(&bytes, |header| {
            header.attributes = header.attributes.with_codec(codec);
            header.record_count = count;
            header.last_offset_delta = count.wrapping_sub(1);
        }));
    }

    #[test]
    fn mutated_batches_never_panic(
        codec in prop::sample::select(CODECS.to_vec()),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        reseal: bool,
    ) {
        let mut bytes = sample(codec).to_vec();
        for (position, byte) in mutations {
            let position = position.index(bytes.len());
            bytes[position] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let bytes = Bytes::from(bytes);
        if reseal && let Ok(batch) = Batch::parse(bytes.clone()) {
            exercise(resealed(*batch.header(), &batch.payload()));
        } else {
            exercise(bytes);
        }
    }

    #[test]
    fn mutated_records_never_panic(
        codec in prop::sample::select(CODECS.to_vec()),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let batch = Batch::parse(sample(Codec::None)).expect("a batch");
        let mut payload = batch.payload().to_vec();
        for (position, byte) in mutations {
            let position = position.index(payload.len());
            payload[position] = byte;
        }
        let mut stored = Vec::new();
        compress(Compression::new(codec), &payload, &mut stored).expect("it compresses");
        let header = BatchHeader { attributes: batch.header().attributes.with_codec(codec), ..*batch.header() };
        exercise(resealed(header, &stored));
    }
}
