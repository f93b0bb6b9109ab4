//! Brokers as processes, on a Redis of their own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    link::Link,
    support::{
        Connection,
        process::{eventually, signal, wait},
    },
};

/// A redis-server on a Unix socket; ended when dropped.
pub(crate) struct Redis {
    child: Child,
    folder: TempDir,
}

impl Redis {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("weir-cluster-").tempdir().expect("a temporary folder");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--dir"])
            .arg(folder.path())
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let redis = Self { child, folder };
        assert!(eventually(|| redis.try_connection().is_some()), "redis-server does not answer");
        redis
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.folder.path().join("redis.sock").display())
    }

    fn try_connection(&self) -> Option<redis::Connection> {
        redis::Client::open(self.url()).ok()?.get_connection().ok()
    }

    pub(crate) fn connection(&self) -> redis::Connection {
        self.try_connection().expect("a running Redis")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Broker {
    pub(crate) node: i32,
    child: Child,
    pub(crate) address: SocketAddr,
    is_stopped: bool,
}

impl Broker {
    fn start(redis: &Redis, url: &str, node: i32, listen: &str, arguments: &[&str]) -> Self {
        let log =
            fs::OpenOptions::new().append(true).create(true).open(redis.folder.path().join(format!("log-{node}")));
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["--listen", listen, "--redis-url", url, "--node-id", &node.to_string()])
            .args([
                "--override",
                "group.initial.rebalance.delay.ms=0",
                "--override",
                "group.min.session.timeout.ms=100",
            ])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(log.expect("a log file"))
            .spawn()
            .expect("the weir binary");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut ready).expect("a readable pipe");
        let address = ready.split_whitespace().find_map(|word| word.trim_end_matches([',', ';', '.']).parse().ok());
        let address = address.unwrap_or_else(|| panic!("broker {node} is not ready: {ready}"));
        Self { node, child, address, is_stopped: false }
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::to(self.address)
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child that can be killed");
        self.child.wait().expect("a child that ends");
    }

    /// SIGSTOP; returns when no thread of it runs any more.
    pub(crate) fn pause(&mut self) {
        signal(self.child.id(), "STOP");
        self.is_stopped = true;
        let threads = format!("/proc/{}/task", self.child.id());
        let stands_still = |thread: fs::DirEntry| {
            let state = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        };
        let all_do = || fs::read_dir(&threads).expect("its threads").flatten().all(stands_still);
        assert!(eventually(all_do), "broker {} does not stop", self.node);
    }

    pub(crate) fn wake(&mut self) {
        signal(self.child.id(), "CONT");
        self.is_stopped = false;
    }

    pub(crate) fn terminate(&self) {
        signal(self.child.id(), "TERM");
    }

    /// SIGTERM, and the end.
    pub(crate) fn stop(&mut self) {
        self.terminate();
        assert_eq!(wait(&mut self.child), Some(0), "broker {} ends well", self.node);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.is_stopped {
            signal(self.child.id(), "CONT");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Some brokers, with node ids from 1 on. They end before their Redis does.
pub(crate) struct Cluster {
    pub(crate) brokers: Vec<Broker>,
    pub(crate) redis: Redis,
}

impl Cluster {
    pub(crate) fn start(brokers: i32) -> Self {
        let mut cluster = Self { brokers: Vec::new(), redis: Redis::start() };
        for node in 1..=brokers {
            cluster.join(node);
        }
        cluster.until_known_by_all();
        cluster
    }

    /// A broker comes.
    pub(crate) fn join(&mut self, node: i32) {
        self.join_with(node, "127.0.0.1:0", &[]);
    }

    pub(crate) fn join_with(&mut self, node: i32, listen: &str, arguments: &[&str]) {
        self.brokers.push(Broker::start(&self.redis, &self.redis.url(), node, listen, arguments));
    }

    /// A broker comes whose way to Redis can be held up.
    pub(crate) fn join_by_link(&mut self, node: i32) -> Link {
        let link = Link::to(self.redis.folder.path().join("redis.sock"));
        self.brokers.push(Broker::start(&self.redis, &link.url(), node, "127.0.0.1:0", &[]));
        link
    }

    /// Starts a broker again that has ended, at its address.
    pub(crate) fn restart(&mut self, node: i32) {
        let place = self.brokers.iter().position(|broker| broker.node == node).expect("a broker of this id");
        let address = self.brokers[place].address.to_string();
        self.brokers[place] = Broker::start(&self.redis, &self.redis.url(), node, &address, &[]);
    }

    /// What a broker has logged.
    pub(crate) fn log(&self, node: i32) -> String {
        fs::read_to_string(self.redis.folder.path().join(format!("log-{node}"))).expect("a log")
    }

    pub(crate) fn broker(&mut self, node: i32) -> &mut Broker {
        self.brokers.iter_mut().find(|broker| broker.node == node).expect("a broker of this id")
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.brokers.iter().map(|broker| broker.address).collect()
    }

    /// Waits until every broker names every broker.
    pub(crate) fn until_known_by_all(&self) {
        let nodes: Vec<i32> = self.brokers.iter().map(|broker| broker.node).collect();
        for broker in &self.brokers {
            let mut connection = broker.connect();
            assert!(
                eventually(|| {
                    let mut named: Vec<i32> = crate::client::metadata(&mut connection, &[])
                        .brokers
                        .iter()
                        .map(|named| named.node_id.0)
                        .collect();
                    named.sort_unstable();
                    named == nodes
                }),
                "broker {} does not know {nodes:?}",
                broker.node
            );
        }
    }
}
