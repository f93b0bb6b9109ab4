//! Weir with a Redis that somebody else runs: which servers it takes, and what it says of the others.

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use support::{
    process::{Ended, eventually, signal, wait, weir, weir_with},
    servers::{Broker, Redis, free_port, http},
};

fn check(url: &str) -> Ended {
    weir(&["--check", "--redis-url", url, "--override", "log.level=error"])
}

fn assert_refused(ended: &Ended, said: &str) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.starts_with("weir: Redis at redis"), "{ended:?}");
    assert!(ended.stderr.contains(said), "{said} is not in {ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
}

#[test]
fn a_server_that_keeps_its_promises_is_taken() {
    let redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always", "--maxmemory", "100mb"]);
    let ended = check(&redis.url());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("acks=all survives the death of the machine"), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 1, "no notes: {ended:?}");
    let socket = redis.folder.path().join("redis.sock");
    for scheme in ["redis+unix", "unix"] {
        let ended = check(&format!("{scheme}://{}?db=3", socket.display()));
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

#[test]
fn a_server_that_may_lose_what_was_acknowledged_is_taken_with_a_note() {
    for arguments in [&["--appendonly", "no"][..], &["--appendonly", "yes", "--appendfsync", "everysec"]] {
        let redis = Redis::start(arguments);
        let ended = check(&redis.url());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("acks=all survives nothing that ends Redis"), "{ended:?}");
        assert!(ended.stdout.contains("appendfsync no"), "says how to mend it: {ended:?}");
        assert!(ended.stdout.contains("has no maxmemory"), "{ended:?}");
    }
}

#[test]
fn a_server_that_evicts_is_refused() {
    let redis = Redis::start(&["--maxmemory-policy", "allkeys-lru"]);
    assert_refused(&check(&redis.url()), "CONFIG SET maxmemory-policy noeviction");
}

#[test]
fn a_replica_is_refused_with_its_master() {
    let redis = Redis::start(&["--replicaof", "127.0.0.1 1"]);
    assert_refused(&check(&redis.url()), "it is a replica of 127.0.0.1:1: give the address of the master");
}

#[test]
fn a_cluster_that_serves_no_slots_is_refused() {
    let redis = Redis::start(&["--cluster-enabled", "yes"]);
    assert_refused(&check(&redis.url()), "its cluster takes no commands, or not for all slots (0 of 16384 are served)");
}

#[test]
fn users_and_passwords_are_sent_and_never_shown() {
    let redis =
        Redis::start(&["--requirepass", "right-secret", "--user", "weir", "on", ">his-secret", "~*", "&*", "+@all"]);
    let address = format!("127.0.0.1:{}", redis.port);
    for login in [":right-secret@", "default:right-secret@", "weir:his-secret@"] {
        let ended = check(&format!("redis://{login}{address}"));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.stdout.contains("secret"), "{ended:?}");
    }
    for login in ["", ":wrong-secret@", "weir:wrong-secret@"] {
        let ended = check(&format!("redis://{login}{address}"));
        assert_refused(&ended, "it refuses the user or password");
        assert!(!ended.stderr.contains("secret"), "{ended:?}");
    }
}

#[test]
fn a_user_who_may_not_do_what_weir_needs_is_told_so() {
    let redis = Redis::start(&["--user", "weir", "on", ">secret", "~*", "&*", "+@all", "-function|stats"]);
    let ended = check(&format!("redis://weir:secret@127.0.0.1:{}", redis.port));
    assert_refused(&ended, "its user may not do what Weir needs");
}

#[test]
fn a_database_that_is_not_there_is_named() {
    let redis = Redis::start(&["--databases", "2"]);
    assert_eq!(check(&format!("{}/1", redis.url())).code, Some(0));
    assert_refused(&check(&format!("{}/9", redis.url())), "it has no database");
}

#[test]
fn where_nothing_listens_the_address_is_named() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    assert_refused(&check(&url), "nothing answers");
    assert_refused(&check("redis+unix:///nowhere/redis.sock"), "nothing answers");
}

#[test]
fn a_keyspace_in_an_unknown_layout_is_refused_and_another_is_not() {
    let redis = Redis::start(&[]);
    let key = "{korvet:catalog}:layout";
    redis::cmd("SET").arg(key).arg("99").exec(&mut redis.connection()).expect("written");
    let ended = check(&redis.url());
    assert_refused(&ended, "the keyspace korvet there was written in layout 99, and this Weir knows layout 1");
    let ended = weir(&["--check", "--redis-url", &redis.url(), "--keyspace", "other"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let left: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis.connection()).expect("an answer");
    assert_eq!(left, [key], "a check writes nothing");
}

/// Something that speaks Redis' protocol and gives this text for INFO, and OK for all else.
fn impostor(info: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || impersonate(stream, info));
        }
    });
    format!("redis://{address}")
}

fn impersonate(stream: TcpStream, info: &str) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let mut writer = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let parts: usize = line.trim().trim_start_matches('*').parse().expect("an array");
        let words: Vec<String> = (0..parts)
            .map(|_| {
                let mut length = String::new();
                reader.read_line(&mut length).expect("a length");
                let length: usize = length.trim().trim_start_matches('$').parse().expect("a length");
                let mut word = vec![0; length + 2];
                reader.read_exact(&mut word).expect("a word");
                String::from_utf8_lossy(&word[..length]).into_owned()
            })
            .collect();
        let answer = match words[0].as_str() {
            "INFO" => format!("${}\r\n{info}\r\n", info.len()),
            "GET" => "$-1\r\n".to_owned(),
            "CONFIG" => "*2\r\n$11\r\nappendfsync\r\n$2\r\nno\r\n".to_owned(),
            "FUNCTION" if info.contains("nothing") => "-ERR unknown command 'FUNCTION'\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        };
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn versions_and_kinds_of_server_are_told_apart() {
    let old = impostor("redis_version:6.2.14\r\nredis_mode:standalone\r\nrole:master\r\n");
    assert_refused(&check(&old), "it is Redis 6.2.14: Weir needs Redis 7.0 or newer, or Valkey");
    let sentinel = impostor("redis_version:7.0.15\r\nredis_mode:sentinel\r\n");
    assert_refused(&check(&sentinel), "it is a Sentinel");
    let other = impostor("redis_version:7.2.0\r\nredis_mode:standalone\r\nrole:master\r\nnothing:1\r\n");
    assert_refused(&check(&other), "it has no Functions");
    let valkey = impostor(
        "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0\r\nredis_mode:standalone\r\nrole:master\r\n\
         maxmemory:1\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n",
    );
    let ended = check(&valkey);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("Valkey 8.1.0; acks=all survives the death of any process"), "{ended:?}");
}

#[test]
fn a_second_live_broker_with_one_node_id_does_not_start() {
    let redis = Redis::start(&[]);
    let url = redis.url();
    let first = Broker::start(&["--redis-url", &url]).expect("the first");
    let refused = Broker::start(&["--redis-url", &url]).err().expect("a refusal");
    assert_eq!(refused.code, Some(1));
    let said = format!("node id 1 belongs to a live broker at {}", first.address);
    assert!(refused.stderr.contains(&said) && refused.stderr.contains("--node-id"), "{refused:?}");
    Broker::start(&["--redis-url", &url, "--node-id", "2"]).expect("another id");
    Broker::start(&["--redis-url", &url, "--keyspace", "other"]).expect("another keyspace");
}

#[test]
fn a_broker_that_was_killed_is_replaced_at_once() {
    let redis = Redis::start(&[]);
    let url = redis.url();
    for _ in 0..3 {
        let mut broker = Broker::start(&["--redis-url", &url]).expect("a broker");
        broker.child.kill().expect("killed");
        wait(&mut broker.child);
    }
    let started = std::time::Instant::now();
    let mut broker = Broker::start(&["--redis-url", &url]).expect("a broker");
    // Well below the time after which a registration expires.
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
    signal(broker.child.id(), "TERM");
    assert_eq!(wait(&mut broker.child), Some(0));
    let left: bool =
        redis::cmd("EXISTS").arg("{korvet:catalog}:broker:1").query(&mut redis.connection()).expect("an answer");
    assert!(!left, "a broker that stops takes its registration away");
}

#[test]
fn the_cluster_id_is_made_or_given_once() {
    let redis = Redis::start(&[]);
    let stored =
        || redis::cmd("GET").arg("{korvet:catalog}:cluster").query::<String>(&mut redis.connection()).expect("an id");
    drop(Broker::start(&["--redis-url", &redis.url()]).expect("a broker"));
    let id = stored();
    assert_eq!(id.len(), 22, "a UUID in URL-safe base64");
    drop(Broker::start(&["--redis-url", &redis.url()]).expect("a broker"));
    assert_eq!(stored(), id);
    let other = ["--redis-url", &redis.url(), "--override", "cluster.id=mine"];
    let refused = Broker::start(&other).err().expect("a refusal");
    assert!(
        refused.stderr.contains(&format!("`cluster.id` is mine, but the data in this Redis belongs to cluster {id}"))
    );
    drop(Broker::start(&[&other[..], &["--keyspace", "new"]].concat()).expect("a broker"));
}

#[test]
fn redis_lost_and_back_is_told_and_readiness_follows() {
    let mut redis = Redis::start(&["--appendonly", "yes"]);
    let http_address: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().expect("an address");
    let broker = Broker::start(&["--redis-url", &redis.url(), "--http", &http_address.to_string()]).expect("a broker");
    assert!(eventually(|| http(http_address, "/readyz").starts_with("HTTP/1.1 200 ")));
    assert!(http(http_address, "/metrics").contains("weir_redis_connected 1\n"));
    redis.kill();
    assert!(eventually(|| http(http_address, "/readyz").starts_with("HTTP/1.1 503 ")));
    assert!(http(http_address, "/livez").starts_with("HTTP/1.1 200 "));
    assert!(http(http_address, "/metrics").contains("weir_redis_connected 0\n"));
    redis.start_again();
    assert!(eventually(|| http(http_address, "/readyz").starts_with("HTTP/1.1 200 ")));
    assert!(http(http_address, "/metrics").contains("weir_redis_connections_lost_total 1\n"));
    redis.restart();
    assert!(eventually(|| broker.log().matches("Redis is back").count() == 2), "{}", broker.log());
    assert_eq!(broker.log().matches("Redis is lost").count(), 2, "{}", broker.log());
}

#[test]
fn the_log_is_json_where_it_is_wanted() {
    let redis = Redis::start(&[]);
    let mut broker = Broker::start(&["--redis-url", &redis.url(), "--override", "log.format=json"]).expect("a broker");
    signal(broker.child.id(), "TERM");
    assert_eq!(wait(&mut broker.child), Some(0));
    let log = broker.log();
    assert!(log.contains("Weir is ready") && log.contains("Weir has stopped"), "{log}");
    for line in log.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("one JSON object a line");
        assert!(event["level"].is_string() && event["timestamp"].is_string(), "{line}");
    }
}

#[test]
fn wrong_settings_are_told_with_exit_code_2() {
    for (arguments, environment, said) in [
        (&["--listen", "here"][..], &[][..], "weir: `listen` is \"here\" (--listen): it must be HOST:PORT"),
        (&["--override", "num.partitoins=1"], &[], "did you mean num.partitions?"),
        (&[], &[("WEIR_NODE_ID", "one")], "weir: `node.id` is \"one\" (environment WEIR_NODE_ID): it must be a number"),
        (&["--config", "/nowhere.toml"], &[], "weir: the configuration file /nowhere.toml can't be read"),
        (&["--no-such-flag"], &[], "unexpected argument '--no-such-flag'"),
    ] {
        let ended = weir_with(arguments, environment);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(said), "{ended:?}");
    }
    assert_eq!(weir(&["--help"]).code, Some(0));
    let version = weir(&["--version"]);
    assert_eq!(version.stdout, format!("weir {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_address_that_is_taken_is_told_with_exit_code_1() {
    let redis = Redis::start(&[]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let url = redis.url();
    for arguments in [["--listen", &address, "--node-id", "1"], ["--listen", "127.0.0.1:0", "--http", &address]] {
        let ended = weir(&[&["--redis-url", &url, "--override", "log.level=error"][..], &arguments].concat());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(&address) && ended.stderr.contains("give another address with"), "{ended:?}");
    }
}

#[test]
fn the_user_that_the_documentation_makes_may_do_what_weir_needs() {
    let page = include_str!("../docs/configuration.md");
    let line = page.lines().find(|line| line.starts_with("ACL SETUSER weir ")).expect("an ACL");
    let redis = Redis::start(&[]);
    let mut command = redis::Cmd::new();
    for word in line.replace("PASSWORD", "secret").split_whitespace() {
        command.arg(word);
    }
    command.exec(&mut redis.connection()).expect("a legal ACL");
    let url = format!("redis://weir:secret@127.0.0.1:{}", redis.port);
    let broker = Broker::start(&["--redis-url", &url]).unwrap_or_else(|ended| panic!("{ended:?}"));
    let denied: Vec<redis::Value> = redis::cmd("ACL").arg("LOG").query(&mut redis.connection()).expect("a log");
    assert!(denied.is_empty(), "{denied:?} {}", broker.log());
}
