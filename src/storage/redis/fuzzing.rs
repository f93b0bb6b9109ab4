//! What Redis, its Sentinels and the nodes of a cluster tell of themselves, and Redis of brokers.

use std::collections::HashMap;

use super::{address::Address, connection::fuzzing::values, durability, registry, sentinel, server, shards};

/// Lines of `field=value` of the hash of all brokers.
pub fn brokers(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let fields = text.lines().filter_map(|line| line.split_once('='));
    registry::fuzzed(&fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
}

/// The first line is `appendfsync`, the rest `INFO`.
pub fn information(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (appendfsync, text) = text.split_once('\n').unwrap_or_default();
    let info: HashMap<String, String> = durability::fields(text);
    durability::fuzzed(&info, appendfsync);
    let _ = server::capacity_in(text);
}

/// The replies of one Sentinel.
pub fn sentinels(data: &[u8]) {
    sentinel::fuzzed(values(data), &teller());
}

/// The replies of one node of a cluster: what it knows of all, and where it sends commands.
pub fn topology(data: &[u8]) {
    shards::fuzzed(values(data), &teller());
}

fn teller() -> Address {
    Address { host: "teller".to_owned(), port: 1 }
}
