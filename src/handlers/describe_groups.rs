//! DescribeGroups, key 15, versions 0-6.
//!
//! v3 tells authorized operations (KIP-430), v4 static members (KIP-345), v5 is flexible, v6 has an error for a group that does not
//! exist where older ones call it dead (KIP-1043).
//!
//! Differs from Apache Kafka: the groups are answered in the order of the request.

use kafka_protocol::{
    ResponseError,
    messages::{
        DescribeGroupsRequest, DescribeGroupsResponse, GroupId as WireGroupId,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
    },
    protocol::StrBytes,
};

use super::{Outcome, Request, Services, cluster, errors, group_wire};
use crate::{
    coordinator::CoordinatorError,
    groups::classic::{DescribedMember, Description},
    model::GroupId,
};

pub(super) async fn handle(
    services: &Services,
    request: Request<DescribeGroupsRequest>,
) -> Outcome<DescribeGroupsResponse> {
    let Request { body, version, .. } = request;
    let mut asked = Vec::with_capacity(body.groups.len());
    for id in body.groups {
        let pending = services.groups.describe(&GroupId::new(&id)).await;
        asked.push((id, pending));
    }
    let with_operations = version >= 3 && body.include_authorized_operations;
    Outcome::Later(Box::pin(async move {
        let mut groups = Vec::with_capacity(asked.len());
        for (id, pending) in asked {
            let mut group = described(version, id, pending.answer().await);
            if with_operations && group.error_code == 0 {
                group.authorized_operations = cluster::operations(cluster::GROUP_OPERATIONS);
            }
            groups.push(group);
        }
        DescribeGroupsResponse::default().with_groups(groups)
    }))
}

fn described(version: i16, id: WireGroupId, answer: Result<Option<Description>, CoordinatorError>) -> DescribedGroup {
    let group = DescribedGroup::default().with_group_id(id);
    match answer {
        Err(error) => group.with_error_code(errors::coordinator(&error).code()),
        Ok(None) if version >= 6 => {
            let message = format!("Group {} not found.", &**group.group_id);
            group
                .with_group_state(StrBytes::from_static_str("Dead"))
                .with_error_code(ResponseError::GroupIdNotFound.code())
                .with_error_message(Some(StrBytes::from_string(message)))
        }
        Ok(None) => group.with_group_state(StrBytes::from_static_str("Dead")),
        Ok(Some(description)) => group
            .with_group_state(StrBytes::from_static_str(description.state.name()))
            .with_protocol_type(StrBytes::from_string(description.protocol_type))
            .with_protocol_data(StrBytes::from_string(description.protocol))
            .with_members(description.members.into_iter().map(|member| described_member(version, member)).collect()),
    }
}

fn described_member(version: i16, member: DescribedMember) -> DescribedGroupMember {
    let instance = member.instance_id.filter(|_| version >= 4);
    DescribedGroupMember::default()
        .with_member_id(group_wire::text(member.id.as_str()))
        .with_group_instance_id(instance.map(|instance| group_wire::text(instance.as_str())))
        .with_client_id(StrBytes::from_string(member.client_id))
        .with_client_host(StrBytes::from_string(member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}
