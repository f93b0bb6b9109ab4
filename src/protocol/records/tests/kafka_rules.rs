//! What Kafka 4.3.1 answers to batches that differ from a good one in one thing.

use super::*;

fn three_records(codec: Codec) -> Bytes {
    let records: Vec<OwnedRecord> = (0..3).map(|offset| OwnedRecord::at(offset, NOW + offset)).collect();
    build(with_codec(codec), &records)
}

fn refusal(bytes: Bytes, limits: &ValidationLimits) -> InvalidBatch {
    check(bytes, limits).expect_err("the batch should be refused")
}

fn rejected(bytes: Bytes, limits: &ValidationLimits) -> RejectedRecords {
    match refusal(bytes, limits) {
        InvalidBatch::Rejected(rejected) => rejected,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_produce_partition_has_exactly_one_batch() {
    let one = three_records(Codec::None);
    assert_eq!(single_batch(Bytes::new(), true), Err(InvalidBatch::Missing));
    assert_eq!(single_batch(one.slice(..one.len() - 1), true), Err(InvalidBatch::Missing));
    assert_eq!(single_batch(one.slice(..16), true), Err(InvalidBatch::Missing));
    let two = [one.as_ref(), one.as_ref()].concat();
    assert_eq!(single_batch(two.into(), true), Err(InvalidBatch::MoreThanOne));
    let old_second = [one.as_ref(), &[0; 8], &22_i32.to_be_bytes(), &[0; 22]].concat();
    assert_eq!(single_batch(old_second.into(), true), Err(InvalidBatch::MoreThanOne));
    let broken_second = [one.as_ref(), &[0xff; 12]].concat();
    assert_eq!(single_batch(broken_second.into(), true), Err(InvalidBatch::TooShort(-1)));
}

#[test]
fn bytes_that_make_no_whole_batch_are_dropped_from_the_end() {
    let one = three_records(Codec::Gzip);
    for extra in [1, 11, 16, one.len() - 1] {
        let bytes = Bytes::from([one.as_ref(), one.get(..extra).expect("within the batch")].concat());
        let batch = single_batch(bytes, true).expect("Kafka takes it");
        assert_eq!(batch.bytes(), &one);
    }
}

#[test]
fn only_magic_2_is_taken() {
    for (magic, expected) in [
        (0, InvalidBatch::OldMagic(0)),
        (1, InvalidBatch::OldMagic(1)),
        (3, InvalidBatch::UnknownMagic(3)),
        (0xff, InvalidBatch::UnknownMagic(-1)),
    ] {
        let mut bytes = three_records(Codec::None).to_vec();
        bytes[16] = magic;
        assert_eq!(single_batch(bytes.into(), true), Err(expected));
    }
}

#[test]
fn a_length_below_the_header_is_corrupt() {
    for length in [i32::MIN, -1, 0, 13, 14, 48] {
        let mut bytes = three_records(Codec::None).to_vec();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        assert_eq!(single_batch(bytes.into(), true), Err(InvalidBatch::TooShort(i64::from(length))));
    }
}

#[test]
fn zstd_needs_a_newer_produce_request() {
    assert_eq!(single_batch(three_records(Codec::Zstd), false), Err(InvalidBatch::ZstdNotAllowed));
    assert!(single_batch(three_records(Codec::Zstd), true).is_ok());
    assert!(single_batch(three_records(Codec::Lz4), false).is_ok());
}

#[test]
fn every_flipped_bit_under_the_crc_is_noticed() {
    let good = three_records(Codec::Snappy);
    for position in 21..good.len() {
        let mut bytes = good.to_vec();
        bytes[position] ^= 0x10;
        assert!(
            matches!(refusal(bytes.into(), &default_limits()), InvalidBatch::CrcMismatch { .. }),
            "byte {position}"
        );
    }
}

#[test]
fn the_leader_epoch_and_the_base_offset_lie_outside_of_the_crc() {
    let bytes = edit(&three_records(Codec::None), |header| header.partition_leader_epoch = 1234);
    assert!(check(bytes, &default_limits()).is_ok());
    let bytes = edit(&three_records(Codec::None), |header| header.base_offset = 7);
    assert!(Batch::parse(bytes.clone()).expect("a batch").check_crc().is_ok());
    assert_eq!(refusal(bytes, &default_limits()), InvalidBatch::BaseOffsetNotZero(7));
}

#[test]
fn counts_and_offsets_have_to_agree() {
    let good = three_records(Codec::Lz4);
    let with = |delta, count| {
        edit(&good, |header| {
            header.last_offset_delta = delta;
            header.record_count = count;
        })
    };
    let limits = default_limits();
    assert_eq!(refusal(with(-1, 3), &limits), InvalidBatch::InvalidOffsetRange(-1));
    assert_eq!(refusal(with(2, 0), &limits), InvalidBatch::InvalidCount(0));
    assert_eq!(refusal(with(2, -4), &limits), InvalidBatch::InvalidCount(-4));
    assert_eq!(refusal(with(3, 3), &limits), InvalidBatch::InconsistentCount { last_offset_delta: 3, count: 3 });
    assert_eq!(
        refusal(with(i32::MAX, 3), &limits),
        InvalidBatch::InconsistentCount { last_offset_delta: i32::MAX, count: 3 }
    );
    for codec in CODECS {
        let good = three_records(codec);
        let with = |count| {
            edit(&good, |header| {
                header.last_offset_delta = count - 1;
                header.record_count = count;
            })
        };
        for keep_records in [false, true] {
            let limits = ValidationLimits { keep_records, ..default_limits() };
            assert_eq!(
                refusal(with(2), &limits),
                InvalidBatch::Malformed { index: 2, cause: MalformedRecords::TrailingBytes }
            );
            assert_eq!(
                refusal(with(4), &limits),
                InvalidBatch::Malformed { index: 3, cause: MalformedRecords::Truncated }
            );
        }
    }
}

#[test]
fn clients_do_not_write_control_batches() {
    let bytes = edit(&three_records(Codec::None), |header| header.attributes = header.attributes.with_control(true));
    assert_eq!(refusal(bytes, &default_limits()), InvalidBatch::ControlBatch);
}

#[test]
fn a_producer_id_needs_a_sequence() {
    let with = |producer_id, sequence| {
        edit(&three_records(Codec::None), |header| {
            header.producer_id = producer_id;
            header.base_sequence = sequence;
        })
    };
    assert_eq!(refusal(with(5, -1), &default_limits()), InvalidBatch::InvalidSequence { producer_id: 5, sequence: -1 });
    assert_eq!(refusal(with(0, -7), &default_limits()), InvalidBatch::InvalidSequence { producer_id: 0, sequence: -7 });
    assert!(check(with(5, 0), &default_limits()).is_ok());
    assert!(check(with(-1, 3), &default_limits()).is_ok());
}

#[test]
fn the_size_limit_is_that_of_the_whole_batch() {
    let bytes = three_records(Codec::None);
    let size = bytes.len();
    assert!(check(bytes.clone(), &ValidationLimits { max_batch_bytes: size, ..default_limits() }).is_ok());
    let limits = ValidationLimits { max_batch_bytes: size - 1, ..default_limits() };
    assert_eq!(refusal(bytes, &limits), InvalidBatch::TooLarge { size, limit: size - 1 });
}

#[test]
fn limits_on_records_and_decompressed_bytes_are_inclusive() {
    for codec in CODECS {
        let bytes = three_records(codec);
        let payload = Batch::parse(bytes.clone()).expect("a batch").records(MEBIBYTE).expect("records").payload().len();
        for keep_records in [false, true] {
            let exact =
                ValidationLimits { max_records: 3, max_decompressed_bytes: payload, keep_records, ..default_limits() };
            assert!(check(bytes.clone(), &exact).is_ok(), "{codec:?}");
            let limits = ValidationLimits { max_records: 2, ..exact.clone() };
            assert_eq!(refusal(bytes.clone(), &limits), InvalidBatch::TooManyRecords { count: 3, limit: 2 });
            if codec != Codec::None {
                let limits = ValidationLimits { max_decompressed_bytes: payload - 1, ..exact };
                let expected = InvalidBatch::DecompressedTooLarge { limit: payload - 1 };
                assert_eq!(refusal(bytes.clone(), &limits), expected);
            }
        }
    }
}

#[test]
fn unknown_codecs_are_refused() {
    for id in 5..8 {
        let bytes = edit(&three_records(Codec::None), |header| header.attributes.0 |= id);
        let id = u8::try_from(id).expect("three bits");
        assert_eq!(refusal(bytes, &default_limits()), InvalidBatch::UnknownCodec(id));
    }
}

#[test]
fn unused_attribute_bits_do_no_harm() {
    let bytes = edit(&three_records(Codec::None), |header| header.attributes.0 |= 0xff80);
    let valid = check(bytes.clone(), &default_limits()).expect("Kafka takes it");
    let placement = Placement { base_offset: 0, partition_leader_epoch: -1, log_append_time: None };
    assert_eq!(valid.place(&placement).to_bytes(), bytes);
}

#[test]
fn compacted_topics_need_keys_and_every_record_without_one_is_named() {
    let mut records: Vec<OwnedRecord> = (0..5).map(|offset| OwnedRecord::at(offset, NOW)).collect();
    for index in [1, 4] {
        records[index].key = None;
    }
    records[2].key = Some(Vec::new());
    for codec in CODECS {
        let bytes = build(with_codec(codec), &records);
        assert!(check(bytes.clone(), &default_limits()).is_ok());
        let rejected = rejected(bytes, &ValidationLimits { compacted: true, ..default_limits() });
        assert_eq!(rejected.records, [1, 4].map(|index| RejectedRecord { index, fault: RecordFault::MissingKey }));
        assert_eq!(rejected.total, 2);
        assert!(!rejected.any_timestamp);
        assert_eq!(
            rejected.message("t", 0),
            "One or more records have been rejected due to 2 record errors in total, and only showing the first three errors at most: \
             [RecordError(batchIndex=1, message='Compacted topic cannot accept message without key in topic partition t-0'), \
             RecordError(batchIndex=4, message='Compacted topic cannot accept message without key in topic partition t-0')]"
        );
    }
}

#[test]
fn timestamps_outside_of_the_bounds_are_named() {
    let limits = ValidationLimits { timestamp_before_max: 1_000, timestamp_after_max: 500, ..default_limits() };
    let times = [NOW - 1_000, NOW - 1_001, NOW + 500, NOW + 501, NO_TIMESTAMP];
    let records: Vec<OwnedRecord> =
        (0..).zip(times).map(|(offset, timestamp)| OwnedRecord::at(offset, timestamp)).collect();
    for codec in CODECS {
        let rejected = rejected(build(with_codec(codec), &records), &limits);
        let fault = |timestamp, offset| RecordFault::TimestampOutOfRange {
            timestamp,
            offset,
            earliest: NOW - 1_000,
            latest: NOW + 500,
        };
        assert_eq!(
            rejected.records,
            [
                RejectedRecord { index: 1, fault: fault(NOW - 1_001, 1) },
                RejectedRecord { index: 3, fault: fault(NOW + 501, 3) }
            ]
        );
        assert!(rejected.any_timestamp);
        assert_eq!(rejected.message("t", 0), "One or more records have been rejected due to invalid timestamp");
        let append_time = ValidationLimits { timestamp_type: TimestampType::LogAppendTime, ..limits.clone() };
        assert!(check(build(with_codec(codec), &records), &append_time).is_ok());
    }
}

#[test]
fn a_record_without_key_and_with_a_bad_timestamp_is_named_once() {
    let record = OwnedRecord { key: None, ..OwnedRecord::at(0, NOW + 10_000_000) };
    let rejected =
        rejected(build(with_codec(Codec::None), &[record]), &ValidationLimits { compacted: true, ..default_limits() });
    assert_eq!(rejected.records, [RejectedRecord { index: 0, fault: RecordFault::MissingKey }]);
    assert!(!rejected.any_timestamp);
}

#[test]
fn extreme_timestamps_and_bounds_do_not_overflow() {
    for base in [i64::MIN, i64::MAX, 0, -1] {
        for now in [0, NOW, i64::MAX] {
            for bound in [0, 1, i64::MAX] {
                let limits = ValidationLimits {
                    now,
                    timestamp_before_max: bound,
                    timestamp_after_max: bound,
                    ..default_limits()
                };
                let bytes = edit(&three_records(Codec::None), |header| header.base_timestamp = base);
                let _accepted_or_not = check(bytes, &limits).is_ok();
            }
        }
    }
}

#[test]
fn the_maximum_timestamp_of_the_header_is_corrected() {
    let bytes = edit(&three_records(Codec::Gzip), |header| header.max_timestamp = NOW + 999_999);
    let valid = check(bytes, &default_limits()).expect("Kafka takes it");
    assert_eq!(valid.max_timestamp(), NOW + 2);
    assert_eq!(valid.max_timestamp_index(), Some(2));
    let placement = Placement { base_offset: 40, partition_leader_epoch: 1, log_append_time: None };
    let placed = Batch::parse(valid.place(&placement).to_bytes()).expect("a batch");
    assert!(placed.check_crc().is_ok());
    assert_eq!(placed.header().max_timestamp, NOW + 2);
    assert_eq!(placed.header().last_offset(), 42);
}

#[test]
fn log_append_time_is_the_timestamp_of_every_record() {
    for codec in CODECS {
        let valid = check(three_records(codec), &default_limits()).expect("valid");
        let time = NOW + 77;
        let placement = Placement { base_offset: 5, partition_leader_epoch: 0, log_append_time: Some(time) };
        let placed = Batch::parse(valid.place(&placement).to_bytes()).expect("a batch");
        assert!(placed.check_crc().is_ok());
        assert_eq!(placed.header().timestamp_type(), TimestampType::LogAppendTime);
        let records = read(&placed.records(MEBIBYTE).expect("records"));
        assert_eq!(
            records.iter().map(|record| (record.offset, record.timestamp)).collect::<Vec<_>>(),
            [(5, time), (6, time), (7, time)]
        );
    }
}

#[test]
fn a_producer_does_not_choose_log_append_time() {
    let marked = edit(&three_records(Codec::None), |header| {
        header.attributes = header.attributes.with_timestamp_type(TimestampType::LogAppendTime);
    });
    let append_time = ValidationLimits { timestamp_type: TimestampType::LogAppendTime, ..default_limits() };
    let rejected_records = rejected(marked.clone(), &append_time);
    assert_eq!(rejected_records.total, 3);
    assert!(rejected_records.any_timestamp);

    // On a topic with CreateTime Kafka clears the mark.
    let valid = check(marked.clone(), &default_limits()).expect("Kafka takes it");
    let placement = Placement { base_offset: 0, partition_leader_epoch: 0, log_append_time: None };
    let placed = Batch::parse(valid.place(&placement).to_bytes()).expect("a batch");
    assert!(placed.check_crc().is_ok());
    assert_eq!(placed.header().timestamp_type(), TimestampType::CreateTime);
    let timestamps: Vec<i64> =
        read(&placed.records(MEBIBYTE).expect("records")).iter().map(|record| record.timestamp).collect();
    assert_eq!(timestamps, [NOW, NOW + 1, NOW + 2]);
    assert_eq!(read(&valid.records(MEBIBYTE).expect("records")).len(), 3);

    let unset = edit(&marked, |header| header.max_timestamp = NO_TIMESTAMP);
    assert_eq!(rejected(unset, &default_limits()).total, 3);
    // A mark must not smuggle a timestamp past the bounds.
    let late = edit(&marked, |header| header.base_timestamp = NOW + 10_000_000);
    assert_eq!(rejected(late, &default_limits()).total, 3);
}

#[test]
fn offsets_that_do_not_count_from_zero_are_counted_anew() {
    let records: Vec<OwnedRecord> = [0, 2, 5].map(|offset| OwnedRecord::at(offset, NOW - offset)).to_vec();
    for codec in CODECS {
        let bytes = edit(&build(with_codec(codec), &records), |header| header.last_offset_delta = 2);
        let valid = check(bytes, &default_limits()).expect("Kafka takes it");
        assert!(!valid.offsets_contiguous());
        assert!(valid.needs_rebuild(None));
        let offsets = |records: &Records| read(records).iter().map(|record| record.offset).collect::<Vec<_>>();
        assert_eq!(offsets(&valid.records(MEBIBYTE).expect("records")), [0, 1, 2]);

        let rebuilt = valid.rebuild(None, MEBIBYTE).expect("it can be rebuilt");
        assert!(!rebuilt.needs_rebuild(None));
        assert_eq!(rebuilt.header().codec(), Ok(codec));
        let placement = Placement { base_offset: 100, partition_leader_epoch: 0, log_append_time: None };
        let placed = Batch::parse(rebuilt.place(&placement).to_bytes()).expect("a batch");
        assert!(placed.check_crc().is_ok());
        let read_back = read(&placed.records(MEBIBYTE).expect("records"));
        let expected: Vec<OwnedRecord> =
            (100..).zip(&records).map(|(offset, record)| OwnedRecord { offset, ..record.clone() }).collect();
        assert_eq!(read_back, expected);
    }
}

#[test]
fn negative_lengths_other_than_minus_one_mean_null_too() {
    // Length 6: attributes, deltas, key of length -2, value of length -64, no headers.
    let payload = [12, 0, 0, 0, 0x03, 0x7f, 0];
    let valid = check(batch_of_payload(1, &payload), &default_limits()).expect("Kafka takes it");
    let records = read(&valid.records(MEBIBYTE).expect("records"));
    assert_eq!(records.first().map(|record| (record.key.clone(), record.value.clone())), Some((None, None)));
}
