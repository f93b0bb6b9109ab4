//! All topics and configs as of one version: immutable, shared, cheap to look up.

use std::{collections::BTreeMap, sync::Arc};

use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

use super::{
    configs::{self, Definition, Layers, Resolved, Source, Values},
    names,
    settings::{BrokerSettings, StaticSettings},
    store::{CatalogVersion, Changes, Resource, StoredCatalog, StoredTopic},
};
use crate::{
    log::config::LogConfig,
    model::{NodeId, PartitionId, TopicId, TopicName},
};

/// A topic as the broker works with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    pub name: TopicName,
    pub id: TopicId,
    /// At least one; their indexes are 0 to this, exclusive.
    pub partitions: i32,
    /// As asked for; what a partition really has is one replica, its leader.
    pub replication_factor: i16,
    pub created_ms: i64,
    /// What was set for this topic.
    pub configs: Values,
    /// What is in force: set for the topic, by a pattern of names, by the broker, or by default.
    pub log_config: Arc<LogConfig>,
    pub(super) revision: u64,
}

impl Topic {
    /// The partition of this index, if the topic has it.
    pub fn partition(&self, index: i32) -> Option<PartitionId> {
        (0..self.partitions).contains(&index).then(|| PartitionId {
            topic: self.name.clone(),
            topic_id: self.id,
            index,
        })
    }

    pub fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + '_ {
        (0..self.partitions).filter_map(|index| self.partition(index))
    }

    pub(super) fn stored(&self) -> StoredTopic {
        StoredTopic {
            name: self.name.clone(),
            id: self.id,
            partitions: self.partitions,
            replication_factor: self.replication_factor,
            created_ms: self.created_ms,
            configs: self.configs.clone(),
            revision: self.revision,
        }
    }
}

/// What has come with the broker's start and does not change.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    pub(super) node: NodeId,
    pub(super) settings: StaticSettings,
}

/// Its maps share what they have in common with those of the snapshots before, so a change costs no copy of all topics.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) version: CatalogVersion,
    topics: RedBlackTreeMapSync<TopicName, Arc<Topic>>,
    ids: HashTrieMapSync<TopicId, Arc<Topic>>,
    /// Of names with a dot or an underscore: no other name can collide.
    collisions: HashTrieMapSync<String, TopicName>,
    configs: BTreeMap<Resource, Values>,
    layers: Arc<Layers>,
    settings: Arc<BrokerSettings>,
    /// The log of a topic that sets nothing.
    plain: Arc<LogConfig>,
    fixed: Arc<Fixed>,
}

impl Snapshot {
    pub(super) fn empty(fixed: Arc<Fixed>) -> Self {
        let layers = Arc::new(Layers { fixed: fixed.settings.broker.clone(), ..Layers::default() });
        Self {
            version: CatalogVersion::default(),
            topics: RedBlackTreeMapSync::new_sync(),
            ids: HashTrieMapSync::new_sync(),
            collisions: HashTrieMapSync::new_sync(),
            configs: BTreeMap::new(),
            settings: Arc::new(BrokerSettings::new(&layers)),
            plain: Arc::new(configs::log_config(&Values::new(), &Values::new(), &layers)),
            layers,
            fixed,
        }
    }

    /// What was loaded; topics that did not change are shared with `self`.
    pub(super) fn replaced(&self, stored: StoredCatalog) -> Self {
        let mut next = Self::empty(self.fixed.clone());
        next.version = stored.version;
        next.configs = stored.configs.into_iter().collect();
        next.relayer(self);
        for topic in stored.topics {
            next.put(topic, self);
        }
        next
    }

    pub(super) fn changed(&self, changes: Changes) -> Self {
        let mut next = self.clone();
        next.version = changes.version;
        for (resource, values) in changes.configs {
            next.configure(resource, values);
        }
        for (name, stored) in changes.topics {
            match (stored, self.topics.get(&name)) {
                (Some(stored), _) => next.put(stored, self),
                (None, Some(old)) => next.remove(&name, old.id),
                (None, None) => {}
            }
        }
        next
    }

    /// Whether topics that nobody changed may differ between the two.
    pub(super) fn has_other_defaults(&self, other: &Self) -> bool {
        !Arc::ptr_eq(&self.layers, &other.layers)
    }

    /// Works out what the broker's configs give; what they gave before is kept where it is the same.
    fn relayer(&mut self, before: &Self) {
        let configured = |resource: &Resource| self.configs.get(resource).cloned().unwrap_or_default();
        let layers = Layers {
            dynamic: configured(&Resource::Broker(self.fixed.node.0)),
            cluster: configured(&Resource::Cluster),
            fixed: self.fixed.settings.broker.clone(),
        };
        if layers == *before.layers {
            (self.layers, self.settings) = (before.layers.clone(), before.settings.clone());
            self.plain = before.plain.clone();
        } else {
            self.settings = Arc::new(BrokerSettings::new(&layers));
            self.plain = Arc::new(configs::log_config(&Values::new(), &Values::new(), &layers));
            self.layers = Arc::new(layers);
        }
    }

    pub(super) fn put(&mut self, stored: StoredTopic, before: &Self) {
        let same = before.topics.get(&stored.name).filter(|topic| {
            topic.id == stored.id && topic.revision == stored.revision && Arc::ptr_eq(&before.layers, &self.layers)
        });
        let topic = same.cloned().unwrap_or_else(|| Arc::new(self.built(stored)));
        if topic.name.as_str().contains(['.', '_']) {
            self.collisions.insert_mut(names::collision_key(topic.name.as_str()), topic.name.clone());
        }
        if let Some(replaced) = self.topics.get(&topic.name).filter(|replaced| replaced.id != topic.id) {
            self.ids.remove_mut(&replaced.id);
        }
        self.ids.insert_mut(topic.id, topic.clone());
        self.topics.insert_mut(topic.name.clone(), topic);
    }

    pub(super) fn built(&self, stored: StoredTopic) -> Topic {
        let pattern = self.fixed.settings.pattern_configs(stored.name.as_str());
        let log_config = if stored.configs.is_empty() && pattern.is_empty() {
            self.plain.clone()
        } else {
            Arc::new(configs::log_config(&stored.configs, &pattern, &self.layers))
        };
        Topic {
            name: stored.name,
            id: stored.id,
            partitions: stored.partitions,
            replication_factor: stored.replication_factor,
            created_ms: stored.created_ms,
            configs: stored.configs,
            revision: stored.revision,
            log_config,
        }
    }

    pub(super) fn remove(&mut self, name: &TopicName, id: TopicId) {
        if self.topics.get(name).is_some_and(|topic| topic.id == id) {
            self.topics.remove_mut(name);
            let key = names::collision_key(name.as_str());
            if self.collisions.get(&key) == Some(name) {
                self.collisions.remove_mut(&key);
            }
        }
        self.ids.remove_mut(&id);
    }

    pub(super) fn configure(&mut self, resource: Resource, values: Values) {
        let before = self.clone();
        if values.is_empty() {
            self.configs.remove(&resource);
        } else {
            self.configs.insert(resource, values);
        }
        self.relayer(&before);
        if !Arc::ptr_eq(&self.layers, &before.layers) {
            for topic in before.topics.values() {
                self.put(topic.stored(), &before);
            }
        }
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    pub fn get_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.ids.get(&id)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// The topic whose name differs from `name` only by dots and underscores.
    pub fn collision(&self, name: &str) -> Option<&TopicName> {
        self.collisions.get(&names::collision_key(name)).filter(|other| other.as_str() != name)
    }

    pub fn settings(&self) -> &Arc<BrokerSettings> {
        &self.settings
    }

    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// What is set for a resource.
    pub fn configs(&self, resource: &Resource) -> Option<&Values> {
        self.configs.get(resource)
    }

    /// The resources that something is set for.
    pub fn configured(&self) -> impl Iterator<Item = &Resource> {
        self.configs.keys()
    }

    /// What the patterns of the configuration file give a topic of this name.
    pub fn pattern_configs(&self, topic: &str) -> Values {
        self.fixed.settings.pattern_configs(topic)
    }

    /// A topic's config in force, with its synonyms.
    pub fn topic_config(&self, definition: &Definition, own: &Values, pattern: &Values) -> Resolved {
        let own = own.get(definition.name).map(|value| (value.as_str(), Source::Topic));
        self.layers.resolve_for(definition, own, pattern.get(definition.name).map(String::as_str))
    }
}
