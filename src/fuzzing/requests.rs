//! A frame as `net` hands it on: its first eight bytes, then header and body of the API and version that they name.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::*,
    protocol::{Decodable, Encodable, HeaderVersion},
};

use crate::protocol::{
    api,
    codec::{decode_request, request_start},
};

/// Runs a function for the type of a request, by its API key; `None` for an API that is not served.
macro_rules! for_request_of {
    ($key:expr, $run:ident $arguments:tt) => {
        for_request_of! { @ $key, $run $arguments;
            Produce: ProduceRequest,
            Fetch: FetchRequest,
            ListOffsets: ListOffsetsRequest,
            Metadata: MetadataRequest,
            OffsetCommit: OffsetCommitRequest,
            OffsetFetch: OffsetFetchRequest,
            FindCoordinator: FindCoordinatorRequest,
            JoinGroup: JoinGroupRequest,
            Heartbeat: HeartbeatRequest,
            LeaveGroup: LeaveGroupRequest,
            SyncGroup: SyncGroupRequest,
            DescribeGroups: DescribeGroupsRequest,
            ListGroups: ListGroupsRequest,
            ApiVersions: ApiVersionsRequest,
            CreateTopics: CreateTopicsRequest,
            DeleteTopics: DeleteTopicsRequest,
            DeleteRecords: DeleteRecordsRequest,
            InitProducerId: InitProducerIdRequest,
            OffsetForLeaderEpoch: OffsetForLeaderEpochRequest,
            DescribeAcls: DescribeAclsRequest,
            CreateAcls: CreateAclsRequest,
            DeleteAcls: DeleteAclsRequest,
            DescribeConfigs: DescribeConfigsRequest,
            AlterConfigs: AlterConfigsRequest,
            DescribeLogDirs: DescribeLogDirsRequest,
            CreatePartitions: CreatePartitionsRequest,
            DeleteGroups: DeleteGroupsRequest,
            ElectLeaders: ElectLeadersRequest,
            IncrementalAlterConfigs: IncrementalAlterConfigsRequest,
            AlterPartitionReassignments: AlterPartitionReassignmentsRequest,
            ListPartitionReassignments: ListPartitionReassignmentsRequest,
            OffsetDelete: OffsetDeleteRequest,
            DescribeCluster: DescribeClusterRequest,
            DescribeProducers: DescribeProducersRequest,
            ListConfigResources: ListConfigResourcesRequest,
            DescribeTopicPartitions: DescribeTopicPartitionsRequest,
        }
    };
    (@ $key:expr, $run:ident $arguments:tt; $($api:ident: $request:ident,)*) => {
        match $key {
            $(ApiKey::$api => Some($run::<$request> $arguments),)*
            _ => None,
        }
    };
}

/// No panic; what is read, written and read again is the same.
pub fn request(frame: &[u8]) {
    let Ok(start) = request_start(frame) else { return };
    let Some(api) = api::served(start.api_key).filter(|api| api.versions().contains(&start.api_version)) else {
        return;
    };
    let checked = for_request_of!(api.key, check(Bytes::copy_from_slice(frame), start.api_version));
    assert!(checked.is_some(), "{:?} is served and not fuzzed", api.key);
}

fn check<R: Decodable + Encodable + HeaderVersion + PartialEq + std::fmt::Debug>(frame: Bytes, version: i16) {
    let Ok((header, body)) = decode_request::<R>(frame, version) else { return };
    let again = decode_request::<R>(encoded(&header, &body, version), version);
    let is_same = again.as_ref().is_ok_and(|(header_again, body_again)| (header_again, body_again) == (&header, &body));
    // The crate reads a tag of 32 bits as a negative one, counts it when it writes, and leaves it out. The broker writes no request.
    let has_negative_tag = || format!("{header:?} {body:?}").contains("unknown_tagged_fields: {-");
    assert!(is_same || has_negative_tag(), "{header:?} {body:?} was written, and read as {again:?}");
}

fn encoded<R: Encodable + HeaderVersion>(header: &RequestHeader, body: &R, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    header.encode(&mut out, R::header_version(version)).expect("what was read can be written");
    body.encode(&mut out, version).expect("what was read can be written");
    out.freeze()
}

/// A frame of each served API in a version, with nothing filled in.
#[cfg(test)]
pub(super) fn empty(api: &api::Api, version: i16) -> Bytes {
    fn seed<R: Default + Encodable + HeaderVersion>(key: ApiKey, version: i16) -> Option<Bytes> {
        let header = RequestHeader::default().with_request_api_key(key as i16).with_request_api_version(version);
        let mut out = BytesMut::new();
        header.encode(&mut out, R::header_version(version)).ok()?;
        R::default().encode(&mut out, version).ok()?;
        Some(out.freeze())
    }
    for_request_of!(api.key, seed(api.key, version)).expect("it is served").unwrap_or_default()
}
