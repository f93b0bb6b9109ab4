//! Things that were read, kept within a bound; asked for by many at once, read once.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

pub(super) struct Cache<K, V> {
    slots: Mutex<Slots<K, V>>,
    /// Bytes; one thing more than this is never kept.
    limit: usize,
}

struct Slots<K, V> {
    by_key: HashMap<K, Slot<V>>,
    bytes: usize,
    clock: u64,
}

struct Slot<V> {
    cell: Arc<OnceCell<Arc<V>>>,
    bytes: usize,
    used: u64,
}

impl<K: Eq + Hash + Clone, V> Cache<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self { slots: Mutex::new(Slots { by_key: HashMap::new(), bytes: 0, clock: 0 }), limit }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.lock().by_key.len()
    }

    #[cfg(test)]
    fn contains(&self, key: &K) -> bool {
        self.slots.lock().by_key.contains_key(key)
    }

    /// What is kept, or what `load` reads: it, and its bytes. Cancel-safe: the next one who asks reads anew.
    pub(super) async fn get<E>(
        &self,
        key: K,
        size: impl FnOnce(&V) -> usize,
        load: impl Future<Output = Result<V, E>>,
    ) -> Result<Arc<V>, E> {
        let cell = {
            let mut slots = self.slots.lock();
            slots.clock += 1;
            let used = slots.clock;
            let slot = slots.by_key.entry(key.clone()).or_insert_with(|| Slot { cell: Arc::default(), bytes: 0, used });
            slot.used = used;
            slot.cell.clone()
        };
        let mut loaded = None;
        let result = cell
            .get_or_try_init(|| async {
                let value = Arc::new(load.await?);
                loaded = Some(size(&value));
                Ok(value)
            })
            .await
            .cloned();
        match (&result, loaded) {
            (Ok(_), Some(bytes)) => self.keep(&key, &cell, bytes),
            (Err(_), _) => self.forget(&key, &cell),
            _ => {}
        }
        result
    }

    fn keep(&self, key: &K, cell: &Arc<OnceCell<Arc<V>>>, bytes: usize) {
        let mut slots = self.slots.lock();
        let Some(slot) = slots.by_key.get_mut(key).filter(|slot| Arc::ptr_eq(&slot.cell, cell)) else { return };
        slot.bytes = bytes;
        slots.bytes += bytes;
        while slots.bytes > self.limit {
            let oldest = slots.by_key.iter().filter(|(_, slot)| slot.bytes > 0).min_by_key(|(_, slot)| slot.used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            if let Some(slot) = slots.by_key.remove(&oldest) {
                slots.bytes -= slot.bytes;
            }
        }
    }

    fn forget(&self, key: &K, cell: &Arc<OnceCell<Arc<V>>>) {
        let mut slots = self.slots.lock();
        if slots.by_key.get(key).is_some_and(|slot| Arc::ptr_eq(&slot.cell, cell) && slot.bytes == 0) {
            slots.by_key.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(cache: &Cache<u32, u32>, key: u32) -> u32 {
        *cache.get(key, |_| 10, async { Ok::<_, ()>(key * 2) }).await.expect("a value")
    }

    #[tokio::test]
    async fn what_was_not_used_for_longest_goes_first() {
        let cache = Cache::new(30);
        for key in [1, 2, 3, 1, 4] {
            assert_eq!(read(&cache, key).await, key * 2);
        }
        assert!(!cache.contains(&2));
        assert!([1, 3, 4].iter().all(|key| cache.contains(key)));
    }

    #[tokio::test]
    async fn what_could_not_be_read_is_read_again() {
        let cache = Cache::<u32, u32>::new(30);
        assert_eq!(cache.get(1, |_| 10, async { Err(()) }).await, Err(()));
        assert_eq!(read(&cache, 1).await, 2);
    }

    #[tokio::test]
    async fn what_is_larger_than_the_bound_is_answered_and_not_kept() {
        let cache = Cache::new(5);
        assert_eq!(read(&cache, 1).await, 2);
        assert!(!cache.contains(&1));
    }
}
