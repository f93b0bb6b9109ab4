//! What a request to change configs makes of what is set now: pure, with Kafka's rules and words.

use std::collections::HashSet;

use super::{Definition, Kind, Values, list_items};

/// What is done to one config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Set,
    Delete,
    Append,
    Subtract,
}

impl Operation {
    /// The number on the wire (KIP-339).
    pub fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Set),
            1 => Some(Self::Delete),
            2 => Some(Self::Append),
            3 => Some(Self::Subtract),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Set => "SET",
            Self::Delete => "DELETE",
            Self::Append => "APPEND",
            Self::Subtract => "SUBTRACT",
        }
    }
}

/// One change of one config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    pub name: String,
    pub operation: Operation,
    pub value: Option<String>,
}

/// Why configs are not changed. The text is Kafka's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AlterRefusal {
    /// The request makes no sense.
    #[error("{0}")]
    Request(String),
    /// A config or its value is not taken.
    #[error("{0}")]
    Config(String),
}

/// Whose configs, as far as the words of refusals depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wording {
    Broker,
    Other,
}

/// What the changes make of `current`; nothing is checked but that they can be done.
///
/// # Errors
/// A config is named twice, a value is missing, or what is not a list is appended to.
pub fn incremental(
    current: &Values,
    changes: &[ConfigChange],
    definition: impl Fn(&str) -> Option<&'static Definition>,
    wording: Wording,
) -> Result<Values, AlterRefusal> {
    let mut seen = HashSet::new();
    if !changes.iter().all(|change| seen.insert(change.name.as_str())) {
        return Err(AlterRefusal::Request("Error due to duplicate config keys".to_owned()));
    }
    refuse_null(
        changes
            .iter()
            .filter(|change| change.operation != Operation::Delete && change.value.is_none())
            .map(|change| change.name.as_str()),
    )?;
    let mut values = current.clone();
    for ConfigChange { name, operation, value } in changes {
        let value = value.as_deref().unwrap_or_default();
        match operation {
            Operation::Set => {
                values.insert(name.clone(), value.to_owned());
            }
            Operation::Delete => {
                values.remove(name);
            }
            Operation::Append | Operation::Subtract => {
                let known = definition(name);
                if known.is_none_or(|definition| definition.kind != Kind::List) {
                    return Err(AlterRefusal::Config(match (wording, known) {
                        (Wording::Other, _) => {
                            format!("Can't {} to key {name} because its type is not LIST.", operation.name())
                        }
                        (Wording::Broker, None) => format!("Unknown config name: {name}"),
                        (Wording::Broker, Some(_)) => format!(
                            "Config value {} is not allowed for config key: {name}",
                            operation.name().to_ascii_lowercase()
                        ),
                    }));
                }
                let default = known.and_then(|definition| definition.default).unwrap_or_default();
                let before = current.get(name).map_or(default, String::as_str);
                let named: Vec<&str> = list_items(value).collect();
                let after: Vec<&str> = match operation {
                    Operation::Append => {
                        let mut items: Vec<&str> = list_items(before).collect();
                        for item in named {
                            if !items.contains(&item) {
                                items.push(item);
                            }
                        }
                        items
                    }
                    _ => list_items(before).filter(|item| !named.contains(item)).collect(),
                };
                values.insert(name.clone(), after.join(","));
            }
        }
    }
    Ok(values)
}

/// The configs that replace all that was set.
///
/// # Errors
/// A config is named twice, or a value is missing.
pub fn replacing<'a>(
    configs: impl Iterator<Item = (&'a str, Option<&'a str>)> + Clone,
) -> Result<Values, AlterRefusal> {
    let mut seen = HashSet::new();
    if !configs.clone().all(|(name, _)| seen.insert(name)) {
        return Err(AlterRefusal::Request("Error due to duplicate config keys".to_owned()));
    }
    refuse_null(configs.clone().filter(|(_, value)| value.is_none()).map(|(name, _)| name))?;
    Ok(configs.map(|(name, value)| (name.to_owned(), value.unwrap_or_default().to_owned())).collect())
}

fn refuse_null<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), AlterRefusal> {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(AlterRefusal::Request(format!("Null value not supported for : {}", names.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::{super::topic_definition, *};

    fn change(name: &str, operation: Operation, value: Option<&str>) -> ConfigChange {
        ConfigChange { name: name.to_owned(), operation, value: value.map(str::to_owned) }
    }

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn altered(current: &[(&str, &str)], changes: &[ConfigChange]) -> Result<Values, AlterRefusal> {
        incremental(&values(current), changes, topic_definition, Wording::Other)
    }

    #[test]
    fn set_and_delete_leave_the_others_alone() {
        let changes =
            [change("retention.ms", Operation::Set, Some("5")), change("retention.bytes", Operation::Delete, None)];
        let after = altered(&[("retention.bytes", "1"), ("flush.ms", "2")], &changes);
        assert_eq!(after, Ok(values(&[("flush.ms", "2"), ("retention.ms", "5")])));
    }

    #[test]
    fn append_starts_from_the_default_and_adds_nothing_twice() {
        let append = [change("cleanup.policy", Operation::Append, Some("compact"))];
        let once = altered(&[], &append).expect("a list");
        assert_eq!(once, values(&[("cleanup.policy", "delete,compact")]));
        assert_eq!(incremental(&once, &append, topic_definition, Wording::Other), Ok(once.clone()));
        let subtract = [change("cleanup.policy", Operation::Subtract, Some("delete,compact"))];
        assert_eq!(
            incremental(&once, &subtract, topic_definition, Wording::Other),
            Ok(values(&[("cleanup.policy", "")]))
        );
    }

    #[test]
    fn what_is_not_a_list_takes_no_append() {
        let append = [change("retention.ms", Operation::Append, Some("1"))];
        assert_eq!(
            altered(&[], &append).map_err(|error| error.to_string()),
            Err("Can't APPEND to key retention.ms because its type is not LIST.".to_owned())
        );
        let refused = incremental(&Values::new(), &append, topic_definition, Wording::Broker);
        assert_eq!(
            refused.map_err(|error| error.to_string()),
            Err("Config value append is not allowed for config key: retention.ms".to_owned())
        );
    }

    #[test]
    fn a_config_named_twice_and_missing_values_are_refused() {
        let twice = [change("a", Operation::Set, None), change("a", Operation::Set, None)];
        assert_eq!(altered(&[], &twice), Err(AlterRefusal::Request("Error due to duplicate config keys".to_owned())));
        let null = [change("a", Operation::Set, None), change("b", Operation::Append, None)];
        assert_eq!(altered(&[], &null), Err(AlterRefusal::Request("Null value not supported for : a, b".to_owned())));
        assert!(replacing([("a", Some("1")), ("a", Some("2"))].into_iter()).is_err());
        assert_eq!(replacing([("a", Some("1"))].into_iter()), Ok(values(&[("a", "1")])));
    }
}
