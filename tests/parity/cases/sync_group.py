"""SyncGroup (14): the leader hands out the work, everybody gets theirs. Version 3 brought static members, 5 protocol type and name."""

from harness.cases import case
from harness.members import Member, alone, state_of, together, wait_for


@case("SyncGroup")
def the_leader_alone(b):
    member = Member(b, b.name("group"), "one")
    member.join()
    member.sync({member: b"all of it"})
    b.note("state", state_of(b, member.group))


@case("SyncGroup")
def leader_and_followers(b):
    together(b, b.name("group"), "one", "two", "three")


@case("SyncGroup")
def again_in_a_stable_group(b):
    """Each gets its work again; what the leader sends now is ignored."""
    one, two = together(b, b.name("group"), "one", "two", compared=False)
    for member in (one, two):
        member.compared = True
        member.sync(label="syncs again")
    one.sync({one: b"other", two: b"other"}, label="hands out other work")
    two.sync(label="syncs a third time")


@case("SyncGroup")
def without_assignments(b):
    """A member that the leader forgot gets empty work."""
    member = Member(b, b.name("group"), "one")
    member.join()
    member.sync({})


@case("SyncGroup")
def assignments_for_strangers(b):
    member = Member(b, b.name("group"), "one")
    member.join()
    member.sync(Assignments=[{"MemberId": "stranger", "Assignment": b"x"}, {"MemberId": member.id, "Assignment": b"mine"}])
    b.send("DescribeGroups", Groups=[member.group])


@case("SyncGroup")
def assignments_twice(b):
    member = Member(b, b.name("group"), "one")
    member.join()
    member.sync(Assignments=[{"MemberId": member.id, "Assignment": b"first"}, {"MemberId": member.id, "Assignment": b"second"}])


@case("SyncGroup")
def wrong_generations(b):
    """ILLEGAL_GENERATION."""
    member = alone(b, b.name("group"), compared=False)
    member.compared = True
    for generation in (0, 2, -1, 2**31 - 1):
        member.sync(label=f"generation {generation}", GenerationId=generation)


@case("SyncGroup")
def members_and_groups_nobody_knows(b):
    """UNKNOWN_MEMBER_ID, INVALID_GROUP_ID."""
    member = alone(b, b.name("group"), compared=False)
    member.compared = True
    member.sync(label="nobody", MemberId="nobody")
    member.sync(label="an empty id", MemberId="")
    member.sync(label="another group", GroupId=b.name("missing"))
    member.sync(label="an empty group id", GroupId="")


@case("SyncGroup", "5+")
def protocols_that_do_not_fit(b):
    """INCONSISTENT_GROUP_PROTOCOL."""
    member = alone(b, b.name("group"), compared=False)
    member.compared = True
    member.sync(label="another type", ProtocolType="connect")
    member.sync(label="another name", ProtocolName="sticky")
    member.sync(label="no type", ProtocolType=None)
    member.sync(label="no name", ProtocolName=None)
    member.sync(label="neither", ProtocolType=None, ProtocolName=None)


@case("SyncGroup")
def during_a_rebalance(b):
    """REBALANCE_IN_PROGRESS."""
    group = b.name("group")
    one = alone(b, group, compared=False)
    two = Member(b, group, "two", compared=False)
    pending = two.start_join()
    wait_for(b, group, "PreparingRebalance")
    one.compared = True
    one.sync({one: b"x"})
    one.compared = False
    one.join()
    two.joined(pending)


@case("SyncGroup")
def a_follower_waits_and_somebody_joins(b):
    """A sync that is held back is answered REBALANCE_IN_PROGRESS when a new rebalance begins."""
    group = b.name("group")
    one = alone(b, group, compared=False)
    two = Member(b, group, "two", compared=False)
    pending = two.start_join()
    wait_for(b, group, "PreparingRebalance")
    one.join()
    two.joined(pending)
    two.compared = True
    waiting = two.start_sync(label="waits")
    three = Member(b, group, "three", compared=False)
    parked = three.start_join()
    wait_for(b, group, "PreparingRebalance")
    waiting.finish()
    one.start_join()
    two.compared = False
    two.start_join()
    three.joined(parked)


@case("SyncGroup")
def the_leader_leaves_before_it_synced(b):
    group = b.name("group")
    one = alone(b, group, compared=False)
    two = Member(b, group, "two", compared=False)
    pending = two.start_join()
    wait_for(b, group, "PreparingRebalance")
    one.join()
    two.joined(pending)
    two.compared = True
    waiting = two.start_sync(label="waits")
    wait_for(b, group, "CompletingRebalance")
    one.leave()
    waiting.finish()


@case("SyncGroup", "3+")
def static_members(b):
    """FENCED_INSTANCE_ID for an id that is not the instance's."""
    group = b.name("group")
    member = alone(b, group, instance="instance-1", compared=False)
    member.compared = True
    member.sync(label="its own")
    member.sync(label="another id", MemberId="nobody")
    member.sync(label="an unknown instance", GroupInstanceId="instance-9")
    member.sync(label="no instance", GroupInstanceId=None)


@case("SyncGroup")
def large_assignments(b):
    member = Member(b, b.name("group"), "one")
    member.join()
    member.sync({member: bytes(range(256)) * 1000})
    member.sync(label="again")
