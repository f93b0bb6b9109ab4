//! What a client did and saw, one JSON object a line. The franz-go worker writes the same form.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::Path,
    sync::Mutex,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// A partition as `topic/index`.
pub type PartitionName = String;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Invoke,
    Ok,
    /// It did not happen.
    Fail,
    /// It may have happened.
    Info,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Producer,
    /// Reads every partition from its start, in no group.
    Reader,
    Member,
    /// Asks for committed offsets and ends of logs.
    Observer,
    /// Reads everything once all is healed.
    Final,
    Nemesis,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "lowercase")]
pub enum Operation {
    /// The first event of a history.
    Start {
        role: Role,
        library: String,
        idempotent: bool,
        group: Option<String>,
    },
    Produce {
        partition: PartitionName,
        sequence: u64,
        /// Negative: the client was not told.
        offset: Option<i64>,
        error: Option<String>,
    },
    /// Records that follow each other without a gap, the first of them at `offset`: who produced it, and its number.
    Read {
        partition: PartitionName,
        offset: i64,
        records: Vec<(String, u64)>,
    },
    Assign {
        partitions: Vec<PartitionName>,
        generation: Option<i32>,
    },
    Revoke {
        partitions: Vec<PartitionName>,
    },
    Commit {
        offsets: BTreeMap<PartitionName, i64>,
        error: Option<String>,
    },
    /// Committed offsets as a client was told them; -1: none.
    Committed {
        group: String,
        offsets: BTreeMap<PartitionName, i64>,
    },
    /// High watermarks, with leader epochs.
    Ends {
        offsets: BTreeMap<PartitionName, (i64, i32)>,
    },
    /// What was done to the brokers and to Redis.
    Strike {
        action: String,
    },
    /// A client cannot go on, or did not get done.
    Problem {
        error: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Microseconds since the run began.
    pub time: u64,
    pub client: String,
    pub kind: Kind,
    #[serde(flatten)]
    pub operation: Operation,
}

/// The time of a run: begun together, monotonic within each process.
#[derive(Clone, Copy)]
pub struct RunClock {
    /// Microseconds of the run when this process began to count.
    offset: u64,
    began: Instant,
}

impl RunClock {
    /// `start` is when the run began: microseconds since 1970.
    pub fn since(start: u64) -> Self {
        Self { offset: wall_micros().saturating_sub(start), began: Instant::now() }
    }

    pub fn micros(&self) -> u64 {
        self.offset + micros(self.began.elapsed())
    }
}

pub fn wall_micros() -> u64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970"))
}

pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).expect("a run of less than 500,000 years")
}

/// Each event is written at once: it is there when the process is killed.
pub struct Recorder {
    client: String,
    clock: RunClock,
    file: Mutex<File>,
}

impl Recorder {
    pub fn create(folder: &Path, client: &str, clock: RunClock) -> io::Result<Self> {
        let path = folder.join(format!("{client}.history"));
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { client: client.to_owned(), clock, file: Mutex::new(file) })
    }

    /// Microseconds of the run.
    pub fn now(&self) -> u64 {
        self.clock.micros()
    }

    pub fn record(&self, kind: Kind, operation: Operation) {
        let mut file = self.file.lock().expect("no panic while writing");
        let event = Event { time: self.clock.micros(), client: self.client.clone(), kind, operation };
        let mut line = serde_json::to_vec(&event).expect("an event is JSON");
        line.push(b'\n');
        file.write_all(&line).expect("the history's disk has room");
    }
}

/// All events of a run in the order of their times. A client that was killed may have left half a line.
pub fn read_all(folder: &Path) -> io::Result<Vec<Event>> {
    let mut events = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "history") {
            continue;
        }
        let mut lines = BufReader::new(File::open(&path)?).lines().peekable();
        while let Some(line) = lines.next() {
            let line = line?;
            match serde_json::from_str::<Event>(&line) {
                Ok(event) => events.push(event),
                Err(_) if lines.peek().is_none() => {}
                Err(error) => {
                    let text = format!("{}: {error}: {line}", path.display());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
            }
        }
    }
    events.sort_by_key(|event| event.time);
    Ok(events)
}
