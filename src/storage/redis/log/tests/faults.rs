use std::process::Command;

use super::*;

#[tokio::test]
async fn missing_functions_are_loaded_and_nothing_is_lost() {
    for layout in LAYOUTS {
        for count in [1, 100] {
            let world = World::new().await;
            world.append(layout, vec![batch(count, "a")]).await;
            world.redis.command(&["FUNCTION", "FLUSH"]).await;
            let base = i64::try_from(count).expect("it is small");
            assert_eq!(landed(&world.append(layout, vec![batch(count, "b")]).await), [base]);
            assert_eq!(world.offsets().await.len(), 2 * count);
        }
    }
}

#[tokio::test]
async fn a_transaction_without_a_guard_writes_nothing() {
    let world = World::new().await;
    world.append(Layout::Batch, vec![batch(10, "a")]).await;
    let [stream, state, marks] = world.keys();
    let mut pipeline = redis::pipe();
    pipeline.atomic().ignore_errors();
    pipeline.cmd("XSETID").arg(&stream).arg("18446744073709551615-18446744073709551615");
    pipeline.cmd("FCALL").arg("weir1_guard").arg(3).arg(&stream).arg(&state).arg(&marks);
    pipeline.arg("a stale core").arg("0-0").arg(1);
    pipeline.cmd("XADD").arg(&stream).arg("NOMKSTREAM").arg("1900000000000-10").arg("value").arg("x");
    let mut seal = redis::cmd("FCALL");
    seal.arg("weir1_seal")
        .arg(3)
        .arg(&stream)
        .arg(&state)
        .arg(&marks)
        .arg(1)
        .arg("c")
        .arg("1-1")
        .arg("")
        .arg("")
        .arg("");
    seal.arg("").arg("w:x").arg("1 1 1");
    pipeline.add_command(seal);
    let mut connection = world.redis.connection().await;
    let answers: Vec<redis::Value> = pipeline.query_async(&mut connection).await.expect("Redis is up");
    assert!(matches!(answers[2], redis::Value::ServerError(_)), "{answers:?}");
    assert_eq!(answers[3], redis::Value::Nil);
    // Refused, the stream is open again as it was.
    assert_eq!(landed(&world.append(Layout::Batch, vec![batch(10, "b")]).await), [10]);
    // Without the library it stays closed, until the next good append.
    world.redis.command(&["FUNCTION", "FLUSH"]).await;
    let answers: Vec<redis::Value> = pipeline.query_async(&mut connection).await.expect("Redis is up");
    assert!(matches!(answers[2], redis::Value::ServerError(_)), "{answers:?}");
    assert_eq!(landed(&world.append(Layout::Batch, vec![batch(10, "c")]).await), [20]);
    assert_eq!(world.offsets().await, (0..30).collect::<Vec<i64>>());
}

#[tokio::test]
async fn a_half_batch_is_taken_back() {
    let world = World::new().await;
    world.append(RECORD, vec![batch(10, "a")]).await;
    let [stream, state, marks] = world.keys();
    let mut connection = world.redis.connection().await;
    let core: String =
        redis::cmd("HGET").arg(&state).arg("core").query_async(&mut connection).await.expect("Redis is up");
    let mut pipeline = redis::pipe();
    pipeline.atomic().ignore_errors();
    pipeline.cmd("XSETID").arg(&stream).arg("18446744073709551615-18446744073709551615");
    pipeline.cmd("FCALL").arg("weir1_guard").arg(3).arg(&stream).arg(&state).arg(&marks);
    pipeline.arg(&core).arg(format!("{NOW}-9")).arg(10);
    pipeline.cmd("XADD").arg(&stream).arg("NOMKSTREAM").arg(format!("{NOW}-10")).arg("value").arg("x");
    pipeline.cmd("XADD").arg(&stream).arg("NOMKSTREAM").arg(format!("{NOW}-10")).arg("value").arg("refused");
    pipeline.cmd("XADD").arg(&stream).arg("NOMKSTREAM").arg(format!("{NOW}-12")).arg("value").arg("x");
    let mut seal = redis::cmd("FCALL");
    seal.arg("weir1_seal")
        .arg(3)
        .arg(&stream)
        .arg(&state)
        .arg(&marks)
        .arg(3)
        .arg("c")
        .arg("1-1")
        .arg("")
        .arg("")
        .arg("");
    seal.arg("").arg("w:x").arg("1 1 1");
    pipeline.add_command(seal);
    let answers: Vec<redis::Value> = pipeline.query_async(&mut connection).await.expect("Redis is up");
    assert_eq!(answers[5], redis::Value::Nil, "{answers:?}");
    assert_eq!(world.load().await.next_offset, 10);
    assert_eq!(landed(&world.append(RECORD, vec![batch(10, "b")]).await), [10]);
    assert_eq!(world.offsets().await, (0..20).collect::<Vec<i64>>());
}

#[tokio::test]
async fn after_a_restart_without_data_loss_the_log_goes_on() {
    for layout in LAYOUTS {
        let mut world = World::new().await;
        world.append(layout, vec![stamped(10, 9, 0, 0)]).await;
        world.redis.command(&["SAVE"]).await;
        world.redis.restart().await;
        let outcome = loop {
            // The first may find that the connection is gone.
            match world.log.append(&world.id, append(layout, vec![stamped(10, 9, 0, 0), batch(100, "b")])).await {
                Ok(outcome) => break outcome,
                Err(StoreError::NotSent(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(landed(&outcome), [0, 10]);
        assert!(outcome.batches[0].as_ref().expect("it is known").duplicate);
        assert_eq!(world.offsets().await, (0..110).collect::<Vec<i64>>());
    }
}

#[tokio::test]
async fn after_redis_lost_records_the_log_goes_on_from_what_is_left() {
    for layout in LAYOUTS {
        let mut world = World::new().await;
        world.append(layout, vec![stamped(10, 9, 0, 0)]).await;
        world.redis.command(&["SAVE"]).await;
        world.append(layout, vec![stamped(10, 9, 0, 10), stamped(10, 8, 0, 0)]).await;
        world.redis.restart().await;
        let state = loop {
            match world.log.load(&world.id).await {
                Ok(state) => break state,
                Err(StoreError::NotSent(_) | StoreError::OutcomeUnknown(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(state.next_offset, 10);
        // A batch behind one that may come yet does not take its place.
        let request = Append { behind_passed_over: [0].into(), ..append(layout, vec![stamped(5, 9, 0, 15)]) };
        let outcome = world.log.append(&world.id, request).await.expect("Redis is up");
        assert_eq!(refusal(&outcome.batches[0]), AppendRefusal::OutOfOrderSequence);
        // What was lost is not taken for a repetition.
        let outcome = world.append(layout, vec![stamped(10, 9, 0, 10), stamped(10, 8, 0, 0)]).await;
        assert_eq!(landed(&outcome), [10, 20]);
        assert!(outcome.batches.iter().flatten().all(|batch| !batch.duplicate));
        assert_eq!(world.offsets().await, (0..30).collect::<Vec<i64>>());
    }
}

/// Stops the server's process for as long as `work` runs, then lets it go on.
async fn while_stopped<T>(redis: &TestRedis, work: impl Future<Output = T>) -> T {
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, &redis.process_id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()));
    };
    signal("-STOP");
    let done = work.await;
    signal("-CONT");
    done
}

#[tokio::test]
async fn a_lost_answer_is_resolved_and_the_append_stored_once() {
    for layout in LAYOUTS {
        for count in [1, 100] {
            let mut world = World::new().await;
            let (log, guard) = broker_with(&world.redis, Options::default(), Duration::from_millis(600)).await;
            world._supervised.push(guard);
            log.load(&world.id).await.expect("Redis is up");
            let base = world.append(layout, vec![batch(1, "before")]).await.next_offset;
            log.load(&world.id).await.expect("Redis is up");
            // The answer times out while the server sleeps; the command waits in its socket and runs when it wakes.
            let (id, request) = (world.id.clone(), append(layout, vec![batch(count, "lost")]));
            let mut appending = None;
            while_stopped(&world.redis, async {
                let log_of_task = log.clone();
                appending = Some(tokio::spawn(async move { log_of_task.append(&id, request).await }));
                while log.nodes.of("").generation().is_some() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
            let outcome = appending.expect("it was begun").await.expect("it does not panic").expect("Redis is back");
            assert_eq!(landed(&outcome), [base]);
            assert_eq!(world.load().await.next_offset, base + i64::try_from(count).expect("it is small"));
            assert_eq!(world.offsets().await.len(), count + 1);
        }
    }
}

#[tokio::test]
async fn an_append_that_comes_late_after_it_was_given_up_writes_nothing() {
    let world = World::new().await;
    world.append(RECORD, vec![batch(10, "a")]).await;
    let [_, state, _] = world.keys();
    let mut connection = world.redis.connection().await;
    let core: String =
        redis::cmd("HGET").arg(&state).arg("core").query_async(&mut connection).await.expect("Redis is up");
    let topic = world.id.topic_id.to_string();
    world.call("weir1_resolve", &[&topic, "w:x", "1", "5"]).await.expect("it is void");
    let guard = world.call("weir1_guard", &[&core, &format!("{NOW}-9"), "10"]).await.expect("it answers");
    assert!(matches!(&guard, redis::Value::Array(parts) if parts[0] == redis::Value::BulkString(b"stale".to_vec())));
    let late =
        ["0", "w:x", "1", "5", "1000", "100", "", "1", "", "", "", "80", "r", "1", "", "", "5", "2", "value", "x"];
    let late: Vec<&str> = std::iter::once(topic.as_str()).chain(late).collect();
    let answer = world.call("weir1_append", &late).await.expect("it answers");
    assert!(matches!(&answer, redis::Value::Array(parts) if parts[0] == redis::Value::BulkString(b"spent".to_vec())));
    assert_eq!(world.load().await.next_offset, 10);
}

#[tokio::test]
async fn out_of_memory_is_told_and_nothing_happened() {
    for layout in LAYOUTS {
        for count in [1, 100] {
            let world = World::new().await;
            world.append(layout, vec![batch(10, "a")]).await;
            world.redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
            let failed = world.log.append(&world.id, append(layout, vec![batch(count, "b")])).await;
            assert_eq!(failed.err(), Some(StoreError::OutOfMemory), "{layout:?} {count}");
            // Reading and trimming still work.
            assert_eq!(world.load().await.next_offset, 10);
            assert_eq!(world.log.delete_records(&world.id, 5).await, Ok(5));
            world.redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
            assert_eq!(landed(&world.append(layout, vec![batch(count, "b")]).await), [10]);
        }
    }
}

#[tokio::test]
async fn an_unreachable_redis_is_told() {
    let mut world = World::with(Options { resolve_patience: Duration::ZERO, ..Options::default() }).await;
    world.append(RECORD, vec![batch(1, "a")]).await;
    world.redis.kill();
    let failed = loop {
        match world.log.append(&world.id, append(RECORD, vec![batch(1, "b")])).await {
            Err(StoreError::OutcomeUnknown(_)) => tokio::task::yield_now().await,
            other => break other,
        }
    };
    assert!(matches!(failed, Err(StoreError::NotSent(_))), "{failed:?}");
}

/// Sends a batch until it is answered, as a client does.
async fn send(log: &RedisLog, id: &PartitionId, layout: Layout, batch: ValidatedBatch) -> Appended {
    loop {
        match log.append(id, append(layout, vec![batch.clone()])).await {
            Ok(outcome) => return outcome.batches.into_iter().next().expect("one answer").expect("it is in order"),
            Err(StoreError::NotSent(_) | StoreError::OutcomeUnknown(_) | StoreError::NotReady(_)) => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_connections_break_each_batch_is_stored_once_and_in_order() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let mut world = World::new().await;
    let brokers = [world.log.clone(), world.other_broker().await, world.other_broker().await];
    let mut senders = Vec::new();
    for producer in 0..6_i64 {
        let (log, id) = (brokers[usize::try_from(producer % 3).expect("it is small")].clone(), world.id.clone());
        let layout = LAYOUTS[usize::try_from(producer % 2).expect("it is small")];
        let counts: Vec<usize> = (0..40).map(|_| rand::Rng::random_range(&mut random, 1..30)).collect();
        senders.push(tokio::spawn(async move {
            let mut sequence = 0;
            for count in counts {
                let records: Vec<Sent> = (sequence..)
                    .take(count)
                    .map(|sequence| Sent {
                        key: Some(producer.to_string().into_bytes()),
                        ..sent(NOW, &sequence.to_string())
                    })
                    .collect();
                let stamp = ProducerStamp { producer_id: producer, producer_epoch: 0, base_sequence: sequence };
                send(&log, &id, layout, encoded(&records, Codec::None, Some(stamp))).await;
                sequence += i32::try_from(count).expect("it is small");
            }
            sequence
        }));
    }
    // Breaks every connection again and again, and sometimes takes the Functions away.
    let mut turn = 0;
    while !senders.iter().all(tokio::task::JoinHandle::is_finished) {
        world.redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        turn += 1;
        if turn % 5 == 0 {
            world.redis.command(&["FUNCTION", "FLUSH"]).await;
        }
        tokio::time::sleep(Duration::from_millis(rand::Rng::random_range(&mut random, 1..25))).await;
    }
    let mut sent_by = Vec::new();
    for sender in senders {
        sent_by.push(sender.await.expect("it does not panic"));
    }
    let (log, _guard) = broker(&world.redis, Options::default()).await;
    let end = log.load(&world.id).await.expect("Redis is up").next_offset;
    assert_eq!(end, sent_by.iter().map(|count| i64::from(*count)).sum::<i64>());
    let read = Read { offset: 0, max_bytes: 100 << 20, end_offset: i64::MAX, codec: Codec::None, in_background: false };
    let records: Vec<Got> = log.read(&world.id, read).await.expect("Redis is up").iter().flat_map(got).collect();
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), (0..end).collect::<Vec<i64>>());
    for (producer, count) in sent_by.iter().enumerate() {
        let key = producer.to_string().into_bytes();
        let values: Vec<String> = records
            .iter()
            .filter(|record| record.key.as_ref() == Some(&key))
            .map(|record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned())
            .collect();
        assert_eq!(values, (0..*count).map(|sequence| sequence.to_string()).collect::<Vec<_>>());
    }
}
