//! A member joins, or joins again.

use bytes::Bytes;
use tracing::{debug, info};

use super::{Answer, ClassicGroup, Member, Protocol, State, StoredMember};
use crate::{
    groups::{GroupError, Moment, Ticket},
    model::{GroupInstanceId, MemberId},
};

/// How long a new member may wait for its first answer before it is taken for gone: it can't send heartbeats, and a broken
/// connection is not seen while its request is parked.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1_000;

/// Ids of one group that may wait to be used. Kafka has no such bound; nobody comes near it by mistake.
const PENDING_IDS: usize = 10_000;

/// A member's request to join.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Empty for who has none yet.
    pub member_id: MemberId,
    pub instance_id: Option<GroupInstanceId>,
    /// The id that it gets if it has none.
    pub fresh_id: MemberId,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    pub protocols: Vec<Protocol>,
    /// Why it joins, in the client's words (KIP-800).
    pub reason: Option<String>,
    /// A member without an id is first given one, and must join again with it (KIP-394).
    pub member_id_required: bool,
    /// A leader that comes back to an unchanged group can be told not to assign anew (KIP-814).
    pub can_skip_assignment: bool,
}

/// A member of a new or unchanged generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<MemberId>,
    pub member_id: MemberId,
    /// All members, for the leader only.
    pub members: Vec<JoinedMember>,
    pub skip_assignment: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub id: MemberId,
    pub instance_id: Option<GroupInstanceId>,
    /// What it says about the protocol that was chosen.
    pub metadata: Bytes,
}

/// A join that failed, with the member id that the answer carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRefusal {
    pub error: GroupError,
    pub member_id: MemberId,
}

pub type JoinAnswer = Result<Joined, JoinRefusal>;

pub(super) fn nobody() -> MemberId {
    MemberId::new("")
}

impl ClassicGroup {
    /// The answer follows under `ticket`, at once or when the rebalance has come to its end.
    pub fn handle_join(&mut self, request: JoinRequest, ticket: Ticket, now: Moment) {
        let is_new = request.member_id.as_str().is_empty();
        let echoed = request.member_id.clone();
        if !self.has_room_for(&request.member_id) {
            self.remove(&request.member_id);
            self.refuse_join(ticket, GroupError::GroupFull, nobody());
        } else if !self.can_follow(&request.protocol_type, &request.protocols) {
            self.refuse_join(ticket, GroupError::InconsistentProtocol, echoed);
        } else if is_new {
            self.join_without_id(request, ticket, now);
        } else {
            self.join_again(request, ticket, now);
        }
    }

    pub(super) fn refuse_join(&mut self, ticket: Ticket, error: GroupError, member_id: MemberId) {
        self.answers.push((ticket, Answer::Join(Err(JoinRefusal { error, member_id }))));
    }

    fn has_room_for(&self, member: &MemberId) -> bool {
        let known = self.members.get(member);
        match self.state {
            State::Empty => true,
            // Counts who has come, not who is listed: the last to come back are those that find no room.
            State::PreparingRebalance => {
                known.is_some_and(|member| member.awaiting_join.is_some())
                    || self.awaiting_join() < self.settings.max_size
            }
            State::CompletingRebalance | State::Stable => {
                known.is_some() || self.members.len() < self.settings.max_size
            }
        }
    }

    /// Whether one of the protocols is common to all members.
    fn can_follow(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|own| self.members.values().all(|member| member.supports(&own.name)))
    }

    fn join_without_id(&mut self, request: JoinRequest, ticket: Ticket, now: Moment) {
        let id = request.fresh_id.clone();
        if let Some(instance) = request.instance_id.clone() {
            match self.static_members.get(&instance).cloned() {
                Some(replaced) => {
                    info!(group = %self.id, %instance, member = %id, %replaced, "a static member replaces itself");
                    self.replace_static_member(request, &instance, &replaced, ticket, now);
                }
                None => self.add_member(request, id, ticket, now),
            }
        } else if request.member_id_required && self.pending_join.len() >= PENDING_IDS {
            self.refuse_join(ticket, GroupError::GroupFull, nobody());
        } else if request.member_id_required {
            debug!(group = %self.id, member = %id, "a new member is given an id");
            self.pending_join.insert(id.clone(), now.after(i64::from(request.session_timeout_ms)));
            self.refuse_join(ticket, GroupError::MemberIdRequired, id);
        } else {
            self.add_member(request, id, ticket, now);
        }
    }

    fn join_again(&mut self, request: JoinRequest, ticket: Ticket, now: Moment) {
        let id = request.member_id.clone();
        // A pending member cannot be static: static members get no id in advance.
        if self.pending_join.contains_key(&id) && request.instance_id.is_none() {
            return self.add_member(request, id, ticket, now);
        }
        if let Err(error) = self.check_member(&id, request.instance_id.as_ref()) {
            return self.refuse_join(ticket, error, id);
        }
        let unchanged = self.members.get(&id).is_some_and(|member| member.stored.protocols == request.protocols);
        match self.state {
            State::Empty => self.refuse_join(ticket, GroupError::UnknownMember, id),
            // The member has not got the answer to its join, or missed the rebalance: it learns where the group stands.
            State::CompletingRebalance if unchanged => self.answer_joined(ticket, &id, false),
            // A leader that joins again wants a rebalance: something that is not in its metadata has changed.
            State::Stable if unchanged && !self.is_leader(&id) => self.answer_joined(ticket, &id, false),
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                let reason = format!("member {id} joined again; client reason: {}", reason_of(&request));
                self.update_member(&id, &request, ticket);
                self.rebalance_or_complete_join(&reason, now);
            }
        }
    }

    fn add_member(&mut self, request: JoinRequest, id: MemberId, ticket: Ticket, now: Moment) {
        let reason = format!("new member {id}; client reason: {}", reason_of(&request));
        if self.state == State::PreparingRebalance && self.previous_state == State::Empty {
            self.new_member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type);
        }
        if let Some(instance) = &request.instance_id {
            self.static_members.insert(instance.clone(), id.clone());
        }
        let mut member = Member::new(StoredMember {
            id: id.clone(),
            instance_id: request.instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
        });
        member.awaiting_join = Some(ticket);
        member.is_new = true;
        member.deadline = Some(now.after(NEW_MEMBER_JOIN_TIMEOUT_MS));
        self.pending_join.remove(&id);
        self.leader.get_or_insert_with(|| id.clone());
        self.members.insert(id, member);
        self.rebalance_or_complete_join(&reason, now);
    }

    /// What the member said last counts. A join of it that is still parked is a retry whose connection is gone.
    fn update_member(&mut self, id: &MemberId, request: &JoinRequest, ticket: Ticket) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.stored.protocols.clone_from(&request.protocols);
        member.stored.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.stored.session_timeout_ms = request.session_timeout_ms;
        if let Some(parked) = member.awaiting_join.replace(ticket) {
            self.refuse_join(parked, GroupError::UnknownMember, id.clone());
        }
    }

    /// A static member came back without its id: it gets a new one and takes its own place; the old id is fenced (KIP-345).
    fn replace_static_member(
        &mut self,
        request: JoinRequest,
        instance: &GroupInstanceId,
        replaced: &MemberId,
        ticket: Ticket,
        now: Moment,
    ) {
        let Some(mut member) = self.members.remove(replaced) else {
            return self.refuse_join(ticket, GroupError::UnknownMember, nobody());
        };
        if let Some(parked) = member.awaiting_join.take() {
            self.refuse_join(parked, GroupError::FencedInstance, replaced.clone());
        }
        if let Some(parked) = member.awaiting_sync.take() {
            self.answers.push((parked, Answer::Sync(Err(GroupError::FencedInstance))));
        }
        let leader_before = self.leader.clone();
        let id = request.fresh_id.clone();
        let stored = StoredMember { id: id.clone(), ..member.stored };
        self.pending_sync.remove(replaced);
        self.members.insert(id.clone(), Member::new(stored));
        self.static_members.insert(instance.clone(), id.clone());
        if self.is_leader(replaced) {
            self.leader = Some(id.clone());
        }
        self.renew_session(&id, now);
        self.update_member(&id, &request, ticket);

        let reason = format!("static member {id} replaced {replaced}; client reason: {}", reason_of(&request));
        match self.state {
            State::Stable if self.select_protocol() == self.protocol => {
                // Nothing changes for the others. A leader that can't be told to skip the assignment is given the old
                // leader's id, so that it takes itself for a follower.
                if let Some(member) = self.members.get_mut(&id) {
                    member.awaiting_join = None;
                }
                self.answer_joined(ticket, &id, request.can_skip_assignment);
                if !request.can_skip_assignment
                    && let Some((_, Answer::Join(Ok(joined)))) = self.answers.last_mut()
                {
                    joined.leader = leader_before;
                    joined.members.clear();
                }
                self.must_store = true;
            }
            State::Stable => self.rebalance_or_complete_join(&reason, now),
            // The old id may already be in the assignment that the leader works on.
            State::CompletingRebalance => self.prepare_rebalance(&reason, now),
            State::PreparingRebalance | State::Empty => self.maybe_complete_join(now),
        }
    }

    /// Tells a member about the generation as it is.
    pub(super) fn answer_joined(&mut self, ticket: Ticket, id: &MemberId, skip_assignment: bool) {
        let leads = self.is_leader(id);
        // Only a leader in need of the members: while it has to assign, or to know whom it leads.
        let members = if leads { self.members_for_leader() } else { Vec::new() };
        let joined = Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            member_id: id.clone(),
            members,
            skip_assignment: skip_assignment && leads,
        };
        self.answers.push((ticket, Answer::Join(Ok(joined))));
    }

    fn members_for_leader(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or("");
        let members = self.members.values().map(|member| JoinedMember {
            id: member.stored.id.clone(),
            instance_id: member.stored.instance_id.clone(),
            metadata: member.metadata(protocol),
        });
        members.collect()
    }
}

fn reason_of(request: &JoinRequest) -> &str {
    request.reason.as_deref().filter(|reason| !reason.is_empty()).unwrap_or("not provided")
}
