//! Retention, DeleteRecords, and what a partition remembers of producers.

use std::{sync::atomic::Ordering, time::Instant};

use tracing::debug;

use super::{
    Partition, RedisLog, View, Writer,
    ahead::Range,
    core::{Core, EntryId, log_start},
    entry::Entry,
    functions::{self, Snapshot, call, change},
    log_state,
    producers::Producer,
};
use crate::{
    log::{
        archive::Cold,
        store::{Append, Hold, LogState, ProducerState, Retention, StoreError},
    },
    protocol::records::BatchHeader,
};

/// Entries that one step of giving memory back looks at.
const FREED_AT_ONCE: u32 = 10_000;
const MARKS_AT_ONCE: isize = 100;
/// Writers' fields are needed only until a lost answer is resolved.
const WRITERS_EXPIRE_AFTER_MS: i64 = 3_600_000;

/// A mark: the log up to `offset` took `bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    offset: i64,
    bytes: u64,
}

impl Mark {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let offset = words.next()?.parse().ok()?;
        let bytes = words.nth(1)?.parse().ok()?;
        Some(Self { offset, bytes })
    }
}

impl RedisLog {
    /// What an append trims, now and then. It never fails the append, which has landed.
    pub(super) async fn trim_as_written(
        &self,
        partition: &Partition,
        writer: &mut Writer,
        append: &Append,
        core: Core,
    ) -> Core {
        let is_due = append.retention.has_limits()
            && core.log_start < partition.view.lock().trims_to(append.retention.hold)
            && writer.trimmed_at.is_none_or(|at| at.elapsed() >= self.options.trim_interval);
        if !is_due {
            return core;
        }
        writer.trimmed_at = Some(Instant::now());
        let trimmed = async {
            let snapshot = self.snapshot(partition, &[]).await?;
            self.trim(partition, snapshot, append.retention, false).await
        };
        match trimmed.await {
            // The append is what the caller asked about, so a later end is not told here.
            Ok(trimmed) => {
                if writer.producers_at.as_ref() == Some(&core) && trimmed.next_offset == core.next_offset {
                    writer.producers_at = Some(trimmed.clone());
                }
                trimmed
            }
            Err(error) => {
                debug!(partition = %partition.id, %error, "the log can't be trimmed now");
                core
            }
        }
    }

    pub(super) async fn check_retention(
        &self,
        partition: &Partition,
        retention: Retention,
    ) -> Result<LogState, StoreError> {
        let mut snapshot = self.snapshot(partition, &[]).await?;
        if snapshot.length != Some(snapshot.core.entries) {
            self.inspect(partition, snapshot).await?;
            snapshot = self.snapshot(partition, &[]).await?;
        }
        let (epochs, cold) = (snapshot.epochs.clone(), snapshot.cold);
        let core = self.trim(partition, snapshot, retention, true).await?;
        self.expire(partition).await?;
        Ok(log_state(&core, &epochs, cold))
    }

    /// Trims by `retention`, but never past the end of the last check, or what is archived; a check remembers today's end. Writes nothing where
    /// nothing has changed since the last check: most partitions are such.
    async fn trim(
        &self,
        partition: &Partition,
        snapshot: Snapshot,
        retention: Retention,
        is_check: bool,
    ) -> Result<Core, StoreError> {
        let core = snapshot.core;
        let checked = Some(core.next_offset).filter(|end| is_check && *end != snapshot.checked);
        let limit = trims_to(retention.hold, snapshot.cold.as_ref(), snapshot.checked);
        if limit <= core.log_start {
            return self.check_at_start(partition, core, checked).await;
        }
        let mut target = core.log_start;
        if let Some(before) = retention.before_timestamp {
            target = target.max(self.first_not_before(partition, &core, before).await?);
        }
        if let Some(records) = retention.max_records {
            let kept = i64::try_from(records).unwrap_or(i64::MAX);
            target = target.max(core.next_offset.saturating_sub(kept));
        }
        let mut at_mark = None;
        if let Some(bytes) = retention.max_bytes
            && core.size_bytes() > bytes
        {
            at_mark = self.first_mark_with(partition, core.bytes - bytes).await?;
            target = target.max(at_mark.map_or(target, |mark| mark.offset));
        }
        target = target.min(limit);
        if target <= core.log_start {
            return self.check_at_start(partition, core, checked).await;
        }
        let below = match at_mark.filter(|mark| mark.offset == target) {
            Some(mark) => mark.bytes,
            None => self.bytes_below(partition, &core, target).await?,
        };
        let core = self.start_at(partition, (target, below), checked, retention.hold.into()).await?;
        self.free(partition, &core).await?;
        Ok(core)
    }

    /// Remembers the end of a check that trims nothing.
    async fn check_at_start(
        &self,
        partition: &Partition,
        core: Core,
        checked: Option<i64>,
    ) -> Result<Core, StoreError> {
        match checked {
            Some(_) => {
                let here = (core.log_start, core.bytes_below_start);
                self.start_at(partition, here, checked, Reason::Retention).await
            }
            None => Ok(core),
        }
    }

    pub(super) async fn delete_below(&self, partition: &Partition, before_offset: i64) -> Result<i64, StoreError> {
        let Snapshot { core, cold, .. } = self.snapshot(partition, &[]).await?;
        let target = before_offset.min(core.next_offset);
        let known = log_start(&core, cold.as_ref());
        if target <= known {
            return Ok(known);
        }
        let below = if target > core.log_start { self.bytes_below(partition, &core, target).await? } else { 0 };
        let after = self.start_at(partition, (target, below), None, Reason::Deletion).await?;
        if after.log_start > core.log_start {
            self.free(partition, &after).await?;
        }
        if cold.is_none() {
            return Ok(after.log_start);
        }
        let Snapshot { core, cold, .. } = self.snapshot(partition, &[]).await?;
        Ok(log_start(&core, cold.as_ref()))
    }

    /// Moves the local start, as readers see it, to an offset with so many bytes below it; not past what has to stay.
    async fn start_at(
        &self,
        partition: &Partition,
        (offset, bytes_below): (i64, u64),
        checked: Option<i64>,
        reason: Reason,
    ) -> Result<Core, StoreError> {
        let mut command = call("weir1_start_at", &partition.keys);
        command.arg(partition.id.topic_id.to_string()).arg(offset).arg(bytes_below);
        command.arg(checked.map(|offset| offset.to_string()).unwrap_or_default()).arg(reason.word());
        let generation = self.at(partition).generation();
        let (core, _) = change(self.at(partition), &command).await?;
        let mut view = partition.view.lock();
        view.take(generation, &core);
        view.checked = checked.unwrap_or(view.checked);
        Ok(core)
    }

    /// Gives back the memory of what lies below the log start, in steps.
    pub(super) async fn free(&self, partition: &Partition, core: &Core) -> Result<(), StoreError> {
        let lowest = self.locate(partition, core, core.log_start).await?;
        let generation = self.at(partition).generation();
        let mut limit = FREED_AT_ONCE;
        loop {
            let mut command = call("weir1_free", &partition.keys);
            command.arg(partition.id.topic_id.to_string()).arg(lowest.to_string()).arg(limit);
            let (freed, answer) = change(self.at(partition), &command).await?;
            partition.view.lock().take(generation, &freed);
            if limit == 0 {
                return Ok(());
            }
            // Whole nodes are gone; the rest of the last one goes entry by entry.
            if answer.number(1) == Some(0) {
                limit = 0;
            }
        }
    }

    /// The offset of the first entry whose left half is not below `timestamp`.
    async fn first_not_before(&self, partition: &Partition, core: &Core, timestamp: i64) -> Result<i64, StoreError> {
        let from = EntryId { ms: u64::try_from(timestamp).unwrap_or(0), seq: 0 };
        if from > core.last {
            return Ok(core.next_offset);
        }
        let range = Range { from, until: core.last.after(), count: 1, bytes: core.bytes_per_entry() };
        let entries = self.entries(partition, range).await?;
        Ok(entries.into_iter().next().and_then(base_offset).unwrap_or(core.next_offset))
    }

    /// The first mark at or above `bytes`.
    async fn first_mark_with(&self, partition: &Partition, bytes: u64) -> Result<Option<Mark>, StoreError> {
        let mut rank = 0;
        loop {
            let mut command = redis::cmd("ZRANGE");
            command.arg(&partition.keys.marks).arg(rank).arg(rank + MARKS_AT_ONCE - 1);
            let marks: Vec<String> = self.at(partition).query(&command).await?;
            if marks.is_empty() {
                return Ok(None);
            }
            if let Some(mark) = marks.iter().filter_map(|text| Mark::parse(text)).find(|mark| mark.bytes >= bytes) {
                return Ok(Some(mark));
            }
            rank += MARKS_AT_ONCE;
        }
    }

    /// About the bytes below `offset`: exact at marks, in proportion between them.
    async fn bytes_below(&self, partition: &Partition, core: &Core, offset: i64) -> Result<u64, StoreError> {
        let near = |to: &'static str, reverse: bool| {
            let mut command = redis::cmd("ZRANGE");
            command.arg(&partition.keys.marks).arg(offset).arg(to).arg("BYSCORE");
            if reverse {
                command.arg("REV");
            }
            command.arg("LIMIT").arg(0).arg(1);
            command
        };
        let below: Vec<String> = self.at(partition).query(&near("-inf", true)).await?;
        let above: Vec<String> = self.at(partition).query(&near("+inf", false)).await?;
        let start = Mark { offset: core.log_start, bytes: core.bytes_below_start };
        let end = Mark { offset: core.next_offset, bytes: core.bytes };
        let below = below.first().and_then(|text| Mark::parse(text)).filter(|mark| mark.offset >= start.offset);
        let above = above.first().and_then(|text| Mark::parse(text));
        Ok(between(below.unwrap_or(start), above.unwrap_or(end), offset))
    }

    /// Forgets producers and writers that were not heard of for long.
    async fn expire(&self, partition: &Partition) -> Result<(), StoreError> {
        let now = self.clock.now_ms();
        let producers_before = now.saturating_sub(self.producers_expire_after_ms.load(Ordering::Relaxed));
        let mut cursor = "0".to_owned();
        loop {
            let mut command = call("weir1_expire", &partition.keys);
            command.arg(partition.id.topic_id.to_string()).arg(&cursor);
            command.arg(producers_before).arg(now.saturating_sub(WRITERS_EXPIRE_AFTER_MS));
            let answer: redis::Value = self.at(partition).query(&command).await?;
            let answer = functions::Answer::of(answer).filter(|answer| answer.word == "ok");
            match answer.and_then(|answer| answer.text(0)) {
                Some(next) if next != "0" => cursor = next,
                _ => return Ok(()),
            }
        }
    }

    pub(super) async fn all_producers(&self, partition: &Partition) -> Result<Vec<ProducerState>, StoreError> {
        self.snapshot(partition, &[]).await?;
        let mut producers = Vec::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(&partition.keys.state).arg(&cursor).arg("MATCH").arg("p:*").arg("COUNT").arg(500);
            let (next, fields): (String, Vec<Vec<u8>>) = self.at(partition).query(&command).await?;
            for pair in fields.chunks_exact(2) {
                let [field, value] = pair else { continue };
                let id = std::str::from_utf8(field).ok().and_then(|field| field.strip_prefix("p:")?.parse().ok());
                if let (Some(id), Some(producer)) = (id, Producer::parse(value)) {
                    producers.push(ProducerState {
                        id,
                        epoch: producer.epoch,
                        last_sequence: producer.last_sequence().unwrap_or(-1),
                        last_timestamp_ms: producer.last_use_ms,
                    });
                }
            }
            if next == "0" {
                // A scan may show a field twice.
                producers.sort_unstable_by_key(|producer| producer.id);
                producers.dedup_by_key(|producer| producer.id);
                return Ok(producers);
            }
            cursor = next;
        }
    }
}

/// Why the local start moves; Redis judges by it how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// Not past what is archived, where that is noted.
    Retention,
    /// Not past what is archived.
    RetentionOfArchived,
    /// Whether it is archived or not.
    Drop,
    /// The whole log starts there.
    Deletion,
}

impl Reason {
    fn word(self) -> &'static str {
        match self {
            Reason::Retention => "",
            Reason::RetentionOfArchived => "held",
            Reason::Drop => "drop",
            Reason::Deletion => "delete",
        }
    }
}

impl From<Hold> for Reason {
    fn from(hold: Hold) -> Self {
        match hold {
            Hold::AsNoted => Reason::Retention,
            Hold::Unarchived => Reason::RetentionOfArchived,
            Hold::Nothing => Reason::Drop,
        }
    }
}

impl View {
    fn trims_to(&self, hold: Hold) -> i64 {
        trims_to(hold, self.cold.as_ref(), self.checked)
    }
}

/// How far retention goes at most: to the end of the last check, or to where the archive ends, which needs no check.
fn trims_to(hold: Hold, cold: Option<&Cold>, checked: i64) -> i64 {
    match (hold, cold) {
        (Hold::Unarchived, cold) => cold.map_or(0, |cold| cold.bounds.end_offset),
        (Hold::AsNoted, Some(cold)) if cold.holds_back => cold.bounds.end_offset,
        (Hold::AsNoted | Hold::Nothing, _) => checked,
    }
}

/// No text of a mark panics; the bytes between two are within them.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzzed(text: &str) {
    let Some(mark) = Mark::parse(text) else { return };
    let start = Mark { offset: 0, bytes: 0 };
    for offset in [0, mark.offset, i64::MAX] {
        let _ = between(start, mark, offset);
        let _ = between(mark, start, offset);
    }
}

/// The first offset of an entry.
fn base_offset(entry: Entry) -> Option<i64> {
    let last_offset = entry.id.offset()?;
    match entry.into_batch() {
        Err(_) => Some(last_offset),
        Ok(bytes) => Some(last_offset - i64::from(BatchHeader::parse(&bytes).ok()?.last_offset_delta)),
    }
}

fn between(below: Mark, above: Mark, offset: i64) -> u64 {
    let span = u128::try_from(above.offset.saturating_sub(below.offset)).unwrap_or(0).max(1);
    let part = u128::try_from(offset.saturating_sub(below.offset)).unwrap_or(0);
    let bytes = u128::from(above.bytes.saturating_sub(below.bytes));
    below.bytes.saturating_add(u64::try_from(bytes * part / span).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_between_marks_are_taken_in_proportion() {
        let mark = |offset, bytes| Mark { offset, bytes };
        assert_eq!(between(mark(0, 0), mark(100, 1000), 25), 250);
        assert_eq!(between(mark(10, 5), mark(10, 5), 10), 5);
        assert_eq!(between(mark(10, 5), mark(20, 5), 20), 5);
    }

    #[test]
    fn a_mark_reads_back() {
        assert_eq!(Mark::parse("12 1700000000000-12 4096"), Some(Mark { offset: 12, bytes: 4096 }));
        assert_eq!(Mark::parse("12 x"), None);
    }
}
