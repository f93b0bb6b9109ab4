//! The catalog: what topics there are. Kept by a [`CatalogStore`], held in memory as a [`Snapshot`].
//!
//! A change is made in the store first, in one atomic step, and then in memory; other brokers learn of it by
//! [`Catalog::refresh`]. Partitions are made after their topic and removed after it: the store remembers that as
//! unfinished work, which any broker may do again.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use futures::{StreamExt, future::try_join_all, stream};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    configs::{self, Layers, Values},
    names,
    settings::{BrokerSettings, StaticSettings},
    snapshot::{Fixed, Snapshot, Topic},
    store::{CatalogStore, Change, Changed, Newer, Resource, StoredTopic, Unfinished, Work},
};
use crate::{
    clock::Clock,
    log::{
        durability::{Durability, Promise, Unkept},
        store::{LogStore, StoreError},
    },
    model::{NodeId, PartitionId, TopicId, TopicName},
};

/// Changes of one call to the store; more are split.
const CHANGES_PER_CALL: usize = 500;

/// Partitions that are made or removed at a time.
const PARTITIONS_AT_A_TIME: usize = 32;

/// How often a change is tried again that somebody else was faster with.
const ATTEMPTS: usize = 5;

/// The configs that decide what is promised.
const PROMISING: [&str; 2] = ["weir.durability", "min.insync.replicas"];

/// What has changed in the catalog, told in the order in which it became visible.
#[derive(Clone, Debug)]
pub enum CatalogEvent {
    Created(Arc<Topic>),
    /// The store has gone back and does not know the topic any more. Followed by its deletion.
    Lost(TopicId),
    /// The topic of this id is gone; one of the same name may be there again.
    Deleted {
        name: TopicName,
        id: TopicId,
    },
    /// It has more partitions than before.
    Grown(Arc<Topic>),
    /// Its configs in force may be others.
    ConfigsChanged(Arc<Topic>),
    /// The broker's settings are others.
    SettingsChanged,
}

type Listener = Box<dyn Fn(&CatalogEvent) + Send + Sync>;

/// Why a topic is not created.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CreateError {
    #[error("{0}")]
    InvalidName(String),
    #[error("Topic '{0}' already exists.")]
    Exists(String),
    #[error("Number of partitions was set to an invalid non-positive value.")]
    InvalidPartitions,
    #[error("Replication factor must be larger than 0, or -1 to use the default value.")]
    InvalidReplicationFactor,
    #[error("{0}")]
    InvalidConfig(String),
    #[error("Excessively large number of partitions per request.")]
    TooManyPartitions,
    #[error("Unable to perform excessively large batch operation.")]
    TooManyChanges,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a topic is not deleted, or has not got more partitions.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChangeError {
    #[error("there is no such topic")]
    Missing,
    /// Others changed it again and again meanwhile.
    #[error("the topic is being changed by others")]
    Contended,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why configs are not changed: the edit's own reason, or the change failed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AlterError<E> {
    #[error("{0}")]
    Refused(E),
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// A topic to be.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    pub name: String,
    /// `None` is `num.partitions`.
    pub partitions: Option<i32>,
    /// `None` is `default.replication.factor`.
    pub replication_factor: Option<i16>,
    pub configs: Values,
}

/// What the catalog is built from.
pub struct Options {
    pub node: NodeId,
    pub settings: StaticSettings,
    pub clock: Clock,
    /// What topics may promise.
    pub durability: Arc<dyn Durability>,
}

pub struct Catalog {
    store: Arc<dyn CatalogStore>,
    logs: Arc<dyn LogStore>,
    clock: Clock,
    durability: Arc<dyn Durability>,
    snapshot: ArcSwap<Snapshot>,
    settings: Arc<ArcSwap<BrokerSettings>>,
    /// Held while a new snapshot becomes visible and its events are told.
    listeners: Mutex<Vec<Listener>>,
    /// Told when partitions could not be made or freed.
    undone: Notify,
    /// Held by who looks for what is not known here; when the last look began.
    looking: tokio::sync::Mutex<Option<Instant>>,
    /// Looks that have begun.
    looks: AtomicU64,
}

impl Catalog {
    /// Loads everything. Run [`Catalog::keep_finishing`] soon after, and [`Catalog::refresh`] whenever the store says that its
    /// version is another.
    pub async fn load(
        store: Arc<dyn CatalogStore>,
        logs: Arc<dyn LogStore>,
        options: Options,
    ) -> Result<Arc<Self>, StoreError> {
        let fixed = Arc::new(Fixed { node: options.node, settings: options.settings });
        let snapshot = Snapshot::empty(fixed).replaced(store.load().await?);
        Ok(Arc::new(Self {
            store,
            logs,
            clock: options.clock,
            durability: options.durability,
            settings: Arc::new(ArcSwap::new(snapshot.settings().clone())),
            snapshot: ArcSwap::from_pointee(snapshot),
            listeners: Mutex::new(Vec::new()),
            undone: Notify::new(),
            looking: tokio::sync::Mutex::default(),
            looks: AtomicU64::new(0),
        }))
    }

    /// What is known now. Don't hold it across an await: load it again.
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.snapshot.load().get(name).cloned()
    }

    pub fn get_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.snapshot.load().get_by_id(id).cloned()
    }

    /// The broker's settings in force; the cell changes with them.
    pub fn settings(&self) -> &Arc<ArcSwap<BrokerSettings>> {
        &self.settings
    }

    /// Tells `listener` of every change from now on. It is called while the catalog is locked: it must return soon and must
    /// not change the catalog.
    pub fn subscribe(&self, listener: impl Fn(&CatalogEvent) + Send + Sync + 'static) {
        self.listeners.lock().push(Box::new(listener));
    }

    /// Takes over what other brokers changed.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let known = self.snapshot.load().version;
        let Some(newer) = self.store.newer(known).await? else { return Ok(()) };
        let version = match &newer {
            Newer::Changes(changes) => changes.version,
            Newer::Whole(stored) => stored.version,
        };
        let listeners = self.listeners.lock();
        let before = self.snapshot.load_full();
        // A store that lost its latest writes has an older version; only an answer that this broker has overtaken
        // itself is not taken. Changes since `known` name all that was changed since a later version too.
        if before.version == known || version.number > before.version.number {
            match newer {
                Newer::Changes(changes) => {
                    let touched = changes.topics.iter().map(|(name, _)| name.clone()).collect();
                    self.show(&listeners, &before, before.changed(changes), Some(touched));
                }
                Newer::Whole(stored) => {
                    let next = before.replaced(stored);
                    if next.version.number < before.version.number {
                        Self::tell_lost(&listeners, &before, &next);
                    }
                    self.show(&listeners, &before, next, None);
                }
            }
        }
        Ok(())
    }

    /// Looks whether the store has something newer, for who was asked for what is not known here: another broker may have made
    /// it a moment ago. Those who ask at the same time share a look. Ends in bounded time, whether it could look or not.
    ///
    /// Answers whether there was something newer.
    pub async fn catch_up(&self) -> bool {
        /// What is not found out by then is answered as it is known.
        const PATIENCE: Duration = Duration::from_secs(1);
        /// A flood of names that nobody has costs the store no more than one look in this time.
        const LEAST_BETWEEN_LOOKS: Duration = Duration::from_millis(10);
        let before = self.snapshot.load().version;
        let begun = self.looks.load(Ordering::Acquire);
        let look = async {
            let mut last = self.looking.lock().await;
            if self.looks.load(Ordering::Acquire) != begun {
                // One that began after this was asked has ended.
                return;
            }
            if let Some(last) = *last {
                tokio::time::sleep_until(last + LEAST_BETWEEN_LOOKS).await;
            }
            *last = Some(Instant::now());
            self.looks.fetch_add(1, Ordering::Release);
            if let Err(error) = self.refresh().await {
                debug!(%error, "whether another broker has made a topic could not be looked up");
            }
        };
        let _ = tokio::time::timeout(PATIENCE, look).await;
        self.snapshot.load().version != before
    }

    /// The store came back with an older catalog than it had.
    fn tell_lost(listeners: &[Listener], before: &Snapshot, next: &Snapshot) {
        let (known, stored) = (before.version.number, next.version.number);
        let lost: Vec<_> = before.topics().filter(|topic| next.get_by_id(topic.id).is_none()).collect();
        let names: Vec<&str> = lost.iter().map(|topic| topic.name.as_str()).collect();
        error!(known, stored, lost_topics = ?names, "Redis came back with an older catalog: the latest changes to topics are lost");
        for topic in lost {
            listeners.iter().for_each(|listener| listener(&CatalogEvent::Lost(topic.id)));
        }
    }

    /// Makes a snapshot visible and tells the listeners how it differs: only in the topics `touched`, if they are known.
    fn show(&self, listeners: &[Listener], before: &Snapshot, next: Snapshot, touched: Option<BTreeSet<TopicName>>) {
        let names = |snapshot: &Snapshot| snapshot.topics().map(|topic| topic.name.clone()).collect::<Vec<_>>();
        let touched = touched
            .filter(|_| !next.has_other_defaults(before))
            .unwrap_or_else(|| names(before).into_iter().chain(names(&next)).collect());
        let next = Arc::new(next);
        let settings_changed = next.settings() != before.settings();
        if settings_changed {
            self.settings.store(next.settings().clone());
        }
        self.snapshot.store(next.clone());
        let tell = |event: CatalogEvent| listeners.iter().for_each(|listener| listener(&event));
        if settings_changed {
            tell(CatalogEvent::SettingsChanged);
        }
        for old in touched.iter().filter_map(|name| before.get(name.as_str())) {
            if next.get_by_id(old.id).is_none() {
                tell(CatalogEvent::Deleted { name: old.name.clone(), id: old.id });
            }
        }
        for topic in touched.iter().filter_map(|name| next.get(name.as_str())) {
            match before.get_by_id(topic.id) {
                Some(old) if Arc::ptr_eq(old, topic) => {}
                Some(old) => {
                    if topic.partitions != old.partitions {
                        tell(CatalogEvent::Grown(topic.clone()));
                    }
                    if topic.configs != old.configs || topic.log_config != old.log_config {
                        tell(CatalogEvent::ConfigsChanged(topic.clone()));
                    }
                }
                None => tell(CatalogEvent::Created(topic.clone())),
            }
        }
    }

    /// Makes changes in the store and then here. One result for each, in order.
    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Changed>, StoreError> {
        let mut results = Vec::with_capacity(changes.len());
        for changes in changes.chunks(CHANGES_PER_CALL) {
            let promise = self.promised(changes);
            let applied = self.store.apply(changes, promise).await?;
            let in_step = {
                let listeners = self.listeners.lock();
                let before = self.snapshot.load_full();
                if before.version == applied.version_before {
                    let mut next = Snapshot::clone(&before);
                    next.version = applied.version;
                    let mut touched = BTreeSet::new();
                    for (change, _) in changes.iter().zip(&applied.changes).filter(|(_, done)| **done == Changed::Done)
                    {
                        touched.extend(change.topic().cloned());
                        match change.clone() {
                            Change::Create(topic) => next.put(topic, &before),
                            Change::Delete { name, id } => next.remove(&name, id),
                            Change::Replace { new, .. } => next.put(new, &before),
                            Change::Configure { resource, new, .. } => next.configure(resource, new),
                        }
                    }
                    self.show(&listeners, &before, next, Some(touched));
                    true
                } else {
                    before.version.number >= applied.version.number
                }
            };
            if !in_step {
                self.refresh().await?;
            }
            results.extend(applied.changes);
        }
        Ok(results)
    }

    /// What must hold before changes are answered: what the broker promises for all that sets nothing, and the topics concerned
    /// for their records, which are worth nothing without the topic. As it is after the changes.
    fn promised(&self, changes: &[Change]) -> Promise {
        let before = self.snapshot.load_full();
        let mut after = Snapshot::clone(&before);
        for change in changes {
            match change.clone() {
                Change::Create(topic) | Change::Replace { new: topic, .. } => after.put(topic, &before),
                Change::Configure { resource, new, .. } => after.configure(resource, new),
                Change::Delete { .. } => {}
            }
        }
        let default = configs::promise(&Values::new(), &Values::new(), after.layers());
        let topics = changes.iter().filter_map(|change| after.get(change.topic()?.as_str()));
        topics.fold(default, |promise, topic| promise.and(topic.log_config.promise))
    }

    /// Whether a topic of this name may be created.
    ///
    /// # Errors
    /// [`CreateError::InvalidName`] and [`CreateError::Exists`].
    pub fn check_name(&self, name: &str) -> Result<(), CreateError> {
        let snapshot = self.snapshot.load();
        names::validate(name).map_err(|error| CreateError::InvalidName(error.to_string()))?;
        if names::is_reserved(name) || snapshot.get(name).is_some() {
            return Err(CreateError::Exists(name.to_owned()));
        }
        match snapshot.collision(name) {
            Some(other) => {
                Err(CreateError::InvalidName(format!("Topic '{name}' collides with existing topic: {other}")))
            }
            None => Ok(()),
        }
    }

    /// Whether a topic of this name may be created with these configs, or may have them from now on.
    ///
    /// # Errors
    /// [`CreateError::InvalidConfig`].
    pub fn check_configs(&self, name: &str, configs: &Values) -> Result<(), CreateError> {
        let snapshot = self.snapshot.load();
        let before = snapshot.get(name).map(|topic| &topic.configs);
        configs::validate_topic(before, configs, &snapshot.pattern_configs(name), snapshot.layers())
            .map_err(|error| CreateError::InvalidConfig(error.0))?;
        if !PROMISING.iter().any(|name| configs.contains_key(*name)) {
            return Ok(());
        }
        let promise = configs::promise(configs, &snapshot.pattern_configs(name), snapshot.layers());
        if snapshot.get(name).is_some_and(|topic| topic.log_config.promise == promise) {
            return Ok(());
        }
        self.check_promise(promise).map_err(CreateError::InvalidConfig)
    }

    /// Whether the broker's configs may promise what they would.
    ///
    /// # Errors
    /// The remedy.
    pub fn check_default_promise(&self, layers: &Layers) -> Result<(), String> {
        let promise = |layers| configs::promise(&Values::new(), &Values::new(), layers);
        let wanted = promise(layers);
        if wanted == promise(self.snapshot.load().layers()) { Ok(()) } else { self.check_promise(wanted) }
    }

    fn check_promise(&self, promise: Promise) -> Result<(), String> {
        self.durability.check(promise, None).map_err(|unkept| {
            let remedy = match unkept {
                Unkept::TooFewReplicas { .. } => ": connect more replicas to Redis, or promise fewer",
                Unkept::Impossible(_) | Unkept::NotYet(_) | Unkept::OtherLife => "",
            };
            format!("weir.durability can't be kept: {unkept}{remedy}")
        })
    }

    /// What a new topic would be, without creating it.
    ///
    /// # Errors
    /// All of [`CreateError`] but those of whole requests and `Store`; the first in Kafka's order.
    pub fn plan(&self, new: &NewTopic) -> Result<Topic, CreateError> {
        self.check_name(&new.name)?;
        self.check_configs(&new.name, &new.configs)?;
        let snapshot = self.snapshot.load();
        let settings = snapshot.settings();
        let partitions = new.partitions.unwrap_or(settings.num_partitions);
        let replication_factor = new.replication_factor.unwrap_or(settings.default_replication_factor);
        if replication_factor < 1 {
            return Err(CreateError::InvalidReplicationFactor);
        }
        if partitions < 1 {
            return Err(CreateError::InvalidPartitions);
        }
        Ok(snapshot.built(StoredTopic {
            name: TopicName::new(&new.name),
            id: TopicId::random(),
            partitions,
            replication_factor,
            created_ms: self.clock.now_ms(),
            configs: new.configs.clone(),
            revision: 0,
        }))
    }

    /// Creates what was planned. One result for each, in order.
    pub async fn create(&self, planned: Vec<Topic>) -> Vec<Result<Arc<Topic>, CreateError>> {
        let changes = planned.iter().map(|topic| Change::Create(topic.stored())).collect();
        let results = match self.apply(changes).await {
            Ok(results) => results,
            Err(error) => return planned.iter().map(|_| Err(CreateError::Store(error.clone()))).collect(),
        };
        // Earlier topics of the same names may have left partitions behind.
        let unfinished = match self.store.unfinished().await {
            Ok(unfinished) => unfinished,
            Err(error) => return planned.iter().map(|_| Err(CreateError::Store(error.clone()))).collect(),
        };
        let mut before: HashMap<TopicName, Vec<Unfinished>> = HashMap::new();
        for deleted in unfinished.into_iter().filter(|unfinished| unfinished.work == Work::Delete) {
            before.entry(deleted.name.clone()).or_default().push(deleted);
        }
        let claimed = planned.into_iter().zip(results);
        stream::iter(claimed)
            .map(|(topic, result)| {
                let before = before.get(&topic.name).cloned().unwrap_or_default();
                (topic, result, before)
            })
            .map(|(topic, result, before)| async move {
                match result {
                    Changed::Done => {
                        info!(topic = %topic.name, id = %topic.id, partitions = topic.partitions, "a topic is created");
                        for deleted in before {
                            self.remove(&topic.name, deleted.id, deleted.partitions).await?;
                        }
                        self.make(&topic.name, topic.id, topic.partitions).await?;
                        // Deleted again already: it was there, and that is what was asked for.
                        Ok(self.get_by_id(topic.id).unwrap_or_else(|| Arc::new(topic)))
                    }
                    Changed::Exists | Changed::Missing | Changed::Stale => {
                        Err(CreateError::Exists(topic.name.to_string()))
                    }
                }
            })
            .buffered(PARTITIONS_AT_A_TIME)
            .collect()
            .await
    }

    /// Creates a topic that somebody mentioned, with the broker's defaults. A topic that is there already is given back.
    pub async fn auto_create(&self, name: &str) -> Result<Arc<Topic>, CreateError> {
        if let Some(topic) = self.get(name) {
            return Ok(topic);
        }
        let planned = self.plan(&NewTopic { name: name.to_owned(), ..NewTopic::default() })?;
        match self.create(vec![planned]).await.pop() {
            Some(Ok(topic)) => Ok(topic),
            Some(Err(CreateError::Exists(_))) => {
                // Another broker, or another connection, was faster.
                self.refresh().await?;
                self.get(name).ok_or_else(|| CreateError::Exists(name.to_owned()))
            }
            Some(Err(error)) => Err(error),
            None => Err(CreateError::Exists(name.to_owned())),
        }
    }

    /// Takes a topic away at once and frees its partitions.
    pub async fn delete(&self, id: TopicId) -> Result<(), ChangeError> {
        let topic = self.get_by_id(id).ok_or(ChangeError::Missing)?;
        let results = self.apply(vec![Change::Delete { name: topic.name.clone(), id }]).await?;
        if results.first() != Some(&Changed::Done) {
            self.refresh().await?;
            return Err(ChangeError::Missing);
        }
        info!(topic = %topic.name, %id, "a topic is deleted");
        if let Err(error) = self.remove(&topic.name, id, topic.partitions).await {
            warn!(topic = %topic.name, %id, %error, "a deleted topic's partitions are freed later");
        }
        Ok(())
    }

    /// Gives a topic more partitions, `partitions` in all.
    pub async fn grow(&self, id: TopicId, partitions: i32) -> Result<Arc<Topic>, ChangeError> {
        for _ in 0..ATTEMPTS {
            let topic = self.get_by_id(id).ok_or(ChangeError::Missing)?;
            if topic.partitions < partitions {
                let old = topic.stored();
                let new = StoredTopic { partitions, revision: old.revision + 1, ..old.clone() };
                match self.apply(vec![Change::Replace { old, new }]).await?.first() {
                    Some(Changed::Done) => {}
                    _ => {
                        self.refresh().await?;
                        continue;
                    }
                }
                info!(topic = %topic.name, %id, partitions, "a topic has more partitions");
            }
            self.make(&topic.name, id, partitions.max(topic.partitions)).await?;
            return self.get_by_id(id).ok_or(ChangeError::Missing);
        }
        Err(ChangeError::Contended)
    }

    /// Changes what is set for a topic; `edit` is told what is set now, and may be called again.
    pub async fn alter_topic_configs<E>(
        &self,
        id: TopicId,
        edit: impl Fn(&Values) -> Result<Values, E>,
    ) -> Result<(), AlterError<E>> {
        for _ in 0..ATTEMPTS {
            let topic = self.get_by_id(id).ok_or(ChangeError::Missing)?;
            let configs = edit(&topic.configs).map_err(AlterError::Refused)?;
            if configs == topic.configs {
                return Ok(());
            }
            let old = topic.stored();
            let new = StoredTopic { configs, revision: old.revision + 1, ..old.clone() };
            let results = self.apply(vec![Change::Replace { old, new }]).await.map_err(ChangeError::Store)?;
            if results.first() == Some(&Changed::Done) {
                info!(topic = %topic.name, "a topic's configs are changed");
                return Ok(());
            }
            self.refresh().await.map_err(ChangeError::Store)?;
        }
        Err(ChangeError::Contended.into())
    }

    /// Changes what is set for a resource; `edit` is told what is set now, and may be called again.
    pub async fn alter_configs<E>(
        &self,
        resource: &Resource,
        edit: impl Fn(&Values) -> Result<Values, E>,
    ) -> Result<(), AlterError<E>> {
        for _ in 0..ATTEMPTS {
            let old = self.snapshot.load().configs(resource).cloned().unwrap_or_default();
            let new = edit(&old).map_err(AlterError::Refused)?;
            if new == old {
                return Ok(());
            }
            let change = Change::Configure { resource: resource.clone(), old, new };
            let results = self.apply(vec![change]).await.map_err(ChangeError::Store)?;
            if results.first() == Some(&Changed::Done) {
                info!(?resource, "configs are changed");
                return Ok(());
            }
            self.refresh().await.map_err(ChangeError::Store)?;
        }
        Err(ChangeError::Contended.into())
    }

    /// Does what a broker that died, or this one while its storage failed, left undone; until `stopping`.
    pub async fn keep_finishing(self: Arc<Self>, stopping: CancellationToken) {
        const FIRST_PAUSE: Duration = Duration::from_millis(200);
        const LONGEST_PAUSE: Duration = Duration::from_secs(30);
        /// How soon the work of another broker that died is taken over.
        const LOOK_AGAIN: Duration = Duration::from_secs(10);
        let mut pause = FIRST_PAUSE;
        let work = async {
            loop {
                match self.finish().await {
                    Ok(()) => {
                        pause = FIRST_PAUSE;
                        let _ = tokio::time::timeout(LOOK_AGAIN, self.undone.notified()).await;
                    }
                    Err(error) => {
                        if pause == FIRST_PAUSE {
                            warn!(%error, "partitions of new or deleted topics can't be made or freed yet; retrying");
                        }
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        };
        stopping.run_until_cancelled_owned(work).await;
    }

    async fn finish(&self) -> Result<(), StoreError> {
        let mut unfinished = self.store.unfinished().await?;
        // What is to go goes first: a name may have been taken again.
        unfinished.sort_by_key(|unfinished| unfinished.work == Work::Create);
        // One that can't be finished, since its shard is gone, holds up no other.
        let mut done = Ok(());
        for unfinished in &unfinished {
            done = done.and(self.finish_one(unfinished).await);
        }
        done
    }

    async fn finish_one(&self, unfinished: &Unfinished) -> Result<(), StoreError> {
        let Unfinished { name, id, partitions, work } = unfinished;
        match work {
            Work::Create => self.make(name, *id, *partitions).await,
            Work::Delete => self.remove(name, *id, *partitions).await,
        }
    }

    /// Makes the partitions of a topic whose name is claimed.
    async fn make(&self, name: &TopicName, id: TopicId, partitions: i32) -> Result<(), StoreError> {
        self.try_make(name, id, partitions, false).await.inspect_err(|_| self.undone.notify_one())
    }

    /// Makes the partitions of a topic again that the storage came back without. Those that are there stay as they are.
    pub async fn make_again(&self, id: TopicId) -> Result<(), StoreError> {
        // One that is deleted has no partitions to be made.
        self.refresh().await?;
        match self.get_by_id(id) {
            Some(topic) => self.try_make(&topic.name, id, topic.partitions, true).await,
            None => Ok(()),
        }
    }

    async fn try_make(
        &self,
        name: &TopicName,
        id: TopicId,
        partitions: i32,
        were_there: bool,
    ) -> Result<(), StoreError> {
        let (logs, durability) = (&self.logs, &self.durability);
        let made: Vec<_> = stream::iter(partition_ids(name, id, partitions))
            .map(|partition| async move {
                let life = durability.life(&partition);
                let made = if were_there { logs.create_again(&partition) } else { logs.create(&partition) };
                made.await.map(|()| (partition, life))
            })
            .buffer_unordered(PARTITIONS_AT_A_TIME)
            .collect()
            .await;
        // One that can't be made, since its shard is gone, holds up no other.
        let made = made.into_iter().collect::<Result<Vec<_>, _>>()?;
        let promise = self.get_by_id(id).map_or(Promise::MEMORY, |topic| topic.log_config.promise);
        try_join_all(made.iter().filter(|(partition, _)| !durability.holds_at_once(promise, partition)).map(
            |(partition, life)| async move {
                let held = durability.barrier(promise, partition, life).await;
                held.map_err(|unkept| StoreError::OutcomeUnknown(unkept.to_string()))
            },
        ))
        .await?;
        if !self.store.finish(&Unfinished { name: name.clone(), id, partitions, work: Work::Create }).await? {
            // Deleted while it was made.
            self.remove(name, id, partitions).await?;
        }
        Ok(())
    }

    /// Frees the partitions of a topic that is gone.
    async fn remove(&self, name: &TopicName, id: TopicId, partitions: i32) -> Result<(), StoreError> {
        self.try_remove(name, id, partitions).await.inspect_err(|_| self.undone.notify_one())
    }

    async fn try_remove(&self, name: &TopicName, id: TopicId, partitions: i32) -> Result<(), StoreError> {
        let logs = &self.logs;
        stream::iter(partition_ids(name, id, partitions))
            .map(|partition| async move { logs.delete(&partition).await })
            .buffer_unordered(PARTITIONS_AT_A_TIME)
            .fold(Ok(()), async |all, one| all.and(one))
            .await?;
        self.store.finish(&Unfinished { name: name.clone(), id, partitions, work: Work::Delete }).await?;
        Ok(())
    }
}

fn partition_ids(name: &TopicName, id: TopicId, partitions: i32) -> impl Iterator<Item = PartitionId> + use<> {
    let name = name.clone();
    (0..partitions).map(move |index| PartitionId { topic: name.clone(), topic_id: id, index })
}
