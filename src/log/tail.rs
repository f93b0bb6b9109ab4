//! The tail cache: what this process appended last, as consumers get it. Each partition's part is a contiguous run of
//! batches; the oldest batch of all partitions goes first when the bytes run out.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use super::store::StoredBatch;
use crate::model::TopicId;

/// A partition of one incarnation of a topic.
pub(super) type Key = (TopicId, i32);

/// What a cached batch takes besides its bytes, roughly.
const OVERHEAD: usize = 128;

/// Shared by all partitions of the broker.
#[derive(Debug)]
pub(super) struct TailCache {
    limit: usize,
    runs: Mutex<Runs>,
}

#[derive(Debug, Default)]
struct Runs {
    by_partition: HashMap<Key, Run>,
    /// Every cached batch by age, and some that are gone already.
    ages: VecDeque<Age>,
    batches: usize,
    bytes: usize,
    next_run: u64,
}

#[derive(Debug)]
struct Run {
    /// Tells this run from an earlier one of the same partition.
    id: u64,
    batches: VecDeque<StoredBatch>,
}

#[derive(Debug)]
struct Age {
    key: Key,
    run: u64,
    base_offset: i64,
}

fn cost(batch: &StoredBatch) -> usize {
    batch.size() + OVERHEAD
}

impl TailCache {
    /// `limit` bounds the bytes of all batches together.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, runs: Mutex::default() }
    }

    /// Adds what was appended. Batches that do not follow what is cached replace it.
    pub(super) fn append(&self, key: Key, batches: impl IntoIterator<Item = StoredBatch>) {
        let mut runs = self.runs.lock();
        for batch in batches {
            runs.push(key, batch);
        }
        while runs.bytes > self.limit && runs.drop_oldest() {}
        runs.compact();
    }

    /// Batches from the one that holds `offset`, up to `max_bytes` but at least one, and none that reaches `end_offset`
    /// (exclusive); none when `offset` isn't cached.
    pub(super) fn read(&self, key: Key, offset: i64, max_bytes: usize, end_offset: i64) -> Option<Vec<StoredBatch>> {
        let runs = self.runs.lock();
        let batches = &runs.by_partition.get(&key)?.batches;
        let first = batches.partition_point(|batch| batch.last_offset < offset);
        if batches.get(first)?.base_offset > offset {
            return None;
        }
        let mut bytes = 0;
        let mut found = Vec::new();
        for batch in batches.range(first..) {
            bytes += batch.size();
            if batch.last_offset >= end_offset || (bytes > max_bytes && !found.is_empty()) {
                break;
            }
            found.push(batch.clone());
        }
        Some(found)
    }

    /// Bytes from the batch that holds `offset` to the end, counted up to about `enough`; none when it isn't cached.
    pub(super) fn available(&self, key: Key, offset: i64, enough: usize) -> Option<usize> {
        let runs = self.runs.lock();
        let batches = &runs.by_partition.get(&key)?.batches;
        let first = batches.partition_point(|batch| batch.last_offset < offset);
        if batches.get(first)?.base_offset > offset {
            return None;
        }
        let mut bytes = 0;
        for batch in batches.range(first..) {
            bytes += batch.size();
            if bytes >= enough {
                break;
            }
        }
        Some(bytes)
    }

    /// Drops the batches of a partition that end below `offset`.
    pub(super) fn trim(&self, key: Key, offset: i64) {
        let mut runs = self.runs.lock();
        while runs.front_ends_below(key, offset) {
            runs.drop_front(key);
        }
        runs.compact();
    }

    pub(super) fn remove(&self, key: Key) {
        let mut runs = self.runs.lock();
        runs.remove(key);
        runs.compact();
    }

    pub(super) fn clear(&self) {
        let mut runs = self.runs.lock();
        let next_run = runs.next_run;
        *runs = Runs { next_run, ..Runs::default() };
    }

    pub(super) fn bytes(&self) -> usize {
        self.runs.lock().bytes
    }
}

impl Runs {
    fn push(&mut self, key: Key, batch: StoredBatch) {
        let follows = self
            .by_partition
            .get(&key)
            .and_then(|run| run.batches.back())
            .is_some_and(|last| last.last_offset.checked_add(1) == Some(batch.base_offset));
        if !follows {
            self.remove(key);
        }
        let next_run = &mut self.next_run;
        let run = self.by_partition.entry(key).or_insert_with(|| {
            *next_run += 1;
            Run { id: *next_run, batches: VecDeque::new() }
        });
        self.bytes += cost(&batch);
        self.batches += 1;
        self.ages.push_back(Age { key, run: run.id, base_offset: batch.base_offset });
        run.batches.push_back(batch);
    }

    fn remove(&mut self, key: Key) {
        if let Some(run) = self.by_partition.remove(&key) {
            self.batches -= run.batches.len();
            self.bytes -= run.batches.iter().map(cost).sum::<usize>();
        }
    }

    fn front_ends_below(&self, key: Key, offset: i64) -> bool {
        let front = self.by_partition.get(&key).and_then(|run| run.batches.front());
        front.is_some_and(|batch| batch.last_offset < offset)
    }

    fn drop_front(&mut self, key: Key) {
        let Some(run) = self.by_partition.get_mut(&key) else { return };
        if let Some(batch) = run.batches.pop_front() {
            self.batches -= 1;
            self.bytes -= cost(&batch);
        }
        if run.batches.is_empty() {
            self.by_partition.remove(&key);
        }
    }

    /// False when nothing is left.
    fn drop_oldest(&mut self) -> bool {
        let Some(age) = self.ages.pop_front() else { return false };
        if is_live(&self.by_partition, &age) {
            self.drop_front(age.key);
        }
        true
    }

    /// Keeps the list of ages in proportion to the batches.
    fn compact(&mut self) {
        if self.ages.len() > 2 * self.batches + 1024 {
            let by_partition = &self.by_partition;
            self.ages.retain(|age| is_live(by_partition, age));
        }
    }
}

fn is_live(by_partition: &HashMap<Key, Run>, age: &Age) -> bool {
    by_partition.get(&age.key).is_some_and(|run| {
        run.id == age.run && run.batches.front().is_some_and(|front| front.base_offset <= age.base_offset)
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::records::PlacedBatch;

    const TOPIC: TopicId = TopicId::ZERO;

    fn batch(base_offset: i64, last_offset: i64, size: usize) -> StoredBatch {
        let batch = PlacedBatch::split(&Bytes::from(vec![0; size])).expect("it has a header");
        StoredBatch { base_offset, last_offset, max_timestamp: 0, batch }
    }

    fn offsets(found: Option<Vec<StoredBatch>>) -> Option<Vec<i64>> {
        found.map(|batches| batches.iter().map(|batch| batch.base_offset).collect())
    }

    #[test]
    fn reading_starts_with_the_batch_that_holds_the_offset_and_stops_at_the_limit() {
        let cache = TailCache::new(10_000);
        cache.append((TOPIC, 0), [batch(10, 14, 100), batch(15, 15, 100), batch(16, 19, 100)]);
        assert_eq!(offsets(cache.read((TOPIC, 0), 12, 1_000, i64::MAX)), Some(vec![10, 15, 16]));
        assert_eq!(offsets(cache.read((TOPIC, 0), 12, 200, i64::MAX)), Some(vec![10, 15]));
        assert_eq!(offsets(cache.read((TOPIC, 0), 15, 1, i64::MAX)), Some(vec![15]));
        assert_eq!(offsets(cache.read((TOPIC, 0), 9, 1_000, i64::MAX)), None);
        assert_eq!(offsets(cache.read((TOPIC, 0), 20, 1_000, i64::MAX)), None);
        assert_eq!(offsets(cache.read((TOPIC, 1), 12, 1_000, i64::MAX)), None);
        assert_eq!(offsets(cache.read((TOPIC, 0), 10, 1_000, 16)), Some(vec![10, 15]));
        assert_eq!(cache.available((TOPIC, 0), 15, usize::MAX), Some(200));
    }

    #[test]
    fn a_gap_starts_the_run_of_a_partition_anew() {
        let cache = TailCache::new(10_000);
        cache.append((TOPIC, 0), [batch(0, 4, 100)]);
        cache.append((TOPIC, 0), [batch(7, 8, 100)]);
        assert_eq!(offsets(cache.read((TOPIC, 0), 0, 1_000, i64::MAX)), None);
        assert_eq!(offsets(cache.read((TOPIC, 0), 7, 1_000, i64::MAX)), Some(vec![7]));
        assert_eq!(cache.bytes(), 100 + OVERHEAD);
    }

    #[test]
    fn the_oldest_batches_of_all_partitions_go_first() {
        let cache = TailCache::new(3 * (100 + OVERHEAD));
        cache.append((TOPIC, 0), [batch(0, 0, 100)]);
        cache.append((TOPIC, 1), [batch(0, 0, 100)]);
        cache.append((TOPIC, 0), [batch(1, 1, 100)]);
        cache.append((TOPIC, 1), [batch(1, 1, 100)]);
        assert_eq!(offsets(cache.read((TOPIC, 0), 0, 1_000, i64::MAX)), None);
        assert_eq!(offsets(cache.read((TOPIC, 0), 1, 1_000, i64::MAX)), Some(vec![1]));
        assert_eq!(offsets(cache.read((TOPIC, 1), 0, 1_000, i64::MAX)), Some(vec![0, 1]));
    }

    #[test]
    fn trimmed_and_removed_batches_give_their_bytes_back() {
        let cache = TailCache::new(100_000);
        for offset in 0..100 {
            cache.append((TOPIC, 0), [batch(offset, offset, 70)]);
        }
        cache.trim((TOPIC, 0), 99);
        assert_eq!(cache.bytes(), 70 + OVERHEAD);
        assert_eq!(offsets(cache.read((TOPIC, 0), 99, 1_000, i64::MAX)), Some(vec![99]));
        cache.remove((TOPIC, 0));
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn runs_that_start_anew_all_the_time_do_not_grow_the_list_of_ages() {
        let cache = TailCache::new(1 << 20);
        for offset in 0..100_000 {
            cache.append((TOPIC, 0), [batch(offset * 2, offset * 2, 61)]);
        }
        assert!(cache.runs.lock().ages.len() < 2_000);
    }

    #[test]
    fn the_limit_holds_whatever_is_appended() {
        let cache = TailCache::new(5_000);
        for offset in 0..1_000 {
            let partition = i32::try_from(offset % 7).expect("small");
            cache.append((TOPIC, partition), [batch(offset, offset, 500)]);
            assert!(cache.bytes() <= 5_000);
        }
        cache.append((TOPIC, 0), [batch(5_000, 5_000, 50_000)]);
        assert_eq!(cache.bytes(), 0);
    }
}
