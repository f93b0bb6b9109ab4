use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use uuid::Uuid;

use super::*;
use crate::{
    groups::{
        CommittedOffset, StoredGroup, TopicPartition,
        classic::{Protocol, Record, StoredMember},
    },
    model::{GroupInstanceId, MemberId, PartitionId, TopicId, TopicName},
    storage::redis::testing::TestRedis,
};

impl RedisGroupStore {
    async fn write_one(&self, group: &GroupId, write: GroupWrite) -> Result<GroupEpoch, WriteError> {
        self.write(vec![(group.clone(), write)]).await.remove(0)
    }
}

struct World {
    redis: TestRedis,
    store: RedisGroupStore,
    bare: MultiplexedConnection,
}

async fn world() -> World {
    let redis = TestRedis::start().await;
    let store = RedisGroupStore::new(redis.client().await);
    let bare = redis.connection().await;
    World { redis, store, bare }
}

fn at(topic: u128, partition: i32) -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(topic)), partition }
}

fn offset(offset: i64, metadata: &str) -> CommittedOffset {
    CommittedOffset {
        offset,
        leader_epoch: 3,
        metadata: metadata.into(),
        commit_timestamp_ms: 1_000,
        expire_timestamp_ms: None,
    }
}

fn record(generation: i32) -> Record {
    let member = StoredMember {
        id: MemberId::new("consumer-1-ü"),
        instance_id: Some(GroupInstanceId::new("one")),
        client_id: "consumer".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        protocols: vec![Protocol { name: "range".to_owned(), metadata: Bytes::from_static(&[0, 1, 255]) }],
        assignment: Bytes::from_static(b"\0\xff"),
    };
    Record {
        generation,
        protocol_type: Some("consumer".to_owned()),
        protocol: Some("range".to_owned()),
        leader: Some(member.id.clone()),
        state_since_ms: Some(77),
        members: vec![member],
    }
}

fn creation(generation: i32) -> GroupWrite {
    GroupWrite { expected: None, record: Some(record(generation)), offsets: Vec::new() }
}

async fn load_one(store: &RedisGroupStore, group: &GroupId) -> Option<(GroupEpoch, StoredGroup)> {
    match store.load(std::slice::from_ref(group)).await.expect("Redis is up").remove(0) {
        Loaded::Nothing => None,
        Loaded::Group(epoch, stored) => Some((epoch, *stored)),
        Loaded::Unreadable(reason) => panic!("unreadable: {reason}"),
    }
}

#[tokio::test]
async fn a_group_is_loaded_as_it_was_written() {
    let World { store, redis: _redis, .. } = world().await;
    for id in ["orders", "", "a:offsets", "{a}", "ünïcode\n", &"long".repeat(8_000)] {
        let group = GroupId::new(id);
        let written = [(at(1, 0), offset(42, "some metadata, with blanks")), (at(1, 1), offset(-1, ""))];
        let mut write = creation(5);
        write.offsets = written.iter().map(|(at, offset)| (*at, Some(offset.clone()))).collect();
        let epoch = store.write_one(&group, write).await.expect("written");
        let (loaded_epoch, stored) = load_one(&store, &group).await.expect("it is there");
        assert_eq!(loaded_epoch, epoch);
        assert_eq!(stored.record, record(5));
        assert_eq!(stored.offsets.iter().map(|(at, offset)| (at, offset.clone())).collect::<Vec<_>>(), written);
    }
    assert_eq!(store.list().await.expect("listed").len(), 6);
}

#[tokio::test]
async fn a_new_record_replaces_the_old_one_whole_and_moves_the_epoch() {
    let World { store, redis: _redis, .. } = world().await;
    let group = GroupId::new("orders");
    let first = store.write_one(&group, creation(1)).await.expect("created");
    let empty = Record { generation: 2, ..Record::default() };
    let write = GroupWrite { expected: Some(first), record: Some(empty.clone()), offsets: Vec::new() };
    let second = store.write_one(&group, write).await.expect("written");
    assert_ne!(first, second);
    let (epoch, stored) = load_one(&store, &group).await.expect("it is there");
    assert_eq!((epoch, stored.record), (second, empty));
}

#[tokio::test]
async fn a_commit_leaves_the_epoch_and_the_members_alone() {
    let World { store, redis: _redis, .. } = world().await;
    let group = GroupId::new("orders");
    let epoch = store.write_one(&group, creation(1)).await.expect("created");
    let commit = |offsets| GroupWrite { expected: Some(epoch), record: None, offsets };
    let set = commit(vec![(at(1, 0), Some(offset(1, ""))), (at(2, 0), Some(offset(2, "")))]);
    assert_eq!(store.write_one(&group, set).await, Ok(epoch));
    let moved = commit(vec![(at(1, 0), None), (at(2, 0), Some(offset(3, "")))]);
    assert_eq!(store.write_one(&group, moved).await, Ok(epoch));
    let (_, stored) = load_one(&store, &group).await.expect("it is there");
    assert_eq!(stored.record, record(1));
    assert_eq!(stored.offsets.get(at(1, 0)), None);
    assert_eq!(stored.offsets.get(at(2, 0)), Some(&offset(3, "")));
}

#[tokio::test]
async fn a_writer_with_a_stale_epoch_changes_nothing() {
    let World { store, redis: _redis, .. } = world().await;
    let group = GroupId::new("orders");
    let stale = store.write_one(&group, creation(1)).await.expect("created");
    let next = GroupWrite { expected: Some(stale), record: Some(record(2)), offsets: Vec::new() };
    store.write_one(&group, next).await.expect("written");

    let offsets = vec![(at(1, 0), Some(offset(9, "")))];
    for write in [
        GroupWrite { expected: Some(stale), record: Some(record(3)), offsets: offsets.clone() },
        GroupWrite { expected: Some(stale), record: None, offsets: offsets.clone() },
        GroupWrite { expected: None, record: Some(record(4)), offsets },
    ] {
        assert_eq!(store.write_one(&group, write).await, Err(WriteError::Stale));
    }
    assert_eq!(store.delete(&group, stale).await, Err(WriteError::Stale));
    let (_, stored) = load_one(&store, &group).await.expect("it is there");
    assert_eq!(stored.record, record(2));
    assert!(stored.offsets.is_empty());
}

#[tokio::test]
async fn groups_that_are_written_together_are_judged_each_by_itself_in_one_command() {
    let World { store, redis, mut bare } = world().await;
    let groups: Vec<GroupId> = (0..50).map(|number| GroupId::new(&format!("g{number}"))).collect();
    let created = store.write(groups.iter().map(|group| (group.clone(), creation(1))).collect()).await;
    let epochs: Vec<GroupEpoch> = created.into_iter().map(|epoch| epoch.expect("created")).collect();
    let broken = redis.keyspace().group_offsets(&groups[7]);
    redis::cmd("SET").arg(&broken).arg("text").exec_async(&mut bare).await.expect("set");

    redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut bare).await.expect("reset");
    let commits = groups.iter().zip(&epochs).enumerate().map(|(index, (group, epoch))| {
        let expected = if index == 3 { GroupEpoch(epoch.0 + 1) } else { *epoch };
        let offsets = vec![(at(1, 0), Some(offset(9, "")))];
        (group.clone(), GroupWrite { expected: Some(expected), record: None, offsets })
    });
    let results = store.write(commits.collect()).await;
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut bare).await.expect("told");
    assert!(stats.contains("cmdstat_fcall:calls=1,"), "{stats}");

    for (index, (result, epoch)) in results.iter().zip(&epochs).enumerate() {
        match index {
            3 => assert_eq!(*result, Err(WriteError::Stale)),
            7 => assert!(
                matches!(result, Err(WriteError::Storage(StoreError::Refused(text))) if text.contains("WRONGTYPE")),
                "{result:?}"
            ),
            _ => assert_eq!(*result, Ok(*epoch)),
        }
    }
    let (_, stale) = load_one(&store, &groups[3]).await.expect("it is there");
    assert!(stale.offsets.is_empty());
    let (_, last) = load_one(&store, &groups[49]).await.expect("it is there");
    assert_eq!(last.offsets.get(at(1, 0)), Some(&offset(9, "")));
}

#[tokio::test]
async fn a_deleted_group_is_gone_and_its_epochs_do_not_come_back() {
    let World { store, redis: _redis, mut bare } = world().await;
    let group = GroupId::new("orders");
    let mut write = creation(1);
    write.offsets.push((at(1, 0), Some(offset(1, ""))));
    let first = store.write_one(&group, write).await.expect("created");
    store.delete(&group, first).await.expect("deleted");
    assert!(load_one(&store, &group).await.is_none());
    assert!(store.list().await.expect("listed").is_empty());
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut bare).await.expect("asked");
    assert!(keys.is_empty(), "{keys:?}");

    let second = store.write_one(&group, creation(1)).await.expect("created again");
    assert_ne!(first, second);
    let late = GroupWrite { expected: Some(first), record: None, offsets: vec![(at(1, 0), Some(offset(1, "")))] };
    assert_eq!(store.write_one(&group, late).await, Err(WriteError::Stale));
}

#[tokio::test]
async fn a_group_created_by_a_commit_has_its_offsets() {
    let World { store, redis: _redis, .. } = world().await;
    let group = GroupId::new("simple");
    let write =
        GroupWrite { expected: None, record: Some(Record::default()), offsets: vec![(at(1, 0), Some(offset(1, "")))] };
    store.write_one(&group, write).await.expect("created");
    let (_, stored) = load_one(&store, &group).await.expect("it is there");
    assert_eq!(stored.record, Record::default());
    assert_eq!(stored.offsets.get(at(1, 0)), Some(&offset(1, "")));
}

#[tokio::test]
async fn many_offsets_go_in_one_write() {
    let World { store, redis: _redis, .. } = world().await;
    let group = GroupId::new("wide");
    let mut write = creation(1);
    write.offsets = (0..9_000).map(|partition| (at(1, partition), Some(offset(i64::from(partition), "")))).collect();
    let epoch = store.write_one(&group, write).await.expect("created");
    let (_, stored) = load_one(&store, &group).await.expect("it is there");
    assert_eq!(stored.offsets.iter().count(), 9_000);
    let removal = GroupWrite {
        expected: Some(epoch),
        record: None,
        offsets: (0..9_000).map(|partition| (at(1, partition), None)).collect(),
    };
    store.write_one(&group, removal).await.expect("removed");
    let (_, stored) = load_one(&store, &group).await.expect("it is there");
    assert!(stored.offsets.is_empty());
}

#[tokio::test]
async fn commits_go_through_when_memory_has_run_out() {
    let World { store, redis: _redis, mut bare } = world().await;
    let group = GroupId::new("orders");
    let epoch = store.write_one(&group, creation(1)).await.expect("created");
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1mb").exec_async(&mut bare).await.expect("set");
    let refused = redis::cmd("SET").arg("x").arg("y").exec_async(&mut bare).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("OOM")), "memory has run out");
    let commit = GroupWrite { expected: Some(epoch), record: None, offsets: vec![(at(1, 0), Some(offset(1, "")))] };
    assert_eq!(store.write_one(&group, commit).await, Ok(epoch));
}

#[tokio::test]
async fn who_takes_a_group_over_reads_it_and_fences_the_coordinator_before() {
    let World { store, redis: _redis, .. } = world().await;
    let group = GroupId::new("orders");
    let epoch = store.write_one(&group, creation(1)).await.expect("created");
    assert!(matches!(store.claim(&GroupId::new("none"), Some(3)).await, Ok(Loaded::Nothing)));
    let claimed = store.claim(&group, Some(3)).await.expect("claimed");
    let Loaded::Group(newer, stored) = &claimed else { panic!("{claimed:?}") };
    assert!(newer.0 > epoch.0);
    assert_eq!(stored.record.generation, 1);
    let late = GroupWrite { expected: Some(epoch), record: None, offsets: vec![(at(1, 0), Some(offset(1, "")))] };
    assert_eq!(store.write_one(&group, late).await, Err(WriteError::Stale));
    let commit = GroupWrite { expected: Some(*newer), record: None, offsets: vec![(at(1, 0), Some(offset(1, "")))] };
    assert_eq!(store.write_one(&group, commit).await, Ok(*newer));
}

/// It has not heard yet that another one coordinates the group, or its claim was long on its way: the newer one would answer what it knows
/// until its next write.
#[tokio::test]
async fn an_earlier_coordinator_does_not_claim_a_group_back() {
    let World { store, redis: _redis, .. } = world().await;
    let group = GroupId::new("orders");
    store.write_one(&group, creation(1)).await.expect("created");
    let claim = async |epoch| match store.claim(&group, epoch).await {
        Ok(Loaded::Group(epoch, _)) => Ok(epoch),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    let epoch = claim(Some(5)).await.expect("nobody coordinates it");
    assert_eq!(claim(Some(4)).await, Err(StoreError::FencedLeader(5)));
    let change = GroupWrite { expected: Some(epoch), ..creation(2) };
    store.write_one(&group, change).await.expect("nobody has claimed it since");
    assert_eq!(claim(Some(4)).await, Err(StoreError::FencedLeader(5)), "also after a change of members");
    claim(Some(5)).await.expect("it loads the group again");
    claim(Some(6)).await.expect("a newer one");
    claim(None).await.expect("one that is always alone");
    claim(Some(0)).await.expect("what others claimed before that counts no more");
}

#[tokio::test]
async fn what_can_not_be_read_is_told_apart_from_what_is_not_there() {
    let World { store, redis, mut bare } = world().await;
    let group = GroupId::new("orders");
    let key = redis.keyspace().group(&group);
    redis::cmd("HSET")
        .arg(&key)
        .arg("type")
        .arg("galactic")
        .arg("epoch")
        .arg(1)
        .exec_async(&mut bare)
        .await
        .expect("set");
    let loaded = store.load(&[group, GroupId::new("none")]).await.expect("loaded");
    assert!(matches!(&loaded[..], [Loaded::Unreadable(reason), Loaded::Nothing] if reason.contains("galactic")));
}

#[tokio::test]
async fn the_library_comes_back_after_it_was_flushed() {
    let World { store, redis: _redis, mut bare } = world().await;
    redis::cmd("FUNCTION").arg("FLUSH").exec_async(&mut bare).await.expect("flushed");
    store.write_one(&GroupId::new("orders"), creation(1)).await.expect("created");
}

#[tokio::test]
async fn a_server_that_is_gone_is_an_error_and_not_a_wrong_answer() {
    let World { store, mut redis, .. } = world().await;
    redis.kill();
    assert!(matches!(store.write_one(&GroupId::new("orders"), creation(1)).await, Err(WriteError::Storage(_))));
    assert!(store.list().await.is_err());
}

/// What `XINFO GROUPS` tells of each group: name, last delivered ID, lag.
async fn native_groups(bare: &mut MultiplexedConnection, stream: &str) -> Vec<(String, String, i64)> {
    let groups: Vec<std::collections::HashMap<String, redis::Value>> =
        redis::cmd("XINFO").arg("GROUPS").arg(stream).query_async(bare).await.expect("the stream is there");
    let text = |value: &redis::Value| redis::from_redis_value_ref::<String>(value).expect("text");
    let number = |value: &redis::Value| redis::from_redis_value_ref::<i64>(value).expect("a number");
    groups
        .iter()
        .map(|group| (text(&group["name"]), text(&group["last-delivered-id"]), number(&group["lag"])))
        .collect()
}

/// Whether the server counts a stream's entries, whatever was read, for a group that stands before the first of them. 8.2 does, and 7.0
/// does not.
async fn counts_entries_before_the_first(bare: &mut MultiplexedConnection) -> bool {
    let facts: redis::InfoDict = redis::cmd("INFO").arg("server").query_async(bare).await.expect("it is up");
    let version: String = facts.get("redis_version").expect("a version");
    version.split('.').next().and_then(|major| major.parse::<u32>().ok()).expect("a number") >= 8
}

/// A partition as appends leave it: `ids` are its entries', the last one's right half the last offset; `marks` are offsets with
/// the left halves of their entries' IDs.
async fn partition_of(
    world: &mut World,
    topic: &str,
    ids: &[String],
    next_offset: i64,
    marks: &[(i64, i64)],
) -> String {
    let (keyspace, bare) = (world.redis.keyspace(), &mut world.bare);
    let topic = TopicName::new(topic);
    let key = keyspace.stream(&topic, 0);
    for chunk in ids.chunks(1_000) {
        let mut pipeline = redis::pipe();
        for id in chunk {
            pipeline.cmd("XADD").arg(&key).arg(id).arg("value").arg("x").ignore();
        }
        let () = pipeline.query_async(bare).await.expect("added");
    }
    let last = ids.last().expect("some");
    let mut set = redis::cmd("XSETID");
    set.arg(&key).arg(last).arg("ENTRIESADDED").arg(next_offset).arg("MAXDELETEDID").arg("0-0");
    set.exec_async(bare).await.expect("set");
    let topic_id = TopicId(Uuid::from_u128(1));
    let core = format!("1 {topic_id} 0 {last} {next_offset} 0 -1 -1 0 0 0 {} 0", ids.len());
    redis::cmd("HSET").arg(keyspace.state(&topic, 0)).arg("core").arg(core).exec_async(bare).await.expect("set");
    for (offset, ms) in marks {
        let mark = format!("{offset} {ms}-{offset} 0");
        let mut add = redis::cmd("ZADD");
        add.arg(keyspace.marks(&topic, 0)).arg(offset).arg(mark).exec_async(bare).await.expect("added");
    }
    key
}

fn partition(topic: &str) -> PartitionId {
    PartitionId { topic: TopicName::new(topic), topic_id: TopicId(Uuid::from_u128(1)), index: 0 }
}

fn moved(topic: &str, offset: Option<i64>) -> [MirrorMove; 1] {
    [MirrorMove { group: GroupId::new("ünï:{g}"), partition: partition(topic), offset }]
}

#[tokio::test]
async fn native_groups_show_offsets_and_lag_in_both_layouts() {
    let mut world = world().await;
    let counts_entries = counts_entries_before_the_first(&mut world.bare).await;
    // Times that stand still, crawl and jump, so that neither interpolation nor halving has it easy.
    let time = |offset: i64| match offset {
        0..300 => 1,
        300..1_200 => 5_000 + offset / 7,
        _ => 1_700_000_000_000 + (offset - 1_200) * 977,
    };
    let records: Vec<String> = (0..2_000).map(|offset| format!("{}-{offset}", time(offset))).collect();
    let batches: Vec<String> = (1..=80).map(|batch| format!("{}-{}", time(batch * 25 - 1), batch * 25 - 1)).collect();
    // A mark names the append's first offset, in a batch one below the entry's own.
    let marks: Vec<(i64, i64)> = (0..2_000).step_by(350).map(|offset| (offset, time(offset / 25 * 25 + 24))).collect();
    let exact: Vec<(i64, i64)> = (0..2_000).step_by(350).map(|offset| (offset, time(offset))).collect();
    for (topic, ids, per_entry, marks) in [
        ("record", &records, 1, &[][..]),
        ("marked-record", &records, 1, &exact[..]),
        ("batch", &batches, 25, &[][..]),
        ("marked-batch", &batches, 25, &marks[..]),
    ] {
        let key = partition_of(&mut world, topic, ids, 2_000, marks).await;
        for committed in (0..=2_000).step_by(61).chain([1, 25, 26, 300, 1_199, 1_200, 1_201, 1_999, 2_000]) {
            world.store.mirror(&moved(topic, Some(committed))).await.expect("mirrored");
            let whole = committed / per_entry * per_entry;
            let delivered = match whole {
                0 => "0-0".to_owned(),
                whole => format!("{}-{}", time(whole - 1), whole - 1),
            };
            let lag = match (whole, counts_entries) {
                (0, true) => i64::try_from(ids.len()).expect("small"),
                _ => 2_000 - committed,
            };
            let expected = vec![("ünï:{g}".to_owned(), delivered, lag)];
            assert_eq!(native_groups(&mut world.bare, &key).await, expected, "{topic} at {committed}");
        }
        world.store.mirror(&moved(topic, None)).await.expect("taken away");
        assert!(native_groups(&mut world.bare, &key).await.is_empty());
    }
}

#[tokio::test]
async fn a_trimmed_stream_is_mirrored_too() {
    let mut world = world().await;
    let ids: Vec<String> = (0..100).map(|offset| format!("{}-{offset}", 10 + offset)).collect();
    let key = partition_of(&mut world, "orders", &ids, 100, &[(80, 90)]).await;
    redis::cmd("XTRIM").arg(&key).arg("MAXLEN").arg(40).exec_async(&mut world.bare).await.expect("trimmed");
    let trimmed = if counts_entries_before_the_first(&mut world.bare).await { 40 } else { 90 };
    for (committed, id, lag) in [
        (10, "0-0", trimmed),
        (60, "0-0", 40),
        (61, "70-60", 39),
        (81, "90-80", 19),
        (100, "109-99", 0),
        (900, "109-99", 0),
    ] {
        world.store.mirror(&moved("orders", Some(committed))).await.expect("mirrored");
        let expected = vec![("ünï:{g}".to_owned(), id.to_owned(), lag)];
        assert_eq!(native_groups(&mut world.bare, &key).await, expected, "{committed}");
    }
}

#[tokio::test]
async fn another_topic_of_the_same_name_is_left_alone() {
    let mut world = world().await;
    let key = partition_of(&mut world, "orders", &["5-0".to_owned()], 1, &[]).await;
    world.store.mirror(&moved("orders", Some(1))).await.expect("mirrored");
    let before = native_groups(&mut world.bare, &key).await;
    for offset in [Some(0), None] {
        let [mut stale] = moved("orders", offset);
        stale.partition.topic_id = TopicId(Uuid::from_u128(2));
        world.store.mirror(&[stale]).await.expect("passed over");
        assert_eq!(native_groups(&mut world.bare, &key).await, before);
    }
}

#[tokio::test]
async fn a_stream_that_is_not_there_is_not_made() {
    let World { store, redis, mut bare } = world().await;
    store.mirror(&moved("gone", Some(5))).await.expect("passed over");
    store.mirror(&moved("gone", None)).await.expect("passed over");
    let key = redis.keyspace().stream(&TopicName::new("gone"), 0);
    let exists: bool = redis::cmd("EXISTS").arg(key).query_async(&mut bare).await.expect("asked");
    assert!(!exists);
}
