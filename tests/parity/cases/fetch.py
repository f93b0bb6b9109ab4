"""Fetch (1): reads from partitions. Versions 4 to 18; 7 brought sessions (KIP-227), 9 leader epochs, 12 the last fetched epoch, 13 topic ids,
15 took the replica id to a tagged field."""

import time

from harness.cases import case
from harness.records import batch, record
from harness.schema import ZERO_UUID

MISSING_ID = "5ca1ab1e" * 4


def partition(index=0, offset=0, max_bytes=1_000_000, **more):
    return {"Partition": index, "FetchOffset": offset, "PartitionMaxBytes": max_bytes, **more}


def topic(b, name, *partitions, topic_id=None):
    return {"Topic": name, "TopicId": b.topic_id(name) if topic_id is None else topic_id, "Partitions": list(partitions)}


def fields(*topics, wait=0, min_bytes=0, max_bytes=10_000_000, session=0, epoch=-1, forgotten=(), isolation=0, **more):
    return {
        "ReplicaId": -1,
        "MaxWaitMs": wait,
        "MinBytes": min_bytes,
        "MaxBytes": max_bytes,
        "IsolationLevel": isolation,
        "SessionId": session,
        "SessionEpoch": epoch,
        "Topics": list(topics),
        "ForgottenTopicsData": list(forgotten),
        **more,
    }


def fetch(b, *topics, label=None, on=None, **more):
    return b.send("Fetch", label=label, on=on, **fields(*topics, **more))


@case("Fetch", "4+")
def from_the_start(b):
    name = b.topic("orders")
    b.produce(name, batch([b"a", b"b", b"c"]), batch([b"d"]))
    fetch(b, topic(b, name, partition()))


@case("Fetch", "4+")
def from_the_end(b):
    """Nothing there, at once."""
    name = b.topic("orders")
    b.produce(name, batch([b"a"]))
    fetch(b, topic(b, name, partition(offset=1)))


@case("Fetch", "4+")
def an_empty_partition(b):
    fetch(b, topic(b, b.topic("orders"), partition()))


@case("Fetch", "4+")
def from_a_batch_boundary(b):
    name = b.topic("orders")
    b.produce(name, batch([b"a", b"b", b"c"]), batch([b"d", b"e"]))
    fetch(b, topic(b, name, partition(offset=3)))


@case("Fetch", "4+")
def from_inside_a_batch(b):
    """The whole batch comes; the client skips what it did not ask for."""
    name = b.topic("orders")
    b.produce(name, batch([b"a", b"b", b"c"]), batch([b"d", b"e"]))
    answer = b.ask("Fetch", version=b.version, **fields(topic(b, name, partition(offset=4))))
    found = answer["Responses"][0]["Partitions"][0]
    b.note("error", found["ErrorCode"])
    b.note("high watermark", found["HighWatermark"])
    b.note("contains the offset", any(r["Offset"] == 4 and r["Value"] == b"e" for r in all_records(found)))


def all_records(found):
    from harness.records import decode

    return [r for one in decode(found["Records"] or b"") for r in one.get("Records", [])]


@case("Fetch", "4+")
def out_of_range(b):
    """OFFSET_OUT_OF_RANGE: below the log start, above the end, negative."""
    name = b.topic("orders")
    b.produce(name, batch([b"a", b"b"]))
    for offset in (3, 2**62, -1, -2, -7):
        fetch(b, topic(b, name, partition(offset=offset)), label=f"offset {offset}")


@case("Fetch", "4+")
def below_the_log_start(b):
    """After DeleteRecords."""
    name = b.topic("orders")
    b.produce(name, batch([b"a", b"b"]), batch([b"c"]))
    b.ask("DeleteRecords", Topics=[{"Name": name, "Partitions": [{"PartitionIndex": 0, "Offset": 2}]}], TimeoutMs=10_000)
    fetch(b, topic(b, name, partition(offset=0)), label="below")
    fetch(b, topic(b, name, partition(offset=2)), label="at")


@case("Fetch", "4+")
def log_start_offset_of_the_client(b):
    """Followers say theirs; a consumer's is ignored."""
    name = b.topic("orders")
    b.produce(name, batch([b"a"]))
    fetch(b, topic(b, name, partition(LogStartOffset=55)))


@case("Fetch", "4+")
def unknown_topic(b):
    """UNKNOWN_TOPIC_OR_PARTITION; from version 13 UNKNOWN_TOPIC_ID."""
    fetch(b, topic(b, b.name("missing"), partition(), topic_id=MISSING_ID))


@case("Fetch", "13+")
def the_zero_topic_id(b):
    fetch(b, topic(b, "", partition(), topic_id=ZERO_UUID))


@case("Fetch", "4-12")
def odd_topic_names(b):
    for name in ("", "not a name", "x" * 300):
        fetch(b, topic(b, name, partition()), label=name[:10])


@case("Fetch", "4+")
def unknown_partitions(b):
    name = b.topic("orders")
    for index in (1, -1, 2**31 - 1):
        fetch(b, topic(b, name, partition(index)), label=f"partition {index}")


@case("Fetch", "4+")
def several_partitions(b):
    """Answered in the order asked."""
    first, second = b.topic("first", partitions=2), b.topic("second")
    b.produce(first, batch([b"a"]))
    b.produce(first, batch([b"b", b"c"]), partition=1)
    b.produce(second, batch([b"d"]))
    fetch(b, topic(b, second, partition()), topic(b, first, partition(1), partition(0)))


@case("Fetch", "4+")
def good_and_bad_partitions_together(b):
    name = b.topic("orders", partitions=2)
    b.produce(name, batch([b"a"]))
    fetch(b, topic(b, name, partition(0), partition(9)))
    fetch(b, topic(b, name, partition(0), partition(1, offset=50)), label="out of range")


@case("Fetch", "4+")
def the_same_partition_twice(b):
    name = b.topic("orders")
    b.produce(name, batch([b"a"]), batch([b"b"]))
    fetch(b, topic(b, name, partition(), partition(offset=1)))


@case("Fetch", "4+")
def no_topics(b):
    fetch(b)


@case("Fetch", "4+")
def no_partitions(b):
    fetch(b, topic(b, b.topic("orders")))


@case("Fetch", "4+")
def read_committed(b):
    """Without transactions the last stable offset is the high watermark; the aborted transactions are an empty list."""
    name = b.topic("orders")
    b.produce(name, batch([b"a"]))
    fetch(b, topic(b, name, partition()), isolation=1)
    fetch(b, topic(b, name, partition(offset=1)), isolation=1, label="at the end")


@case("Fetch", "4+")
def an_unknown_isolation_level(b):
    name = b.topic("orders")
    b.produce(name, batch([b"a"]))
    fetch(b, topic(b, name, partition()), isolation=7)


# --- limits ----------------------------------------------------------------------------------------------------------------------------


@case("Fetch", "4+")
def the_first_batch_always_comes(b):
    """However small the limits are."""
    name = b.topic("orders")
    b.produce(name, batch([b"x" * 500]), batch([b"y" * 500]))
    fetch(b, topic(b, name, partition(max_bytes=1)), label="partition limit")
    fetch(b, topic(b, name, partition()), max_bytes=1, label="request limit")
    fetch(b, topic(b, name, partition(max_bytes=0)), label="partition limit 0")
    fetch(b, topic(b, name, partition()), max_bytes=0, label="request limit 0")


@case("Fetch", "4+")
def negative_limits(b):
    name = b.topic("orders")
    b.produce(name, batch([b"x"]))
    fetch(b, topic(b, name, partition(max_bytes=-1)), label="partition limit")
    fetch(b, topic(b, name, partition()), max_bytes=-1, label="request limit")
    fetch(b, topic(b, name, partition()), min_bytes=-1, label="minimum")
    fetch(b, topic(b, name, partition()), wait=-1, label="wait")


@case("Fetch", "4+")
def the_request_limit_goes_over_partitions(b):
    """Once the limit is used up, the other partitions come back empty."""
    name = b.topic("orders", partitions=3)
    for index in range(3):
        b.produce(name, batch([b"x" * 500]), partition=index)
    fetch(b, topic(b, name, partition(0), partition(1), partition(2)), max_bytes=100)


@case("Fetch", "4+")
def whole_batches_up_to_the_limit(b):
    """Records up to a limit that falls between two batches."""
    name = b.topic("orders")
    one = batch([b"x" * 500])
    b.produce(name, one, one, one, one)
    fetch(b, topic(b, name, partition(max_bytes=2 * len(one))))


@case("Fetch", "4+")
def waiting_for_nothing(b):
    """max_wait_ms passes, and the answer is empty."""
    name = b.topic("orders")
    began = time.monotonic()
    fetch(b, topic(b, name, partition()), wait=300, min_bytes=1)
    b.note("waited", 0.25 < time.monotonic() - began < 3)


@case("Fetch", "4+")
def woken_by_a_record(b):
    """A long poll is answered when a record comes, long before it ends."""
    name = b.topic("orders")
    began = time.monotonic()
    pending = b.start("Fetch", on=b.connection(), **fields(topic(b, name, partition()), wait=10_000, min_bytes=1))
    b.produce(name, batch([b"a"]))
    pending.finish()
    b.note("did not wait", time.monotonic() - began < 5)


@case("Fetch", "4+")
def min_bytes_holds_it_back(b):
    """Not enough bytes: the wait passes, then what there is comes."""
    name = b.topic("orders")
    b.produce(name, batch([b"a"]))
    began = time.monotonic()
    fetch(b, topic(b, name, partition()), wait=300, min_bytes=100_000)
    b.note("waited", 0.25 < time.monotonic() - began < 3)


@case("Fetch", "4+")
def what_is_held_back(b):
    """An error of the log is answered at once; a partition that does not exist does not end the wait for the others."""
    name = b.topic("orders", partitions=2)
    for label, asked in (
        ("a partition that does not exist", [topic(b, name, partition(0), partition(7))]),
        ("only one that does not exist", [topic(b, name, partition(7))]),
        ("an offset out of range", [topic(b, name, partition(0), partition(1, offset=99))]),
        ("nothing asked", []),
    ):
        began = time.monotonic()
        fetch(b, *asked, wait=600, min_bytes=1, label=label)
        b.note(f"held back: {label}", time.monotonic() - began > 0.5)


# --- leader epochs ---------------------------------------------------------------------------------------------------------------------


@case("Fetch", "9+")
def leader_epochs(b):
    """-1 is not checked; newer than the broker's: UNKNOWN_LEADER_EPOCH."""
    name = b.topic("orders")
    b.produce(name, batch([b"a"]))
    for epoch in (-1, 0, 1, 77, 2**31 - 1):
        fetch(b, topic(b, name, partition(CurrentLeaderEpoch=epoch)), label=f"epoch {epoch}")


@case("Fetch", "12+")
def last_fetched_epochs(b):
    """KIP-595's divergence check serves consumers as well."""
    name = b.topic("orders")
    b.produce(name, batch([b"a", b"b"]))
    for epoch in (-1, 0, 5):
        fetch(b, topic(b, name, partition(offset=1, LastFetchedEpoch=epoch)), label=f"epoch {epoch}")


# --- sessions (KIP-227) ----------------------------------------------------------------------------------------------------------------


@case("Fetch", "7+")
def a_session(b):
    """A full fetch opens it; then only what changed is asked and answered."""
    name = b.topic("orders", partitions=2)
    b.produce(name, batch([b"a"]))
    opened = fetch(b, topic(b, name, partition(0), partition(1)), epoch=0, label="open")
    session = opened["SessionId"]
    fetch(b, session=session, epoch=1, label="the same again")
    fetch(b, topic(b, name, partition(0, offset=1)), session=session, epoch=2, label="moved on")
    fetch(b, session=session, epoch=3, label="nothing new")
    b.produce(name, batch([b"b"]), partition=1)
    fetch(b, session=session, epoch=4, label="a record in the other partition")
    fetch(b, topic(b, name, partition(1, offset=1)), session=session, epoch=5, label="read on")


@case("Fetch", "7+")
def a_session_without_partitions(b):
    """No session is made for nothing."""
    fetch(b, epoch=0)


@case("Fetch", "7+")
def forgotten_partitions(b):
    """Taken out of the session: no more answers for them."""
    name = b.topic("orders", partitions=2)
    opened = fetch(b, topic(b, name, partition(0), partition(1)), epoch=0, label="open")
    session = opened["SessionId"]
    gone = [{"Topic": name, "TopicId": b.topic_id(name), "Partitions": [0]}]
    fetch(b, session=session, epoch=1, forgotten=gone, label="forget")
    b.produce(name, batch([b"a"]))
    b.produce(name, batch([b"b"]), partition=1)
    fetch(b, session=session, epoch=2, label="only the other")


@case("Fetch", "7+")
def forgetting_what_was_never_there(b):
    name = b.topic("orders")
    session = fetch(b, topic(b, name, partition()), epoch=0, label="open")["SessionId"]
    fetch(b, session=session, epoch=1, forgotten=[{"Topic": name, "TopicId": b.topic_id(name), "Partitions": [5]}])


@case("Fetch", "7+")
def a_session_grows(b):
    first, second = b.topic("first"), b.topic("second")
    b.produce(second, batch([b"a"]))
    session = fetch(b, topic(b, first, partition()), epoch=0, label="open")["SessionId"]
    fetch(b, topic(b, second, partition()), session=session, epoch=1, label="grow")
    b.produce(first, batch([b"b"]))
    fetch(b, session=session, epoch=2, label="both")


@case("Fetch", "7+")
def wrong_session_epochs(b):
    """INVALID_FETCH_SESSION_EPOCH, and the session stays as it is."""
    name = b.topic("orders")
    session = fetch(b, topic(b, name, partition()), epoch=0, label="open")["SessionId"]
    for epoch in (2, 7, 2**31 - 1):
        fetch(b, session=session, epoch=epoch, label=f"epoch {epoch}")
    fetch(b, session=session, epoch=1, label="epoch 1")
    fetch(b, session=session, epoch=1, label="epoch 1 again")


@case("Fetch", "7+")
def unknown_sessions(b):
    """FETCH_SESSION_ID_NOT_FOUND."""
    name = b.topic("orders")
    fetch(b, session=123_456, epoch=1, label="no topics")
    fetch(b, topic(b, name, partition()), session=123_456, epoch=5, label="a topic")
    fetch(b, session=-5, epoch=1, label="negative")
    fetch(b, topic(b, name, partition()), session=0, epoch=5, label="no id but an epoch")


@case("Fetch", "7+")
def a_session_closed(b):
    """Epoch -1 with an id ends it; the answer is a full one."""
    name = b.topic("orders")
    b.produce(name, batch([b"a"]))
    session = fetch(b, topic(b, name, partition()), epoch=0, label="open")["SessionId"]
    fetch(b, topic(b, name, partition()), session=session, epoch=-1, label="close")
    fetch(b, session=session, epoch=1, label="afterwards")


@case("Fetch", "7+")
def a_session_opened_anew(b):
    """Epoch 0 with an id replaces the old session."""
    name = b.topic("orders")
    session = fetch(b, topic(b, name, partition()), epoch=0, label="open")["SessionId"]
    again = fetch(b, topic(b, name, partition()), session=session, epoch=0, label="again")["SessionId"]
    b.note("another session", again not in (0, session))
    fetch(b, session=session, epoch=1, label="the old one")


@case("Fetch", "7+")
def errors_in_a_session(b):
    """A partition that does not exist is answered each time."""
    name = b.topic("orders")
    session = fetch(b, topic(b, name, partition(0), partition(8)), epoch=0, label="open")["SessionId"]
    fetch(b, session=session, epoch=1, label="again")
    fetch(b, session=session, epoch=2, label="and again")


@case("Fetch", "13+")
def an_unknown_id_in_a_session(b):
    name = b.topic("orders")
    session = fetch(b, topic(b, name, partition()), topic(b, "", partition(), topic_id=MISSING_ID), epoch=0, label="open")["SessionId"]
    fetch(b, session=session, epoch=1, label="again")


@case("Fetch", "7+")
def a_topic_deleted_under_a_session(b):
    name, other = b.topic("orders"), b.topic("other")
    session = fetch(b, topic(b, name, partition()), topic(b, other, partition()), epoch=0, label="open")["SessionId"]
    b.ask("DeleteTopics", Topics=[{"Name": name}], TimeoutMs=10_000)
    b.settle("Metadata", lambda a: a["Topics"][0]["ErrorCode"] == 3, Topics=[{"Name": name}], AllowAutoTopicCreation=False)
    fetch(b, session=session, epoch=1, label="deleted")


@case("Fetch", "7-12")
def sessions_are_not_shared_by_versions(b):
    """A session opened with names cannot go on with ids: FETCH_SESSION_TOPIC_ID_ERROR."""
    name = b.topic("orders")
    session = fetch(b, topic(b, name, partition()), epoch=0, label="open")["SessionId"]
    b.send("Fetch", version=13, label="with ids", **fields(topic(b, name, partition(offset=0, max_bytes=77)), session=session, epoch=1))


@case("Fetch", "4+")
def headers_keys_nulls(b):
    """What was written comes back."""
    name = b.topic("orders")
    rows = [record(0, 0, b"k", None, [("h", b"1"), ("h", None)]), record(1, 3, None, b"{}"), record(2, 4, b"", b'{"a":1, "b":"x"}')]
    b.produce(name, batch(records=rows, max_timestamp=1_600_000_000_004))
    fetch(b, topic(b, name, partition()))


@case("Fetch", "4+")
def a_replica_that_is_not_one(b):
    """A follower's fetch from a node that is no replica of the partition."""
    name = b.topic("orders")
    b.produce(name, batch([b"a"]))
    b.send("Fetch", **(fields(topic(b, name, partition())) | {"ReplicaId": 55, "ReplicaState": {"ReplicaId": 55, "ReplicaEpoch": 1}}))


@case("Fetch", "12+")
def a_cluster_id(b):
    """Right, wrong, and none."""
    name = b.topic("orders")
    for label, cluster in (("none", None), ("right", b.broker.cluster_id), ("wrong", "of-another-cluster")):
        fetch(b, topic(b, name, partition()), label=label, ClusterId=cluster)


@case("Fetch", "11+")
def a_rack(b):
    """With one replica there is no nearer one to name."""
    name = b.topic("orders")
    b.produce(name, batch([b"a"]))
    fetch(b, topic(b, name, partition()), RackId="somewhere")
