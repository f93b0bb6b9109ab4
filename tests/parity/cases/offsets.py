"""OffsetCommit (8), OffsetFetch (9), OffsetDelete (47): where a group is. Topic ids came with OffsetCommit and OffsetFetch version 10."""

from harness.cases import case
from harness.members import Member, alone, subscription, wait_for
from harness.schema import ZERO_UUID

MISSING_ID = "5ca1ab1e" * 4


def topic_of(b, name, *partitions, topic_id=None):
    return {"Name": name, "TopicId": b.topic_id(name) if topic_id is None else topic_id, "Partitions": list(partitions)}


def offset(index, value, metadata="", **more):
    return {"PartitionIndex": index, "CommittedOffset": value, "CommittedMetadata": metadata, **more}


def commit(b, group, *topics, label=None, generation=-1, member="", instance=None, **more):
    return b.send(
        "OffsetCommit",
        label=label,
        GroupId=group,
        GenerationIdOrMemberEpoch=generation,
        MemberId=member,
        GroupInstanceId=instance,
        RetentionTimeMs=-1,
        Topics=list(topics),
        **more,
    )


def committed(b, group, *topics, label="what is committed", everything=False, **more):
    """`topics` are (name, partitions); versions below 8 ask for one group, later ones for several."""
    wanted = None if everything else [{"Name": n, "TopicId": b.topic_id(n), "PartitionIndexes": list(p)} for n, p in topics]
    by_name = wanted and [{"Name": t["Name"], "PartitionIndexes": t["PartitionIndexes"]} for t in wanted]
    return b.send("OffsetFetch", label=label, GroupId=group, Topics=by_name, Groups=[{"GroupId": group, "Topics": wanted}], **more)


# --- OffsetCommit ----------------------------------------------------------------------------------------------------------------------


@case("OffsetCommit", "2+")
def simple_commits(b):
    """Without membership: generation -1, no member id. The group comes to be."""
    name, group = b.topic("orders", partitions=2), b.name("group")
    commit(b, group, topic_of(b, name, offset(0, 5, "note"), offset(1, 0)))
    committed(b, group, (name, (0, 1)))
    commit(b, group, topic_of(b, name, offset(0, 3)))
    committed(b, group, (name, (0, 1)), label="after going back")
    b.send("DescribeGroups", Groups=[group])


@case("OffsetCommit", "2+")
def odd_offsets(b):
    """Negative ones are not refused; nor are those beyond the end."""
    name, group = b.topic("orders"), b.name("group")
    for value in (-1, -5, 10**12, 2**63 - 1):
        commit(b, group, topic_of(b, name, offset(0, value)), label=f"offset {value}")
        committed(b, group, (name, (0,)), label=f"{value} committed")


@case("OffsetCommit", "2+")
def metadata(b):
    """Null, empty, as large as offset.metadata.max.bytes (4096), larger: OFFSET_METADATA_TOO_LARGE."""
    name, group = b.topic("orders"), b.name("group")
    for label, text in (("null", None), ("empty", ""), ("largest", "x" * 4096), ("too large", "x" * 4097), ("wide", "ü" * 4096)):
        commit(b, group, topic_of(b, name, offset(0, 1, text)), label=label)
        committed(b, group, (name, (0,)), label=f"{label} committed")


@case("OffsetCommit", "6+")
def leader_epochs(b):
    name, group = b.topic("orders"), b.name("group")
    for epoch in (-1, 0, 7, 2**31 - 1, -3):
        commit(b, group, topic_of(b, name, offset(0, 1, CommittedLeaderEpoch=epoch)), label=f"epoch {epoch}")
        committed(b, group, (name, (0,)), label=f"epoch {epoch} committed")


@case("OffsetCommit", "2+")
def topics_and_partitions_nobody_knows(b):
    """Each is answered for itself."""
    name, group = b.topic("orders"), b.name("group")
    commit(b, group, topic_of(b, name, offset(0, 1), offset(5, 1), offset(-1, 1)), label="partitions")
    commit(b, group, topic_of(b, b.name("missing"), offset(0, 1), topic_id=MISSING_ID), label="topic")
    commit(b, group, topic_of(b, b.name("missing"), offset(0, 1), topic_id=MISSING_ID), topic_of(b, name, offset(0, 2)), label="both")
    committed(b, group, (name, (0, 5)))


@case("OffsetCommit", "10+")
def the_zero_topic_id(b):
    commit(b, b.name("group"), topic_of(b, "", offset(0, 1), topic_id=ZERO_UUID))


@case("OffsetCommit", "2+")
def nothing_to_commit(b):
    name, group = b.topic("orders"), b.name("group")
    commit(b, group, label="no topics")
    commit(b, group, topic_of(b, name), label="no partitions")


@case("OffsetCommit", "2+")
def the_same_partition_twice(b):
    name, group = b.topic("orders"), b.name("group")
    commit(b, group, topic_of(b, name, offset(0, 1), offset(0, 2)))
    committed(b, group, (name, (0,)))


@case("OffsetCommit", "2+")
def odd_group_ids(b):
    """An empty group id is INVALID_GROUP_ID."""
    name = b.topic("orders")
    commit(b, "", topic_of(b, name, offset(0, 1)), label="empty")
    commit(b, b.name("a:b {c} ü"), topic_of(b, name, offset(0, 1)), label="odd")


@case("OffsetCommit", "2+")
def of_a_member(b):
    name, group = b.topic("orders"), b.name("group")
    member = alone(b, group, compared=False)
    member.compared = True
    member.commit(name, 10)
    member.commit(name, 10, label="again")
    member.commit(name, 11, label="an old generation", GenerationIdOrMemberEpoch=0)
    member.commit(name, 11, label="a future generation", GenerationIdOrMemberEpoch=2)
    member.commit(name, 11, label="a stranger", MemberId="stranger")
    member.commit(name, 11, label="no member id", MemberId="")
    member.commit(name, 11, label="no generation", GenerationIdOrMemberEpoch=-1)
    member.commit(name, 11, label="neither", GenerationIdOrMemberEpoch=-1, MemberId="")
    committed(b, group, (name, (0,)))


@case("OffsetCommit", "2+")
def of_a_group_that_is_not_there(b):
    """With a generation: ILLEGAL_GENERATION."""
    name = b.topic("orders")
    commit(b, b.name("group"), topic_of(b, name, offset(0, 1)), generation=1, member="somebody", label="a member")
    commit(b, b.name("group"), topic_of(b, name, offset(0, 1)), generation=-1, member="somebody", label="a member without generation")
    commit(b, b.name("group"), topic_of(b, name, offset(0, 1)), generation=0, member="", label="a generation without member")


@case("OffsetCommit", "2+")
def during_a_rebalance(b):
    """Members may commit while the others join; between join and sync: REBALANCE_IN_PROGRESS."""
    name, group = b.topic("orders"), b.name("group")
    one = alone(b, group, compared=False)
    two = Member(b, group, "two", compared=False)
    pending = two.start_join()
    wait_for(b, group, "PreparingRebalance")
    one.compared = True
    one.commit(name, 7, label="while others join")
    one.compared = False
    one.join()
    two.joined(pending)
    one.compared = two.compared = True
    one.commit(name, 8, label="before the sync")
    one.commit(name, 8, label="with the old generation", GenerationIdOrMemberEpoch=1)
    committed(b, group, (name, (0,)))


@case("OffsetCommit", "7+")
def of_a_static_member(b):
    name, group = b.topic("orders"), b.name("group")
    member = alone(b, group, instance="instance-1", compared=False)
    member.compared = True
    member.commit(name, 10)
    member.commit(name, 11, label="another id", MemberId="stranger")
    member.commit(name, 11, label="an unknown instance", GroupInstanceId="instance-9")
    member.commit(name, 11, label="no instance", GroupInstanceId=None)


@case("OffsetCommit", "2+")
def after_everybody_left(b):
    """An empty group takes simple commits; its old members' are refused."""
    name, group = b.topic("orders"), b.name("group")
    member = alone(b, group, compared=False)
    member.leave()
    member.compared = True
    member.commit(name, 1, label="an old member")
    commit(b, group, topic_of(b, name, offset(0, 2)), label="simple")
    committed(b, group, (name, (0,)))


# --- OffsetFetch -----------------------------------------------------------------------------------------------------------------------


@case("OffsetFetch")
def of_a_group(b):
    """Partitions without a commit answer -1."""
    name, group = b.topic("orders", partitions=3), b.name("group")
    b.ask("OffsetCommit", version=9, GroupId=group, Topics=[topic_of(b, name, offset(0, 5, "note"), offset(2, 7, None))])
    committed(b, group, (name, (0, 1, 2)))
    committed(b, group, (name, (2, 0)), label="another order")
    committed(b, group, (name, (9, -1)), label="partitions that are not there")


@case("OffsetFetch")
def of_a_group_that_is_not_there(b):
    name = b.topic("orders")
    committed(b, b.name("missing"), (name, (0, 1)))
    committed(b, "", (name, (0,)), label="an empty group id")


@case("OffsetFetch", "2+")
def everything(b):
    """Null topics (since version 2)."""
    first, second, group = b.topic("first", partitions=2), b.topic("second"), b.name("group")
    b.ask("OffsetCommit", version=9, GroupId=group, Topics=[topic_of(b, first, offset(1, 5)), topic_of(b, second, offset(0, 7))])
    committed(b, group, everything=True)
    committed(b, b.name("missing"), everything=True, label="of no group")


@case("OffsetFetch")
def nothing(b):
    name, group = b.topic("orders"), b.name("group")
    committed(b, group, label="no topics")
    committed(b, group, (name, ()), label="no partitions")


@case("OffsetFetch")
def topics_nobody_knows(b):
    group = b.name("group")
    committed(b, group, (b.name("missing"), (0,)))


@case("OffsetFetch", "10+")
def topic_ids_nobody_knows(b):
    name, group = b.topic("orders"), b.name("group")
    b.ask("OffsetCommit", version=9, GroupId=group, Topics=[topic_of(b, name, offset(0, 5))])
    for label, topic_id in (("unknown", MISSING_ID), ("zero", ZERO_UUID)):
        wanted = [{"TopicId": topic_id, "PartitionIndexes": [0]}, {"TopicId": b.topic_id(name), "PartitionIndexes": [0]}]
        b.send("OffsetFetch", label=label, Groups=[{"GroupId": group, "Topics": wanted}])


@case("OffsetFetch", "8+")
def several_groups(b):
    name, one, two = b.topic("orders"), b.name("one"), b.name("two")
    b.ask("OffsetCommit", version=9, GroupId=one, Topics=[topic_of(b, name, offset(0, 5))])
    b.ask("OffsetCommit", version=9, GroupId=two, Topics=[topic_of(b, name, offset(0, 7))])
    wanted = [{"Name": name, "TopicId": b.topic_id(name), "PartitionIndexes": [0]}]
    groups = [{"GroupId": two, "Topics": wanted}, {"GroupId": b.name("missing"), "Topics": wanted}, {"GroupId": one, "Topics": None}]
    b.send("OffsetFetch", Groups=groups)
    b.send("OffsetFetch", Groups=[], label="no groups")
    b.send("OffsetFetch", Groups=[{"GroupId": one, "Topics": wanted}] * 2, label="the same twice")


@case("OffsetFetch", "7+")
def require_stable(b):
    """Without open transactions it makes no difference."""
    name, group = b.topic("orders"), b.name("group")
    b.ask("OffsetCommit", version=9, GroupId=group, Topics=[topic_of(b, name, offset(0, 5))])
    committed(b, group, (name, (0,)), RequireStable=True)


@case("OffsetFetch", "9+")
def member_ids_and_epochs(b):
    """KIP-848's fields, for a classic group: not looked at unless it has members."""
    name, group = b.topic("orders"), b.name("group")
    member = alone(b, group, compared=False)
    member.commit(name, 5)
    wanted = [{"Name": name, "TopicId": b.topic_id(name), "PartitionIndexes": [0]}]
    for label, member_id, epoch in (("none", None, -1), ("right", member.id, 1), ("wrong epoch", member.id, 7), ("stranger", "stranger", 1), ("empty", "", 0)):
        b.send("OffsetFetch", label=label, Groups=[{"GroupId": group, "MemberId": member_id, "MemberEpoch": epoch, "Topics": wanted}])


@case("OffsetFetch")
def of_a_deleted_topic(b):
    """Its offsets go with it, also when a topic of that name is there again."""
    name, group = b.topic("phoenix"), b.name("group")
    b.ask("OffsetCommit", version=9, GroupId=group, Topics=[topic_of(b, name, offset(0, 5))])
    committed(b, group, (name, (0,)), label="before")
    b.ask("DeleteTopics", Topics=[{"Name": name}], TimeoutMs=10_000)
    b.settle("Metadata", lambda a: a["Topics"][0]["ErrorCode"] == 3, Topics=[{"Name": name}], AllowAutoTopicCreation=False)
    b.settle(
        "OffsetFetch",
        lambda a: not a["Groups"][0]["Topics"] or a["Groups"][0]["Topics"][0]["Partitions"][0]["CommittedOffset"] == -1,
        version=9,
        Groups=[{"GroupId": group, "Topics": [{"Name": name, "PartitionIndexes": [0]}]}],
    )
    b.topic("phoenix")
    committed(b, group, (name, (0,)), label="again")


# --- OffsetDelete ----------------------------------------------------------------------------------------------------------------------


def delete(b, group, *topics, label=None):
    wanted = [{"Name": n, "Partitions": [{"PartitionIndex": i} for i in partitions]} for n, partitions in topics]
    return b.send("OffsetDelete", label=label, GroupId=group, Topics=wanted)


def with_offsets(b):
    name, group = b.topic("orders", partitions=2), b.name("group")
    b.ask("OffsetCommit", version=9, GroupId=group, Topics=[topic_of(b, name, offset(0, 5), offset(1, 6))])
    return name, group


@case("OffsetDelete")
def of_an_empty_group(b):
    name, group = with_offsets(b)
    delete(b, group, (name, (0,)))
    committed(b, group, (name, (0, 1)))
    delete(b, group, (name, (0,)), label="again")
    delete(b, group, (name, (1,)), label="the last one")


@case("OffsetDelete")
def topics_and_groups_nobody_knows(b):
    name, group = with_offsets(b)
    delete(b, group, (name, (7, -1, 0)), label="partitions")
    delete(b, group, (b.name("missing"), (0,)), label="topic")
    delete(b, b.name("missing"), (name, (0,)), label="group")
    delete(b, "", (name, (0,)), label="empty group id")
    delete(b, group, label="no topics")
    delete(b, group, (name, ()), label="no partitions")


@case("OffsetDelete")
def of_a_topic_that_members_read(b):
    """GROUP_SUBSCRIBED_TO_TOPIC; topics that nobody reads may go."""
    name, other, group = b.topic("orders"), b.topic("other"), b.name("group")
    member = Member(b, group, "one", protocols={"range": subscription(b"", [name])}, compared=False)
    member.join()
    member.sync({member: b"all"})
    member.commit(name, 5)
    member.commit(other, 6)
    delete(b, group, (name, (0,)), (other, (0,)))
    b.send("OffsetFetch", GroupId=group, Groups=[{"GroupId": group, "Topics": None}])


@case("OffsetDelete")
def of_a_group_of_another_kind(b):
    """NON_EMPTY_GROUP when its members' subscriptions cannot be read."""
    name, group = b.topic("orders"), b.name("group")
    member = Member(b, group, "one", protocol_type="connect", protocols={"v0": b"x"}, compared=False)
    member.join()
    member.sync({member: b"all"})
    delete(b, group, (name, (0,)))
