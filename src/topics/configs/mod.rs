//! What can be configured: one table per kind of resource, with types, defaults, checks and documentation.
//!
//! The tables are an interface. `docs/configuration.md` and the list of configs without effect in
//! `docs/not-supported.md` are checked against them.

pub mod alter;
mod broker;
mod broker_coordinator;
mod broker_log;
mod check;
mod client_metrics;
mod group;
mod layers;
mod log_config;
mod topic;

pub use check::{InvalidValue, list_items};
pub use client_metrics::{CLIENT_METRICS, InvalidClientMetrics, validate_client_metrics};
pub use group::{GROUP, validate_group};
pub use layers::{Layers, Resolved, Source, SynonymValue, Values};
pub use log_config::{InvalidTopicConfig, floor, log_config, promise, validate_log_defaults, validate_topic};
pub use topic::TOPIC;

/// The type of a config's value, as DescribeConfigs names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    String,
    Int,
    Long,
    Double,
    List,
}

impl Kind {
    /// `ConfigType` of DescribeConfigs.
    pub fn code(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::String => 2,
            Kind::Int => 3,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
        }
    }

    /// As `ConfigDef.Type` spells it in error messages and documentation.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "BOOLEAN",
            Kind::String => "STRING",
            Kind::Int => "INT",
            Kind::Long => "LONG",
            Kind::Double => "DOUBLE",
            Kind::List => "LIST",
        }
    }
}

/// Which values of the type are legal.
#[derive(Clone, Copy, Debug)]
pub enum Check {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// The default codec level or one in the range (KIP-390).
    Level {
        default: i64,
        least: i64,
        most: i64,
    },
    /// Inclusive bounds of a [`Kind::Double`].
    Ratio,
    OneOf(&'static [&'static str]),
    ListOf(&'static [&'static str]),
    /// `*`, or a list of `partition:broker`.
    ThrottledReplicas,
    /// A level of `weir.durability`.
    Durability,
    /// `earliest`, `latest` or `by_duration:<ISO 8601 duration>` (KIP-932).
    OffsetReset,
}

/// When a broker config may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// At start only.
    ReadOnly,
    /// At any time, for one broker or for all.
    Dynamic,
}

/// What a config does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What Kafka's documentation says.
    Full,
    /// It is known, checked, stored and described, and does nothing; the text says why.
    None(&'static str),
}

/// How a broker config's value becomes the topic config's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Same,
    Minutes,
    Hours,
}

/// One row of a table.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    pub name: &'static str,
    pub kind: Kind,
    /// `None` where Kafka's default is null.
    pub default: Option<&'static str>,
    pub check: Check,
    pub update: Update,
    pub effect: Effect,
    /// The broker configs that give a topic's or group's config its default, the strongest first.
    pub broker_names: &'static [(&'static str, Unit)],
    /// How the default differs from Apache Kafka's, if it does.
    pub kafka_default: Option<&'static str>,
    /// One sentence, in our own words.
    pub documentation: &'static str,
}

impl Definition {
    const fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        check: Check,
        documentation: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            default: Some(default),
            check,
            update: Update::ReadOnly,
            effect: Effect::Full,
            broker_names: &[],
            kafka_default: None,
            documentation,
        }
    }

    const fn unset(name: &'static str, kind: Kind, check: Check, documentation: &'static str) -> Self {
        let mut definition = Self::new(name, kind, "", check, documentation);
        definition.default = None;
        definition
    }

    const fn dynamic(mut self) -> Self {
        self.update = Update::Dynamic;
        self
    }

    const fn no_effect(mut self, why: &'static str) -> Self {
        self.effect = Effect::None(why);
        self
    }

    const fn given_by(mut self, names: &'static [(&'static str, Unit)]) -> Self {
        self.broker_names = names;
        self
    }

    const fn kafka_default(mut self, default: &'static str) -> Self {
        self.kafka_default = Some(default);
        self
    }

    /// The first broker config that gives this one its default: the one whose synonyms DescribeConfigs lists.
    pub fn broker_name(&self) -> Option<&'static str> {
        self.broker_names.first().map(|(name, _)| *name)
    }
}

/// Every broker config, by name.
pub fn broker() -> impl Iterator<Item = &'static Definition> {
    broker::BROKER.iter().chain(broker_log::BROKER_LOG).chain(broker_coordinator::BROKER_COORDINATOR)
}

/// The row of `name` in a table.
pub fn find(mut table: impl Iterator<Item = &'static Definition>, name: &str) -> Option<&'static Definition> {
    table.find(|definition| definition.name == name)
}

pub fn topic_definition(name: &str) -> Option<&'static Definition> {
    find(TOPIC.iter(), name)
}

/// Whether a broker config gives a topic's config its default.
pub fn is_log_default(name: &str) -> bool {
    TOPIC.iter().any(|definition| definition.broker_names.iter().any(|(given_by, _)| *given_by == name))
}

pub fn broker_definition(name: &str) -> Option<&'static Definition> {
    find(broker(), name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all() -> impl Iterator<Item = &'static Definition> {
        TOPIC.iter().chain(broker()).chain(GROUP).chain(CLIENT_METRICS)
    }

    #[test]
    fn every_default_passes_its_own_check() {
        for definition in all() {
            if let Some(default) = definition.default {
                assert_eq!(definition.validate(default), Ok(()), "{}", definition.name);
            }
        }
    }

    #[test]
    fn every_name_is_defined_once() {
        for table in [TOPIC.iter().collect::<Vec<_>>(), broker().collect(), GROUP.iter().collect()] {
            let mut seen = HashSet::new();
            assert!(table.iter().all(|definition| seen.insert(definition.name)));
        }
    }

    #[test]
    fn every_synonym_is_a_broker_config_of_the_same_default() {
        for definition in TOPIC.iter().chain(GROUP) {
            let mut given = None;
            for (name, unit) in definition.broker_names {
                let broker = broker_definition(name).unwrap_or_else(|| panic!("{name} is not defined"));
                given = given.or_else(|| broker.default.and_then(|default| layers::convert(default, *unit)));
            }
            if !definition.broker_names.is_empty() {
                assert_eq!(given.as_deref(), definition.default, "{}", definition.name);
            }
        }
    }
}
