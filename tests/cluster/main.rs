//! Several Weir processes on one Redis: what they tell clients, and what clients see when one comes, goes, dies or sleeps.

#[path = "../support/mod.rs"]
mod support;

mod brokers;
mod client;
mod groups;
mod leaders;
mod link;
mod naming;
mod topics;
