//! Bytes to wire types and back: no I/O, no clock, no state.

pub mod api;
pub mod codec;
pub mod fetch_response;
pub mod offsets_by_id;
pub mod records;
