//! Where the broker listens, what it tells clients of itself on each listener, and how it stops.

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use kafka_protocol::messages::{ApiKey, DescribeClusterRequest, DescribeClusterResponse};
use support::{
    Connection, Weir,
    process::{processes_in, signal, wait},
};
use tempfile::TempDir;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// A weir with any listeners; killed when dropped.
struct Broker {
    child: Child,
    ready: String,
    folder: TempDir,
}

impl Broker {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("--data-dir")
            .arg(folder.path())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the weir binary");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut ready).expect("text");
        assert!(ready.contains("is ready"), "{ready:?}");
        Self { child, ready, folder }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.child.id(), "TERM");
        }
        let _ = self.child.wait();
        assert_eq!(processes_in(self.folder.path()), []);
    }
}

/// The address that the broker gives for itself to a client that comes in here.
fn told_at(address: SocketAddr) -> String {
    let answer: DescribeClusterResponse =
        Connection::to(address).call(ApiKey::DescribeCluster as i16, 1, &DescribeClusterRequest::default());
    let broker = answer.brokers.first().expect("one broker");
    format!("{}:{}", &*broker.host, broker.port)
}

#[test]
fn each_listener_tells_its_own_address() {
    let (inside, outside) = (free_port(), free_port());
    let _broker = Broker::start(&[
        "--listen",
        &format!("INSIDE://127.0.0.1:{inside}"),
        "--listen",
        &format!("OUTSIDE://[::1]:{outside}"),
        "--advertise",
        "OUTSIDE://broker.example:19092",
    ]);
    assert_eq!(told_at(SocketAddr::from(([127, 0, 0, 1], inside))), format!("127.0.0.1:{inside}"));
    assert_eq!(told_at(format!("[::1]:{outside}").parse().expect("an address")), "broker.example:19092");
}

#[test]
fn localhost_is_either_loopback_on_one_port() {
    let broker = Broker::start(&["--listen", "localhost:0"]);
    let (_, rest) = broker.ready.split_once("localhost:").expect("an address in the ready line");
    let port: u16 = rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a port");
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        assert_eq!(told_at(address.parse().expect("an address")), format!("localhost:{port}"));
    }
}

#[test]
fn no_host_is_every_address_and_clients_are_told_a_name_that_resolves() {
    use std::net::ToSocketAddrs;
    let port = free_port();
    let _broker = Broker::start(&["--listen", &format!("PLAINTEXT://:{port}")]);
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let told = told_at(address.parse().expect("an address"));
        assert!(told.to_socket_addrs().is_ok_and(|mut found| found.next().is_some()), "{told}");
    }
}

#[test]
fn sigint_stops_as_sigterm_does() {
    for name in ["INT", "TERM"] {
        let mut broker = Broker::start(&["--listen", "127.0.0.1:0"]);
        signal(broker.child.id(), name);
        assert_eq!(wait(&mut broker.child), Some(0), "SIG{name}");
    }
}

#[test]
fn an_idle_connection_does_not_hold_up_the_stop_and_what_was_asked_is_answered() {
    let mut weir = Weir::start(&[]);
    let mut idle = weir.connect();
    let mut asking = weir.connect();
    for _ in 0..100 {
        asking.send(ApiKey::DescribeCluster as i16, 1, &DescribeClusterRequest::default());
    }
    // The first answer shows that the broker has begun to read; the stop comes in between.
    asking.frame().expect("an answer");
    let started = std::time::Instant::now();
    assert!(weir.stop(), "exit code 0");
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
    while asking.frame().is_ok() {}
    assert!(idle.is_closed());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut broker = Broker::start(&["--listen", "127.0.0.1:0", "--override", "redis.response.timeout.ms=600000"]);
    // A Redis that does not end keeps the broker from ending.
    let redis = support::process::redis_server_in(broker.folder.path()).expect("a running Redis");
    signal(redis, "STOP");
    signal(broker.child.id(), "TERM");
    let stopped = support::process::eventually(|| {
        // Signals sent close together count once.
        signal_if_alive(broker.child.id());
        matches!(broker.child.try_wait(), Ok(Some(_)))
    });
    signal(redis, "CONT");
    assert!(stopped);
    assert!(
        support::process::eventually(|| processes_in(broker.folder.path()).is_empty()),
        "Redis ends without its broker"
    );
}

fn signal_if_alive(pid: u32) {
    let _ = Command::new("kill").arg(pid.to_string()).stderr(Stdio::null()).status();
}

#[test]
fn thousands_of_connections_are_taken() {
    let weir = Weir::start(&[]);
    let mut open: Vec<TcpStream> = Vec::new();
    for _ in 0..2_000 {
        match TcpStream::connect(weir.address) {
            Ok(stream) => open.push(stream),
            // The test itself may have a low limit of open files.
            Err(error) if open.len() > 900 => {
                eprintln!("{error} after {} connections", open.len());
                break;
            }
            Err(error) => panic!("{error} after {} connections", open.len()),
        }
    }
    drop(open.split_off(open.len() - 10));
    assert_eq!(told_at(weir.address), weir.address.to_string());
    for stream in &mut open {
        stream.write_all(b"\0").expect("still open");
        stream.set_nonblocking(true).expect("a socket");
        let mut answer = [0];
        assert!(stream.read(&mut answer).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "closed");
    }
}
