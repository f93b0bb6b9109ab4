//! A connection to a broker, with as little of its own as possible.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

/// Nothing that is measured takes this long.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const READ_AHEAD: usize = 64 << 10;

pub(super) struct Connection {
    stream: TcpStream,
    received: BytesMut,
    next_id: i32,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(address))
            .await
            .with_context(|| format!("{address} does not answer"))?
            .with_context(|| format!("can't connect to {address}"))?;
        stream.set_nodelay(true)?;
        // What it needs it reserves when it reads: thousands of idle connections shall cost little.
        Ok(Self { stream, received: BytesMut::new(), next_id: 0 })
    }

    /// One request and its answer; nothing else may be in flight.
    pub(super) async fn call<Q: Request>(&mut self, version: i16, request: &Q) -> Result<Q::Response> {
        self.send(version, request).await?;
        self.receive(version).await
    }

    pub(super) async fn send<Q: Request>(&mut self, version: i16, request: &Q) -> Result<()> {
        let frame = encoded(self.next_id(), version, request)?;
        self.stream.write_all(&frame).await?;
        Ok(())
    }

    pub(super) fn next_id(&mut self) -> i32 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// Sends a frame that lies in pieces.
    pub(super) async fn send_pieces(&mut self, pieces: &mut [IoSlice<'_>]) -> Result<()> {
        write_pieces(&mut self.stream, pieces).await?;
        Ok(())
    }

    /// The next answer, which must be of this type. Cancel-safe.
    pub(super) async fn receive<A: Decodable + HeaderVersion>(&mut self, version: i16) -> Result<A> {
        let mut frame = self.frame().await?;
        ResponseHeader::decode(&mut frame, A::header_version(version))?;
        A::decode(&mut frame, version)
    }

    /// The next answer without its length. Cancel-safe.
    async fn frame(&mut self) -> Result<Bytes> {
        self.fill(4).await?;
        let length = usize::try_from(self.received.as_ref().get_i32()).context("a frame of negative length")?;
        self.fill(4 + length).await?;
        self.received.advance(4);
        Ok(self.received.split_to(length).freeze())
    }

    async fn fill(&mut self, length: usize) -> Result<()> {
        while self.received.len() < length {
            // The buffer is used again once what was split off is dropped.
            self.received.reserve((length - self.received.len()).max(READ_AHEAD));
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
            ensure!(read.context("no answer")?? > 0, "the broker closed the connection");
        }
        Ok(())
    }

    /// Gives back the buffer of a connection that will be idle.
    pub(super) fn rest(&mut self) {
        self.received = BytesMut::new();
    }
}

/// A request with its length, as the wire has it.
fn encoded<Q: Request>(id: i32, version: i16, request: &Q) -> Result<Bytes> {
    let header = RequestHeader::default()
        .with_request_api_key(Q::KEY)
        .with_request_api_version(version)
        .with_correlation_id(id)
        .with_client_id(Some(StrBytes::from_static_str("load")));
    let header_version = Q::header_version(version);
    let size = header.compute_size(header_version)? + request.compute_size(version)?;
    let mut frame = BytesMut::with_capacity(4 + size);
    frame.put_i32(i32::try_from(size)?);
    header.encode(&mut frame, header_version)?;
    request.encode(&mut frame, version)?;
    Ok(frame.freeze())
}

/// Writes all pieces in as few calls as the socket allows.
pub(super) async fn write_pieces(
    stream: &mut (impl AsyncWrite + Unpin),
    mut pieces: &mut [IoSlice<'_>],
) -> io::Result<()> {
    IoSlice::advance_slices(&mut pieces, 0);
    while !pieces.is_empty() {
        match stream.write_vectored(pieces).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut pieces, written),
        }
    }
    Ok(())
}

pub(super) fn check(what: &str, error_code: i16) -> Result<()> {
    if error_code != 0 {
        let name = kafka_protocol::ResponseError::try_from_code(error_code)
            .map_or_else(|| format!("error {error_code}"), |error| format!("{error:?}"));
        bail!("{what}: {name}");
    }
    Ok(())
}
