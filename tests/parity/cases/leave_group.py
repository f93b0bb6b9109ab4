"""LeaveGroup (13): version 3 brought several members at once, 5 reasons."""

from harness.cases import case
from harness.members import Member, alone, state_of, together, wait_for


@case("LeaveGroup")
def the_last_member(b):
    """The group is empty, and stays."""
    member = alone(b, b.name("group"), compared=False)
    member.compared = True
    member.leave()
    b.note("state", state_of(b, member.group))
    member.leave("leaves twice")


@case("LeaveGroup")
def one_of_two(b):
    """The other is told to join again."""
    group = b.name("group")
    one, two = together(b, group, "one", "two", compared=False)
    one.compared = two.compared = True
    two.leave()
    wait_for(b, group, "PreparingRebalance")
    one.heartbeat()
    one.join("joins again")
    one.sync({one: b"all"})


@case("LeaveGroup")
def members_and_groups_nobody_knows(b):
    member = alone(b, b.name("group"), compared=False)
    member.compared = True
    member.leave("nobody", MemberId="nobody", Members=[{"MemberId": "nobody"}])
    member.leave("an empty id", MemberId="", Members=[{"MemberId": ""}])
    member.leave("another group", GroupId=b.name("missing"))
    member.leave("an empty group id", GroupId="")
    member.heartbeat()


@case("LeaveGroup", "3+")
def several_at_once(b):
    """Each is answered for itself; the known ones go."""
    group = b.name("group")
    one, two = together(b, group, "one", "two", compared=False)
    one.compared = True
    one.leave(Members=[{"MemberId": two.id}, {"MemberId": "nobody"}, {"MemberId": one.id}, {"MemberId": one.id}])
    b.note("state", state_of(b, group))


@case("LeaveGroup", "3+")
def nobody(b):
    member = alone(b, b.name("group"), compared=False)
    member.compared = True
    member.leave(Members=[])
    member.leave("in a group that is not there", GroupId=b.name("missing"), Members=[])


@case("LeaveGroup", "3+")
def static_members(b):
    """By instance alone, as kafka-consumer-groups does it; a wrong id with it is fenced."""
    group = b.name("group")
    member = alone(b, group, instance="instance-1", compared=False)
    member.compared = True
    member.leave("another id", Members=[{"MemberId": "nobody", "GroupInstanceId": "instance-1"}])
    member.leave("an unknown instance", Members=[{"MemberId": "", "GroupInstanceId": "instance-9"}])
    member.leave("an unknown instance with a known id", Members=[{"MemberId": member.id, "GroupInstanceId": "instance-9"}])
    member.leave("by instance", Members=[{"MemberId": "", "GroupInstanceId": "instance-1"}])
    b.note("state", state_of(b, group))


@case("LeaveGroup")
def a_member_that_waits_for_the_others(b):
    """Its join is held back when it leaves."""
    group = b.name("group")
    one = alone(b, group, compared=False)
    two = Member(b, group, "two", compared=False)
    pending = two.start_join()
    wait_for(b, group, "PreparingRebalance")
    if b.newest("JoinGroup") >= 4:
        leaver = Member(b, group, "leaver")
        leaver.id = two.id
        leaver.leave("leaves from another connection")
    two.compared = True
    pending.step.label = "two's join"
    b.steps.append(pending.step)
    pending.finish()
    one.compared = True
    one.join("joins again")


@case("LeaveGroup", "5+")
def reasons(b):
    member = alone(b, b.name("group"), compared=False)
    member.compared = True
    member.leave(Members=[{"MemberId": member.id, "Reason": "x" * 2000}])
