//! Batches built before the clock runs, and sent again and again.

use std::time::SystemTime;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use rand::{Rng, SeedableRng, rngs::StdRng};
use weir::protocol::records::{
    BatchBuilder, BatchHeader, BatchOptions, Codec, Compression, HEADER_LENGTH, NewRecord, ProducerStamp,
};

/// Different batches that take turns, so that not all of it stays in a cache.
const VARIETY: usize = 8;
/// Of orders: more than a row group of the archive takes, so that none is in it twice.
const VARIETY_OF_ORDERS: usize = 128;

#[derive(Args, Clone)]
pub(super) struct Shape {
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 1024)]
    pub(super) record_size: usize,
    /// Bytes of a batch before compression, as the producer's batch.size.
    #[arg(long, default_value_t = 131_072, conflicts_with = "records_per_batch")]
    pub(super) batch_bytes: usize,
    #[arg(long)]
    pub(super) records_per_batch: Option<usize>,
    #[arg(long, value_enum, default_value_t = Codecs::None)]
    compression: Codecs,
    #[arg(long, value_enum, default_value_t = Payload::Letters)]
    payload: Payload,
}

#[derive(Clone, Copy, ValueEnum)]
enum Codecs {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Clone, Copy, ValueEnum)]
enum Payload {
    /// Random capital letters, as kafka-producer-perf-test sends.
    Letters,
    /// A JSON object with a few fields, filled up to the size by a text field.
    Json,
    /// Orders as a shop would send them, of 190 bytes or so whatever the size: ids and times ascend, the rest is random.
    Orders,
}

#[derive(Clone)]
pub(super) struct Batch {
    header: BatchHeader,
    encoded_header: [u8; HEADER_LENGTH],
    pub(super) payload: Bytes,
    /// The values of its records.
    pub(super) values: Vec<Bytes>,
}

impl Batch {
    pub(super) fn size(&self) -> usize {
        HEADER_LENGTH + self.payload.len()
    }

    pub(super) fn records(&self) -> i32 {
        self.header.record_count
    }

    pub(super) fn value_bytes(&self) -> u64 {
        self.values.iter().map(|value| value.len() as u64).sum()
    }

    pub(super) fn timestamp(&self) -> i64 {
        self.header.max_timestamp
    }

    /// The header as it was built, or as this producer would send it next.
    pub(super) fn header(&self, producer: Option<ProducerStamp>) -> [u8; HEADER_LENGTH] {
        let Some(producer) = producer else { return self.encoded_header };
        let mut header = self.header;
        header.producer_id = producer.producer_id;
        header.producer_epoch = producer.producer_epoch;
        header.base_sequence = producer.base_sequence;
        header.crc = header.compute_crc(&self.payload);
        header.encode()
    }
}

impl Shape {
    /// Batches of one record.
    pub(super) fn single(record_size: usize) -> Self {
        Shape {
            record_size,
            batch_bytes: 0,
            records_per_batch: Some(1),
            compression: Codecs::None,
            payload: Payload::Letters,
        }
    }

    pub(super) fn build(&self) -> Result<Vec<Batch>> {
        // Random, and the same in every run.
        let mut random = StdRng::seed_from_u64(42);
        // One for all, as the batches go round: time does not go back.
        let timestamp = i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?;
        let variety = if let Payload::Orders = self.payload { VARIETY_OF_ORDERS } else { VARIETY };
        let mut number = 0;
        (0..variety).map(|_| self.batch(timestamp, &mut number, &mut random)).collect()
    }

    /// The records' numbers go on from `number`.
    fn batch(&self, timestamp: i64, number: &mut u64, random: &mut StdRng) -> Result<Batch> {
        let codec = match self.compression {
            Codecs::None => Codec::None,
            Codecs::Gzip => Codec::Gzip,
            Codecs::Snappy => Codec::Snappy,
            Codecs::Lz4 => Codec::Lz4,
            Codecs::Zstd => Codec::Zstd,
        };
        let options = BatchOptions { compression: Compression::new(codec), ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        let mut values = Vec::new();
        // A record's own header is at most this long here.
        const OVERHEAD: usize = 16;
        let is_full = |builder: &BatchBuilder, count: usize| match self.records_per_batch {
            Some(records) => count >= records,
            None => count > 0 && builder.size() + self.record_size + OVERHEAD > self.batch_bytes,
        };
        while !is_full(&builder, values.len()) {
            let value = self.value(*number, random);
            *number += 1;
            let offset = i64::try_from(values.len())?;
            let headers = std::iter::empty();
            builder.push(NewRecord { offset, timestamp, key: None, value: Some(&value), headers })?;
            values.push(value);
        }
        let bytes = builder.finish()?;
        let header = BatchHeader::parse(&bytes)?;
        let encoded_header = *bytes.first_chunk().context("a batch shorter than its header")?;
        Ok(Batch { header, encoded_header, payload: bytes.slice(HEADER_LENGTH..), values })
    }

    fn value(&self, number: u64, random: &mut StdRng) -> Bytes {
        match self.payload {
            Payload::Letters => letters(random, self.record_size).into(),
            Payload::Json => {
                let customer = letters(random, 8);
                let start = format!(
                    r#"{{"id":"cust-{customer}","total":12.50,"currency":"EUR","items":[1,2,3],"state":"paid","note":""#
                );
                let note = letters(random, self.record_size.saturating_sub(start.len() + 2));
                format!("{start}{note}\"}}").into()
            }
            Payload::Orders => order(number, random),
        }
    }
}

fn letters(random: &mut StdRng, count: usize) -> String {
    (0..count).map(|_| char::from(random.random_range(b'A'..=b'Z'))).collect()
}

fn order(number: u64, random: &mut StdRng) -> Bytes {
    let (customer, product) = (random.random_range(0..20_000), random.random_range(0..500));
    let (quantity, cents) = (random.random_range(1..9), random.random_range(199..99_999));
    let (minutes, seconds, millis) = (number / 60_000 % 60, number / 1_000 % 60, number % 1_000);
    format!(
        r#"{{"order_id":"ord-{number:010}","customer_id":"cust-{customer:05}","product":"sku-{product:04}","quantity":{quantity},"total":{}.{:02},"currency":"EUR","status":"paid","channel":"web","created_at":"2026-11-23T10:{minutes:02}:{seconds:02}.{millis:03}Z"}}"#,
        cents / 100,
        cents % 100,
    )
    .into()
}
