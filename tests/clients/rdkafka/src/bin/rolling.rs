//! librdkafka (the `rdkafka` crate) while brokers restart; what it prints is described in the README of the clients.

use std::collections::HashSet;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use std::{env, io};

use futures::executor::block_on;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

const COMMIT_EVERY: Duration = Duration::from_millis(300);

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is given"))
}

fn number(name: &str) -> u32 {
    variable(name).parse().expect("a number")
}

fn tell(what: &str) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    println!("{} {}", now.as_millis(), what.replace('\n', " "));
}

fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", variable("BOOTSTRAP"));
    config
}

/// What librdkafka tells of and mends by itself: its documentation asks applications to take no notice.
fn is_informational(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut
    )
}

fn tell_error(who: &str, error: &KafkaError) {
    let kind = if error.rdkafka_error_code().is_some_and(is_informational) { "note" } else { "error" };
    tell(&format!("{kind} {who} {error}"));
}

/// What both sides know.
#[derive(Default)]
struct Shared {
    delivered: Mutex<HashSet<(i32, i64)>>,
    acknowledged: AtomicUsize,
    is_ready: AtomicBool,
    is_produced: AtomicBool,
}

impl Shared {
    fn is_done(&self) -> bool {
        self.is_produced.load(Ordering::SeqCst)
            && self.delivered.lock().expect("delivered").len() >= self.acknowledged.load(Ordering::SeqCst)
    }
}

struct Deliveries(Arc<Shared>);

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        tell_error(&format!("producer {reason}:"), &error);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, sequence: Box<u64>) {
        match result {
            Ok(message) => {
                self.0.acknowledged.fetch_add(1, Ordering::SeqCst);
                tell(&format!("ack {sequence} {} {}", message.partition(), message.offset()));
            }
            Err((error, _)) => tell(&format!("error producer {sequence} {error}")),
        }
    }
}

struct Membership {
    name: &'static str,
    held: Arc<AtomicUsize>,
}

impl ClientContext for Membership {
    fn error(&self, error: KafkaError, reason: &str) {
        tell_error(&format!("{} {reason}:", self.name), &error);
    }
}

impl ConsumerContext for Membership {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let (what, list) = match rebalance {
            Rebalance::Assign(list) => ("assigned", list),
            Rebalance::Revoke(list) => ("revoked", list),
            Rebalance::Error(error) => return tell(&format!("error {} {error}", self.name)),
        };
        let mut partitions: Vec<_> = list.elements().iter().map(|element| element.partition().to_string()).collect();
        partitions.sort_unstable();
        if !partitions.is_empty() {
            tell(&format!("{what} {} {}", self.name, partitions.join(",")));
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let held = if let Rebalance::Assign(list) = rebalance { list.count() } else { 0 };
        self.held.store(held, Ordering::SeqCst);
    }
}

fn share(name: &'static str, held: Arc<AtomicUsize>, shared: &Shared) {
    let consumer: BaseConsumer<Membership> = config()
        .set("group.id", variable("GROUP"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "200")
        .create_with_context(Membership { name, held })
        .expect("a consumer");
    consumer.subscribe(&[&variable("TOPIC")]).expect("subscribe");
    let commit = || match consumer.commit_consumer_state(CommitMode::Sync) {
        // Nothing new to commit.
        Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
        Err(error) => tell(&format!("error {name} committing: {error}")),
    };
    let mut committed = Instant::now();
    while !shared.is_done() {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(error)) => tell_error(name, &error),
            Some(Ok(message)) => {
                let value = message.payload_view::<str>().expect("a value").expect("text");
                let sequence = value.split_once(':').expect("a sequence number").0;
                tell(&format!("read {name} {} {} {sequence}", message.partition(), message.offset()));
                shared.delivered.lock().expect("delivered").insert((message.partition(), message.offset()));
            }
        }
        if shared.is_ready.load(Ordering::SeqCst) && committed.elapsed() > COMMIT_EVERY {
            commit();
            committed = Instant::now();
        }
    }
    commit();
    tell(&format!("finished {name}"));
}

fn produce(partitions: i32, patience: Duration, shared: &Arc<Shared>, finishing: &AtomicBool) {
    let producer: ThreadedProducer<Deliveries> =
        config().set("enable.idempotence", "true").create_with_context(Deliveries(shared.clone())).expect("a producer");
    let (topic, padding) = (variable("TOPIC"), "x".repeat(100));
    let interval = Duration::from_secs(1) / number("RATE");
    let (began, mut sequence) = (Instant::now(), 0_u64);
    while !finishing.load(Ordering::SeqCst) {
        let value = format!("{sequence}:{padding}");
        let partition = i32::try_from(sequence).expect("few records") % partitions;
        let record =
            BaseRecord::<(), str, _>::with_opaque_to(&topic, Box::new(sequence)).partition(partition).payload(&value);
        if let Err((error, _)) = producer.send(record) {
            tell(&format!("error producer {sequence} {error}"));
        }
        sequence += 1;
        let due = began + interval * u32::try_from(sequence).expect("few records");
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    producer.flush(patience).expect("everything is acknowledged");
}

fn main() {
    let partitions = number("PARTITIONS");
    let half = usize::try_from(partitions / 2).expect("few partitions");
    let patience = Duration::from_secs(u64::from(number("PATIENCE")));
    let partitions = i32::try_from(partitions).expect("few partitions");
    let admin: AdminClient<DefaultClientContext> = config().create().expect("an admin client");
    let topic = variable("TOPIC");
    let topic = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
    let created = block_on(admin.create_topics([&topic], &AdminOptions::new())).expect("create");
    assert!(created.iter().all(Result::is_ok), "{created:?}");

    let shared = Arc::new(Shared::default());
    let members = ["one", "two"].map(|name| {
        let (held, shared) = (Arc::<AtomicUsize>::default(), shared.clone());
        let thread = thread::spawn({
            let held = held.clone();
            move || share(name, held, &shared)
        });
        (held, thread)
    });
    while members.iter().any(|(held, _)| held.load(Ordering::SeqCst) != half) {
        thread::sleep(Duration::from_millis(10));
    }
    tell("ready");
    shared.is_ready.store(true, Ordering::SeqCst);
    let finishing = Arc::new(AtomicBool::new(false));
    thread::spawn({
        let finishing = finishing.clone();
        move || {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            finishing.store(true, Ordering::SeqCst);
        }
    });
    produce(partitions, patience, &shared, &finishing);
    tell(&format!("produced {}", shared.acknowledged.load(Ordering::SeqCst)));
    shared.is_produced.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline && !members.iter().all(|(_, thread)| thread.is_finished()) {
        thread::sleep(Duration::from_millis(10));
    }
    if !members.iter().all(|(_, thread)| thread.is_finished()) {
        let (read, sent) =
            (shared.delivered.lock().expect("delivered").len(), shared.acknowledged.load(Ordering::SeqCst));
        tell(&format!("error members have read {read} of {sent} records"));
    }
}
