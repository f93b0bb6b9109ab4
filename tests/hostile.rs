//! Bad bytes against a real broker: an answer or a closed connection, bounded memory, and nobody else notices.

mod support;

use std::{io::Write, net::TcpStream, time::Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse, ProduceRequest,
        ProduceResponse, TopicName,
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};
use proptest::prelude::*;
use support::{Connection, PATIENCE, Weir};
use weir::protocol::records::{Attributes, BatchHeader, Codec, Compression, HEADER_LENGTH, compress};

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1"))
}

/// Whether somebody who behaves is still served, and at once.
fn serves_others(weir: &Weir) -> bool {
    let began = Instant::now();
    let answer: ApiVersionsResponse = weir.connect().call(ApiKey::ApiVersions as i16, 4, &api_versions());
    answer.error_code == 0 && began.elapsed() < PATIENCE
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 4);
    bytes.put_i32(i32::try_from(body.len()).expect("a small body"));
    bytes.put_slice(body);
    bytes
}

/// Key, version, correlation id, null client id; then, in flexible headers, no tags.
fn start(key: i16, version: i16, flexible: bool) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_i16(key);
    body.put_i16(version);
    body.put_i32(1);
    body.put_i16(-1);
    if flexible {
        body.put_u8(0);
    }
    body
}

#[test]
fn every_api_survives_arrays_that_lie_about_their_length() {
    let weir = Weir::start(&[]);
    for api in weir::protocol::api::SERVED {
        for version in api.versions() {
            let flexible = api.key.request_header_version(version) >= 2;
            // The same lie at several places: a length of two billion, plain and as a varint.
            for padding in [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 17, 21] {
                for lie in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff, 0xff, 0xff, 0xff, 0x07][..]] {
                    let mut body = start(api.key as i16, version, flexible);
                    body.put_bytes(0, padding);
                    body.put_slice(lie);
                    let mut client = weir.connect();
                    client.stream.write_all(&frame(&body)).expect("sent");
                    client.stream.shutdown(std::net::Shutdown::Write).expect("shut down");
                    assert!(client.is_closed(), "{:?} v{version} padding {padding}", api.key);
                }
            }
        }
    }
    assert!(serves_others(&weir));
    assert!(weir.peak_mib() < 256, "{} MiB", weir.peak_mib());
}

#[test]
fn requests_that_are_not_served_close_the_connection() {
    let weir = Weir::start(&[]);
    for (key, version) in [(-1, 0), (9999, 0), (3, 99), (3, -1), (0, 2), (24, 0), (68, 0), (22, 6)] {
        let mut client = weir.connect();
        client.stream.write_all(&frame(&start(key, version, false))).expect("sent");
        assert!(client.is_closed(), "API {key} version {version}");
    }
    assert!(serves_others(&weir));
}

#[test]
fn random_bytes_end_in_a_closed_connection_or_an_answer() {
    let weir = Weir::start(&[]);
    let address = weir.address;
    proptest!(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() }, |(
        key in 0i16..80, version in 0i16..18, rest in proptest::collection::vec(any::<u8>(), 0..300)
    )| {
        let mut body = BytesMut::new();
        body.put_i16(key);
        body.put_i16(version);
        body.put_slice(&rest);
        let mut client = Connection::to(address);
        client.stream.write_all(&frame(&body)).expect("sent");
        client.stream.shutdown(std::net::Shutdown::Write).expect("shut down");
        prop_assert!(client.is_closed());
    });
    assert!(serves_others(&weir));
    assert!(weir.peak_mib() < 256, "{} MiB", weir.peak_mib());
}

#[test]
fn a_thousand_silent_connections_leave_room_for_others() {
    let weir = Weir::start(&[]);
    let silent: Vec<TcpStream> =
        (0..1_000).map(|_| TcpStream::connect(weir.address).expect("a listening broker")).collect();
    assert!(serves_others(&weir));
    assert!(weir.peak_mib() < 100, "{} MiB for {} connections", weir.peak_mib(), silent.len());
}

/// A zstd batch whose header says `records` and whose records are `payload`.
fn compressed_batch(records: i32, payload: &[u8]) -> Bytes {
    let mut compressed = Vec::new();
    compress(Compression::new(Codec::Zstd), payload, &mut compressed).expect("zstd");
    let mut header = BatchHeader {
        base_offset: 0,
        batch_length: i32::try_from(HEADER_LENGTH - 12 + compressed.len()).expect("a small batch"),
        partition_leader_epoch: -1,
        crc: 0,
        attributes: Attributes::default().with_codec(Codec::Zstd),
        last_offset_delta: records - 1,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_000,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: records,
    };
    header.crc = header.compute_crc(&compressed);
    let mut batch = BytesMut::from(&header.encode()[..]);
    batch.put_slice(&compressed);
    batch.freeze()
}

fn zigzag(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Records with a null key, an empty value and no headers.
fn tiny_records(count: i32) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut body = Vec::new();
    for delta in 0..count {
        body.clear();
        body.push(0);
        zigzag(0, &mut body);
        zigzag(i64::from(delta), &mut body);
        zigzag(-1, &mut body);
        zigzag(0, &mut body);
        zigzag(0, &mut body);
        zigzag(body.len() as i64, &mut payload);
        payload.extend_from_slice(&body);
    }
    payload
}

fn produce(connection: &mut Connection, topic: &'static str, records: Bytes) -> i16 {
    let name = || TopicName(StrBytes::from_static_str(topic));
    let metadata = MetadataRequest::default()
        .with_allow_auto_topic_creation(true)
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(name()))]));
    let known: MetadataResponse = connection.call(ApiKey::Metadata as i16, 9, &metadata);
    assert_eq!(known.topics[0].error_code, 0);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(20_000).with_topic_data(vec![
        TopicProduceData::default()
            .with_name(name())
            .with_partition_data(vec![PartitionProduceData::default().with_index(0).with_records(Some(records))]),
    ]);
    let answer: ProduceResponse = connection.call(ApiKey::Produce as i16, 9, &request);
    answer.responses[0].partition_responses[0].error_code
}

#[test]
fn a_small_batch_that_holds_a_million_records_is_refused_in_the_record_layout() {
    let weir = Weir::start(&["--override", "weir.layout=record"]);
    let batch = compressed_batch(1_000_000, &tiny_records(1_000_000));
    assert!(batch.len() < 1_000_000, "{} bytes", batch.len());
    assert_eq!(produce(&mut weir.connect(), "many", batch), ResponseError::MessageTooLarge.code());
    assert!(serves_others(&weir));
    assert!(weir.peak_mib() < 256, "{} MiB", weir.peak_mib());
}

#[test]
fn a_bomb_of_zeros_does_not_go_off() {
    for layout in ["weir.layout=record", "weir.layout=batch"] {
        let weir = Weir::start(&["--override", layout]);
        let bomb = compressed_batch(1, &vec![0; 300 << 20]);
        assert!(bomb.len() < 100_000, "{} bytes", bomb.len());
        assert_ne!(produce(&mut weir.connect(), "bomb", bomb), 0, "{layout}");
        assert!(serves_others(&weir));
        assert!(weir.peak_mib() < 256, "{layout}: {} MiB", weir.peak_mib());
    }
}
