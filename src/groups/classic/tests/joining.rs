use super::*;

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
