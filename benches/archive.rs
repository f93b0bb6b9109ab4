//! The cold tier's table: how fast records are archived and read back, what they take at rest, how soon a cold seek answers.
//! `cargo bench --features archive --bench archive` uses a folder; with `-- URL [ENDPOINT]` also a bucket
//! (credentials from the environment). `PAYLOAD_MB` and `ZSTD_LEVEL` are variables of the environment. CPU is the whole process's,
//! all threads.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::Uuid;
use weir::{
    log::{
        archive::{Archive, FileOptions},
        store::{Read, StoredBatch},
    },
    model::{PartitionId, TopicId, TopicName},
    protocol::records::{BatchBuilder, BatchOptions, Codec, Compression, NewRecord, PlacedBatch},
    storage::delta::{DeltaArchive, DeltaOptions},
    tasks::Tasks,
};

/// Payload (keys and values) of one run, where `PAYLOAD_MB` does not say otherwise.
const PAYLOAD_MB: usize = 256;
const BATCH_BYTES: usize = 64 * 1024;
/// As consumers ask by default (`max.partition.fetch.bytes`).
const FETCH_BYTES: usize = 1024 * 1024;
const SEEKS: usize = 50;

/// Seconds of CPU that this process has used.
fn cpu() -> f64 {
    let mut usage = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    usage = usage.rsplit(')').next().expect("fields").to_owned();
    let ticks = |at: usize| usage.split_whitespace().nth(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// An order as a shop would send it: 200 bytes or so, of which an id, a customer, a product and a time differ.
fn order(random: &mut StdRng, offset: i64) -> Vec<u8> {
    let (customer, product) = (random.random_range(0..20_000), random.random_range(0..500));
    let (quantity, cents) = (random.random_range(1..9), random.random_range(199..99_999));
    format!(
        r#"{{"order_id":"ord-{offset:010}","customer_id":"cust-{customer:05}","product":"sku-{product:04}","quantity":{quantity},"total":{}.{:02},"currency":"EUR","status":"paid","channel":"web","created_at":"2026-11-23T10:{:02}:{:02}.{:03}Z"}}"#,
        cents / 100,
        cents % 100,
        offset / 60_000 % 60,
        offset / 1_000 % 60,
        offset % 1_000,
    )
    .into_bytes()
}

fn random_kilobyte(random: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    random.fill(bytes.as_mut_slice());
    bytes
}

struct Records {
    batches: Vec<StoredBatch>,
    payload: usize,
    end: i64,
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

fn records(json: bool) -> Records {
    let wanted = number("PAYLOAD_MB").unwrap_or(PAYLOAD_MB) * 1_000_000;
    let mut random = StdRng::seed_from_u64(7);
    let (mut batches, mut payload, mut offset) = (Vec::new(), 0, 0_i64);
    while payload < wanted {
        let options = BatchOptions { compression: Compression::new(Codec::None), ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        let base_offset = offset;
        while builder.size() < BATCH_BYTES {
            let value = if json { order(&mut random, offset) } else { random_kilobyte(&mut random) };
            let key = format!("cust-{:05}", random.random_range(0..20_000));
            payload += value.len() + key.len();
            let (key, value) = (Some(key.as_bytes()), Some(value.as_slice()));
            let timestamp = 1_795_392_000_000 + offset;
            let record = NewRecord { offset, timestamp, key, value, headers: [].into_iter() };
            builder.push(record).expect("a record");
            offset += 1;
        }
        let bytes = builder.finish().expect("a batch");
        let (last_offset, max_timestamp) = (offset - 1, 1_795_392_000_000 + offset - 1);
        let batch = PlacedBatch::split(&bytes).expect("a batch");
        batches.push(StoredBatch { base_offset, last_offset, max_timestamp, batch });
    }
    Records { batches, payload, end: offset }
}

fn mb(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

async fn run(options: &DeltaOptions, place: &str, kind: &str, records: &Records) {
    let open = || Arc::new(DeltaArchive::open(options.clone(), Tasks::new()).expect("an archive"));
    let partition = PartitionId { topic: TopicName::new("figures"), topic_id: TopicId(Uuid::new_v4()), index: 0 };
    let archive = open();

    let (begun, cpu_before) = (Instant::now(), cpu());
    let mut from = 0;
    let mut chunks = records.batches.chunks(64).peekable();
    while chunks.peek().is_some() {
        let mut copy = archive.begin(&partition, from, FileOptions::default()).await.expect("a copy");
        for chunk in chunks.by_ref() {
            copy.write(chunk).await.expect("a write");
            if copy.size_bytes() > options.file_bytes {
                break;
            }
        }
        from = copy.commit(1).await.expect("a commit").end_offset;
    }
    let (took, used) = (begun.elapsed().as_secs_f64(), cpu() - cpu_before);
    let payload = mb(records.payload);
    let size = archive.bounds(&partition).await.expect("bounds").expect("some").size_bytes;
    println!(
        "{place} {kind}: archived at {:.0} MB/s, {:.1} ms CPU per MB; {:.3} bytes at rest per payload byte",
        payload / took,
        used * 1e3 / payload,
        size as f64 / records.payload as f64
    );

    // Another broker's: nothing is cached.
    let archive = open();
    let (begun, cpu_before) = (Instant::now(), cpu());
    let mut offset = 0;
    while offset < records.end {
        let read =
            Read { offset, max_bytes: FETCH_BYTES, end_offset: i64::MAX, codec: Codec::None, in_background: false };
        let batches = archive.read(&partition, read).await.expect("a read");
        offset = batches.last().expect("a batch").last_offset + 1;
    }
    let (took, used) = (begun.elapsed().as_secs_f64(), cpu() - cpu_before);
    println!("{place} {kind}: read at {:.0} MB/s, {:.1} ms CPU per MB", payload / took, used * 1e3 / payload);

    let mut random = StdRng::seed_from_u64(11);
    let mut seeks: Vec<Duration> = Vec::new();
    for _ in 0..SEEKS {
        let archive = open();
        archive.bounds(&partition).await.expect("bounds");
        let offset = random.random_range(0..records.end);
        let begun = Instant::now();
        let read =
            Read { offset, max_bytes: FETCH_BYTES, end_offset: i64::MAX, codec: Codec::None, in_background: false };
        let batches = archive.read(&partition, read).await.expect("a read");
        seeks.push(begun.elapsed());
        assert_eq!(batches.first().expect("a batch").base_offset, offset);
    }
    seeks.sort();
    println!(
        "{place} {kind}: a cold seek answers after {:.1} ms (median), {:.1} ms (the slowest of {SEEKS})",
        seeks[SEEKS / 2].as_secs_f64() * 1e3,
        seeks[SEEKS - 1].as_secs_f64() * 1e3
    );
    archive.delete_topic(&partition.topic, partition.topic_id).await.expect("a deletion");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let url = url::Url::from_directory_path(folder.path()).expect("a URL");
    let level = number("ZSTD_LEVEL").and_then(|level| i32::try_from(level).ok());
    let mut places = vec![("folder", DeltaOptions::at(url.as_str()))];
    if let Some(url) = arguments.first() {
        let endpoint = arguments.get(1).cloned();
        places.push(("bucket", DeltaOptions { endpoint, path_style: true, ..DeltaOptions::at(url) }));
    }
    for (kind, json) in [("JSON orders", true), ("random 1 KB", false)] {
        let records = records(json);
        for (place, options) in &mut places {
            options.zstd_level = level.unwrap_or(options.zstd_level);
            runtime.block_on(run(options, place, kind, &records));
        }
    }
}
