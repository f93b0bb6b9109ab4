"""What the Python clients' stories share: the records, what must come back, and how a step is told."""

import base64
import json
import os
import sys
import time
import typing

DEADLINE = 60


class Record(typing.NamedTuple):
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]

    def __str__(self):
        def short(data):
            return repr(data if data is None or len(data) <= 60 else data[:60] + b"...")

        headers = [(name, short(data)) for name, data in self.headers]
        return f"{self.partition}/{self.offset} at {self.timestamp}: {short(self.key)} = {short(self.value)}, headers {headers}"


class Story:
    """`refused(key, value, headers)` names records that this client's library cannot express."""

    def __init__(self, client, refused=lambda key, value, headers: False):
        self.client = client
        self.bootstrap = os.environ["BOOTSTRAP"]
        self.refuses_transactions = "TRANSACTIONS_REFUSED" in os.environ
        self.topic = f"{client}-{os.environ['LAYOUT']}-{os.environ['RUN']}"
        self.group = f"{self.topic}-group"
        with open(os.environ["RECORDS"], encoding="utf-8") as file:
            given = json.load(file)

        def decode(text):
            return None if text is None else base64.b64decode(text)

        self.partitions = given["partitions"]
        self.start = given["start"]
        self.given = [
            (decode(record["key"]), decode(record["value"]), [(name, decode(data)) for name, data in record["headers"]])
            for record in given["records"]
        ]
        self.given = [record for record in self.given if not refused(*record)]
        self.expected = [[] for _ in range(self.partitions)]
        self.produced = 0

    def round(self, count=None):
        """The next records to produce, each with the partition and the offset that it must get."""
        records = []
        for key, value, headers in self.given[:count]:
            partition = self.produced % self.partitions
            record = Record(partition, len(self.expected[partition]), self.start + 1000 * self.produced, key, value, headers)
            self.produced += 1
            self.expected[partition].append(record)
            records.append(record)
        return records

    def everything(self):
        return [record for partition in self.expected for record in partition]

    def compare(self, got, expected):
        """Each expected record came once, in order within its partition, byte for byte."""
        for partition in range(self.partitions):
            here = [record for record in got if record.partition == partition]
            wanted = [record for record in expected if record.partition == partition]
            for record, want in zip(here, wanted):
                check(record == want, f"got  {record}\nwant {want}")
            check(len(here) == len(wanted), f"partition {partition}: got {len(here)} records, want {len(wanted)}")

    def ok(self, step):
        print(f"ok {self.client} {step}", flush=True)

    def unsupported(self, step, why):
        print(f"unsupported {self.client} {step}: {why}", flush=True)


def check(condition, message):
    if not condition:
        sys.exit(message)


def equal(what, got, want):
    check(got == want, f"{what}: got {got!r}, want {want!r}")


def until(what, attempt):
    """Calls `attempt` until it answers something true: for what a broker does in its own time."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        answer = attempt()
        if answer:
            return answer
        time.sleep(0.05)
    sys.exit(f"not within {DEADLINE} s: {what}")
