use super::world::*;
use crate::log::{
    archive::{Archive, ArchiveError},
    store::Read,
};

/// Three files of ten records.
async fn three_files() -> World {
    let world = World::new();
    for start in [0, 10, 20] {
        world.copy(0, &[orders(start..start + 10, MIDNIGHT)]).await.expect("a copy");
    }
    world
}

/// The file that the second copy made.
fn second(world: &World) -> std::path::PathBuf {
    let version =
        std::fs::read_to_string(world.table().join("_delta_log/00000000000000000001.json")).expect("a version");
    world
        .data_files()
        .into_iter()
        .find(|file| version.contains(&*file.file_name().expect("a name").to_string_lossy()))
        .expect("the second file")
}

async fn only_the_second_is_damaged(world: &World, word: &str) {
    let archive = world.other();
    let read = |offset| {
        let (archive, partition) = (archive.clone(), world.partition(0));
        async move { archive.read(&partition, Read { offset, ..EVERYTHING }).await }
    };
    assert_eq!(offsets(&read(0).await.expect("what lies before")), (0..10).collect::<Vec<_>>());
    match read(10).await {
        Err(ArchiveError::Damaged { start_offset: 10, end_offset: 20, text }) if text.contains(word) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(offsets(&read(20).await.expect("what lies behind")), (20..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_truncated_file_is_damaged_and_the_others_are_not() {
    let world = three_files().await;
    rewrite(&second(&world), |bytes| bytes.truncate(bytes.len() - 40));
    only_the_second_is_damaged(&world, "bytes").await;
}

#[tokio::test]
async fn a_flipped_bit_is_noticed() {
    let world = three_files().await;
    rewrite(&second(&world), |bytes| bytes[200] ^= 4);
    only_the_second_is_damaged(&world, "checksum").await;
}

#[tokio::test]
async fn a_garbled_footer_is_noticed() {
    let world = three_files().await;
    rewrite(&second(&world), |bytes| {
        let end = bytes.len();
        bytes[end - 500..end - 8].fill(0x5a);
    });
    only_the_second_is_damaged(&world, "").await;
}

#[tokio::test]
async fn a_missing_file_is_damage_of_its_range() {
    let world = three_files().await;
    std::fs::remove_file(second(&world)).expect("a removed file");
    only_the_second_is_damaged(&world, "missing").await;
}

#[tokio::test]
async fn a_table_that_another_program_upgraded_is_refused() {
    let world = three_files().await;
    let upgrade = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":[],"writerFeatures":[]}}"#;
    std::fs::write(world.table().join("_delta_log/00000000000000000003.json"), upgrade).expect("a version");
    match world.archive.bounds(&world.partition(0)).await {
        Err(ArchiveError::Refused(text)) if text.contains("reader version 3") => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_that_another_program_added_is_refused() {
    let world = three_files().await;
    let add = r#"{"add":{"path":"x.parquet","partitionValues":{"partition":"0"},"size":1,"modificationTime":1,"dataChange":true}}"#;
    std::fs::write(world.table().join("_delta_log/00000000000000000003.json"), add).expect("a version");
    let refused = world.copy(0, &[orders(30..40, MIDNIGHT)]).await;
    assert!(matches!(&refused, Err(ArchiveError::Refused(text)) if text.contains("x.parquet")), "{refused:?}");
}
