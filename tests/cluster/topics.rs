//! Topics that one broker has made, asked for at another.

use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse, DescribeTopicPartitionsRequest,
        DescribeTopicPartitionsResponse, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
        MetadataResponse, ProduceResponse, TopicName,
        create_topics_request::CreatableTopic,
        describe_topic_partitions_request::TopicRequest,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
    },
};

use crate::{
    brokers::Cluster,
    client::{batch, fetch_request, produce_request, text},
    support::Connection,
};

/// What a broker answers to the first request that it hears of a topic in.
fn first_asked(broker: &mut Connection, round: usize, name: &TopicName) -> i16 {
    match round % 5 {
        0 => {
            let topics = vec![MetadataRequestTopic::default().with_name(Some(name.clone()))];
            let request = MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(false);
            let answer: MetadataResponse = broker.call(ApiKey::Metadata as i16, 12, &request);
            answer.topics[0].error_code
        }
        1 => {
            let mut request = produce_request(0, batch(-1, 0, 1));
            request.topic_data[0].name = name.clone();
            let answer: ProduceResponse = broker.call(ApiKey::Produce as i16, 9, &request);
            answer.responses[0].partition_responses[0].error_code
        }
        2 => {
            let mut request = fetch_request(0, 0, -1);
            request.topics[0].topic = name.clone();
            let answer: FetchResponse = broker.call(ApiKey::Fetch as i16, 12, &request);
            answer.responses[0].partitions[0].error_code
        }
        3 => {
            let partition = ListOffsetsPartition::default().with_timestamp(-1);
            let asked = ListOffsetsTopic::default().with_name(name.clone()).with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
            let answer: ListOffsetsResponse = broker.call(ApiKey::ListOffsets as i16, 7, &request);
            answer.topics[0].partitions[0].error_code
        }
        _ => {
            let topics = vec![TopicRequest::default().with_name(name.clone())];
            let request = DescribeTopicPartitionsRequest::default().with_topics(topics);
            let answer: DescribeTopicPartitionsResponse =
                broker.call(ApiKey::DescribeTopicPartitions as i16, 0, &request);
            answer.topics[0].error_code
        }
    }
}

#[test]
fn a_topic_that_one_broker_has_made_is_known_to_the_other_at_once() {
    let cluster = Cluster::start(2);
    let (mut one, mut two) = (cluster.brokers[0].connect(), cluster.brokers[1].connect());
    for round in 0..200 {
        let name = TopicName(text(&format!("t-{round}")));
        let topic = CreatableTopic::default().with_name(name.clone()).with_num_partitions(1).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic]);
        let answer: CreateTopicsResponse = one.call(ApiKey::CreateTopics as i16, 7, &request);
        assert_eq!(answer.topics[0].error_code, 0);
        let told = ResponseError::try_from_code(first_asked(&mut two, round, &name));
        assert!(matches!(told, None | Some(ResponseError::NotLeaderOrFollower)), "round {round}: {told:?}");
    }
}
