//! A Fetch answer in pieces, so that record batches go out as they are: kafka-protocol would copy them twice.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        FetchResponse, ResponseHeader,
        fetch_response::{EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData},
    },
    protocol::{Encodable, HeaderVersion},
};

use super::{codec::EncodeError, records::PlacedBatch};

/// A batch below this size is copied: cheaper than a piece of its own.
const WORTH_A_PIECE: usize = 2 << 10;

const FLEXIBLE: i16 = 12;
const TOPIC_IDS: i16 = 13;
const NODE_ENDPOINTS: i16 = 16;

/// Encodes an answer with its length prefix, in pieces. `records` has the batches of each partition, in the order of the
/// answer; what the answer itself has as records is not looked at.
pub fn encode(
    correlation_id: i32,
    version: i16,
    response: &FetchResponse,
    records: Vec<Vec<PlacedBatch>>,
) -> Result<Vec<Bytes>, EncodeError> {
    let mut pieces = Pieces { version, done: Vec::new(), current: BytesMut::with_capacity(256) };
    pieces.current.put_i32(0);
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    header
        .encode(&mut pieces.current, FetchResponse::header_version(version))
        .map_err(|error| EncodeError::new(error.to_string()))?;
    let mut records = records.into_iter();
    pieces.response(response, &mut records)?;
    let mut done = pieces.finish();
    let size = done.iter().map(Bytes::len).sum::<usize>() - 4;
    let size = i32::try_from(size).map_err(|_| EncodeError::new(format!("{size} bytes are too many for a frame")))?;
    if let Some(first) = done.first_mut() {
        let mut head = BytesMut::from(&first[..]);
        if let Some(prefix) = head.first_chunk_mut::<4>() {
            *prefix = size.to_be_bytes();
        }
        *first = head.freeze();
    }
    Ok(done)
}

struct Pieces {
    version: i16,
    done: Vec<Bytes>,
    current: BytesMut,
}

type Records<'a> = &'a mut std::vec::IntoIter<Vec<PlacedBatch>>;

impl Pieces {
    fn is_flexible(&self) -> bool {
        self.version >= FLEXIBLE
    }

    fn response(&mut self, response: &FetchResponse, records: Records<'_>) -> Result<(), EncodeError> {
        self.current.put_i32(response.throttle_time_ms);
        if self.version >= 7 {
            self.current.put_i16(response.error_code);
            self.current.put_i32(response.session_id);
        }
        self.length(Some(response.responses.len()))?;
        for topic in &response.responses {
            self.topic(topic, records)?;
        }
        if !self.is_flexible() {
            return Ok(());
        }
        if self.version < NODE_ENDPOINTS || response.node_endpoints.is_empty() {
            self.varint(0);
            return Ok(());
        }
        let mut endpoints = Pieces { version: self.version, done: Vec::new(), current: BytesMut::new() };
        endpoints.length(Some(response.node_endpoints.len()))?;
        for endpoint in &response.node_endpoints {
            endpoints.endpoint(endpoint)?;
        }
        self.varint(1);
        self.tagged(0, &endpoints.current)
    }

    fn endpoint(&mut self, endpoint: &NodeEndpoint) -> Result<(), EncodeError> {
        self.current.put_i32(endpoint.node_id.0);
        self.string(Some(endpoint.host.as_bytes()))?;
        self.current.put_i32(endpoint.port);
        self.string(endpoint.rack.as_ref().map(|rack| rack.as_bytes()))?;
        self.varint(0);
        Ok(())
    }

    fn topic(&mut self, topic: &FetchableTopicResponse, records: Records<'_>) -> Result<(), EncodeError> {
        if self.version >= TOPIC_IDS {
            self.current.put_slice(topic.topic_id.as_bytes());
        } else {
            self.string(Some(topic.topic.as_bytes()))?;
        }
        self.length(Some(topic.partitions.len()))?;
        for partition in &topic.partitions {
            self.partition(partition, records.next().unwrap_or_default())?;
        }
        self.no_tags();
        Ok(())
    }

    fn partition(&mut self, partition: &PartitionData, batches: Vec<PlacedBatch>) -> Result<(), EncodeError> {
        self.current.put_i32(partition.partition_index);
        self.current.put_i16(partition.error_code);
        self.current.put_i64(partition.high_watermark);
        self.current.put_i64(partition.last_stable_offset);
        if self.version >= 5 {
            self.current.put_i64(partition.log_start_offset);
        }
        self.length(partition.aborted_transactions.as_ref().map(Vec::len))?;
        for aborted in partition.aborted_transactions.iter().flatten() {
            self.current.put_i64(aborted.producer_id.0);
            self.current.put_i64(aborted.first_offset);
            self.no_tags();
        }
        if self.version >= 11 {
            self.current.put_i32(partition.preferred_read_replica.0);
        }
        let size: usize = batches.iter().map(PlacedBatch::size).sum();
        self.length(Some(size))?;
        for batch in &batches {
            self.records(batch);
        }
        if self.is_flexible() {
            self.tags_of(partition)?;
        }
        Ok(())
    }

    fn records(&mut self, batch: &PlacedBatch) {
        self.current.put_slice(batch.header());
        if batch.records().len() < WORTH_A_PIECE {
            self.current.put_slice(batch.records());
        } else {
            self.done.push(self.current.split().freeze());
            self.done.push(batch.records().clone());
        }
    }

    fn tags_of(&mut self, partition: &PartitionData) -> Result<(), EncodeError> {
        let diverging = partition.diverging_epoch != EpochEndOffset::default();
        let leader = partition.current_leader != LeaderIdAndEpoch::default();
        self.varint(u32::from(diverging) + u32::from(leader));
        if diverging {
            let mut field = BytesMut::new();
            field.put_i32(partition.diverging_epoch.epoch);
            field.put_i64(partition.diverging_epoch.end_offset);
            field.put_u8(0);
            self.tagged(0, &field)?;
        }
        if leader {
            let mut field = BytesMut::new();
            field.put_i32(partition.current_leader.leader_id.0);
            field.put_i32(partition.current_leader.leader_epoch);
            field.put_u8(0);
            self.tagged(1, &field)?;
        }
        Ok(())
    }

    fn tagged(&mut self, tag: u32, field: &[u8]) -> Result<(), EncodeError> {
        self.varint(tag);
        self.varint(u32::try_from(field.len()).map_err(too_long)?);
        self.current.put_slice(field);
        Ok(())
    }

    fn no_tags(&mut self) {
        if self.is_flexible() {
            self.varint(0);
        }
    }

    /// An array's length; `None` is null.
    fn length(&mut self, length: Option<usize>) -> Result<(), EncodeError> {
        let length = length.map(i32::try_from).transpose().map_err(too_long)?;
        if self.is_flexible() {
            self.varint(length.map_or(0, |length| length.unsigned_abs() + 1));
        } else {
            self.current.put_i32(length.unwrap_or(-1));
        }
        Ok(())
    }

    fn string(&mut self, text: Option<&[u8]>) -> Result<(), EncodeError> {
        if self.is_flexible() {
            self.length(text.map(<[u8]>::len))?;
        } else {
            let length = text.map(|text| i16::try_from(text.len())).transpose().map_err(too_long)?;
            self.current.put_i16(length.unwrap_or(-1));
        }
        self.current.put_slice(text.unwrap_or_default());
        Ok(())
    }

    fn varint(&mut self, mut value: u32) {
        while value > 0x7f {
            self.current.put_u8(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.current.put_u8(value.to_le_bytes()[0]);
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.done.push(self.current.freeze());
        self.done
    }
}

fn too_long(error: std::num::TryFromIntError) -> EncodeError {
    EncodeError::new(error.to_string())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{messages::fetch_response::AbortedTransaction, protocol::StrBytes};
    use uuid::Uuid;

    use super::*;
    use crate::protocol::{codec::encode_response, records::HEADER_LENGTH};

    fn partition(index: i32, version: i16) -> PartitionData {
        let mut partition = PartitionData::default()
            .with_partition_index(index)
            .with_error_code(3)
            .with_high_watermark(1 << 40)
            .with_last_stable_offset(77)
            .with_aborted_transactions(None);
        if version >= 5 {
            partition.log_start_offset = 5;
        }
        if version >= 12 {
            partition.diverging_epoch = EpochEndOffset::default().with_epoch(4).with_end_offset(300);
            partition.current_leader = LeaderIdAndEpoch::default().with_leader_id(9.into()).with_leader_epoch(70_000);
        }
        partition
    }

    #[test]
    fn the_pieces_are_what_kafka_protocol_writes_in_every_version() {
        for version in 4..=18 {
            let batch = |byte: u8, records: usize| {
                PlacedBatch::split(&Bytes::from(vec![byte; HEADER_LENGTH + records])).expect("it has a header")
            };
            let batches =
                vec![vec![], vec![batch(1, 10), batch(2, WORTH_A_PIECE), batch(3, 300)], vec![batch(4, 70_000)]];
            let aborted = vec![AbortedTransaction::default().with_producer_id(5.into()).with_first_offset(6)];
            let mut partitions = vec![
                partition(0, version),
                partition(1, version).with_aborted_transactions(Some(aborted)),
                PartitionData::default().with_partition_index(2),
            ];
            let topic = |partitions: Vec<PartitionData>| {
                let topic = FetchableTopicResponse::default().with_partitions(partitions);
                if version >= TOPIC_IDS {
                    topic.with_topic_id(Uuid::from_u128(7))
                } else {
                    topic.with_topic(StrBytes::from_static_str("orders").into())
                }
            };
            let mut response = FetchResponse::default().with_throttle_time_ms(3);
            if version >= 7 {
                response.error_code = 1;
                response.session_id = 2;
            }
            if version >= NODE_ENDPOINTS {
                let endpoint = NodeEndpoint::default()
                    .with_node_id(1.into())
                    .with_host(StrBytes::from_static_str("host"))
                    .with_port(9092);
                let racked = endpoint.clone().with_rack(Some(StrBytes::from_static_str("rack")));
                response.node_endpoints = vec![endpoint, racked];
            }
            response.responses = vec![topic(partitions.clone()), topic(Vec::new())];
            let pieces = encode(8, version, &response, batches.clone()).expect("it fits");
            for large in [&batches[1][1], &batches[2][0]] {
                let place = large.records().as_ptr();
                assert!(pieces.iter().any(|piece| piece.as_ptr() == place), "large batches are not copied");
            }
            for (partition, batches) in partitions.iter_mut().zip(&batches) {
                let whole: Vec<Bytes> = batches.iter().map(PlacedBatch::to_bytes).collect();
                partition.records = Some(Bytes::from(whole.concat()));
            }
            response.responses = vec![topic(partitions), topic(Vec::new())];
            let whole = encode_response(8, version, &response).expect("it fits");
            assert_eq!(pieces.concat(), whole, "version {version}");
        }
    }

    #[test]
    fn an_answer_without_partitions_has_no_surprise() {
        for version in 4..=18 {
            let response = FetchResponse::default();
            let pieces = encode(1, version, &response, Vec::new()).expect("it fits");
            assert_eq!(pieces.concat(), encode_response(1, version, &response).expect("it fits"), "version {version}");
        }
    }
}
