//! Broker settings: what was given at start, and the typed values in force.

use super::configs::{self, Definition, Layers, Values};

/// A setting that the broker does not start with.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidSetting {
    #[error("{name} is not a broker setting{}", suggestion(.nearest))]
    Unknown { name: String, nearest: Option<&'static str> },
    #[error("{name} is not a topic config{}", suggestion(.nearest))]
    UnknownTopicConfig { name: String, nearest: Option<&'static str> },
    /// The text names the setting and the value.
    #[error("{0}")]
    Value(String),
}

fn suggestion(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// The values that settings and topics start from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticSettings {
    pub broker: Values,
    /// The first pattern that matches a topic's name and sets a config wins.
    pub patterns: Vec<PatternDefaults>,
}

/// Defaults for topics whose names match a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternDefaults {
    /// `*` stands for any characters, `?` for one.
    pub pattern: String,
    pub configs: Values,
}

impl StaticSettings {
    /// # Errors
    /// The first setting that is unknown or has an illegal value.
    pub fn new(broker: Values, patterns: Vec<PatternDefaults>) -> Result<Self, InvalidSetting> {
        validate(&broker)?;
        for pattern in &patterns {
            for (name, value) in &pattern.configs {
                let definition = configs::topic_definition(name).ok_or_else(|| InvalidSetting::UnknownTopicConfig {
                    name: name.clone(),
                    nearest: nearest(name, configs::TOPIC.iter()),
                })?;
                definition.validate(value).map_err(|error| InvalidSetting::Value(error.to_string()))?;
            }
            let layers = Layers { fixed: broker.clone(), ..Layers::default() };
            configs::validate_topic(None, &Values::new(), &pattern.configs, &layers)
                .map_err(|error| InvalidSetting::Value(format!("{}: {error}", pattern.pattern)))?;
        }
        Ok(Self { broker, patterns })
    }

    /// What the patterns give a topic of this name.
    pub fn pattern_configs(&self, topic: &str) -> Values {
        let mut given = Values::new();
        for pattern in self.patterns.iter().filter(|pattern| matches(&pattern.pattern, topic)) {
            for (name, value) in &pattern.configs {
                given.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        given
    }
}

/// Checks broker settings as given at start: names, types, bounds, and how they go together.
///
/// # Errors
/// The first one that is wrong.
pub fn validate(values: &Values) -> Result<(), InvalidSetting> {
    for (name, value) in values {
        let definition = configs::broker_definition(name)
            .ok_or_else(|| InvalidSetting::Unknown { name: name.clone(), nearest: nearest(name, configs::broker()) })?;
        definition.validate(value).map_err(|error| InvalidSetting::Value(error.to_string()))?;
    }
    let layers = Layers { fixed: values.clone(), ..Layers::default() };
    validate_together(&layers).map_err(InvalidSetting::Value)?;
    configs::validate_topic(None, &Values::new(), &Values::new(), &layers)
        .map_err(|error| InvalidSetting::Value(error.to_string()))
}

/// Checks what several settings say together.
///
/// # Errors
/// Says which two disagree.
pub fn validate_together(layers: &Layers) -> Result<(), String> {
    let values = Reader { layers };
    let (queued, longest) = (values.long("queued.max.request.bytes"), values.long("socket.request.max.bytes"));
    if queued > 0 && queued < longest {
        return Err(format!(
            "queued.max.request.bytes ({queued}) must not be less than socket.request.max.bytes ({longest})"
        ));
    }
    let (least, most) = (values.long("group.min.session.timeout.ms"), values.long("group.max.session.timeout.ms"));
    if least > most {
        return Err(format!(
            "group.min.session.timeout.ms ({least}) must not be more than group.max.session.timeout.ms ({most})"
        ));
    }
    let (heartbeat, session) = (values.long("broker.heartbeat.interval.ms"), values.long("broker.session.timeout.ms"));
    if heartbeat.saturating_mul(2) > session {
        return Err(format!(
            "broker.session.timeout.ms ({session}) must be at least twice broker.heartbeat.interval.ms ({heartbeat})"
        ));
    }
    for name in ["log.retention.ms", "log.retention.minutes", "log.retention.hours"] {
        if values.optional(name).is_some_and(|value| value == "0") {
            return Err(format!("{name} must be unlimited (-1) or, greater than or equal to 1"));
        }
    }
    Ok(())
}

/// The known name that is most like `name`, if any is.
pub fn nearest(name: &str, table: impl Iterator<Item = &'static Definition>) -> Option<&'static str> {
    const ALIKE: f64 = 0.8;
    table
        .map(|definition| (strsim::jaro_winkler(name, definition.name), definition.name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// Whether `pattern` (`*` and `?`) stands for the whole of `text`.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // Where to go on after the last `*` when what follows it does not fit.
    let mut retry: Option<(usize, usize)> = None;
    let (mut p, mut t) = (0, 0);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(wanted) if *wanted == '?' || text.get(t) == Some(wanted) => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|c| *c == '*'))
}

/// The settings in force, typed. Bytes are bytes, times are milliseconds unless the name says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerSettings {
    pub auto_create_topics_enable: bool,
    pub broker_heartbeat_interval_ms: u64,
    pub broker_rack: Option<String>,
    pub broker_session_timeout_ms: u64,
    pub cluster_id: Option<String>,
    pub connections_max_idle_ms: u64,
    pub default_replication_factor: i16,
    pub delete_topic_enable: bool,
    pub fetch_max_bytes: usize,
    pub log_retention_check_interval_ms: u64,
    pub max_connections: usize,
    pub max_connections_per_ip: usize,
    pub max_incremental_fetch_session_cache_slots: usize,
    pub max_request_partition_size_limit: usize,
    pub num_partitions: i32,
    pub producer_id_expiration_ms: i64,
    /// `None` is no limit.
    pub queued_max_request_bytes: Option<usize>,
    pub socket_request_max_bytes: usize,

    pub group_initial_rebalance_delay_ms: i32,
    pub group_max_session_timeout_ms: i32,
    pub group_max_size: usize,
    pub group_min_session_timeout_ms: i32,
    pub offset_metadata_max_bytes: usize,
    pub offsets_retention_check_interval_ms: u64,
    pub offsets_retention_minutes: u64,

    pub weir_append_bytes: usize,
    pub weir_connection_queued_replies: usize,
    pub weir_connection_stall_ms: u64,
    pub weir_fetch_response_bytes: usize,
    pub weir_producers_per_partition: usize,
    pub weir_record_max_bytes_per_batch: usize,
    pub weir_record_max_records_per_batch: usize,
    pub weir_redis_disk_reserve_bytes: u64,
    /// A share.
    pub weir_redis_memory_high_watermark: f64,
    pub weir_structured_request_max_bytes: usize,
    pub weir_tail_cache_bytes: usize,
}

impl BrokerSettings {
    pub fn new(layers: &Layers) -> Self {
        let values = Reader { layers };
        Self {
            auto_create_topics_enable: values.flag("auto.create.topics.enable"),
            broker_heartbeat_interval_ms: values.count("broker.heartbeat.interval.ms"),
            broker_rack: values.optional("broker.rack"),
            broker_session_timeout_ms: values.count("broker.session.timeout.ms"),
            cluster_id: values.optional("cluster.id"),
            connections_max_idle_ms: values.count("connections.max.idle.ms"),
            default_replication_factor: values.number("default.replication.factor"),
            delete_topic_enable: values.flag("delete.topic.enable"),
            fetch_max_bytes: values.number("fetch.max.bytes"),
            log_retention_check_interval_ms: values.count("log.retention.check.interval.ms"),
            max_connections: values.number("max.connections"),
            max_connections_per_ip: values.number("max.connections.per.ip"),
            max_incremental_fetch_session_cache_slots: values.number("max.incremental.fetch.session.cache.slots"),
            max_request_partition_size_limit: values.number("max.request.partition.size.limit"),
            num_partitions: values.number("num.partitions"),
            producer_id_expiration_ms: values.number("producer.id.expiration.ms"),
            queued_max_request_bytes: usize::try_from(values.long("queued.max.request.bytes"))
                .ok()
                .filter(|bytes| *bytes > 0),
            socket_request_max_bytes: values.number("socket.request.max.bytes"),

            group_initial_rebalance_delay_ms: values.number("group.initial.rebalance.delay.ms"),
            group_max_session_timeout_ms: values.number("group.max.session.timeout.ms"),
            group_max_size: values.number("group.max.size"),
            group_min_session_timeout_ms: values.number("group.min.session.timeout.ms"),
            offset_metadata_max_bytes: values.number("offset.metadata.max.bytes"),
            offsets_retention_check_interval_ms: values.count("offsets.retention.check.interval.ms"),
            offsets_retention_minutes: values.count("offsets.retention.minutes"),

            weir_append_bytes: values.number("weir.append.bytes"),
            weir_connection_queued_replies: values.number("weir.connection.queued.replies"),
            weir_connection_stall_ms: values.count("weir.connection.stall.ms"),
            weir_fetch_response_bytes: values.number("weir.fetch.response.bytes"),
            weir_producers_per_partition: values.number("weir.producers.per.partition"),
            weir_record_max_bytes_per_batch: values.number("weir.record.max.bytes.per.batch"),
            weir_record_max_records_per_batch: values.number("weir.record.max.records.per.batch"),
            weir_redis_disk_reserve_bytes: values.count("weir.redis.disk.reserve.bytes"),
            weir_redis_memory_high_watermark: values.share("weir.redis.memory.high.watermark"),
            weir_structured_request_max_bytes: values.number("weir.structured.request.max.bytes"),
            weir_tail_cache_bytes: values.number("weir.tail.cache.bytes"),
        }
    }
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self::new(&Layers::default())
    }
}

/// Reads values that were checked when they were set; one that is illegal all the same has its default.
struct Reader<'a> {
    layers: &'a Layers,
}

impl Reader<'_> {
    fn optional(&self, name: &str) -> Option<String> {
        let definition = configs::broker_definition(name).expect("only names of the table are asked for");
        let value = self.layers.resolve(definition).value.filter(|value| definition.validate(value).is_ok());
        value.or_else(|| definition.default.map(str::to_owned))
    }

    fn flag(&self, name: &str) -> bool {
        self.optional(name).as_deref() == Some("true")
    }

    fn long(&self, name: &str) -> i64 {
        self.optional(name).and_then(|value| value.parse().ok()).unwrap_or(-1)
    }

    fn count(&self, name: &str) -> u64 {
        u64::try_from(self.long(name)).unwrap_or(0)
    }

    fn share(&self, name: &str) -> f64 {
        self.optional(name).and_then(|value| value.trim().parse().ok()).unwrap_or(1.0)
    }

    fn number<T: TryFrom<i64> + Default>(&self, name: &str) -> T {
        T::try_from(self.long(name)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest() {
        let refused = validate(&values(&[("num.partition", "3")])).expect_err("unknown");
        assert_eq!(refused.to_string(), "num.partition is not a broker setting; did you mean num.partitions?");
        let refused = validate(&values(&[("xyzzy", "3")])).expect_err("unknown");
        assert_eq!(refused.to_string(), "xyzzy is not a broker setting");
    }

    #[test]
    fn settings_that_disagree_are_refused() {
        assert!(validate(&values(&[("queued.max.request.bytes", "1000")])).is_err());
        assert!(validate(&values(&[("queued.max.request.bytes", "-1")])).is_ok());
        assert!(validate(&values(&[("log.retention.hours", "0")])).is_err());
        assert!(validate(&values(&[("group.min.session.timeout.ms", "9000000")])).is_err());
    }

    #[test]
    fn dynamic_values_are_stronger_than_those_given_at_start() {
        let mut layers = Layers { fixed: values(&[("max.connections", "7")]), ..Layers::default() };
        assert_eq!(BrokerSettings::new(&layers).max_connections, 7);
        layers.cluster = values(&[("max.connections", "8")]);
        assert_eq!(BrokerSettings::new(&layers).max_connections, 8);
    }

    #[test]
    fn the_first_pattern_that_sets_a_config_wins() {
        let pattern = |pattern: &str, pairs: &[(&str, &str)]| PatternDefaults {
            pattern: pattern.to_owned(),
            configs: values(pairs),
        };
        let settings = StaticSettings::new(
            Values::new(),
            vec![
                pattern("orders-*", &[("weir.layout", "batch")]),
                pattern("*", &[("weir.layout", "record"), ("retention.ms", "1000")]),
            ],
        )
        .expect("legal");
        let given = settings.pattern_configs("orders-eu");
        assert_eq!(given, values(&[("weir.layout", "batch"), ("retention.ms", "1000")]));
        assert_eq!(settings.pattern_configs("x"), values(&[("weir.layout", "record"), ("retention.ms", "1000")]));
        assert!(StaticSettings::new(Values::new(), vec![pattern("*", &[("retention", "1")])]).is_err());
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("a*", "abc", true),
            ("a*c", "abcbc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*-dlq", "orders-dlq", true),
            ("*-dlq", "orders-dlq2", false),
            ("a", "ab", false),
            ("a**b", "axxb", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }
}
