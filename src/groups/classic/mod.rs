//! The classic group protocol: members join, the coordinator picks a protocol and a leader, the leader assigns.
//!
//! One file per request; `rebalance` has what they share, `timers` what time brings about.

mod heartbeat;
mod join;
mod leave;
mod member;
mod rebalance;
mod state;
pub(crate) mod subscription;
mod sync;
mod timers;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

pub use join::{JoinAnswer, JoinRefusal, JoinRequest, Joined, JoinedMember};
pub use leave::{LeaveRequest, LeavingMember};
use member::Member;
pub use member::{Protocol, StoredMember};
pub use state::State;
pub use sync::{SyncAnswer, SyncRequest, Synced};
use timers::JoinTimer;

use super::{GroupError, Moment, Settings, Ticket};
use crate::model::{GroupId, GroupInstanceId, MemberId};

/// The protocol type whose metadata names topics.
pub const CONSUMER: &str = "consumer";

/// The answer to a parked request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Join(JoinAnswer),
    Sync(SyncAnswer),
}

/// What of a group outlives the broker. A group with members was stable when it was stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<MemberId>,
    /// When the group came to its state; wall clock.
    pub state_since_ms: Option<i64>,
    pub members: Vec<StoredMember>,
}

/// What DescribeGroups tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub state: State,
    pub protocol_type: String,
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    pub id: MemberId,
    pub instance_id: Option<GroupInstanceId>,
    pub client_id: String,
    pub client_host: String,
    /// Empty unless the group is stable.
    pub metadata: Bytes,
    /// What the member was given last; taken back when a rebalance interrupts another.
    pub assignment: Bytes,
}

/// The members of a group and their rebalances.
#[derive(Clone, Debug)]
pub struct ClassicGroup {
    id: GroupId,
    settings: Arc<Settings>,
    state: State,
    previous_state: State,
    state_since_ms: Option<i64>,
    generation: i32,
    protocol_type: Option<String>,
    /// Of this generation.
    protocol: Option<String>,
    leader: Option<MemberId>,
    members: BTreeMap<MemberId, Member>,
    static_members: BTreeMap<GroupInstanceId, MemberId>,
    /// Ids that were given out and have not joined yet (KIP-394), with the time until which they may.
    pending_join: BTreeMap<MemberId, i64>,
    /// Members of this generation that have not asked for their assignment yet.
    pending_sync: BTreeSet<MemberId>,
    sync_deadline: Option<i64>,
    join_timer: Option<JoinTimer>,
    /// Somebody joined since the initial rebalance was last put off.
    new_member_added: bool,
    /// `None` where it is not known: no consumers, or metadata that can't be read.
    subscribed_topics: Option<BTreeSet<String>>,
    answers: Vec<(Ticket, Answer)>,
    must_store: bool,
}

impl ClassicGroup {
    pub fn new(id: GroupId, settings: Arc<Settings>) -> Self {
        Self {
            id,
            settings,
            state: State::Empty,
            previous_state: State::Empty,
            state_since_ms: None,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_join: BTreeMap::new(),
            pending_sync: BTreeSet::new(),
            sync_deadline: None,
            join_timer: None,
            new_member_added: false,
            subscribed_topics: None,
            answers: Vec::new(),
            must_store: false,
        }
    }

    /// The group as it was stored. Its members' sessions start anew.
    pub fn restore(id: GroupId, settings: Arc<Settings>, record: Record, now: Moment) -> Self {
        let mut group = Self::new(id, settings);
        group.state = if record.members.is_empty() { State::Empty } else { State::Stable };
        group.previous_state = group.state;
        group.state_since_ms = record.state_since_ms;
        group.generation = record.generation;
        group.protocol_type = record.protocol_type;
        group.protocol = record.protocol;
        group.leader = record.leader;
        for stored in record.members {
            if let Some(instance) = &stored.instance_id {
                group.static_members.insert(instance.clone(), stored.id.clone());
            }
            let deadline = now.after(i64::from(stored.session_timeout_ms));
            let mut member = Member::new(stored);
            member.deadline = Some(deadline);
            group.members.insert(member.stored.id.clone(), member);
        }
        group.subscribed_topics = group.read_subscribed_topics();
        group
    }

    pub fn record(&self) -> Record {
        Record {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since_ms: self.state_since_ms,
            members: self.members.values().map(|member| member.stored.clone()).collect(),
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn state_since_ms(&self) -> Option<i64> {
        self.state_since_ms
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    pub fn describe(&self) -> Description {
        let stable = self.state == State::Stable;
        let protocol = self.protocol.as_deref().filter(|_| stable).unwrap_or("");
        let members = self.members.values().map(|member| DescribedMember {
            id: member.stored.id.clone(),
            instance_id: member.stored.instance_id.clone(),
            client_id: member.stored.client_id.clone(),
            client_host: member.stored.client_host.clone(),
            metadata: if stable { member.metadata(protocol) } else { Bytes::new() },
            assignment: member.stored.assignment.clone(),
        });
        Description {
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.to_owned(),
            members: members.collect(),
        }
    }

    pub fn is_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// Whether members read the topic. Where that is not known, a group of consumers is taken to read every topic.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.is_consumer_protocol(),
        }
    }

    pub fn knows_subscribed_topics(&self) -> bool {
        self.subscribed_topics.is_some()
    }

    /// Whether a commit may be stored, as far as membership goes. Renews the member's session.
    pub fn check_commit(
        &mut self,
        member: &MemberId,
        instance: Option<&GroupInstanceId>,
        generation: i32,
        now: Moment,
    ) -> Result<(), GroupError> {
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation < 0 && member.as_str().is_empty() && instance.is_none() {
            return Err(GroupError::UnknownMember);
        }
        self.check_member(member, instance)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == State::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        self.renew_session(member, now);
        Ok(())
    }

    pub(super) fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.answers.push((ticket, answer));
    }

    pub(super) fn store_with_next_output(&mut self) {
        self.must_store = true;
    }

    pub(super) fn take_answers(&mut self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut self.answers)
    }

    /// Whether the group must be stored before the answers are given; asked once.
    pub(super) fn take_must_store(&mut self) -> bool {
        std::mem::take(&mut self.must_store)
    }

    /// Whether a member of that id exists and, if static, has not been replaced.
    fn check_member(&self, member: &MemberId, instance: Option<&GroupInstanceId>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.static_members.get(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(current) if current != member => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(GroupError::UnknownMember) }
    }

    fn is_leader(&self, member: &MemberId) -> bool {
        self.leader.as_ref() == Some(member)
    }

    fn transition(&mut self, to: State, now: Moment) {
        debug_assert!(to.may_follow(self.state), "{:?} after {:?}", to, self.state);
        self.previous_state = self.state;
        self.state = to;
        self.state_since_ms = Some(now.wall_ms);
    }

    fn read_subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if !self.is_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscription::topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }
}

#[cfg(test)]
mod tests;
