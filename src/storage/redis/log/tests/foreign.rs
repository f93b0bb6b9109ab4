use super::*;

#[tokio::test]
async fn an_entry_that_somebody_added_is_noticed_and_never_read() {
    for layout in LAYOUTS {
        let world = World::new().await;
        world.append(layout, vec![batch(10, "a")]).await;
        let [stream, ..] = world.keys();
        let redis::Value::BulkString(foreign) = world.redis.command(&["XADD", &stream, "*", "temperature", "20"]).await
        else {
            panic!("no ID")
        };
        let foreign = String::from_utf8(foreign).expect("it is an ID");
        // Reading goes on; appends of either kind are refused and name the entry.
        assert_eq!(world.load().await.next_offset, 10);
        assert_eq!(world.offsets().await, (0..10).collect::<Vec<i64>>());
        for count in [1, 100] {
            let refused = world.log.append(&world.id, append(layout, vec![batch(count, "b")])).await;
            is_quarantined(&refused, &foreign);
        }
        assert!(world.call("weir_append", &["VALUE", "x"]).await.expect_err("it is closed").contains("quarantined"));

        // Once the cause is gone, appends work again.
        world.redis.command(&["XDEL", &stream, &foreign]).await;
        assert_eq!(landed(&world.append_repaired(layout, vec![batch(100, "c")]).await), [10]);
        assert_eq!(world.offsets().await, (0..110).collect::<Vec<i64>>());
    }
}

#[tokio::test]
async fn the_repair_goes_on_above_what_somebody_added() {
    for layout in LAYOUTS {
        let world = World::new().await;
        world.append(layout, vec![batch(10, "a")]).await;
        let [stream, ..] = world.keys();
        for id in ["1900000000000-5", "1900000000000-77", "1900000000001-3"] {
            world.redis.command(&["XADD", &stream, id, "value", "not yours"]).await;
        }
        is_quarantined(&world.log.append(&world.id, append(layout, vec![batch(20, "b")])).await, "1900000000001-3");
        let repaired = world.call("weir_repair", &[&world.id.topic_id.to_string()]).await.expect("it can be repaired");
        assert_eq!(repaired, redis::Value::Array(vec![0, 10, 3].into_iter().map(redis::Value::Int).collect()));
        for (count, base) in [(1, 10), (20, 11), (1, 31)] {
            assert_eq!(landed(&world.append(layout, vec![batch(count, "c")]).await), [base]);
        }
        let records = world.records(0).await;
        assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), (0..32).collect::<Vec<i64>>());
        assert!(records.iter().all(|record| record.timestamp == NOW));
        assert_eq!(world.load().await.max_timestamp, NOW);
    }
}

#[tokio::test]
async fn removed_entries_leave_a_hole_and_move_no_offset() {
    for layout in LAYOUTS {
        let world = World::new().await;
        for _ in 0..3 {
            world.append(layout, vec![batch(10, "a")]).await;
        }
        let [stream, ..] = world.keys();
        let id = format!("{NOW}-{}", if layout == Layout::Batch { 19 } else { 15 });
        assert_eq!(world.redis.command(&["XDEL", &stream, &id]).await, redis::Value::Int(1));
        let state = world.load().await;
        assert_eq!((state.log_start_offset, state.next_offset), (0, 30));
        let reported = world.log.partition(&world.id).view.lock().reported.clone();
        assert!(reported.iter().any(|cause| cause.contains(&id)), "{reported:?}");
        let expected: Vec<i64> = match layout {
            Layout::Batch => (0..10).chain(20..30).collect(),
            Layout::Record(_) => (0..15).chain(16..30).collect(),
        };
        assert_eq!(world.offsets().await, expected);
        assert_eq!(landed(&world.append(layout, vec![batch(10, "b")]).await), [30]);
        assert_eq!(world.load().await.next_offset, 40);
    }
}

#[tokio::test]
async fn the_log_starts_where_somebody_trimmed_it() {
    for layout in LAYOUTS {
        for count in [1, 10] {
            let world = World::new().await;
            for _ in 0..10 {
                world.append(layout, vec![batch(10, "a")]).await;
            }
            let [stream, ..] = world.keys();
            let kept = if layout == Layout::Batch { "4" } else { "40" };
            world.redis.command(&["XTRIM", &stream, "MAXLEN", "=", kept]).await;
            // An append notices it just as well.
            if count == 1 {
                assert_eq!(landed(&world.append(layout, vec![batch(count, "b")]).await), [100]);
            }
            let state = world.load().await;
            assert_eq!(state.log_start_offset, 60);
            assert_eq!(world.records(0).await[0].offset, 60);
            world.redis.command(&["XTRIM", &stream, "MAXLEN", "0"]).await;
            let end = world.load().await.next_offset;
            let state = world.load().await;
            assert_eq!((state.log_start_offset, state.next_offset), (end, end));
            assert_eq!(landed(&world.append(layout, vec![batch(20, "c")]).await), [end]);
        }
    }
}

#[tokio::test]
async fn a_deleted_stream_is_noticed_and_repaired_without_giving_an_offset_twice() {
    for layout in LAYOUTS {
        let world = World::new().await;
        world.append(layout, vec![batch(10, "a")]).await;
        let [stream, ..] = world.keys();
        world.redis.command(&["DEL", &stream]).await;
        for count in [1, 100] {
            is_quarantined(&world.log.append(&world.id, append(layout, vec![batch(count, "b")])).await, "was deleted");
        }
        let state = world.load().await;
        assert_eq!((state.log_start_offset, state.next_offset), (10, 10));
        // Written anew by somebody else it is still not Weir's.
        world.redis.command(&["XADD", &stream, "*", "value", "x"]).await;
        let refused = world.log.append(&world.id, append(layout, vec![batch(100, "b")])).await;
        is_quarantined(&refused, "not Weir's");
        world.call("weir_repair", &[&world.id.topic_id.to_string()]).await.expect("it can be repaired");
        assert_eq!(landed(&world.append(layout, vec![batch(100, "b")]).await), [10]);
        assert_eq!(world.load().await.log_start_offset, 10);
        assert_eq!(world.offsets().await, (10..110).collect::<Vec<i64>>());
    }
}

#[tokio::test]
async fn a_deleted_state_is_noticed_and_rebuilt_from_the_stream() {
    for layout in LAYOUTS {
        let world = World::new().await;
        world.append(layout, vec![batch(10, "a")]).await;
        let [_, state, _] = world.keys();
        world.redis.command(&["DEL", &state]).await;
        for count in [1, 100] {
            is_quarantined(&world.log.append(&world.id, append(layout, vec![batch(count, "b")])).await, &state);
        }
        is_quarantined(&world.log.load(&world.id).await, &state);
        is_quarantined(&world.log.create(&world.id).await, "there is no state");
        world.call("weir_repair", &[&world.id.topic_id.to_string()]).await.expect("it can be repaired");
        assert_eq!(landed(&world.append(layout, vec![batch(100, "b")]).await), [10]);
        assert_eq!(world.offsets().await, (0..110).collect::<Vec<i64>>());
    }
}

#[tokio::test]
async fn keys_of_the_wrong_type_are_noticed_and_left_alone() {
    for layout in LAYOUTS {
        let world = World::new().await;
        world.append(layout, vec![batch(10, "a")]).await;
        let [stream, state, _] = world.keys();
        world.redis.command(&["RENAME", &state, "aside"]).await;
        world.redis.command(&["SET", &state, "x"]).await;
        for count in [1, 100] {
            is_quarantined(&world.log.append(&world.id, append(layout, vec![batch(count, "b")])).await, "WRONGTYPE");
        }
        world.redis.command(&["RENAME", "aside", &state]).await;
        world.redis.command(&["RENAME", &stream, "aside"]).await;
        world.redis.command(&["SET", &stream, "x"]).await;
        for count in [1, 100] {
            is_quarantined(&world.log.append(&world.id, append(layout, vec![batch(count, "b")])).await, "WRONGTYPE");
        }
        let state = world.load().await;
        assert_eq!((state.log_start_offset, state.next_offset), (10, 10));
        world.redis.command(&["RENAME", "aside", &stream]).await;
        assert_eq!(landed(&world.append(layout, vec![batch(100, "b")]).await), [10]);
        assert_eq!(world.offsets().await.len(), 110);
    }
}

#[tokio::test]
async fn applications_append_records_by_one_call() {
    let world = World::new().await;
    world.append(RECORD, vec![batch(10, "a")]).await;
    let words = ["TIMESTAMP", "5", "KEY", "k", "HEADER", "h", "1", "NULLHEADER", "n", "VALUE", "plain"];
    assert_eq!(world.call("weir_append", &words).await, Ok(redis::Value::Int(10)));
    let words = ["FIELD", "id", "cust-1", "JSONFIELD", "total", "12.50", "FIELD", "note", "a \"b\" \\ c"];
    assert_eq!(world.call("weir_append", &words).await, Ok(redis::Value::Int(11)));
    assert_eq!(world.call("weir_append", &["KEY", "gone", "NULL"]).await, Ok(redis::Value::Int(12)));
    assert_eq!(world.load().await.next_offset, 13);
    let records = world.records(10).await;
    assert_eq!(
        records[0],
        Got {
            offset: 10,
            timestamp: 5,
            key: Some(b"k".to_vec()),
            value: Some(b"plain".to_vec()),
            headers: vec![(b"h".to_vec(), Some(b"1".to_vec())), (b"n".to_vec(), None)],
        }
    );
    let json = r#"{"id":"cust-1","total":12.50,"note":"a \"b\" \\ c"}"#;
    assert_eq!(records[1].value.as_deref(), Some(json.as_bytes()));
    assert_eq!((records[2].key.as_deref(), records[2].value.as_deref()), (Some(&b"gone"[..]), None));
    for layout in LAYOUTS {
        let end = world.load().await.next_offset;
        assert_eq!(landed(&world.append(layout, vec![batch(100, "b")]).await), [end]);
    }
}

#[tokio::test]
async fn wrong_words_of_an_application_write_nothing() {
    let world = World::new().await;
    for words in [
        &[][..],
        &["KEY", "k"],
        &["VALUE"],
        &["VALUE", "a", "VALUE", "b"],
        &["value", "a", "KEY", "k"],
        &["WHAT", "x"],
        &["FIELD", "value", "x"],
        &["FIELD", "__key", "x"],
        &["FIELD", "", "x"],
        &["FIELD", "a", "x", "FIELD", "a", "y"],
        &["FIELD", "a\"b", "x"],
        &["JSONFIELD", "a", "nonsense"],
        &["JSONFIELD", "a", ""],
        &["FIELD", "a", "x", "VALUE", "v"],
        &["TIMESTAMP", "soon", "VALUE", "v"],
        &["HEADER", "h", "1", "KEY", "k", "VALUE", "v"],
    ] {
        let refused = world.call("weir_append", words).await;
        assert!(refused.is_err(), "{words:?} {refused:?}");
    }
    assert_eq!(world.load().await.next_offset, 0);
    let missing: Result<redis::Value, _> = redis::cmd("FCALL")
        .arg(&["weir_append", "3", "s", "st", "m", "VALUE", "x"])
        .query_async(&mut world.redis.connection().await)
        .await;
    assert!(missing.is_err_and(|error| error.to_string().contains("create the topic first")));
}

#[tokio::test]
async fn an_application_appends_inside_its_own_transaction() {
    let world = World::new().await;
    let mut pipeline = redis::pipe();
    pipeline.atomic().cmd("SET").arg("order:1").arg("paid");
    pipeline.cmd("FCALL").arg("weir_append").arg(3).arg(&world.keys()).arg(&["KEY", "1", "FIELD", "state", "paid"]);
    let answers: Vec<redis::Value> =
        pipeline.query_async(&mut world.redis.connection().await).await.expect("Redis is up");
    assert_eq!(answers[1], redis::Value::Int(0));
    world.load().await;
    assert_eq!(world.records(0).await[0].value.as_deref(), Some(&br#"{"state":"paid"}"#[..]));
}

#[tokio::test]
async fn a_hole_of_many_marks_is_read_over() {
    for layout in LAYOUTS {
        let mut world = World::new().await;
        for _ in 0..100 {
            let mut request = append(layout, vec![batch(50, &"h".repeat(100))]);
            request.retention.max_bytes = Some(64 << 10);
            world.log.append(&world.id, request).await.expect("Redis is up");
        }
        let [stream, ..] = world.keys();
        let mut connection = world.redis.connection().await;
        let removed = match layout {
            Layout::Batch => (10..90).map(|at| at * 50 + 49).collect::<Vec<i64>>(),
            Layout::Record(_) => (500..4_500).collect(),
        };
        let ids: Vec<String> = removed.iter().map(|offset| format!("{NOW}-{offset}")).collect();
        let count: usize =
            redis::cmd("XDEL").arg(&stream).arg(&ids).query_async(&mut connection).await.expect("Redis is up");
        assert_eq!(count, removed.len());
        let other = world.other_broker().await;
        for offset in [0, 600] {
            let read =
                Read { offset, max_bytes: 10 << 20, end_offset: i64::MAX, codec: Codec::None, in_background: false };
            let batches = other.read(&world.id, read).await.expect("Redis is up");
            let offsets: Vec<i64> = batches.iter().flat_map(got).map(|record| record.offset).collect();
            assert_eq!(offsets, (offset..500).chain(4_500..5_000).collect::<Vec<i64>>());
        }
    }
}
