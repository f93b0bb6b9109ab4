//! The cold tier: which archive this broker has, and who copies into it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{BrokerError, domain, probe::JobState};
use crate::{
    clock::Clock,
    config::{self, Config, RedisServer, masked},
    jobs::archive::{self, Archiver, Unled},
    log::{
        archive::{Archive, ColdNotes},
        durability::Dial,
        store::LogStore,
        tiered::{self, ColdTier},
    },
    storage::redis::{durability::RedisDurability, log::RedisLog, nodes::Nodes, server},
    tasks::Tasks,
    telemetry::{Metrics, http::Probe, metrics::ColdMetrics},
    topics::{Catalog, configs::Layers, settings::BrokerSettings},
};

/// The archive of the settings; none where none is set.
///
/// # Errors
/// [`BrokerError::Archive`] where this build has none to offer.
pub(super) fn open(config: &Config, tasks: &Tasks) -> Result<Option<Arc<dyn Archive>>, BrokerError> {
    config.archive.as_ref().map(|archive| implementation(archive, tasks)).transpose()
}

#[cfg(feature = "archive")]
fn implementation(archive: &config::Archive, tasks: &Tasks) -> Result<Arc<dyn Archive>, BrokerError> {
    use crate::storage::delta::{DeltaArchive, DeltaOptions};
    let options = DeltaOptions {
        endpoint: archive.endpoint.clone(),
        region: archive.region.clone(),
        path_style: archive.path_style,
        zstd_level: archive.zstd_level,
        cache_bytes: archive.cache_bytes,
        file_bytes: archive.file_bytes,
        join_files: archive.join_files,
        checkpoint_interval: archive.checkpoint_interval,
        keep_removed: archive.keep_removed,
        keep_versions: archive.keep_versions,
        ..DeltaOptions::at(&archive.url)
    };
    let opened = DeltaArchive::open(options, tasks.clone());
    let opened =
        opened.map_err(|error| BrokerError::Archive { url: archive.url.clone(), reason: error.to_string() })?;
    Ok(Arc::new(opened))
}

#[cfg(not(feature = "archive"))]
fn implementation(archive: &config::Archive, _: &Tasks) -> Result<Arc<dyn Archive>, BrokerError> {
    Err(BrokerError::Archive {
        url: archive.url.clone(),
        reason: "this build has no archive: take one with the feature `archive` (cargo build --features archive), or remove \
                 archive.url"
            .to_owned(),
    })
}

pub(super) fn tier(
    archive: Arc<dyn Archive>,
    notes: Arc<dyn ColdNotes>,
    settings: &config::Archive,
    metrics: &ColdMetrics,
) -> ColdTier {
    let options = tiered::Options {
        hot_limit_bytes: settings.hot_limit_bytes,
        drops_when_full: settings.drops_when_full,
        metrics: metrics.clone(),
        ..tiered::Options::default()
    };
    #[cfg(feature = "planted-faults")]
    let (archive, notes) = (crate::faults::archive(archive), crate::faults::notes(notes));
    ColdTier::new(archive, notes, options)
}

pub(super) fn job_options(settings: &config::Archive) -> archive::Options {
    archive::Options {
        file_bytes: settings.file_bytes,
        lag: settings.lag,
        interval: settings.interval,
        rate_bytes: settings.rate_bytes,
        tidy_interval: settings.upkeep_interval,
        ..archive::Options::default()
    }
}

/// Says so where topics are archived and this broker can't read them.
pub(super) fn warn_of_archived_topics(topics: &Catalog) {
    let archived = topics.snapshot().topics().filter(|topic| topic.log_config.tier.is_some()).count();
    if archived > 0 {
        warn!(
            archived,
            "topics are archived, and this broker has no archive: what is only there can't be read; set archive.url"
        );
    }
}

/// Runs the archival job for all partitions, without serving clients (`weir archive`), until `stop`. Brokers have
/// `archive.job=off` beside it.
pub async fn run_job(config: Config, stop: CancellationToken) -> Result<(), BrokerError> {
    let (Some(settings), RedisServer::Url(url)) = (&config.archive, &config.redis.server) else {
        return Err(BrokerError::Job);
    };
    let server = server::check(url, false, &config.keyspace, config.redis.connect_timeout)
        .await
        .map_err(|reason| BrokerError::Server { url: masked(url), reason })?;
    let tasks = Tasks::new();
    let archive = implementation(settings, &tasks)?;
    let metrics = Metrics::new(&[], 0);
    let nodes = Nodes::connect(domain::client_options(&config, url), server.is_cluster, metrics.redis.clone())
        .await
        .map_err(|error| BrokerError::Redis { url: masked(url), reason: error.to_string() })?;
    tasks.spawn("redis connections", nodes.clone().supervise(tasks.stopping().clone()));
    server::claim_layout(&nodes).await?;
    let durability = RedisDurability::start(nodes.clone(), None, tasks.clone()).await?;
    tasks.spawn("durability", durability.clone().keep_looking(tasks.stopping().clone()));
    let broker_settings = super::durability::with_default_level(config.settings.clone(), &server.standings);
    let fixed = Layers { fixed: broker_settings.broker.clone(), ..Layers::default() };
    let options = domain::storage_options(&BrokerSettings::new(&fixed));
    let logs = Arc::new(RedisLog::new(nodes.clone(), Clock::system(), options));
    let probe: Arc<dyn Probe> = Arc::new(JobState { nodes: nodes.clone(), tasks: tasks.clone() });
    super::serve_http(&config, &metrics, &probe, &tasks)?;
    let topics = domain::catalog(&config, &broker_settings, &nodes, logs.clone(), durability.clone()).await?;
    let dial = Dial { durability, promised: domain::promised(&topics) };
    let store: Arc<dyn LogStore> = logs.clone();
    #[cfg(feature = "planted-faults")]
    let store = crate::faults::log(store);
    let partitions = Arc::new(Unled { store: store.clone(), dial });
    let tier = tier(archive, logs, settings, &metrics.cold);
    let job = Archiver::new(store, tier, topics.clone(), partitions, Clock::system(), job_options(settings));
    tasks.spawn("archive", Arc::new(job).run(tasks.stopping().clone()));
    tasks.spawn("catalog", domain::follow_catalog(topics, nodes, tasks.stopping().clone()));
    println!("Weir {} archives what is in Redis at {} to {}", env!("CARGO_PKG_VERSION"), masked(url), settings.url);
    info!(archive = settings.url, "the archival job runs");
    stop.cancelled().await;
    tasks.stop(super::DRAIN_PATIENCE).await;
    Ok(())
}

#[cfg(test)]
mod tests;
