//! Where the domain's ports are implemented.

#[cfg(feature = "archive")]
pub mod delta;
pub mod redis;
