use std::sync::Arc;

use super::world::*;
use crate::log::archive::{Archive, ArchiveError, FileOptions};

#[tokio::test]
async fn of_two_copies_of_one_range_one_is_overtaken() {
    let world = World::new();
    let other = world.other();
    let partition = world.partition(0);
    world.copy(0, &[orders(0..10, MIDNIGHT)]).await.expect("a copy");
    let mut mine = world.archive.begin(&partition, 10, FileOptions::default()).await.expect("a copy");
    let mut theirs = other.begin(&partition, 10, FileOptions::default()).await.expect("a copy");
    mine.write(&[orders(10..20, MIDNIGHT)]).await.expect("a write");
    theirs.write(&[orders(10..30, MIDNIGHT)]).await.expect("a write");
    assert_eq!(theirs.commit(4).await.expect("a commit").end_offset, 30);
    assert_eq!(mine.commit(4).await, Err(ArchiveError::Overtaken { end_offset: 30 }));
    assert_eq!(offsets(&world.read_all().await), (0..30).collect::<Vec<_>>());
    assert_eq!(world.data_files().len(), 2, "what was not committed is gone");
    let again = world.archive.begin(&partition, 10, FileOptions::default()).await.map(drop);
    assert_eq!(again, Err(ArchiveError::Overtaken { end_offset: 30 }));
}

#[tokio::test]
async fn of_two_first_copies_one_is_overtaken() {
    let world = World::new();
    let other = world.other();
    let partition = world.partition(0);
    let mut mine = world.archive.begin(&partition, 5, FileOptions::default()).await.expect("a copy");
    let mut theirs = other.begin(&partition, 5, FileOptions::default()).await.expect("a copy");
    mine.write(&[orders(5..20, MIDNIGHT)]).await.expect("a write");
    theirs.write(&[orders(5..9, MIDNIGHT)]).await.expect("a write");
    assert_eq!(mine.commit(4).await.map(|bounds| (bounds.start_offset, bounds.end_offset)), Ok((5, 20)));
    assert_eq!(theirs.commit(4).await, Err(ArchiveError::Overtaken { end_offset: 20 }));
}

#[tokio::test]
async fn a_leader_of_an_older_epoch_cannot_commit() {
    let world = World::new();
    let partition = world.partition(0);
    copy(&world.archive, &partition, &[orders(0..10, MIDNIGHT)], 6).await.expect("a copy");
    let late = copy(&world.archive, &partition, &[orders(10..20, MIDNIGHT)], 5).await;
    assert_eq!(late, Err(ArchiveError::Overtaken { end_offset: 10 }));
    copy(&world.archive, &partition, &[orders(10..20, MIDNIGHT)], 6).await.expect("a copy");
}

#[tokio::test]
async fn a_copy_that_is_dropped_leaves_nothing_that_is_read() {
    let world = World::new();
    let partition = world.partition(0);
    let mut copy = world.archive.begin(&partition, 0, FileOptions::default()).await.expect("a copy");
    copy.write(&[orders(0..10, MIDNIGHT)]).await.expect("a write");
    assert!(copy.size_bytes() > 0);
    drop(copy);
    assert_eq!(world.archive.bounds(&partition).await, Ok(None));
    assert!(world.read_all().await.is_empty());
}

#[tokio::test]
async fn a_copy_that_is_dropped_takes_its_files_with_it() {
    let world = World::new();
    let partition = world.partition(0);
    let mut copy = world.archive.begin(&partition, 0, FileOptions::default()).await.expect("a copy");
    // The first day's file is whole.
    copy.write(&[orders(0..10, MIDNIGHT), orders(10..20, MIDNIGHT + 86_400_000)]).await.expect("a write");
    assert_eq!(world.data_files().len(), 1);
    drop(copy);
    world.tasks.stop(std::time::Duration::from_secs(20)).await;
    assert!(world.data_files().is_empty());
}

#[tokio::test]
async fn a_copy_is_compressed_as_its_topic_says() {
    let world = World::new();
    let mut sizes = Vec::new();
    for (index, zstd_level) in [(0, Some(1)), (1, Some(3)), (2, None)] {
        let files = FileOptions { zstd_level, ..FileOptions::default() };
        let mut copy = world.archive.begin(&world.partition(index), 0, files).await.expect("a copy");
        copy.write(&[orders(0..20_000, MIDNIGHT)]).await.expect("a write");
        sizes.push(copy.commit(4).await.expect("a commit").size_bytes);
    }
    assert!(sizes[0] > sizes[1] && sizes[1] == sizes[2], "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_partitions_of_one_topic_commit_at_once() {
    const PARTITIONS: i32 = 6;
    const COPIES: i64 = 4;
    let world = Arc::new(World::new());
    let brokers = [world.archive.clone(), world.other()];
    let mut work = Vec::new();
    for index in 0..PARTITIONS {
        let (world, archive) = (world.clone(), brokers[usize::from(index % 2 == 0)].clone());
        work.push(tokio::spawn(async move {
            for at in 0..COPIES {
                let batch = orders(at * 10..at * 10 + 10, MIDNIGHT);
                copy(&archive, &world.partition(index), &[batch], 1).await.expect("a copy");
            }
        }));
    }
    for done in work {
        done.await.expect("no panic");
    }
    let fresh = world.other();
    for index in 0..PARTITIONS {
        let read = fresh.read(&world.partition(index), EVERYTHING).await.expect("a read");
        assert_eq!(offsets(&read), (0..COPIES * 10).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_another_broker_committed_is_read_without_being_told() {
    let world = World::new();
    let other = world.other();
    let partition = world.partition(0);
    assert_eq!(other.bounds(&partition).await, Ok(None));
    world.copy(0, &[orders(0..10, MIDNIGHT)]).await.expect("a copy");
    assert_eq!(offsets(&other.read(&partition, EVERYTHING).await.expect("a read")).len(), 10);
    world.copy(0, &[orders(10..20, MIDNIGHT)]).await.expect("a copy");
    let later = crate::log::store::Read { offset: 10, ..EVERYTHING };
    assert_eq!(offsets(&other.read(&partition, later).await.expect("a read")).len(), 10);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_told_by_what_is_there() {
    let world = World::new();
    let partition = world.partition(0);
    world.copy(0, &[orders(0..10, MIDNIGHT)]).await.expect("a copy");
    // The same copy again, as whoever has not heard of its success would try it.
    let repeated = world.copy(0, &[orders(0..10, MIDNIGHT)]).await;
    assert_eq!(repeated, Err(ArchiveError::Overtaken { end_offset: 10 }));
    assert_eq!(world.archive.bounds(&partition).await.expect("bounds").expect("some").end_offset, 10);
}
