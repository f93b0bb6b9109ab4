//! Batches as real clients wrote them and Kafka 4.3.1 stored them: files of its log directory.

use std::{fs, path::PathBuf};

use super::*;

const CLIENTS: [&str; 5] = ["java", "librdkafka", "kafka-python", "franz-go", "sarama"];

fn fixture(client: &str, codec: Codec) -> Bytes {
    let codec = if codec == Codec::None { "none" } else { codec.name() };
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.push(format!("tests/fixtures/batches/{client}-{codec}.bin"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into()
}

/// The batch as its producer sent it: without base offset.
fn as_sent(batch: &Batch) -> Bytes {
    let mut header = *batch.header();
    header.base_offset = 0;
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&batch.payload());
    bytes.into()
}

fn limits() -> ValidationLimits {
    ValidationLimits { keep_records: false, ..default_limits() }
}

#[test]
fn batches_of_every_client_and_codec_are_accepted_and_placed_as_kafka_placed_them() {
    for client in CLIENTS {
        for codec in CODECS {
            let log = fixture(client, codec);
            let mut batches = Batches::new(log.clone());
            let mut stored = Vec::new();
            for batch in batches.by_ref() {
                let batch = batch.unwrap_or_else(|error| panic!("{client} {codec:?}: {error}"));
                assert_eq!(batch.header().codec(), Ok(codec), "{client}");
                for keep_records in [false, true] {
                    let valid = check(as_sent(&batch), &ValidationLimits { keep_records, ..limits() })
                        .unwrap_or_else(|error| panic!("{client} {codec:?}: {error}"));
                    assert!(valid.offsets_contiguous());
                    assert!(!valid.needs_rebuild(None));
                    assert!(!valid.needs_rebuild(Some(Compression::new(codec))));
                    let placement = Placement {
                        base_offset: batch.header().base_offset,
                        partition_leader_epoch: batch.header().partition_leader_epoch,
                        log_append_time: None,
                    };
                    assert_eq!(valid.place(&placement).to_bytes(), batch.bytes(), "{client} {codec:?}");
                }
                stored.extend_from_slice(batch.bytes());
            }
            assert!(batches.rest().is_empty());
            assert_eq!(stored, log);
        }
    }
}

#[test]
fn the_codec_does_not_change_what_is_read() {
    for client in CLIENTS {
        let mut by_codec = CODECS.iter().map(|codec| {
            let mut records = Vec::new();
            for batch in Batches::new(fixture(client, *codec)) {
                let opened = batch.expect("a batch").records(MEBIBYTE).expect("records");
                records.extend(read(&opened));
            }
            assert!(records.len() >= 3, "{client} {codec:?} has {} records", records.len());
            for record in &mut records {
                record.timestamp = 0;
            }
            records
        });
        let first = by_codec.next().expect("five codecs");
        for other in by_codec {
            assert_eq!(first, other, "{client}");
        }
    }
}

#[test]
fn records_of_the_java_client_read_as_they_were_sent() {
    for codec in CODECS {
        let batch = Batches::new(fixture("java", codec)).next().expect("a batch").expect("a valid one");
        let records = read(&batch.records(MEBIBYTE).expect("records"));
        let first_timestamp = batch.header().base_timestamp;
        let text = |text: &str| Some(text.as_bytes().to_vec());
        let headers = vec![(b"h".to_vec(), Some(b"1".to_vec())), (b"h".to_vec(), None), (Vec::new(), Some(Vec::new()))];
        let expected = [
            (0, text("key"), text("value value value value value value"), headers),
            (4, None, text("second, without a key"), Vec::new()),
            (2, text("tombstone"), None, Vec::new()),
            (3, text(""), text(""), Vec::new()),
        ];
        for (index, (delta, key, value, headers)) in expected.into_iter().enumerate() {
            let offset = i64::try_from(index).expect("a small index");
            let expected = OwnedRecord { offset, timestamp: first_timestamp + delta, key, value, headers };
            assert_eq!(records.get(index), Some(&expected), "{codec:?}");
        }
        assert_eq!(records.len(), 4);
        let valid = check(as_sent(&batch), &limits()).expect("a valid batch");
        assert_eq!(valid.max_timestamp(), first_timestamp + 4);
        assert_eq!(valid.max_timestamp_index(), Some(1));
        assert!(valid.header().has_producer_id());
        assert_eq!(valid.header().base_sequence, 0);
        assert_eq!(valid.header().last_sequence(), 3);
    }
}

#[test]
fn every_client_batch_can_be_recompressed_to_every_codec() {
    for client in CLIENTS {
        for sent in CODECS {
            let batch = Batches::new(fixture(client, sent)).next().expect("a batch").expect("a valid one");
            let valid = check(as_sent(&batch), &limits()).expect("a valid batch");
            let records = read(&valid.records(MEBIBYTE).expect("records"));
            for stored in CODECS {
                let target = Some(Compression::new(stored));
                assert_eq!(valid.needs_rebuild(target), sent != stored);
                let rebuilt = valid.rebuild(target, MEBIBYTE).expect("it can be rebuilt");
                assert_eq!(rebuilt.header().codec(), Ok(stored));
                let again = check(rebuilt.batch().bytes().clone(), &limits()).expect("still valid");
                assert_eq!(again.max_timestamp(), valid.max_timestamp());
                assert_eq!(again.max_timestamp_index(), valid.max_timestamp_index());
                assert_eq!(read(&again.records(MEBIBYTE).expect("records")), records);
                let before = valid.header();
                let after = again.header();
                assert_eq!(
                    (after.producer_id, after.producer_epoch, after.base_sequence, after.last_offset_delta),
                    (before.producer_id, before.producer_epoch, before.base_sequence, before.last_offset_delta)
                );
            }
        }
    }
}
