//! What a partition's stream and state may hold when others have written there too.

use bytes::Bytes;

use super::{
    archived,
    core::{Core, EntryId, format_cold, parse_cold, parse_epochs},
    entry::{self, Body, Entry, Timestamp, TimestampField},
    epoch_starts, json,
    producers::Producer,
    retain,
};
use crate::{
    log::store::ValueFormat,
    protocol::records::{Batch, BatchBuilder, BatchOptions, BuildError, NewRecord},
};

/// What `XRANGE` may answer. A record that is read, written as an entry and read again is the same.
pub fn entries(answer: &[u8]) {
    let _ = json_stays(answer);
    let Some(entries) = Entry::list(Bytes::copy_from_slice(answer)) else { return };
    for entry in entries {
        let size = entry.size();
        assert!(size <= answer.len());
        record_stays(&entry);
        if let Ok(bytes) = entry.into_batch() {
            assert!(bytes.len() <= size);
            let _ = Batch::parse(bytes).map(|batch| batch.records(1 << 20).map(|records| records.iter().count()));
        }
    }
}

/// JSON that is taken apart is put together to the same bytes.
fn json_stays(text: &[u8]) -> Option<()> {
    let json::Parsed::Flat(flat) = json::flatten(text) else { return None };
    let fields = flat.fields.iter().map(|(name, value)| (&name[..], &value[..]));
    assert_eq!(json::join(flat.shape.as_bytes(), fields).as_deref(), Some(text));
    Some(())
}

fn record_stays(entry: &Entry) {
    let Some(record) = entry::decode(entry) else { return };
    if record.control.is_some() {
        return;
    }
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let added = builder.push(NewRecord {
        offset: 0,
        timestamp: record.timestamp,
        key: record.key,
        value: record.value.as_deref(),
        headers: record.headers.iter().copied(),
    });
    if let Err(BuildError::TooLarge) = added {
        return;
    }
    added.expect("anything else that is read can be encoded");
    let batch = Batch::parse(builder.finish().expect("it has a record")).expect("it was just built");
    let records = batch.records(usize::MAX).expect("it is not compressed");
    let view = records.iter().next().expect("there is one").expect("it is well-formed");
    let body = Body::of(&view, ValueFormat::Auto, record.producer).expect("the format takes anything");
    let mut command = redis::Cmd::new();
    let left = i64::try_from(entry.id.ms).expect("a timestamp was made of it");
    let Some(delta) = left.checked_sub(record.timestamp) else { return };
    let field = if record.is_append_time { TimestampField::AppendTime } else { TimestampField::IfNeeded };
    if let Some(timestamp) = Timestamp::of(field, delta, &body) {
        timestamp.write(&mut command);
    }
    body.write(&mut command);
    let fields = command.args_iter().map(|argument| match argument {
        redis::Arg::Simple(bytes) => Bytes::copy_from_slice(bytes),
        _ => Bytes::new(),
    });
    let again = Entry { id: entry.id, fields: fields.collect() };
    assert_eq!(entry::decode(&again).as_ref(), Some(&record));
}

/// The fields of a partition's state, its marks and IDs: what is read and written is the same, and what is worked out from it
/// stays within its type.
pub fn state(text: &[u8]) {
    if let Some(id) = EntryId::parse(text) {
        assert_eq!(EntryId::parse(id.to_string().as_bytes()), Some(id));
        assert!(id.after() >= id);
    }
    if let Some(mut core) = Core::parse(text) {
        assert_eq!(Core::parse(core.to_string().as_bytes()).as_ref(), Some(&core));
        assert!(core.bytes_per_entry() > 0);
        let _ = epoch_starts(&core, &parse_epochs(text), core.log_start);
        let id = core.next_id(i64::MAX, core.next_offset);
        core.take_timestamp(i64::MAX, core.next_offset);
        core.advance(id, core.next_offset);
    }
    let _ = parse_epochs(text);
    if let Some(cold) = parse_cold(text) {
        assert_eq!(parse_cold(format_cold(&cold).as_bytes()), Some(cold));
    }
    if let Some(producer) = Producer::parse(text) {
        let again = Producer::parse(producer.value().as_bytes()).expect("what was written can be read");
        assert_eq!(again.value(), producer.value());
        let _ = producer.last_sequence();
    }
    if let Ok(text) = std::str::from_utf8(text) {
        retain::fuzzed(text);
        archived::fuzzed(text);
    }
}
