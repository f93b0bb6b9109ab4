//! Groups whose coordinator dies, sleeps or moves: members go on, and nobody hands out what another has.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, OffsetCommitRequest,
        OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse,
        join_group_request::JoinGroupRequestProtocol,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
};

use crate::{
    brokers::Cluster,
    client::{create_topic, find_coordinator, text, topic, try_call},
    support::{Connection, process::eventually},
};

/// A consumer group's one member, which finds its coordinator as clients do.
struct Member {
    addresses: Vec<SocketAddr>,
    group: String,
    id: StrBytes,
    generation: i32,
}

impl Member {
    /// Joins the group as its only member.
    fn join(addresses: Vec<SocketAddr>, group: &str) -> Self {
        let mut member = Self { addresses, group: group.to_owned(), id: StrBytes::default(), generation: -1 };
        member.rejoin();
        member
    }

    fn group_id(&self) -> GroupId {
        GroupId(text(&self.group))
    }

    fn rejoin(&mut self) {
        let request = self.join_request(&self.id);
        let joined: JoinGroupResponse =
            self.call(ApiKey::JoinGroup, 3, &request, |joined: &JoinGroupResponse| joined.error_code);
        assert_eq!(joined.error_code, 0, "{joined:?}");
        (self.id, self.generation) = (joined.member_id, joined.generation_id);
        let request = self.sync_request();
        let synced: SyncGroupResponse =
            self.call(ApiKey::SyncGroup, 3, &request, |synced: &SyncGroupResponse| synced.error_code);
        assert_eq!((synced.error_code, synced.assignment), (0, self.assignment()));
    }

    /// Of this member, or of a new one.
    fn join_request(&self, member: &StrBytes) -> JoinGroupRequest {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(b"\0\0\0\0\0\0\xff\xff\xff\xff"));
        JoinGroupRequest::default()
            .with_group_id(self.group_id())
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(30_000)
            .with_member_id(member.clone())
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol])
    }

    /// As the leader, which assigns what the generation is known by.
    fn sync_request(&self) -> SyncGroupRequest {
        let assignment =
            SyncGroupRequestAssignment::default().with_member_id(self.id.clone()).with_assignment(self.assignment());
        SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_assignments(vec![assignment])
    }

    fn assignment(&self) -> Bytes {
        Bytes::from(format!("assigned in generation {}", self.generation))
    }

    fn heartbeat(&self) -> i16 {
        let beat = self.beat();
        self.call(ApiKey::Heartbeat, 3, &beat, |beaten: &HeartbeatResponse| beaten.error_code).error_code
    }

    fn beat(&self) -> HeartbeatRequest {
        HeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
    }

    fn commit(&self, offset: i64) -> i16 {
        let request = self.commit_request(offset);
        let code = |answer: &OffsetCommitResponse| answer.topics[0].partitions[0].error_code;
        code(&self.call(ApiKey::OffsetCommit, 7, &request, code))
    }

    fn commit_request(&self, offset: i64) -> OffsetCommitRequest {
        let partition = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition]);
        OffsetCommitRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_topics(vec![topic])
    }

    fn committed(&self) -> i64 {
        let request = self.fetch_request();
        let answer =
            self.call(ApiKey::OffsetFetch, 8, &request, |answer: &OffsetFetchResponse| answer.groups[0].error_code);
        answer.groups[0].topics[0].partitions[0].committed_offset
    }

    fn fetch_request(&self) -> OffsetFetchRequest {
        let topic = OffsetFetchRequestTopics::default().with_name(topic()).with_partition_indexes(vec![0]);
        let group = OffsetFetchRequestGroup::default().with_group_id(self.group_id()).with_topics(Some(vec![topic]));
        OffsetFetchRequest::default().with_groups(vec![group])
    }

    /// Asks the coordinator, and looks for it again when it is another, does not answer, or is not ready.
    fn call<Q, A>(&self, api: ApiKey, version: i16, request: &Q, code: impl Fn(&A) -> i16) -> A
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        const AGAIN: [ResponseError; 3] = [
            ResponseError::NotCoordinator,
            ResponseError::CoordinatorNotAvailable,
            ResponseError::CoordinatorLoadInProgress,
        ];
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < Duration::from_secs(20), "the coordinator of {} is not found", self.group);
            let found = self.addresses.iter().find_map(|address| find_coordinator(*address, &self.group));
            if let Some((_, coordinator)) = found
                && let Some(answer) = try_call(coordinator, api, version, request)
                && !AGAIN.iter().any(|again| again.code() == code(&answer))
            {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A group that `node` coordinates.
fn coordinated_by(cluster: &Cluster, node: i32) -> String {
    let asked = cluster.brokers[0].address;
    let groups = (0..100).map(|number| format!("group-{number}"));
    groups
        .into_iter()
        .find(|group| find_coordinator(asked, group).is_some_and(|(found, _)| found == node))
        .expect("one")
}

#[test]
fn when_a_coordinator_is_killed_members_go_on_without_a_rebalance() {
    let mut cluster = Cluster::start(2);
    create_topic(&mut cluster.brokers[0].connect(), 1);
    let member = Member::join(cluster.addresses(), &coordinated_by(&cluster, 1));
    assert_eq!(member.commit(5), 0);
    cluster.broker(1).kill();
    let began = Instant::now();
    assert_eq!(member.heartbeat(), 0, "the same generation at the new coordinator");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(member.committed(), 5);
    assert_eq!(member.commit(6), 0);
}

#[test]
fn a_coordinator_that_wakes_up_neither_takes_nor_tells_anything_old() {
    let mut cluster = Cluster::start(2);
    create_topic(&mut cluster.brokers[0].connect(), 1);
    let mut member = Member::join(cluster.addresses(), &coordinated_by(&cluster, 1));
    assert_eq!(member.commit(5), 0);
    let old_commit = member.commit_request(6);
    let mut to_sleeper = cluster.broker(1).connect();
    cluster.broker(1).pause();
    // The other takes over, and the group moves on.
    assert_eq!(member.heartbeat(), 0);
    member.rejoin();
    assert_eq!(member.commit(50), 0);
    // Both lie in its socket when it wakes up.
    to_sleeper.send(ApiKey::OffsetCommit as i16, 7, &old_commit);
    cluster.broker(1).wake();
    let answer: OffsetCommitResponse = to_sleeper.receive(7);
    let code = answer.topics[0].partitions[0].error_code;
    assert_ne!(code, 0, "a commit of an old generation is not taken");
    let answer: OffsetFetchResponse = to_sleeper.call(ApiKey::OffsetFetch as i16, 8, &member.fetch_request());
    let told = &answer.groups[0];
    let is_new = || told.topics[0].partitions[0].committed_offset == 50;
    assert!(told.error_code != 0 || is_new(), "{told:?}");
    assert_eq!(member.committed(), 50);
    assert_eq!(member.heartbeat(), 0);
}

/// What a member asks of its coordinator while that sleeps or is cut off: all of it about a generation that is over by the time of
/// the answers.
struct Late {
    /// Waits for the others of its generation to come.
    newcomer: Connection,
    join: Connection,
    sync: Connection,
    beat: Connection,
}

impl Late {
    /// The newcomer's question is with the coordinator, which waits for the member.
    fn begin(cluster: &mut Cluster, node: i32, member: &Member) -> Self {
        let mut connect = || cluster.broker(node).connect();
        let mut late = Self { newcomer: connect(), join: connect(), sync: connect(), beat: connect() };
        late.newcomer.send(ApiKey::JoinGroup as i16, 3, &member.join_request(&StrBytes::default()));
        let is_told_to_rejoin = || member.heartbeat() == ResponseError::RebalanceInProgress.code();
        assert!(eventually(is_told_to_rejoin), "the newcomer is not waited with");
        late
    }

    /// The rest is sent, and lies there.
    fn send(&mut self, member: &Member) {
        self.sync.send(ApiKey::SyncGroup as i16, 3, &member.sync_request());
        self.beat.send(ApiKey::Heartbeat as i16, 3, &member.beat());
        self.join.send(ApiKey::JoinGroup as i16, 3, &member.join_request(&member.id));
    }

    /// The group is in `generation` by now. A join may be told of a later one, which it then is in.
    fn assert_told_nothing_old(mut self, cluster: &Cluster, generation: i32) {
        let synced: SyncGroupResponse = self.sync.receive(3);
        assert!(synced.error_code != 0 && synced.assignment.is_empty(), "an assignment of old: {synced:?}");
        let beaten: HeartbeatResponse = self.beat.receive(3);
        assert_ne!(beaten.error_code, 0, "the old generation is over");
        for joined in [&mut self.join, &mut self.newcomer].map(|asked| asked.receive::<JoinGroupResponse>(3)) {
            let is_new = joined.error_code != 0 || joined.generation_id > generation;
            assert!(is_new, "beside generation {generation}: {joined:?}\n{}\n{}", cluster.log(1), cluster.log(2));
        }
    }
}

#[test]
fn a_coordinator_that_wakes_up_begins_no_generation_and_hands_out_no_assignment() {
    let mut cluster = Cluster::start(2);
    create_topic(&mut cluster.brokers[0].connect(), 1);
    let mut member = Member::join(cluster.addresses(), &coordinated_by(&cluster, 1));
    let mut late = Late::begin(&mut cluster, 1, &member);
    cluster.broker(1).pause();
    late.send(&member);
    // Elsewhere the group goes on without the newcomer, of whom nobody knows.
    assert_eq!(member.heartbeat(), 0);
    member.rejoin();
    assert_eq!(member.heartbeat(), 0);
    cluster.broker(1).wake();
    late.assert_told_nothing_old(&cluster, member.generation);
}

#[test]
fn a_coordinator_whose_link_to_redis_comes_back_hands_out_no_assignment() {
    let mut cluster = Cluster::start(0);
    let link = cluster.join_by_link(1);
    cluster.join(2);
    cluster.until_known_by_all();
    create_topic(&mut cluster.brokers[0].connect(), 1);
    let group = coordinated_by(&cluster, 1);
    // Only the second one knows where the coordinator is all the time.
    let addresses = vec![cluster.broker(2).address];
    let mut member = Member::join(addresses.clone(), &group);
    let mut late = Late::begin(&mut cluster, 1, &member);
    link.hold();
    // As in Kafka, a generation that nobody has an assignment of is in memory only.
    late.join.send(ApiKey::JoinGroup as i16, 3, &member.join_request(&member.id));
    let in_old_generation = |asked: &mut Connection| {
        let joined: JoinGroupResponse = asked.receive(3);
        assert_eq!((joined.error_code, joined.generation_id), (0, member.generation + 1), "{joined:?}");
        Member { id: joined.member_id, generation: joined.generation_id, group: group.clone(), addresses: Vec::new() }
    };
    for asked in [&mut late.join, &mut late.newcomer] {
        let old = in_old_generation(asked);
        asked.send(ApiKey::SyncGroup as i16, 3, &old.sync_request());
    }
    let moved = || find_coordinator(addresses[0], &group).is_some_and(|(node, _)| node == 2);
    assert!(eventually(moved), "the other takes over");
    assert_eq!(member.heartbeat(), 0, "nobody knows of the newcomer");
    member.rejoin();
    link.let_go();
    for asked in [&mut late.join, &mut late.newcomer] {
        let synced: SyncGroupResponse = asked.receive(3);
        assert!(synced.error_code != 0 && synced.assignment.is_empty(), "an assignment of old: {synced:?}");
    }
    assert_eq!(member.heartbeat(), 0);
}

#[test]
fn a_group_follows_its_coordinator_through_a_rolling_restart() {
    let mut cluster = Cluster::start(3);
    create_topic(&mut cluster.brokers[0].connect(), 1);
    let groups: Vec<String> = (1..=3).map(|node| coordinated_by(&cluster, node)).collect();
    let members: Vec<Member> = groups.iter().map(|group| Member::join(cluster.addresses(), group)).collect();
    let mut offset = 0;
    let mut go_on = || {
        offset += 1;
        for member in &members {
            assert_eq!(member.heartbeat(), 0);
            assert_eq!(member.commit(offset), 0);
            assert_eq!(member.committed(), offset);
        }
    };
    for node in 1..=3 {
        go_on();
        cluster.broker(node).stop();
        go_on();
        cluster.restart(node);
        cluster.until_known_by_all();
    }
    go_on();
}

#[test]
fn a_broker_that_does_not_coordinate_a_group_says_so() {
    let cluster = Cluster::start(2);
    let group = coordinated_by(&cluster, 2);
    let member = Member::join(cluster.addresses(), &group);
    let mut other: Connection = cluster.brokers[0].connect();
    let answer: HeartbeatResponse = other.call(ApiKey::Heartbeat as i16, 3, &member.beat());
    assert_eq!(answer.error_code, ResponseError::NotCoordinator.code());
}
