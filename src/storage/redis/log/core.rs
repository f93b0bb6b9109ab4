//! What the field `core` of a partition's state says. It is compared and replaced as a whole (`scripts/log.lua`).

use std::fmt;

use uuid::Uuid;

use crate::{
    log::archive::{Cold, ColdBounds},
    model::TopicId,
};

/// The ID of a stream entry: running maximum timestamp and offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EntryId {
    pub(super) ms: u64,
    pub(super) seq: u64,
}

impl EntryId {
    pub(super) const MAX: EntryId = EntryId { ms: u64::MAX, seq: u64::MAX };

    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let (ms, seq) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
    }

    /// The next possible ID; that of the last one is itself.
    pub(super) fn after(self) -> Self {
        match (self.seq.checked_add(1), self.ms.checked_add(1)) {
            (Some(seq), _) => Self { ms: self.ms, seq },
            (None, Some(ms)) => Self { ms, seq: 0 },
            (None, None) => Self::MAX,
        }
    }

    /// The right half, where it can be an offset.
    pub(super) fn offset(self) -> Option<i64> {
        i64::try_from(self.seq).ok()
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// A partition's end, start and counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Core {
    pub(super) topic_id: TopicId,
    pub(super) leader_epoch: i32,
    /// The last ID that was given; `0-0` at first.
    pub(super) last: EntryId,
    pub(super) next_offset: i64,
    pub(super) log_start: i64,
    /// Of the records that are left; an upper bound where the offset is not known.
    pub(super) max_timestamp: i64,
    /// Of the first record that has it, -1: not known, the record that had it was removed.
    pub(super) max_timestamp_offset: i64,
    /// Bytes of wire batches ever written.
    pub(super) bytes: u64,
    /// Of these, below the log start.
    pub(super) bytes_below_start: u64,
    pub(super) bytes_at_mark: u64,
    /// Entries that the stream should have.
    pub(super) entries: i64,
    pub(super) fence: u64,
}

impl Core {
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        if words.next()? != "1" {
            return None;
        }
        let core = Self {
            topic_id: parse_topic_id(words.next()?)?,
            leader_epoch: words.next()?.parse().ok()?,
            last: EntryId::parse(words.next()?.as_bytes())?,
            next_offset: words.next()?.parse().ok()?,
            log_start: words.next()?.parse().ok()?,
            max_timestamp: words.next()?.parse().ok()?,
            max_timestamp_offset: words.next()?.parse().ok()?,
            bytes: words.next()?.parse().ok()?,
            bytes_below_start: words.next()?.parse().ok()?,
            bytes_at_mark: words.next()?.parse().ok()?,
            entries: words.next()?.parse().ok()?,
            fence: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(core)
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.bytes_below_start)
    }

    /// About the wire bytes of one entry.
    pub(super) fn bytes_per_entry(&self) -> u64 {
        let entries = u64::try_from(self.entries).unwrap_or(0).max(1);
        (self.size_bytes() / entries).max(1)
    }

    /// The ID of an entry that ends with `last_offset` and whose largest timestamp is `timestamp`.
    pub(super) fn next_id(&self, timestamp: i64, last_offset: i64) -> EntryId {
        let seq = u64::try_from(last_offset).unwrap_or(0);
        let ms = u64::try_from(timestamp).unwrap_or(0).max(self.last.ms).max(1);
        // Never so where Weir wrote all entries; a repair goes on above an ID of somebody else.
        if ms == self.last.ms && seq <= self.last.seq {
            EntryId { ms: ms.saturating_add(1), seq }
        } else {
            EntryId { ms, seq }
        }
    }

    /// Counts in an entry that was given `id`.
    pub(super) fn advance(&mut self, id: EntryId, next_offset: i64) {
        self.last = id;
        self.next_offset = next_offset;
        self.entries = self.entries.saturating_add(1);
    }

    pub(super) fn take_timestamp(&mut self, timestamp: i64, offset: i64) {
        if timestamp > self.max_timestamp {
            self.max_timestamp = timestamp;
            self.max_timestamp_offset = offset;
        }
    }
}

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "1 {} {} {} {} {} {} {} {} {} {} {} {}",
            self.topic_id,
            self.leader_epoch,
            self.last,
            self.next_offset,
            self.log_start,
            self.max_timestamp,
            self.max_timestamp_offset,
            self.bytes,
            self.bytes_below_start,
            self.bytes_at_mark,
            self.entries,
            self.fence
        )
    }
}

/// The state's field `cold`: `1 <1: holds back> <start> <end> <largest timestamp> <bytes>`. Redis compares it as a whole.
pub(super) fn format_cold(cold: &Cold) -> String {
    let ColdBounds { start_offset, end_offset, max_timestamp, size_bytes } = cold.bounds;
    format!("1 {} {start_offset} {end_offset} {max_timestamp} {size_bytes}", u8::from(cold.holds_back))
}

pub(super) fn parse_cold(text: &[u8]) -> Option<Cold> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    if words.next()? != "1" {
        return None;
    }
    let holds_back = match words.next()? {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    let bounds = ColdBounds {
        start_offset: words.next()?.parse().ok()?,
        end_offset: words.next()?.parse().ok()?,
        max_timestamp: words.next()?.parse().ok()?,
        size_bytes: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(Cold { bounds, holds_back })
}

/// Where the log starts, be it in the archive.
pub(super) fn log_start(core: &Core, cold: Option<&Cold>) -> i64 {
    match cold.filter(|cold| !cold.is_empty()) {
        Some(cold) => cold.bounds.start_offset.min(core.log_start),
        None => core.log_start,
    }
}

pub(super) fn parse_topic_id(text: &str) -> Option<TopicId> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    Uuid::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok().map(TopicId)
}

/// Epochs and where they start, oldest first: `0:0 3:1500`.
pub(super) fn parse_epochs(text: &[u8]) -> Vec<(i32, i64)> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let pair = |word: &str| {
        let (epoch, start) = word.split_once(':')?;
        Some((epoch.parse().ok()?, start.parse().ok()?))
    };
    text.split_ascii_whitespace().filter_map(pair).collect()
}

/// The epoch that wrote an offset.
pub(super) fn epoch_at(epochs: &[(i32, i64)], offset: i64, latest: i32) -> i32 {
    epochs.iter().rev().find(|(_, start)| *start <= offset).map_or(latest, |(epoch, _)| *epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core() -> Core {
        Core {
            topic_id: TopicId::random(),
            leader_epoch: 3,
            last: EntryId { ms: 1_700_000_000_000, seq: 41 },
            next_offset: 42,
            log_start: 7,
            max_timestamp: 1_700_000_000_000,
            max_timestamp_offset: -1,
            bytes: 9_000,
            bytes_below_start: 1_000,
            bytes_at_mark: 0,
            entries: 35,
            fence: 2,
        }
    }

    #[test]
    fn a_core_reads_back_as_it_was_written() {
        let core = core();
        assert_eq!(Core::parse(core.to_string().as_bytes()), Some(core));
    }

    #[test]
    fn another_version_or_a_broken_core_is_not_read() {
        let text = core().to_string();
        assert_eq!(Core::parse(text.replacen('1', "2", 1).as_bytes()), None);
        assert_eq!(Core::parse(format!("{text} 1").as_bytes()), None);
        assert_eq!(Core::parse(text.rsplit_once(' ').map_or("", |(head, _)| head).as_bytes()), None);
        assert_eq!(Core::parse(b""), None);
    }

    #[test]
    fn a_note_of_the_archive_reads_back_and_says_where_the_log_starts() {
        let bounds = ColdBounds { start_offset: 3, end_offset: 9, max_timestamp: -1, size_bytes: 77 };
        let cold = Cold { bounds, holds_back: true };
        assert_eq!(parse_cold(format_cold(&cold).as_bytes()), Some(cold));
        assert_eq!(parse_cold(b"1 2 3 9 -1 77"), None);
        assert_eq!(parse_cold(b"1 1 3 9 -1 77 0"), None);
        assert_eq!(log_start(&core(), Some(&cold)), 3);
        let emptied = Cold { bounds: ColdBounds { start_offset: 9, ..bounds }, ..cold };
        assert_eq!(log_start(&core(), Some(&emptied)), 7);
        assert_eq!(log_start(&core(), None), 7);
    }

    #[test]
    fn ids_never_go_back_and_start_at_one() {
        let mut core = core();
        assert_eq!(core.next_id(5, 42), EntryId { ms: 1_700_000_000_000, seq: 42 });
        assert_eq!(core.next_id(1_700_000_000_001, 42), EntryId { ms: 1_700_000_000_001, seq: 42 });
        core.last = EntryId { ms: 0, seq: 0 };
        assert_eq!(core.next_id(-1, 0), EntryId { ms: 1, seq: 0 });
        core.last = EntryId { ms: 9, seq: 100 };
        assert_eq!(core.next_id(9, 42), EntryId { ms: 10, seq: 42 });
    }

    #[test]
    fn an_offset_belongs_to_the_latest_epoch_that_started_before_it() {
        let epochs = parse_epochs(b"0:0 3:1500");
        assert_eq!(epochs, [(0, 0), (3, 1500)]);
        assert_eq!(epoch_at(&epochs, 1499, 3), 0);
        assert_eq!(epoch_at(&epochs, 1500, 3), 3);
        assert_eq!(epoch_at(&[], 5, 9), 9);
    }
}
