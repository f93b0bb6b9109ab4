use std::time::Duration;

use super::world::*;
use crate::{
    log::{
        archive::{Archive, ArchiveError, FileOptions},
        store::Read,
    },
    storage::delta::DeltaOptions,
};

const DAY_MS: i64 = 86_400_000;

fn no_patience(options: &mut DeltaOptions) {
    options.keep_removed = Duration::ZERO;
    options.keep_versions = Duration::ZERO;
    options.checkpoint_interval = 1;
}

/// One file a day.
async fn three_days(world: &World) {
    for (day, start) in [(0, 0), (1, 10), (2, 20)] {
        world.copy(0, &[orders(start..start + 10, MIDNIGHT + day * DAY_MS)]).await.expect("a copy");
    }
}

#[tokio::test]
async fn retention_takes_whole_files_from_the_front() {
    let world = World::new();
    three_days(&world).await;
    let partition = world.partition(0);
    let expired = |before, bytes| world.archive.expired(&partition, before, bytes);
    assert_eq!(expired(None, None).await, Ok(0));
    assert_eq!(expired(Some(MIDNIGHT + 9_000), None).await, Ok(0), "its newest record is as old as that");
    assert_eq!(expired(Some(MIDNIGHT + 9_001), None).await, Ok(10));
    assert_eq!(expired(Some(MIDNIGHT + 9 * DAY_MS), None).await, Ok(30));
    let size = world.archive.bounds(&partition).await.expect("bounds").expect("some").size_bytes;
    assert_eq!(expired(None, Some(size)).await, Ok(0));
    assert_eq!(expired(None, Some(1)).await, Ok(20));
    assert_eq!(expired(None, Some(0)).await, Ok(30));
    assert_eq!(expired(Some(MIDNIGHT + DAY_MS + 10_000), Some(size)).await, Ok(20));
}

#[tokio::test]
async fn deleted_records_are_read_no_more() {
    let world = World::new();
    three_days(&world).await;
    let partition = world.partition(0);
    let bounds = world.archive.delete_before(&partition, 14).await.expect("a deletion");
    assert_eq!((bounds.start_offset, bounds.end_offset), (14, 30));
    assert_eq!(offsets(&world.read_all().await), (14..30).collect::<Vec<_>>());
    let found = world.archive.find_timestamp(&partition, 0, 0).await.expect("a search").expect("a record");
    assert_eq!(found.offset, 14);
    let again = world.archive.delete_before(&partition, 3).await.expect("a deletion");
    assert_eq!(again, bounds, "the start does not go back");
    let all = world.archive.delete_before(&partition, 30).await.expect("a deletion");
    assert_eq!((all.start_offset, all.end_offset, all.size_bytes, all.max_timestamp), (30, 30, 0, -1));
    world.copy(0, &[orders(30..40, MIDNIGHT)]).await.expect("a copy");
    assert_eq!(
        offsets(&world.other().read(&partition, Read { offset: 30, ..EVERYTHING }).await.expect("a read")).len(),
        10
    );
}

#[tokio::test]
async fn what_is_deleted_beyond_the_end_moves_the_end() {
    let world = World::new();
    three_days(&world).await;
    let partition = world.partition(0);
    let bounds = world.archive.delete_before(&partition, 50).await.expect("a deletion");
    assert_eq!((bounds.start_offset, bounds.end_offset), (50, 50));
    world.copy(0, &[orders(50..60, MIDNIGHT)]).await.expect("a copy");
}

#[tokio::test]
async fn small_files_are_joined_and_nothing_is_lost() {
    let world = World::with(no_patience);
    for start in (0..90).step_by(10) {
        world.copy(0, &[orders(start..start + 10, MIDNIGHT + start * 1_000)]).await.expect("a copy");
        world.copy(1, &[orders(start..start + 10, MIDNIGHT + start * 1_000)]).await.expect("a copy");
    }
    assert_eq!(world.data_files().len(), 18);
    world.tidy().await;
    assert_eq!(world.data_files().len(), 2, "one for each partition, the old ones are gone");
    for archive in [world.archive.clone(), world.other()] {
        for index in [0, 1] {
            let read = archive.read(&world.partition(index), EVERYTHING).await.expect("a read");
            assert_eq!(offsets(&read), (0..90).collect::<Vec<_>>());
            assert_eq!(records(&read)[77], Record::new(77, MIDNIGHT + 77_000));
        }
    }
    world.copy(0, &[orders(90..100, MIDNIGHT)]).await.expect("a copy after it");
    world.tidy().await;
    assert_eq!(offsets(&world.read_all().await), (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_upkeep_reads_does_not_drive_out_what_consumers_read() {
    let world = World::new();
    for start in (0..90).step_by(10) {
        world.copy(0, &[orders(start..start + 10, MIDNIGHT)]).await.expect("a copy");
    }
    world.read(Read { end_offset: 5, ..EVERYTHING }).await.expect("a read");
    let cached = world.archive.cached();
    world.tidy().await;
    assert_eq!(world.archive.cached(), cached);
    assert_eq!(world.data_files().len(), 10, "they were joined");
}

#[tokio::test]
async fn files_are_joined_as_their_topic_says() {
    let world = World::new();
    for start in (0..90).step_by(10) {
        world.copy(0, &[orders(start..start + 10, MIDNIGHT)]).await.expect("a copy");
    }
    let small = FileOptions { file_bytes: Some(1_000), ..FileOptions::default() };
    world.archive.tidy(&world.topic, world.topic_id, small).await.expect("upkeep");
    assert_eq!(world.data_files().len(), 9, "each is a whole file of this topic");
}

#[tokio::test]
async fn what_a_process_that_died_was_writing_to_a_folder_is_removed() {
    let world = World::new();
    world.copy(0, &[orders(0..10, MIDNIGHT)]).await.expect("a copy");
    let file = world.data_files().pop().expect("a file");
    let staged = |number| file.with_file_name(format!("left.parquet#{number}"));
    for number in [1, 2] {
        std::fs::write(staged(number), b"half").expect("a file");
    }
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(25 * 3_600);
    let left = std::fs::File::options().write(true).open(staged(1)).expect("a file");
    left.set_modified(long_ago).expect("a time");
    world.tidy().await;
    assert!(!staged(1).exists());
    assert!(staged(2).exists(), "somebody may be writing it");
    world.archive.delete_topic(&world.topic, world.topic_id).await.expect("a deletion");
    assert!(!world.table().exists());
}

#[tokio::test]
async fn a_reader_of_an_older_version_goes_on() {
    let world = World::with(|options| options.join_files = 2);
    for start in [0, 10, 20] {
        world.copy(0, &[orders(start..start + 10, MIDNIGHT)]).await.expect("a copy");
    }
    let other = world.other();
    let partition = world.partition(0);
    let begun = other.read(&partition, Read { end_offset: 5, ..EVERYTHING }).await.expect("a read");
    assert_eq!(offsets(&begun).len(), 5);
    world.tidy().await;
    assert_eq!(world.data_files().len(), 4, "the old ones are kept for a day");
    let rest = other.read(&partition, Read { offset: 5, ..EVERYTHING }).await.expect("a read");
    assert_eq!(offsets(&rest), (5..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reader_whose_files_are_gone_finds_the_newer_ones() {
    let world = World::with(|options| {
        no_patience(options);
        options.join_files = 2;
    });
    for start in [0, 10, 20] {
        world.copy(0, &[orders(start..start + 10, MIDNIGHT)]).await.expect("a copy");
    }
    let other = world.other();
    let partition = world.partition(0);
    let begun = other.read(&partition, Read { end_offset: 5, ..EVERYTHING }).await.expect("a read");
    assert_eq!(offsets(&begun).len(), 5);
    world.tidy().await;
    assert_eq!(world.data_files().len(), 1);
    let rest = other.read(&partition, Read { offset: 15, ..EVERYTHING }).await.expect("a read");
    assert_eq!(offsets(&rest), (15..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn upkeep_and_copies_at_once_lose_nothing() {
    let world = World::with(|options| options.join_files = 2);
    let other = world.other();
    let partition = world.partition(0);
    world.copy(0, &[orders(0..10, MIDNIGHT)]).await.expect("a copy");
    let copies = async {
        for start in (10..100).step_by(10) {
            copy(&other, &partition, &[orders(start..start + 10, MIDNIGHT)], 4).await.expect("a copy");
        }
    };
    let upkeep = async {
        for _ in 0..6 {
            world.tidy().await;
        }
    };
    tokio::join!(copies, upkeep);
    assert_eq!(offsets(&world.read_all().await), (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_new_broker_reads_from_the_checkpoint_on() {
    let world = World::with(no_patience);
    three_days(&world).await;
    world.archive.delete_before(&world.partition(0), 12).await.expect("a deletion");
    world.tidy().await;
    let log = world.table().join("_delta_log");
    assert!(!log.join("00000000000000000000.json").exists(), "old versions are removed");
    assert!(log.join("_last_checkpoint").exists());
    let other = world.other();
    let bounds = other.bounds(&world.partition(0)).await.expect("bounds").expect("some");
    assert_eq!((bounds.start_offset, bounds.end_offset), (12, 30));
    copy(&other, &world.partition(0), &[orders(30..40, MIDNIGHT)], 4).await.expect("a copy");
    assert_eq!(offsets(&world.read_all().await), (12..40).collect::<Vec<_>>());
    let late = copy(&other, &world.partition(0), &[orders(40..50, MIDNIGHT)], 3).await;
    assert_eq!(late, Err(ArchiveError::Overtaken { end_offset: 40 }), "the epoch is in the checkpoint too");
}

#[tokio::test]
async fn what_no_version_names_is_removed_once_no_copy_can_be_at_it() {
    let world = World::new();
    three_days(&world).await;
    let files = world.data_files();
    let (abandoned, fresh) = (files[0].with_file_name("abandoned.parquet"), files[0].with_file_name("fresh.parquet"));
    for path in [&abandoned, &fresh] {
        std::fs::write(path, b"PAR1").expect("a file");
    }
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(25 * 3_600);
    for path in [&abandoned, &files[0]] {
        let file = std::fs::File::options().write(true).open(path).expect("a file");
        file.set_modified(long_ago).expect("another time");
    }
    world.tidy().await;
    assert_eq!((abandoned.exists(), fresh.exists(), files[0].exists()), (false, true, true));
    assert_eq!(offsets(&world.read_all().await), (0..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_deleted_topic_leaves_nothing() {
    let world = World::new();
    three_days(&world).await;
    let delete = || world.archive.delete_topic(&world.topic, world.topic_id);
    delete().await.expect("a deletion");
    delete().await.expect("another one");
    assert!(!world.table().exists());
    assert_eq!(world.archive.bounds(&world.partition(0)).await, Ok(None));
}
