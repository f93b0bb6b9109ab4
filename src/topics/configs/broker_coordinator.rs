//! The broker configs of the group coordinator, and the defaults and bounds of group configs.

use super::{
    Check::{Any, AtLeast, Between},
    Definition,
    Kind::{Int, Long},
};

pub(super) const NO_CONSUMER_PROTOCOL: &str = "the consumer group protocol of KIP-848 is not served yet";
pub(super) const NO_SHARE: &str = "share groups are not served yet";
pub(super) const NO_STREAMS: &str = "streams groups are not served";

/// By name.
pub(super) const BROKER_COORDINATOR: &[Definition] = &[
    Definition::new(
        "group.consumer.assignment.interval.ms",
        Int,
        "1000",
        AtLeast(0),
        "The shortest time between two assignments of a consumer group.",
    )
    .dynamic()
    .no_effect(NO_CONSUMER_PROTOCOL),
    Definition::new(
        "group.consumer.heartbeat.interval.ms",
        Int,
        "5000",
        AtLeast(1),
        "How often a member of a consumer group sends heartbeats.",
    )
    .no_effect(NO_CONSUMER_PROTOCOL),
    Definition::new(
        "group.consumer.max.assignment.interval.ms",
        Int,
        "15000",
        AtLeast(0),
        "The longest assignment interval of a consumer group.",
    )
    .no_effect(NO_CONSUMER_PROTOCOL),
    Definition::new(
        "group.consumer.max.heartbeat.interval.ms",
        Int,
        "15000",
        AtLeast(1),
        "The longest heartbeat interval of a consumer group.",
    )
    .no_effect(NO_CONSUMER_PROTOCOL),
    Definition::new(
        "group.consumer.max.session.timeout.ms",
        Int,
        "60000",
        AtLeast(1),
        "The longest session timeout of a consumer group.",
    )
    .no_effect(NO_CONSUMER_PROTOCOL),
    Definition::new("group.consumer.max.size", Int, "2147483647", AtLeast(1), "The most members of a consumer group.")
        .no_effect(NO_CONSUMER_PROTOCOL),
    Definition::new(
        "group.consumer.min.assignment.interval.ms",
        Int,
        "0",
        AtLeast(0),
        "The shortest assignment interval of a consumer group.",
    )
    .no_effect(NO_CONSUMER_PROTOCOL),
    Definition::new(
        "group.consumer.min.heartbeat.interval.ms",
        Int,
        "5000",
        AtLeast(1),
        "The shortest heartbeat interval of a consumer group.",
    )
    .no_effect(NO_CONSUMER_PROTOCOL),
    Definition::new(
        "group.consumer.min.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        "The shortest session timeout of a consumer group.",
    )
    .no_effect(NO_CONSUMER_PROTOCOL),
    Definition::new(
        "group.consumer.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        "How long a member of a consumer group may be silent.",
    )
    .no_effect(NO_CONSUMER_PROTOCOL),
    Definition::new(
        "group.initial.rebalance.delay.ms",
        Int,
        "3000",
        AtLeast(0),
        "How long the first rebalance of an empty group waits for more members.",
    ),
    Definition::new(
        "group.max.session.timeout.ms",
        Int,
        "1800000",
        Any,
        "The longest session timeout that a classic member may ask for.",
    ),
    Definition::new("group.max.size", Int, "2147483647", AtLeast(1), "The most members of a classic group."),
    Definition::new(
        "group.min.session.timeout.ms",
        Int,
        "6000",
        Any,
        "The shortest session timeout that a classic member may ask for.",
    ),
    Definition::new(
        "group.share.assignment.interval.ms",
        Int,
        "1000",
        AtLeast(0),
        "The shortest time between two assignments of a share group.",
    )
    .dynamic()
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.delivery.count.limit",
        Int,
        "5",
        Between(2, 10),
        "How often a record is given to share consumers.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.heartbeat.interval.ms",
        Int,
        "5000",
        AtLeast(1),
        "How often a member of a share group sends heartbeats.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.max.assignment.interval.ms",
        Int,
        "15000",
        AtLeast(0),
        "The longest assignment interval of a share group.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.max.delivery.count.limit",
        Int,
        "10",
        Between(5, 25),
        "The largest delivery count limit of a share group.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.max.heartbeat.interval.ms",
        Int,
        "15000",
        AtLeast(1),
        "The longest heartbeat interval of a share group.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.max.partition.max.record.locks",
        Int,
        "4000",
        Between(2_000, 20_000),
        "The largest bound of locked records of a share partition.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.max.record.lock.duration.ms",
        Int,
        "60000",
        Between(30_000, 3_600_000),
        "The longest lock of a record.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.max.session.timeout.ms",
        Int,
        "60000",
        AtLeast(1),
        "The longest session timeout of a share group.",
    )
    .no_effect(NO_SHARE),
    Definition::new("group.share.max.size", Int, "200", Between(1, 1_000), "The most members of a share group.")
        .no_effect(NO_SHARE),
    Definition::new(
        "group.share.min.assignment.interval.ms",
        Int,
        "0",
        AtLeast(0),
        "The shortest assignment interval of a share group.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.min.delivery.count.limit",
        Int,
        "2",
        Between(2, 5),
        "The smallest delivery count limit of a share group.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.min.heartbeat.interval.ms",
        Int,
        "5000",
        AtLeast(1),
        "The shortest heartbeat interval of a share group.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.min.partition.max.record.locks",
        Int,
        "100",
        Between(100, 2_000),
        "The smallest bound of locked records of a share partition.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.min.record.lock.duration.ms",
        Int,
        "15000",
        Between(1_000, 30_000),
        "The shortest lock of a record.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.min.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        "The shortest session timeout of a share group.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.partition.max.record.locks",
        Int,
        "2000",
        Between(100, 10_000),
        "How many records of a share partition may be locked.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.record.lock.duration.ms",
        Int,
        "30000",
        Between(1_000, 3_600_000),
        "How long a record is locked for a share consumer.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.share.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        "How long a member of a share group may be silent.",
    )
    .no_effect(NO_SHARE),
    Definition::new(
        "group.streams.assignment.interval.ms",
        Int,
        "1000",
        AtLeast(0),
        "The shortest time between two assignments of a streams group.",
    )
    .dynamic()
    .no_effect(NO_STREAMS),
    Definition::new(
        "group.streams.heartbeat.interval.ms",
        Int,
        "5000",
        AtLeast(1),
        "How often a member of a streams group sends heartbeats.",
    )
    .no_effect(NO_STREAMS),
    Definition::new(
        "group.streams.initial.rebalance.delay.ms",
        Int,
        "3000",
        AtLeast(0),
        "How long the first assignment of a streams group waits for more members.",
    )
    .no_effect(NO_STREAMS),
    Definition::new(
        "group.streams.max.assignment.interval.ms",
        Int,
        "15000",
        AtLeast(0),
        "The longest assignment interval of a streams group.",
    )
    .no_effect(NO_STREAMS),
    Definition::new(
        "group.streams.max.heartbeat.interval.ms",
        Int,
        "15000",
        AtLeast(1),
        "The longest heartbeat interval of a streams group.",
    )
    .no_effect(NO_STREAMS),
    Definition::new(
        "group.streams.max.session.timeout.ms",
        Int,
        "60000",
        AtLeast(1),
        "The longest session timeout of a streams group.",
    )
    .no_effect(NO_STREAMS),
    Definition::new("group.streams.max.size", Int, "2147483647", AtLeast(1), "The most members of a streams group.")
        .no_effect(NO_STREAMS),
    Definition::new(
        "group.streams.max.standby.replicas",
        Int,
        "2",
        AtLeast(0),
        "The most standby replicas of a streams group.",
    )
    .no_effect(NO_STREAMS),
    Definition::new(
        "group.streams.min.assignment.interval.ms",
        Int,
        "0",
        AtLeast(0),
        "The shortest assignment interval of a streams group.",
    )
    .no_effect(NO_STREAMS),
    Definition::new(
        "group.streams.min.heartbeat.interval.ms",
        Int,
        "5000",
        AtLeast(1),
        "The shortest heartbeat interval of a streams group.",
    )
    .no_effect(NO_STREAMS),
    Definition::new(
        "group.streams.min.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        "The shortest session timeout of a streams group.",
    )
    .no_effect(NO_STREAMS),
    Definition::new(
        "group.streams.num.standby.replicas",
        Int,
        "0",
        AtLeast(0),
        "How many standby replicas each task of a streams group has.",
    )
    .no_effect(NO_STREAMS),
    Definition::new(
        "group.streams.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        "How long a member of a streams group may be silent.",
    )
    .no_effect(NO_STREAMS),
    Definition::new("offset.metadata.max.bytes", Int, "4096", Any, "The longest metadata of an offset commit."),
    Definition::new(
        "offsets.retention.check.interval.ms",
        Long,
        "600000",
        AtLeast(1),
        "How often expired offsets are looked for.",
    ),
    Definition::new(
        "offsets.retention.minutes",
        Int,
        "10080",
        AtLeast(1),
        "How long committed offsets outlive the last member of their group.",
    ),
];
