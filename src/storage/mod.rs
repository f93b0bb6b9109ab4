//! Where the domain's ports are implemented.

pub mod redis;
