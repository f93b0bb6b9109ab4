//! The task that owns the socket.

use std::{
    collections::VecDeque,
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use redis::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    sync::{mpsc, oneshot},
};

use super::{
    Answer, Event, Failure, Outgoing,
    reply::{Malformed, Parser, Reply},
    stream::Stream,
};

/// Bytes that are taken from the queue before the socket has taken those before them.
const WRITTEN_AT_ONCE: usize = 1 << 20;
/// Pieces of one `writev`.
const PIECES: usize = 128;
/// What is read at once, where the next value is not known to be larger.
const READ_AHEAD: usize = 16 << 10;
/// The most that is allotted at once for a large value: memory that nothing was read into costs nothing, a buffer that grows is
/// copied.
const READ_AT_ONCE: usize = 4 << 20;

/// A request that was taken from the queue and is not answered yet.
struct Waiting {
    /// Its first byte, counted from the connection's first.
    begins_at: u64,
    acknowledgements: usize,
    replies: usize,
    /// The first refusal among the acknowledgements.
    refusal: Option<Value>,
    values: Vec<Value>,
    raw_bytes: Option<usize>,
    reply: oneshot::Sender<Result<Answer, Failure>>,
}

pub(super) struct Driver<E> {
    stream: Stream,
    queue: mpsc::Receiver<Outgoing>,
    unwritten: VecDeque<Bytes>,
    unwritten_bytes: usize,
    /// Bytes since the connection began.
    written: u64,
    is_unflushed: bool,
    /// Others were given a turn before what waits is written.
    has_yielded: bool,
    parser: Parser,
    waiting: VecDeque<Waiting>,
    events: E,
}

fn malformed(error: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The one answer that comes as a push.
fn confirms_subscription(push: &[Value]) -> bool {
    match push.first() {
        Some(Value::BulkString(kind)) => kind == b"subscribe",
        Some(Value::SimpleString(kind)) => kind == "subscribe",
        _ => false,
    }
}

/// Nobody can send any more, and nobody waits.
const NO_LONGER_NEEDED: &str = "nobody needs the connection any more";

impl<E: Fn(Event) + Unpin> Driver<E> {
    pub(super) fn new(stream: Stream, queue: mpsc::Receiver<Outgoing>, events: E) -> Self {
        Self {
            stream,
            queue,
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
            written: 0,
            is_unflushed: false,
            has_yielded: false,
            parser: Parser::default(),
            waiting: VecDeque::new(),
            events,
        }
    }

    /// Takes what waits, as much as is written at once.
    fn take_requests(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.unwritten_bytes < WRITTEN_AT_ONCE {
            match self.queue.poll_recv(context) {
                Poll::Pending => break,
                // Who sent and still waited would hold the connection open.
                Poll::Ready(None) => return Err(io::Error::other(NO_LONGER_NEEDED)),
                Poll::Ready(Some(Outgoing { request, reply })) => {
                    self.waiting.push_back(Waiting {
                        begins_at: self.written.saturating_add(u64::try_from(self.unwritten_bytes).unwrap_or(u64::MAX)),
                        acknowledgements: request.acknowledgements(),
                        replies: request.replies(),
                        refusal: None,
                        values: Vec::with_capacity(request.replies()),
                        raw_bytes: request.raw_bytes(),
                        reply,
                    });
                    for piece in request.into_pieces() {
                        self.unwritten_bytes += piece.len();
                        self.unwritten.push_back(piece);
                    }
                }
            }
        }
        Ok(())
    }

    /// Ready once a part of what waits was written.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); PIECES];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.unwritten) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        let slices = slices.get(..count).unwrap_or_default();
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.is_unflushed = true;
        self.unwritten_bytes -= written;
        self.written = self.written.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        let mut left = written;
        while let Some(piece) = self.unwritten.front_mut() {
            if piece.len() > left {
                piece.advance(left);
                break;
            }
            left -= piece.len();
            self.unwritten.pop_front();
        }
        self.has_yielded = !self.unwritten.is_empty();
        Poll::Ready(Ok(()))
    }

    /// Ready once something was read.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let buffered = self.parser.buffer.len();
        let raw = self.waiting.front().and_then(|first| first.raw_bytes).unwrap_or(0);
        let wanted = if buffered == 0 { raw } else { self.parser.missing().max(raw.saturating_sub(buffered)) };
        self.parser.buffer.reserve(wanted.clamp(READ_AHEAD, READ_AT_ONCE));
        let reading = pin!(self.stream.read_buf(&mut self.parser.buffer));
        match ready!(reading.poll(context))? {
            0 => Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"))),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Hands out the replies that have arrived.
    fn deliver(&mut self) -> io::Result<()> {
        loop {
            if let Some(first) = self.waiting.front_mut() {
                while first.acknowledgements > 0 && self.parser.skip_status() {
                    first.acknowledgements -= 1;
                }
                if first.raw_bytes.is_some() && first.acknowledgements == 0 {
                    let Some(raw) = self.parser.next_raw().map_err(malformed)? else { return Ok(()) };
                    if let Some(done) = self.waiting.pop_front() {
                        let _ = done.reply.send(Ok(Answer::Raw(raw)));
                    }
                    continue;
                }
            }
            let value = match self.parser.next().map_err(malformed)? {
                None => return Ok(()),
                Some(Reply::Push(push)) if confirms_subscription(&push) => Value::Array(push),
                Some(Reply::Push(push)) => {
                    (self.events)(Event::Push(push));
                    continue;
                }
                Some(Reply::Value(value)) => value,
            };
            let Some(first) = self.waiting.front_mut() else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to nothing"));
            };
            if first.acknowledgements > 0 {
                first.acknowledgements -= 1;
                if matches!(value, Value::ServerError(_)) {
                    first.refusal.get_or_insert(value);
                }
                continue;
            }
            first.values.push(match (value, first.refusal.take()) {
                (Value::ServerError(_), Some(refusal)) => refusal,
                (value, _) => value,
            });
            if first.values.len() == first.replies
                && let Some(done) = self.waiting.pop_front()
            {
                let _ = done.reply.send(Ok(Answer::Values(done.values)));
            }
        }
    }

    fn poll_work(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let mut is_news = false;
        loop {
            match self.poll_read(context) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => is_news = true,
                Poll::Ready(Err(error)) => return Poll::Ready(error),
            }
            if let Err(error) = self.deliver() {
                return Poll::Ready(error);
            }
        }
        loop {
            if let Err(error) = self.take_requests(context) {
                return Poll::Ready(error);
            }
            if !self.unwritten.is_empty() {
                // Tasks that are ready now, also those that were just answered, may have requests too: one write for all
                // costs Redis and us less.
                if is_news || !self.has_yielded {
                    self.has_yielded = true;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                match ready!(self.poll_write(context)) {
                    Ok(()) => {}
                    Err(error) => return Poll::Ready(error),
                }
            } else if self.is_unflushed {
                match ready!(Pin::new(&mut self.stream).poll_flush(context)) {
                    Ok(()) => self.is_unflushed = false,
                    Err(error) => return Poll::Ready(error),
                }
            } else {
                return Poll::Pending;
            }
        }
    }

    /// Tells everybody what became of their request.
    fn end(&mut self, error: &io::Error) {
        let text = error.to_string();
        self.queue.close();
        for waiting in self.waiting.drain(..) {
            let failure = if waiting.begins_at >= self.written {
                Failure::NotSent(text.clone())
            } else {
                Failure::Lost(text.clone())
            };
            let _ = waiting.reply.send(Err(failure));
        }
        while let Ok(outgoing) = self.queue.try_recv() {
            let _ = outgoing.reply.send(Err(Failure::NotSent(text.clone())));
        }
        (self.events)(Event::Closed);
    }
}

impl<E: Fn(Event) + Unpin> Future for Driver<E> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let error = ready!(self.poll_work(context));
        self.end(&error);
        Poll::Ready(())
    }
}
