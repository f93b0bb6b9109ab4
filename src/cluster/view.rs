//! The live brokers at one moment, and what follows from it: who leads a partition and with which epoch, who coordinates a
//! group. Pure: brokers that have heard of the same changes compute the same answers.

use crate::model::{NodeId, TopicId};

/// Where clients of a listener reach a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name.
    pub listener: String,
    pub host: String,
    pub port: u16,
}

/// A live broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub node: NodeId,
    /// Unique to one run of the broker.
    pub incarnation: String,
    /// The generation that it came with.
    pub joined: i32,
    pub rack: Option<String>,
    pub endpoints: Vec<Endpoint>,
}

impl Broker {
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.listener == listener)
    }
}

/// The live brokers at one moment. Each coming and going of a broker is a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub generation: i32,
    /// Each node id once.
    pub live: Vec<Broker>,
    /// The brokers that are gone, each with the generation that it left with.
    pub left: Vec<(NodeId, i32)>,
    /// The newest generation that a broker left with of whom nothing else is known any more.
    pub floor: i32,
}

/// Who leads a partition or coordinates a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader<'a> {
    pub broker: &'a Broker,
    /// The generation that made it the leader. So it rises whenever the leader changes or starts anew, and only then.
    pub epoch: i32,
}

impl View {
    pub fn broker(&self, node: NodeId) -> Option<&Broker> {
        self.live.iter().find(|broker| broker.node == node)
    }

    /// `None` while no broker is alive.
    pub fn leader(&self, topic: TopicId, index: i32) -> Option<Leader<'_>> {
        self.leader_by(|| {
            let (topic_high, topic_low) = topic.0.as_u64_pair();
            mix(mix(topic_high) ^ topic_low).wrapping_add(u64::from(index.unsigned_abs()))
        })
    }

    /// Who coordinates the group or transaction of this name. `None` while no broker is alive.
    pub fn coordinator(&self, name: &str) -> Option<Leader<'_>> {
        self.leader_by(|| hash(name.as_bytes()))
    }

    fn leader_by(&self, key: impl FnOnce() -> u64) -> Option<Leader<'_>> {
        if let ([broker], []) = (self.live.as_slice(), self.left.as_slice()) {
            return Some(Leader { broker, epoch: broker.joined.max(self.floor) });
        }
        let key = key();
        let weighted = self.live.iter().map(|broker| (weight_of(broker.node, key), broker));
        let (weight, broker) = weighted.max_by_key(|(weight, _)| *weight)?;
        // Whoever would lead if it were still here made the leader what it is by leaving.
        let preferred = self.left.iter().filter(|(node, _)| weight_of(*node, key) > weight).map(|(_, left)| *left);
        let epoch = preferred.fold(broker.joined.max(self.floor), i32::max);
        Some(Leader { broker, epoch })
    }
}

/// Rendezvous hashing: of all nodes the one with the largest weight has the key, so a node that comes or goes moves only
/// what it gets or had.
type Weight = (u64, NodeId);

fn weight_of(node: NodeId, key: u64) -> Weight {
    (mix(mix(u64::from(node.0.unsigned_abs())) ^ key), node)
}

/// FNV-1a. Every broker, of any version, must hash alike: these functions never change.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The finalizer of SplitMix64, with a step so that 0 is not kept.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn broker(node: i32, joined: i32) -> Broker {
        Broker {
            node: NodeId(node),
            incarnation: format!("{node}-{joined}"),
            joined,
            rack: None,
            endpoints: Vec::new(),
        }
    }

    /// A history of comings (true) and goings of nodes, as Redis keeps it.
    fn view_after(events: &[(i32, bool)]) -> View {
        let mut view = View { generation: -1, ..View::default() };
        for &(node, comes) in events {
            let was_live = view.broker(NodeId(node)).is_some();
            if was_live == comes {
                continue;
            }
            view.generation += 1;
            if comes {
                view.left.retain(|(left, _)| *left != NodeId(node));
                view.live.push(broker(node, view.generation));
            } else {
                view.live.retain(|live| live.node != NodeId(node));
                view.left.push((NodeId(node), view.generation));
            }
        }
        view
    }

    fn topic(number: u128) -> TopicId {
        TopicId(Uuid::from_u128(number))
    }

    /// Node and epoch of each of some partitions.
    fn leaders(view: &View) -> Vec<Option<(i32, i32)>> {
        let partitions = (0..40_u128).flat_map(|number| (0..5).map(move |index| (topic(number * 7919), index)));
        partitions.map(|(topic, index)| view.leader(topic, index).map(|led| (led.broker.node.0, led.epoch))).collect()
    }

    #[test]
    fn the_first_broker_leads_everything_with_the_epoch_that_a_new_partition_has_in_kafka() {
        let view = view_after(&[(1, true)]);
        assert!(leaders(&view).iter().all(|leader| *leader == Some((1, 0))));
    }

    #[test]
    fn partitions_and_groups_are_spread_evenly() {
        let view = view_after(&[(1, true), (2, true), (3, true)]);
        let mut led: HashMap<i32, u32> = HashMap::new();
        for index in 0..3_000 {
            *led.entry(view.leader(topic(77), index).expect("live").broker.node.0).or_default() += 1;
        }
        for number in 0..3_000 {
            let coordinator = view.coordinator(&format!("group-{number}")).expect("live").broker;
            *led.entry(100 + coordinator.node.0).or_default() += 1;
        }
        assert_eq!(led.len(), 6);
        assert!(led.values().all(|count| (880..=1_120).contains(count)), "{led:?}");
    }

    #[test]
    fn hashes_stay_what_they_are_since_brokers_of_several_versions_must_agree() {
        let view = view_after(&[(0, true), (1, true), (2, true), (3, true)]);
        let led: Vec<i32> = (0..8).map(|index| view.leader(topic(1), index).expect("live").broker.node.0).collect();
        let coordinated: Vec<i32> =
            ["", "a", "orders", "payments"].map(|group| view.coordinator(group).expect("live").broker.node.0).to_vec();
        assert_eq!((led, coordinated), (LED.to_vec(), COORDINATED.to_vec()));
    }

    const LED: [i32; 8] = [0, 1, 2, 1, 3, 1, 1, 3];
    const COORDINATED: [i32; 4] = [2, 3, 1, 3];

    fn history() -> impl Strategy<Value = Vec<(i32, bool)>> {
        proptest::collection::vec((1..6, any::<bool>()), 0..30)
    }

    proptest! {
        #[test]
        fn a_broker_that_comes_or_goes_moves_only_what_it_gets_or_had(before in history(), node in 1..6, comes: bool) {
            let mut after = before.clone();
            after.push((node, comes));
            let (before, after) = (leaders(&view_after(&before)), leaders(&view_after(&after)));
            for (before, after) in before.into_iter().zip(after) {
                let moved = before.map(|(leader, _)| leader) != after.map(|(leader, _)| leader);
                let its = before.is_some_and(|(leader, _)| leader == node) || after.is_some_and(|(leader, _)| leader == node);
                prop_assert!(!moved || its, "{before:?} became {after:?}");
            }
        }

        #[test]
        fn an_epoch_rises_when_the_leader_changes_and_only_then(events in history()) {
            let mut known: Vec<Option<(i32, i32)>> = leaders(&View::default());
            let mut last_led = known.clone();
            for end in 1..=events.len() {
                let now = leaders(&view_after(&events[..end]));
                for ((before, last), now) in known.iter().zip(&mut last_led).zip(&now) {
                    let Some((node, epoch)) = *now else { continue };
                    match (*before, *last) {
                        (Some(before), _) if before.0 == node => prop_assert_eq!(before.1, epoch),
                        (_, Some(last)) => prop_assert!(last.1 < epoch, "{:?} became {:?}", last, now),
                        _ => {}
                    }
                    *last = *now;
                }
                known = now;
            }
        }

        #[test]
        fn a_broker_that_starts_anew_leads_with_newer_epochs(events in history(), node in 1..6) {
            let mut events = events;
            events.push((node, true));
            let before = view_after(&events);
            events.extend([(node, false), (node, true)]);
            let after = view_after(&events);
            for (before, after) in leaders(&before).into_iter().zip(leaders(&after)) {
                let (before, after) = (before.expect("live"), after.expect("live"));
                prop_assert_eq!(before.0, after.0);
                prop_assert_eq!(after.1 > before.1, before.0 == node, "{:?} became {:?}", before, after);
            }
        }
    }
}
