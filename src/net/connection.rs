//! One connection: frames in, answers out in the order of the requests.

use std::{io, sync::Arc, task::Poll, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use prometheus_client::metrics::counter::Counter;
use tokio::{
    io::{AsyncReadExt, Interest},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, timeout},
};
use tracing::debug;

use super::{
    Caller, Close, Frame, Reply,
    admission::{Admitted, ConnectionShare, STEP},
    listener::Shared,
};

/// What is read ahead while the size of the next frame is not known yet.
const READ_AHEAD: usize = 8 << 10;

/// The most that is allotted for a frame before its bytes arrive.
const ALLOTTED_AT_ONCE: usize = 1 << 20;

/// A client that reads nothing for this long loses its connection while others wait for the memory of its answers.
const STALL_WHEN_SCARCE: Duration = Duration::from_secs(2);

/// At most this many pieces go into one `writev`.
const PIECES: usize = 64;

#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the client closed the connection")]
    ByClient,
    #[error("the broker stops")]
    Stopping,
    #[error("no request for {0:?} (connections.max.idle.ms)")]
    Idle(Duration),
    #[error("no progress for {0:?}")]
    Stalled(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Refused(#[from] Close),
    #[error("a frame of {size} bytes is outside 8..={limit}")]
    FrameSize { size: i32, limit: usize },
    #[error(transparent)]
    Congested(#[from] super::admission::Congested),
}

/// The memory of a request, and of its answer.
type Memory = (Admitted, Option<OwnedSemaphorePermit>);

/// An answer on its way out, with the memory its request still holds.
struct Queued {
    reply: Reply,
    _admitted: Admitted,
}

pub(super) async fn run(stream: TcpStream, caller: Arc<Caller>, shared: Shared) {
    let (read_half, write_half) = stream.into_split();
    let (queue, queued) = mpsc::channel(shared.limits.queued_replies);
    let writing = write_replies(write_half, queued, shared.limits.stall, &shared.metrics.sent_bytes);
    let reading = read_requests(read_half, &caller, &shared, queue);
    tokio::pin!(reading, writing);
    let ended = tokio::select! {
        ended = &mut reading => {
            // Answers to what was read before still go out, unless the client is gone.
            match ended {
                Ended::ByClient | Ended::Io(_) => ended,
                ended => writing.await.err().unwrap_or(ended),
            }
        }
        written = &mut writing => written.err().unwrap_or(Ended::ByClient),
    };
    debug!(peer = %caller.peer, connection = caller.connection_id, reason = %ended, "connection closed");
}

async fn read_requests(
    stream: OwnedReadHalf,
    caller: &Arc<Caller>,
    shared: &Shared,
    queue: mpsc::Sender<Queued>,
) -> Ended {
    let mut reader = Reader { stream, buffer: BytesMut::new() };
    let share = shared.admission.connection();
    loop {
        match read_request(&mut reader, &share, caller, shared).await {
            Ok((reply, admitted)) => {
                if queue.send(Queued { reply, _admitted: admitted }).await.is_err() {
                    return Ended::ByClient;
                }
            }
            Err(ended) => return ended,
        }
    }
}

async fn read_request(
    reader: &mut Reader,
    share: &ConnectionShare,
    caller: &Arc<Caller>,
    shared: &Shared,
) -> Result<(Reply, Admitted), Ended> {
    let limits = &shared.limits;
    while reader.buffer.is_empty() {
        tokio::select! {
            () = shared.tasks.stopping().cancelled() => return Err(Ended::Stopping),
            read = timeout(limits.idle, reader.read(READ_AHEAD)) => read.map_err(|_| Ended::Idle(limits.idle))??,
        }
    }
    if shared.tasks.stopping().is_cancelled() {
        return Err(Ended::Stopping);
    }
    reader.fill(4 + 8, limits.stall).await?;
    let mut head = &reader.buffer[..];
    let announced = head.get_i32();
    let start = head.first_chunk().expect("twelve bytes were read");
    let limit = shared.service.frame_limit(start)?;
    let size = usize::try_from(announced)
        .ok()
        .filter(|size| (8..=limit.max_bytes).contains(size))
        .ok_or(Ended::FrameSize { size: announced, limit: limit.max_bytes })?;
    reader.buffer.advance(4);
    // Untouched memory costs nothing; a buffer that grows step by step is copied at each step.
    reader.buffer.reserve(size.min(ALLOTTED_AT_ONCE).saturating_sub(reader.buffer.len()));
    let decoded = size.saturating_mul(limit.decode_factor);
    let mut admitted = tokio::select! {
        admitted = share.begin(size.saturating_add(decoded)) => admitted,
        () = shared.tasks.stopping().cancelled() => return Err(Ended::Stopping),
    };
    let mut end = 0;
    while end < size {
        let step = (size - end).min(STEP);
        admitted.grow(step).await?;
        end += step;
        reader.fill(end, limits.stall).await?;
    }
    admitted.grow(decoded).await?;
    let frame = reader.buffer.split_to(size).freeze();
    shared.metrics.received_bytes.inc_by(4 + size as u64);
    if reader.buffer.is_empty() {
        // An idle connection keeps no buffer.
        reader.buffer = BytesMut::new();
    }
    let reply = shared.service.serve(caller, frame).await?;
    Ok((reply, admitted))
}

struct Reader {
    stream: OwnedReadHalf,
    buffer: BytesMut,
}

impl Reader {
    /// Reads once, at most about `wanted` bytes. Cancel-safe. Holds no buffer while there is nothing to read.
    async fn read(&mut self, wanted: usize) -> Result<(), Ended> {
        loop {
            self.stream.readable().await?;
            self.buffer.reserve(wanted);
            // Unlike `try_read`, this knows that a socket is drained once it gave less than the buffer would take: without
            // that, every request costs one more system call, which finds nothing.
            let read = std::pin::pin!(self.stream.read_buf(&mut self.buffer));
            match futures::poll!(read) {
                Poll::Ready(Ok(0)) => return Err(Ended::ByClient),
                Poll::Ready(Ok(_)) => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => {}
            }
        }
    }

    /// Reads until the buffer has `bytes`; each read must bring something within `stall`.
    async fn fill(&mut self, bytes: usize, stall: Duration) -> Result<(), Ended> {
        while self.buffer.len() < bytes {
            let missing = bytes - self.buffer.len();
            timeout(stall, self.read(missing.max(READ_AHEAD))).await.map_err(|_| Ended::Stalled(stall))??;
        }
        Ok(())
    }
}

/// Answers that are ready together leave in one write: each costs the client and us a wake-up. None waits for another.
async fn write_replies(
    stream: OwnedWriteHalf,
    mut queued: mpsc::Receiver<Queued>,
    stall: Duration,
    sent_bytes: &Counter,
) -> Result<(), Ended> {
    let mut outgoing = Outgoing::default();
    while let Some(first) = queued.recv().await {
        let mut next = Some(first);
        while let Some(Queued { reply, _admitted: admitted }) = next.take() {
            let frame = match reply {
                Reply::Ready(frame) => frame,
                Reply::Later(mut answer) => match futures::poll!(&mut answer) {
                    Poll::Ready(Ok(frame)) => frame,
                    Poll::Ready(Err(close)) => {
                        outgoing.write(&stream, stall, sent_bytes).await?;
                        return Err(close.into());
                    }
                    Poll::Pending => {
                        outgoing.write(&stream, stall, sent_bytes).await?;
                        answer.await?
                    }
                },
            };
            outgoing.push(frame, admitted);
            if outgoing.pieces.len() < PIECES {
                next = queued.try_recv().ok();
            }
        }
        outgoing.write(&stream, stall, sent_bytes).await?;
    }
    Ok(())
}

/// Answers that wait for the socket, with the memory that they and their requests hold.
#[derive(Default)]
struct Outgoing {
    pieces: Vec<Bytes>,
    held: Vec<Memory>,
}

impl Outgoing {
    fn push(&mut self, frame: Frame, admitted: Admitted) {
        let Frame { segments, held } = frame;
        self.pieces.extend(segments);
        self.held.push((admitted, held));
    }

    async fn write(&mut self, stream: &OwnedWriteHalf, stall: Duration, sent_bytes: &Counter) -> Result<(), Ended> {
        if !self.pieces.is_empty() {
            sent_bytes.inc_by(self.pieces.iter().map(|piece| piece.len() as u64).sum());
            write_all(stream, &mut self.pieces, &self.held, stall).await?;
        }
        self.held.clear();
        Ok(())
    }
}

/// Waits until the socket takes more. A client that reads nothing is given up after `stall`, and much earlier when others wait
/// for the memory of its answers.
async fn writable(stream: &OwnedWriteHalf, held: &[Memory], stall: Duration) -> Result<(), Ended> {
    /// With less left, others wait.
    const SCARCE: usize = 1 << 20;
    let is_scarce = || {
        let permits = held.iter().filter_map(|(_, permit)| permit.as_ref());
        permits.into_iter().any(|permit| permit.semaphore().available_permits() < SCARCE)
    };
    let patience = STALL_WHEN_SCARCE.min(stall);
    let started = Instant::now();
    loop {
        match timeout(patience, stream.ready(Interest::WRITABLE)).await {
            Ok(ready) => return Ok(ready.map(drop)?),
            Err(_) if started.elapsed() >= stall || is_scarce() => return Err(Ended::Stalled(started.elapsed())),
            Err(_) => {}
        }
    }
}

/// Writes all pieces, in as few calls as the socket takes, and empties the list. `held` is the memory of the pieces.
async fn write_all(
    stream: &OwnedWriteHalf,
    pieces: &mut Vec<Bytes>,
    held: &[Memory],
    stall: Duration,
) -> Result<(), Ended> {
    let mut first = 0;
    while first < pieces.len() {
        if pieces[first].is_empty() {
            first += 1;
            continue;
        }
        let slices: Vec<io::IoSlice<'_>> =
            pieces[first..].iter().take(PIECES).map(|piece| io::IoSlice::new(piece)).collect();
        let mut written = match stream.try_write_vectored(&slices) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                writable(stream, held, stall).await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        while written > 0 {
            let piece = &mut pieces[first];
            let taken = written.min(piece.len());
            piece.advance(taken);
            written -= taken;
            if piece.is_empty() {
                first += 1;
            }
        }
    }
    pieces.clear();
    Ok(())
}
