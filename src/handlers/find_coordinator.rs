//! FindCoordinator, key 10, versions 0-6.
//!
//! v1 has key types (0 group, 1 transaction, KIP-98), v3 is flexible, v4 asks for several keys at once (KIP-699), v5 adds
//! TRANSACTION_ABORTABLE (KIP-890), v6 key type 2, share groups (KIP-932).
//!
//! Differs from Apache Kafka: a transaction's coordinator is found although transactions are not built, so that a producer
//! gets its answer from InitProducerId; key type 2 is INVALID_REQUEST in every version.

use kafka_protocol::{
    ResponseError,
    messages::{FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response::Coordinator},
    protocol::StrBytes,
};

use super::{Request, Services};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

const INVALID: i16 = ResponseError::InvalidRequest.code();

pub(super) fn handle(services: &Services, request: &Request<FindCoordinatorRequest>) -> FindCoordinatorResponse {
    let body = &request.body;
    if request.version < 4 {
        let Found { code, message, node, host, port } = find(services, request, &body.key);
        return FindCoordinatorResponse::default()
            .with_error_code(code)
            .with_error_message(Some(StrBytes::from_static_str(message)).filter(|_| request.version >= 1))
            .with_node_id(node.into())
            .with_host(host)
            .with_port(port);
    }
    FindCoordinatorResponse::default().with_coordinators(
        body.coordinator_keys
            .iter()
            .map(|key| {
                let Found { code, message, node, host, port } = find(services, request, key);
                Coordinator::default()
                    .with_key(key.clone())
                    .with_node_id(node.into())
                    .with_host(host)
                    .with_port(port)
                    .with_error_code(code)
                    .with_error_message(Some(StrBytes::from_static_str(message)))
            })
            .collect(),
    )
}

struct Found {
    code: i16,
    message: &'static str,
    node: i32,
    host: StrBytes,
    port: i32,
}

fn find(services: &Services, request: &Request<FindCoordinatorRequest>, key: &str) -> Found {
    let none = |code, message| Found { code, message, node: -1, host: StrBytes::default(), port: -1 };
    match request.body.key_type {
        GROUP | TRANSACTION => match services.coordinator_of(key, &request.caller) {
            // Before v4 Kafka fills the message in even where there is no error.
            Some(broker) => Found {
                code: 0,
                message: if request.version < 4 { "NONE" } else { "" },
                node: broker.node.0,
                host: broker.host,
                port: broker.port,
            },
            None => none(ResponseError::CoordinatorNotAvailable.code(), "The coordinator is not available."),
        },
        SHARE if request.version >= 4 => none(INVALID, ""),
        _ => none(INVALID, "The key type is not one that this broker coordinates."),
    }
}
