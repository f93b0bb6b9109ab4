//! Group membership as pure state machines: no I/O, no clock, no wire types.
//!
//! The shell calls `handle_*` with the time, then takes what came of it ([`Group::take_output`]): answers, and whether the
//! group must be stored before those answers are given.

pub mod classic;
mod error;
mod group;
mod offsets;

pub use error::GroupError;
pub use group::{Expiry, Group, Output, Overview, StoredGroup};
pub use offsets::{Commit, CommitOutcome, CommitRequest, CommittedOffset, Offsets, TopicPartition};

/// A point in time: deadlines follow the monotonic clock, stored times the wall's. Both in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    pub monotonic_ms: i64,
    pub wall_ms: i64,
}

impl Moment {
    /// The deadline that lies `ms` ahead.
    fn after(self, ms: i64) -> i64 {
        self.monotonic_ms.saturating_add(ms)
    }
}

/// Names a request whose answer comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Bounds that the broker's configuration sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`
    pub max_size: usize,
    /// `offset.metadata.max.bytes`; counts UTF-16 units, as Kafka does.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`
    pub offsets_retention_ms: i64,
}

impl Default for Settings {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: usize::MAX,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
        }
    }
}
