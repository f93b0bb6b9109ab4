//! The leader brings the assignment, the others fetch theirs.

use std::collections::HashMap;

use bytes::Bytes;
use tracing::info;

use super::{Answer, ClassicGroup, State};
use crate::{
    groups::{GroupError, Moment, Ticket},
    model::{GroupInstanceId, MemberId},
};

#[derive(Clone, Debug)]
pub struct SyncRequest {
    pub member_id: MemberId,
    pub instance_id: Option<GroupInstanceId>,
    pub generation: i32,
    /// Checked where the client names them (KIP-559).
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// From the leader only; whom it leaves out gets nothing.
    pub assignments: Vec<(MemberId, Bytes)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

pub type SyncAnswer = Result<Synced, GroupError>;

impl ClassicGroup {
    /// The answer follows under `ticket`, at once or when the leader has assigned.
    pub fn handle_sync(&mut self, request: SyncRequest, ticket: Ticket, now: Moment) {
        if let Err(error) = self.check_sync(&request) {
            self.answers.push((ticket, Answer::Sync(Err(error))));
            return;
        }
        self.pending_sync.remove(&request.member_id);
        if self.pending_sync.is_empty() {
            self.sync_deadline = None;
        }
        match self.state {
            State::CompletingRebalance => {
                let parked = self.members.get_mut(&request.member_id).map(|member| &mut member.awaiting_sync);
                if let Some(before) = parked.and_then(|parked| parked.replace(ticket)) {
                    self.answers.push((before, Answer::Sync(Err(GroupError::UnknownMember))));
                }
                if self.is_leader(&request.member_id) {
                    self.assign(request.assignments, now);
                }
            }
            State::Stable => {
                let synced = self.synced(&request.member_id);
                self.answers.push((ticket, Answer::Sync(Ok(synced))));
            }
            State::Empty | State::PreparingRebalance => {
                debug_assert!(false, "check_sync lets no sync through in state {:?}", self.state);
            }
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.instance_id.as_ref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |named: &Option<String>, own: &Option<String>| named.is_some() && named != own;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol) {
            return Err(GroupError::InconsistentProtocol);
        }
        match self.state {
            State::Empty => Err(GroupError::UnknownMember),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// The rebalance is done, once this is stored.
    fn assign(&mut self, assignments: Vec<(MemberId, Bytes)>, now: Moment) {
        let mut assignments: HashMap<MemberId, Bytes> = assignments.into_iter().collect();
        for member in self.members.values_mut() {
            member.stored.assignment = assignments.remove(&member.stored.id).unwrap_or_default();
        }
        self.transition(State::Stable, now);
        self.must_store = true;
        let (generation, members) = (self.generation, self.members.len());
        info!(group = %self.id, generation, members, protocol = self.protocol.as_deref(), "group is stable");
        self.answer_syncs(Ok(()), now);
    }

    pub(super) fn synced(&self, id: &MemberId) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(id).map(|member| member.stored.assignment.clone()).unwrap_or_default(),
        }
    }
}
