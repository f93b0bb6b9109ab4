//! A Redis that comes back with less than the archive has.

use kafka_protocol::messages::{
    ApiKey, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
};

use super::{
    records::{assert_same, batch, read_from, records, write},
    s3::S3,
    support::{
        Connection,
        ledger::{attempt, create_topic, produce_request, topic},
        process::eventually,
        servers::Redis,
    },
    world::{ALL_COLD, EARLIEST, EARLIEST_LOCAL, Place, broker, is_cold_up_to, offset_of},
};

const KAFKA_STORAGE_ERROR: i16 = 56;

/// A Redis that comes back as it was when it was last told to save itself.
fn forgetful() -> Redis {
    Redis::start(&[])
}

fn save(redis: &Redis) {
    redis::cmd("SAVE").exec(&mut redis.connection()).expect("saved");
}

fn forgetful_topic() -> Vec<(&'static str, &'static str)> {
    [ALL_COLD, &[("weir.durability", "memory")]].concat()
}

/// Where the epoch that wrote `offset` ended, as a consumer asks that comes from there.
fn end_of_epoch(address: std::net::SocketAddr, epoch: i32) -> i64 {
    let partition = OffsetForLeaderPartition::default().with_leader_epoch(epoch).with_current_leader_epoch(-1);
    let asked = OffsetForLeaderTopic::default().with_topic(topic()).with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
    let answer: OffsetForLeaderEpochResponse =
        Connection::to(address).call(ApiKey::OffsetForLeaderEpoch as i16, 4, &request);
    let partition = &answer.topics[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    partition.end_offset
}

#[test]
fn what_is_archived_survives_a_redis_that_forgot_it_and_new_records_follow() {
    for another_broker in [false, true] {
        let (mut redis, place) = (forgetful(), Place::folder());
        let mut current = broker(&redis, &place, 0, None, &[]);
        create_topic(current.address, &forgetful_topic());
        write(current.address, -1, 0..60);
        assert!(is_cold_up_to(current.address, 60), "{}", current.log());
        write(current.address, -1, 60..70);
        save(&redis);
        write(current.address, -1, 70..160);
        assert!(is_cold_up_to(current.address, 160), "{}", current.log());
        if another_broker {
            drop(current);
            redis.restart();
            current = broker(&redis, &place, 1, None, &[]);
        } else {
            redis.restart();
        }
        let address = current.address;
        write(address, -1, 160..200);
        assert!(is_cold_up_to(address, 200), "{}", current.log());
        write(address, -1, 200..210);
        assert!(is_cold_up_to(address, 210), "{}", current.log());
        assert_same(&read_from(address, 0), &records(0..210), "after the loss");
        assert_eq!(offset_of(address, EARLIEST), Some(0));
        assert_eq!(end_of_epoch(address, 0), 160, "consumers that come from the archive go on behind it");
        let told = place.ask_others();
        assert_eq!((told["rows"].as_i64(), told["offsets"].as_i64()), (Some(210), Some(210)), "{told}");
        let log = current.log();
        assert!(log.contains("the log goes on behind them"), "{log}");
        assert!(!log.contains("they are lost"), "nothing is lost: {log}");
    }
}

#[test]
fn no_offset_is_given_before_the_archive_has_told_where_it_ends() {
    let mut redis = forgetful();
    let place = Place::Bucket(S3::start());
    let Place::Bucket(server) = &place else { unreachable!("it was just made") };
    let first = broker(&redis, &place, 0, None, &[]);
    create_topic(first.address, &forgetful_topic());
    write(first.address, -1, 0..10);
    save(&redis);
    write(first.address, -1, 10..50);
    assert!(is_cold_up_to(first.address, 50), "{}", first.log());
    drop(first);
    server.weather("status=503&code=SlowDown&times=1000000");
    redis.restart();
    let second = broker(&redis, &place, 1, None, &[]);
    let request = produce_request(batch(-1, 50..60));
    assert!(eventually(|| attempt(second.address, &request) == Some(KAFKA_STORAGE_ERROR)), "it is refused for now");
    server.weather("");
    write(second.address, -1, 50..60);
    assert_same(&read_from(second.address, 0), &records(0..60), "after the weather");
}

#[test]
fn an_archive_that_is_down_is_not_asked_where_redis_lives_on() {
    let redis = forgetful();
    let place = Place::Bucket(S3::start());
    let Place::Bucket(server) = &place else { unreachable!("it was just made") };
    let first = broker(&redis, &place, 0, None, &[]);
    create_topic(first.address, &forgetful_topic());
    write(first.address, -1, 0..50);
    assert!(is_cold_up_to(first.address, 50), "{}", first.log());
    drop(first);
    server.weather("status=503&code=SlowDown&times=1000000");
    let second = broker(&redis, &place, 1, None, &[]);
    write(second.address, -1, 50..60);
    assert_same(&read_from(second.address, 50), &records(50..60), "what is hot");
    assert_eq!(offset_of(second.address, EARLIEST_LOCAL), Some(50));
    server.weather("");
    assert!(is_cold_up_to(second.address, 60), "{}", second.log());
    assert_same(&read_from(second.address, 0), &records(0..60), "after the weather");
}

#[test]
fn a_topic_made_anew_in_an_empty_redis_shares_nothing_with_the_table_of_the_lost_one() {
    let (mut redis, place) = (forgetful(), Place::folder());
    let first = broker(&redis, &place, 0, None, &[]);
    create_topic(first.address, &forgetful_topic());
    write(first.address, -1, 0..50);
    assert!(is_cold_up_to(first.address, 50), "{}", first.log());
    let lost = place.files();
    drop(first);
    redis.restart();
    let second = broker(&redis, &place, 1, None, &[]);
    create_topic(second.address, &forgetful_topic());
    write(second.address, -1, 0..30);
    assert!(is_cold_up_to(second.address, 30), "{}", second.log());
    assert_same(&read_from(second.address, 0), &records(0..30), "the new topic");
    let files = place.files();
    assert!(lost.iter().all(|file| files.contains(file)), "the lost topic's table is left to its owner");
}
