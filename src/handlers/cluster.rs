//! What the answers that name brokers share.

use kafka_protocol::protocol::StrBytes;

use super::Services;
use crate::{model::NodeId, net::Caller};

/// Kafka's marker for "authorized operations were not asked for".
pub(super) const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

/// A broker as the answer to one caller names it: by the listener that the caller's connection came in on.
pub(super) struct BrokerAddress {
    pub(super) node: NodeId,
    pub(super) host: StrBytes,
    pub(super) port: i32,
    pub(super) rack: Option<StrBytes>,
}

impl Services {
    /// Every live broker. There is one until several can share a Redis.
    pub(super) fn brokers(&self, caller: &Caller) -> Vec<BrokerAddress> {
        vec![self.this_broker(caller)]
    }

    /// Every live broker, where assignments name them.
    pub(super) fn broker_ids(&self) -> Vec<i32> {
        vec![self.identity.node.0]
    }

    pub(super) fn this_broker(&self, caller: &Caller) -> BrokerAddress {
        let listener = self.identity.listeners.get(caller.listener).expect("a caller came in on one of the listeners");
        BrokerAddress {
            node: self.identity.node,
            host: StrBytes::from_string(listener.advertised_host.clone()),
            port: i32::from(listener.advertised_port),
            rack: self.identity.rack.clone().map(StrBytes::from_string),
        }
    }
}

/// Bits of the operations that a caller may do, one per `AclOperation` code. Without an authorizer: all that the resource has.
pub(super) fn operations(codes: &[u32]) -> i32 {
    codes.iter().fold(0, |bits, code| bits | (1 << code))
}

/// READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub(super) const TOPIC_OPERATIONS: &[u32] = &[3, 4, 5, 6, 7, 8, 10, 11];

/// CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE.
pub(super) const CLUSTER_OPERATIONS: &[u32] = &[5, 7, 8, 9, 10, 11, 12];

/// READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub(super) const GROUP_OPERATIONS: &[u32] = &[3, 6, 8, 10, 11];
