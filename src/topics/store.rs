//! What the catalog needs of a storage: a written contract, implemented by `storage`.

use async_trait::async_trait;

use super::configs::Values;
use crate::{
    log::store::StoreError,
    model::{TopicId, TopicName},
};

/// A topic as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTopic {
    pub name: TopicName,
    pub id: TopicId,
    pub partitions: i32,
    /// As asked for.
    pub replication_factor: i16,
    pub created_ms: i64,
    /// What was set for this topic.
    pub configs: Values,
    /// Raised by each [`Change::Replace`].
    pub revision: u64,
}

/// Whose configs; topics keep theirs themselves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// The default of all brokers.
    Cluster,
    Broker(i32),
    Group(String),
    ClientMetrics(String),
}

/// Work on partitions that was promised and may not be done; whoever sees it may do it, repeatedly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    pub name: TopicName,
    pub id: TopicId,
    /// All from 0 up to this one, exclusive.
    pub partitions: i32,
    pub work: Work,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Create,
    Delete,
}

/// Everything that is kept, as of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredCatalog {
    pub version: u64,
    pub topics: Vec<StoredTopic>,
    pub configs: Vec<(Resource, Values)>,
}

/// One change of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Claims the name and promises the partitions.
    Create(StoredTopic),
    /// Takes the topic of this name and id away and promises its partitions' removal.
    Delete { name: TopicName, id: TopicId },
    /// Replaces a topic whose id and revision are still what they were; `new` has the next revision. More partitions are
    /// promised.
    Replace { old: StoredTopic, new: StoredTopic },
    /// Replaces a resource's configs that are still as they were read; empty ones are forgotten.
    Configure { resource: Resource, old: Values, new: Values },
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Also when this very change had been made before (a repetition after a lost answer).
    Done,
    /// [`Change::Create`]: another topic has the name.
    Exists,
    /// The topic is not there, or has another id.
    Missing,
    /// Somebody else changed it: read it again.
    Stale,
}

/// What came of several changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The catalog's version before the call; equal to one's own if nobody else changed anything.
    pub version_before: u64,
    pub version: u64,
    /// One for each change, in order.
    pub changes: Vec<Changed>,
}

#[async_trait]
pub trait CatalogStore: Send + Sync + 'static {
    /// Everything, or `None` if it is still as of version `known`.
    async fn load(&self, known: Option<u64>) -> Result<Option<StoredCatalog>, StoreError>;

    /// Judges each change by itself and makes those that hold, all in one atomic step that raises the version once.
    async fn apply(&self, changes: &[Change]) -> Result<Applied, StoreError>;

    /// The work that is not done.
    async fn unfinished(&self) -> Result<Vec<Unfinished>, StoreError>;

    /// Forgets work that is done, unless more of it was promised meanwhile. Returns whether the topic of this id is still
    /// there: if not, what was made must be removed again.
    async fn finish(&self, done: &Unfinished) -> Result<bool, StoreError>;
}
