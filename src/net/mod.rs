//! Sockets: accept, frame, admit, answer in order. Knows no Kafka API by name.

mod admission;
pub mod bind;
mod connection;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod listener;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;

pub use admission::Admission;

/// Who sent a request.
#[derive(Debug)]
pub struct Caller {
    /// Which of the broker's listeners the connection came in on, by its place in the configuration.
    pub listener: usize,
    pub peer: SocketAddr,
    /// Unique among this process' connections.
    pub connection_id: u64,
}

/// An answer's bytes with its length prefix, in pieces so that record batches need not be copied together. No pieces at all
/// where the request wants no answer (Produce with acks=0).
#[derive(Debug, Default)]
pub struct Frame {
    pub segments: Vec<Bytes>,
    /// The memory that the pieces take, given back once they are written.
    pub held: Option<OwnedSemaphorePermit>,
}

/// What comes of a request.
pub enum Reply {
    Ready(Frame),
    /// The ordered part is done and the next request may be read; the answer follows. Polled only when every earlier answer
    /// of the connection is ready.
    Later(BoxFuture<'static, Result<Frame, Close>>),
}

/// Why a connection is closed instead of answered.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Close(pub String);

/// What serves the requests.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// The largest frame that is read for a request whose first bytes are `start`, or why the connection is closed.
    fn frame_limit(&self, start: &[u8; 8]) -> Result<FrameLimit, Close>;

    /// The ordered part of a request: returns before the next request of the same connection is served.
    async fn serve(&self, caller: &Arc<Caller>, frame: Bytes) -> Result<Reply, Close>;
}

/// How much of a request is read, and how much memory it may come to take.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimit {
    pub max_bytes: usize,
    /// Bytes of memory that decoding may take for each byte of the frame, besides the frame.
    pub decode_factor: usize,
}

/// Bounds of one connection.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Answers that may wait to be written on one connection; then its next request is not read.
    pub queued_replies: usize,
    /// A connection without a request for this long is closed (`connections.max.idle.ms`).
    pub idle: Duration,
    /// A request that began to arrive and makes no progress, or an answer that the client does not read, ends the
    /// connection after this time.
    pub stall: Duration,
}
