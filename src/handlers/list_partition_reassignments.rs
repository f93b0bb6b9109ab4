//! ListPartitionReassignments, key 46, version 0 (KIP-455).
//!
//! Differs from Apache Kafka: a partition never moves, so there is never one.

use kafka_protocol::messages::ListPartitionReassignmentsResponse;

pub(super) fn handle() -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default().with_error_message(None)
}
