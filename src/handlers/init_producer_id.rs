//! InitProducerId, key 22, versions 0-5.
//!
//! v2 is flexible, v3 lets a transactional producer bump its epoch (KIP-360), v4 knows PRODUCER_FENCED (KIP-588), v5 is for
//! transactions (KIP-890).
//!
//! Differs from Apache Kafka: there are no transactions, so a transactional id is answered with
//! TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which ends producers instead of keeping them waiting.

use std::sync::Arc;

use kafka_protocol::{
    ResponseError,
    messages::{InitProducerIdRequest, InitProducerIdResponse},
};
use tracing::debug;

use super::{Request, Services};

const NONE: i64 = -1;

pub(super) async fn handle(services: Arc<Services>, request: Request<InitProducerIdRequest>) -> InitProducerIdResponse {
    match producer_id(&services, &request.body).await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(id.into()).with_producer_epoch(0),
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(NONE.into())
            .with_producer_epoch(-1),
    }
}

async fn producer_id(services: &Services, body: &InitProducerIdRequest) -> Result<i64, ResponseError> {
    if (body.producer_id.0 == NONE) != (body.producer_epoch == -1) {
        return Err(ResponseError::InvalidRequest);
    }
    match &body.transactional_id {
        Some(id) if id.is_empty() => Err(ResponseError::InvalidRequest),
        Some(_) => Err(ResponseError::TransactionalIdAuthorizationFailed),
        // A producer that is only idempotent gets a new id, whatever it had.
        None => services.producer_ids.next().await.map_err(|error| {
            debug!(%error, "no producer id");
            // The one retriable error for which producers do not look for a coordinator.
            ResponseError::CoordinatorLoadInProgress
        }),
    }
}
