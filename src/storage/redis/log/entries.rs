//! `XADD` commands, written out as they go over the wire while an append is planned.

use redis::RedisWrite;

use super::{core::EntryId, entry::BATCH_FIELD};
use crate::{protocol::records::PlacedBatch, storage::redis::connection::Request};

/// `XADD stream NOMKSTREAM id`.
const WORDS: usize = 4;
/// What an entry takes besides its stream's name and its own bytes, about.
const FRAME: usize = 72;

/// The entries of one batch.
#[derive(Debug, Default)]
pub(super) struct Entries {
    commands: Request,
    places: Vec<Place>,
}

/// Where one entry's ID and fields are found.
#[derive(Debug)]
struct Place {
    /// Names and values.
    arguments: usize,
    /// In the text; none behind something that is not copied into it.
    range: Option<(usize, usize)>,
}

impl Entries {
    /// The one entry of the `batch` layout.
    pub(super) fn of_batch(stream: &str, id: EntryId, batch: &PlacedBatch) -> Self {
        let mut entries = Self::default();
        entries.add(stream, id, 2, |fields| {
            fields.write_arg(BATCH_FIELD);
            fields.write_parts(batch.header(), batch.records());
        });
        entries
    }

    /// Room for `count` entries whose fields come to about `bytes`.
    pub(super) fn with_capacity(stream: &str, count: usize, bytes: usize) -> Self {
        let mut commands = Request::default();
        commands.reserve(bytes.saturating_add(count.saturating_mul(FRAME + stream.len())));
        Self { commands, places: Vec::with_capacity(count) }
    }

    /// Adds an entry; `write` writes the names and values of its fields, `arguments` in all.
    pub(super) fn add(&mut self, stream: &str, id: EntryId, arguments: usize, write: impl FnOnce(&mut Request)) {
        let commands = &mut self.commands;
        commands.begin(WORDS + arguments);
        for word in [b"XADD", stream.as_bytes(), b"NOMKSTREAM"] {
            commands.write_arg(word);
        }
        let from = commands.text_length();
        commands.write_arg_fmt(id);
        write(commands);
        let range = from.zip(commands.text_length());
        self.places.push(Place { arguments, range });
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether a Function can pass each of them on.
    pub(super) fn pass_function(&self, most_arguments: usize) -> bool {
        self.places.iter().all(|place| WORDS + place.arguments < most_arguments)
    }

    /// Whether [`Entries::write_for_function`] can write them.
    pub(super) fn can_be_copied(&self) -> bool {
        self.places.iter().all(|place| place.range.is_some())
    }

    /// What [`Entries::write_for_function`] writes.
    pub(super) fn function_arguments(&self) -> usize {
        self.places.iter().map(|place| 2 + place.arguments).sum()
    }

    /// For each entry the number of the arguments that follow, then these: its ID and its fields.
    pub(super) fn write_for_function(&self, command: &mut Request) {
        for Place { arguments, range } in &self.places {
            if let Some(text) = range.and_then(|(from, to)| self.commands.text_between(from, to)) {
                command.write_arg_fmt(1 + arguments);
                command.write_encoded(text);
            }
        }
    }

    pub(super) fn queue(self, transaction: &mut Request) {
        let count = self.len();
        transaction.queue_all(self.commands, count);
    }
}
