//! A partition as Kafka sees it: append, fetch plan, retention, waiters, tail cache; and the port to its storage.

pub mod config;
pub mod producer_ids;
pub mod store;
