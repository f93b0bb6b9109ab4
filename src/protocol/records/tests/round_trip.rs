use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..40), (any::<u8>(), 0_usize..5_000).prop_map(|(byte, length)| vec![byte; length])]
}

fn record() -> impl Strategy<Value = OwnedRecord> {
    let timestamp = prop_oneof![0..NOW + 3_600_000, Just(NO_TIMESTAMP)];
    let headers = vec((vec(any::<u8>(), 0..12), option::of(vec(any::<u8>(), 0..20))), 0..5);
    (timestamp, option::of(bytes()), option::of(bytes()), headers)
        .prop_map(|(timestamp, key, value, headers)| OwnedRecord { offset: 0, timestamp, key, value, headers })
}

/// Records with increasing offsets from `base`, `gaps` apart at most.
fn records(base: impl Strategy<Value = i64>, gaps: i64) -> impl Strategy<Value = Vec<OwnedRecord>> {
    (base, vec((record(), 0..=gaps), 1..40)).prop_map(|(base, records)| {
        let mut next = base;
        records
            .into_iter()
            .map(|(record, gap)| {
                let offset = if next == base { base } else { next + gap };
                next = offset + 1;
                OwnedRecord { offset, ..record }
            })
            .collect()
    })
}

fn codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(CODECS.to_vec())
}

fn producer() -> impl Strategy<Value = Option<ProducerStamp>> {
    option::of((0..i64::MAX, 0..i16::MAX, 0..i32::MAX).prop_map(|(producer_id, producer_epoch, base_sequence)| {
        ProducerStamp { producer_id, producer_epoch, base_sequence }
    }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_was_built_reads_back_with_gaps_in_every_codec(
        codec in codec(),
        records in records(0..i64::MAX / 2, 1_000),
        producer in producer(),
        epoch in 0..i32::MAX,
    ) {
        let options = BatchOptions {
            compression: Compression::new(codec),
            partition_leader_epoch: epoch,
            producer,
            is_transactional: producer.is_some(),
            ..BatchOptions::default()
        };
        let bytes = build(options, &records);
        let batch = Batch::parse(bytes.clone()).expect("one batch");
        prop_assert!(batch.check_crc().is_ok());
        let header = batch.header();
        prop_assert_eq!(header.size(), bytes.len());
        prop_assert_eq!(Some(header.base_offset), records.first().map(|record| record.offset));
        prop_assert_eq!(Some(header.last_offset()), records.last().map(|record| record.offset));
        prop_assert_eq!(header.partition_leader_epoch, epoch);
        prop_assert_eq!(header.is_transactional(), producer.is_some());
        prop_assert_eq!(header.has_producer_id(), producer.is_some());
        prop_assert_eq!(Some(header.max_timestamp), records.iter().map(|record| record.timestamp).max());
        prop_assert_eq!(read(&batch.records(MEBIBYTE).expect("records")), records);
        prop_assert_eq!(&header.encode()[..], &bytes[..HEADER_LENGTH]);
    }

    #[test]
    fn a_producers_batch_is_accepted_and_gets_its_offsets(
        codec in codec(),
        records in records(Just(0), 0),
        producer in producer(),
        keep_records: bool,
        base_offset in 0..i64::MAX / 2,
        append_time in option::of(0..NOW),
    ) {
        let options = BatchOptions { compression: Compression::new(codec), producer, ..BatchOptions::default() };
        let sent = build(options, &records);
        let valid = check(sent.clone(), &ValidationLimits { keep_records, ..default_limits() })
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        let largest = records.iter().map(|record| record.timestamp).max().unwrap_or(NO_TIMESTAMP);
        prop_assert_eq!(valid.max_timestamp(), largest);
        let first = records.iter().position(|record| record.timestamp == largest && largest > NO_TIMESTAMP);
        prop_assert_eq!(valid.max_timestamp_index(), first.map(|first| i32::try_from(first).expect("a small batch")));
        prop_assert!(!valid.needs_rebuild(None));
        prop_assert_eq!(&read(&valid.records(MEBIBYTE).expect("records")), &records);

        let placement = Placement { base_offset, partition_leader_epoch: 3, log_append_time: append_time };
        let placed = Batch::parse(valid.place(&placement).to_bytes()).expect("one batch");
        prop_assert!(placed.check_crc().is_ok());
        prop_assert_eq!(placed.header().base_offset, base_offset);
        prop_assert_eq!(placed.header().partition_leader_epoch, 3);
        prop_assert_eq!(placed.payload(), Batch::parse(sent).expect("one batch").payload());
        let expected: Vec<OwnedRecord> = records
            .into_iter()
            .map(|record| OwnedRecord {
                offset: base_offset + record.offset,
                timestamp: append_time.unwrap_or(record.timestamp),
                ..record
            })
            .collect();
        prop_assert_eq!(read(&placed.records(MEBIBYTE).expect("records")), expected);
    }

    #[test]
    fn any_bytes_survive_any_codec(codec in codec(), level in option::of(-1..=9), input in vec(any::<u8>(), 0..100_000)) {
        let mut compressed = vec![1, 2, 3];
        compress(Compression { codec, level }, &input, &mut compressed).expect("it compresses");
        prop_assert_eq!(compressed.get(..3), Some(&[1, 2, 3][..]));
        let compressed = compressed.split_off(3);
        prop_assert_eq!(decompress(codec, &compressed, input.len()).expect("it decompresses"), input);
    }
}

#[test]
fn shared_parts_are_slices_of_the_payload() {
    let bytes = build(with_codec(Codec::Zstd), &[OwnedRecord::at(0, NOW)]);
    let records = Batch::parse(bytes).expect("a batch").records(MEBIBYTE).expect("records");
    let record = records.iter().next().expect("a record").expect("a valid one");
    let value = records.share(record.value.expect("a value"));
    assert_eq!(value, &b"v"[..]);
    let payload = records.payload().as_ptr_range();
    assert!(payload.contains(&value.as_ptr()));
}

#[test]
fn a_builder_refuses_offsets_that_do_not_grow_or_are_too_far_apart() {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    assert_eq!(builder.base_offset(), None);
    let record = |offset| NewRecord {
        offset,
        timestamp: NOW,
        key: None,
        value: Some(&b"v"[..]),
        headers: std::iter::empty::<(&[u8], Option<&[u8]>)>(),
    };
    builder.push(record(10)).expect("the first");
    let size = builder.size();
    assert_eq!(builder.push(record(10)), Err(BuildError::OffsetNotIncreasing { previous: 10, offset: 10 }));
    let far = 11 + i64::from(i32::MAX);
    assert_eq!(builder.push(record(far)), Err(BuildError::OffsetTooFar { base_offset: 10, offset: far }));
    assert_eq!((builder.size(), builder.record_count(), builder.last_offset()), (size, 1, Some(10)));
    builder.push(record(far - 1)).expect("the farthest");
    let bytes = builder.finish().expect("a batch");
    assert!(bytes.len() > size);
    assert_eq!(Batch::parse(bytes).expect("a batch").header().last_offset_delta, i32::MAX);
    assert_eq!(BatchBuilder::new(BatchOptions::default()).finish(), Err(BuildError::Empty));
}

#[test]
fn the_size_of_a_builder_is_the_size_of_its_uncompressed_batch() {
    let records: Vec<OwnedRecord> = (0..50).map(|offset| OwnedRecord::at(offset, NOW - offset * 1_000)).collect();
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for record in &records {
        builder
            .push(NewRecord {
                offset: record.offset,
                timestamp: record.timestamp,
                key: None,
                value: record.value.as_deref(),
                headers: [(&b"name"[..], Some(&b"value"[..]))].into_iter(),
            })
            .expect("it fits");
    }
    let size = builder.size();
    assert_eq!(builder.finish().expect("a batch").len(), size);
}

#[test]
fn sequences_wrap_as_kafkas_do() {
    assert_eq!(increment_sequence(0, 4), 4);
    assert_eq!(increment_sequence(i32::MAX, 0), i32::MAX);
    assert_eq!(increment_sequence(i32::MAX, 1), 0);
    assert_eq!(increment_sequence(i32::MAX - 1, 5), 3);
    let producer = ProducerStamp { producer_id: 5, producer_epoch: 0, base_sequence: i32::MAX };
    let options = BatchOptions { producer: Some(producer), ..BatchOptions::default() };
    let bytes = build(options, &[OwnedRecord::at(0, 1), OwnedRecord::at(1, 1), OwnedRecord::at(2, 1)]);
    assert_eq!(BatchHeader::parse(&bytes).expect("a header").last_sequence(), 1);
    let bytes = build(BatchOptions::default(), &[OwnedRecord::at(0, 1), OwnedRecord::at(1, 1)]);
    assert_eq!(BatchHeader::parse(&bytes).expect("a header").last_sequence(), NO_SEQUENCE);
}

#[test]
fn a_control_batch_carries_its_marker() {
    let marker = EndTransactionMarker { kind: MarkerKind::Commit, coordinator_epoch: 9 };
    let producer = ProducerStamp { producer_id: 5, producer_epoch: 1, base_sequence: NO_SEQUENCE };
    let options =
        BatchOptions { producer: Some(producer), is_transactional: true, is_control: true, ..BatchOptions::default() };
    let (key, value) = (marker.key().to_vec(), marker.value().to_vec());
    let record = OwnedRecord { offset: 77, timestamp: NOW, key: Some(key), value: Some(value), headers: Vec::new() };
    let batch = Batch::parse(build(options, &[record])).expect("a batch");
    assert!(batch.header().is_control());
    assert!(batch.header().is_transactional());
    let records = batch.records(MEBIBYTE).expect("records");
    let record = records.iter().next().expect("one").expect("valid");
    assert_eq!(EndTransactionMarker::decode(record.key.expect("a key"), record.value.expect("a value")), Some(marker));
}
