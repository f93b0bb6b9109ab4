//! The coordinator over a storage in memory that can be slow or fail, under tokio's paused clock.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI64, AtomicUsize},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{
    store::{GroupEpoch, GroupWrite, Loaded, MirrorMove, StoreError, WriteError},
    *,
};
use crate::{
    cluster::View,
    groups::{
        Commit, Offsets, StoredGroup,
        classic::{Joined, LeavingMember, Protocol, Record, State, Synced},
    },
};

/// What becomes of the storage's next writes.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Nothing happens.
    Refuse,
    /// It happens, but the answer is lost.
    LoseAnswer,
    /// Not even reading works.
    Down,
}

/// Writes that the storage does at a time.
const PERMITS: usize = 1_000;

struct MemoryStore {
    groups: Mutex<BTreeMap<GroupId, (GroupEpoch, StoredGroup)>>,
    fault: Mutex<Fault>,
    /// A write takes a permit each; tests that hold writes up take them all.
    gate: Semaphore,
    /// And each time that groups are claimed.
    claims: Semaphore,
    /// With which epoch each group was claimed last.
    claimed: Mutex<HashMap<GroupId, i32>>,
    epochs: AtomicI64,
    writes: AtomicUsize,
    /// How often it was called for writes.
    calls: AtomicUsize,
    mirrored: Mutex<Vec<MirrorMove>>,
}

impl MemoryStore {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            groups: Mutex::default(),
            fault: Mutex::new(Fault::None),
            gate: Semaphore::new(PERMITS),
            claims: Semaphore::new(PERMITS),
            claimed: Mutex::default(),
            epochs: AtomicI64::new(0),
            writes: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            mirrored: Mutex::default(),
        })
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock() = fault;
    }

    fn stored(&self, group: &str) -> Option<StoredGroup> {
        self.groups.lock().get(group).map(|(_, stored)| stored.clone())
    }

    /// It comes back without what was committed.
    fn lose_offsets(&self, group: &str) {
        if let Some((_, stored)) = self.groups.lock().get_mut(group) {
            stored.offsets = Default::default();
        }
    }

    fn readable(&self) -> Result<(), StoreError> {
        match *self.fault.lock() {
            Fault::Down => Err(StoreError::NotSent("down".to_owned())),
            Fault::None | Fault::Refuse | Fault::LoseAnswer => Ok(()),
        }
    }

    async fn change<T>(
        &self,
        group: &GroupId,
        expected: Option<GroupEpoch>,
        change: impl FnOnce(Option<StoredGroup>) -> (Option<StoredGroup>, T),
    ) -> Result<(GroupEpoch, T), WriteError> {
        let _permit = self.gate.acquire().await.expect("the gate is never closed");
        self.writes.fetch_add(1, Ordering::Relaxed);
        let fault = *self.fault.lock();
        if matches!(fault, Fault::Refuse | Fault::Down) {
            return Err(StoreError::NotSent("down".to_owned()).into());
        }
        let mut groups = self.groups.lock();
        let before = groups.remove(group);
        if before.as_ref().map(|(epoch, _)| *epoch) != expected {
            groups.extend(before.map(|before| (group.clone(), before)));
            return Err(WriteError::Stale);
        }
        let epoch = GroupEpoch(self.epochs.fetch_add(1, Ordering::Relaxed));
        let (after, out) = change(before.map(|(_, stored)| stored));
        groups.extend(after.map(|after| (group.clone(), (epoch, after))));
        if fault == Fault::LoseAnswer {
            return Err(StoreError::OutcomeUnknown("lost".to_owned()).into());
        }
        Ok((epoch, out))
    }
}

impl MemoryStore {
    async fn write_one(&self, group: &GroupId, write: GroupWrite) -> Result<GroupEpoch, WriteError> {
        let written = self.change(group, write.expected, |before| {
            let mut stored = before.unwrap_or_default();
            if let Some(record) = write.record {
                stored.record = record;
            }
            for (at, offset) in write.offsets {
                match offset {
                    Some(offset) => stored.offsets.set(at, offset),
                    None => stored.offsets.remove(at),
                }
            }
            (Some(stored), ())
        });
        written.await.map(|(epoch, ())| epoch)
    }
}

#[async_trait]
impl GroupStore for MemoryStore {
    async fn list(&self) -> Result<Vec<GroupId>, StoreError> {
        self.readable()?;
        Ok(self.groups.lock().keys().cloned().collect())
    }

    async fn claim(&self, group: &GroupId, coordinates: Option<i32>) -> Result<Loaded, StoreError> {
        let _permit = self.claims.acquire().await.expect("the gate is never closed");
        self.readable()?;
        if let Some((epoch, _)) = self.groups.lock().get_mut(group) {
            let mut claimed = self.claimed.lock();
            let claimed = claimed.entry(group.clone()).or_default();
            if coordinates.is_some_and(|coordinates| coordinates < *claimed) {
                return Err(StoreError::FencedLeader(*claimed));
            }
            *claimed = coordinates.unwrap_or_default();
            *epoch = GroupEpoch(self.epochs.fetch_add(1, Ordering::Relaxed));
        }
        Ok(self.load(std::slice::from_ref(group)).await?.remove(0))
    }

    async fn load(&self, groups: &[GroupId]) -> Result<Vec<Loaded>, StoreError> {
        self.readable()?;
        let stored = self.groups.lock();
        let load = |id| match stored.get(id) {
            Some((epoch, stored)) => Loaded::Group(*epoch, Box::new(stored.clone())),
            None => Loaded::Nothing,
        };
        Ok(groups.iter().map(load).collect())
    }

    async fn write(&self, writes: Vec<(GroupId, GroupWrite)>) -> Vec<Result<GroupEpoch, WriteError>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let written = writes.into_iter().map(|(group, write)| async move { self.write_one(&group, write).await });
        join_all(written).await
    }

    async fn delete(&self, group: &GroupId, expected: GroupEpoch) -> Result<(), WriteError> {
        self.change(group, Some(expected), |_| (None, ())).await.map(|_| ())
    }

    async fn mirror(&self, moves: &[MirrorMove]) -> Result<(), StoreError> {
        self.readable()?;
        self.mirrored.lock().extend_from_slice(moves);
        Ok(())
    }
}

/// Topics `t0` to `t9`, except those that are deleted.
#[derive(Default)]
struct SomeTopics {
    gone: Mutex<Vec<TopicId>>,
}

fn topic(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number + 1))
}

fn name(number: u128) -> TopicName {
    TopicName::new(&format!("t{number}"))
}

impl TopicNames for SomeTopics {
    fn name_of(&self, id: TopicId) -> Option<TopicName> {
        (0..10).find(|number| topic(*number) == id && !self.gone.lock().contains(&id)).map(name)
    }
}

struct World {
    store: Arc<MemoryStore>,
    topics: Arc<SomeTopics>,
    coordinator: Arc<Coordinator>,
    cluster: Arc<Cluster>,
    clock: Clock,
    tasks: Tasks,
}

impl World {
    async fn new() -> Self {
        Self::over(MemoryStore::new()).await
    }

    async fn over(store: Arc<MemoryStore>) -> Self {
        let (topics, clock, tasks) = (Arc::new(SomeTopics::default()), Clock::fixed(1_700_000_000_000), Tasks::new());
        let settings = Settings { initial_rebalance_delay_ms: 0, ..Settings::default() };
        let cluster = Arc::new(Cluster::alone(NodeId(0)));
        let options = Options { settings, cluster: cluster.clone(), ..Options::default() };
        let coordinator = Coordinator::start(options, store.clone(), topics.clone(), clock.clone(), tasks.clone());
        let world = Self { store, topics, coordinator, cluster, clock, tasks };
        while !world.coordinator.is_ready() && *world.store.fault.lock() != Fault::Down {
            tokio::task::yield_now().await;
        }
        world
    }

    /// Stops this broker and starts another on the same storage.
    async fn restarted(self) -> Self {
        assert_eq!(self.tasks.stop(Duration::from_secs(5)).await, 0, "no task outlives the broker");
        Self::over(self.store).await
    }

    /// Another broker takes all groups over, or gives them back.
    fn move_groups(&self, node: i32) {
        let mut view = View::clone(&self.cluster.view());
        view.generation += 1;
        view.live[0].node = NodeId(node);
        self.cluster.set_view(view);
    }

    /// This broker was gone for the others, and comes back.
    fn come_anew(&self) {
        let mut view = View::clone(&self.cluster.view());
        view.generation += 1;
        view.live[0].joined = view.generation;
        self.cluster.set_view(view);
    }

    async fn join(&self, id: &str) -> Pending<JoinAnswer> {
        self.coordinator.join(&group(), join_request(id, None)).await
    }

    async fn sync(&self, joined: &Joined) -> Pending<SyncAnswer> {
        let assignments =
            joined.members.iter().map(|member| (member.id.clone(), Bytes::from_static(b"assigned"))).collect();
        let sync = SyncRequest {
            member_id: joined.member_id.clone(),
            instance_id: None,
            generation: joined.generation,
            protocol_type: None,
            protocol: None,
            assignments,
        };
        self.coordinator.sync(&group(), sync).await
    }

    /// The group with one stable member.
    async fn member(&self) -> MemberId {
        let joined = self.join("").await.answer().await.expect("available").expect("joined");
        self.sync(&joined).await.answer().await.expect("available").expect("synced");
        joined.member_id
    }

    async fn heartbeat(&self, member: &MemberId, generation: i32) -> Result<(), CoordinatorError> {
        let beat = Heartbeat { member_id: member.clone(), instance_id: None, generation };
        self.coordinator.heartbeat(&group(), beat).await.answer().await
    }

    async fn commit(&self, member: &str, generation: i32, partition: i32, offset: i64) -> Pending<Results> {
        self.commit_to(&group(), member, generation, partition, offset).await
    }

    async fn commit_to(
        &self,
        group: &GroupId,
        member: &str,
        generation: i32,
        partition: i32,
        offset: i64,
    ) -> Pending<Results> {
        let commit = Commit { partition: at(0, partition), offset, leader_epoch: 2, metadata: "m".into() };
        let request = CommitRequest {
            member_id: MemberId::new(member),
            instance_id: None,
            generation,
            retention_ms: None,
            offsets: vec![commit],
        };
        self.coordinator.commit(group, request).await
    }

    /// The committed offsets, by partition of `t0`.
    async fn committed(&self, stable: bool) -> BTreeMap<i32, i64> {
        let fetch = Fetch { partitions: None, stable };
        let found = self.coordinator.fetch(&group(), fetch).await.answer().await.expect("available");
        found.into_iter().filter_map(|(at, offset)| Some((at.partition, offset?.offset))).collect()
    }
}

fn group() -> GroupId {
    GroupId::new("g")
}

fn at(number: u128, partition: i32) -> TopicPartition {
    TopicPartition { topic: topic(number), partition }
}

fn join_request(id: &str, instance: Option<&str>) -> JoinRequest {
    let instance_id = instance.map(GroupInstanceId::new);
    JoinRequest {
        member_id: MemberId::new(id),
        fresh_id: fresh_member_id(instance_id.as_ref(), "client"),
        instance_id,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![Protocol {
            name: "range".to_owned(),
            metadata: Bytes::from_static(b"\0\0\0\0\0\0\xff\xff\xff\xff"),
        }],
        reason: None,
        member_id_required: false,
        can_skip_assignment: true,
    }
}

fn ok(results: &Result<Results, CoordinatorError>) -> bool {
    results.as_ref().is_ok_and(|results| results.iter().all(Result::is_ok))
}

#[tokio::test(start_paused = true)]
async fn members_join_sync_commit_and_read_their_offsets() {
    let world = World::new().await;
    let first = world.join("").await.answer().await.expect("available").expect("joined");
    assert!(first.member_id.as_str().starts_with("client-"));
    let Ok(Ok(Synced { assignment, .. })) = world.sync(&first).await.answer().await else { panic!("not synced") };
    assert_eq!(&assignment[..], b"assigned");
    assert!(ok(&world.commit(first.member_id.as_str(), 1, 0, 7).await.answer().await));
    assert_eq!(world.committed(true).await, BTreeMap::from([(0, 7)]));
    assert_eq!(world.heartbeat(&first.member_id, 1).await, Ok(()));
    let stored = world.store.stored("g").expect("stored");
    assert_eq!((stored.record.generation, stored.record.members.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_rebalance_parks_joins_and_answers_them_together() {
    let world = World::new().await;
    let old = world.member().await;
    let new = world.join("").await;
    assert_eq!(world.heartbeat(&old, 1).await, Err(GroupError::RebalanceInProgress.into()));
    let again = world.join(old.as_str()).await;
    let (old, new) = tokio::join!(again.answer(), new.answer());
    assert_eq!(old.expect("available").expect("joined").generation, 2);
    assert_eq!(new.expect("available").expect("joined").generation, 2);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_session_and_empties_the_group() {
    let world = World::new().await;
    let member = world.member().await;
    tokio::time::sleep(Duration::from_millis(9_999)).await;
    assert_eq!(world.heartbeat(&member, 1).await, Ok(()));
    tokio::time::sleep(Duration::from_millis(9_999)).await;
    assert_eq!(world.heartbeat(&member, 1).await, Ok(()));
    tokio::time::sleep(Duration::from_millis(10_100)).await;
    assert_eq!(world.heartbeat(&member, 1).await, Err(GroupError::UnknownMember.into()));
    assert!(world.store.stored("g").expect("stored").record.members.is_empty());
}

#[tokio::test(start_paused = true)]
async fn members_go_on_after_a_restart_without_a_rebalance() {
    let world = World::new().await;
    let member = world.member().await;
    assert!(ok(&world.commit(member.as_str(), 1, 0, 7).await.answer().await));
    let world = world.restarted().await;
    assert_eq!(world.heartbeat(&member, 1).await, Ok(()));
    assert!(ok(&world.commit(member.as_str(), 1, 1, 8).await.answer().await));
    assert_eq!(world.committed(false).await, BTreeMap::from([(0, 7), (1, 8)]));
}

#[tokio::test(start_paused = true)]
async fn many_groups_are_loaded_at_start() {
    let store = MemoryStore::new();
    for number in 0..1_000 {
        let write = GroupWrite { record: Some(Record::default()), ..GroupWrite::default() };
        store.write_one(&GroupId::new(&format!("g{number}")), write).await.expect("written");
    }
    let world = World::over(store).await;
    let listed = world.coordinator.list().await.expect("loaded");
    assert_eq!(listed.len(), 1_000);
    assert!(listed.iter().all(|(_, group)| group.state == State::Empty));
}

#[tokio::test(start_paused = true)]
async fn while_groups_are_loaded_requests_are_told_so() {
    let store = MemoryStore::new();
    store.set(Fault::Down);
    let world = World::over(store).await;
    assert_eq!(world.join("").await.answer().await.err(), Some(CoordinatorError::Loading));
    assert_eq!(world.coordinator.list().await.err(), Some(CoordinatorError::Loading));
    world.store.set(Fault::None);
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.member().await;
}

#[tokio::test(start_paused = true)]
async fn commits_that_come_during_a_write_share_the_next_one() {
    let world = World::new().await;
    let member = world.member().await;
    let before = world.store.writes.load(Ordering::Relaxed);
    let held = world.store.gate.forget_permits(PERMITS);
    let mut pending = Vec::new();
    for round in 0..100 {
        pending.push(world.commit(member.as_str(), 1, round % 3, i64::from(round)).await);
    }
    // Neither heartbeats nor reads of what is stored wait for the storage.
    assert_eq!(world.heartbeat(&member, 1).await, Ok(()));
    assert!(world.committed(false).await.is_empty());
    let stable = world.coordinator.fetch(&group(), Fetch { partitions: Some(vec![at(0, 0)]), stable: true }).await;
    world.store.gate.add_permits(held);
    for pending in pending {
        assert!(ok(&pending.answer().await));
    }
    let found = stable.answer().await.expect("available");
    assert_eq!(found[0].1.as_ref().map(|offset| offset.offset), Some(99), "it waited for all of them");
    assert_eq!(world.committed(true).await, BTreeMap::from([(0, 99), (1, 97), (2, 98)]));
    assert_eq!(world.store.writes.load(Ordering::Relaxed) - before, 2);
}

#[tokio::test(start_paused = true)]
async fn commits_of_many_groups_share_a_call_of_the_storage_too() {
    let world = World::new().await;
    let held = world.store.gate.forget_permits(PERMITS);
    let mut pending = Vec::new();
    for number in 0..100 {
        let group = GroupId::new(&format!("g{number}"));
        pending.push(world.commit_to(&group, "", -1, 0, number).await);
        if number == 0 {
            // The first call is on its way.
            while world.store.calls.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
    world.store.gate.add_permits(held);
    for pending in pending {
        assert!(ok(&pending.answer().await));
    }
    assert_eq!(world.store.writes.load(Ordering::Relaxed), 100);
    assert_eq!(world.store.calls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_can_not_be_stored_is_not_answered_with_success_nor_shown() {
    let world = World::new().await;
    let member = world.member().await;
    for fault in [Fault::Refuse, Fault::Down] {
        world.store.set(fault);
        let commit = world.commit(member.as_str(), 1, 0, 7).await.answer().await;
        assert_eq!(commit, Err(CoordinatorError::NotAvailable));
        world.store.set(Fault::None);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(world.heartbeat(&member, 1).await, Ok(()), "the member is as it was stored");
        assert!(world.committed(true).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_was_lost_is_found_again() {
    let world = World::new().await;
    let member = world.member().await;
    world.store.set(Fault::LoseAnswer);
    assert_eq!(world.commit(member.as_str(), 1, 0, 7).await.answer().await, Err(CoordinatorError::NotAvailable));
    world.store.set(Fault::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.committed(true).await, BTreeMap::from([(0, 7)]));
    assert!(ok(&world.commit(member.as_str(), 1, 0, 8).await.answer().await));
}

#[tokio::test(start_paused = true)]
async fn an_assignment_that_can_not_be_stored_reaches_nobody() {
    let world = World::new().await;
    let old = world.member().await;
    let new = world.join("").await;
    let again = world.join(old.as_str()).await.answer().await.expect("available").expect("joined");
    let new = new.answer().await.expect("available").expect("joined");
    let follower = world.sync(&new).await;
    world.store.set(Fault::Refuse);
    let leader = world.sync(&again).await;
    assert_eq!(leader.answer().await, Err(CoordinatorError::NotAvailable));
    assert_eq!(follower.answer().await, Err(CoordinatorError::NotAvailable));
    world.store.set(Fault::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Recovery is what was stored: the generation before.
    assert_eq!(world.heartbeat(&old, 2).await, Err(GroupError::IllegalGeneration.into()));
    assert_eq!(world.heartbeat(&new.member_id, 2).await, Err(GroupError::UnknownMember.into()));
    assert_eq!(world.heartbeat(&old, 1).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_assignment_whose_answer_was_lost_is_found_again() {
    let world = World::new().await;
    let joined = world.join("").await.answer().await.expect("available").expect("joined");
    world.store.set(Fault::LoseAnswer);
    assert_eq!(world.sync(&joined).await.answer().await, Err(CoordinatorError::NotAvailable));
    world.store.set(Fault::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let synced = world.sync(&joined).await.answer().await.expect("available").expect("stable");
    assert_eq!(&synced.assignment[..], b"assigned");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_somebody_else_changed_is_loaded_again() {
    let world = World::new().await;
    let member = world.member().await;
    let (epoch, mut stored) = world.store.groups.lock().get(&group()).cloned().expect("stored");
    stored.record.generation = 5;
    let write = GroupWrite { expected: Some(epoch), record: Some(stored.record), offsets: Vec::new() };
    world.store.write_one(&group(), write).await.expect("written behind the broker's back");
    assert_eq!(world.commit(member.as_str(), 1, 0, 7).await.answer().await, Err(CoordinatorError::NotAvailable));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.commit(member.as_str(), 1, 0, 7).await.answer().await, Err(GroupError::IllegalGeneration.into()));
    assert!(ok(&world.commit(member.as_str(), 5, 0, 7).await.answer().await));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_could_not_be_created_leaves_nothing_behind() {
    let world = World::new().await;
    world.store.set(Fault::Refuse);
    assert_eq!(world.commit("", -1, 0, 7).await.answer().await, Err(CoordinatorError::NotAvailable));
    assert_eq!(world.join("").await.answer().await.err(), Some(CoordinatorError::NotAvailable));
    world.store.set(Fault::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.coordinator.shared.groups.lock().is_empty());
    world.member().await;
}

#[tokio::test(start_paused = true)]
async fn asking_for_groups_that_do_not_exist_keeps_no_task() {
    let world = World::new().await;
    for number in 0..100 {
        let id = GroupId::new(&format!("none-{number}"));
        let beat = Heartbeat { member_id: MemberId::new("m"), instance_id: None, generation: 1 };
        let answer = world.coordinator.heartbeat(&id, beat).await.answer().await;
        assert_eq!(answer, Err(GroupError::UnknownMember.into()));
        assert_eq!(world.coordinator.describe(&id).await.answer().await, Ok(None));
        assert_eq!(world.coordinator.delete(&id).await.answer().await, Err(GroupError::GroupNotFound.into()));
        let fetch = Fetch { partitions: Some(vec![at(0, 0)]), stable: true };
        assert_eq!(world.coordinator.fetch(&id, fetch).await.answer().await, Ok(vec![(at(0, 0), None)]));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.coordinator.shared.groups.lock().is_empty());
    assert_eq!(world.store.writes.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_group_is_gone_with_its_offsets_and_can_come_back() {
    let world = World::new().await;
    let member = world.member().await;
    assert!(ok(&world.commit(member.as_str(), 1, 0, 7).await.answer().await));
    assert_eq!(world.coordinator.delete(&group()).await.answer().await, Err(GroupError::NonEmptyGroup.into()));
    let leaving = LeavingMember { id: member, instance_id: None, reason: None };
    let left = world.coordinator.leave(&group(), LeaveRequest { members: vec![leaving] }).await.answer().await;
    assert_eq!(left, Ok(vec![Ok(())]));
    assert_eq!(world.coordinator.delete(&group()).await.answer().await, Ok(()));
    assert!(world.store.stored("g").is_none());
    assert!(world.committed(true).await.is_empty());
    assert_eq!(world.coordinator.list().await, Ok(Vec::new()));
    assert!(ok(&world.commit("", -1, 1, 9).await.answer().await));
    assert_eq!(world.committed(true).await, BTreeMap::from([(1, 9)]));
}

#[tokio::test(start_paused = true)]
async fn offsets_are_deleted_where_the_group_does_not_read() {
    let world = World::new().await;
    let partitions = |indexes: &[i32]| indexes.iter().map(|index| (name(0), at(0, *index))).collect::<Vec<_>>();
    let missing = world.coordinator.delete_offsets(&group(), partitions(&[0])).await.answer().await;
    assert_eq!(missing, Err(GroupError::GroupNotFound.into()));
    assert!(ok(&world.commit("", -1, 0, 7).await.answer().await));
    assert!(ok(&world.commit("", -1, 1, 8).await.answer().await));
    let deleted = world.coordinator.delete_offsets(&group(), partitions(&[0, 2])).await.answer().await;
    assert_eq!(deleted, Ok(vec![Ok(()), Ok(())]));
    assert_eq!(world.committed(true).await, BTreeMap::from([(1, 8)]));
}

#[tokio::test(start_paused = true)]
async fn offsets_of_a_deleted_topic_are_gone() {
    let world = World::new().await;
    assert!(ok(&world.commit("", -1, 0, 7).await.answer().await));
    world.topics.gone.lock().push(topic(0));
    world.coordinator.topic_deleted(topic(0)).await;
    assert!(world.committed(true).await.is_empty());
    assert_eq!(world.store.stored("g").expect("the group stays").offsets, Offsets::default());
}

#[tokio::test(start_paused = true)]
async fn the_periodic_check_expires_offsets_and_empty_groups() {
    let world = World::new().await;
    assert!(ok(&world.commit("", -1, 0, 7).await.answer().await));
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(world.committed(true).await.len(), 1);
    world.clock.advance_ms(7 * 24 * 60 * 60 * 1_000);
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert!(world.store.stored("g").is_none());
    assert_eq!(world.coordinator.list().await, Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn native_groups_follow_at_most_once_a_second_and_are_taken_away() {
    let world = World::new().await;
    for offset in 0..50 {
        assert!(ok(&world.commit("", -1, 0, offset).await.answer().await));
    }
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let moves = std::mem::take(&mut *world.store.mirrored.lock());
    assert!(moves.len() <= 2, "{moves:?}");
    assert_eq!(moves.last().map(|last| (last.partition.topic.clone(), last.offset)), Some((name(0), Some(49))));
    world.store.set(Fault::Down);
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.store.set(Fault::None);
    assert_eq!(world.coordinator.delete(&group()).await.answer().await, Ok(()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let moves = std::mem::take(&mut *world.store.mirrored.lock());
    assert_eq!(moves.iter().map(|one| one.offset).collect::<Vec<_>>(), [None]);
}

#[tokio::test(start_paused = true)]
async fn moves_that_could_not_be_mirrored_are_not_lost() {
    let world = World::new().await;
    let last = || world.store.mirrored.lock().last().and_then(|last| last.offset);
    assert!(ok(&world.commit("", -1, 0, 1).await.answer().await));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(ok(&world.commit("", -1, 0, 2).await.answer().await));
    world.store.set(Fault::Down);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(last(), Some(1));
    world.store.set(Fault::None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(last(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn when_the_broker_stops_parked_requests_are_answered_and_moves_mirrored() {
    let world = World::new().await;
    let old = world.member().await;
    assert!(ok(&world.commit(old.as_str(), 1, 0, 7).await.answer().await));
    let parked = world.join("").await;
    assert_eq!(world.tasks.stop(Duration::from_secs(5)).await, 0);
    assert_eq!(parked.answer().await.err(), Some(CoordinatorError::NotAvailable));
    assert_eq!(world.heartbeat(&old, 1).await, Err(CoordinatorError::NotAvailable));
    assert_eq!(world.store.mirrored.lock().last().and_then(|last| last.offset), Some(7));
}

#[tokio::test(start_paused = true)]
async fn ids_and_session_timeouts_are_checked_before_a_group_comes_into_being() {
    let world = World::new().await;
    let refused = |error, id: &str| Ok(Err(JoinRefusal { error, member_id: MemberId::new(id) }));
    let nameless = world.coordinator.join(&GroupId::new(""), join_request("m", None)).await.answer().await;
    assert_eq!(nameless, refused(GroupError::InvalidGroupId, "m"));
    for session_timeout_ms in [5_999, 1_800_001, -1] {
        let request = JoinRequest { session_timeout_ms, ..join_request("", None) };
        let answer = world.coordinator.join(&group(), request).await.answer().await;
        assert_eq!(answer, refused(GroupError::InvalidSessionTimeout, ""));
    }
    assert_eq!(world.store.writes.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_moves_away_is_let_go_and_its_members_are_told() {
    let world = World::new().await;
    let member = world.member().await;
    let parked = world.join("").await;
    tokio::task::yield_now().await;
    world.move_groups(9);
    assert_eq!(parked.answer().await, Err(CoordinatorError::NotCoordinator), "who waits is told at once");
    assert_eq!(world.heartbeat(&member, 1).await, Err(CoordinatorError::NotCoordinator));
    assert_eq!(world.commit(member.as_str(), 1, 0, 7).await.answer().await, Err(CoordinatorError::NotCoordinator));
    assert_eq!(world.coordinator.list().await, Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn members_go_on_at_the_new_coordinator_without_a_rebalance() {
    let old = World::new().await;
    let member = old.member().await;
    old.commit(member.as_str(), 1, 0, 7).await.answer().await.expect("available");
    old.move_groups(9);
    let new = World::over(old.store.clone()).await;
    assert_eq!(new.heartbeat(&member, 1).await, Ok(()));
    assert_eq!(new.committed(true).await, BTreeMap::from([(0, 7)]));
    let results = new.commit(member.as_str(), 1, 0, 8).await.answer().await;
    assert_eq!(results, Ok(vec![Ok(())]));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_moves_away_and_back_is_loaded_again() {
    let here = World::new().await;
    let member = here.member().await;
    here.move_groups(9);
    assert_eq!(here.heartbeat(&member, 1).await, Err(CoordinatorError::NotCoordinator));
    let there = World::over(here.store.clone()).await;
    there.commit(member.as_str(), 1, 0, 7).await.answer().await.expect("available");
    here.move_groups(0);
    assert_eq!(here.committed(true).await, BTreeMap::from([(0, 7)]));
}

#[tokio::test(start_paused = true)]
async fn of_two_that_believe_to_coordinate_only_the_later_one_writes() {
    let old = World::new().await;
    let member = old.member().await;
    let new = World::over(old.store.clone()).await;
    assert_eq!(new.heartbeat(&member, 1).await, Ok(()), "it has loaded the group");
    assert_eq!(old.commit(member.as_str(), 1, 0, 7).await.answer().await, Err(CoordinatorError::NotAvailable));
    assert!(old.store.stored("g").is_some_and(|group| group.offsets.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_can_not_be_loaded_is_told_of_at_once_by_its_first_request_too() {
    let world = World::new().await;
    world.store.set(Fault::Down);
    for _ in 0..2 {
        let asked = world.join("").await;
        let told = tokio::time::timeout(Duration::from_secs(5), asked.answer()).await.expect("an answer");
        assert!(matches!(told, Err(CoordinatorError::NotAvailable)), "{told:?}");
    }
    world.store.set(Fault::None);
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.member().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_waited_while_another_broker_coordinated_takes_nothing_back() {
    let there = World::new().await;
    let member = there.member().await;
    let held = there.store.claims.acquire_many(u32::try_from(PERMITS).expect("few")).await.expect("open");
    let here = World::over(there.store.clone()).await;
    let late = here.commit(member.as_str(), 1, 0, 7).await;
    tokio::task::yield_now().await;
    assert_eq!(there.commit(member.as_str(), 1, 0, 9).await.answer().await, Ok(vec![Ok(())]));
    here.come_anew();
    drop(held);
    assert_eq!(late.answer().await, Err(CoordinatorError::NotCoordinator));
    assert_eq!(here.committed(true).await, BTreeMap::from([(0, 9)]));
}

#[tokio::test(start_paused = true)]
async fn what_the_storage_has_lost_of_a_group_is_not_gone_on_with() {
    let world = World::new().await;
    let member = world.member().await;
    for offset in [7, 9] {
        world.commit(member.as_str(), 1, 0, offset).await.answer().await.expect("available");
    }
    world.store.lose_offsets("g");
    assert_eq!(world.committed(true).await, BTreeMap::from([(0, 9)]), "nobody has said that anything was lost");
    world.coordinator.load_again(|id| *id != group()).await;
    assert_eq!(world.committed(true).await, BTreeMap::from([(0, 9)]));
    world.coordinator.load_again(|id| *id == group()).await;
    assert_eq!(world.heartbeat(&member, 1).await, Ok(()));
    assert_eq!(world.committed(true).await, BTreeMap::new());
}
