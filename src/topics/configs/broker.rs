//! The broker configs that are not about one topic or group.

use super::{
    Check::{Any, AtLeast, Between, Ratio},
    Definition,
    Kind::{Boolean, Double, Int, Long, String},
};

/// By name.
pub(super) const BROKER: &[Definition] = &[
    Definition::new(
        "auto.create.topics.enable",
        Boolean,
        "true",
        Any,
        "Whether a Metadata request may create the topics that it names.",
    ),
    Definition::new(
        "broker.heartbeat.interval.ms",
        Int,
        "500",
        AtLeast(1),
        "How often this broker tells the others on the same Redis that it lives.",
    )
    .kafka_default("2000"),
    Definition::unset("broker.rack", String, Any, "Where this broker is, as told to clients."),
    Definition::new(
        "broker.session.timeout.ms",
        Int,
        "2000",
        AtLeast(2),
        "A broker that was not heard of for this long is gone, and others take over what it led.",
    )
    .kafka_default("9000"),
    Definition::unset(
        "cluster.id",
        String,
        Any,
        "The cluster id to keep in Redis when none is kept there yet; unset lets the first broker make one.",
    ),
    Definition::new(
        "connections.max.idle.ms",
        Long,
        "600000",
        AtLeast(1),
        "A connection without a request for this long is closed.",
    ),
    Definition::new(
        "default.replication.factor",
        Int,
        "1",
        Between(1, 32_767),
        "What a topic is given that asks for replication factor -1, or is created automatically.",
    ),
    Definition::new("delete.topic.enable", Boolean, "true", Any, "Whether topics may be deleted."),
    Definition::new(
        "fetch.max.bytes",
        Int,
        "57671680",
        AtLeast(1024),
        "The most bytes that one Fetch answer holds, whatever the client asks for.",
    ),
    Definition::new(
        "log.retention.check.interval.ms",
        Long,
        "300000",
        AtLeast(1),
        "How often retention is applied to partitions that are not written to.",
    ),
    Definition::new("max.connections", Int, "10000", AtLeast(0), "The most connections of the broker.")
        .dynamic()
        .kafka_default("2147483647"),
    Definition::new("max.connections.per.ip", Int, "2147483647", AtLeast(0), "The most connections from one address.")
        .dynamic(),
    Definition::new(
        "max.incremental.fetch.session.cache.slots",
        Int,
        "1000",
        AtLeast(0),
        "The most incremental fetch sessions that are kept.",
    ),
    Definition::new(
        "max.request.partition.size.limit",
        Int,
        "2000",
        AtLeast(1),
        "The most partitions in one answer to DescribeTopicPartitions.",
    ),
    Definition::new(
        "num.partitions",
        Int,
        "1",
        AtLeast(1),
        "How many partitions a topic is given that asks for -1, or is created automatically.",
    ),
    Definition::new(
        "producer.id.expiration.ms",
        Int,
        "86400000",
        AtLeast(1),
        "An idempotent producer that wrote nothing for this long is forgotten.",
    )
    .dynamic(),
    Definition::new(
        "queued.max.request.bytes",
        Long,
        "134217728",
        AtLeast(-1),
        "The most bytes of all requests that are being read and served; -1 is no limit.",
    )
    .kafka_default("-1"),
    Definition::new(
        "remote.log.storage.system.enable",
        Boolean,
        "false",
        Any,
        "Whether topics may be archived. It is true where archive.url is set, and can only be true there.",
    ),
    Definition::new("socket.request.max.bytes", Int, "104857600", AtLeast(1), "The longest request."),
    Definition::new(
        "weir.append.bytes",
        Long,
        "33554432",
        AtLeast(1_048_576),
        "The most bytes of batches that wait to be written to Redis; further Produce requests wait.",
    ),
    Definition::new(
        "weir.connection.queued.replies",
        Int,
        "100",
        Between(1, 10_000),
        "The answers that may wait to be written on one connection; then its next request is not read.",
    ),
    Definition::new(
        "weir.connection.stall.ms",
        Long,
        "30000",
        AtLeast(100),
        "A request that began and makes no progress, or an answer that is not read, ends the connection after this time.",
    ),
    Definition::new(
        "weir.fetch.response.bytes",
        Long,
        "33554432",
        AtLeast(1_048_576),
        "The most bytes of all Fetch answers that are being read from Redis and written.",
    ),
    Definition::new(
        "weir.producers.per.partition",
        Int,
        "10000",
        AtLeast(1),
        "The most idempotent producers that one partition remembers.",
    ),
    Definition::new(
        "weir.record.max.bytes.per.batch",
        Int,
        "8388608",
        AtLeast(1_024),
        "The most decompressed bytes of one batch in the record layout.",
    ),
    Definition::new(
        "weir.record.max.records.per.batch",
        Int,
        "10000",
        AtLeast(1),
        "The most records of one batch in the record layout.",
    ),
    Definition::new(
        "weir.redis.disk.reserve.bytes",
        Long,
        "268435456",
        AtLeast(0),
        "Appends are refused while the disk of the embedded Redis has less than this free (or less than a quarter, on a small disk).",
    ),
    Definition::new(
        "weir.redis.memory.high.watermark",
        Double,
        "0.9",
        Ratio,
        "Appends are refused while Redis uses more than this share of its maxmemory; reads, trims and groups go on in the rest.",
    ),
    Definition::new(
        "weir.structured.request.max.bytes",
        Int,
        "3145728",
        AtLeast(65_536),
        "The longest request that carries no record batches.",
    ),
    Definition::new(
        "weir.tail.cache.bytes",
        Long,
        "33554432",
        AtLeast(0),
        "How many bytes of the newest batches are kept in memory for consumers at the end of the logs.",
    ),
];
