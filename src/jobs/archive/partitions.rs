//! How the job sees partitions: as the broker that leads them, or from a process of its own.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    log::{
        Log,
        durability::Dial,
        store::{LogState, LogStore, StoreError},
    },
    model::PartitionId,
};

#[async_trait]
pub trait Partitions: Send + Sync + 'static {
    /// Whether this process copies a partition.
    fn takes(&self, partition: &PartitionId) -> bool;

    /// The state, and up to where (exclusive) what its topic promises holds: what may be lost is never copied.
    async fn look(&self, partition: &PartitionId) -> Result<(LogState, i64), StoreError>;

    /// What the job made of it.
    fn learnt(&self, partition: &PartitionId, state: &LogState);
}

/// What this broker leads.
pub struct Led(pub Arc<Log>);

#[async_trait]
impl Partitions for Led {
    fn takes(&self, partition: &PartitionId) -> bool {
        self.0.leads(partition)
    }

    async fn look(&self, id: &PartitionId) -> Result<(LogState, i64), StoreError> {
        let partition = self.0.partition(&id.topic, id.topic_id, id.index);
        self.0.compare_with_archive(&partition).await?;
        partition.with_state(|view| (LogState::clone(view), view.high_watermark)).await
    }

    fn learnt(&self, partition: &PartitionId, state: &LogState) {
        self.0.take_state(partition, state.clone());
    }
}

/// Everything, beside the brokers that lead it: their epochs decide, and what was stored is waited for anew.
pub struct Unled {
    pub store: Arc<dyn LogStore>,
    pub dial: Dial,
}

#[async_trait]
impl Partitions for Unled {
    fn takes(&self, _: &PartitionId) -> bool {
        true
    }

    async fn look(&self, partition: &PartitionId) -> Result<(LogState, i64), StoreError> {
        let promise = (self.dial.promised)(partition);
        let life = self.dial.durability.life(partition);
        let state = self.store.load(partition).await?;
        let held = self.dial.durability.barrier(promise, partition, &life).await;
        held.map_err(|unkept| StoreError::NotReady(unkept.to_string()))?;
        let end = state.next_offset;
        Ok((state, end))
    }

    fn learnt(&self, _: &PartitionId, _: &LogState) {}
}
