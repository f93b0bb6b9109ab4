"""JoinGroup (11): becoming a member. Version 4 brought ids before membership (KIP-394), 5 static members (KIP-345), 7 protocol types, 8 reasons,
9 the leader that may skip the assignment."""

from harness.cases import case
from harness.members import Member, alone, gather, state_of, subscription, together, wait_for


@case("JoinGroup")
def the_first_member(b):
    """Leads, generation 1."""
    member = Member(b, b.name("group"), "one")
    member.join()
    b.note("state", state_of(b, member.group))


@case("JoinGroup")
def two_members(b):
    """The leader is told everybody's metadata, the other nobody's."""
    together(b, b.name("group"), "one", "two")


@case("JoinGroup", "4-9")
def three_members(b):
    together(b, b.name("group"), "one", "two", "three")


@case("JoinGroup")
def odd_group_ids(b):
    """Empty is INVALID_GROUP_ID, anything else will do."""
    Member(b, "", "one").join("no name")
    for text in ("a b", "a:b", "{x}", "ünï", "x" * 5000):
        Member(b, b.name(text), "one").join(f"{text[:6]} joins")


@case("JoinGroup")
def session_timeouts(b):
    """Between group.min.session.timeout.ms and group.max.session.timeout.ms, else INVALID_SESSION_TIMEOUT."""
    for timeout in (1000, 1_800_000, 999, 1_800_001, 0, -1):
        member = Member(b, b.name(f"group{timeout}"), "one", session=timeout)
        member.join(f"with {timeout} ms")


@case("JoinGroup", "1+")
def rebalance_timeouts(b):
    """Not checked."""
    for timeout in (0, -1, 2**31 - 1):
        member = Member(b, b.name(f"group{timeout}"), "one", rebalance=timeout)
        member.join(f"with {timeout} ms")


@case("JoinGroup")
def member_ids_nobody_knows(b):
    """UNKNOWN_MEMBER_ID, in a group that exists and in one that does not."""
    Member(b, b.name("missing"), "one").join("no group", MemberId="nobody")
    group = b.name("group")
    alone(b, group)
    Member(b, group, "two").join("a group", MemberId="nobody")


@case("JoinGroup")
def no_protocols(b):
    """INCONSISTENT_GROUP_PROTOCOL."""
    Member(b, b.name("a"), "one").join("no protocols", Protocols=[])
    Member(b, b.name("b"), "one").join("no type", ProtocolType="")
    Member(b, b.name("c"), "one").join("neither", ProtocolType="", Protocols=[])


@case("JoinGroup")
def protocols_that_do_not_fit(b):
    """Another type than the group's, and no protocol in common."""
    group = b.name("group")
    alone(b, group)
    Member(b, group, "two", protocol_type="connect").join("another type")
    Member(b, group, "three", protocols={"sticky": subscription(b"s")}).join("nothing in common")


@case("JoinGroup")
def the_protocol_most_prefer(b):
    """Each member votes for the first of its list that all know."""
    group = b.name("group")
    one = Member(b, group, "one", protocols={"range": subscription(b"r1"), "sticky": subscription(b"s1"), "only": subscription(b"o1")})
    one.join()
    one.sync({one: b"all"})
    two = Member(b, group, "two", protocols={"unknown": subscription(b"u"), "sticky": subscription(b"s2"), "range": subscription(b"r2")})
    pending = two.start_join()
    wait_for(b, group, "PreparingRebalance")
    one.protocols = {"only": subscription(b"o1"), "sticky": subscription(b"s1"), "range": subscription(b"r1")}
    one.joined(one.start_join("joins with another order"))
    two.joined(pending)


@case("JoinGroup")
def other_protocol_types(b):
    """Connect and the schema registry bring theirs; the bytes are nobody's business."""
    for kind in ("connect", "sr", "something else", "x" * 500):
        member = Member(b, b.name(kind[:10]), "one", protocol_type=kind, protocols={"v0": b"\x00\xff\xfe", "v1": b""})
        member.join(f"{kind[:10]} joins")


@case("JoinGroup")
def a_member_joins_again_while_the_others_join(b):
    """A second join of a member whose first is still held back."""
    group = b.name("group")
    member = Member(b, group, "one")
    member.join()
    member.join("joins again before anybody synced")
    member.sync({member: b"all"})


@case("JoinGroup")
def the_leader_joins_again(b):
    """Starts a new generation, also when nothing changed."""
    member = alone(b, b.name("group"))
    member.join("joins again")
    member.heartbeat("heartbeats before the sync")
    member.sync({member: b"all"})


@case("JoinGroup")
def a_follower_joins_again_unchanged(b):
    """Gets the present generation back; nobody else notices."""
    one, two = together(b, b.name("group"), "one", "two")
    two.join("joins again")
    one.heartbeat()


@case("JoinGroup")
def a_follower_joins_again_changed(b):
    """New metadata starts a rebalance."""
    group = b.name("group")
    one, two = together(b, group, "one", "two")
    two.protocols = {"range": subscription(b"changed")}
    pending = two.start_join("joins changed")
    wait_for(b, group, "PreparingRebalance")
    one.heartbeat()
    one.join("joins again")
    two.joined(pending)


@case("JoinGroup", "4+")
def a_pending_member(b):
    """Has its id, has not joined: not listed, but a heartbeat of it is unknown."""
    group = b.name("group")
    one = alone(b, group)
    two = Member(b, group, "two")
    answer = two._start_join_once("asks for an id").finish()
    two.id = answer["MemberId"]
    two.heartbeat()
    two.sync(GenerationId=1)
    one.heartbeat()
    b.note("state", state_of(b, group))
    two.leave()


@case("JoinGroup", "4+")
def an_id_is_asked_for_in_a_group_that_is_not_there(b):
    """The group exists from then on."""
    member = Member(b, b.name("group"), "one")
    member._start_join_once("asks for an id").finish()
    b.note("state", state_of(b, member.group))


@case("JoinGroup")
def too_many_members(b):
    """group.max.size is 4 here: GROUP_MAX_SIZE_REACHED."""
    group = b.name("group")
    members = together(b, group, "one", "two", "three", "four", compared=False)
    fifth = Member(b, group, "five")
    fifth.join()
    members[0].heartbeat()


@case("JoinGroup")
def one_does_not_come_back(b):
    """Its rebalance timeout passes, the others go on without it."""
    group = b.name("group")
    one = alone(b, group, "one", rebalance=1500, session=6000 if b.version else 1500)
    two = Member(b, group, "two", rebalance=1500, session=6000 if b.version else 1500)
    two.joined(two.start_join())
    two.sync({two: b"all"})
    one.heartbeat()


@case("JoinGroup", "2-9")
def a_member_that_falls_silent(b):
    """Its session ends, the group is empty."""
    group = b.name("group")
    one = alone(b, group, "one", session=1000)
    b.note("emptied", wait_for(b, group, "Empty"))
    one.heartbeat()
    one.join("joins with its old id")


@case("JoinGroup")
def an_empty_group_is_joined_again(b):
    """The generation goes on from where it was; another protocol type will do."""
    group = b.name("group")
    one = alone(b, group)
    one.leave()
    two = Member(b, group, "two", protocol_type="connect", protocols={"v1": b"x"})
    two.join()


@case("JoinGroup", "8+")
def reasons(b):
    """Null, empty, long."""
    for index, reason in enumerate((None, "", "because", "x" * 1000)):
        Member(b, b.name(f"group{index}"), "one").join(f"reason {index}", Reason=reason)


# --- static members (KIP-345) ----------------------------------------------------------------------------------------------------------


@case("JoinGroup", "5+")
def a_static_member(b):
    """No id is asked for first."""
    alone(b, b.name("group"), instance="instance-1")


@case("JoinGroup", "5+")
def a_static_member_returns(b):
    """With the same instance and no id it takes its old place, without a rebalance; the old id is fenced."""
    group = b.name("group")
    first = alone(b, group, "first", instance="instance-1")
    again = Member(b, group, "again", instance="instance-1", protocols=first.protocols)
    again.join()
    again.sync(label="gets its work")
    again.heartbeat()
    first.heartbeat("heartbeats with its old id")
    first.join("joins with its old id")
    first.sync(label="syncs with its old id")


@case("JoinGroup", "5+")
def a_static_follower_returns(b):
    group = b.name("group")
    one = alone(b, group, "one", instance="instance-1")
    two = Member(b, group, "two", instance="instance-2")
    gather(b, group, [one], two)
    again = Member(b, group, "again", instance="instance-2", protocols=two.protocols)
    again.join()
    again.sync(label="gets its work")
    one.heartbeat()


@case("JoinGroup", "5+")
def a_static_member_returns_changed(b):
    """With other metadata its return starts a rebalance."""
    group = b.name("group")
    alone(b, group, "first", instance="instance-1")
    again = Member(b, group, "again", instance="instance-1", protocols={"range": subscription(b"other")})
    again.join()
    again.sync({again: b"all"})


@case("JoinGroup", "5+")
def an_unknown_id_with_an_instance(b):
    group = b.name("group")
    alone(b, group, "first", instance="instance-1")
    Member(b, group, "other", instance="instance-1").join("a known instance", MemberId="nobody")
    Member(b, group, "another", instance="instance-9").join("an unknown instance", MemberId="nobody")


@case("JoinGroup", "5+")
def odd_instance_ids(b):
    """Empty, and characters of all kinds."""
    for index, instance in enumerate(("", "a b", "ünï", "x" * 249, "x" * 250, ".", "..")):
        Member(b, b.name(f"group{index}"), "one", instance=instance).join(f"instance {index}")
