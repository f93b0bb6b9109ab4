//! The ports of `log`, `topics` and `coordinator` on Redis.

mod address;
pub mod catalog;
pub mod changes;
pub mod client;
pub(crate) mod connection;
pub mod durability;
pub mod embedded;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod groups;
pub mod keys;
pub mod log;
pub mod nodes;
pub mod producer_ids;
mod readers;
pub mod registry;
pub mod room;
mod scripts;
pub mod sentinel;
pub mod server;
pub mod shards;
#[cfg(test)]
pub(crate) mod testing;
pub mod whereabouts;
