//! A value's text against its definition, with Kafka's messages.

use super::{Check, Definition, Kind};
use crate::log::durability::Level;

/// A value that its config does not take. The text is Kafka's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("Invalid value {value} for configuration {name}: {reason}")]
pub struct InvalidValue {
    pub name: String,
    pub value: String,
    pub reason: String,
}

/// The items of a list's text; an empty text is an empty list.
pub fn list_items(text: &str) -> impl Iterator<Item = &str> {
    let trimmed = text.trim();
    trimmed.split(',').map(str::trim).filter(move |_| !trimmed.is_empty())
}

impl Definition {
    /// # Errors
    /// The value is of another type or out of bounds.
    pub fn validate(&self, text: &str) -> Result<(), InvalidValue> {
        // A list is judged item by item, and the message names the item.
        let fault = |value: &str, reason: String| {
            Err(InvalidValue { name: self.name.to_owned(), value: value.to_owned(), reason })
        };
        let trimmed = text.trim();
        let whole = match self.kind {
            Kind::Boolean if trimmed.eq_ignore_ascii_case("true") || trimmed.eq_ignore_ascii_case("false") => None,
            Kind::Boolean => return fault(text, "Expected value to be either true or false".to_owned()),
            Kind::Int => match trimmed.parse::<i32>() {
                Ok(number) => Some(i64::from(number)),
                Err(_) => return fault(text, not_a_number(self.kind)),
            },
            Kind::Long => match trimmed.parse::<i64>() {
                Ok(number) => Some(number),
                Err(_) => return fault(text, not_a_number(self.kind)),
            },
            Kind::Double => match trimmed.parse::<f64>() {
                Ok(number) if matches!(self.check, Check::Ratio) => {
                    return match number {
                        _ if number < 0.0 => fault(&format!("{number:?}"), "Value must be at least 0".to_owned()),
                        _ if number > 1.0 || number.is_nan() => {
                            fault(&format!("{number:?}"), "Value must be no more than 1".to_owned())
                        }
                        _ => Ok(()),
                    };
                }
                Ok(_) => return Ok(()),
                Err(_) => return fault(text, not_a_number(self.kind)),
            },
            Kind::String | Kind::List => None,
        };
        match self.check {
            Check::Any | Check::Ratio => Ok(()),
            Check::AtLeast(least) => match whole {
                Some(number) if number < least => fault(trimmed, format!("Value must be at least {least}")),
                _ => Ok(()),
            },
            Check::Between(least, most) => match whole {
                Some(number) if number < least => fault(trimmed, format!("Value must be at least {least}")),
                Some(number) if number > most => fault(trimmed, format!("Value must be no more than {most}")),
                _ => Ok(()),
            },
            Check::Level { default, least, most } => match whole {
                Some(number) if number != default && !(least..=most).contains(&number) => {
                    fault(trimmed, format!("Value must be between {least} and {most} or equal to {default}"))
                }
                _ => Ok(()),
            },
            Check::OneOf(allowed) if allowed.contains(&trimmed) => Ok(()),
            Check::OneOf(allowed) => fault(trimmed, format!("String must be one of: {}", allowed.join(", "))),
            Check::ListOf(allowed) => match list_items(text).find(|item| !allowed.contains(item)) {
                Some(item) => fault(item, format!("String must be one of: {}", allowed.join(", "))),
                None => Ok(()),
            },
            Check::ThrottledReplicas if trimmed == "*" || list_items(text).all(is_replica) => Ok(()),
            Check::ThrottledReplicas => fault(
                &format!("[{}]", list_items(text).collect::<Vec<_>>().join(", ")),
                format!(
                    "{} must be the literal '*' or a list of replicas in the following format: \
                     [partitionId]:[brokerId],[partitionId]:[brokerId],...",
                    self.name
                ),
            ),
            Check::Durability => match trimmed.parse::<Level>() {
                Ok(_) => Ok(()),
                Err(error) => fault(trimmed, format!("It {error}")),
            },
            Check::OffsetReset if matches!(trimmed, "earliest" | "latest") || is_duration_reset(trimmed) => Ok(()),
            Check::OffsetReset => fault(
                trimmed,
                format!(
                    "Invalid value `{trimmed}` for configuration {}. The value must be either 'earliest', 'latest' or \
                     of the format 'by_duration:<PnDTnHnMn.nS>'.",
                    self.name
                ),
            ),
        }
    }

    /// The value as DescribeConfigs shows it: parsed and written again.
    pub fn normalized(&self, text: &str) -> String {
        let trimmed = text.trim();
        match self.kind {
            Kind::Boolean => trimmed.to_ascii_lowercase(),
            Kind::List => list_items(text).collect::<Vec<_>>().join(","),
            Kind::Int | Kind::Long => trimmed.parse::<i64>().map_or_else(|_| trimmed.to_owned(), |n| n.to_string()),
            Kind::Double => trimmed.parse::<f64>().map_or_else(|_| trimmed.to_owned(), |n| format!("{n:?}")),
            Kind::String => trimmed.to_owned(),
        }
    }
}

fn not_a_number(kind: Kind) -> String {
    format!("Not a number of type {}", kind.name())
}

fn is_replica(item: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    item.split_once(':').is_some_and(|(partition, broker)| digits(partition) && digits(broker))
}

/// `by_duration:` and `PnDTnHnMn.nS`, positive.
fn is_duration_reset(text: &str) -> bool {
    let Some(duration) = text.strip_prefix("by_duration:").and_then(|rest| rest.strip_prefix('P')) else {
        return false;
    };
    let (date, time) = duration.split_once('T').map_or((duration, None), |(date, time)| (date, Some(time)));
    let amounts = |text: &str, units: &str| {
        let mut left = units;
        let mut digits = 0;
        for letter in text.chars() {
            match letter {
                '0'..='9' | '.' => digits += 1,
                _ if digits == 0 => return false,
                _ => match left.find(letter) {
                    Some(at) => (left, digits) = (left.get(at + 1..).unwrap_or(""), 0),
                    None => return false,
                },
            }
        }
        digits == 0
    };
    (!date.is_empty() || time.is_some())
        && amounts(date, "D")
        && time.is_none_or(|time| !time.is_empty() && amounts(time, "HMS"))
}

#[cfg(test)]
mod tests {
    use super::super::{GROUP, broker_definition, find, topic_definition};

    fn told(name: &str, value: &str) -> Option<String> {
        let definition = topic_definition(name).expect("a topic config");
        definition.validate(value).err().map(|error| error.to_string())
    }

    #[test]
    fn numbers_are_trimmed_and_checked_with_kafkas_words() {
        assert_eq!(told("retention.ms", " 1000 "), None);
        assert_eq!(
            told("retention.ms", "abc").as_deref(),
            Some("Invalid value abc for configuration retention.ms: Not a number of type LONG")
        );
        assert_eq!(
            told("retention.ms", "-2").as_deref(),
            Some("Invalid value -2 for configuration retention.ms: Value must be at least -1")
        );
        assert!(told("max.message.bytes", "2147483648").is_some());
    }

    #[test]
    fn a_list_names_its_bad_item() {
        assert_eq!(
            told("cleanup.policy", "compact,foo").as_deref(),
            Some("Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete")
        );
        assert_eq!(told("cleanup.policy", " compact , delete "), None);
        assert_eq!(told("cleanup.policy", ""), None);
    }

    #[test]
    fn ratios_levels_and_replica_lists_are_bounded() {
        assert_eq!(told("min.cleanable.dirty.ratio", "0.5"), None);
        assert!(told("min.cleanable.dirty.ratio", "1.1").is_some());
        assert!(told("min.cleanable.dirty.ratio", "NaN").is_some());
        assert_eq!(told("compression.gzip.level", "-1"), None);
        assert!(told("compression.gzip.level", "0").is_some());
        assert_eq!(told("leader.replication.throttled.replicas", "0:1,1:2"), None);
        assert!(told("leader.replication.throttled.replicas", "0:,x").is_some());
    }

    #[test]
    fn an_offset_reset_may_be_a_duration() {
        let reset = find(GROUP.iter(), "share.auto.offset.reset").expect("a group config");
        for good in ["earliest", "latest", "by_duration:PT1H30M", "by_duration:P2D", "by_duration:P1DT0.5S"] {
            assert_eq!(reset.validate(good), Ok(()), "{good}");
        }
        for bad in ["", "none", "by_duration:", "by_duration:P", "by_duration:PT", "by_duration:P1H", "by_duration:PTH"]
        {
            assert!(reset.validate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn booleans_ignore_case_and_are_shown_in_lower_case() {
        let definition = broker_definition("auto.create.topics.enable").expect("a broker config");
        assert_eq!(definition.validate("TRUE"), Ok(()));
        assert_eq!(definition.normalized(" TRUE "), "true");
        assert!(definition.validate("yes").is_err());
    }
}
