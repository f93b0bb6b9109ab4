use super::*;

async fn taken(world: &World, layout: Layout, batch: ValidatedBatch) -> Result<Appended, AppendRefusal> {
    world.append(layout, vec![batch]).await.batches.remove(0)
}

#[tokio::test]
async fn a_repetition_is_answered_with_the_first_offset_and_stored_once() {
    for layout in LAYOUTS {
        for count in [1, 100] {
            let world = World::new().await;
            let step = i32::try_from(count).expect("it is small");
            for turn in 0..5 {
                let base =
                    taken(&world, layout, stamped(count, 9, 0, turn * step)).await.expect("it is next").base_offset;
                assert_eq!(base, i64::from(turn * step));
            }
            for turn in 0..5 {
                let again = taken(&world, layout, stamped(count, 9, 0, turn * step)).await.expect("it is known");
                assert!(again.duplicate && again.stored.is_none());
                assert_eq!(again.log_append_time_ms, NOW, "what a running Kafka 4.3.1 answers");
                assert_eq!(again.base_offset, i64::from(turn * step));
            }
            assert_eq!(world.load().await.next_offset, i64::from(5 * step));
        }
    }
}

#[tokio::test]
async fn only_the_last_five_batches_are_known() {
    let world = World::new().await;
    for sequence in 0..7 {
        taken(&world, RECORD, stamped(1, 9, 0, sequence)).await.expect("it is next");
    }
    assert_eq!(taken(&world, RECORD, stamped(1, 9, 0, 2)).await.map(|batch| batch.base_offset), Ok(2));
    assert_eq!(refusal(&taken(&world, RECORD, stamped(1, 9, 0, 1)).await), AppendRefusal::OutOfOrderSequence);
}

#[tokio::test]
async fn gaps_and_old_epochs_are_refused_and_do_not_hold_up_others() {
    for layout in LAYOUTS {
        let world = World::new().await;
        let outcome = world
            .append(
                layout,
                vec![
                    stamped(2, 1, 3, 0),
                    stamped(2, 1, 3, 4),
                    stamped(2, 1, 3, 2),
                    stamped(2, 1, 3, 0),
                    stamped(2, 1, 2, 4),
                    stamped(2, 1, 4, 4),
                    batch(2, "plain"),
                    stamped(2, 1, 4, 0),
                    stamped(2, 1, 3, 4),
                ],
            )
            .await;
        let answers: Vec<Result<(i64, bool), AppendRefusal>> = outcome
            .batches
            .iter()
            .map(|batch| batch.as_ref().map(|batch| (batch.base_offset, batch.duplicate)).map_err(|refusal| *refusal))
            .collect();
        assert_eq!(
            answers,
            [
                Ok((0, false)),
                Err(AppendRefusal::OutOfOrderSequence),
                Ok((2, false)),
                Ok((0, true)),
                Err(AppendRefusal::FencedProducer),
                Err(AppendRefusal::OutOfOrderSequence),
                Ok((4, false)),
                Ok((6, false)),
                Err(AppendRefusal::FencedProducer),
            ]
        );
        assert_eq!(world.load().await.next_offset, 8);
    }
}

#[tokio::test]
async fn an_unknown_producer_may_go_on_anywhere() {
    let world = World::new().await;
    assert_eq!(taken(&world, RECORD, stamped(1, 5, 0, 77)).await.map(|batch| batch.base_offset), Ok(0));
    assert_eq!(refusal(&taken(&world, RECORD, stamped(1, 5, 0, 79)).await), AppendRefusal::OutOfOrderSequence);
}

#[tokio::test]
async fn a_batch_behind_one_that_was_passed_over_begins_no_sequence() {
    for layout in LAYOUTS {
        let world = World::new().await;
        let behind = async |places: &[usize], batches| {
            let behind_passed_over = places.iter().copied().collect();
            let request = Append { behind_passed_over, ..append(layout, batches) };
            world.log.append(&world.id, request).await.expect("Redis is up")
        };
        let outcome = behind(&[0], vec![stamped(2, 9, 0, 2), stamped(2, 8, 0, 2)]).await;
        assert_eq!(refusal(&outcome.batches[0]), AppendRefusal::OutOfOrderSequence);
        assert_eq!(outcome.batches[1].as_ref().map(|batch| batch.base_offset), Ok(0), "the other may start anywhere");
        // With the one before it, it is in order; so is one of which it is known now that all before it landed.
        assert_eq!(landed(&behind(&[1], vec![stamped(2, 9, 0, 0), stamped(2, 9, 0, 2)]).await), [2, 4]);
        assert_eq!(landed(&behind(&[0, 1], vec![stamped(2, 9, 0, 4), stamped(2, 9, 0, 0)]).await), [6, 2]);
    }
}

#[tokio::test]
async fn a_producers_state_survives_the_broker() {
    for count in [1, 100] {
        let mut world = World::new().await;
        taken(&world, Layout::Batch, stamped(count, 9, 0, 0)).await.expect("it is next");
        let other = world.other_broker().await;
        let outcome = other.append(&world.id, append(Layout::Batch, vec![stamped(count, 9, 0, 0)])).await;
        let batch = outcome.expect("Redis is up").batches.remove(0).expect("it is known");
        assert!(batch.duplicate && batch.base_offset == 0);
        // The first broker's memory is older than what the second wrote.
        let next = i32::try_from(count).expect("it is small");
        let outcome = other.append(&world.id, append(Layout::Batch, vec![stamped(count, 9, 0, next)])).await;
        assert!(!outcome.expect("Redis is up").batches.remove(0).expect("it is next").duplicate);
        let again = taken(&world, Layout::Batch, stamped(count, 9, 0, next)).await.expect("it is known");
        assert!(again.duplicate && again.base_offset == i64::from(next));
    }
}

#[tokio::test]
async fn sequences_wrap() {
    let world = World::new().await;
    taken(&world, RECORD, stamped(3, 9, 0, i32::MAX - 1)).await.expect("it is unknown");
    assert!(taken(&world, RECORD, stamped(3, 9, 0, i32::MAX - 1)).await.expect("it is known").duplicate);
    assert_eq!(taken(&world, RECORD, stamped(1, 9, 0, 1)).await.map(|batch| batch.base_offset), Ok(3));
}

#[tokio::test]
async fn producers_are_listed_and_expire() {
    let world = World::new().await;
    for (id, now) in [(1, NOW - 100_000_000), (2, NOW)] {
        let request = Append {
            now_ms: now,
            producers_expire_before_ms: now - 86_400_000,
            ..append(RECORD, vec![stamped(3, id, 4, 0)])
        };
        world.log.append(&world.id, request).await.expect("Redis is up");
    }
    let listed = world.log.producers(&world.id).await.expect("Redis is up");
    let ids: Vec<(i64, i16, i32)> = listed.iter().map(|state| (state.id, state.epoch, state.last_sequence)).collect();
    assert_eq!(ids, [(1, 4, 2), (2, 4, 2)]);

    // The first is forgotten by now: a gap is none.
    let request = Append { producers_expire_before_ms: NOW - 86_400_000, ..append(RECORD, vec![stamped(1, 1, 4, 50)]) };
    let outcome = world.log.append(&world.id, request).await.expect("Redis is up");
    assert_eq!(landed(&outcome), [6]);

    let later = RedisLog::new(world.log.nodes.clone(), Clock::fixed(NOW + 90_000_000), Options::default());
    later.retain(&world.id, Retention::default()).await.expect("Redis is up");
    assert_eq!(later.producers(&world.id).await, Ok(Vec::new()));
    let [_, state, _] = world.keys();
    // The writer that is long gone is forgotten too.
    let fields = world.redis.command(&["HKEYS", &state]).await;
    let mut fields: Vec<String> = redis::from_redis_value(fields).expect("names");
    fields.sort();
    assert_eq!(fields, ["checked", "compared", "core"]);
}

#[tokio::test]
async fn a_partition_remembers_no_more_producers_than_it_may() {
    for layout in LAYOUTS {
        for count in [1, 20] {
            let world = World::with(Options { state_max_fields: 20, ..Options::default() }).await;
            for id in 0..60 {
                let request = Append { now_ms: NOW + id, ..append(layout, vec![stamped(count, id, 0, 0)]) };
                world.log.append(&world.id, request).await.expect("Redis is up");
            }
            let producers = world.log.producers(&world.id).await.expect("Redis is up");
            assert!(producers.len() <= 20, "{}", producers.len());
            assert!(producers.iter().any(|producer| producer.id == 59), "the latest stays");
        }
    }
}
