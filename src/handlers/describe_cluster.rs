//! DescribeCluster, key 60, versions 0-2.
//!
//! v1 names the kind of endpoint (KIP-919), v2 can include fenced brokers (KIP-1073).
//!
//! Differs from Apache Kafka: nothing; no broker is ever fenced.

use kafka_protocol::{
    ResponseError,
    messages::{DescribeClusterRequest, DescribeClusterResponse, describe_cluster_response::DescribeClusterBroker},
    protocol::StrBytes,
};

use super::{
    Request, Services,
    cluster::{CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED, operations},
};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) fn handle(services: &Services, request: &Request<DescribeClusterRequest>) -> DescribeClusterResponse {
    let body = &request.body;
    let refused = |error: ResponseError, message: &str| {
        DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(message.to_owned())))
            .with_endpoint_type(BROKERS)
    };
    match body.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            return refused(
                ResponseError::MismatchedEndpointType,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
            );
        }
        other => {
            return refused(ResponseError::UnsupportedEndpointType, &format!("Unsupported endpoint type {other}"));
        }
    }
    let brokers = services
        .brokers(&request.caller)
        .into_iter()
        .map(|broker| {
            DescribeClusterBroker::default()
                .with_broker_id(broker.node.0.into())
                .with_host(broker.host)
                .with_port(broker.port)
                .with_rack(broker.rack)
        })
        .collect();
    DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(services.identity.cluster_id.clone()))
        .with_controller_id(services.identity.node.0.into())
        .with_brokers(brokers)
        .with_cluster_authorized_operations(if body.include_cluster_authorized_operations {
            operations(CLUSTER_OPERATIONS)
        } else {
            OPERATIONS_NOT_ASKED
        })
}
