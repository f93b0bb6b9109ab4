//! The topics in a consumer's metadata: the one opaque blob that the coordinator looks into.

use std::collections::BTreeSet;

/// Reads ConsumerProtocolSubscription as of version 0, the prefix of every later version; `None` if it is malformed.
pub(super) fn topics(metadata: &[u8]) -> Option<BTreeSet<String>> {
    let mut rest = metadata;
    let version = i16::from_be_bytes(take(&mut rest)?);
    if version < 0 {
        return None;
    }
    let count = u32::try_from(i32::from_be_bytes(take(&mut rest)?)).ok()?;
    let mut topics = BTreeSet::new();
    for _ in 0..count {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        topics.insert(std::str::from_utf8(name).ok()?.to_owned());
        rest = after;
    }
    // The user data, null or as long as it says.
    let length = i32::from_be_bytes(take(&mut rest)?);
    (length == -1 || usize::try_from(length).is_ok_and(|length| length <= rest.len())).then_some(topics)
}

/// No bytes panic, and a subscription names at most what its bytes have room for.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzzed(metadata: &[u8]) {
    let named: usize = topics(metadata).into_iter().flatten().map(|name| name.len() + 2).sum();
    assert!(named <= metadata.len());
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::topics;

    /// A subscription as the Java client writes it.
    fn subscription(version: i16, names: &[&str], user_data: Option<&[u8]>) -> Vec<u8> {
        let mut out = version.to_be_bytes().to_vec();
        out.extend(i32::try_from(names.len()).expect("few").to_be_bytes());
        for name in names {
            out.extend(i16::try_from(name.len()).expect("short").to_be_bytes());
            out.extend(name.as_bytes());
        }
        match user_data {
            None => out.extend((-1i32).to_be_bytes()),
            Some(data) => {
                out.extend(i32::try_from(data.len()).expect("short").to_be_bytes());
                out.extend(data);
            }
        }
        out
    }

    #[test]
    fn the_topics_of_every_version_are_read() {
        for version in [0, 1, 3, 99] {
            for user_data in [None, Some(&b"xyz"[..])] {
                let mut bytes = subscription(version, &["a", "b", "a"], user_data);
                bytes.extend(b"what later versions add");
                let names = topics(&bytes).expect("well-formed");
                assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "b"]);
            }
        }
    }

    #[test]
    fn a_malformed_subscription_has_no_topics() {
        let whole = subscription(0, &["orders"], None);
        for end in 0..whole.len() {
            assert_eq!(topics(&whole[..end]), None, "cut at {end}");
        }
        assert_eq!(topics(&subscription(-1, &["orders"], None)), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = topics(&bytes);
        }
    }
}
