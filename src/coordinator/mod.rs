//! The shell around `groups`: one task per live group; persist, then reply.

mod actor;
mod command;
mod mirror;
pub mod store;
mod writer;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};
use tracing::{error, info, warn};
use uuid::Uuid;

use actor::Actor;
use command::{Asked, Command, Reply};
pub use command::{Fetch, Fetched, Heartbeat, Results};
use mirror::Mirror;
use store::GroupStore;
use writer::WeakWriter;

use crate::{
    clock::Clock,
    cluster::Cluster,
    groups::{
        CommitRequest, GroupError, Moment, Overview, Settings, TopicPartition,
        classic::{Description, JoinAnswer, JoinRefusal, JoinRequest, LeaveRequest, SyncAnswer, SyncRequest},
    },
    model::{GroupId, GroupInstanceId, MemberId, NodeId, TopicId, TopicName},
    tasks::Tasks,
};

/// Why a request to a group fails.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CoordinatorError {
    #[error(transparent)]
    Group(GroupError),
    #[error("another broker coordinates the group")]
    NotCoordinator,
    /// The groups are being loaded.
    #[error("the groups are being loaded")]
    Loading,
    /// The storage failed, or the broker stops.
    #[error("the group is not available")]
    NotAvailable,
}

/// What the coordinator must know of topics: offsets are filed by topic id, clients subscribe by name.
pub trait TopicNames: Send + Sync + 'static {
    /// `None` for a topic that is gone.
    fn name_of(&self, topic: TopicId) -> Option<TopicName>;
}

#[derive(Clone, Debug)]
pub struct Options {
    pub settings: Settings,
    /// `offsets.retention.check.interval.ms`
    pub retention_check_interval: Duration,
    /// How often a group's offset of a partition is mirrored into Redis' native group, at most.
    pub mirror_interval: Duration,
    /// Requests that may wait for one group; then their connections wait.
    pub queued_requests: usize,
    /// Says which groups this broker coordinates.
    pub cluster: Arc<Cluster>,
}

impl Default for Options {
    /// Kafka's defaults where Kafka has one.
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            retention_check_interval: Duration::from_secs(600),
            mirror_interval: Duration::from_secs(1),
            queued_requests: 1_000,
            cluster: Arc::new(Cluster::alone(NodeId(0))),
        }
    }
}

/// Groups that are read from the storage at a time.
const CONCURRENT_LOADS: usize = 200;

/// What every group's task shares.
struct Shared {
    settings: Arc<Settings>,
    store: Arc<dyn GroupStore>,
    topics: Arc<dyn TopicNames>,
    tasks: Tasks,
    clock: Clock,
    origin: Instant,
    mirror: Mirror,
    writer: WeakWriter,
    queued_requests: usize,
    cluster: Arc<Cluster>,
    /// A load takes a permit.
    loads: Semaphore,
    groups: Mutex<HashMap<GroupId, Live>>,
    loaded: AtomicBool,
}

/// The way to a group's task.
#[derive(Clone)]
struct Live {
    commands: mpsc::Sender<Asked>,
    /// The epoch that this broker coordinated the group with when it was loaded last; -1 before that.
    coordinates_since: Arc<AtomicI32>,
}

impl Live {
    /// Whether what the task knows may be answered: no other broker can have coordinated the group since it was loaded.
    fn is_current(&self, epoch: Option<i32>) -> bool {
        epoch == Some(self.coordinates_since.load(Ordering::Acquire))
    }
}

impl Shared {
    fn now(&self) -> Moment {
        let since = Instant::now().duration_since(self.origin);
        Moment { monotonic_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX), wall_ms: self.clock.now_ms() }
    }

    fn instant(&self, monotonic_ms: i64) -> Instant {
        self.origin + Duration::from_millis(u64::try_from(monotonic_ms).unwrap_or(0))
    }

    /// Takes an absent group off the list, unless somebody is about to ask it something.
    fn retire(&self, id: &GroupId, commands: &mpsc::Receiver<Asked>) -> bool {
        let mut groups = self.groups.lock();
        // Whoever asks clones the list's sender under the lock: if there is no clone, there is nobody.
        if commands.sender_strong_count() > 1 || !commands.is_empty() {
            return false;
        }
        groups.remove(id);
        true
    }
}

/// An answer that follows.
#[derive(Debug)]
pub struct Pending<T>(oneshot::Receiver<Result<T, CoordinatorError>>);

impl<T> Pending<T> {
    pub async fn answer(self) -> Result<T, CoordinatorError> {
        actor::answered(self.0.await)
    }

    fn ready(answer: Result<T, CoordinatorError>) -> Self {
        let (sender, receiver) = oneshot::channel();
        let _ = sender.send(answer);
        Self(receiver)
    }
}

/// All groups. The methods hand a request to its group's task, in the order of their calls, and return the answer to wait for.
pub struct Coordinator {
    shared: Arc<Shared>,
}

impl Coordinator {
    /// Loads the groups that this broker coordinates in the background; until then requests are told so. Follows the brokers
    /// that come and go.
    pub fn start(
        options: Options,
        store: Arc<dyn GroupStore>,
        topics: Arc<dyn TopicNames>,
        clock: Clock,
        tasks: Tasks,
    ) -> Arc<Self> {
        let (writer, writes) = writer::queue();
        tasks.spawn("group-writes", writes.run(store.clone(), tasks.stopping().clone()));
        let shared = Arc::new(Shared {
            settings: Arc::new(options.settings),
            store,
            topics,
            tasks: tasks.clone(),
            clock,
            origin: Instant::now(),
            mirror: Mirror::default(),
            writer,
            queued_requests: options.queued_requests,
            cluster: options.cluster,
            loads: Semaphore::new(CONCURRENT_LOADS),
            groups: Mutex::default(),
            loaded: AtomicBool::new(false),
        });
        let coordinator = Arc::new(Self { shared: shared.clone() });
        tasks.spawn("groups", coordinator.clone().follow_groups(options.retention_check_interval));
        tasks.spawn("group-mirror", async move {
            let (store, topics) = (shared.store.clone(), shared.topics.clone());
            shared.mirror.run(store, topics, options.mirror_interval, shared.tasks.stopping().clone()).await;
        });
        coordinator
    }

    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Whether the groups have been loaded.
    pub fn is_ready(&self) -> bool {
        self.shared.loaded.load(Ordering::Acquire)
    }

    pub async fn join(&self, group: &GroupId, request: JoinRequest) -> Pending<JoinAnswer> {
        let settings = &self.shared.settings;
        let allowed = settings.min_session_timeout_ms..=settings.max_session_timeout_ms;
        let refused = if group.as_str().is_empty() {
            Some(GroupError::InvalidGroupId)
        } else if !allowed.contains(&request.session_timeout_ms) {
            Some(GroupError::InvalidSessionTimeout)
        } else {
            None
        };
        if let Some(error) = refused {
            return Pending::ready(Ok(Err(JoinRefusal { error, member_id: request.member_id })));
        }
        self.ask(group, |reply| Command::Join(Box::new(request), reply)).await
    }

    pub async fn sync(&self, group: &GroupId, request: SyncRequest) -> Pending<SyncAnswer> {
        if let Some(refused) = refuse_empty(group) {
            return refused;
        }
        self.ask(group, |reply| Command::Sync(Box::new(request), reply)).await
    }

    pub async fn heartbeat(&self, group: &GroupId, beat: Heartbeat) -> Pending<()> {
        if let Some(refused) = refuse_empty(group) {
            return refused;
        }
        // Promises nothing that another coordinator could break, so that members outlast a storage that is gone for a while.
        self.ask_even_unregistered(group, |reply| Command::Heartbeat(Box::new(beat), reply)).await
    }

    pub async fn leave(&self, group: &GroupId, request: LeaveRequest) -> Pending<Results> {
        if let Some(refused) = refuse_empty(group) {
            return refused;
        }
        self.ask(group, |reply| Command::Leave(request, reply)).await
    }

    pub async fn commit(&self, group: &GroupId, request: CommitRequest) -> Pending<Results> {
        self.ask(group, |reply| Command::Commit(Box::new(request), reply)).await
    }

    pub async fn fetch(&self, group: &GroupId, fetch: Fetch) -> Pending<Fetched> {
        self.ask(group, |reply| Command::Fetch(fetch, reply)).await
    }

    pub async fn delete_offsets(
        &self,
        group: &GroupId,
        partitions: Vec<(TopicName, TopicPartition)>,
    ) -> Pending<Results> {
        if let Some(refused) = refuse_empty(group) {
            return refused;
        }
        self.ask(group, |reply| Command::DeleteOffsets(partitions, reply)).await
    }

    /// The answer is `None` when there is no such group.
    pub async fn describe(&self, group: &GroupId) -> Pending<Option<Description>> {
        self.ask(group, Command::Describe).await
    }

    pub async fn delete(&self, group: &GroupId) -> Pending<()> {
        self.ask(group, Command::Delete).await
    }

    /// Every group that this broker coordinates.
    pub async fn list(&self) -> Result<Vec<(GroupId, Overview)>, CoordinatorError> {
        if !self.is_ready() {
            return Err(CoordinatorError::Loading);
        }
        let mut listed = Vec::new();
        for (id, asked) in self.ask_all(Command::Overview).await {
            match asked.answer().await {
                Ok(Some(overview)) => listed.push((id, overview)),
                // Its new coordinator lists it.
                Ok(None) | Err(CoordinatorError::NotCoordinator) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listed)
    }

    /// Forgets what groups committed for a topic that is gone.
    pub async fn topic_deleted(&self, topic: TopicId) {
        for (group, asked) in self.ask_all(|reply| Command::TopicDeleted(topic, reply)).await {
            if let Err(error) = asked.answer().await
                && error != CoordinatorError::NotCoordinator
            {
                warn!(%group, %topic, %error, "offsets of a deleted topic stay until the next retention check");
            }
        }
    }

    /// The storage may have lost what it had of the groups that `is_concerned` names: they are loaded again.
    pub async fn load_again(&self, is_concerned: impl Fn(&GroupId) -> bool) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let concerned: Vec<Live> = {
            let groups = self.shared.groups.lock();
            groups.iter().filter(|(id, _)| is_concerned(id)).map(|(_, live)| live.clone()).collect()
        };
        // One that has ended knows nothing, and one that takes no requests is being loaded, or written to a storage that fails.
        let asked = concerned.iter().map(|live| live.commands.send(Command::LoadAgain.under(None)));
        let _ = tokio::time::timeout(PATIENCE, join_all(asked)).await;
    }

    /// The periodic check of `offsets.retention.minutes`, at once.
    pub async fn expire_offsets(&self) {
        let asked = self.ask_all(Command::Expire).await;
        join_all(asked.into_iter().map(|(_, asked)| asked.answer())).await;
    }

    async fn ask<T>(&self, group: &GroupId, command: impl FnOnce(Reply<T>) -> Command) -> Pending<T> {
        if !self.shared.cluster.is_registered() {
            // Another broker may have taken the group over, and what is in memory may be old.
            return Pending::ready(Err(CoordinatorError::NotAvailable));
        }
        self.ask_even_unregistered(group, command).await
    }

    async fn ask_even_unregistered<T>(&self, group: &GroupId, command: impl FnOnce(Reply<T>) -> Command) -> Pending<T> {
        let (reply, answer) = oneshot::channel();
        let mut command = command(reply);
        loop {
            let epoch = self.shared.cluster.coordinates(group);
            let refusal = if epoch.is_none() {
                CoordinatorError::NotCoordinator
            } else if !self.is_ready() {
                CoordinatorError::Loading
            } else {
                let live = self.live(group);
                let sender = &live.commands;
                if !live.is_current(epoch) {
                    let _ = sender.send(Command::Reconsider.under(epoch)).await;
                }
                match sender.send(command.under(epoch)).await {
                    Ok(()) => return Pending(answer),
                    Err(mpsc::error::SendError(back)) => command = back.command,
                }
                if !self.shared.tasks.stopping().is_cancelled() {
                    self.forget_ended(group, sender);
                    continue;
                }
                CoordinatorError::NotAvailable
            };
            command.refuse(refusal);
            return Pending(answer);
        }
    }

    async fn ask_all<T>(&self, mut command: impl FnMut(Reply<T>) -> Command) -> Vec<(GroupId, Pending<T>)> {
        let ids: Vec<GroupId> = self.shared.groups.lock().keys().cloned().collect();
        let mut asked = Vec::with_capacity(ids.len());
        for id in ids {
            let pending = self.ask(&id, &mut command).await;
            asked.push((id, pending));
        }
        asked
    }

    /// The way to a group's task, which is started if there is none.
    fn live(&self, id: &GroupId) -> Live {
        let mut groups = self.shared.groups.lock();
        if let Some(live) = groups.get(id) {
            return live.clone();
        }
        let (sender, commands) = mpsc::channel(self.shared.queued_requests);
        let live = Live { commands: sender, coordinates_since: Arc::new(AtomicI32::new(-1)) };
        groups.insert(id.clone(), live.clone());
        let actor = Actor::new(id.clone(), self.shared.clone(), commands, live.coordinates_since.clone());
        self.shared.tasks.spawn("group", actor.run());
        live
    }

    fn forget_ended(&self, id: &GroupId, ended: &mpsc::Sender<Asked>) {
        let mut groups = self.shared.groups.lock();
        // One that resigned is not on the list any more.
        if groups.get(id).is_some_and(|live| live.commands.same_channel(ended)) {
            error!(group = %id, "a group's task has ended unasked; it is started again");
            groups.remove(id);
        }
    }

    /// Loads what this broker is to coordinate and lets go of the rest, whenever brokers come or go; expires offsets in between.
    async fn follow_groups(self: Arc<Self>, check_interval: Duration) {
        const FIRST_PAUSE: Duration = Duration::from_millis(50);
        const LONGEST_PAUSE: Duration = Duration::from_secs(2);
        let stopping = self.shared.tasks.stopping().clone();
        let mut views = self.shared.cluster.changes();
        let mut pause = FIRST_PAUSE;
        let mut next_check = Instant::now() + check_interval;
        loop {
            views.borrow_and_update();
            let is_known = !self.shared.cluster.view().live.is_empty();
            let mut retry_at = None;
            if is_known {
                match self.take_over().await {
                    Ok(()) => {
                        self.shared.loaded.store(true, Ordering::Release);
                        pause = FIRST_PAUSE;
                    }
                    Err(error) => {
                        warn!(%error, "groups can't be loaded; retrying");
                        retry_at = Some(Instant::now() + pause);
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
            let followed = async {
                loop {
                    tokio::select! {
                        changed = views.changed() => return changed.is_ok(),
                        () = actor::until(retry_at) => return true,
                        () = tokio::time::sleep_until(next_check), if retry_at.is_none() => {
                            self.expire_offsets().await;
                            next_check = Instant::now() + check_interval;
                        }
                    }
                }
            };
            if stopping.run_until_cancelled(followed).await != Some(true) {
                return;
            }
        }
    }

    /// Starts the tasks of this broker's groups, which load them, and ends those of the others'.
    async fn take_over(&self) -> Result<(), store::StoreError> {
        let began = Instant::now();
        let cluster = &self.shared.cluster;
        let known: Vec<_> = self.shared.groups.lock().iter().map(|(id, live)| (id.clone(), live.clone())).collect();
        for (_, live) in known.into_iter().filter(|(id, live)| !live.is_current(cluster.coordinates(id))) {
            // One that has ended has nothing to let go of.
            let _ = live.commands.send(Command::Reconsider.under(None)).await;
        }
        let mut count = 0_usize;
        for id in self.shared.store.list().await? {
            if cluster.coordinates(&id).is_some() {
                self.live(&id);
                count += 1;
            }
        }
        info!(groups = count, took = ?began.elapsed(), "this broker coordinates groups");
        Ok(())
    }
}

fn refuse_empty<T>(group: &GroupId) -> Option<Pending<T>> {
    group.as_str().is_empty().then(|| Pending::ready(Err(GroupError::InvalidGroupId.into())))
}

/// The id of a new member: Kafka's form, which tools show.
pub fn fresh_member_id(instance: Option<&GroupInstanceId>, client_id: &str) -> MemberId {
    let stem = instance.map_or(client_id, GroupInstanceId::as_str);
    MemberId::new(&format!("{stem}-{}", Uuid::new_v4()))
}

#[cfg(test)]
mod tests;
