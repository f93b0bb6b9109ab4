//! The domain on its storage: topics, logs and groups, and what keeps them in step with each other and with other brokers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    archive as cold,
    losses::{Losses, audit_offsets, make_again},
};
use crate::{
    clock::Clock,
    cluster::{self, Cluster},
    config::Config,
    coordinator::{self, Coordinator, TopicNames},
    groups,
    jobs::{
        archive::{Archiver, Led},
        retention,
    },
    log::{
        self, Log,
        archive::Archive,
        durability::{Dial, Promise},
        missing::Missing,
        pressure::Pressure,
        producer_ids::ProducerIds,
        store::{LogStore, StoreError},
    },
    model::{PartitionId, TopicId, TopicName},
    storage::redis::{
        catalog::RedisCatalogStore, client, durability::RedisDurability, groups::RedisGroupStore, log as redis_log,
        log::RedisLog, nodes::Nodes, producer_ids::RedisProducerIds, room,
    },
    tasks::Tasks,
    telemetry::Metrics,
    topics::{
        self, Catalog, CatalogEvent,
        configs::{self, Layers, Values},
        settings::{BrokerSettings, StaticSettings},
    },
};

/// After so long without a push the catalog's version is asked for: a push can be lost (ADR 2), and reading can fail.
const CATALOG_RECHECK: Duration = Duration::from_secs(5);

/// Everything that handlers ask.
pub(super) struct Domain {
    pub(super) cluster: Arc<Cluster>,
    pub(super) topics: Arc<Catalog>,
    pub(super) log: Arc<Log>,
    pub(super) groups: Arc<Coordinator>,
    pub(super) producer_ids: Arc<ProducerIds>,
}

impl Domain {
    /// Loads the catalog and starts what runs beside the requests.
    pub(super) async fn start(
        config: &Config,
        settings: &StaticSettings,
        nodes: &Nodes,
        durability: Arc<RedisDurability>,
        archive: Option<Arc<dyn Archive>>,
        metrics: &Metrics,
        tasks: &Tasks,
    ) -> Result<Self, StoreError> {
        let clock = Clock::system();
        let fixed = Layers { fixed: settings.broker.clone(), ..Layers::default() };
        // As __consumer_offsets, a topic like others, has them in Kafka.
        let group_replicas = configs::promise(&Values::new(), &Values::new(), &fixed).replicas;
        let logs = Arc::new(RedisLog::new(nodes.clone(), clock.clone(), storage_options(&BrokerSettings::new(&fixed))));
        let notes = logs.clone();
        #[cfg(feature = "planted-faults")]
        let logs = crate::faults::log(logs);
        let topics = catalog(config, settings, nodes, logs.clone(), durability.clone()).await?;
        let settings = topics.settings().load_full();
        let cluster = Arc::new(Cluster::new(cluster_options(config, &settings)));
        let dial = Dial { durability: durability.clone(), promised: promised(&topics) };
        let cold = archive.zip(config.archive.as_ref());
        let cold = cold.map(|(archive, wanted)| cold::tier(archive, notes, wanted, &metrics.cold));
        if cold.is_none() {
            cold::warn_of_archived_topics(&topics);
        }
        let pressure = Arc::new(Pressure::new(metrics.pressure.clone()));
        let missing = Arc::new(Missing::default());
        let log_options = log::Options {
            dial,
            cold: cold.clone(),
            pressure: pressure.clone(),
            missing: missing.clone(),
            ..log_options(&settings, metrics, cluster.clone())
        };
        topics.subscribe({
            let (expiration, settings) = (log_options.producer_id_expiration_ms.clone(), topics.settings().clone());
            move |event| {
                if let CatalogEvent::SettingsChanged = event {
                    expiration.store(settings.load().producer_id_expiration_ms, Ordering::Relaxed);
                }
            }
        });
        let log = Arc::new(Log::new(logs.clone(), clock.clone(), tasks.clone(), log_options));
        if let (Some(tier), Some(wanted)) = (cold, config.archive.as_ref().filter(|archive| archive.is_job_here)) {
            let led = Arc::new(Led(log.clone()));
            let job = Archiver::new(logs, tier, topics.clone(), led, clock.clone(), cold::job_options(wanted));
            tasks.spawn("archive", Arc::new(job).run(tasks.stopping().clone()));
        }
        let group_store = RedisGroupStore::new(nodes.clone()).on_replicas(durability.clone(), group_replicas);
        let group_store = Arc::new(group_store);
        #[cfg(feature = "planted-faults")]
        let group_store = crate::faults::groups(group_store);
        let groups = Coordinator::start(
            group_options(&settings, cluster.clone()),
            group_store,
            Arc::new(CatalogNames(topics.clone())),
            clock,
            tasks.clone(),
        );
        let producer_ids = Arc::new(ProducerIds::new(Arc::new(RedisProducerIds::new(nodes.clone()))));
        let room = room::Options {
            memory_mark: settings.weir_redis_memory_high_watermark,
            data_dir: durability.data_dir(),
            disk_reserve: settings.weir_redis_disk_reserve_bytes,
        };
        tasks.spawn("room in redis", room::watch(nodes.clone(), pressure, room, tasks.stopping().clone()));
        let domain = Self { cluster, topics, log, groups, producer_ids };
        domain.follow_leadership(tasks);
        domain.follow_deletions(tasks);
        domain.follow_redis(nodes, tasks);
        tasks.spawn(
            "missing partitions",
            make_again(missing, domain.log.clone(), domain.topics.clone(), tasks.stopping().clone()),
        );
        tasks.spawn("durability", durability.keep_looking(tasks.stopping().clone()));
        tasks.spawn("retention", retention::run(domain.log.clone(), domain.topics.clone(), tasks.stopping().clone()));
        let (topics, stopping) = (domain.topics.clone(), tasks.stopping().clone());
        tasks.spawn("unfinished topics", topics.keep_finishing(stopping));
        Ok(domain)
    }

    /// What this broker leads moves with the brokers that come and go.
    fn follow_leadership(&self, tasks: &Tasks) {
        let (log, mut changes) = (self.log.clone(), self.cluster.changes());
        let stopping = tasks.stopping().clone();
        tasks.spawn("leadership", async move {
            while let Some(Ok(())) = stopping.run_until_cancelled(changes.changed()).await {
                log.follow_leadership();
            }
        });
    }

    /// What is known of a topic goes with it.
    fn follow_deletions(&self, tasks: &Tasks) {
        // Unbounded, since the catalog must not wait: one id for each topic that is deleted.
        let (deleted, mut to_forget) = mpsc::unbounded_channel();
        let log = self.log.clone();
        self.topics.subscribe(move |event| match event {
            CatalogEvent::Lost(id) => log.lost(*id),
            CatalogEvent::Deleted { id, .. } => {
                log.forget(*id);
                let _ = deleted.send(*id);
            }
            _ => {}
        });
        let (groups, stopping) = (self.groups.clone(), tasks.stopping().clone());
        tasks.spawn("offsets of deleted topics", async move {
            while let Some(Some(id)) = stopping.run_until_cancelled(to_forget.recv()).await {
                groups.topic_deleted(id).await;
            }
        });
    }

    /// Takes over what other brokers and Redis clients change.
    fn follow_redis(&self, nodes: &Nodes, tasks: &Tasks) {
        let (nodes, topics, log) = (nodes.clone(), self.topics.clone(), self.log.clone());
        let cluster = self.cluster.clone();
        let stopping = tasks.stopping().clone();
        let audit = Arc::new(Notify::new());
        let mut losses = Losses::new(nodes.clone(), cluster.clone(), (log.clone(), self.groups.clone()), audit.clone());
        let audited = (log.clone(), self.groups.clone(), topics.clone());
        tasks.spawn("offsets beyond the end", audit_offsets(audit, audited, stopping.clone()));
        tasks.spawn("changes in redis", async move {
            let catalog_version = nodes.keyspace().catalog_version();
            let brokers = nodes.keyspace().brokers();
            loop {
                let next = tokio::time::timeout(CATALOG_RECHECK, nodes.changes().next());
                let Some(changed) = stopping.run_until_cancelled(next).await else { return };
                let recheck = changed.is_err();
                let changed = changed.unwrap_or_default();
                if changed.everything || changed.keys.contains(&brokers) {
                    cluster.look_again();
                }
                if changed.everything {
                    log.everything_changed();
                    losses.connected(nodes.life());
                } else if !changed.slots.is_empty() {
                    let slot_of = |partition: &PartitionId| nodes.slot_of_partition(partition);
                    log.changed_where(|partition| changed.slots.contains(slot_of(partition)));
                    losses.moved(&changed.slots);
                }
                if (recheck || changed.everything || changed.keys.contains(&catalog_version))
                    && let Err(error) = topics.refresh().await
                {
                    warn!(%error, "the catalog of topics could not be read again; it is tried again soon");
                }
                if let Err(error) = losses.look().await {
                    warn!(%error, "what Redis may have lost could not be looked for; it is tried again soon");
                }
                for key in &changed.keys {
                    if let Some((topic, index)) = nodes.keyspace().parse_stream(key) {
                        log.changed(topic, index);
                    }
                }
            }
        });
    }
}

/// The topics, as Redis has them.
pub(super) async fn catalog(
    config: &Config,
    settings: &StaticSettings,
    nodes: &Nodes,
    logs: Arc<dyn LogStore>,
    durability: Arc<RedisDurability>,
) -> Result<Arc<Catalog>, StoreError> {
    let catalog = Arc::new(RedisCatalogStore::new(nodes.clone()).kept_by(durability.clone()));
    let options = topics::Options { node: config.node, settings: settings.clone(), clock: Clock::system(), durability };
    Catalog::load(catalog, logs, options).await
}

/// Reads the catalog again when it changes, for who follows nothing else of Redis.
pub(super) async fn follow_catalog(topics: Arc<Catalog>, nodes: Nodes, stopping: CancellationToken) {
    loop {
        let next = tokio::time::timeout(CATALOG_RECHECK, nodes.changes().next());
        if stopping.run_until_cancelled(next).await.is_none() {
            return;
        }
        if let Err(error) = topics.refresh().await {
            warn!(%error, "the catalog of topics could not be read again; it is tried again soon");
        }
    }
}

pub(super) fn client_options(config: &Config, url: &str) -> client::Options {
    client::Options {
        url: url.to_owned(),
        keyspace: config.keyspace.clone(),
        readers: config.redis.connections,
        connect_timeout: config.redis.connect_timeout,
        response_timeout: config.redis.response_timeout,
    }
}

/// What each partition's topic promises; a topic that is gone promises nothing.
pub(super) fn promised(topics: &Arc<Catalog>) -> Arc<dyn Fn(&PartitionId) -> Promise + Send + Sync> {
    let topics = topics.clone();
    Arc::new(move |partition| {
        topics.get_by_id(partition.topic_id).map_or(Promise::MEMORY, |topic| topic.log_config.promise)
    })
}

struct CatalogNames(Arc<Catalog>);

impl TopicNames for CatalogNames {
    fn name_of(&self, topic: TopicId) -> Option<TopicName> {
        self.0.get_by_id(topic).map(|topic| topic.name.clone())
    }
}

pub(super) fn storage_options(settings: &BrokerSettings) -> redis_log::Options {
    redis_log::Options {
        record_layout_max_records: settings.weir_record_max_records_per_batch,
        record_layout_max_bytes: settings.weir_record_max_bytes_per_batch,
        state_max_fields: settings.weir_producers_per_partition,
        ..redis_log::Options::default()
    }
}

fn cluster_options(config: &Config, settings: &BrokerSettings) -> cluster::Options {
    cluster::Options {
        node: config.node,
        session_timeout: Duration::from_millis(settings.broker_session_timeout_ms),
        heartbeat_interval: Duration::from_millis(settings.broker_heartbeat_interval_ms),
    }
}

fn log_options(settings: &BrokerSettings, metrics: &Metrics, cluster: Arc<Cluster>) -> log::Options {
    log::Options {
        tail_cache_bytes: settings.weir_tail_cache_bytes,
        fetch_bytes: settings.weir_fetch_response_bytes,
        append_bytes: settings.weir_append_bytes,
        producer_id_expiration_ms: Arc::new(AtomicI64::new(settings.producer_id_expiration_ms)),
        sessions: log::session::Options {
            slots: settings.max_incremental_fetch_session_cache_slots,
            ..log::session::Options::default()
        },
        metrics: metrics.log.clone(),
        cluster,
        ..log::Options::default()
    }
}

fn group_options(settings: &BrokerSettings, cluster: Arc<Cluster>) -> coordinator::Options {
    let minutes = i64::try_from(settings.offsets_retention_minutes).unwrap_or(i64::MAX);
    coordinator::Options {
        settings: groups::Settings {
            min_session_timeout_ms: settings.group_min_session_timeout_ms,
            max_session_timeout_ms: settings.group_max_session_timeout_ms,
            initial_rebalance_delay_ms: settings.group_initial_rebalance_delay_ms,
            max_size: settings.group_max_size,
            offset_metadata_max_bytes: settings.offset_metadata_max_bytes,
            offsets_retention_ms: minutes.saturating_mul(60_000),
        },
        retention_check_interval: Duration::from_millis(settings.offsets_retention_check_interval_ms),
        cluster,
        ..coordinator::Options::default()
    }
}
