use super::{reads::thousand, *};
use crate::log::{
    archive::{Cold, ColdBounds, ColdNotes, Table, TableChange},
    store::{Claim, Hold},
};

fn cold(start_offset: i64, end_offset: i64) -> Cold {
    Cold { bounds: ColdBounds { start_offset, end_offset, max_timestamp: 1_500, size_bytes: 10 }, holds_back: true }
}

/// Everything older than the end of time, so far as it may go.
fn all(hold: Hold) -> Retention {
    Retention { before_timestamp: Some(i64::MAX / 2), hold, ..Retention::default() }
}

async fn note(world: &World, expected: Option<Cold>, new: Option<Cold>) -> LogState {
    world.log.note_cold(&world.id, expected, new, 0).await.expect("Redis is up")
}

async fn retain(world: &World, retention: Retention) -> LogState {
    world.log.retain(&world.id, retention).await.expect("Redis is up")
}

async fn with_records(layout: Layout, count: i64) -> World {
    let world = World::new().await;
    for offset in 0..count {
        world.append(layout, vec![encoded(&[sent(1_000 + offset, "v")], Codec::None, None)]).await;
    }
    world
}

#[tokio::test]
async fn retention_removes_nothing_that_is_not_archived() {
    let world = with_records(Layout::Batch, 20).await;
    assert_eq!(retain(&world, all(Hold::Unarchived)).await.local_start_offset, 0, "nothing is archived");
    assert_eq!(retain(&world, all(Hold::Unarchived)).await.local_start_offset, 0, "also at the second check");
    note(&world, None, Some(cold(0, 12))).await;
    let state = retain(&world, all(Hold::Unarchived)).await;
    assert_eq!((state.log_start_offset, state.local_start_offset, state.next_offset), (0, 12, 20));
    assert_eq!(state.epoch_starts, [(0, 0)], "epochs of archived records are kept");
    assert_eq!(state.unarchived_bytes(), state.size_bytes);
}

#[tokio::test]
async fn a_log_that_is_made_again_is_to_be_compared_with_the_archive_and_a_new_one_is_not() {
    let world = World::new().await;
    let life = world.log.at(&world.log.partition(&world.id)).life();
    assert_eq!(world.log.is_compared(&world.id, &life).await, Ok(true));
    world.log.create_again(&world.id).await.expect("Redis is up");
    assert_eq!(world.log.is_compared(&world.id, &life).await, Ok(true), "it was there");
    world.log.delete(&world.id).await.expect("Redis is up");
    world.log.create_again(&world.id).await.expect("Redis is up");
    assert_eq!(world.log.is_compared(&world.id, &life).await, Ok(false));
}

#[tokio::test]
async fn a_broker_that_knows_no_cold_tier_is_held_back_by_what_is_noted() {
    let mut world = with_records(Layout::Batch, 20).await;
    retain(&world, Retention::default()).await;
    let stale = world.other_broker().await;
    stale.load(&world.id).await.expect("loaded");
    note(&world, None, Some(cold(0, 5))).await;
    let state = stale.retain(&world.id, all(Hold::AsNoted)).await.expect("Redis is up");
    assert_eq!((state.log_start_offset, state.local_start_offset), (0, 5));
    let state = stale.retain(&world.id, all(Hold::Nothing)).await.expect("Redis is up");
    assert_eq!((state.log_start_offset, state.local_start_offset), (0, 20), "unless it is told to drop");
}

#[tokio::test]
async fn deleted_records_are_gone_from_both_parts() {
    let world = with_records(Layout::Batch, 20).await;
    let noted = cold(0, 12);
    note(&world, None, Some(noted)).await;
    retain(&world, all(Hold::Unarchived)).await;
    assert_eq!(world.log.delete_records(&world.id, 7).await, Ok(7));
    let state = world.load().await;
    assert_eq!((state.log_start_offset, state.local_start_offset), (7, 12));
    assert_eq!(state.cold, Some(cold(7, 12)));
    assert_eq!(world.log.delete_records(&world.id, 3).await, Ok(7), "it never goes back");
    assert_eq!(world.log.delete_records(&world.id, 15).await, Ok(15));
    let state = world.load().await;
    assert_eq!((state.log_start_offset, state.local_start_offset), (15, 15));
    assert!(state.cold.is_some_and(|cold| cold.is_empty() && cold.bounds.end_offset == 12));
}

#[tokio::test]
async fn what_was_deleted_while_the_first_copy_was_made_does_not_come_back() {
    for deleted in [7, 15] {
        let world = with_records(Layout::Batch, 20).await;
        note(&world, None, Some(cold(0, 0))).await;
        assert_eq!(world.log.delete_records(&world.id, deleted).await, Ok(deleted));
        let state = note(&world, Some(cold(0, 0)), Some(cold(0, 12))).await;
        assert_eq!(state.log_start_offset, deleted);
        assert_eq!(state.cold, Some(cold(deleted.min(12), 12)));
        retain(&world, all(Hold::Unarchived)).await;
        let state = world.load().await;
        assert_eq!((state.log_start_offset, state.local_start_offset), (deleted, deleted.max(12)));
    }
}

#[tokio::test]
async fn what_is_archived_and_trimmed_in_the_middle_of_a_read_is_not_read_over() {
    for (layout, is_archived) in LAYOUTS.into_iter().flat_map(|layout| [(layout, true), (layout, false)]) {
        let mut world = thousand(layout).await;
        // With all connections made, what is read ahead is sent at once.
        for _ in 0..16 {
            world.read(0, 1).await;
        }
        let first = world.read(0, 20_000).await;
        let second = world.read(first.last().expect("there are some").last_offset + 1, 20_000).await;
        let next = second.last().expect("there are some").last_offset + 1;
        // The next read begins with this answer, of before the trim.
        assert!(world.log.partition(&world.id).view.lock().ahead.is_some());
        let other = world.other_broker().await;
        let archived = if is_archived { cold(0, 900) } else { cold(0, next - 100) };
        other.note_cold(&world.id, None, Some(archived), 0).await.expect("Redis is up");
        for _ in 0..2 {
            let dropping = Retention { max_records: Some(100), hold: Hold::Nothing, ..Retention::default() };
            other.retain(&world.id, dropping).await.expect("Redis is up");
        }
        let offsets = |batches: &[StoredBatch]| batches.iter().flat_map(got).map(|got| got.offset).collect::<Vec<_>>();
        let read = offsets(&world.read(next, 10 << 20).await);
        let before = read.iter().take_while(|offset| **offset < 900).count();
        assert_eq!(read[..before], (next..).take(before).collect::<Vec<_>>());
        assert!(before > 0 && before < 600, "{before}");
        let mut behind = read[before..].to_vec();
        if is_archived {
            assert!(behind.is_empty(), "what is archived comes first");
            behind = offsets(&world.read(read[before - 1] + 1, 10 << 20).await);
        }
        assert_eq!(behind, (900..1000).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_note_needs_the_note_before_it_and_the_leaders_epoch() {
    let world = with_records(Layout::Batch, 3).await;
    let first = note(&world, None, Some(cold(0, 1))).await;
    assert_eq!(first.cold, Some(cold(0, 1)));
    assert_eq!(note(&world, None, Some(cold(0, 3))).await.cold, Some(cold(0, 1)), "another note stands there");
    assert_eq!(note(&world, Some(cold(0, 1)), Some(cold(0, 2))).await.cold, Some(cold(0, 2)));
    let claim = Claim { epoch: 4, leader: "2 x".to_owned() };
    let claimed = world.log.claim(&world.id, &claim).await.expect("a newer epoch");
    assert_eq!(claimed.cold, Some(cold(0, 2)));
    let old = world.log.note_cold(&world.id, Some(cold(0, 2)), Some(cold(0, 3)), 0).await;
    assert_eq!(old, Err(StoreError::FencedLeader(4)));
    let gone = world.log.note_cold(&world.id, Some(cold(0, 2)), None, 4).await.expect("Redis is up");
    assert_eq!((gone.cold, gone.log_start_offset), (None, 0));
}

#[tokio::test]
async fn appends_tell_where_the_whole_log_starts() {
    let world = with_records(RECORD, 8).await;
    note(&world, None, Some(cold(0, 6))).await;
    retain(&world, all(Hold::Unarchived)).await;
    let outcome = world.append(Layout::Batch, vec![batch(1, "v")]).await;
    assert_eq!((outcome.log_start_offset, outcome.local_start_offset, outcome.next_offset), (0, 6, 9));
}

#[tokio::test]
async fn a_table_that_leaves_is_not_begun_again_before_it_is_gone() {
    let world = World::new().await;
    let table = Table { topic: world.id.topic.clone(), topic_id: world.id.topic_id, is_leaving: false };
    let change = async |change| world.log.note_table(&table, change).await.expect("Redis is up");
    change(TableChange::Begins).await;
    assert_eq!(world.log.tables().await, Ok(vec![table.clone()]));
    change(TableChange::Leaves).await;
    change(TableChange::Begins).await;
    assert_eq!(world.log.tables().await, Ok(vec![Table { is_leaving: true, ..table.clone() }]));
    change(TableChange::Gone).await;
    assert_eq!(world.log.tables().await, Ok(Vec::new()));
}
