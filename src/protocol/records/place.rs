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

    /// The batch as it stands in the log. The records are those that were sent, not a copy.
    pub fn place(&self, placement: &Placement) -> PlacedBatch {
        PlacedBatch { header: self.placed_header(placement).encode(), records: self.batch.payload() }
    }
}

/// A batch as it stands in the log and as consumers get it. In two parts, since the log changes only the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedBatch {
    header: [u8; HEADER_LENGTH],
    records: Bytes,
}

impl PlacedBatch {
    /// `None` where there is not even a header.
    pub fn split(bytes: &Bytes) -> Option<Self> {
        Some(Self { header: *bytes.first_chunk()?, records: bytes.slice(HEADER_LENGTH..) })
    }

    pub fn header(&self) -> &[u8; HEADER_LENGTH] {
        &self.header
    }

    /// What follows the header.
    pub fn records(&self) -> &Bytes {
        &self.records
    }

    /// Bytes of the whole batch.
    pub fn size(&self) -> usize {
        HEADER_LENGTH + self.records.len()
    }

    /// The same batch elsewhere in the log: the base offset lies outside of what the CRC covers.
    #[must_use]
    pub fn moved_to(mut self, base_offset: i64) -> Self {
        if let Some(field) = self.header.first_chunk_mut() {
            *field = base_offset.to_be_bytes();
        }
        self
    }

    /// In one part.
    pub fn to_bytes(&self) -> Bytes {
        [&self.header[..], &self.records].concat().into()
    }
}
