//! The cold tier end to end: brokers, their Redis and an archive in a folder. Most of it needs the feature `archive`.

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "archive")]
mod loss;
#[cfg(feature = "archive")]
mod records;
#[cfg(feature = "archive")]
mod s3;
#[cfg(feature = "archive")]
mod seam;
#[cfg(all(feature = "archive", feature = "planted-faults"))]
mod several;
#[cfg(feature = "archive")]
mod shown;
#[cfg(all(feature = "archive", feature = "planted-faults"))]
mod steps;
#[cfg(feature = "archive")]
mod tiers;
#[cfg(feature = "archive")]
mod weather;
#[cfg(feature = "archive")]
mod world;

#[cfg(not(feature = "archive"))]
mod absent {
    use kafka_protocol::{
        messages::{
            AlterConfigsRequest, AlterConfigsResponse, ApiKey, IncrementalAlterConfigsRequest,
            IncrementalAlterConfigsResponse,
            alter_configs_request::{AlterConfigsResource, AlterableConfig},
            incremental_alter_configs_request,
        },
        protocol::StrBytes,
    };

    use super::support::{
        Connection, Weir,
        ledger::{TOPIC, create_topic, try_create_topic},
        process::weir,
    };

    const INVALID_CONFIG: i16 = 40;

    fn assert_told(refused: (i16, String)) {
        assert_eq!(refused.0, INVALID_CONFIG);
        assert!(refused.1.starts_with("Tiered Storage functionality is disabled in the broker."), "{}", refused.1);
        for missing in ["archive.url", "the feature `archive`"] {
            assert!(refused.1.contains(missing), "{}", refused.1);
        }
    }

    #[test]
    fn a_build_without_the_archive_says_so_in_one_sentence() {
        let ended = weir(&["--check", "--override", "archive.url=file:///tmp/weir-archive"]);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains("the feature `archive`"), "{}", ended.stderr);
        assert_eq!(ended.stderr.trim().lines().count(), 1, "{}", ended.stderr);
    }

    #[test]
    fn without_an_archive_a_topic_is_told_what_is_missing() {
        let weir = Weir::start(&[]);
        assert_told(try_create_topic(weir.address, &[("remote.storage.enable", "true")]).expect_err("no archive"));
    }

    #[test]
    fn without_an_archive_a_topic_that_is_there_can_not_be_given_a_cold_tier() {
        const TOPIC_RESOURCE: i8 = 2;
        let weir = Weir::start(&[]);
        create_topic(weir.address, &[]);
        let mut connection = Connection::to(weir.address);
        let text = StrBytes::from_static_str;
        let message = |message: &Option<StrBytes>| message.as_ref().map(StrBytes::to_string).unwrap_or_default();

        let config = AlterableConfig::default().with_name(text("remote.storage.enable")).with_value(Some(text("true")));
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(text(TOPIC))
            .with_configs(vec![config]);
        let request = AlterConfigsRequest::default().with_resources(vec![resource]);
        let answer: AlterConfigsResponse = connection.call(ApiKey::AlterConfigs as i16, 2, &request);
        let refused = &answer.responses[0];
        assert_told((refused.error_code, message(&refused.error_message)));

        let config = incremental_alter_configs_request::AlterableConfig::default()
            .with_name(text("remote.storage.enable"))
            .with_value(Some(text("true")));
        let resource = incremental_alter_configs_request::AlterConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(text(TOPIC))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer: IncrementalAlterConfigsResponse =
            connection.call(ApiKey::IncrementalAlterConfigs as i16, 1, &request);
        let refused = &answer.responses[0];
        assert_told((refused.error_code, message(&refused.error_message)));
    }
}
