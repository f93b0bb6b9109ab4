//! What somebody else did to a partition's keys: noticed, reported once, never given to consumers.

use tracing::{debug, error, info};

use super::{
    Partition, RedisLog,
    core::EntryId,
    functions::{self, Snapshot},
};
use crate::log::store::StoreError;

/// Causes that are kept for a partition; more are not reported.
const MOST_CAUSES: usize = 8;

impl RedisLog {
    /// Logs a cause once, as long as it stands.
    pub(super) fn report(&self, partition: &Partition, cause: &str) {
        let mut view = partition.view.lock();
        if view.reported.len() < MOST_CAUSES && !view.reported.iter().any(|reported| reported == cause) {
            view.reported.push(cause.to_owned());
            error!(partition = %partition.id, cause, "somebody else changed the partition's keys in Redis");
        }
    }

    pub(super) fn quarantined(&self, partition: &Partition, cause: String) -> StoreError {
        self.report(partition, &cause);
        StoreError::Quarantined(cause)
    }

    /// Why the stream could not be opened at `last`, the state's last ID.
    pub(super) async fn cause_of_closed(&self, partition: &Partition, last: EntryId, answer: &str) -> StoreError {
        let stream = &partition.keys.stream;
        let cause = match functions::stream_facts(self.at(partition), &partition.keys).await {
            Ok(Ok(facts)) => match facts.last_entry.filter(|entry| *entry > last) {
                Some(entry) => format!("{stream} ends with entry {entry}, which is not Weir's: the log ends at {last}"),
                None => format!("{stream} can't be opened at {last}: {answer}"),
            },
            Ok(Err(text)) if text.contains("no such key") => format!("{stream} was deleted; the log ended at {last}"),
            Ok(Err(text)) => format!("{stream} can't be used: {text}"),
            Err(error) => return error,
        };
        self.quarantined(partition, cause)
    }

    /// After an append that found another length than expected.
    pub(super) async fn look_closer(&self, partition: &Partition) {
        let looked = match self.snapshot(partition, &[]).await {
            Ok(snapshot) if snapshot.length != Some(snapshot.core.entries) => {
                self.inspect(partition, snapshot).await.map(|_| ())
            }
            looked => looked.map(|_| ()),
        };
        if let Err(error) = looked {
            debug!(partition = %partition.id, %error, "the stream's length is not as expected; it can't be looked at");
        }
    }

    /// The stream does not have as many entries as the state says. Whatever was removed, the log goes on with what is
    /// left; whatever was added stays unseen.
    pub(super) async fn inspect(&self, partition: &Partition, mut snapshot: Snapshot) -> Result<Snapshot, StoreError> {
        let core = snapshot.core.clone();
        let stream = &partition.keys.stream;
        if partition.view.lock().inspected == Some((snapshot.length, core.last)) {
            if snapshot.length.is_none() {
                snapshot.core.log_start = core.next_offset;
            }
            return Ok(snapshot);
        }
        let facts = match functions::stream_facts(self.at(partition), &partition.keys).await? {
            Ok(facts) => facts,
            Err(text) => {
                let cause = if snapshot.length.is_none() && text.contains("no such key") {
                    format!("{stream} was deleted; the log ended at {}", core.last)
                } else {
                    format!("{stream} can't be used: {text}")
                };
                self.report(partition, &cause);
                partition.view.lock().inspected = Some((snapshot.length, core.last));
                // Nothing is left to be read; appends stay refused until the repair.
                snapshot.core.log_start = core.next_offset;
                snapshot.core.bytes_below_start = core.bytes;
                return Ok(snapshot);
            }
        };
        if let Some(entry) = facts.last_entry.filter(|entry| *entry > core.last) {
            // An append may have come in between the two looks.
            let again = self.snapshot(partition, &[]).await?;
            if again.core.last < entry {
                let last = again.core.last;
                let cause = format!("{stream} ends with entry {entry}, which is not Weir's: the log ends at {last}");
                self.report(partition, &cause);
                partition.view.lock().inspected = Some((again.length, last));
            }
            return Ok(again);
        }
        let generation = self.at(partition).generation();
        let mut command = functions::call("weir1_adopt", &partition.keys);
        command.arg(partition.id.topic_id.to_string());
        let (adopted, _) = functions::change(self.at(partition), &command).await?;
        {
            let mut view = partition.view.lock();
            view.take(generation, &adopted);
            view.cursors.clear();
        }
        match facts.last_deleted {
            Some(deleted) if deleted <= core.last => {
                self.report(
                    partition,
                    &format!("entries of {stream} were removed by XDEL, the last one was {deleted}"),
                );
            }
            _ => info!(
                partition = %partition.id, from = core.log_start, to = adopted.log_start,
                "somebody else trimmed the stream; the log starts where it now starts"
            ),
        }
        snapshot.length = Some(adopted.entries);
        snapshot.core = adopted;
        Ok(snapshot)
    }
}
