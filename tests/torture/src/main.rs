//! Real clients under a nemesis, and a checker of what they saw. See README.md.

mod checker;
mod history;
mod nemesis;
mod peers;
mod random;
mod report;
mod servers;
mod settings;
mod support;
mod workers;
mod world;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand};
use futures::executor::block_on;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};

use self::{
    checker::{Allowed, Finding, Loss},
    history::{Event, Kind, Operation, Recorder, Role, RunClock},
    settings::{Durability, Setting, Settings},
    world::{ClientKind, PARTITIONS, TOPICS, World},
};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs clients and strikes, and checks.
    Run(RunOptions),
    /// Checks the histories in a folder again.
    Check {
        folder: PathBuf,
        #[arg(long, default_value = "written")]
        durability: Durability,
    },
    /// A client; `run` starts them.
    #[command(hide = true)]
    Worker(workers::Options),
}

#[derive(clap::Args)]
struct RunOptions {
    /// Decides the schedule of strikes. Not given: the time.
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    #[arg(long, value_enum, default_value = "single")]
    setting: Setting,
    /// Not given: the least under which nothing may be lost in the setting.
    #[arg(long)]
    durability: Option<Durability>,
    /// Records a second of each of the four producers.
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// Weir's binary.
    #[arg(long)]
    weir: PathBuf,
    /// The worker on franz-go (tests/clients/go/torture). Not given: librdkafka alone.
    #[arg(long)]
    go_worker: Option<PathBuf>,
    #[arg(long, default_value = "redis-server")]
    redis: PathBuf,
    /// For a Weir with planted faults: what it is to do wrong. A run that finds nothing fails.
    #[arg(long)]
    fault: Option<String>,
    /// Carries out only those strikes that these words are in.
    #[arg(long)]
    only: Option<String>,
    /// Keeps histories and logs also when nothing was found.
    #[arg(long)]
    keep: bool,
    /// Prints the schedule and does nothing.
    #[arg(long)]
    plan: bool,
}

/// The file of a run with when it began: microseconds since 1970.
const START: &str = "start";

const LOAD: [ClientKind; 10] = [
    ClientKind { library: "librdkafka", role: "producer", group: "", idempotent: true },
    ClientKind { library: "librdkafka", role: "producer", group: "", idempotent: false },
    ClientKind { library: "franz-go", role: "producer", group: "", idempotent: true },
    ClientKind { library: "franz-go", role: "producer", group: "", idempotent: false },
    ClientKind { library: "librdkafka", role: "reader", group: "", idempotent: false },
    ClientKind { library: "librdkafka", role: "member", group: "librdkafka-group", idempotent: false },
    ClientKind { library: "librdkafka", role: "member", group: "librdkafka-group", idempotent: false },
    ClientKind { library: "franz-go", role: "member", group: "franz-go-group", idempotent: false },
    ClientKind { library: "franz-go", role: "member", group: "franz-go-group", idempotent: false },
    ClientKind { library: "franz-go", role: "observer", group: "librdkafka-group,franz-go-group", idempotent: false },
];

const FINAL: ClientKind = ClientKind { library: "librdkafka", role: "final", group: "", idempotent: false };

fn create_topics(bootstrap: &str, durability: Durability) -> Result<(), String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    let admin: AdminClient<DefaultClientContext> = config.create().map_err(|error| error.to_string())?;
    let level = durability.level();
    for (topic, layout) in TOPICS.iter().zip(["record", "batch"]) {
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
        let new = new.set("weir.layout", layout).set("weir.durability", &level).set("retention.ms", "-1");
        let created = block_on(admin.create_topics([&new], &AdminOptions::new())).map_err(|error| error.to_string())?;
        if let Some(Err((topic, error))) = created.into_iter().next() {
            return Err(format!("creating {topic}: {error}"));
        }
    }
    Ok(())
}

/// Plays the run; what is in the folder then tells everything. Once clients run it goes on to the end: what does not work is a
/// problem of the run, and all that was seen is judged.
fn play(options: &RunOptions, settings: Settings, strikes: &[nemesis::Strike]) -> Result<(), String> {
    let start = history::wall_micros();
    let folder = settings.folder.clone();
    let durability = settings.durability;
    fs::write(folder.join(START), start.to_string()).map_err(|error| error.to_string())?;
    let recorder = Recorder::create(&folder, "nemesis", RunClock::since(start)).map_err(|error| error.to_string())?;
    let nobody = Operation::Start { role: Role::Nemesis, library: String::new(), idempotent: false, group: None };
    recorder.record(Kind::Info, nobody);
    let mut world = World::start(settings, start)?;
    create_topics(&world.bootstrap(), durability)?;
    let has_go = options.go_worker.is_some();
    for kind in LOAD.into_iter().filter(|kind| has_go || kind.library != "franz-go") {
        world.run_client(kind)?;
    }
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(options.minutes * 60.0);
    let problem = |error: String| recorder.record(Kind::Info, Operation::Problem { error });
    nemesis::strike(&mut world, strikes, end, &recorder);
    thread::sleep(end.saturating_duration_since(Instant::now()));
    let _ = world.heal().map_err(problem);
    let _ = world.finish_clients(|kind| kind.role == "producer").map_err(problem);
    let _ = world.finish_clients(|_| true).map_err(problem);
    let _ = world.run_client(FINAL).map_err(problem);
    let _ = world.finish_clients(|kind| kind.role == "final").map_err(problem);
    Ok(())
}

fn judge(folder: &Path, durability: Durability) -> io::Result<(Vec<Event>, Vec<Finding>)> {
    let events = history::read_all(folder)?;
    let mut allowed = Allowed::default();
    if durability.may_lose() {
        let start = fs::read_to_string(folder.join(START))?;
        let start =
            start.trim().parse().map_err(|_| io::Error::other("the time at which the run began is not a number"))?;
        allowed = Allowed { losses: reported_losses(folder, start)?, deaths: deaths(&events) };
    }
    let findings = checker::check(&events, &allowed);
    Ok((events, findings))
}

/// When a Redis may have lost what it had not saved: from when it was struck until it was let go.
fn deaths(events: &[Event]) -> Vec<(u64, u64)> {
    let struck = |event: &Event| match &event.operation {
        Operation::Strike { action } if action.contains("Redis master") || action.contains("failover") => {
            Some(action.clone())
        }
        _ => None,
    };
    let begun = events.iter().enumerate().filter(|(_, event)| event.kind == Kind::Invoke);
    let begun = begun.filter_map(|(place, event)| Some((place, event.time, struck(event)?)));
    let over = |place: usize, action: &str| {
        events[place + 1..]
            .iter()
            .find(|event| struck(event).is_some_and(|other| other == action))
            .map(|event| event.time)
    };
    begun.map(|(place, begin, action)| (begin, over(place, &action).unwrap_or(begin))).collect()
}

fn run(options: RunOptions) -> Result<bool, String> {
    let seed = options.seed.unwrap_or_else(history::wall_micros);
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    let durability = options.durability.unwrap_or(options.setting.durability());
    // Where few are left, the time is full of them all the same.
    let planned = length * if options.only.is_some() { 20 } else { 1 };
    let mut strikes = nemesis::schedule(seed, options.setting, durability, planned);
    strikes.retain(|strike| options.only.as_ref().is_none_or(|words| strike.to_string().contains(words)));
    println!("torture: seed {seed}, {}, {}, {:.1} minutes", options.setting, durability.level(), options.minutes);
    if options.plan {
        strikes.iter().for_each(|strike| println!("after {:?}: {strike}", strike.after));
        return Ok(true);
    }
    let folder = std::env::temp_dir().join(format!("weir-torture-{seed}-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let settings = Settings {
        durability,
        setting: options.setting,
        rate: options.rate,
        // What is expected to go wrong is not waited for long.
        patience: Duration::from_secs(if options.fault.is_some() { 10 } else { 90 }),
        folder: folder.clone(),
        weir_program: options.weir.clone(),
        go_worker: options.go_worker.clone(),
        redis_program: options.redis.clone(),
        fault: options.fault.clone(),
    };
    play(&options, settings, &strikes).map_err(|error| format!("{error} (logs in {})", folder.display()))?;
    let (events, findings) = judge(&folder, durability).map_err(|error| error.to_string())?;
    println!("{}", report::figures(&events));
    if !findings.is_empty() {
        let text = report::explain(&findings, &events);
        let file = folder.join("findings.txt");
        fs::write(&file, &text).map_err(|error| error.to_string())?;
        println!("{}", text.lines().take(60).collect::<Vec<_>>().join("\n"));
        println!("torture: {} findings, seed {seed}; all of it in {}", findings.len(), file.display());
    }
    let good = findings.is_empty() != options.fault.is_some();
    if good && !options.keep {
        let _ = fs::remove_dir_all(&folder);
    } else {
        println!("torture: histories and logs are in {}", folder.display());
    }
    println!("torture: {} strikes, {}", strikes.len(), if findings.is_empty() { "nothing found" } else { "findings" });
    Ok(good)
}

fn check(folder: &Path, durability: Durability) -> Result<bool, String> {
    let (events, findings) = judge(folder, durability).map_err(|error| error.to_string())?;
    println!("{}\n{}", report::figures(&events), report::explain(&findings, &events));
    Ok(findings.is_empty())
}

/// What the brokers' logs say was lost.
fn reported_losses(folder: &Path, start: u64) -> io::Result<Vec<Loss>> {
    let mut losses = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("broker-")) {
            losses.extend(fs::read_to_string(&path)?.lines().filter_map(|line| loss_in(line, start)));
        }
    }
    losses.sort_by_key(|loss| loss.time);
    Ok(losses)
}

/// The range of acknowledged records that a line of a broker's log tells of, if it does; what was lost without ever having been
/// acknowledged is told in a WARN line. `start` is when the run began: microseconds since 1970.
fn loss_in(line: &str, start: u64) -> Option<Loss> {
    let word = |name: &str| {
        let rest = line.split_once(&format!(" {name}="))?.1;
        Some(rest.split(' ').next().unwrap_or(rest).trim_matches('"').to_owned())
    };
    let (at, rest) = line.split_once(' ')?;
    if !rest.trim_start().starts_with("ERROR ") {
        return None;
    }
    let partition = format!("{}/{}", word("topic")?, word("partition")?);
    let (from, last): (i64, i64) = (word("first_lost")?.parse().ok()?, word("last_lost")?.parse().ok()?);
    let epoch = word("epoch")?.parse().ok()?;
    Some(Loss { partition, from, end: last + 1, epoch, time: time_of_run(at, start)? })
}

/// The time of a log's line (`2026-11-23T20:00:00.123456Z`) in microseconds of the run, which takes less than a day.
fn time_of_run(text: &str, start: u64) -> Option<u64> {
    const DAY: u64 = 24 * 60 * 60 * 1_000_000;
    let mut parts = text.split_once('T')?.1.trim_end_matches('Z').split(':');
    let (hours, minutes): (u64, u64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let seconds: f64 = parts.next()?.parse().ok()?;
    let of_day = (hours * 60 + minutes) * 60_000_000 + history::micros(Duration::try_from_secs_f64(seconds).ok()?);
    Some((of_day + DAY - start % DAY) % DAY)
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(options) => run(options),
        Command::Check { folder, durability } => check(&folder, durability),
        Command::Worker(options) => workers::run(options).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("torture: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brokers_log_tells_what_was_lost() {
        // Half a second after the run began, and after midnight.
        let start = 1_795_564_799_750_000;
        let line = "2026-11-25T00:00:00.250000Z ERROR weir::log: Redis came back topic=t partition=2 first_lost=7 last_lost=9 records=3 epoch=1";
        let loss = Loss { partition: "t/2".to_owned(), from: 7, end: 10, epoch: 1, time: 500_000 };
        assert_eq!(loss_in(line, start), Some(loss));
        assert_eq!(loss_in(&line.replace("ERROR", " WARN"), start), None);
        assert_eq!(loss_in("2026-11-23T20:00:00Z ERROR weir::log: started topic=t", start), None);
    }
}
