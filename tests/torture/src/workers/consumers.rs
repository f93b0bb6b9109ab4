//! Consumers: alone, and as members of a group.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI32, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
    topic_partition_list::Offset,
};

use super::{Worker, name_of};
use crate::history::{Kind, Operation, PartitionName};

const WAIT: Duration = Duration::from_millis(100);
const BETWEEN_COMMITS: Duration = Duration::from_millis(300);

/// The next offset of each partition that is read.
type Positions = BTreeMap<(String, i32), i64>;

/// Records of a partition that follow each other, the first of them at an offset.
type RecordRun = (String, i32, i64, Vec<(String, u64)>);

struct Reading {
    worker: Arc<Worker>,
    state: Mutex<State>,
    /// Of the last answer to JoinGroup; none comes before what it assigned is taken.
    generation: AtomicI32,
}

#[derive(Default)]
struct State {
    positions: Positions,
    /// Partitions that were got, also those of which nothing was read.
    held: Vec<(String, i32)>,
    committed: Positions,
    /// Records that were read and are not in the history yet.
    run: Option<RecordRun>,
}

impl Reading {
    fn take(&self, message: &BorrowedMessage<'_>) -> Result<(), String> {
        let (topic, partition, offset) = (message.topic().to_owned(), message.partition(), message.offset());
        let identity = message.payload().and_then(identity_of);
        let identity = identity.ok_or_else(|| format!("{topic}/{partition} has a foreign record at {offset}"))?;
        let mut state = self.state.lock().expect("no panic");
        state.positions.insert((topic.clone(), partition), offset + 1);
        let goes_on = state.run.as_ref().is_some_and(|(of, index, first, records)| {
            let next = first + i64::try_from(records.len()).expect("few");
            *of == topic && *index == partition && next == offset && records.len() < 500
        });
        if !goes_on {
            self.write_run(&mut state);
            state.run = Some((topic, partition, offset, Vec::new()));
        }
        state.run.as_mut().expect("just made").3.push(identity);
        Ok(())
    }

    fn write_run(&self, state: &mut State) {
        if let Some((topic, partition, offset, records)) = state.run.take() {
            let partition = name_of(&topic, partition);
            self.worker.recorder.record(Kind::Ok, Operation::Read { partition, offset, records });
        }
    }

    fn write(&self) {
        self.write_run(&mut self.state.lock().expect("no panic"));
    }

    /// Commits what was read since the last time.
    fn commit<C: Consumer<Self>>(&self, consumer: &C) -> bool {
        let positions = {
            let mut state = self.state.lock().expect("no panic");
            self.write_run(&mut state);
            if state.positions == state.committed {
                return true;
            }
            state.positions.clone()
        };
        let mut list = TopicPartitionList::new();
        for ((topic, partition), offset) in &positions {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).expect("a legal offset");
        }
        let named = |((topic, partition), offset): (&(String, i32), &i64)| (name_of(topic, *partition), *offset);
        let offsets: BTreeMap<PartitionName, i64> = positions.iter().map(named).collect();
        let invoke = Operation::Commit { offsets: offsets.clone(), error: None };
        self.worker.recorder.record(Kind::Invoke, invoke);
        let (kind, error) = match consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => (Kind::Ok, None),
            // Also where it is refused: a try before that, whose answer was lost, may have counted.
            Err(error) => (Kind::Info, Some(error.to_string())),
        };
        self.worker.recorder.record(kind, Operation::Commit { offsets, error });
        if kind == Kind::Ok {
            self.state.lock().expect("no panic").committed = positions;
        }
        kind == Kind::Ok
    }
}

fn identity_of(payload: &[u8]) -> Option<(String, u64)> {
    let text = std::str::from_utf8(payload).ok()?;
    let mut parts = text.splitn(3, ':');
    Some((parts.next()?.to_owned(), parts.next()?.parse().ok()?))
}

impl ClientContext for Reading {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some(generation) = generation_in(message) {
            self.generation.store(generation, Ordering::Relaxed);
        }
        self.worker.log(facility, message);
    }
}

/// librdkafka gives a member's generation to nobody but its log.
fn generation_in(message: &str) -> Option<i32> {
    let told = message.split_once("JoinGroup response: GenerationId ")?.1;
    told.split(',').next()?.parse().ok()
}

impl ConsumerContext for Reading {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            if consumer.assignment_lost() {
                self.write();
            } else {
                self.commit(consumer);
            }
            let partitions = names(partitions);
            self.worker.recorder.record(Kind::Ok, Operation::Revoke { partitions });
            *self.state.lock().expect("no panic") = State::default();
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            let held =
                partitions.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
            *self.state.lock().expect("no panic") = State { held, ..State::default() };
            let partitions = names(partitions);
            let generation = Some(self.generation.load(Ordering::Relaxed)).filter(|generation| *generation >= 0);
            self.worker.recorder.record(Kind::Ok, Operation::Assign { partitions, generation });
        }
    }
}

fn names(partitions: &TopicPartitionList) -> Vec<PartitionName> {
    partitions.elements().iter().map(|element| name_of(element.topic(), element.partition())).collect()
}

fn consumer(worker: Worker, reset: &str) -> Result<BaseConsumer<Reading>, String> {
    let group = if worker.options.group.is_empty() { "in-no-group".to_owned() } else { worker.options.group.clone() };
    let mut config = worker.config();
    config
        .set("group.id", group)
        .set("auto.offset.reset", reset)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "500")
        .set("fetch.wait.max.ms", "200")
        .set("fetch.error.backoff.ms", "50");
    if !worker.options.group.is_empty() {
        config.set("debug", "cgrp").set_log_level(RDKafkaLogLevel::Debug);
    }
    worker.set_debug(&mut config);
    let reading = Reading { worker: Arc::new(worker), state: Mutex::default(), generation: AtomicI32::new(-1) };
    config.create_with_context(reading).map_err(|error| error.to_string())
}

/// Polls once; what is read goes into the history before the next wait. Whether there was nothing to read.
fn poll(consumer: &BaseConsumer<Reading>) -> Result<bool, String> {
    let reading = consumer.context();
    let mut wait = WAIT;
    let mut was_idle = true;
    for _ in 0..500 {
        match consumer.poll(wait) {
            None => break,
            Some(Ok(message)) => {
                reading.take(&message)?;
                was_idle = false;
            }
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                return Err("the offset to read is out of range".to_owned());
            }
            // It says so when it cannot reach a broker, and goes on by itself.
            Some(Err(_)) => break,
        }
        wait = Duration::ZERO;
    }
    reading.write();
    Ok(was_idle)
}

/// The partitions whose end is not reached.
fn behind(consumer: &BaseConsumer<Reading>, partitions: &[(String, i32)], positions: &Positions) -> Vec<String> {
    let mut behind = Vec::new();
    for (topic, partition) in partitions {
        let at = positions.get(&(topic.clone(), *partition)).copied();
        match consumer.fetch_watermarks(topic, *partition, Duration::from_secs(5)) {
            // Nothing is read again of a partition that others have read.
            Ok((_, high)) if at.is_none_or(|at| at >= high) && (at.is_some() || high == 0) => {}
            Ok((_, high)) => behind.push(format!("{topic}/{partition} at {at:?} of {high}")),
            Err(error) => behind.push(format!("{topic}/{partition}: {error}")),
        }
    }
    behind
}

/// Reads every partition from its start.
pub(super) fn read(worker: Worker) -> Result<(), String> {
    let partitions = worker.partitions();
    let mut list = TopicPartitionList::new();
    for (topic, partition) in &partitions {
        list.add_partition_offset(topic, *partition, Offset::Beginning).expect("a legal offset");
    }
    let consumer = consumer(worker, "error")?;
    consumer.assign(&list).map_err(|error| error.to_string())?;
    let reading = consumer.context();
    let worker = &reading.worker;
    let mut finishing_since: Option<Instant> = None;
    loop {
        let was_idle = match poll(&consumer) {
            Ok(was_idle) => was_idle,
            Err(error) => {
                worker.problem(error);
                return Ok(());
            }
        };
        if !worker.is_finishing() {
            continue;
        }
        let since = *finishing_since.get_or_insert_with(Instant::now);
        if !was_idle {
            // It gets on: asking for ends would only keep it from that.
            finishing_since = Some(Instant::now());
            continue;
        }
        let positions = reading.state.lock().expect("no panic").positions.clone();
        let behind = behind(&consumer, &partitions, &positions);
        if behind.is_empty() {
            return Ok(());
        }
        if since.elapsed() > worker.patience() {
            worker.problem(format!("not read to the end: {}", behind.join(", ")));
            return Ok(());
        }
    }
}

/// Reads and commits with others.
pub(super) fn share(worker: Worker) -> Result<(), String> {
    let topics: Vec<String> = worker.topics().into_iter().map(str::to_owned).collect();
    let consumer = consumer(worker, "earliest")?;
    consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>()).map_err(|error| error.to_string())?;
    let reading = consumer.context();
    let worker = &reading.worker;
    let mut committed_at = Instant::now();
    let mut finishing_since: Option<Instant> = None;
    loop {
        let was_idle = match poll(&consumer) {
            Ok(was_idle) => was_idle,
            Err(error) => {
                worker.problem(error);
                return Ok(());
            }
        };
        let mut is_committed = false;
        if committed_at.elapsed() > BETWEEN_COMMITS {
            is_committed = reading.commit(&consumer);
            committed_at = Instant::now();
        }
        if !worker.is_finishing() {
            continue;
        }
        let since = *finishing_since.get_or_insert_with(Instant::now);
        let (held, positions) = {
            let state = reading.state.lock().expect("no panic");
            // What others have read to its end is not read again.
            let read = state.held.iter().filter(|held| state.positions.contains_key(held)).cloned();
            (read.collect::<Vec<_>>(), state.positions.clone())
        };
        if was_idle && is_committed && behind(&consumer, &held, &positions).is_empty() {
            consumer.unsubscribe();
            return Ok(());
        }
        if since.elapsed() > worker.patience() {
            worker.problem(format!("not read or committed to the end within {:?}: {positions:?}", worker.patience()));
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn librdkafkas_log_tells_the_generation() {
        let line =
            "[thrd:main]: JoinGroup response: GenerationId 17, Protocol range, LeaderId a (me), my MemberId a, member";
        assert_eq!(generation_in(line), Some(17));
        assert_eq!(generation_in("[thrd:main]: Group \"g\" changed join state"), None);
    }
}
