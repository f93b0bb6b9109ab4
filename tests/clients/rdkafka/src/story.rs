//! The records, what must come back, and how a step is told.

use std::time::{Duration, Instant};
use std::{env, fmt, fs};

use base64::Engine;
use serde::Deserialize;

pub const CLIENT: &str = "rdkafka";
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A null key, value or header value is `None`.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds.
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn short(data: &Option<Vec<u8>>) -> String {
            match data {
                None => "null".to_owned(),
                Some(data) => format!("\"{}\" ({} bytes)", data[..data.len().min(60)].escape_ascii(), data.len()),
            }
        }
        write!(
            f,
            "{}/{} at {}: {} = {}",
            self.partition,
            self.offset,
            self.timestamp,
            short(&self.key),
            short(&self.value)
        )?;
        self.headers.iter().try_for_each(|(name, data)| write!(f, ", {name:?}: {}", short(data)))
    }
}

#[derive(Deserialize)]
struct GivenRecord {
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
}

#[derive(Deserialize)]
struct Given {
    partitions: i32,
    start: i64,
    records: Vec<GivenRecord>,
}

pub struct Story {
    pub bootstrap: String,
    pub topic: String,
    pub group: String,
    pub refuses_transactions: bool,
    pub partitions: i32,
    /// By partition.
    pub expected: Vec<Vec<Record>>,
    pub produced: usize,
    given: Given,
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

impl Story {
    pub fn new() -> Self {
        let text = fs::read(variable("RECORDS")).expect("the file of records");
        let given: Given = serde_json::from_slice(&text).expect("records");
        let topic = format!("{CLIENT}-{}-{}", variable("LAYOUT"), variable("RUN"));
        Self {
            bootstrap: variable("BOOTSTRAP"),
            group: format!("{topic}-group"),
            topic,
            refuses_transactions: env::var_os("TRANSACTIONS_REFUSED").is_some(),
            partitions: given.partitions,
            expected: (0..given.partitions).map(|_| Vec::new()).collect(),
            produced: 0,
            given,
        }
    }

    /// The next records to produce, each with the partition and the offset that it must get.
    pub fn round(&mut self, count: Option<usize>) -> Vec<Record> {
        fn decode(text: &Option<String>) -> Option<Vec<u8>> {
            let engine = base64::engine::general_purpose::STANDARD;
            text.as_ref().map(|text| engine.decode(text).expect("base64"))
        }
        let mut records = Vec::new();
        for given in self.given.records.iter().take(count.unwrap_or(self.given.records.len())) {
            let partition = self.produced % self.expected.len();
            let record = Record {
                partition: partition as i32,
                offset: self.expected[partition].len() as i64,
                timestamp: self.given.start + 1000 * self.produced as i64,
                key: decode(&given.key),
                value: decode(&given.value),
                headers: given.headers.iter().map(|(name, data)| (name.clone(), decode(data))).collect(),
            };
            self.produced += 1;
            self.expected[partition].push(record.clone());
            records.push(record);
        }
        records
    }

    pub fn everything(&self) -> Vec<Record> {
        self.expected.concat()
    }

    pub fn ends(&self) -> Vec<i64> {
        self.expected.iter().map(|records| records.len() as i64).collect()
    }

    /// Each expected record came once, in order within its partition, byte for byte.
    pub fn compare(&self, got: &[Record], expected: &[Record]) {
        for partition in 0..self.partitions {
            let of = |records: &[Record]| -> Vec<Record> {
                let mine = records.iter().filter(|r| r.partition == partition);
                mine.cloned().collect()
            };
            let (here, wanted) = (of(got), of(expected));
            for (record, want) in here.iter().zip(&wanted) {
                assert!(record == want, "got  {record:?}\nwant {want:?}");
            }
            assert_eq!(here.len(), wanted.len(), "records of partition {partition}");
        }
    }
}

pub fn ok(step: &str) {
    println!("ok {CLIENT} {step}");
}

/// Asks again until the answer is true: for what a broker does in its own time.
pub fn until(what: &str, mut attempt: impl FnMut() -> bool) {
    let started = Instant::now();
    while !attempt() {
        assert!(started.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
    }
}
