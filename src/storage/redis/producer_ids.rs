//! Blocks of producer ids, from one counter in Redis that runs ahead of the clock.

use std::ops::Range;

use async_trait::async_trait;

use super::nodes::Nodes;
use crate::log::{producer_ids::ProducerIdBlocks, store::StoreError};

/// As many as Kafka's controller hands out at once.
const BLOCK_SIZE: i64 = 1000;

pub struct RedisProducerIds {
    nodes: Nodes,
}

impl RedisProducerIds {
    pub fn new(nodes: impl Into<Nodes>) -> Self {
        Self { nodes: nodes.into() }
    }
}

#[async_trait]
impl ProducerIdBlocks for RedisProducerIds {
    async fn next_block(&self) -> Result<Range<i64>, StoreError> {
        let mut command = redis::cmd("FCALL");
        let key = self.nodes.keyspace().producer_ids();
        command.arg("weir1_producer_ids").arg(1).arg(&key).arg(BLOCK_SIZE);
        let first: String = self.nodes.of(&key).query(&command).await?;
        let first: i64 = first.parse().map_err(|_| StoreError::Refused(format!("no producer id: {first:?}")))?;
        Ok(first..first + BLOCK_SIZE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::redis::testing::TestRedis;

    #[tokio::test]
    async fn blocks_never_overlap_also_after_redis_lost_the_latest() {
        let redis = TestRedis::start().await;
        let client = redis.client().await;
        let ids = RedisProducerIds::new(client.clone());
        let first = ids.next_block().await.expect("Redis is there");
        let second = ids.next_block().await.expect("Redis is there");
        assert!(first.start >= 0 && first.end <= second.start && second.end < 1 << 53);
        // A counter that was lost starts again at the clock, which is ahead of all that was given.
        redis.command(&["SET", &client.keyspace().producer_ids(), "5"]).await;
        let third = ids.next_block().await.expect("Redis is there");
        assert!(third.start > first.start);
    }
}
