"""CreateTopics (19), DeleteTopics (20), CreatePartitions (37), DeleteRecords (21)."""

from harness.cases import case
from harness.records import batch
from harness.schema import ZERO_UUID

MISSING_ID = "5ca1ab1e" * 4


def wanted(name, partitions=1, replicas=1, assignments=(), configs=()):
    return {
        "Name": name,
        "NumPartitions": partitions,
        "ReplicationFactor": replicas,
        "Assignments": [{"PartitionIndex": i, "BrokerIds": list(brokers)} for i, brokers in assignments],
        "Configs": [{"Name": k, "Value": v} for k, v in configs],
    }


def create(b, *topics, label=None, validate=False, timeout=10_000):
    return b.send("CreateTopics", label=label, Topics=list(topics), timeoutMs=timeout, validateOnly=validate)


def seen(b, name, label="what is there", usable=True):
    """The topic as Metadata has it."""

    def settled(answer):
        topic = answer["Topics"][0]
        return (not topic["ErrorCode"] and all(p["LeaderId"] >= 0 for p in topic["Partitions"])) == usable

    return b.until("Metadata", settled, version=9, label=label, seconds=5, Topics=[{"Name": name}], AllowAutoTopicCreation=False)


# --- CreateTopics ----------------------------------------------------------------------------------------------------------------------


@case("CreateTopics", "2+")
def one_topic(b):
    name = b.name("orders")
    create(b, wanted(name, 3))
    seen(b, name)


@case("CreateTopics", "2+")
def several_topics(b):
    names = [b.name(text) for text in ("c", "a", "b")]
    create(b, *(wanted(n) for n in names))


@case("CreateTopics", "2+")
def defaults(b):
    """-1 partitions and -1 replicas are the broker's defaults (KIP-464; before version 4 they are invalid)."""
    name = b.name("orders")
    create(b, wanted(name, -1, -1))
    create(b, wanted(b.name("partitions"), -1, 1), label="partitions")
    create(b, wanted(b.name("replicas"), 1, -1), label="replicas")


@case("CreateTopics", "2+")
def a_topic_that_exists(b):
    """TOPIC_ALREADY_EXISTS."""
    name = b.topic("orders")
    create(b, wanted(name))
    create(b, wanted(name), label="only validated", validate=True)
    create(b, wanted(name, 0), label="with another fault")


@case("CreateTopics", "2+")
def names(b):
    """INVALID_TOPIC_EXCEPTION."""
    for text in ("", ".", "..", "a b", "a/b", "ü", "x" * 250, "a:b", "a\nb", "a\\b"):
        create(b, wanted(text), label=f"name {text[:6]!r}")


@case("CreateTopics", "2+")
def names_that_collide(b):
    """A dot and an underscore are the same in metric names."""
    create(b, wanted(b.name("a.b")))
    seen(b, b.name("a.b"))
    create(b, wanted(b.name("a_b")), label="collides")
    create(b, wanted(b.name("c.d")), wanted(b.name("c_d")), label="in one request")


@case("CreateTopics", "2+")
def partition_counts(b):
    """INVALID_PARTITIONS."""
    for count in (0, -2, -(2**31)):
        create(b, wanted(b.name(f"t{count}"), count), label=f"{count} partitions")


@case("CreateTopics", "2+")
def replication_factors(b):
    """INVALID_REPLICATION_FACTOR."""
    for factor in (0, -2):
        create(b, wanted(b.name(f"t{factor}"), 1, factor), label=f"factor {factor}")


@case("CreateTopics", "2+")
def more_replicas_than_brokers(b):
    create(b, wanted(b.name("orders"), 1, 3))


@case("CreateTopics", "2+")
def assignments(b):
    """Given by hand: -1 partitions and -1 replicas go with them."""
    name = b.name("orders")
    create(b, wanted(name, -1, -1, [(0, [1]), (1, [1])]))
    seen(b, name)


@case("CreateTopics", "2+")
def assignments_that_are_wrong(b):
    """INVALID_REPLICA_ASSIGNMENT, or INVALID_REQUEST when the counts are given too."""
    for label, partitions, replicas, given in (
        ("a gap", -1, -1, [(0, [1]), (2, [1])]),
        ("not from 0", -1, -1, [(1, [1])]),
        ("no brokers", -1, -1, [(0, [])]),
        ("a broker twice", -1, -1, [(0, [1, 1])]),
        ("an unknown broker", -1, -1, [(0, [9])]),
        ("a negative broker", -1, -1, [(0, [-1])]),
        ("a partition twice", -1, -1, [(0, [1]), (0, [1])]),
        ("a negative partition", -1, -1, [(-1, [1])]),
        ("with a count", 1, -1, [(0, [1])]),
        ("with a factor", -1, 1, [(0, [1])]),
    ):
        create(b, wanted(b.name(label.replace(" ", "-")), partitions, replicas, given), label=label)


@case("CreateTopics", "2+")
def only_validated(b):
    """Everything is judged, nothing is done."""
    name = b.name("orders")
    create(b, wanted(name, 2), validate=True)
    create(b, wanted(name, 0), validate=True, label="a fault")
    create(b, wanted(name, 1, 1, configs=[("retention.ms", "x")]), validate=True, label="a bad config")
    seen(b, name, usable=False)


@case("CreateTopics", "2+")
def the_same_name_twice(b):
    """INVALID_REQUEST for it; the others are created."""
    name, other = b.name("twice"), b.name("other")
    create(b, wanted(name), wanted(other), wanted(name, 2))


@case("CreateTopics", "2+")
def good_and_bad_together(b):
    create(b, wanted(b.name("good")), wanted("b a d"), wanted(b.name("none"), 0))


@case("CreateTopics", "2+")
def no_topics(b):
    create(b)


@case("CreateTopics", "2+")
def timeouts(b):
    """No time at all: REQUEST_TIMED_OUT."""
    for timeout in (0, -1):
        answer = b.ask("CreateTopics", version=b.version, Topics=[wanted(b.name(f"t{timeout}"))], timeoutMs=timeout)
        b.note(f"timeout {timeout}", answer["Topics"][0]["ErrorCode"])


@case("CreateTopics", "2+")
def configs(b):
    """Those given are told back from version 5 on, with all the others."""
    create(
        b,
        wanted(
            b.name("orders"),
            configs=[("retention.ms", "1000"), ("cleanup.policy", "compact,delete"), ("min.insync.replicas", "1"), ("compression.type", "zstd")],
        ),
    )


@case("CreateTopics", "2+")
def configs_that_are_wrong(b):
    """INVALID_CONFIG."""
    for label, name, value in (
        ("unknown", "no.such.config", "1"),
        ("empty name", "", "1"),
        ("not a number", "retention.ms", "soon"),
        ("out of range", "retention.ms", "-2"),
        ("empty value", "retention.ms", ""),
        ("null value", "retention.ms", None),
        ("not in the list", "cleanup.policy", "burn"),
        ("one not in the list", "cleanup.policy", "delete,burn"),
        ("not a boolean", "preallocate", "perhaps"),
        ("above", "min.cleanable.dirty.ratio", "1.5"),
        ("too large", "max.message.bytes", "2147483648"),
        ("negative", "max.message.bytes", "-1"),
        ("a broker's", "log.retention.ms", "1000"),
        ("tiered storage", "remote.storage.enable", "true"),
        ("codec", "compression.type", "brotli"),
        ("min in-sync", "min.insync.replicas", "0"),
        ("timestamp type", "message.timestamp.type", "Whenever"),
        ("old", "message.format.version", "3.0"),
    ):
        create(b, wanted(b.name(label.replace(" ", "-")), configs=[(name, value)]), label=label)


@case("CreateTopics", "2+")
def configs_that_do_not_go_together(b):
    create(b, wanted(b.name("a"), configs=[("local.retention.ms", "5000"), ("retention.ms", "1000")]), label="local above total")
    create(b, wanted(b.name("b"), configs=[("min.compaction.lag.ms", "5000"), ("max.compaction.lag.ms", "1000")]), label="lags")
    create(b, wanted(b.name("c"), configs=[("segment.ms", "5000"), ("segment.jitter.ms", "9000")]), label="jitter")


@case("CreateTopics", "2+")
def the_same_config_twice(b):
    create(b, wanted(b.name("orders"), configs=[("retention.ms", "1000"), ("retention.ms", "2000")]))


@case("CreateTopics", "2+")
def reserved_names(b):
    create(b, wanted("__consumer_offsets"))


@case("CreateTopics", "2+")
def spaces_around_values(b):
    create(b, wanted(b.name("orders"), configs=[("retention.ms", " 1000 "), ("cleanup.policy", " delete , compact ")]))


# --- DeleteTopics ----------------------------------------------------------------------------------------------------------------------


def delete(b, *topics, label=None, timeout=10_000):
    """Names, or (name, id) pairs for version 6."""
    pairs = [t if isinstance(t, tuple) else (t, ZERO_UUID) for t in topics]
    return b.send(
        "DeleteTopics",
        label=label,
        Topics=[{"Name": n, "TopicId": i} for n, i in pairs],
        TopicNames=[n or "" for n, _ in pairs],
        TimeoutMs=timeout,
    )


@case("DeleteTopics", "1+")
def by_name(b):
    name = b.topic("orders")
    delete(b, name)
    seen(b, name, usable=False)
    delete(b, name, label="again")


@case("DeleteTopics", "1+")
def several_by_name(b):
    one, two = b.topic("one"), b.topic("two")
    delete(b, two, b.name("missing"), one)


@case("DeleteTopics", "1+")
def names_of_nothing(b):
    for text in ("", "a b", "x" * 300):
        delete(b, text, label=f"name {text[:5]!r}")
    delete(b, label="none")


@case("DeleteTopics", "1+")
def the_same_topic_twice(b):
    """INVALID_REQUEST."""
    name = b.topic("orders")
    delete(b, name, name)


@case("DeleteTopics", "6+")
def by_id(b):
    name = b.topic("orders")
    delete(b, (None, b.topic_id(name)))
    seen(b, name, usable=False)
    delete(b, (None, b.topic_id(name)), label="again")


@case("DeleteTopics", "6+")
def ids_of_nothing(b):
    delete(b, (None, MISSING_ID), label="unknown")
    delete(b, (None, ZERO_UUID), label="zero")


@case("DeleteTopics", "6+")
def by_name_and_id(b):
    """Not both for one topic: INVALID_REQUEST."""
    name = b.topic("orders")
    delete(b, (name, b.topic_id(name)), label="that agree")
    delete(b, (name, MISSING_ID), label="that do not")
    delete(b, (name, ZERO_UUID), (None, b.topic_id(name)), label="in two entries")


@case("DeleteTopics", "6+")
def the_same_id_twice(b):
    name = b.topic("orders")
    delete(b, (None, b.topic_id(name)), (None, b.topic_id(name)))


# --- CreatePartitions ------------------------------------------------------------------------------------------------------------------


def grow(b, *topics, label=None, validate=False):
    """(name, count, assignments or None)"""
    return b.send(
        "CreatePartitions",
        label=label,
        Topics=[
            {"Name": n, "Count": c, "Assignments": None if a is None else [{"BrokerIds": list(brokers)} for brokers in a]} for n, c, a in topics
        ],
        TimeoutMs=10_000,
        ValidateOnly=validate,
    )


@case("CreatePartitions")
def more(b):
    name = b.topic("orders")
    grow(b, (name, 3, None))
    b.until("Metadata", lambda a: len(a["Topics"][0]["Partitions"]) == 3, version=9, seconds=5, Topics=[{"Name": name}])


@case("CreatePartitions")
def not_more(b):
    """INVALID_PARTITIONS."""
    name = b.topic("orders", partitions=2)
    for count in (2, 1, 0, -1):
        grow(b, (name, count, None), label=f"{count} partitions")


@case("CreatePartitions")
def of_topics_nobody_knows(b):
    grow(b, (b.name("missing"), 3, None), label="unknown")
    grow(b, ("", 3, None), label="empty")
    grow(b, ("a b", 3, None), label="invalid")
    grow(b, label="none")


@case("CreatePartitions")
def with_assignments(b):
    name = b.topic("orders")
    for label, given in (
        ("too few", [[1]]),
        ("too many", [[1], [1], [1]]),
        ("an unknown broker", [[1], [7]]),
        ("a broker twice", [[1], [1, 1]]),
        ("no brokers", [[1], []]),
        ("empty", []),
        ("right", [[1], [1]]),
    ):
        grow(b, (name, 3, given), label=label, validate=label == "empty")


@case("CreatePartitions")
def only_validated_partitions(b):
    name = b.topic("orders")
    grow(b, (name, 3, None), validate=True)
    grow(b, (name, 0, None), validate=True, label="a fault")
    seen(b, name)


@case("CreatePartitions")
def the_same_topic_twice_in_one(b):
    name, other = b.topic("orders"), b.topic("other")
    grow(b, (name, 2, None), (other, 2, None), (name, 3, None))


@case("CreatePartitions")
def good_and_bad_in_one(b):
    name = b.topic("orders")
    grow(b, (b.name("missing"), 2, None), (name, 2, None))


# --- DeleteRecords ---------------------------------------------------------------------------------------------------------------------


def trim(b, name, *partitions, label=None):
    wanted_partitions = [{"PartitionIndex": i, "Offset": o} for i, o in partitions]
    return b.send("DeleteRecords", label=label, Topics=[{"Name": name, "Partitions": wanted_partitions}], TimeoutMs=10_000)


@case("DeleteRecords")
def up_to_an_offset(b):
    name = b.topic("orders")
    b.produce(name, batch([b"a", b"b", b"c"]), batch([b"d"]))
    trim(b, name, (0, 2))
    trim(b, name, (0, 1), label="lower again")
    trim(b, name, (0, 2), label="the same again")
    trim(b, name, (0, 4), label="up to the end")
    trim(b, name, (0, 5), label="past the end")


@case("DeleteRecords")
def up_to_the_end(b):
    """-1 is the high watermark."""
    name = b.topic("orders")
    b.produce(name, batch([b"a", b"b"]))
    trim(b, name, (0, -1))
    b.produce(name, batch([b"c"]))
    trim(b, name, (0, -1), label="again")
    trim(b, name, (0, -2), label="-2")


@case("DeleteRecords")
def of_an_empty_partition(b):
    name = b.topic("orders")
    trim(b, name, (0, 0))
    trim(b, name, (0, -1), label="-1")
    trim(b, name, (0, 1), label="past the end")


@case("DeleteRecords")
def of_partitions_nobody_knows(b):
    name = b.topic("orders")
    trim(b, name, (3, 0), (0, 0), label="partition")
    trim(b, b.name("missing"), (0, 0), label="topic")
    trim(b, "a b", (0, 0), label="name")
    trim(b, name, label="no partitions")
    b.send("DeleteRecords", label="no topics", Topics=[], TimeoutMs=10_000)


@case("DeleteRecords")
def of_a_compacted_topic(b):
    """Only what is deleted by time or size may be deleted by hand: POLICY_VIOLATION."""
    name = b.topic("table", configs={"cleanup.policy": "compact"})
    trim(b, name, (0, 0))
    both = b.topic("both", configs={"cleanup.policy": "compact,delete"})
    trim(b, both, (0, 0), label="compact,delete")


@case("DeleteRecords")
def several_topics_at_once(b):
    first, second = b.topic("first", partitions=2), b.topic("second")
    b.produce(first, batch([b"a", b"b"]), partition=1)
    b.send(
        "DeleteRecords",
        Topics=[
            {"Name": first, "Partitions": [{"PartitionIndex": 1, "Offset": 1}, {"PartitionIndex": 0, "Offset": 9}]},
            {"Name": second, "Partitions": [{"PartitionIndex": 0, "Offset": 0}]},
        ],
        TimeoutMs=10_000,
    )
