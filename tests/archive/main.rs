//! The cold tier end to end: brokers, their Redis and an archive in a folder. Most of it needs the feature `archive`.

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "archive")]
mod loss;
#[cfg(feature = "archive")]
mod records;
#[cfg(feature = "archive")]
mod s3;
#[cfg(all(feature = "archive", feature = "planted-faults"))]
mod several;
#[cfg(all(feature = "archive", feature = "planted-faults"))]
mod steps;
#[cfg(feature = "archive")]
mod tiers;
#[cfg(feature = "archive")]
mod world;

#[cfg(not(feature = "archive"))]
mod absent {
    use super::support::{Weir, ledger::try_create_topic, process::weir};

    #[test]
    fn a_build_without_the_archive_says_so_in_one_sentence() {
        let ended = weir(&["--check", "--override", "archive.url=file:///tmp/weir-archive"]);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains("the feature `archive`"), "{}", ended.stderr);
        assert_eq!(ended.stderr.trim().lines().count(), 1, "{}", ended.stderr);
    }

    #[test]
    fn without_an_archive_a_topic_is_told_what_is_missing() {
        const INVALID_CONFIG: i16 = 40;
        let weir = Weir::start(&[]);
        let refused = try_create_topic(weir.address, &[("remote.storage.enable", "true")]).expect_err("no archive");
        assert_eq!(refused.0, INVALID_CONFIG);
        assert!(refused.1.starts_with("Tiered Storage functionality is disabled in the broker."), "{}", refused.1);
        for missing in ["archive.url", "the feature `archive`"] {
            assert!(refused.1.contains(missing), "{}", refused.1);
        }
    }
}
