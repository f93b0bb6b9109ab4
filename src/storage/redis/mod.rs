//! The ports of `log`, `topics` and `coordinator` on Redis.

pub mod client;
pub mod embedded;
pub mod keys;
mod scripts;
pub mod server;
