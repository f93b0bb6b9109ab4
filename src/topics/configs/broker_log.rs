//! The broker configs that give topics their defaults.

use super::topic::{NO_COMPACTION, NO_FLUSH, NO_REPLICAS, NO_SEGMENTS};
use super::{
    Check::{Any, AtLeast, Between, Durability, Level, ListOf, OneOf, Ratio},
    Definition,
    Kind::{Boolean, Double, Int, List, Long, String},
};

/// By name.
pub(super) const BROKER_LOG: &[Definition] = &[
    Definition::new(
        "compression.gzip.level",
        Int,
        "-1",
        Level { default: -1, least: 1, most: 9 },
        "The default of the topic config of the same name.",
    )
    .dynamic(),
    Definition::new(
        "compression.lz4.level",
        Int,
        "9",
        Between(1, 17),
        "The default of the topic config of the same name.",
    )
    .dynamic(),
    Definition::new(
        "compression.type",
        String,
        "producer",
        OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "The default of the topic config of the same name.",
    )
    .dynamic(),
    Definition::new(
        "compression.zstd.level",
        Int,
        "3",
        Between(-131_072, 22),
        "The default of the topic config of the same name.",
    )
    .dynamic(),
    Definition::new(
        "log.cleaner.delete.retention.ms",
        Long,
        "86400000",
        AtLeast(0),
        "The default of delete.retention.ms.",
    )
    .dynamic()
    .no_effect(NO_COMPACTION),
    Definition::new(
        "log.cleaner.max.compaction.lag.ms",
        Long,
        "9223372036854775807",
        AtLeast(1),
        "The default of max.compaction.lag.ms.",
    )
    .dynamic()
    .no_effect(NO_COMPACTION),
    Definition::new(
        "log.cleaner.min.cleanable.ratio",
        Double,
        "0.5",
        Ratio,
        "The default of min.cleanable.dirty.ratio.",
    )
    .dynamic()
    .no_effect(NO_COMPACTION),
    Definition::new(
        "log.cleaner.min.compaction.lag.ms",
        Long,
        "0",
        AtLeast(0),
        "The default of min.compaction.lag.ms.",
    )
    .dynamic()
    .no_effect(NO_COMPACTION),
    Definition::new(
        "log.cleanup.policy",
        List,
        "delete",
        ListOf(&["compact", "delete"]),
        "The default of cleanup.policy.",
    )
    .dynamic(),
    Definition::new(
        "log.flush.interval.messages",
        Long,
        "9223372036854775807",
        AtLeast(1),
        "The default of flush.messages.",
    )
    .dynamic()
    .no_effect(NO_FLUSH),
    Definition::unset(
        "log.flush.interval.ms",
        Long,
        Any,
        "The default of flush.ms; unset falls back to log.flush.scheduler.interval.ms.",
    )
    .dynamic()
    .no_effect(NO_FLUSH),
    Definition::new(
        "log.flush.scheduler.interval.ms",
        Long,
        "9223372036854775807",
        Any,
        "How often it is checked whether a log must be forced to disk.",
    )
    .no_effect(NO_FLUSH),
    Definition::new("log.index.interval.bytes", Int, "4096", AtLeast(0), "The default of index.interval.bytes.")
        .dynamic()
        .no_effect(NO_SEGMENTS),
    Definition::new("log.index.size.max.bytes", Int, "10485760", AtLeast(4), "The default of segment.index.bytes.")
        .dynamic()
        .no_effect(NO_SEGMENTS),
    Definition::new("log.local.retention.bytes", Long, "-2", AtLeast(-2), "The default of local.retention.bytes.")
        .dynamic(),
    Definition::new("log.local.retention.ms", Long, "-2", AtLeast(-2), "The default of local.retention.ms.")
        .dynamic(),
    Definition::new(
        "log.message.timestamp.after.max.ms",
        Long,
        "3600000",
        AtLeast(0),
        "The default of message.timestamp.after.max.ms.",
    )
    .dynamic(),
    Definition::new(
        "log.message.timestamp.before.max.ms",
        Long,
        "9223372036854775807",
        AtLeast(0),
        "The default of message.timestamp.before.max.ms.",
    )
    .dynamic(),
    Definition::new(
        "log.message.timestamp.type",
        String,
        "CreateTime",
        OneOf(&["CreateTime", "LogAppendTime"]),
        "The default of message.timestamp.type.",
    )
    .dynamic(),
    Definition::new("log.preallocate", Boolean, "false", Any, "The default of preallocate.")
        .dynamic()
        .no_effect(NO_SEGMENTS),
    Definition::new("log.retention.bytes", Long, "-1", Any, "The default of retention.bytes.").dynamic(),
    Definition::new(
        "log.retention.hours",
        Int,
        "168",
        Any,
        "The default of retention.ms, in hours; weaker than minutes and milliseconds.",
    ),
    Definition::unset(
        "log.retention.minutes",
        Int,
        Any,
        "The default of retention.ms, in minutes; weaker than log.retention.ms.",
    ),
    Definition::unset("log.retention.ms", Long, Any, "The default of retention.ms; -1 is no limit.").dynamic(),
    Definition::new("log.roll.hours", Int, "168", AtLeast(1), "The default of segment.ms, in hours.")
        .no_effect(NO_SEGMENTS),
    Definition::new("log.roll.jitter.hours", Int, "0", AtLeast(0), "The default of segment.jitter.ms, in hours.")
        .no_effect(NO_SEGMENTS),
    Definition::unset("log.roll.jitter.ms", Long, Any, "The default of segment.jitter.ms.")
        .dynamic()
        .no_effect(NO_SEGMENTS),
    Definition::unset("log.roll.ms", Long, Any, "The default of segment.ms.").dynamic().no_effect(NO_SEGMENTS),
    Definition::new("log.segment.bytes", Int, "1073741824", AtLeast(1_048_576), "The default of segment.bytes.")
        .dynamic()
        .no_effect(NO_SEGMENTS),
    Definition::new("log.segment.delete.delay.ms", Long, "60000", AtLeast(0), "The default of file.delete.delay.ms.")
        .dynamic()
        .no_effect(NO_SEGMENTS),
    Definition::new("message.max.bytes", Int, "1048588", AtLeast(0), "The default of max.message.bytes.").dynamic(),
    Definition::new("min.insync.replicas", Int, "1", AtLeast(1), "The default of the topic config of the same name.")
        .dynamic(),
    Definition::new(
        "unclean.leader.election.enable",
        Boolean,
        "false",
        Any,
        "The default of the topic config of the same name.",
    )
    .dynamic()
    .no_effect(NO_REPLICAS),
    Definition::new(
        "weir.durability",
        String,
        "memory",
        Durability,
        "The default of the topic config of the same name. Not given: written where Redis keeps that without being waited for, as \
         the embedded one does.",
    )
    .dynamic(),
    Definition::new(
        "weir.durability.floor",
        String,
        "memory",
        Durability,
        "What acks=all promises for every topic, besides the topic's own level.",
    ),
    Definition::new(
        "weir.layout",
        String,
        "record",
        OneOf(&["record", "batch"]),
        "The default of the topic config of the same name.",
    )
    .dynamic(),
    Definition::new(
        "weir.retention.records",
        Long,
        "-1",
        AtLeast(-1),
        "The default of the topic config of the same name.",
    )
    .dynamic(),
    Definition::new(
        "weir.value.format",
        String,
        "auto",
        OneOf(&["auto", "raw", "json"]),
        "The default of the topic config of the same name.",
    )
    .dynamic(),
];
