//! Heartbeat, key 12, versions 0-4.
//!
//! v3 has static members (KIP-345), v4 is flexible. Answered with success while groups are being loaded, so that members stay.
//!
//! Differs from Apache Kafka: nothing.

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{Outcome, Request, Services, errors};
use crate::{
    coordinator::{CoordinatorError, Heartbeat},
    model::{GroupId, GroupInstanceId, MemberId},
};

pub(super) async fn handle(services: &Services, request: Request<HeartbeatRequest>) -> Outcome<HeartbeatResponse> {
    let body = request.body;
    let beat = Heartbeat {
        member_id: MemberId::new(&body.member_id),
        instance_id: body.group_instance_id.as_deref().map(GroupInstanceId::new),
        generation: body.generation_id,
    };
    let pending = services.groups.heartbeat(&GroupId::new(&body.group_id), beat).await;
    Outcome::Later(Box::pin(async move {
        match pending.answer().await {
            Ok(()) | Err(CoordinatorError::Loading) => HeartbeatResponse::default(),
            Err(error) => HeartbeatResponse::default().with_error_code(errors::coordinator(&error).code()),
        }
    }))
}
