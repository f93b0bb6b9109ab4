"""OffsetForLeaderEpoch (23): where an epoch ended, so that a client knows where its log and the broker's part ways."""

from harness.cases import case
from harness.records import batch


def ask(b, name, epoch, current=-1, index=0, label=None, replica=-1):
    b.send(
        "OffsetForLeaderEpoch",
        label=label or f"epoch {epoch}",
        ReplicaId=replica,
        Topics=[{"Topic": name, "Partitions": [{"Partition": index, "CurrentLeaderEpoch": current, "LeaderEpoch": epoch}]}],
    )


@case("OffsetForLeaderEpoch", "2+")
def epochs(b):
    """The present one ends at the log's end; one that has not begun yet is unknown."""
    name = b.topic("orders")
    b.produce(name, batch([b"a", b"b"]))
    for epoch in (0, 1, 50, -1, -2):
        ask(b, name, epoch)


@case("OffsetForLeaderEpoch", "2+")
def of_an_empty_partition(b):
    ask(b, b.topic("orders"), 0)


@case("OffsetForLeaderEpoch", "2+")
def current_leader_epochs(b):
    """Newer than the broker's: UNKNOWN_LEADER_EPOCH."""
    name = b.topic("orders")
    for current in (0, 1, 9, -1, -5):
        ask(b, name, 0, current, label=f"current {current}")


@case("OffsetForLeaderEpoch", "2+")
def unknown_topics_and_partitions(b):
    ask(b, b.name("missing"), 0, label="topic")
    ask(b, b.topic("orders"), 0, index=5, label="partition")
    ask(b, "", 0, label="empty name")


@case("OffsetForLeaderEpoch", "2+")
def several(b):
    first, second = b.topic("first", partitions=2), b.topic("second")
    b.send(
        "OffsetForLeaderEpoch",
        ReplicaId=-1,
        Topics=[
            {"Topic": second, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": -1, "LeaderEpoch": 0}]},
            {"Topic": first, "Partitions": [{"Partition": p, "CurrentLeaderEpoch": -1, "LeaderEpoch": 0} for p in (1, 0, 4)]},
        ],
    )


@case("OffsetForLeaderEpoch", "2+")
def no_topics(b):
    b.send("OffsetForLeaderEpoch", ReplicaId=-1, Topics=[])


@case("OffsetForLeaderEpoch", "3+")
def a_replica(b):
    ask(b, b.topic("orders"), 0, replica=44)
