//! Appends: one guarded transaction, or one Function call where that is cheaper or somebody else keeps writing too.

use std::{collections::HashMap, time::Instant};

use redis::{Cmd, RedisWrite, Value};
use tracing::warn;

use super::{
    Options, Partition, RedisLog, Writer,
    core::{Core, EntryId, log_start},
    entries::Entries,
    functions::{self, Answer, Keys, call},
    plan::{Basis, MOST_BATCHES, Plan, mark_interval},
    producers::{LostProducer, Producer},
};
use crate::{
    log::store::{Append, AppendOutcome, AppendRefusal, Appended, StoreError},
    storage::redis::connection::Request,
};

/// After so many refusals of one append in a row it goes through the Function, which gives the offsets itself.
const REFUSALS_BEFORE_FUNCTION: u32 = 2;
const MOST_ATTEMPTS: u32 = 50;

type Answers = Vec<Option<Result<Appended, AppendRefusal>>>;

/// How a step ended.
enum Written {
    /// All of it landed. The core, each batch's base offset, and whether the stream's length was as expected.
    Landed { core: Core, base_offsets: Vec<i64>, is_length_right: bool },
    /// Nothing landed: the state is another one. The fields that were asked for.
    Stale { core: Core, values: Option<Vec<Option<Vec<u8>>>> },
    /// Nothing landed: the stream can't be opened.
    Closed(String),
    /// Nothing landed: the state is another topic's, or can't be read.
    Gone,
    /// Nothing landed: the server lacks the Functions.
    NoFunctions,
    /// It may have landed.
    Unknown(StoreError),
}

impl RedisLog {
    pub(super) async fn append_all(&self, partition: &Partition, append: Append) -> Result<AppendOutcome, StoreError> {
        let mut writer = partition.writer.lock().await;
        let mut answers: Answers = vec![None; append.batches.len()];
        let mut latest = None;
        while let Some(from) = answers.iter().position(Option::is_none) {
            match self.append_some(partition, &mut writer, &append, from, &mut answers).await {
                Ok(core) => latest = Some(core),
                // Batches before these may be written: "nothing happened" would be wrong.
                Err(error) if latest.is_some() => return Err(StoreError::OutcomeUnknown(error.to_string())),
                Err(error) => return Err(error),
            }
        }
        let core = match latest {
            Some(core) => core,
            None => self.known_core(partition).await?,
        };
        let core = self.trim_as_written(partition, &mut writer, &append, core).await;
        let cold = partition.view.lock().cold;
        Ok(AppendOutcome {
            batches: answers.into_iter().flatten().collect(),
            log_start_offset: log_start(&core, cold.as_ref()),
            local_start_offset: core.log_start,
            next_offset: core.next_offset,
            max_timestamp: core.max_timestamp,
            size_bytes: core.size_bytes(),
        })
    }

    /// Answers at least the batch `from`, and as many after it as go together.
    async fn append_some(
        &self,
        partition: &Partition,
        writer: &mut Writer,
        append: &Append,
        from: usize,
        answers: &mut Answers,
    ) -> Result<Core, StoreError> {
        // Whether what is known was confirmed by Redis since the append began.
        let mut is_fresh = false;
        let mut refusals = 0;
        for _ in 0..MOST_ATTEMPTS {
            let core = self.basis(partition, writer, append, from, &mut is_fresh).await?;
            if core.leader_epoch > append.leader_epoch {
                if is_fresh {
                    return Err(StoreError::FencedLeader(core.leader_epoch));
                }
                self.refresh(partition, writer, append, from, &mut is_fresh).await?;
                continue;
            }
            if core.next_offset < append.known_end {
                if is_fresh {
                    let (end, known) = (core.next_offset, append.known_end);
                    return Err(StoreError::NotReady(format!("the log ends at {end}, and ended at {known} before")));
                }
                self.refresh(partition, writer, append, from, &mut is_fresh).await?;
                continue;
            }
            #[cfg(feature = "planted-faults")]
            let core = crate::faults::basis(&partition.keys.stream, core);
            let basis = Basis {
                options: &self.options,
                stream: &partition.keys.stream,
                core: &core,
                producers: &writer.producers,
                lost: &writer.lost,
                timestamps_until: writer.timestamps_until,
                for_function: refusals >= REFUSALS_BEFORE_FUNCTION,
            };
            let mut plan = Plan::of(&basis, append, from);
            let needs_proof = plan.answered.iter().any(|(_, answer)| is_about_the_producer(answer));
            if needs_proof && !is_fresh {
                self.refresh(partition, writer, append, from, &mut is_fresh).await?;
                continue;
            }
            if plan.accepted.is_empty() {
                settle(answers, plan.answered);
                return Ok(core);
            }
            let is_small = plan.bytes <= self.options.small_append_max_bytes
                && plan.accepted.iter().map(|batch| batch.records).sum::<i64>()
                    <= i64::try_from(self.options.small_append_max_records).unwrap_or(i64::MAX);
            let by_function = basis.for_function && plan.fits_function();
            let generation = self.at(partition).generation();
            writer.number += 1;
            let mut written = if by_function {
                self.by_function(partition, writer, append, &core, &plan).await?
            } else if is_small && plan.fits_put() {
                self.by_put(partition, writer, append, &core, &mut plan).await?
            } else {
                self.by_transaction(partition, writer, append, (&core, from), &mut plan).await?
            };
            if let Written::Unknown(error) = written {
                written = self.resolve(partition, writer.number, append.now_ms, &plan, error).await?;
            }
            match written {
                Written::Landed { core: landed, base_offsets, is_length_right } => {
                    {
                        let mut view = partition.view.lock();
                        view.take(generation, &landed);
                        view.reported.clear();
                        if landed.leader_epoch > core.leader_epoch {
                            view.epochs = raised(&core, &view.epochs, landed.leader_epoch, core.next_offset);
                        }
                    }
                    for (batch, base_offset) in plan.accepted.iter().zip(base_offsets) {
                        if let Some((id, producer)) = batch.landed_producer(base_offset) {
                            writer.lost.remove(&id);
                            writer.producers.insert(id, Some(producer));
                        }
                        plan.answered.push((batch.index, Ok(batch.landed(base_offset))));
                    }
                    writer.producers_at = Some(landed.clone());
                    writer.timestamps_until = plan.timestamps_until;
                    settle(answers, plan.answered);
                    if !is_length_right {
                        self.look_closer(partition).await;
                    }
                    return Ok(landed);
                }
                Written::Stale { core, values } => {
                    refusals += 1;
                    let mut view = partition.view.lock();
                    view.generation = generation;
                    view.core = Some(core.clone());
                    drop(view);
                    writer.note_loss(&core, self.options.state_max_fields);
                    writer.producers.clear();
                    if let Some(values) = values {
                        writer.producers = known_producers(&producer_ids(append, from), values);
                    }
                    writer.producers_at = Some(core);
                    is_fresh = true;
                }
                Written::Closed(answer) => {
                    return Err(self.cause_of_closed(partition, core.last, &answer).await);
                }
                Written::Gone => {
                    partition.view.lock().core = None;
                    self.refresh(partition, writer, append, from, &mut is_fresh).await?;
                }
                Written::NoFunctions => self.at(partition).load_libraries().await?,
                Written::Unknown(error) => return Err(error),
            }
        }
        Err(StoreError::NotReady("others keep writing to the partition".to_owned()))
    }

    /// The core to build on, and in `writer` every producer of the append as of that core.
    async fn basis(
        &self,
        partition: &Partition,
        writer: &mut Writer,
        append: &Append,
        from: usize,
        is_fresh: &mut bool,
    ) -> Result<Core, StoreError> {
        let known = partition.view.lock().core.clone();
        if let Some(core) = known {
            if writer.producers_at.as_ref() != Some(&core) {
                writer.note_loss(&core, self.options.state_max_fields);
                writer.producers.clear();
                writer.producers_at = Some(core.clone());
            }
            if producer_ids(append, from).iter().all(|id| writer.producers.contains_key(id)) {
                return Ok(core);
            }
        }
        self.refresh(partition, writer, append, from, is_fresh).await
    }

    async fn refresh(
        &self,
        partition: &Partition,
        writer: &mut Writer,
        append: &Append,
        from: usize,
        is_fresh: &mut bool,
    ) -> Result<Core, StoreError> {
        let ids = producer_ids(append, from);
        let fields: Vec<String> = ids.iter().map(|id| Producer::field(*id)).collect();
        let generation = self.at(partition).generation();
        let snapshot = self.snapshot(partition, &fields).await?;
        {
            let mut view = partition.view.lock();
            view.generation = generation;
            view.core = Some(snapshot.core.clone());
        }
        writer.note_loss(&snapshot.core, self.options.state_max_fields);
        if writer.producers_at.as_ref() != Some(&snapshot.core)
            || writer.producers.len() > self.options.state_max_fields
        {
            writer.producers.clear();
        }
        writer.producers.extend(known_producers(&ids, snapshot.values));
        writer.producers_at = Some(snapshot.core.clone());
        *is_fresh = true;
        Ok(snapshot.core)
    }

    async fn by_transaction(
        &self,
        partition: &Partition,
        writer: &Writer,
        append: &Append,
        (core, from): (&Core, usize),
        plan: &mut Plan,
    ) -> Result<Written, StoreError> {
        let keys = &partition.keys;
        let entries = std::mem::take(&mut plan.entries);
        let count = entries.iter().map(Entries::len).sum();
        let mut transaction = Request::transaction();
        transaction.queue(&set_id(keys, EntryId::MAX));
        let mut guard = call("weir1_guard", keys);
        guard.write_arg_fmt(core);
        guard.write_arg_fmt(core.last);
        guard.arg(core.entries);
        for id in producer_ids(append, from) {
            guard.arg(Producer::field(id));
        }
        transaction.queue(&guard);
        for entries in entries {
            entries.queue(&mut transaction);
        }
        let mut seal = call("weir1_seal", keys);
        seal.arg(count);
        seal_arguments(plan, &self.options, &mut seal);
        for (field, value) in self.state_changes(partition, writer, append, core, plan) {
            seal.arg(field).arg(value);
        }
        transaction.queue(&seal);

        let answer = match self.at(partition).answer_to(transaction.execute()).await {
            Ok(Value::Array(answer)) => answer,
            Ok(Value::ServerError(refusal)) => return Err(self.at(partition).refused(refusal)),
            Ok(other) => return Ok(Written::Unknown(functions::unexpected("EXEC", &other))),
            Err(error @ StoreError::OutcomeUnknown(_)) => return Ok(Written::Unknown(error)),
            Err(error) => return Err(error),
        };
        let mut answer = answer.into_iter();
        let _closed = answer.next();
        let guard = answer.next().unwrap_or(Value::Nil);
        let length = match guard {
            Value::Int(length) => length,
            Value::ServerError(error) => return refused_function(&error.to_string()),
            guard => return refused(guard, true),
        };
        let failed_entry = answer.by_ref().take(count).find_map(|entry| match entry {
            Value::ServerError(error) => Some(error.to_string()),
            _ => None,
        });
        match answer.next() {
            Some(Value::Int(_)) => Ok(Written::Landed {
                core: plan.core.clone(),
                base_offsets: plan.accepted.iter().map(|batch| batch.base_offset).collect(),
                is_length_right: length == core.entries,
            }),
            // The seal took back what had landed.
            Some(Value::Nil) => Err(StoreError::Refused(
                failed_entry.unwrap_or_else(|| "an entry did not land, without an error".to_owned()),
            )),
            other => Ok(Written::Unknown(functions::unexpected("weir1_seal", &other))),
        }
    }

    /// A small append whose offsets are as expected: the cheapest way.
    async fn by_put(
        &self,
        partition: &Partition,
        writer: &Writer,
        append: &Append,
        core: &Core,
        plan: &mut Plan,
    ) -> Result<Written, StoreError> {
        let mut command = call("weir1_put", &partition.keys);
        command.write_arg_fmt(core);
        command.write_arg_fmt(core.last);
        command.arg(core.entries);
        seal_arguments(plan, &self.options, &mut command);
        let changes = self.state_changes(partition, writer, append, core, plan);
        command.arg(2 * changes.len());
        for (field, value) in changes {
            command.arg(field).arg(value);
        }
        let arguments = plan.entries.iter().map(Entries::function_arguments).sum();
        let request = || {
            let mut request = Request::open_command(&command, arguments);
            plan.entries.iter().for_each(|entries| entries.write_for_function(&mut request));
            request
        };
        match self.at(partition).query_with::<Value>(request).await {
            Ok(Value::Int(length)) => Ok(Written::Landed {
                core: plan.core.clone(),
                base_offsets: plan.accepted.iter().map(|batch| batch.base_offset).collect(),
                is_length_right: length == core.entries,
            }),
            Ok(answer) => refused(answer, false),
            Err(error @ StoreError::OutcomeUnknown(_)) => Ok(Written::Unknown(error)),
            Err(error) => Err(error),
        }
    }

    /// Fields of the state that change with an append, besides `core`.
    fn state_changes(
        &self,
        partition: &Partition,
        writer: &Writer,
        append: &Append,
        core: &Core,
        plan: &Plan,
    ) -> Vec<(String, String)> {
        let own = format!("{} {} {}", writer.number, core.next_offset, append.now_ms);
        let mut changes = vec![(self.writer_field.clone(), own)];
        if let Some(epochs) = self.raised_epochs(partition, core, append) {
            changes.push(("epochs".to_owned(), format!("{epochs}{}", core.next_offset)));
        }
        changes.extend(plan.producer_values());
        changes
    }

    async fn by_function(
        &self,
        partition: &Partition,
        writer: &Writer,
        append: &Append,
        core: &Core,
        plan: &Plan,
    ) -> Result<Written, StoreError> {
        let mut command = call("weir1_append", &partition.keys);
        command.arg(partition.id.topic_id.to_string()).arg(append.leader_epoch).arg(&self.writer_field);
        command.arg(writer.number).arg(append.now_ms).arg(mark_interval(append));
        command.arg(self.options.state_max_fields);
        command.arg(self.raised_epochs(partition, core, append).unwrap_or_default());
        plan.function_arguments(append, writer.timestamps_until > core.next_offset, &mut command);
        let answer: Value = match self.at(partition).query(&command).await {
            Ok(answer) => answer,
            Err(error @ StoreError::OutcomeUnknown(_)) => return Ok(Written::Unknown(error)),
            Err(error) => return Err(error),
        };
        match &answer {
            Value::Array(parts) if matches!(parts.first(), Some(Value::BulkString(word)) if word == b"ok") => {}
            _ => return refused(answer, false),
        }
        let landed = Answer::of(answer).and_then(|answer| {
            let base_offsets = (2..answer.rest.len()).map(|at| answer.number(at)).collect::<Option<Vec<_>>>()?;
            let landed = answer.core(0)?;
            Some(Written::Landed { core: landed, base_offsets, is_length_right: answer.number(1)? == core.entries })
        });
        Ok(landed.unwrap_or_else(|| {
            Written::Unknown(StoreError::OutcomeUnknown("weir1_append's answer can't be read".to_owned()))
        }))
    }

    /// The field `epochs` but for the offset that ends it, where this append is the first of its leader epoch.
    fn raised_epochs(&self, partition: &Partition, core: &Core, append: &Append) -> Option<String> {
        if append.leader_epoch <= core.leader_epoch {
            return None;
        }
        let epochs = raised(core, &partition.view.lock().epochs, append.leader_epoch, core.next_offset);
        let text = epochs.iter().map(|(epoch, start)| format!("{epoch}:{start}")).collect::<Vec<_>>().join(" ");
        Some(text.rsplit_once(':').map(|(head, _)| format!("{head}:")).unwrap_or_default())
    }

    /// After a lost answer: asks Redis whether the append landed, and makes sure that it never will if it has not.
    async fn resolve(
        &self,
        partition: &Partition,
        number: u64,
        now_ms: i64,
        plan: &Plan,
        lost: StoreError,
    ) -> Result<Written, StoreError> {
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
        warn!(partition = %partition.id, error = %lost, "an append's answer was lost; asking whether it landed");
        let mut command = call("weir1_resolve", &partition.keys);
        command.arg(partition.id.topic_id.to_string()).arg(&self.writer_field).arg(number).arg(now_ms);
        let deadline = Instant::now() + self.options.resolve_patience;
        loop {
            match functions::change(self.at(partition), &command).await {
                Ok((core, answer)) if answer.word == "landed" => {
                    let value = answer.text(1).unwrap_or_default();
                    let base: Option<i64> = value.split(' ').nth(1).and_then(|base| base.parse().ok());
                    return match base {
                        Some(mut base) => {
                            let mut base_offsets = Vec::with_capacity(plan.accepted.len());
                            for batch in &plan.accepted {
                                base_offsets.push(base);
                                base += batch.records;
                            }
                            Ok(Written::Landed { core, base_offsets, is_length_right: true })
                        }
                        // An earlier look has already made it void.
                        None => Ok(Written::Stale { core, values: None }),
                    };
                }
                Ok((core, _)) => return Ok(Written::Stale { core, values: None }),
                Err(StoreError::NoSuchPartition) => return Err(StoreError::NoSuchPartition),
                Err(error) if Instant::now() >= deadline => {
                    return Err(StoreError::OutcomeUnknown(format!("{lost}; then {error}")));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

impl Writer {
    /// What is known of producers is replaced by that as of `core`: where the log went back, it is kept how far they had come, of
    /// about `most`.
    fn note_loss(&mut self, core: &Core, most: usize) {
        let went_back = |at: &Core| at.topic_id == core.topic_id && at.next_offset > core.next_offset;
        if !self.producers_at.as_ref().is_some_and(went_back) {
            return;
        }
        if self.lost.len() > most {
            self.lost.clear();
        }
        for (id, known) in &self.producers {
            if let Some(lost) = known.as_ref().and_then(LostProducer::of) {
                // One that has not written since an earlier loss had come further.
                self.lost.entry(*id).or_insert(lost);
            }
        }
    }
}

/// New core, its last ID, the next offset where Redis does not count it right by itself (as it does where each record is
/// an entry), a mark, the most fields of the state if there is a new one.
fn seal_arguments(plan: &Plan, options: &Options, command: &mut Cmd) {
    command.write_arg_fmt(&plan.core);
    command.write_arg_fmt(plan.core.last);
    match plan.has_batch_entries {
        true => command.arg(plan.core.next_offset),
        false => command.arg(""),
    };
    match &plan.mark {
        Some((offset, text)) => command.arg(*offset).arg(text),
        None => command.arg("").arg(""),
    };
    match plan.has_new_producer {
        true => command.arg(options.state_max_fields),
        false => command.arg(""),
    };
}

fn set_id(keys: &Keys, id: EntryId) -> Cmd {
    let mut command = Cmd::with_capacity(3, 128);
    command.arg("XSETID");
    command.arg(&keys.stream);
    command.write_arg_fmt(id);
    command
}

/// Epochs and starts once `epoch` begins at `offset`.
fn raised(core: &Core, epochs: &[(i32, i64)], epoch: i32, offset: i64) -> Vec<(i32, i64)> {
    let mut epochs = epochs.to_vec();
    if epochs.is_empty() && core.next_offset > 0 {
        epochs.push((core.leader_epoch, 0));
    }
    epochs.push((epoch, offset));
    epochs
}

/// A refusal of the guard or of `weir1_append`. `has_values`: it has the values of all producers of the append.
fn refused(answer: Value, has_values: bool) -> Result<Written, StoreError> {
    let Some(answer) = Answer::of(answer) else {
        return Ok(Written::Unknown(StoreError::OutcomeUnknown("an answer that can't be read".to_owned())));
    };
    match (answer.word.as_str(), answer.core(0)) {
        ("stale", Some(core)) => Ok(Written::Stale { core, values: has_values.then(|| answer.values(1)) }),
        ("fenced" | "spent", Some(core)) => Ok(Written::Stale { core, values: None }),
        ("closed", _) => Ok(Written::Closed(answer.text(0).unwrap_or_default())),
        ("gone" | "other" | "stale", _) => Ok(Written::Gone),
        ("failed", _) => Err(StoreError::Refused(answer.text(0).unwrap_or_default())),
        _ => Ok(Written::Unknown(functions::unexpected("an append", &answer))),
    }
}

fn refused_function(error: &str) -> Result<Written, StoreError> {
    if error.contains("Function not found") {
        Ok(Written::NoFunctions)
    } else {
        Ok(Written::Unknown(StoreError::OutcomeUnknown(error.to_owned())))
    }
}

fn is_about_the_producer(answer: &Result<Appended, AppendRefusal>) -> bool {
    match answer {
        Ok(_) => true,
        Err(refusal) => matches!(
            refusal,
            AppendRefusal::OutOfOrderSequence
                | AppendRefusal::DuplicateSequence
                | AppendRefusal::FencedProducer
                | AppendRefusal::UnknownProducer
        ),
    }
}

fn settle(answers: &mut Answers, answered: Vec<(usize, Result<Appended, AppendRefusal>)>) {
    for (index, answer) in answered {
        if let Some(slot) = answers.get_mut(index) {
            *slot = Some(answer);
        }
    }
}

/// The idempotent producers of the batches `from..` that may go together, each once.
fn producer_ids(append: &Append, from: usize) -> Vec<i64> {
    let mut ids: Vec<i64> = append
        .batches
        .iter()
        .skip(from)
        .take(MOST_BATCHES)
        .map(|batch| batch.header())
        .filter(|header| header.has_producer_id())
        .map(|header| header.producer_id)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn known_producers(ids: &[i64], values: Vec<Option<Vec<u8>>>) -> HashMap<i64, Option<Producer>> {
    ids.iter().copied().zip(values.into_iter().map(|value| value.and_then(|text| Producer::parse(&text)))).collect()
}
