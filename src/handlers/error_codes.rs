//! The error codes that an answer holds, for the metrics.

use std::iter::once;

use kafka_protocol::{
    ResponseError,
    messages::{
        AlterConfigsResponse, AlterPartitionReassignmentsResponse, ApiVersionsResponse, CreateAclsResponse,
        CreatePartitionsResponse, CreateTopicsResponse, DeleteAclsResponse, DeleteGroupsResponse,
        DeleteRecordsResponse, DeleteTopicsResponse, DescribeAclsResponse, DescribeClusterResponse,
        DescribeConfigsResponse, DescribeGroupsResponse, DescribeLogDirsResponse, DescribeProducersResponse,
        DescribeTopicPartitionsResponse, ElectLeadersResponse, FetchResponse, FindCoordinatorResponse,
        HeartbeatResponse, IncrementalAlterConfigsResponse, InitProducerIdResponse, JoinGroupResponse,
        LeaveGroupResponse, ListConfigResourcesResponse, ListGroupsResponse, ListOffsetsResponse,
        ListPartitionReassignmentsResponse, MetadataResponse, OffsetCommitResponse, OffsetDeleteResponse,
        OffsetFetchResponse, OffsetForLeaderEpochResponse, ProduceResponse, SyncGroupResponse,
    },
};

use crate::telemetry::metrics::RequestMetrics;

/// An answer whose errors can be counted.
pub(super) trait ErrorCodes {
    /// Every error code in the answer, also those that say "none".
    fn error_codes(&self) -> impl Iterator<Item = i16>;

    fn count_errors(&self, metrics: &RequestMetrics) {
        for error in self.error_codes().filter(|code| *code != 0).filter_map(ResponseError::try_from_code) {
            metrics.error(&kafka_name(error));
        }
    }
}

/// As Kafka's `Errors` spells it: `UNKNOWN_TOPIC_OR_PARTITION`.
fn kafka_name(error: ResponseError) -> String {
    if error == ResponseError::UnknownServerError || matches!(error, ResponseError::Unknown(_)) {
        return "UNKNOWN_SERVER_ERROR".to_owned();
    }
    let camel = format!("{error:?}");
    let mut name = String::with_capacity(camel.len() + 8);
    for (place, letter) in camel.char_indices() {
        if place > 0 && letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

macro_rules! error_codes {
    ($($response:ty: |$answer:ident| $codes:expr;)*) => {
        $(impl ErrorCodes for $response {
            fn error_codes(&self) -> impl Iterator<Item = i16> {
                let $answer = self;
                $codes
            }
        })*
    };
}

error_codes! {
    AlterConfigsResponse: |a| a.responses.iter().map(|resource| resource.error_code);
    AlterPartitionReassignmentsResponse: |a| once(a.error_code)
        .chain(a.responses.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code));
    ApiVersionsResponse: |a| once(a.error_code);
    CreateAclsResponse: |a| a.results.iter().map(|result| result.error_code);
    CreatePartitionsResponse: |a| a.results.iter().map(|topic| topic.error_code);
    CreateTopicsResponse: |a| a.topics.iter().map(|topic| topic.error_code);
    DeleteAclsResponse: |a| a.filter_results.iter().map(|result| result.error_code);
    DeleteGroupsResponse: |a| a.results.iter().map(|group| group.error_code);
    DeleteRecordsResponse: |a| a.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code);
    DeleteTopicsResponse: |a| a.responses.iter().map(|topic| topic.error_code);
    DescribeAclsResponse: |a| once(a.error_code);
    DescribeClusterResponse: |a| once(a.error_code);
    DescribeConfigsResponse: |a| a.results.iter().map(|resource| resource.error_code);
    DescribeGroupsResponse: |a| a.groups.iter().map(|group| group.error_code);
    DescribeLogDirsResponse: |a| once(a.error_code).chain(a.results.iter().map(|dir| dir.error_code));
    DescribeProducersResponse: |a| a.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code);
    DescribeTopicPartitionsResponse: |a| a.topics.iter()
        .flat_map(|topic| once(topic.error_code).chain(topic.partitions.iter().map(|partition| partition.error_code)));
    ElectLeadersResponse: |a| once(a.error_code)
        .chain(a.replica_election_results.iter().flat_map(|topic| &topic.partition_result).map(|partition| partition.error_code));
    FetchResponse: |a| once(a.error_code)
        .chain(a.responses.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code));
    FindCoordinatorResponse: |a| once(a.error_code).chain(a.coordinators.iter().map(|coordinator| coordinator.error_code));
    HeartbeatResponse: |a| once(a.error_code);
    IncrementalAlterConfigsResponse: |a| a.responses.iter().map(|resource| resource.error_code);
    InitProducerIdResponse: |a| once(a.error_code);
    JoinGroupResponse: |a| once(a.error_code);
    LeaveGroupResponse: |a| once(a.error_code).chain(a.members.iter().map(|member| member.error_code));
    ListConfigResourcesResponse: |a| once(a.error_code);
    ListGroupsResponse: |a| once(a.error_code);
    ListOffsetsResponse: |a| a.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code);
    ListPartitionReassignmentsResponse: |a| once(a.error_code);
    MetadataResponse: |a| once(a.error_code).chain(
        a.topics.iter().flat_map(|topic| once(topic.error_code).chain(topic.partitions.iter().map(|partition| partition.error_code))),
    );
    OffsetCommitResponse: |a| a.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code);
    OffsetDeleteResponse: |a| once(a.error_code)
        .chain(a.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code));
    OffsetFetchResponse: |a| once(a.error_code)
        .chain(a.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code))
        .chain(a.groups.iter().flat_map(|group| once(group.error_code)
            .chain(group.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code))));
    OffsetForLeaderEpochResponse: |a| a.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code);
    ProduceResponse: |a| a.responses.iter().flat_map(|topic| &topic.partition_responses).map(|partition| partition.error_code);
    SyncGroupResponse: |a| once(a.error_code);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};

    use super::*;
    use crate::telemetry::{
        Metrics,
        metrics::{ApiRow, Figures},
    };

    #[test]
    fn errors_at_every_depth_are_counted_under_kafkas_names() {
        let metrics = Metrics::new(&[ApiRow { key: 3, name: "Metadata".to_owned(), last_version: 13 }], 0);
        let partition = MetadataResponsePartition::default().with_error_code(5);
        let topic = MetadataResponseTopic::default().with_error_code(3).with_partitions(vec![partition]);
        let answer = MetadataResponse::default().with_topics(vec![topic, MetadataResponseTopic::default()]);
        answer.count_errors(metrics.request(3).expect("in the table"));
        let shown = metrics.shown(Figures::default());
        for name in ["UNKNOWN_TOPIC_OR_PARTITION", "LEADER_NOT_AVAILABLE"] {
            let line = format!("weir_request_errors_total{{api=\"Metadata\",error=\"{name}\"}} 1\n");
            assert!(shown.contains(&line), "{line} in {shown}");
        }
        assert!(!shown.contains("NONE"), "{shown}");
    }
}
