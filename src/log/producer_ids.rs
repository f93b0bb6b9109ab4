//! Producer ids, handed out one by one from blocks that the storage gives.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::store::StoreError;

/// Where blocks of producer ids come from.
#[async_trait]
pub trait ProducerIdBlocks: Send + Sync + 'static {
    /// A block that nobody was or will be given: not empty, not negative, below 2^53. Repeating it gives another block.
    async fn next_block(&self) -> Result<Range<i64>, StoreError>;
}

/// The ids of one broker.
pub struct ProducerIds {
    blocks: Arc<dyn ProducerIdBlocks>,
    rest: Mutex<Range<i64>>,
}

impl ProducerIds {
    pub fn new(blocks: Arc<dyn ProducerIdBlocks>) -> Self {
        Self { blocks, rest: Mutex::new(0..0) }
    }

    /// An id that no producer had before. Cancel-safe: at worst a block is lost.
    pub async fn next(&self) -> Result<i64, StoreError> {
        let mut rest = self.rest.lock().await;
        loop {
            if let Some(id) = rest.next() {
                return Ok(id);
            }
            *rest = self.blocks.next_block().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicI64);

    #[async_trait]
    impl ProducerIdBlocks for Counted {
        async fn next_block(&self) -> Result<Range<i64>, StoreError> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                1 => Err(StoreError::NotSent("down".to_owned())),
                block => Ok(block * 10..block * 10 + 2),
            }
        }
    }

    #[tokio::test]
    async fn a_used_up_block_is_followed_by_the_next_also_after_a_failure() {
        let ids = ProducerIds::new(Arc::new(Counted::default()));
        assert_eq!(ids.next().await, Ok(0));
        assert_eq!(ids.next().await, Ok(1));
        assert!(ids.next().await.is_err());
        assert_eq!(ids.next().await, Ok(20));
    }
}
