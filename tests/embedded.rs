//! The embedded Redis with real processes: start, stop, and every death in between.

mod support;

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use kafka_protocol::{
    messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse},
    protocol::StrBytes,
};
use support::{
    Weir,
    process::{eventually, newest_increment_file, processes_in, redis_server_in, signal, wait, weir},
};

fn redis_in(folder: &Path) -> redis::Connection {
    let info = redis::ConnectionAddr::Unix(folder.join("redis.sock"));
    let client = redis::Client::open(redis::IntoConnectionInfo::into_connection_info(info).expect("a path"));
    client.expect("a client").get_connection().expect("a running Redis")
}

fn increment(connection: &mut redis::Connection) -> i64 {
    redis::cmd("INCR").arg("counter").query(connection).expect("a write that is acknowledged")
}

fn answers(weir: &Weir) -> bool {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    weir.connect().call::<_, ApiVersionsResponse>(ApiKey::ApiVersions as i16, 4, &request).error_code == 0
}

#[test]
fn a_clean_stop_keeps_the_data_and_leaves_no_process() {
    let mut weir = Weir::start(&[]);
    let folder = weir.data_dir();
    increment(&mut redis_in(&folder));
    assert!(weir.stop(), "exit code 0");
    assert_eq!(processes_in(&folder), []);
    assert!(!folder.join("redis.sock").exists());
    weir.restart();
    assert_eq!(increment(&mut redis_in(&folder)), 2);
    assert!(answers(&weir));
}

#[test]
fn after_kill_9_of_weir_its_redis_ends_by_itself() {
    let mut weir = Weir::start(&[]);
    let folder = weir.data_dir();
    increment(&mut redis_in(&folder));
    weir.kill();
    assert!(eventually(|| processes_in(&folder).is_empty()), "{:?}", processes_in(&folder));
    weir.restart();
    assert_eq!(increment(&mut redis_in(&folder)), 2);
}

#[test]
fn a_weir_started_at_once_after_kill_9_loses_nothing() {
    let mut weir = Weir::start(&[]);
    let folder = weir.data_dir();
    for life in 0..5 {
        let mut connection = redis_in(&folder);
        for write in 1..=100 {
            assert_eq!(increment(&mut connection), life * 100 + write);
        }
        weir.kill();
        weir.restart();
    }
    assert_eq!(increment(&mut redis_in(&folder)), 501);
}

#[test]
fn a_redis_that_outlived_everything_else_is_ended_and_loses_nothing() {
    let mut weir = Weir::start(&[]);
    let folder = weir.data_dir();
    let orphan = redis_server_in(&folder).expect("a running Redis");
    increment(&mut redis_in(&folder));
    // The shells would end it, and Weir would start another: with all of them gone at once, only the next Weir can.
    signal(weir.pid(), "STOP");
    for (pid, name) in processes_in(&folder) {
        if !name.starts_with("redis-server") {
            signal(pid, "STOP");
        }
    }
    for (pid, name) in processes_in(&folder) {
        if !name.starts_with("redis-server") {
            signal(pid, "KILL");
        }
    }
    weir.kill();
    assert_eq!(redis_server_in(&folder), Some(orphan));
    weir.restart();
    assert_ne!(redis_server_in(&folder), Some(orphan));
    assert_eq!(increment(&mut redis_in(&folder)), 2);
}

#[test]
fn a_redis_that_dies_is_started_again_with_its_data() {
    let weir = Weir::start(&[]);
    let folder = weir.data_dir();
    for death in 1..=3 {
        increment(&mut redis_in(&folder));
        let dead = redis_server_in(&folder).expect("a running Redis");
        signal(dead, "KILL");
        assert!(eventually(|| redis_server_in(&folder).is_some_and(|pid| pid != dead)), "death {death}");
        assert!(eventually(|| redis::Client::open(format!("redis+unix://{}", folder.join("redis.sock").display()))
            .and_then(|client| client.get_connection())
            .and_then(|mut connection| redis::cmd("PING").exec(&mut connection))
            .is_ok()));
    }
    assert_eq!(increment(&mut redis_in(&folder)), 4);
    assert!(answers(&weir));
}

#[test]
fn a_second_instance_on_one_directory_is_refused() {
    let weir_here = Weir::start(&[]);
    let folder = weir_here.data_dir();
    let second = weir(&["--listen", "127.0.0.1:0", "--data-dir", folder.to_str().expect("text")]);
    assert_eq!(second.code, Some(1));
    let expected =
        format!("belongs to a running Weir (process {}): stop it, or give another directory", weir_here.pid());
    assert!(second.stderr.contains(&expected), "{}", second.stderr);
    assert!(answers(&weir_here));
}

#[test]
fn a_write_that_was_cut_short_does_not_keep_redis_from_starting() {
    let mut weir = Weir::start(&[]);
    let folder = weir.data_dir();
    increment(&mut redis_in(&folder));
    weir.kill();
    assert!(eventually(|| processes_in(&folder).is_empty()));
    let mut file = OpenOptions::new().append(true).open(newest_increment_file(&folder)).expect("the file");
    file.write_all(b"*3\r\n$3\r\nSET\r\n$7\r\ncoun").expect("written");
    drop(file);
    weir.restart();
    assert_eq!(increment(&mut redis_in(&folder)), 2);
}

/// Starts weir with this data directory, waits for the ready line, and stops it.
fn starts_in(folder: &Path) -> String {
    use std::io::{BufRead, BufReader};
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the weir binary");
    let mut ready = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut ready).expect("text");
    signal(child.id(), "TERM");
    assert_eq!(wait(&mut child), Some(0), "{ready}");
    ready
}

#[test]
fn the_directory_may_have_any_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["with blank", "quoted \"'\\", "ümlaut %20 #", &"long".repeat(40)] {
        let folder = folder.path().join(name);
        let ready = starts_in(&folder);
        assert!(ready.contains("is ready"), "{name}: {ready:?}");
        assert_eq!(processes_in(&folder), []);
        assert!(fs::symlink_metadata(folder.join("redis.sock")).is_err(), "{name}: the socket is left");
    }
}

#[test]
fn the_ready_line_says_where_it_listens_where_the_data_is_and_what_to_try() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ready = starts_in(folder.path());
    assert!(ready.contains("clients connect to 127.0.0.1:"), "{ready}");
    assert!(ready.contains(&folder.path().canonicalize().expect("a folder").display().to_string()), "{ready}");
    assert!(ready.contains("embedded Redis of at most") && ready.contains("kcat"), "{ready}");
}

#[test]
fn what_keeps_the_embedded_redis_from_starting_is_said_in_a_sentence() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = folder.path().to_str().expect("text");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("written");
    let file = file.to_str().expect("text");
    for (arguments, said) in [
        (["--data-dir", file, "--keyspace", "k"], "can't be used"),
        (["--data-dir", "/dev/null/x", "--keyspace", "k"], "give one that this user can write with --data-dir"),
        (["--data-dir", text, "--override", "redis.server.path=no-such-server"], "it is not on PATH"),
        (["--data-dir", text, "--override", "redis.server.path=/bin/false"], "the embedded redis-server ended at once"),
        (["--data-dir", text, "--override", "redis.server.path=/etc/passwd"], "/etc/passwd can't be started"),
    ] {
        let ended = weir(&[&["--listen", "127.0.0.1:0", "--override", "log.level=error"][..], &arguments].concat());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.starts_with("weir: ") && ended.stderr.contains(said), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
}

#[test]
fn a_server_that_is_too_old_is_named_with_its_version() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = folder.path().join("redis-server");
    fs::write(
        &program,
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'Redis server v=6.0.16 sha=0 malloc=x bits=64' && exit 0\nexit 1\n",
    )
    .expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, mode).expect("a mode");
    let setting = format!("redis.server.path={}", program.display());
    let data = folder.path().join("data");
    let ended = weir(&["--check", "--data-dir", data.to_str().expect("text"), "--override", &setting]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("is version 6.0.16: install Redis 7.0 or newer"), "{ended:?}");
}

#[test]
fn a_check_tells_what_it_found_and_leaves_nothing_running() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ended = weir(&["--check", "--data-dir", folder.path().to_str().expect("text")]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("acks=all survives the death of any process"), "{ended:?}");
    assert_eq!(processes_in(folder.path()), []);
}
