//! Kafka's record batches, format v2 (KIP-98), as pure code: no I/O, no clock, no state.
//!
//! On the way in: [`single_batch`] takes the one batch of a Produce partition, [`validate`] checks it as Kafka's
//! `UnifiedLog` and `LogValidator` do, [`ValidatedBatch::rebuild`] re-encodes it where Kafka would,
//! [`ValidatedBatch::place`] gives it its offsets. On the way out: [`Records`] walks the records of a batch,
//! [`BatchBuilder`] makes batches from records.

mod builder;
mod compression;
mod control;
mod error;
mod header;
mod place;
mod rebuild;
mod source;
mod split;
mod validate;
mod varint;
mod view;

#[cfg(test)]
mod tests;

pub use builder::{BatchBuilder, BatchOptions, BuildError, NewRecord, ProducerStamp};
pub use compression::{Codec, Compression, compress, decompress};
pub use control::{ControlRecord, EndTransactionMarker, MarkerKind};
pub use error::{InvalidBatch, MalformedRecords, RecordFault, RejectedRecord, RejectedRecords};
pub use header::{
    Attributes, BatchHeader, HEADER_LENGTH, LOG_OVERHEAD, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID,
    NO_SEQUENCE, NO_TIMESTAMP, TimestampType, increment_sequence,
};
pub use place::{PlacedBatch, Placement};
pub use rebuild::RebuildError;
pub use split::{Batch, Batches, single_batch};
pub use validate::{ValidatedBatch, ValidationLimits, validate};
pub use view::{HeaderIter, RecordIter, RecordView, Records};
