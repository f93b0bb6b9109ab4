//! Groups and their offsets in Redis, by the Functions of `scripts/groups.lua`.

mod encoding;

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::try_join_all;
use redis::Cmd;
use tracing::warn;

use super::{client::Client, keys::Keyspace};
use crate::{
    coordinator::store::{GroupEpoch, GroupStore, GroupWrite, Loaded, MirrorMove, StoreError, WriteError},
    model::{GroupId, PartitionId},
};

/// Groups in Redis.
pub struct RedisGroupStore {
    client: Arc<Client>,
    keyspace: Keyspace,
}

impl RedisGroupStore {
    pub fn new(client: Arc<Client>, keyspace: Keyspace) -> Self {
        Self { client, keyspace }
    }

    fn call(&self, function: &str, group: &GroupId) -> Cmd {
        let mut call = redis::cmd("FCALL");
        call.arg(function).arg(2).arg(self.keyspace.group(group)).arg(self.keyspace.group_offsets(group));
        call
    }

    /// What `write` and `delete` of the library answer.
    async fn checked(&self, call: &Cmd) -> Result<GroupEpoch, WriteError> {
        let (done, epoch): (i64, String) = self.client.query(call).await?;
        if done == 0 {
            return Err(WriteError::Stale);
        }
        let epoch = epoch.parse().map_err(|_| StoreError::Refused(format!("{epoch:?} is no group epoch")))?;
        Ok(GroupEpoch(epoch))
    }
}

#[async_trait]
impl GroupStore for RedisGroupStore {
    async fn list(&self) -> Result<Vec<GroupId>, StoreError> {
        let ids: Vec<Vec<u8>> = self.client.query(redis::cmd("HKEYS").arg(self.keyspace.groups())).await?;
        let groups = ids.into_iter().filter_map(|id| match String::from_utf8(id) {
            Ok(id) => Some(GroupId::new(&id)),
            Err(error) => {
                warn!(%error, "the index of groups names one that is not text");
                None
            }
        });
        Ok(groups.collect())
    }

    async fn load(&self, groups: &[GroupId]) -> Result<Vec<Loaded>, StoreError> {
        let read = |key: String| {
            let mut command = redis::cmd("HGETALL");
            command.arg(key);
            command
        };
        let commands: Vec<Cmd> = groups
            .iter()
            .flat_map(|group| [self.keyspace.group(group), self.keyspace.group_offsets(group)])
            .map(read)
            .collect();
        let hashes: Vec<encoding::Hash> = self.client.query_all(&commands).await?;
        let mut hashes = hashes.into_iter();
        let mut loaded = Vec::with_capacity(groups.len());
        while let (Some(group), Some(offsets)) = (hashes.next(), hashes.next()) {
            loaded.push(encoding::loaded(group, offsets));
        }
        Ok(loaded)
    }

    async fn write(&self, group: &GroupId, write: GroupWrite) -> Result<GroupEpoch, WriteError> {
        if write.expected.is_none() {
            // First the index: an entry without a group is harmless, a group that nobody finds is not.
            let mut index = redis::cmd("HSET");
            index.arg(self.keyspace.groups()).arg(group.as_str()).arg(encoding::CLASSIC);
            let () = self.client.query(&index).await?;
        }
        let mut call = self.call("weir_group_write_v1", group);
        call.arg(write.expected.map_or_else(String::new, |epoch| epoch.0.to_string()));
        match &write.record {
            None => {
                call.arg("");
            }
            Some(record) => {
                let fields = encoding::record_fields(record);
                call.arg(fields.len() * 2);
                for (name, value) in fields {
                    call.arg(name).arg(value);
                }
            }
        }
        let set = write.offsets.iter().filter_map(|(at, offset)| Some((*at, offset.as_ref()?)));
        call.arg(set.clone().count() * 2);
        for (at, offset) in set {
            call.arg(encoding::offset_field(at)).arg(encoding::offset_value(offset));
        }
        for (at, _) in write.offsets.iter().filter(|(_, offset)| offset.is_none()) {
            call.arg(encoding::offset_field(*at));
        }
        self.checked(&call).await
    }

    async fn delete(&self, group: &GroupId, expected: GroupEpoch) -> Result<(), WriteError> {
        let mut call = self.call("weir_group_delete_v1", group);
        call.arg(expected.0.to_string());
        self.checked(&call).await?;
        let mut index = redis::cmd("HDEL");
        index.arg(self.keyspace.groups()).arg(group.as_str());
        if let Err(error) = self.client.query::<()>(&index).await {
            // The group is gone; the entry is passed over when groups are loaded.
            warn!(%group, %error, "a deleted group stays in the index");
        }
        Ok(())
    }

    async fn mirror(&self, moves: &[MirrorMove]) -> Result<(), StoreError> {
        // Sent together, so one round trip for all.
        let calls = moves.iter().map(|one| async move {
            let PartitionId { topic, topic_id, index } = &one.partition;
            let mut call = redis::cmd("FCALL");
            call.arg("weir_group_mirror_v1").arg(3);
            call.arg(self.keyspace.stream(topic, *index));
            call.arg(self.keyspace.state(topic, *index));
            call.arg(self.keyspace.marks(topic, *index));
            call.arg(topic_id.to_string()).arg(one.group.as_str());
            call.arg(one.offset.map_or_else(String::new, |offset| offset.to_string()));
            match self.client.query::<()>(&call).await {
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
