//! Offsets and retention on both sides of the seam.

use std::net::SocketAddr;

use kafka_protocol::messages::{
    ApiKey, DeleteRecordsRequest, DeleteRecordsResponse,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
};

use super::{
    records::{assert_same, read_from, records, write},
    support::{
        Connection,
        ledger::{create_topic, topic},
        process::eventually,
        servers::Redis,
    },
    world::{ALL_COLD, EARLIEST, EARLIEST_LOCAL, LATEST_TIERED, Place, broker, is_cold_up_to, offset_of},
};

fn delete_before(address: SocketAddr, offset: i64) -> i16 {
    let partition = DeleteRecordsPartition::default().with_offset(offset);
    let doomed = DeleteRecordsTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![doomed]).with_timeout_ms(10_000);
    let answer: DeleteRecordsResponse = Connection::to(address).call(ApiKey::DeleteRecords as i16, 2, &request);
    answer.topics[0].partitions[0].error_code
}

fn bounds(address: SocketAddr) -> [Option<i64>; 3] {
    [EARLIEST, EARLIEST_LOCAL, LATEST_TIERED].map(|timestamp| offset_of(address, timestamp))
}

#[test]
fn an_empty_log_and_one_without_a_cold_tier_have_local_offsets_and_no_archived_one() {
    let place = Place::folder();
    for configs in [ALL_COLD, &[]] {
        let redis = Redis::start(&[]);
        let current = broker(&redis, &place, 0, None, &[]);
        create_topic(current.address, configs);
        assert_eq!(bounds(current.address), [Some(0), Some(0), Some(-1)], "empty, {configs:?}");
        if configs.is_empty() {
            write(current.address, -1, 0..30);
            assert_eq!(delete_before(current.address, 10), 0);
            assert_eq!(bounds(current.address), [Some(10), Some(10), Some(-1)], "without a cold tier");
        }
    }
}

#[test]
fn records_are_deleted_up_to_an_offset_in_the_hot_part() {
    let (redis, place) = (Redis::start(&[]), Place::folder());
    let first = broker(&redis, &place, 0, None, &[]);
    create_topic(first.address, ALL_COLD);
    write(first.address, -1, 0..60);
    assert!(is_cold_up_to(first.address, 60), "{}", first.log());
    drop(first);
    // Nobody archives what follows.
    let idle = broker(&redis, &place, 1, None, &["archive.job=off"]);
    write(idle.address, -1, 60..100);
    assert_eq!(delete_before(idle.address, 75), 0);
    assert_eq!(offset_of(idle.address, EARLIEST), Some(75));
    assert_same(&read_from(idle.address, 75), &records(75..100), "beyond the archived end");
    drop(idle);
    let current = broker(&redis, &place, 2, None, &[]);
    assert!(is_cold_up_to(current.address, 100), "{}", current.log());
    assert_same(&read_from(current.address, 75), &records(75..100), "archived");
    assert_eq!(bounds(current.address), [Some(75), Some(100), Some(99)]);
    let rest = || place.ask_others()["low"].as_i64();
    assert_eq!(rest(), Some(75), "what was deleted has left the table");
    // All of it, also what is hot.
    write(current.address, -1, 100..110);
    assert_eq!(delete_before(current.address, -1), 0);
    assert_eq!(offset_of(current.address, EARLIEST), Some(110));
    write(current.address, -1, 110..120);
    assert!(is_cold_up_to(current.address, 120), "{}", current.log());
    assert_same(&read_from(current.address, 110), &records(110..120), "after the deletion");
    assert!(eventually(|| rest() == Some(110)), "{:?}", place.ask_others());
}

#[test]
fn the_whole_log_is_held_to_its_size_by_the_job() {
    let (redis, place) = (Redis::start(&[]), Place::folder());
    let current = broker(&redis, &place, 0, None, &["log.retention.check.interval.ms=50"]);
    let mut configs = ALL_COLD.to_vec();
    configs.push(("retention.bytes", "16000"));
    create_topic(current.address, &configs);
    let mut end = 0;
    while offset_of(current.address, EARLIEST) == Some(0) {
        assert!(end < 5_000, "nothing is removed\n{}", current.log());
        write(current.address, -1, end..end + 40);
        end += 40;
        assert!(is_cold_up_to(current.address, end), "{}", current.log());
    }
    // What was written last may have gone over the limit again.
    let is_settled = || place.ask_others()["low"].as_i64().is_some_and(|low| bounds(current.address)[0] == Some(low));
    assert!(eventually(is_settled), "{:?}", place.ask_others());
    let start = offset_of(current.address, EARLIEST).expect("a start");
    let first = u64::try_from(start).expect("an offset");
    assert!(first < end, "something is left");
    assert_same(&read_from(current.address, start), &records(first..end), "what is left");
}
