//! What a run is told.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Setting {
    /// One broker, one Redis.
    Single,
    /// One to three brokers, one Redis.
    Brokers,
    /// One to three brokers; a master and two replicas, watched by three Sentinels.
    Sentinel,
    /// One to three brokers; a Redis Cluster of three masters with a replica each.
    Cluster,
}

impl Setting {
    pub const MOST_BROKERS: usize = 3;

    /// With how many a run begins.
    pub fn brokers(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Sentinel | Self::Cluster => 2,
            Self::Brokers => Self::MOST_BROKERS,
        }
    }

    /// Links to Redis: of brokers, or of servers.
    pub fn links(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Brokers | Self::Sentinel => 3,
            Self::Cluster => 6,
        }
    }

    pub fn has_replicas(self) -> bool {
        matches!(self, Self::Sentinel | Self::Cluster)
    }

    /// The least under which nothing acknowledged may be lost: every replica that could be promoted.
    pub fn durability(self) -> Durability {
        match self {
            Self::Single | Self::Brokers => Durability::Written,
            Self::Sentinel => Durability::Replicas(2),
            Self::Cluster => Durability::Replicas(1),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Single => "one broker, one Redis",
            Self::Brokers => "one to three brokers, one Redis",
            Self::Sentinel => "one to three brokers, Sentinel",
            Self::Cluster => "one to three brokers, Redis Cluster",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Memory,
    Written,
    Fsync,
    Replicas(u32),
}

impl Durability {
    pub fn level(self) -> String {
        match self {
            Self::Memory => "memory".to_owned(),
            Self::Written => "written".to_owned(),
            Self::Fsync => "fsync".to_owned(),
            Self::Replicas(count) => format!("replicas:{count}"),
        }
    }

    /// Whether what was acknowledged may be gone after Redis died, if that was said.
    pub fn may_lose(self) -> bool {
        self == Self::Memory
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let replicas = || text.strip_prefix("replicas:")?.parse().ok();
        match text {
            "memory" => Ok(Self::Memory),
            "written" => Ok(Self::Written),
            "fsync" => Ok(Self::Fsync),
            _ => replicas().map(Self::Replicas).ok_or_else(|| format!("no level {text}")),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub durability: Durability,
    pub setting: Setting,
    /// Records a second of each producer.
    pub rate: u64,
    /// How long clients may take to get on once all is healed.
    pub patience: Duration,
    pub folder: PathBuf,
    pub weir_program: PathBuf,
    pub go_worker: Option<PathBuf>,
    pub redis_program: PathBuf,
    /// What a test build of Weir does wrong.
    pub fault: Option<String>,
}
