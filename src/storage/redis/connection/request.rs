//! Commands as they go over the wire: `*<arguments>`, then `$<length>` and the bytes of each argument.

use std::io::{self, Write};

use bytes::{BufMut, Bytes, BytesMut};
use redis::{Cmd, RedisWrite};

/// An argument from this size on goes to the socket as it is, without a copy.
const WORTH_A_PIECE: usize = 4 << 10;

/// One or more commands that are sent in one go.
#[derive(Clone, Debug, Default)]
pub(in crate::storage::redis) struct Request {
    /// What comes before `text`.
    pieces: Vec<Bytes>,
    text: BytesMut,
    /// Leading replies that say no more than that the server has the command (`OK`, `QUEUED`).
    acknowledgements: usize,
    /// The replies that follow them.
    replies: usize,
    /// About how many bytes the one reply has, where it is handed out as it is.
    raw_bytes: Option<usize>,
}

impl Request {
    pub(in crate::storage::redis) fn command(command: &Cmd) -> Self {
        let packed = Bytes::from(command.get_packed_command());
        Self { pieces: vec![packed], replies: 1, ..Self::default() }
    }

    /// A command whose reply of about `bytes` is handed out as it is.
    pub(in crate::storage::redis) fn raw(command: &Cmd, bytes: usize) -> Self {
        Self { raw_bytes: Some(bytes), ..Self::command(command) }
    }

    /// A command that `more` arguments are still to be written to.
    pub(in crate::storage::redis) fn open_command(command: &Cmd, more: usize) -> Self {
        let mut request = Self { replies: 1, ..Self::default() };
        request.write_command(command, more);
        request
    }

    /// Commands that need not go together, each with a reply.
    pub(in crate::storage::redis) fn pipeline<'a>(commands: impl IntoIterator<Item = &'a Cmd>) -> Self {
        let mut request = Self::default();
        for command in commands {
            request.write_command(command, 0);
            request.replies += 1;
        }
        request
    }

    /// The beginning of a transaction, to be filled with [`Request::queue`] and [`Request::queue_all`].
    pub(in crate::storage::redis) fn transaction() -> Self {
        let mut request = Self { acknowledgements: 1, text: BytesMut::with_capacity(1_024), ..Self::default() };
        request.begin(1);
        request.write_arg(b"MULTI");
        request
    }

    pub(in crate::storage::redis) fn queue(&mut self, command: &Cmd) {
        self.write_command(command, 0);
        self.acknowledgements += 1;
    }

    /// Adds what [`Request::begin`] and the arguments after it have made of `count` commands.
    pub(in crate::storage::redis) fn queue_all(&mut self, commands: Request, count: usize) {
        self.cut();
        self.pieces.extend(commands.pieces);
        if self.text.is_empty() {
            self.text = commands.text;
        } else {
            self.text.extend_from_slice(&commands.text);
        }
        self.acknowledgements += count;
    }

    /// Ends a transaction: its one reply is that of `EXEC`, or where the server refused a command before, that refusal.
    pub(in crate::storage::redis) fn execute(mut self) -> Self {
        self.begin(1);
        self.write_arg(b"EXEC");
        self.replies = 1;
        self
    }

    /// So that copies share all its bytes.
    pub(in crate::storage::redis) fn whole(mut self) -> Self {
        self.cut();
        self
    }

    /// The same, for a node of a cluster that another one has named for this request alone.
    pub(in crate::storage::redis) fn asking(mut self) -> Self {
        self.pieces.insert(0, Bytes::from_static(b"*1\r\n$6\r\nASKING\r\n"));
        self.acknowledgements += 1;
        self
    }

    /// A command of so many arguments follows, its name counted.
    pub(in crate::storage::redis) fn begin(&mut self, arguments: usize) {
        self.header(b'*', arguments);
    }

    /// One argument of two parts; a large second one is not copied.
    pub(in crate::storage::redis) fn write_parts(&mut self, first: &[u8], second: &Bytes) {
        self.header(b'$', first.len() + second.len());
        self.text.put_slice(first);
        if second.len() < WORTH_A_PIECE {
            self.text.put_slice(second);
        } else {
            self.cut();
            self.pieces.push(second.clone());
        }
        self.text.put_slice(b"\r\n");
    }

    pub(in crate::storage::redis) fn reserve(&mut self, bytes: usize) {
        self.text.reserve(bytes);
    }

    /// Bytes so far, where all of it is text: a place to find arguments again with [`Request::text_between`].
    pub(in crate::storage::redis) fn text_length(&self) -> Option<usize> {
        self.pieces.is_empty().then_some(self.text.len())
    }

    /// What was written between two places.
    pub(in crate::storage::redis) fn text_between(&self, from: usize, to: usize) -> Option<&[u8]> {
        if self.pieces.is_empty() { self.text.get(from..to) } else { None }
    }

    /// Adds arguments that are written out already.
    pub(in crate::storage::redis) fn write_encoded(&mut self, arguments: &[u8]) {
        self.text.put_slice(arguments);
    }

    pub(super) fn acknowledgements(&self) -> usize {
        self.acknowledgements
    }

    pub(super) fn replies(&self) -> usize {
        self.replies
    }

    pub(super) fn raw_bytes(&self) -> Option<usize> {
        self.raw_bytes
    }

    pub(super) fn into_pieces(mut self) -> impl Iterator<Item = Bytes> {
        self.cut();
        self.pieces.into_iter()
    }

    fn write_command(&mut self, command: &Cmd, more: usize) {
        self.begin(command.args_iter().count() + more);
        for argument in command.args_iter() {
            if let redis::Arg::Simple(bytes) = argument {
                self.write_arg(bytes);
            }
        }
    }

    fn header(&mut self, sign: u8, number: usize) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number).as_bytes();
        self.text.reserve(digits.len() + 3);
        self.text.put_u8(sign);
        self.text.put_slice(digits);
        self.text.put_slice(b"\r\n");
    }

    /// What was written so far becomes a piece of its own.
    fn cut(&mut self) {
        if !self.text.is_empty() {
            self.pieces.push(self.text.split().freeze());
        }
    }
}

impl RedisWrite for Request {
    fn write_arg(&mut self, argument: &[u8]) {
        self.header(b'$', argument.len());
        self.text.put_slice(argument);
        self.text.put_slice(b"\r\n");
    }

    fn writer_for_next_arg(&mut self) -> impl Write + '_ {
        Argument { request: self, bytes: Vec::new() }
    }
}

/// An argument whose length is known only once it is whole.
struct Argument<'a> {
    request: &'a mut Request,
    bytes: Vec<u8>,
}

impl Write for Argument<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Argument<'_> {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.request.write_arg(&bytes);
    }
}
