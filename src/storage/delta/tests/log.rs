//! A table's log as other programs, and what befell them, may leave it.

use std::{fs, path::PathBuf, time::Duration};

use super::world::*;
use crate::{
    log::archive::{Archive, ArchiveError},
    storage::delta::{checkpoint, table::Table},
};

/// Thirty records in three versions, of which the newest has a checkpoint, and one more after it. The log has no older ones.
async fn cleaned_up() -> World {
    let world = World::with(|options| {
        options.keep_versions = Duration::ZERO;
        options.checkpoint_interval = 1;
    });
    for start in [0, 10, 20] {
        world.copy(0, &[orders(start..start + 10, MIDNIGHT)]).await.expect("a copy");
    }
    world.tidy().await;
    world.copy(0, &[orders(30..40, MIDNIGHT)]).await.expect("a copy");
    assert_eq!(names(&world), ["00000000000000000002.checkpoint.parquet", VERSION_2, VERSION_3, "_last_checkpoint"]);
    world
}

const VERSION_2: &str = "00000000000000000002.json";
const VERSION_3: &str = "00000000000000000003.json";
const CHECKPOINT_2: &str = "00000000000000000002.checkpoint.parquet";

fn log(world: &World) -> PathBuf {
    world.table().join("_delta_log")
}

fn names(world: &World) -> Vec<String> {
    let entries = fs::read_dir(log(world)).expect("the log");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

async fn end_of(world: &World) -> Result<Option<i64>, ArchiveError> {
    Ok(world.other().bounds(&world.partition(0)).await?.map(|bounds| bounds.end_offset))
}

async fn refused_for(world: &World, why: &str) {
    for refused in [end_of(world).await.map(drop), copy_at(world, 40).await.map(drop)] {
        assert!(matches!(&refused, Err(ArchiveError::Refused(text)) if text.contains(why)), "{refused:?}");
    }
}

async fn copy_at(world: &World, start: i64) -> Result<i64, ArchiveError> {
    let batches = [orders(start..start + 10, MIDNIGHT)];
    Ok(copy(&world.other(), &world.partition(0), &batches, 4).await?.end_offset)
}

#[tokio::test]
async fn the_newest_checkpoint_is_found_without_the_hint() {
    for hint in [None, Some("not JSON"), Some(r#"{"version":1,"size":9}"#), Some(r#"{"version":77,"size":9}"#)] {
        let world = cleaned_up().await;
        let path = log(&world).join("_last_checkpoint");
        match hint {
            None => fs::remove_file(path).expect("a removed hint"),
            Some(text) => fs::write(path, text).expect("another hint"),
        }
        assert_eq!(end_of(&world).await, Ok(Some(40)), "{hint:?}");
        assert_eq!(copy_at(&world, 40).await, Ok(50), "{hint:?}");
    }
}

#[tokio::test]
async fn a_version_that_is_missing_is_not_taken_for_the_end() {
    let world = cleaned_up().await;
    copy_at(&world, 40).await.expect("a copy");
    fs::remove_file(log(&world).join(VERSION_3)).expect("a removed version");
    refused_for(&world, "version 3 is missing from its log").await;
    assert!(!log(&world).join(VERSION_3).exists(), "nobody has put another in its place");
}

#[tokio::test]
async fn a_log_without_its_beginning_is_no_new_table() {
    let world = cleaned_up().await;
    for name in ["_last_checkpoint", CHECKPOINT_2] {
        fs::remove_file(log(&world).join(name)).expect("a removed file");
    }
    refused_for(&world, "version 0 is missing from its log").await;
    assert_eq!(names(&world), [VERSION_2, VERSION_3]);
}

#[tokio::test]
async fn a_checkpoint_in_parts_is_read() {
    let world = cleaned_up().await;
    let table = world.archive.table(&world.topic, world.topic_id);
    let read =
        Table::new(table.store().clone(), table.root().clone()).snapshot(Duration::ZERO).await.expect("a snapshot");
    assert_eq!(read.version, 3);
    let actions = read.actions();
    let parts: Vec<_> = actions.chunks(actions.len().div_ceil(3)).collect();
    for (number, part) in (1..).zip(&parts) {
        let name = format!("{:020}.checkpoint.{number:010}.{:010}.parquet", read.version, parts.len());
        fs::write(log(&world).join(name), checkpoint::encode(part).expect("a part")).expect("a file");
    }
    for name in [VERSION_2, VERSION_3, CHECKPOINT_2] {
        fs::remove_file(log(&world).join(name)).expect("a removed file");
    }
    assert_eq!(end_of(&world).await, Ok(Some(40)));
    assert_eq!(copy_at(&world, 40).await, Ok(50));
    assert_eq!(offsets(&world.read_all().await), (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_checkpoint_with_sidecars_is_refused_by_name() {
    let world = cleaned_up().await;
    let second = "00000000000000000003.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json";
    fs::rename(log(&world).join(CHECKPOINT_2), log(&world).join(second)).expect("another name");
    refused_for(&world, "has sidecars (V2), for which reader version 3 is needed").await;
}

#[tokio::test]
async fn where_the_newest_checkpoint_is_damaged_an_older_one_does() {
    let world = World::with(|options| options.checkpoint_interval = 1);
    for start in [0, 10, 20] {
        world.copy(0, &[orders(start..start + 10, MIDNIGHT)]).await.expect("a copy");
        world.tidy().await;
    }
    for checkpoint in [2, 1, 0] {
        rewrite(&log(&world).join(format!("{checkpoint:020}.checkpoint.parquet")), |bytes| bytes.truncate(100));
        assert_eq!(end_of(&world).await, Ok(Some(30)), "from the versions at last");
    }
    fs::remove_file(log(&world).join("00000000000000000000.json")).expect("a removed version");
    refused_for(&world, CHECKPOINT_2).await;
}

#[tokio::test]
async fn properties_that_upkeep_can_not_respect_are_refused() {
    for (property, why) in [
        (r#""partitionColumns":["date"],"configuration":{}"#, "it is partitioned by"),
        (r#""partitionColumns":["partition","date"],"configuration":{"delta.appendOnly":"true"}"#, "append-only"),
    ] {
        let world = cleaned_up().await;
        let line = format!(
            r#"{{"metaData":{{"id":"x","format":{{"provider":"parquet"}},"schemaString":"{{}}",{property}}}}}"#
        );
        fs::write(log(&world).join("00000000000000000004.json"), line).expect("a version");
        refused_for(&world, why).await;
    }
}
