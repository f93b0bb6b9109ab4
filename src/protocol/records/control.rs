//! Control records: the markers that end a transaction (KIP-98). Key: version and type; value, of a marker: version
//! and coordinator epoch. Both are read as Kafka does: a newer version may carry more bytes, which are ignored.

use bytes::Buf;

/// What the key of a record of a control batch says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlRecord {
    EndTransaction(MarkerKind),
    /// A type that is not for partitions of topics (Raft's) or not known; consumers skip it.
    Other(i16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MarkerKind {
    Abort,
    Commit,
}

impl ControlRecord {
    const VERSION: i16 = 0;
    const ABORT: i16 = 0;
    const COMMIT: i16 = 1;

    /// `None` if the bytes are no control record's key.
    pub fn from_key(mut key: &[u8]) -> Option<Self> {
        let version = key.try_get_i16().ok()?;
        if version < Self::VERSION {
            return None;
        }
        Some(match key.try_get_i16().ok()? {
            Self::ABORT => ControlRecord::EndTransaction(MarkerKind::Abort),
            Self::COMMIT => ControlRecord::EndTransaction(MarkerKind::Commit),
            other => ControlRecord::Other(other),
        })
    }
}

/// The one record of a control batch that ends a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTransactionMarker {
    pub kind: MarkerKind,
    pub coordinator_epoch: i32,
}

impl EndTransactionMarker {
    const VERSION: i16 = 0;

    /// `None` if the bytes are no end-transaction marker's.
    pub fn decode(key: &[u8], mut value: &[u8]) -> Option<Self> {
        let ControlRecord::EndTransaction(kind) = ControlRecord::from_key(key)? else {
            return None;
        };
        let version = value.try_get_i16().ok()?;
        if version < Self::VERSION {
            return None;
        }
        Some(EndTransactionMarker { kind, coordinator_epoch: value.try_get_i32().ok()? })
    }

    pub fn key(&self) -> [u8; 4] {
        let [high, low] = match self.kind {
            MarkerKind::Abort => ControlRecord::ABORT,
            MarkerKind::Commit => ControlRecord::COMMIT,
        }
        .to_be_bytes();
        let [version_high, version_low] = ControlRecord::VERSION.to_be_bytes();
        [version_high, version_low, high, low]
    }

    pub fn value(&self) -> [u8; 6] {
        let [version_high, version_low] = Self::VERSION.to_be_bytes();
        let [a, b, c, d] = self.coordinator_epoch.to_be_bytes();
        [version_high, version_low, a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_have_the_bytes_of_kafkas_end_txn_marker() {
        let marker = EndTransactionMarker { kind: MarkerKind::Commit, coordinator_epoch: 258 };
        assert_eq!(marker.key(), [0, 0, 0, 1]);
        assert_eq!(marker.value(), [0, 0, 0, 0, 1, 2]);
        assert_eq!(EndTransactionMarker::decode(&marker.key(), &marker.value()), Some(marker));
        let abort = EndTransactionMarker { kind: MarkerKind::Abort, coordinator_epoch: -1 };
        assert_eq!(abort.key(), [0, 0, 0, 0]);
        assert_eq!(EndTransactionMarker::decode(&abort.key(), &abort.value()), Some(abort));
    }

    #[test]
    fn newer_versions_are_read_and_broken_ones_are_not() {
        assert_eq!(
            EndTransactionMarker::decode(&[0, 1, 0, 1, 9], &[0, 1, 0, 0, 0, 7, 9, 9]),
            Some(EndTransactionMarker { kind: MarkerKind::Commit, coordinator_epoch: 7 })
        );
        assert_eq!(ControlRecord::from_key(&[0, 0, 0, 2]), Some(ControlRecord::Other(2)));
        assert_eq!(ControlRecord::from_key(&[0, 0, 0]), None);
        assert_eq!(ControlRecord::from_key(&[0xff, 0xff, 0, 1]), None);
        assert_eq!(EndTransactionMarker::decode(&[0, 0, 0, 1], &[0, 0, 0, 0, 7]), None);
        assert_eq!(EndTransactionMarker::decode(&[0, 0, 0, 2], &[0, 0, 0, 0, 0, 7]), None);
    }
}
