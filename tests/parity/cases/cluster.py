"""DescribeCluster (60), DescribeTopicPartitions (75), DescribeLogDirs (35), DescribeProducers (61), InitProducerId (22), ElectLeaders (43),
AlterPartitionReassignments (45), ListPartitionReassignments (46), and the ACL APIs (29 to 31)."""

from harness.cases import case
from harness.records import batch

# --- DescribeCluster -------------------------------------------------------------------------------------------------------------------


@case("DescribeCluster")
def the_cluster(b):
    b.send("DescribeCluster")
    b.send("DescribeCluster", label="with operations", IncludeClusterAuthorizedOperations=True)


@case("DescribeCluster", "1+")
def endpoint_types(b):
    """Brokers are 1; controllers are not reached through a broker's port."""
    for kind in (1, 2, 0, 7):
        b.send("DescribeCluster", label=f"type {kind}", EndpointType=kind)


@case("DescribeCluster", "2+")
def fenced_brokers(b):
    b.send("DescribeCluster", IncludeFencedBrokers=True)


# --- DescribeTopicPartitions -----------------------------------------------------------------------------------------------------------


def partitions(b, *names, label=None, limit=2000, cursor=None, **more):
    cursor = cursor and {"TopicName": cursor[0], "PartitionIndex": cursor[1]}
    return b.send("DescribeTopicPartitions", label=label, Topics=[{"Name": n} for n in names], ResponsePartitionLimit=limit, Cursor=cursor, **more)


@case("DescribeTopicPartitions")
def topics_in_order_of_name(b):
    """Whatever order they were asked in."""
    first, second = b.topic("zebra", partitions=2), b.topic("apple")
    partitions(b, first, second)


@case("DescribeTopicPartitions")
def topics_nobody_knows(b):
    name = b.topic("orders")
    partitions(b, b.name("missing"), name)
    partitions(b, "", label="empty")
    partitions(b, "a b", label="invalid")
    partitions(b, name, name, label="twice")


@case("DescribeTopicPartitions")
def page_by_page(b):
    """A limit cuts it short, and the cursor tells where to go on."""
    first, second = b.topic("first", partitions=3), b.topic("second", partitions=3)
    partitions(b, first, second, limit=2, label="page 1")
    partitions(b, first, second, limit=2, cursor=(first, 2), label="page 2")
    partitions(b, first, second, limit=2, cursor=(second, 1), label="page 3")
    partitions(b, first, second, limit=3, label="a whole topic")
    partitions(b, first, second, limit=6, label="exactly all")


@case("DescribeTopicPartitions")
def odd_cursors(b):
    """Past the last topic, between topics, past the last partition, negative."""
    first, second = b.topic("first", partitions=2), b.topic("second")
    partitions(b, first, second, cursor=(b.name("zzz"), 0), label="past all")
    partitions(b, first, second, cursor=(b.name("middle"), 0), label="between")
    partitions(b, first, second, cursor=(first, 9), label="past its partitions")
    partitions(b, first, second, cursor=(first, -1), label="negative")
    partitions(b, first, second, cursor=("", 0), label="empty name")


@case("DescribeTopicPartitions")
def odd_limits(b):
    name = b.topic("orders", partitions=2)
    for limit in (0, -1, 1, 100_000):
        partitions(b, name, limit=limit, label=f"limit {limit}")


@case("DescribeTopicPartitions", alone=True)
def all_topics(b):
    """An empty list asks for all."""
    b.topic("one")
    b.topic("two", partitions=2)
    partitions(b, cursor=(b.prefix, 0), own=True)


# --- DescribeLogDirs -------------------------------------------------------------------------------------------------------------------


def log_dirs(b, *topics, label=None, everything=False):
    wanted = None if everything else [{"Topic": n, "Partitions": list(p)} for n, p in topics]
    return b.send("DescribeLogDirs", label=label, own=True, Topics=wanted)


@case("DescribeLogDirs", "1+")
def sizes(b):
    """The bytes of the batches as they came in."""
    name = b.topic("orders", partitions=2)
    b.produce(name, batch([b"x" * 100]), batch([b"y" * 50, b"z"]))
    log_dirs(b, (name, (0, 1)))


@case("DescribeLogDirs", "1+")
def partitions_nobody_knows(b):
    name = b.topic("orders")
    log_dirs(b, (name, (0, 7)), label="partition")
    log_dirs(b, (b.name("missing"), (0,)), label="topic")
    log_dirs(b, label="none")
    log_dirs(b, (name, ()), label="no partitions")


@case("DescribeLogDirs", "1+")
def everything(b):
    b.topic("orders", partitions=2)
    log_dirs(b, everything=True)


# --- DescribeProducers -----------------------------------------------------------------------------------------------------------------


def producers(b, name, *indexes, label=None):
    return b.send("DescribeProducers", label=label, Topics=[{"Name": name, "PartitionIndexes": list(indexes)}])


@case("DescribeProducers")
def of_a_partition(b):
    name = b.topic("orders", partitions=2)
    pid = b.settle("InitProducerId", lambda a: not a["ErrorCode"], TransactionalId=None, TransactionTimeoutMs=1000)["ProducerId"]
    producers(b, name, 0, label="before")
    b.produce(name, batch([b"a", b"b"], producer_id=pid, producer_epoch=0, base_sequence=0))
    b.produce(name, batch([b"c"], producer_id=pid, producer_epoch=0, base_sequence=2))
    producers(b, name, 0, 1)
    b.produce(name, batch([b"d"], producer_id=pid, producer_epoch=3, base_sequence=0))
    producers(b, name, 0, label="another epoch")


@case("DescribeProducers")
def of_partitions_nobody_knows(b):
    name = b.topic("orders")
    producers(b, name, 0, 7, -1, label="partition")
    producers(b, b.name("missing"), 0, label="topic")
    producers(b, "a b", 0, label="invalid")
    producers(b, name, label="none")
    b.send("DescribeProducers", label="no topics", Topics=[])


# --- InitProducerId --------------------------------------------------------------------------------------------------------------------


def init(b, label=None, transactional_id=None, timeout=60_000, pid=-1, epoch=-1):
    return b.send(
        "InitProducerId", label=label, TransactionalId=transactional_id, TransactionTimeoutMs=timeout, ProducerId=pid, ProducerEpoch=epoch
    )


@case("InitProducerId")
def ids_are_new_each_time(b):
    first, second = init(b), init(b)
    b.note("two ids", first["ProducerId"] != second["ProducerId"])


@case("InitProducerId", "3+")
def with_an_id_and_an_epoch(b):
    """KIP-360 is for transactional producers; others get a new id."""
    known = init(b)["ProducerId"]
    init(b, "known", pid=known, epoch=0)
    init(b, "unknown", pid=123_456_789, epoch=5)
    init(b, "no epoch", pid=known, epoch=-1)
    init(b, "no id", pid=-1, epoch=3)
    init(b, "negative", pid=-5, epoch=-5)


@case("InitProducerId")
def odd_timeouts(b):
    """Only transactional producers' are checked."""
    for timeout in (0, -1, 2**31 - 1):
        init(b, f"timeout {timeout}", timeout=timeout)


@case("InitProducerId")
def transactional_ids(b):
    """Transactions come later."""
    init(b, "empty", transactional_id="")
    init(b, "a name", transactional_id=b.name("payments"))


# --- ElectLeaders ----------------------------------------------------------------------------------------------------------------------


def elect(b, kind, *topics, label=None, everything=False):
    wanted = None if everything else [{"Topic": n, "Partitions": list(p)} for n, p in topics]
    return b.send("ElectLeaders", label=label, own=True, ElectionType=kind, TopicPartitions=wanted, TimeoutMs=10_000)


@case("ElectLeaders")
def not_needed(b):
    """The preferred leader leads: ELECTION_NOT_NEEDED."""
    name = b.topic("orders", partitions=2)
    elect(b, 0, (name, (0, 1)), label="preferred")
    elect(b, 1, (name, (0,)), label="unclean")


@case("ElectLeaders")
def partitions_to_elect_that_nobody_knows(b):
    name = b.topic("orders")
    elect(b, 0, (name, (0, 7)), label="partition")
    elect(b, 0, (b.name("missing"), (0,)), label="topic")
    elect(b, 0, label="none")
    elect(b, 0, everything=True, label="all")


@case("ElectLeaders", "1+")
def unknown_election_types(b):
    name = b.topic("orders")
    for kind in (2, -1):
        elect(b, kind, (name, (0,)), label=f"type {kind}")


# --- reassignments ---------------------------------------------------------------------------------------------------------------------


def reassign(b, name, *partitions_and_replicas, label=None):
    wanted = [{"PartitionIndex": i, "Replicas": r} for i, r in partitions_and_replicas]
    return b.send("AlterPartitionReassignments", label=label, TimeoutMs=10_000, Topics=[{"Name": name, "Partitions": wanted}])


@case("AlterPartitionReassignments")
def to_where_it_is(b):
    name = b.topic("orders")
    reassign(b, name, (0, [1]))


@case("AlterPartitionReassignments")
def to_where_it_cannot_be(b):
    """INVALID_REPLICA_ASSIGNMENT."""
    name = b.topic("orders")
    for label, replicas in (("unknown broker", [7]), ("one unknown", [1, 7]), ("twice", [1, 1]), ("none", []), ("negative", [-1])):
        reassign(b, name, (0, replicas), label=label)


@case("AlterPartitionReassignments")
def a_cancellation(b):
    """Null replicas cancel what is going on: NO_REASSIGNMENT_IN_PROGRESS."""
    reassign(b, b.topic("orders"), (0, None))


@case("AlterPartitionReassignments")
def of_what_nobody_knows(b):
    name = b.topic("orders")
    reassign(b, name, (7, [1]), label="partition")
    reassign(b, b.name("missing"), (0, [1]), label="topic")
    b.send("AlterPartitionReassignments", label="none", TimeoutMs=10_000, Topics=[])


@case("ListPartitionReassignments")
def there_are_none(b):
    name = b.topic("orders")
    b.send("ListPartitionReassignments", label="all", TimeoutMs=10_000, Topics=None)
    b.send("ListPartitionReassignments", label="one", TimeoutMs=10_000, Topics=[{"Name": name, "PartitionIndexes": [0, 7]}])
    b.send("ListPartitionReassignments", label="missing", TimeoutMs=10_000, Topics=[{"Name": b.name("missing"), "PartitionIndexes": [0]}])
    b.send("ListPartitionReassignments", label="none", TimeoutMs=10_000, Topics=[])


# --- ACLs ------------------------------------------------------------------------------------------------------------------------------

ANY, ALLOW, LITERAL, ALL_OPERATIONS = 1, 3, 3, 2


def acl_filter(kind=ANY, pattern=ANY):
    return {
        "ResourceTypeFilter": kind,
        "ResourceNameFilter": None,
        "PatternTypeFilter": pattern,
        "PrincipalFilter": None,
        "HostFilter": None,
        "Operation": ANY,
        "PermissionType": ANY,
    }


@case("DescribeAcls", "1+")
def without_an_authorizer(b):
    """SECURITY_DISABLED."""
    b.send("DescribeAcls", **acl_filter())


@case("DescribeAcls", "1+")
def unknown_elements(b):
    """Kafka closes the connection on what it cannot name."""
    b.send("DescribeAcls", label="resource type", **acl_filter(kind=99))
    b.send("DescribeAcls", label="pattern type", **acl_filter(pattern=99))
    b.send("DescribeAcls", label="unknown resource type", **acl_filter(kind=0))


@case("CreateAcls", "1+")
def without_an_authorizer_either(b):
    acl = {
        "ResourceType": 2,
        "ResourceName": b.name("orders"),
        "ResourcePatternType": LITERAL,
        "Principal": "User:alice",
        "Host": "*",
        "Operation": ALL_OPERATIONS,
        "PermissionType": ALLOW,
    }
    b.send("CreateAcls", Creations=[acl])
    b.send("CreateAcls", label="two", Creations=[acl, acl])
    b.send("CreateAcls", label="none", Creations=[])
    b.send("CreateAcls", label="of nonsense", Creations=[acl | {"ResourceType": 99}])
    b.send("CreateAcls", label="of any type", Creations=[acl | {"ResourceType": ANY}])


@case("DeleteAcls", "1+")
def without_an_authorizer_neither(b):
    b.send("DeleteAcls", Filters=[acl_filter()])
    b.send("DeleteAcls", label="two", Filters=[acl_filter(), acl_filter()])
    b.send("DeleteAcls", label="none", Filters=[])
    b.send("DeleteAcls", label="of nonsense", Filters=[acl_filter(kind=99)])
