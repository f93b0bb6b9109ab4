//! Topics that one broker has made or deleted, asked for at another.

use kafka_protocol::{
    ResponseError,
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, AlterPartitionReassignmentsRequest,
        AlterPartitionReassignmentsResponse, ApiKey, CreatePartitionsRequest, CreatePartitionsResponse,
        CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, DescribeConfigsRequest,
        DescribeConfigsResponse, DescribeProducersRequest, DescribeProducersResponse, DescribeTopicPartitionsRequest,
        DescribeTopicPartitionsResponse, ElectLeadersRequest, ElectLeadersResponse, FetchResponse, GroupId,
        IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, ListOffsetsRequest, ListOffsetsResponse,
        MetadataRequest, MetadataResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
        OffsetFetchResponse, ProduceResponse, TopicName,
        alter_configs_request::AlterConfigsResource,
        alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
        create_partitions_request::CreatePartitionsTopic,
        create_topics_request::CreatableTopic,
        describe_configs_request::DescribeConfigsResource,
        describe_producers_request::TopicRequest as ProducersOf,
        describe_topic_partitions_request::TopicRequest,
        elect_leaders_request::TopicPartitions,
        incremental_alter_configs_request::AlterConfigsResource as IncrementalResource,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
    },
};
use uuid::Uuid;

use crate::{
    brokers::Cluster,
    client::{batch, fetch_request, produce_request, text},
    link::Link,
    support::{Connection, offsets_by_id},
};

const TOPIC: i8 = 2;

/// A broker's error code for the first request that it hears of a topic in.
type FirstAsked = fn(&mut Connection, &TopicName, Uuid) -> i16;

const REQUESTS: [(&str, FirstAsked); 15] = [
    ("Metadata", |broker, name, _| {
        let topics = vec![MetadataRequestTopic::default().with_name(Some(name.clone()))];
        let request = MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(false);
        let answer: MetadataResponse = broker.call(ApiKey::Metadata as i16, 12, &request);
        answer.topics[0].error_code
    }),
    ("Produce", |broker, name, _| {
        let mut request = produce_request(0, batch(-1, 0, 1));
        request.topic_data[0].name = name.clone();
        let answer: ProduceResponse = broker.call(ApiKey::Produce as i16, 9, &request);
        answer.responses[0].partition_responses[0].error_code
    }),
    ("Fetch", |broker, name, _| {
        let mut request = fetch_request(0, 0, -1);
        request.topics[0].topic = name.clone();
        let answer: FetchResponse = broker.call(ApiKey::Fetch as i16, 12, &request);
        answer.responses[0].partitions[0].error_code
    }),
    ("ListOffsets", |broker, name, _| {
        let partition = ListOffsetsPartition::default().with_timestamp(-1);
        let asked = ListOffsetsTopic::default().with_name(name.clone()).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
        let answer: ListOffsetsResponse = broker.call(ApiKey::ListOffsets as i16, 7, &request);
        answer.topics[0].partitions[0].error_code
    }),
    ("DescribeTopicPartitions", |broker, name, _| {
        let topics = vec![TopicRequest::default().with_name(name.clone())];
        let request = DescribeTopicPartitionsRequest::default().with_topics(topics);
        let answer: DescribeTopicPartitionsResponse = broker.call(ApiKey::DescribeTopicPartitions as i16, 0, &request);
        answer.topics[0].error_code
    }),
    ("DescribeConfigs", |broker, name, _| {
        let resource = DescribeConfigsResource::default().with_resource_type(TOPIC).with_resource_name(name.0.clone());
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let answer: DescribeConfigsResponse = broker.call(ApiKey::DescribeConfigs as i16, 4, &request);
        answer.results[0].error_code
    }),
    ("AlterConfigs", |broker, name, _| {
        let resource = AlterConfigsResource::default().with_resource_type(TOPIC).with_resource_name(name.0.clone());
        let request = AlterConfigsRequest::default().with_resources(vec![resource]);
        let answer: AlterConfigsResponse = broker.call(ApiKey::AlterConfigs as i16, 2, &request);
        answer.responses[0].error_code
    }),
    ("IncrementalAlterConfigs", |broker, name, _| {
        let resource = IncrementalResource::default().with_resource_type(TOPIC).with_resource_name(name.0.clone());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer: IncrementalAlterConfigsResponse = broker.call(ApiKey::IncrementalAlterConfigs as i16, 1, &request);
        answer.responses[0].error_code
    }),
    ("CreatePartitions", |broker, name, _| {
        let topic = CreatePartitionsTopic::default().with_name(name.clone()).with_count(2).with_assignments(None);
        let request = CreatePartitionsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic]);
        let answer: CreatePartitionsResponse = broker.call(ApiKey::CreatePartitions as i16, 3, &request);
        answer.results[0].error_code
    }),
    ("DescribeProducers", |broker, name, _| {
        let topic = ProducersOf::default().with_name(name.clone()).with_partition_indexes(vec![0]);
        let request = DescribeProducersRequest::default().with_topics(vec![topic]);
        let answer: DescribeProducersResponse = broker.call(ApiKey::DescribeProducers as i16, 0, &request);
        answer.topics[0].partitions[0].error_code
    }),
    ("ElectLeaders", |broker, name, _| {
        let topic = TopicPartitions::default().with_topic(name.clone()).with_partitions(vec![0]);
        let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic]));
        let answer: ElectLeadersResponse = broker.call(ApiKey::ElectLeaders as i16, 2, &request);
        answer.replica_election_results[0].partition_result[0].error_code
    }),
    ("AlterPartitionReassignments", |broker, name, _| {
        let partition = ReassignablePartition::default().with_replicas(Some(vec![1.into()]));
        let topic = ReassignableTopic::default().with_name(name.clone()).with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
        let answer: AlterPartitionReassignmentsResponse =
            broker.call(ApiKey::AlterPartitionReassignments as i16, 0, &request);
        answer.responses[0].partitions[0].error_code
    }),
    ("OffsetDelete", |broker, name, _| {
        let partitions = vec![OffsetDeleteRequestPartition::default()];
        let topic = OffsetDeleteRequestTopic::default().with_name(name.clone()).with_partitions(partitions);
        let request = OffsetDeleteRequest::default().with_group_id(GroupId(name.0.clone())).with_topics(vec![topic]);
        let answer: OffsetDeleteResponse = broker.call(ApiKey::OffsetDelete as i16, 0, &request);
        answer.topics.first().map_or(answer.error_code, |topic| topic.partitions[0].error_code)
    }),
    ("OffsetFetch", |broker, name, id| {
        let topic = OffsetFetchRequestTopics::default().with_topic_id(id).with_partition_indexes(vec![0]);
        let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(name.0.clone()));
        let request = OffsetFetchRequest::default().with_groups(vec![group.with_topics(Some(vec![topic]))]);
        let answer: OffsetFetchResponse = broker.call(ApiKey::OffsetFetch as i16, 10, &offsets_by_id::Fetch(request));
        let group = &answer.groups[0];
        group.topics.first().map_or(group.error_code, |topic| topic.partitions[0].error_code)
    }),
    ("DeleteTopics", |broker, name, _| delete(broker, name)),
];

/// The topic's id.
fn create(broker: &mut Connection, name: &TopicName) -> Result<Uuid, ResponseError> {
    let topic = CreatableTopic::default().with_name(name.clone()).with_num_partitions(1).with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic]);
    let answer: CreateTopicsResponse = broker.call(ApiKey::CreateTopics as i16, 7, &request);
    ResponseError::try_from_code(answer.topics[0].error_code).map_or(Ok(answer.topics[0].topic_id), Err)
}

fn delete(broker: &mut Connection, name: &TopicName) -> i16 {
    let request = DeleteTopicsRequest::default().with_timeout_ms(10_000).with_topic_names(vec![name.clone()]);
    let answer: DeleteTopicsResponse = broker.call(ApiKey::DeleteTopics as i16, 5, &request);
    answer.responses[0].error_code
}

/// Two brokers, of which the second hears nothing of what the first does.
fn one_and_deaf_other() -> (Cluster, Link) {
    let mut cluster = Cluster::start(1);
    let link = cluster.join_by_link(2);
    cluster.until_known_by_all();
    link.hold_news();
    (cluster, link)
}

#[test]
fn a_topic_that_one_broker_has_made_is_known_to_the_other_at_once() {
    use ResponseError::{ElectionNotNeeded, GroupIdNotFound, NotCoordinator, NotLeaderOrFollower};
    let (cluster, _link) = one_and_deaf_other();
    let (mut one, mut two) = (cluster.brokers[0].connect(), cluster.brokers[1].connect());
    // Some of their partitions and groups are the second broker's.
    for round in 0..8 {
        for (api, first_asked) in REQUESTS {
            let name = TopicName(text(&format!("t-{api}-{round}")));
            let id = create(&mut one, &name).expect("created");
            let told = ResponseError::try_from_code(first_asked(&mut two, &name, id));
            let fine = [ElectionNotNeeded, GroupIdNotFound, NotCoordinator, NotLeaderOrFollower];
            assert!(told.is_none_or(|error| fine.contains(&error)), "{api}, round {round}: {told:?}");
        }
    }
}

#[test]
fn a_topic_that_one_broker_has_deleted_may_be_made_anew_by_the_other_at_once() {
    let (cluster, _link) = one_and_deaf_other();
    let (mut one, mut two) = (cluster.brokers[0].connect(), cluster.brokers[1].connect());
    let name = TopicName(text("again"));
    for round in 0..10 {
        create(&mut two, &name).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(delete(&mut one, &name), 0, "round {round}");
    }
}
