//! What others changed in Redis, as they published it.

use std::collections::HashSet;

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::Notify;

use super::{keys::STREAMS_CHANNEL, shards::SlotSet};

/// The keys that others changed, coalesced until somebody takes them.
#[derive(Default)]
pub struct Changes {
    pending: Mutex<Pending>,
    notify: Notify,
}

/// What has changed since the last time.
#[derive(Debug, Default)]
pub struct Pending {
    /// Names of changed keys; what is not UTF-8 is none of ours.
    pub keys: HashSet<String>,
    /// Changes may have been missed (a new connection): everything may have changed.
    pub everything: bool,
    /// Changes may have been missed of what lies in these slots of a cluster.
    pub slots: SlotSet,
}

impl Changes {
    /// Waits for changes and takes them. Cancel-safe.
    pub async fn next(&self) -> Pending {
        loop {
            let notified = self.notify.notified();
            let taken = std::mem::take(&mut *self.pending.lock());
            if taken.everything || !taken.keys.is_empty() || !taken.slots.is_empty() {
                return taken;
            }
            notified.await;
        }
    }

    pub(super) fn reset(&self) {
        let mut pending = self.pending.lock();
        pending.keys.clear();
        pending.everything = true;
        drop(pending);
        self.notify.notify_one();
    }

    /// Changes may have been missed of what lies in `slots`, among it `keys`.
    pub(super) fn doubt(&self, slots: &SlotSet, keys: impl Iterator<Item = String>) {
        let mut pending = self.pending.lock();
        pending.slots.extend(slots);
        pending.keys.extend(keys);
        drop(pending);
        self.notify.notify_one();
    }

    /// `message`, the channel, what was published on it.
    pub(super) fn take_push(&self, push: Vec<Value>) {
        let Ok([_, Value::BulkString(channel), Value::BulkString(message)]) = <[Value; 3]>::try_from(push) else {
            return;
        };
        let key = if channel == STREAMS_CHANNEL.as_bytes() { message } else { channel };
        let Ok(key) = String::from_utf8(key) else { return };
        let mut pending = self.pending.lock();
        if !pending.everything {
            pending.keys.insert(key);
        }
        drop(pending);
        self.notify.notify_one();
    }
}
