//! A thin load generator: `cargo bench --bench load -- produce --help`. Prints one line of JSON.
//! It replays batches that were built before, so that what a run shows is the server. See benches/README.md.

use std::process::ExitCode;

use clap::Parser;

mod commands;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match commands::run(commands::Arguments::parse()).await {
        Ok(outcome) => {
            println!("{}", outcome.json());
            if outcome.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}
