//! UTC days and instants as Delta spells them.

const DAY_MS: i64 = 86_400_000;

/// Timestamps that every reader can show: the years 1 to 9999 (ms, inclusive).
pub(super) const FIRST_MS: i64 = -62_135_596_800_000;
pub(super) const LAST_MS: i64 = 253_402_300_799_999;

/// `2026-11-23` for a timestamp in ms; `None` outside of the years 1 to 9999.
pub(super) fn date(timestamp_ms: i64) -> Option<String> {
    let (year, month, day) = civil(timestamp_ms)?;
    Some(format!("{year:04}-{month:02}-{day:02}"))
}

/// `2026-11-23T19:18:42.123Z`, the form of timestamps in a file's statistics.
pub(super) fn instant(timestamp_ms: i64) -> Option<String> {
    let date = date(timestamp_ms)?;
    let ms = timestamp_ms.rem_euclid(DAY_MS);
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    Some(format!("{date}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", ms % 1_000))
}

/// Days since 1970-01-01.
pub(super) fn day(timestamp_ms: i64) -> i64 {
    timestamp_ms.div_euclid(DAY_MS)
}

/// Year, month and day of the proleptic Gregorian calendar; years begin in March while it counts, so that the leap day is last.
fn civil(timestamp_ms: i64) -> Option<(i64, i64, i64)> {
    if !(FIRST_MS..=LAST_MS).contains(&timestamp_ms) {
        return None;
    }
    let days = day(timestamp_ms) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Some((year, month, day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_have_their_names() {
        assert_eq!(instant(0).as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(instant(951_782_400_000).as_deref(), Some("2000-02-29T00:00:00.000Z"));
        assert_eq!(instant(1_795_461_522_123).as_deref(), Some("2026-11-23T19:18:42.123Z"));
        assert_eq!(instant(-1).as_deref(), Some("1969-12-31T23:59:59.999Z"));
        assert_eq!(instant(FIRST_MS).as_deref(), Some("0001-01-01T00:00:00.000Z"));
        assert_eq!(instant(LAST_MS).as_deref(), Some("9999-12-31T23:59:59.999Z"));
        assert_eq!((date(LAST_MS + 1), date(FIRST_MS - 1)), (None, None));
    }
}
