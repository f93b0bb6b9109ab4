use tracing::info;

use super::{ClassicGroup, State};
use crate::{
    groups::{GroupError, Moment},
    model::{GroupInstanceId, MemberId},
};

/// Members that leave, or that an administrator takes out by their instance id.
#[derive(Clone, Debug)]
pub struct LeaveRequest {
    pub members: Vec<LeavingMember>,
}

#[derive(Clone, Debug)]
pub struct LeavingMember {
    /// Empty: whoever holds the instance id.
    pub id: MemberId,
    pub instance_id: Option<GroupInstanceId>,
    pub reason: Option<String>,
}

impl ClassicGroup {
    /// One result for each member of the request, in order.
    pub fn handle_leave(&mut self, request: &LeaveRequest, now: Moment) -> Vec<Result<(), GroupError>> {
        let results: Vec<_> = request.members.iter().map(|leaving| self.leave(leaving)).collect();
        if results.iter().any(Result::is_ok) {
            match self.state {
                State::Stable | State::CompletingRebalance => {
                    self.rebalance_or_complete_join("members left", now);
                }
                State::PreparingRebalance => self.maybe_complete_join(now),
                State::Empty => {}
            }
        }
        results
    }

    fn leave(&mut self, leaving: &LeavingMember) -> Result<(), GroupError> {
        let id = if leaving.id.as_str().is_empty() {
            let instance = leaving.instance_id.as_ref().ok_or(GroupError::UnknownMember)?;
            self.static_members.get(instance).cloned().ok_or(GroupError::UnknownMember)?
        } else {
            leaving.id.clone()
        };
        if self.pending_join.remove(&id).is_some() {
            return Ok(());
        }
        if !leaving.id.as_str().is_empty() {
            self.check_member(&id, leaving.instance_id.as_ref())?;
        }
        let reason = leaving.reason.as_deref().unwrap_or("not provided");
        info!(group = %self.id, member = %id, reason, "a member leaves");
        self.dismiss(&id);
        Ok(())
    }
}
