use super::*;

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
