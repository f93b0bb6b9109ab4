//! One file per subcommand; what they share is in `connection`, `batches`, `topic`, `fetcher` and `outcome`.

mod batches;
mod commits;
mod connection;
mod consume;
mod end_to_end;
mod fetcher;
mod idle;
mod join;
mod member;
mod outcome;
mod produce;
mod redis;
mod seek;
mod sink;
mod tail;
mod topic;

use anyhow::Result;
use clap::{Parser, Subcommand};

pub(crate) use outcome::Outcome;

#[derive(Parser)]
#[command(name = "load", about = "A thin load generator for Kafka's protocol, and for Redis beside it")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// What `cargo bench` gives every bench.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Creates one topic, or many.
    Create(topic::Create),
    /// Deletes one topic, or many.
    Delete(topic::Delete),
    /// Replays batches that were built before, and checks every answer.
    Produce(produce::Options),
    /// Fetches as consumers do; counts by batch headers alone.
    Consume(consume::Options),
    /// Consumers that start somewhere in the log: the time until each has a record.
    Seek(seek::Options),
    /// Produces at a fixed rate while consumers wait at the end; every batch's way is timed.
    Tail(tail::Options),
    /// One record at a time: from the send until a fetch that waits has it.
    EndToEnd(end_to_end::Options),
    /// Members of classic groups commit offsets as fast as they can.
    Commits(commits::Options),
    /// Members join classic groups: the time until all are stable.
    Join(join::Options),
    /// The ceiling: the same bytes straight to Redis, as pipelined XADDs.
    Redis(redis::Options),
    /// A broker that keeps nothing: what the clients alone reach.
    Sink(sink::Options),
    /// Opens connections, asks each for ApiVersions, and holds them.
    Idle(idle::Options),
}

pub(crate) async fn run(arguments: Arguments) -> Result<Outcome> {
    match arguments.command {
        Command::Create(options) => topic::create(options).await,
        Command::Delete(options) => topic::delete(options).await,
        Command::Produce(options) => produce::run(options).await,
        Command::Consume(options) => consume::run(options).await,
        Command::Seek(options) => seek::run(options).await,
        Command::Tail(options) => tail::run(options).await,
        Command::EndToEnd(options) => end_to_end::run(options).await,
        Command::Commits(options) => commits::run(options).await,
        Command::Join(options) => join::run(options).await,
        Command::Redis(options) => redis::run(options).await,
        Command::Sink(options) => sink::run(options).await,
        Command::Idle(options) => idle::run(options).await,
    }
}

async fn until_input_ends() {
    let reading = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    let _ = reading.await;
}
