//! Groups and their offsets in Redis, by the Functions of `scripts/groups.lua`.

mod encoding;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures::future::{join_all, try_join_all};
use redis::{Cmd, Value};
use tracing::warn;

use super::{
    durability::RedisDurability,
    keys::Keyspace,
    nodes::{At, Nodes},
    shards::Slot,
};
use crate::{
    coordinator::store::{GroupEpoch, GroupStore, GroupWrite, Loaded, MirrorMove, StoreError, WriteError},
    log::durability::{Promise, Unkept},
    model::{GroupId, PartitionId},
};

/// Groups in Redis.
pub struct RedisGroupStore {
    nodes: Nodes,
    keyspace: Keyspace,
    /// What is waited for before a write is answered.
    kept: Option<(Arc<RedisDurability>, Promise)>,
}

impl RedisGroupStore {
    pub fn new(nodes: impl Into<Nodes>) -> Self {
        let nodes = nodes.into();
        let keyspace = nodes.keyspace().clone();
        Self { nodes, keyspace, kept: None }
    }

    /// A write is answered when this many replicas have it: what a group was told must outlast a failover.
    pub fn on_replicas(self, durability: Arc<RedisDurability>, replicas: u16) -> Self {
        Self { kept: Some((durability, Promise { replicas, ..Promise::MEMORY })), ..self }
    }

    /// Taken before a call that changes a group of the slot; what it returns ends when what the call found and did outlasts a failover.
    fn expect_kept(
        &self,
        slot: Slot,
    ) -> Result<impl Future<Output = Result<(), StoreError>> + Send + use<>, StoreError> {
        let not_yet = |unkept: Unkept| StoreError::NotReady(unkept.to_string());
        let expected = match &self.kept {
            Some((durability, promise)) => {
                durability.check_at(*promise, slot).map_err(not_yet)?;
                Some(durability.expect(*promise, slot))
            }
            None => None,
        };
        Ok(async move {
            match expected {
                // It is stored, but may be lost.
                Some(expected) => expected.await.map_err(|unkept| StoreError::OutcomeUnknown(unkept.to_string())),
                None => Ok(()),
            }
        })
    }

    async fn write_safely_at(
        &self,
        slot: Slot,
        writes: &[&(GroupId, GroupWrite)],
    ) -> Result<Vec<Result<GroupEpoch, WriteError>>, StoreError> {
        let kept = self.expect_kept(slot)?;
        let answers = self.try_write_at(self.nodes.at(slot), writes).await?;
        kept.await?;
        Ok(answers)
    }

    async fn index_new(&self, writes: &[(GroupId, GroupWrite)]) -> Result<(), StoreError> {
        if writes.iter().any(|(_, write)| write.expected.is_none()) {
            // First the index: an entry without a group is harmless, a group that nobody finds is not.
            let mut index = redis::cmd("FCALL");
            index.arg("weir_groups_index_v1").arg(1).arg(self.keyspace.groups());
            for (group, write) in writes {
                if write.expected.is_none() {
                    index.arg(group.as_str()).arg(encoding::CLASSIC);
                }
            }
            let _: i64 = self.nodes.of(&self.keyspace.groups()).query(&index).await?;
        }
        Ok(())
    }

    /// Writes groups of one slot.
    async fn try_write_at(
        &self,
        at: At<'_>,
        writes: &[&(GroupId, GroupWrite)],
    ) -> Result<Vec<Result<GroupEpoch, WriteError>>, StoreError> {
        let mut call = redis::cmd("FCALL");
        call.arg("weir_groups_write_v2").arg(writes.len() * 2);
        for (group, _) in writes {
            call.arg(self.keyspace.group(group)).arg(self.keyspace.group_offsets(group));
        }
        for (_, write) in writes {
            encoding::encode_write(&mut call, write);
        }
        let answers: Vec<(i64, String)> = at.query(&call).await?;
        if answers.len() != writes.len() {
            return Err(StoreError::Refused("the groups' Function gave an answer that can't be read".to_owned()));
        }
        Ok(answers.into_iter().map(|(done, text)| written(done, text)).collect())
    }

    fn slot_of(&self, group: &GroupId) -> Slot {
        self.nodes.slot_of(&self.keyspace.group(group))
    }

    fn at(&self, group: &GroupId) -> At<'_> {
        self.nodes.at(self.slot_of(group))
    }
}

/// What the library answers about a group: whether it was written, and the epoch it has now or an error.
fn written(done: i64, text: String) -> Result<GroupEpoch, WriteError> {
    match done {
        1 => {
            let epoch = text.parse().map_err(|_| StoreError::Refused(format!("{text:?} is no group epoch")))?;
            Ok(GroupEpoch(epoch))
        }
        0 => Err(WriteError::Stale),
        _ => Err(StoreError::Refused(text).into()),
    }
}

#[async_trait]
impl GroupStore for RedisGroupStore {
    async fn list(&self) -> Result<Vec<GroupId>, StoreError> {
        let ids: Vec<Vec<u8>> =
            self.nodes.of(&self.keyspace.groups()).query(redis::cmd("HKEYS").arg(self.keyspace.groups())).await?;
        let groups = ids.into_iter().filter_map(|id| match String::from_utf8(id) {
            Ok(id) => Some(GroupId::new(&id)),
            Err(error) => {
                warn!(%error, "the index of groups names one that is not text");
                None
            }
        });
        Ok(groups.collect())
    }

    async fn claim(&self, group: &GroupId, coordinates: Option<i32>) -> Result<Loaded, StoreError> {
        let mut call = redis::cmd("FCALL");
        call.arg("weir_group_claim_v2").arg(2);
        call.arg(self.keyspace.group(group)).arg(self.keyspace.group_offsets(group));
        call.arg(coordinates.map_or_else(String::new, |epoch| epoch.to_string()));
        let kept = self.expect_kept(self.slot_of(group))?;
        let answer: Value = self.at(group).query(&call).await?;
        if let Value::Int(newer) = answer {
            return Err(StoreError::FencedLeader(i32::try_from(newer).unwrap_or(i32::MAX)));
        }
        // What is there may be of a write that was not waited for, and not outlast a failover: nobody is told before it does.
        kept.await?;
        let (group, offsets): (encoding::Hash, encoding::Hash) = redis::from_redis_value(answer).map_err(|error| {
            StoreError::Refused(format!("a group's Function gave an answer that can't be read: {error}"))
        })?;
        Ok(encoding::loaded(group, offsets))
    }

    async fn load(&self, groups: &[GroupId]) -> Result<Vec<Loaded>, StoreError> {
        let read = |key: String| {
            let mut command = redis::cmd("HGETALL");
            command.arg(&key);
            (key, command)
        };
        let commands: Vec<(String, Cmd)> = groups
            .iter()
            .flat_map(|group| [self.keyspace.group(group), self.keyspace.group_offsets(group)])
            .map(read)
            .collect();
        let hashes: Vec<encoding::Hash> = self.nodes.query_all(&commands).await?;
        let mut hashes = hashes.into_iter();
        let mut loaded = Vec::with_capacity(groups.len());
        while let (Some(group), Some(offsets)) = (hashes.next(), hashes.next()) {
            loaded.push(encoding::loaded(group, offsets));
        }
        Ok(loaded)
    }

    async fn write(&self, writes: Vec<(GroupId, GroupWrite)>) -> Vec<Result<GroupEpoch, WriteError>> {
        if let Err(error) = self.index_new(&writes).await {
            return writes.iter().map(|_| Err(error.clone().into())).collect();
        }
        // A call names keys of one slot.
        let mut by_slot: BTreeMap<Slot, Vec<usize>> = BTreeMap::new();
        for (index, (group, _)) in writes.iter().enumerate() {
            by_slot.entry(self.slot_of(group)).or_default().push(index);
        }
        let calls = by_slot.into_iter().map(|(slot, indices)| {
            let writes = &writes;
            async move {
                let of_slot: Vec<&(GroupId, GroupWrite)> = indices.iter().filter_map(|at| writes.get(*at)).collect();
                let answers = match self.write_safely_at(slot, &of_slot).await {
                    Ok(answers) => answers,
                    Err(error) => of_slot.iter().map(|_| Err(error.clone().into())).collect(),
                };
                indices.into_iter().zip(answers).collect::<Vec<_>>()
            }
        });
        let mut answers: Vec<_> = join_all(calls).await.into_iter().flatten().collect();
        answers.sort_unstable_by_key(|(index, _)| *index);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    async fn delete(&self, group: &GroupId, expected: GroupEpoch) -> Result<(), WriteError> {
        let mut call = redis::cmd("FCALL");
        call.arg("weir_group_delete_v1").arg(2);
        call.arg(self.keyspace.group(group)).arg(self.keyspace.group_offsets(group)).arg(expected.0);
        let kept = self.expect_kept(self.slot_of(group))?;
        let (done, text): (i64, String) = self.at(group).query(&call).await?;
        kept.await?;
        written(done, text)?;
        let mut index = redis::cmd("HDEL");
        index.arg(self.keyspace.groups()).arg(group.as_str());
        if let Err(error) = self.nodes.of(&self.keyspace.groups()).query::<()>(&index).await {
            // The group is gone; the entry is passed over when groups are loaded.
            warn!(%group, %error, "a deleted group stays in the index");
        }
        Ok(())
    }

    async fn mirror(&self, moves: &[MirrorMove]) -> Result<(), StoreError> {
        // Sent together, so one round trip for all.
        let calls = moves.iter().map(|one| async move {
            let PartitionId { topic, topic_id, index } = &one.partition;
            let stream = self.keyspace.stream(topic, *index);
            let mut call = redis::cmd("FCALL");
            call.arg("weir_group_mirror_v1").arg(3);
            call.arg(&stream);
            call.arg(self.keyspace.state(topic, *index));
            call.arg(self.keyspace.marks(topic, *index));
            call.arg(topic_id.to_string()).arg(one.group.as_str());
            call.arg(one.offset.map_or_else(String::new, |offset| offset.to_string()));
            match self.nodes.of(&stream).query::<()>(&call).await {
                Err(StoreError::Refused(reason)) => {
                    warn!(group = %one.group, partition = %one.partition, reason, "an offset can't be mirrored");
                    Ok(())
                }
                done => done,
            }
        });
        try_join_all(calls).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests;
