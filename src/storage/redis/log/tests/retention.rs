use super::*;

async fn retain(world: &World, retention: Retention) -> LogState {
    world.log.retain(&world.id, retention).await.expect("Redis is up")
}

async fn length(world: &World) -> i64 {
    match world.redis.command(&["XLEN", &world.keys()[0]]).await {
        redis::Value::Int(length) => length,
        other => panic!("{other:?}"),
    }
}

fn older_than(timestamp: i64) -> Retention {
    Retention { before_timestamp: Some(timestamp), ..Retention::default() }
}

#[tokio::test]
async fn records_are_deleted_up_to_an_offset() {
    for layout in LAYOUTS {
        let world = World::new().await;
        for _ in 0..10 {
            world.append(layout, vec![batch(10, "a")]).await;
        }
        assert_eq!(world.log.delete_records(&world.id, 0).await, Ok(0));
        assert_eq!(world.log.delete_records(&world.id, 35).await, Ok(35));
        assert_eq!(world.log.delete_records(&world.id, 20).await, Ok(35));
        let state = world.load().await;
        assert_eq!((state.log_start_offset, state.next_offset), (35, 100));
        assert!(state.size_bytes > 0);
        // A batch stays whole while one of its records is there.
        assert_eq!(length(&world).await, if layout == Layout::Batch { 7 } else { 65 });
        let first = world.read(35, 1).await.remove(0);
        assert!(first.base_offset <= 35 && 35 <= first.last_offset);
        assert_eq!(world.log.delete_records(&world.id, 1_000).await, Ok(100));
        let state = world.load().await;
        assert_eq!((state.log_start_offset, state.next_offset, state.size_bytes), (100, 100, 0));
        assert_eq!(length(&world).await, 0);
        assert_eq!(landed(&world.append(layout, vec![batch(10, "a")]).await), [100]);
    }
}

#[tokio::test]
async fn the_check_spares_what_came_since_the_last_one() {
    for layout in LAYOUTS {
        let world = World::new().await;
        // A backfill of old records.
        let old: Vec<Sent> = (0..100).map(|at| sent(1_000 + at, "old")).collect();
        world.append(layout, vec![encoded(&old, Codec::None, None)]).await;
        let state = retain(&world, older_than(NOW)).await;
        assert_eq!(state.log_start_offset, 0);
        assert_eq!(world.offsets().await.len(), 100);
        world.append(layout, vec![encoded(&old, Codec::None, None)]).await;
        let state = retain(&world, older_than(NOW)).await;
        assert_eq!((state.log_start_offset, state.next_offset), (100, 200));
        assert_eq!(world.offsets().await, (100..200).collect::<Vec<i64>>());
        assert_eq!(retain(&world, older_than(NOW)).await.log_start_offset, 200);
        assert_eq!(length(&world).await, 0);
        assert_eq!(landed(&world.append(layout, vec![batch(10, "a")]).await), [200]);
    }
}

#[tokio::test]
async fn an_append_of_old_records_does_not_trim_itself() {
    for layout in LAYOUTS {
        let world = World::with(Options { trim_interval: Duration::ZERO, ..Options::default() }).await;
        let old: Vec<Sent> = (0..100).map(|at| sent(1_000 + at, "old")).collect();
        let request = || {
            let mut request = append(layout, vec![encoded(&old, Codec::None, None)]);
            request.retention = older_than(NOW);
            request
        };
        let outcome = world.log.append(&world.id, request()).await.expect("Redis is up");
        assert_eq!((outcome.log_start_offset, outcome.next_offset), (0, 100));
        assert_eq!(world.offsets().await.len(), 100);
        retain(&world, Retention::default()).await;
        // What was there at the check goes at the next write, with no check in between.
        let outcome = world.log.append(&world.id, request()).await.expect("Redis is up");
        assert_eq!((outcome.log_start_offset, outcome.next_offset), (100, 200));
        assert_eq!(world.offsets().await, (100..200).collect::<Vec<i64>>());
    }
}

#[tokio::test]
async fn time_retention_keeps_the_rest() {
    for layout in LAYOUTS {
        let world = World::new().await;
        for at in 0..10 {
            let records: Vec<Sent> = (0..10).map(|_| sent(NOW + at * 1000, "x")).collect();
            world.append(layout, vec![encoded(&records, Codec::None, None)]).await;
        }
        retain(&world, Retention::default()).await;
        assert_eq!(retain(&world, older_than(NOW + 4000)).await.log_start_offset, 40);
        assert_eq!(world.offsets().await, (40..100).collect::<Vec<i64>>());
    }
}

#[tokio::test]
async fn count_and_bytes_are_kept_to() {
    for layout in LAYOUTS {
        let world = World::new().await;
        let mut size = 0;
        for _ in 0..100 {
            let mut request = append(layout, vec![batch(10, &"b".repeat(100))]);
            request.retention.max_bytes = Some(64 << 10);
            size = world.log.append(&world.id, request).await.expect("Redis is up").size_bytes;
        }
        assert!(size > 100_000);
        retain(&world, Retention::default()).await;
        let state = retain(&world, Retention { max_bytes: Some(64 << 10), ..Retention::default() }).await;
        assert!((55 << 10..=64 << 10).contains(&state.size_bytes), "{}", state.size_bytes);
        assert!(state.log_start_offset > 0 && state.log_start_offset % 10 == 0);
        assert_eq!(world.offsets().await, (state.log_start_offset..1000).collect::<Vec<i64>>());
        let state = retain(&world, Retention { max_records: Some(123), ..Retention::default() }).await;
        assert_eq!(state.log_start_offset, 877);
        assert_eq!(world.records(877).await.len(), 123);
    }
}

#[tokio::test]
async fn no_retention_trims_nothing() {
    let world = World::new().await;
    world.append(RECORD, vec![encoded(&[sent(5, "ancient")], Codec::None, None)]).await;
    for _ in 0..3 {
        assert_eq!(retain(&world, Retention::default()).await.log_start_offset, 0);
    }
    assert_eq!(world.offsets().await, [0]);
}

#[tokio::test]
async fn a_check_writes_nothing_where_nothing_has_changed() {
    for appended in [0, 3] {
        let world = World::new().await;
        for _ in 0..appended {
            world.append(Layout::Batch, vec![batch(10, "a")]).await;
        }
        retain(&world, older_than(1)).await;
        world.redis.command(&["CONFIG", "RESETSTAT"]).await;
        let state = retain(&world, older_than(1)).await;
        assert_eq!(state.next_offset, appended * 10);
        let redis::Value::BulkString(stats) = world.redis.command(&["INFO", "commandstats"]).await else {
            panic!("INFO is text")
        };
        let stats = String::from_utf8_lossy(&stats);
        for write in ["hset", "zadd", "xtrim", "xsetid", "hdel"] {
            assert!(!stats.contains(&format!("cmdstat_{write}:")), "{stats}");
        }
        assert!(stats.contains("cmdstat_fcall:calls=2,"), "{stats}");
    }
}
