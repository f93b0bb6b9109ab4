//! `kill -9` of Weir, of Redis and of the S3 server at every step of archiving, of a table's upkeep and of its removal.

use kafka_protocol::messages::{
    ApiKey, DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    delete_topics_request::DeleteTopicState,
};
use serde_json::json;

use super::{
    records::{assert_same, read_from, records, values_from, write},
    s3::{Gateway, S3},
    support::{
        Connection,
        ledger::{attempt, batch_of, create_topic, new_producer, produce_request, topic},
        process::eventually,
        servers::{Broker, Redis},
    },
    world::{ALL_COLD, EARLIEST, EARLIEST_LOCAL, Job, Place, Stops, broker, is_cold_up_to, offset_of},
};

/// In the order in which they come.
const COPY: &[&str] = &[
    "copy-begun",
    "records-written",
    "before-file-put",
    "file-put",
    "before-write-put",
    "write-put",
    "before-note",
    "noted",
    "before-trim",
    "trimmed",
];
const UPKEEP: &[&str] =
    &["before-optimize-put", "optimize-put", "checkpoint-put", "before-pointer-put", "pointer-put", "file-removed"];
const REMOVAL: &[&str] = &["table-leaves", "file-removed", "version-removed", "table-removed", "table-forgotten"];

/// Files are joined and taken away as soon as that can be.
const BUSY: &[&str] = &[
    "archive.upkeep.interval.ms=30",
    "archive.join.files=3",
    "archive.checkpoint.versions=3",
    "archive.keep.removed.ms=0",
];

/// Redis whose dead come back with all they had.
fn redis() -> Redis {
    Redis::start(&["--appendonly", "yes", "--appendfsync", "always"])
}

const ROUND: u64 = 40;
/// Of a test: by then there was something for upkeep to do.
const MOST_RECORDS: u64 = 5_000;

#[derive(Clone, Copy)]
enum Victim {
    Weir,
    Redis,
    S3,
}

/// Where somebody stands to be killed, and how Weir is started again.
struct Stand<'a> {
    stops: &'a Stops,
    step: &'a str,
    node: i32,
    settings: &'a [&'a str],
}

impl Victim {
    /// `kill -9`, and a start anew. Returns the broker, which is another one if it was Weir.
    fn dies(self, current: Broker, redis: &mut Redis, place: &mut Place, stand: &Stand<'_>) -> Broker {
        match self {
            Self::Weir => {
                drop(current);
                stand.stops.clear(stand.step);
                return broker(redis, place, stand.node, Some(stand.stops), stand.settings);
            }
            Self::Redis => {
                redis.restart();
                stand.stops.clear(stand.step);
            }
            Self::S3 => {
                let Place::Lasting(server) = place else { panic!("only this server can be killed") };
                server.kill();
                stand.stops.clear(stand.step);
                server.start_again();
            }
        }
        current
    }
}

/// Writes, kills at the step, and reads all of it back; again for each step.
fn kill_at_each(steps: &[&str], place: &mut Place, victim: Victim) {
    let mut redis = redis();
    let stops = Stops::new();
    let mut current = broker(&redis, place, 0, Some(&stops), BUSY);
    // So large that what is copied is small beside it, and joined.
    let configs = [ALL_COLD, &[("weir.archive.file.bytes", "1048576")]].concat();
    create_topic(current.address, &configs);
    let producer = new_producer(&mut Connection::to(current.address));
    let mut end = 0;
    for (node, step) in (1..).zip(steps) {
        stops.at(step);
        write(current.address, producer, end..end + ROUND);
        end += ROUND;
        if UPKEEP.contains(step) {
            // One file after the other, until there is something to do.
            let wanted = |end: u64| {
                let end = i64::try_from(end).expect("a short test");
                eventually(|| stops.is_reached(step) || offset_of(current.address, EARLIEST_LOCAL) == Some(end))
            };
            while wanted(end) && !stops.is_reached(step) && end < MOST_RECORDS {
                write(current.address, producer, end..end + 10);
                end += 10;
            }
        }
        stops.wait_for(step);
        current = victim.dies(current, &mut redis, place, &Stand { stops: &stops, step, node, settings: BUSY });
        assert!(is_cold_up_to(current.address, end), "{step}: not all is archived\n{}", current.log());
        assert_same(&read_from(current.address, 0), &records(0..end), step);
    }
    assert_eq!(offset_of(current.address, EARLIEST), Some(0));
    place.grow_old();
    let others = |place: &Place| {
        let told = place.ask_others();
        let end = i64::try_from(end).expect("a short test");
        let expected = json!([end, end, 0, end - 1]);
        assert_eq!(json!([told["rows"], told["offsets"], told["low"], told["high"]]), expected, "{told}");
        usize::try_from(told["files"].as_u64().expect("a number")).expect("a number")
    };
    // Where files can be made old, upkeep takes the orphans.
    if !matches!(place, Place::Bucket(_)) {
        let mut left = (0, Vec::new());
        let is_clean = eventually(|| {
            place.grow_old();
            left = (others(place), place.data_files());
            left.0 == left.1.len()
        });
        assert!(is_clean, "the table has {} files, and there are {:#?}", left.0, left.1);
    } else {
        others(place);
    }
    assert_same(&read_from(current.address, 0), &records(0..end), "after upkeep");
}

#[test]
fn weir_is_killed_at_each_step_of_a_copy_into_a_folder() {
    kill_at_each(COPY, &mut Place::folder(), Victim::Weir);
}

#[test]
fn weir_is_killed_at_each_step_of_a_copy_into_a_bucket() {
    kill_at_each(COPY, &mut Place::Bucket(S3::start()), Victim::Weir);
}

#[test]
fn weir_is_killed_at_each_step_of_upkeep() {
    kill_at_each(UPKEEP, &mut Place::folder(), Victim::Weir);
}

#[test]
fn weir_is_killed_at_each_step_of_upkeep_of_a_bucket() {
    kill_at_each(UPKEEP, &mut Place::Bucket(S3::start()), Victim::Weir);
}

#[test]
fn a_job_of_its_own_is_killed_at_each_step_of_a_copy() {
    let (redis, place, stops) = (redis(), Place::folder(), Stops::new());
    let current = broker(&redis, &place, 0, None, &["archive.job=off"]);
    create_topic(current.address, ALL_COLD);
    let producer = new_producer(&mut Connection::to(current.address));
    let mut job = Job::start(&redis, &place, Some(&stops));
    let mut end = 0;
    for step in COPY {
        stops.at(step);
        write(current.address, producer, end..end + ROUND);
        end += ROUND;
        stops.wait_for(step);
        drop(job);
        stops.clear(step);
        job = Job::start(&redis, &place, Some(&stops));
        assert!(is_cold_up_to(current.address, end), "{step}: not all is archived\n{}", current.log());
        assert_same(&read_from(current.address, 0), &records(0..end), step);
    }
    let told = place.ask_others();
    assert_eq!((told["rows"].as_u64(), told["offsets"].as_u64()), (Some(end), Some(end)), "{told}");
}

/// Bytes that nothing makes fewer.
fn noise(number: u64) -> Vec<u8> {
    let mut state = number + 1;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 16).to_le_bytes()
    });
    words.take(64 * 1024).flatten().collect()
}

/// A file of several parts, of which some are there when the victim dies.
fn kill_among_parts(place: &mut Place, victim: Victim) {
    const STEP: &str = "file-part-put";
    const RECORDS: u64 = 40;
    let (mut redis, stops) = (redis(), Stops::new());
    let mut current = broker(&redis, place, 0, Some(&stops), &[]);
    let mut configs = ALL_COLD.to_vec();
    configs.push(("weir.archive.file.bytes", "33554432"));
    create_topic(current.address, &configs);
    let put = |address, number| {
        let request = produce_request(batch_of(&noise(number)));
        assert!(eventually(|| attempt(address, &request) == Some(0)), "record {number} is not taken");
    };
    // The first copy stands still until all the others are there for the second one.
    stops.at("copy-begun");
    put(current.address, 0);
    stops.wait_for("copy-begun");
    (1..RECORDS).for_each(|number| put(current.address, number));
    stops.at(STEP);
    stops.clear("copy-begun");
    stops.wait_for(STEP);
    current = victim.dies(current, &mut redis, place, &Stand { stops: &stops, step: STEP, node: 1, settings: &[] });
    assert!(is_cold_up_to(current.address, RECORDS), "not all is archived\n{}", current.log());
    let values = values_from(current.address, 0);
    assert_eq!(values.len() as u64, RECORDS);
    assert!((0..).zip(&values).all(|(number, value)| *value == noise(number)), "a value has changed");
    let told = place.ask_others();
    assert_eq!((told["rows"].as_u64(), told["offsets"].as_u64()), (Some(RECORDS), Some(RECORDS)), "{told}");
}

#[test]
fn weir_is_killed_among_the_parts_of_a_file_in_a_bucket() {
    kill_among_parts(&mut Place::Bucket(S3::start()), Victim::Weir);
}

#[test]
fn the_s3_server_is_killed_among_the_parts_of_a_file() {
    kill_among_parts(&mut Place::Lasting(Gateway::start()), Victim::S3);
}

#[test]
fn redis_is_killed_at_each_step_of_a_copy() {
    kill_at_each(COPY, &mut Place::folder(), Victim::Redis);
}

#[test]
fn the_s3_server_is_killed_at_each_step() {
    let steps: Vec<&str> = COPY.iter().chain(UPKEEP).copied().collect();
    kill_at_each(&steps, &mut Place::Lasting(Gateway::start()), Victim::S3);
}

fn delete_topic(broker: &Broker) {
    let doomed = DeleteTopicState::default().with_name(Some(topic()));
    let request = DeleteTopicsRequest::default().with_topics(vec![doomed]).with_timeout_ms(10_000);
    let answer: DeleteTopicsResponse = Connection::to(broker.address).call(ApiKey::DeleteTopics as i16, 6, &request);
    assert_eq!(answer.responses[0].error_code, 0);
}

/// Deletes a topic, kills Weir or Redis at the step, and finds nothing of the topic left; again for each step.
fn remove_with_kills(place: &mut Place, victim: Victim) {
    let mut redis = redis();
    let stops = Stops::new();
    let mut current = broker(&redis, place, 0, Some(&stops), &[]);
    for (node, step) in (1..).zip(REMOVAL) {
        create_topic(current.address, ALL_COLD);
        let producer = new_producer(&mut Connection::to(current.address));
        write(current.address, producer, 0..ROUND);
        assert!(is_cold_up_to(current.address, ROUND), "{step}: not all is archived\n{}", current.log());
        stops.at(step);
        delete_topic(&current);
        stops.wait_for(step);
        current = victim.dies(current, &mut redis, place, &Stand { stops: &stops, step, node, settings: &[] });
        assert!(eventually(|| place.files().is_empty()), "{step}: {:?}\n{}", place.files(), current.log());
        let tables = || {
            let tables: redis::RedisResult<i64> =
                redis::cmd("HLEN").arg("{korvet:catalog}:tables").query(&mut redis.connection());
            tables.ok()
        };
        // It may still be loading.
        assert!(eventually(|| tables() == Some(0)), "{step}: a table is still noted");
        let gone = eventually(|| offset_of(current.address, EARLIEST).is_none());
        assert!(gone, "{step}: the topic is still there");
    }
}

#[test]
fn a_topics_removal_from_a_folder_is_finished_by_whoever_comes_after() {
    remove_with_kills(&mut Place::folder(), Victim::Weir);
}

#[test]
fn a_topics_removal_from_a_bucket_is_finished_by_whoever_comes_after() {
    remove_with_kills(&mut Place::Bucket(S3::start()), Victim::Weir);
}

#[test]
fn a_topics_removal_goes_on_when_redis_is_back() {
    remove_with_kills(&mut Place::folder(), Victim::Redis);
}

#[test]
fn deleted_records_stay_deleted_wherever_weir_is_killed() {
    delete_with_kills(Victim::Weir);
}

#[test]
fn deleted_records_stay_deleted_wherever_redis_is_killed() {
    delete_with_kills(Victim::Redis);
}

fn delete_with_kills(victim: Victim) {
    let (mut redis, mut place, stops) = (redis(), Place::folder(), Stops::new());
    let mut current = broker(&redis, &place, 0, Some(&stops), &[]);
    create_topic(current.address, ALL_COLD);
    let producer = new_producer(&mut Connection::to(current.address));
    let mut end = 0;
    for (node, step) in (1..).zip(["before-delete-put", "delete-put"]) {
        write(current.address, producer, end..end + ROUND);
        end += ROUND;
        assert!(is_cold_up_to(current.address, end), "{step}: not all is archived\n{}", current.log());
        stops.at(step);
        let start = end - 15;
        let partition = DeleteRecordsPartition::default().with_offset(i64::try_from(start).expect("a short test"));
        let doomed = DeleteRecordsTopic::default().with_name(topic()).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![doomed]).with_timeout_ms(10_000);
        let answer: DeleteRecordsResponse =
            Connection::to(current.address).call(ApiKey::DeleteRecords as i16, 2, &request);
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        stops.wait_for(step);
        current = victim.dies(current, &mut redis, &mut place, &Stand { stops: &stops, step, node, settings: &[] });
        let start_offset = i64::try_from(start).expect("a short test");
        assert!(eventually(|| offset_of(current.address, EARLIEST) == Some(start_offset)), "{step}");
        assert_same(&read_from(current.address, start_offset), &records(start..end), step);
    }
}
