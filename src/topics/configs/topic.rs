//! Every topic config of Kafka 4.3, and Weir's own.

use super::{
    Check::{Any, AtLeast, Durability, Level, ListOf, OneOf, Ratio, ThrottledReplicas},
    Definition,
    Kind::{Boolean, Double, Int, List, Long, String},
    Unit::{Hours, Minutes, Same},
};

pub(super) const NO_SEGMENTS: &str = "Redis keeps a log as one stream; there are no segment or index files";
pub(super) const NO_FLUSH: &str = "what an acknowledgement promises is decided by Redis' persistence";
pub(super) const NO_COMPACTION: &str = "logs are not compacted yet";
pub(super) const NO_REPLICAS: &str = "Redis replicates, brokers do not";

const fn define(
    name: &'static str,
    kind: super::Kind,
    default: &'static str,
    check: super::Check,
    documentation: &'static str,
) -> Definition {
    Definition::new(name, kind, default, check, documentation).dynamic()
}

/// By name.
pub const TOPIC: &[Definition] = &[
    define("cleanup.policy", List, "delete", ListOf(&["compact", "delete"]),
        "What may be removed from the log: delete removes what retention no longer covers, compact makes keys mandatory.")
        .given_by(&[("log.cleanup.policy", Same)]),
    define("compression.gzip.level", Int, "-1", Level { default: -1, least: 1, most: 9 },
        "The level for compression.type=gzip; -1 is the library's default.")
        .given_by(&[("compression.gzip.level", Same)]),
    define("compression.lz4.level", Int, "9", super::Check::Between(1, 17),
        "The level for compression.type=lz4; the encoder used here has one level, so it is checked and stored.")
        .given_by(&[("compression.lz4.level", Same)]),
    define("compression.type", String, "producer", OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "How batches are compressed when they are stored or encoded; producer keeps what the producer chose.")
        .given_by(&[("compression.type", Same)]),
    define("compression.zstd.level", Int, "3", super::Check::Between(-131_072, 22),
        "The level for compression.type=zstd.")
        .given_by(&[("compression.zstd.level", Same)]),
    define("delete.retention.ms", Long, "86400000", AtLeast(0),
        "How long a compacted log keeps delete markers.")
        .given_by(&[("log.cleaner.delete.retention.ms", Same)]).no_effect(NO_COMPACTION),
    define("file.delete.delay.ms", Long, "60000", AtLeast(0),
        "How long a removed segment's file is kept.")
        .given_by(&[("log.segment.delete.delay.ms", Same)]).no_effect(NO_SEGMENTS),
    define("flush.messages", Long, "9223372036854775807", AtLeast(1),
        "After how many records the log is forced to disk.")
        .given_by(&[("log.flush.interval.messages", Same)]).no_effect(NO_FLUSH),
    define("flush.ms", Long, "9223372036854775807", AtLeast(0),
        "After how much time the log is forced to disk.")
        .given_by(&[("log.flush.interval.ms", Same), ("log.flush.scheduler.interval.ms", Same)]).no_effect(NO_FLUSH),
    define("follower.replication.throttled.replicas", List, "", ThrottledReplicas,
        "Replicas whose replication is throttled on the follower's side.").no_effect(NO_REPLICAS),
    define("index.interval.bytes", Int, "4096", AtLeast(0),
        "How many bytes lie between two entries of the offset index.")
        .given_by(&[("log.index.interval.bytes", Same)]).no_effect(NO_SEGMENTS),
    define("leader.replication.throttled.replicas", List, "", ThrottledReplicas,
        "Replicas whose replication is throttled on the leader's side.").no_effect(NO_REPLICAS),
    define("local.retention.bytes", Long, "-2", AtLeast(-2),
        "How many bytes of batches stay in Redis once they are archived; -2 follows retention.bytes, -1 is no limit.")
        .given_by(&[("log.local.retention.bytes", Same)]),
    define("local.retention.ms", Long, "-2", AtLeast(-2),
        "How long records stay in Redis once they are archived; -2 follows retention.ms, -1 is no limit.")
        .given_by(&[("log.local.retention.ms", Same)]),
    define("max.compaction.lag.ms", Long, "9223372036854775807", AtLeast(1),
        "The longest time that a record stays uncompacted.")
        .given_by(&[("log.cleaner.max.compaction.lag.ms", Same)]).no_effect(NO_COMPACTION),
    define("max.message.bytes", Int, "1048588", AtLeast(0),
        "The largest record batch that is taken, in bytes as sent.")
        .given_by(&[("message.max.bytes", Same)]),
    define("message.timestamp.after.max.ms", Long, "3600000", AtLeast(0),
        "How far a CreateTime timestamp may lie ahead of the broker's clock.")
        .given_by(&[("log.message.timestamp.after.max.ms", Same)]),
    define("message.timestamp.before.max.ms", Long, "9223372036854775807", AtLeast(0),
        "How far a CreateTime timestamp may lie behind the broker's clock.")
        .given_by(&[("log.message.timestamp.before.max.ms", Same)]),
    define("message.timestamp.type", String, "CreateTime", OneOf(&["CreateTime", "LogAppendTime"]),
        "Whose clock a record's timestamp is: the producer's or the broker's.")
        .given_by(&[("log.message.timestamp.type", Same)]),
    define("min.cleanable.dirty.ratio", Double, "0.5", Ratio,
        "The share of uncompacted bytes at which a log is compacted.")
        .given_by(&[("log.cleaner.min.cleanable.ratio", Same)]).no_effect(NO_COMPACTION),
    define("min.compaction.lag.ms", Long, "0", AtLeast(0),
        "The shortest time that a record stays uncompacted.")
        .given_by(&[("log.cleaner.min.compaction.lag.ms", Same)]).no_effect(NO_COMPACTION),
    define("min.insync.replicas", Int, "1", AtLeast(1),
        "How many copies acks=all waits for where weir.durability is replicas:N: N and Redis itself, or this many if it is more. On other levels it does nothing.")
        .given_by(&[("min.insync.replicas", Same)]),
    define("preallocate", Boolean, "false", Any,
        "Whether a new segment's file is allocated at full size.")
        .given_by(&[("log.preallocate", Same)]).no_effect(NO_SEGMENTS),
    define("remote.log.copy.disable", Boolean, "false", Any,
        "Whether nothing more is archived; what is archived stays readable (KIP-950)."),
    define("remote.log.delete.on.disable", Boolean, "false", Any,
        "Whether what is archived goes when remote.storage.enable is turned off, which needs it (KIP-950)."),
    define("remote.storage.enable", Boolean, "false", Any,
        "Whether the topic is archived (KIP-405); needs a broker with archive.url."),
    define("retention.bytes", Long, "-1", Any,
        "How many bytes of batches a partition keeps; negative is no limit.")
        .given_by(&[("log.retention.bytes", Same)]),
    define("retention.ms", Long, "604800000", AtLeast(-1),
        "How long records are kept; -1 is no limit.")
        .given_by(&[("log.retention.ms", Same), ("log.retention.minutes", Minutes), ("log.retention.hours", Hours)]),
    define("segment.bytes", Int, "1073741824", AtLeast(1_048_576),
        "The size of a segment's file.")
        .given_by(&[("log.segment.bytes", Same)]).no_effect(NO_SEGMENTS),
    define("segment.index.bytes", Int, "10485760", AtLeast(4),
        "The size of a segment's index.")
        .given_by(&[("log.index.size.max.bytes", Same)]).no_effect(NO_SEGMENTS),
    define("segment.jitter.ms", Long, "0", AtLeast(0),
        "How much of segment.ms is left to chance.")
        .given_by(&[("log.roll.jitter.ms", Same), ("log.roll.jitter.hours", Hours)]).no_effect(NO_SEGMENTS),
    define("segment.ms", Long, "604800000", AtLeast(1),
        "After what time a new segment is begun.")
        .given_by(&[("log.roll.ms", Same), ("log.roll.hours", Hours)]).no_effect(NO_SEGMENTS),
    define("unclean.leader.election.enable", Boolean, "false", Any,
        "Whether a replica that is not in sync may lead.")
        .given_by(&[("unclean.leader.election.enable", Same)]).no_effect(NO_REPLICAS),
    define("weir.archive.file.bytes", Long, "-1", AtLeast(-1),
        "At what size a file of the archive is closed, about; -1 is the broker's archive.file.bytes."),
    define("weir.archive.zstd.level", Int, "-1", Level { default: -1, least: 1, most: 22 },
        "How hard the archive's files are compressed; -1 is the broker's archive.zstd.level."),
    define("weir.durability", String, "memory", Durability,
        "What acks=all promises: Redis has the records (memory), they survive the death of any process (written), of the machine (fsync), or N replicas of Redis have them (replicas:N). docs/reliability.md says how.")
        .given_by(&[("weir.durability", Same)]),
    define("weir.layout", String, "record", OneOf(&["record", "batch"]),
        "What a stream entry holds: one readable record, or one record batch as the client sent it.")
        .given_by(&[("weir.layout", Same)]),
    define("weir.retention.records", Long, "-1", AtLeast(-1),
        "How many records a partition keeps, about; -1 is no limit.")
        .given_by(&[("weir.retention.records", Same)]),
    define("weir.value.format", String, "auto", OneOf(&["auto", "raw", "json"]),
        "How a value is stored in the record layout: JSON objects as fields (auto), as bytes (raw), or nothing but JSON objects (json).")
        .given_by(&[("weir.value.format", Same)]),
];
