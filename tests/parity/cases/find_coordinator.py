"""FindCoordinator (10): who coordinates a group (key type 0), a transactional id (1), a share partition (2)."""

from harness.cases import case


def keys(b, *names):
    return {"Key": names[0], "CoordinatorKeys": list(names)}


@case("FindCoordinator")
def a_group(b):
    b.send("FindCoordinator", **keys(b, b.name("group")), KeyType=0)


@case("FindCoordinator")
def an_empty_group_id(b):
    b.send("FindCoordinator", **keys(b, ""), KeyType=0)


@case("FindCoordinator", "4+")
def several_groups(b):
    b.send("FindCoordinator", **keys(b, b.name("c"), b.name("a"), b.name("b")), KeyType=0)


@case("FindCoordinator", "4+")
def the_same_group_twice(b):
    b.send("FindCoordinator", **keys(b, b.name("a"), b.name("a")), KeyType=0)


@case("FindCoordinator", "4+")
def no_groups(b):
    b.send("FindCoordinator", CoordinatorKeys=[], KeyType=0)


@case("FindCoordinator", "1+")
def a_transactional_id(b):
    b.send("FindCoordinator", **keys(b, b.name("payments")), KeyType=1)


@case("FindCoordinator", "1+")
def a_share_partition(b):
    """Not a key of group:topic-id:partition."""
    b.send("FindCoordinator", **keys(b, b.name("no share key")), KeyType=2)


@case("FindCoordinator", "1+")
def unknown_key_types(b):
    for kind in (3, 127, -1):
        b.send("FindCoordinator", label=f"type {kind}", **keys(b, b.name("group")), KeyType=kind)


@case("FindCoordinator")
def odd_group_ids(b):
    """Any text names a group."""
    for text in ("with space", "a:b", "{x}", "ünï", "x" * 30_000):
        b.send("FindCoordinator", label=text[:10], **keys(b, b.name(text)), KeyType=0)
