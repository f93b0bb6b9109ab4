use bytes::Bytes;

use super::header::{BatchHeader, HEADER_LENGTH, TimestampType};
use super::validate::ValidatedBatch;

/// What the log decides about a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    pub base_offset: i64,
    pub partition_leader_epoch: i32,
    /// On a topic with LogAppendTime: the time of the append, which becomes the timestamp of every record.
    pub log_append_time: Option<i64>,
}

impl ValidatedBatch {
    /// The header that the batch has in the log; the CRC is computed anew only if something under it changes.
    /// [`super::Batch::payload`] follows it unchanged.
    pub fn placed_header(&self, placement: &Placement) -> BatchHeader {
        let sent = self.header();
        let mut header = self.stored_header();
        header.base_offset = placement.base_offset;
        header.partition_leader_epoch = placement.partition_leader_epoch;
        if let Some(time) = placement.log_append_time {
            header.attributes = header.attributes.with_timestamp_type(TimestampType::LogAppendTime);
            header.max_timestamp = time;
        }
        if header.attributes != sent.attributes || header.max_timestamp != sent.max_timestamp {
            header.crc = header.compute_crc(&self.batch.payload());
        }
        header
    }

    /// The batch as it stands in the log: one copy.
    pub fn place(&self, placement: &Placement) -> Bytes {
        let sent = self.batch.bytes();
        let mut bytes = Vec::with_capacity(sent.len());
        bytes.extend_from_slice(&self.placed_header(placement).encode());
        bytes.extend_from_slice(sent.get(HEADER_LENGTH..).unwrap_or_default());
        Bytes::from(bytes)
    }
}
