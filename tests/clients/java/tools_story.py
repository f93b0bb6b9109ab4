"""The story told by Apache Kafka's own command-line tools."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

CLIENT, JAVA = "java-tools", sys.argv[1:]
BOOTSTRAP = os.environ["BOOTSTRAP"]
DEADLINE = 60
TOPIC = f"{CLIENT}-{os.environ['LAYOUT']}-{os.environ['RUN']}"
GROUP = f"{TOPIC}-group"
TOOLS = {
    "topics": "org.apache.kafka.tools.TopicCommand",
    "configs": "kafka.admin.ConfigCommand",
    "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "consumer-perf-test": "org.apache.kafka.tools.ConsumerPerformance",
}
NULL = "<null>"
# What a text tool can carry: (key, value, headers), the headers as the tools write them.
RECORDS = [
    ("key", "value", "NO_HEADERS"),
    (NULL, "null key", "NO_HEADERS"),
    ("tombstone", NULL, "NO_HEADERS"),
    ("empty", "", "NO_HEADERS"),
    ("headers", "h", f"a:1,b:,a:2,c:{NULL}"),
    ("unicode \u00fc\u4e16", "\u00fc\u4e16", "\u00fc:\u4e16"),
    ("json", '{"order_id":"cust-00123","quantity":3}', "content-type:application/json"),
    ("python json", '{"order_id": "cust-00123", "quantity": 3}', "NO_HEADERS"),
    ("long", "weir " * 2000, "NO_HEADERS"),
]


def check(condition, message):
    if not condition:
        sys.exit(message)


def until(what, attempt):
    deadline = time.monotonic() + DEADLINE
    while not (answer := attempt()):
        check(time.monotonic() < deadline, f"not within {DEADLINE} s: {what}")
        time.sleep(0.05)
    return answer


def ok(step):
    print(f"ok {CLIENT} {step}", flush=True)


def tool(name, *arguments, given=None):
    command = [*JAVA, TOOLS[name], "--bootstrap-server", BOOTSTRAP, *arguments]
    done = subprocess.run(command, input=given, capture_output=True, timeout=DEADLINE, encoding="utf-8", check=False)
    check(done.returncode == 0, f"{name} {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


produced = []


def produce(codec):
    """Keys get the codec's name and a number, so that no two records are equal and every partition gets some."""
    fields = ["reader-property", "parse.key=true", "parse.headers=true", f"null.marker={NULL}", "headers.delimiter=\t", "key.separator=\t"]
    properties = [argument for field in fields[1:] for argument in (f"--{fields[0]}", field)]
    records = [(key if key == NULL else f"{key} {codec} {len(produced)}", value, headers) for key, value, headers in RECORDS]
    lines = "".join(f"{NULL if headers == 'NO_HEADERS' else headers}\t{key}\t{value}\n" for key, value, headers in records)
    tool("console-producer", "--topic", TOPIC, "--compression-codec", codec, *properties, given=lines)
    produced.extend(records)
    return records


FORMAT = [
    argument
    for field in ["timestamp", "partition", "offset", "headers", "key"]
    for argument in ("--formatter-property", f"print.{field}=true")
] + ["--formatter-property", f"null.literal={NULL}"]
LINE = re.compile(r"CreateTime:(\d+)\tPartition:(\d+)\tOffset:(\d+)\t([^\t]*)\t([^\t]*)\t([^\t]*)")


def parse(text):
    """{(partition, offset): (timestamp, key, value, headers)}"""
    found = {}
    for line in text.split("\n")[:-1]:
        match = LINE.fullmatch(line)
        check(match, f"unexpected line: {line[:200]}")
        timestamp, partition, offset, headers, key, value = match.groups()
        found[int(partition), int(offset)] = (int(timestamp), key, value, headers)
    return found


def consumed(*arguments):
    return parse(tool("console-consumer", "--topic", TOPIC, *FORMAT, "--timeout-ms", "30000", *arguments))


def same(got, wanted):
    """Partitioners choose the partition, so records are compared as a bag."""
    check(sorted(record[1:] for record in got.values()) == sorted(wanted), f"got {sorted(got.items())}, want {sorted(wanted)}")


class Member:
    """A console consumer in the group, and what it printed."""

    def __init__(self):
        settings = ["session.timeout.ms=6000", "heartbeat.interval.ms=300", "auto.commit.interval.ms=200", "auto.offset.reset=earliest"]
        properties = [argument for setting in settings for argument in ("--command-property", setting)]
        command = [*JAVA, TOOLS["console-consumer"], "--bootstrap-server", BOOTSTRAP, "--topic", TOPIC, "--group", GROUP, *properties, *FORMAT]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.output = bytearray()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        while data := self.process.stdout.read1():
            self.output += data

    def records(self):
        return parse(bytes(self.output[: self.output.rfind(b"\n") + 1]).decode())

    def leave(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)
        self.reader.join(DEADLINE)


def offsets(time_or_name, topic=TOPIC):
    """{partition: offset}; no entry where no record is that young."""
    lines = tool("get-offsets", "--topic", topic, "--time", str(time_or_name)).split()
    return {int(partition): int(offset) for _, partition, offset in (line.split(":") for line in lines) if offset}


def share_and_take_over():
    members = [Member(), Member()]

    def shared():
        # GROUP CONSUMER-ID HOST CLIENT-ID #PARTITIONS
        lines = [line.split() for line in tool("consumer-groups", "--describe", "--group", GROUP, "--members").splitlines()]
        return sorted(int(line[4]) for line in lines if len(line) > 4 and line[0] == GROUP) == [1, 2]

    until("both members have partitions", shared)
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        produce(codec)
    check(sum(offsets("latest").values()) == len(produced), "the ends do not add up to what was produced")
    ok("produce")

    first, second = members
    until("every record", lambda: len(first.records()) + len(second.records()) >= len(produced))
    same(first.records() | second.records(), produced)
    check(first.records() and second.records(), "one member got everything")
    check(not {p for p, _ in first.records()} & {p for p, _ in second.records()}, "a partition went to both members")
    ok("consume")

    before = first.records() | second.records()
    first.leave()
    more = produce("none")
    until("the records produced since", lambda: len(before | second.records()) >= len(produced))
    same({place: record for place, record in second.records().items() if place not in before}, more)
    ok("takeover")

    check(GROUP in tool("consumer-groups", "--list").split(), "the group is not listed")
    state = tool("consumer-groups", "--describe", "--group", GROUP, "--state")
    check("Stable" in state, f"the group's state: {state}")
    second.leave()
    # GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG …
    lines = [line.split() for line in tool("consumer-groups", "--describe", "--group", GROUP).splitlines()]
    described = {int(line[2]): line[3:6] for line in lines if line[:2] == [GROUP, TOPIC]}
    check(described == {p: [str(end), str(end), "0"] for p, end in offsets("latest").items()}, f"the group's offsets: {described}")
    ok("groups")
    return before | second.records()


def resume(everything):
    ends = offsets("latest")
    tool("consumer-groups", "--reset-offsets", "--group", GROUP, "--topic", TOPIC, "--shift-by", "-2", "--execute")
    wanted = {(p, offset): everything[p, offset] for p, end in ends.items() for offset in range(max(end - 2, 0), end)}
    got = consumed("--group", GROUP, "--max-messages", str(len(wanted)))
    check(got == wanted, f"after a reset: got {got}, want {wanted}")
    ok("resume")


def seek(everything):
    partition = max(everything)[0]
    here = {offset: record for (p, offset), record in everything.items() if p == partition}
    asked = here[len(here) // 2][0]
    wanted = min(offset for offset, record in here.items() if record[0] >= asked)
    found = offsets(asked)[partition]
    check(found == wanted, f"offset of a time: got {found}, want {wanted}")
    check(offsets(asked + 10**9).get(partition, -1) == -1, "an offset after the last time")
    got = consumed("--partition", str(partition), "--offset", str(found), "--max-messages", "1")
    check(got == {(partition, wanted): here[wanted]}, f"record at a time: got {got}")
    ok("seek")


def administer(everything):
    tool("configs", "--alter", "--entity-type", "topics", "--entity-name", TOPIC, "--add-config", "retention.ms=123456789")
    until(
        "the altered config reads back",
        lambda: "retention.ms=123456789 " in tool("configs", "--describe", "--entity-type", "topics", "--entity-name", TOPIC),
    )
    check("log.retention" in tool("configs", "--describe", "--entity-type", "brokers", "--all"), "the brokers' configs")
    ok("config")

    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"version": 1, "partitions": [{"topic": TOPIC, "partition": 0, "offset": 2}]}, file)
        file.flush()
        told = tool("delete-records", "--offset-json-file", file.name)
    check("low_watermark: 2" in told, f"deleting records: {told}")
    check(offsets("earliest") == {0: 2, 1: 0, 2: 0}, "the log starts")
    got = consumed("--partition", "0", "--offset", "earliest", "--max-messages", "1")
    check(got == {(0, 2): everything[0, 2]}, f"record at the log start: {got}")
    ok("trim")


def perform():
    topic, count = f"{TOPIC}-perf", 5000
    tool("topics", "--create", "--topic", topic, "--partitions", "3")
    size = ["--num-records", str(count), "--record-size", "1000", "--throughput", "-1"]
    told = tool("producer-perf-test", "--topic", topic, *size, "--command-property", "acks=all")
    check(f"{count} records sent" in told, f"producer-perf-test: {told}")
    told = tool("consumer-perf-test", "--topic", topic, "--num-records", str(count), "--hide-header", "--group", f"{GROUP}-perf")
    check(int(told.split(",")[4]) >= count, f"consumer-perf-test: {told}")
    latency = [*JAVA, "org.apache.kafka.tools.EndToEndLatency", BOOTSTRAP, f"{TOPIC}-latency", "200", "all", "100"]
    done = subprocess.run(latency, capture_output=True, timeout=DEADLINE, encoding="utf-8", check=False)
    check(done.returncode == 0 and "Avg latency" in done.stdout, f"e2e-latency: {done.stdout}{done.stderr}")
    tool("topics", "--delete", "--topic", f"{TOPIC}-(perf|latency)")
    tool("consumer-groups", "--delete", "--group", f"{GROUP}-perf")
    ok("perf")


def main():
    tool("topics", "--create", "--topic", TOPIC, "--partitions", "3", "--replication-factor", "1", "--config", "cleanup.policy=delete")
    ok("create")
    check(TOPIC in tool("topics", "--list").split(), "the topic is not listed")
    described = tool("topics", "--describe", "--topic", TOPIC)
    check("PartitionCount: 3" in described and len(re.findall(r"Leader: \d+", described)) == 3, f"described as {described}")
    ok("list")

    everything = share_and_take_over()
    resume(everything)
    seek(everything)
    administer(everything)
    perform()

    tool("consumer-groups", "--delete", "--group", GROUP)
    check(GROUP not in tool("consumer-groups", "--list").split(), "the group is still listed")
    tool("topics", "--delete", "--topic", TOPIC)
    until("the topic is gone from the list", lambda: TOPIC not in tool("topics", "--list").split())
    ok("delete")


main()
