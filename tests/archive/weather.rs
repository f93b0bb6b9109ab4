//! Archives that are damaged, slow, closed or full, as clients and operators see it.

use kafka_protocol::ResponseError;
use serde_json::Value;

use super::{
    records::{assert_same, batch, fetch, read_from, records, write},
    s3::S3,
    support::{
        Connection,
        ledger::{attempt, create_topic, produce_request},
        process::eventually,
        servers::{Broker, Redis},
    },
    world::{ALL_COLD, Http, Place, broker, is_cold_up_to},
};

fn lines(broker: &Broker, text: &str) -> usize {
    broker.log().lines().filter(|line| line.contains(text)).count()
}

fn in_a_bucket() -> (Redis, Place, Http) {
    (Redis::start(&[]), Place::Bucket(S3::start()), Http::new())
}

fn weather(place: &Place, rule: &str) {
    let Place::Bucket(server) = place else { panic!("only this server has weather") };
    server.weather(rule);
}

/// Files of a table in a folder with the offsets that they have, the last one exclusive.
fn ranges(place: &Place) -> Vec<(String, std::ops::Range<i64>)> {
    let files = place.files();
    let versions = files.iter().filter(|path| path.ends_with(".json"));
    let mut found = Vec::new();
    for version in versions {
        let table = version.split("_delta_log").next().expect("its place");
        let actions = std::fs::read_to_string(version).expect("a version");
        let actions = actions.lines().map(|line| serde_json::from_str::<Value>(line).expect("an action"));
        for add in actions.filter_map(|action| action.get("add").cloned()) {
            let stats: Value = serde_json::from_str(add["stats"].as_str().expect("statistics")).expect("JSON");
            let bound = |which: &str| stats[which]["offset"].as_i64().expect("an offset");
            let path = format!("{table}{}", add["path"].as_str().expect("a path"));
            found.push((path, bound("minValues")..bound("maxValues") + 1));
        }
    }
    found.sort_by_key(|(_, range)| range.start);
    found
}

#[test]
fn a_truncated_file_is_an_error_of_its_offsets_and_of_no_others() {
    let (redis, place, http) = (Redis::start(&[]), Place::folder(), Http::new());
    let first = broker(&redis, &place, 0, None, &[]);
    create_topic(first.address, ALL_COLD);
    for start in [0, 40, 80] {
        write(first.address, -1, start..start + 40);
        assert!(is_cold_up_to(first.address, start + 40), "{}", first.log());
    }
    drop(first);
    let files = ranges(&place);
    let (path, damaged) = files.iter().find(|(_, range)| range.contains(&60)).expect("a file");
    let length = std::fs::metadata(path).expect("a file").len();
    let file = std::fs::File::options().write(true).open(path).expect("a file");
    file.set_len(length / 2).expect("it is shorter");
    // Nothing of it in memory.
    let current = broker(&redis, &place, 1, None, &[&http.setting()]);
    let mut connection = Connection::to(current.address);
    for offset in 0..120 {
        let mut found = Ok((Vec::new(), 0));
        // A read that takes long is answered by the next fetch.
        assert!(eventually(|| {
            found = fetch(&mut connection, offset);
            !matches!(&found, Ok((records, _)) if records.is_empty())
                && !matches!(found, Err(ResponseError::NotLeaderOrFollower))
        }));
        match found {
            Ok((found, _)) => {
                assert!(!damaged.contains(&offset), "offset {offset} is in the damaged file");
                let last = found.last().expect("records").0;
                assert!(offset >= damaged.end || last < damaged.start, "{last} is not to be read");
                let end = u64::try_from(last).expect("an offset") + 1;
                let start = u64::try_from(offset).expect("an offset");
                assert_same(&found, &records(start..end), "beside the damaged file");
            }
            Err(error) => {
                assert_eq!(error, ResponseError::KafkaStorageError);
                assert!(damaged.contains(&offset), "offset {offset} is not in the damaged file");
            }
        }
    }
    let told = format!("the archive's copy of the offsets {} to {} is damaged", damaged.start, damaged.end);
    assert!(lines(&current, &told) > 0, "{}", current.log());
    assert!(http.value("weir_archive_read_errors_total") > 0.0);
}

#[test]
fn producers_and_hot_readers_do_not_wait_for_an_archive_that_does_not_answer() {
    let (redis, place, http) = in_a_bucket();
    let current = broker(&redis, &place, 0, None, &[&http.setting()]);
    create_topic(current.address, ALL_COLD);
    write(current.address, -1, 0..50);
    assert!(is_cold_up_to(current.address, 50), "{}", current.log());
    drop(current);
    weather(&place, "hold=1&times=1000000");
    let current = broker(&redis, &place, 1, None, &[&http.setting()]);
    let (mut cold, mut hot) = (Connection::to(current.address), Connection::to(current.address));
    for next in (50..150).step_by(10) {
        write(current.address, -1, next..next + 10);
        let (found, _) = fetch(&mut cold, 0).expect("no error");
        assert!(found.is_empty(), "the archive has not answered");
        let offset = i64::try_from(next).expect("a short test");
        assert_same(&fetch(&mut hot, offset).expect("hot records").0, &records(next..next + 10), "hot");
    }
    assert!(http.value("weir_archive_delayed_reads_total") >= 10.0);
    weather(&place, "");
    assert_same(&read_from(current.address, 0), &records(0..150), "after the weather");
    assert!(is_cold_up_to(current.address, 150), "{}", current.log());
}

#[test]
fn expired_credentials_are_told_once_and_tried_again() {
    let (redis, place, http) = in_a_bucket();
    let current = broker(&redis, &place, 0, None, &[&http.setting()]);
    create_topic(current.address, ALL_COLD);
    weather(&place, "status=400&code=ExpiredToken&times=1000000");
    write(current.address, -1, 0..50);
    assert!(eventually(|| http.value("weir_archive_copy_errors_total") >= 5.0), "it is tried again and again");
    let told: Vec<String> = current.log().lines().filter(|line| line.contains("ERROR")).map(str::to_owned).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("the credentials have expired"), "{told:?}");
    assert_same(&read_from(current.address, 0), &records(0..50), "hot");
    weather(&place, "");
    assert!(is_cold_up_to(current.address, 50), "{}", current.log());
    assert!(eventually(|| lines(&current, "records are archived again") == 1), "{}", current.log());
}

#[test]
fn at_the_hot_limit_appends_are_refused_until_the_archive_takes_records_again() {
    let (redis, place, http) = in_a_bucket();
    let current = broker(&redis, &place, 0, None, &["archive.hot.limit.bytes=20000", &http.setting()]);
    create_topic(current.address, ALL_COLD);
    weather(&place, "status=503&code=SlowDown&times=1000000");
    let mut end = 0;
    let code = loop {
        assert!(end < 10_000, "there is no limit");
        match attempt(current.address, &produce_request(batch(-1, end..end + 10))) {
            Some(0) => end += 10,
            refused => break refused.map(ResponseError::try_from_code),
        }
    };
    assert_eq!(code, Some(Some(ResponseError::KafkaStorageError)));
    let again = attempt(current.address, &produce_request(batch(-1, end..end + 10)));
    assert_eq!(again.map(ResponseError::try_from_code), code);
    assert_eq!(lines(&current, "appends are refused: too much waits to be archived"), 1, "{}", current.log());
    assert!(http.value("weir_archive_refused_appends_total") >= 2.0);
    assert_same(&read_from(current.address, 0), &records(0..end), "what was taken");
    weather(&place, "");
    write(current.address, -1, end..end + 10);
    assert!(is_cold_up_to(current.address, end + 10), "{}", current.log());
    assert_eq!(lines(&current, "appends are taken again"), 1, "{}", current.log());
    assert_same(&read_from(current.address, 0), &records(0..end + 10), "after the weather");
}
