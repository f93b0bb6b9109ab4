use bytes::Bytes;

use super::builder::{BuildError, assemble, encode_record};
use super::compression::Compression;
use super::error::MalformedRecords;
use super::split::Batch;
use super::validate::ValidatedBatch;

impl ValidatedBatch {
    /// Whether Kafka would store the batch otherwise than it was sent. `target` is the topic's `compression.type`;
    /// none stands for `producer`. As in Kafka the level alone is no reason. Offsets that have to be counted anew are:
    /// Kafka's `LogValidator` means to do that too, but 4.3.1 stores such a batch with its wrong offsets if it is
    /// uncompressed, and fails with UNKNOWN_SERVER_ERROR otherwise.
    pub fn needs_rebuild(&self, target: Option<Compression>) -> bool {
        let other_codec = target.is_some_and(|target| self.header().codec() != Ok(target.codec));
        other_codec || !self.offsets_contiguous
    }

    /// Encodes the batch anew: compressed as `target` says (none: as it was sent), offsets counting from 0 without
    /// gaps. Check the size of the outcome against `max.message.bytes` again.
    ///
    /// # Errors
    /// [`RebuildError::Records`] if the records take more than `max_decompressed_bytes`.
    pub fn rebuild(
        &self,
        target: Option<Compression>,
        max_decompressed_bytes: usize,
    ) -> Result<ValidatedBatch, RebuildError> {
        let records = self.records(max_decompressed_bytes)?;
        let payload = if self.offsets_contiguous {
            records.payload().clone()
        } else {
            let mut payload = Vec::with_capacity(records.payload().len());
            for record in &records {
                let record = record?;
                encode_record(
                    record.timestamp_delta,
                    record.offset_delta,
                    record.key,
                    record.value,
                    record.headers,
                    &mut payload,
                )?;
            }
            Bytes::from(payload)
        };
        let mut header = self.stored_header();
        let compression = match target {
            Some(target) => target,
            None => Compression::new(header.codec().map_err(MalformedRecords::UnknownCodec)?),
        };
        header.attributes = header.attributes.with_codec(compression.codec);
        let bytes = assemble(&mut header, compression, &payload)?;
        Ok(ValidatedBatch {
            batch: Batch::from_parts(header, bytes),
            payload: self.payload.is_some().then_some(payload),
            offsets_contiguous: true,
            ..self.clone()
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RebuildError {
    #[error(transparent)]
    Records(#[from] MalformedRecords),
    #[error(transparent)]
    Build(#[from] BuildError),
}
