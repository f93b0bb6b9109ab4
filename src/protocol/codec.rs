//! A request's frame to its header and body, an answer to its frame.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion},
};

/// Why a frame can't be read; the connection that sent it is closed.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("a frame of {0} bytes is too short for a request header")]
    TooShort(usize),
    #[error("the request header can't be read: {0}")]
    Header(String),
    #[error("the request body can't be read: {0}")]
    Body(String),
}

/// API key, API version and correlation id: the first eight bytes of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestStart {
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
}

pub fn request_start(frame: &[u8]) -> Result<RequestStart, DecodeError> {
    let start: &[u8; 8] = frame.first_chunk().ok_or(DecodeError::TooShort(frame.len()))?;
    let [k0, k1, v0, v1, c0, c1, c2, c3] = *start;
    Ok(RequestStart {
        api_key: i16::from_be_bytes([k0, k1]),
        api_version: i16::from_be_bytes([v0, v1]),
        correlation_id: i32::from_be_bytes([c0, c1, c2, c3]),
    })
}

/// Decodes header and body. Bytes behind the body are passed over, as Kafka does. `Bytes` fields of the body (record batches) are slices of `frame`.
pub fn decode_request<R: Decodable + HeaderVersion>(
    mut frame: Bytes,
    version: i16,
) -> Result<(RequestHeader, R), DecodeError> {
    let header = RequestHeader::decode(&mut frame, R::header_version(version))
        .map_err(|error| DecodeError::Header(error.to_string()))?;
    let body = R::decode(&mut frame, version).map_err(|error| DecodeError::Body(error.to_string()))?;
    Ok((header, body))
}

/// Why an answer can't be written: a field is set that the version lacks. A bug of the handler.
#[derive(Debug, thiserror::Error)]
#[error("the answer does not fit its version: {0}")]
pub struct EncodeError(String);

impl EncodeError {
    pub(super) fn new(reason: String) -> Self {
        Self(reason)
    }
}

/// Encodes an answer with its length prefix.
pub fn encode_response<R: Encodable + HeaderVersion>(
    correlation_id: i32,
    version: i16,
    body: &R,
) -> Result<Bytes, EncodeError> {
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    let header_version = R::header_version(version);
    let size = header.compute_size(header_version).map_err(fault)? + body.compute_size(version).map_err(fault)?;
    let mut frame = BytesMut::with_capacity(4 + size);
    frame.put_i32(i32::try_from(size).map_err(|_| EncodeError(format!("{size} bytes are too many for a frame")))?);
    header.encode(&mut frame, header_version).map_err(fault)?;
    body.encode(&mut frame, version).map_err(fault)?;
    Ok(frame.freeze())
}

fn fault(error: impl std::fmt::Display) -> EncodeError {
    EncodeError(error.to_string())
}
