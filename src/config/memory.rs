//! The embedded server's memory limit.

use std::{fs, str::FromStr};

use super::NotOneOfThem;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    Bytes(u64),
    /// Of the machine's memory or, in a container, of the container's.
    Percent(u8),
}

impl MemoryLimit {
    pub fn bytes(self) -> u64 {
        /// Where the machine does not say how much it has.
        const ASSUMED: u64 = 2 << 30;
        match self {
            MemoryLimit::Bytes(bytes) => bytes,
            MemoryLimit::Percent(share) => available().unwrap_or(ASSUMED) / 100 * u64::from(share),
        }
    }
}

/// The machine's memory, or the container's if that is less.
fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let kib: u64 =
            text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()?;
        kib.checked_mul(1024)
    });
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
        .min();
    machine.into_iter().chain(container).min()
}

impl FromStr for MemoryLimit {
    type Err = NotOneOfThem;

    fn from_str(text: &str) -> Result<Self, NotOneOfThem> {
        if let Some(share) = text.strip_suffix('%') {
            let share = share.trim().parse().ok().filter(|share| (1..=100).contains(share)).ok_or(NotOneOfThem)?;
            return Ok(MemoryLimit::Percent(share));
        }
        let lower = text.to_ascii_lowercase();
        let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit: u64 = match lower.get(digits.len()..).unwrap_or_default() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            _ => return Err(NotOneOfThem),
        };
        let count: u64 = digits.trim().parse().map_err(|_| NotOneOfThem)?;
        count.checked_mul(unit).filter(|bytes| *bytes > 0).map(MemoryLimit::Bytes).ok_or(NotOneOfThem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_bytes_with_a_unit_or_a_share() {
        for (text, limit) in [
            ("1048576", MemoryLimit::Bytes(1 << 20)),
            ("512mb", MemoryLimit::Bytes(512 << 20)),
            ("2GB", MemoryLimit::Bytes(2 << 30)),
            ("2 gib", MemoryLimit::Bytes(2 << 30)),
            ("50%", MemoryLimit::Percent(50)),
        ] {
            assert_eq!(text.parse::<MemoryLimit>().expect("legal"), limit, "{text}");
        }
        for text in ["", "0", "0%", "101%", "-1", "1tb", "mb", "99999999999gb"] {
            assert!(text.parse::<MemoryLimit>().is_err(), "{text}");
        }
    }
}
