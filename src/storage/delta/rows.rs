//! Record batches made into rows.

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{
        BinaryBuilder, BooleanBuilder, Int16Builder, Int32Builder, Int64Builder, ListBuilder, StringBuilder,
        StructBuilder, TimestampMicrosecondBuilder,
    },
};
use arrow_schema::ArrowError;
use serde::de::IgnoredAny;

use std::sync::Arc;

use super::{calendar, schema};
use crate::protocol::records::{
    BatchHeader, ControlRecord, MarkerKind, NO_SEQUENCE, NO_TIMESTAMP, RecordView, TimestampType, increment_sequence,
};

pub(super) const CREATE_TIME: &str = "CreateTime";
pub(super) const LOG_APPEND_TIME: &str = "LogAppendTime";

/// Rows that are not yet encoded; together they become one row group.
pub(super) struct RowBuilder {
    offset: Int64Builder,
    timestamp: TimestampMicrosecondBuilder,
    timestamp_type: StringBuilder,
    key: BinaryBuilder,
    value: BinaryBuilder,
    value_json: StringBuilder,
    headers: ListBuilder<StructBuilder>,
    leader_epoch: Int32Builder,
    producer_id: Int64Builder,
    producer_epoch: Int16Builder,
    sequence: Int32Builder,
    transactional: BooleanBuilder,
    control: StringBuilder,
    timestamp_ms: Int64Builder,
    rows: usize,
    bytes: usize,
}

impl RowBuilder {
    pub(super) fn new() -> Self {
        let header = StructBuilder::new(
            schema::header_fields(),
            vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new()), Box::new(BinaryBuilder::new())],
        );
        Self {
            offset: Int64Builder::new(),
            timestamp: TimestampMicrosecondBuilder::new().with_timezone(schema::UTC),
            timestamp_type: StringBuilder::new(),
            key: BinaryBuilder::new(),
            value: BinaryBuilder::new(),
            value_json: StringBuilder::new(),
            headers: ListBuilder::new(header).with_field(schema::header_element()),
            leader_epoch: Int32Builder::new(),
            producer_id: Int64Builder::new(),
            producer_epoch: Int16Builder::new(),
            sequence: Int32Builder::new(),
            transactional: BooleanBuilder::new(),
            control: StringBuilder::new(),
            timestamp_ms: Int64Builder::new(),
            rows: 0,
            bytes: 0,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the rows before they are encoded, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, batch: &BatchHeader, record: &RecordView<'_>) {
        self.offset.append_value(record.offset);
        self.push_timestamp(record.timestamp);
        self.timestamp_type.append_value(match batch.timestamp_type() {
            TimestampType::CreateTime => CREATE_TIME,
            TimestampType::LogAppendTime => LOG_APPEND_TIME,
        });
        self.key.append_option(record.key);
        let json = record.value.filter(|_| !batch.is_control()).and_then(json_text);
        self.value.append_option(record.value.filter(|_| json.is_none()));
        self.value_json.append_option(json);
        self.leader_epoch.append_value(batch.partition_leader_epoch);
        let producer = batch.has_producer_id();
        self.producer_id.append_option(producer.then_some(batch.producer_id));
        self.producer_epoch.append_option(producer.then_some(batch.producer_epoch));
        let sequence = (producer && batch.base_sequence != NO_SEQUENCE)
            .then(|| increment_sequence(batch.base_sequence, record.offset_delta));
        self.sequence.append_option(sequence);
        self.transactional.append_value(batch.is_transactional());
        self.control.append_option(batch.is_control().then(|| control_name(record.key)));
        let mut bytes = 48 + record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        for (name, value) in record.headers.clone() {
            bytes += 16 + name.len() + value.map_or(0, <[u8]>::len);
            self.push_header(name, value);
        }
        self.headers.append(true);
        self.rows += 1;
        self.bytes += bytes;
    }

    /// A timestamp that no calendar shows stands in a column of its own, exactly.
    fn push_timestamp(&mut self, timestamp: i64) {
        let shown = (calendar::FIRST_MS..=calendar::LAST_MS).contains(&timestamp) && timestamp != NO_TIMESTAMP;
        self.timestamp.append_option(shown.then(|| timestamp * 1_000));
        self.timestamp_ms.append_option((!shown && timestamp != NO_TIMESTAMP).then_some(timestamp));
    }

    fn push_header(&mut self, name: &[u8], value: Option<&[u8]>) {
        let element = self.headers.values();
        let text = String::from_utf8_lossy(name);
        let exact = matches!(text, std::borrow::Cow::Borrowed(_));
        if let Some(names) = element.field_builder::<StringBuilder>(0) {
            names.append_value(&text);
        }
        if let Some(values) = element.field_builder::<BinaryBuilder>(1) {
            values.append_option(value);
        }
        if let Some(names) = element.field_builder::<BinaryBuilder>(2) {
            names.append_option((!exact).then_some(name));
        }
        element.append(true);
    }

    /// All rows so far, which it then has no more.
    pub(super) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.offset.finish()),
            Arc::new(self.timestamp.finish()),
            Arc::new(self.timestamp_type.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.value.finish()),
            Arc::new(self.value_json.finish()),
            Arc::new(self.headers.finish()),
            Arc::new(self.leader_epoch.finish()),
            Arc::new(self.producer_id.finish()),
            Arc::new(self.producer_epoch.finish()),
            Arc::new(self.sequence.finish()),
            Arc::new(self.transactional.finish()),
            Arc::new(self.control.finish()),
            Arc::new(self.timestamp_ms.finish()),
        ];
        self.rows = 0;
        self.bytes = 0;
        RecordBatch::try_new(schema::columns(), columns)
    }
}

/// The value as text if it is a JSON object or array.
fn json_text(value: &[u8]) -> Option<&str> {
    let first = value.iter().find(|byte| !byte.is_ascii_whitespace())?;
    if !matches!(first, b'{' | b'[') {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?;
    serde_json::from_str::<IgnoredAny>(text).is_ok().then_some(text)
}

fn control_name(key: Option<&[u8]>) -> &'static str {
    match key.and_then(ControlRecord::from_key) {
        Some(ControlRecord::EndTransaction(MarkerKind::Commit)) => "commit",
        Some(ControlRecord::EndTransaction(MarkerKind::Abort)) => "abort",
        Some(ControlRecord::Other(_)) | None => "other",
    }
}
