//! DescribeAcls, CreateAcls, DeleteAcls: keys 29 to 31, versions 1-3.
//!
//! v2 is flexible, v3 adds the resource type USER (KIP-373). There is no authorizer: all answer SECURITY_DISABLED.
//!
//! Differs from Apache Kafka without an authorizer: nothing.

use kafka_protocol::{
    ResponseError,
    messages::{
        CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsResponse,
        create_acls_response::AclCreationResult, delete_acls_response::DeleteAclsFilterResult,
    },
    protocol::StrBytes,
};

const CODE: i16 = ResponseError::SecurityDisabled.code();

fn message() -> Option<StrBytes> {
    Some(StrBytes::from_static_str("No Authorizer is configured."))
}

pub(super) fn describe() -> DescribeAclsResponse {
    DescribeAclsResponse::default().with_error_code(CODE).with_error_message(message())
}

pub(super) fn create(request: &CreateAclsRequest) -> CreateAclsResponse {
    let refused = AclCreationResult::default().with_error_code(CODE).with_error_message(message());
    CreateAclsResponse::default().with_results(vec![refused; request.creations.len()])
}

pub(super) fn delete(request: &DeleteAclsRequest) -> DeleteAclsResponse {
    let refused = DeleteAclsFilterResult::default().with_error_code(CODE).with_error_message(message());
    DeleteAclsResponse::default().with_filter_results(vec![refused; request.filters.len()])
}
