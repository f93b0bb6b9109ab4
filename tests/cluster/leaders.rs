//! Partitions whose leader comes, goes, dies or sleeps: nothing acknowledged is lost, nothing is stored twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProduceResponse,
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    },
};
use weir::{
    cluster::{Broker, View},
    model::{NodeId, TopicId},
};

use crate::{
    brokers::Cluster,
    client::{
        TOPIC, Writer, batch, create_topic, end_of_log, find_leader, leaders, metadata, produce_request, read_all,
        topic, try_call,
    },
    support::process::eventually,
};

/// The setting's default is two seconds; then clients look for the new leader.
const CARRIED_ON: Duration = Duration::from_secs(3);

/// So many that each of a few brokers leads some.
const PARTITIONS: i32 = 40;

/// Writers that go on until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Vec<Arc<AtomicU64>>,
    writers: Vec<thread::JoinHandle<Writer>>,
}

impl Load {
    fn on(cluster: &Cluster, partitions: impl IntoIterator<Item = i32>) -> Self {
        let mut load = Self { stop: Arc::default(), acknowledged: Vec::new(), writers: Vec::new() };
        for partition in partitions {
            let (writer, acknowledged) = (Writer::new(cluster.addresses(), partition), Arc::<AtomicU64>::default());
            load.acknowledged.push(acknowledged.clone());
            let stop = load.stop.clone();
            load.writers.push(thread::spawn(move || writer.write_until(&stop, &acknowledged)));
        }
        load
    }

    /// Waits until every writer has got on.
    fn gets_on(&self) {
        const RECORDS: u64 = 200;
        let before: Vec<u64> = self.counts();
        assert!(
            eventually(|| self.counts().iter().zip(&before).all(|(now, before)| *now >= before + RECORDS)),
            "a writer does not get on: {before:?}, {:?}",
            self.counts()
        );
    }

    fn counts(&self) -> Vec<u64> {
        self.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    fn end(self) -> Vec<Writer> {
        self.stop.store(true, Ordering::Relaxed);
        self.writers.into_iter().map(|writer| writer.join().expect("the writer's checks hold")).collect()
    }
}

/// A partition that `node` leads, with its epoch.
fn led_by(cluster: &Cluster, node: i32) -> (i32, i32) {
    let asked = cluster.brokers.last().expect("one");
    let led = leaders(&mut asked.connect());
    let found =
        led.iter().position(|(leader, _)| *leader == node).unwrap_or_else(|| panic!("{node} leads none: {led:?}"));
    (i32::try_from(found).expect("small"), led[found].1)
}

/// Every record that was acknowledged, once and in order.
fn assert_kept(cluster: &Cluster, partition: i32, writer: &Writer) {
    let read = read_all(&cluster.addresses(), partition);
    assert_eq!(read, (0..writer.written()).collect::<Vec<_>>());
}

#[test]
fn when_a_leader_is_killed_clients_carry_on_and_nothing_is_lost() {
    let mut cluster = Cluster::start(2);
    create_topic(&mut cluster.brokers[0].connect(), PARTITIONS);
    let (partition, old_epoch) = led_by(&cluster, 1);
    let load = Load::on(&cluster, [partition]);
    load.gets_on();
    cluster.broker(1).kill();
    load.gets_on();
    let writer = load.end().pop().expect("one");
    assert!(writer.longest_wait < CARRIED_ON, "{:?}", writer.longest_wait);
    assert_kept(&cluster, partition, &writer);

    let mut survivor = cluster.broker(2).connect();
    let epoch = leaders(&mut survivor)[partition as usize].1;
    assert!(epoch > old_epoch);
    let asked = OffsetForLeaderPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(epoch)
        .with_leader_epoch(old_epoch);
    let asked = OffsetForLeaderTopic::default().with_topic(topic()).with_partitions(vec![asked]);
    let request = OffsetForLeaderEpochRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
    let answer: OffsetForLeaderEpochResponse = survivor.call(ApiKey::OffsetForLeaderEpoch as i16, 4, &request);
    let told = &answer.topics[0].partitions[0];
    assert_eq!((told.error_code, told.leader_epoch), (0, old_epoch));
    assert!(told.end_offset > 0 && told.end_offset < i64::try_from(writer.written()).expect("small"));
}

#[test]
fn a_leader_that_wakes_up_stores_nothing_twice_and_answers_nothing_old() {
    let mut cluster = Cluster::start(2);
    create_topic(&mut cluster.brokers[0].connect(), PARTITIONS);
    let (partition, _) = led_by(&cluster, 1);
    let load = Load::on(&cluster, [partition]);
    load.gets_on();
    // Connected before, so that its requests lie in the sleeper's socket when it wakes up.
    let mut to_sleeper = cluster.broker(1).connect();
    assert!(end_of_log(&mut to_sleeper, partition).is_ok());
    cluster.broker(1).pause();
    let sleeper = cluster.broker(1).address;
    let stale = thread::spawn(move || {
        let request = produce_request(partition, batch(-1, 1_000_000, 3));
        try_call::<_, ProduceResponse>(sleeper, ApiKey::Produce, 9, &request)
    });
    load.gets_on();
    assert!(stale.join().expect("no panic").is_none(), "who sleeps answers nothing");
    let acknowledged = load.counts()[0];
    cluster.broker(1).wake();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(500) {
        match end_of_log(&mut to_sleeper, partition) {
            Ok(end) => {
                assert!(end >= i64::try_from(acknowledged).expect("small"), "{end} is older than {acknowledged}")
            }
            Err(code) => assert_eq!(code, ResponseError::NotLeaderOrFollower.code()),
        }
    }
    load.gets_on();
    let writer = load.end().pop().expect("one");
    assert!(writer.longest_wait < CARRIED_ON, "{:?}", writer.longest_wait);
    let read = read_all(&cluster.addresses(), partition);
    let ours: Vec<u64> = read.iter().copied().filter(|value| *value < 1_000_000).collect();
    assert_eq!(ours, (0..writer.written()).collect::<Vec<_>>());
    assert!(read.len() - ours.len() <= 3, "the request that slept was taken once at most");
}

#[test]
fn a_leader_that_is_cut_off_from_redis_stores_nothing_late_and_answers_nothing_old() {
    let mut cluster = Cluster::start(0);
    let link = cluster.join_by_link(1);
    cluster.join(2);
    cluster.until_known_by_all();
    create_topic(&mut cluster.brokers[0].connect(), PARTITIONS);
    let (partition, _) = led_by(&cluster, 1);
    let load = Load::on(&cluster, [partition]);
    load.gets_on();
    let mut to_the_cut_off = cluster.broker(1).connect();
    assert!(end_of_log(&mut to_the_cut_off, partition).is_ok());
    // The writer's next append is on its way, and stays there.
    link.hold();
    load.gets_on();
    let acknowledged = load.counts()[0];
    let asked = thread::spawn(move || {
        let told = end_of_log(&mut to_the_cut_off, partition);
        (to_the_cut_off, told)
    });
    load.gets_on();
    link.let_go();
    let (mut to_the_cut_off, first) = asked.join().expect("no panic");
    let began = Instant::now();
    let mut told = first;
    while began.elapsed() < Duration::from_millis(500) {
        match told {
            Ok(end) => {
                assert!(end >= i64::try_from(acknowledged).expect("small"), "{end} is older than {acknowledged}")
            }
            Err(code) => {
                assert!(ResponseError::try_from_code(code).is_some_and(|error| error.is_retriable()), "{code}")
            }
        }
        told = end_of_log(&mut to_the_cut_off, partition);
    }
    load.gets_on();
    let writer = load.end().pop().expect("one");
    assert!(writer.longest_wait < CARRIED_ON, "{:?}", writer.longest_wait);
    assert_kept(&cluster, partition, &writer);
}

#[test]
fn a_broker_that_comes_takes_over_only_what_becomes_its_own() {
    let mut cluster = Cluster::start(2);
    create_topic(&mut cluster.brokers[0].connect(), PARTITIONS);
    let mut connection = cluster.brokers[0].connect();
    let before = leaders(&mut connection);
    let id = TopicId(metadata(&mut connection, &[TOPIC]).topics[0].topic_id);
    let (moving, staying): (Vec<i32>, Vec<i32>) =
        (0..PARTITIONS).partition(|index| view_of([1, 2, 3]).leader(id, *index).expect("live").broker.node.0 == 3);
    let written: Vec<i32> = moving.iter().take(3).chain(staying.iter().take(3)).copied().collect();
    let load = Load::on(&cluster, written.iter().copied());
    load.gets_on();
    cluster.join(3);
    cluster.until_known_by_all();
    load.gets_on();
    let after = leaders(&mut cluster.brokers[0].connect());
    let writers = load.end();
    for (index, (before, after)) in (0..).zip(before.iter().zip(&after)) {
        if moving.contains(&index) {
            assert!(after.0 == 3 && after.1 > before.1, "{before:?} became {after:?}");
        } else {
            assert_eq!(after, before);
        }
    }
    for (partition, writer) in written.into_iter().zip(&writers) {
        assert!(moving.contains(&partition) || writer.failures == 0, "partition {partition} did not move");
        assert!(writer.longest_wait < Duration::from_secs(1), "{:?}", writer.longest_wait);
        assert_kept(&cluster, partition, writer);
    }
}

/// Brokers that have come in the order of their ids.
fn view_of(nodes: [i32; 3]) -> View {
    let broker = |node: i32| Broker {
        node: NodeId(node),
        incarnation: String::new(),
        joined: node - 1,
        rack: None,
        endpoints: Vec::new(),
    };
    View { generation: 2, live: nodes.map(broker).to_vec(), ..View::default() }
}

#[test]
fn a_rolling_restart_is_no_more_than_a_retry_to_clients() {
    let mut cluster = Cluster::start(3);
    create_topic(&mut cluster.brokers[0].connect(), 4);
    let load = Load::on(&cluster, 0..4);
    for node in 1..=3 {
        load.gets_on();
        cluster.broker(node).stop();
        load.gets_on();
        cluster.restart(node);
        cluster.until_known_by_all();
    }
    load.gets_on();
    for (partition, writer) in (0..).zip(load.end()) {
        assert!(writer.longest_wait < Duration::from_secs(1), "{:?}: nobody waits for a timeout", writer.longest_wait);
        assert_kept(&cluster, partition, &writer);
    }
}

#[test]
fn a_broker_that_starts_again_alone_leads_again_with_a_newer_epoch() {
    let mut cluster = Cluster::start(1);
    create_topic(&mut cluster.brokers[0].connect(), 1);
    let mut writer = Writer::new(cluster.addresses(), 0);
    writer.write(10);
    assert_eq!(leaders(&mut cluster.brokers[0].connect()), [(1, 0)]);
    cluster.broker(1).kill();
    let began = Instant::now();
    cluster.restart(1);
    writer.write(10);
    assert!(began.elapsed() < Duration::from_secs(2), "nobody waits for a dead process");
    let led = leaders(&mut cluster.brokers[0].connect());
    assert!(led[0].1 > 0, "{led:?}");
    assert_kept(&cluster, 0, &writer);
    assert_eq!(find_leader(&cluster.addresses(), 0), Some(cluster.brokers[0].address));
}
