use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use weir::{
    broker::{self, BrokerError},
    config::{Arguments, Config, LogFormat, Role},
    telemetry::logging,
};

/// Memory that a request claims and never touches costs nothing with jemalloc, so a frame that lies about an array's length can't
/// end the process (DESIGN: facts about kafka-protocol).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The settings are wrong.
const MISCONFIGURED: u8 = 2;
/// The settings are right, and something else is not.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments, std::env::vars()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("weir: {error}");
            return ExitCode::from(MISCONFIGURED);
        }
    };
    if arguments.print_config {
        print!("{}", config.printed());
        return ExitCode::SUCCESS;
    }
    logging::start(&logging::Options { json: config.log.format == LogFormat::Json, filter: config.log.filter.clone() });
    raise_file_limit();
    // Without it, freed memory goes back to the system only when the next allocation comes.
    let _ = tikv_jemalloc_ctl::background_thread::write(true);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(config.threads).enable_all().build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("weir: the system refuses threads ({error}): raise the limit of processes (ulimit -u)");
            return ExitCode::from(FAILED);
        }
    };
    if arguments.check {
        return match runtime.block_on(broker::check(&config)) {
            Ok(said) => {
                println!("{said}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("weir: {error}");
                ExitCode::from(FAILED)
            }
        };
    }
    match runtime.block_on(run(config, arguments.role)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Every connection is an open file, and the limit that processes start with is often a low one that they may raise.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit of open files can't be raised (ulimit -n)");
    }
    /// Fewer do for a laptop, but a client opens several connections to a broker.
    const ENOUGH: u64 = 10_000;
    if let Some(files) = getrlimit(Resource::Nofile).current.filter(|files| *files < ENOUGH) {
        tracing::warn!(
            files,
            "the system allows few open files, and every connection is one: beyond that clients can't connect; raise the hard limit \
             (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of Docker) to at least {ENOUGH}"
        );
    }
}

/// Runs until the first SIGTERM or SIGINT and what it takes to drain; a second one ends the process at once.
async fn run(config: Config, role: Option<Role>) -> Result<(), BrokerError> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(BrokerError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(BrokerError::Signals)?;
    let first = stop.clone();
    let signals = async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first.is_cancelled() {
                std::process::exit(i32::from(FAILED));
            }
            tracing::info!("asked to stop");
            first.cancel();
        }
    };
    tokio::select! {
        ended = async {
            match role {
                None => broker::run(config, stop).await,
                Some(Role::Archive) => broker::run_job(config, stop).await,
            }
        } => ended,
        () = signals => Ok(()),
    }
}
