//! The log, on standard error: text for people or JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

/// How the log is written.
#[derive(Clone, Debug)]
pub struct Options {
    pub json: bool,
    /// A level, or filters by module.
    pub filter: String,
}

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(options: &Options) {
    let filter = EnvFilter::try_new(&options.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let _ = if options.json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
}
