//! Several processes that archive one partition at once, each of which believes that it may.

use super::{
    records::{assert_same, read_from, records, write, write_to},
    s3::S3,
    support::{
        Connection,
        ledger::{create_topic, new_producer},
        process::{eventually, signal},
        servers::Redis,
    },
    world::{ALL_COLD, EARLIEST_LOCAL, Job, Place, Stops, broker, is_cold_up_to, offset_of},
};

/// A broker is stopped at the step for longer than its session lasts; another one and `weir archive` go on; then it wakes up.
fn sleep_through(step: &str, place: &Place) {
    let redis = Redis::start(&[]);
    let (stops, of_job) = (Stops::new(), Stops::new());
    let sleeper = broker(&redis, place, 0, Some(&stops), &[]);
    create_topic(sleeper.address, ALL_COLD);
    let producer = new_producer(&mut Connection::to(sleeper.address));
    write(sleeper.address, producer, 0..40);
    assert!(is_cold_up_to(sleeper.address, 40), "{}", sleeper.log());
    stops.at(step);
    write(sleeper.address, producer, 40..80);
    stops.wait_for(step);
    signal(sleeper.child.id(), "STOP");
    of_job.at(step);
    let job = Job::start(&redis, place, Some(&of_job));
    // The job stands at the same step of the same range, and goes on beside the broker that takes over.
    of_job.wait_for(step);
    let other = broker(&redis, place, 1, None, &[]);
    of_job.clear(step);
    assert!(is_cold_up_to(other.address, 80), "{step}\n{}", other.log());
    write(other.address, producer, 80..120);
    stops.clear(step);
    signal(sleeper.child.id(), "CONT");
    // Who leads from here on is for them to settle.
    let both = [other.address, sleeper.address];
    let is_archived = eventually(|| both.iter().any(|address| offset_of(*address, EARLIEST_LOCAL) == Some(120)));
    assert!(is_archived, "{step}\n{}\n{}", sleeper.log(), other.log());
    write_to(&both, producer, 120..160);
    let is_archived = eventually(|| both.iter().any(|address| offset_of(*address, EARLIEST_LOCAL) == Some(160)));
    assert!(is_archived, "{step}\n{}\n{}", sleeper.log(), other.log());
    let leader = both.into_iter().find(|address| offset_of(*address, EARLIEST_LOCAL).is_some()).expect("one leads");
    assert_same(&read_from(leader, 0), &records(0..160), step);
    let told = place.ask_others();
    assert_eq!((told["rows"].as_i64(), told["offsets"].as_i64()), (Some(160), Some(160)), "{step}: {told}");
    drop(job);
}

#[test]
fn a_range_is_committed_once_however_late_a_sleeper_wakes_up_over_a_folder() {
    for step in ["records-written", "before-write-put", "before-note"] {
        sleep_through(step, &Place::folder());
    }
}

#[test]
fn a_range_is_committed_once_however_late_a_sleeper_wakes_up_over_a_bucket() {
    for step in ["records-written", "before-write-put", "before-note"] {
        sleep_through(step, &Place::Bucket(S3::start()));
    }
}
