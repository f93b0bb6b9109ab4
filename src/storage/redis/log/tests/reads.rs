use proptest::prelude::*;

use super::*;

pub(super) async fn thousand(layout: Layout) -> World {
    let world = World::new().await;
    for start in (0..1000).step_by(50) {
        let records: Vec<Sent> = (start..start + 50).map(|at| sent(NOW + at / 7, &format!("{at:0>100}"))).collect();
        world.append(layout, vec![encoded(&records, Codec::None, None)]).await;
    }
    world
}

#[tokio::test]
async fn a_read_begins_with_the_batch_that_holds_the_offset() {
    for layout in LAYOUTS {
        let world = thousand(layout).await;
        for offset in [0, 1, 49, 50, 51, 499, 777, 998, 999] {
            let batches = world.read(offset, 1).await;
            assert_eq!(batches.len(), 1, "the first batch is always returned");
            assert!(batches[0].base_offset <= offset && offset <= batches[0].last_offset);
        }
        assert!(world.read(1000, 1000).await.is_empty());
    }
}

/// How often Redis was asked for entries.
async fn ranges_asked(world: &World) -> usize {
    let mut connection = world.redis.connection().await;
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.expect("it is up");
    let line = stats.lines().find(|line| line.starts_with("cmdstat_xrange:")).unwrap_or("calls=0,");
    let calls = line.split_once("calls=").and_then(|(_, rest)| rest.split_once(',')).expect("a count").0;
    calls.parse().expect("a number")
}

#[tokio::test]
async fn what_a_sequential_reader_asks_for_next_is_read_ahead_and_not_read_again() {
    for layout in LAYOUTS {
        let world = thousand(layout).await;
        let first = world.read(0, 20_000).await;
        let second = world.read(first.last().expect("there are some").last_offset + 1, 20_000).await;
        assert!(world.log.partition(&world.id).view.lock().ahead.is_some());
        let asked = ranges_asked(&world).await;
        let third = world.read(second.last().expect("there are some").last_offset + 1, 20_000).await;
        assert!(ranges_asked(&world).await <= asked + 1, "what comes after it is asked for, not it");
        let offsets: Vec<i64> = [first, second, third].iter().flatten().flat_map(got).map(|got| got.offset).collect();
        assert_eq!(offsets, (0..i64::try_from(offsets.len()).expect("few")).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_is_read_ahead_holds_up_nobody_who_reads_elsewhere() {
    let world = thousand(Layout::Batch).await;
    let first = world.read(0, 20_000).await;
    world.read(first.last().expect("there are some").last_offset + 1, 20_000).await;
    // More than there are connections, which are made only now; the reader before never comes back.
    for _ in 0..8 {
        let read = tokio::time::timeout(Duration::from_secs(20), world.read(0, 1_000)).await;
        assert!(read.is_ok_and(|batches| !batches.is_empty()));
    }
}

#[tokio::test]
async fn what_was_read_ahead_is_not_given_out_once_it_was_deleted() {
    for layout in LAYOUTS {
        let world = thousand(layout).await;
        let first = world.read(0, 20_000).await;
        let second = world.read(first.last().expect("there are some").last_offset + 1, 20_000).await;
        let next = second.last().expect("there are some").last_offset + 1;
        assert!(world.log.partition(&world.id).view.lock().ahead.is_some());
        world.log.delete_records(&world.id, 900).await.expect("Redis is up");
        let read = world.read(next, 20_000).await;
        assert_eq!(read.first().map(|batch| batch.last_offset >= 900), Some(true));
    }
}

#[tokio::test]
async fn a_read_keeps_to_its_bytes_and_the_next_goes_on() {
    for layout in LAYOUTS {
        let world = thousand(layout).await;
        let mut offset = 0;
        let mut reads = 0;
        while offset < 1000 {
            let batches = world.read(offset, 20_000).await;
            let bytes: usize = batches.iter().map(|batch| batch.size()).sum();
            assert!(bytes <= 20_000, "{bytes}");
            assert_eq!(batches[0].base_offset, offset);
            offset = batches.last().expect("there are more").last_offset + 1;
            reads += 1;
        }
        assert!(reads < 12, "{reads}");
    }
}

#[tokio::test]
async fn records_are_compressed_as_the_reader_asks() {
    let world = thousand(RECORD).await;
    let plain = world.records(0).await;
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let read = Read { offset: 0, max_bytes: 1 << 20, end_offset: i64::MAX, codec, in_background: false };
        let batches = world.log.read(&world.id, read).await.expect("Redis is up");
        assert_eq!(Batch::parse(batches[0].batch.to_bytes()).expect("it is a batch").header().codec(), Ok(codec));
        assert_eq!(batches.iter().flat_map(got).collect::<Vec<_>>(), plain);
    }
}

#[tokio::test]
async fn any_offset_is_found_without_a_cursor() {
    for layout in LAYOUTS {
        let mut world = World::new().await;
        // Marks lie closer where little is kept.
        for start in (0..3000).step_by(30) {
            let records: Vec<Sent> = (start..start + 30).map(|at| sent(NOW + at / 11 * 5, &"z".repeat(50))).collect();
            let mut request = append(layout, vec![encoded(&records, Codec::None, None)]);
            request.retention.max_bytes = Some(1 << 40);
            world.log.append(&world.id, request).await.expect("Redis is up");
        }
        let other = world.other_broker().await;
        for offset in (0..3000).step_by(101) {
            let read = Read { offset, max_bytes: 1, end_offset: i64::MAX, codec: Codec::None, in_background: false };
            let batches = other.read(&world.id, read).await.expect("Redis is up");
            assert!(batches[0].base_offset <= offset && offset <= batches[0].last_offset, "{offset}");
            assert!(layout == Layout::Batch || batches[0].base_offset == offset);
        }
    }
}

#[tokio::test]
async fn marks_lead_to_any_offset_of_a_large_log() {
    for layout in LAYOUTS {
        let mut world = World::new().await;
        for _ in 0..12 {
            let batches: Vec<ValidatedBatch> = (0..4).map(|_| batch(100, &"m".repeat(1000))).collect();
            world.append(layout, batches).await;
        }
        let [_, _, marks] = world.keys();
        let redis::Value::Int(count) = world.redis.command(&["ZCARD", &marks]).await else { panic!("no count") };
        assert!((2..=5).contains(&count), "{count} marks");
        let other = world.other_broker().await;
        for offset in (0..4800).step_by(331) {
            let read = Read { offset, max_bytes: 1, end_offset: i64::MAX, codec: Codec::None, in_background: false };
            let batches = other.read(&world.id, read).await.expect("Redis is up");
            assert!(batches[0].base_offset <= offset && offset <= batches[0].last_offset, "{offset}");
        }
        assert_eq!(world.offsets().await.len(), 4800);
    }
}

#[tokio::test]
async fn a_time_is_found_down_to_the_record() {
    for layout in LAYOUTS {
        let world = World::new().await;
        for times in [&[10, 50, 30][..], &[40, 60], &[60, 20, 70]] {
            let records: Vec<Sent> = times.iter().map(|time| sent(*time, "x")).collect();
            world.append(layout, vec![encoded(&records, Codec::Lz4, None)]).await;
        }
        for (wanted, offset, timestamp) in
            [(-5, 0, 10), (10, 0, 10), (11, 1, 50), (50, 1, 50), (51, 4, 60), (61, 7, 70), (70, 7, 70)]
        {
            let found = world.log.find_timestamp(&world.id, wanted).await.expect("Redis is up");
            assert_eq!(found.map(|found| (found.offset, found.timestamp)), Some((offset, timestamp)), "{wanted}");
        }
        assert_eq!(world.log.find_timestamp(&world.id, 71).await, Ok(None));
        let largest = world.log.find_max_timestamp(&world.id).await.expect("Redis is up");
        assert_eq!(largest.map(|found| (found.offset, found.timestamp)), Some((7, 70)));
    }
}

#[tokio::test]
async fn a_time_is_found_after_the_largest_was_removed() {
    for layout in LAYOUTS {
        let world = World::new().await;
        // The first record is ahead of its time: all IDs after it have its left half.
        for time in [1000, 10, 30, 20, 30] {
            world.append(layout, vec![encoded(&[sent(time, "x")], Codec::None, None)]).await;
        }
        assert_eq!(world.log.find_max_timestamp(&world.id).await.expect("Redis is up").map(|f| f.offset), Some(0));
        assert_eq!(world.log.delete_records(&world.id, 1).await, Ok(1));
        let at = async |time| {
            let found = world.log.find_timestamp(&world.id, time).await.expect("Redis is up");
            found.map(|found| (found.offset, found.timestamp))
        };
        assert_eq!(at(5).await, Some((1, 10)));
        assert_eq!(at(15).await, Some((2, 30)));
        assert_eq!(at(31).await, None);
        for _ in 0..2 {
            let largest = world.log.find_max_timestamp(&world.id).await.expect("Redis is up");
            assert_eq!(largest.map(|found| (found.offset, found.timestamp)), Some((2, 30)));
        }
        world.append(layout, vec![encoded(&[sent(40, "x")], Codec::None, None)]).await;
        let largest = world.log.find_max_timestamp(&world.id).await.expect("Redis is up");
        assert_eq!(largest.map(|found| (found.offset, found.timestamp)), Some((5, 40)));
        world.log.delete_records(&world.id, 6).await.expect("Redis is up");
        assert_eq!(world.log.find_max_timestamp(&world.id).await, Ok(None));
        assert_eq!(world.log.find_timestamp(&world.id, 0).await, Ok(None));
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..30),
        r#"\{"a": ?("x"|1),? ?"b":\[\]\}"#.prop_map(String::into_bytes),
    ]
}

fn any_record() -> impl Strategy<Value = Sent> {
    (
        -1_i64..2_000_000_000_000,
        proptest::option::of(bytes()),
        proptest::option::of(bytes()),
        proptest::collection::vec((bytes(), proptest::option::of(bytes())), 0..4),
    )
        .prop_map(|(timestamp, key, value, headers)| Sent { timestamp, key, value, headers })
}

#[test]
fn any_records_come_back_through_redis_as_they_were() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let world = runtime.block_on(World::new());
    let strategy = proptest::collection::vec(proptest::collection::vec(any_record(), 1..20), 1..4);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(60));
    let ran = runner.run(&strategy, |batches| {
        for layout in LAYOUTS {
            let before = runtime.block_on(world.load()).next_offset;
            let request: Vec<ValidatedBatch> = batches.iter().map(|batch| encoded(batch, Codec::None, None)).collect();
            runtime.block_on(world.append(layout, request));
            let got = runtime.block_on(world.records(before));
            let sent: Vec<&Sent> = batches.iter().flatten().collect();
            prop_assert_eq!(got.len(), sent.len());
            for ((got, sent), offset) in got.iter().zip(sent).zip(before..) {
                prop_assert_eq!(got.offset, offset);
                prop_assert_eq!(got.timestamp, sent.timestamp);
                prop_assert_eq!(&got.key, &sent.key);
                prop_assert_eq!(&got.value, &sent.value);
                prop_assert_eq!(&got.headers, &sent.headers);
            }
        }
        Ok(())
    });
    ran.unwrap_or_else(|failure| panic!("{failure}"));
}
