//! Committed offsets: what is kept, and when it expires (KIP-211).

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use super::GroupError;
use crate::model::{GroupInstanceId, MemberId, TopicId};

/// A partition of one incarnation of a topic, as offsets are filed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: TopicId,
    pub partition: i32,
}

/// How far a group has read a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset that the group will read; any number that a client sent.
    pub offset: i64,
    /// -1 where the client named none.
    pub leader_epoch: i32,
    pub metadata: Arc<str>,
    pub commit_timestamp_ms: i64,
    /// Only where the client asked for a retention of its own (OffsetCommit before v5).
    pub expire_timestamp_ms: Option<i64>,
}

/// A request to commit offsets. Only partitions that exist.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// Empty for who is not a member.
    pub member_id: MemberId,
    pub instance_id: Option<GroupInstanceId>,
    /// Negative for who is not a member.
    pub generation: i32,
    pub retention_ms: Option<i64>,
    pub offsets: Vec<Commit>,
}

#[derive(Clone, Debug)]
pub struct Commit {
    pub partition: TopicPartition,
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: Arc<str>,
}

/// What comes of a commit that the group allows.
#[derive(Clone, Debug, Default)]
pub struct CommitOutcome {
    /// To be stored before the answer.
    pub changes: Vec<(TopicPartition, CommittedOffset)>,
    /// One for each offset of the request, in order.
    pub results: Vec<Result<(), GroupError>>,
}

impl CommitRequest {
    pub(super) fn judge(self, now_ms: i64, metadata_max: usize) -> CommitOutcome {
        let expire_timestamp_ms = self.retention_ms.map(|retention| now_ms.saturating_add(retention));
        let mut outcome = CommitOutcome::default();
        for commit in self.offsets {
            if commit.metadata.encode_utf16().count() > metadata_max {
                outcome.results.push(Err(GroupError::OffsetMetadataTooLarge));
                continue;
            }
            outcome.results.push(Ok(()));
            outcome.changes.push((
                commit.partition,
                CommittedOffset {
                    offset: commit.offset,
                    leader_epoch: commit.leader_epoch,
                    metadata: commit.metadata,
                    commit_timestamp_ms: now_ms,
                    expire_timestamp_ms,
                },
            ));
        }
        outcome
    }
}

/// The offsets of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offsets(BTreeMap<TopicId, BTreeMap<i32, CommittedOffset>>);

impl Offsets {
    pub fn get(&self, at: TopicPartition) -> Option<&CommittedOffset> {
        self.0.get(&at.topic)?.get(&at.partition)
    }

    pub fn set(&mut self, at: TopicPartition, offset: CommittedOffset) {
        self.0.entry(at.topic).or_default().insert(at.partition, offset);
    }

    pub fn remove(&mut self, at: TopicPartition) {
        if let Entry::Occupied(mut topic) = self.0.entry(at.topic) {
            topic.get_mut().remove(&at.partition);
            if topic.get().is_empty() {
                topic.remove();
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn topics(&self) -> impl Iterator<Item = (TopicId, &BTreeMap<i32, CommittedOffset>)> {
        self.0.iter().map(|(topic, partitions)| (*topic, partitions))
    }

    pub fn iter(&self) -> impl Iterator<Item = (TopicPartition, &CommittedOffset)> {
        self.topics().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, offset)| (TopicPartition { topic, partition: *partition }, offset))
        })
    }

    pub fn of_topic(&self, topic: TopicId) -> Vec<TopicPartition> {
        let partitions = self.0.get(&topic).into_iter().flat_map(|partitions| partitions.keys());
        partitions.map(|partition| TopicPartition { topic, partition: *partition }).collect()
    }
}
