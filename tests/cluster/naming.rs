//! What brokers tell of each other.

use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, DescribeClusterRequest, DescribeClusterResponse, FetchResponse, OffsetForLeaderEpochRequest,
        OffsetForLeaderEpochResponse, ProduceResponse,
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    },
};

use crate::{
    brokers::Cluster,
    client::{
        batch, create_topic, end_of_log, fetch_request, find_coordinator, leaders, metadata, produce_request, topic,
    },
    support::process::eventually,
};

const NOT_LEADER: i16 = ResponseError::NotLeaderOrFollower.code();

#[test]
fn every_broker_names_the_same_leaders_and_coordinators() {
    let cluster = Cluster::start(3);
    create_topic(&mut cluster.brokers[0].connect(), 30);
    let led = leaders(&mut cluster.brokers[0].connect());
    for node in 1..=3 {
        assert!(led.iter().any(|(leader, _)| *leader == node), "{led:?}");
    }
    for broker in &cluster.brokers {
        let mut connection = broker.connect();
        assert!(eventually(|| metadata(&mut connection, &["ledger"]).topics[0].error_code == 0));
        assert_eq!(leaders(&mut connection), led);
        let described: DescribeClusterResponse =
            connection.call(ApiKey::DescribeCluster as i16, 1, &DescribeClusterRequest::default());
        let mut named: Vec<_> =
            described.brokers.iter().map(|named| format!("{}:{}", named.host, named.port)).collect();
        named.sort();
        let mut expected: Vec<_> = cluster.addresses().iter().map(ToString::to_string).collect();
        expected.sort();
        assert_eq!(named, expected);
    }
    let mut coordinators = Vec::new();
    for group in 0..20 {
        let group = format!("group-{group}");
        let mut told = cluster.addresses().into_iter().map(|address| find_coordinator(address, &group).expect("told"));
        let first = told.next().expect("three brokers");
        assert!(told.all(|other| other == first));
        coordinators.push(first.0);
    }
    coordinators.sort_unstable();
    coordinators.dedup();
    assert_eq!(coordinators, [1, 2, 3]);
}

#[test]
fn clients_are_told_the_addresses_of_the_listener_that_they_came_in_on() {
    let mut cluster = Cluster::start(0);
    let listen = ["--listen", "OUTSIDE://127.0.0.1:0", "--advertise"];
    cluster.join_with(1, "INSIDE://127.0.0.1:0", &[&listen[..], &["OUTSIDE://one.example:19092"]].concat());
    cluster.join_with(2, "INSIDE://127.0.0.1:0", &[&listen[..], &["OUTSIDE://two.example:29092"]].concat());
    cluster.until_known_by_all();
    let told = metadata(&mut cluster.brokers[0].connect(), &[]);
    let mut inside: Vec<_> = told.brokers.iter().map(|broker| (broker.node_id.0, broker.port)).collect();
    inside.sort_unstable();
    let ports = |place: usize| i32::from(cluster.brokers[place].address.port());
    assert_eq!(inside, [(1, ports(0)), (2, ports(1))]);
    let mut redis = cluster.redis.connection();
    let known: Vec<String> = redis::cmd("HMGET")
        .arg("{korvet:catalog}:broker:2")
        .arg(&["endpoint.INSIDE", "endpoint.OUTSIDE"])
        .query(&mut redis)
        .expect("it is registered");
    assert_eq!(known, [cluster.brokers[1].address.to_string(), "two.example:29092".to_owned()]);
}

#[test]
fn who_asks_another_than_the_leader_is_told_where_the_leader_is() {
    let cluster = Cluster::start(2);
    create_topic(&mut cluster.brokers[0].connect(), 40);
    let led = leaders(&mut cluster.brokers[0].connect());
    let (partition, (leader, epoch)) =
        led.iter().enumerate().find(|(_, (node, _))| *node == 2).map(|(at, led)| (at as i32, *led)).expect("one of 40");
    let mut other = cluster.brokers[0].connect();
    let port = i32::from(cluster.brokers[1].address.port());

    let answer: ProduceResponse = other.call(ApiKey::Produce as i16, 10, &produce_request(partition, batch(-1, 0, 1)));
    let refused = &answer.responses[0].partition_responses[0];
    assert_eq!(refused.error_code, NOT_LEADER);
    assert_eq!((refused.current_leader.leader_id.0, refused.current_leader.leader_epoch), (leader, epoch));
    assert_eq!(answer.node_endpoints.iter().map(|end| (end.node_id.0, end.port)).collect::<Vec<_>>(), [(2, port)]);

    let mut request = fetch_request(partition, 0, -1);
    request.topics[0].topic_id = metadata(&mut other, &["ledger"]).topics[0].topic_id;
    request.topics[0].topic = Default::default();
    request.replica_id = (-1).into();
    let answer: FetchResponse = other.call(ApiKey::Fetch as i16, 16, &request);
    let refused = &answer.responses[0].partitions[0];
    assert_eq!(refused.error_code, NOT_LEADER);
    assert_eq!((refused.current_leader.leader_id.0, refused.current_leader.leader_epoch), (leader, epoch));
    assert_eq!(answer.node_endpoints.iter().map(|end| (end.node_id.0, end.port)).collect::<Vec<_>>(), [(2, port)]);

    assert_eq!(end_of_log(&mut other, partition), Err(NOT_LEADER));
    let asked = OffsetForLeaderPartition::default().with_partition(partition).with_leader_epoch(0);
    let asked = OffsetForLeaderTopic::default().with_topic(topic()).with_partitions(vec![asked]);
    let request = OffsetForLeaderEpochRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
    let answer: OffsetForLeaderEpochResponse = other.call(ApiKey::OffsetForLeaderEpoch as i16, 4, &request);
    assert_eq!(answer.topics[0].partitions[0].error_code, NOT_LEADER);
}

/// When Redis is away for a moment it is so for all brokers: where each names all but itself, librdkafka, which asks one after another,
/// forgets them all in turn.
#[test]
fn a_broker_that_is_cut_off_for_a_moment_names_itself_but_leads_nothing() {
    let mut cluster = Cluster::start(0);
    let link = cluster.join_by_link(1);
    cluster.join(2);
    cluster.until_known_by_all();
    create_topic(&mut cluster.brokers[0].connect(), 30);
    let mut connection = cluster.broker(1).connect();
    assert!(leaders(&mut connection).iter().any(|(leader, _)| *leader == 1));
    link.hold();
    let leads_nothing = || leaders(&mut connection).iter().all(|(leader, _)| *leader != 1);
    assert!(eventually(leads_nothing));
    let named = metadata(&mut connection, &[]).brokers;
    assert_eq!(named.iter().map(|broker| broker.node_id.0).collect::<Vec<_>>(), [1, 2]);
    link.let_go();
}

/// librdkafka forgets each broker that an answer does not name, and after one that names nobody it never asks again.
#[test]
fn a_broker_that_leaves_last_still_names_somebody() {
    let mut cluster = Cluster::start(0);
    let rarely = ["broker.session.timeout.ms=60000", "broker.heartbeat.interval.ms=30000"];
    for node in [1, 2] {
        cluster.join_with(node, "127.0.0.1:0", &["--override", rarely[0], "--override", rarely[1]]);
    }
    cluster.until_known_by_all();
    let mut connection = cluster.brokers[0].connect();
    // The other is gone before this one has heard of it, so it hands over to nobody.
    let mut redis = cluster.redis.connection();
    let _: i64 =
        redis::cmd("HDEL").arg("{korvet:catalog}:brokers").arg("live:2").query(&mut redis).expect("it was there");
    cluster.brokers[0].terminate();
    let is_left = || redis::cmd("HEXISTS").arg("{korvet:catalog}:brokers").arg("live:1").query(&mut redis) == Ok(false);
    assert!(eventually(is_left));
    let mut named = || metadata(&mut connection, &[]).brokers.iter().map(|broker| broker.node_id.0).collect::<Vec<_>>();
    // Redis' answer is on its way.
    assert!(eventually(|| named() != [1, 2]));
    for _ in 0..20 {
        assert_eq!(named(), [1]);
    }
}
