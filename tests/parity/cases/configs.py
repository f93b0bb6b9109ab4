"""DescribeConfigs (32), AlterConfigs (33), IncrementalAlterConfigs (44), ListConfigResources (74)."""

from harness.cases import case

TOPIC, BROKER, LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3

# The broker's settings that issue 3 asks for: of Kafka's three hundred, these are compared.
BROKER_SETTINGS = [
    "num.partitions",
    "auto.create.topics.enable",
    "delete.topic.enable",
    "message.max.bytes",
    "fetch.max.bytes",
    "socket.request.max.bytes",
    "max.connections",
    "max.connections.per.ip",
    "connections.max.idle.ms",
    "group.min.session.timeout.ms",
    "group.max.session.timeout.ms",
    "group.initial.rebalance.delay.ms",
    "group.max.size",
    "offsets.retention.minutes",
    "offset.metadata.max.bytes",
    "max.incremental.fetch.session.cache.slots",
    "max.request.partition.size.limit",
    "producer.id.expiration.ms",
    "log.cleanup.policy",
    "log.retention.ms",
    "log.retention.minutes",
    "log.retention.hours",
    "log.retention.bytes",
    "log.retention.check.interval.ms",
    "offsets.retention.check.interval.ms",
    "min.insync.replicas",
    "log.message.timestamp.type",
    "log.message.timestamp.before.max.ms",
    "log.message.timestamp.after.max.ms",
    "compression.type",
    "default.replication.factor",
    "broker.rack",
]


def resource(kind, name, keys=None):
    return {"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": keys}


def describe(b, *resources, label=None, synonyms=False, documentation=False):
    return b.send("DescribeConfigs", label=label, Resources=list(resources), IncludeSynonyms=synonyms, IncludeDocumentation=documentation)


# --- DescribeConfigs -------------------------------------------------------------------------------------------------------------------


@case("DescribeConfigs", "1+")
def a_topic(b):
    """Every setting with its default, source and type."""
    describe(b, resource(TOPIC, b.topic("orders")))


@case("DescribeConfigs", "1+")
def a_topic_with_synonyms(b):
    """Where each value comes from, and what it would be without."""
    name = b.topic("orders", configs={"retention.ms": "1000", "cleanup.policy": "compact"})
    describe(b, resource(TOPIC, name), synonyms=True)


@case("DescribeConfigs", "3+")
def a_topic_with_documentation(b):
    describe(b, resource(TOPIC, b.topic("orders")), documentation=True)


@case("DescribeConfigs", "1+")
def some_keys(b):
    """The others are left out, as are unknown ones."""
    name = b.topic("orders", configs={"retention.ms": "1000"})
    describe(b, resource(TOPIC, name, ["retention.ms", "cleanup.policy", "no.such.config"]), synonyms=True)
    describe(b, resource(TOPIC, name, []), label="no keys")
    describe(b, resource(TOPIC, name, ["retention.ms", "retention.ms"]), label="the same twice")
    describe(b, resource(TOPIC, name, ["no.such.config"]), label="unknown alone")


@case("DescribeConfigs", "1+")
def topics_nobody_knows(b):
    """UNKNOWN_TOPIC_OR_PARTITION, INVALID_TOPIC_EXCEPTION."""
    describe(b, resource(TOPIC, b.name("missing")))
    describe(b, resource(TOPIC, ""), label="empty")
    describe(b, resource(TOPIC, "a b"), label="invalid")


@case("DescribeConfigs", "1+")
def several_resources(b):
    name = b.topic("orders")
    describe(b, resource(TOPIC, name, ["retention.ms"]), resource(BROKER, "1", ["num.partitions"]), resource(TOPIC, b.name("missing")))
    describe(b, resource(TOPIC, name, ["retention.ms"]), resource(TOPIC, name, ["cleanup.policy"]), label="the same twice")
    describe(b, label="none")


@case("DescribeConfigs", "1+")
def this_broker(b):
    """By its id."""
    describe(b, resource(BROKER, "1", BROKER_SETTINGS), synonyms=True)


@case("DescribeConfigs", "1+")
def the_cluster_default(b):
    """The empty name: what was set for all brokers."""
    describe(b, resource(BROKER, "", ["num.partitions", "message.max.bytes", "log.retention.ms"]))


@case("DescribeConfigs", "1+")
def brokers_that_are_not_here(b):
    """INVALID_REQUEST for another broker's id, and for what is no id."""
    for name in ("2", "-1", "x", "01", " 1"):
        describe(b, resource(BROKER, name, ["num.partitions"]), label=f"broker {name!r}")


@case("DescribeConfigs", "1+")
def unknown_resource_types(b):
    for kind in (0, 1, 3, 7, 64, -1):
        describe(b, resource(kind, b.name("x")), label=f"type {kind}")


@case("DescribeConfigs", "1+")
def a_group(b):
    """KIP-848's settings, dynamic, with the broker's as their defaults."""
    describe(b, resource(GROUP, b.name("group")), synonyms=True)
    describe(b, resource(GROUP, ""), label="empty")


@case("DescribeConfigs", "1+")
def client_metrics(b):
    describe(b, resource(CLIENT_METRICS, b.name("subscription")))
    describe(b, resource(CLIENT_METRICS, ""), label="empty")


# --- IncrementalAlterConfigs -----------------------------------------------------------------------------------------------------------


def change(name, operation, value=None):
    return {"Name": name, "ConfigOperation": operation, "Value": value}


def alter(b, kind, name, *changes, label=None, validate=False):
    return b.send(
        "IncrementalAlterConfigs",
        label=label,
        Resources=[{"ResourceType": kind, "ResourceName": name, "Configs": list(changes)}],
        ValidateOnly=validate,
    )


def told(b, kind, name, *keys, label="what is there now", until=None):
    """Asks until the change shows, since brokers learn of it a moment later."""

    def shows(answer):
        values = {c["Name"]: c["Value"] for c in answer["Results"][0]["Configs"]}
        return until is None or all(values.get(k) == v for k, v in until.items())

    return b.until(
        "DescribeConfigs", shows, label=label, seconds=3, Resources=[resource(kind, name, list(keys))], IncludeSynonyms=True
    )


@case("IncrementalAlterConfigs")
def set_and_delete(b):
    name = b.topic("orders")
    alter(b, TOPIC, name, change("retention.ms", SET, "1000"), change("segment.ms", SET, "2000"))
    told(b, TOPIC, name, "retention.ms", "segment.ms", until={"segment.ms": "2000"})
    alter(b, TOPIC, name, change("retention.ms", DELETE), label="delete")
    told(b, TOPIC, name, "retention.ms", "segment.ms", label="after deleting", until={"retention.ms": "604800000"})
    alter(b, TOPIC, name, change("retention.ms", DELETE), label="delete again")


@case("IncrementalAlterConfigs")
def append_and_subtract(b):
    """On lists only."""
    name = b.topic("orders")
    alter(b, TOPIC, name, change("cleanup.policy", APPEND, "compact"))
    told(b, TOPIC, name, "cleanup.policy", until={"cleanup.policy": "delete,compact"})
    alter(b, TOPIC, name, change("cleanup.policy", APPEND, "compact"), label="append again")
    alter(b, TOPIC, name, change("cleanup.policy", SUBTRACT, "delete"), label="subtract")
    told(b, TOPIC, name, "cleanup.policy", label="after subtracting", until={"cleanup.policy": "compact"})
    alter(b, TOPIC, name, change("cleanup.policy", SUBTRACT, "delete"), label="subtract what is not there")
    alter(b, TOPIC, name, change("cleanup.policy", APPEND, "burn"), label="append nonsense")
    alter(b, TOPIC, name, change("retention.ms", APPEND, "5"), label="append to a number")
    alter(b, TOPIC, name, change("retention.ms", SUBTRACT, "5"), label="subtract from a number")


@case("IncrementalAlterConfigs")
def values_that_are_wrong(b):
    """INVALID_CONFIG, and nothing of the request is done."""
    name = b.topic("orders")
    for label, config, value in (
        ("unknown", "no.such.config", "1"),
        ("not a number", "retention.ms", "x"),
        ("out of range", "retention.ms", "-2"),
        ("null", "retention.ms", None),
        ("empty", "retention.ms", ""),
        ("empty name", "", "1"),
        ("not in the list", "cleanup.policy", "burn"),
        ("tiered storage", "remote.storage.enable", "true"),
        ("empty list", "cleanup.policy", ""),
    ):
        alter(b, TOPIC, name, change("segment.ms", SET, "5000"), change(config, SET, value), label=label)
    told(b, TOPIC, name, "segment.ms", "retention.ms", until={"segment.ms": "5000"})


@case("IncrementalAlterConfigs")
def operations_nobody_knows(b):
    name = b.topic("orders")
    for operation in (4, -1, 127):
        alter(b, TOPIC, name, change("retention.ms", operation, "1"), label=f"operation {operation}")


@case("IncrementalAlterConfigs")
def the_same_key_twice(b):
    name = b.topic("orders")
    alter(b, TOPIC, name, change("retention.ms", SET, "1"), change("retention.ms", SET, "2"))
    alter(b, TOPIC, name, change("cleanup.policy", APPEND, "compact"), change("cleanup.policy", SUBTRACT, "delete"), label="two operations")


@case("IncrementalAlterConfigs")
def no_changes(b):
    name = b.topic("orders")
    alter(b, TOPIC, name)
    b.send("IncrementalAlterConfigs", label="no resources", Resources=[])


@case("IncrementalAlterConfigs")
def the_same_resource_twice(b):
    name = b.topic("orders")
    one = {"ResourceType": TOPIC, "ResourceName": name, "Configs": [change("retention.ms", SET, "1")]}
    b.send("IncrementalAlterConfigs", Resources=[one, one])


@case("IncrementalAlterConfigs")
def only_validated(b):
    name = b.topic("orders")
    alter(b, TOPIC, name, change("retention.ms", SET, "1000"), validate=True)
    alter(b, TOPIC, name, change("retention.ms", SET, "x"), validate=True, label="a fault")
    told(b, TOPIC, name, "retention.ms")


@case("IncrementalAlterConfigs")
def resources_nobody_knows(b):
    alter(b, TOPIC, b.name("missing"), change("retention.ms", SET, "1"), label="topic")
    alter(b, TOPIC, "", change("retention.ms", SET, "1"), label="empty topic")
    alter(b, BROKER, "99", change("message.max.bytes", SET, "1000"), label="broker")
    alter(b, BROKER, "x", change("message.max.bytes", SET, "1000"), label="no broker id")
    for kind in (0, 1, 3, 64):
        alter(b, kind, b.name("x"), change("retention.ms", SET, "1"), label=f"type {kind}")


@case("IncrementalAlterConfigs", alone=True)
def this_broker(b):
    """A broker's own value goes before the cluster's default, that before the file's."""
    key = "log.retention.ms"
    alter(b, BROKER, "1", change(key, SET, "77000"))
    told(b, BROKER, "1", key, until={key: "77000"})
    alter(b, BROKER, "", change(key, SET, "88000"), label="cluster default")
    told(b, BROKER, "", key, label="the cluster default", until={key: "88000"})
    told(b, BROKER, "1", key, label="both")
    topic = b.topic("orders")
    told(b, TOPIC, topic, "retention.ms", label="a topic's")
    alter(b, BROKER, "1", change(key, DELETE), label="delete the broker's")
    told(b, BROKER, "1", key, label="the default alone", until={key: "88000"})
    alter(b, BROKER, "", change(key, DELETE), label="delete the default")
    told(b, BROKER, "1", key, label="neither", until={key: None})


@case("IncrementalAlterConfigs", alone=True)
def brokers_values_that_are_wrong(b):
    """Not dynamic, unknown, out of range, more local than there is (KIP-405)."""
    for label, name, config, value in (
        ("not dynamic", "1", "broker.rack", "r"),
        ("unknown", "1", "no.such.config", "1"),
        ("out of range", "1", "message.max.bytes", "-1"),
        ("not a number", "", "message.max.bytes", "x"),
        ("all local", "1", "log.local.retention.ms", "-1"),
        ("more local", "", "log.local.retention.ms", "604800001"),
    ):
        alter(b, BROKER, name, change(config, SET, value), label=label)
        alter(b, BROKER, name, change(config, DELETE), label=f"{label}, deleted again")


@case("IncrementalAlterConfigs")
def a_group(b):
    name = b.name("group")
    alter(b, GROUP, name, change("consumer.session.timeout.ms", SET, "50000"))
    told(b, GROUP, name, "consumer.session.timeout.ms", until={"consumer.session.timeout.ms": "50000"})
    alter(b, GROUP, name, change("consumer.session.timeout.ms", SET, "1"), label="out of range")
    alter(b, GROUP, name, change("no.such.config", SET, "1"), label="unknown")
    alter(b, GROUP, "", change("consumer.session.timeout.ms", SET, "50000"), label="empty name")


# --- AlterConfigs ----------------------------------------------------------------------------------------------------------------------


def replace(b, kind, name, *configs, label=None, validate=False):
    return b.send(
        "AlterConfigs",
        label=label,
        Resources=[{"ResourceType": kind, "ResourceName": name, "Configs": [{"Name": k, "Value": v} for k, v in configs]}],
        ValidateOnly=validate,
    )


@case("AlterConfigs")
def replaces_everything(b):
    """What is not named goes back to its default."""
    name = b.topic("orders", configs={"segment.ms": "5000"})
    replace(b, TOPIC, name, ("retention.ms", "1000"))
    told(b, TOPIC, name, "retention.ms", "segment.ms", until={"retention.ms": "1000"})
    replace(b, TOPIC, name, label="with nothing")
    told(b, TOPIC, name, "retention.ms", "segment.ms", label="all defaults", until={"retention.ms": "604800000"})


@case("AlterConfigs")
def wrong_values(b):
    name = b.topic("orders")
    replace(b, TOPIC, name, ("retention.ms", "x"), label="not a number")
    replace(b, TOPIC, name, ("no.such.config", "x"), label="unknown")
    replace(b, TOPIC, name, ("retention.ms", None), label="null")
    replace(b, TOPIC, name, ("retention.ms", "1"), ("retention.ms", "2"), label="twice")
    replace(b, TOPIC, b.name("missing"), ("retention.ms", "1"), label="no topic")
    replace(b, 3, name, ("retention.ms", "1"), label="type 3")
    replace(b, BROKER, "99", ("message.max.bytes", "1000"), label="another broker")


@case("AlterConfigs")
def only_validated_here(b):
    name = b.topic("orders")
    replace(b, TOPIC, name, ("retention.ms", "1000"), validate=True)
    told(b, TOPIC, name, "retention.ms")


@case("AlterConfigs")
def nothing(b):
    b.send("AlterConfigs", Resources=[])


# --- ListConfigResources ---------------------------------------------------------------------------------------------------------------


@case("ListConfigResources")
def all_of_them(b):
    """Version 0 lists client metrics alone; version 1 every resource that has a name."""
    b.topic("orders")
    b.send("ListConfigResources", own=True)


@case("ListConfigResources", "1+")
def by_type(b):
    b.topic("orders")
    configs = [change("consumer.session.timeout.ms", SET, "50000")]
    b.ask("IncrementalAlterConfigs", Resources=[{"ResourceType": GROUP, "ResourceName": b.name("group"), "Configs": configs}])
    b.settle("ListConfigResources", lambda a: any(r["ResourceName"] == b.name("group") for r in a["ConfigResources"]), ResourceTypes=[GROUP])
    for kinds in ([TOPIC], [BROKER], [GROUP], [CLIENT_METRICS], [TOPIC, BROKER], [LOGGER], [0], [1], [99]):
        b.send("ListConfigResources", own=True, label=f"types {kinds}", ResourceTypes=kinds)
