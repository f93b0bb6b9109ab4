//! A record as a stream entry of the `record` layout, and entries as Redis answers them.

use std::borrow::Cow;

use bytes::Bytes;
use redis::RedisWrite;

use super::{core::EntryId, json};
use crate::{
    log::store::ValueFormat,
    protocol::records::{HeaderIter, MarkerKind, RecordView},
    storage::redis::connection::Raw,
};

pub(super) const BATCH_FIELD: &[u8] = b"__batch";
const TIMESTAMP_FIELD: &[u8] = b"__ts";
const PRODUCER_FIELD: &[u8] = b"__producer";
const CONTROL_FIELD: &[u8] = b"__control";
const KEY_FIELD: &[u8] = b"__key";
const HEADER_PREFIX: &[u8] = b"__header.";
const NULL_HEADER_PREFIX: &[u8] = b"__nullheader.";
const JSON_FIELD: &[u8] = b"__json";
const VALUE_FIELD: &[u8] = b"value";

/// An entry's ID and its fields, names and values in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: EntryId,
    pub(super) fields: Vec<Bytes>,
}

impl Entry {
    /// What `XRANGE` answers; `None` where it is not that. The entries are slices of it.
    pub(super) fn list(answer: Bytes) -> Option<Vec<Entry>> {
        let mut answer = Raw::new(answer);
        (0..answer.array()?).map(|_| Entry::parse(&mut answer)).collect()
    }

    fn parse(answer: &mut Raw) -> Option<Entry> {
        answer.array().filter(|parts| *parts == 2)?;
        let id = EntryId::parse(&answer.string()?)?;
        let fields = (0..answer.array()?).map(|_| answer.string()).collect::<Option<_>>()?;
        Some(Entry { id, fields })
    }

    /// The batch that the entry is, in the `batch` layout.
    pub(super) fn into_batch(self) -> Result<Bytes, Entry> {
        match self.fields.first() {
            Some(name) if name == BATCH_FIELD && self.fields.len() == 2 => {
                Ok(self.fields.into_iter().nth(1).unwrap_or_default())
            }
            _ => Err(self),
        }
    }

    /// Bytes of names and values.
    pub(super) fn size(&self) -> usize {
        self.fields.iter().map(Bytes::len).sum()
    }
}

/// How the field `__ts` of a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimestampField {
    /// Only where the record's own timestamp is not the ID's left half.
    IfNeeded,
    /// Also where it is 0.
    Always,
    /// The timestamp is the broker's.
    AppendTime,
}

/// A record's fields but the timestamp.
#[derive(Debug)]
pub(super) struct Body<'a> {
    /// Id and epoch, of a transactional record.
    producer: Option<(i64, i16)>,
    key: Option<&'a [u8]>,
    headers: HeaderIter<'a>,
    value: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    Null,
    Raw(&'a [u8]),
    Flat(json::Flat<'a>),
}

/// The topic takes only JSON objects.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotJson;

impl<'a> Body<'a> {
    pub(super) fn of(
        record: &RecordView<'a>,
        format: ValueFormat,
        producer: Option<(i64, i16)>,
    ) -> Result<Self, NotJson> {
        let value = match (record.value, format) {
            (None, _) => Content::Null,
            (Some(value), ValueFormat::Raw) => Content::Raw(value),
            (Some(value), ValueFormat::Auto | ValueFormat::Json) => match json::flatten(value) {
                json::Parsed::Flat(flat) => Content::Flat(flat),
                json::Parsed::NotAnObject if format == ValueFormat::Json => return Err(NotJson),
                json::Parsed::NotAnObject | json::Parsed::Object => Content::Raw(value),
            },
        };
        Ok(Body { producer, key: record.key, headers: record.headers.clone(), value })
    }

    /// The value as one field: not more work for Redis than a transaction may be.
    pub(super) fn keep_whole(&mut self, value: Option<&'a [u8]>) {
        if let (Content::Flat(_), Some(value)) = (&self.value, value) {
            self.value = Content::Raw(value);
        }
    }

    /// How many names and values [`Body::write`] adds.
    pub(super) fn arguments(&self) -> usize {
        let value = match &self.value {
            Content::Null => 0,
            Content::Raw(_) => 1,
            Content::Flat(flat) => 1 + flat.fields.len(),
        };
        2 * (usize::from(self.producer.is_some()) + usize::from(self.key.is_some()) + self.headers.len() + value)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.arguments() == 0
    }

    pub(super) fn write(&self, out: &mut impl RedisWrite) {
        if let Some((id, epoch)) = self.producer {
            out.write_arg(PRODUCER_FIELD);
            out.write_arg_fmt(format_args!("{id} {epoch}"));
        }
        if let Some(key) = self.key {
            out.write_arg(KEY_FIELD);
            out.write_arg(key);
        }
        let mut field = Vec::new();
        for (name, value) in self.headers.clone() {
            field.clear();
            field.extend_from_slice(if value.is_some() { HEADER_PREFIX } else { NULL_HEADER_PREFIX });
            field.extend_from_slice(name);
            out.write_arg(&field);
            out.write_arg(value.unwrap_or_default());
        }
        match &self.value {
            Content::Null => {}
            Content::Raw(value) => {
                out.write_arg(VALUE_FIELD);
                out.write_arg(value);
            }
            Content::Flat(flat) => {
                out.write_arg(JSON_FIELD);
                out.write_arg(flat.shape.as_bytes());
                for (name, value) in &flat.fields {
                    out.write_arg(name);
                    out.write_arg(value);
                }
            }
        }
    }
}

/// The field `__ts` of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timestamp {
    is_append_time: bool,
    delta: i64,
}

impl Timestamp {
    /// `None` where the entry needs none. `delta` is the ID's left half less the record's timestamp.
    pub(super) fn of(field: TimestampField, delta: i64, body: &Body<'_>) -> Option<Self> {
        // An entry needs a field.
        let is_due = field != TimestampField::IfNeeded || delta != 0 || body.is_empty();
        is_due.then_some(Self { is_append_time: field == TimestampField::AppendTime, delta })
    }

    /// Name and value.
    pub(super) const ARGUMENTS: usize = 2;

    pub(super) fn write(self, out: &mut impl RedisWrite) {
        out.write_arg(TIMESTAMP_FIELD);
        match self {
            Self { is_append_time: true, delta: 0 } => out.write_arg(b"append"),
            Self { is_append_time: true, delta } => out.write_arg_fmt(format_args!("append {delta}")),
            Self { is_append_time: false, delta } => out.write_arg(itoa::Buffer::new().format(delta).as_bytes()),
        }
    }
}

/// A record, borrowed from its entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) timestamp: i64,
    pub(super) is_append_time: bool,
    pub(super) producer: Option<(i64, i16)>,
    /// And the coordinator epoch.
    pub(super) control: Option<(MarkerKind, i32)>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
    pub(super) value: Option<Cow<'a, [u8]>>,
}

/// Reads an entry of the `record` layout; `None` where it is none that Weir writes.
pub(super) fn decode(entry: &Entry) -> Option<Record<'_>> {
    let (pairs, rest) = entry.fields.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return None;
    }
    let left = i64::try_from(entry.id.ms).ok()?;
    let mut record = Record {
        timestamp: left,
        is_append_time: false,
        producer: None,
        control: None,
        key: None,
        headers: Vec::new(),
        value: None,
    };
    for (index, [name, value]) in pairs.iter().enumerate() {
        match &name[..] {
            TIMESTAMP_FIELD => {
                let text = std::str::from_utf8(value).ok()?;
                let (is_append_time, delta) = match text.strip_prefix("append") {
                    None => (false, text.parse::<i64>().ok()?),
                    Some("") => (true, 0),
                    Some(delta) => (true, delta.strip_prefix(' ')?.parse().ok()?),
                };
                record.is_append_time = is_append_time;
                record.timestamp = left.checked_sub(delta)?;
            }
            PRODUCER_FIELD => {
                let (id, epoch) = std::str::from_utf8(value).ok()?.split_once(' ')?;
                record.producer = Some((id.parse().ok()?, epoch.parse().ok()?));
            }
            CONTROL_FIELD => {
                let (kind, epoch) = std::str::from_utf8(value).ok()?.split_once(' ')?;
                let kind = match kind {
                    "commit" => MarkerKind::Commit,
                    "abort" => MarkerKind::Abort,
                    _ => return None,
                };
                record.control = Some((kind, epoch.parse().ok()?));
            }
            KEY_FIELD => record.key = Some(value),
            VALUE_FIELD if index + 1 == pairs.len() => record.value = Some(Cow::Borrowed(value)),
            JSON_FIELD => {
                let fields = pairs.get(index + 1..)?.iter().map(|[name, value]| (&name[..], &value[..]));
                record.value = Some(Cow::Owned(json::join(value, fields)?));
                break;
            }
            name => {
                if let Some(name) = name.strip_prefix(HEADER_PREFIX) {
                    record.headers.push((name, Some(value)));
                } else {
                    record.headers.push((name.strip_prefix(NULL_HEADER_PREFIX)?, None));
                }
            }
        }
    }
    Some(record)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::records::{Batch, BatchBuilder, BatchOptions, NewRecord};

    type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    fn entry_of(
        id: EntryId,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &Headers,
        (format, field): (ValueFormat, TimestampField),
    ) -> Entry {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        let headers = headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref()));
        builder.push(NewRecord { offset: 0, timestamp, key, value, headers }).expect("it is small");
        let batch = Batch::parse(builder.finish().expect("it has a record")).expect("it was just built");
        let records = batch.records(usize::MAX).expect("it is not compressed");
        let record = records.iter().next().expect("there is one").expect("it is well-formed");
        let body = Body::of(&record, format, None).expect("the format takes anything");
        let mut command = redis::Cmd::new();
        let delta = i64::try_from(id.ms).expect("it is a time") - timestamp;
        if let Some(timestamp) = Timestamp::of(field, delta, &body) {
            timestamp.write(&mut command);
        }
        body.write(&mut command);
        let fields = command
            .args_iter()
            .map(|argument| match argument {
                redis::Arg::Simple(bytes) => Bytes::copy_from_slice(bytes),
                _ => panic!("no cursors here"),
            })
            .collect();
        Entry { id, fields }
    }

    fn names(entry: &Entry) -> Vec<String> {
        entry.fields.chunks(2).map(|pair| String::from_utf8_lossy(&pair[0]).into_owned()).collect()
    }

    const AUTO: (ValueFormat, TimestampField) = (ValueFormat::Auto, TimestampField::IfNeeded);

    #[test]
    fn fields_are_named_as_the_design_says() {
        let id = EntryId { ms: 100, seq: 7 };
        let headers = vec![(b"h".to_vec(), Some(b"1".to_vec())), (b"n".to_vec(), None)];
        let entry = entry_of(id, 90, Some(b"k"), Some(b"{\"a\":\"x\",\"b\":1}"), &headers, AUTO);
        assert_eq!(names(&entry), ["__ts", "__key", "__header.h", "__nullheader.n", "__json", "a", "b"]);
        assert_eq!(entry.fields[1][..], b"10"[..]);
        assert_eq!(entry.fields[9][..], b"c:sj"[..]);
        let entry = entry_of(id, 100, None, Some(b"raw"), &Vec::new(), AUTO);
        assert_eq!(names(&entry), ["value"]);
    }

    #[test]
    fn a_record_of_nothing_still_has_a_field() {
        let entry = entry_of(EntryId { ms: 100, seq: 7 }, 100, None, None, &Vec::new(), AUTO);
        assert_eq!(entry.fields, [&b"__ts"[..], b"0"]);
    }

    #[test]
    fn foreign_entries_are_recognised() {
        let entry = |fields: &[&str]| Entry {
            id: EntryId { ms: 5, seq: 0 },
            fields: fields.iter().map(|field| Bytes::copy_from_slice(field.as_bytes())).collect(),
        };
        for fields in [
            &["field", "x"][..],
            &["__what", "x"],
            &["__ts", "soon"],
            &["__json", "c:s"],
            &["value", "x", "y", "z"],
            &["__key", "k", "temperature", "5"],
            &["__producer", "1"],
            &["__control", "maybe 1"],
            &["__ts", "append5"],
        ] {
            assert_eq!(decode(&entry(fields)), None, "{fields:?}");
        }
    }

    #[test]
    fn only_json_objects_are_taken_where_the_topic_says_so() {
        let record = |value: Option<&'static [u8]>| RecordView {
            index: 0,
            offset: 0,
            timestamp: 0,
            offset_delta: 0,
            timestamp_delta: 0,
            key: None,
            value,
            headers: no_headers(),
        };
        assert_eq!(Body::of(&record(Some(b"[]")), ValueFormat::Json, None).err(), Some(NotJson));
        assert!(Body::of(&record(Some(b"{\"a\": 1,\"b\":2}")), ValueFormat::Json, None).is_ok());
        // A tombstone is no value.
        assert!(Body::of(&record(None), ValueFormat::Json, None).is_ok());
    }

    fn no_headers() -> HeaderIter<'static> {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        let record = NewRecord { offset: 0, timestamp: 0, key: None, value: None, headers: std::iter::empty() };
        builder.push(record).expect("it is small");
        let batch = Batch::parse(builder.finish().expect("it has a record")).expect("it was just built");
        let records = Box::leak(Box::new(batch.records(usize::MAX).expect("it is not compressed")));
        records.iter().next().expect("there is one").expect("it is well-formed").headers
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..20),
            "(value|__json|__ts|__key|__header\\.a|\\{\"a\": ?1\\}|\\{\"value\":1\\})".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_was(
            ms in 1..u64::MAX / 4, seq in 0..u64::MAX / 4, timestamp in -1..i64::MAX / 4,
            key in proptest::option::of(bytes()), value in proptest::option::of(bytes()),
            headers in proptest::collection::vec((bytes(), proptest::option::of(bytes())), 0..5),
            format in prop_oneof![Just(ValueFormat::Auto), Just(ValueFormat::Raw)],
            field in prop_oneof![
                Just(TimestampField::IfNeeded), Just(TimestampField::Always), Just(TimestampField::AppendTime)
            ],
        ) {
            let id = EntryId { ms, seq };
            let entry = entry_of(id, timestamp, key.as_deref(), value.as_deref(), &headers, (format, field));
            let record = decode(&entry).expect("Weir wrote it");
            prop_assert_eq!(record.timestamp, timestamp);
            prop_assert_eq!(record.is_append_time, field == TimestampField::AppendTime);
            prop_assert_eq!(record.key, key.as_deref());
            prop_assert_eq!(record.value.as_deref(), value.as_deref());
            let got: Headers = record.headers.iter().map(|(n, v)| (n.to_vec(), v.map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(got, headers);
        }

        #[test]
        fn any_fields_are_read_without_panic(fields in proptest::collection::vec(bytes(), 0..8)) {
            let _ = decode(&Entry { id: EntryId { ms: 5, seq: 0 }, fields: fields.into_iter().map(Bytes::from).collect() });
        }
    }
}
