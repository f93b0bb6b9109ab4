//! What an append costs Redis: CPU time of the server per batch, beside plain `XADD`s of the same entries.
//! `cargo bench --bench append` starts a server of its own; the machine is noisy, so compare within one run.

use std::{
    collections::HashSet,
    process::{Child, Command, Stdio},
    time::Duration,
};

use redis::aio::MultiplexedConnection;
use weir::{
    clock::Clock,
    log::store::{Append, Layout, LogStore, Read, Retention, ValueFormat},
    model::{PartitionId, TopicId, TopicName},
    protocol::records::{
        BatchBuilder, BatchOptions, Codec, NewRecord, ProducerStamp, TimestampType, ValidatedBatch, ValidationLimits,
        single_batch, validate,
    },
    storage::redis::{
        client::{Client, Options},
        keys::Keyspace,
        log::{self, RedisLog},
    },
};

struct Server(Child, tempfile::TempDir);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket", "s", "--stream-node-max-bytes", "16384"])
            .args(["--stream-node-max-entries", "400"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        Self(server, folder)
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.1.path().join("s").display())
    }
}

/// Microseconds of CPU that the server has used.
async fn cpu(connection: &mut MultiplexedConnection) -> f64 {
    let info: String = redis::cmd("INFO").arg("cpu").query_async(connection).await.expect("Redis is up");
    let seconds = |name: &str| -> f64 {
        info.lines().find_map(|line| line.strip_prefix(name)).and_then(|text| text.parse().ok()).unwrap_or(0.0)
    };
    (seconds("used_cpu_user_main_thread:") + seconds("used_cpu_sys_main_thread:")) * 1e6
}

fn batch(records: i32, value: &[u8], sequence: Option<i32>) -> ValidatedBatch {
    let producer = sequence.map(|base_sequence| ProducerStamp { producer_id: 1, producer_epoch: 0, base_sequence });
    let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
    for offset in 0..i64::from(records) {
        let headers = std::iter::empty();
        let record = NewRecord { offset, timestamp: 1_700_000_000_000, key: None, value: Some(value), headers };
        builder.push(record).expect("it is small");
    }
    let limits = ValidationLimits {
        now: 1_700_000_000_000,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max: i64::MAX,
        timestamp_after_max: i64::MAX,
        compacted: false,
        max_batch_bytes: usize::MAX,
        max_records: i32::MAX,
        max_decompressed_bytes: usize::MAX,
        keep_records: false,
    };
    validate(single_batch(builder.finish().expect("it has records"), true).expect("one batch"), &limits)
        .expect("it is valid")
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = Server::start();
    let options = Options {
        url: server.url(),
        keyspace: Keyspace::new("bench").expect("a legal keyspace"),
        readers: 2,
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(60),
    };
    let client = loop {
        match Client::connect(options.clone()).await {
            Ok(client) => break client,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let raw = redis::Client::open(server.url()).expect("a legal URL");
    let mut connection = raw.get_multiplexed_async_connection().await.expect("Redis is up");
    let logs = RedisLog::new(client, Clock::system(), log::Options::default());

    let order = br#"{"id":"cust-00123","total":12.50,"currency":"EUR","items":[1,2,3],"state":"paid","at":1700000000}"#;
    let wide = {
        let fields: Vec<String> = (0..60).map(|field| format!("\"field{field}\":\"v{field}\"")).collect();
        format!("{{{}}}", fields.join(","))
    };
    let cases: [(&str, i32, &[u8], u32); 9] = [
        ("1 x 100 B", 1, &[b'x'; 100], 4000),
        ("5 x 100 B", 5, &[b'x'; 100], 3000),
        ("6 x 100 B", 6, &[b'x'; 100], 3000),
        ("150 x 100 B", 150, &[b'x'; 100], 600),
        ("16 x 1 KB", 16, &[b'x'; 1000], 1500),
        ("128 x 1 KB", 128, &[b'x'; 1000], 300),
        ("100 x JSON of 6 fields", 100, order, 500),
        ("5,000 x JSON of 60 fields", 5_000, wide.as_bytes(), 4),
        ("10,000 x 100 B", 10_000, &[b'x'; 100], 10),
    ];
    println!("CPU of Redis, us per batch                 plain XADD     record      batch   read: record   batch");
    for (name, records, value, turns) in cases {
        let mut figures = Vec::new();
        let started = cpu(&mut connection).await;
        for _ in 0..turns {
            let mut pipeline = redis::pipe();
            for _ in 0..records {
                pipeline.cmd("XADD").arg("plain").arg("*").arg("value").arg(value).ignore();
            }
            pipeline.exec_async(&mut connection).await.expect("Redis is up");
        }
        figures.push((cpu(&mut connection).await - started) / f64::from(turns));
        redis::cmd("UNLINK").arg("plain").exec_async(&mut connection).await.expect("Redis is up");
        let mut reads = Vec::new();
        for layout in [Layout::Record(ValueFormat::Auto), Layout::Batch] {
            let id = PartitionId { topic: TopicName::new("t"), topic_id: TopicId::random(), index: 0 };
            logs.create(&id).await.expect("Redis is up");
            let mut sequence = 0;
            let started = cpu(&mut connection).await;
            for _ in 0..turns {
                let append = Append {
                    batches: vec![batch(records, value, Some(sequence))],
                    layout,
                    timestamp_type: TimestampType::CreateTime,
                    now_ms: 1_700_000_000_000,
                    retention: Retention::default(),
                    leader_epoch: 0,
                    known_end: 0,
                    producers_expire_before_ms: 0,
                    behind_passed_over: HashSet::new(),
                };
                sequence += records;
                let outcome = logs.append(&id, append).await.expect("Redis is up");
                assert!(outcome.batches.iter().all(Result::is_ok), "{:?}", outcome.batches);
            }
            figures.push((cpu(&mut connection).await - started) / f64::from(turns));
            let started = cpu(&mut connection).await;
            let mut offset = 0;
            loop {
                let read =
                    Read { offset, max_bytes: 1 << 20, end_offset: i64::MAX, codec: Codec::None, in_background: false };
                let batches = logs.read(&id, read).await.expect("Redis is up");
                let Some(last) = batches.last() else { break };
                offset = last.last_offset + 1;
            }
            assert_eq!(offset, i64::from(records) * i64::from(turns));
            reads.push((cpu(&mut connection).await - started) / f64::from(turns));
            logs.delete(&id).await.expect("Redis is up");
        }
        figures.extend(reads);
        let columns: Vec<String> = figures.iter().map(|figure| format!("{figure:>10.1}")).collect();
        println!("{name:<42} {}", columns.join(" "));
    }
}
