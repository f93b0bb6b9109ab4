"""Frames and headers that no API's own code sees: what a broker does with what it cannot read. Nothing here may harm other connections."""

import struct

from harness.cases import case


def header(key, version, correlation=7, client_id=b"parity", flexible=False):
    out = struct.pack(">hhi", key, version, correlation)
    out += struct.pack(">h", -1) if client_id is None else struct.pack(">h", len(client_id)) + client_id
    return out + (b"\0" if flexible else b"")


def frame(body, length=None):
    return struct.pack(">i", len(body) if length is None else length) + body


@case("ApiVersions", "0")
def frame_lengths(b):
    """Negative, zero, shorter than a header, above socket.request.max.bytes: the connection is closed."""
    for length in (-1, -(2**31), 0, 1, 4, 7, 2**31 - 1, 104_857_601):
        b.raw(frame(header(18, 0)[: max(0, min(length, 10))], length), f"length {length}", seconds=5, end_of_input=length < 100)


@case("ApiVersions", "0")
def half_a_frame(b):
    """Then the client is gone."""
    b.raw(frame(header(18, 0))[:9], end_of_input=True)


@case("ApiVersions", "0")
def a_frame_in_single_bytes(b):
    connection = b.connection()
    data = frame(header(18, 99, flexible=True))
    for at in range(len(data) - 1):
        connection.write(data[at : at + 1])
    b.raw(data[-1:], on=connection)


@case("ApiVersions", "0")
def unknown_api_keys(b):
    """The connection is closed without an answer."""
    for key in (-1, 4, 5, 6, 7, 26_000, 93, 999, 32_767, -32_768):
        b.raw(frame(header(key, 0) + b"\0" * 8), f"key {key}")


@case("ApiVersions", "0")
def versions_nobody_serves(b):
    """Closed too; only ApiVersions itself is answered."""
    for key, version in ((0, 2), (0, 14), (1, 3), (1, 99), (3, 14), (3, -1), (8, 1), (9, 11), (10, 7), (11, 10), (19, 1), (20, 0), (22, 6), (23, 1)):
        b.raw(frame(header(key, version, flexible=True) + b"\0" * 40), f"key {key} version {version}")


@case("ApiVersions", "0")
def bytes_after_the_body(b):
    """ApiVersions version 0 has no body: what does a broker do with one?"""
    b.raw(frame(header(18, 0) + b"more"), first=6)


@case("ApiVersions", "0")
def bodies_cut_short(b):
    """A body that ends early closes the connection."""
    b.raw(frame(header(3, 1) + b"\0\0"), "Metadata")
    b.raw(frame(header(18, 3, flexible=True) + b"\x07par"), "ApiVersions")
    b.raw(frame(header(10, 1) + b"\0\x7fgroup"), "FindCoordinator")


@case("ApiVersions", "0")
def arrays_longer_than_the_frame(b):
    b.raw(frame(header(3, 1) + struct.pack(">i", 2**31 - 1)), "Metadata v1")
    b.raw(frame(header(3, 9, flexible=True) + b"\xff\xff\xff\xff\x0f"), "Metadata v9")
    b.raw(frame(header(2, 1) + struct.pack(">ii", -1, 10**9)), "ListOffsets v1")


@case("ApiVersions", "0")
def strings_with_lying_lengths(b):
    b.raw(frame(struct.pack(">hhih", 18, 0, 7, 32_000) + b"parity"), "client id")
    b.raw(frame(struct.pack(">hhih", 18, 0, 7, -2) + b"parity"), "negative client id", first=6)
    b.raw(frame(header(10, 1) + struct.pack(">h", -1) + b"\0"), "null where it may not be")


@case("ApiVersions", "0")
def bytes_that_are_not_utf8(b):
    """A topic name made of bytes that are no text."""
    b.send("Metadata", version=4, Topics=[{"Name": b"\xff\xfe\xfd"}], AllowAutoTopicCreation=False)


@case("ApiVersions", "0")
def unknown_tagged_fields(b):
    """From newer clients: skipped, whatever they hold."""
    from harness.schema import UNKNOWN_TAGS

    b.send("Metadata", version=9, Topics=[], **{UNKNOWN_TAGS: {77: b"from the future", 10_000: b""}})
    b.send("FindCoordinator", version=3, Key=b.name("g"), KeyType=0, **{UNKNOWN_TAGS: {0: b"x"}})


@case("ApiVersions", "0")
def requests_in_a_row_are_answered_in_order(b):
    """Pipelined: sent together, answered one after the other."""
    connection = b.connection()
    pending = [
        b.start("Metadata", version=4, on=connection, label=f"request {i}", Topics=[{"Name": b.name(f"t{i}")}], AllowAutoTopicCreation=False)
        for i in range(10)
    ]
    for one in pending:
        one.finish()


@case("ApiVersions", "0")
def other_connections_go_on(b):
    """After every insult above."""
    connection = b.connection()
    b.send("Metadata", version=4, on=connection, label="before", Topics=[])
    b.raw(frame(header(999, 0)), "an insult")
    b.send("Metadata", version=4, on=connection, label="after", Topics=[])
