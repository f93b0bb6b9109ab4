//! The network layer over real TCP with a small service behind it: framing, order, bounds, drain.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};
use weir::{
    net::{
        Admission, Caller, Close, Frame, FrameLimit, Limits, Reply, Service,
        listener::{self, ConnectionCounts, Shared},
    },
    tasks::Tasks,
    telemetry::metrics::NetworkMetrics,
};

const ECHO: u16 = 1;
/// Answered when the test says so.
const PARKED: u16 = 2;
const REFUSED: u16 = 3;
const LIMIT: usize = 4 << 20;

#[derive(Default)]
struct TestService {
    release: Arc<Notify>,
    served: Arc<Notify>,
}

fn frame(body: &[u8]) -> Frame {
    let mut bytes = BytesMut::new();
    bytes.put_u32(body.len() as u32);
    bytes.put_slice(body);
    Frame { segments: vec![bytes.freeze()], held: None }
}

#[async_trait]
impl Service for TestService {
    fn frame_limit(&self, start: &[u8; 8]) -> Result<FrameLimit, Close> {
        match u16::from_be_bytes([start[0], start[1]]) {
            REFUSED => Err(Close("refused".to_owned())),
            _ => Ok(FrameLimit { max_bytes: LIMIT, decode_factor: 0 }),
        }
    }

    async fn serve(&self, _caller: &Arc<Caller>, request: Bytes) -> Result<Reply, Close> {
        self.served.notify_one();
        Ok(match u16::from_be_bytes([request[0], request[1]]) {
            PARKED => {
                let release = self.release.clone();
                Reply::Later(Box::pin(async move {
                    release.notified().await;
                    Ok(frame(&request))
                }))
            }
            _ => Reply::Ready(frame(&request)),
        })
    }
}

struct Server {
    address: SocketAddr,
    tasks: Tasks,
    release: Arc<Notify>,
    served: Arc<Notify>,
    counts: Arc<ConnectionCounts>,
}

async fn server(limits: Limits, admission: Admission, counts: ConnectionCounts) -> Server {
    let service = TestService::default();
    let (release, served) = (service.release.clone(), service.served.clone());
    let tasks = Tasks::new();
    let listener = listener::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let counts = Arc::new(counts);
    let shared = Shared {
        service: Arc::new(service),
        admission,
        limits,
        counts: counts.clone(),
        metrics: NetworkMetrics::default(),
        tasks: tasks.clone(),
    };
    tasks.spawn("accept", listener::accept(listener, 0, shared));
    Server { address, tasks, release, served, counts }
}

fn limits() -> Limits {
    Limits { queued_replies: 4, idle: Duration::from_secs(30), stall: Duration::from_secs(30) }
}

fn admission() -> Admission {
    Admission::new(16 << 20, 1 << 20, Duration::from_secs(5))
}

async fn default_server() -> Server {
    server(limits(), admission(), ConnectionCounts::new(100, 100)).await
}

fn request(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u32((8 + payload.len()) as u32);
    bytes.put_u16(kind);
    bytes.put_slice(&[0; 6]);
    bytes.put_slice(payload);
    bytes
}

async fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let size = stream.read_u32().await.expect("an answer");
    let mut body = vec![0; size as usize];
    stream.read_exact(&mut body).await.expect("the answer's body");
    body
}

/// What the server does to a connection that it closes: end of stream, or a reset when it had not read everything.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    matches!(timeout(Duration::from_secs(10), stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn answers_leave_in_the_order_of_the_requests() {
    let server = default_server().await;
    let mut client = TcpStream::connect(server.address).await.expect("a connection");
    let mut bytes = request(PARKED, b"first");
    bytes.extend(request(ECHO, b"second"));
    client.write_all(&bytes).await.expect("sent");
    server.served.notified().await;
    server.release.notify_one();
    assert_eq!(answer(&mut client).await[8..], *b"first");
    assert_eq!(answer(&mut client).await[8..], *b"second");
}

#[tokio::test]
async fn a_request_that_arrives_byte_by_byte_is_served() {
    let server = default_server().await;
    let mut client = TcpStream::connect(server.address).await.expect("a connection");
    client.set_nodelay(true).expect("nodelay");
    for byte in request(ECHO, b"slow") {
        client.write_all(&[byte]).await.expect("sent");
    }
    assert_eq!(answer(&mut client).await[8..], *b"slow");
}

#[tokio::test]
async fn a_large_frame_comes_back_whole() {
    let server = default_server().await;
    let mut client = TcpStream::connect(server.address).await.expect("a connection");
    let payload: Vec<u8> = (0..LIMIT - 8).map(|i| (i % 251) as u8).collect();
    let (mut reading, mut writing) = client.split();
    let sent = request(ECHO, &payload);
    let (written, read) = tokio::join!(writing.write_all(&sent), async {
        let size = reading.read_u32().await.expect("an answer");
        let mut body = vec![0; size as usize];
        reading.read_exact(&mut body).await.map(|_| body)
    });
    written.expect("sent");
    assert!(read.expect("read")[8..] == payload);
}

#[tokio::test]
async fn frames_with_impossible_sizes_close_the_connection() {
    let server = default_server().await;
    for size in [-1, i32::MIN, 0, 7, LIMIT as i32 + 1, i32::MAX] {
        let mut client = TcpStream::connect(server.address).await.expect("a connection");
        let mut bytes = Vec::new();
        bytes.put_i32(size);
        bytes.put_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        client.write_all(&bytes).await.expect("sent");
        assert!(is_closed(&mut client).await, "size {size}");
    }
}

#[tokio::test]
async fn an_api_that_is_not_served_closes_the_connection() {
    let server = default_server().await;
    let mut client = TcpStream::connect(server.address).await.expect("a connection");
    client.write_all(&request(REFUSED, b"")).await.expect("sent");
    assert!(is_closed(&mut client).await);
}

#[tokio::test]
async fn half_a_request_and_then_silence_ends_the_connection() {
    let stall = Duration::from_millis(100);
    let server = server(Limits { stall, ..limits() }, admission(), ConnectionCounts::new(10, 10)).await;
    let mut client = TcpStream::connect(server.address).await.expect("a connection");
    client.write_all(&request(ECHO, b"whole")[..10]).await.expect("sent");
    assert!(is_closed(&mut client).await);
}

#[tokio::test]
async fn a_connection_without_requests_ends_after_the_idle_time() {
    let idle = Duration::from_millis(100);
    let server = server(Limits { idle, ..limits() }, admission(), ConnectionCounts::new(10, 10)).await;
    let mut client = TcpStream::connect(server.address).await.expect("a connection");
    assert!(is_closed(&mut client).await);
}

#[tokio::test]
async fn a_client_that_reads_no_answers_is_ended_and_holds_up_nobody() {
    let stall = Duration::from_millis(300);
    let server = server(Limits { stall, ..limits() }, admission(), ConnectionCounts::new(10, 10)).await;
    let mut deaf = TcpStream::connect(server.address).await.expect("a connection");
    let flood = request(ECHO, &vec![7; 1 << 20]);
    let flooding = tokio::spawn(async move { while deaf.write_all(&flood).await.is_ok() {} });
    let mut other = TcpStream::connect(server.address).await.expect("a connection");
    for _ in 0..20 {
        other.write_all(&request(ECHO, b"hello")).await.expect("sent");
        let answered = timeout(Duration::from_secs(5), answer(&mut other)).await;
        assert_eq!(answered.expect("in time")[8..], *b"hello");
    }
    timeout(Duration::from_secs(30), flooding).await.expect("the deaf client was ended").expect("no panic");
}

#[tokio::test]
async fn those_who_announce_much_and_send_little_do_not_take_the_others_memory() {
    let server =
        server(limits(), Admission::new(10 << 20, 0, Duration::from_millis(200)), ConnectionCounts::new(99, 99)).await;
    let mut silent = Vec::new();
    for _ in 0..30 {
        let mut client = TcpStream::connect(server.address).await.expect("a connection");
        client.write_all(&request(ECHO, &vec![0; LIMIT - 8])[..100]).await.expect("sent");
        silent.push(client);
    }
    let mut other = TcpStream::connect(server.address).await.expect("a connection");
    other.write_all(&request(ECHO, &vec![1; 500_000])).await.expect("sent");
    let answered = timeout(Duration::from_secs(5), answer(&mut other)).await.expect("in time");
    assert_eq!(answered.len(), 500_008);
}

#[tokio::test]
async fn connections_beyond_the_limits_are_closed_and_places_come_back() {
    let server = server(limits(), admission(), ConnectionCounts::new(10, 2)).await;
    let mut first = TcpStream::connect(server.address).await.expect("a connection");
    let mut second = TcpStream::connect(server.address).await.expect("a connection");
    for client in [&mut first, &mut second] {
        client.write_all(&request(ECHO, b"in")).await.expect("sent");
        answer(client).await;
    }
    let mut third = TcpStream::connect(server.address).await.expect("a connection");
    assert!(is_closed(&mut third).await);
    drop(first);
    timeout(Duration::from_secs(5), async {
        while server.counts.open() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the place comes back");
    let mut fourth = TcpStream::connect(server.address).await.expect("a connection");
    fourth.write_all(&request(ECHO, b"in")).await.expect("sent");
    answer(&mut fourth).await;
}

#[tokio::test]
async fn a_drain_answers_what_was_read_and_ends_every_task() {
    let server = default_server().await;
    let mut client = TcpStream::connect(server.address).await.expect("a connection");
    client.write_all(&request(PARKED, b"last")).await.expect("sent");
    server.served.notified().await;
    let stopping = tokio::spawn({
        let tasks = server.tasks.clone();
        async move { tasks.stop(Duration::from_secs(10)).await }
    });
    server.tasks.stopping().cancelled().await;
    server.release.notify_one();
    assert_eq!(answer(&mut client).await[8..], *b"last");
    assert!(is_closed(&mut client).await);
    assert_eq!(stopping.await.expect("no panic"), 0, "tasks still running");
}
