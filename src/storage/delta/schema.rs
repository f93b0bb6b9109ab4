//! The table's columns: names, types, and how Parquet stores them.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties, WriterVersion},
    schema::types::ColumnPath,
};
use serde_json::{Value, json};

/// Positions of the columns in a file; `partition` and `date` stand in its path.
pub(super) mod column {
    pub(crate) const OFFSET: usize = 0;
    pub(crate) const TIMESTAMP: usize = 1;
    pub(crate) const TIMESTAMP_TYPE: usize = 2;
    pub(crate) const KEY: usize = 3;
    pub(crate) const VALUE: usize = 4;
    pub(crate) const VALUE_JSON: usize = 5;
    pub(crate) const HEADERS: usize = 6;
    pub(crate) const LEADER_EPOCH: usize = 7;
    pub(crate) const PRODUCER_ID: usize = 8;
    pub(crate) const PRODUCER_EPOCH: usize = 9;
    pub(crate) const SEQUENCE: usize = 10;
    pub(crate) const TRANSACTIONAL: usize = 11;
    pub(crate) const CONTROL: usize = 12;
    pub(crate) const TIMESTAMP_MS: usize = 13;
}

/// The time zone that Delta's `timestamp` has.
pub(super) const UTC: &str = "UTC";

pub(super) fn header_fields() -> Fields {
    Fields::from(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("value", DataType::Binary, true),
        Field::new("name_bytes", DataType::Binary, true),
    ])
}

pub(super) fn header_element() -> Field {
    Field::new("element", DataType::Struct(header_fields()), false)
}

static COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("offset", DataType::Int64, false),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())), true),
        Field::new("timestamp_type", DataType::Utf8, false),
        Field::new("key", DataType::Binary, true),
        Field::new("value", DataType::Binary, true),
        Field::new("value_json", DataType::Utf8, true),
        Field::new("headers", DataType::List(Arc::new(header_element())), false),
        Field::new("leader_epoch", DataType::Int32, false),
        Field::new("producer_id", DataType::Int64, true),
        Field::new("producer_epoch", DataType::Int16, true),
        Field::new("sequence", DataType::Int32, true),
        Field::new("transactional", DataType::Boolean, false),
        Field::new("control", DataType::Utf8, true),
        Field::new("timestamp_ms", DataType::Int64, true),
    ]))
});

/// The columns in a file.
pub(super) fn columns() -> SchemaRef {
    COLUMNS.clone()
}

pub(super) const PARTITION_COLUMNS: [&str; 2] = ["partition", "date"];

/// The table's schema as Delta's metadata has it.
pub(super) fn schema_string() -> String {
    let mut fields = vec![
        json!({"name": "partition", "type": "integer", "nullable": true, "metadata": {}}),
        json!({"name": "date", "type": "date", "nullable": true, "metadata": {}}),
    ];
    fields.extend(columns().fields().iter().map(|field| delta_field(field)));
    json!({"type": "struct", "fields": fields}).to_string()
}

fn delta_field(field: &Field) -> Value {
    json!({"name": field.name(), "type": delta_type(field.data_type()), "nullable": field.is_nullable(), "metadata": {}})
}

/// The types that [`columns`] has; anything else would be a mistake in it, which a test sees.
fn delta_type(data_type: &DataType) -> Value {
    match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::Int16 => json!("short"),
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Utf8 => json!("string"),
        DataType::Timestamp(..) => json!("timestamp"),
        DataType::List(element) => json!({
            "type": "array",
            "elementType": delta_type(element.data_type()),
            "containsNull": element.is_nullable(),
        }),
        DataType::Struct(fields) => {
            json!({"type": "struct", "fields": fields.iter().map(|field| delta_field(field)).collect::<Vec<_>>()})
        }
        _ => json!("binary"),
    }
}

/// How a file is written. Numbers that grow are stored as differences; texts whose values repeat as a dictionary; the
/// payload plain, since `zstd` finds more in it that way.
pub(super) fn writer_properties(zstd_level: i32) -> Result<WriterProperties, ParquetError> {
    let path = |name: &str| ColumnPath::from(name);
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(concat!("weir ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(zstd_level)?))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(None)
        .set_data_page_size_limit(1024 * 1024)
        .set_data_page_row_count_limit(usize::MAX);
    for name in ["offset", "timestamp", "sequence", "timestamp_ms"] {
        properties = properties
            .set_column_dictionary_enabled(path(name), false)
            .set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in ["offset", "timestamp"] {
        properties = properties.set_column_statistics_enabled(path(name), EnabledStatistics::Page);
    }
    for name in ["value", "value_json"] {
        properties = properties
            .set_column_dictionary_enabled(path(name), false)
            .set_column_encoding(path(name), Encoding::DELTA_LENGTH_BYTE_ARRAY);
    }
    let header = |name: &str| ColumnPath::new(["headers", "list", "element", name].map(str::to_owned).to_vec());
    for column in
        [path("key"), path("value"), path("value_json"), header("name"), header("value"), header("name_bytes")]
    {
        properties = properties.set_column_statistics_enabled(column, EnabledStatistics::None);
    }
    Ok(properties.build())
}
