//! ApiVersions, key 18, versions 0-4.
//!
//! v3 is flexible, checks the client's software name and version (KIP-511) and reports features (KIP-584); v4 allows features
//! with version 0. A version that is not served is answered in the form of v0 with the supported range (KIP-511).
//!
//! Differs from Apache Kafka: finalizes no feature, since none of those that clients act on is built.

use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, api_versions_response::ApiVersion},
};

use super::{Request, encode};
use crate::{
    net::{Close, Reply},
    protocol::api,
};

pub(super) fn handle(request: &Request<ApiVersionsRequest>) -> ApiVersionsResponse {
    let body = &request.body;
    let named = |text: &str| is_software_name(text);
    if request.version >= 3 && !(named(&body.client_software_name) && named(&body.client_software_version)) {
        return ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
    }
    ApiVersionsResponse::default().with_api_keys(api::SERVED.iter().map(row).collect())
}

/// The answer to an ApiVersions request of a version that is not served.
pub(super) fn unsupported(correlation_id: i32) -> Result<Reply, Close> {
    let own = api::SERVED.iter().filter(|api| api.key == ApiKey::ApiVersions).map(row).collect();
    let response =
        ApiVersionsResponse::default().with_error_code(ResponseError::UnsupportedVersion.code()).with_api_keys(own);
    encode(correlation_id, 0, &response).map(Reply::Ready)
}

fn row(api: &api::Api) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api.key as i16)
        .with_min_version(api.advertised_min())
        .with_max_version(api.versions.1)
}

/// Letters, digits, dots and hyphens, neither first nor last a dot or hyphen.
fn is_software_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
    let outer = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let mut bytes = text.bytes();
    text.bytes().all(inner) && outer(text.bytes().next()) && outer(bytes.next_back())
}
