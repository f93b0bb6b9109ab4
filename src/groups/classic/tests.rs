//! One group under hand-moved time.

use std::collections::{BTreeMap, HashMap};

use super::*;

const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 60_000;
const NEW_MEMBER_MS: i64 = 300_000;

/// What a member asks, with the usual things filled in.
struct World {
    group: ClassicGroup,
    now: Moment,
    tickets: u64,
    ids: u64,
    answers: HashMap<Ticket, Answer>,
    stored: Vec<Record>,
}

#[derive(Clone)]
struct Ask(JoinRequest);

/// A new dynamic member of a client that needs no id first.
fn ask() -> Ask {
    Ask(JoinRequest {
        member_id: MemberId::new(""),
        instance_id: None,
        fresh_id: MemberId::new(""),
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".to_owned(),
        protocols: vec![protocol("range", b"r")],
        reason: None,
        member_id_required: false,
        can_skip_assignment: false,
    })
}

fn protocol(name: &str, metadata: &'static [u8]) -> Protocol {
    Protocol { name: name.to_owned(), metadata: Bytes::from_static(metadata) }
}

impl Ask {
    fn again(mut self, id: &MemberId) -> Self {
        self.0.member_id = id.clone();
        self
    }

    fn instance(mut self, id: &str) -> Self {
        self.0.instance_id = Some(GroupInstanceId::new(id));
        self
    }

    fn speaking(mut self, protocols: &[(&str, &'static [u8])]) -> Self {
        self.0.protocols = protocols.iter().map(|(name, metadata)| protocol(name, metadata)).collect();
        self
    }

    fn of_type(mut self, protocol_type: &str) -> Self {
        self.0.protocol_type = protocol_type.to_owned();
        self
    }

    fn needing_an_id(mut self) -> Self {
        self.0.member_id_required = true;
        self
    }

    fn able_to_skip(mut self) -> Self {
        self.0.can_skip_assignment = true;
        self
    }

    fn rebalance_timeout(mut self, ms: i32) -> Self {
        self.0.rebalance_timeout_ms = ms;
        self
    }
}

impl World {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        Self::of(ClassicGroup::new(GroupId::new("g"), Arc::new(settings)))
    }

    fn of(group: ClassicGroup) -> Self {
        Self {
            group,
            now: Moment { monotonic_ms: 1_000, wall_ms: 1_700_000_000_000 },
            tickets: 0,
            ids: 0,
            answers: HashMap::new(),
            stored: Vec::new(),
        }
    }

    /// As after a restart of the broker: what was stored last, nothing else.
    fn restored(&self) -> Self {
        let record = self.stored.last().expect("something was stored").clone();
        let settings = self.group.settings.clone();
        let mut world = Self::of(ClassicGroup::restore(GroupId::new("g"), settings, record, self.now));
        world.now = self.now;
        world.ids = 1_000;
        world
    }

    fn collect(&mut self) {
        if self.group.take_must_store() {
            self.stored.push(self.group.record());
        }
        for (ticket, answer) in self.group.take_answers() {
            assert!(self.answers.insert(ticket, answer).is_none(), "{ticket:?} was answered twice");
        }
    }

    fn join(&mut self, ask: Ask) -> Ticket {
        let mut request = ask.0;
        self.ids += 1;
        request.fresh_id = MemberId::new(&format!("m{:04}", self.ids));
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.group.handle_join(request, ticket, self.now);
        self.collect();
        ticket
    }

    fn sync(&mut self, id: &MemberId, generation: i32, assignments: &[(&MemberId, &'static [u8])]) -> Ticket {
        self.sync_as(SyncRequest {
            member_id: id.clone(),
            instance_id: None,
            generation,
            protocol_type: None,
            protocol: None,
            assignments: assignments.iter().map(|(id, bytes)| ((*id).clone(), Bytes::from_static(bytes))).collect(),
        })
    }

    fn sync_as(&mut self, request: SyncRequest) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.group.handle_sync(request, ticket, self.now);
        self.collect();
        ticket
    }

    fn heartbeat(&mut self, id: &MemberId, generation: i32) -> Result<(), GroupError> {
        self.group.handle_heartbeat(id, None, generation, self.now)
    }

    fn leave(&mut self, ids: &[&MemberId]) -> Vec<Result<(), GroupError>> {
        let members = ids.iter().map(|id| LeavingMember { id: (*id).clone(), instance_id: None, reason: None });
        let results = self.group.handle_leave(&LeaveRequest { members: members.collect() }, self.now);
        self.collect();
        results
    }

    /// Lets time pass, waking the group whenever it wants to be.
    fn pass(&mut self, ms: i64) {
        let end = self.now.monotonic_ms + ms;
        while let Some(wake) = self.group.poll_timeout().filter(|wake| *wake <= end) {
            let step = (wake - self.now.monotonic_ms).max(0);
            self.now.monotonic_ms += step;
            self.now.wall_ms += step;
            self.group.handle_timeout(self.now);
            self.collect();
        }
        self.now.wall_ms += end - self.now.monotonic_ms;
        self.now.monotonic_ms = end;
    }

    fn waits(&self, ticket: Ticket) -> bool {
        !self.answers.contains_key(&ticket)
    }

    #[track_caller]
    fn joined(&mut self, ticket: Ticket) -> Joined {
        match self.answers.remove(&ticket) {
            Some(Answer::Join(Ok(joined))) => joined,
            other => panic!("{ticket:?}: {other:?}"),
        }
    }

    #[track_caller]
    fn refused(&mut self, ticket: Ticket) -> (GroupError, String) {
        match self.answers.remove(&ticket) {
            Some(Answer::Join(Err(refusal))) => (refusal.error, refusal.member_id.to_string()),
            other => panic!("{ticket:?}: {other:?}"),
        }
    }

    #[track_caller]
    fn synced(&mut self, ticket: Ticket) -> Result<Bytes, GroupError> {
        match self.answers.remove(&ticket) {
            Some(Answer::Sync(answer)) => answer.map(|synced| synced.assignment),
            other => panic!("{ticket:?}: {other:?}"),
        }
    }

    /// A stable group of these members in its first generation; the first one leads.
    fn stable(&mut self, asks: Vec<Ask>) -> Vec<MemberId> {
        let tickets: Vec<Ticket> = asks.into_iter().map(|ask| self.join(ask)).collect();
        while tickets.iter().any(|ticket| self.waits(*ticket)) {
            self.pass(500);
        }
        let joined: Vec<Joined> = tickets.into_iter().map(|ticket| self.joined(ticket)).collect();
        let ids: Vec<MemberId> = joined.iter().map(|joined| joined.member_id.clone()).collect();
        let generation = joined[0].generation;
        assert_eq!(joined[0].leader.as_ref(), Some(&ids[0]));
        let syncs: Vec<Ticket> = ids[1..].iter().map(|id| self.sync(id, generation, &[])).collect();
        let assignments: Vec<(&MemberId, &[u8])> = ids.iter().map(|id| (id, &b"assigned"[..])).collect();
        let last = self.sync(&ids[0], generation, &assignments);
        for ticket in syncs.into_iter().chain([last]) {
            assert_eq!(self.synced(ticket), Ok(Bytes::from_static(b"assigned")));
        }
        assert_eq!(self.group.state(), State::Stable);
        ids
    }
}

#[test]
fn a_first_member_leads_after_the_initial_delay() {
    let mut world = World::new();
    let ticket = world.join(ask());
    world.pass(2_999);
    assert!(world.waits(ticket));
    world.pass(1);
    let joined = world.joined(ticket);
    assert_eq!(joined.generation, 1);
    assert_eq!(joined.leader.as_ref(), Some(&joined.member_id));
    assert_eq!(joined.protocol.as_deref(), Some("range"));
    assert_eq!(joined.protocol_type.as_deref(), Some("consumer"));
    let metadata: Vec<_> = joined.members.iter().map(|member| member.metadata.clone()).collect();
    assert_eq!(metadata, [Bytes::from_static(b"r")]);
    assert!(world.stored.is_empty(), "nothing is stored before the leader has assigned");
}

#[test]
fn each_new_member_puts_the_initial_rebalance_off_until_the_rebalance_timeout() {
    let mut world = World::new();
    let mut tickets = vec![world.join(ask().rebalance_timeout(8_000))];
    for _ in 0..3 {
        world.pass(2_000);
        tickets.push(world.join(ask().rebalance_timeout(8_000)));
    }
    // Delays of 3 s from the start; the last one is what is left of 8 s.
    world.pass(1_999);
    assert!(tickets.iter().all(|ticket| world.waits(*ticket)));
    world.pass(1);
    assert!(tickets.iter().all(|ticket| !world.waits(*ticket)));
}

#[test]
fn without_new_members_the_initial_rebalance_is_not_put_off() {
    let mut world = World::new();
    let first = world.join(ask());
    world.pass(1_000);
    let second = world.join(ask());
    world.pass(2_000);
    assert!(world.waits(first));
    world.pass(3_000);
    assert!(!world.waits(first) && !world.waits(second));
}

#[test]
fn no_delay_is_needed_where_it_is_zero() {
    let mut world = World::with(Settings { initial_rebalance_delay_ms: 0, ..Settings::default() });
    let ticket = world.join(ask());
    world.pass(0);
    world.joined(ticket);
}

#[test]
fn only_the_leader_learns_who_the_members_are() {
    let mut world = World::new();
    let tickets = [world.join(ask()), world.join(ask().instance("i"))];
    world.pass(10_000);
    let [leader, follower] = tickets.map(|ticket| world.joined(ticket));
    assert_eq!(leader.members.len(), 2);
    assert_eq!(leader.members[1].instance_id, Some(GroupInstanceId::new("i")));
    assert!(follower.members.is_empty());
    assert_eq!(follower.leader, Some(leader.member_id));
}

#[test]
fn a_client_that_knows_kip_394_is_given_an_id_first() {
    let mut world = World::new();
    let ticket = world.join(ask().needing_an_id());
    let (error, id) = world.refused(ticket);
    assert_eq!(error, GroupError::MemberIdRequired);
    let id = MemberId::new(&id);
    let ticket = world.join(ask().needing_an_id().again(&id));
    world.pass(3_000);
    assert_eq!(world.joined(ticket).member_id, id);
}

#[test]
fn an_id_that_is_not_used_within_the_session_timeout_is_forgotten() {
    let mut world = World::new();
    let ticket = world.join(ask().needing_an_id());
    let id = MemberId::new(&world.refused(ticket).1);
    world.pass(i64::from(SESSION_MS));
    let late = world.join(ask().needing_an_id().again(&id));
    assert_eq!(world.refused(late).0, GroupError::UnknownMember);
    assert_eq!(world.group.poll_timeout(), None);
}

#[test]
fn a_rebalance_waits_for_a_pending_member_and_goes_on_when_it_gives_up() {
    let mut world = World::new();
    let ids = world.stable(vec![ask()]);
    let given = world.join(ask().needing_an_id());
    let pending = MemberId::new(&world.refused(given).1);
    let again = world.join(ask().again(&ids[0]));
    assert!(world.waits(again), "the pending member may still come");
    world.heartbeat(&ids[0], 1).expect_err("rebalancing");
    assert_eq!(world.leave(&[&pending]), [Ok(())]);
    assert_eq!(world.joined(again).generation, 2);
    world.sync(&ids[0], 2, &[]);

    let given = world.join(ask().needing_an_id());
    world.refused(given);
    let again = world.join(ask().again(&ids[0]));
    assert!(world.waits(again));
    world.pass(i64::from(SESSION_MS));
    assert_eq!(world.joined(again).generation, 3);
}

#[test]
fn ids_are_not_given_out_without_end() {
    let mut world = World::new();
    for _ in 0..10_000 {
        let ticket = world.join(ask().needing_an_id());
        assert_eq!(world.refused(ticket).0, GroupError::MemberIdRequired);
    }
    let ticket = world.join(ask().needing_an_id());
    assert_eq!(world.refused(ticket), (GroupError::GroupFull, String::new()));
    world.pass(i64::from(SESSION_MS));
    let ticket = world.join(ask().needing_an_id());
    assert_eq!(world.refused(ticket).0, GroupError::MemberIdRequired);
}

#[test]
fn a_pending_id_is_not_a_member() {
    let mut world = World::new();
    let ids = world.stable(vec![ask()]);
    let ticket = world.join(ask().needing_an_id());
    let pending = MemberId::new(&world.refused(ticket).1);
    assert_eq!(world.heartbeat(&pending, 1), Err(GroupError::UnknownMember));
    let sync = world.sync(&pending, 1, &[]);
    assert_eq!(world.synced(sync), Err(GroupError::UnknownMember));
    let commit = world.group.check_commit(&pending, None, 1, world.now);
    assert_eq!(commit, Err(GroupError::UnknownMember));
    assert_eq!(world.group.describe().members.len(), 1);
    // Nor can it be a static one.
    let ticket = world.join(ask().again(&pending).instance("i"));
    assert_eq!(world.refused(ticket), (GroupError::UnknownMember, pending.to_string()));
    assert_eq!(world.heartbeat(&ids[0], 1), Ok(()));
}

#[test]
fn a_member_that_nobody_knows_is_told_so() {
    let mut world = World::new();
    let stranger = MemberId::new("stranger");
    let ticket = world.join(ask().again(&stranger));
    assert_eq!(world.refused(ticket), (GroupError::UnknownMember, "stranger".to_owned()));
    world.stable(vec![ask()]);
    let ticket = world.join(ask().again(&stranger));
    assert_eq!(world.refused(ticket), (GroupError::UnknownMember, "stranger".to_owned()));
}

#[test]
fn types_and_protocols_must_fit_the_group() {
    let mut world = World::new();
    for bad in [ask().of_type(""), ask().speaking(&[])] {
        let ticket = world.join(bad);
        assert_eq!(world.refused(ticket), (GroupError::InconsistentProtocol, String::new()));
    }
    let ids = world.stable(vec![ask().speaking(&[("range", b""), ("sticky", b"")])]);
    for bad in [ask().of_type("connect"), ask().speaking(&[("other", b"")]), ask().again(&ids[0]).of_type("connect")] {
        let echoed = bad.0.member_id.to_string();
        let ticket = world.join(bad);
        assert_eq!(world.refused(ticket), (GroupError::InconsistentProtocol, echoed));
    }
    assert_eq!(world.group.state(), State::Stable);
}

#[test]
fn the_protocol_that_most_members_prefer_of_those_that_all_support_wins() {
    let mut world = World::new();
    let tickets = [
        world.join(ask().speaking(&[("fancy", b"f"), ("range", b"1"), ("sticky", b"a")])),
        world.join(ask().speaking(&[("sticky", b"b"), ("range", b"2")])),
        world.join(ask().speaking(&[("sticky", b"c"), ("range", b"3")])),
    ];
    world.pass(10_000);
    for ticket in tickets {
        let joined = world.joined(ticket);
        assert_eq!(joined.protocol.as_deref(), Some("sticky"));
        if !joined.members.is_empty() {
            let metadata: Vec<_> = joined.members.iter().map(|member| &member.metadata[..]).collect();
            assert_eq!(metadata, [b"a", b"b", b"c"]);
        }
    }
}

#[test]
fn any_protocol_type_carries_opaque_bytes() {
    let mut world = World::new();
    let connect = || ask().of_type("connect").speaking(&[("sessioned", &[0xff, 0x00, 0xfe])]);
    world.stable(vec![connect(), connect()]);
    let described = world.group.describe();
    assert_eq!((described.protocol_type.as_str(), described.protocol.as_str()), ("connect", "sessioned"));
    assert_eq!(&described.members[0].metadata[..], [0xff, 0x00, 0xfe]);
    assert!(!world.group.is_subscribed_to("anything"));
}

#[test]
fn the_leaders_assignment_reaches_everyone_once_it_is_stored() {
    let mut world = World::new();
    let tickets = [world.join(ask()), world.join(ask())];
    world.pass(10_000);
    let [one, two] = tickets.map(|ticket| world.joined(ticket).member_id);
    let early = world.sync(&two, 1, &[]);
    assert!(world.waits(early));
    assert_eq!(world.group.state(), State::CompletingRebalance);
    let leader = world.sync(&one, 1, &[(&one, b"1"), (&two, b"2")]);
    assert_eq!(world.synced(leader), Ok(Bytes::from_static(b"1")));
    assert_eq!(world.synced(early), Ok(Bytes::from_static(b"2")));
    let record = world.stored.last().expect("the generation is stored");
    assert_eq!((record.generation, record.members.len(), record.leader.as_ref()), (1, 2, Some(&one)));
    assert_eq!(&record.members[1].assignment[..], b"2");
    let again = world.sync(&two, 1, &[]);
    assert_eq!(world.synced(again), Ok(Bytes::from_static(b"2")));
}

#[test]
fn whom_the_leader_leaves_out_gets_an_empty_assignment() {
    let mut world = World::new();
    let tickets = [world.join(ask()), world.join(ask())];
    world.pass(10_000);
    let [one, two] = tickets.map(|ticket| world.joined(ticket).member_id);
    let early = world.sync(&two, 1, &[]);
    world.sync(&one, 1, &[(&MemberId::new("who"), b"x")]);
    assert_eq!(world.synced(early), Ok(Bytes::new()));
}

#[test]
fn a_sync_must_name_the_generation_and_the_protocol_of_the_group() {
    let mut world = World::new();
    let ids = world.stable(vec![ask()]);
    let request = |generation, protocol_type: Option<&str>, protocol: Option<&str>| SyncRequest {
        member_id: ids[0].clone(),
        instance_id: None,
        generation,
        protocol_type: protocol_type.map(str::to_owned),
        protocol: protocol.map(str::to_owned),
        assignments: Vec::new(),
    };
    for (request, error) in [
        (request(0, None, None), GroupError::IllegalGeneration),
        (request(2, None, None), GroupError::IllegalGeneration),
        (request(1, Some("connect"), None), GroupError::InconsistentProtocol),
        (request(1, None, Some("sticky")), GroupError::InconsistentProtocol),
    ] {
        let ticket = world.sync_as(request);
        assert_eq!(world.synced(ticket), Err(error));
    }
    let ticket = world.sync_as(request(1, Some("consumer"), Some("range")));
    assert!(world.synced(ticket).is_ok());
}

#[test]
fn a_new_member_makes_the_others_join_again() {
    let mut world = World::new();
    let ids = world.stable(vec![ask()]);
    let new = world.join(ask());
    assert_eq!(world.heartbeat(&ids[0], 1), Err(GroupError::RebalanceInProgress));
    let sync = world.sync(&ids[0], 1, &[]);
    assert_eq!(world.synced(sync), Err(GroupError::RebalanceInProgress));
    // Commits of the old generation are still taken, so that nothing is read twice.
    assert_eq!(world.group.check_commit(&ids[0], None, 1, world.now), Ok(()));
    let again = world.join(ask().again(&ids[0]));
    let (old, new) = (world.joined(again), world.joined(new));
    assert_eq!((old.generation, new.generation), (2, 2));
    assert_eq!(old.leader.as_ref(), Some(&ids[0]), "the leader stays");
    assert_eq!(world.group.check_commit(&ids[0], None, 2, world.now), Err(GroupError::RebalanceInProgress));
    assert_eq!(world.heartbeat(&ids[0], 2), Ok(()));
    assert_eq!(world.heartbeat(&ids[0], 1), Err(GroupError::IllegalGeneration));
}

#[test]
fn members_that_do_not_join_again_in_time_are_removed() {
    let mut world = World::new();
    let ids = world.stable(vec![ask().rebalance_timeout(5_000), ask().rebalance_timeout(5_000)]);
    let again = world.join(ask().again(&ids[1]).speaking(&[("range", b"changed")]).rebalance_timeout(5_000));
    world.pass(4_999);
    assert!(world.waits(again));
    world.pass(1);
    let joined = world.joined(again);
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.leader.as_ref(), Some(&ids[1]), "the leader was among the missing");
    assert_eq!(world.heartbeat(&ids[0], 1), Err(GroupError::UnknownMember));
}

#[test]
fn heartbeats_and_commits_keep_a_session_alive() {
    let mut world = World::new();
    let ids = world.stable(vec![ask()]);
    for _ in 0..10 {
        world.pass(i64::from(SESSION_MS) - 1);
        assert_eq!(world.heartbeat(&ids[0], 1), Ok(()));
    }
    for _ in 0..10 {
        world.pass(i64::from(SESSION_MS) - 1);
        assert_eq!(world.group.check_commit(&ids[0], None, 1, world.now), Ok(()));
    }
    world.pass(i64::from(SESSION_MS));
    assert_eq!(world.group.state(), State::Empty);
    assert_eq!(world.heartbeat(&ids[0], 1), Err(GroupError::UnknownMember));
    let record = world.stored.last().expect("the empty group is stored");
    assert_eq!((record.generation, record.members.len(), record.leader.as_ref()), (2, 0, None));
    assert_eq!(record.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(record.protocol, None);
}

#[test]
fn a_parked_join_outlives_its_session_but_a_new_members_only_five_minutes() {
    let mut world = World::new();
    let ids = world.stable(vec![ask().rebalance_timeout(1_000_000), ask().rebalance_timeout(1_000_000)]);
    let new = world.join(ask().rebalance_timeout(1_000_000));
    let again = world.join(ask().again(&ids[0]).rebalance_timeout(1_000_000));
    for _ in 0..NEW_MEMBER_MS / 9_000 {
        world.pass(9_000);
        assert_eq!(world.heartbeat(&ids[1], 1), Err(GroupError::RebalanceInProgress));
    }
    assert!(world.waits(again) && world.waits(new));
    world.pass(9_000);
    assert_eq!(world.refused(new), (GroupError::UnknownMember, String::new()));
    assert!(world.waits(again));
}

#[test]
fn the_session_of_a_silent_member_ends_the_rebalance_it_holds_up() {
    let mut world = World::new();
    let ids = world.stable(vec![ask(), ask()]);
    let again = world.join(ask().again(&ids[0]));
    world.pass(i64::from(SESSION_MS));
    assert_eq!(world.joined(again).members.len(), 1);
}

#[test]
fn members_that_never_sync_are_removed_after_the_rebalance_timeout() {
    let mut world = World::new();
    let asks = || ask().rebalance_timeout(8_000);
    let tickets = [world.join(asks()), world.join(asks())];
    world.pass(8_000);
    let [one, two] = tickets.map(|ticket| world.joined(ticket).member_id);
    let sync = world.sync(&one, 1, &[(&one, b"1"), (&two, b"2")]);
    world.synced(sync).expect("assigned");
    // All had joined six seconds after the first, two are gone since.
    world.pass(5_999);
    assert_eq!((world.heartbeat(&one, 1), world.heartbeat(&two, 1)), (Ok(()), Ok(())));
    world.pass(1);
    assert_eq!(world.group.state(), State::PreparingRebalance);
    assert_eq!(world.heartbeat(&two, 1), Err(GroupError::UnknownMember));
    let again = world.join(asks().again(&one));
    assert_eq!(world.joined(again).generation, 2);
}

#[test]
fn a_leader_that_never_assigns_is_replaced() {
    let mut world = World::new();
    let asks = || ask().rebalance_timeout(8_000);
    let tickets = [world.join(asks()), world.join(asks())];
    world.pass(8_000);
    let [one, two] = tickets.map(|ticket| world.joined(ticket).member_id);
    let sync = world.sync(&two, 1, &[]);
    for _ in 0..2 {
        world.pass(4_000);
        let _ = world.heartbeat(&one, 1);
    }
    assert_eq!(world.synced(sync), Err(GroupError::RebalanceInProgress));
    let again = world.join(asks().again(&two));
    assert_eq!(world.joined(again).leader, Some(two));
}

#[test]
fn a_member_that_leaves_makes_room_at_once() {
    let mut world = World::new();
    let ids = world.stable(vec![ask(), ask()]);
    assert_eq!(world.leave(&[&ids[0], &MemberId::new("who")]), [Ok(()), Err(GroupError::UnknownMember)]);
    assert_eq!(world.group.state(), State::PreparingRebalance);
    let again = world.join(ask().again(&ids[1]));
    assert_eq!(world.joined(again).leader.as_ref(), Some(&ids[1]));
    world.sync(&ids[1], 2, &[]);
    assert_eq!(world.leave(&[&ids[1]]), [Ok(())]);
    assert_eq!(world.group.state(), State::Empty);
    assert_eq!(world.stored.last().map(|record| record.generation), Some(3));
    assert_eq!(world.group.poll_timeout(), None);
}

#[test]
fn a_member_that_leaves_while_it_waits_gets_an_answer() {
    let mut world = World::new();
    let ids = world.stable(vec![ask(), ask()]);
    let again = world.join(ask().again(&ids[0]));
    world.leave(&[&ids[0]]);
    assert_eq!(world.refused(again), (GroupError::UnknownMember, String::new()));
    let other = world.join(ask().again(&ids[1]));
    world.joined(other);
    let new = world.join(ask());
    let other = world.join(ask().again(&ids[1]));
    let (new, _) = (world.joined(new).member_id, world.joined(other));
    let parked = world.sync(&new, 3, &[]);
    world.leave(&[&new]);
    assert_eq!(world.synced(parked), Err(GroupError::UnknownMember));
}

#[test]
fn a_follower_that_joins_again_unchanged_is_told_the_generation() {
    let mut world = World::new();
    let ids = world.stable(vec![ask(), ask()]);
    let ticket = world.join(ask().again(&ids[1]));
    let joined = world.joined(ticket);
    assert_eq!((joined.generation, joined.members.len()), (1, 0));
    assert_eq!(world.group.state(), State::Stable);
    let ticket = world.join(ask().again(&ids[1]).speaking(&[("range", b"other topics")]));
    assert!(world.waits(ticket));
    assert_eq!(world.group.state(), State::PreparingRebalance);
}

#[test]
fn a_leader_that_joins_again_unchanged_starts_a_rebalance() {
    let mut world = World::new();
    let ids = world.stable(vec![ask(), ask()]);
    let ticket = world.join(ask().again(&ids[0]));
    assert!(world.waits(ticket));
    assert_eq!(world.group.state(), State::PreparingRebalance);
}

#[test]
fn a_join_whose_answer_was_lost_gets_it_again() {
    let mut world = World::new();
    let tickets = [world.join(ask()), world.join(ask())];
    world.pass(10_000);
    let [leader, follower] = tickets.map(|ticket| world.joined(ticket));
    for lost in [leader, follower] {
        let ticket = world.join(ask().again(&lost.member_id));
        assert_eq!(world.joined(ticket), lost);
    }
    assert_eq!(world.group.state(), State::CompletingRebalance);
}

#[test]
fn a_changed_member_restarts_a_rebalance_that_waits_for_the_leader() {
    let mut world = World::new();
    let tickets = [world.join(ask()), world.join(ask())];
    world.pass(10_000);
    let [one, two] = tickets.map(|ticket| world.joined(ticket).member_id);
    let parked = world.sync(&two, 1, &[]);
    let ticket = world.join(ask().again(&two).speaking(&[("range", b"changed")]));
    assert_eq!(world.synced(parked), Err(GroupError::RebalanceInProgress));
    let again = world.join(ask().again(&one));
    assert_eq!(world.joined(again).generation, 2);
    assert_eq!(world.joined(ticket).generation, 2);
}

#[test]
fn a_full_group_takes_nobody_else() {
    let mut world = World::with(Settings { max_size: 2, ..Settings::default() });
    let ids = world.stable(vec![ask(), ask()]);
    let ticket = world.join(ask());
    assert_eq!(world.refused(ticket), (GroupError::GroupFull, String::new()));
    assert_eq!(world.group.state(), State::Stable);
    let ticket = world.join(ask().again(&ids[1]));
    world.joined(ticket);
}

#[test]
fn a_rebalance_has_room_for_those_who_come_first() {
    let mut world = World::with(Settings { max_size: 2, ..Settings::default() });
    let ids = world.stable(vec![ask(), ask()]);
    let leader = world.join(ask().again(&ids[0]));
    let new = world.join(ask());
    let late = world.join(ask().again(&ids[1]));
    assert_eq!(world.refused(late), (GroupError::GroupFull, String::new()));
    world.pass(i64::from(REBALANCE_MS));
    assert_eq!(world.joined(leader).members.len(), 2);
    world.joined(new);
}

#[test]
fn a_static_member_that_comes_back_takes_its_place_without_a_rebalance() {
    let mut world = World::new();
    let ids = world.stable(vec![ask(), ask().instance("i")]);
    let stored = world.stored.len();
    let ticket = world.join(ask().instance("i"));
    let joined = world.joined(ticket);
    assert_ne!(joined.member_id, ids[1]);
    assert_eq!((joined.generation, joined.leader.as_ref(), joined.members.len()), (1, Some(&ids[0]), 0));
    assert_eq!(world.group.state(), State::Stable);
    assert_eq!(world.stored.len(), stored + 1, "the new id must outlive the broker");
    let sync = world.sync(&joined.member_id, 1, &[]);
    assert_eq!(world.synced(sync), Ok(Bytes::from_static(b"assigned")));
    let instance = GroupInstanceId::new("i");
    let beat = world.group.handle_heartbeat(&ids[1], Some(&instance), 1, world.now);
    assert_eq!(beat, Err(GroupError::FencedInstance));
    let commit = world.group.check_commit(&ids[1], Some(&instance), 1, world.now);
    assert_eq!(commit, Err(GroupError::FencedInstance));
    let again = world.join(ask().again(&ids[1]).instance("i"));
    assert_eq!(world.refused(again).0, GroupError::FencedInstance);
    assert_eq!(world.group.handle_heartbeat(&joined.member_id, Some(&instance), 1, world.now), Ok(()));
}

#[test]
fn a_static_leader_that_comes_back_skips_the_assignment_if_it_can() {
    let mut world = World::new();
    let ids = world.stable(vec![ask().instance("leader"), ask()]);
    let ticket = world.join(ask().instance("leader"));
    let old_client = world.joined(ticket);
    assert_eq!((old_client.leader.as_ref(), old_client.skip_assignment), (Some(&ids[0]), false));
    assert!(old_client.members.is_empty(), "it takes itself for a follower");
    let ticket = world.join(ask().instance("leader").able_to_skip());
    let new_client = world.joined(ticket);
    assert_eq!(new_client.leader.as_ref(), Some(&new_client.member_id));
    assert!(new_client.skip_assignment);
    assert_eq!(new_client.members.len(), 2);
    let ticket = world.join(ask().instance("follower").able_to_skip());
    assert!(world.waits(ticket));
}

#[test]
fn a_static_member_that_comes_back_with_other_protocols_starts_a_rebalance() {
    let mut world = World::new();
    let speaks = |instance| ask().instance(instance).speaking(&[("range", b""), ("sticky", b"")]);
    let ids = world.stable(vec![speaks("a"), speaks("b")]);
    let ticket = world.join(ask().instance("b").speaking(&[("sticky", b"")]));
    assert!(world.waits(ticket));
    assert_eq!(world.heartbeat(&ids[0], 1), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_static_member_that_comes_back_during_a_rebalance_fences_its_other_self() {
    let mut world = World::new();
    let ids = world.stable(vec![ask(), ask().instance("i")]);
    let first = world.join(ask().again(&ids[1]).instance("i").speaking(&[("range", b"changed")]));
    let second = world.join(ask().instance("i"));
    assert_eq!(world.refused(first), (GroupError::FencedInstance, ids[1].to_string()));
    let again = world.join(ask().again(&ids[0]));
    assert_eq!(world.joined(again).members.len(), 2);
    let new = world.joined(second).member_id;
    // Once more while the leader assigns: the assignment names an id that is gone.
    let parked = world.sync(&new, 2, &[]);
    let third = world.join(ask().instance("i"));
    assert_eq!(world.synced(parked), Err(GroupError::FencedInstance));
    assert!(world.waits(third));
    assert_eq!(world.group.state(), State::PreparingRebalance);
}

#[test]
fn a_static_member_keeps_its_place_through_a_rebalance_it_misses() {
    let mut world = World::new();
    let patient = |mut ask: Ask| {
        ask.0.session_timeout_ms = 120_000;
        ask
    };
    let ids = world.stable(vec![patient(ask()), patient(ask().instance("i"))]);
    let again = world.join(patient(ask().again(&ids[0])));
    world.pass(i64::from(REBALANCE_MS));
    let joined = world.joined(again);
    assert_eq!(joined.members.len(), 2, "the static member is still listed");
    world.sync(&ids[0], 2, &[(&ids[1], b"kept")]);
    let back = world.join(patient(ask().instance("i")));
    let back = world.joined(back).member_id;
    let sync = world.sync(&back, 2, &[]);
    assert_eq!(world.synced(sync), Ok(Bytes::from_static(b"kept")));
}

#[test]
fn when_nobody_comes_back_sessions_decide() {
    let mut world = World::new();
    let patient = |mut ask: Ask| {
        ask.0.session_timeout_ms = 200_000;
        ask
    };
    let ids = world.stable(vec![patient(ask().instance("a")), patient(ask().instance("b")), ask()]);
    world.leave(&[&ids[2]]);
    world.pass(i64::from(REBALANCE_MS) * 2);
    assert_eq!((world.group.state(), world.group.generation()), (State::PreparingRebalance, 1));
    world.pass(200_000);
    assert_eq!(world.group.state(), State::Empty);
}

#[test]
fn an_administrator_removes_static_members_by_instance_id() {
    let mut world = World::new();
    let ids = world.stable(vec![ask(), ask().instance("i")]);
    let leaving = |id: &MemberId, instance: Option<&str>| LeavingMember {
        id: id.clone(),
        instance_id: instance.map(GroupInstanceId::new),
        reason: Some("the member was removed by an admin".to_owned()),
    };
    let nobody = MemberId::new("");
    let request = LeaveRequest {
        members: vec![
            leaving(&nobody, Some("who")),
            leaving(&nobody, None),
            leaving(&ids[0], Some("i")),
            leaving(&nobody, Some("i")),
        ],
    };
    let results = world.group.handle_leave(&request, world.now);
    let unknown = Err(GroupError::UnknownMember);
    assert_eq!(results, [unknown, unknown, Err(GroupError::FencedInstance), Ok(())]);
    assert_eq!(world.group.member_count(), 1);
    assert_eq!(world.group.state(), State::PreparingRebalance);
}

#[test]
fn members_go_on_after_a_restart_of_the_broker() {
    let mut world = World::new();
    let ids = world.stable(vec![ask().speaking(&[("range", b"1"), ("sticky", b"2")]), ask().instance("i")]);
    let mut world = world.restored();
    assert_eq!(world.heartbeat(&ids[0], 1), Ok(()));
    assert_eq!(world.group.check_commit(&ids[1], Some(&GroupInstanceId::new("i")), 1, world.now), Ok(()));
    let sync = world.sync(&ids[1], 1, &[]);
    assert_eq!(world.synced(sync), Ok(Bytes::from_static(b"assigned")));
    let follower = world.join(ask().again(&ids[1]).instance("i"));
    assert_eq!(world.joined(follower).generation, 1, "an unchanged member causes no rebalance");
    let back = world.join(ask().instance("i"));
    let back = world.joined(back).member_id;
    assert_eq!(world.group.state(), State::Stable);
    world.pass(i64::from(SESSION_MS) - 1);
    assert_eq!(world.heartbeat(&back, 1), Ok(()));
    world.pass(1);
    assert_eq!(world.heartbeat(&ids[0], 1), Err(GroupError::UnknownMember), "sessions began anew at the restart");
}

#[test]
fn an_empty_group_is_restored_empty() {
    let mut world = World::new();
    let ids = world.stable(vec![ask()]);
    world.leave(&[&ids[0]]);
    let mut world = world.restored();
    assert_eq!((world.group.state(), world.group.generation()), (State::Empty, 2));
    assert_eq!(world.group.poll_timeout(), None);
    let ticket = world.join(ask().of_type("connect"));
    world.pass(3_000);
    assert_eq!(world.joined(ticket).generation, 3);
}

#[test]
fn clients_without_membership_commit_to_empty_groups_only() {
    let mut world = World::new();
    let nobody = MemberId::new("");
    assert_eq!(world.group.check_commit(&nobody, None, -1, world.now), Ok(()));
    assert_eq!(world.group.check_commit(&nobody, None, 0, world.now), Err(GroupError::UnknownMember));
    let ids = world.stable(vec![ask()]);
    assert_eq!(world.group.check_commit(&nobody, None, -1, world.now), Err(GroupError::UnknownMember));
    assert_eq!(world.group.check_commit(&ids[0], None, -1, world.now), Err(GroupError::IllegalGeneration));
    assert_eq!(world.group.check_commit(&ids[0], None, 1, world.now), Ok(()));
}

#[test]
fn a_group_of_consumers_knows_its_topics() {
    // Version 0, the topic `t`, no user data.
    const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff";
    let mut world = World::new();
    assert!(!world.group.is_subscribed_to("t"));
    let ids = world.stable(vec![ask().speaking(&[("range", SUBSCRIPTION)])]);
    assert!(world.group.is_subscribed_to("t"));
    assert!(!world.group.is_subscribed_to("u"));
    assert!(world.restored().group.is_subscribed_to("t"));
    world.leave(&[&ids[0]]);
    assert!(!world.group.is_subscribed_to("t"));
    // Metadata that can't be read: better safe than sorry.
    let mut world = World::new();
    world.stable(vec![ask()]);
    assert!(!world.group.knows_subscribed_topics());
    assert!(world.group.is_subscribed_to("t"));
}

#[test]
fn only_a_stable_group_shows_metadata() {
    let mut world = World::new();
    let ids = world.stable(vec![ask()]);
    let shown = |world: &World| {
        let described = world.group.describe();
        let member = &described.members[0];
        (described.protocol, member.metadata.clone(), member.assignment.clone())
    };
    let assigned = Bytes::from_static(b"assigned");
    assert_eq!(shown(&world), ("range".to_owned(), Bytes::from_static(b"r"), assigned.clone()));
    world.join(ask());
    assert_eq!(shown(&world), (String::new(), Bytes::new(), assigned.clone()));
    world.join(ask().again(&ids[0]));
    assert_eq!(shown(&world), (String::new(), Bytes::new(), assigned), "the next generation is not assigned yet");
    world.join(ask());
    assert_eq!(shown(&world), (String::new(), Bytes::new(), Bytes::new()), "the rebalance was interrupted");
}

mod interleavings {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Join { slot: usize, fresh: bool, metadata: u8 },
        Sync { slot: usize },
        Heartbeat { slot: usize },
        Leave { slot: usize },
        Pass { ms: i64 },
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let slot = 0..5_usize;
        prop_oneof![
            4 => (slot.clone(), any::<bool>(), 0..3_u8)
                .prop_map(|(slot, fresh, metadata)| Step::Join { slot, fresh, metadata }),
            5 => slot.clone().prop_map(|slot| Step::Sync { slot }),
            3 => slot.clone().prop_map(|slot| Step::Heartbeat { slot }),
            1 => slot.prop_map(|slot| Step::Leave { slot }),
            3 => prop_oneof![0..4_000_i64, Just(i64::from(SESSION_MS)), Just(i64::from(REBALANCE_MS))]
                .prop_map(|ms| Step::Pass { ms }),
            1 => Just(Step::Restart),
        ]
    }

    /// Clients 3 and 4 are static members; client 2 asks for an id first.
    #[derive(Clone, Default)]
    struct Client {
        id: Option<MemberId>,
        generation: i32,
        join: Option<Ticket>,
        sync: Option<Ticket>,
        leads: Option<Vec<MemberId>>,
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        /// Whatever clients do in whatever order: a generation has one leader and one assignment, generations only grow,
        /// a stable group is what was stored, and in the end everybody gets an answer.
        #[test]
        fn a_generation_has_one_leader_and_one_assignment(steps in proptest::collection::vec(step(), 1..120)) {
            let mut world = World::new();
            let mut clients = vec![Client::default(); 5];
            let mut leaders: BTreeMap<i32, MemberId> = BTreeMap::new();
            let mut assigned: BTreeMap<(i32, MemberId), Bytes> = BTreeMap::new();
            let mut generation = 0;
            for step in steps {
                match step {
                    Step::Join { slot, fresh, metadata } => {
                        let bytes: &'static [u8] = match metadata { 0 => b"a", 1 => b"b", _ => b"c" };
                        let mut ask = ask().speaking(&[("range", bytes)]);
                        if slot >= 3 { ask = ask.instance(["x", "y"][slot - 3]); }
                        if slot == 2 { ask = ask.needing_an_id(); }
                        if let Some(id) = clients[slot].id.clone().filter(|_| !fresh) { ask = ask.again(&id); }
                        clients[slot].join = Some(world.join(ask));
                    }
                    Step::Sync { slot } => {
                        let client = clients[slot].clone();
                        if let Some(id) = client.id {
                            let everyone = client.leads.unwrap_or_default();
                            let assignments: Vec<(&MemberId, &[u8])> = everyone.iter().map(|id| (id, &b"x"[..])).collect();
                            clients[slot].sync = Some(world.sync(&id, client.generation, &assignments));
                        }
                    }
                    Step::Heartbeat { slot } => {
                        if let Some(id) = clients[slot].id.clone() {
                            let _ = world.heartbeat(&id, clients[slot].generation);
                        }
                    }
                    Step::Leave { slot } => {
                        if let Some(id) = clients[slot].id.take() { world.leave(&[&id]); }
                    }
                    Step::Pass { ms } => world.pass(ms),
                    Step::Restart => if !world.stored.is_empty() {
                        let ids = world.ids;
                        world = World { ids, stored: world.stored.clone(), tickets: world.tickets, ..world.restored() };
                        // What was not stored is not remembered either.
                        generation = world.group.generation();
                        leaders.split_off(&(generation + 1));
                        assigned.retain(|(of, _), _| *of <= generation);
                        for client in &mut clients { client.join = None; client.sync = None; }
                    }
                }
                for client in &mut clients {
                    if let Some(answer) = client.join.and_then(|ticket| world.answers.remove(&ticket)) {
                        client.join = None;
                        match answer {
                            Answer::Join(Ok(joined)) => {
                                client.id = Some(joined.member_id.clone());
                                client.generation = joined.generation;
                                client.leads = None;
                                let leads = joined.leader.as_ref() == Some(&joined.member_id);
                                prop_assert!(joined.generation <= world.group.generation());
                                if leads {
                                    let one = leaders.insert(joined.generation, joined.member_id.clone());
                                    prop_assert!(one.is_none_or(|one| one == joined.member_id), "two leaders");
                                    client.leads = Some(joined.members.iter().map(|member| member.id.clone()).collect());
                                }
                            }
                            Answer::Join(Err(refusal)) if refusal.error == GroupError::MemberIdRequired => {
                                client.id = Some(refusal.member_id);
                            }
                            Answer::Join(Err(_)) => client.id = None,
                            Answer::Sync(_) => prop_assert!(false, "a sync's answer for a join"),
                        }
                    }
                    if let Some(answer) = client.sync.and_then(|ticket| world.answers.remove(&ticket)) {
                        client.sync = None;
                        if let (Answer::Sync(Ok(synced)), Some(id)) = (answer, &client.id) {
                            let key = (client.generation, id.clone());
                            let one = assigned.insert(key, synced.assignment.clone());
                            prop_assert!(one.is_none_or(|one| one == synced.assignment), "two assignments");
                        }
                    }
                }
                prop_assert!(world.group.generation() >= generation);
                generation = world.group.generation();
                let group = &world.group;
                if group.state() == State::Stable {
                    prop_assert_eq!(world.stored.last().map(|record| record.generation), Some(generation));
                }
                prop_assert_eq!(group.members.is_empty() && group.state() != State::PreparingRebalance, group.state() == State::Empty);
                prop_assert!(group.leader.iter().all(|leader| group.members.contains_key(leader)));
                for (instance, id) in &group.static_members {
                    let member = group.members.get(id).expect("a static id is a member's");
                    prop_assert_eq!(member.stored.instance_id.as_ref(), Some(instance));
                }
                let waits = group.members.values().any(|member| member.awaiting_join.is_some() || member.awaiting_sync.is_some());
                prop_assert!(!waits || group.poll_timeout().is_some(), "nobody waits for ever");
            }
            // Everyone falls silent: every parked request is answered and the group comes to rest.
            world.pass(10 * NEW_MEMBER_MS);
            prop_assert_eq!(world.group.state(), State::Empty);
            prop_assert_eq!(world.group.poll_timeout(), None);
            let parked = clients.iter().flat_map(|client| [client.join, client.sync]).flatten();
            for ticket in parked {
                prop_assert!(!world.waits(ticket), "{:?} is never answered", ticket);
            }
        }
    }
}
