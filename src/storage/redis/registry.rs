//! This broker among the live ones: a hash in Redis that expires unless it is renewed, and one hash that names all brokers.

use std::{collections::HashMap, fs, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue, Value};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};

use super::nodes::Nodes;
use crate::{
    clock::Clock,
    cluster::{self, Broker, Endpoint, Renewal, Renewed, View},
    log::store::StoreError,
    model::NodeId,
};

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error(
        "node id {node} belongs to a live broker at {address} on this Redis: give this one another with --node-id, or stop that one"
    )]
    Taken { node: NodeId, address: String },
    #[error(transparent)]
    Storage(#[from] StoreError),
}

/// Who registers.
#[derive(Clone, Debug)]
pub struct Identity {
    pub node: NodeId,
    /// Unique to this run of the broker.
    pub incarnation: String,
    pub rack: Option<String>,
    /// What clients are told, one for each listener.
    pub endpoints: Vec<Endpoint>,
    /// A broker that was not heard of for this long is gone.
    pub session_timeout: Duration,
    /// How often a broker is heard of at the least.
    pub heartbeat_interval: Duration,
}

/// A registered broker.
pub struct Registration {
    nodes: Nodes,
    clock: Clock,
    identity: Identity,
    /// The brokers that were alive when this one looked last.
    others: Mutex<Vec<NodeId>>,
}

enum Attempt {
    Registered,
    Held(Holder),
}

/// Who is registered under the same node id.
#[derive(PartialEq, Eq)]
struct Holder {
    incarnation: String,
    heartbeat: String,
    address: String,
    process: String,
}

/// What other brokers must know of a live one, as JSON.
#[derive(Serialize, Deserialize)]
struct Details {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rack: Option<String>,
    /// Listener, host, port.
    endpoints: Vec<(String, String, u16)>,
}

impl Registration {
    /// Registers this broker, at once if no live one has its node id. Where one was there a moment ago, waits until it is heard of
    /// again or its time has run out; one whose process on this machine is gone is replaced at once.
    pub async fn new(nodes: impl Into<Nodes>, clock: Clock, identity: Identity) -> Result<Self, RegistryError> {
        const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
        let registration = Self { nodes: nodes.into(), clock, identity, others: Mutex::default() };
        let first_time = Renewal::default();
        let Attempt::Held(first) = registration.attempt("", &first_time).await? else { return Ok(registration) };
        if has_ended(&first.process)
            && let Attempt::Registered = registration.attempt(&first.incarnation, &first_time).await?
        {
            return Ok(registration);
        }
        info!(node = %registration.identity.node, "a broker with this node id was here; waiting to see whether it lives");
        let deadline =
            Instant::now() + registration.identity.session_timeout + registration.identity.heartbeat_interval;
        loop {
            tokio::time::sleep(BETWEEN_LOOKS).await;
            match registration.attempt("", &first_time).await? {
                Attempt::Registered => return Ok(registration),
                Attempt::Held(holder) if holder == first && Instant::now() < deadline => {}
                Attempt::Held(holder) => {
                    return Err(RegistryError::Taken { node: registration.identity.node, address: holder.address });
                }
            }
        }
    }

    async fn attempt(&self, replaced: &str, renewal: &Renewal) -> Result<Attempt, StoreError> {
        let Identity { incarnation, endpoints, rack, .. } = &self.identity;
        let address_of = |endpoint: &Endpoint| match &endpoint.host {
            host if host.contains(':') => format!("[{host}]:{}", endpoint.port),
            host => format!("{host}:{}", endpoint.port),
        };
        let details = Details {
            rack: rack.clone(),
            endpoints: endpoints
                .iter()
                .map(|Endpoint { listener, host, port }| (listener.clone(), host.clone(), *port))
                .collect(),
        };
        let above = renewal.anew_above.unwrap_or(renewal.known_generation).max(renewal.known_generation);
        let mut call = self.call("weir_broker_register_v2", &[]);
        call.arg(self.identity.node.0).arg(incarnation).arg(replaced).arg(millis(self.identity.session_timeout));
        call.arg(if above > 0 { above.to_string() } else { String::new() });
        call.arg(if renewal.anew_above.is_some() { "anew" } else { "" });
        call.arg(serde_json::to_string(&details).expect("strings and numbers are always JSON"));
        call.arg("heartbeat").arg(self.clock.now_ms());
        call.arg("address").arg(endpoints.first().map(address_of).unwrap_or_default());
        call.arg("process").arg(this_process()).arg("version").arg(env!("CARGO_PKG_VERSION"));
        if let Some(rack) = rack {
            call.arg("rack").arg(rack);
        }
        for endpoint in endpoints {
            call.arg(format!("endpoint.{}", endpoint.listener)).arg(address_of(endpoint));
        }
        let held: Option<[Option<String>; 4]> = self.nodes.of(&self.nodes.keyspace().brokers()).query(&call).await?;
        Ok(match held.map(|fields| fields.map(Option::unwrap_or_default)) {
            None => Attempt::Registered,
            Some([incarnation, heartbeat, address, process]) => {
                Attempt::Held(Holder { incarnation, heartbeat, address, process })
            }
        })
    }

    /// A Function's call with this broker's keys, and those of `others`.
    fn call(&self, function: &str, others: &[NodeId]) -> Cmd {
        let keyspace = self.nodes.keyspace();
        let mut call = redis::cmd("FCALL");
        call.arg(function).arg(2 + others.len()).arg(keyspace.broker(self.identity.node)).arg(keyspace.brokers());
        for other in others {
            call.arg(keyspace.broker(*other));
        }
        call
    }

    /// The registration's state: what `weir_broker_renew_v2` answers.
    async fn renewed(&self, may_declare_gone: bool) -> Result<(i64, Option<Duration>, Option<View>), StoreError> {
        let others = self.others.lock().clone();
        let mut call = self.call("weir_broker_renew_v2", &others);
        call.arg(self.identity.node.0).arg(&self.identity.incarnation).arg(millis(self.identity.session_timeout));
        call.arg(self.clock.now_ms()).arg(if may_declare_gone { "bury" } else { "" });
        for other in &others {
            call.arg(other.0);
        }
        let answer: Vec<Value> = self.nodes.of(&self.nodes.keyspace().brokers()).query(&call).await?;
        let mut answer = answer.into_iter();
        let (word, soonest, all) = (answer.next(), answer.next(), answer.next());
        let Some(Value::Int(word)) = word else {
            return Err(StoreError::Refused("weir_broker_renew_v2 answered something else".to_owned()));
        };
        let soonest = match soonest {
            Some(Value::Int(soonest)) => u64::try_from(soonest).ok().map(Duration::from_millis),
            _ => None,
        };
        let view = all.map(|all| self.take_view(all)).transpose()?;
        Ok((word, soonest, view))
    }

    fn take_view(&self, all: Value) -> Result<View, StoreError> {
        let fields = HashMap::<String, String>::from_redis_value(all)
            .map_err(|error| StoreError::Refused(format!("the hash of all brokers can't be read: {error}")))?;
        let view = view(&fields);
        let others = view.live.iter().map(|broker| broker.node).filter(|node| *node != self.identity.node);
        *self.others.lock() = others.collect();
        Ok(view)
    }
}

#[async_trait]
impl cluster::Registry for Registration {
    async fn renew(&self, renewal: Renewal) -> Result<Renewed, cluster::RegistryError> {
        let mut had_lapsed = false;
        if renewal.anew_above.is_some()
            && let Attempt::Held(_) = self.attempt("", &renewal).await?
        {
            return Ok(Renewed::Replaced);
        }
        for _ in 0..4 {
            let known = self.others.lock().clone();
            match self.renewed(renewal.may_declare_gone && !had_lapsed).await? {
                (1, next_expiry, Some(view)) => {
                    // A broker that this one did not know may be dead: its registration must be looked at too.
                    if self.others.lock().iter().all(|other| known.contains(other)) {
                        return Ok(Renewed::Registered { view, next_expiry, had_lapsed });
                    }
                }
                (0, ..) => return Ok(Renewed::Replaced),
                // It ran out while Redis could not be reached, or Redis came back with less than it had.
                _ => {
                    had_lapsed = true;
                    if let Attempt::Held(_) = self.attempt("", &renewal).await? {
                        return Ok(Renewed::Replaced);
                    }
                }
            }
        }
        Err(cluster::RegistryError::Failed("the registration does not stay".to_owned()))
    }

    async fn leave(&self) -> Result<View, cluster::RegistryError> {
        let mut call = self.call("weir_broker_leave_v2", &[]);
        call.arg(self.identity.node.0).arg(&self.identity.incarnation);
        let all: Value = self.nodes.of(&self.nodes.keyspace().brokers()).query(&call).await?;
        Ok(self.take_view(all)?)
    }
}

impl From<StoreError> for cluster::RegistryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotSent(_) => Self::Unreachable,
            error => Self::Failed(error.to_string()),
        }
    }
}

/// The hash of all brokers. A field that can't be read is passed over, and said.
fn view(fields: &HashMap<String, String>) -> View {
    let number = |name: &str| fields.get(name).and_then(|value| value.parse().ok()).unwrap_or(0);
    let mut view = View { generation: number("generation"), floor: number("floor"), ..View::default() };
    for (field, value) in fields {
        let read = if let Some(node) = field.strip_prefix("live:") {
            live(node, value).map(|broker| view.live.push(broker))
        } else if let Some(node) = field.strip_prefix("left:") {
            node_id(node).zip(value.parse().ok()).map(|(node, left)| view.left.push((node, left)))
        } else {
            Some(())
        };
        if read.is_none() {
            warn!(field, value, "what Redis knows of a broker can't be read");
        }
    }
    view.live.sort_by_key(|broker| broker.node);
    view.left.sort_unstable();
    view
}

/// As brokers write it: another spelling would be the same broker twice.
fn node_id(text: &str) -> Option<NodeId> {
    let node: i32 = text.parse().ok()?;
    (node.to_string() == text).then_some(NodeId(node))
}

fn live(node: &str, value: &str) -> Option<Broker> {
    let mut parts = value.splitn(3, ' ');
    let (joined, incarnation, details) = (parts.next()?, parts.next()?, parts.next()?);
    let Details { rack, endpoints } = serde_json::from_str(details).ok()?;
    let endpoints = endpoints.into_iter().map(|(listener, host, port)| Endpoint { listener, host, port }).collect();
    Some(Broker {
        node: node_id(node)?,
        incarnation: incarnation.to_owned(),
        joined: joined.parse().ok()?,
        rack,
        endpoints,
    })
}

#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzzed(fields: &HashMap<String, String>) {
    let view = view(fields);
    assert!(view.live.windows(2).all(|two| two[0].node < two[1].node), "each node id once, in order");
    for broker in &view.live {
        assert_eq!(view.broker(broker.node), Some(broker));
    }
    let leaders = [view.leader(crate::model::TopicId(uuid::Uuid::nil()), i32::MAX), view.coordinator("group")];
    for leader in leaders {
        assert_eq!(leader.is_none(), view.live.is_empty());
        assert!(leader.is_none_or(|leader| leader.epoch >= leader.broker.joined));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Names this process so that another on the same machine can see whether it has ended: the boot, the process namespace, the
/// process' number and when it started. Empty where the system does not tell.
fn this_process() -> String {
    process_name(std::process::id()).unwrap_or_default()
}

fn process_name(pid: u32) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold blanks; the start time is the twentieth field after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // A process that has ended stays until its parent has heard of it.
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return None;
    }
    let started = fields.get(19)?;
    Some(format!("{} {} {pid} {started}", boot.trim(), namespace.display()))
}

/// Whether a process of this machine, boot and namespace has ended. False where that can't be known.
fn has_ended(process: &str) -> bool {
    let this = this_process();
    let (Some(theirs), Some(ours)) = (parts(process), parts(&this)) else { return false };
    if theirs[..2] != ours[..2] {
        return false;
    }
    theirs[2].parse().is_ok_and(|pid| process_name(pid).as_deref() != Some(process))
}

fn parts(process: &str) -> Option<[&str; 4]> {
    let mut words = process.split(' ');
    let parts = [words.next()?, words.next()?, words.next()?, words.next()?];
    words.next().is_none().then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cluster::Registry, model::TopicId, storage::redis::testing::TestRedis};

    const SESSION: Duration = Duration::from_millis(300);

    fn identity(node: i32, incarnation: &str) -> Identity {
        let endpoint = Endpoint { listener: "PLAINTEXT".to_owned(), host: "::1".to_owned(), port: 9092 };
        Identity {
            node: NodeId(node),
            incarnation: incarnation.to_owned(),
            rack: Some("zone a".to_owned()),
            endpoints: vec![endpoint],
            session_timeout: SESSION,
            heartbeat_interval: Duration::from_millis(100),
        }
    }

    async fn registered(redis: &TestRedis, node: i32, incarnation: &str) -> Registration {
        let client = redis.client().await;
        Registration::new(client, Clock::system(), identity(node, incarnation)).await.expect("nobody has its id")
    }

    async fn seen(registration: &Registration, may_declare_gone: bool) -> View {
        let renewal = Renewal { may_declare_gone, ..Renewal::default() };
        match registration.renew(renewal).await.expect("Redis is there") {
            Renewed::Registered { view, .. } => view,
            Renewed::Replaced => panic!("it was replaced"),
        }
    }

    fn joined(view: &View) -> Vec<(i32, i32)> {
        view.live.iter().map(|broker| (broker.node.0, broker.joined)).collect()
    }

    #[tokio::test]
    async fn brokers_see_each_other_with_all_that_clients_must_know() {
        let redis = TestRedis::start().await;
        let one = registered(&redis, 1, "a").await;
        let two = registered(&redis, 2, "b").await;
        let view = seen(&one, true).await;
        assert_eq!(view, seen(&two, true).await);
        assert_eq!(joined(&view), [(1, 0), (2, 1)]);
        let broker = view.broker(NodeId(2)).expect("live");
        assert_eq!((broker.rack.as_deref(), &broker.endpoints), (Some("zone a"), &identity(2, "b").endpoints));
    }

    #[tokio::test]
    async fn a_broker_that_leaves_is_gone_at_once_and_one_that_falls_silent_after_its_time() {
        let redis = TestRedis::start().await;
        let one = registered(&redis, 1, "a").await;
        let two = registered(&redis, 2, "b").await;
        let three = registered(&redis, 3, "c").await;
        assert_eq!(joined(&seen(&one, true).await).len(), 3);
        two.leave().await.expect("Redis is there");
        let view = seen(&one, true).await;
        assert_eq!((joined(&view), &view.left), (vec![(1, 0), (3, 2)], &vec![(NodeId(2), 3)]));
        let began = Instant::now();
        while joined(&seen(&one, true).await).len() > 1 {
            assert!(began.elapsed() < 10 * SESSION, "the silent one stays");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let view = seen(&one, true).await;
        assert_eq!(view.left, [(NodeId(2), 3), (NodeId(3), 4)]);
        // It comes back as another.
        assert_eq!(joined(&seen(&three, true).await), [(1, 0), (3, 5)]);
    }

    #[tokio::test]
    async fn brokers_whose_time_ran_out_while_redis_stood_still_are_still_who_they_were() {
        let redis = TestRedis::start().await;
        let one = registered(&redis, 1, "a").await;
        let two = registered(&redis, 2, "b").await;
        seen(&one, true).await;
        for node in [1, 2] {
            redis.command(&["DEL", &redis.keyspace().broker(NodeId(node))]).await;
        }
        assert_eq!(joined(&seen(&one, false).await), [(1, 0), (2, 1)]);
        assert_eq!(joined(&seen(&two, true).await), [(1, 0), (2, 1)]);
    }

    #[tokio::test]
    async fn where_redis_has_lost_its_memory_generations_go_on_above_the_newest_that_a_broker_knows() {
        let redis = TestRedis::start().await;
        let one = registered(&redis, 1, "a").await;
        redis.command(&["FLUSHALL"]).await;
        let renewal = Renewal { known_generation: 41, ..Renewal::default() };
        let Ok(Renewed::Registered { view, had_lapsed, .. }) = one.renew(renewal).await else { panic!("refused") };
        assert_eq!((joined(&view), had_lapsed), (vec![(1, 42)], true));
        let renewal = Renewal { anew_above: Some(60), known_generation: 42, ..Renewal::default() };
        let Ok(Renewed::Registered { view, .. }) = one.renew(renewal).await else { panic!("refused") };
        assert_eq!(joined(&view), [(1, 61)]);
    }

    #[tokio::test]
    async fn of_brokers_long_gone_only_the_newest_generation_is_kept() {
        let redis = TestRedis::start().await;
        let one = registered(&redis, 1, "a").await;
        for node in 2..=80 {
            registered(&redis, node, "x").await.leave().await.expect("Redis is there");
        }
        let view = seen(&one, true).await;
        assert_eq!((view.left.len(), view.floor), (64, 2 * 15));
        assert!(view.leader(TopicId::random(), 0).is_some_and(|leader| leader.epoch >= view.floor));
    }

    #[test]
    fn a_process_that_runs_has_not_ended() {
        assert!(!has_ended(&this_process()));
        assert!(!has_ended(""));
        assert!(!has_ended("another-boot pid:[1] 1 1"));
    }

    #[test]
    fn a_process_that_is_gone_or_another_by_now_has_ended() {
        let this = this_process();
        let [boot, namespace, pid, _] = parts(&this).expect("Linux tells");
        assert!(has_ended(&format!("{boot} {namespace} {pid} 1")), "the number is another process' by now");
        assert!(has_ended(&format!("{boot} {namespace} 4194305 1")), "above the largest number a process can have");
    }
}
