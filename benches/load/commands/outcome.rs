//! What a run found, as one line of JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

pub(crate) struct Outcome(Map<String, Value>);

impl Outcome {
    pub(super) fn new(command: &str) -> Self {
        let mut fields = Map::new();
        fields.insert("command".to_owned(), command.into());
        Self(fields)
    }

    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// `count` things in `elapsed`: seconds and rate.
    #[must_use]
    pub(super) fn with_rate(self, name: &str, count: u64, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        self.with(name, count)
            .with("seconds", rounded(seconds, 1e4))
            .with("rate", rounded(count as f64 / seconds, 10.0))
    }

    #[must_use]
    pub(super) fn with_latency(self, name: &str, latency: &Latency) -> Self {
        self.with(name, latency.json())
    }

    pub(crate) fn json(&self) -> String {
        let mut fields = self.0.clone();
        fields.insert("generator_cpu_seconds".to_owned(), own_cpu_seconds().into());
        Value::Object(fields).to_string()
    }

    /// Whether the server never answered an error.
    pub(crate) fn is_clean(&self) -> bool {
        self.count("errors") == 0
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.0.get(name).and_then(Value::as_u64).unwrap_or(0)
    }
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

/// User and system time of this process.
fn own_cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

/// Times in microseconds: exact below 128, then 64 steps for each doubling (1.6 % wide at most).
#[derive(Clone, Default)]
pub(super) struct Latency {
    counts: Vec<u64>,
    count: u64,
    sum: u64,
    max: u64,
}

const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();

impl Latency {
    pub(super) fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let slot = slot(micros);
        if self.counts.len() <= slot {
            self.counts.resize(slot + 1, 0);
        }
        self.counts[slot] += 1;
        self.count += 1;
        self.sum += micros;
        self.max = self.max.max(micros);
    }

    pub(super) fn merge(&mut self, other: &Latency) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// The time that `share` of all did not exceed.
    fn quantile(&self, share: f64) -> u64 {
        let rank = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(slot as u64).min(self.max);
            }
        }
        self.max
    }

    fn json(&self) -> Value {
        json!({
            "count": self.count,
            "mean": self.sum.checked_div(self.count).unwrap_or(0),
            "p50": self.quantile(0.5),
            "p99": self.quantile(0.99),
            "p99.9": self.quantile(0.999),
            "max": self.max,
        })
    }
}

fn slot(micros: u64) -> usize {
    let doublings = micros.checked_ilog2().unwrap_or(0).saturating_sub(STEP_BITS);
    (u64::from(doublings) * STEPS + (micros >> doublings)) as usize
}

/// The largest time that lies in a slot.
fn upper(slot: u64) -> u64 {
    let doublings = (slot / STEPS).saturating_sub(1);
    let first = slot - doublings * STEPS;
    ((first + 1) << doublings) - 1
}
