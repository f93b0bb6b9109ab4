//! Connections for long reads, which must delay neither writes nor small reads.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use redis::{ConnectionInfo, RedisError};

use super::connection::{self, Connection};

/// Connections for long reads, made when they are first needed.
pub(super) struct Readers {
    slots: Vec<tokio::sync::Mutex<Option<Arc<Connection>>>>,
    next: AtomicUsize,
}

impl Readers {
    pub(super) fn new(count: usize) -> Self {
        Self { slots: std::iter::repeat_with(Default::default).take(count.max(1)).collect(), next: AtomicUsize::new(0) }
    }

    pub(super) async fn take(
        &self,
        info: &ConnectionInfo,
        options: connection::Options,
    ) -> Result<Arc<Connection>, RedisError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len();
        let mut slot = self.slots[turn].lock().await;
        match &*slot {
            Some(connection) if !connection.is_closed() => Ok(connection.clone()),
            _ => Ok(slot.insert(Arc::new(Connection::open(info, options, |_| {}).await?)).clone()),
        }
    }

    /// Nobody waits any longer for an answer on them.
    pub(super) fn abort(&self) {
        for slot in &self.slots {
            // One that is being made will be of no use; whoever makes it finds out.
            if let Ok(slot) = slot.try_lock()
                && let Some(connection) = &*slot
            {
                connection.abort();
            }
        }
    }
}
