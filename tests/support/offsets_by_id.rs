//! Requests that name topics of offsets by id (KIP-848), which the codec's schemas lack.

use bytes::{BufMut, BytesMut};
use kafka_protocol::{
    messages::{OffsetCommitRequest, OffsetFetchRequest},
    protocol::{Encodable, HeaderVersion, buf::ByteBufMut},
};

/// OffsetCommit 10.
pub struct Commit(pub OffsetCommitRequest);

/// OffsetFetch 10.
pub struct Fetch(pub OffsetFetchRequest);

impl HeaderVersion for Commit {
    fn header_version(_: i16) -> i16 {
        2
    }
}

impl HeaderVersion for Fetch {
    fn header_version(_: i16) -> i16 {
        2
    }
}

impl Encodable for Commit {
    fn encode<B: ByteBufMut>(&self, out: &mut B, _: i16) -> anyhow::Result<()> {
        let OffsetCommitRequest { group_id, generation_id_or_member_epoch, member_id, topics, .. } = &self.0;
        put_text(out, group_id);
        out.put_i32(*generation_id_or_member_epoch);
        put_text(out, member_id);
        out.put_u8(0);
        put_count(out, topics.len());
        for topic in topics {
            out.put_slice(topic.topic_id.as_bytes());
            put_count(out, topic.partitions.len());
            for partition in &topic.partitions {
                out.put_i32(partition.partition_index);
                out.put_i64(partition.committed_offset);
                out.put_i32(partition.committed_leader_epoch);
                put_text(out, partition.committed_metadata.as_deref().unwrap_or(""));
                out.put_u8(0);
            }
            out.put_u8(0);
        }
        out.put_u8(0);
        Ok(())
    }

    fn compute_size(&self, version: i16) -> anyhow::Result<usize> {
        size_of(self, version)
    }
}

impl Encodable for Fetch {
    fn encode<B: ByteBufMut>(&self, out: &mut B, _: i16) -> anyhow::Result<()> {
        put_count(out, self.0.groups.len());
        for group in &self.0.groups {
            put_text(out, &group.group_id);
            out.put_u8(0);
            out.put_i32(group.member_epoch);
            match &group.topics {
                None => out.put_u8(0),
                Some(topics) => {
                    put_count(out, topics.len());
                    for topic in topics {
                        out.put_slice(topic.topic_id.as_bytes());
                        put_count(out, topic.partition_indexes.len());
                        topic.partition_indexes.iter().for_each(|index| out.put_i32(*index));
                        out.put_u8(0);
                    }
                }
            }
            out.put_u8(0);
        }
        out.put_u8(u8::from(self.0.require_stable));
        out.put_u8(0);
        Ok(())
    }

    fn compute_size(&self, version: i16) -> anyhow::Result<usize> {
        size_of(self, version)
    }
}

fn size_of(request: &impl Encodable, version: i16) -> anyhow::Result<usize> {
    let mut out = BytesMut::new();
    request.encode(&mut out, version)?;
    Ok(out.len())
}

/// The length of a compact array or string that is short.
fn put_count(out: &mut impl BufMut, count: usize) {
    out.put_u8(u8::try_from(count + 1).expect("short"));
}

fn put_text(out: &mut impl BufMut, text: &str) {
    put_count(out, text.len());
    out.put_slice(text.as_bytes());
}
