//! The bytes of a connection, in any pieces.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};

use super::{
    Admission, Caller, Close, Frame, FrameLimit, Limits, Reply, Service, connection,
    listener::{ConnectionCounts, Shared},
};

const LIMIT: usize = 1 << 10;
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers with what it was sent, every third time later.
#[derive(Default)]
struct Echo {
    frames: Mutex<Vec<Bytes>>,
}

#[async_trait]
impl Service for Echo {
    fn frame_limit(&self, _: &[u8; 8]) -> Result<FrameLimit, Close> {
        Ok(FrameLimit { max_bytes: LIMIT, decode_factor: 2 })
    }

    async fn serve(&self, _: &Arc<Caller>, frame: Bytes) -> Result<Reply, Close> {
        let mut frames = self.frames.lock();
        frames.push(frame.clone());
        let mut length = BytesMut::new();
        length.put_u32(u32::try_from(frame.len()).expect("below the limit"));
        let answer = Frame { segments: vec![length.freeze(), frame], held: None };
        if !frames.len().is_multiple_of(3) {
            return Ok(Reply::Ready(answer));
        }
        Ok(Reply::Later(Box::pin(async {
            tokio::task::yield_now().await;
            Ok(answer)
        })))
    }
}

/// The first byte is the size of the pieces in which the rest is sent. Whole frames are served and answered, in order; what is longer
/// or shorter than allowed ends the connection, and nothing else is served.
pub fn frames(data: &[u8]) {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));
    let Some((&size, data)) = data.split_first() else { return };
    let expected = whole_frames(data);
    let echo = Arc::new(Echo::default());
    let answers = RUNTIME.block_on(exchange(echo.clone(), data, usize::from(size).max(1), &expected));
    assert_eq!(*echo.frames.lock(), expected);
    let lengths_and_frames: Vec<u8> = expected
        .iter()
        .flat_map(|frame| [&u32::try_from(frame.len()).expect("below the limit").to_be_bytes()[..], frame].concat())
        .collect();
    assert_eq!(answers, lengths_and_frames);
}

fn whole_frames(mut data: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let Ok(length @ 8..=LIMIT) = usize::try_from(i32::from_be_bytes(*length)) else { break };
        let Some((frame, rest)) = rest.split_at_checked(length) else { break };
        frames.push(frame);
        data = rest;
    }
    frames
}

async fn exchange(service: Arc<Echo>, data: &[u8], size: usize, expected: &[&[u8]]) -> Vec<u8> {
    let shared = Shared {
        service,
        admission: Admission::new(1 << 20, 3 * LIMIT, PATIENCE),
        limits: Limits { queued_replies: 4, idle: PATIENCE, stall: PATIENCE },
        counts: Arc::new(ConnectionCounts::new(1, 1)),
        metrics: Default::default(),
        tasks: Default::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (stream, peer) = accepted.expect("a connection");
    let caller = Arc::new(Caller { listener: 0, peer, connection_id: 1 });
    let mut client = client.expect("a connection");
    let _ = client.set_nodelay(true);
    let talk = async move {
        let (mut read, mut write) = client.split();
        let mut answers = vec![0; expected.iter().map(|frame| 4 + frame.len()).sum()];
        let sending = async {
            for piece in data.chunks(size) {
                // It may have been refused by now.
                if write.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let (_, read) = tokio::join!(sending, read.read_exact(&mut answers));
        read.expect("every whole frame is answered");
        answers
    };
    let ((), answers) = tokio::join!(connection::run(stream, caller, shared), talk);
    answers
}
