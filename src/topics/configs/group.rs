//! Group configs (KIP-848, KIP-932, KIP-1071): known, checked and stored.

use super::{
    Check::{Any, AtLeast, OffsetReset, OneOf},
    Definition, InvalidTopicConfig, InvalidValue,
    Kind::{Boolean, Int, String},
    Layers,
    Unit::Same,
    Values,
    broker_coordinator::{NO_CONSUMER_PROTOCOL, NO_SHARE, NO_STREAMS},
    broker_definition, find,
};

const fn from(
    name: &'static str,
    broker: &'static [(&'static str, super::Unit)],
    default: &'static str,
    check: super::Check,
    documentation: &'static str,
) -> Definition {
    Definition::new(name, Int, default, check, documentation).dynamic().given_by(broker)
}

/// By name.
pub const GROUP: &[Definition] = &[
    from(
        "consumer.assignment.interval.ms",
        &[("group.consumer.assignment.interval.ms", Same)],
        "1000",
        AtLeast(0),
        "The shortest time between two assignments.",
    )
    .no_effect(NO_CONSUMER_PROTOCOL),
    from(
        "consumer.heartbeat.interval.ms",
        &[("group.consumer.heartbeat.interval.ms", Same)],
        "5000",
        AtLeast(1),
        "How often members send heartbeats.",
    )
    .no_effect(NO_CONSUMER_PROTOCOL),
    from(
        "consumer.session.timeout.ms",
        &[("group.consumer.session.timeout.ms", Same)],
        "45000",
        AtLeast(1),
        "How long a member may be silent.",
    )
    .no_effect(NO_CONSUMER_PROTOCOL),
    from(
        "share.assignment.interval.ms",
        &[("group.share.assignment.interval.ms", Same)],
        "1000",
        AtLeast(0),
        "The shortest time between two assignments.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "share.auto.offset.reset",
        String,
        "latest",
        OffsetReset,
        "Where a share group begins in a partition that it has not read.",
    )
    .dynamic()
    .no_effect(NO_SHARE),
    from(
        "share.delivery.count.limit",
        &[("group.share.delivery.count.limit", Same)],
        "5",
        AtLeast(2),
        "How often a record is given to consumers.",
    )
    .no_effect(NO_SHARE),
    from(
        "share.heartbeat.interval.ms",
        &[("group.share.heartbeat.interval.ms", Same)],
        "5000",
        AtLeast(1),
        "How often members send heartbeats.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "share.isolation.level",
        String,
        "read_uncommitted",
        OneOf(&["read_committed", "read_uncommitted"]),
        "Whether records of open transactions are given to consumers.",
    )
    .dynamic()
    .no_effect(NO_SHARE),
    from(
        "share.partition.max.record.locks",
        &[("group.share.partition.max.record.locks", Same)],
        "2000",
        AtLeast(100),
        "How many records of a partition may be locked.",
    )
    .no_effect(NO_SHARE),
    from(
        "share.record.lock.duration.ms",
        &[("group.share.record.lock.duration.ms", Same)],
        "30000",
        AtLeast(1000),
        "How long a record is locked for a consumer.",
    )
    .no_effect(NO_SHARE),
    Definition::new("share.renew.acknowledge.enable", Boolean, "true", Any, "Whether a lock may be renewed.")
        .dynamic()
        .no_effect(NO_SHARE),
    from(
        "share.session.timeout.ms",
        &[("group.share.session.timeout.ms", Same)],
        "45000",
        AtLeast(1),
        "How long a member may be silent.",
    )
    .no_effect(NO_SHARE),
    from(
        "streams.assignment.interval.ms",
        &[("group.streams.assignment.interval.ms", Same)],
        "1000",
        AtLeast(0),
        "The shortest time between two assignments.",
    )
    .no_effect(NO_STREAMS),
    from(
        "streams.heartbeat.interval.ms",
        &[("group.streams.heartbeat.interval.ms", Same)],
        "5000",
        AtLeast(1),
        "How often members send heartbeats.",
    )
    .no_effect(NO_STREAMS),
    from(
        "streams.initial.rebalance.delay.ms",
        &[("group.streams.initial.rebalance.delay.ms", Same)],
        "3000",
        AtLeast(0),
        "How long the first assignment waits for more members.",
    )
    .no_effect(NO_STREAMS),
    from(
        "streams.num.standby.replicas",
        &[("group.streams.num.standby.replicas", Same)],
        "0",
        AtLeast(0),
        "How many standby replicas each task has.",
    )
    .no_effect(NO_STREAMS),
    from(
        "streams.session.timeout.ms",
        &[("group.streams.session.timeout.ms", Same)],
        "45000",
        AtLeast(1),
        "How long a member may be silent.",
    )
    .no_effect(NO_STREAMS),
];

/// The broker configs that bound a group config: the least and the most.
const BOUNDS: &[(&str, Option<&str>, Option<&str>)] = &[
    bounds(
        "consumer.assignment.interval.ms",
        "group.consumer.min.assignment.interval.ms",
        "group.consumer.max.assignment.interval.ms",
    ),
    bounds(
        "consumer.heartbeat.interval.ms",
        "group.consumer.min.heartbeat.interval.ms",
        "group.consumer.max.heartbeat.interval.ms",
    ),
    bounds(
        "consumer.session.timeout.ms",
        "group.consumer.min.session.timeout.ms",
        "group.consumer.max.session.timeout.ms",
    ),
    bounds(
        "share.assignment.interval.ms",
        "group.share.min.assignment.interval.ms",
        "group.share.max.assignment.interval.ms",
    ),
    bounds(
        "share.delivery.count.limit",
        "group.share.min.delivery.count.limit",
        "group.share.max.delivery.count.limit",
    ),
    bounds(
        "share.heartbeat.interval.ms",
        "group.share.min.heartbeat.interval.ms",
        "group.share.max.heartbeat.interval.ms",
    ),
    bounds(
        "share.partition.max.record.locks",
        "group.share.min.partition.max.record.locks",
        "group.share.max.partition.max.record.locks",
    ),
    bounds(
        "share.record.lock.duration.ms",
        "group.share.min.record.lock.duration.ms",
        "group.share.max.record.lock.duration.ms",
    ),
    bounds("share.session.timeout.ms", "group.share.min.session.timeout.ms", "group.share.max.session.timeout.ms"),
    bounds(
        "streams.assignment.interval.ms",
        "group.streams.min.assignment.interval.ms",
        "group.streams.max.assignment.interval.ms",
    ),
    bounds(
        "streams.heartbeat.interval.ms",
        "group.streams.min.heartbeat.interval.ms",
        "group.streams.max.heartbeat.interval.ms",
    ),
    bounds(
        "streams.session.timeout.ms",
        "group.streams.min.session.timeout.ms",
        "group.streams.max.session.timeout.ms",
    ),
    ("streams.num.standby.replicas", None, Some("group.streams.max.standby.replicas")),
];

const fn bounds(
    name: &'static str,
    least: &'static str,
    most: &'static str,
) -> (&'static str, Option<&'static str>, Option<&'static str>) {
    (name, Some(least), Some(most))
}

/// Checks all that is set for one group.
///
/// # Errors
/// An unknown name, an illegal value, or one outside the broker's bounds, with Kafka's words.
pub fn validate_group(values: &Values, broker: &Layers) -> Result<(), InvalidTopicConfig> {
    for (name, value) in values {
        let definition =
            find(GROUP.iter(), name).ok_or_else(|| InvalidTopicConfig(format!("Unknown group config name: {name}")))?;
        definition.validate(value).map_err(|error: InvalidValue| InvalidTopicConfig(error.to_string()))?;
    }
    let bound = |name: &str| -> Option<i64> { broker.resolve(broker_definition(name)?).value?.trim().parse().ok() };
    let number = |name: &str| -> Option<i64> { values.get(name)?.trim().parse().ok() };
    for (name, least, most) in BOUNDS {
        let Some(value) = number(name) else { continue };
        if let Some(least) = least.filter(|least| bound(least).is_some_and(|bound| value < bound)) {
            return Err(InvalidTopicConfig(format!("{name} must be greater than or equal to {least}")));
        }
        if let Some(most) = most.filter(|most| bound(most).is_some_and(|bound| value > bound)) {
            return Err(InvalidTopicConfig(format!("{name} must be less than or equal to {most}")));
        }
    }
    for kind in ["consumer", "share", "streams"] {
        let (session, heartbeat) = (format!("{kind}.session.timeout.ms"), format!("{kind}.heartbeat.interval.ms"));
        let effective = |name: &str| -> Option<i64> {
            number(name).or_else(|| find(GROUP.iter(), name)?.broker_name().and_then(bound))
        };
        if let (Some(session_ms), Some(heartbeat_ms)) = (effective(&session), effective(&heartbeat))
            && session_ms <= heartbeat_ms
            && (values.contains_key(&session) || values.contains_key(&heartbeat))
        {
            return Err(InvalidTopicConfig(format!("{session} must be greater than {heartbeat}")));
        }
    }
    Ok(())
}
