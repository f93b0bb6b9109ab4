//! Too much of everything: memory and disk that run out, clients that do not read, that send without end, that open one connection
//! after the other. What is refused is refused so that it is tried again, and the others are served.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse,
        DeleteTopicsRequest, DeleteTopicsResponse, FetchRequest, FetchResponse, JoinGroupRequest, JoinGroupResponse,
        ProduceRequest, ProduceResponse, TopicName,
        create_topics_request::CreatableTopic,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        delete_topics_request::DeleteTopicState,
        join_group_request::JoinGroupRequestProtocol,
    },
    protocol::StrBytes,
};
use support::{
    Connection, PATIENCE, Weir, encoded,
    ledger::{
        attempt, batch, batch_of, commit, create_topic, fetch_request, new_producer, partition_produce_request,
        produce_request, read_all, topic, write_until,
    },
    process::{eventually, signal},
    servers::{Broker, Redis, free_port, http},
};

/// The records are old, and retention looks at once where room is scarce.
const BATCHES: [(&str, &str); 2] = [("weir.layout", "batch"), ("retention.ms", "-1")];

fn produce(address: SocketAddr, records: Bytes) -> Option<ResponseError> {
    let code = attempt(address, &produce_request(records)).expect("an answer");
    ResponseError::try_from_code(code)
}

fn large(size: usize) -> Bytes {
    batch_of(&vec![b'x'; size])
}

/// Produces until it is refused; gives the refusal and how many batches were taken.
fn fill(address: SocketAddr, size: usize) -> (ResponseError, i64) {
    let batch = large(size);
    let mut taken = 0;
    let deadline = Instant::now() + 2 * PATIENCE;
    while Instant::now() < deadline {
        match produce(address, batch.clone()) {
            None => taken += 1,
            Some(error) => return (error, taken),
        }
    }
    panic!("{taken} batches of {size} bytes were taken");
}

/// A new member, which makes the group rebalance.
fn join(address: SocketAddr) -> Option<ResponseError> {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"))
        .with_metadata(Bytes::from_static(b"\0\0\0\0\0\0\xff\xff\xff\xff"));
    let request = JoinGroupRequest::default()
        .with_group_id(StrBytes::from_static_str("members").into())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]);
    let answer: JoinGroupResponse = Connection::to(address).call(ApiKey::JoinGroup as i16, 3, &request);
    ResponseError::try_from_code(answer.error_code)
}

fn delete_records(address: SocketAddr, before: i64) -> Option<ResponseError> {
    let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(before);
    let topic = DeleteRecordsTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic]);
    let answer: DeleteRecordsResponse = Connection::to(address).call(ApiKey::DeleteRecords as i16, 2, &request);
    ResponseError::try_from_code(answer.topics[0].partitions[0].error_code)
}

fn delete_topic(address: SocketAddr) -> Option<ResponseError> {
    let topic = DeleteTopicState::default().with_name(Some(topic()));
    let request = DeleteTopicsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic]);
    let answer: DeleteTopicsResponse = Connection::to(address).call(ApiKey::DeleteTopics as i16, 6, &request);
    ResponseError::try_from_code(answer.responses[0].error_code)
}

fn create(address: SocketAddr, name: TopicName, partitions: i32) -> Option<ResponseError> {
    let topic = CreatableTopic::default().with_name(name).with_num_partitions(partitions).with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic]);
    let answer: CreateTopicsResponse = Connection::to(address).call(ApiKey::CreateTopics as i16, 7, &request);
    ResponseError::try_from_code(answer.topics[0].error_code)
}

fn fetch(offset: i64, max_bytes: i32, max_wait_ms: i32) -> FetchRequest {
    let mut request = fetch_request(0, offset, -1).with_max_wait_ms(max_wait_ms).with_max_bytes(max_bytes);
    request.topics[0].partitions[0].partition_max_bytes = max_bytes;
    request
}

/// The bytes of records that a fetch gives.
fn fetched(connection: &mut Connection, offset: i64, max_bytes: i32) -> usize {
    let answer: FetchResponse = connection.call(ApiKey::Fetch as i16, 12, &fetch(offset, max_bytes, 500));
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    partition.records.as_ref().map_or(0, Bytes::len)
}

#[test]
fn appends_are_refused_before_redis_is_full_and_all_else_goes_on() {
    let redis = Redis::start(&["--maxmemory", "64mb"]);
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let http_address: SocketAddr = listen.parse().expect("an address");
    let mark = ["--override", "weir.redis.memory.high.watermark=0.7"];
    let url = redis.url();
    let start = [&["--redis-url", &url, "--http", &listen][..], &mark].concat();
    let broker = Broker::start(&start).expect("a broker");
    create_topic(broker.address, &BATCHES);
    let (refusal, taken) = fill(broker.address, 32 << 10);
    assert_eq!(refusal, ResponseError::NotEnoughReplicas);
    assert!(taken > 500, "{taken} batches of 32 KiB");
    assert!(!redis.info("errorstats").contains("OOM"), "Redis itself refused: {}", redis.info("errorstats"));

    let ready = http(http_address, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("appends are refused: Redis' memory"), "{ready}");
    assert!(broker.log().contains("weir.redis.memory.high.watermark=0.7"), "{}", broker.log());
    assert!(fetched(&mut Connection::to(broker.address), 0, 1 << 20) > 0);
    assert_eq!((commit(broker.address, "commits", 3), join(broker.address)), (None, None));

    assert_eq!(delete_records(broker.address, taken), None);
    assert!(eventually(|| produce(broker.address, large(1)).is_none()), "{}", broker.log());
    let metrics = http(http_address, "/metrics");
    assert!(metrics.contains("\nweir_appends_held_back 0\n"), "{metrics}");
    assert!(!metrics.contains("\nweir_appends_refused_early_total 0\n"), "{metrics}");
    assert!(broker.log().contains("appends are taken"), "{}", broker.log());
}

#[test]
fn a_topic_that_retention_bounds_makes_room_by_itself() {
    let redis = Redis::start(&["--maxmemory", "64mb"]);
    let mark = ["--override", "weir.redis.memory.high.watermark=0.7"];
    let often = ["--override", "log.retention.check.interval.ms=1000"];
    let broker = Broker::start(&[&["--redis-url", &redis.url()][..], &mark, &often].concat()).expect("a broker");
    create_topic(broker.address, &[("weir.layout", "batch"), ("retention.ms", "-1"), ("retention.bytes", "8388608")]);
    let (refusal, taken) = fill(broker.address, 32 << 10);
    assert_eq!(refusal, ResponseError::NotEnoughReplicas);
    assert!(taken > 500, "{taken} batches of 32 KiB");
    assert!(eventually(|| produce(broker.address, large(1)).is_none()), "{}", broker.log());
    assert!(broker.log().contains("appends are taken"), "{}", broker.log());
    let answer: FetchResponse = Connection::to(broker.address).call(ApiKey::Fetch as i16, 12, &fetch(0, 1 << 20, 0));
    let told = answer.responses[0].partitions[0].error_code;
    assert_eq!(ResponseError::try_from_code(told), Some(ResponseError::OffsetOutOfRange), "the oldest are gone");
    assert!(fetched(&mut Connection::to(broker.address), taken, 1 << 20) > 0, "the latest is there");
}

#[test]
fn when_redis_memory_has_run_out_brokers_start_groups_commit_and_topics_go() {
    let redis = Redis::start(&[]);
    let url = redis.url();
    let fast = ["--redis-url", &url, "--override", "group.initial.rebalance.delay.ms=0"];
    let mut broker = Broker::start(&fast).expect("a broker");
    create_topic(broker.address, &BATCHES);
    for _ in 0..20 {
        assert_eq!(produce(broker.address, large(100 << 10)), None);
    }
    redis.config("maxmemory", "1mb");
    for _ in 0..2 {
        assert_eq!(produce(broker.address, large(100 << 10)), Some(ResponseError::NotEnoughReplicas));
        assert_eq!(produce(broker.address, large(1)), Some(ResponseError::NotEnoughReplicas));
        assert!(eventually(|| commit(broker.address, "commits", 3).is_none()), "{}", broker.log());
        assert_eq!(join(broker.address), None);
        assert!(fetched(&mut Connection::to(broker.address), 0, 1 << 20) > 0);
        // The same once more on a broker that knows nothing yet.
        drop(broker);
        broker = Broker::start(&fast).expect("a broker starts");
    }
    let another = StrBytes::from_static_str("another").into();
    assert_eq!(create(broker.address, another, 1), Some(ResponseError::NotEnoughReplicas));
    assert_eq!(delete_topic(broker.address), None);
    let stream_is_gone =
        || !redis::cmd("EXISTS").arg("korvet:stream:ledger:0").query::<bool>(&mut redis.connection()).expect("told");
    assert!(eventually(stream_is_gone), "{}", broker.log());
    redis.config("maxmemory", "100mb");
    create_topic(broker.address, &BATCHES);
    assert!(eventually(|| produce(broker.address, large(1)).is_none()), "{}", broker.log());
}

/// A Weir whose data lies on a disk of its own, of which the test fills what it wants to.
struct SmallDisk {
    weir: Child,
    address: SocketAddr,
    http: SocketAddr,
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// `mib` of memory as the disk, seen by this Weir alone.
    fn start(mib: u32, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = folder.path().join("disk");
        fs::create_dir(&disk).expect("a folder");
        let http: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().expect("an address");
        let script = format!("mount -t tmpfs -o size={mib}m weir-test \"$0\" && exec \"$@\"");
        // Who is not root here is so in a namespace of their own.
        let whose: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
        let mut weir = Command::new("unshare")
            .arg("--mount")
            .args(whose)
            .args(["sh", "-c", &script])
            .arg(&disk)
            .arg(env!("CARGO_BIN_EXE_weir"))
            .args(["--listen", "127.0.0.1:0", "--http", &http.to_string(), "--data-dir"])
            .arg(disk.join("data"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.path().join("log")).expect("a file"))
            .spawn()
            .expect("unshare (util-linux)");
        let mut ready = String::new();
        BufReader::new(weir.stdout.take().expect("a pipe")).read_line(&mut ready).expect("text");
        let address = ready.split_whitespace().find_map(|word| word.trim_end_matches(',').parse().ok());
        let address = address.unwrap_or_else(|| {
            panic!("{}", fs::read_to_string(folder.path().join("log")).unwrap_or_default());
        });
        Self { weir, address, http, folder }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("a log")
    }

    /// The disk as the broker sees it.
    fn disk(&self) -> PathBuf {
        let disk = self.folder.path().join("disk");
        PathBuf::from(format!("/proc/{}/root{}", self.weir.id(), disk.display()))
    }

    fn redis_server(&self) -> u32 {
        let url = format!("redis+unix://{}", self.disk().join("data/redis.sock").display());
        let mut redis = redis::Client::open(url).and_then(|client| client.get_connection()).expect("a running Redis");
        let info: String = redis::cmd("INFO").arg("server").query(&mut redis).expect("an answer");
        let line = info.lines().find_map(|line| line.strip_prefix("process_id:")).expect("its number");
        line.trim().parse().expect("a number")
    }

    /// Leaves at most `bytes` of the disk.
    fn leave(&self, bytes: u64) {
        let told = rustix::fs::statvfs(self.disk()).expect("a disk");
        let mut filler =
            fs::OpenOptions::new().create(true).append(true).open(self.disk().join("filler")).expect("a file");
        let full =
            vec![0; usize::try_from((told.f_bavail * told.f_frsize).saturating_sub(bytes)).expect("a small disk")];
        // Redis may take the last bytes first.
        let _ = filler.write_all(&full);
    }

    fn make_room(&self) {
        fs::remove_file(self.disk().join("filler")).expect("the filler is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.weir.id().to_string()).status();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && matches!(self.weir.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.weir.kill();
        let _ = self.weir.wait();
    }
}

#[test]
fn a_disk_that_fills_up_is_told_of_and_costs_nothing_that_was_acknowledged() {
    let weir = SmallDisk::start(64, &["--override", "weir.redis.disk.reserve.bytes=8388608"]);
    create_topic(weir.address, &BATCHES);
    let producer = new_producer(&mut Connection::to(weir.address));
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(weir.address, producer, &stop, &acknowledged));
        let _end = Ends(&stop);
        let progress = || {
            let before = acknowledged.load(Ordering::Relaxed);
            eventually(|| acknowledged.load(Ordering::Relaxed) > before + 100)
        };
        assert!(progress());
        // Nearly full: appends are refused while there is room for all else.
        weir.leave(4 << 20);
        assert!(eventually(|| http(weir.http, "/readyz").contains("is nearly full")), "{}", weir.log());
        assert_eq!(produce(weir.address, large(1)), Some(ResponseError::KafkaStorageError));
        assert_eq!(commit(weir.address, "commits", 1), None);
        assert!(weir.log().contains("weir.redis.disk.reserve.bytes"), "{}", weir.log());
        weir.make_room();
        assert!(progress(), "{}", weir.log());

        // Full, after it was nearly so: the server can't write, and dies on top of it.
        weir.leave(4 << 20);
        assert!(eventually(|| http(weir.http, "/readyz").contains("is nearly full")), "{}", weir.log());
        assert_eq!(produce(weir.address, large(1)), Some(ResponseError::KafkaStorageError));
        weir.leave(0);
        let full = || http(weir.http, "/readyz");
        assert!(
            eventually(|| full().contains("503") && full().contains("make room there")),
            "{} {}",
            full(),
            weir.log()
        );
        assert!(fetched(&mut Connection::to(weir.address), 0, 1 << 20) > 0, "reads go on");
        signal(weir.redis_server(), "KILL");
        let told = || weir.log().contains("is full: make room there");
        assert!(eventually(told), "{}", weir.log());
        assert_eq!(weir.log().matches("is full: make room there").count(), 1, "once");
        weir.make_room();
        assert!(progress(), "{}", weir.log());
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("a writer")
    });
    assert_eq!(read_all(weir.address), (0..written).collect::<Vec<_>>());
    assert!(eventually(|| http(weir.http, "/readyz").ends_with("ok\n")));
}

/// Small budgets, so that little is enough to use them up.
const TIGHT: [&str; 10] = [
    "--override",
    "weir.fetch.response.bytes=8388608",
    "--override",
    "weir.tail.cache.bytes=2097152",
    "--override",
    "queued.max.request.bytes=33554432",
    "--override",
    "socket.request.max.bytes=4194304",
    "--override",
    "weir.append.bytes=8388608",
];

/// A broker with a topic that holds `batches` of 256 KiB.
fn tight_broker(batches: usize) -> Weir {
    let weir = Weir::start(&TIGHT);
    create_topic(weir.address, &BATCHES);
    let batch = large(256 << 10);
    for _ in 0..batches {
        assert_eq!(produce(weir.address, batch.clone()), None);
    }
    weir
}

/// How long a round may take beside an abuser, on a machine that is busy with other tests.
const BEARABLE: Duration = Duration::from_secs(5);

/// Does something again and again beside an abuser, and prints how long it took (docs/reliability.md has the figures).
fn bearable_beside(abuser: &str, mut round: impl FnMut()) {
    const ROUNDS: usize = 100;
    const LONGEST: Duration = Duration::from_secs(15);
    let began = Instant::now();
    let mut waits = Vec::with_capacity(ROUNDS);
    while waits.len() < ROUNDS && began.elapsed() < LONGEST {
        let started = Instant::now();
        round();
        waits.push(started.elapsed());
    }
    waits.sort_unstable();
    let at = |share: usize| waits[(waits.len() - 1) * share / 100];
    println!("beside {abuser}: p50 {:.1?}, p99 {:.1?}, longest {:.1?} of {}", at(50), at(99), at(100), waits.len());
    assert!(at(100) < BEARABLE, "beside {abuser}: {:?}", at(100));
}

/// An append of a kilobyte to a partition; where it landed.
fn append_to(partition: i32, producer: &mut Connection) -> i64 {
    let request = partition_produce_request(partition, large(1_000));
    let answer: ProduceResponse = producer.call(ApiKey::Produce as i16, 9, &request);
    let answer = &answer.responses[0].partition_responses[0];
    assert_eq!(answer.error_code, 0);
    answer.base_offset
}

/// Rounds of one append, and a fetch of what was just written: as a consumer at the end of the log has it.
fn appends_and_fetches_are_bearable(address: SocketAddr, mut end: i64, abuser: &str) {
    let (mut producer, mut consumer) = (Connection::to(address), Connection::to(address));
    bearable_beside(abuser, || {
        let at = append_to(0, &mut producer);
        assert!(fetched(&mut consumer, end, 1 << 20) > 0, "the record that was just written");
        end = at + 1;
    });
}

#[test]
fn consumers_that_do_not_read_their_answers_do_not_keep_others_waiting() {
    let weir = tight_broker(80);
    let deaf: Vec<Connection> = (0..40)
        .map(|_| {
            let mut connection = Connection::to(weir.address);
            connection.send(ApiKey::Fetch as i16, 12, &fetch(0, 16 << 20, 0));
            connection
        })
        .collect();
    let started = Instant::now();
    // They hold all of the memory for old data until they are given up, which is long before they would be otherwise.
    let mut reader = Connection::to(weir.address);
    let mut offset = 0;
    while offset < 80 {
        let bytes = fetched(&mut reader, offset, 1 << 20);
        offset += i64::try_from(bytes / (256 << 10)).expect("a few");
    }
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    appends_and_fetches_are_bearable(weir.address, 80, "forty consumers that do not read");
    assert!(weir.peak_mib() < 160, "{} MiB", weir.peak_mib());
    drop(deaf);
}

#[test]
fn a_thousand_fetches_of_old_data_leave_the_consumers_at_the_end_alone() {
    let weir = tight_broker(80);
    let frame = encoded(ApiKey::Fetch as i16, 12, 1, &fetch(0, 4 << 20, 0));
    let mut crowd: Vec<TcpStream> = (0..1_000)
        .map(|_| {
            let mut stream = TcpStream::connect(weir.address).expect("a listening broker");
            stream.write_all(&frame).expect("sent");
            stream
        })
        .collect();
    appends_and_fetches_are_bearable(weir.address, 80, "a thousand fetches of old data");
    for stream in &mut crowd {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
    assert!(weir.peak_mib() < 256, "{} MiB", weir.peak_mib());
}

#[test]
fn requests_that_pile_up_on_one_connection_leave_memory_for_the_others() {
    let weir = tight_broker(1);
    let mut greedy = Connection::to(weir.address);
    greedy.stream.set_nonblocking(true).expect("a socket");
    // A fetch that waits holds up the answers to all behind it.
    let waiting = encoded(ApiKey::Fetch as i16, 12, 1, &fetch(1, 1 << 20, 20_000).with_min_bytes(i32::MAX));
    let append = encoded(ApiKey::Produce as i16, 9, 2, &produce_request(large(900 << 10)));
    let mut unsent: Vec<u8> = waiting.to_vec();
    for _ in 0..60 {
        unsent.extend_from_slice(&append);
    }
    let sent = thread::spawn(move || {
        let mut rest = &unsent[..];
        let deadline = Instant::now() + Duration::from_secs(3);
        while !rest.is_empty() && Instant::now() < deadline {
            match greedy.stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
        (greedy, rest.len())
    });
    let (greedy, unsent) = sent.join().expect("a sender");
    assert!(unsent > 30 << 20, "the broker stops reading: {unsent} bytes were not taken");
    let started = Instant::now();
    assert_eq!(produce(weir.address, large(1_000_000)), None);
    assert!(started.elapsed() < BEARABLE, "{:?}", started.elapsed());
    drop(greedy);
}

/// Ends the threads of a test, also one that fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends the same request again and again without waiting for the answers, until `stop` or a quarter of a GiB.
fn flood(address: SocketAddr, request: &ProduceRequest, stop: &AtomicBool) {
    let mut flood = Connection::to(address);
    flood.stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let mut reading = flood.stream.try_clone().expect("a socket");
    let reader = thread::spawn(move || std::io::copy(&mut reading, &mut std::io::sink()));
    let one = encoded(ApiKey::Produce as i16, 9, 1, request);
    let many = one.repeat((256 << 10) / one.len() + 1);
    let mut rest = &many[..];
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) && sent < 256 << 20 {
        match flood.stream.write(rest) {
            Ok(written) => {
                rest = &rest[written..];
                sent += written;
            }
            // It is held back.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("the broker has ended the flood: {error}"),
        }
        if rest.is_empty() {
            rest = &many;
        }
    }
    let _ = flood.stream.shutdown(std::net::Shutdown::Both);
    let _ = reader.join();
}

#[test]
fn a_flood_of_small_requests_delays_others_a_little() {
    let weir = tight_broker(1);
    let stop = AtomicBool::new(false);
    let mut producer = Connection::to(weir.address);
    let mut append = || {
        append_to(0, &mut producer);
    };
    bearable_beside("nobody", &mut append);
    thread::scope(|scope| {
        scope.spawn(|| flood(weir.address, &produce_request(batch(-1, 0, 1)), &stop));
        let _end = Ends(&stop);
        bearable_beside("a flood of small appends to the same partition", &mut append);
    });
    assert!(weir.peak_mib() < 160, "{} MiB", weir.peak_mib());
}

#[test]
fn a_partition_that_is_flooded_does_not_starve_another() {
    let weir = Weir::start(&TIGHT);
    assert_eq!(create(weir.address, topic(), 2), None);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| flood(weir.address, &partition_produce_request(0, large(64 << 10)), &stop));
        let _end = Ends(&stop);
        let mut producer = Connection::to(weir.address);
        bearable_beside("a flood of 64 KiB appends to another partition", || {
            append_to(1, &mut producer);
        });
    });
    assert!(weir.peak_mib() < 160, "{} MiB", weir.peak_mib());
}

#[test]
fn connections_that_come_and_go_without_end_delay_others_a_little() {
    let weir = tight_broker(1);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..50_000 {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(stream) = TcpStream::connect(weir.address) else { continue };
                // Else the ports of this machine would run out, for other tests too.
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
        });
        let _end = Ends(&stop);
        let mut producer = Connection::to(weir.address);
        bearable_beside("one that opens connections in a loop", || {
            append_to(0, &mut producer);
        });
    });
    assert!(weir.peak_mib() < 160, "{} MiB", weir.peak_mib());
}

#[test]
fn five_thousand_connections_are_served() {
    const CONNECTIONS: u64 = 5_000;
    let weir = Weir::start(&[]);
    create_topic(weir.address, &BATCHES);
    assert_eq!(produce(weir.address, large(1)), None);
    let frame = encoded(ApiKey::Fetch as i16, 12, 1, &fetch(1, 1 << 20, 60_000));
    // This process may open as many files as it wants.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("up to the hard limit");
    let room = limit.maximum.unwrap_or(u64::MAX);
    assert!(room > CONNECTIONS + 200, "{room} open files are too few for this test: raise `ulimit -Hn`");
    let waiting: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(weir.address).expect("a listening broker");
            stream.write_all(&frame).expect("sent");
            stream
        })
        .collect();
    appends_and_fetches_are_bearable(weir.address, 1, "5,000 connections that wait");
    assert!(weir.peak_mib() < 300, "{} MiB", weir.peak_mib());
    drop(waiting);
}
