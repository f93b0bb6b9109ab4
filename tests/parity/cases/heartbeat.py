"""Heartbeat (12): still here, and is there anything to know? Version 3 brought static members."""

from harness.cases import case
from harness.members import Member, alone, wait_for


@case("Heartbeat")
def in_a_stable_group(b):
    member = alone(b, b.name("group"), compared=False)
    member.compared = True
    member.heartbeat()
    member.heartbeat()


@case("Heartbeat")
def wrong_generations(b):
    """ILLEGAL_GENERATION."""
    member = alone(b, b.name("group"), compared=False)
    member.compared = True
    for generation in (0, 2, -1):
        member.heartbeat(f"generation {generation}", GenerationId=generation)


@case("Heartbeat")
def members_and_groups_nobody_knows(b):
    member = alone(b, b.name("group"), compared=False)
    member.compared = True
    member.heartbeat("nobody", MemberId="nobody")
    member.heartbeat("an empty id", MemberId="")
    member.heartbeat("another group", GroupId=b.name("missing"))
    member.heartbeat("an empty group id", GroupId="")


@case("Heartbeat")
def through_a_rebalance(b):
    """REBALANCE_IN_PROGRESS while the others join; between join and sync all is well."""
    group = b.name("group")
    one = alone(b, group, compared=False)
    two = Member(b, group, "two", compared=False)
    pending = two.start_join()
    wait_for(b, group, "PreparingRebalance")
    one.compared = True
    one.heartbeat("while others join")
    one.compared = False
    one.join()
    two.joined(pending)
    one.compared = two.compared = True
    one.heartbeat("before the sync")
    one.heartbeat("with the old generation", GenerationId=1)
    one.compared = False
    one.sync({one: b"1", two: b"2"})
    one.compared = True
    one.heartbeat("after the sync")


@case("Heartbeat")
def after_leaving(b):
    """UNKNOWN_MEMBER_ID."""
    member = alone(b, b.name("group"), compared=False)
    member.leave()
    member.compared = True
    member.heartbeat()


@case("Heartbeat")
def before_the_first_sync(b):
    member = Member(b, b.name("group"), "one", compared=False)
    member.join()
    member.compared = True
    member.heartbeat()


@case("Heartbeat", "3+")
def static_members(b):
    member = alone(b, b.name("group"), instance="instance-1", compared=False)
    member.compared = True
    member.heartbeat("its own")
    member.heartbeat("another id", MemberId="nobody")
    member.heartbeat("an unknown instance", GroupInstanceId="instance-9")
    member.heartbeat("no instance", GroupInstanceId=None)
    member.heartbeat("wrong generation", GenerationId=9)


@case("Heartbeat")
def of_a_group_with_offsets_only(b):
    """Made by a simple commit: no members."""
    name, group = b.topic("orders"), b.name("group")
    Member(b, group, "simple", compared=False).commit(name, 5)
    member = Member(b, group, "one")
    member.heartbeat("a stranger", MemberId="stranger", GenerationId=1)
