//! The log on a real Redis.

mod appends;
mod archived;
mod faults;
mod foreign;
mod leaders;
mod producers;
mod reads;
mod retention;

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Options, RedisLog};
use crate::{
    clock::Clock,
    log::store::{
        Append, AppendOutcome, AppendRefusal, Appended, Layout, LogState, LogStore, Read, Retention, StoreError,
        StoredBatch, ValueFormat,
    },
    model::{PartitionId, TopicId, TopicName},
    protocol::records::{
        Batch, BatchBuilder, BatchOptions, Codec, Compression, NewRecord, ProducerStamp, TimestampType, ValidatedBatch,
        ValidationLimits, single_batch, validate,
    },
    storage::redis::{client::Client, testing::TestRedis},
};

pub(super) const RECORD: Layout = Layout::Record(ValueFormat::Auto);
pub(super) const LAYOUTS: [Layout; 2] = [RECORD, Layout::Batch];
pub(super) const NOW: i64 = 1_700_000_000_000;

/// A Redis, a broker's log on it, and one partition.
pub(super) struct World {
    pub(super) redis: TestRedis,
    pub(super) log: Arc<RedisLog>,
    pub(super) id: PartitionId,
    _supervised: Vec<DropGuard>,
}

/// A record as a consumer gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

pub(super) async fn broker(redis: &TestRedis, options: Options) -> (Arc<RedisLog>, DropGuard) {
    broker_with(redis, options, Duration::from_secs(5)).await
}

pub(super) async fn broker_with(
    redis: &TestRedis,
    options: Options,
    response_timeout: Duration,
) -> (Arc<RedisLog>, DropGuard) {
    let mut client_options = redis.options();
    client_options.response_timeout = response_timeout;
    let client = Client::connect(client_options).await.expect("Redis is up");
    let stopping = CancellationToken::new();
    tokio::spawn(client.clone().supervise(stopping.clone()));
    (Arc::new(RedisLog::new(client, Clock::fixed(NOW), options)), stopping.drop_guard())
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(super) async fn with(options: Options) -> Self {
        let redis = TestRedis::start().await;
        let (log, guard) = broker(&redis, options).await;
        let id = PartitionId { topic: TopicName::new("orders"), topic_id: TopicId::random(), index: 0 };
        log.create(&id).await.expect("Redis is up");
        World { redis, log, id, _supervised: vec![guard] }
    }

    /// Another broker on the same Redis.
    pub(super) async fn other_broker(&mut self) -> Arc<RedisLog> {
        let (log, guard) = broker(&self.redis, Options::default()).await;
        self._supervised.push(guard);
        log
    }

    pub(super) fn keys(&self) -> [String; 3] {
        let keys = &self.log.partition(&self.id).keys;
        [keys.stream.clone(), keys.state.clone(), keys.marks.clone()]
    }

    /// A Function call as an application makes it.
    pub(super) async fn call(&self, function: &str, arguments: &[&str]) -> Result<redis::Value, String> {
        let mut command = redis::cmd("FCALL");
        command.arg(function).arg(3).arg(&self.keys()).arg(arguments);
        let mut connection = self.redis.connection().await;
        command.query_async(&mut connection).await.map_err(|error| error.to_string())
    }

    pub(super) async fn append(&self, layout: Layout, batches: Vec<ValidatedBatch>) -> AppendOutcome {
        self.log.append(&self.id, append(layout, batches)).await.expect("Redis is up")
    }

    /// Once somebody else's entry was removed again. Redis 8.2 takes no ID below one that was deleted, so there it needs
    /// the repair; before, the log goes on by itself.
    pub(super) async fn append_repaired(&self, layout: Layout, batches: Vec<ValidatedBatch>) -> AppendOutcome {
        match self.log.append(&self.id, append(layout, batches.clone())).await {
            Err(StoreError::Quarantined(cause)) if cause.contains("max_deleted_entry_id") => {
                self.call("weir_repair", &[&self.id.topic_id.to_string()]).await.expect("it can be repaired");
                self.append(layout, batches).await
            }
            outcome => outcome.expect("Redis is up"),
        }
    }

    pub(super) async fn read(&self, offset: i64, max_bytes: usize) -> Vec<StoredBatch> {
        let read = Read { offset, max_bytes, end_offset: i64::MAX, codec: Codec::None, in_background: false };
        self.log.read(&self.id, read).await.expect("Redis is up")
    }

    pub(super) async fn records(&self, offset: i64) -> Vec<Got> {
        let batches = self.read(offset, 100 << 20).await;
        batches.iter().flat_map(got).filter(|record| record.offset >= offset).collect()
    }

    pub(super) async fn offsets(&self) -> Vec<i64> {
        self.records(0).await.iter().map(|record| record.offset).collect()
    }

    pub(super) async fn load(&self) -> LogState {
        self.log.load(&self.id).await.expect("Redis is up")
    }
}

pub(super) fn append(layout: Layout, batches: Vec<ValidatedBatch>) -> Append {
    Append {
        batches,
        layout,
        timestamp_type: TimestampType::CreateTime,
        now_ms: NOW,
        retention: Retention::default(),
        leader_epoch: 0,
        known_end: 0,
        producers_expire_before_ms: 0,
        behind_passed_over: HashSet::new(),
    }
}

pub(super) fn landed(outcome: &AppendOutcome) -> Vec<i64> {
    outcome.batches.iter().map(|batch| batch.as_ref().expect("it was taken").base_offset).collect()
}

/// A record to be sent; the rest of it is empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent {
    pub(super) timestamp: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

pub(super) fn sent(timestamp: i64, value: &str) -> Sent {
    Sent { timestamp, value: Some(value.as_bytes().to_vec()), ..Sent::default() }
}

pub(super) fn encoded(records: &[Sent], codec: Codec, producer: Option<ProducerStamp>) -> ValidatedBatch {
    let options = BatchOptions { compression: Compression::new(codec), producer, ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    for (offset, record) in (0..).zip(records) {
        let headers = record.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref()));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.push(NewRecord { offset, timestamp: record.timestamp, key, value, headers }).expect("it is small");
    }
    let bytes = builder.finish().expect("it has records");
    let limits = ValidationLimits {
        now: NOW,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max: i64::MAX,
        timestamp_after_max: i64::MAX,
        compacted: false,
        max_batch_bytes: 100 << 20,
        max_records: i32::MAX,
        max_decompressed_bytes: 100 << 20,
        keep_records: false,
    };
    validate(single_batch(bytes, true).expect("it was just built"), &limits).expect("it is well-formed")
}

/// `count` records of one time, with values that tell them apart.
pub(super) fn batch(count: usize, name: &str) -> ValidatedBatch {
    let records: Vec<Sent> = (0..count).map(|index| sent(NOW, &format!("{name}-{index}"))).collect();
    encoded(&records, Codec::None, None)
}

/// A batch of an idempotent producer.
pub(super) fn stamped(count: usize, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> ValidatedBatch {
    let records: Vec<Sent> = (0..count).map(|index| sent(NOW, &format!("{base_sequence}+{index}"))).collect();
    encoded(&records, Codec::None, Some(ProducerStamp { producer_id, producer_epoch, base_sequence }))
}

pub(super) fn got(stored: &StoredBatch) -> Vec<Got> {
    let batch = Batch::parse(stored.batch.to_bytes()).expect("a consumer can read it");
    batch.check_crc().expect("the checksum is right");
    assert_eq!(batch.header().base_offset, stored.base_offset);
    assert_eq!(batch.header().last_offset(), stored.last_offset);
    assert_eq!(batch.header().max_timestamp, stored.max_timestamp);
    let records = batch.records(100 << 20).expect("a consumer can read it");
    records
        .iter()
        .map(|record| record.expect("a consumer can read it"))
        .map(|record| Got {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
        })
        .collect()
}

pub(super) fn refusal(batch: &Result<Appended, AppendRefusal>) -> AppendRefusal {
    *batch.as_ref().expect_err("it is refused")
}

pub(super) fn is_quarantined<T: std::fmt::Debug>(result: &Result<T, StoreError>, word: &str) {
    match result {
        Err(StoreError::Quarantined(cause)) => assert!(cause.contains(word), "{cause} lacks {word}"),
        other => panic!("not quarantined: {other:?}"),
    }
}
