//! `[archive]`: where topics are archived, and within which bounds.

use std::time::Duration;

use super::{ConfigError, Own};

/// The archive; credentials come from the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// `s3://BUCKET/PREFIX` or `file:///PATH`.
    pub url: String,
    /// An S3 server that is not Amazon's.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub path_style: bool,
    pub allow_http: bool,
    /// 1 to 22.
    pub zstd_level: i32,
    pub cache_bytes: usize,
    pub file_bytes: u64,
    pub lag: Duration,
    pub interval: Duration,
    /// Between two rounds of a table's upkeep.
    pub upkeep_interval: Duration,
    /// So many small files in a row, and upkeep joins them.
    pub join_files: usize,
    /// Versions between two checkpoints.
    pub checkpoint_interval: i64,
    /// How long a file that was taken out of its table stays.
    pub keep_removed: Duration,
    /// How long a version stays that a checkpoint has made unnecessary.
    pub keep_versions: Duration,
    /// A second; `None` is no limit.
    pub rate_bytes: Option<u64>,
    /// Of a partition, not archived yet; `None` is no limit.
    pub hot_limit_bytes: Option<u64>,
    /// At the limit the oldest records go, instead of appends being refused.
    pub drops_when_full: bool,
    /// This broker copies what it leads.
    pub is_job_here: bool,
}

impl Archive {
    /// `None` where no archive is set.
    pub(super) fn of(own: &Own<'_>) -> Result<Option<Self>, ConfigError> {
        let url = own.text("archive.url")?;
        if url.is_empty() {
            return Ok(None);
        }
        let is_folder = url.strip_prefix("file://").is_some_and(|path| path.starts_with('/'));
        let is_bucket = url.strip_prefix("s3://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
        if !is_folder && !is_bucket {
            return Err(own.invalid("archive.url", "s3://BUCKET/PREFIX or file:///PATH"));
        }
        let endpoint = own.text("archive.endpoint")?;
        let allow_http = flag(own, "archive.allow.http")?;
        if !endpoint.is_empty() && !endpoint.starts_with("https://") {
            if !endpoint.starts_with("http://") {
                return Err(own.invalid("archive.endpoint", "http:// or https:// with host and port"));
            }
            if !allow_http {
                return Err(own.invalid("archive.endpoint", "https://, or archive.allow.http must be true"));
            }
        }
        let bytes = |name: &str, least: i64| own.number::<u64>(name, least, 1 << 40);
        let millis = |name: &str, least: i64| own.number(name, least, 1 << 40).map(Duration::from_millis);
        Ok(Some(Self {
            url,
            endpoint: Some(endpoint).filter(|text| !text.is_empty()),
            region: Some(own.text("archive.region")?).filter(|text| !text.is_empty()),
            path_style: flag(own, "archive.path.style")?,
            allow_http,
            zstd_level: own.number("archive.zstd.level", 1, 22)?,
            cache_bytes: own.number("archive.cache.bytes", 0, 1 << 40)?,
            file_bytes: bytes("archive.file.bytes", 1024)?,
            lag: millis("archive.lag.ms", 0)?,
            interval: millis("archive.interval.ms", 10)?,
            upkeep_interval: millis("archive.upkeep.interval.ms", 10)?,
            join_files: own.number("archive.join.files", 2, 1_000)?,
            checkpoint_interval: own.number("archive.checkpoint.versions", 1, 10_000)?,
            keep_removed: millis("archive.keep.removed.ms", 0)?,
            keep_versions: millis("archive.keep.versions.ms", 3_600_000)?,
            rate_bytes: Some(bytes("archive.rate.bytes", 0)?).filter(|rate| *rate > 0),
            hot_limit_bytes: Some(bytes("archive.hot.limit.bytes", 0)?).filter(|limit| *limit > 0),
            drops_when_full: one_of(own, "archive.when.full", ["refuse", "drop"])? == "drop",
            is_job_here: one_of(own, "archive.job", ["broker", "off"])? == "broker",
        }))
    }
}

fn flag(own: &Own<'_>, name: &str) -> Result<bool, ConfigError> {
    own.parsed(name, "true or false")
}

fn one_of(own: &Own<'_>, name: &str, words: [&'static str; 2]) -> Result<&'static str, ConfigError> {
    let text = own.text(name)?;
    let found = words.into_iter().find(|word| *word == text);
    found.ok_or_else(|| own.invalid(name, &words.join(" or ")))
}
