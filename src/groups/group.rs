use std::sync::Arc;

use super::{
    CommitOutcome, CommitRequest, CommittedOffset, GroupError, Moment, Offsets, Settings, Ticket, TopicPartition,
    classic::{Answer, ClassicGroup, Description, JoinRefusal, JoinRequest, LeaveRequest, Record, State, SyncRequest},
};
use crate::model::{GroupId, GroupInstanceId, MemberId, TopicId};

/// A group as it was stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredGroup {
    pub record: Record,
    pub offsets: Offsets,
}

/// What came of the last calls. Answers must wait until `record`, if there is one, is stored.
#[derive(Clone, Debug, Default)]
pub struct Output {
    pub answers: Vec<(Ticket, Answer)>,
    pub record: Option<Record>,
}

/// What has outlived its time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expiry {
    pub offsets: Vec<TopicPartition>,
    /// Nothing is left: the group goes too.
    pub group: bool,
}

/// What ListGroups and the metrics tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    pub state: State,
    pub protocol_type: String,
    pub members: usize,
    pub generation: i32,
}

/// One group: its members and its offsets. Also stands for a group that does not exist, which answers as Kafka does for
/// one and comes into being with a join or a commit.
#[derive(Clone, Debug)]
pub struct Group {
    settings: Arc<Settings>,
    exists: bool,
    classic: ClassicGroup,
    offsets: Offsets,
}

impl Group {
    pub fn absent(id: GroupId, settings: Arc<Settings>) -> Self {
        Self { classic: ClassicGroup::new(id, settings.clone()), settings, exists: false, offsets: Offsets::default() }
    }

    pub fn restore(id: GroupId, settings: Arc<Settings>, stored: StoredGroup, now: Moment) -> Self {
        Self {
            classic: ClassicGroup::restore(id, settings.clone(), stored.record, now),
            settings,
            exists: true,
            offsets: stored.offsets,
        }
    }

    pub fn exists(&self) -> bool {
        self.exists
    }

    pub fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    pub fn take_output(&mut self) -> Output {
        let record = self.classic.take_must_store().then(|| self.classic.record());
        Output { answers: self.classic.take_answers(), record }
    }

    pub fn poll_timeout(&self) -> Option<i64> {
        self.classic.poll_timeout()
    }

    pub fn handle_timeout(&mut self, now: Moment) {
        self.classic.handle_timeout(now);
    }

    /// A member without an id creates the group, even if its join is then refused.
    pub fn handle_join(&mut self, request: JoinRequest, ticket: Ticket, now: Moment) {
        if !self.exists {
            if !request.member_id.as_str().is_empty() {
                let refusal = JoinRefusal { error: GroupError::UnknownMember, member_id: request.member_id };
                self.classic.answer(ticket, Answer::Join(Err(refusal)));
                return;
            }
            self.exists = true;
            self.classic.store_with_next_output();
        }
        self.classic.handle_join(request, ticket, now);
    }

    pub fn handle_sync(&mut self, request: SyncRequest, ticket: Ticket, now: Moment) {
        self.classic.handle_sync(request, ticket, now);
    }

    pub fn handle_heartbeat(
        &mut self,
        member: &MemberId,
        instance: Option<&GroupInstanceId>,
        generation: i32,
        now: Moment,
    ) -> Result<(), GroupError> {
        self.classic.handle_heartbeat(member, instance, generation, now)
    }

    /// One result for each member of the request, in order.
    pub fn handle_leave(&mut self, request: &LeaveRequest, now: Moment) -> Vec<Result<(), GroupError>> {
        if !self.exists {
            return request.members.iter().map(|_| Err(GroupError::UnknownMember)).collect();
        }
        self.classic.handle_leave(request, now)
    }

    /// Judges a commit. Its changes count once they are stored and [`Group::apply`] was called. They may create the group.
    pub fn handle_commit(&mut self, request: CommitRequest, now: Moment) -> Result<CommitOutcome, GroupError> {
        if self.exists {
            self.classic.check_commit(&request.member_id, request.instance_id.as_ref(), request.generation, now)?;
        } else if request.generation >= 0 {
            return Err(GroupError::GroupNotFound);
        }
        let outcome = request.judge(now.wall_ms, self.settings.offset_metadata_max_bytes);
        if !self.exists && !outcome.changes.is_empty() {
            self.exists = true;
            self.classic.store_with_next_output();
        }
        Ok(outcome)
    }

    /// Takes over an offset that has been stored, or removed.
    pub fn apply(&mut self, at: TopicPartition, offset: Option<CommittedOffset>) {
        match offset {
            Some(offset) => self.offsets.set(at, offset),
            None => self.offsets.remove(at),
        }
    }

    /// Whether offsets may be deleted at all; then asked for each topic by name.
    pub fn check_delete_offsets(&self) -> Result<(), GroupError> {
        if !self.exists {
            return Err(GroupError::GroupNotFound);
        }
        if self.classic.state() != State::Empty && !self.classic.is_consumer_protocol() {
            return Err(GroupError::NonEmptyGroup);
        }
        Ok(())
    }

    pub fn check_delete_offsets_of(&self, topic: &str) -> Result<(), GroupError> {
        if self.classic.is_subscribed_to(topic) { Err(GroupError::SubscribedToTopic) } else { Ok(()) }
    }

    pub fn check_delete(&self) -> Result<(), GroupError> {
        match (self.exists, self.classic.state()) {
            (false, _) => Err(GroupError::GroupNotFound),
            (true, State::Empty) => Ok(()),
            (true, _) => Err(GroupError::NonEmptyGroup),
        }
    }

    /// `None` when there is no such group.
    pub fn describe(&self) -> Option<Description> {
        self.exists.then(|| self.classic.describe())
    }

    pub fn overview(&self) -> Option<Overview> {
        self.exists.then(|| Overview {
            state: self.classic.state(),
            protocol_type: self.classic.protocol_type().unwrap_or_default().to_owned(),
            members: self.classic.member_count(),
            generation: self.classic.generation(),
        })
    }

    /// What the periodic check removes (KIP-211): offsets of a group without members some time after it became empty, of
    /// topics that a stable group of consumers no longer reads, of clients that commit without being members; offsets of
    /// topics that are gone; and a group that has neither members nor offsets.
    pub fn expired(&self, now: Moment, name_of: &dyn Fn(TopicId) -> Option<String>) -> Expiry {
        let mut expiry = Expiry::default();
        if !self.exists {
            return expiry;
        }
        let empty = self.classic.state() == State::Empty;
        let mut left = false;
        for (topic, partitions) in self.offsets.topics() {
            let name = name_of(topic);
            for (partition, offset) in partitions {
                let expired = match &name {
                    None => true,
                    Some(name) => !self.classic.is_subscribed_to(name) && self.has_expired(offset, now.wall_ms),
                };
                if expired {
                    expiry.offsets.push(TopicPartition { topic, partition: *partition });
                } else {
                    left = true;
                }
            }
        }
        expiry.group = empty && !left;
        expiry
    }

    fn has_expired(&self, offset: &CommittedOffset, now_ms: i64) -> bool {
        let since = match (self.classic.protocol_type(), self.classic.state()) {
            (None, _) => offset.commit_timestamp_ms,
            (Some(_), State::Empty) => self.classic.state_since_ms().unwrap_or(offset.commit_timestamp_ms),
            (Some(_), State::Stable) if self.classic.knows_subscribed_topics() => offset.commit_timestamp_ms,
            (Some(_), _) => return false,
        };
        match offset.expire_timestamp_ms {
            Some(expires) => now_ms >= expires,
            None => now_ms.saturating_sub(since) >= self.settings.offsets_retention_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::groups::{
        Commit,
        classic::{LeavingMember, Protocol},
    };

    const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
    /// A subscription, version 0, of the topic `t`.
    const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff";

    fn group() -> Group {
        Group::absent(GroupId::new("g"), Arc::new(Settings::default()))
    }

    fn now(days: i64) -> Moment {
        Moment { monotonic_ms: days * DAY_MS, wall_ms: 1_700_000_000_000 + days * DAY_MS }
    }

    fn topic(number: u128) -> TopicId {
        TopicId(Uuid::from_u128(number))
    }

    fn at(number: u128) -> TopicPartition {
        TopicPartition { topic: topic(number), partition: 0 }
    }

    fn commit(member: &str, generation: i32, metadata: &[&str]) -> CommitRequest {
        let offsets = metadata.iter().zip(1..).map(|(metadata, number)| Commit {
            partition: at(number),
            offset: 10,
            leader_epoch: -1,
            metadata: (*metadata).into(),
        });
        CommitRequest {
            member_id: MemberId::new(member),
            instance_id: None,
            generation,
            retention_ms: None,
            offsets: offsets.collect(),
        }
    }

    fn store(group: &mut Group, request: CommitRequest, now: Moment) {
        let outcome = group.handle_commit(request, now).expect("allowed");
        for (at, offset) in outcome.changes {
            group.apply(at, Some(offset));
        }
        group.take_output();
    }

    fn join(group: &mut Group, id: &str, fresh: &str, protocol_type: &str, now: Moment) -> Vec<(Ticket, Answer)> {
        let request = JoinRequest {
            member_id: MemberId::new(id),
            instance_id: None,
            fresh_id: MemberId::new(fresh),
            client_id: String::new(),
            client_host: String::new(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 10_000,
            protocol_type: protocol_type.to_owned(),
            protocols: vec![Protocol { name: "range".to_owned(), metadata: Bytes::from_static(SUBSCRIPTION) }],
            reason: None,
            member_id_required: false,
            can_skip_assignment: false,
        };
        group.handle_join(request, Ticket(1), now);
        group.take_output().answers
    }

    /// A stable group of one member `m` in generation 1.
    fn stable(protocol_type: &str, at: Moment) -> Group {
        let mut group = group();
        join(&mut group, "", "m", protocol_type, at);
        group.handle_timeout(Moment { monotonic_ms: at.monotonic_ms + 3_000, ..at });
        let sync = SyncRequest {
            member_id: MemberId::new("m"),
            instance_id: None,
            generation: 1,
            protocol_type: None,
            protocol: None,
            assignments: Vec::new(),
        };
        group.handle_sync(sync, Ticket(2), at);
        assert!(group.take_output().record.is_some());
        group
    }

    fn leave(group: &mut Group, now: Moment) {
        let members = vec![LeavingMember { id: MemberId::new("m"), instance_id: None, reason: None }];
        assert_eq!(group.handle_leave(&LeaveRequest { members }, now), [Ok(())]);
        group.take_output();
    }

    /// `t` has number 1, `u` 2; others are gone.
    fn names(id: TopicId) -> Option<String> {
        [(topic(1), "t"), (topic(2), "u")].iter().find(|(known, _)| *known == id).map(|(_, name)| (*name).to_owned())
    }

    #[test]
    fn a_group_that_does_not_exist_answers_as_kafka_does_for_one() {
        let mut group = group();
        let member = MemberId::new("m");
        assert_eq!(group.handle_heartbeat(&member, None, 1, now(0)), Err(GroupError::UnknownMember));
        let members = vec![LeavingMember { id: member.clone(), instance_id: None, reason: None }];
        assert_eq!(group.handle_leave(&LeaveRequest { members }, now(0)), [Err(GroupError::UnknownMember)]);
        assert_eq!(group.handle_commit(commit("m", 1, &[""]), now(0)).err(), Some(GroupError::GroupNotFound));
        assert_eq!(group.check_delete(), Err(GroupError::GroupNotFound));
        assert_eq!(group.check_delete_offsets(), Err(GroupError::GroupNotFound));
        assert_eq!((group.describe(), group.overview()), (None, None));
        let answers = join(&mut group, "m", "fresh", "consumer", now(0));
        let refusal = JoinRefusal { error: GroupError::UnknownMember, member_id: member };
        assert_eq!(answers, [(Ticket(1), Answer::Join(Err(refusal)))]);
        assert!(!group.exists());
        assert_eq!(group.expired(now(0), &names), Expiry::default());
    }

    #[test]
    fn a_member_without_an_id_creates_the_group_even_when_it_is_refused() {
        let mut group = group();
        let answers = join(&mut group, "", "m", "", now(0));
        assert_eq!(answers.len(), 1);
        assert_eq!(group.overview().map(|overview| overview.state), Some(State::Empty));
        assert_eq!(group.expired(now(0), &names), Expiry { offsets: Vec::new(), group: true });
    }

    #[test]
    fn a_commit_without_membership_creates_a_group_without_a_type() {
        let mut group = group();
        let outcome = group.handle_commit(commit("", -1, &["", "x"]), now(0)).expect("allowed");
        assert_eq!((outcome.results.len(), outcome.changes.len()), (2, 2));
        assert!(group.take_output().record.is_some(), "the group is stored with its first offsets");
        assert_eq!(group.overview().map(|overview| overview.protocol_type), Some(String::new()));
        assert!(group.offsets().is_empty(), "an offset counts once it is stored");
    }

    #[test]
    fn metadata_is_measured_as_java_measures_it_and_refused_one_by_one() {
        let settings = Settings { offset_metadata_max_bytes: 4, ..Settings::default() };
        let mut group = Group::absent(GroupId::new("g"), Arc::new(settings));
        let long = group.handle_commit(commit("", -1, &["12345"]), now(0)).expect("judged");
        assert_eq!(long.results, [Err(GroupError::OffsetMetadataTooLarge)]);
        assert!(!group.exists() && group.take_output().record.is_none(), "nothing to store creates no group");
        let mixed = group.handle_commit(commit("", -1, &["üüüü", "😀😀", "😀😀x"]), now(0)).expect("judged");
        assert_eq!(mixed.results, [Ok(()), Ok(()), Err(GroupError::OffsetMetadataTooLarge)]);
        assert_eq!(mixed.changes.len(), 2);
    }

    #[test]
    fn offsets_of_clients_without_membership_expire_after_their_commit() {
        let mut group = group();
        store(&mut group, commit("", -1, &["", ""]), now(0));
        store(&mut group, commit("", -1, &[""]), now(3));
        assert_eq!(group.expired(now(6), &names), Expiry::default());
        assert_eq!(group.expired(now(7), &names), Expiry { offsets: vec![at(2)], group: false });
        assert_eq!(group.expired(now(10), &names), Expiry { offsets: vec![at(1), at(2)], group: true });
    }

    #[test]
    fn a_retention_that_the_client_asked_for_counts_instead() {
        let mut group = group();
        store(&mut group, CommitRequest { retention_ms: Some(DAY_MS), ..commit("", -1, &[""]) }, now(0));
        assert_eq!(group.expired(Moment { wall_ms: now(1).wall_ms - 1, ..now(1) }, &names), Expiry::default());
        assert_eq!(group.expired(now(1), &names), Expiry { offsets: vec![at(1)], group: true });
    }

    #[test]
    fn offsets_of_an_empty_group_expire_some_time_after_it_became_empty() {
        let mut group = stable("consumer", now(0));
        store(&mut group, commit("m", 1, &["", ""]), now(0));
        leave(&mut group, now(5));
        assert_eq!(group.expired(now(11), &names), Expiry::default());
        assert_eq!(group.expired(now(12), &names), Expiry { offsets: vec![at(1), at(2)], group: true });
    }

    #[test]
    fn a_stable_group_of_consumers_keeps_the_offsets_of_its_topics_only() {
        let mut group = stable("consumer", now(0));
        store(&mut group, commit("m", 1, &["", ""]), now(0));
        assert_eq!(group.expired(now(6), &names), Expiry::default());
        assert_eq!(group.expired(now(7), &names), Expiry { offsets: vec![at(2)], group: false });
        group.apply(at(1), None);
        group.apply(at(2), None);
        assert_eq!(group.expired(now(99), &names), Expiry::default(), "it has members");
    }

    #[test]
    fn other_groups_with_members_keep_everything() {
        let mut group = stable("connect", now(0));
        store(&mut group, commit("m", 1, &["", ""]), now(0));
        assert_eq!(group.expired(now(99), &names), Expiry::default());
    }

    #[test]
    fn offsets_of_topics_that_are_gone_go_at_once() {
        let mut group = group();
        store(&mut group, commit("", -1, &["", "", ""]), now(0));
        assert_eq!(group.expired(now(0), &names), Expiry { offsets: vec![at(3)], group: false });
    }

    #[test]
    fn offsets_that_a_group_reads_can_not_be_deleted() {
        let mut group = stable("consumer", now(0));
        assert_eq!(group.check_delete_offsets(), Ok(()));
        assert_eq!(group.check_delete_offsets_of("t"), Err(GroupError::SubscribedToTopic));
        assert_eq!(group.check_delete_offsets_of("u"), Ok(()));
        assert_eq!(group.check_delete(), Err(GroupError::NonEmptyGroup));
        leave(&mut group, now(0));
        assert_eq!(group.check_delete_offsets_of("t"), Ok(()));
        assert_eq!(group.check_delete(), Ok(()));
        assert_eq!(stable("connect", now(0)).check_delete_offsets(), Err(GroupError::NonEmptyGroup));
    }

    #[test]
    fn a_group_is_restored_with_its_offsets() {
        let mut group = stable("consumer", now(0));
        store(&mut group, commit("m", 1, &["a"]), now(0));
        let stored = StoredGroup { record: group.classic.record(), offsets: group.offsets().clone() };
        let restored = Group::restore(GroupId::new("g"), Arc::new(Settings::default()), stored, now(1));
        assert_eq!(restored.offsets(), group.offsets());
        assert_eq!(restored.describe(), group.describe());
        assert_eq!(restored.poll_timeout(), Some(now(1).monotonic_ms + 10_000));
    }
}
