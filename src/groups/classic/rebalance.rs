//! What the requests share: from the first join of a rebalance to the new generation.

use std::collections::BTreeMap;

use bytes::Bytes;
use tracing::{info, warn};

use super::{Answer, ClassicGroup, State, timers::JoinTimer};
use crate::{
    groups::{GroupError, Moment},
    model::MemberId,
};

impl ClassicGroup {
    pub(super) fn awaiting_join(&self) -> usize {
        self.members.values().filter(|member| member.awaiting_join.is_some()).count()
    }

    pub(super) fn all_joined(&self) -> bool {
        self.pending_join.is_empty() && self.members.values().all(|member| member.awaiting_join.is_some())
    }

    /// The longest of the members' rebalance timeouts, in ms.
    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        let longest = self.members.values().map(|member| member.stored.rebalance_timeout_ms).max();
        i64::from(longest.unwrap_or(0).max(0))
    }

    pub(super) fn rebalance_or_complete_join(&mut self, reason: &str, now: Moment) {
        if State::PreparingRebalance.may_follow(self.state) {
            self.prepare_rebalance(reason, now);
        } else {
            self.maybe_complete_join(now);
        }
    }

    pub(super) fn prepare_rebalance(&mut self, reason: &str, now: Moment) {
        if self.state == State::CompletingRebalance {
            for member in self.members.values_mut() {
                member.stored.assignment = Bytes::new();
            }
            self.answer_syncs(Err(GroupError::RebalanceInProgress), now);
        }
        self.pending_sync.clear();
        self.sync_deadline = None;

        let initial = self.state == State::Empty;
        info!(group = %self.id, generation = self.generation, state = self.state.name(), reason, "rebalance begins");
        self.transition(State::PreparingRebalance, now);
        if initial {
            // Members of a new group tend to come one after the other: wait for more.
            let delay_ms = i64::from(self.settings.initial_rebalance_delay_ms.max(0));
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            self.join_timer = Some(JoinTimer::initial(now, delay_ms, remaining_ms));
        } else if self.all_joined() {
            self.complete_join(now);
        } else {
            self.join_timer = Some(JoinTimer::plain(now, self.rebalance_timeout_ms()));
        }
    }

    /// Ends the join phase early if everyone has come. An initial rebalance waits for its timer.
    pub(super) fn maybe_complete_join(&mut self, now: Moment) {
        if self.state == State::PreparingRebalance && self.previous_state != State::Empty && self.all_joined() {
            self.complete_join(now);
        }
    }

    /// Ends the join phase with those who have come: a new generation, or an empty group. Static members keep their place
    /// for as long as their session lasts.
    pub(super) fn complete_join(&mut self, now: Moment) {
        self.join_timer = None;
        let gone: Vec<MemberId> = self
            .members
            .values()
            .filter(|member| member.awaiting_join.is_none() && !member.is_static())
            .map(|member| member.stored.id.clone())
            .collect();
        for id in &gone {
            self.remove(id);
        }
        if !gone.is_empty() {
            info!(group = %self.id, members = ?gone, "members that did not join in time are removed");
        }
        if !self.elect_joined_leader() && !self.members.is_empty() {
            warn!(group = %self.id, "nobody joined; waiting for sessions to end");
            self.join_timer = Some(JoinTimer::plain(now, self.rebalance_timeout_ms()));
            return;
        }
        // Like Kafka's, the counter goes round at its end; no group lives to see that.
        self.generation = self.generation.wrapping_add(1);
        self.protocol = self.select_protocol();
        self.subscribed_topics = self.read_subscribed_topics();
        self.pending_sync.clear();
        if self.members.is_empty() {
            self.transition(State::Empty, now);
            self.must_store = true;
            info!(group = %self.id, generation = self.generation, "group is empty");
            return;
        }
        self.transition(State::CompletingRebalance, now);
        info!(group = %self.id, generation = self.generation, members = self.members.len(), "rebalance: all joined");
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.is_new = false;
            let ticket = member.awaiting_join.take();
            if let Some(ticket) = ticket {
                self.answer_joined(ticket, &id, false);
            }
            self.renew_session(&id, now);
            self.pending_sync.insert(id);
        }
        self.sync_deadline = Some(now.after(self.rebalance_timeout_ms()));
    }

    /// Gives the parked syncs their answer: each its assignment, or `error`.
    pub(super) fn answer_syncs(&mut self, result: Result<(), GroupError>, now: Moment) {
        let mut answered = Vec::new();
        for member in self.members.values_mut() {
            if let Some(ticket) = member.awaiting_sync.take() {
                answered.push((ticket, member.stored.id.clone()));
            }
        }
        for (ticket, id) in answered {
            let answer = result.map(|()| self.synced(&id));
            self.answers.push((ticket, Answer::Sync(answer)));
            // A session that ended while the sync was parked was let pass.
            self.renew_session(&id, now);
        }
    }

    /// Takes a member out, without a rebalance. Its parked requests must have been answered.
    pub(super) fn remove(&mut self, id: &MemberId) {
        if let Some(member) = self.members.remove(id)
            && let Some(instance) = &member.stored.instance_id
        {
            self.static_members.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending_join.remove(id);
        self.pending_sync.remove(id);
    }

    /// Answers what the member waits for, then takes it out.
    pub(super) fn dismiss(&mut self, id: &MemberId) {
        let Some(member) = self.members.get_mut(id) else { return };
        let (join, sync) = (member.awaiting_join.take(), member.awaiting_sync.take());
        if let Some(ticket) = join {
            self.refuse_join(ticket, GroupError::UnknownMember, super::join::nobody());
        }
        if let Some(ticket) = sync {
            self.answers.push((ticket, Answer::Sync(Err(GroupError::UnknownMember))));
        }
        self.remove(id);
    }

    /// Goes on after a member was dismissed.
    pub(super) fn rebalance_without(&mut self, reason: &str, now: Moment) {
        match self.state {
            State::Stable | State::CompletingRebalance => self.rebalance_or_complete_join(reason, now),
            State::PreparingRebalance if self.all_joined() => self.complete_join(now),
            State::PreparingRebalance | State::Empty => {}
        }
    }

    /// Each member votes for the first of its protocols that all have; the most votes win, then the leader's wish.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        let vote_of = |id: &MemberId| {
            let protocols = &self.members.get(id)?.stored.protocols;
            let common = |name: &str| self.members.values().all(|member| member.supports(name));
            protocols.iter().map(|protocol| protocol.name.as_str()).find(|name| common(name))
        };
        for vote in self.members.keys().filter_map(vote_of) {
            *votes.entry(vote).or_default() += 1;
        }
        let leaders = self.leader.as_ref().and_then(vote_of);
        let winner = votes.into_iter().max_by_key(|(name, count)| (*count, Some(*name) == leaders));
        winner.map(|(name, _)| name.to_owned())
    }

    /// Keeps the leader if it joined, or picks one of those who did. False when there is none.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |id: &MemberId| self.members.get(id).is_some_and(|member| member.awaiting_join.is_some());
        match &self.leader {
            None => false,
            Some(leader) if joined(leader) => true,
            Some(_) => match self.members.keys().find(|id| joined(id)).cloned() {
                Some(elected) => {
                    info!(group = %self.id, leader = %elected, "the leader did not join; another leads");
                    self.leader = Some(elected);
                    true
                }
                None => false,
            },
        }
    }
}
