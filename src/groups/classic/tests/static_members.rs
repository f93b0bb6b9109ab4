//! KIP-345.

use super::*;

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
