//! Where a value comes from: the layers of a config, strongest first, and its synonyms as DescribeConfigs lists them.

use std::collections::BTreeMap;

use super::{Definition, Unit, broker_definition};

/// Names to values as given.
pub type Values = BTreeMap<String, String>;

/// Whose value it is (`ConfigSource` of DescribeConfigs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Topic,
    DynamicBroker,
    DynamicDefaultBroker,
    StaticBroker,
    Default,
    ClientMetrics,
    Group,
}

impl Source {
    /// The number on the wire.
    pub fn code(self) -> i8 {
        match self {
            Source::Topic => 1,
            Source::DynamicBroker => 2,
            Source::DynamicDefaultBroker => 3,
            Source::StaticBroker => 4,
            Source::Default => 5,
            Source::ClientMetrics => 7,
            Source::Group => 8,
        }
    }
}

/// One of the values that a config could have; the first is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynonymValue {
    pub name: String,
    pub value: String,
    pub source: Source,
}

/// A config's value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// `None` where nothing is set and there is no default.
    pub value: Option<String>,
    pub source: Source,
    /// Strongest first.
    pub synonyms: Vec<SynonymValue>,
}

/// The broker's values in layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// Set at run time for this broker.
    pub dynamic: Values,
    /// Set at run time for all brokers.
    pub cluster: Values,
    /// Given at start.
    pub fixed: Values,
}

impl Layers {
    fn named(&self, definition: &Definition) -> Vec<SynonymValue> {
        let name = definition.name;
        let layers = [
            (Source::DynamicBroker, self.dynamic.get(name).map(String::as_str)),
            (Source::DynamicDefaultBroker, self.cluster.get(name).map(String::as_str)),
            (Source::StaticBroker, self.fixed.get(name).map(String::as_str)),
            (Source::Default, definition.default),
        ];
        layers
            .into_iter()
            .filter_map(|(source, value)| {
                Some(SynonymValue { name: name.to_owned(), value: definition.normalized(value?), source })
            })
            .collect()
    }

    /// A broker config.
    pub fn resolve(&self, definition: &Definition) -> Resolved {
        let synonyms = self.named(definition);
        let (value, source) =
            synonyms.first().map_or((None, Source::Default), |first| (Some(first.value.clone()), first.source));
        Resolved { value, source, synonyms }
    }

    /// A topic's or a group's config: its own value, the default for names like its own, then the broker's.
    pub fn resolve_for(&self, definition: &Definition, own: Option<(&str, Source)>, pattern: Option<&str>) -> Resolved {
        let mut synonyms = Vec::new();
        let mut add = |value: Option<&str>, source| {
            if let Some(value) = value {
                let value = definition.normalized(value);
                synonyms.push(SynonymValue { name: definition.name.to_owned(), value, source });
            }
        };
        add(own.map(|(value, _)| value), own.map_or(Source::Topic, |(_, source)| source));
        add(pattern, Source::StaticBroker);
        // As Kafka lists them: those of the first broker name only (retention.ms has none while only
        // log.retention.hours is set).
        let broker = definition.broker_name().and_then(broker_definition);
        synonyms.extend(broker.into_iter().flat_map(|broker| self.named(broker)));
        let source = synonyms.first().map_or(Source::Default, |first| first.source);
        let value = own
            .map(|(value, _)| value)
            .or(pattern)
            .map(|value| definition.normalized(value))
            .or_else(|| self.inherited(definition));
        Resolved { value, source, synonyms }
    }

    /// What the broker's configs make of a topic's or group's config.
    fn inherited(&self, definition: &Definition) -> Option<String> {
        definition
            .broker_names
            .iter()
            .find_map(|(name, unit)| {
                let value = self.resolve(broker_definition(name)?).value?;
                convert(&value, *unit)
            })
            .or_else(|| definition.default.map(str::to_owned))
    }
}

/// A broker config's value in the topic config's unit; a negative time is no limit.
pub(super) fn convert(value: &str, unit: Unit) -> Option<String> {
    let factor = match unit {
        Unit::Same => return Some(value.to_owned()),
        Unit::Minutes => 60_000,
        Unit::Hours => 3_600_000,
    };
    let amount: i64 = value.trim().parse().ok()?;
    Some(if amount < 0 { -1 } else { amount.saturating_mul(factor) }.to_string())
}

#[cfg(test)]
mod tests {
    use super::{super::topic_definition, *};

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn retention(layers: &Layers, own: Option<&str>, pattern: Option<&str>) -> (Option<String>, Source) {
        let definition = topic_definition("retention.ms").expect("a topic config");
        let resolved = layers.resolve_for(definition, own.map(|own| (own, Source::Topic)), pattern);
        (resolved.value, resolved.source)
    }

    #[test]
    fn the_strongest_layer_wins() {
        let mut layers = Layers::default();
        assert_eq!(retention(&layers, None, None), (Some("604800000".to_owned()), Source::Default));
        layers.fixed = values(&[("log.retention.ms", "4")]);
        assert_eq!(retention(&layers, None, None), (Some("4".to_owned()), Source::StaticBroker));
        layers.cluster = values(&[("log.retention.ms", "3")]);
        assert_eq!(retention(&layers, None, None), (Some("3".to_owned()), Source::DynamicDefaultBroker));
        layers.dynamic = values(&[("log.retention.ms", "2")]);
        assert_eq!(retention(&layers, None, None), (Some("2".to_owned()), Source::DynamicBroker));
        assert_eq!(retention(&layers, None, Some("1")), (Some("1".to_owned()), Source::StaticBroker));
        assert_eq!(retention(&layers, Some("0"), Some("1")), (Some("0".to_owned()), Source::Topic));
    }

    #[test]
    fn milliseconds_are_stronger_than_minutes_and_these_than_hours() {
        let mut layers = Layers { fixed: values(&[("log.retention.hours", "2")]), ..Layers::default() };
        assert_eq!(retention(&layers, None, None).0.as_deref(), Some("7200000"));
        layers.fixed.insert("log.retention.minutes".to_owned(), "1".to_owned());
        assert_eq!(retention(&layers, None, None).0.as_deref(), Some("60000"));
        layers.cluster.insert("log.retention.ms".to_owned(), "7".to_owned());
        assert_eq!(retention(&layers, None, None).0.as_deref(), Some("7"));
        layers = Layers { fixed: values(&[("log.retention.hours", "-1")]), ..Layers::default() };
        assert_eq!(retention(&layers, None, None).0.as_deref(), Some("-1"));
    }

    #[test]
    fn synonyms_are_listed_from_the_strongest_on() {
        let layers = Layers {
            dynamic: values(&[("message.max.bytes", "2")]),
            fixed: values(&[("message.max.bytes", "3")]),
            ..Layers::default()
        };
        let definition = topic_definition("max.message.bytes").expect("a topic config");
        let resolved = layers.resolve_for(definition, Some(("1", Source::Topic)), None);
        let listed: Vec<_> = resolved.synonyms.iter().map(|s| (s.name.as_str(), s.value.as_str(), s.source)).collect();
        assert_eq!(
            listed,
            [
                ("max.message.bytes", "1", Source::Topic),
                ("message.max.bytes", "2", Source::DynamicBroker),
                ("message.max.bytes", "3", Source::StaticBroker),
                ("message.max.bytes", "1048588", Source::Default),
            ]
        );
    }
}
