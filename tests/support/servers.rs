//! A Redis that a test runs itself, and a Weir on it.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

use super::{
    PATIENCE,
    process::{Ended, eventually, peak_mib, signal, wait, weir_program},
};

/// The distribution's server, and a newer one.
pub const OLD: &str = "redis-server";

pub fn newer() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/newer-redis");
        let ended = Command::new(script).output().expect("scripts/newer-redis");
        assert!(ended.status.success(), "there is no newer Redis: {}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).expect("a path").trim().to_owned()
    })
}

/// A redis-server on a Unix socket and a free port of 127.0.0.1; ended when dropped.
pub struct Redis {
    pub child: Child,
    pub folder: TempDir,
    pub port: u16,
    program: String,
    arguments: Vec<String>,
}

/// Below those that the system gives to connections and to who asks for any, and so is the port of a cluster's bus, 10,000 above: a
/// server that restarts finds them free.
pub fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| rand::random_range(10_000..20_000)).find(is_free).expect("a free port")
}

/// A server listens before it has all the ports that it wants.
fn answers(socket: &Path) -> bool {
    let ask = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"PING\r\n")?;
        stream.read_exact(&mut [0])
    };
    ask().is_ok()
}

/// None where somebody else has taken the port meanwhile.
fn redis_server(program: &str, folder: &Path, port: u16, arguments: &[String]) -> Option<Child> {
    let socket = folder.join("redis.sock");
    let _ = std::fs::remove_file(&socket);
    let mut child = Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--unixsocket", "redis.sock", "--save", ""])
        // Else a new replica waits five seconds for others to come.
        .args(["--repl-diskless-sync-delay", "0"])
        .args(arguments)
        .current_dir(folder)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    let mut has_ended = false;
    let is_up = eventually(|| {
        has_ended = matches!(child.try_wait(), Ok(Some(_)));
        has_ended || answers(&socket)
    });
    assert!(is_up, "redis-server does not listen");
    (!has_ended).then_some(child)
}

impl Redis {
    /// A Sentinel of `sentinel.conf` in the folder, which names the Unix socket `redis.sock`.
    pub fn run_sentinel(folder: TempDir) -> Self {
        let mut child = Command::new(OLD)
            .args(["sentinel.conf", "--sentinel"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let socket = folder.path().join("redis.sock");
        let listens = || !matches!(child.try_wait(), Ok(Some(_))) && answers(&socket);
        assert!(eventually(listens), "a Sentinel does not listen");
        Self { child, folder, port: 0, program: OLD.to_owned(), arguments: Vec::new() }
    }

    /// What a server answers on its Unix socket that tells facts by name, as `name=value;`; nothing where it does not.
    pub fn ask_by_socket(&self, password: &str, words: &[&str]) -> String {
        let socket = self.folder.path().join("redis.sock");
        let client = redis::Client::open(format!("redis+unix://{}?pass={password}", socket.display()));
        let facts: std::collections::HashMap<String, String> = client
            .and_then(|client| client.get_connection())
            .and_then(|mut connection| redis::cmd(words[0]).arg(&words[1..]).query(&mut connection))
            .unwrap_or_default();
        facts.iter().map(|(name, value)| format!("{name}={value};")).collect()
    }

    pub fn start(arguments: &[&str]) -> Self {
        Self::run(OLD, arguments)
    }

    pub fn run(program: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let started = (0..5).find_map(|_| {
            let port = free_port();
            Some((port, redis_server(program, folder.path(), port, &arguments)?))
        });
        let (port, child) = started.expect("a redis-server that runs");
        Self { child, folder, port, program: program.to_owned(), arguments }
    }

    /// A replica of this server that has caught up.
    pub fn replica(&self) -> Self {
        let replica = Self::run(&self.program, &["--replicaof", &format!("127.0.0.1 {}", self.port)]);
        let caught_up = || self.info("replication").contains("state=online");
        assert!(eventually(caught_up), "the replica does not catch up");
        replica
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        wait(&mut self.child);
    }

    pub fn start_again(&mut self) {
        self.start_again_with(&[]);
    }

    pub fn start_again_with(&mut self, more: &[&str]) {
        let arguments = [&self.arguments[..], &more.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()].concat();
        let mut started = None;
        // Somebody's connection may have the port for a moment.
        let runs = eventually(|| {
            started = redis_server(&self.program, self.folder.path(), self.port, &arguments);
            started.is_some()
        });
        assert!(runs, "redis-server does not start on the port {} that it had", self.port);
        self.child = started.expect("it runs");
    }

    /// `kill -9`, and a new life.
    pub fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    pub fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url()).and_then(|client| client.get_connection()).expect("a running Redis")
    }

    pub fn info(&self, section: &str) -> String {
        redis::cmd("INFO").arg(section).query(&mut self.connection()).expect("an answer")
    }

    /// False where it does not answer: who is promoted drops its connections.
    pub fn is_master(&self) -> bool {
        let asked = redis::Client::open(self.url())
            .and_then(|client| client.get_connection())
            .and_then(|mut connection| redis::cmd("INFO").arg("replication").query::<String>(&mut connection));
        asked.is_ok_and(|told| told.contains("role:master"))
    }

    pub fn config(&self, name: &str, value: &str) {
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut self.connection()).expect("a setting");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A weir on somebody else's Redis.
pub struct Broker {
    pub child: Child,
    pub address: SocketAddr,
    log: TempDir,
}

impl Broker {
    pub fn start(arguments: &[&str]) -> Result<Self, Ended> {
        Self::start_in(arguments, &[])
    }

    /// With variables of the environment.
    pub fn start_in(arguments: &[&str], environment: &[(&str, String)]) -> Result<Self, Ended> {
        let log = tempfile::tempdir().expect("a temporary folder");
        let log_file = std::fs::File::create(log.path().join("log")).expect("a file");
        let mut child = Command::new(weir_program())
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .expect("the weir binary");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut ready).expect("text");
        match ready.split_whitespace().find_map(|word| word.trim_end_matches(',').parse().ok()) {
            Some(address) => Ok(Self { child, address, log }),
            None => {
                let code = wait(&mut child);
                let stderr = std::fs::read_to_string(log.path().join("log")).expect("a log");
                Err(Ended { code, stdout: ready, stderr })
            }
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path().join("log")).expect("a log")
    }
}

impl Broker {
    /// The largest resident size, in MiB.
    pub fn peak_mib(&self) -> u64 {
        peak_mib(self.child.id())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn http(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("listening");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}

/// A Redis with replicas, and three Sentinels that watch it as `main` and take it for dead after half a second.
pub struct Watched {
    /// The first master first.
    pub servers: Vec<Redis>,
    pub sentinels: Vec<(Child, u16)>,
    _folder: TempDir,
}

impl Watched {
    pub fn start(replicas: usize) -> Self {
        Self::run(OLD, replicas)
    }

    pub fn run(program: &str, replicas: usize) -> Self {
        let mut servers = vec![Redis::run(program, &[])];
        for _ in 0..replicas {
            let replica = servers[0].replica();
            servers.push(replica);
        }
        let master = servers[0].port;
        Self::over(program, servers, master)
    }

    /// Sentinels over servers that run; `master` is the port by which they are to reach the first.
    pub fn over(program: &str, servers: Vec<Redis>, master: u16) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // After the replicas: a Sentinel asks for them when it starts, and then every ten seconds.
        let sentinels = (0..3).map(|number| sentinel(program, folder.path(), number, master)).collect();
        let replicas = (servers.len() - 1).to_string();
        let this = Self { servers, sentinels, _folder: folder };
        let knows_all = |port: &u16| {
            let facts = this.ask(*port, "MASTER");
            let fact = |name: &str| facts.get(name).cloned().unwrap_or_default();
            fact("num-slaves") == replicas && fact("num-other-sentinels") == "2"
        };
        let all_know_all = || this.sentinels.iter().all(|(_, port)| knows_all(port));
        assert!(eventually(all_know_all), "the Sentinels do not find each other");
        this
    }

    pub fn url(&self) -> String {
        let all: Vec<String> = self.sentinels.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
        format!("redis-sentinel://{}/main", all.join(","))
    }

    /// What each Sentinel says of the master; nothing where it does not answer.
    pub fn masters(&self) -> Vec<std::collections::HashMap<String, String>> {
        self.sentinels.iter().map(|(_, port)| self.ask(*port, "MASTER")).collect()
    }

    /// A failover that is asked for. False where one is under way, or no replica is fit.
    pub fn fail_over(&self) -> bool {
        let address = format!("redis://127.0.0.1:{}", self.sentinels[0].1);
        let asked = redis::Client::open(address).and_then(|client| client.get_connection());
        asked.is_ok_and(|mut sentinel| redis::cmd("SENTINEL").arg("FAILOVER").arg("main").exec(&mut sentinel).is_ok())
    }

    fn ask(&self, port: u16, word: &str) -> std::collections::HashMap<String, String> {
        let asked = redis::Client::open(format!("redis://127.0.0.1:{port}"))
            .and_then(|client| client.get_connection())
            .and_then(|mut connection| redis::cmd("SENTINEL").arg(word).arg("main").query(&mut connection));
        asked.unwrap_or_default()
    }

    /// The server that was promoted in place of the first, with the other replicas of it: Sentinel may take ten seconds to turn
    /// to them.
    pub fn successor(&self) -> &Redis {
        let replicas = &self.servers[1..];
        let mut found = None;
        let is_promoted = || {
            found = replicas.iter().find(|server| server.is_master());
            found.is_some()
        };
        assert!(eventually(is_promoted), "no replica is promoted");
        let promoted = found.expect("found");
        for other in replicas.iter().filter(|other| other.port != promoted.port) {
            let mut command = redis::cmd("REPLICAOF");
            command.arg("127.0.0.1").arg(promoted.port);
            command.exec(&mut other.connection()).expect("it follows");
        }
        promoted
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        for (child, _) in &mut self.sentinels {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn sentinel(program: &str, folder: &Path, number: u32, master: u16) -> (Child, u16) {
    (0..5)
        .find_map(|_| {
            let port = free_port();
            let file = folder.join(format!("sentinel-{number}.conf"));
            let settings = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 2\n\
                 sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n"
            );
            std::fs::write(&file, settings).expect("a file");
            let mut child = Command::new(program)
                .arg(&file)
                .arg("--sentinel")
                .current_dir(folder)
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server is installed");
            let mut has_ended = false;
            let listens = eventually(|| {
                has_ended = matches!(child.try_wait(), Ok(Some(_)));
                has_ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
            assert!(listens, "a Sentinel does not listen");
            (!has_ended).then_some((child, port))
        })
        .expect("a Sentinel that runs")
}
