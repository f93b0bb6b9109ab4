//! What a topic may be called.

/// Why a name is refused. The text is Kafka's.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidName<'a> {
    #[error("Topic name is invalid: the empty string is not allowed")]
    Empty,
    #[error("Topic name is invalid: '{0}' is not allowed")]
    Dots(&'a str),
    #[error("Topic name is invalid: the length of '{0}' is longer than the max allowed length {MAX_LENGTH}")]
    TooLong(&'a str),
    #[error(
        "Topic name is invalid: '{0}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    )]
    Characters(&'a str),
}

pub const MAX_LENGTH: usize = 249;

/// Names of Kafka's own topics. Weir keeps that state elsewhere: they count as existing and are never listed.
const RESERVED: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// # Errors
/// With Kafka's words.
pub fn validate(name: &str) -> Result<(), InvalidName<'_>> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    match name {
        "" => Err(InvalidName::Empty),
        "." | ".." => Err(InvalidName::Dots(name)),
        // Kafka counts UTF-16 units.
        _ if name.encode_utf16().count() > MAX_LENGTH => Err(InvalidName::TooLong(name)),
        _ if !name.bytes().all(legal) => Err(InvalidName::Characters(name)),
        _ => Ok(()),
    }
}

pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// Two names of the same key can't both be topics: Kafka's metric names can't tell `.` from `_`.
pub fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn illegal_names_are_refused_with_kafkas_words() {
        let told = |name: &str| validate(name).err().map(|error| error.to_string());
        assert_eq!(told("").as_deref(), Some("Topic name is invalid: the empty string is not allowed"));
        assert_eq!(told(".").as_deref(), Some("Topic name is invalid: '.' is not allowed"));
        assert_eq!(told("..").as_deref(), Some("Topic name is invalid: '..' is not allowed"));
        assert_eq!(
            told("a b").as_deref(),
            Some(
                "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' \
                 and '-'"
            )
        );
        assert!(told(&"a".repeat(250)).is_some_and(|text| text.ends_with("is longer than the max allowed length 249")));
        assert_eq!(told(&"a".repeat(249)), None);
        assert_eq!(told("Az09._-"), None);
        assert_eq!(told("..."), None);
    }

    #[test]
    fn dots_and_underscores_collide() {
        assert_eq!(collision_key("a.b_c"), collision_key("a_b.c"));
        assert_ne!(collision_key("a.b"), collision_key("a-b"));
    }
}
