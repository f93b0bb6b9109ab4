/// Where a classic group stands. A group that does not exist is what Kafka calls `Dead`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No members. Joins: accepted. Syncs and heartbeats: unknown member. Commits: from anyone without a generation.
    Empty,
    /// Waits for the members to join. Joins are parked. Syncs and heartbeats: rebalance in progress.
    PreparingRebalance,
    /// Waits for the leader's assignment. Syncs are parked, commits refused.
    CompletingRebalance,
    /// Everyone has an assignment.
    Stable,
}

impl State {
    /// As Kafka's tools print it.
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }

    /// Which states may come before this one.
    pub(super) fn may_follow(self, before: State) -> bool {
        match self {
            State::Empty => before == State::PreparingRebalance,
            State::PreparingRebalance => {
                matches!(before, State::Empty | State::CompletingRebalance | State::Stable)
            }
            State::CompletingRebalance => before == State::PreparingRebalance,
            State::Stable => before == State::CompletingRebalance,
        }
    }
}
