//! TLS and passwords where Weir has to find the servers itself: Sentinels with a password of their own, and a Redis Cluster. The
//! servers' certificates are signed by an authority that the test makes; Weir logs in as the user that docs/configuration.md tells.

mod support;

use std::{fs, net::SocketAddr, path::Path, process::Command, sync::OnceLock};

use kafka_protocol::ResponseError;
use redis::FromRedisValue;
use support::{
    Connection,
    ledger::{attempt, batch, commit, create_topic, new_producer, produce_request, read_all},
    process::{Ended, eventually, weir_with},
    servers::{Broker, OLD, Redis, free_port},
};
use tempfile::TempDir;
use weir::storage::redis::shards::Slot;

const LOGIN: &str = "weir:weir%27s";
const OTHERS: &str = "default's";
const SENTINELS: &str = "sentinels'";

/// An authority, and a certificate that it signed for 127.0.0.1.
struct Certificates(TempDir);

impl Certificates {
    fn of_this_run() -> &'static Self {
        static MADE: OnceLock<Certificates> = OnceLock::new();
        MADE.get_or_init(|| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            fs::write(folder.path().join("names"), "subjectAltName=IP:127.0.0.1\n").expect("a file");
            let openssl = |words: &str| {
                let ended = Command::new("openssl").args(words.split(' ')).current_dir(folder.path()).output();
                let ended = ended.expect("openssl is installed");
                assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
            };
            let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
            openssl(&format!("req -x509 {key} -keyout authority.key -out authority.pem -days 2 -subj /CN=authority"));
            openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=server"));
            openssl(
                "x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile names \
                 -out server.pem",
            );
            Self(folder)
        })
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// What servers are told of them, by name and value.
    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("tls-cert-file", self.path("server.pem")),
            ("tls-key-file", self.path("server.key")),
            ("tls-ca-cert-file", self.path("authority.pem")),
            ("tls-auth-clients", "no".to_owned()),
            ("tls-replication", "yes".to_owned()),
        ]
    }
}

/// The user that docs/configuration.md tells, and no other way in without a password.
fn users() -> Vec<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).expect("a page");
    let line = page.lines().find_map(|line| line.strip_prefix("ACL SETUSER weir ")).expect("an ACL");
    let rules = line.replace(">PASSWORD", ">weir's");
    let words = ["--requirepass", OTHERS, "--masterauth", OTHERS, "--user", "weir"];
    words.into_iter().chain(rules.split(' ')).map(str::to_owned).collect()
}

/// A server that takes TLS and passwords only. The test itself asks it on its Unix socket.
struct Secured {
    redis: Redis,
    port: u16,
}

impl Secured {
    fn start(more: &[&str]) -> Self {
        let port = free_port();
        let mut arguments = vec!["--port".to_owned(), "0".to_owned(), "--tls-port".to_owned(), port.to_string()];
        for (name, value) in Certificates::of_this_run().settings() {
            arguments.extend([format!("--{name}"), value]);
        }
        arguments.extend(users());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Self { redis: Redis::run(OLD, &arguments), port }
    }

    fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let socket = self.redis.folder.path().join("redis.sock");
        let client = redis::Client::open(format!("redis+unix://{}?pass=default%27s", socket.display()));
        let mut connection = client.and_then(|client| client.get_connection()).expect("a running Redis");
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection).expect("an answer")
    }

    fn tells(&self, section: &str, line: &str) -> bool {
        self.ask::<String>(&["INFO", section]).contains(line)
    }
}

fn trusting() -> [(&'static str, String); 1] {
    [("SSL_CERT_FILE", Certificates::of_this_run().path("authority.pem"))]
}

fn start_broker(url: &str) -> Broker {
    Broker::start_in(&["--redis-url", url], &trusting()).unwrap_or_else(|ended| panic!("{ended:?}"))
}

fn check(url: &str, environment: &[(&str, &str)]) -> Ended {
    weir_with(&["--check", "--redis-url", url], environment)
}

fn refusal(url: &str, environment: &[(&str, &str)]) -> String {
    let ended = check(url, environment);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    ended.stderr
}

/// Sends records until they are taken, once.
fn produce(address: SocketAddr, producer: i64, first: u64, count: u64) {
    let request = produce_request(batch(producer, first, count)).with_timeout_ms(1_500);
    let mut last = None;
    let is_taken = || {
        last = attempt(address, &request).map(ResponseError::try_from_code);
        matches!(last, Some(None | Some(ResponseError::DuplicateSequenceNumber)))
    };
    assert!(eventually(is_taken), "record {first} is not taken: {last:?}");
}

/// A Sentinel with a password of its own; its folder keeps its file.
fn sentinel(master: u16) -> (Redis, u16) {
    let port = free_port();
    let port_text = port.to_string();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings: String = Certificates::of_this_run()
        .settings()
        .into_iter()
        .map(|(name, value)| format!("{name} {value}\n"))
        .chain([
            format!("port 0\ntls-port {port_text}\nbind 127.0.0.1\nunixsocket redis.sock\n"),
            format!("requirepass \"{SENTINELS}\"\nsentinel sentinel-pass \"{SENTINELS}\"\n"),
            format!("sentinel monitor main 127.0.0.1 {master} 2\nsentinel auth-pass main \"{OTHERS}\"\n"),
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n".to_owned(),
        ])
        .collect();
    fs::write(folder.path().join("sentinel.conf"), settings).expect("a file");
    (Redis::run_sentinel(folder), port)
}

#[test]
fn sentinels_and_servers_with_tls_and_passwords_of_their_own_are_followed_through_a_failover() {
    let mut master = Secured::start(&[]);
    let replica = Secured::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    assert!(eventually(|| master.tells("replication", "state=online")), "the replica does not catch up");
    let (_other, _) = sentinel(master.port);
    let (known, port) = sentinel(master.port);
    let knows = || {
        let text = known.ask_by_socket("sentinels%27", &["SENTINEL", "MASTER", "main"]);
        text.contains("num-slaves=1;") && text.contains("num-other-sentinels=1;")
    };
    assert!(eventually(knows), "the Sentinels do not find each other");
    // One that is given leads to the other.
    let url = format!("rediss-sentinel://{LOGIN}@127.0.0.1:{port}/main?sentinel_password=sentinels%27");
    let trusting = trusting();
    let trusting: Vec<(&str, &str)> = trusting.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let good = check(&url, &trusting);
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(refusal(&url, &[("SSL_CERT_FILE", "/dev/null")]).contains("SSL_CERT_FILE"), "an unknown authority");
    assert!(refusal(&url.replace("?sentinel_password=sentinels%27", ""), &trusting).contains("refuse the login"));
    assert!(refusal(&url.replace("=sentinels", "=others"), &trusting).contains("sentinel_password=PASSWORD"));
    assert!(refusal(&url.replace("weir%27s@", "others@"), &trusting).contains("refuses the user or password"));
    assert!(refusal(&url.replace("rediss-", "redis-"), &trusting).contains("no Sentinel answers"));

    let broker = start_broker(&url);
    create_topic(broker.address, &[("weir.durability", "memory")]);
    let producer = new_producer(&mut Connection::to(broker.address));
    produce(broker.address, producer, 0, 10);
    assert_eq!(commit(broker.address, "group", 7), None);
    assert!(eventually(|| master.ask::<i64>(&["WAIT", "1", "1000"]) == 1), "the replica keeps up");
    master.redis.kill();
    produce(broker.address, producer, 10, 5);
    assert!(replica.tells("replication", "role:master"), "it was promoted");
    assert_eq!(read_all(broker.address), (0..15).collect::<Vec<_>>());
    assert!(!broker.log().contains("weir's") && !broker.log().contains("sentinels'"), "no password is in the log");
}

#[test]
fn a_cluster_with_tls_and_passwords_is_used_and_its_slots_are_followed() {
    let bus = [free_port(), free_port(), free_port()];
    let nodes = bus.map(|bus| {
        let bus = bus.to_string();
        let cluster = ["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", &bus];
        Secured::start(&[&cluster[..], &["--cluster-require-full-coverage", "no"]].concat())
    });
    let cluster = |node: &Secured, words: &[&str]| -> redis::Value { node.ask(&[&["CLUSTER"], words].concat()) };
    for (index, (first, last)) in [("0", "5460"), ("5461", "10922"), ("10923", "16383")].into_iter().enumerate() {
        cluster(&nodes[index], &["SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        cluster(&nodes[index], &["ADDSLOTSRANGE", first, last]);
    }
    for (node, bus) in nodes.iter().zip(bus).skip(1) {
        cluster(&nodes[0], &["MEET", "127.0.0.1", &node.port.to_string(), &bus.to_string()]);
    }
    let is_well = |node: &Secured| {
        let text: String = node.ask(&["CLUSTER", "INFO"]);
        text.contains("cluster_state:ok") && text.contains("cluster_slots_ok:16384")
    };
    assert!(eventually(|| nodes.iter().all(is_well)), "the cluster does not get well");

    let url = format!("rediss://{LOGIN}@127.0.0.1:{}", nodes[0].port);
    assert!(refusal(&url, &[("SSL_CERT_FILE", "/dev/null")]).contains("SSL_CERT_FILE"), "an unknown authority");
    let broker = start_broker(&url);
    create_topic(broker.address, &[("weir.durability", "memory")]);
    let producer = new_producer(&mut Connection::to(broker.address));
    produce(broker.address, producer, 0, 10);
    // Groups lie on all three.
    for group in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(commit(broker.address, group, 7), None, "group {group}");
    }
    assert!(nodes.iter().all(|node| node.ask::<i64>(&["DBSIZE"]) > 0), "every shard has something");

    let key = "korvet:stream:ledger:0";
    let slot = Slot::of(key.as_bytes()).to_string();
    let from = nodes.iter().position(|node| {
        let keys: Vec<String> = node.ask(&["KEYS", key]);
        !keys.is_empty()
    });
    let from = from.expect("the stream is somewhere");
    let (from, to) = (&nodes[from], &nodes[(from + 1) % nodes.len()]);
    let ids = [from, to].map(|node| node.ask::<String>(&["CLUSTER", "MYID"]));
    cluster(to, &["SETSLOT", &slot, "IMPORTING", &ids[0]]);
    cluster(from, &["SETSLOT", &slot, "MIGRATING", &ids[1]]);
    let keys: Vec<String> = from.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
    for key in &keys {
        let port = to.port.to_string();
        let _: String = from.ask(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000", "AUTH", OTHERS]);
    }
    for node in [to, from] {
        cluster(node, &["SETSLOT", &slot, "NODE", &ids[1]]);
    }
    produce(broker.address, producer, 10, 5);
    assert_eq!(read_all(broker.address), (0..15).collect::<Vec<_>>());
}
