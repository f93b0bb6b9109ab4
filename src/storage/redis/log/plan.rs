//! Decides what of an append is written, and as what: pure code.

use std::collections::HashMap;

use redis::Cmd;

use super::{
    Options,
    core::{Core, EntryId},
    entries::Entries,
    entry::{Body, Timestamp, TimestampField},
    producers::{LostProducer, PastBatch, Producer, Verdict, judge},
};
use crate::{
    log::store::{Append, AppendRefusal, Appended, Layout, StoredBatch, ValueFormat},
    model::ProducerIdentity,
    protocol::records::{
        BatchHeader, PlacedBatch, Placement, RecordView, Records, TimestampType, ValidatedBatch, increment_sequence,
    },
};

/// Records for which `__ts` is kept up once one needed it: a field that only some entries of a node have is dear.
const KEEP_TIMESTAMPS: i64 = 400;
/// More arguments than this are not given to a Function, which could not pass them on.
const MOST_FUNCTION_ARGUMENTS: usize = 4_000;
/// Batches of one step: each may change a field of the state, and Lua passes on no more than 8,000 arguments.
pub(super) const MOST_BATCHES: usize = 1_000;
/// Names and values of a batch's records, about 0.1 us of Redis' time each: beyond the first number JSON stays one
/// value, beyond the second (many headers) the batch is refused.
const FLATTENED_ARGUMENTS: usize = 160_000;
const MOST_ARGUMENTS: usize = 200_000;
/// Bytes of the log between two marks, at most.
pub(super) const MARK_INTERVAL: u64 = 1 << 20;
const SMALLEST_MARK_INTERVAL: u64 = 4 << 10;

/// What is known when an append is planned.
pub(super) struct Basis<'a> {
    pub(super) options: &'a Options,
    pub(super) stream: &'a str,
    pub(super) core: &'a Core,
    /// Holds every producer of the append.
    pub(super) producers: &'a HashMap<i64, Option<Producer>>,
    /// Redis knows less of these than they were answered.
    pub(super) lost: &'a HashMap<i64, LostProducer>,
    pub(super) timestamps_until: i64,
    /// Only what goes together through `weir1_append`, if the first batch can.
    pub(super) for_function: bool,
}

/// A batch that is to be written.
pub(super) struct Accepted {
    /// In the append.
    pub(super) index: usize,
    pub(super) base_offset: i64,
    pub(super) records: i64,
    pub(super) max_timestamp: i64,
    max_timestamp_index: i64,
    log_append_time: Option<i64>,
    /// As consumers get it, if it lands where it is expected.
    batch: PlacedBatch,
    producer: Option<ProducerChange>,
    wire_bytes: u64,
}

struct ProducerChange {
    id: i64,
    identity: ProducerIdentity,
    /// The value that Redis must still have; empty for none.
    expected: String,
    batch: PastBatch,
    /// The new value but for the offset that ends it.
    value: String,
}

/// Batches that go to Redis in one step.
pub(super) struct Plan {
    pub(super) accepted: Vec<Accepted>,
    /// What needs no writing: duplicates and refusals, with their index.
    pub(super) answered: Vec<(usize, Result<Appended, AppendRefusal>)>,
    /// Of each batch that is accepted.
    pub(super) entries: Vec<Entries>,
    entry_count: usize,
    /// The core once all landed as planned.
    pub(super) core: Core,
    /// `<offset> <text>` of a mark that is due.
    pub(super) mark: Option<(i64, String)>,
    /// The producers once all landed as planned.
    pub(super) producers: HashMap<i64, Producer>,
    pub(super) timestamps_until: i64,
    pub(super) has_batch_entries: bool,
    pub(super) has_new_producer: bool,
    pub(super) is_repeating_producer: bool,
    pub(super) bytes: usize,
}

impl Plan {
    /// Plans the batches `from..`, as many as go together.
    pub(super) fn of(basis: &Basis<'_>, append: &Append, from: usize) -> Plan {
        let mut plan = Plan {
            accepted: Vec::new(),
            answered: Vec::new(),
            entries: Vec::new(),
            entry_count: 0,
            core: basis.core.clone(),
            mark: None,
            producers: HashMap::new(),
            timestamps_until: basis.timestamps_until,
            has_batch_entries: false,
            has_new_producer: false,
            is_repeating_producer: false,
            bytes: 0,
        };
        plan.core.leader_epoch = plan.core.leader_epoch.max(append.leader_epoch);
        for (index, batch) in append.batches.iter().enumerate().skip(from).take(MOST_BATCHES) {
            if !plan.take(basis, append, index, batch) {
                break;
            }
        }
        plan.place_mark(basis, mark_interval(append));
        plan
    }

    /// False if the batch does not go with those before it.
    fn take(&mut self, basis: &Basis<'_>, append: &Append, index: usize, batch: &ValidatedBatch) -> bool {
        let header = batch.header();
        let identity = ProducerIdentity { id: header.producer_id, epoch: header.producer_epoch };
        let known = match self.producers.get(&identity.id) {
            Some(pending) => Some(pending),
            None => basis.producers.get(&identity.id).and_then(Option::as_ref),
        };
        // An expired producer is an unknown one.
        let known = known.filter(|known| known.last_use_ms >= append.producers_expire_before_ms).cloned();
        let known = known.as_ref();
        // The Function compares a producer's value once, and writes it once.
        if basis.for_function && header.has_producer_id() && self.producers.contains_key(&identity.id) {
            return false;
        }
        if header.has_producer_id() {
            let is_behind_passed_over = append.behind_passed_over.contains(&index);
            match judge(known, identity.epoch, header.base_sequence, batch.record_count()) {
                Verdict::Accepted if known.is_none() && is_behind_passed_over => {
                    self.answered.push((index, Err(AppendRefusal::OutOfOrderSequence)));
                    return true;
                }
                Verdict::Accepted => {}
                Verdict::Duplicate(past) => {
                    self.answered.push((index, Ok(duplicate(&past))));
                    return true;
                }
                Verdict::Refused(AppendRefusal::OutOfOrderSequence)
                    if !is_behind_passed_over
                        && !self.producers.contains_key(&identity.id)
                        && known.zip(basis.lost.get(&identity.id)).is_some_and(|(known, lost)| {
                            lost.explains(known, identity.epoch, header.base_sequence)
                        }) => {}
                Verdict::Refused(refusal) => {
                    self.answered.push((index, Err(refusal)));
                    return true;
                }
            }
        }

        let base_offset = self.core.next_offset;
        let log_append_time = match append.timestamp_type {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(append.now_ms),
        };
        let placement = Placement { base_offset, partition_leader_epoch: self.core.leader_epoch, log_append_time };
        let accepted = Accepted {
            index,
            base_offset,
            records: i64::from(batch.record_count()),
            max_timestamp: log_append_time.unwrap_or_else(|| batch.max_timestamp()),
            max_timestamp_index: match log_append_time {
                Some(_) => 0,
                None => i64::from(batch.max_timestamp_index().unwrap_or(0)),
            },
            log_append_time,
            batch: batch.place(&placement),
            producer: header.has_producer_id().then(|| {
                let past = PastBatch {
                    timestamp: log_append_time.unwrap_or_else(|| batch.max_timestamp()),
                    first_sequence: header.base_sequence,
                    last_sequence: increment_sequence(header.base_sequence, batch.record_count() - 1),
                    base_offset,
                };
                let stored = basis.producers.get(&identity.id).and_then(Option::as_ref);
                ProducerChange {
                    id: identity.id,
                    identity,
                    expected: stored.map(Producer::value).unwrap_or_default(),
                    value: Producer::value_without_offset(known, identity, append.now_ms, past),
                    batch: past,
                }
            }),
            wire_bytes: u64::try_from(header.size()).unwrap_or(0),
        };

        let (entries, core, bytes) = match append.layout {
            Layout::Batch => {
                if !self.fits(basis.options, 1, accepted.batch.size()) {
                    return false;
                }
                let (entries, core) = self.batch_entry(basis.stream, &accepted);
                (entries, core, accepted.batch.size())
            }
            Layout::Record(format) => {
                let records = match decompressed(batch, basis.options) {
                    Ok(records) => records,
                    Err(refusal) => {
                        self.answered.push((index, Err(refusal)));
                        return true;
                    }
                };
                let bytes = records.payload().len();
                if !self.fits(basis.options, usize::try_from(accepted.records).unwrap_or(usize::MAX), bytes) {
                    return false;
                }
                match self.record_entries(basis.stream, &accepted, &records, format) {
                    Ok((entries, core)) => (entries, core, bytes),
                    Err(refusal) => {
                        self.answered.push((index, Err(refusal)));
                        return true;
                    }
                }
            }
        };
        if basis.for_function && !self.accepted.is_empty() && !entries.pass_function(MOST_FUNCTION_ARGUMENTS) {
            return false;
        }
        self.core = core;
        self.core.bytes += accepted.wire_bytes;
        self.core.take_timestamp(accepted.max_timestamp, base_offset + accepted.max_timestamp_index);
        self.bytes += bytes;
        self.entry_count += entries.len();
        self.entries.push(entries);
        self.has_batch_entries |= append.layout == Layout::Batch;
        if let Some(change) = &accepted.producer {
            self.is_repeating_producer |= self.producers.contains_key(&change.id);
            self.has_new_producer |= change.expected.is_empty();
            let producer = Producer::with(known, change.identity, append.now_ms, change.batch);
            self.producers.insert(change.id, producer);
        }
        self.accepted.push(accepted);
        true
    }

    fn fits(&self, options: &Options, entries: usize, bytes: usize) -> bool {
        self.accepted.is_empty()
            || (self.entry_count.saturating_add(entries) <= options.transaction_max_entries
                && self.bytes.saturating_add(bytes) <= options.transaction_max_bytes)
    }

    fn batch_entry(&self, stream: &str, accepted: &Accepted) -> (Entries, Core) {
        let mut core = self.core.clone();
        let last_offset = accepted.base_offset + accepted.records - 1;
        let id = core.next_id(accepted.max_timestamp, last_offset);
        core.advance(id, last_offset + 1);
        (Entries::of_batch(stream, id, &accepted.batch), core)
    }

    fn record_entries(
        &mut self,
        stream: &str,
        accepted: &Accepted,
        records: &Records,
        format: ValueFormat,
    ) -> Result<(Entries, Core), AppendRefusal> {
        let mut core = self.core.clone();
        let count = usize::try_from(accepted.records).unwrap_or(0);
        let mut entries = Entries::with_capacity(stream, count, records.payload().len());
        let mut timestamps_until = self.timestamps_until;
        let mut bodies = Bodies { format, arguments: 0 };
        for record in records {
            let record = record.map_err(|_| AppendRefusal::TooLarge)?;
            let body = bodies.next(&record, records.header())?;
            let timestamp = accepted.log_append_time.unwrap_or(record.timestamp);
            let offset = core.next_offset;
            let id = core.next_id(timestamp, offset);
            core.advance(id, offset + 1);
            let delta = i64::try_from(id.ms).unwrap_or(i64::MAX).saturating_sub(timestamp);
            let field = timestamp_field(accepted.log_append_time, offset < timestamps_until);
            if field == TimestampField::IfNeeded && delta != 0 {
                timestamps_until = offset + KEEP_TIMESTAMPS;
            }
            let timestamp = Timestamp::of(field, delta, &body);
            let arguments = body.arguments() + timestamp.map_or(0, |_| Timestamp::ARGUMENTS);
            entries.add(stream, id, arguments, |fields| {
                if let Some(timestamp) = timestamp {
                    timestamp.write(fields);
                }
                body.write(fields);
            });
        }
        self.timestamps_until = timestamps_until;
        Ok((entries, core))
    }

    /// A mark where this append begins, if enough was written since the last one.
    fn place_mark(&mut self, basis: &Basis<'_>, interval: u64) {
        let Some(first) = self.accepted.first() else { return };
        if self.core.bytes.saturating_sub(self.core.bytes_at_mark) < interval {
            return;
        }
        // After the entry before it, and not after its own.
        let at = EntryId { ms: basis.core.last.ms.max(1), seq: u64::try_from(first.base_offset).unwrap_or(0) };
        self.mark = Some((first.base_offset, format!("{} {at} {}", first.base_offset, basis.core.bytes)));
        self.core.bytes_at_mark = self.core.bytes;
    }

    /// The fields of the state that change with the append, besides `core` and the writer's.
    pub(super) fn producer_values(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.producers.iter().map(|(id, producer)| (Producer::field(*id), producer.value()))
    }

    /// Whether `weir1_put` can write it.
    pub(super) fn fits_put(&self) -> bool {
        self.fits_function() && self.entries.iter().all(Entries::can_be_copied)
    }

    /// Whether `weir1_append` can write it.
    pub(super) fn fits_function(&self) -> bool {
        !self.is_repeating_producer && self.entries.iter().all(|entries| entries.pass_function(MOST_FUNCTION_ARGUMENTS))
    }

    /// The rest of the arguments of `weir1_append`: how many batches, and each of them.
    pub(super) fn function_arguments(&self, append: &Append, keep_timestamps: bool, command: &mut Cmd) {
        command.arg(self.accepted.len());
        for accepted in &self.accepted {
            match &accepted.producer {
                Some(change) => {
                    command.arg(Producer::field(change.id)).arg(&change.expected).arg(&change.value);
                }
                None => {
                    command.arg("").arg("").arg("");
                }
            }
            command.arg(accepted.wire_bytes);
            let Some(batch) = append.batches.get(accepted.index) else { continue };
            match append.layout {
                Layout::Batch => {
                    let whole = accepted.batch.to_bytes();
                    let rest = whole.get(8..).unwrap_or_default();
                    command.arg("b").arg(accepted.records).arg(accepted.max_timestamp);
                    command.arg(accepted.max_timestamp_index).arg(rest);
                }
                Layout::Record(format) => {
                    command.arg("r").arg(accepted.records);
                    command.arg(if accepted.log_append_time.is_some() { "append" } else { "" });
                    command.arg(if keep_timestamps { "keep" } else { "" });
                    // It was read before, when it was planned.
                    let Ok(records) = batch.records(usize::MAX) else { continue };
                    let mut bodies = Bodies { format, arguments: 0 };
                    for record in records.iter().flatten() {
                        let Ok(body) = bodies.next(&record, records.header()) else { continue };
                        command.arg(accepted.log_append_time.unwrap_or(record.timestamp)).arg(body.arguments());
                        body.write(command);
                    }
                }
            }
        }
    }
}

impl Accepted {
    /// The answer, if the batch landed at `base_offset`.
    pub(super) fn landed(&self, base_offset: i64) -> Appended {
        Appended {
            base_offset,
            log_append_time_ms: self.log_append_time.unwrap_or(-1),
            duplicate: false,
            stored: Some(StoredBatch {
                base_offset,
                last_offset: base_offset + self.records - 1,
                max_timestamp: self.max_timestamp,
                batch: self.batch.clone().moved_to(base_offset),
            }),
        }
    }

    /// What the producer's state is then.
    pub(super) fn landed_producer(&self, base_offset: i64) -> Option<(i64, Producer)> {
        let change = self.producer.as_ref()?;
        Some((change.id, Producer::parse(format!("{}{base_offset}", change.value).as_bytes())?))
    }
}

/// As Kafka 4.3.1, with the batch's largest timestamp as the time, also on a topic with CreateTime.
fn duplicate(past: &PastBatch) -> Appended {
    Appended { base_offset: past.base_offset, log_append_time_ms: past.timestamp, duplicate: true, stored: None }
}

fn timestamp_field(log_append_time: Option<i64>, keep: bool) -> TimestampField {
    match (log_append_time, keep) {
        (Some(_), _) => TimestampField::AppendTime,
        (None, true) => TimestampField::Always,
        (None, false) => TimestampField::IfNeeded,
    }
}

/// Makes the fields of a batch's records, within what Redis can add in good time.
struct Bodies {
    format: ValueFormat,
    /// Names and values so far.
    arguments: usize,
}

impl Bodies {
    fn next<'a>(&mut self, record: &RecordView<'a>, header: &BatchHeader) -> Result<Body<'a>, AppendRefusal> {
        let producer = header.is_transactional().then_some((header.producer_id, header.producer_epoch));
        let mut body = Body::of(record, self.format, producer)
            .map_err(|_| AppendRefusal::NotJson { record_index: record.index })?;
        if self.arguments + body.arguments() > FLATTENED_ARGUMENTS {
            body.keep_whole(record.value);
        }
        self.arguments += body.arguments();
        if self.arguments > MOST_ARGUMENTS { Err(AppendRefusal::TooLarge) } else { Ok(body) }
    }
}

fn decompressed(batch: &ValidatedBatch, options: &Options) -> Result<Records, AppendRefusal> {
    let count = usize::try_from(batch.record_count()).unwrap_or(usize::MAX);
    if count > options.record_layout_max_records {
        return Err(AppendRefusal::TooLarge);
    }
    let records = batch.records(options.record_layout_max_bytes).map_err(|_| AppendRefusal::TooLarge)?;
    if records.payload().len() > options.record_layout_max_bytes {
        return Err(AppendRefusal::TooLarge);
    }
    Ok(records)
}

/// Closer marks where little is kept, so that it can be trimmed in steps of it.
pub(super) fn mark_interval(append: &Append) -> u64 {
    let kept = append.retention.max_bytes.unwrap_or(u64::MAX);
    (kept / 16).clamp(SMALLEST_MARK_INTERVAL, MARK_INTERVAL)
}
