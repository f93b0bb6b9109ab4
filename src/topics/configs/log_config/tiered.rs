//! The configs of a topic's cold tier, with Kafka's rules and words (KIP-405, KIP-950).

use super::{ENABLE, Effective, limit};
use crate::{
    log::{archive::FileOptions, config::Tier},
    topics::configs::list_items,
};

const SYSTEM: &str = "remote.log.storage.system.enable";
const COPY_DISABLE: &str = "remote.log.copy.disable";
const DELETE_ON_DISABLE: &str = "remote.log.delete.on.disable";
/// Follows the retention of the whole log.
const SAME: i64 = -2;

/// `had_tier`: the topic was archived until now.
pub(super) fn validate(topic: &Effective<'_>, had_tier: bool) -> Result<(), String> {
    if !topic.flag(ENABLE) {
        if had_tier && !topic.flag(DELETE_ON_DISABLE) {
            return Err(
                "It is invalid to disable remote storage without deleting remote data. If you want to keep the \
                        remote data and turn to read only, please set `remote.storage.enable=true,\
                        remote.log.copy.disable=true`. If you want to disable remote storage and delete all remote \
                        data, please set `remote.storage.enable=false,remote.log.delete.on.disable=true`."
                    .to_owned(),
            );
        }
        return Ok(());
    }
    if !topic.broker_flag(SYSTEM) {
        return Err(
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log \
                    storage. Start every broker with archive.url (and a build that has the feature `archive`)."
                .to_owned(),
        );
    }
    let policy = topic.text("cleanup.policy");
    if list_items(&policy).any(|item| item != "delete") {
        return Err(
            "Remote log storage only supports topics with cleanup.policy=delete or cleanup.policy being an empty \
                    list."
                .to_owned(),
        );
    }
    for unit in ["bytes", "ms"] {
        check_local_part(topic, "", unit)?;
    }
    for unit in ["bytes", "ms"] {
        let (whole, local) = (format!("retention.{unit}"), format!("local.retention.{unit}"));
        let (kept, stays) = (topic.number(&whole), topic.number(&local));
        if topic.flag(COPY_DISABLE) && stays != SAME && stays != kept {
            return Err(format!(
                "When `remote.log.copy.disable` is set to true, the `{local}` and `{whole}` must be set to the identical \
                 value because there will be no more logs copied to the remote storage."
            ));
        }
    }
    Ok(())
}

/// What brokers give topics, be any archived or not.
pub(super) fn validate_defaults(defaults: &Effective<'_>) -> Result<(), String> {
    ["ms", "bytes"].into_iter().try_for_each(|unit| check_local_part(defaults, "log.", unit))
}

/// No more may stay than is kept.
fn check_local_part(topic: &Effective<'_>, prefix: &str, unit: &str) -> Result<(), String> {
    let (whole, local) = (format!("retention.{unit}"), format!("local.retention.{unit}"));
    let (kept, stays) = (topic.number(&whole), topic.number(&local));
    let refused = |reason: String| Err(format!("Invalid value {stays} for configuration {prefix}{local}: {reason}"));
    if kept > -1 && stays == -1 {
        return refused(format!("Value must not be -1 as {prefix}{whole} value is set as {kept}."));
    }
    if kept > -1 && stays > kept {
        return refused(format!("Value must not be more than {prefix}{whole} property value: {kept}"));
    }
    Ok(())
}

pub(super) fn tier(topic: &Effective<'_>) -> Option<Tier> {
    if !topic.flag(ENABLE) {
        return None;
    }
    let local = |unit: &str| match topic.number(&format!("local.retention.{unit}")) {
        SAME => limit(topic.number(&format!("retention.{unit}"))),
        value => limit(value),
    };
    Some(Tier {
        copies: !topic.flag(COPY_DISABLE),
        local_retention_ms: local("ms"),
        local_retention_bytes: local("bytes").and_then(|bytes| u64::try_from(bytes).ok()),
        files: FileOptions {
            file_bytes: u64::try_from(topic.number("weir.archive.file.bytes")).ok(),
            zstd_level: i32::try_from(topic.number("weir.archive.zstd.level")).ok().filter(|level| *level > 0),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::configs::{Layers, Values, log_config, validate_log_defaults, validate_topic};

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn archived(pairs: &[(&str, &str)]) -> Values {
        let mut values = values(pairs);
        values.insert(ENABLE.to_owned(), "true".to_owned());
        values
    }

    fn with_archive() -> Layers {
        Layers { fixed: values(&[(SYSTEM, "true")]), ..Layers::default() }
    }

    fn told(before: Option<&Values>, after: &Values) -> Option<String> {
        validate_topic(before, after, &Values::new(), &with_archive()).err().map(|error| error.0)
    }

    #[test]
    fn without_an_archive_a_topic_is_told_what_is_missing() {
        let refused = validate_topic(None, &archived(&[]), &Values::new(), &Layers::default()).expect_err("no archive");
        assert!(refused.0.starts_with("Tiered Storage functionality is disabled in the broker."), "{refused}");
        assert!(refused.0.contains("archive.url"));
        assert_eq!(told(None, &archived(&[])), None);
    }

    #[test]
    fn what_stays_local_is_no_more_than_what_is_kept() {
        let more = archived(&[("retention.ms", "1000"), ("local.retention.ms", "1001")]);
        assert_eq!(
            told(None, &more).as_deref(),
            Some(
                "Invalid value 1001 for configuration local.retention.ms: Value must not be more than retention.ms property \
                 value: 1000"
            )
        );
        let endless = archived(&[("retention.bytes", "1000"), ("local.retention.bytes", "-1")]);
        assert!(told(None, &endless).is_some_and(|text| text.contains("must not be -1 as retention.bytes")));
        assert_eq!(told(None, &archived(&[("retention.ms", "-1"), ("local.retention.ms", "-1")])), None);
        assert!(told(None, &archived(&[("cleanup.policy", "compact")])).is_some());
        assert_eq!(told(None, &archived(&[("cleanup.policy", "")])), None);
    }

    #[test]
    fn a_topic_that_is_not_copied_any_more_keeps_all_it_has_local() {
        let shorter = archived(&[(COPY_DISABLE, "true"), ("local.retention.ms", "5")]);
        assert!(told(None, &shorter).is_some_and(|text| text.contains("identical value")));
        assert_eq!(told(None, &archived(&[(COPY_DISABLE, "true")])), None);
    }

    #[test]
    fn turning_the_archive_off_means_to_delete_it() {
        let before = archived(&[]);
        let off = values(&[(ENABLE, "false")]);
        assert!(told(Some(&before), &off).is_some_and(|text| text.contains("without deleting remote data")));
        let deleting = values(&[(ENABLE, "false"), (DELETE_ON_DISABLE, "true")]);
        assert_eq!(told(Some(&before), &deleting), None);
        assert_eq!(told(None, &off), None);
    }

    #[test]
    fn the_local_part_follows_the_whole_unless_it_is_set() {
        let tier = |pairs: &[(&str, &str)]| log_config(&archived(pairs), &Values::new(), &Layers::default()).tier;
        let same = tier(&[("retention.bytes", "77")]).expect("it is archived");
        assert_eq!((same.local_retention_ms, same.local_retention_bytes), (Some(604_800_000), Some(77)));
        let set = tier(&[("local.retention.ms", "5"), (COPY_DISABLE, "true")]).expect("it is archived");
        assert_eq!((set.copies, set.local_retention_ms, set.local_retention_bytes), (false, Some(5), None));
    }

    #[test]
    fn what_a_broker_gives_topics_stays_local_no_longer_than_it_is_kept() {
        let told = |pairs: &[(&str, &str)]| {
            let layers = Layers { dynamic: values(pairs), ..Layers::default() };
            validate_log_defaults(&layers).err().map(|error| error.0)
        };
        assert_eq!(told(&[]), None);
        assert_eq!(
            told(&[("log.local.retention.ms", "-1")]).as_deref(),
            Some(
                "Invalid value -1 for configuration log.local.retention.ms: Value must not be -1 as log.retention.ms value is \
                 set as 604800000."
            )
        );
        assert_eq!(
            told(&[("log.retention.bytes", "10"), ("log.local.retention.bytes", "11")]).as_deref(),
            Some(
                "Invalid value 11 for configuration log.local.retention.bytes: Value must not be more than \
                 log.retention.bytes property value: 10"
            )
        );
        assert_eq!(told(&[("log.retention.ms", "-1"), ("log.local.retention.ms", "-1")]), None);
        assert_eq!(told(&[("log.retention.hours", "1"), ("log.local.retention.ms", "3600000")]), None);
    }

    #[test]
    fn files_are_written_as_the_broker_says_unless_the_topic_does() {
        let files = |pairs: &[(&str, &str)]| {
            log_config(&archived(pairs), &Values::new(), &Layers::default()).tier.expect("it is archived").files
        };
        assert_eq!(files(&[]), FileOptions::default());
        let own = files(&[("weir.archive.file.bytes", "1000000"), ("weir.archive.zstd.level", "19")]);
        assert_eq!(own, FileOptions { file_bytes: Some(1_000_000), zstd_level: Some(19) });
        for level in ["0", "23", "-2"] {
            assert!(told(None, &archived(&[("weir.archive.zstd.level", level)])).is_some(), "{level}");
        }
    }
}
