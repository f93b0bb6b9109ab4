"""Produce (0): appends batches to partitions. Version 3 is the first served, 8 brought record errors, 13 topic ids."""

import time

from harness.cases import case
from harness.records import CONTROL, TIMESTAMP_TYPE, TRANSACTIONAL, batch, compress, old_message, record
from harness.schema import ZERO_UUID

NOW = int(time.time() * 1000)


def topic_data(b, name, *partitions, topic_id=None):
    """(partition, records) pairs for a topic, named as the version wants it."""
    return {
        "Name": name,
        "TopicId": b.topic_id(name) if topic_id is None else topic_id,
        "PartitionData": [{"Index": index, "Records": data} for index, data in partitions],
    }


def produce(b, *topics, acks=-1, label=None, transactional_id=None, **more):
    return b.send("Produce", label=label, TransactionalId=transactional_id, Acks=acks, TimeoutMs=10_000, TopicData=list(topics), **more)


def fetched(b, name, label="what is stored", partition=0):
    """The log from its start."""
    return b.send(
        "Fetch",
        label=label,
        ReplicaId=-1,
        MaxWaitMs=0,
        MinBytes=0,
        MaxBytes=10_000_000,
        SessionEpoch=-1,
        Topics=[
            {
                "Topic": name,
                "TopicId": b.topic_id(name),
                "Partitions": [{"Partition": partition, "FetchOffset": 0, "PartitionMaxBytes": 10_000_000}],
            }
        ],
    )


@case("Produce", "3+")
def one_batch(b):
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch([b"a", b"b", b"c"]))))
    produce(b, topic_data(b, name, (0, batch([b"d"]))))
    fetched(b, name)


@case("Produce", "3+")
def keys_values_headers(b):
    """What a record can hold comes back as it was: nulls, empties, duplicate headers in order, timestamps going up and down."""
    name = b.topic("orders")
    rows = [
        record(0, 0, None, None),
        record(1, 5, b"", b""),
        record(2, -7, b"key", b"\x00\xff binary"),
        record(3, 0, "schlüssel".encode(), b'{"id": 1, "name": "x"}', [("a", b"1"), ("a", b"2"), ("", None), ("b", b"")]),
        record(4, 100, b"k", b'{"id":1,"nested":{"a":[1,2]}}', [(b"\xff\xfe", b"not utf-8")]),
    ]
    produce(b, topic_data(b, name, (0, batch(records=rows, max_timestamp=1_600_000_000_100))))
    fetched(b, name)


@case("Produce", "3+")
def several_topics_and_partitions(b):
    first, second = b.topic("first", partitions=2), b.topic("second")
    produce(
        b,
        topic_data(b, first, (1, batch([b"a"])), (0, batch([b"b", b"c"]))),
        topic_data(b, second, (0, batch([b"d"]))),
    )
    fetched(b, first, "first 0")
    fetched(b, first, "first 1", partition=1)
    fetched(b, second, "second 0")


@case("Produce", "3+")
def good_and_bad_partitions_together(b):
    """Each partition is answered for itself."""
    name = b.topic("orders", partitions=2)
    produce(b, topic_data(b, name, (0, batch([b"a"])), (7, batch([b"b"])), (1, batch([b"c"], crc=1))))


@case("Produce", "3+")
def unknown_topic(b):
    """UNKNOWN_TOPIC_OR_PARTITION; from version 13 UNKNOWN_TOPIC_ID. Producing does not create topics."""
    produce(b, topic_data(b, b.name("missing"), (0, batch()), topic_id="5ca1ab1e" * 4))


@case("Produce", "13+")
def the_zero_topic_id(b):
    produce(b, topic_data(b, "", (0, batch()), topic_id=ZERO_UUID))


@case("Produce", "3-12")
def invalid_topic_name(b):
    produce(b, topic_data(b, "not a name", (0, batch())))


@case("Produce", "3+")
def unknown_and_negative_partitions(b):
    name = b.topic("orders")
    produce(b, topic_data(b, name, (1, batch()), (-1, batch()), (2**31 - 1, batch())))


@case("Produce", "3+")
def no_topics(b):
    produce(b)


@case("Produce", "3+")
def no_partitions(b):
    produce(b, topic_data(b, b.topic("orders")))


@case("Produce", "3+")
def the_same_partition_twice(b):
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch([b"a"])), (0, batch([b"b", b"c"]))))
    fetched(b, name)


@case("Produce", "3+")
def acks_0(b):
    """No answer at all; the next request's answer comes next."""
    name = b.topic("orders")
    fields = {"Acks": 0, "TimeoutMs": 1000, "TopicData": [topic_data(b, name, (0, batch([b"a"])))]}
    b.main.write(b.main.frame(b.broker.schemas["Produce"], b.version, fields)[0])
    b.send("Metadata", version=4, Topics=[], AllowAutoTopicCreation=False)
    fetched(b, name)


@case("Produce", "3+")
def acks_0_and_an_error(b):
    """Kafka closes the connection, so that the producer notices."""
    name = b.topic("orders")
    fields = {"Acks": 0, "TimeoutMs": 1000, "TopicData": [topic_data(b, name, (5, batch([b"a"])))]}
    b.main.write(b.main.frame(b.broker.schemas["Produce"], b.version, fields)[0])
    b.send("Metadata", version=4, Topics=[], AllowAutoTopicCreation=False)


@case("Produce", "3+")
def acks_1(b):
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch([b"a"]))), acks=1)


@case("Produce", "3+")
def other_acks(b):
    """INVALID_REQUIRED_ACKS."""
    name = b.topic("orders")
    for acks in (2, -2, 32_767):
        produce(b, topic_data(b, name, (0, batch([b"a"]))), acks=acks, label=f"acks {acks}")


@case("Produce", "3+")
def other_acks_and_an_unknown_topic(b):
    produce(b, topic_data(b, b.name("missing"), (0, batch()), topic_id="5ca1ab1e" * 4), acks=2)


@case("Produce", "13")
def null_records(b):
    """Kafka's handler fails on it and never answers."""
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, None)), seconds=3)


@case("Produce", "3+")
def empty_records(b):
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, b"")))


@case("Produce", "3+")
def two_batches_in_one_partition(b):
    """Exactly one is allowed."""
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch([b"a"]) + batch([b"b"]))))


@case("Produce", "3+")
def wrong_crc(b):
    """CORRUPT_MESSAGE."""
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch([b"a"], crc=0xDEADBEEF))))
    fetched(b, name)


@case("Produce", "3+")
def old_formats(b):
    """Magic 0 and 1 went out with Kafka 4."""
    name = b.topic("orders")
    for magic in (0, 1):
        produce(b, topic_data(b, name, (0, old_message(magic))), label=f"magic {magic}")


@case("Produce", "3+")
def unknown_magic(b):
    name = b.topic("orders")
    for magic in (3, -1):
        produce(b, topic_data(b, name, (0, batch([b"a"], magic=magic))), label=f"magic {magic}")


@case("Produce", "3+")
def batches_cut_short(b):
    name = b.topic("orders")
    whole = batch([b"abc"])
    for kept in (1, 11, 12, 17, 60, len(whole) - 1):
        produce(b, topic_data(b, name, (0, whole[:kept])), label=f"{kept} bytes")


@case("Produce", "3+")
def batch_lengths_that_lie(b):
    name = b.topic("orders")
    for length in (0, -1, 13, 48, 10_000, 2**31 - 1):
        produce(b, topic_data(b, name, (0, batch([b"abc"], length=length))), label=f"length {length}")


@case("Produce", "3+")
def bytes_after_the_batch(b):
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch([b"a"]) + b"rest")))


@case("Produce", "3+")
def record_counts_that_lie(b):
    """More, fewer, none, negative."""
    name = b.topic("orders")
    for count in (0, 1, 3, -1, 2**31 - 1):
        produce(b, topic_data(b, name, (0, batch([b"a", b"b"], count=count))), label=f"count {count}")
    fetched(b, name)


@case("Produce", "3+")
def last_offset_delta_that_lies(b):
    name = b.topic("orders")
    for delta in (0, 5, -1):
        produce(b, topic_data(b, name, (0, batch([b"a", b"b"], last_offset_delta=delta))), label=f"delta {delta}")


@case("Produce", "3+")
def offset_deltas_with_a_gap(b):
    """Deltas must be 0, 1, 2, …: record errors from version 8."""
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch(records=[record(0), record(2)], last_offset_delta=2))), label="gap")
    produce(b, topic_data(b, name, (0, batch(records=[record(0), record(0)]))), label="twice")
    produce(b, topic_data(b, name, (0, batch(records=[record(1), record(0)]))), label="backwards")
    fetched(b, name)


@case("Produce", "3+")
def records_that_are_malformed(b):
    name = b.topic("orders")
    bad = {
        "record too long": batch(records=[record(0, length=100)], count=1, last_offset_delta=0),
        "record too short": batch(records=[record(0, value=b"abcdef", length=3)], count=1, last_offset_delta=0),
        "negative length": batch(records=[record(0, length=-5)], count=1, last_offset_delta=0),
        "header count": batch(records=[record(0, header_count=100)], count=1, last_offset_delta=0),
        "negative header count": batch(records=[record(0, header_count=-1)], count=1, last_offset_delta=0),
        "null header key": batch(records=[record(0, headers=[(None, b"x")])]),
        "garbage": batch(payload=b"\xff" * 30, records=[b""]),
        "nothing": batch(payload=b"", records=[b""]),
        "rest": batch(payload=record(0) + b"\0\0\0", records=[b""]),
    }
    for label, data in bad.items():
        produce(b, topic_data(b, name, (0, data)), label=label)


@case("Produce", "3+")
def malformed_inside_a_compressed_batch(b):
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch(codec="gzip", payload=b"not gzip", records=[b""]))), label="not gzip")
    produce(b, topic_data(b, name, (0, batch([b"a", b"b"], codec="gzip", count=3, last_offset_delta=2))), label="count")
    produce(b, topic_data(b, name, (0, batch(codec="gzip", records=[record(0), record(3)], last_offset_delta=1))), label="gap")
    produce(b, topic_data(b, name, (0, batch(codec="gzip", payload=compress("gzip", b"\xff" * 40), records=[b""]))), label="garbage")


@case("Produce", "3+")
def base_offsets_that_are_not_0(b):
    """The broker assigns offsets; a client's base offset must be 0."""
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch([b"a", b"b"], base_offset=100))))
    fetched(b, name)


@case("Produce", "3+")
def a_leader_epoch_in_the_batch(b):
    """Overwritten by the broker's."""
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch([b"a"], leader_epoch=77))))
    fetched(b, name)


@case("Produce", "3+")
def codecs(b):
    """gzip, snappy (Java's framing and none), lz4, zstd from version 7 on."""
    name = b.topic("orders")
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        produce(b, topic_data(b, name, (0, batch([b"a" * 100, b"b" * 100], codec=codec))), label=codec)
    raw = compress("snappy", record(0), framing="raw")
    produce(b, topic_data(b, name, (0, batch(records=[b""], codec="snappy", payload=raw))), label="snappy without framing")


@case("Produce", "3+")
def an_unknown_codec(b):
    name = b.topic("orders")
    for codec in (5, 6, 7):
        produce(b, topic_data(b, name, (0, batch([b"a"], attributes=codec))), label=f"codec {codec}")


@case("Produce", "3+")
def attributes_nobody_knows(b):
    """Unused bits of the batch's attributes."""
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch([b"a"], attributes=0x80))), label="bit 7")
    produce(b, topic_data(b, name, (0, batch([b"a"], attributes=0x40))), label="delete horizon")
    produce(b, topic_data(b, name, (0, batch(records=[record(0, attributes=0x7F)]))), label="record attributes")
    fetched(b, name)


@case("Produce", "3+")
def control_batches_from_a_client(b):
    """INVALID_RECORD."""
    name = b.topic("orders")
    rows = [record(0, key=b"\0\0\0\1", value=b"\0\0\0\0\0\0")]
    produce(b, topic_data(b, name, (0, batch(records=rows, attributes=CONTROL))), label="plain")
    data = batch(records=rows, attributes=CONTROL | TRANSACTIONAL, producer_id=1, producer_epoch=0, base_sequence=0)
    produce(b, topic_data(b, name, (0, data)), label="transactional")


@case("Produce", "3+")
def log_append_time_from_a_client(b):
    """The timestamp type is the broker's to set."""
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch([b"a"], attributes=TIMESTAMP_TYPE))))


@case("Produce", "3+")
def a_topic_with_log_append_time(b):
    """The broker's clock; the answer tells it."""
    name = b.topic("orders", configs={"message.timestamp.type": "LogAppendTime"})
    produce(b, topic_data(b, name, (0, batch([b"a", b"b"], timestamp=1))))


@case("Produce", "3+")
def timestamps_out_of_bounds(b):
    """INVALID_TIMESTAMP with the records that are at fault."""
    name = b.topic("bounded", configs={"message.timestamp.before.max.ms": "3600000", "message.timestamp.after.max.ms": "3600000"})
    produce(b, topic_data(b, name, (0, batch([b"a"], timestamp=NOW))), label="now")
    produce(b, topic_data(b, name, (0, batch([b"a"], timestamp=NOW - 7_200_000))), label="past")
    produce(b, topic_data(b, name, (0, batch([b"a"], timestamp=NOW + 7_200_000))), label="future")
    mixed = batch(records=[record(0, 0), record(1, -7_200_000), record(2, 0), record(3, -7_200_000)], timestamp=NOW)
    produce(b, topic_data(b, name, (0, mixed)), label="some in the past")
    produce(b, topic_data(b, name, (0, batch([b"a"], timestamp=-1))), label="none")


@case("Produce", "3+")
def timestamps_out_of_bounds_by_default(b):
    """after.max is an hour, before.max is unbounded."""
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch([b"a"], timestamp=0))), label="1970")
    produce(b, topic_data(b, name, (0, batch([b"a"], timestamp=NOW + 86_400_000))), label="tomorrow")
    produce(b, topic_data(b, name, (0, batch([b"a"], timestamp=2**62))), label="the far future")


@case("Produce", "3+")
def timestamps_that_are_negative(b):
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch([b"a"], timestamp=-1))), label="none")
    produce(b, topic_data(b, name, (0, batch([b"b"], timestamp=-2))), label="-2")
    produce(b, topic_data(b, name, (0, batch([b"c"], timestamp=-(10**12)))), label="before 1970")
    fetched(b, name)


@case("Produce", "3+")
def max_timestamp_that_lies(b):
    """The batch's own maximum is not what its records say."""
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch([b"a"], max_timestamp=1_600_000_009_999))), label="too late")
    produce(b, topic_data(b, name, (0, batch([b"a"], max_timestamp=5))), label="too early")
    produce(b, topic_data(b, name, (0, batch([b"a"], max_timestamp=-1))), label="none")


@case("Produce", "3+")
def too_large(b):
    """max.message.bytes of the topic: MESSAGE_TOO_LARGE."""
    name = b.topic("small", configs={"max.message.bytes": "200"})
    produce(b, topic_data(b, name, (0, batch([b"x" * 100]))), label="within")
    produce(b, topic_data(b, name, (0, batch([b"x" * 200]))), label="above")
    size = len(batch([b"x" * 100])) - 100
    produce(b, topic_data(b, name, (0, batch([b"x" * (200 - size)]))), label="exactly")
    produce(b, topic_data(b, name, (0, batch([b"x" * (201 - size)]))), label="one more")


@case("Produce", "3+")
def keys_under_compaction(b):
    """cleanup.policy=compact refuses records without a key: INVALID_RECORD with the records at fault."""
    name = b.topic("table", configs={"cleanup.policy": "compact"})
    produce(b, topic_data(b, name, (0, batch(records=[record(0, key=b"k")]))), label="with keys")
    produce(b, topic_data(b, name, (0, batch(records=[record(0, key=b"")]))), label="empty key")
    produce(b, topic_data(b, name, (0, batch(records=[record(0, key=b"k"), record(1), record(2, key=b"k"), record(3)]))), label="some without")
    produce(b, topic_data(b, name, (0, batch(records=[record(0)], codec="gzip"))), label="compressed")


@case("Produce", "3+")
def a_reserved_topic(b):
    """Clients may not write to the group coordinator's own topic."""
    if b.version < 13:
        produce(b, topic_data(b, "__consumer_offsets", (0, batch())))


@case("Produce", "3+")
def broker_compression(b):
    """compression.type of the topic: the batch is compressed anew."""
    name = b.topic("packed", configs={"compression.type": "gzip"})
    produce(b, topic_data(b, name, (0, batch([b"a" * 50, b"b" * 50]))))
    fetched(b, name)


@case("Produce", "3+")
def uncompressed_by_the_broker(b):
    name = b.topic("plain", configs={"compression.type": "uncompressed"})
    produce(b, topic_data(b, name, (0, batch([b"a" * 50, b"b" * 50], codec="gzip"))))
    fetched(b, name)


@case("Produce", "3+")
def a_deleted_topic(b):
    """Gone means unknown, also when a topic of the same name is there again."""
    name = b.topic("phoenix")
    before = b.topic_id(name)
    produce(b, topic_data(b, name, (0, batch([b"a"]))), label="before")
    b.ask("DeleteTopics", Topics=[{"Name": name}], TimeoutMs=10_000)
    b.settle("Metadata", lambda a: a["Topics"][0]["ErrorCode"] == 3, Topics=[{"Name": name}], AllowAutoTopicCreation=False)
    produce(b, topic_data(b, name, (0, batch([b"b"])), topic_id=before), label="deleted")
    b.topic("phoenix")
    produce(b, topic_data(b, name, (0, batch([b"c"])), topic_id=before), label="the old id")
    produce(b, topic_data(b, name, (0, batch([b"d"]))), label="the new id")


# --- idempotent producers --------------------------------------------------------------------------------------------------------------


def producer(b):
    """A producer id of the broker's."""
    answer = b.settle("InitProducerId", lambda a: not a["ErrorCode"], TransactionalId=None, TransactionTimeoutMs=60_000)
    return answer["ProducerId"]


def idempotent(b, name, pid, sequence, values=(b"v",), epoch=0, label=None, partition=0, **more):
    data = batch(list(values), producer_id=pid, producer_epoch=epoch, base_sequence=sequence, **more)
    return produce(b, topic_data(b, name, (partition, data)), label=label)


@case("Produce", "3+")
def idempotent_in_order(b):
    name, pid = b.topic("orders"), producer(b)
    for sequence in range(4):
        idempotent(b, name, pid, sequence)
    fetched(b, name)


@case("Produce", "3+")
def idempotent_duplicates(b):
    """Each of the last five batches is answered with its first offset and not stored again."""
    name, pid = b.topic("orders"), producer(b)
    for sequence in range(0, 14, 2):
        idempotent(b, name, pid, sequence, (b"a", b"b"), label=f"first {sequence}")
    for sequence in range(0, 14, 2):
        idempotent(b, name, pid, sequence, (b"a", b"b"), label=f"again {sequence}")
    fetched(b, name)


@case("Produce", "3+")
def idempotent_gap(b):
    """OUT_OF_ORDER_SEQUENCE_NUMBER."""
    name, pid = b.topic("orders"), producer(b)
    idempotent(b, name, pid, 0)
    idempotent(b, name, pid, 2, label="gap")
    idempotent(b, name, pid, 1, label="the one that was missing")


@case("Produce", "3+")
def idempotent_batch_that_overlaps(b):
    """Neither a duplicate nor the next."""
    name, pid = b.topic("orders"), producer(b)
    idempotent(b, name, pid, 0, (b"a", b"b", b"c"))
    idempotent(b, name, pid, 1, (b"b", b"c"), label="inside")
    idempotent(b, name, pid, 0, (b"a", b"b"), label="shorter")
    idempotent(b, name, pid, 2, (b"c", b"d"), label="across")
    idempotent(b, name, pid, 0, (b"a", b"b", b"c", b"d"), label="longer")


@case("Produce", "3+")
def idempotent_first_sequence_is_not_0(b):
    """A producer the partition does not know (any more) may begin anywhere."""
    name, pid = b.topic("orders"), producer(b)
    idempotent(b, name, pid, 41)
    idempotent(b, name, pid, 42)


@case("Produce", "3+")
def idempotent_epochs(b):
    """A new epoch begins at sequence 0 and fences the older one: INVALID_PRODUCER_EPOCH."""
    name, pid = b.topic("orders"), producer(b)
    idempotent(b, name, pid, 0, epoch=0)
    idempotent(b, name, pid, 1, epoch=1, label="new epoch, not from 0")
    idempotent(b, name, pid, 0, epoch=1, label="new epoch")
    idempotent(b, name, pid, 1, epoch=0, label="old epoch")
    idempotent(b, name, pid, 0, epoch=0, label="old epoch, a duplicate then")
    idempotent(b, name, pid, 0, epoch=1, label="duplicate")


@case("Produce", "3+")
def idempotent_partitions_are_apart(b):
    name, pid = b.topic("orders", partitions=2), producer(b)
    idempotent(b, name, pid, 0, partition=0, label="0 at 0")
    idempotent(b, name, pid, 0, partition=1, label="0 at 1")
    idempotent(b, name, pid, 1, partition=1, label="1 at 1")
    idempotent(b, name, pid, 1, partition=0, label="1 at 0")


@case("Produce", "3+")
def idempotent_sequence_wraps(b):
    """After 2^31 - 1 comes 0."""
    name, pid = b.topic("orders"), producer(b)
    idempotent(b, name, pid, 2**31 - 2, (b"a", b"b"), label="last")
    idempotent(b, name, pid, 0, label="wrapped")
    idempotent(b, name, pid, 2**31 - 2, (b"a", b"b"), label="duplicate")


@case("Produce", "3+")
def idempotent_batch_across_the_wrap(b):
    name, pid = b.topic("orders"), producer(b)
    idempotent(b, name, pid, 2**31 - 1, (b"a", b"b", b"c"), label="across")
    idempotent(b, name, pid, 2, label="next")


@case("Produce", "3+")
def idempotent_odd_numbers(b):
    """A producer id without a sequence, a negative epoch, and the like."""
    name, pid = b.topic("orders"), producer(b)
    idempotent(b, name, pid, -1, label="no sequence")
    idempotent(b, name, pid, 0, epoch=-1, label="no epoch")
    idempotent(b, name, pid, -5, label="sequence -5")
    idempotent(b, name, -1, 0, label="no producer id")
    idempotent(b, name, -7, 0, label="producer id -7")
    idempotent(b, name, 2**62, 0, label="a producer id nobody gave")


@case("Produce", "3+")
def a_transactional_batch_without_a_transaction(b):
    """The transactional bit from a producer that opened none."""
    name, pid = b.topic("orders"), producer(b)
    idempotent(b, name, pid, 0, attributes=TRANSACTIONAL, label="no transactional id")


@case("Produce", "3+")
def a_transactional_batch_without_a_producer(b):
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch([b"a"], attributes=TRANSACTIONAL))))


@case("Produce", "3+")
def a_transactional_id_with_plain_batches(b):
    name = b.topic("orders")
    produce(b, topic_data(b, name, (0, batch([b"a"]))), transactional_id=b.name("payments"))
