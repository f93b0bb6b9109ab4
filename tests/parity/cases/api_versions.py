"""ApiVersions (18): what a broker serves. Answered before anything else, by every broker to every client, whatever version was asked."""

from harness.cases import case


@case("ApiVersions")
def the_table(b):
    """Every API with its range, and the features."""
    b.send("ApiVersions", ClientSoftwareName="parity", ClientSoftwareVersion="1.0")


@case("ApiVersions", "3+")
def software_names(b):
    """KIP-511: letters, digits, dots and dashes, beginning and ending with a letter or digit; else INVALID_REQUEST. The connection stays."""
    for name, version in (
        ("apache-kafka.java-2", "4.3.1-rc.0"),
        ("", "1"),
        ("parity", ""),
        ("-parity", "1"),
        ("parity", "1-"),
        ("two words", "1"),
        ("parity", "1/2"),
        ("ünicode", "1"),
        ("under_score", "1"),
        ("x" * 1000, "1"),
    ):
        answer = b.ask("ApiVersions", version=b.version, ClientSoftwareName=name, ClientSoftwareVersion=version)
        b.note(f"{name[:20]} {version}", {"ErrorCode": answer["ErrorCode"], "a table": bool(answer["ApiKeys"])})


@case("ApiVersions", "0")
def a_version_nobody_serves(b):
    """UNSUPPORTED_VERSION in the format of version 0 with the range of ApiVersions alone, and the connection goes on."""
    for version in (5, 99, 32767):
        b.send("ApiVersions", version=version, encode_as=4, decode_as=0, ClientSoftwareName="parity", ClientSoftwareVersion="1")
    b.note("afterwards", b.ask("ApiVersions", version=0)["ErrorCode"])


@case("ApiVersions", "0")
def a_negative_version(b):
    b.send("ApiVersions", version=-1, encode_as=0, decode_as=0)


@case("ApiVersions")
def asked_twice(b):
    """Nothing about it is once only."""
    first = b.ask("ApiVersions", version=b.version, ClientSoftwareName="one", ClientSoftwareVersion="1")
    second = b.ask("ApiVersions", version=b.version, ClientSoftwareName="two", ClientSoftwareVersion="2")
    b.note("the same answer", first == second)


@case("ApiVersions")
def client_ids(b):
    """Null, empty, long and not ASCII."""
    for client_id in (None, "", "ünï-cødé", "x" * 1000):
        connection = b.connection(client_id)
        answer = b.ask("ApiVersions", version=b.version, on=connection, ClientSoftwareName="parity", ClientSoftwareVersion="1")
        b.note(f"{client_id and client_id[:10]}", answer["ErrorCode"])
