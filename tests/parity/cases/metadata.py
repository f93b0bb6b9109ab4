"""Metadata (3): brokers, topics and who leads what."""

from harness.cases import case
from harness.schema import ZERO_UUID

MISSING_ID = "5ca1ab1e" * 4


@case("Metadata")
def one_topic(b):
    """Three partitions, each with its leader, its epoch, replicas and in-sync replicas."""
    name = b.topic("orders", partitions=3)
    b.send("Metadata", Topics=[{"Name": name}])


@case("Metadata")
def several_topics_in_the_order_asked(b):
    names = [b.topic(text) for text in ("zebra", "apple", "mango")]
    b.send("Metadata", Topics=[{"Name": n} for n in names])
    b.send("Metadata", Topics=[{"Name": n} for n in reversed(names)])


@case("Metadata")
def every_topic(b):
    """Null (version 0: an empty array) asks for all of them."""
    b.topic("one")
    b.topic("two", partitions=2)
    b.send("Metadata", own=True, Topics=None if b.version > 0 else [])


@case("Metadata", "1+")
def no_topics(b):
    """An empty array asks for the brokers alone."""
    b.send("Metadata", Topics=[])


@case("Metadata", "0")
def a_null_array_before_it_was_allowed(b):
    """Version 0 asks for all topics by an empty array; null came with version 1."""
    frame, _ = b.main.frame(b.broker.schemas["Metadata"], 0, {"Topics": None})
    b.raw(frame, on=b.main, first=4)


@case("Metadata", "4+")
def unknown_topic(b):
    """UNKNOWN_TOPIC_OR_PARTITION, and asking does not create it."""
    b.send("Metadata", Topics=[{"Name": b.name("missing")}], AllowAutoTopicCreation=False)
    b.send("Metadata", Topics=[{"Name": b.name("missing")}], AllowAutoTopicCreation=False)


@case("Metadata", "4+")
def known_and_unknown_together(b):
    name = b.topic("here")
    b.send("Metadata", Topics=[{"Name": b.name("missing")}, {"Name": name}], AllowAutoTopicCreation=False)


@case("Metadata")
def auto_creation(b):
    """A topic that is not there is created with num.partitions; the first answer has no partitions yet."""
    name = b.name("made")
    b.send("Metadata", Topics=[{"Name": name}], AllowAutoTopicCreation=True)
    b.ready(name, 2)
    b.send("Metadata", label="afterwards", Topics=[{"Name": name}], AllowAutoTopicCreation=True)


@case("Metadata", "4+")
def invalid_names(b):
    """INVALID_TOPIC_EXCEPTION, with creation allowed or not."""
    for name in ("", ".", "..", "a b", "a/b", "ünï", "x" * 250, "a:b", "a\u0000b", "a\nb"):
        b.send("Metadata", label=f"create {name[:5]!r}", Topics=[{"Name": name}], AllowAutoTopicCreation=True)
        b.send("Metadata", label=f"ask {name[:5]!r}", Topics=[{"Name": name}], AllowAutoTopicCreation=False)


@case("Metadata")
def the_longest_name(b):
    """249 characters."""
    name = b.name("x" * (249 - len(b.prefix)))
    b.topic("x" * (249 - len(b.prefix)))
    b.send("Metadata", Topics=[{"Name": name}])


@case("Metadata", "1+")
def the_same_topic_twice(b):
    name = b.topic("orders")
    b.send("Metadata", Topics=[{"Name": name}, {"Name": name}], AllowAutoTopicCreation=False)


@case("Metadata", "4+")
def the_same_unknown_topic_twice(b):
    b.send("Metadata", Topics=[{"Name": b.name("missing")}, {"Name": b.name("missing")}], AllowAutoTopicCreation=False)


@case("Metadata", "10+")
def by_id(b):
    """KIP-516: the name null, the id given."""
    name = b.topic("orders", partitions=2)
    b.send("Metadata", Topics=[{"Name": None, "TopicId": b.topic_id(name)}])


@case("Metadata", "10+")
def by_an_unknown_id(b):
    """UNKNOWN_TOPIC_ID, the name null."""
    b.send("Metadata", Topics=[{"Name": None, "TopicId": MISSING_ID}])


@case("Metadata", "10+")
def by_ids_known_and_unknown(b):
    name = b.topic("orders")
    b.send("Metadata", Topics=[{"Name": None, "TopicId": MISSING_ID}, {"Name": None, "TopicId": b.topic_id(name)}])


@case("Metadata", "10+")
def a_name_and_an_id(b):
    """Both at once, agreeing and not."""
    name = b.topic("orders")
    b.send("Metadata", Topics=[{"Name": name, "TopicId": b.topic_id(name)}])
    b.send("Metadata", Topics=[{"Name": name, "TopicId": MISSING_ID}])


@case("Metadata", "10+")
def neither_a_name_nor_an_id(b):
    b.send("Metadata", Topics=[{"Name": None, "TopicId": ZERO_UUID}])


@case("Metadata", "10+")
def some_by_name_and_some_by_id(b):
    """Not both in one request."""
    first, second = b.topic("first"), b.topic("second")
    b.send("Metadata", Topics=[{"Name": first}, {"Name": None, "TopicId": b.topic_id(second)}])


@case("Metadata", "8+")
def authorized_operations(b):
    """Asked for without an authorizer: every operation that applies, as a bit field."""
    name = b.topic("orders")
    b.send("Metadata", Topics=[{"Name": name}], IncludeTopicAuthorizedOperations=True, IncludeClusterAuthorizedOperations=True)


@case("Metadata", "4+")
def the_id_of_a_deleted_topic(b):
    """Gone by name and, from version 10, by id."""
    name = b.topic("short-lived")
    topic_id = b.topic_id(name)
    b.ask("DeleteTopics", Topics=[{"Name": name}], TopicNames=[name], TimeoutMs=10_000)
    b.until(
        "Metadata",
        lambda answer: answer["Topics"][0]["ErrorCode"] == 3,
        label="by name",
        Topics=[{"Name": name}],
        AllowAutoTopicCreation=False,
    )
    if b.version >= 10:
        b.send("Metadata", label="by id", Topics=[{"Name": None, "TopicId": topic_id}])


@case("Metadata", "4+")
def a_topic_made_again_has_another_id(b):
    name = b.topic("phoenix")
    first = b.topic_id(name)
    b.ask("DeleteTopics", Topics=[{"Name": name}], TopicNames=[name], TimeoutMs=10_000)
    b.settle("Metadata", lambda a: a["Topics"][0]["ErrorCode"] == 3, Topics=[{"Name": name}], AllowAutoTopicCreation=False)
    b.topic("phoenix", partitions=2)
    b.note("another id", b.topic_id(name) != first)
    b.send("Metadata", Topics=[{"Name": name}], AllowAutoTopicCreation=False)
