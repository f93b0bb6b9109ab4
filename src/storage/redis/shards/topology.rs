//! Who serves which slots, as a node of the cluster tells it.

use std::ops::RangeInclusive;

use redis::{Cmd, ServerError, ServerErrorKind, Value};

use super::{super::address::Address, slot::Slot};

/// `HOST:PORT`; without a host, that of the node which said so.
fn parse_address(text: &str, told_by: &Address) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    announced(host, port.parse().ok()?, told_by)
}

/// A node that is connected to over a Unix socket has no host to lend: then nodes must announce theirs.
fn announced(host: &str, port: u16, told_by: &Address) -> Option<Address> {
    let host = if host.is_empty() || host == "?" { &told_by.host } else { host };
    (port != 0 && !host.is_empty()).then(|| Address { host: host.to_owned(), port })
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage::redis) struct Topology {
    /// Counts the failovers that the node knows of.
    pub(in crate::storage::redis) epoch: u64,
    /// The node takes commands.
    pub(in crate::storage::redis) is_ok: bool,
    /// Each master with slots.
    pub(in crate::storage::redis) masters: Vec<(Address, Vec<RangeInclusive<u16>>)>,
}

impl Topology {
    /// What a node is asked for it.
    pub(in crate::storage::redis) fn commands() -> [Cmd; 2] {
        ["INFO", "SLOTS"].map(|what| redis::cmd("CLUSTER").arg(what).to_owned())
    }

    /// From the answers to [`Topology::commands`].
    pub(in crate::storage::redis) fn parse(answers: Vec<Value>, told_by: &Address) -> Option<Self> {
        let [info, ranges] = <[Value; 2]>::try_from(answers).ok()?;
        let info: String = redis::from_redis_value(info).ok()?;
        let field = |name: &str| {
            let mut fields = info.lines().filter_map(|line| line.trim().split_once(':'));
            fields.find(|(field, _)| *field == name).map(|(_, value)| value)
        };
        let Value::Array(ranges) = ranges else { return None };
        let mut masters: Vec<(Address, Vec<RangeInclusive<u16>>)> = Vec::new();
        for range in ranges {
            let (address, slots) = master_of(range, told_by)?;
            match masters.iter_mut().find(|(known, _)| *known == address) {
                Some((_, known)) => known.push(slots),
                None => masters.push((address, vec![slots])),
            }
        }
        Some(Self {
            epoch: field("cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
            is_ok: field("cluster_state") == Some("ok"),
            masters,
        })
    }

    /// Slots that have a master.
    pub(in crate::storage::redis) fn slots(&self) -> usize {
        self.masters.iter().flat_map(|(_, ranges)| ranges).map(|range| range.clone().count()).sum()
    }

    pub(in crate::storage::redis) fn master_of(&self, slot: Slot) -> Option<&Address> {
        let has = |ranges: &[RangeInclusive<u16>]| {
            ranges.iter().any(|range| (usize::from(*range.start())..=usize::from(*range.end())).contains(&slot.index()))
        };
        self.masters.iter().find(|(_, ranges)| has(ranges)).map(|(address, _)| address)
    }
}

/// First slot, last slot, the master as host, port, id…; then its replicas.
fn master_of(range: Value, told_by: &Address) -> Option<(Address, RangeInclusive<u16>)> {
    let Value::Array(parts) = range else { return None };
    let mut parts = parts.into_iter();
    let (first, last, master) = (parts.next()?, parts.next()?, parts.next()?);
    let (Value::Int(first), Value::Int(last), Value::Array(master)) = (first, last, master) else { return None };
    let (first, last) = (u16::try_from(first).ok()?, u16::try_from(last).ok()?);
    Slot::new(last)?;
    let mut master = master.into_iter();
    let host = match master.next()? {
        Value::Nil => String::new(),
        host => redis::from_redis_value(host).ok()?,
    };
    let port: u16 = redis::from_redis_value(master.next()?).ok()?;
    Some((announced(&host, port, told_by)?, first..=last))
}

/// Where a node sends a command that it did not run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Redirection {
    /// From now on, all of the slot's.
    Moved(Slot, Address),
    /// This one: the slot is being moved there.
    Ask(Address),
    /// Some of its keys are here and some there.
    Later,
    /// The node takes no commands: too few others hear it, or slots have nobody.
    Down,
}

impl Redirection {
    pub(super) fn of(error: &ServerError, told_by: &Address) -> Option<Self> {
        let target = || {
            let (slot, address) = error.details()?.split_once(' ')?;
            // Valkey and others may add words.
            let address = address.split(' ').next()?;
            Some((Slot::new(slot.parse().ok()?)?, parse_address(address, told_by)?))
        };
        Some(match error.kind()? {
            ServerErrorKind::Moved => target().map(|(slot, address)| Self::Moved(slot, address))?,
            ServerErrorKind::Ask => Self::Ask(target()?.1),
            ServerErrorKind::TryAgain => Self::Later,
            ServerErrorKind::ClusterDown => Self::Down,
            _ => return None,
        })
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::storage::redis) fn fuzzed(answers: Vec<Value>, told_by: &Address) {
    for answer in &answers {
        if let Value::ServerError(error) = answer {
            let _ = Redirection::of(error, told_by);
        }
    }
    let Some(told) = Topology::parse(answers, told_by) else { return };
    let slots = (0..=16_383).filter_map(Slot::new).filter(|slot| told.master_of(*slot).is_some()).count();
    assert!(slots <= told.slots(), "a slot may be told of twice");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let node = |host, port| Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(vec![])]);
        Value::Array(vec![Value::Int(first), Value::Int(last), node(host, port), node(text("replica"), 1)])
    }

    #[test]
    fn slots_belong_to_the_masters_that_a_node_names() {
        let info = text("cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_current_epoch:6\r\n");
        let slots = Value::Array(vec![
            range(0, 99, text("10.0.0.1"), 7000),
            range(100, 8191, Value::Nil, 7001),
            range(8192, 16383, text("10.0.0.1"), 7000),
        ]);
        let told = Topology::parse(vec![info, slots], &address("seed", 1)).expect("whole");
        assert_eq!((told.epoch, told.is_ok, told.slots()), (6, true, 16_384));
        let (one, other) = (address("10.0.0.1", 7000), address("seed", 7001));
        assert_eq!(told.masters, [(one.clone(), vec![0..=99, 8192..=16383]), (other.clone(), vec![100..=8191])]);
        assert_eq!(told.master_of(Slot::new(8191).expect("legal")), Some(&other));
        assert_eq!(told.master_of(Slot::new(8192).expect("legal")), Some(&one));
    }

    #[test]
    fn an_answer_that_is_no_topology_is_none() {
        let info = || text("cluster_state:ok");
        for slots in [
            Value::Nil,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 16_384, text("h"), 1)]),
            Value::Array(vec![range(-1, 5, text("h"), 1)]),
            Value::Array(vec![range(0, 5, text("h"), 0)]),
        ] {
            assert_eq!(Topology::parse(vec![info(), slots], &address("seed", 1)), None);
        }
        assert_eq!(Topology::parse(vec![info()], &address("seed", 1)), None);
    }

    fn redirection(line: &str) -> Option<Redirection> {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => Redirection::of(&error, &address("teller", 1)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn redirections_name_the_node_to_go_to() {
        let slot = Slot::new(3_999).expect("legal");
        let moved = |host, port| Some(Redirection::Moved(slot, address(host, port)));
        assert_eq!(redirection("MOVED 3999 127.0.0.1:6381"), moved("127.0.0.1", 6381));
        assert_eq!(redirection("MOVED 3999 ::1:6381"), moved("::1", 6381));
        assert_eq!(redirection("MOVED 3999 :6381"), moved("teller", 6381));
        assert_eq!(redirection("ASK 3999 node.example:1"), Some(Redirection::Ask(address("node.example", 1))));
        assert_eq!(redirection("TRYAGAIN Multiple keys request during rehashing of slot"), Some(Redirection::Later));
        assert_eq!(redirection("CLUSTERDOWN The cluster is down"), Some(Redirection::Down));
        assert_eq!(redirection("MOVED 16384 h:1"), None);
        assert_eq!(redirection("ERR MOVED 1 h:1"), None);
    }
}
