//! Kafka's broker settings, and the defaults of topics, as far as the configuration has to know them.

use crate::topics::{
    configs::{self, Values},
    settings::{PatternDefaults, StaticSettings},
};

use super::{
    ConfigError, Given,
    sources::{Sources, unknown},
};

/// Names of Kafka's that Weir spells otherwise, with what to use.
const ELSEWHERE: &[(&str, &str)] = &[
    ("listeners", "use `listen` (--listen)"),
    ("advertised.listeners", "use `advertise` (--advertise)"),
    ("broker.id", "use `node.id` (--node-id)"),
    ("log.dir", "use `data.dir` (--data-dir)"),
    ("log.dirs", "use `data.dir` (--data-dir)"),
];

/// Whether topics may be archived.
const TIERS: &str = "remote.log.storage.system.enable";

/// Every broker setting that can be given.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    configs::broker().map(|definition| definition.name)
}

pub(super) fn is_known(name: &str) -> bool {
    configs::broker_definition(name).is_some()
}

/// What to use instead of a name of Kafka's that Weir spells otherwise.
pub(super) fn instead_of(name: &str) -> Option<&'static str> {
    ELSEWHERE.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours)
}

/// Checks each value by itself, then what they say together.
pub(super) fn settings(sources: &Sources, has_archive: bool) -> Result<StaticSettings, ConfigError> {
    let mut broker = Values::new();
    for (name, given) in &sources.broker {
        let definition = configs::broker_definition(name).expect("unknown names were refused when they were read");
        check(definition, given)?;
        broker.insert(name.clone(), definition.normalized(&given.text()));
    }
    let tiers = broker.entry(TIERS.to_owned()).or_insert_with(|| has_archive.to_string());
    if tiers == "true" && !has_archive {
        return Err(ConfigError::Conflict(format!("`{TIERS}` is true, but there is no archive: set archive.url")));
    }
    let mut patterns = Vec::new();
    for table in &sources.topics {
        let mut values = Values::new();
        for (name, given) in &table.configs {
            let definition = configs::topic_definition(name).ok_or_else(|| {
                unknown(name, given.origin.clone(), configs::TOPIC.iter().map(|row| row.name.to_owned()))
            })?;
            check(definition, given)?;
            values.insert(name.clone(), definition.normalized(&given.text()));
        }
        patterns.push(PatternDefaults { pattern: table.pattern.text(), configs: values });
    }
    StaticSettings::new(broker, patterns).map_err(|error| ConfigError::Conflict(error.to_string()))
}

fn check(definition: &configs::Definition, given: &Given) -> Result<(), ConfigError> {
    definition.validate(&given.text()).map_err(|error| ConfigError::Refused {
        name: definition.name.to_owned(),
        value: given.text(),
        origin: given.origin.clone(),
        reason: error.reason,
    })
}
