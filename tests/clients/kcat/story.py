"""The story told by kcat (librdkafka), which has no admin calls: it creates its topic by producing to it."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

CLIENT, KCAT = "kcat", sys.argv[1]
DEADLINE = 60
TOPIC = f"{CLIENT}-{os.environ['LAYOUT']}-{os.environ['RUN']}"
GROUP = f"{TOPIC}-group"
KEY_END, RECORD_END = b"<~key~>", b"<~record~>"
FORMAT = "%p %o %T %K %S [%h]\\n%k%s\\n"
MEMBER = ["-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=300", "-X", "auto.commit.interval.ms=200"]


def check(condition, message):
    if not condition:
        sys.exit(message)


def until(what, attempt):
    deadline = time.monotonic() + DEADLINE
    while not attempt():
        check(time.monotonic() < deadline, f"not within {DEADLINE} s: {what}")
        time.sleep(0.02)


def ok(step):
    print(f"ok {CLIENT} {step}", flush=True)


def unsupported(step, why):
    print(f"unsupported {CLIENT} {step}: {why}", flush=True)


def kcat(*arguments, given=None):
    command = [KCAT, "-b", os.environ["BOOTSTRAP"], *arguments]
    done = subprocess.run(command, input=given, capture_output=True, timeout=DEADLINE, check=False)
    check(done.returncode == 0, f"{command}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def groupings():
    """The records that kcat can express, in groups that one call can send: (nulls, headers, [(key, value)])."""
    with open(os.environ["RECORDS"], encoding="utf-8") as file:
        given = json.load(file)["records"]

    def decode(text):
        return None if text is None else base64.b64decode(text)

    grouped = {}
    for record in given:
        key, value = decode(record["key"]), decode(record["value"])
        headers = tuple((name, decode(data)) for name, data in record["headers"])
        # Headers are arguments with a name; an empty line is skipped; and either every empty field means null, or none does.
        if any(name == "" or b"\0" in (data or b"") for name, data in headers) or (key is None and value == b""):
            continue
        nulls = value is None
        if nulls and key == b"":
            continue
        grouped.setdefault((nulls, headers), []).append((key, value))
    return [(nulls, headers, records) for (nulls, headers), records in grouped.items()]


expected = {}


def produce(codec, partition, groups):
    for nulls, headers, records in groups:
        arguments = ["-P", "-t", TOPIC, "-p", str(partition), "-z", codec, "-K", KEY_END, "-D", RECORD_END]
        if nulls:
            arguments.append("-Z")
        for name, data in headers:
            arguments += ["-H", name if data is None else name.encode() + b"=" + data]
        lines = [(b"" if key is None and not nulls else (key or b"") + KEY_END) + (value or b"") for key, value in records]
        kcat(*arguments, given=RECORD_END.join(lines))
        told = b",".join(name.encode() + b"=" + (b"NULL" if data is None else data) for name, data in headers)
        expected.setdefault(partition, []).extend((key, value, told) for key, value in records)


def parse(data):
    """Complete records of kcat's output, as (partition, offset, timestamp, key, value, headers), and how many bytes they took."""
    records, at = [], 0
    while match := re.compile(rb"(\d+) (\d+) (-?\d+) (-?\d+) (-?\d+) \[(.*)\]\n").match(data, at):
        partition, offset, timestamp, key_size, value_size = map(int, match.groups()[:5])
        key_end = match.end() + max(key_size, 0)
        value_end = key_end + max(value_size, 0)
        if len(data) <= value_end:
            break
        key = None if key_size < 0 else data[match.end() : key_end]
        value = None if value_size < 0 else data[key_end:value_end]
        records.append((partition, offset, timestamp, key, value, match[6]))
        at = value_end + 1
    return records, at


def compare(got, start):
    """Each record from `start` (by partition) on came, in order, byte for byte; the same record may come again after a rebalance."""
    seen = {}
    for record in got:
        place = record[:2]
        check(seen.setdefault(place, record) == record, f"came again differently: {place}")
    for partition, records in expected.items():
        wanted = {offset: record for offset, record in enumerate(records) if offset >= start.get(partition, 0)}
        here = {offset: record[3:] for (at, offset), record in seen.items() if at == partition}
        check(sorted(here) == sorted(wanted), f"partition {partition}: got offsets {sorted(here)}, want {sorted(wanted)}")
        for offset, record in here.items():
            check(record == wanted[offset], f"{partition}/{offset}: got {str(record)[:300]}, want {str(wanted[offset])[:300]}")


class Member:
    """A member of the group, and what it printed."""

    def __init__(self):
        command = [KCAT, "-b", os.environ["BOOTSTRAP"], *MEMBER, "-u", "-f", FORMAT, "-G", GROUP, TOPIC]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.output, self.held = bytearray(), set()
        self.readers = [threading.Thread(target=self.read, daemon=True), threading.Thread(target=self.follow, daemon=True)]
        for reader in self.readers:
            reader.start()

    def read(self):
        while data := self.process.stdout.read1():
            self.output += data

    def follow(self):
        for line in self.process.stderr:
            if b"rebalanced" in line:
                assigned = b"assigned:" in line
                self.held = {int(number) for number in re.findall(rb"\[(\d+)\]", line)} if assigned else set()

    def records(self):
        return parse(bytes(self.output))[0]

    def end(self, how):
        self.process.send_signal(how)
        self.process.wait(DEADLINE)
        for reader in self.readers:
            reader.join(DEADLINE)


def count():
    return sum(map(len, expected.values()))


def main():
    # Producing creates the topic, with as many partitions as the broker gives it.
    groups = groupings()
    produce("none", 0, groups)
    ok("create")
    [described] = json.loads(kcat("-L", "-J", "-t", TOPIC))["topics"]
    partitions = sorted(partition["partition"] for partition in described["partitions"])
    check(len(partitions) > 1 and all(partition["leader"] >= 0 for partition in described["partitions"]), f"described as {described}")
    check(TOPIC in [topic["topic"] for topic in json.loads(kcat("-L", "-J"))["topics"]], "the topic is not listed")
    ok("list")

    for number, codec in enumerate(["gzip", "snappy", "lz4", "zstd", "none"]):
        produce(codec, partitions[(number + 1) % len(partitions)], groups)
    read, _ = parse(kcat("-C", "-t", TOPIC, "-e", "-q", "-f", FORMAT))
    compare(read, {})
    ok("produce")

    # Two members share the partitions.
    members = [Member(), Member()]
    until(
        "both members have partitions, and together every record",
        lambda: all(member.held for member in members)
        and sorted(p for member in members for p in member.held) == partitions
        and len({record[:2] for member in members for record in member.records()}) == count(),
    )
    first, second = members
    compare(first.records() + second.records(), {})
    ok("consume")

    # One member is killed; the other has its partitions when the session has run out.
    ends = {partition: len(records) for partition, records in expected.items()}
    first.end(signal.SIGKILL)
    until("the other member has every partition", lambda: sorted(second.held) == partitions)
    for partition in partitions:
        produce("none", partition, [(False, (), [(b"takeover", str(partition).encode())])])
    place = {(partition, len(expected[partition]) - 1) for partition in partitions}
    until("the records produced since", lambda: place <= {record[:2] for record in second.records()})
    fresh = [record for record in second.records() if record[1] >= ends.get(record[0], 0)]
    compare(fresh, ends)
    ok("takeover")

    # Leaving commits; a new member goes on there.
    second.end(signal.SIGTERM)
    ends = {partition: len(records) for partition, records in expected.items()}
    for partition in partitions:
        produce("none", partition, [(False, (), [(b"resume", str(partition).encode())])])
    third = Member()
    until("the rest", lambda: len(third.records()) >= len(partitions))
    compare(third.records(), ends)
    third.end(signal.SIGTERM)
    ok("resume")

    read, _ = parse(kcat("-C", "-t", TOPIC, "-p", "1", "-e", "-q", "-f", FORMAT))
    wanted = read[len(read) // 2]
    wanted = next(record for record in read if record[2] >= wanted[2])
    answer = kcat("-Q", "-t", f"{TOPIC}:1:{wanted[2]}").decode()
    check(answer.strip() == f"{TOPIC} [1] offset {wanted[1]}", f"offset of a time: {answer}")
    answer = kcat("-Q", "-t", f"{TOPIC}:1:{wanted[2] + 10**9}").decode()
    check(answer.strip() == f"{TOPIC} [1] offset -1", f"offset after the last time: {answer}")
    found, _ = parse(kcat("-C", "-t", TOPIC, "-p", "1", "-o", f"s@{wanted[2]}", "-c", "1", "-q", "-f", FORMAT))
    check(found == [wanted], f"record at a time: got {found}, want {wanted}")
    ok("seek")

    for step in ["groups", "config", "trim", "delete"]:
        unsupported(step, "kcat has no admin calls")


main()
