//! What the coordinator needs of a storage: a written contract, implemented by `storage`.

use async_trait::async_trait;

pub use crate::log::store::StoreError;
use crate::{
    groups::{CommittedOffset, StoredGroup, TopicPartition, classic::Record},
    model::{GroupId, PartitionId},
};

/// Changes with every change of a group's members and of its coordinator; a write names the one it stands on. Never used twice for one group id,
/// even if the group was deleted in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupEpoch(pub i64);

/// Changes to one group that are stored together or not at all.
#[derive(Clone, Debug, Default)]
pub struct GroupWrite {
    /// The epoch that the group must have; `None`: it must not exist, and `record` creates it.
    pub expected: Option<GroupEpoch>,
    /// Replaces all that is stored of the members, and moves the epoch.
    pub record: Option<Record>,
    /// `None` removes the offset.
    pub offsets: Vec<(TopicPartition, Option<CommittedOffset>)>,
}

/// What is stored under a group's id.
#[derive(Clone, Debug)]
pub enum Loaded {
    Nothing,
    Group(GroupEpoch, Box<StoredGroup>),
    /// Something is there that this version can't read; the text says what.
    Unreadable(String),
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum WriteError {
    /// Somebody else has written the group since it was loaded; nothing happened.
    #[error("the group has changed in the storage")]
    Stale,
    #[error(transparent)]
    Storage(#[from] StoreError),
}

/// How far a group has read a partition, as Redis' own tools shall show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorMove {
    pub group: GroupId,
    pub partition: PartitionId,
    /// The committed offset; `None`: the group no longer has one.
    pub offset: Option<i64>,
}

#[async_trait]
pub trait GroupStore: Send + Sync + 'static {
    /// The ids of all groups, perhaps of some that are gone.
    async fn list(&self) -> Result<Vec<GroupId>, StoreError>;

    /// Takes a group over: as [`GroupStore::load`], and moves its epoch, so that nothing is written any more that is on its way from
    /// here or from an earlier coordinator. `coordinates` is the epoch of [`Cluster::coordinates`]; none for a broker that is always
    /// alone.
    ///
    /// [`Cluster::coordinates`]: crate::cluster::Cluster::coordinates
    ///
    /// # Errors
    /// [`StoreError::FencedLeader`] when a coordinator with a newer epoch has claimed the group.
    async fn claim(&self, group: &GroupId, coordinates: Option<i32>) -> Result<Loaded, StoreError>;

    /// One answer for each id, in order.
    async fn load(&self, groups: &[GroupId]) -> Result<Vec<Loaded>, StoreError>;

    /// Writes to several groups, each judged by itself. One answer for each, in order: the epoch that the group has now. After
    /// [`StoreError::OutcomeUnknown`] only loading tells what happened.
    async fn write(&self, writes: Vec<(GroupId, GroupWrite)>) -> Vec<Result<GroupEpoch, WriteError>>;

    /// Deletes the group with all its offsets.
    async fn delete(&self, group: &GroupId, expected: GroupEpoch) -> Result<(), WriteError>;

    /// Shows committed offsets in the stream's native consumer groups. A hint: partitions that are gone are passed over.
    async fn mirror(&self, moves: &[MirrorMove]) -> Result<(), StoreError>;
}
