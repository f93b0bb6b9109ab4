//! The names and ids that every part shares.

use std::{borrow::Borrow, fmt, sync::Arc};

use uuid::Uuid;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(text: &str) -> Self {
                Self(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

text_id! {
    /// A topic's name as clients spell it.
    TopicName
}

text_id! {
    /// A consumer group's id as clients spell it.
    GroupId
}

text_id! {
    /// What the coordinator calls a member of a group; empty where a client has none yet.
    MemberId
}

text_id! {
    /// What a static member calls itself (KIP-345).
    GroupInstanceId
}

/// A topic's identity (KIP-516): a topic that was deleted and created anew has another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub Uuid);

impl TopicId {
    /// What the wire sends where there is no topic id.
    pub const ZERO: TopicId = TopicId(Uuid::nil());

    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for TopicId {
    /// As Kafka's tools print it: URL-safe base64 without padding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A broker's `node.id`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub i32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition of one incarnation of a topic.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PartitionId {
    pub topic: TopicName,
    pub topic_id: TopicId,
    pub index: i32,
}

impl fmt::Display for PartitionId {
    /// As Kafka's logs name a partition: `orders-0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

/// Who writes as an idempotent producer; `id` is -1 on the wire when there is none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ProducerIdentity {
    pub id: i64,
    pub epoch: i16,
}
