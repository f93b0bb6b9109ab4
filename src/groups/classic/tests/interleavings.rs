//! Random clients in random order.

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
