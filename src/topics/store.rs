//! What the catalog needs of a storage: a written contract, implemented by `storage`.

use async_trait::async_trait;

use super::configs::Values;
use crate::{
    log::{durability::Promise, store::StoreError},
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

/// A place in the catalog's history: where two are equal, so is all that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CatalogVersion {
    /// Raised by each call that changes anything.
    pub number: u64,
    /// Tells two changes of one number apart, which there are where the store lost its latest ones. 0 where it is not known.
    pub mark: u64,
}

/// Everything that is kept, as of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredCatalog {
    pub version: CatalogVersion,
    pub topics: Vec<StoredTopic>,
    pub configs: Vec<(Resource, Values)>,
}

/// What was changed between two versions, as of the later one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub version: CatalogVersion,
    /// `None` for a name that no topic has any more.
    pub topics: Vec<(TopicName, Option<StoredTopic>)>,
    pub configs: Vec<(Resource, Values)>,
}

/// What there is to know for who knows an earlier version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Newer {
    Changes(Changes),
    /// The store can't tell what was changed.
    Whole(StoredCatalog),
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

impl Change {
    /// The topic that it changes.
    pub fn topic(&self) -> Option<&TopicName> {
        match self {
            Change::Create(topic) => Some(&topic.name),
            Change::Delete { name, .. } => Some(name),
            Change::Replace { new, .. } => Some(&new.name),
            Change::Configure { .. } => None,
        }
    }
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
    pub version_before: CatalogVersion,
    pub version: CatalogVersion,
    /// One for each change, in order.
    pub changes: Vec<Changed>,
}

#[async_trait]
pub trait CatalogStore: Send + Sync + 'static {
    /// Everything.
    async fn load(&self) -> Result<StoredCatalog, StoreError>;

    /// What was changed since `known`, or `None` if nothing was. The work is in step with the changes, not with the catalog,
    /// unless they are very many or `known` is no part of the history.
    async fn newer(&self, known: CatalogVersion) -> Result<Option<Newer>, StoreError>;

    /// Judges each change by itself and makes those that hold, all in one atomic step that raises the version once. Returns when
    /// `promise` holds for it; [`StoreError::OutcomeUnknown`] where it is made and that can't be said.
    async fn apply(&self, changes: &[Change], promise: Promise) -> Result<Applied, StoreError>;

    /// The work that is not done.
    async fn unfinished(&self) -> Result<Vec<Unfinished>, StoreError>;

    /// Forgets work that is done, unless more of it was promised meanwhile. Returns whether the topic of this id is still
    /// there: if not, what was made must be removed again.
    async fn finish(&self, done: &Unfinished) -> Result<bool, StoreError>;
}
