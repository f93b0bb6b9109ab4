//! A topic's settings as far as its log needs them, made from the topic's configs by `topics`.

use crate::{
    log::archive::FileOptions,
    log::durability::Promise,
    log::store::{Hold, Layout, Retention},
    protocol::records::{Codec, TimestampType},
};

/// Everything that decides how a partition takes, keeps and gives records.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    pub layout: Layout,
    /// `max.message.bytes`: the largest batch, in bytes as sent.
    pub max_message_bytes: usize,
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far behind the broker's clock a record may be.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far ahead of the broker's clock a record may be.
    pub timestamp_after_max_ms: i64,
    /// `compression.type` and its level; `None` keeps what the producer sent.
    pub compression: Option<(Codec, i32)>,
    /// `cleanup.policy` has `compact`: records without a key are refused.
    pub compact: bool,
    /// `cleanup.policy` has `delete`; without it no retention ever applies.
    pub delete: bool,
    /// `retention.ms`; `None` is no limit.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; `None` is no limit.
    pub retention_bytes: Option<u64>,
    /// `weir.retention.records`; `None` is no limit.
    pub retention_records: Option<u64>,
    /// `remote.storage.enable`; none without a cold tier.
    pub tier: Option<Tier>,
    /// What `acks=all` waits for: `weir.durability`, the server's floor and `min.insync.replicas` together.
    pub promise: Promise,
}

/// How a log with a cold tier is kept (KIP-405).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tier {
    /// Not `remote.log.copy.disable`: the log is copied, and what is not copied stays.
    pub copies: bool,
    /// `local.retention.ms`; `None` is no limit.
    pub local_retention_ms: Option<i64>,
    /// `local.retention.bytes`; `None` is no limit.
    pub local_retention_bytes: Option<u64>,
    /// `weir.archive.file.bytes` and `weir.archive.zstd.level`.
    pub files: FileOptions,
}

impl LogConfig {
    /// What may be removed from the storage at `now_ms`.
    pub fn retention(&self, now_ms: i64) -> Retention {
        match self.tier.filter(|tier| tier.copies) {
            Some(tier) => Retention {
                before_timestamp: tier.local_retention_ms.map(|kept| now_ms.saturating_sub(kept)),
                max_bytes: tier.local_retention_bytes,
                max_records: None,
                hold: Hold::Unarchived,
            },
            None => self.whole_retention(now_ms),
        }
    }

    /// Whether retention may ever remove anything from the storage. With a cold tier also where the policy is empty.
    pub fn is_trimmed(&self) -> bool {
        self.delete || self.tier.is_some_and(|tier| tier.copies)
    }

    /// What may be removed of the log as a whole, be it archived.
    pub fn whole_retention(&self, now_ms: i64) -> Retention {
        if !self.delete {
            return Retention::default();
        }
        Retention {
            before_timestamp: self.retention_ms.map(|kept| now_ms.saturating_sub(kept)),
            max_bytes: self.retention_bytes,
            max_records: self.retention_records,
            hold: Hold::AsNoted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::memory_store::config;

    #[test]
    fn nothing_is_ever_removed_where_the_policy_lacks_delete() {
        let limited =
            LogConfig { retention_ms: Some(1_000), retention_bytes: Some(1), retention_records: Some(1), ..config() };
        let kept = LogConfig { delete: false, compact: true, ..limited.clone() };
        assert_eq!(kept.retention(5_000), Retention::default());
        let removed =
            Retention { before_timestamp: Some(4_000), max_bytes: Some(1), max_records: Some(1), hold: Hold::AsNoted };
        assert_eq!(limited.retention(5_000), removed);
    }

    #[test]
    fn with_a_cold_tier_the_storage_keeps_what_is_local_and_the_log_the_rest() {
        let tier = Tier { copies: true, local_retention_ms: Some(10), ..Tier::default() };
        let tiered = LogConfig { retention_ms: Some(1_000), tier: Some(tier), ..config() };
        let local = Retention { before_timestamp: Some(4_990), hold: Hold::Unarchived, ..Retention::default() };
        assert_eq!(tiered.retention(5_000), local);
        assert_eq!(tiered.whole_retention(5_000).before_timestamp, Some(4_000));
        let read_only = LogConfig { tier: Some(Tier { copies: false, ..tier }), ..tiered };
        assert_eq!(read_only.retention(5_000).before_timestamp, Some(4_000));
    }
}
