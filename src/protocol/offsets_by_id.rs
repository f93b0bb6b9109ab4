//! OffsetCommit 10 and OffsetFetch 10: the requests that name topics by id (KIP-848), which the codec's schemas lack. Its answers
//! have them.

use anyhow::{Result, bail};
use kafka_protocol::{
    messages::{
        GroupId, OffsetCommitRequest, OffsetFetchRequest,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
    },
    protocol::{Decodable, HeaderVersion, StrBytes, buf::ByteBuf},
};
use uuid::Uuid;

/// The version that names topics by id; those before it are the codec's own.
const BY_ID: i16 = 10;

/// OffsetCommit in every version.
#[derive(Debug, PartialEq)]
pub struct OffsetCommit(pub OffsetCommitRequest);

/// OffsetFetch in every version.
#[derive(Debug, PartialEq)]
pub struct OffsetFetch(pub OffsetFetchRequest);

impl HeaderVersion for OffsetCommit {
    fn header_version(version: i16) -> i16 {
        OffsetCommitRequest::header_version(version.min(BY_ID - 1))
    }
}

impl HeaderVersion for OffsetFetch {
    fn header_version(version: i16) -> i16 {
        OffsetFetchRequest::header_version(version.min(BY_ID - 1))
    }
}

impl Decodable for OffsetCommit {
    fn decode<B: ByteBuf>(buffer: &mut B, version: i16) -> Result<Self> {
        if version < BY_ID {
            return OffsetCommitRequest::decode(buffer, version).map(Self);
        }
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(buffer)?))
            .with_generation_id_or_member_epoch(int32(buffer)?)
            .with_member_id(text(buffer)?)
            .with_group_instance_id(optional_text(buffer)?)
            .with_topics(array(buffer, |buffer| {
                let topic = OffsetCommitRequestTopic::default()
                    .with_topic_id(Uuid::from_bytes(fixed(buffer)?))
                    .with_partitions(array(buffer, |buffer| {
                        let partition = OffsetCommitRequestPartition::default()
                            .with_partition_index(int32(buffer)?)
                            .with_committed_offset(int64(buffer)?)
                            .with_committed_leader_epoch(int32(buffer)?)
                            .with_committed_metadata(optional_text(buffer)?);
                        skip_tagged_fields(buffer)?;
                        Ok(partition)
                    })?);
                skip_tagged_fields(buffer)?;
                Ok(topic)
            })?);
        skip_tagged_fields(buffer)?;
        Ok(Self(request))
    }
}

impl Decodable for OffsetFetch {
    fn decode<B: ByteBuf>(buffer: &mut B, version: i16) -> Result<Self> {
        if version < BY_ID {
            return OffsetFetchRequest::decode(buffer, version).map(Self);
        }
        let request = OffsetFetchRequest::default()
            .with_groups(array(buffer, |buffer| {
                let group = OffsetFetchRequestGroup::default()
                    .with_group_id(GroupId(text(buffer)?))
                    .with_member_id(optional_text(buffer)?)
                    .with_member_epoch(int32(buffer)?)
                    .with_topics(optional_array(buffer, |buffer| {
                        let topic = OffsetFetchRequestTopics::default()
                            .with_topic_id(Uuid::from_bytes(fixed(buffer)?))
                            .with_partition_indexes(array(buffer, |buffer| int32(buffer))?);
                        skip_tagged_fields(buffer)?;
                        Ok(topic)
                    })?);
                skip_tagged_fields(buffer)?;
                Ok(group)
            })?)
            .with_require_stable(fixed(buffer)? != [0]);
        skip_tagged_fields(buffer)?;
        Ok(Self(request))
    }
}

fn fixed<B: ByteBuf, const N: usize>(buffer: &mut B) -> Result<[u8; N]> {
    Ok(<[u8; N]>::try_from(&*buffer.try_get_bytes(N)?)?)
}

fn int32<B: ByteBuf>(buffer: &mut B) -> Result<i32> {
    fixed(buffer).map(i32::from_be_bytes)
}

fn int64<B: ByteBuf>(buffer: &mut B) -> Result<i64> {
    fixed(buffer).map(i64::from_be_bytes)
}

fn unsigned_varint<B: ByteBuf>(buffer: &mut B) -> Result<u32> {
    let mut value = 0;
    for shift in [0, 7, 14, 21, 28] {
        let [byte] = fixed(buffer)?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    bail!("a number of more than five bytes")
}

fn text<B: ByteBuf>(buffer: &mut B) -> Result<StrBytes> {
    match optional_text(buffer)? {
        Some(text) => Ok(text),
        None => bail!("a string that may not be null is null"),
    }
}

/// Length plus one, zero for null.
fn optional_text<B: ByteBuf>(buffer: &mut B) -> Result<Option<StrBytes>> {
    let Some(length) = unsigned_varint(buffer)?.checked_sub(1) else { return Ok(None) };
    let bytes = buffer.try_get_bytes(usize::try_from(length)?)?;
    Ok(Some(StrBytes::from_utf8(bytes)?))
}

fn array<B: ByteBuf, T>(buffer: &mut B, element: impl FnMut(&mut B) -> Result<T>) -> Result<Vec<T>> {
    match optional_array(buffer, element)? {
        Some(elements) => Ok(elements),
        None => bail!("an array that may not be null is null"),
    }
}

/// Grows with what is there, never with what is announced.
fn optional_array<B: ByteBuf, T>(
    buffer: &mut B,
    mut element: impl FnMut(&mut B) -> Result<T>,
) -> Result<Option<Vec<T>>> {
    let Some(count) = unsigned_varint(buffer)?.checked_sub(1) else { return Ok(None) };
    let mut elements = Vec::new();
    for _ in 0..count {
        elements.push(element(buffer)?);
    }
    Ok(Some(elements))
}

fn skip_tagged_fields<B: ByteBuf>(buffer: &mut B) -> Result<()> {
    let count = unsigned_varint(buffer)?;
    for _ in 0..count {
        let _tag = unsigned_varint(buffer)?;
        let size = unsigned_varint(buffer)?;
        buffer.try_get_bytes(usize::try_from(size)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, Bytes, BytesMut};
    use kafka_protocol::protocol::Encodable;
    use proptest::prelude::*;

    use super::*;

    /// A compact string of fewer than 127 bytes.
    fn put(out: &mut BytesMut, text: &str) {
        out.put_u8(u8::try_from(text.len() + 1).expect("short"));
        out.put_slice(text.as_bytes());
    }

    fn commit() -> Bytes {
        let mut out = BytesMut::new();
        put(&mut out, "group");
        out.put_i32(7);
        put(&mut out, "member");
        out.put_u8(0);
        out.put_u8(2);
        out.put_u128(5);
        out.put_u8(2);
        out.put_i32(3);
        out.put_i64(99);
        out.put_i32(4);
        put(&mut out, "metadata");
        // A tagged field that nobody knows.
        out.put_slice(&[1, 9, 2, 0xaa, 0xbb]);
        out.put_slice(&[0, 0]);
        out.freeze()
    }

    fn fetch() -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(3);
        put(&mut out, "one");
        out.put_u8(0);
        out.put_i32(-1);
        out.put_u8(2);
        out.put_u128(5);
        out.put_u8(3);
        out.put_i32(0);
        out.put_i32(1);
        out.put_slice(&[0, 0]);
        put(&mut out, "two");
        put(&mut out, "member");
        out.put_i32(3);
        out.put_slice(&[0, 0]);
        out.put_slice(&[1, 0]);
        out.freeze()
    }

    #[test]
    fn a_commit_by_topic_ids_is_read() {
        let mut frame = commit();
        let OffsetCommit(request) = OffsetCommit::decode(&mut frame, 10).expect("well-formed");
        assert!(frame.is_empty());
        assert_eq!((&**request.group_id, &*request.member_id), ("group", "member"));
        assert_eq!((request.generation_id_or_member_epoch, request.group_instance_id), (7, None));
        let topic = &request.topics[0];
        assert_eq!(topic.topic_id, Uuid::from_u128(5));
        let partition = &topic.partitions[0];
        assert_eq!(
            (partition.partition_index, partition.committed_offset, partition.committed_leader_epoch),
            (3, 99, 4)
        );
        assert_eq!(partition.committed_metadata.as_deref(), Some("metadata"));
    }

    #[test]
    fn a_fetch_by_topic_ids_is_read() {
        let mut frame = fetch();
        let OffsetFetch(request) = OffsetFetch::decode(&mut frame, 10).expect("well-formed");
        assert!(frame.is_empty() && request.require_stable);
        let [one, two] = &request.groups[..] else { panic!("{request:?}") };
        let topics = one.topics.as_ref().expect("topics are named");
        assert_eq!((topics[0].topic_id, &topics[0].partition_indexes[..]), (Uuid::from_u128(5), &[0, 1][..]));
        assert_eq!((two.member_id.as_deref(), two.member_epoch, &two.topics), (Some("member"), 3, &None));
    }

    #[test]
    fn older_versions_are_the_codecs_own() {
        let request = OffsetCommitRequest::default().with_group_id(GroupId(StrBytes::from_static_str("g")));
        let mut frame = BytesMut::new();
        request.encode(&mut frame, 9).expect("encodable");
        assert_eq!(OffsetCommit::decode(&mut frame.freeze(), 9).expect("well-formed"), OffsetCommit(request));
    }

    #[test]
    fn a_request_that_is_cut_off_or_lies_about_lengths_is_an_error() {
        for end in 0..commit().len() {
            assert!(OffsetCommit::decode(&mut commit().slice(..end), 10).is_err(), "commit cut at {end}");
        }
        for end in 0..fetch().len() {
            assert!(OffsetFetch::decode(&mut fetch().slice(..end), 10).is_err(), "fetch cut at {end}");
        }
        let lie = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1]);
        assert!(OffsetFetch::decode(&mut lie.clone(), 10).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = OffsetCommit::decode(&mut Bytes::from(bytes.clone()), 10);
            let _ = OffsetFetch::decode(&mut Bytes::from(bytes), 10);
        }
    }
}
