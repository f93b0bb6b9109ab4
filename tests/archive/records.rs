//! Records of every kind, made of their number, written and read back over the wire.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, FetchResponse},
};
use weir::protocol::records::{BatchBuilder, BatchOptions, Batches, NewRecord, ProducerStamp};

use super::support::{
    Connection, PATIENCE,
    ledger::{attempt, fetch_request, produce_request},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Of the first record; the others are some milliseconds apart, and some come late.
pub(crate) const FIRST_TIMESTAMP: i64 = 1_795_392_000_000;

pub(crate) fn timestamp(number: u64) -> i64 {
    let late = if number % 5 == 4 { 40 } else { 0 };
    FIRST_TIMESTAMP + i64::try_from(number).expect("a short test") * 10 - late
}

pub(crate) fn record(number: u64) -> Record {
    let bytes = |text: String| Some(text.into_bytes());
    Record {
        timestamp: timestamp(number),
        key: match number % 3 {
            0 => None,
            1 => Some(Vec::new()),
            _ => bytes(format!("key-{}", number % 17)),
        },
        value: match number % 6 {
            0 => None,
            1 => Some(Vec::new()),
            2 => bytes(format!("{{\"number\": {number}, \"text\": \"\\u00e4\"}}")),
            3 => bytes(format!("{{\"number\":{number},\"padding\":\"{}\"}}", "x".repeat(60))),
            4 => Some([&[0, 255, 13][..], &number.to_be_bytes()].concat()),
            _ => bytes(format!("[{number}]")),
        },
        headers: match number % 4 {
            0 => Vec::new(),
            1 => vec![(b"trace".to_vec(), bytes(number.to_string())), (b"trace".to_vec(), None)],
            2 => vec![(b"\xff\x00".to_vec(), Some(Vec::new()))],
            _ => vec![(Vec::new(), Some(b"of no name".to_vec()))],
        },
    }
}

pub(crate) fn records(numbers: std::ops::Range<u64>) -> Vec<(i64, Record)> {
    numbers.map(|number| (i64::try_from(number).expect("a short test"), record(number))).collect()
}

/// Ten at a time, until they are taken; of nobody where the producer is negative.
pub(crate) fn write(address: SocketAddr, producer: i64, numbers: std::ops::Range<u64>) {
    write_to(&[address], producer, numbers);
}

/// As [`write`], to whichever of them leads.
pub(crate) fn write_to(addresses: &[SocketAddr], producer: i64, numbers: std::ops::Range<u64>) {
    let mut addresses = addresses.iter().copied().cycle();
    let mut address = addresses.next().expect("an address");
    for first in numbers.clone().step_by(10) {
        let deadline = Instant::now() + PATIENCE;
        let request = produce_request(batch(producer, first..(first + 10).min(numbers.end)));
        loop {
            match attempt(address, &request).map(ResponseError::try_from_code) {
                Some(None | Some(ResponseError::DuplicateSequenceNumber)) => break,
                Some(Some(error)) if !error.is_retriable() => panic!("record {first}: {error:?}"),
                refused => assert!(Instant::now() < deadline, "record {first} is not taken: {refused:?}"),
            }
            address = addresses.next().expect("it goes round");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub(crate) fn batch(producer_id: i64, numbers: std::ops::Range<u64>) -> bytes::Bytes {
    let base_sequence = i32::try_from(numbers.start).expect("a short test");
    let producer = (producer_id >= 0).then_some(ProducerStamp { producer_id, producer_epoch: 0, base_sequence });
    let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
    for (offset, number) in (0..).zip(numbers) {
        let record = record(number);
        let headers = record.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref()));
        let new = NewRecord {
            offset,
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers,
        };
        builder.push(new).expect("a legal record");
    }
    builder.finish().expect("a legal batch")
}

/// What one fetch gives from `offset` on, or its error.
pub(crate) fn fetch(connection: &mut Connection, offset: i64) -> Result<(Vec<(i64, Record)>, i64), ResponseError> {
    let answer: FetchResponse = connection.call(ApiKey::Fetch as i16, 12, &fetch_request(0, offset, -1));
    let got = &answer.responses[0].partitions[0];
    if let Some(error) = ResponseError::try_from_code(got.error_code) {
        return Err(error);
    }
    let mut found = Vec::new();
    for batch in Batches::new(got.records.clone().unwrap_or_default()) {
        let batch = batch.expect("a whole batch");
        let base = batch.header().base_offset;
        for record in batch.records(64 << 20).expect("readable records").iter() {
            let record = record.expect("a readable record");
            let at = base + i64::from(record.offset_delta);
            if at < offset {
                continue;
            }
            let headers = record.headers.clone().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)));
            found.push((
                at,
                Record {
                    timestamp: record.timestamp,
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    headers: headers.collect(),
                },
            ));
        }
    }
    Ok((found, got.high_watermark))
}

/// From `offset` to the end, with retries of what may be retried.
pub(crate) fn read_from(address: SocketAddr, offset: i64) -> Vec<(i64, Record)> {
    let mut connection = Connection::to(address);
    let (mut next, mut all) = (offset, Vec::new());
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fetch(&mut connection, next) {
            Ok((found, high_watermark)) => {
                all.extend(found);
                next = all.last().map_or(next, |(offset, _)| offset + 1);
                if next >= high_watermark {
                    return all;
                }
            }
            Err(error) => assert!(error.is_retriable(), "at {next}: {error:?}"),
        }
        assert!(Instant::now() < deadline, "the consumer stands still at {next}");
    }
}

pub(crate) fn values_from(address: SocketAddr, offset: i64) -> Vec<Vec<u8>> {
    read_from(address, offset).into_iter().map(|(_, record)| record.value.expect("a value")).collect()
}

pub(crate) fn assert_same(found: &[(i64, Record)], expected: &[(i64, Record)], when: &str) {
    let different = found.iter().zip(expected).find(|(found, expected)| found != expected);
    assert_eq!(different, None, "{when}");
    assert_eq!(found.len(), expected.len(), "{when}");
}
