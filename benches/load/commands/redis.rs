//! What Redis does with the same bytes when nothing stands before it: pipelined XADDs with the IDs and fields that Weir writes.

use std::{
    collections::VecDeque,
    io::{IoSlice, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use bytes::{Buf, BytesMut};
use clap::{Args, ValueEnum};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::{
    Outcome,
    batches::{Batch, Shape},
    connection::{PATIENCE, write_pieces},
    outcome::Latency,
};

#[derive(Args)]
pub(super) struct Options {
    /// Redis' Unix socket.
    #[arg(long)]
    socket: PathBuf,
    /// Streams are named after it: KEY:0, KEY:1, …
    #[arg(long, default_value = "load")]
    key: String,
    #[arg(long, default_value_t = 6)]
    partitions: usize,
    #[command(flatten)]
    shape: Shape,
    #[arg(long, value_enum)]
    layout: Layout,
    /// Batches that wait for their answers, each an entry or a pipeline of entries.
    #[arg(long, default_value_t = 6)]
    in_flight: usize,
    /// Ends after so many records.
    #[arg(long)]
    records: Option<u64>,
    /// Ends after so much time, unless --records is given.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// The last XADD of a batch trims about to this.
    #[arg(long, default_value_t = 1_000_000_000)]
    maxlen: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// An entry for each record.
    Record,
    /// An entry for each batch.
    Batch,
}

pub(super) async fn run(options: Options) -> Result<Outcome> {
    let batches = options.shape.build()?;
    let mut stream = UnixStream::connect(&options.socket).await?;
    let mut received = BytesMut::new();
    let keys: Vec<String> = (0..options.partitions).map(|partition| format!("{}:{partition}", options.key)).collect();
    // NOMKSTREAM needs streams that exist.
    let mut setup = Vec::new();
    for key in &keys {
        write!(setup, "*5\r\n")?;
        words(&mut setup, &["XADD", key, "1-0", "value", ""]);
    }
    stream.write_all(&setup).await?;
    for _ in &keys {
        answer(&mut stream, &mut received).await?;
    }

    let started = Instant::now();
    let until = Duration::from_secs_f64(options.seconds);
    let mut next_offsets = vec![1_u64; keys.len()];
    let mut waiting: VecDeque<(Instant, usize)> = VecDeque::new();
    let (mut latency, mut records, mut sent, mut bytes) = (Latency::default(), 0_u64, 0_usize, 0_usize);
    let mut pieces = Pieces::default();
    loop {
        let is_over = options.records.map_or(started.elapsed() >= until, |wanted| records >= wanted);
        if is_over && waiting.is_empty() {
            break;
        }
        if !is_over && waiting.len() < options.in_flight {
            let batch = &batches[sent % batches.len()];
            let partition = sent % keys.len();
            let next = &mut next_offsets[partition];
            pieces.clear();
            let answers = match options.layout {
                Layout::Batch => pieces.add_batch(&keys[partition], batch, *next, options.maxlen),
                Layout::Record => pieces.add_records(&keys[partition], batch, *next, options.maxlen),
            };
            pieces.write(&mut stream).await?;
            let count = u64::from(batch.records().unsigned_abs());
            *next += count;
            records += count;
            bytes += batch.size();
            sent += 1;
            waiting.push_back((Instant::now(), answers));
        } else if let Some((since, answers)) = waiting.pop_front() {
            for _ in 0..answers {
                answer(&mut stream, &mut received).await?;
            }
            latency.add(since.elapsed());
        }
    }
    Ok(Outcome::new("redis")
        .with_rate("records", records, started.elapsed())
        .with("batches", u64::try_from(sent)?)
        .with("bytes", u64::try_from(bytes)?)
        .with_latency("latency_us", &latency)
        .with("errors", 0))
}

/// What goes out in one write: commands' text, and between it bytes that are sent from where they lie.
#[derive(Default)]
struct Pieces {
    text: Vec<u8>,
    /// Where in the text each of the bytes goes.
    bytes: Vec<(usize, bytes::Bytes)>,
}

impl Pieces {
    fn clear(&mut self) {
        self.text.clear();
        self.bytes.clear();
    }

    fn add_batch(&mut self, key: &str, batch: &Batch, first: u64, maxlen: u64) -> usize {
        let last = first + u64::from(batch.records().unsigned_abs()) - 1;
        self.start(key, &format!("{}-{last}", batch.timestamp()), Some(maxlen));
        words(&mut self.text, &["__batch"]);
        let _ = write!(self.text, "${}\r\n", batch.size());
        self.text.extend_from_slice(&batch.header(None));
        self.bytes.push((self.text.len(), batch.payload.clone()));
        self.text.extend_from_slice(b"\r\n");
        1
    }

    fn add_records(&mut self, key: &str, batch: &Batch, first: u64, maxlen: u64) -> usize {
        let count = batch.values.len();
        for (offset, (number, value)) in (first..).zip(batch.values.iter().enumerate()) {
            let trim = (number + 1 == count).then_some(maxlen);
            self.start(key, &format!("{}-{offset}", batch.timestamp()), trim);
            words(&mut self.text, &["value"]);
            let _ = write!(self.text, "${}\r\n", value.len());
            self.text.extend_from_slice(value);
            self.text.extend_from_slice(b"\r\n");
        }
        count
    }

    fn start(&mut self, key: &str, id: &str, maxlen: Option<u64>) {
        match maxlen {
            Some(maxlen) => {
                self.text.extend_from_slice(b"*9\r\n");
                words(&mut self.text, &["XADD", key, "NOMKSTREAM", "MAXLEN", "~", &maxlen.to_string(), id]);
            }
            None => {
                self.text.extend_from_slice(b"*6\r\n");
                words(&mut self.text, &["XADD", key, "NOMKSTREAM", id]);
            }
        }
    }

    async fn write(&self, stream: &mut UnixStream) -> Result<()> {
        let mut slices = Vec::with_capacity(2 * self.bytes.len() + 1);
        let mut from = 0;
        for (at, bytes) in &self.bytes {
            slices.push(IoSlice::new(&self.text[from..*at]));
            slices.push(IoSlice::new(bytes));
            from = *at;
        }
        slices.push(IoSlice::new(&self.text[from..]));
        write_pieces(stream, &mut slices).await?;
        Ok(())
    }
}

fn words(text: &mut Vec<u8>, words: &[&str]) {
    for word in words {
        let _ = write!(text, "${}\r\n{word}\r\n", word.len());
    }
}

/// Takes one answer, which must be an entry's ID.
async fn answer(stream: &mut UnixStream, received: &mut BytesMut) -> Result<()> {
    let mut lines = 0;
    let mut from = 0;
    loop {
        while let Some(at) = memchr::memchr(b'\n', received.get(from..).unwrap_or_default()) {
            lines += 1;
            from += at + 1;
            if received[0] != b'$' || received[1] == b'-' {
                bail!("Redis answered {}", String::from_utf8_lossy(&received[..from]).trim_end());
            }
            if lines == 2 {
                received.advance(from);
                return Ok(());
            }
        }
        received.reserve(64 << 10);
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(received)).await??;
        ensure!(read > 0, "Redis closed the connection");
    }
}
