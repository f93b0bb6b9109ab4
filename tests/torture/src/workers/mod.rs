//! A client as a process of its own, so that it can be killed and paused too. It is done when its standard input ends, and then
//! has [`Options::patience`] to get on to the end of what there is.

mod consumers;
mod producer;

use std::{
    io::{self, Read},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use clap::Args;
use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use crate::history::{Kind, Operation, PartitionName, Recorder, Role, RunClock};

const DEBUG: &str = "TORTURE_DEBUG";

/// What a worker is told. The franz-go worker takes the same.
#[derive(Args, Clone, Debug)]
pub struct Options {
    #[arg(long)]
    pub role: String,
    #[arg(long)]
    pub name: String,
    #[arg(long)]
    pub bootstrap: String,
    /// Where the history goes.
    #[arg(long)]
    pub folder: PathBuf,
    /// When the run began: microseconds since 1970.
    #[arg(long)]
    pub start: u64,
    /// Names, separated by commas; all have the same number of partitions.
    #[arg(long)]
    pub topics: String,
    #[arg(long)]
    pub partitions: i32,
    #[arg(long, default_value = "")]
    pub group: String,
    #[arg(long)]
    pub idempotent: bool,
    /// Records a second.
    #[arg(long, default_value_t = 100)]
    pub rate: u64,
    /// How long the client may take to get on once all is healed (s).
    #[arg(long, default_value_t = 90)]
    pub patience: u64,
}

struct Worker {
    options: Options,
    recorder: Recorder,
    finishing: Arc<AtomicBool>,
}

impl Worker {
    fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::Relaxed)
    }

    fn topics(&self) -> Vec<&str> {
        self.options.topics.split(',').collect()
    }

    fn partitions(&self) -> Vec<(String, i32)> {
        let topics = self.topics();
        let of = |index| topics.iter().map(move |topic| ((*topic).to_owned(), index));
        (0..self.options.partitions).flat_map(of).collect()
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in [
            ("bootstrap.servers", self.options.bootstrap.as_str()),
            ("client.id", &self.options.name),
            ("socket.timeout.ms", "10000"),
            ("reconnect.backoff.ms", "20"),
            ("reconnect.backoff.max.ms", "500"),
            ("retry.backoff.ms", "50"),
            ("retry.backoff.max.ms", "500"),
        ] {
            config.set(name, value);
        }
        config
    }

    /// What librdkafka tells of itself, for who looks into one that stands still: `TORTURE_DEBUG=cgrp,broker,metadata`.
    fn set_debug(&self, config: &mut ClientConfig) {
        if let Ok(contexts) = std::env::var(DEBUG) {
            config.set("debug", contexts).set_log_level(RDKafkaLogLevel::Debug);
        }
    }

    fn log(&self, facility: &str, message: &str) {
        if std::env::var_os(DEBUG).is_some() {
            println!("{} {facility} {message}", self.recorder.now());
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.options.patience)
    }

    fn problem(&self, error: String) {
        self.recorder.record(Kind::Info, Operation::Problem { error });
    }
}

pub fn run(options: Options) -> Result<(), String> {
    let role = match options.role.as_str() {
        "producer" => Role::Producer,
        "reader" => Role::Reader,
        "member" => Role::Member,
        "final" => Role::Final,
        other => return Err(format!("no role {other}")),
    };
    let clock = RunClock::since(options.start);
    let recorder = Recorder::create(&options.folder, &options.name, clock).map_err(|error| error.to_string())?;
    let worker = Worker { options, recorder, finishing: Arc::default() };
    let group = Some(worker.options.group.clone()).filter(|group| !group.is_empty());
    let (library, idempotent) = ("librdkafka".to_owned(), worker.options.idempotent);
    worker.recorder.record(Kind::Info, Operation::Start { role, library, idempotent, group });
    thread::spawn({
        let finishing = worker.finishing.clone();
        move || {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            finishing.store(true, Ordering::Relaxed);
        }
    });
    match role {
        Role::Producer => producer::run(worker),
        Role::Member => consumers::share(worker),
        _ => consumers::read(worker),
    }
}

fn name_of(topic: &str, partition: i32) -> PartitionName {
    format!("{topic}/{partition}")
}
