//! ListGroups, key 16, versions 0-5.
//!
//! v3 is flexible, v4 filters by state (KIP-518), v5 by type (KIP-848).
//!
//! Differs from Apache Kafka: nothing.

use kafka_protocol::{
    messages::{GroupId, ListGroupsRequest, ListGroupsResponse, list_groups_response::ListedGroup},
    protocol::StrBytes,
};

use super::{Outcome, Request, Services, errors, group_wire};

/// The type of every group that is built.
const CLASSIC: &str = "classic";

pub(super) async fn handle(services: &Services, request: Request<ListGroupsRequest>) -> Outcome<ListGroupsResponse> {
    let Request { body, version, .. } = request;
    let groups = match services.groups.list().await {
        Ok(groups) => groups,
        Err(error) => {
            return ListGroupsResponse::default().with_error_code(errors::coordinator(&error).code()).into();
        }
    };
    let wanted = |filter: &[StrBytes], own: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(own))
    };
    let listed = groups
        .into_iter()
        .filter(|(_, group)| wanted(&body.states_filter, group.state.name()) && wanted(&body.types_filter, CLASSIC))
        .map(|(id, group)| {
            let listed = ListedGroup::default()
                .with_group_id(GroupId(group_wire::text(id.as_str())))
                .with_protocol_type(StrBytes::from_string(group.protocol_type));
            let state = if version >= 4 { group.state.name() } else { "" };
            let kind = if version >= 5 { CLASSIC } else { "" };
            listed.with_group_state(StrBytes::from_static_str(state)).with_group_type(StrBytes::from_static_str(kind))
        });
    ListGroupsResponse::default().with_groups(listed.collect()).into()
}
