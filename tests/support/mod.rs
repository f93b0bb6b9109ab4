//! A real Weir with its private Redis for one test, and a Kafka connection to it that sends anything.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod ledger;
pub mod offsets_by_id;
pub mod process;
pub mod proxy;
pub mod redis_cluster;
pub mod servers;

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
};
use tempfile::TempDir;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running broker; ended, and its data removed, when dropped.
pub struct Weir {
    child: Child,
    pub address: SocketAddr,
    folder: TempDir,
    arguments: Vec<String>,
}

impl Weir {
    /// Starts on a free port of 127.0.0.1 with a data folder of its own.
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("weir-test-").tempdir().expect("a temporary folder");
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (child, address) = spawn(folder.path(), &arguments, "127.0.0.1:0");
        Self { child, address, folder, arguments }
    }

    /// Starts again on the same port with the same data, after [`Weir::kill`] or [`Weir::stop`].
    pub fn restart(&mut self) {
        let (child, address) = spawn(self.folder.path(), &self.arguments, &self.address.to_string());
        self.child = child;
        self.address = address;
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child that can be killed");
        self.child.wait().expect("a child that ends");
    }

    /// SIGTERM; returns whether it ended with code 0.
    pub fn stop(&mut self) -> bool {
        let status = Command::new("kill").arg(self.pid().to_string()).status().expect("kill");
        assert!(status.success(), "no process to stop");
        self.child.wait().expect("a child that ends").success()
    }

    /// The largest resident size of the broker alone, without its Redis, in MiB.
    pub fn peak_mib(&self) -> u64 {
        process::peak_mib(self.pid())
    }

    pub fn data_dir(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    pub fn connect(&self) -> Connection {
        Connection::to(self.address)
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").arg(self.pid().to_string()).status();
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn spawn(folder: &Path, arguments: &[String], listen: &str) -> (Child, SocketAddr) {
    let log = fs::File::create(folder.join("log")).expect("a log file");
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["--listen", listen, "--data-dir"])
        .arg(folder.join("data"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("the weir binary");
    let mut ready = String::new();
    let stdout = child.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut ready).expect("a readable pipe");
    let address = ready
        .split_whitespace()
        .find_map(|word| word.trim_end_matches([',', ';', '.']).parse().ok())
        .unwrap_or_else(|| panic!("no ready line: {}", fs::read_to_string(folder.join("log")).unwrap_or_default()));
    (child, address)
}

/// A blocking connection that speaks Kafka's framing.
pub struct Connection {
    pub stream: TcpStream,
    next_id: i32,
}

impl Connection {
    pub fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a listening broker");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, next_id: 0 }
    }

    /// For brokers that may be gone.
    pub fn try_to(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self { stream, next_id: 1 })
    }

    pub fn try_send(&mut self, frame: &[u8]) -> Option<()> {
        self.stream.write_all(frame).ok()
    }

    pub fn try_receive<A: Decodable + HeaderVersion>(&mut self, version: i16) -> Option<A> {
        let mut frame = self.frame().ok()?;
        ResponseHeader::decode(&mut frame, A::header_version(version)).ok()?;
        A::decode(&mut frame, version).ok()
    }

    /// Sends one request and reads its answer.
    pub fn call<Q, A>(&mut self, key: i16, version: i16, request: &Q) -> A
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        self.send(key, version, request);
        self.receive(version)
    }

    pub fn send<Q: Encodable + HeaderVersion>(&mut self, key: i16, version: i16, request: &Q) {
        self.next_id += 1;
        let frame = encoded(key, version, self.next_id, request);
        self.stream.write_all(&frame).expect("a broker that reads");
    }

    pub fn receive<A: Decodable + HeaderVersion>(&mut self, version: i16) -> A {
        let mut frame = self.frame().expect("an answer");
        let header = ResponseHeader::decode(&mut frame, A::header_version(version)).expect("a response header");
        assert_eq!(header.correlation_id, self.next_id, "answers come in order");
        let answer = A::decode(&mut frame, version).expect("an answer of this version");
        assert!(frame.is_empty(), "bytes behind the answer");
        answer
    }

    /// The next frame without its length.
    pub fn frame(&mut self) -> io::Result<Bytes> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let mut body = vec![0; u32::from_be_bytes(size) as usize];
        self.stream.read_exact(&mut body)?;
        Ok(body.into())
    }

    /// Whether the broker closes the connection (or resets it) within [`PATIENCE`].
    pub fn is_closed(&mut self) -> bool {
        let mut rest = [0; 1024];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }
}

/// A request with header and length, as the wire has it.
pub fn encoded<Q: Encodable + HeaderVersion>(key: i16, version: i16, id: i32, request: &Q) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_correlation_id(id)
        .with_client_id(Some(StrBytes::from_static_str("test")));
    let mut body = BytesMut::new();
    header.encode(&mut body, Q::header_version(version)).expect("a request header");
    request.encode(&mut body, version).expect("a request of this version");
    let mut frame = BytesMut::with_capacity(4 + body.len());
    frame.put_u32(body.len() as u32);
    frame.put_slice(&body);
    frame.freeze()
}
