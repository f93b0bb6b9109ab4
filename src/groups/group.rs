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
