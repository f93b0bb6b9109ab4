//! Replies of Redis, in any pieces.

use bytes::Bytes;
use redis::Value;

use super::{
    Raw,
    reply::{Parser, Reply},
};

/// The first byte is the size of the pieces in which the rest arrives: what comes of it does not depend on them.
pub fn reply(data: &[u8]) {
    let Some((&size, data)) = data.split_first() else { return };
    let at_once = replies(data, data.len().max(1));
    let in_pieces = replies(data, usize::from(size).max(1));
    assert_eq!(format!("{at_once:?}"), format!("{in_pieces:?}"));
    assert_eq!(raw_replies(data, data.len().max(1)), raw_replies(data, usize::from(size).max(1)));
    let mut raw = Raw::new(Bytes::copy_from_slice(data));
    while raw.array().is_some() || raw.string().is_some() {}
}

/// The values of the replies that the bytes begin with.
pub(in crate::storage::redis) fn values(data: &[u8]) -> Vec<Value> {
    let value = |reply| match reply {
        Reply::Value(value) => value,
        Reply::Push(values) => Value::Array(values),
    };
    replies(data, data.len().max(1)).0.into_iter().map(value).collect()
}

/// All replies, and whether an error ended them.
fn replies(data: &[u8], size: usize) -> (Vec<Reply>, bool) {
    let mut parser = Parser::default();
    let mut found = Vec::new();
    for piece in data.chunks(size) {
        parser.buffer.extend_from_slice(piece);
        loop {
            assert!(parser.missing() > 0);
            match parser.next() {
                Ok(Some(reply)) => found.push(reply),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

fn raw_replies(data: &[u8], size: usize) -> (Vec<Bytes>, bool) {
    let mut parser = Parser::default();
    let mut found = Vec::new();
    for piece in data.chunks(size) {
        parser.buffer.extend_from_slice(piece);
        loop {
            match parser.next_raw() {
                Ok(Some(reply)) => found.push(reply),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}
