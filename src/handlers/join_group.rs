//! JoinGroup, key 11, versions 0-9.
//!
//! v1 has a rebalance timeout of its own, v4 gives out member ids first (KIP-394), v5 static members (KIP-345), v6 is flexible,
//! v7 names the protocol type in the answer (KIP-559), v8 takes a reason (KIP-800), v9 lets a leader skip the assignment
//! (KIP-814).
//!
//! Differs from Apache Kafka: where a pending id comes with an instance id, UNKNOWN_MEMBER_ID instead of UNKNOWN_SERVER_ERROR.

use kafka_protocol::{
    ResponseError,
    messages::{JoinGroupRequest, JoinGroupResponse, join_group_response::JoinGroupResponseMember},
    protocol::StrBytes,
};

use super::{Outcome, Request, Services, errors, group_wire};
use crate::{
    coordinator::fresh_member_id,
    groups::classic::{JoinRequest, Joined, JoinedMember, Protocol},
    model::{GroupId, GroupInstanceId, MemberId},
};

pub(super) async fn handle(services: &Services, request: Request<JoinGroupRequest>) -> Outcome<JoinGroupResponse> {
    let version = request.version;
    let client_id = request.client_id.as_deref().unwrap_or("").to_owned();
    let client_host = group_wire::client_host(&request.caller);
    let body = request.body;
    let instance_id = body.group_instance_id.as_deref().map(GroupInstanceId::new);
    let member_id = MemberId::new(&body.member_id);
    let join = JoinRequest {
        fresh_id: fresh_member_id(instance_id.as_ref(), &client_id),
        member_id: member_id.clone(),
        instance_id,
        client_id,
        client_host,
        session_timeout_ms: body.session_timeout_ms,
        rebalance_timeout_ms: if version == 0 { body.session_timeout_ms } else { body.rebalance_timeout_ms },
        protocol_type: body.protocol_type.to_string(),
        protocols: body
            .protocols
            .into_iter()
            .map(|protocol| Protocol { name: protocol.name.to_string(), metadata: protocol.metadata })
            .collect(),
        reason: body.reason.map(|reason| reason.to_string()),
        member_id_required: version >= 4,
        can_skip_assignment: version >= 9,
    };
    let pending = services.groups.join(&GroupId::new(&body.group_id), join).await;
    Outcome::Later(Box::pin(async move {
        match pending.answer().await {
            Ok(Ok(joined)) => success(version, joined),
            Ok(Err(refusal)) => failure(version, errors::group(&refusal.error), &refusal.member_id),
            Err(error) => failure(version, errors::coordinator(&error), &member_id),
        }
    }))
}

fn success(version: i16, joined: Joined) -> JoinGroupResponse {
    let member = |member: JoinedMember| {
        JoinGroupResponseMember::default()
            .with_member_id(group_wire::text(member.id.as_str()))
            .with_group_instance_id(
                member.instance_id.filter(|_| version >= 5).map(|instance| group_wire::text(instance.as_str())),
            )
            .with_metadata(member.metadata)
    };
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.filter(|_| version >= 7).map(StrBytes::from_string))
        .with_protocol_name(named(version, joined.protocol))
        .with_leader(joined.leader.map_or_else(StrBytes::default, |leader| group_wire::text(leader.as_str())))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(group_wire::text(joined.member_id.as_str()))
        .with_members(joined.members.into_iter().map(member).collect())
}

fn failure(version: i16, error: ResponseError, member_id: &MemberId) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(error.code())
        .with_generation_id(-1)
        .with_protocol_name(named(version, None))
        .with_member_id(group_wire::text(member_id.as_str()))
}

/// Before v7 the protocol's name may not be null.
fn named(version: i16, protocol: Option<String>) -> Option<StrBytes> {
    match protocol {
        None if version < 7 => Some(StrBytes::default()),
        protocol => protocol.map(StrBytes::from_string),
    }
}
