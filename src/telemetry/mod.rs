//! What the broker tells of itself: the log, the metrics, the HTTP port.

pub mod http;
mod latency;
pub mod logging;
pub mod metrics;

pub use latency::Latency;
pub use metrics::Metrics;
