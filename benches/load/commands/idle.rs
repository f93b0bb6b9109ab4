//! Connections that ask for ApiVersions once and then stay silent.

use std::{net::SocketAddr, time::Instant};

use anyhow::{Context, Result};
use clap::Args;
use kafka_protocol::{messages::ApiVersionsRequest, protocol::StrBytes};

use super::{
    Outcome,
    connection::{Connection, check},
    outcome::Latency,
    until_input_ends,
};

#[derive(Args)]
pub(super) struct Options {
    #[arg(long)]
    bootstrap: SocketAddr,
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Prints a line once all are open, and holds them until standard input ends.
    #[arg(long)]
    hold: bool,
}

pub(super) async fn run(options: Options) -> Result<Outcome> {
    let started = Instant::now();
    let mut latency = Latency::default();
    let mut open = Vec::with_capacity(options.connections);
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("load"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    for number in 0..options.connections {
        let asked = Instant::now();
        let mut connection =
            Connection::open(options.bootstrap).await.with_context(|| format!("after {number} connections"))?;
        // The header of this answer is never flexible, which `receive` knows.
        let answer = connection.call(3, &request).await?;
        check("ApiVersions", answer.error_code)?;
        latency.add(asked.elapsed());
        connection.rest();
        open.push(connection);
    }
    let outcome = Outcome::new("idle")
        .with_rate("connections", u64::try_from(open.len())?, started.elapsed())
        .with_latency("latency_us", &latency)
        .with("errors", 0);
    if options.hold {
        println!("{}", outcome.json());
        until_input_ends().await;
    }
    Ok(outcome)
}
