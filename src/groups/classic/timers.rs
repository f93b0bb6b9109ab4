//! What time brings about. All deadlines are of the monotonic clock.

use tracing::info;

use super::{ClassicGroup, State};
use crate::{groups::Moment, model::MemberId};

/// When the join phase ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JoinTimer {
    deadline: i64,
    /// Of an initial rebalance: how long this wait is, and what is left to put it off further.
    initial: Option<(i64, i64)>,
}

impl JoinTimer {
    pub(super) fn plain(now: Moment, wait_ms: i64) -> Self {
        Self { deadline: now.after(wait_ms), initial: None }
    }

    pub(super) fn initial(now: Moment, wait_ms: i64, remaining_ms: i64) -> Self {
        Self { deadline: now.after(wait_ms), initial: Some((wait_ms, remaining_ms)) }
    }
}

impl ClassicGroup {
    /// When [`ClassicGroup::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<i64> {
        let sessions = self.members.values().filter_map(|member| member.deadline);
        let pending = self.pending_join.values().copied();
        let phases = [self.join_timer.map(|timer| timer.deadline), self.sync_deadline];
        sessions.chain(pending).chain(phases.into_iter().flatten()).min()
    }

    /// Does what is due. Calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Moment) {
        let due = |deadline: i64| deadline <= now.monotonic_ms;
        let unclaimed: Vec<MemberId> =
            self.pending_join.iter().filter(|(_, deadline)| due(**deadline)).map(|(id, _)| id.clone()).collect();
        for id in unclaimed {
            info!(group = %self.id, member = %id, "an id that was given out has not joined in time");
            self.pending_join.remove(&id);
            if self.state == State::PreparingRebalance && self.all_joined() {
                self.complete_join(now);
            }
        }
        let mut silent: Vec<MemberId> = Vec::new();
        for member in self.members.values_mut().filter(|member| member.deadline.is_some_and(due)) {
            member.deadline = None;
            if !member.shows_life_by_waiting() {
                silent.push(member.stored.id.clone());
            }
        }
        for id in silent {
            // An earlier one's removal may have ended the join phase and this one with it, or renewed its session.
            if self.members.get(&id).is_some_and(|member| member.deadline.is_none()) {
                info!(group = %self.id, member = %id, "a member's session has ended");
                self.dismiss(&id);
                self.rebalance_without(&format!("the session of member {id} ended"), now);
            }
        }
        if let Some(timer) = self.join_timer.filter(|timer| due(timer.deadline)) {
            self.join_timer = None;
            self.join_phase_ends(timer, now);
        }
        if self.sync_deadline.is_some_and(due) {
            self.sync_deadline = None;
            self.drop_unsynced(now);
        }
    }

    fn join_phase_ends(&mut self, timer: JoinTimer, now: Moment) {
        match timer.initial {
            Some((waited_ms, remaining_ms)) if self.new_member_added && remaining_ms > 0 => {
                self.new_member_added = false;
                let wait_ms = i64::from(self.settings.initial_rebalance_delay_ms.max(0)).min(remaining_ms);
                self.join_timer = Some(JoinTimer::initial(now, wait_ms, (remaining_ms - waited_ms).max(0)));
            }
            _ => self.complete_join(now),
        }
    }

    /// Members that joined a generation and never asked for their assignment leave it.
    fn drop_unsynced(&mut self, now: Moment) {
        if !matches!(self.state, State::CompletingRebalance | State::Stable) || self.pending_sync.is_empty() {
            return;
        }
        let unsynced: Vec<MemberId> = std::mem::take(&mut self.pending_sync).into_iter().collect();
        for id in &unsynced {
            self.dismiss(id);
        }
        self.prepare_rebalance(&format!("members {unsynced:?} did not sync in time"), now);
    }
}
