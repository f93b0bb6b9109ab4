//! The cold tier's tables on S3, and as other programs read them. Built with the feature `archive` only.

#[path = "support/proxy.rs"]
mod proxy;
#[path = "archive/s3.rs"]
mod s3;

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use proxy::{Proxy, Weather};
use s3::{Gateway, S3, python};
use uuid::Uuid;
use weir::{
    log::{
        archive::{Archive, ArchiveError, ColdBounds, FileOptions},
        store::{Read, StoredBatch},
    },
    model::{PartitionId, TopicId, TopicName},
    protocol::records::{Batch, BatchBuilder, BatchOptions, Codec, NewRecord, PlacedBatch},
    storage::delta::{Credentials, DeltaArchive, DeltaOptions},
    tasks::Tasks,
};

const MIDNIGHT: i64 = 1_795_392_000_000;

fn options_of(port: u16) -> DeltaOptions {
    DeltaOptions {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        region: Some("us-east-1".to_owned()),
        path_style: true,
        credentials: Some(Credentials {
            access_key_id: "key".to_owned(),
            secret_access_key: "secret".to_owned(),
            session_token: None,
        }),
        request_timeout: Duration::from_secs(5),
        ..DeltaOptions::at("s3://archive/weir")
    }
}

impl S3 {
    fn options(&self) -> DeltaOptions {
        options_of(self.port)
    }

    fn archive(&self) -> Arc<DeltaArchive> {
        open(self.options())
    }
}

fn open(options: DeltaOptions) -> Arc<DeltaArchive> {
    Arc::new(DeltaArchive::open(options, Tasks::new()).expect("an archive"))
}

fn partition(index: i32) -> PartitionId {
    PartitionId { topic: TopicName::new("orders"), topic_id: TopicId(Uuid::from_u128(7)), index }
}

fn orders(offsets: std::ops::Range<i64>) -> StoredBatch {
    let (base_offset, last_offset) = (offsets.start, offsets.end - 1);
    let mut builder = BatchBuilder::new(BatchOptions { partition_leader_epoch: 1, ..BatchOptions::default() });
    for offset in offsets {
        let (key, value) = (format!("cust-{}", offset % 10), format!(r#"{{"order":{offset},"total":{}}}"#, offset % 7));
        let headers = [(&b"trace"[..], Some(&b"1"[..])), (b"\xff", None)];
        let record = NewRecord {
            offset,
            timestamp: MIDNIGHT + offset,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: headers.iter().copied(),
        };
        builder.push(record).expect("a record");
    }
    let bytes = builder.finish().expect("a batch");
    let batch = PlacedBatch::split(&bytes).expect("a batch");
    StoredBatch { base_offset, last_offset, max_timestamp: MIDNIGHT + last_offset, batch }
}

async fn copy(archive: &DeltaArchive, index: i32, offsets: std::ops::Range<i64>) -> Result<ColdBounds, ArchiveError> {
    let mut copy = archive.begin(&partition(index), offsets.start, FileOptions::default()).await?;
    copy.write(&[orders(offsets)]).await?;
    copy.commit(1).await
}

async fn read(archive: &DeltaArchive, offset: i64) -> Result<Vec<i64>, ArchiveError> {
    let read = Read { offset, max_bytes: usize::MAX, end_offset: i64::MAX, codec: Codec::None, in_background: false };
    let mut offsets = Vec::new();
    for stored in archive.read(&partition(0), read).await? {
        let batch = Batch::parse(stored.batch.to_bytes()).expect("a batch");
        offsets
            .extend(batch.records(usize::MAX).expect("records").iter().map(|record| record.expect("a record").offset));
    }
    Ok(offsets)
}

fn all(end: i64) -> Vec<i64> {
    (0..end).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_brokers_that_copy_to_a_bucket_each_range_has_one_winner() {
    let s3 = S3::start();
    let brokers = [s3.archive(), s3.archive()];
    for range in 0..5 {
        let offsets = range * 10..range * 10 + 10;
        let (one, other) = tokio::join!(copy(&brokers[0], 0, offsets.clone()), copy(&brokers[1], 0, offsets.clone()));
        let lost = [&one, &other]
            .iter()
            .filter(|done| ***done == Err(ArchiveError::Overtaken { end_offset: offsets.end }))
            .count();
        let won = [&one, &other].iter().filter(|done| done.is_ok()).count();
        assert_eq!((won, lost), (1, 1), "{one:?} {other:?}");
    }
    assert_eq!(read(&s3.archive(), 0).await, Ok(all(50)));
    for archive in &brokers {
        archive.tidy(&partition(0).topic, partition(0).topic_id, FileOptions::default()).await.expect("upkeep");
        assert_eq!(read(archive, 0).await, Ok(all(50)));
    }
    brokers[0].delete_topic(&partition(0).topic, partition(0).topic_id).await.expect("a deletion");
    assert_eq!(s3.archive().bounds(&partition(0)).await, Ok(None));
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_not_made_twice() {
    let s3 = S3::start();
    let archive = s3.archive();
    copy(&archive, 0, 0..10).await.expect("a copy");
    s3.weather("status=500&method=PUT&part=_delta_log&after=1");
    assert_eq!(copy(&archive, 0, 10..20).await.expect("a copy").end_offset, 20);
    let broker = open(DeltaOptions { retries: 0, ..s3.options() });
    s3.weather("status=500&method=PUT&part=_delta_log&after=1");
    assert_eq!(copy(&broker, 0, 20..30).await.expect("a copy").end_offset, 30);
    assert_eq!(read(&s3.archive(), 0).await, Ok(all(30)));
}

#[tokio::test]
async fn a_bucket_that_fails_is_tried_again_and_then_unavailable() {
    let s3 = S3::start();
    let archive = s3.archive();
    for (status, code) in [(500, "InternalError"), (503, "SlowDown")] {
        copy(&archive, 1, 0..10).await.expect("a copy");
        s3.weather(&format!("status={status}&code={code}&times=2"));
        assert_eq!(copy(&archive, 1, 10..20).await.expect("a copy").end_offset, 20);
        s3.weather(&format!("status={status}&code={code}&times=1000"));
        let failed = archive.bounds(&partition(1)).await;
        assert!(matches!(&failed, Err(ArchiveError::Unavailable(text)) if text.contains(code)), "{failed:?}");
        s3.weather("");
        archive.delete_topic(&partition(1).topic, partition(1).topic_id).await.expect("a deletion");
    }
}

#[tokio::test]
async fn what_only_the_operator_can_mend_is_told_apart() {
    let s3 = S3::start();
    let archive = s3.archive();
    copy(&archive, 0, 0..10).await.expect("a copy");
    for (status, code, sentence) in [
        (400, "ExpiredToken", "the credentials have expired"),
        (403, "InvalidAccessKeyId", "the access key is not known"),
        (403, "AccessDenied", "access is denied"),
    ] {
        s3.weather(&format!("status={status}&code={code}&times=1000"));
        let refused = archive.bounds(&partition(0)).await;
        assert!(matches!(&refused, Err(ArchiveError::Refused(text)) if text.starts_with(sentence)), "{refused:?}");
        let refused = copy(&archive, 0, 10..20).await;
        assert!(matches!(&refused, Err(ArchiveError::Refused(text)) if text.starts_with(sentence)), "{refused:?}");
    }
    s3.weather("");
    copy(&archive, 0, 10..20).await.expect("a copy once it is mended");

    let elsewhere = open(DeltaOptions { url: "s3://not-there/weir".to_owned(), ..s3.options() });
    for refused in [copy(&elsewhere, 0, 0..10).await.map(drop), elsewhere.bounds(&partition(0)).await.map(drop)] {
        let told =
            matches!(&refused, Err(ArchiveError::Refused(text)) if text.starts_with("the bucket does not exist"));
        assert!(told, "{refused:?}");
    }
}

#[tokio::test]
async fn a_slow_bucket_is_waited_for_and_a_silent_one_is_not() {
    let s3 = S3::start();
    let link = Proxy::to(s3.port);
    let archive = open(DeltaOptions {
        endpoint: Some(format!("http://{}", link.address)),
        request_timeout: Duration::from_millis(700),
        retries: 1,
        ..s3.options()
    });
    link.set(Weather::Slow(Duration::from_millis(100)));
    copy(&archive, 0, 0..10).await.expect("a slow copy");
    link.set(Weather::Silent);
    let begun = Instant::now();
    let silent = archive.bounds(&partition(0)).await;
    assert!(matches!(silent, Err(ArchiveError::Unavailable(_))), "{silent:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    link.set(Weather::Clear);
    link.drop_all();
    assert_eq!(read(&archive, 0).await, Ok(all(10)));
    link.set(Weather::Closed);
    link.drop_all();
    let gone = archive.bounds(&partition(0)).await;
    assert!(matches!(gone, Err(ArchiveError::Unavailable(_))), "{gone:?}");
}

#[tokio::test]
async fn a_truncated_object_is_damage_of_its_range() {
    let s3 = S3::start();
    let archive = s3.archive();
    let mut paths = Vec::new();
    for start in [0, 10, 20] {
        s3.requests();
        copy(&archive, 0, start..start + 10).await.expect("a copy");
        let made =
            s3.requests().into_iter().find(|request| request.starts_with("PUT") && request.contains("partition="));
        paths.push(made.expect("a file").trim_start_matches("PUT ").to_owned());
    }
    let bytes = s3.http("GET", &paths[1], b"");
    s3.http("PUT", &paths[1], &bytes[..bytes.len() / 2]);
    let other = s3.archive();
    assert_eq!(read(&other, 0).await, Ok(all(10)));
    let damaged = read(&other, 10).await;
    assert!(matches!(damaged, Err(ArchiveError::Damaged { start_offset: 10, end_offset: 20, .. })), "{damaged:?}");
    assert_eq!(read(&other, 20).await, Ok((20..30).collect()));
}

#[tokio::test]
async fn a_seek_reads_one_footer_and_one_row_group() {
    let s3 = S3::start();
    let archive = s3.archive();
    for start in [0, 10, 20] {
        copy(&archive, 0, start..start + 10).await.expect("a copy");
    }
    let other = s3.archive();
    other.bounds(&partition(0)).await.expect("bounds");
    s3.requests();
    let read = Read { offset: 14, max_bytes: 1, end_offset: i64::MAX, codec: Codec::None, in_background: false };
    assert_eq!(other.read(&partition(0), read).await.expect("a read")[0].base_offset, 14);
    let requests = s3.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert_eq!(requests[0], requests[1], "both of one file");
}

const LARGE_BYTES: usize = 1 << 20;

/// Values of a MiB that nothing makes smaller.
fn large(offsets: std::ops::Range<i64>) -> StoredBatch {
    let (base_offset, last_offset) = (offsets.start, offsets.end - 1);
    let mut builder = BatchBuilder::new(BatchOptions { partition_leader_epoch: 1, ..BatchOptions::default() });
    for offset in offsets {
        let headers = std::iter::empty::<(&[u8], Option<&[u8]>)>();
        let value = noise(offset);
        let record = NewRecord { offset, timestamp: MIDNIGHT + offset, key: None, value: Some(&value), headers };
        builder.push(record).expect("a record");
    }
    let batch = PlacedBatch::split(&builder.finish().expect("a batch")).expect("a batch");
    StoredBatch { base_offset, last_offset, max_timestamp: MIDNIGHT + last_offset, batch }
}

fn noise(offset: i64) -> Vec<u8> {
    let mut state = u64::try_from(offset).expect("an offset") + 1;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 16).to_le_bytes()
    });
    words.take(LARGE_BYTES / 8).flatten().collect()
}

/// Copies records in steps; before each of them something may happen.
async fn copy_large(
    archive: &DeltaArchive,
    offsets: std::ops::Range<i64>,
    mut before: impl FnMut(i64),
) -> Result<ColdBounds, ArchiveError> {
    let mut copy = archive.begin(&partition(0), offsets.start, FileOptions::default()).await?;
    for offset in offsets {
        before(offset);
        copy.write(&[large(offset..offset + 1)]).await?;
    }
    copy.commit(1).await
}

async fn assert_large(archive: &DeltaArchive, offsets: std::ops::Range<i64>) {
    let mut next = offsets.start;
    while next < offsets.end {
        let read =
            Read { offset: next, max_bytes: 4 << 20, end_offset: i64::MAX, codec: Codec::None, in_background: false };
        for stored in archive.read(&partition(0), read).await.expect("a read") {
            let batch = Batch::parse(stored.batch.to_bytes()).expect("a batch");
            for record in batch.records(usize::MAX).expect("records").iter().map(|record| record.expect("a record")) {
                if record.offset >= next {
                    assert_eq!(record.offset, next);
                    assert!(record.value == Some(&noise(next)), "the value of {next} has changed");
                    next += 1;
                }
            }
        }
    }
    assert_eq!(next, offsets.end);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_several_parts_takes_parts_that_fail() {
    let s3 = S3::start();
    let archive = s3.archive();
    s3.weather("status=503&code=SlowDown&times=2&method=PUT&part=partNumber=2");
    copy_large(&archive, 0..40, |_| ()).await.expect("a copy whose second part came the third time");
    s3.weather("status=500&method=PUT&part=partNumber=3&after=1");
    copy_large(&archive, 40..64, |_| ()).await.expect("a copy whose third part was answered the second time");
    let parts =
        s3.requests().into_iter().filter(|request| request.starts_with("PUT") && request.contains("partition="));
    assert!(parts.count() > 10, "files of several parts");
    s3.weather("status=503&code=SlowDown&times=1000&method=PUT&part=partNumber=2");
    let failed = copy_large(&archive, 64..88, |_| ()).await;
    assert!(matches!(failed, Err(ArchiveError::Unavailable(_))), "{failed:?}");
    s3.weather("");
    assert_eq!(archive.bounds(&partition(0)).await.expect("bounds").map(|bounds| bounds.end_offset), Some(64));
    copy_large(&archive, 64..88, |_| ()).await.expect("a copy");
    assert_large(&s3.archive(), 0..88).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_among_the_parts_of_a_file_has_nothing_of_it() {
    let mut server = Gateway::start();
    let archive = open(options_of(server.port));
    copy_large(&archive, 0..40, |_| ()).await.expect("a copy");
    let failed = copy_large(&archive, 40..80, |offset| {
        if offset == 70 {
            server.kill();
        }
    })
    .await;
    assert!(matches!(failed, Err(ArchiveError::Unavailable(_))), "{failed:?}");
    server.start_again();
    assert_eq!(archive.bounds(&partition(0)).await.expect("bounds").map(|bounds| bounds.end_offset), Some(40));
    copy_large(&archive, 40..80, |_| ()).await.expect("a copy");
    assert_large(&open(options_of(server.port)), 0..80).await;
}

#[tokio::test]
async fn other_programs_read_the_same_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = DeltaOptions {
        checkpoint_interval: 1,
        join_files: 2,
        ..DeltaOptions::at(url::Url::from_directory_path(folder.path()).expect("a URL").as_str())
    };
    let archive = open(options);
    for start in [0, 500, 1_000] {
        copy(&archive, 0, start..start + 500).await.expect("a copy");
    }
    copy(&archive, 3, 0..70).await.expect("a copy");
    // From here on readers begin with the checkpoint, and files are joined.
    archive.tidy(&partition(0).topic, partition(0).topic_id, FileOptions::default()).await.expect("upkeep");
    copy(&archive, 0, 1_500..1_600).await.expect("a copy");
    archive.delete_before(&partition(3), 70).await.expect("a deletion");
    let table = folder.path().join("orders").join(partition(0).topic_id.to_string());
    let ended = Command::new(python())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archive/readers.py"))
        .arg(&table)
        .output()
        .expect("the readers");
    let (told, failed) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{told}{failed}");
}
