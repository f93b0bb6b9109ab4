//! SyncGroup, key 14, versions 0-5.
//!
//! v3 has static members (KIP-345), v4 is flexible, v5 names and checks the protocol (KIP-559).
//!
//! Differs from Apache Kafka: a parked sync of a member that is removed is answered, with UNKNOWN_MEMBER_ID, where Kafka lets it
//! run into the client's timeout.

use kafka_protocol::{
    ResponseError,
    messages::{SyncGroupRequest, SyncGroupResponse},
    protocol::StrBytes,
};

use super::{Outcome, Request, Services, errors};
use crate::{
    groups::classic::SyncRequest,
    model::{GroupId, GroupInstanceId, MemberId},
};

pub(super) async fn handle(services: &Services, request: Request<SyncGroupRequest>) -> Outcome<SyncGroupResponse> {
    let Request { body, version, .. } = request;
    if version >= 5 && (body.protocol_type.is_none() || body.protocol_name.is_none()) {
        return failure(ResponseError::InconsistentGroupProtocol).into();
    }
    let sync = SyncRequest {
        member_id: MemberId::new(&body.member_id),
        instance_id: body.group_instance_id.as_deref().map(GroupInstanceId::new),
        generation: body.generation_id,
        protocol_type: body.protocol_type.map(|name| name.to_string()),
        protocol: body.protocol_name.map(|name| name.to_string()),
        assignments: body
            .assignments
            .into_iter()
            .map(|assigned| (MemberId::new(&assigned.member_id), assigned.assignment))
            .collect(),
    };
    let pending = services.groups.sync(&GroupId::new(&body.group_id), sync).await;
    Outcome::Later(Box::pin(async move {
        match pending.answer().await {
            Ok(Ok(synced)) => SyncGroupResponse::default()
                .with_protocol_type(synced.protocol_type.filter(|_| version >= 5).map(StrBytes::from_string))
                .with_protocol_name(synced.protocol.filter(|_| version >= 5).map(StrBytes::from_string))
                .with_assignment(synced.assignment),
            Ok(Err(error)) => failure(errors::group(&error)),
            Err(error) => failure(errors::coordinator(&error)),
        }
    }))
}

fn failure(error: ResponseError) -> SyncGroupResponse {
    SyncGroupResponse::default().with_error_code(error.code())
}
