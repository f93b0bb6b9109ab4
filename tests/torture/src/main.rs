//! Real clients under a nemesis, and a checker of what they saw. See README.md.

mod checker;
mod history;
mod nemesis;
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
    checker::Finding,
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
    /// Keeps histories and logs also when nothing was found.
    #[arg(long)]
    keep: bool,
    /// Prints the schedule and does nothing.
    #[arg(long)]
    plan: bool,
}

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

/// Plays the run; what is in the folder then tells everything.
fn play(options: &RunOptions, settings: Settings, strikes: &[nemesis::Strike]) -> Result<(), String> {
    let start = history::wall_micros();
    let folder = settings.folder.clone();
    let durability = settings.durability;
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
    nemesis::strike(&mut world, strikes, end, &recorder)?;
    thread::sleep(end.saturating_duration_since(Instant::now()));
    world.heal()?;
    let problem = |error: String| recorder.record(Kind::Info, Operation::Problem { error });
    let _ = world.finish_clients(|kind| kind.role == "producer").map_err(problem);
    let _ = world.finish_clients(|_| true).map_err(problem);
    world.run_client(FINAL)?;
    let _ = world.finish_clients(|kind| kind.role == "final").map_err(problem);
    Ok(())
}

fn judge(folder: &Path, durability: Durability) -> io::Result<(Vec<Event>, Vec<Finding>)> {
    let events = history::read_all(folder)?;
    let losses = if durability.may_lose() { reported_losses(folder)? } else { Vec::new() };
    let findings = checker::check(&events, &losses);
    Ok((events, findings))
}

fn run(options: RunOptions) -> Result<bool, String> {
    let seed = options.seed.unwrap_or_else(history::wall_micros);
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    let durability = options.durability.unwrap_or(options.setting.durability());
    let strikes = nemesis::schedule(seed, options.setting, durability, length);
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
fn reported_losses(folder: &Path) -> io::Result<Vec<checker::Loss>> {
    let mut losses = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("broker-")) {
            losses.extend(fs::read_to_string(&path)?.lines().filter_map(loss_in));
        }
    }
    Ok(losses)
}

/// The range that a line of a broker's log tells of, if it does.
fn loss_in(line: &str) -> Option<checker::Loss> {
    let word = |name: &str| {
        let rest = line.split_once(&format!(" {name}="))?.1;
        Some(rest.split(' ').next().unwrap_or(rest).trim_matches('"').to_owned())
    };
    let partition = format!("{}/{}", word("topic")?, word("partition")?);
    let (from, last): (i64, i64) = (word("first_lost")?.parse().ok()?, word("last_lost")?.parse().ok()?);
    Some(checker::Loss { partition, from, end: last + 1 })
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
        let line = "2026-11-23T20:00:00Z ERROR weir::log: Redis came back topic=t partition=2 first_lost=7 last_lost=9 records=3 epoch=1";
        assert_eq!(loss_in(line), Some(checker::Loss { partition: "t/2".to_owned(), from: 7, end: 10 }));
        assert_eq!(loss_in("2026-11-23T20:00:00Z INFO weir::log: started topic=t"), None);
    }
}
