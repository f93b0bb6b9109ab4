"""ListOffsets (2): offsets by time, and the special ones: -1 latest, -2 earliest, -3 of the largest timestamp, -4 and -5 of tiered storage, -6."""

from harness.cases import case
from harness.records import batch, record

MISSING = 1_700_000_000_000


def ask(b, name, *timestamps, label=None, index=0, isolation=0, replica=-1, **more):
    """One request a timestamp: the same partition twice in one is refused."""
    for timestamp in timestamps:
        b.send(
            "ListOffsets",
            label=label or f"at {timestamp}",
            ReplicaId=replica,
            IsolationLevel=isolation,
            TimeoutMs=5000,
            Topics=[{"Name": name, "Partitions": [{"PartitionIndex": index, "Timestamp": timestamp, **more}]}],
        )


def filled(b, *batches, text="orders", configs=None):
    name = b.topic(text, configs=configs)
    b.produce(name, *batches)
    return name


@case("ListOffsets", "1+")
def of_an_empty_partition(b):
    name = b.topic("orders")
    ask(b, name, -1, -2, 0, MISSING)


@case("ListOffsets", "1+")
def earliest_and_latest(b):
    name = filled(b, batch([b"a", b"b"]), batch([b"c"]))
    ask(b, name, -1, -2)
    ask(b, name, -1, -2, isolation=1, label="read committed")


@case("ListOffsets", "1+")
def by_timestamp(b):
    """The first record whose own timestamp is at least that, also inside a batch."""
    rows = [record(0, 0), record(1, 10), record(2, 20)]
    name = filled(
        b,
        batch(records=rows, timestamp=1000, max_timestamp=1020),
        batch([b"x", b"y"], timestamp=2000),
        batch(records=[record(0, 0), record(1, 5)], timestamp=3000, max_timestamp=3005),
    )
    ask(b, name, 0, 999, 1000, 1001, 1010, 1011, 1020, 1021, 2000, 2001, 3004, 3005, 3006, 2**62)


@case("ListOffsets", "1+")
def by_timestamp_out_of_order(b):
    """Timestamps that go back: the first record by offset, not the nearest by time."""
    rows = [record(0, 50), record(1, 10), record(2, 30)]
    name = filled(
        b,
        batch(records=rows, timestamp=1000, max_timestamp=1050),
        batch([b"x"], timestamp=500),
        batch(records=[record(0, 0), record(1, 100)], timestamp=1020, max_timestamp=1120),
    )
    ask(b, name, 0, 500, 1005, 1010, 1031, 1050, 1051, 1100, 1120, 1121)


@case("ListOffsets", "1+")
def by_timestamp_in_a_compressed_batch(b):
    rows = [record(0, 0), record(1, 10), record(2, 20)]
    name = filled(b, batch(records=rows, timestamp=1000, max_timestamp=1020, codec="gzip"))
    ask(b, name, 1000, 1005, 1020, 1021)


@case("ListOffsets", "1+")
def the_largest_timestamp(b):
    """-3, KIP-734, from version 7."""
    rows = [record(0, 50), record(1, 10), record(2, 50)]
    name = filled(b, batch([b"a"], timestamp=100), batch(records=rows, timestamp=1000, max_timestamp=1050), batch([b"z"], timestamp=700))
    ask(b, name, -3)


@case("ListOffsets", "1+")
def the_largest_timestamp_of_nothing(b):
    name = b.topic("orders")
    ask(b, name, -3)


@case("ListOffsets", "1+")
def the_largest_timestamp_twice(b):
    name = filled(b, batch([b"a"], timestamp=500), batch([b"b", b"c"], timestamp=500))
    ask(b, name, -3)


@case("ListOffsets", "1+")
def of_tiered_storage(b):
    """-4 earliest local (version 8), -5 latest tiered (9), -6 earliest pending upload (11)."""
    name = filled(b, batch([b"a", b"b"]))
    ask(b, name, -4, -5, -6)


@case("ListOffsets", "1+")
def unknown_special_timestamps(b):
    name = filled(b, batch([b"a", b"b"]))
    ask(b, name, -7, -100, -(2**63))


@case("ListOffsets", "1+")
def records_without_timestamps(b):
    name = filled(b, batch([b"a"], timestamp=-1), batch([b"b"], timestamp=-1))
    ask(b, name, -1, -2, -3, 0, 1)


@case("ListOffsets", "1+")
def after_records_were_deleted(b):
    """The log start moves; what is below is not found any more."""
    rows = [record(0, 900), record(1, 10), record(2, 20)]
    name = filled(b, batch(records=rows, timestamp=1000, max_timestamp=1900), batch([b"x"], timestamp=1500))
    b.ask("DeleteRecords", Topics=[{"Name": name, "Partitions": [{"PartitionIndex": 0, "Offset": 1}]}], TimeoutMs=10_000)
    ask(b, name, -1, -2, -4, 0, 1015, 1500)


@case("ListOffsets", "1+")
def after_everything_was_deleted(b):
    name = filled(b, batch([b"a", b"b"], timestamp=1000))
    b.ask("DeleteRecords", Topics=[{"Name": name, "Partitions": [{"PartitionIndex": 0, "Offset": -1}]}], TimeoutMs=10_000)
    ask(b, name, -1, -2, 0)


@case("ListOffsets", "1+")
def unknown_topics_and_partitions(b):
    name = b.topic("orders")
    ask(b, b.name("missing"), -1, label="topic")
    ask(b, name, -1, index=7, label="partition")
    ask(b, name, -1, index=-1, label="partition -1")
    ask(b, name, 1000, index=7, label="partition by time")
    ask(b, "", -1, label="empty name")


@case("ListOffsets", "1+")
def several_partitions(b):
    first, second = b.topic("first", partitions=3), filled(b, batch([b"a"]), text="second")
    b.send(
        "ListOffsets",
        ReplicaId=-1,
        TimeoutMs=5000,
        Topics=[
            {"Name": second, "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]},
            {"Name": first, "Partitions": [{"PartitionIndex": i, "Timestamp": -1} for i in (2, 0, 9)]},
        ],
    )


@case("ListOffsets", "1+")
def the_same_partition_twice(b):
    """INVALID_REQUEST for it."""
    name = filled(b, batch([b"a"]))
    b.send(
        "ListOffsets",
        ReplicaId=-1,
        TimeoutMs=5000,
        Topics=[{"Name": name, "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}, {"PartitionIndex": 0, "Timestamp": -2}]}],
    )


@case("ListOffsets", "1+")
def no_topics(b):
    b.send("ListOffsets", ReplicaId=-1, TimeoutMs=5000, Topics=[])


@case("ListOffsets", "4+")
def leader_epochs(b):
    """Checked against the broker's; the epoch of the record is answered."""
    name = filled(b, batch([b"a"]))
    for epoch in (-1, 0, 3):
        ask(b, name, -1, CurrentLeaderEpoch=epoch, label=f"epoch {epoch}")
        ask(b, name, 0, CurrentLeaderEpoch=epoch, label=f"by time, epoch {epoch}")


@case("ListOffsets", "1+")
def replica_ids(b):
    """-2 is a debugging consumer; others are followers that this broker does not know."""
    name = filled(b, batch([b"a"]))
    ask(b, name, -1, -2, replica=-2, label="debug")
    ask(b, name, -1, -2, replica=44, label="follower")


@case("ListOffsets", "2+")
def an_unknown_isolation_level(b):
    name = filled(b, batch([b"a"]))
    ask(b, name, -1, isolation=9)


@case("ListOffsets", "1+")
def log_append_time(b):
    """Each record has its batch's time."""
    name = filled(b, batch([b"a", b"b"], timestamp=1), configs={"message.timestamp.type": "LogAppendTime"})
    ask(b, name, 1, 2**62)
