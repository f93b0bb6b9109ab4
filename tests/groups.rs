//! Groups over the wire, on a real Weir and its Redis: every version of every group API, a broker's death, Redis' own view.

mod support;

use std::{collections::BTreeSet, time::Instant};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        ApiKey, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
        HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
        LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, MetadataRequest, MetadataResponse,
        OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
        OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse, TopicName,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        metadata_request::MetadataRequestTopic,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};
use support::{Connection, PATIENCE, Weir, offsets_by_id};
use uuid::Uuid;

const FAST: &[&str] =
    &["--override", "group.initial.rebalance.delay.ms=0", "--override", "group.min.session.timeout.ms=100"];

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// Makes the topic, as Metadata does for a name that is not there, and returns its id.
fn make_topic(broker: &mut Connection, name: &str) -> Uuid {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(true);
        let answer: MetadataResponse = broker.call(ApiKey::Metadata as i16, 12, &request);
        let topic = answer.topics.first().expect("the topic that was asked for");
        if topic.error_code == 0 {
            return topic.topic_id;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
    }
}

fn join(broker: &mut Connection, version: i16, id: &str, member: &str) -> JoinGroupResponse {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"\0\0\0\0\0\0\xff\xff\xff\xff"));
    let request = JoinGroupRequest::default()
        .with_group_id(group(id))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(if version >= 1 { 30_000 } else { -1 })
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    broker.call(ApiKey::JoinGroup as i16, version, &request)
}

fn sync(broker: &mut Connection, version: i16, id: &str, joined: &JoinGroupResponse) -> SyncGroupResponse {
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(Bytes::from_static(b"assigned"));
    let named = |name: &str| (version >= 5).then(|| text(name));
    let request = SyncGroupRequest::default()
        .with_group_id(group(id))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_protocol_type(named("consumer"))
        .with_protocol_name(named("range"))
        .with_assignments(vec![assignment]);
    broker.call(ApiKey::SyncGroup as i16, version, &request)
}

/// The group's one member, stable.
fn member(broker: &mut Connection, id: &str) -> JoinGroupResponse {
    let given = join(broker, 5, id, "");
    assert_eq!(given.error_code, 79, "MEMBER_ID_REQUIRED");
    let joined = join(broker, 5, id, &given.member_id);
    assert_eq!(joined.error_code, 0, "{joined:?}");
    assert_eq!(sync(broker, 3, id, &joined).error_code, 0);
    joined
}

fn heartbeat(broker: &mut Connection, version: i16, id: &str, joined: &JoinGroupResponse) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(group(id))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone());
    broker.call::<_, HeartbeatResponse>(ApiKey::Heartbeat as i16, version, &request).error_code
}

fn commit(
    broker: &mut Connection,
    version: i16,
    id: &str,
    as_member: Option<&JoinGroupResponse>,
    topic: (&str, Uuid),
    offset: i64,
) -> i16 {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(if version >= 6 { 4 } else { -1 })
        .with_committed_metadata(Some(text("what I did")));
    let named = OffsetCommitRequestTopic::default().with_partitions(vec![partition]);
    let named = if version >= 10 { named.with_topic_id(topic.1) } else { named.with_name(topic_name(topic.0)) };
    let request = OffsetCommitRequest::default()
        .with_group_id(group(id))
        .with_generation_id_or_member_epoch(as_member.map_or(-1, |member| member.generation_id))
        .with_member_id(as_member.map_or_else(StrBytes::default, |member| member.member_id.clone()))
        .with_topics(vec![named]);
    let answer: OffsetCommitResponse = match version {
        10 => broker.call(ApiKey::OffsetCommit as i16, version, &offsets_by_id::Commit(request.clone())),
        version => broker.call(ApiKey::OffsetCommit as i16, version, &request),
    };
    assert_eq!(
        (&answer.topics[0].name, answer.topics[0].topic_id),
        (&request.topics[0].name, request.topics[0].topic_id)
    );
    answer.topics[0].partitions[0].error_code
}

/// The committed offset of the topic's partition 0, its leader epoch and its metadata.
fn fetch(broker: &mut Connection, version: i16, id: &str, topic: (&str, Uuid)) -> (i64, i32, String) {
    let request = OffsetFetchRequest::default();
    let request = if version >= 8 {
        let named = OffsetFetchRequestTopics::default().with_partition_indexes(vec![0]);
        let named = if version >= 10 { named.with_topic_id(topic.1) } else { named.with_name(topic_name(topic.0)) };
        let asked = OffsetFetchRequestGroup::default().with_group_id(group(id)).with_topics(Some(vec![named]));
        request.with_groups(vec![asked])
    } else {
        let named = OffsetFetchRequestTopic::default().with_name(topic_name(topic.0)).with_partition_indexes(vec![0]);
        request.with_group_id(group(id)).with_topics(Some(vec![named]))
    };
    let request = request.with_require_stable(version >= 7);
    let answer: OffsetFetchResponse = match version {
        10 => broker.call(ApiKey::OffsetFetch as i16, version, &offsets_by_id::Fetch(request)),
        version => broker.call(ApiKey::OffsetFetch as i16, version, &request),
    };
    if version >= 8 {
        let partition = &answer.groups[0].topics[0].partitions[0];
        assert_eq!((answer.groups[0].error_code, partition.error_code), (0, 0));
        (
            partition.committed_offset,
            partition.committed_leader_epoch,
            partition.metadata.clone().expect("not null").to_string(),
        )
    } else {
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((answer.error_code, partition.error_code), (0, 0));
        (
            partition.committed_offset,
            partition.committed_leader_epoch,
            partition.metadata.clone().expect("not null").to_string(),
        )
    }
}

fn leave(broker: &mut Connection, version: i16, id: &str, joined: &JoinGroupResponse) -> i16 {
    let request = LeaveGroupRequest::default().with_group_id(group(id));
    let request = if version <= 2 {
        request.with_member_id(joined.member_id.clone())
    } else {
        request.with_members(vec![MemberIdentity::default().with_member_id(joined.member_id.clone())])
    };
    let answer: LeaveGroupResponse = broker.call(ApiKey::LeaveGroup as i16, version, &request);
    answer.members.first().map_or(answer.error_code, |member| member.error_code)
}

#[test]
fn every_version_of_every_group_api_tells_one_story() {
    let weir = Weir::start(FAST);
    let mut broker = weir.connect();
    let topic = ("orders", make_topic(&mut broker, "orders"));
    for version in 0..=9 {
        let id = format!("story-{version}");
        let first = join(&mut broker, version, &id, "");
        let joined = match first.error_code {
            79 if version >= 4 => join(&mut broker, version, &id, &first.member_id),
            _ => first,
        };
        assert_eq!((joined.error_code, joined.generation_id, joined.members.len()), (0, 1, 1), "{joined:?}");
        assert_eq!(joined.leader, joined.member_id);
        assert_eq!(joined.protocol_name.as_deref(), Some("range"));
        assert_eq!(joined.protocol_type.as_deref(), (version >= 7).then_some("consumer"));
        let synced = sync(&mut broker, version.min(5), &id, &joined);
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"assigned"[..]));
        assert_eq!(heartbeat(&mut broker, version.min(4), &id, &joined), 0);

        for by in 2..=10 {
            let offset = i64::from(by) * 10;
            assert_eq!(commit(&mut broker, by, &id, Some(&joined), topic, offset), 0);
            for via in 1..=10 {
                let epoch = if by >= 6 && via >= 5 { 4 } else { -1 };
                let found = fetch(&mut broker, via, &id, topic);
                assert_eq!(found, (offset, epoch, "what I did".to_owned()), "commit v{by}, fetch v{via}");
            }
        }

        for via in 0..=6 {
            let request = DescribeGroupsRequest::default()
                .with_groups(vec![group(&id), group("no such group")])
                .with_include_authorized_operations(via >= 3);
            let answer: DescribeGroupsResponse = broker.call(ApiKey::DescribeGroups as i16, via, &request);
            let [own, none] = &answer.groups[..] else { panic!("{answer:?}") };
            assert_eq!((&*own.group_state, &*own.protocol_type, &*own.protocol_data), ("Stable", "consumer", "range"));
            assert_eq!((&*own.members[0].client_id, &*own.members[0].client_host), ("test", "/127.0.0.1"));
            assert_eq!(own.authorized_operations, if via >= 3 { 3_400 } else { i32::MIN });
            assert_eq!((&*none.group_state, none.error_code), ("Dead", if via >= 6 { 69 } else { 0 }));
        }
        for via in 0..=5 {
            let request = ListGroupsRequest::default()
                .with_states_filter(if via >= 4 { vec![text("sTaBle")] } else { Vec::new() })
                .with_types_filter(if via >= 5 { vec![text("Classic")] } else { Vec::new() });
            let answer: ListGroupsResponse = broker.call(ApiKey::ListGroups as i16, via, &request);
            let own = answer.groups.iter().find(|listed| *listed.group_id == *id).expect("the group is listed");
            assert_eq!(&*own.protocol_type, "consumer");
            assert_eq!(&*own.group_state, if via >= 4 { "Stable" } else { "" });
            assert_eq!(&*own.group_type, if via >= 5 { "classic" } else { "" });
        }

        assert_eq!(leave(&mut broker, version.min(5), &id, &joined), 0);
        assert_eq!(leave(&mut broker, version.min(5), &id, &joined), 25, "UNKNOWN_MEMBER_ID");
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
        let named =
            OffsetDeleteRequestTopic::default().with_name(topic_name("orders")).with_partitions(vec![partition]);
        let request = OffsetDeleteRequest::default().with_group_id(group(&id)).with_topics(vec![named]);
        let deleted: OffsetDeleteResponse = broker.call(ApiKey::OffsetDelete as i16, 0, &request);
        assert_eq!((deleted.error_code, deleted.topics[0].partitions[0].error_code), (0, 0));
        assert_eq!(fetch(&mut broker, 9, &id, topic), (-1, -1, String::new()));
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group(&id), group(&id), group("none")]);
        let deleted: DeleteGroupsResponse = broker.call(ApiKey::DeleteGroups as i16, version.min(2), &request);
        assert_eq!(deleted.results.iter().map(|result| result.error_code).collect::<Vec<_>>(), [0, 69]);
    }
}

#[test]
fn members_go_on_with_their_next_heartbeat_after_kill_9() {
    let mut weir = Weir::start(FAST);
    let mut broker = weir.connect();
    let topic = ("orders", make_topic(&mut broker, "orders"));
    let joined = member(&mut broker, "g");
    assert_eq!(commit(&mut broker, 9, "g", Some(&joined), topic, 42), 0);
    assert_eq!(commit(&mut broker, 9, "", None, topic, 7), 0, "the empty group id is one like any other");
    weir.kill();
    weir.restart();
    let mut broker = weir.connect();
    let deadline = Instant::now() + PATIENCE;
    while heartbeat(&mut broker, 4, "g", &joined) != 0 {
        assert!(Instant::now() < deadline);
    }
    let mut code = commit(&mut broker, 9, "g", Some(&joined), topic, 43);
    while code == 14 {
        assert!(Instant::now() < deadline, "still loading");
        code = commit(&mut broker, 9, "g", Some(&joined), topic, 43);
    }
    assert_eq!(code, 0);
    assert_eq!(fetch(&mut broker, 9, "g", topic).0, 43);
    assert_eq!(fetch(&mut broker, 9, "", topic).0, 7);
    assert_eq!(heartbeat(&mut broker, 4, "g", &joined), 0, "without a rebalance");
}

#[test]
fn unknown_topics_are_refused_one_by_one() {
    let weir = Weir::start(FAST);
    let mut broker = weir.connect();
    let topic = ("orders", make_topic(&mut broker, "orders"));
    assert_eq!(commit(&mut broker, 9, "g", None, ("no-such-topic", Uuid::nil()), 1), 3, "UNKNOWN_TOPIC_OR_PARTITION");
    assert_eq!(commit(&mut broker, 10, "g", None, ("", Uuid::from_u128(5)), 1), 100, "UNKNOWN_TOPIC_ID");
    let lists = |broker: &mut Connection| {
        broker.call::<_, ListGroupsResponse>(ApiKey::ListGroups as i16, 4, &ListGroupsRequest::default()).groups.len()
    };
    assert_eq!(lists(&mut broker), 0, "nothing was committed, so there is no group");
    assert_eq!(commit(&mut broker, 9, "g", None, topic, 1), 0);
    assert_eq!(lists(&mut broker), 1);

    let unknown = OffsetFetchRequestTopics::default().with_topic_id(Uuid::from_u128(5)).with_partition_indexes(vec![0]);
    let asked = OffsetFetchRequestGroup::default().with_group_id(group("g")).with_topics(Some(vec![unknown]));
    let all = OffsetFetchRequestGroup::default().with_group_id(group("g")).with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![asked, all]);
    let answer: OffsetFetchResponse = broker.call(ApiKey::OffsetFetch as i16, 10, &offsets_by_id::Fetch(request));
    assert_eq!(answer.groups[0].topics[0].partitions[0].error_code, 100);
    assert_eq!(answer.groups[1].topics[0].topic_id, topic.1);
    assert_eq!(answer.groups[1].topics[0].partitions[0].committed_offset, 1);
}

#[test]
fn a_hundred_groups_commit_at_once() {
    let weir = Weir::start(FAST);
    let mut broker = weir.connect();
    let topic = ("orders", make_topic(&mut broker, "orders"));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let mut broker = weir.connect();
            std::thread::spawn(move || {
                for round in 0..25 {
                    let id = format!("g-{thread}-{round}");
                    for offset in 0..10 {
                        assert_eq!(commit(&mut broker, 9, &id, None, topic, offset), 0);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("every commit is taken");
    }
    let answer: ListGroupsResponse = broker.call(ApiKey::ListGroups as i16, 5, &ListGroupsRequest::default());
    let ids: BTreeSet<String> = answer.groups.iter().map(|listed| listed.group_id.to_string()).collect();
    assert_eq!(ids.len(), 100);
    assert!(ids.iter().all(|id| fetch(&mut broker, 9, id, topic).0 == 9));
}
