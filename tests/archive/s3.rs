//! S3 servers of a test's own: one whose weather the test makes, and one that can be killed and keeps what it has.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::{
    io::{BufRead, BufReader, Read as _, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// What the server takes from whoever has these.
pub const ENVIRONMENT: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "us-east-1")];

fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    let ended = Command::new(path).stderr(Stdio::inherit()).output().expect("a script");
    assert!(ended.status.success(), "scripts/{name} failed");
    String::from_utf8(ended.stdout).expect("a path").trim().to_owned()
}

pub fn python() -> String {
    script("archive-python")
}

/// An S3 server with the bucket `archive`; ends with the test.
pub struct S3 {
    process: Child,
    _input: ChildStdin,
    pub port: u16,
}

impl S3 {
    pub fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archive/s3_server.py");
        let mut process = Command::new(python())
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("an S3 server");
        let input = process.stdin.take().expect("its input");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        let server = Self { process, _input: input, port: line.trim().parse().expect("a port") };
        server.http("PUT", "/archive", b"");
        server
    }

    /// A request whose signature the server does not check; the answer's body.
    pub fn http(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        let signature =
            "AWS4-HMAC-SHA256 Credential=key/20261123/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: {signature}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("a request");
        stream.write_all(body).expect("a body");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let start = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        answer.split_off(start)
    }

    /// What the server's front does to requests from now on: see tests/archive/s3_server.py.
    pub fn weather(&self, rule: &str) {
        self.http("GET", &format!("/-/weather?{rule}"), b"");
    }

    /// The requests since the last look: method and path.
    pub fn requests(&self) -> Vec<String> {
        let body = self.http("GET", "/-/requests", b"");
        String::from_utf8(body).expect("text").lines().map(str::to_owned).collect()
    }

    /// The keys of all objects.
    pub fn keys(&self) -> Vec<String> {
        let listed = self.http("GET", "/archive?list-type=2", b"");
        let listed = String::from_utf8(listed).expect("text");
        let keys = listed.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        keys.map(str::to_owned).collect()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An S3 server that keeps the objects of the bucket `archive` in a folder.
pub struct Gateway {
    process: Child,
    pub port: u16,
    folder: TempDir,
}

impl Gateway {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("archive")).expect("a bucket");
        let (process, port) = (0..5)
            .find_map(|_| {
                let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
                Some((gateway(folder.path(), port)?, port))
            })
            .expect("an S3 server that runs");
        Self { process, port, folder }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    pub fn start_again(&mut self) {
        self.process = gateway(self.folder.path(), self.port).expect("the port is still free");
    }

    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join("archive")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// None where somebody else has taken the port meanwhile.
fn gateway(folder: &Path, port: u16) -> Option<Child> {
    let mut process = Command::new(script("s3-gateway"))
        .args(["--port", &format!("127.0.0.1:{port}"), "--access", "key", "--secret", "secret", "--quiet", "posix"])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("an S3 server");
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if matches!(process.try_wait(), Ok(Some(_))) {
            return None;
        }
        assert!(Instant::now() < deadline, "the S3 server does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    Some(process)
}
