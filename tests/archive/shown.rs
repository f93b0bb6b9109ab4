//! What operators see of the cold tier: metrics, health, log directories.

use std::net::SocketAddr;

use kafka_protocol::messages::{
    ApiKey, DescribeLogDirsRequest, DescribeLogDirsResponse, describe_log_dirs_response::DescribeLogDirsResult,
};

use super::{
    records::{read_from, write},
    support::{Connection, ledger::create_topic, process::eventually, servers::Redis},
    world::{ALL_COLD, Http, Job, Place, broker, is_cold_up_to},
};

/// The directory and what is in it: size and lag of the only partition.
fn directories(address: SocketAddr) -> Vec<(String, Option<(i64, i64)>)> {
    let request = DescribeLogDirsRequest::default().with_topics(None);
    let answer: DescribeLogDirsResponse = Connection::to(address).call(ApiKey::DescribeLogDirs as i16, 4, &request);
    let told = |directory: &DescribeLogDirsResult| {
        assert_eq!(directory.error_code, 0);
        let partition = directory.topics.first().map(|topic| &topic.partitions[0]);
        let partition = partition.map(|partition| (partition.partition_size, partition.offset_lag));
        (directory.log_dir.to_string(), partition)
    };
    answer.results.iter().map(told).collect()
}

#[test]
fn what_is_cold_is_shown_by_metrics_and_as_a_log_directory() {
    let (redis, place, http) = (Redis::start(&[]), Place::folder(), Http::new());
    let current = broker(&redis, &place, 0, None, &[&http.setting()]);
    create_topic(current.address, ALL_COLD);
    let url = place.settings()[0].trim_start_matches("archive.url=").to_owned();
    let [hot, cold] = &directories(current.address)[..] else { panic!("Redis, and the archive") };
    assert_eq!((hot.0.as_str(), cold), ("redis", &(url.clone(), None)));
    write(current.address, -1, 0..60);
    assert!(is_cold_up_to(current.address, 60), "{}", current.log());
    let shown = |name: &str| http.value(name);
    assert_eq!(shown("weir_archive_copied_records_total"), 60.0);
    assert_eq!(shown("weir_partition_local_start_offset{topic=\"ledger\",partition=\"0\"}"), 60.0);
    assert_eq!(shown("weir_partition_archived_end_offset{topic=\"ledger\",partition=\"0\"}"), 60.0);
    assert_eq!((shown("weir_archive_lag_bytes"), shown("weir_archive_lag_records")), (0.0, 0.0));
    let size = shown("weir_archive_size_bytes");
    assert_eq!(shown("weir_partition_archive_size_bytes{topic=\"ledger\",partition=\"0\"}"), size);
    assert!(shown("weir_archive_copied_bytes_total") > 0.0 && size > 0.0);
    for failed in ["copy_errors", "read_errors", "refused_appends"] {
        assert_eq!(shown(&format!("weir_archive_{failed}_total")), 0.0, "{failed}");
    }
    let expected = Some((size as i64, 0));
    let [hot, cold] = &directories(current.address)[..] else { panic!("Redis, and the archive") };
    assert_eq!((hot.1, cold), (Some((0, 0)), &(url, expected)));
    drop(current);
    // Nothing of it is in memory.
    let current = broker(&redis, &place, 1, None, &[&http.setting()]);
    assert_eq!(read_from(current.address, 0).len(), 60);
    assert!(shown("weir_archive_read_bytes_total") > 0.0);
}

#[test]
fn a_process_of_its_own_shows_its_work_and_brokers_what_is_left_of_it() {
    let (redis, place) = (Redis::start(&[]), Place::folder());
    let (http, of_job) = (Http::new(), Http::new());
    let current = broker(&redis, &place, 0, None, &["archive.job=off", &http.setting()]);
    create_topic(current.address, ALL_COLD);
    write(current.address, -1, 0..30);
    assert_eq!(http.value("weir_archive_lag_records"), 30.0);
    assert!(http.value("weir_archive_lag_bytes") > 0.0);
    let _job = Job::start_with(&redis, &place, None, &[&of_job.setting()]);
    assert!(is_cold_up_to(current.address, 30), "{}", current.log());
    assert!(eventually(|| http.value("weir_archive_lag_records") == 0.0), "the broker knows how far it is archived");
    assert!(http.value("weir_archive_size_bytes") > 0.0);
    assert_eq!(http.value("weir_archive_copied_records_total"), 0.0);
    assert_eq!(of_job.value("weir_archive_copied_records_total"), 30.0);
    for path in ["/livez", "/readyz"] {
        assert!(of_job.get(path).starts_with("HTTP/1.1 200 "), "{path}");
    }
    redis.signal("STOP");
    assert!(of_job.get("/readyz").starts_with("HTTP/1.1 503 "), "Redis hangs");
    redis.signal("CONT");
    assert!(eventually(|| of_job.get("/readyz").starts_with("HTTP/1.1 200 ")), "Redis is back");
}
