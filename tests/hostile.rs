//! Bad bytes against a real broker: an answer or a closed connection, bounded memory, and nobody else notices.

mod support;

use std::{io::Write, net::TcpStream, time::Instant};

use bytes::{BufMut, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse},
    protocol::StrBytes,
};
use proptest::prelude::*;
use support::{Connection, PATIENCE, Weir};

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
