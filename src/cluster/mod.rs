//! The brokers that share this Redis: who is alive, and so who leads and coordinates what.
//!
//! [`View`] decides and is pure. [`Cluster`] keeps this broker registered and its view new. Nothing here protects data: Redis
//! compares epochs with every write. What it protects is what is answered from memory.

mod view;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

pub use view::{Broker, Endpoint, Leader, View};

use crate::model::{GroupId, NodeId, TopicId};

/// What this broker asks of the registry with each heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renewal {
    /// Brokers that have not renewed in time are declared gone.
    pub may_declare_gone: bool,
    /// Come with a new generation, above this one.
    pub anew_above: Option<i32>,
    /// The newest generation that this broker has heard of, so that none is given twice if Redis has lost it.
    pub known_generation: i32,
}

/// What the registry answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewed {
    Registered {
        view: View,
        /// When the next registration of another broker runs out, unless that broker renews it.
        next_expiry: Option<Duration>,
        /// The registration had run out, or was lost.
        had_lapsed: bool,
    },
    /// Another broker has this one's node id.
    Replaced,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegistryError {
    /// Others tell of the loss.
    #[error("the registry can't be reached")]
    Unreachable,
    #[error("{0}")]
    Failed(String),
}

/// Where brokers register: a written contract, implemented by `storage`. A registration runs out by itself.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// Renews this broker's registration for the session timeout, or makes it again where it is gone.
    async fn renew(&self, renewal: Renewal) -> Result<Renewed, RegistryError>;

    /// Takes this broker away at once. Returns who is left.
    async fn leave(&self) -> Result<View, RegistryError>;
}

#[derive(Clone, Debug)]
pub struct Options {
    pub node: NodeId,
    /// A broker that was not heard of for this long is gone (`broker.session.timeout.ms`).
    pub session_timeout: Duration,
    /// `broker.heartbeat.interval.ms`
    pub heartbeat_interval: Duration,
}

/// What the storage knows another leader or coordinator of than the view does.
#[derive(Clone, Debug)]
enum Led {
    Partition(TopicId, i32),
    Group(GroupId),
}

#[derive(Clone, Debug)]
struct Refused {
    what: Led,
    /// This one or a lower one can't go on.
    stored_epoch: i32,
}

/// This broker among the others.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    incarnation: String,
    view: ArcSwap<View>,
    /// Counts the views.
    changed: watch::Sender<u64>,
    origin: Instant,
    /// Until when this broker is registered for sure, in ms since `origin`.
    registered_until: AtomicU64,
    wanted: Notify,
    /// The number of the last renewal that was begun, and of the last that was done.
    begun: AtomicU64,
    done: watch::Sender<u64>,
    refused: Mutex<Option<Refused>>,
    /// The storage may have gone back.
    storage_replaced: AtomicBool,
}

impl Cluster {
    /// Knows of no broker before [`Cluster::keep_registered`].
    pub fn new(options: Options) -> Self {
        Self {
            options,
            incarnation: Uuid::new_v4().simple().to_string(),
            view: ArcSwap::default(),
            changed: watch::Sender::new(0),
            origin: Instant::now(),
            registered_until: AtomicU64::new(0),
            wanted: Notify::new(),
            begun: AtomicU64::new(0),
            done: watch::Sender::new(0),
            refused: Mutex::default(),
            storage_replaced: AtomicBool::new(false),
        }
    }

    /// A broker that has a storage for itself alone.
    pub fn alone(node: NodeId) -> Self {
        let options =
            Options { node, session_timeout: Duration::from_secs(2), heartbeat_interval: Duration::from_millis(500) };
        let cluster = Self::new(options);
        let this =
            Broker { node, incarnation: cluster.incarnation.clone(), joined: 0, rack: None, endpoints: Vec::new() };
        cluster.install(View { live: vec![this], ..View::default() });
        cluster.registered_until.store(u64::MAX, Ordering::Release);
        cluster
    }

    pub fn node(&self) -> NodeId {
        self.options.node
    }

    /// Unique to this run of the broker.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Names this run of this broker in what it leads.
    pub fn identity(&self) -> String {
        format!("{} {}", self.options.node, self.incarnation)
    }

    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Tells of each new view.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether this broker's registration holds. Where it does not, others may have taken over what this one led, and what is
    /// answered must be looked up.
    pub fn is_registered(&self) -> bool {
        self.since_origin(Instant::now()) < self.registered_until.load(Ordering::Acquire)
    }

    /// No other broker ever comes: see [`Cluster::alone`].
    pub fn is_always_alone(&self) -> bool {
        self.registered_until.load(Ordering::Acquire) == u64::MAX
    }

    /// The epoch that this broker leads a partition with.
    ///
    /// # Errors
    /// The epoch of the broker that leads it; -1 if none does.
    pub fn leads(&self, topic: TopicId, index: i32) -> Result<i32, i32> {
        match self.view.load().leader(topic, index) {
            Some(leader) if leader.broker.node == self.options.node => Ok(leader.epoch),
            Some(leader) => Err(leader.epoch),
            None => Err(-1),
        }
    }

    /// The epoch that this broker coordinates a group with; `None` where another does. What is in memory of an earlier epoch may
    /// be old: in between another broker may have coordinated the group.
    pub fn coordinates(&self, group: &GroupId) -> Option<i32> {
        let view = self.view.load();
        let leader = view.coordinator(group.as_str())?;
        (leader.broker.node == self.options.node).then_some(leader.epoch)
    }

    /// Whether there is a broker to hand over to.
    pub fn has_others(&self) -> bool {
        self.view.load().live.iter().any(|broker| broker.node != self.options.node)
    }

    /// Whether this broker may be gone for the others: what it led, another leads by now or soon, and clients must ask there.
    pub fn is_cut_off(&self) -> bool {
        self.was_cut_off_for(Duration::ZERO)
    }

    /// The same, and for at least this long.
    pub fn was_cut_off_for(&self, time: Duration) -> bool {
        let registered_until = self.registered_until.load(Ordering::Acquire);
        let is_over = Instant::now().checked_sub(time).is_some_and(|then| self.since_origin(then) >= registered_until);
        is_over && self.has_others()
    }

    /// Something may have changed in the registry: look now.
    pub fn look_again(&self) {
        self.wanted.notify_one();
    }

    /// A partition's state has `stored_epoch` of another leader, though the view says that this broker leads it.
    pub fn refused(&self, topic: TopicId, index: i32, stored_epoch: i32) {
        *self.refused.lock() = Some(Refused { what: Led::Partition(topic, index), stored_epoch });
        self.look_again();
    }

    /// A coordinator with this newer epoch has claimed a group, though the view says that this broker coordinates it.
    pub fn refused_group(&self, group: &GroupId, claimed_epoch: i32) {
        *self.refused.lock() = Some(Refused { what: Led::Group(group.clone()), stored_epoch: claimed_epoch });
        self.look_again();
    }

    /// The storage is another server, or has another history: what it has may be less than it had. This broker comes anew, so
    /// that every partition that it leads has a newer epoch, and every group that it coordinates is loaded again.
    pub fn storage_replaced(&self) {
        self.storage_replaced.store(true, Ordering::Release);
        self.look_again();
    }

    /// Waits until the view was read after this call, at most the session timeout. Cancel-safe.
    pub async fn refreshed(&self) {
        if self.is_always_alone() {
            return;
        }
        let mut done = self.done.subscribe();
        let wanted = self.begun.load(Ordering::Acquire) + 1;
        self.look_again();
        let renewed = done.wait_for(|done| *done >= wanted);
        let _ = tokio::time::timeout(self.options.session_timeout, renewed).await;
    }

    /// Keeps this broker registered and the view new until `leaving`, then takes the broker away. Returns early, with false,
    /// when another broker has taken the node id: this one must stop.
    pub async fn keep_registered(&self, registry: &dyn Registry, leaving: &CancellationToken) -> bool {
        let Options { node, session_timeout, heartbeat_interval } = self.options;
        let mut renewal = Renewal { may_declare_gone: true, ..Renewal::default() };
        // When all registrations ran out together (Redis stood still), everybody gets the time to come back.
        let mut lapsed_at: Option<Instant> = None;
        let mut is_warned = false;
        while !leaving.is_cancelled() {
            let began = Instant::now();
            let round = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
            renewal.known_generation = self.view.load().generation;
            renewal.may_declare_gone = lapsed_at.is_none_or(|at| began >= at + session_timeout);
            let mut pause = heartbeat_interval;
            match registry.renew(renewal).await {
                Ok(Renewed::Replaced) => {
                    error!(%node, "another broker has taken this node id; this one stops");
                    return false;
                }
                Ok(Renewed::Registered { view, next_expiry, had_lapsed }) => {
                    if had_lapsed {
                        lapsed_at = Some(Instant::now());
                    }
                    is_warned = false;
                    let is_replaced = self.storage_replaced.swap(false, Ordering::AcqRel);
                    renewal.anew_above = self.conflict(&view).max(is_replaced.then_some(view.generation));
                    // First the view: with the one from before a lapse, what is in memory would look current.
                    self.install(view);
                    self.registered_until.store(self.since_origin(began + session_timeout), Ordering::Release);
                    self.done.send_replace(round);
                    if renewal.anew_above.is_some() {
                        continue;
                    }
                    const AFTER_EXPIRY: Duration = Duration::from_millis(5);
                    pause = next_expiry.map_or(pause, |expiry| pause.min(expiry + AFTER_EXPIRY));
                }
                Err(error) => {
                    pause /= 4;
                    if error != RegistryError::Unreachable && !is_warned {
                        is_warned = true;
                        warn!(%error, "the broker's registration was not renewed");
                    }
                }
            }
            tokio::select! {
                () = leaving.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
        }
        match registry.leave().await {
            Ok(view) => self.install(view),
            Err(error) => warn!(%error, "the broker's registration stays until it expires"),
        }
        true
    }

    /// The generation to go above where Redis has forgotten one: a partition's state knows a newer epoch than the view.
    fn conflict(&self, view: &View) -> Option<i32> {
        let refused = self.refused.lock().take()?;
        let leader = match &refused.what {
            Led::Partition(topic, index) => view.leader(*topic, *index)?,
            Led::Group(group) => view.coordinator(group.as_str())?,
        };
        let is_behind = leader.broker.node == self.options.node && leader.epoch <= refused.stored_epoch;
        is_behind.then(|| {
            warn!(
                stored = refused.stored_epoch,
                known = view.generation,
                "the epoch of a partition or group can't go on: it was given before, or Redis has lost records of it; this broker comes anew above it"
            );
            refused.stored_epoch.max(view.generation)
        })
    }

    fn install(&self, view: View) {
        let known = self.view.load_full();
        if *known == view {
            return;
        }
        let nodes: Vec<i32> = view.live.iter().map(|broker| broker.node.0).collect();
        if known.live.len() > 1 || nodes.len() > 1 {
            info!(generation = view.generation, brokers = ?nodes, "the live brokers have changed");
        }
        self.view.store(Arc::new(view));
        self.changed.send_modify(|count| *count += 1);
    }

    /// What the registry would tell.
    #[cfg(test)]
    pub(crate) fn set_view(&self, view: View) {
        self.install(view);
    }

    fn since_origin(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
