use super::{ClassicGroup, State};
use crate::{
    groups::{GroupError, Moment},
    model::{GroupInstanceId, MemberId},
};

impl ClassicGroup {
    /// Renews the member's session and tells it whether to join again.
    pub fn handle_heartbeat(
        &mut self,
        member: &MemberId,
        instance: Option<&GroupInstanceId>,
        generation: i32,
        now: Moment,
    ) -> Result<(), GroupError> {
        self.check_member(member, instance)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            State::Empty => Err(GroupError::UnknownMember),
            State::PreparingRebalance => {
                self.renew_session(member, now);
                Err(GroupError::RebalanceInProgress)
            }
            State::CompletingRebalance | State::Stable => {
                self.renew_session(member, now);
                Ok(())
            }
        }
    }

    pub(super) fn renew_session(&mut self, member: &MemberId, now: Moment) {
        if let Some(member) = self.members.get_mut(member) {
            member.deadline = Some(now.after(i64::from(member.stored.session_timeout_ms)));
        }
    }
}
