use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    task::JoinHandle,
};

use super::*;

#[tokio::test]
async fn offsets_are_contiguous_from_zero_in_both_layouts() {
    for layout in LAYOUTS {
        let world = World::new().await;
        assert_eq!(landed(&world.append(layout, vec![batch(10, "a")]).await), [0]);
        assert_eq!(
            landed(&world.append(layout, vec![batch(1, "b"), batch(2, "c"), batch(30, "d")]).await),
            [10, 11, 13]
        );
        assert_eq!(landed(&world.append(layout, vec![batch(1, "e")]).await), [43]);
        assert_eq!(world.offsets().await, (0..44).collect::<Vec<i64>>());
        let state = world.load().await;
        assert_eq!((state.log_start_offset, state.next_offset, state.max_timestamp), (0, 44, NOW));
        assert_eq!(state.epoch_starts, [(0, 0)]);
    }
}

#[tokio::test]
async fn an_empty_log_is_empty() {
    let world = World::new().await;
    let state = world.load().await;
    assert_eq!(state, LogState { max_timestamp: -1, ..LogState::default() });
    assert!(world.read(0, 1000).await.is_empty());
    world.log.create(&world.id).await.expect("repeating it is harmless");
    let missing = PartitionId { index: 7, ..world.id.clone() };
    assert_eq!(world.log.load(&missing).await, Err(StoreError::NoSuchPartition));
    let failed = world.log.append(&missing, append(RECORD, vec![batch(1, "a")])).await;
    assert_eq!(failed.err(), Some(StoreError::NoSuchPartition));
}

#[tokio::test]
async fn a_topic_that_was_created_anew_is_another_one() {
    let world = World::new().await;
    world.append(Layout::Batch, vec![batch(10, "a")]).await;
    let anew = PartitionId { topic_id: TopicId::random(), ..world.id.clone() };
    assert!(matches!(world.log.create(&anew).await, Err(StoreError::Refused(_))));
    // The wrong id deletes nothing.
    world.log.delete(&anew).await.expect("it is harmless");
    assert_eq!(world.load().await.next_offset, 10);
    world.log.delete(&world.id).await.expect("Redis is up");
    world.log.delete(&world.id).await.expect("repeating it is harmless");
    world.log.create(&anew).await.expect("the name is free");
    for layout in LAYOUTS {
        let stale = world.log.append(&world.id, append(layout, vec![batch(1, "b")])).await;
        assert_eq!(stale.err(), Some(StoreError::NoSuchPartition));
        let stale = world.log.append(&world.id, append(layout, vec![batch(100, "b")])).await;
        assert_eq!(stale.err(), Some(StoreError::NoSuchPartition));
    }
    assert_eq!(world.log.load(&world.id).await, Err(StoreError::NoSuchPartition));
    assert_eq!(world.log.load(&anew).await.expect("it is there").next_offset, 0);
}

#[tokio::test]
async fn a_batch_is_stored_as_it_was_sent() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let world = World::new().await;
        world.append(Layout::Batch, vec![batch(3, "a")]).await;
        // Both below and above what goes through the Function.
        for count in [4, 400] {
            let records: Vec<Sent> = (0..count).map(|at| sent(NOW + at, &"x".repeat(50))).collect();
            let sent = encoded(&records, codec, None);
            let outcome = world.append(Layout::Batch, vec![sent.clone()]).await;
            let stored = outcome.batches[0].as_ref().expect("it was taken").stored.clone().expect("it is no duplicate");
            let read = world.read(stored.base_offset, 1).await;
            assert_eq!(read, [stored]);
            assert_eq!(read[0].batch.to_bytes()[17..], sent.batch().bytes()[17..]);
        }
    }
}

#[tokio::test]
async fn what_the_append_answers_is_what_is_read_back() {
    for layout in LAYOUTS {
        let world = World::new().await;
        let outcome = world.append(layout, vec![batch(2, "a"), batch(300, "b")]).await;
        let answered: Vec<Got> =
            outcome.batches.iter().flat_map(|batch| got(batch.as_ref().unwrap().stored.as_ref().unwrap())).collect();
        assert_eq!(world.records(0).await, answered);
    }
}

#[tokio::test]
async fn records_lie_in_redis_as_the_design_says() {
    let world = World::new().await;
    let order = Sent {
        key: Some(b"k1".to_vec()),
        headers: vec![(b"trace".to_vec(), Some(b"7".to_vec())), (b"none".to_vec(), None)],
        ..sent(NOW, r#"{"id":"cust-00123","total":12.50}"#)
    };
    let earlier = sent(NOW - 5, "plain");
    world.append(RECORD, vec![encoded(&[order, earlier, sent(NOW, "next")], Codec::None, None)]).await;
    let [stream, ..] = world.keys();
    assert_eq!(stream, "korvet:stream:orders:0");
    let mut connection = world.redis.connection().await;
    let entries: Vec<(String, Vec<String>)> =
        redis::cmd("XRANGE").arg(&stream).arg("-").arg("+").query_async(&mut connection).await.expect("Redis is up");
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        entries,
        [
            (
                format!("{NOW}-0"),
                words(&[
                    "__key",
                    "k1",
                    "__header.trace",
                    "7",
                    "__nullheader.none",
                    "",
                    "__json",
                    "c:sj",
                    "id",
                    "cust-00123",
                    "total",
                    "12.50"
                ])
            ),
            (format!("{NOW}-1"), words(&["__ts", "5", "value", "plain"])),
            // Kept up, so that the fields of a node stay the same.
            (format!("{NOW}-2"), words(&["__ts", "0", "value", "next"])),
        ]
    );
}

#[tokio::test]
async fn a_batchs_entry_has_the_offset_of_its_last_record() {
    let world = World::new().await;
    world.append(Layout::Batch, vec![batch(10, "a"), batch(5, "b")]).await;
    world.append(Layout::Batch, vec![batch(1, "c")]).await;
    let [stream, ..] = world.keys();
    let mut connection = world.redis.connection().await;
    let entries: Vec<(String, Vec<Vec<u8>>)> =
        redis::cmd("XRANGE").arg(&stream).arg("-").arg("+").query_async(&mut connection).await.expect("Redis is up");
    let ids: Vec<&str> = entries.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, [format!("{NOW}-9"), format!("{NOW}-14"), format!("{NOW}-15")]);
    for (_, fields) in &entries {
        assert_eq!((fields.len(), fields[0].as_slice()), (2, &b"__batch"[..]));
        assert!(Batch::parse(fields[1].clone().into()).expect("it is a batch").check_crc().is_ok());
    }
    // A native consumer group counts its lag in records.
    let info: std::collections::HashMap<String, redis::Value> =
        redis::cmd("XINFO").arg("STREAM").arg(&stream).query_async(&mut connection).await.expect("Redis is up");
    assert_eq!(info["entries-added"], redis::Value::Int(16));
}

#[tokio::test]
async fn times_come_back_as_sent_and_ids_never_go_back() {
    for layout in LAYOUTS {
        let world = World::new().await;
        let times = [-1, 0, 1, NOW, NOW - 100_000, NOW + 3, 5, -1];
        for chunk in times.chunks(2) {
            let records: Vec<Sent> = chunk.iter().map(|time| sent(*time, "x")).collect();
            world.append(layout, vec![encoded(&records, Codec::None, None)]).await;
        }
        let more: Vec<Sent> = times.iter().cycle().take(50).map(|time| sent(*time, "x")).collect();
        world.append(layout, vec![encoded(&more, Codec::None, None)]).await;
        let got: Vec<i64> = world.records(0).await.iter().map(|record| record.timestamp).collect();
        let expected: Vec<i64> = times.iter().copied().chain(times.iter().copied().cycle().take(50)).collect();
        assert_eq!(got, expected);
        assert_eq!(world.load().await.max_timestamp, NOW + 3);
    }
}

#[tokio::test]
async fn with_log_append_time_records_get_the_brokers_time() {
    for layout in LAYOUTS {
        let world = World::new().await;
        for (now, count) in [(NOW, 2), (NOW + 7, 100), (NOW + 3, 1), (NOW + 3, 100)] {
            let mut request = append(layout, vec![batch(count, "a")]);
            request.timestamp_type = TimestampType::LogAppendTime;
            request.now_ms = now;
            let outcome = world.log.append(&world.id, request).await.expect("Redis is up");
            assert_eq!(outcome.batches[0].as_ref().expect("it was taken").log_append_time_ms, now);
        }
        let batches = world.read(0, 1 << 20).await;
        let types: Vec<TimestampType> = batches
            .iter()
            .map(|batch| Batch::parse(batch.batch.to_bytes()).expect("it is a batch").header().timestamp_type())
            .collect();
        assert!(types.iter().all(|kind| *kind == TimestampType::LogAppendTime), "{types:?}");
        let times: Vec<i64> = world.records(0).await.iter().map(|record| record.timestamp).collect();
        assert_eq!(times[0], NOW);
        assert_eq!(times[2], NOW + 7);
        assert!(times[102..].iter().all(|time| *time == NOW + 3));
    }
}

#[tokio::test]
async fn a_topic_may_change_its_layout() {
    let world = World::new().await;
    for (layout, count) in [(RECORD, 3), (Layout::Batch, 3), (RECORD, 100), (Layout::Batch, 100), (RECORD, 1)] {
        world.append(layout, vec![batch(count, "a")]).await;
    }
    assert_eq!(world.offsets().await, (0..207).collect::<Vec<i64>>());
    for offset in [0, 2, 3, 5, 6, 104, 105, 106, 150, 205, 206] {
        assert_eq!(world.records(offset).await.first().map(|record| record.offset), Some(offset));
    }
}

#[tokio::test]
async fn large_appends_go_in_several_transactions() {
    let options = Options { transaction_max_entries: 100, transaction_max_bytes: 20_000, ..Options::default() };
    for layout in LAYOUTS {
        let world = World::with(options.clone()).await;
        let batches: Vec<ValidatedBatch> = (0..20).map(|_| batch(60, &"y".repeat(60))).collect();
        let outcome = world.append(layout, batches).await;
        assert_eq!(landed(&outcome), (0..20).map(|at| at * 60).collect::<Vec<i64>>());
        assert_eq!(world.offsets().await.len(), 1200);
    }
}

#[tokio::test]
async fn batches_too_large_for_one_transaction_are_refused_alone() {
    let options = Options { record_layout_max_records: 50, record_layout_max_bytes: 5_000, ..Options::default() };
    let world = World::with(options).await;
    let bomb = encoded(&vec![sent(NOW, &"0".repeat(1000)); 20], Codec::Zstd, None);
    let outcome = world.append(RECORD, vec![batch(51, "a"), batch(50, "b"), bomb.clone(), batch(1, "c")]).await;
    assert_eq!(refusal(&outcome.batches[0]), AppendRefusal::TooLarge);
    assert_eq!(outcome.batches[1].as_ref().map(|batch| batch.base_offset), Ok(0));
    assert_eq!(refusal(&outcome.batches[2]), AppendRefusal::TooLarge);
    assert_eq!(outcome.batches[3].as_ref().map(|batch| batch.base_offset), Ok(50));
    assert_eq!(landed(&world.append(Layout::Batch, vec![bomb]).await), [51]);
}

#[tokio::test]
async fn a_topic_of_json_refuses_what_is_not() {
    let world = World::new().await;
    let json = Layout::Record(ValueFormat::Json);
    let bad = encoded(&[sent(NOW, "{}"), sent(NOW, "[1]")], Codec::None, None);
    let good = encoded(&[sent(NOW, "{\"a\":1}"), Sent::default()], Codec::None, None);
    let outcome = world.append(json, vec![bad, good]).await;
    assert_eq!(refusal(&outcome.batches[0]), AppendRefusal::NotJson { record_index: 1 });
    assert_eq!(outcome.batches[1].as_ref().map(|batch| batch.base_offset), Ok(0));
}

#[tokio::test]
async fn an_older_leader_is_fenced_and_epochs_are_kept() {
    let world = World::new().await;
    for count in [1, 100] {
        world.append(Layout::Batch, vec![batch(count, "a")]).await;
    }
    for (leader_epoch, count) in [(3, 1), (5, 100)] {
        let request = Append { leader_epoch, ..append(Layout::Batch, vec![batch(count, "b")]) };
        world.log.append(&world.id, request).await.expect("a newer leader may write");
    }
    for count in [1, 100] {
        let request = Append { leader_epoch: 4, ..append(Layout::Batch, vec![batch(count, "c")]) };
        assert_eq!(world.log.append(&world.id, request).await.err(), Some(StoreError::FencedLeader(5)));
    }
    let state = world.load().await;
    assert_eq!(state.epoch_starts, [(0, 0), (3, 101), (5, 102)]);
    assert_eq!(state.leader_epoch, 5);
    let epochs: Vec<i32> = world
        .read(0, 1 << 20)
        .await
        .iter()
        .map(|batch| Batch::parse(batch.batch.to_bytes()).expect("it is a batch").header().partition_leader_epoch)
        .collect();
    assert_eq!(epochs, [0, 0, 3, 5]);
}

#[tokio::test]
async fn two_brokers_that_write_by_turns_give_each_offset_once() {
    for layout in LAYOUTS {
        let mut world = World::new().await;
        let other = world.other_broker().await;
        let writers: Vec<_> = [world.log.clone(), other]
            .into_iter()
            .enumerate()
            .map(|(writer, log)| {
                let id = world.id.clone();
                tokio::spawn(async move {
                    let mut bases = Vec::new();
                    for turn in 0..60 {
                        let count = if turn % 3 == 0 { 1 } else { 20 };
                        let name = format!("{writer}-{turn}");
                        let outcome = log.append(&id, append(layout, vec![batch(count, &name)])).await;
                        bases.push((landed(&outcome.expect("Redis is up"))[0], name));
                    }
                    bases
                })
            })
            .collect();
        let mut bases = Vec::new();
        for writer in writers {
            bases.extend(writer.await.expect("it does not panic"));
        }
        assert_eq!(world.load().await.next_offset, 2 * (20 + 40 * 20));
        let records = world.records(0).await;
        assert_eq!(records.len(), 2 * (20 + 40 * 20));
        for (base, name) in bases {
            let record = &records[usize::try_from(base).expect("it is an offset")];
            assert_eq!(record.value, Some(format!("{name}-0").into_bytes()));
            assert_eq!(record.offset, base);
        }
    }
}

#[tokio::test]
async fn the_log_counts_the_bytes_of_wire_batches() {
    for layout in LAYOUTS {
        let world = World::new().await;
        let batches = vec![batch(1, "a"), batch(200, "b")];
        let size: usize = batches.iter().map(|batch| batch.batch().bytes().len()).sum();
        let outcome = world.append(layout, batches).await;
        assert_eq!(outcome.size_bytes, u64::try_from(size).expect("it is small"));
        assert_eq!(world.load().await.size_bytes, outcome.size_bytes);
    }
}

#[tokio::test]
async fn an_append_of_very_many_batches_goes_in_steps() {
    let world = World::new().await;
    let batches: Vec<ValidatedBatch> = (0..4_500).map(|id| stamped(1, id, 0, 0)).collect();
    assert_eq!(landed(&world.append(RECORD, batches.clone()).await), (0..4_500).collect::<Vec<i64>>());
    let again = world.append(RECORD, batches).await;
    assert!(again.batches.iter().flatten().all(|batch| batch.duplicate));
    assert_eq!(again.next_offset, 4_500);
}

/// Counts the commands that name one word, from now until one names the other.
async fn calls_until(redis: &TestRedis, word: &'static [u8], end: &'static [u8]) -> JoinHandle<usize> {
    let socket = redis.url().trim_start_matches("redis+unix://").to_owned();
    let mut monitor = UnixStream::connect(socket).await.expect("Redis is up");
    monitor.write_all(b"MONITOR\r\n").await.expect("Redis is up");
    let mut lines = BufReader::new(monitor).split(b'\n');
    assert_eq!(lines.next_segment().await.expect("Redis is up").as_deref(), Some(&b"+OK\r"[..]));
    tokio::spawn(async move {
        let mut count = 0;
        while let Some(line) = lines.next_segment().await.expect("Redis is up") {
            if memchr::memmem::find(&line, end).is_some() {
                break;
            }
            count += usize::from(memchr::memmem::find(&line, word).is_some());
        }
        count
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_an_application_writes_meanwhile_a_producers_batches_land() {
    const CALLS: i64 = 20;
    for layout in LAYOUTS {
        let world = World::new().await;
        let through_function = calls_until(&world.redis, b"weir1_append", b"the end").await;
        let mut calls = redis::pipe();
        for _ in 0..CALLS {
            calls.cmd("FCALL").arg("weir_append").arg(3).arg(&world.keys()).arg(&["VALUE", "x"]).ignore();
        }
        let stop = CancellationToken::new();
        let mut applications = Vec::new();
        for _ in 0..3 {
            let (calls, stop, mut connection) = (calls.clone(), stop.clone(), world.redis.connection().await);
            applications.push(tokio::spawn(async move {
                let mut written = 0;
                while !stop.is_cancelled() {
                    calls.exec_async(&mut connection).await.expect("Redis is up");
                    written += CALLS;
                }
                written
            }));
        }
        let mut sent = 0;
        let mut places = Vec::new();
        // Several batches of one producer at a time; the longer ones do not fit into the memory that small commands are copied to.
        for (turn, count) in [1, 500, 1, 500].into_iter().enumerate() {
            let id = i64::try_from(turn).expect("it is small");
            let step = i32::try_from(count).expect("it is small");
            let batches: Vec<ValidatedBatch> = (0..4).map(|at| stamped(count, id, 0, at * step)).collect();
            places.extend(landed(&world.append(layout, batches).await).into_iter().zip((0..4).map(|at| at * step)));
            sent += 4 * i64::from(step);
        }
        stop.cancel();
        let mut written = 0;
        for application in applications {
            written += application.await.expect("it does not panic");
        }
        assert_eq!(world.load().await.next_offset, sent + written);
        for (base, sequence) in places {
            assert_eq!(world.records(base).await[0].value, Some(format!("{sequence}+0").into_bytes()), "{base}");
        }
        world.redis.command(&["PING", "the end"]).await;
        assert!(through_function.await.expect("it only counts") > 0, "nothing went through the Function");
    }
}
