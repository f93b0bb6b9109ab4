use proptest::{collection::vec, option, prelude::*};

use super::world::*;
use crate::{
    log::{
        archive::{Archive, FileOptions},
        store::{Read, TimestampedOffset},
    },
    protocol::records::{BatchOptions, Codec, Compression, ProducerStamp, TimestampType},
};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..40),
        1 => Just(br#"{"a": [1, "\u0041", null]}"#.to_vec()),
        1 => Just(b" [1,2 ] ".to_vec()),
        1 => Just(b"{\"a\": 1".to_vec()),
        1 => Just(b"\"text\"".to_vec()),
        1 => Just(b"{\"a\": \"\xff\"}".to_vec()),
    ]
}

fn timestamp() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => MIDNIGHT - 100_000..MIDNIGHT + 100_000,
        1 => Just(-1),
        1 => any::<i64>().prop_map(|any| any / 2),
        1 => 0_i64..2,
    ]
}

/// Timestamp, key, value, headers.
type AnyRecord = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);
/// Offset, timestamp type, leader epoch, producer's id, epoch and sequence, transactional, control.
type Stamp = (i64, TimestampType, i32, i64, i16, i32, bool, bool);

#[derive(Clone, Debug)]
struct AnyBatch {
    gaps: Vec<i64>,
    records: Vec<AnyRecord>,
    codec: Codec,
    append_time: bool,
    producer: Option<(i64, i16, i32)>,
    transactional: bool,
    control: bool,
    epoch: i32,
}

fn any_batch() -> impl Strategy<Value = AnyBatch> {
    let header = (bytes(), option::of(bytes()));
    let record = (timestamp(), option::of(bytes()), option::of(bytes()), vec(header, 0..3));
    (
        vec(prop_oneof![5 => Just(0_i64), 1 => 1_i64..5], 6),
        vec(record, 1..6),
        prop_oneof![Just(Codec::None), Just(Codec::Gzip), Just(Codec::Zstd), Just(Codec::Snappy), Just(Codec::Lz4)],
        any::<bool>(),
        option::of((0_i64..5, 0_i16..5, prop_oneof![0..100, i32::MAX - 3..i32::MAX, Just(-1)])),
        any::<bool>(),
        any::<bool>(),
        0..4,
    )
        .prop_map(|(gaps, records, codec, append_time, producer, transactional, control, epoch)| AnyBatch {
            gaps,
            records,
            codec,
            append_time,
            producer,
            transactional,
            control,
            epoch,
        })
}

impl AnyBatch {
    /// Its records from `next` on, and how they are batched.
    fn place(&self, next: &mut i64) -> (BatchOptions, Vec<Record>) {
        let records = self.records.iter().zip(&self.gaps).map(|((timestamp, key, value, headers), gap)| {
            let offset = *next + gap;
            *next = offset + 1;
            let (key, value, headers) = (key.clone(), value.clone(), headers.clone());
            Record { offset, timestamp: *timestamp, key, value, headers }
        });
        let records = records.collect();
        let timestamp_type = if self.append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime };
        let producer = self.producer.map(|(producer_id, producer_epoch, base_sequence)| ProducerStamp {
            producer_id,
            producer_epoch,
            base_sequence,
        });
        let options = BatchOptions {
            compression: Compression::new(self.codec),
            timestamp_type,
            partition_leader_epoch: self.epoch,
            producer,
            is_transactional: self.transactional,
            is_control: self.control,
        };
        (options, records)
    }
}

/// What a batch says of each of its records.
fn stamps(batches: &[crate::log::store::StoredBatch]) -> Vec<Stamp> {
    let mut stamps = Vec::new();
    for stored in batches {
        let batch = parsed(stored);
        let header = *batch.header();
        for record in &batch.records(usize::MAX).expect("records") {
            let record = record.expect("a record");
            let sequence = match header.base_sequence {
                -1 => -1,
                base => crate::protocol::records::increment_sequence(base, record.offset_delta),
            };
            stamps.push((
                record.offset,
                header.timestamp_type(),
                header.partition_leader_epoch,
                header.producer_id,
                header.producer_epoch,
                sequence,
                header.is_transactional(),
                header.is_control(),
            ));
        }
    }
    stamps
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_records_come_back_as_they_were(batches in vec(any_batch(), 1..8), cut in 1_usize..8) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let world = World::new();
            let mut next = 3;
            let stored: Vec<_> = batches
                .iter()
                .map(|any| {
                    let (options, records) = any.place(&mut next);
                    batch(options, &records)
                })
                .collect();
            for part in stored.chunks(cut) {
                let from = world.archive.bounds(&world.partition(0)).await.expect("bounds");
                let from = from.map_or(part[0].base_offset, |bounds| bounds.end_offset);
                let mut copy = world.archive.begin(&world.partition(0), from, FileOptions::default()).await.expect("a copy");
                copy.write(part).await.expect("a write");
                copy.commit(4).await.expect("a commit");
            }
            let read = world.read_all().await;
            prop_assert_eq!(records(&read), records(&stored));
            prop_assert_eq!(stamps(&read), stamps(&stored));
            let first = offsets(&stored)[0];
            let bounds = world.archive.bounds(&world.partition(0)).await.expect("bounds").expect("some");
            prop_assert_eq!(bounds.start_offset, first);
            prop_assert_eq!(bounds.end_offset, next);
            let largest = records(&stored).iter().map(|record| record.timestamp).max();
            prop_assert_eq!(Some(bounds.max_timestamp.max(-1)), largest.map(|largest| largest.max(-1)));
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_read_begins_at_its_offset_and_keeps_to_its_bounds() {
    let world = World::new();
    world.copy(0, &[orders(0..500, MIDNIGHT), orders(500..2_000, MIDNIGHT + 500_000)]).await.expect("a copy");
    let read = world.read(Read { offset: 700, end_offset: 720, ..EVERYTHING }).await.expect("a read");
    assert_eq!(offsets(&read), (700..720).collect::<Vec<_>>());
    let small = world.read(Read { offset: 3, max_bytes: 1_000, ..EVERYTHING }).await.expect("a read");
    let size: usize = small.iter().map(|batch| batch.size()).sum();
    assert!(size <= 1_000 && small.len() == 1 && small[0].base_offset == 3, "{size} bytes");
    let tiny = world.read(Read { offset: 3, max_bytes: 1, ..EVERYTHING }).await.expect("a read");
    assert_eq!(offsets(&tiny), [3]);
    assert!(world.read(Read { offset: 2_000, ..EVERYTHING }).await.expect("a read").is_empty());
    let zstd = world.read(Read { codec: Codec::Zstd, ..EVERYTHING }).await.expect("a read");
    assert!(zstd.iter().all(|batch| parsed(batch).header().codec() == Ok(Codec::Zstd)));
    assert_eq!(offsets(&zstd), (0..2_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_range_across_midnight_becomes_a_file_for_each_day() {
    let world = World::new();
    let bounds = world.copy(0, &[orders(0..20, MIDNIGHT - 10_000)]).await.expect("a copy");
    assert_eq!((bounds.start_offset, bounds.end_offset, bounds.max_timestamp), (0, 20, MIDNIGHT + 9_000));
    let days: Vec<_> = world.data_files().iter().map(|file| file.parent().expect("a folder").to_path_buf()).collect();
    let partition = world.table().join("partition=0");
    assert_eq!(days, [partition.join("date=2026-11-22"), partition.join("date=2026-11-23")]);
    assert_eq!(offsets(&world.read_all().await), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn times_are_found_among_records_out_of_order() {
    let world = World::new();
    let times = [50, 10, 40, 90, 20, 90, 30];
    let stored: Vec<_> = times
        .iter()
        .zip(0..)
        .map(|(time, offset)| batch(BatchOptions::default(), &[Record::new(offset, MIDNIGHT + time)]))
        .collect();
    for part in stored.chunks(2) {
        world.copy(0, part).await.expect("a copy");
    }
    let partition = world.partition(0);
    let at = |start, time| world.archive.find_timestamp(&partition, start, time);
    let place = |offset: i64, time: i64| TimestampedOffset { offset, timestamp: MIDNIGHT + time, leader_epoch: -1 };
    assert_eq!(at(0, MIDNIGHT).await, Ok(Some(place(0, 50))));
    assert_eq!(at(1, MIDNIGHT + 15).await, Ok(Some(place(2, 40))));
    assert_eq!(at(0, MIDNIGHT + 60).await, Ok(Some(place(3, 90))));
    assert_eq!(at(0, MIDNIGHT + 91).await, Ok(None));
    let largest = |start| world.archive.find_max_timestamp(&partition, start);
    assert_eq!(largest(0).await, Ok(Some(place(3, 90))));
    assert_eq!(largest(4).await, Ok(Some(place(5, 90))));
    assert_eq!(largest(6).await, Ok(Some(place(6, 30))));
    assert_eq!(largest(7).await, Ok(None));
    assert_eq!(world.archive.find_max_timestamp(&world.partition(9), 0).await, Ok(None));
}

#[tokio::test]
async fn json_values_stand_in_one_column_only() {
    let world = World::new();
    world.copy(0, &[orders(0..10_000, MIDNIGHT)]).await.expect("a copy");
    let payload: usize = (0..10_000).map(|offset| Record::new(offset, 0).value.map_or(0, |value| value.len())).sum();
    let bounds = world.archive.bounds(&world.partition(0)).await.expect("bounds").expect("some");
    assert!(bounds.size_bytes * 3 < payload as u64, "{} bytes at rest for {payload}", bounds.size_bytes);
}
