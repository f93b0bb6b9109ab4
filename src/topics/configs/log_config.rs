//! A topic's configs as its log needs them.

mod tiered;

use super::{Layers, Source, Values, broker_definition, list_items, topic_definition};
use crate::{
    log::{
        config::LogConfig,
        durability::{Level, MOST_REPLICAS, Promise},
        store::{Layout, ValueFormat},
    },
    protocol::records::{Codec, TimestampType},
};

/// Configs that don't go together or are not taken, with Kafka's words.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct InvalidTopicConfig(pub String);

/// Checks all that is set for one topic: names, values, and how they go together with what the broker gives.
///
/// `before` is what the topic was set to, if it is there.
///
/// # Errors
/// With Kafka's words.
pub fn validate_topic(
    before: Option<&Values>,
    values: &Values,
    pattern: &Values,
    broker: &Layers,
) -> Result<(), InvalidTopicConfig> {
    for (name, value) in values {
        let definition =
            topic_definition(name).ok_or_else(|| InvalidTopicConfig(format!("Unknown topic config name: {name}")))?;
        definition.validate(value).map_err(|error| InvalidTopicConfig(error.to_string()))?;
    }
    let resolved = Effective { values, pattern, broker };
    let had_tier = before.is_some_and(|before| Effective { values: before, pattern, broker }.flag(ENABLE));
    tiered::validate(&resolved, had_tier).map_err(InvalidTopicConfig)?;
    let (least, most) = (resolved.number("min.compaction.lag.ms"), resolved.number("max.compaction.lag.ms"));
    if least > most {
        return Err(InvalidTopicConfig(format!(
            "conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})"
        )));
    }
    Ok(())
}

/// Checks what a broker's settings make of a topic that sets nothing itself.
///
/// # Errors
/// With Kafka's words.
pub fn validate_log_defaults(broker: &Layers) -> Result<(), InvalidTopicConfig> {
    let nothing = Values::new();
    let defaults = Effective { values: &nothing, pattern: &nothing, broker };
    tiered::validate_defaults(&defaults).map_err(InvalidTopicConfig)
}

/// The settings of a topic's log. Values were checked when they were set; one that is illegal all the same (set by another
/// version) falls back to the default.
pub fn log_config(values: &Values, pattern: &Values, broker: &Layers) -> LogConfig {
    let resolved = Effective { values, pattern, broker };
    let policy = resolved.text("cleanup.policy");
    let policies = |wanted: &str| list_items(&policy).any(|item| item == wanted);
    LogConfig {
        layout: match resolved.text("weir.layout").as_str() {
            "batch" => Layout::Batch,
            _ => Layout::Record(match resolved.text("weir.value.format").as_str() {
                "raw" => ValueFormat::Raw,
                "json" => ValueFormat::Json,
                _ => ValueFormat::Auto,
            }),
        },
        max_message_bytes: usize::try_from(resolved.number("max.message.bytes")).unwrap_or(0),
        timestamp_type: match resolved.text("message.timestamp.type").as_str() {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        timestamp_before_max_ms: resolved.number("message.timestamp.before.max.ms"),
        timestamp_after_max_ms: resolved.number("message.timestamp.after.max.ms"),
        compression: match resolved.text("compression.type").as_str() {
            "uncompressed" => Some((Codec::None, 0)),
            "gzip" => Some((Codec::Gzip, resolved.level("compression.gzip.level"))),
            "snappy" => Some((Codec::Snappy, 0)),
            "lz4" => Some((Codec::Lz4, resolved.level("compression.lz4.level"))),
            "zstd" => Some((Codec::Zstd, resolved.level("compression.zstd.level"))),
            _ => None,
        },
        compact: policies("compact"),
        delete: policies("delete"),
        retention_ms: limit(resolved.number("retention.ms")),
        retention_bytes: limit(resolved.number("retention.bytes")).and_then(|bytes| u64::try_from(bytes).ok()),
        retention_records: limit(resolved.number("weir.retention.records")).and_then(|count| u64::try_from(count).ok()),
        tier: tiered::tier(&resolved),
        promise: resolved.promise(),
    }
}

/// What `acks=all` waits for with these configs.
pub fn promise(values: &Values, pattern: &Values, broker: &Layers) -> Promise {
    Effective { values, pattern, broker }.promise()
}

/// What `acks=all` waits for on every topic.
pub fn floor(broker: &Layers) -> Promise {
    let definition = broker_definition("weir.durability.floor").expect("it is in the table");
    level(&broker.resolve(definition).value.unwrap_or_default())
}

fn level(text: &str) -> Promise {
    Promise::from(text.parse().unwrap_or(Level::Memory))
}

fn limit(value: i64) -> Option<i64> {
    (value >= 0).then_some(value)
}

const ENABLE: &str = "remote.storage.enable";

struct Effective<'a> {
    values: &'a Values,
    pattern: &'a Values,
    broker: &'a Layers,
}

impl Effective<'_> {
    fn text(&self, name: &str) -> String {
        let definition = topic_definition(name).expect("only names of the table are asked for");
        let own = self.values.get(name).map(|value| (value.as_str(), Source::Topic));
        let resolved = self.broker.resolve_for(definition, own, self.pattern.get(name).map(String::as_str));
        resolved
            .value
            .filter(|value| definition.validate(value).is_ok())
            .or(definition.default.map(str::to_owned))
            .unwrap_or_default()
    }

    fn promise(&self) -> Promise {
        let mut promise = level(&self.text("weir.durability"));
        if promise.replicas > 0 {
            // Kafka counts the leader, Redis does not.
            let others = self.number("min.insync.replicas").saturating_sub(1);
            promise.replicas = promise.replicas.max(u16::try_from(others).unwrap_or(MOST_REPLICAS).min(MOST_REPLICAS));
        }
        promise.and(floor(self.broker))
    }

    fn number(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or(-1)
    }

    fn level(&self, name: &str) -> i32 {
        self.text(name).parse().unwrap_or(-1)
    }

    fn broker_flag(&self, name: &str) -> bool {
        let definition = broker_definition(name).expect("only names of the table are asked for");
        self.broker.resolve(definition).value.as_deref() == Some("true")
    }

    fn flag(&self, name: &str) -> bool {
        self.text(name) == "true"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::durability::Disk;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn told(pairs: &[(&str, &str)]) -> Option<String> {
        validate_topic(None, &values(pairs), &Values::new(), &Layers::default()).err().map(|error| error.0)
    }

    #[test]
    fn unknown_names_and_conflicts_are_refused_with_kafkas_words() {
        assert_eq!(told(&[("nope", "1")]).as_deref(), Some("Unknown topic config name: nope"));
        assert_eq!(
            told(&[("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "4")]).as_deref(),
            Some("conflict topic config setting min.compaction.lag.ms (5) > max.compaction.lag.ms (4)")
        );
        assert_eq!(told(&[("local.retention.ms", "5"), ("retention.bytes", "-7")]), None);
    }

    #[test]
    fn the_defaults_make_the_log_that_kafka_would() {
        let config = log_config(&Values::new(), &Values::new(), &Layers::default());
        assert_eq!(config.layout, Layout::Record(ValueFormat::Auto));
        assert_eq!((config.max_message_bytes, config.retention_ms), (1_048_588, Some(604_800_000)));
        assert_eq!((config.retention_bytes, config.retention_records), (None, None));
        assert_eq!((config.delete, config.compact, config.compression), (true, false, None));
    }

    #[test]
    fn a_promise_is_the_level_the_floor_and_the_replicas_in_sync() {
        let asked = |own: &[(&str, &str)], broker: &[(&str, &str)]| {
            let layers = Layers { fixed: values(broker), ..Layers::default() };
            let promise = promise(&values(own), &Values::new(), &layers);
            (promise.disk, promise.replicas)
        };
        assert_eq!(asked(&[], &[]), (Disk::Memory, 0));
        assert_eq!(asked(&[], &[("weir.durability", "written")]), (Disk::Written, 0));
        assert_eq!(asked(&[("weir.durability", "memory")], &[("weir.durability", "written")]), (Disk::Memory, 0));
        assert_eq!(asked(&[("weir.durability", "memory")], &[("weir.durability.floor", "fsync")]), (Disk::Fsync, 0));
        let replicated = ("weir.durability", "replicas:1");
        assert_eq!(asked(&[replicated], &[("weir.durability.floor", "written")]), (Disk::Written, 1));
        assert_eq!(asked(&[replicated, ("min.insync.replicas", "3")], &[]), (Disk::Memory, 2));
        assert_eq!(asked(&[replicated, ("min.insync.replicas", "1")], &[]), (Disk::Memory, 1));
        assert_eq!(asked(&[("weir.durability", "fsync"), ("min.insync.replicas", "3")], &[]), (Disk::Fsync, 0));
    }

    #[test]
    fn an_empty_policy_neither_deletes_nor_compacts() {
        let config = log_config(&values(&[("cleanup.policy", "")]), &Values::new(), &Layers::default());
        assert!(!config.delete && !config.compact);
    }

    #[test]
    fn a_pattern_gives_the_layout_that_the_topic_does_not_set() {
        let pattern = values(&[("weir.layout", "batch")]);
        assert_eq!(log_config(&Values::new(), &pattern, &Layers::default()).layout, Layout::Batch);
        let own = values(&[("weir.layout", "record"), ("weir.value.format", "raw")]);
        assert_eq!(log_config(&own, &pattern, &Layers::default()).layout, Layout::Record(ValueFormat::Raw));
    }
}
