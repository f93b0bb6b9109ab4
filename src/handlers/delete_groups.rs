//! DeleteGroups, key 42, versions 0-2.
//!
//! v2 is flexible.
//!
//! Differs from Apache Kafka: the groups are answered in the order of the request.

use std::collections::HashSet;

use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult,
};

use super::{Outcome, Request, Services, errors};
use crate::model::GroupId;

pub(super) async fn handle(
    services: &Services,
    request: Request<DeleteGroupsRequest>,
) -> Outcome<DeleteGroupsResponse> {
    let mut seen = HashSet::new();
    let mut asked = Vec::new();
    for id in request.body.groups_names {
        if seen.insert(id.clone()) {
            let pending = services.groups.delete(&GroupId::new(&id)).await;
            asked.push((id, pending));
        }
    }
    Outcome::Later(Box::pin(async move {
        let mut results = Vec::with_capacity(asked.len());
        for (id, pending) in asked {
            let code = pending.answer().await.err().map_or(0, |error| errors::coordinator(&error).code());
            results.push(DeletableGroupResult::default().with_group_id(id).with_error_code(code));
        }
        DeleteGroupsResponse::default().with_results(results)
    }))
}
