//! LeaveGroup, key 13, versions 0-5.
//!
//! v3 takes several members and instance ids (KIP-345), v4 is flexible, v5 takes reasons (KIP-800).
//!
//! Differs from Apache Kafka: nothing.

use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse, leave_group_response::MemberResponse};

use super::{Outcome, Request, Services, errors};
use crate::{
    groups::classic::{LeaveRequest, LeavingMember},
    model::{GroupId, GroupInstanceId, MemberId},
};

pub(super) async fn handle(services: &Services, request: Request<LeaveGroupRequest>) -> Outcome<LeaveGroupResponse> {
    let Request { body, version, .. } = request;
    let members = if version <= 2 {
        vec![LeavingMember { id: MemberId::new(&body.member_id), instance_id: None, reason: None }]
    } else {
        body.members
            .iter()
            .map(|member| LeavingMember {
                id: MemberId::new(&member.member_id),
                instance_id: member.group_instance_id.as_deref().map(GroupInstanceId::new),
                reason: member.reason.as_ref().map(|reason| reason.to_string()),
            })
            .collect()
    };
    let pending = services.groups.leave(&GroupId::new(&body.group_id), LeaveRequest { members }).await;
    Outcome::Later(Box::pin(async move {
        let results = match pending.answer().await {
            Ok(results) => results,
            Err(error) => return LeaveGroupResponse::default().with_error_code(errors::coordinator(&error).code()),
        };
        let codes = results.into_iter().map(|result| result.err().map_or(0, |error| errors::group(&error).code()));
        if version <= 2 {
            return LeaveGroupResponse::default().with_error_code(codes.sum());
        }
        let members = body.members.into_iter().zip(codes).map(|(member, code)| {
            MemberResponse::default()
                .with_member_id(member.member_id)
                .with_group_instance_id(member.group_instance_id)
                .with_error_code(code)
        });
        LeaveGroupResponse::default().with_members(members.collect())
    }))
}
