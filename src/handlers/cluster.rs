//! What the answers that name brokers share.

use std::{sync::Arc, time::Duration};

use kafka_protocol::protocol::StrBytes;

use super::{Listener, Services};
use crate::{
    cluster::{Broker, View},
    model::{NodeId, TopicId},
    net::Caller,
};

/// Kafka's marker for "authorized operations were not asked for".
pub(super) const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

/// A broker that is cut off from Redis no longer names itself after this time, so that clients that know no other one ask elsewhere.
/// Before that it may be Redis that is away, for all of them: asked one after another, each would name all but itself, and librdkafka
/// forgets at once whom an answer does not name, with its connections and its coordinator.
const NAMED_WHILE_CUT_OFF: Duration = Duration::from_secs(10);

/// A broker as the answer to one caller names it: by the listener that the caller's connection came in on.
pub(super) struct BrokerAddress {
    pub(super) node: NodeId,
    pub(super) host: StrBytes,
    pub(super) port: i32,
    pub(super) rack: Option<StrBytes>,
}

/// Who leads a partition, as far as this broker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartitionLeader {
    /// `None` where no broker is alive.
    pub(super) node: Option<NodeId>,
    pub(super) epoch: i32,
}

impl PartitionLeader {
    /// -1 for nobody, as the wire has it.
    pub(super) fn id(&self) -> i32 {
        self.node.map_or(-1, |node| node.0)
    }
}

impl Services {
    /// Every live broker that has the caller's listener and can be asked; this one where there is none. librdkafka forgets each
    /// broker that an answer does not name, and never asks anybody again after one that names nobody (its issue 5301).
    pub(super) fn brokers(&self, caller: &Caller) -> Vec<BrokerAddress> {
        let listener = self.listener(caller);
        let view = self.cluster.view();
        let is_gone = self.cluster.was_cut_off_for(NAMED_WHILE_CUT_OFF);
        let named = view.live.iter().filter(|broker| broker.node != self.identity.node || !is_gone);
        let mut named: Vec<BrokerAddress> = named.filter_map(|broker| address(broker, &listener.name)).collect();
        if named.is_empty() {
            named.push(BrokerAddress {
                node: self.identity.node,
                host: StrBytes::from_string(listener.advertised_host.clone()),
                port: i32::from(listener.advertised_port),
                rack: None,
            });
        }
        named
    }

    /// A live broker that has the caller's listener.
    pub(super) fn broker_address(&self, node: NodeId, caller: &Caller) -> Option<BrokerAddress> {
        address(self.cluster.view().broker(node)?, &self.listener(caller).name)
    }

    /// Every live broker, where assignments name them.
    pub(super) fn broker_ids(&self) -> Vec<i32> {
        self.cluster.view().live.iter().map(|broker| broker.node.0).collect()
    }

    /// Who coordinates the group or transaction of this name. A broker that is cut off does not name itself: another may by now.
    pub(super) fn coordinator_of(&self, name: &str, caller: &Caller) -> Option<BrokerAddress> {
        let view = self.cluster.view();
        let coordinator = view.coordinator(name)?.broker;
        address(coordinator, &self.listener(caller).name)
            .filter(|broker| broker.node != self.identity.node || !self.cluster.is_cut_off())
    }

    pub(super) fn leader_of(&self, topic: TopicId, index: i32) -> PartitionLeader {
        leader(&self.cluster.view(), topic, index)
    }

    /// For answers that name many partitions.
    pub(super) fn reachable_brokers(&self, caller: &Caller) -> ReachableBrokers {
        let (view, listener) = (self.cluster.view(), &self.listener(caller).name);
        let nodes = view.live.iter().filter(|broker| broker.endpoint(listener).is_some()).map(|broker| broker.node);
        let cut_off = self.cluster.is_cut_off().then_some(self.identity.node);
        ReachableBrokers { nodes: nodes.collect(), cut_off, view }
    }

    /// Where to go instead (KIP-951); `None` where this broker knows no better.
    pub(super) fn other_leader_of(&self, topic: TopicId, index: i32) -> Option<PartitionLeader> {
        Some(self.leader_of(topic, index)).filter(|leader| leader.node.is_some_and(|node| node != self.identity.node))
    }

    fn listener(&self, caller: &Caller) -> &Listener {
        self.identity.listeners.get(caller.listener).expect("a caller came in on one of the listeners")
    }
}

/// The live brokers, and which of them have the caller's listener.
pub(super) struct ReachableBrokers {
    view: Arc<View>,
    nodes: Vec<NodeId>,
    /// This broker, where nobody knows who leads in its stead.
    cut_off: Option<NodeId>,
}

impl ReachableBrokers {
    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.nodes.contains(&node)
    }

    pub(super) fn leader_of(&self, topic: TopicId, index: i32) -> PartitionLeader {
        let leader = leader(&self.view, topic, index);
        PartitionLeader { node: leader.node.filter(|node| Some(*node) != self.cut_off), ..leader }
    }
}

fn leader(view: &View, topic: TopicId, index: i32) -> PartitionLeader {
    match view.leader(topic, index) {
        Some(leader) => PartitionLeader { node: Some(leader.broker.node), epoch: leader.epoch },
        None => PartitionLeader { node: None, epoch: -1 },
    }
}

fn address(broker: &Broker, listener: &str) -> Option<BrokerAddress> {
    let endpoint = broker.endpoint(listener)?;
    Some(BrokerAddress {
        node: broker.node,
        host: StrBytes::from_string(endpoint.host.clone()),
        port: i32::from(endpoint.port),
        rack: broker.rack.clone().map(StrBytes::from_string),
    })
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
