//! The task of one group. It owns the group; nobody else touches it.
//!
//! At most one write is on its way to the storage. Commits that come meanwhile go together with the next one. Whatever
//! changes members waits until nothing is on its way, so a state that others see is one that is stored. If a write fails,
//! all that is in memory is dropped and loaded again: recovery is the only repair.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tracing::{debug, error, info, warn};

use super::{
    CoordinatorError, Shared,
    command::{Asked, Command, Reply, Results, give},
    store::{GroupEpoch, GroupWrite, Loaded, StoreError, WriteError},
    writer::Writer,
};
use crate::{
    groups::{
        CommittedOffset, Group, GroupError, Ticket, TopicPartition,
        classic::{Answer, JoinAnswer, Record, SyncAnswer},
    },
    model::{GroupId, TopicId, TopicName},
};

/// Offsets that may wait for the next write; then no more commands are taken.
const STAGED_OFFSETS: usize = 10_000;

/// Commits that may wait for the next write.
const STAGED_ANSWERS: usize = 1_000;

/// How long the task of a group that does not exist waits for somebody who is about to ask it something.
const LINGER: Duration = Duration::from_millis(100);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Gives an answer that had to wait for a write.
type Deliver = Box<dyn FnOnce() + Send>;

/// What goes into the next write, and the answers that wait for it.
#[derive(Default)]
struct Staged {
    record: Option<Record>,
    /// Of several commits of a partition the last one counts.
    offsets: BTreeMap<TopicPartition, Option<CommittedOffset>>,
    delete: bool,
    answers: Vec<Deliver>,
}

impl Staged {
    fn is_empty(&self) -> bool {
        self.record.is_none() && self.offsets.is_empty() && !self.delete
    }
}

/// A write on its way.
struct Underway {
    /// It changes more than offsets.
    moves_group: bool,
    offsets: BTreeMap<TopicPartition, Option<CommittedOffset>>,
    answers: Vec<Deliver>,
}

/// What the task waits for, besides commands and time.
enum Finished {
    Written(Result<GroupEpoch, WriteError>),
    Deleted(Result<(), WriteError>),
    Loaded(Result<Loaded, StoreError>),
    /// Another broker coordinates the group.
    NotOurs,
    Paused,
}

enum Parked {
    Join(Reply<JoinAnswer>),
    Sync(Reply<SyncAnswer>),
}

pub(super) struct Actor {
    id: GroupId,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Asked>,
    /// `None` where the broker stops already.
    writer: Option<Writer>,
    /// The epoch that this broker coordinated the group with when it loaded it last.
    coordinates_since: Arc<AtomicI32>,
    /// `None` while it has to be loaded again; `unavailable` says what is answered then.
    group: Option<Group>,
    unavailable: CoordinatorError,
    /// Nothing is known of the group yet: commands wait.
    first_load: bool,
    /// Another broker coordinates the group now.
    resigned: bool,
    pause: Duration,
    /// `None` for a group that is not stored.
    epoch: Option<GroupEpoch>,
    /// It was told that the group can't be stored.
    is_failing: bool,
    /// What was committed before the storage may have lost it, until the group is loaded again.
    doubtful: Vec<(TopicPartition, i64)>,
    /// What is being loaded may have been lost since.
    is_load_doubtful: bool,
    parked: HashMap<Ticket, Parked>,
    next_ticket: u64,
    staged: Staged,
    underway: Option<Underway>,
    work: Option<BoxFuture<'static, Finished>>,
    /// A command that waits until nothing is on its way; no other is taken meanwhile.
    stalled: Option<Command>,
    wake_at: Option<Instant>,
}

impl Actor {
    pub(super) fn new(
        id: GroupId,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Asked>,
        coordinates_since: Arc<AtomicI32>,
    ) -> Self {
        let mut actor = Self {
            id,
            writer: shared.writer.upgrade(),
            shared,
            commands,
            coordinates_since,
            group: None,
            unavailable: CoordinatorError::Loading,
            first_load: true,
            resigned: false,
            pause: FIRST_PAUSE,
            epoch: None,
            is_failing: false,
            doubtful: Vec::new(),
            is_load_doubtful: false,
            parked: HashMap::new(),
            next_ticket: 0,
            staged: Staged::default(),
            underway: None,
            work: None,
            stalled: None,
            wake_at: None,
        };
        actor.load(false);
        actor
    }

    pub(super) async fn run(mut self) {
        let stopping = self.shared.tasks.stopping().clone();
        let mut ends = false;
        loop {
            if self.resigned {
                self.resign();
                return;
            }
            if self.work.is_none() && self.staged.is_empty() {
                if let Some(command) = self.stalled.take() {
                    self.take(command);
                    continue;
                }
                if self.has_nothing_left() {
                    if self.shared.retire(&self.id, &self.commands) {
                        return;
                    }
                    self.wake_at = Some(Instant::now() + LINGER);
                }
            }
            if ends && self.commands.is_empty() && (self.work.is_none() || self.group.is_none()) {
                return;
            }
            if self.work.is_none() && !self.staged.is_empty() {
                self.write();
            }
            let at_rest = self.work.is_none();
            let accepts = self.stalled.is_none()
                && !self.first_load
                && self.staged.offsets.len() < STAGED_OFFSETS
                && self.staged.answers.len() < STAGED_ANSWERS;
            tokio::select! {
                biased;
                finished = finish(&mut self.work), if self.work.is_some() => {
                    self.work = None;
                    self.go_on(finished);
                }
                () = stopping.cancelled(), if !ends => ends = true,
                () = until(self.wake_at), if at_rest && self.wake_at.is_some() => self.time_passes(),
                command = self.commands.recv(), if accepts => match command {
                    // Each load looks at that itself, and there may be no rest before one succeeds.
                    Some(Asked { command: Command::Reconsider, .. }) if self.group.is_none() => {}
                    Some(Asked { command: Command::LoadAgain, .. }) if self.group.is_none() => {
                        self.is_load_doubtful = true;
                    }
                    Some(Asked { command: command @ (Command::Reconsider | Command::LoadAgain), .. }) => {
                        self.stalled = Some(command);
                    }
                    Some(Asked { command, under }) if self.is_outdated(under) => {
                        command.refuse(CoordinatorError::NotCoordinator);
                    }
                    Some(Asked { command, .. }) if command.needs_rest() && self.group.is_some() => {
                        self.stalled = Some(command);
                    }
                    Some(Asked { command, .. }) => self.take(command),
                    None => ends = true,
                },
            }
        }
    }

    /// The group does not exist and nobody waits for it.
    fn has_nothing_left(&self) -> bool {
        self.group.as_ref().is_some_and(|group| !group.exists()) && self.parked.is_empty()
    }

    /// Whether the group was loaded under another epoch than `under`.
    fn is_outdated(&self, under: Option<i32>) -> bool {
        self.group.is_some() && under != Some(self.since())
    }

    fn since(&self) -> i32 {
        self.coordinates_since.load(Ordering::Acquire)
    }

    fn take(&mut self, command: Command) {
        if let Command::Reconsider = command {
            match self.shared.cluster.coordinates(&self.id) {
                None => self.resigned = true,
                Some(epoch) if epoch == self.since() => {}
                Some(_) => self.drop_group(CoordinatorError::NotCoordinator, false),
            }
            return;
        }
        let Some(group) = &mut self.group else { return command.refuse(self.unavailable) };
        if let Command::LoadAgain = command {
            self.doubtful = group.offsets().iter().map(|(at, committed)| (at, committed.offset)).collect();
            return self.drop_group(CoordinatorError::NotAvailable, false);
        }
        let now = self.shared.now();
        let rests = command.needs_rest();
        match command {
            Command::Heartbeat(beat, reply) => {
                let answer = group.handle_heartbeat(&beat.member_id, beat.instance_id.as_ref(), beat.generation, now);
                give(reply, answer.map_err(CoordinatorError::Group));
            }
            Command::Commit(request, reply) => match group.handle_commit(*request, now) {
                Err(refused) => give(reply, Err(CoordinatorError::Group(refused))),
                Ok(outcome) if outcome.changes.is_empty() => give(reply, Ok(outcome.results)),
                Ok(outcome) => {
                    for (at, offset) in outcome.changes {
                        self.staged.offsets.insert(at, Some(offset));
                    }
                    self.staged.answers.push(Box::new(move || give(reply, Ok(outcome.results))));
                }
            },
            Command::Fetch(fetch, reply) => {
                let offsets = group.offsets();
                let found = match fetch.partitions {
                    Some(partitions) => partitions.into_iter().map(|at| (at, offsets.get(at).cloned())).collect(),
                    None => offsets.iter().map(|(at, offset)| (at, Some(offset.clone()))).collect(),
                };
                give(reply, Ok(found));
            }
            Command::Describe(reply) => give(reply, Ok(group.describe())),
            Command::Overview(reply) => give(reply, Ok(group.overview())),
            Command::Join(request, reply) => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                self.parked.insert(ticket, Parked::Join(reply));
                group.handle_join(*request, ticket, now);
            }
            Command::Sync(request, reply) => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                self.parked.insert(ticket, Parked::Sync(reply));
                group.handle_sync(*request, ticket, now);
            }
            Command::Leave(request, reply) => {
                let results = group.handle_leave(&request, now);
                self.staged.answers.push(Box::new(move || give(reply, Ok(results))));
            }
            Command::DeleteOffsets(partitions, reply) => self.delete_offsets(partitions, reply),
            Command::Delete(reply) => match group.check_delete() {
                Err(refused) => give(reply, Err(CoordinatorError::Group(refused))),
                Ok(()) => {
                    self.staged.delete = true;
                    self.staged.answers.push(Box::new(move || give(reply, Ok(()))));
                }
            },
            Command::TopicDeleted(topic, reply) => self.forget_topic(topic, reply),
            Command::Expire(reply) => self.expire(reply),
            Command::Reconsider | Command::LoadAgain => {}
        }
        self.stage_output();
        if rests {
            self.arm_timer();
        }
    }

    fn delete_offsets(&mut self, partitions: Vec<(TopicName, TopicPartition)>, reply: Reply<Results>) {
        let Some(group) = &self.group else { return };
        if let Err(refused) = group.check_delete_offsets() {
            return give(reply, Err(CoordinatorError::Group(refused)));
        }
        let mut results = Vec::with_capacity(partitions.len());
        for (name, at) in partitions {
            let result = group.check_delete_offsets_of(name.as_str());
            if result.is_ok() && group.offsets().get(at).is_some() {
                self.staged.offsets.insert(at, None);
            }
            results.push(result);
        }
        self.staged.answers.push(Box::new(move || give(reply, Ok(results))));
    }

    fn forget_topic(&mut self, topic: TopicId, reply: Reply<()>) {
        let Some(group) = &self.group else { return };
        for at in group.offsets().of_topic(topic) {
            self.staged.offsets.insert(at, None);
        }
        self.staged.answers.push(Box::new(move || give(reply, Ok(()))));
    }

    fn expire(&mut self, reply: Reply<()>) {
        let Some(group) = &self.group else { return };
        let topics = &self.shared.topics;
        let expiry = group.expired(self.shared.now(), &|id| topics.name_of(id).map(|name| name.to_string()));
        if expiry.group {
            info!(group = %self.id, "group has expired");
            self.staged.delete = true;
        } else if !expiry.offsets.is_empty() {
            debug!(group = %self.id, offsets = expiry.offsets.len(), "offsets have expired");
            self.staged.offsets.extend(expiry.offsets.into_iter().map(|at| (at, None)));
        }
        self.staged.answers.push(Box::new(move || give(reply, Ok(()))));
    }

    /// Answers what can be answered at once; the rest waits for the write that the group asks for.
    fn stage_output(&mut self) {
        let Some(group) = &mut self.group else { return };
        let output = group.take_output();
        if output.record.is_some() {
            self.staged.record = output.record;
        }
        for (ticket, answer) in output.answers {
            let deliver: Deliver = match (self.parked.remove(&ticket), answer) {
                (Some(Parked::Join(reply)), Answer::Join(answer)) => Box::new(move || give(reply, Ok(answer))),
                (Some(Parked::Sync(reply)), Answer::Sync(answer)) => Box::new(move || give(reply, Ok(answer))),
                (parked, answer) => {
                    let kind = parked.map(|parked| match parked {
                        Parked::Join(_) => "join",
                        Parked::Sync(_) => "sync",
                    });
                    error!(group = %self.id, ?ticket, ?answer, ?kind, "an answer fits no parked request");
                    continue;
                }
            };
            self.staged.answers.push(deliver);
        }
        if self.staged.is_empty() {
            self.staged.answers.drain(..).for_each(|deliver| deliver());
        }
    }

    fn write(&mut self) {
        let staged = std::mem::take(&mut self.staged);
        let (id, expected) = (self.id.clone(), self.epoch);
        let moves_group = staged.delete || staged.record.is_some();
        self.work = Some(match (staged.delete, expected) {
            (true, Some(expected)) => {
                let store = self.shared.store.clone();
                Box::pin(async move { Finished::Deleted(store.delete(&id, expected).await) })
            }
            // A group that is not stored has nothing to delete.
            (true, None) => Box::pin(async { Finished::Deleted(Ok(())) }),
            (false, expected) => {
                let offsets = staged.offsets.iter().map(|(at, offset)| (*at, offset.clone())).collect();
                let write = GroupWrite { expected, record: staged.record, offsets };
                let writer = self.writer.clone();
                Box::pin(async move {
                    Finished::Written(match writer {
                        Some(writer) => writer.write(id, write).await,
                        None => Err(StoreError::NotSent("the broker stops".to_owned()).into()),
                    })
                })
            }
        });
        self.underway = Some(Underway { moves_group, offsets: staged.offsets, answers: staged.answers });
    }

    fn go_on(&mut self, finished: Finished) {
        match finished {
            Finished::Written(Ok(epoch)) => {
                self.epoch = Some(epoch);
                if std::mem::take(&mut self.is_failing) {
                    info!(group = %self.id, "a group is stored again");
                }
                self.apply_underway();
            }
            Finished::Deleted(Ok(())) => {
                if let Some(group) = &self.group {
                    for (at, _) in group.offsets().iter() {
                        self.shared.mirror.note(&self.id, at, None);
                    }
                }
                self.group = Some(Group::absent(self.id.clone(), self.shared.settings.clone()));
                self.epoch = None;
                self.wake_at = None;
                self.apply_underway();
            }
            Finished::Written(Err(error)) | Finished::Deleted(Err(error)) => {
                self.tell_failure(&error);
                let nothing_happened =
                    matches!(error, WriteError::Storage(StoreError::NotSent(_) | StoreError::NotReady(_)));
                if nothing_happened && self.underway.as_ref().is_some_and(|underway| !underway.moves_group) {
                    // The group is as it was: only these commits are refused, by their closed channels.
                    self.underway = None;
                } else {
                    // Whoever else has written it may be its coordinator by now.
                    self.drop_group(CoordinatorError::NotAvailable, error == WriteError::Stale);
                }
            }
            Finished::NotOurs => self.resigned = true,
            Finished::Loaded(Ok(Loaded::Unreadable(reason))) => {
                error!(group = %self.id, reason, "what is stored of a group can't be read");
                self.load_later();
            }
            Finished::Loaded(Err(error)) => {
                debug!(group = %self.id, %error, "a group can't be loaded; retrying");
                self.load_later();
            }
            // Another broker may have coordinated the group while it was being loaded.
            Finished::Loaded(Ok(_)) if self.shared.cluster.coordinates(&self.id) != Some(self.since()) => {
                self.load(false)
            }
            Finished::Loaded(Ok(_)) if std::mem::take(&mut self.is_load_doubtful) => self.load(false),
            Finished::Loaded(Ok(loaded)) => {
                let settings = self.shared.settings.clone();
                let (group, epoch) = match loaded {
                    Loaded::Group(epoch, stored) => {
                        (Group::restore(self.id.clone(), settings, *stored, self.shared.now()), Some(epoch))
                    }
                    Loaded::Nothing | Loaded::Unreadable(_) => (Group::absent(self.id.clone(), settings), None),
                };
                self.first_load = false;
                self.tell_lost_offsets(&group);
                self.group = Some(group);
                self.epoch = epoch;
                self.unavailable = CoordinatorError::Loading;
                self.pause = FIRST_PAUSE;
                self.arm_timer();
            }
            Finished::Paused => self.load(false),
        }
    }

    fn tell_lost_offsets(&mut self, loaded: &Group) {
        for (at, committed) in std::mem::take(&mut self.doubtful) {
            let left = loaded.offsets().get(at).map(|left| left.offset);
            if left.is_none_or(|left| left < committed)
                && let Some(topic) = self.shared.topics.name_of(at.topic)
            {
                warn!(
                    group = %self.id, %topic, partition = at.partition, committed, ?left,
                    "Redis came back without a commit of a group: its consumers go on at the one before"
                );
            }
        }
    }

    fn apply_underway(&mut self) {
        let Some(underway) = self.underway.take() else { return };
        if let Some(group) = &mut self.group {
            for (at, offset) in underway.offsets {
                self.shared.mirror.note(&self.id, at, offset.as_ref().map(|offset| offset.offset));
                group.apply(at, offset);
            }
        }
        underway.answers.into_iter().for_each(|deliver| deliver());
    }

    fn tell_failure(&mut self, error: &WriteError) {
        if std::mem::replace(&mut self.is_failing, true) {
            debug!(group = %self.id, %error, "a group still can't be stored");
        } else {
            warn!(group = %self.id, %error, "a group can't be stored; its members try again");
        }
    }

    /// Forgets the group and loads it again. Commits that wait for it find their channel closed, which is an answer too.
    fn drop_group(&mut self, told: CoordinatorError, look_who_coordinates: bool) {
        self.forget(told);
        self.load(look_who_coordinates);
    }

    fn forget(&mut self, told: CoordinatorError) {
        self.group = None;
        self.epoch = None;
        for (_, parked) in self.parked.drain() {
            match parked {
                Parked::Join(reply) => give(reply, Err(told)),
                Parked::Sync(reply) => give(reply, Err(told)),
            }
        }
        self.staged = Staged::default();
        self.underway = None;
        self.wake_at = None;
        if let Some(command) = self.stalled.take() {
            command.refuse(told);
        }
    }

    /// Another broker coordinates the group: whoever waits is told, and the next request of it starts afresh.
    fn resign(&mut self) {
        debug!(group = %self.id, "another broker coordinates this group now");
        self.shared.groups.lock().remove(&self.id);
        self.forget(CoordinatorError::NotCoordinator);
        self.commands.close();
        while let Ok(Asked { command, .. }) = self.commands.try_recv() {
            command.refuse(CoordinatorError::NotCoordinator);
        }
    }

    fn load(&mut self, look_who_coordinates: bool) {
        let (shared, id, since) = (self.shared.clone(), self.id.clone(), self.coordinates_since.clone());
        self.work = Some(Box::pin(async move {
            let cluster = &shared.cluster;
            if look_who_coordinates {
                cluster.refreshed().await;
            }
            let Some(epoch) = cluster.coordinates(&id) else { return Finished::NotOurs };
            if !cluster.is_registered() {
                return Finished::Loaded(Err(StoreError::NotReady("this broker is not registered".to_owned())));
            }
            let _permit = shared.loads.acquire().await;
            since.store(epoch, Ordering::Release);
            let loaded = shared.store.claim(&id, Some(epoch).filter(|_| !cluster.is_always_alone())).await;
            if let Err(StoreError::FencedLeader(claimed)) = loaded {
                cluster.refused_group(&id, claimed);
            }
            Finished::Loaded(loaded)
        }));
    }

    fn load_later(&mut self) {
        self.first_load = false;
        self.unavailable = CoordinatorError::NotAvailable;
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        self.work = Some(Box::pin(async move {
            tokio::time::sleep(pause).await;
            Finished::Paused
        }));
    }

    fn time_passes(&mut self) {
        if let Some(group) = &mut self.group {
            group.handle_timeout(self.shared.now());
            self.stage_output();
        }
        self.arm_timer();
    }

    /// Sessions that are renewed only move later, so heartbeats leave the timer alone: it fires early and is set anew.
    fn arm_timer(&mut self) {
        let deadline = self.group.as_ref().and_then(Group::poll_timeout);
        self.wake_at = deadline.map(|deadline| self.shared.instant(deadline));
    }
}

async fn finish(work: &mut Option<BoxFuture<'static, Finished>>) -> Finished {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

pub(super) async fn until(wake_at: Option<Instant>) {
    match wake_at {
        Some(wake_at) => sleep_until(wake_at).await,
        None => std::future::pending().await,
    }
}

/// A channel that was closed without an answer: the group was dropped, or the broker stops.
pub(super) fn answered<T>(
    received: Result<Result<T, CoordinatorError>, oneshot::error::RecvError>,
) -> Result<T, CoordinatorError> {
    received.unwrap_or(Err(CoordinatorError::NotAvailable))
}

impl From<GroupError> for CoordinatorError {
    fn from(error: GroupError) -> Self {
        CoordinatorError::Group(error)
    }
}
