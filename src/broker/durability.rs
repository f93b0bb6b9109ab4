//! Which promises this broker can keep with this Redis: asked at the start, before anything is promised.

use crate::{
    log::durability::{Level, Promise, Unkept},
    storage::redis::durability::Standing,
    topics::{
        Catalog,
        configs::{self, Layers, Values},
        settings::StaticSettings,
    },
};

/// The settings with the default of `weir.durability` that suits the server, where none was given: what it keeps without being
/// waited for, but no more than Kafka itself promises.
pub(super) fn with_default_level(mut settings: StaticSettings, standings: &[Standing]) -> StaticSettings {
    if standings.iter().all(|standing| standing.holds_at_once(Level::Written.into())) {
        settings.broker.entry("weir.durability".to_owned()).or_insert_with(|| Level::Written.to_string());
    }
    settings
}

/// Checks what the settings promise. Returns what the operator should know, a sentence each.
///
/// # Errors
/// The first promise that can't be kept as the server is set up, with the remedy. Replicas that are missing are no error: they
/// may be back before anybody writes, and until then who can do without is served.
///
/// `promotable`: replicas that Sentinels may promote, also those that are not connected now.
pub(super) fn check(settings: &StaticSettings, standings: &[Standing], promotable: u16) -> Result<Vec<String>, String> {
    let layers = Layers { fixed: settings.broker.clone(), ..Layers::default() };
    let level = configs::promise(&Values::new(), &Values::new(), &layers);
    let mut promises = vec![
        ("weir.durability.floor".to_owned(), configs::floor(&layers)),
        ("the default of weir.durability".to_owned(), level),
    ];
    promises.extend(settings.patterns.iter().map(|pattern| {
        let promise = configs::promise(&Values::new(), &pattern.configs, &layers);
        (format!("weir.durability of topics named {}", pattern.pattern), promise)
    }));
    let mut notes: Vec<String> = Vec::new();
    for (setting, promise) in promises {
        for standing in standings {
            let note = match standing.check(promise) {
                Ok(()) => None,
                Err(Unkept::Impossible(reason)) => return Err(format!("{setting} can't be kept: {reason}")),
                Err(unkept) => Some(format!(
                    "{setting} can't be kept yet ({unkept}): acks=all is answered with NOT_ENOUGH_REPLICAS until they are there"
                )),
            };
            let found = note.into_iter().chain(uncovered(&setting, promise, standing.replicas.max(promotable)));
            for note in found {
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
        }
    }
    Ok(notes)
}

/// A failover may promote a replica that was not waited for.
fn uncovered(setting: &str, promise: Promise, replicas: u16) -> Option<String> {
    (promise.replicas > 0 && promise.replicas < replicas).then(|| {
        format!(
            "{setting} waits for {} of {replicas} replicas: a failover to one of the others loses what acks=all has acknowledged; wait \
             for all that could be promoted",
            promise.replicas
        )
    })
}

/// What topics that are there already promise and this server does not keep.
pub(super) fn check_topics(topics: &Catalog, standings: &[Standing]) -> Option<String> {
    let snapshot = topics.snapshot();
    let unkept = |promise| {
        standings.iter().find_map(|standing| match standing.check(promise) {
            Err(Unkept::Impossible(reason)) => Some(reason),
            _ => None,
        })
    };
    let mut found = snapshot.topics().filter_map(|topic| Some((topic, unkept(topic.log_config.promise)?)));
    let (first, reason) = found.next()?;
    let others = found.count();
    Some(format!(
        "topic {} and {others} others promise what this Redis can't keep, so acks=all is refused there: {reason}",
        first.name
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::topics::settings::PatternDefaults;

    fn standing(appendfsync: Option<&str>, aof: &str, replicas: usize) -> Standing {
        let mut info = HashMap::from([("aof_enabled".to_owned(), aof.to_owned())]);
        for index in 0..replicas {
            info.insert(format!("slave{index}"), "state=online,lag=0".to_owned());
        }
        Standing::of(&info, appendfsync, false)
    }

    fn settings(level: &str, floor: &str, pattern: &str) -> StaticSettings {
        let value = |name: &str, value: &str| Values::from([(name.to_owned(), value.to_owned())]);
        let mut broker = value("weir.durability", level);
        broker.extend(value("weir.durability.floor", floor));
        let pattern = PatternDefaults { pattern: "x-*".to_owned(), configs: value("weir.durability", pattern) };
        StaticSettings::new(broker, vec![pattern]).expect("legal")
    }

    #[test]
    fn the_default_is_what_the_server_keeps_without_being_waited_for() {
        let given = |settings: StaticSettings| settings.broker.get("weir.durability").cloned();
        let none = StaticSettings::default;
        assert_eq!(given(with_default_level(none(), &[standing(Some("no"), "1", 0)])).as_deref(), Some("written"));
        assert_eq!(given(with_default_level(none(), &[standing(Some("everysec"), "1", 0)])), None);
        assert_eq!(given(with_default_level(none(), &[standing(Some("no"), "0", 0)])), None);
        let fsync = settings("fsync", "memory", "memory");
        assert_eq!(given(with_default_level(fsync, &[standing(Some("no"), "1", 0)])).as_deref(), Some("fsync"));
    }

    #[test]
    fn a_setting_that_promises_too_much_is_refused_by_name() {
        let server = [standing(Some("no"), "1", 0)];
        assert_eq!(check(&settings("written", "memory", "memory"), &server, 0), Ok(Vec::new()));
        for (level, floor, pattern, named) in [
            ("fsync", "memory", "memory", "the default of weir.durability can't be kept"),
            ("memory", "fsync", "memory", "weir.durability.floor can't be kept"),
            ("memory", "memory", "fsync", "weir.durability of topics named x-* can't be kept"),
        ] {
            let refused = check(&settings(level, floor, pattern), &server, 0).expect_err("too much");
            assert!(refused.starts_with(named) && refused.contains("appendfsync always"), "{refused}");
        }
    }

    #[test]
    fn replicas_that_are_missing_or_not_waited_for_are_told() {
        let replicated = settings("replicas:1", "memory", "memory");
        let notes = check(&replicated, &[standing(None, "0", 0)], 0).expect("a note");
        assert!(notes.iter().any(|note| note.contains("0 of 1 replicas are connected")), "{notes:?}");
        let notes = check(&replicated, &[standing(None, "0", 2)], 0).expect("a note");
        assert!(notes.iter().any(|note| note.contains("waits for 1 of 2 replicas")), "{notes:?}");
        let notes = check(&replicated, &[standing(None, "0", 1)], 3).expect("a note");
        assert!(notes.iter().any(|note| note.contains("waits for 1 of 3 replicas")), "{notes:?}");
    }
}
