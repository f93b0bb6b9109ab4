//! ListOffsets by time, down to a record inside a stored batch.

use super::{
    Partition, RedisLog,
    ahead::Range,
    core::{Core, EntryId, epoch_at},
    entry::{Entry, decode},
    functions::{call, change},
};
use crate::{
    log::store::{StoreError, TimestampedOffset},
    protocol::records::Batch,
};

/// Decompressed bytes of one batch.
const MOST_BATCH_BYTES: usize = 128 << 20;
/// Bytes of entries that are looked at in one go, about.
const SCAN_BYTES: u64 = 2 << 20;

impl RedisLog {
    pub(super) async fn first_at_or_after(
        &self,
        partition: &Partition,
        timestamp: i64,
    ) -> Result<Option<TimestampedOffset>, StoreError> {
        let core = self.known_core(partition).await?;
        if timestamp > core.max_timestamp {
            return Ok(None);
        }
        // An entry's left half is at least its own largest timestamp, so nothing before this one counts.
        let from = EntryId { ms: u64::try_from(timestamp).unwrap_or(0), seq: 0 };
        let found = self.scan(partition, &core, from, |records, found| {
            *found = records.iter().find(|(_, own)| *own >= timestamp).copied();
            found.is_some()
        });
        Ok(found.await?.map(|found| self.placed(partition, &core, found)))
    }

    pub(super) async fn first_of_largest(
        &self,
        partition: &Partition,
    ) -> Result<Option<TimestampedOffset>, StoreError> {
        let core = self.known_core(partition).await?;
        if core.next_offset == core.log_start || core.max_timestamp < 0 {
            return Ok(None);
        }
        if core.max_timestamp_offset >= core.log_start {
            let found = (core.max_timestamp_offset, core.max_timestamp);
            return Ok(Some(self.placed(partition, &core, found)));
        }
        // The record that had it was removed.
        let found = self.scan(partition, &core, EntryId::default(), |records, found| {
            for (offset, own) in records {
                if found.is_none_or(|(_, largest)| *own > largest) {
                    *found = Some((*offset, *own));
                }
            }
            false
        });
        let found = found.await?.filter(|(_, timestamp)| *timestamp >= 0);
        if let Some((offset, timestamp)) = found {
            let mut command = call("weir1_set_top", &partition.keys);
            command.arg(partition.id.topic_id.to_string()).arg(core.to_string()).arg(timestamp).arg(offset);
            let generation = self.at(partition).generation();
            // Somebody may have appended meanwhile; it is only kept for the next time.
            if let Ok((core, _)) = change(self.at(partition), &command).await {
                partition.view.lock().take(generation, &core);
            }
        }
        Ok(found.map(|found| self.placed(partition, &core, found)))
    }

    fn placed(&self, partition: &Partition, core: &Core, (offset, timestamp): (i64, i64)) -> TimestampedOffset {
        let leader_epoch = epoch_at(&partition.view.lock().epochs, offset, core.leader_epoch);
        TimestampedOffset { offset, timestamp, leader_epoch }
    }

    /// Shows each entry's records (offset, own timestamp) from the log start on to `look`, until it has what it wants.
    async fn scan(
        &self,
        partition: &Partition,
        core: &Core,
        from: EntryId,
        mut look: impl FnMut(&[(i64, i64)], &mut Option<(i64, i64)>) -> bool,
    ) -> Result<Option<(i64, i64)>, StoreError> {
        let count = (SCAN_BYTES / core.bytes_per_entry()).clamp(1, 1_000);
        let end = core.last.after();
        let mut from = from;
        let mut found = None;
        loop {
            let entries = self.entries(partition, Range { from, until: end, count, bytes: SCAN_BYTES }).await?;
            let Some(last) = entries.last().map(|entry| entry.id) else { return Ok(found) };
            for entry in entries {
                let mut records = own_timestamps(entry);
                records.retain(|(offset, _)| *offset >= core.log_start);
                if look(&records, &mut found) {
                    return Ok(found);
                }
            }
            from = last.after();
        }
    }
}

/// Offsets and timestamps of an entry's records; none where it is not Weir's.
fn own_timestamps(entry: Entry) -> Vec<(i64, i64)> {
    let Some(last_offset) = entry.id.offset() else { return Vec::new() };
    match entry.into_batch() {
        Err(entry) => decode(&entry).map(|record| vec![(last_offset, record.timestamp)]).unwrap_or_default(),
        Ok(bytes) => {
            let Ok(batch) = Batch::parse(bytes) else { return Vec::new() };
            let base_offset = last_offset - i64::from(batch.header().last_offset_delta);
            let Ok(records) = batch.records(MOST_BATCH_BYTES) else { return Vec::new() };
            records
                .iter()
                .flatten()
                .map(|record| (base_offset + i64::from(record.offset_delta), record.timestamp))
                .collect()
        }
    }
}
