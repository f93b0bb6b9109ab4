//! What the broker tells of itself.

pub mod logging;
