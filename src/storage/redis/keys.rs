//! Every key that Weir has in Redis is spelled here and nowhere else (DESIGN: what Redis holds).
//!
//! Braces are Redis Cluster hash tags: keys that one transaction changes together share a slot.

use std::fmt::Write;

use crate::model::{GroupId, NodeId, TopicName};

/// The prefix of every key. Holds no braces, so that hash tags stay what this module writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyspace(String);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the keyspace {0:?} must be 1 to 100 printable ASCII characters without braces or blanks")]
pub struct InvalidKeyspace(String);

/// Where `scripts/log.lua` publishes the keys of streams that were changed otherwise than by their leader.
pub const STREAMS_CHANNEL: &str = "weir:changed";

impl Keyspace {
    pub fn new(text: &str) -> Result<Self, InvalidKeyspace> {
        let legal = |b: u8| b.is_ascii_graphic() && b != b'{' && b != b'}';
        if text.is_empty() || text.len() > 100 || !text.bytes().all(legal) {
            return Err(InvalidKeyspace(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The channels that changes by others are published on: for changes of a stream one that carries its key (of any
    /// keyspace, since who calls `weir_append` names the key), for what all brokers share one with the key's own name.
    pub fn channels(&self) -> [String; 3] {
        [STREAMS_CHANNEL.to_owned(), self.catalog_version(), self.brokers()]
    }

    pub fn stream(&self, topic: &TopicName, partition: i32) -> String {
        format!("{}:stream:{topic}:{partition}", self.0)
    }

    /// The hash beside the stream, in the stream's slot.
    pub fn state(&self, topic: &TopicName, partition: i32) -> String {
        format!("{{{}}}:state", self.stream(topic, partition))
    }

    /// Sparse marks of the log's bytes, in the stream's slot.
    pub fn marks(&self, topic: &TopicName, partition: i32) -> String {
        format!("{{{}}}:marks", self.stream(topic, partition))
    }

    /// The topic and partition of a stream's key, or `None` for any other key.
    pub fn parse_stream<'a>(&self, key: &'a str) -> Option<(&'a str, i32)> {
        let rest = key.strip_prefix(self.0.as_str())?.strip_prefix(":stream:")?;
        let (topic, partition) = rest.rsplit_once(':')?;
        Some((topic, partition.parse().ok()?))
    }

    fn catalog(&self, what: &str) -> String {
        format!("{{{}:catalog}}:{what}", self.0)
    }

    pub fn topics(&self) -> String {
        self.catalog("topics")
    }

    pub fn topic_ids(&self) -> String {
        self.catalog("ids")
    }

    pub fn configs(&self) -> String {
        self.catalog("configs")
    }

    /// Partitions that are still to be made or freed.
    pub fn catalog_unfinished(&self) -> String {
        self.catalog("unfinished")
    }

    pub fn catalog_changes(&self) -> String {
        self.catalog("changes")
    }

    /// Topics that have a table in the archive.
    pub fn tables(&self) -> String {
        self.catalog("tables")
    }

    pub fn catalog_version(&self) -> String {
        self.catalog("version")
    }

    pub fn cluster(&self) -> String {
        self.catalog("cluster")
    }

    pub fn producer_ids(&self) -> String {
        self.catalog("producer-ids")
    }

    /// Written before a wait for replicas or the disk.
    pub fn barrier(&self) -> String {
        self.catalog("barrier")
    }

    /// The same for a shard of a cluster: one of these keys, of which each lies in a slot of its own.
    pub fn shard_barrier(&self, number: u32) -> String {
        format!("{}:barrier:{number}", self.0)
    }

    pub fn layout(&self) -> String {
        self.catalog("layout")
    }

    pub fn broker(&self, node: NodeId) -> String {
        self.catalog(&format!("broker:{node}"))
    }

    /// All brokers, live and gone.
    pub fn brokers(&self) -> String {
        self.catalog("brokers")
    }

    pub fn groups(&self) -> String {
        format!("{}:groups", self.0)
    }

    pub fn group(&self, group: &GroupId) -> String {
        format!("{}:group:{{{}}}", self.0, percent_encoded(group.as_str()))
    }

    pub fn group_offsets(&self, group: &GroupId) -> String {
        format!("{}:offsets", self.group(group))
    }
}

/// `%`, `:`, `{`, `}` and all that is not printable ASCII as `%XX`, so that no two group ids share a key.
/// The empty id is a lone `%`: an empty hash tag would put a group's keys into different slots.
fn percent_encoded(text: &str) -> String {
    if text.is_empty() {
        return "%".to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | b':' | b'{' | b'}' => write!(out, "%{byte:02X}").expect("a String takes any text"),
            byte if byte.is_ascii_graphic() => out.push(char::from(byte)),
            byte => write!(out, "%{byte:02X}").expect("a String takes any text"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn keyspace() -> Keyspace {
        Keyspace::new("korvet").expect("a legal keyspace")
    }

    #[test]
    fn keys_are_spelled_as_the_design_says() {
        let orders = TopicName::new("orders");
        assert_eq!(keyspace().stream(&orders, 0), "korvet:stream:orders:0");
        assert_eq!(keyspace().state(&orders, 0), "{korvet:stream:orders:0}:state");
        assert_eq!(keyspace().topics(), "{korvet:catalog}:topics");
        assert_eq!(keyspace().group(&GroupId::new("a:{b}%")), "korvet:group:{a%3A%7Bb%7D%25}");
        assert_eq!(keyspace().group_offsets(&GroupId::new("a")), "korvet:group:{a}:offsets");
    }

    #[test]
    fn an_empty_group_id_has_a_key_of_its_own() {
        assert_eq!(keyspace().group(&GroupId::new("")), "korvet:group:{%}");
    }

    #[test]
    fn a_keyspace_with_braces_is_refused() {
        for bad in ["", "a{b", "a}b", "a b", "ü", &"k".repeat(101)] {
            assert!(Keyspace::new(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_two_groups_share_a_key(ids in proptest::collection::vec(".{0,12}|[a:{}%]{0,6}|(a|a:offsets|:offsets)", 2..20)) {
            let mut owner: HashMap<String, String> = HashMap::new();
            for id in ids {
                let group = GroupId::new(&id);
                for key in [keyspace().group(&group), keyspace().group_offsets(&group)] {
                    let before = owner.insert(key, id.clone());
                    prop_assert!(before.is_none_or(|other| other == id));
                }
            }
        }

        #[test]
        fn a_stream_key_names_its_partition(topic in "[a-zA-Z0-9._-]{1,249}", partition in 0..i32::MAX) {
            let key = keyspace().stream(&TopicName::new(&topic), partition);
            prop_assert_eq!(keyspace().parse_stream(&key), Some((topic.as_str(), partition)));
        }
    }
}
