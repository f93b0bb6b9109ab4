"""DescribeGroups (15), ListGroups (16), DeleteGroups (42): groups seen from outside."""

from harness.cases import case
from harness.members import Member, alone, together, wait_for


def describe(b, *groups, label=None, **more):
    return b.send("DescribeGroups", label=label, Groups=list(groups), **more)


def listed(b, label=None, **more):
    return b.send("ListGroups", label=label, own=True, **more)


def committed(b, group, name):
    Member(b, group, "simple", compared=False).commit(name, 5)


# --- DescribeGroups --------------------------------------------------------------------------------------------------------------------


@case("DescribeGroups")
def stable(b):
    """Members with their metadata and their work."""
    group = b.name("group")
    together(b, group, "one", "two", compared=False)
    describe(b, group)


@case("DescribeGroups")
def in_every_state(b):
    group = b.name("group")
    one = Member(b, group, "one", compared=False)
    describe(b, group, label="before")
    one.join()
    describe(b, group, label="completing")
    one.sync({one: b"all"})
    describe(b, group, label="stable")
    two = Member(b, group, "two", compared=False)
    pending = two.start_join()
    wait_for(b, group, "PreparingRebalance")
    describe(b, group, label="preparing")
    one.join()
    two.joined(pending)
    describe(b, group, label="completing the next")
    one.leave()
    two.leave()
    wait_for(b, group, "Empty")
    describe(b, group, label="empty")


@case("DescribeGroups")
def with_offsets_alone(b):
    group = b.name("group")
    committed(b, group, b.topic("orders"))
    describe(b, group)


@case("DescribeGroups")
def groups_nobody_knows(b):
    """Dead; from version 6 GROUP_ID_NOT_FOUND."""
    describe(b, b.name("missing"))
    describe(b, "", label="an empty id")


@case("DescribeGroups")
def several(b):
    one, two = b.name("one"), b.name("two")
    alone(b, one, compared=False)
    alone(b, two, compared=False, protocol_type="connect", protocols={"v0": b"x"})
    describe(b, two, b.name("missing"), one)
    describe(b, one, one, label="the same twice")
    describe(b, label="none")


@case("DescribeGroups", "3+")
def authorized_operations(b):
    group = b.name("group")
    alone(b, group, compared=False)
    describe(b, group, IncludeAuthorizedOperations=True)
    describe(b, b.name("missing"), IncludeAuthorizedOperations=True, label="of none")


@case("DescribeGroups", "4+")
def static_members(b):
    group = b.name("group")
    alone(b, group, instance="instance-1", compared=False)
    describe(b, group)


# --- ListGroups ------------------------------------------------------------------------------------------------------------------------


@case("ListGroups")
def everything(b):
    alone(b, b.name("stable"), compared=False)
    Member(b, b.name("completing"), "one", compared=False).join()
    committed(b, b.name("simple"), b.topic("orders"))
    alone(b, b.name("connect"), compared=False, protocol_type="connect", protocols={"v0": b"x"})
    listed(b)


@case("ListGroups", "4+")
def by_state(b):
    """Any spelling of the case; an unknown state is in no group."""
    alone(b, b.name("stable"), compared=False)
    committed(b, b.name("simple"), b.topic("orders"))
    for states in (["Stable"], ["stable"], ["Empty"], ["Empty", "Stable"], ["Dead"], ["Nonsense"], [""], []):
        listed(b, label=f"states {states}", StatesFilter=states)


@case("ListGroups", "5+")
def by_type(b):
    alone(b, b.name("stable"), compared=False)
    for types in (["classic"], ["Classic"], ["consumer"], ["share"], ["nonsense"], []):
        listed(b, label=f"types {types}", TypesFilter=types)
    listed(b, label="type and state", TypesFilter=["classic"], StatesFilter=["Empty"])


# --- DeleteGroups ----------------------------------------------------------------------------------------------------------------------


def delete(b, *groups, label=None):
    return b.send("DeleteGroups", label=label, GroupsNames=list(groups))


@case("DeleteGroups")
def an_empty_group(b):
    """And its offsets with it."""
    name, group = b.topic("orders"), b.name("group")
    committed(b, group, name)
    delete(b, group)
    delete(b, group, label="again")
    describe(b, group, version=5)
    b.send("OffsetFetch", version=9, Groups=[{"GroupId": group, "Topics": [{"Name": name, "PartitionIndexes": [0]}]}])


@case("DeleteGroups")
def a_group_with_members(b):
    """NON_EMPTY_GROUP."""
    group = b.name("group")
    member = alone(b, group, compared=False)
    delete(b, group)
    member.leave()
    delete(b, group, label="after they left")


@case("DeleteGroups")
def a_group_with_a_pending_member(b):
    group = b.name("group")
    Member(b, group, "one", compared=False)._start_join_once("asks for an id").finish()
    delete(b, group)


@case("DeleteGroups")
def several(b):
    name, one, two = b.topic("orders"), b.name("one"), b.name("two")
    committed(b, one, name)
    alone(b, two, compared=False)
    delete(b, two, b.name("missing"), one, "")
    delete(b, label="none")


@case("DeleteGroups")
def the_same_group_twice(b):
    name, group = b.topic("orders"), b.name("group")
    committed(b, group, name)
    delete(b, group, group)
