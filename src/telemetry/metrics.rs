//! Every metric. Names are an interface: changing one takes an ADR.

use std::sync::Arc;

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};

use super::latency::Latency;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabel {
    api: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiVersionLabels {
    api: String,
    version: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiErrorLabels {
    api: String,
    error: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabels {
    topic: String,
    partition: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupPartitionLabels {
    group: String,
    topic: String,
    partition: i64,
}

/// What the broker counts while it works. The handles are cheap to use: atomics, without a lookup.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Vec<Option<Arc<RequestMetrics>>>,
    pub network: NetworkMetrics,
    pub log: LogMetrics,
    pub cold: ColdMetrics,
    pub redis: RedisMetrics,
    pub pressure: PressureMetrics,
    max_series: usize,
}

/// One API's.
#[derive(Debug)]
pub struct RequestMetrics {
    api: String,
    /// By version, from 0.
    versions: Vec<Counter>,
    duration: Latency,
    errors: Family<ApiErrorLabels, Counter>,
}

/// An API to count: its key, name, and the last version that is served.
#[derive(Clone, Debug)]
pub struct ApiRow {
    pub key: i16,
    pub name: String,
    pub last_version: i16,
}

#[derive(Clone, Debug, Default)]
pub struct NetworkMetrics {
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    pub connections: Gauge,
    pub connections_opened: Counter,
    pub connections_refused: Counter,
}

#[derive(Clone, Debug, Default)]
pub struct LogMetrics {
    pub appended_records: Counter,
    pub appended_bytes: Counter,
    pub fetched_records: Counter,
    pub fetched_bytes: Counter,
    pub cache_hits: Counter,
    pub cache_misses: Counter,
    pub cache_bytes: Gauge,
    pub lost_ranges: Counter,
    pub lost_records: Counter,
}

/// The cold tier's.
#[derive(Clone, Debug, Default)]
pub struct ColdMetrics {
    pub copied_records: Counter,
    pub copied_bytes: Counter,
    pub copy_errors: Counter,
    pub read_bytes: Counter,
    pub read_errors: Counter,
    /// Fetches that went on without what the archive had not given yet.
    pub delayed_reads: Counter,
    pub refused_appends: Counter,
    /// That were never archived.
    pub dropped_records: Counter,
    /// Of the partitions that this process leads or copies.
    pub lag_bytes: Gauge,
    pub lag_records: Gauge,
    /// Bytes at rest of these.
    pub size_bytes: Gauge,
}

#[derive(Clone, Debug, Default)]
pub struct RedisMetrics {
    /// From sending a command, pipeline or transaction to its answer.
    pub duration: Latency,
    pub connected: Gauge,
    pub connections_lost: Counter,
    /// 1 while the embedded server's data can't be synced to disk.
    pub unsynced: Gauge,
    failures: Family<KindLabel, Counter>,
}

#[derive(Clone, Debug, Default)]
pub struct PressureMetrics {
    /// 1 while appends are refused for want of room.
    pub refusing: Gauge,
    pub refused: Counter,
    pub memory_used: Gauge,
    pub memory_limit: Gauge,
}

impl RedisMetrics {
    /// `kind` is the error's variant.
    pub fn failed(&self, kind: &'static str) {
        self.failures.get_or_create(&KindLabel { kind }).inc();
    }
}

impl RequestMetrics {
    pub fn served(&self, version: i16, took: std::time::Duration) {
        if let Some(counter) = usize::try_from(version).ok().and_then(|version| self.versions.get(version)) {
            counter.inc();
        }
        self.duration.observe(took);
    }

    /// Counts an error that an answer holds, by Kafka's name for it.
    pub fn error(&self, error: &str) {
        self.errors.get_or_create(&ApiErrorLabels { api: self.api.clone(), error: error.to_owned() }).inc();
    }
}

/// What is looked up when the metrics are asked for.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub partitions: Vec<PartitionFigures>,
    pub groups: Vec<GroupFigures>,
    /// Partitions, and partitions of groups, that were left out.
    pub hidden: usize,
}

#[derive(Clone, Debug)]
pub struct PartitionFigures {
    pub topic: String,
    pub partition: i32,
    pub log_start_offset: i64,
    pub next_offset: i64,
    pub size_bytes: u64,
    pub cold: Option<ColdFigures>,
}

/// A partition's part in the archive.
#[derive(Clone, Copy, Debug)]
pub struct ColdFigures {
    pub local_start_offset: i64,
    /// Exclusive.
    pub archived_end_offset: i64,
    pub size_bytes: u64,
}

/// One partition that a group has committed.
#[derive(Clone, Debug)]
pub struct GroupFigures {
    pub group: String,
    pub topic: String,
    pub partition: i32,
    pub committed_offset: i64,
    /// Records between the committed offset and the end.
    pub lag: i64,
}

impl Metrics {
    /// At most `max_series` partitions, and as many partitions of groups, are shown one by one.
    pub fn new(apis: &[ApiRow], max_series: usize) -> Arc<Self> {
        let mut registry = Registry::default();
        let requests = request_metrics(&mut registry, apis);
        let network = NetworkMetrics::default();
        let log = LogMetrics::default();
        let cold = ColdMetrics::default();
        let redis = RedisMetrics::default();
        let pressure = PressureMetrics::default();
        let r = &mut registry;
        r.register("weir_network_received_bytes", "Bytes of requests read", network.received_bytes.clone());
        r.register("weir_network_sent_bytes", "Bytes of answers written", network.sent_bytes.clone());
        r.register("weir_connections", "Open client connections", network.connections.clone());
        r.register("weir_connections_opened", "Client connections taken", network.connections_opened.clone());
        r.register(
            "weir_connections_refused",
            "Client connections closed at once: max.connections or max.connections.per.ip",
            network.connections_refused.clone(),
        );
        r.register("weir_appended_records", "Records that producers wrote", log.appended_records.clone());
        r.register("weir_appended_bytes", "Bytes of batches that producers wrote", log.appended_bytes.clone());
        r.register("weir_fetched_records", "Records handed to consumers", log.fetched_records.clone());
        r.register("weir_fetched_bytes", "Bytes of batches handed to consumers", log.fetched_bytes.clone());
        r.register(
            "weir_lost_ranges",
            "Ranges of acknowledged records that Redis came back without, each logged",
            log.lost_ranges.clone(),
        );
        r.register("weir_lost_records", "Records in these ranges", log.lost_records.clone());
        r.register("weir_tail_cache_hits", "Reads served from memory", log.cache_hits.clone());
        r.register("weir_tail_cache_misses", "Reads that went to Redis", log.cache_misses.clone());
        r.register("weir_tail_cache_bytes", "Bytes held by the tail cache", log.cache_bytes.clone());
        cold_metrics(r, &cold);
        r.register(
            "weir_redis_command_duration_seconds",
            "Time from sending a command, pipeline or transaction to Redis to its answer",
            redis.duration.clone(),
        );
        r.register("weir_redis_connected", "1 while Redis is connected", redis.connected.clone());
        r.register("weir_redis_connections_lost", "Times that Redis was lost", redis.connections_lost.clone());
        r.register(
            "weir_redis_sync_failing",
            "1 while the embedded Redis' data can't be synced to disk",
            redis.unsynced.clone(),
        );
        r.register("weir_redis_failures", "Commands that failed, by what is known of them", redis.failures.clone());
        r.register(
            "weir_appends_held_back",
            "1 while appends are refused because Redis' memory, or the embedded one's disk, is nearly full",
            pressure.refusing.clone(),
        );
        r.register("weir_appends_refused_early", "Batches refused for that", pressure.refused.clone());
        r.register("weir_redis_memory_used_bytes", "Memory that Redis uses", pressure.memory_used.clone());
        r.register("weir_redis_memory_limit_bytes", "Redis' maxmemory; 0 = none", pressure.memory_limit.clone());
        Arc::new(Self { registry, requests, network, log, cold, redis, pressure, max_series })
    }

    /// For tests and tools that look at none.
    pub fn unseen() -> Arc<Self> {
        Self::new(&[], 0)
    }

    /// How many partitions, and partitions of groups, are shown one by one.
    pub fn max_series(&self) -> usize {
        self.max_series
    }

    /// The metrics of an API, if it is served.
    pub fn request(&self, key: i16) -> Option<&Arc<RequestMetrics>> {
        usize::try_from(key).ok().and_then(|key| self.requests.get(key)).and_then(Option::as_ref)
    }

    /// Everything in the text format of OpenMetrics, which Prometheus reads.
    pub fn shown(&self, figures: Figures) -> String {
        let mut out = String::with_capacity(16 << 10);
        text::encode_registry(&mut out, &self.registry).expect("a String takes any text");
        text::encode_registry(&mut out, &registry_of(figures, self.max_series)).expect("a String takes any text");
        text::encode_eof(&mut out).expect("a String takes any text");
        out
    }
}

fn cold_metrics(r: &mut Registry, cold: &ColdMetrics) {
    r.register("weir_archive_copied_records", "Records copied to the archive", cold.copied_records.clone());
    r.register("weir_archive_copied_bytes", "Bytes of batches copied to the archive", cold.copied_bytes.clone());
    r.register("weir_archive_copy_errors", "Copies, and removals, that failed", cold.copy_errors.clone());
    r.register("weir_archive_read_bytes", "Bytes of batches read from the archive", cold.read_bytes.clone());
    r.register("weir_archive_read_errors", "Reads of the archive that failed", cold.read_errors.clone());
    r.register(
        "weir_archive_delayed_reads",
        "Fetches answered without what the archive had not given yet",
        cold.delayed_reads.clone(),
    );
    r.register(
        "weir_archive_refused_appends",
        "Appends refused because too much waits to be archived",
        cold.refused_appends.clone(),
    );
    r.register(
        "weir_archive_dropped_records",
        "Records removed without being archived, since too much waited",
        cold.dropped_records.clone(),
    );
    r.register("weir_archive_lag_bytes", "Bytes of batches that are not archived yet", cold.lag_bytes.clone());
    r.register("weir_archive_lag_records", "Records that are not archived yet", cold.lag_records.clone());
    r.register("weir_archive_size_bytes", "Bytes at rest in the archive", cold.size_bytes.clone());
}

fn request_metrics(registry: &mut Registry, apis: &[ApiRow]) -> Vec<Option<Arc<RequestMetrics>>> {
    let counts = Family::<ApiVersionLabels, Counter>::default();
    let durations = Family::<ApiLabel, Latency>::default();
    let errors = Family::<ApiErrorLabels, Counter>::default();
    registry.register("weir_requests", "Requests answered, by API and version", counts.clone());
    registry.register(
        "weir_request_duration_seconds",
        "Time from a request's last byte to its answer; fetches and joins wait on purpose",
        durations.clone(),
    );
    registry.register("weir_request_errors", "Errors in answers, by API and Kafka's name", errors.clone());
    let mut by_key = Vec::new();
    for row in apis {
        let ApiRow { key, name: api, last_version } = row;
        let Ok(place) = usize::try_from(*key) else { continue };
        if by_key.len() <= place {
            by_key.resize_with(place + 1, || None);
        }
        let version_counter = |version: i16| {
            counts.get_or_create_owned(&ApiVersionLabels { api: api.clone(), version: i64::from(version) })
        };
        by_key[place] = Some(Arc::new(RequestMetrics {
            api: api.clone(),
            versions: (0..=*last_version).map(version_counter).collect(),
            duration: durations.get_or_create_owned(&ApiLabel { api: api.clone() }),
            errors: errors.clone(),
        }));
    }
    by_key
}

fn registry_of(figures: Figures, max_series: usize) -> Registry {
    let Figures { mut partitions, mut groups, hidden } = figures;
    let hidden = hidden + partitions.len().saturating_sub(max_series) + groups.len().saturating_sub(max_series);
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    partitions.truncate(max_series);
    groups.sort_by(|a, b| (&a.group, &a.topic, a.partition).cmp(&(&b.group, &b.topic, b.partition)));
    groups.truncate(max_series);

    let starts = Family::<PartitionLabels, Gauge>::default();
    let ends = Family::<PartitionLabels, Gauge>::default();
    let sizes = Family::<PartitionLabels, Gauge>::default();
    let local_starts = Family::<PartitionLabels, Gauge>::default();
    let archived_ends = Family::<PartitionLabels, Gauge>::default();
    let archive_sizes = Family::<PartitionLabels, Gauge>::default();
    for figures in partitions {
        let labels = PartitionLabels { topic: figures.topic, partition: i64::from(figures.partition) };
        starts.get_or_create(&labels).set(figures.log_start_offset);
        ends.get_or_create(&labels).set(figures.next_offset);
        sizes.get_or_create(&labels).set(i64::try_from(figures.size_bytes).unwrap_or(i64::MAX));
        if let Some(cold) = figures.cold {
            local_starts.get_or_create(&labels).set(cold.local_start_offset);
            archived_ends.get_or_create(&labels).set(cold.archived_end_offset);
            archive_sizes.get_or_create(&labels).set(i64::try_from(cold.size_bytes).unwrap_or(i64::MAX));
        }
    }
    let committed = Family::<GroupPartitionLabels, Gauge>::default();
    let lags = Family::<GroupPartitionLabels, Gauge>::default();
    for figures in groups {
        let labels = GroupPartitionLabels {
            group: figures.group,
            topic: figures.topic,
            partition: i64::from(figures.partition),
        };
        committed.get_or_create(&labels).set(figures.committed_offset);
        lags.get_or_create(&labels).set(figures.lag);
    }
    let mut registry = Registry::default();
    registry.register("weir_partition_log_start_offset", "The first offset that can be read", starts);
    registry.register("weir_partition_next_offset", "The offset of the next record", ends);
    registry.register("weir_partition_size_bytes", "Bytes of batches in the log", sizes);
    registry.register("weir_partition_local_start_offset", "The first offset that Redis has", local_starts);
    registry.register("weir_partition_archived_end_offset", "The offset after the last archived one", archived_ends);
    registry.register("weir_partition_archive_size_bytes", "Bytes at rest in the archive", archive_sizes);
    registry.register("weir_group_committed_offset", "What a group has committed", committed);
    registry.register("weir_group_lag_records", "Records between a group's committed offset and the end", lags);
    registry.register(
        "weir_metrics_hidden_series",
        "Partitions, and partitions of groups, beyond metrics.max.series: not shown one by one",
        ConstGauge::new(i64::try_from(hidden).unwrap_or(i64::MAX)),
    );
    registry
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn metrics(max_series: usize) -> Arc<Metrics> {
        Metrics::new(&[ApiRow { key: 3, name: "Metadata".to_owned(), last_version: 13 }], max_series)
    }

    #[test]
    fn requests_are_counted_by_api_and_version() {
        let metrics = metrics(10);
        let request = metrics.request(3).expect("in the table");
        request.served(12, Duration::from_millis(2));
        request.served(99, Duration::from_millis(2));
        request.error("UNKNOWN_TOPIC_OR_PARTITION");
        assert!(metrics.request(4).is_none() && metrics.request(-1).is_none());
        let shown = metrics.shown(Figures::default());
        for line in [
            "weir_requests_total{api=\"Metadata\",version=\"12\"} 1\n",
            "weir_request_duration_seconds_count{api=\"Metadata\"} 2\n",
            "weir_request_errors_total{api=\"Metadata\",error=\"UNKNOWN_TOPIC_OR_PARTITION\"} 1\n",
        ] {
            assert!(shown.contains(line), "{line} in {shown}");
        }
        assert!(shown.ends_with("# EOF\n"));
    }

    #[test]
    fn partitions_beyond_the_cap_are_counted_but_not_shown() {
        let partition = |partition| PartitionFigures {
            topic: "a".to_owned(),
            partition,
            log_start_offset: 1,
            next_offset: 7,
            size_bytes: 9,
            cold: None,
        };
        let figures = Figures { partitions: (0..5).rev().map(partition).collect(), ..Figures::default() };
        let shown = metrics(2).shown(figures);
        assert!(shown.contains("weir_partition_next_offset{topic=\"a\",partition=\"1\"} 7\n"), "{shown}");
        assert!(!shown.contains("partition=\"2\""), "{shown}");
        assert!(shown.contains("weir_metrics_hidden_series 3\n"), "{shown}");
    }
}
