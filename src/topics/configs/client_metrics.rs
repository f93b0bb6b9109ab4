//! Client metrics subscriptions (KIP-714): known, checked and stored, so that tools work; no client is asked for metrics.

use super::{
    Check::Any,
    Definition, InvalidTopicConfig,
    Kind::{Int, List},
    Values, find, list_items,
};

const NO_TELEMETRY: &str = "clients are not asked for their metrics";

/// By name.
pub const CLIENT_METRICS: &[Definition] = &[
    Definition::new("interval.ms", Int, "300000", Any, "How often clients push their metrics.")
        .dynamic()
        .no_effect(NO_TELEMETRY),
    Definition::new("match", List, "", Any, "Which clients the subscription is for, as name=pattern.")
        .dynamic()
        .no_effect(NO_TELEMETRY),
    Definition::new("metrics", List, "", Any, "The prefixes of the metrics' names.").dynamic().no_effect(NO_TELEMETRY),
];

const MATCHERS: [&str; 7] = [
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
    "client_source_host",
];

/// What is wrong with a subscription; Kafka answers them with different codes.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidClientMetrics {
    /// INVALID_REQUEST
    #[error("{0}")]
    Request(String),
    /// INVALID_CONFIG
    #[error("{0}")]
    Config(String),
}

impl From<InvalidTopicConfig> for InvalidClientMetrics {
    fn from(error: InvalidTopicConfig) -> Self {
        Self::Config(error.0)
    }
}

/// Checks all that is set for one subscription.
///
/// # Errors
/// With Kafka's words.
pub fn validate_client_metrics(values: &Values) -> Result<(), InvalidClientMetrics> {
    for (name, value) in values {
        let definition = find(CLIENT_METRICS.iter(), name)
            .ok_or_else(|| InvalidClientMetrics::Request(format!("Unknown client metrics configuration: {name}")))?;
        definition.validate(value).map_err(|error| InvalidClientMetrics::Config(error.to_string()))?;
        if name == "interval.ms" && !value.trim().parse::<i32>().is_ok_and(|ms| (100..=3_600_000).contains(&ms)) {
            return Err(InvalidClientMetrics::Request(format!(
                "Invalid value {} for interval.ms, interval must be between 100 and 3600000 (1 hour)",
                value.trim()
            )));
        }
        if name == "match" {
            let legal = |item: &str| {
                item.split_once('=')
                    .is_some_and(|(name, pattern)| MATCHERS.contains(&name.trim()) && !pattern.trim().is_empty())
            };
            if let Some(item) = list_items(value).find(|item| !legal(item)) {
                return Err(InvalidClientMetrics::Config(format!("Illegal client matching pattern: {item}")));
            }
        }
    }
    Ok(())
}
