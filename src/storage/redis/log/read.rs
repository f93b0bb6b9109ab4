//! Reading by offset: entries of both layouts as wire batches.

use std::sync::Arc;

use bytes::Bytes;
use redis::Cmd;

use super::{
    Partition, RedisLog,
    ahead::Range,
    core::{Core, EntryId, epoch_at},
    entry::{Entry, Record, decode},
    functions::{Snapshot, call, unexpected},
};
use crate::{
    log::store::{Read, StoreError, StoredBatch},
    protocol::records::{
        BatchBuilder, BatchHeader, BatchOptions, Codec, Compression, EndTransactionMarker, NewRecord, PlacedBatch,
        ProducerStamp, TimestampType,
    },
    tasks::{aside, in_background},
};

/// Readers' places that are kept for a partition.
const MOST_CURSORS: usize = 64;
/// Entries of one `XRANGE`.
const MOST_ENTRIES: u64 = 2_000;
/// What more than so many bytes hold is encoded aside.
const LONG_ANSWER: usize = 64 << 10;
/// A batch made of `record` entries is cut at this size, before compression.
const BUILT_BATCH_BYTES: usize = 256 << 10;
/// Marks that are looked at ahead of a reader: it reads no further than to the last of them in one go.
const MARKS_AHEAD: usize = 8;

/// Where the entry that holds `offset` is found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    pub(super) offset: i64,
    /// `XRANGE` from here.
    pub(super) from: EntryId,
    /// Up to here (exclusive) are no more bytes than lie between a few marks.
    pub(super) until: EntryId,
    /// What entries took in the last read; 0 if not known.
    pub(super) entry_bytes: u64,
}

impl RedisLog {
    pub(super) async fn read_batches(
        &self,
        partition: &Arc<Partition>,
        read: Read,
    ) -> Result<Vec<StoredBatch>, StoreError> {
        let generation = self.at(partition).generation();
        let core = self.known_core(partition).await?;
        let offset = read.offset.max(core.log_start);
        if offset >= core.next_offset {
            return Ok(Vec::new());
        }
        let (mut cursor, is_sequential) = self.cursor(partition, &core, offset).await?;
        let mut assembler = {
            let epochs = partition.view.lock().epochs.clone();
            Assembler::new(offset, read, epochs, core.leader_epoch)
        };
        let end = core.last.after();
        while !assembler.is_full && cursor.from < end {
            if cursor.from >= cursor.until {
                cursor.until = self.bytes_bound(partition, assembler.next_offset, end).await?;
                // Nothing was left between the marks: all of it was removed.
                if cursor.until <= cursor.from {
                    cursor.until = end;
                }
            }
            let (range, answer) = match self.read_ahead.take(partition, generation, cursor.from).await {
                Some(read_ahead) => read_ahead,
                None => {
                    let range = cursor.range(&core, assembler.room());
                    (range, self.answer(partition, range).await?)
                }
            };
            let taken;
            (assembler, taken) = self.assemble(assembler, answer).await?;
            let is_short = u64::try_from(taken.entries).unwrap_or(u64::MAX) < range.count;
            if let Some(bytes) = taken.bytes.checked_div(taken.entries) {
                cursor.entry_bytes = u64::try_from(bytes).unwrap_or(1).max(1);
            }
            for id in taken.foreign {
                self.report(partition, &format!("entry {id} of {} is not Weir's", partition.keys.stream));
            }
            if let Some(hole_end) = assembler.cut_at.take() {
                let Snapshot { core, cold, .. } = self.snapshot(partition, &[]).await?;
                let next = assembler.next_offset;
                if core.log_start > next && cold.is_some_and(|cold| cold.bounds.end_offset > next) {
                    // Archived and trimmed since the answer before: the next read finds it there.
                    break;
                }
                assembler.hole_until = hole_end;
                continue;
            }
            cursor.from = match taken.last {
                Some(last) if !is_short => last.after(),
                _ => range.until,
            };
        }
        let assembler_was_full = assembler.is_full;
        let missing = assembler.missing.take();
        let (batches, next) = assembler.finish();
        if let Some((from, to)) = missing {
            let cause = format!("records {from} to {to} are missing from {}", partition.keys.stream);
            self.report(partition, &cause);
        }
        if let Some((next_offset, last)) = next {
            cursor.offset = next_offset;
            cursor.from = last.after();
            keep_cursor(partition, offset, cursor);
            if is_sequential && assembler_was_full {
                let range = cursor.range(&core, u64::try_from(read.max_bytes).unwrap_or(u64::MAX));
                let reading = self.at(partition).read_ahead(&xrange(partition, range), expected(range));
                if let Some(reading) = reading {
                    self.read_ahead.begin(partition, generation, range, reading);
                }
            }
        }
        Ok(batches)
    }

    /// Records are encoded while Redis answers what other partitions ask for.
    async fn assemble(&self, mut assembler: Assembler, answer: Bytes) -> Result<(Assembler, Answered), StoreError> {
        let (nobody_waits, is_long) = (assembler.read.in_background, answer.len() > LONG_ANSWER);
        let take = move || assembler.take_answer(answer).map(|taken| (assembler, taken));
        let taken = if nobody_waits {
            let taken = in_background(take).await;
            taken.map_err(|error| StoreError::NotReady(format!("what was read can't be made batches: {error}")))?
        } else if is_long {
            let _turn = self.encoders.acquire().await;
            aside(take)
        } else {
            take()
        };
        taken.ok_or_else(not_entries)
    }

    /// Also whether the reader goes on where one was before.
    async fn cursor(&self, partition: &Partition, core: &Core, offset: i64) -> Result<(Cursor, bool), StoreError> {
        let known = partition.view.lock().cursors.iter().rfind(|cursor| cursor.offset == offset).copied();
        if let Some(cursor) = known {
            return Ok((cursor, true));
        }
        let from = self.locate(partition, core, offset).await?;
        Ok((Cursor { offset, from, until: from, entry_bytes: 0 }, false))
    }

    /// An ID from which `XRANGE` finds the entry that holds `offset`, at once or after a short scan.
    pub(super) async fn locate(&self, partition: &Partition, core: &Core, offset: i64) -> Result<EntryId, StoreError> {
        const LARGE_ENTRY: u64 = 16 << 10;
        if offset >= core.next_offset {
            return Ok(core.last.after());
        }
        let mut command = call("weir1_seek", &partition.keys);
        command.arg(offset).arg(core.last.ms);
        command.arg(if core.bytes_per_entry() > LARGE_ENTRY { "scan" } else { "probe" });
        let id: Vec<u8> = self.at(partition).query(&command).await?;
        EntryId::parse(&id).ok_or_else(|| unexpected("weir1_seek", &id))
    }

    /// Where a reader at `offset` has to stop for now, lest it read too much at once.
    async fn bytes_bound(&self, partition: &Partition, offset: i64, end: EntryId) -> Result<EntryId, StoreError> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(&partition.keys.marks).arg(format!("({offset}")).arg("+inf").arg("BYSCORE");
        command.arg("LIMIT").arg(0).arg(MARKS_AHEAD);
        let marks: Vec<String> = self.at(partition).query(&command).await?;
        let id = marks.get(MARKS_AHEAD - 1).and_then(|mark| EntryId::parse(mark.split(' ').nth(1)?.as_bytes()));
        Ok(id.unwrap_or(end))
    }

    pub(super) async fn entries(&self, partition: &Partition, range: Range) -> Result<Vec<Entry>, StoreError> {
        Entry::list(self.answer(partition, range).await?).ok_or_else(not_entries)
    }

    async fn answer(&self, partition: &Partition, range: Range) -> Result<Bytes, StoreError> {
        match self.at(partition).read_long(xrange(partition, range), expected(range)).await {
            Err(StoreError::Refused(text)) if text.contains("WRONGTYPE") => {
                Err(self.quarantined(partition, format!("{} is no stream", partition.keys.stream)))
            }
            answer => answer,
        }
    }
}

fn not_entries() -> StoreError {
    unexpected("XRANGE", &"something else")
}

fn xrange(partition: &Partition, range: Range) -> Cmd {
    let mut command = redis::cmd("XRANGE");
    command.arg(&partition.keys.stream).arg(range.from.to_string()).arg(format!("({}", range.until));
    command.arg("COUNT").arg(range.count);
    command
}

/// About the bytes of the answer, rather more: a buffer that has to grow is copied.
fn expected(range: Range) -> usize {
    /// An ID, a field's name, and the lengths.
    const AROUND_AN_ENTRY: u64 = 128;
    let bytes = range.bytes.saturating_add(range.count.saturating_mul(AROUND_AN_ENTRY)).saturating_add(range.bytes / 8);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Cursor {
    /// What is read from here for `room` bytes.
    fn range(&self, core: &Core, room: u64) -> Range {
        let entry_bytes = if self.entry_bytes > 0 { self.entry_bytes } else { core.bytes_per_entry() };
        let count = (room / entry_bytes + 1).clamp(1, MOST_ENTRIES);
        let until = self.until.min(core.last.after());
        Range { from: self.from, until, count, bytes: count.saturating_mul(entry_bytes) }
    }
}

fn keep_cursor(partition: &Partition, was_at: i64, cursor: Cursor) {
    let mut view = partition.view.lock();
    if let Some(at) = view.cursors.iter().position(|known| known.offset == was_at) {
        view.cursors.remove(at);
    }
    if view.cursors.len() == MOST_CURSORS {
        view.cursors.pop_front();
    }
    view.cursors.push_back(cursor);
}

enum Taken {
    Whole,
    /// It does not fit any more.
    NoMore,
    Foreign,
}

/// What came with one answer.
struct Answered {
    entries: usize,
    bytes: usize,
    last: Option<EntryId>,
    /// Those that are not Weir's.
    foreign: Vec<EntryId>,
}

/// Makes batches of entries that come in order.
struct Assembler {
    read: Read,
    epochs: Vec<(i32, i64)>,
    leader_epoch: i32,
    batches: Vec<StoredBatch>,
    bytes: usize,
    is_full: bool,
    /// The first offset that is not yet taken.
    next_offset: i64,
    /// The entry that ended with the offset before it; none before the first was taken.
    last: Option<EntryId>,
    building: Option<Building>,
    /// First and last offset of a hole.
    missing: Option<(i64, i64)>,
    /// Nothing of the present answer was taken yet.
    at_head: bool,
    /// Where a hole between two answers ends: what lies in it may have been trimmed meanwhile. Nothing behind it is taken yet.
    cut_at: Option<i64>,
    /// A hole up to here is known to be one.
    hole_until: i64,
}

struct Building {
    builder: BatchBuilder,
    kind: Kind,
    max_timestamp: i64,
}

/// What the records of one batch have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind {
    append_time: Option<i64>,
    producer: Option<(i64, i16)>,
    is_control: bool,
    leader_epoch: i32,
}

impl Assembler {
    fn new(offset: i64, read: Read, epochs: Vec<(i32, i64)>, leader_epoch: i32) -> Self {
        Self {
            read,
            epochs,
            leader_epoch,
            batches: Vec::new(),
            bytes: 0,
            is_full: false,
            next_offset: offset,
            last: None,
            building: None,
            missing: None,
            at_head: false,
            cut_at: None,
            hole_until: 0,
        }
    }

    /// Bytes that may still be read.
    fn room(&self) -> u64 {
        let built = self.building.as_ref().map_or(0, |building| building.builder.size());
        u64::try_from(self.read.max_bytes.saturating_sub(self.bytes + built)).unwrap_or(u64::MAX)
    }

    /// Takes the entries of an answer as far as they fit; `None` where it has something else.
    fn take_answer(&mut self, answer: Bytes) -> Option<Answered> {
        let entries = Entry::list(answer)?;
        let bytes = entries.iter().map(Entry::size).sum();
        let (count, last) = (entries.len(), entries.last().map(|entry| entry.id));
        Some(Answered { entries: count, bytes, last, foreign: self.take_all(entries) })
    }

    /// Answers which entries are not Weir's.
    fn take_all(&mut self, entries: Vec<Entry>) -> Vec<EntryId> {
        let mut foreign = Vec::new();
        self.at_head = true;
        for entry in entries {
            let id = entry.id;
            match self.take(entry) {
                Taken::Whole => {}
                Taken::NoMore => break,
                Taken::Foreign => foreign.push(id),
            }
        }
        foreign
    }

    fn take(&mut self, entry: Entry) -> Taken {
        let id = entry.id;
        let Some(last_offset) = id.offset() else { return Taken::Foreign };
        if last_offset >= self.read.end_offset {
            self.is_full = true;
            return Taken::NoMore;
        }
        match entry.into_batch() {
            Ok(batch) => self.take_batch(id, last_offset, batch),
            Err(entry) if last_offset < self.next_offset => match decode(&entry) {
                Some(_) => Taken::Whole,
                None => Taken::Foreign,
            },
            Err(entry) => self.take_record(id, last_offset, &entry),
        }
    }

    fn take_batch(&mut self, id: EntryId, last_offset: i64, bytes: Bytes) -> Taken {
        let Ok(header) = BatchHeader::parse(&bytes) else { return Taken::Foreign };
        let base_offset = last_offset.saturating_sub(i64::from(header.last_offset_delta));
        if header.size() != bytes.len() || header.last_offset_delta < 0 || base_offset < 0 {
            return Taken::Foreign;
        }
        if last_offset < self.next_offset {
            return Taken::Whole;
        }
        self.flush();
        if !self.batches.is_empty() && self.bytes + bytes.len() > self.read.max_bytes {
            self.is_full = true;
            return Taken::NoMore;
        }
        let Some(batch) = PlacedBatch::split(&bytes) else { return Taken::Foreign };
        if self.is_cut_before(base_offset) {
            return Taken::NoMore;
        }
        self.note_gap(base_offset);
        self.bytes += batch.size();
        self.batches.push(StoredBatch {
            base_offset,
            last_offset,
            max_timestamp: header.max_timestamp,
            // The ID is what counts; a batch that was copied here by hand may say something else.
            batch: batch.moved_to(base_offset),
        });
        self.advance(id, last_offset);
        self.is_full = self.bytes >= self.read.max_bytes;
        if self.is_full { Taken::NoMore } else { Taken::Whole }
    }

    fn take_record(&mut self, id: EntryId, offset: i64, entry: &Entry) -> Taken {
        let Some(record) = decode(entry) else { return Taken::Foreign };
        let kind = Kind {
            append_time: record.is_append_time.then_some(record.timestamp),
            producer: record.producer,
            is_control: record.control.is_some(),
            leader_epoch: epoch_at(&self.epochs, offset, self.leader_epoch),
        };
        let size = entry.size();
        let must_flush = self.building.as_ref().is_some_and(|building| {
            let built = building.builder.size();
            building.kind != kind
                || kind.is_control
                || built + size > BUILT_BATCH_BYTES
                || self.bytes + built + size > self.read.max_bytes
        });
        if must_flush {
            self.flush();
            if self.bytes + size > self.read.max_bytes {
                self.is_full = true;
                return Taken::NoMore;
            }
        } else if self.building.is_none() && !self.batches.is_empty() && self.bytes + size > self.read.max_bytes {
            self.is_full = true;
            return Taken::NoMore;
        }
        if self.is_cut_before(offset) {
            return Taken::NoMore;
        }
        self.note_gap(offset);
        let codec = self.read.codec;
        let building = self.building.get_or_insert_with(|| Building {
            builder: BatchBuilder::new(options(codec, kind)),
            kind,
            max_timestamp: record.timestamp,
        });
        building.max_timestamp = building.max_timestamp.max(record.timestamp);
        if push(&mut building.builder, offset, &record).is_err() {
            return Taken::Foreign;
        }
        self.advance(id, offset);
        Taken::Whole
    }

    fn advance(&mut self, id: EntryId, last_offset: i64) {
        self.last = Some(id);
        self.next_offset = last_offset.saturating_add(1);
    }

    /// Trimming takes from the beginning, so what was trimmed while the stream was read is missing before an answer, and never in
    /// one.
    fn is_cut_before(&mut self, base_offset: i64) -> bool {
        let is_first = std::mem::take(&mut self.at_head) && self.last.is_some();
        if is_first && base_offset > self.next_offset.max(self.hole_until) {
            self.cut_at = Some(base_offset);
        }
        self.cut_at.is_some()
    }

    fn note_gap(&mut self, base_offset: i64) {
        if self.last.is_some() && base_offset > self.next_offset && self.missing.is_none() {
            self.missing = Some((self.next_offset, base_offset - 1));
        }
    }

    fn flush(&mut self) {
        let Some(building) = self.building.take() else { return };
        let (Some(base_offset), Some(last_offset)) = (building.builder.base_offset(), building.builder.last_offset())
        else {
            return;
        };
        // It fails where an encoder does; the records are then sent without compression.
        let max_timestamp = building.max_timestamp;
        if let Some(batch) = building.builder.finish().ok().as_ref().and_then(PlacedBatch::split) {
            self.bytes += batch.size();
            self.batches.push(StoredBatch { base_offset, last_offset, max_timestamp, batch });
        }
    }

    /// The batches, and the offset after them with the ID of the entry before it.
    fn finish(mut self) -> (Vec<StoredBatch>, Option<(i64, EntryId)>) {
        self.flush();
        (self.batches, self.last.map(|last| (self.next_offset, last)))
    }
}

fn options(codec: Codec, kind: Kind) -> BatchOptions {
    BatchOptions {
        compression: Compression::new(if kind.is_control { Codec::None } else { codec }),
        timestamp_type: match kind.append_time {
            Some(_) => TimestampType::LogAppendTime,
            None => TimestampType::CreateTime,
        },
        partition_leader_epoch: kind.leader_epoch,
        producer: kind.producer.map(|(producer_id, producer_epoch)| ProducerStamp {
            producer_id,
            producer_epoch,
            base_sequence: crate::protocol::records::NO_SEQUENCE,
        }),
        is_transactional: kind.producer.is_some(),
        is_control: kind.is_control,
    }
}

fn push(
    builder: &mut BatchBuilder,
    offset: i64,
    record: &Record<'_>,
) -> Result<(), crate::protocol::records::BuildError> {
    let marker = record.control.map(|(kind, coordinator_epoch)| EndTransactionMarker { kind, coordinator_epoch });
    let marker = marker.map(|marker| (marker.key(), marker.value()));
    let (key, value) = match &marker {
        Some((key, value)) => (Some(key.as_slice()), Some(value.as_slice())),
        None => (record.key, record.value.as_deref()),
    };
    builder.push(NewRecord { offset, timestamp: record.timestamp, key, value, headers: record.headers.iter().copied() })
}
