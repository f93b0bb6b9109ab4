//! The broker's own connection to Redis: pipelined, RESP3, without a copy of large arguments between the request and the
//! socket (docs/adr/0009). The crate `redis` makes the commands and knows the types; this part moves the bytes.
//!
//! One task owns the socket. It writes what waits in as few calls as the socket takes, in the order of
//! [`Connection::send`], and hands out the replies in the same order. When it ends, every request is told whether a part of
//! it may have reached the server.

mod driver;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod reply;
mod request;
mod stream;

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use redis::{Cmd, ConnectionInfo, ErrorKind, RedisError, Value};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::timeout,
};

use self::{driver::Driver, stream::Stream};
pub(in crate::storage::redis) use self::{reply::Raw, request::Request};

/// Requests that wait to be written. Their bytes are bounded by who makes them (the memory that requests are admitted to).
const QUEUED_REQUESTS: usize = 4_096;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No byte of the request was written.
    #[error("{0}")]
    NotSent(String),
    /// It may have been carried out.
    #[error("{0}")]
    Lost(String),
}

/// What happens besides answers.
#[derive(Debug)]
pub(super) enum Event {
    /// A push, its kind first.
    Push(Vec<Value>),
    /// No more requests can be sent. The last event.
    Closed,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) connect_timeout: Duration,
    /// A request that has no answer by then counts as lost.
    pub(super) response_timeout: Duration,
}

/// A request with who waits for its replies.
struct Outgoing {
    request: Request,
    reply: oneshot::Sender<Result<Answer, Failure>>,
}

enum Answer {
    Values(Vec<Value>),
    Raw(Bytes),
}

/// Ends when it is dropped.
pub(super) struct Connection {
    queue: mpsc::Sender<Outgoing>,
    is_given_up: AtomicBool,
    response_timeout: Duration,
    driver: AbortHandle,
}

impl Connection {
    /// Connects and logs in. `events` is called from the task that owns the socket: it must not block.
    pub(super) async fn open(
        info: &ConnectionInfo,
        options: Options,
        events: impl Fn(Event) + Send + Unpin + 'static,
    ) -> Result<Self, RedisError> {
        let late = || RedisError::from(io::Error::new(io::ErrorKind::TimedOut, "no connection in time"));
        timeout(options.connect_timeout, async {
            let stream = Stream::connect(info.addr()).await?;
            let (queue, queued) = mpsc::channel(QUEUED_REQUESTS);
            let driver = tokio::spawn(Driver::new(stream, queued, events)).abort_handle();
            let is_given_up = AtomicBool::new(false);
            let connection = Self { queue, is_given_up, response_timeout: options.response_timeout, driver };
            connection.log_in(info).await?;
            Ok(connection)
        })
        .await
        .map_err(|_| late())?
    }

    async fn log_in(&self, info: &ConnectionInfo) -> Result<(), RedisError> {
        let settings = info.redis_settings();
        let mut hello = redis::cmd("HELLO");
        hello.arg(3);
        if let Some(password) = settings.password() {
            hello.arg("AUTH").arg(settings.username().unwrap_or("default")).arg(password);
        }
        self.command(&hello).await?;
        if settings.db() != 0 {
            self.command(redis::cmd("SELECT").arg(settings.db())).await?;
        }
        for (name, value) in [("LIB-NAME", "weir"), ("LIB-VER", env!("CARGO_PKG_VERSION"))] {
            // Redis before 7.2 does not know it.
            match self.command(redis::cmd("CLIENT").arg("SETINFO").arg(name).arg(value)).await {
                Err(error) if !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends one command; an error of the server is an error.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, RedisError> {
        let io_error = |kind, text| RedisError::from(io::Error::new(kind, text));
        match self.send(Request::command(command)).await {
            Ok(mut replies) => match replies.pop() {
                Some(Value::ServerError(error)) => Err(error.into()),
                reply => Ok(reply.unwrap_or_default()),
            },
            Err(Failure::NotSent(text)) => Err(io_error(io::ErrorKind::NotConnected, text)),
            Err(Failure::Lost(text)) => Err(io_error(io::ErrorKind::ConnectionAborted, text)),
        }
    }

    /// Has the server push what is published on a channel.
    pub(super) async fn subscribe(&self, channel: &str) -> Result<(), RedisError> {
        self.command(redis::cmd("SUBSCRIBE").arg(channel)).await.map(|_| ())
    }

    /// Sends a request and waits for its replies, one for each of its commands (a transaction is one). Errors of the server
    /// are [`Value::ServerError`]. Dropping the future does not take the request back.
    pub(super) async fn send(&self, request: Request) -> Result<Vec<Value>, Failure> {
        match self.exchange(request).await? {
            Answer::Values(values) => Ok(values),
            Answer::Raw(_) => Err(Failure::Lost("the reply was to be handed out as it is".to_owned())),
        }
    }

    /// Sends a [`Request::raw`]. An error of the server is a reply that begins with `-`.
    pub(super) async fn send_raw(&self, request: Request) -> Result<Bytes, Failure> {
        match self.exchange(request).await? {
            Answer::Raw(reply) => Ok(reply),
            Answer::Values(_) => Err(Failure::Lost("the reply was not to be handed out as it is".to_owned())),
        }
    }

    /// Nobody should send any more: an answer was lost.
    pub(super) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    /// Ends at once; answers that are still to come are lost. [`Event::Closed`] is not told.
    pub(super) fn abort(&self) {
        self.give_up();
        self.driver.abort();
    }

    /// Whether nothing can, or should, be sent any more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed) || self.queue.is_closed()
    }

    async fn exchange(&self, request: Request) -> Result<Answer, Failure> {
        let (reply, replied) = oneshot::channel();
        if self.queue.send(Outgoing { request, reply }).await.is_err() {
            return Err(Failure::NotSent("the connection was closed".to_owned()));
        }
        match timeout(self.response_timeout, replied).await {
            Ok(Ok(replies)) => replies,
            Ok(Err(_)) => Err(Failure::Lost("the connection ended".to_owned())),
            Err(_) => Err(Failure::Lost(format!("no answer within {:?}", self.response_timeout))),
        }
    }
}

#[cfg(test)]
mod tests;
