use bytes::Bytes;

use crate::{
    groups::Ticket,
    model::{GroupInstanceId, MemberId},
};

/// A protocol that a member can follow, with what it tells the leader (opaque: `consumer`, `connect`, `sr`, …).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// What of a member outlives the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMember {
    pub id: MemberId,
    pub instance_id: Option<GroupInstanceId>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    /// In the order of the member's preference.
    pub protocols: Vec<Protocol>,
    /// What the leader gave it, empty while it gave nothing.
    pub assignment: Bytes,
}

/// A member and what it waits for.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) stored: StoredMember,
    pub(super) awaiting_join: Option<Ticket>,
    pub(super) awaiting_sync: Option<Ticket>,
    /// It has not had its first answer, so it can't send heartbeats.
    pub(super) is_new: bool,
    /// When its session ends; monotonic.
    pub(super) deadline: Option<i64>,
}

impl Member {
    pub(super) fn new(stored: StoredMember) -> Self {
        Self { stored, awaiting_join: None, awaiting_sync: None, is_new: false, deadline: None }
    }

    pub(super) fn is_static(&self) -> bool {
        self.stored.instance_id.is_some()
    }

    pub(super) fn supports(&self, protocol: &str) -> bool {
        self.stored.protocols.iter().any(|own| own.name == protocol)
    }

    /// What the member told about `protocol`; empty where it told nothing.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let own = self.stored.protocols.iter().find(|own| own.name == protocol);
        own.map_or_else(Bytes::new, |own| own.metadata.clone())
    }

    /// A request of the member is parked, so it is alive although it sends no heartbeats. A new member has no other way to
    /// show life, so its parked request does not count.
    pub(super) fn shows_life_by_waiting(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }
}
