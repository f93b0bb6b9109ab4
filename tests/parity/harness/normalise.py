"""What two right answers may differ in. This list is closed: whatever it does not name is compared as it came.

Most rules replace a value by what it stands for (`<port>`, `<id of topic orders>`), so a wrong port or another topic's id is still a
difference.
"""

import hashlib
import re
import time
from dataclasses import dataclass
from typing import Callable

from . import records
from .schema import ZERO_UUID

TEXT = "<text>"
NOW_TOLERANCE_MS = 120_000


class Symbols:
    """The values that one broker made up during one case, and what they stand for, numbered in the order of their first appearance."""

    def __init__(self, broker, prefix):
        self.broker, self.prefix = broker, prefix
        self.topic_ids = {}
        self._topic_names = {}
        self._seen = {}

    def learn_topic(self, topic_id, name):
        if topic_id != ZERO_UUID:
            self.topic_ids[name] = topic_id
            self._topic_names[topic_id] = name.removeprefix(self.prefix)

    def topic(self, topic_id):
        return f"<id of topic {self._topic_names[topic_id]}>" if topic_id in self._topic_names else self.numbered("topic id", topic_id)

    def numbered(self, kind, value):
        known = self._seen.setdefault(kind, {})
        return f"<{kind} {known.setdefault(value, len(known) + 1)}>"


@dataclass(frozen=True)
class Rule:
    api: str  # an API's name, or * for all
    field: str  # a field's whole path, or its name alone where the API is *
    change: Callable  # (symbols, value) -> what is compared
    reason: str


def _port(symbols, value):
    return "<port>" if value == symbols.broker.address[1] else value


def _cluster_id(symbols, value):
    return "<cluster id>" if value and value == symbols.broker.cluster_id else value


def _topic_id(symbols, value):
    if isinstance(value, list):
        return [_topic_id(symbols, v) for v in value]
    return value if value == ZERO_UUID else symbols.topic(value)


def _member_id(symbols, value):
    # A broker's member id is the client id or the group instance id, a dash, and a UUID.
    found = re.fullmatch(r"(.*)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value or "")
    return f"{found[1]}-{symbols.numbered('member', value)}" if found else value


def _producer_id(symbols, value):
    return value if value is None or value < 0 else symbols.numbered("producer", value)


def _session_id(symbols, value):
    return symbols.numbered("session", value) if value > 0 else value


def _text(_, value):
    return TEXT if value else value


def _now(_, value):
    return "<now>" if abs(value - time.time() * 1000) < NOW_TOLERANCE_MS else value


def _epoch(_, value):
    return "<epoch>" if value >= 0 else value


def _size(_, value):
    return "<bytes>" if value > 0 else value


RULES = [
    Rule("*", "Port", _port, "each broker listens on a free port"),
    Rule("*", "ClusterId", _cluster_id, "made up at the first start"),
    Rule("*", "TopicId", _topic_id, "made up when the topic is created"),
    Rule("*", "Topics.TopicId", _topic_id, "made up when the topic is created"),
    Rule("*", "MemberId", _member_id, "ends in a UUID of the broker's"),
    Rule("*", "Leader", _member_id, "JoinGroup: the leader's member id"),
    Rule("*", "ProducerId", _producer_id, "taken from a counter that outlives the case"),
    Rule("Fetch", "SessionId", _session_id, "a random number"),
    Rule("ApiVersions", "FinalizedFeaturesEpoch", _epoch, "a position in Kafka's metadata log; -1, unknown, is kept"),
    Rule("*", "ErrorMessage", _text, "words for people; that there are some is compared"),
    Rule("*", "BatchIndexErrorMessage", _text, "words for people; that there are some is compared"),
    Rule("DescribeConfigs", "Results.Configs.Documentation", _text, "words for people; that there are some is compared"),
    Rule("Produce", "Responses.PartitionResponses.LogAppendTimeMs", _now, "the broker's clock"),
    Rule("ListOffsets", "Topics.Partitions.Timestamp", _now, "the broker's clock, under LogAppendTime"),
    Rule("Fetch", "Batch.MaxTimestamp", _now, "the broker's clock, under LogAppendTime"),
    Rule("Fetch", "Batch.Records.Timestamp", _now, "the broker's clock, under LogAppendTime"),
    Rule("DescribeProducers", "Topics.Partitions.ActiveProducers.LastTimestamp", _now, "the broker's clock, under LogAppendTime"),
    Rule("DescribeLogDirs", "Results.LogDir", _text, "a path of the machine"),
    Rule("DescribeLogDirs", "Results.TotalBytes", _size, "the machine's disk"),
    Rule("DescribeLogDirs", "Results.UsableBytes", _size, "the machine's disk"),
]

# Where a case asks for everything there is, what other cases and the broker itself put there is left out, and order means nothing.
OTHERS_DROPPED = {
    ("Metadata", "Topics"): "Name",
    ("ListGroups", "Groups"): "GroupId",
    ("DescribeTopicPartitions", "Topics"): "Name",
    ("DescribeLogDirs", "Results.Topics"): "Name",
    ("ElectLeaders", "ReplicaElectionResults"): "Topic",
    ("ListConfigResources", "ConfigResources"): "ResourceName",
}

# Topic settings that only Weir has.
WEIR_SETTINGS = {
    "weir.archive.file.bytes",
    "weir.archive.zstd.level",
    "weir.durability",
    "weir.layout",
    "weir.retention.records",
    "weir.value.format",
}
SETTINGS_LISTED = {("CreateTopics", "Topics.Configs"), ("DescribeConfigs", "Results.Configs")}

# Kafka fills these lists from hash maps, so their order means nothing. Named: the fields to order them by before ids are numbered.
UNORDERED = {
    ("Produce", "Responses"): (),
    ("Produce", "Responses.PartitionResponses"): (),
    ("DeleteGroups", "Results"): (),
    ("DeleteRecords", "Topics"): (),
    ("DeleteRecords", "Topics.Partitions"): (),
    ("DeleteTopics", "Responses"): (),
    ("DescribeConfigs", "Results.Configs"): (),
    ("DescribeLogDirs", "Results.Topics"): (),
    ("DescribeLogDirs", "Results.Topics.Partitions"): (),
    ("ListOffsets", "Topics"): (),
    ("ListOffsets", "Topics.Partitions"): (),
    ("OffsetFetch", "Topics"): (),
    ("OffsetFetch", "Groups.Topics"): (),
    ("JoinGroup", "Members"): ("GroupInstanceId", "Metadata"),
    ("DescribeGroups", "Groups.Members"): ("ClientId", "GroupInstanceId", "MemberMetadata"),
}


def normalise(scenario, api, answer, own=False):
    return _Pass(scenario.symbols, api, own).struct(answer, "")


class _Pass:
    def __init__(self, symbols, api, own):
        self.symbols, self.api, self.own = symbols, api, own

    def struct(self, value, path):
        return {name: self.value(v, f"{path}.{name}" if path else name) for name, v in value.items()}

    def value(self, value, path):
        for rule in RULES:
            if rule.api in ("*", self.api) and (path == rule.field if rule.api != "*" else path.rpartition(".")[2] == rule.field):
                value = rule.change(self.symbols, value)
        if isinstance(value, dict):
            return self.struct(value, path)
        if isinstance(value, list):
            return self.list(value, path)
        if isinstance(value, bytes):
            return self.records(value) if path.endswith(".Records") and self.api == "Fetch" else text_of(value)
        return value.replace(self.symbols.prefix, "") if isinstance(value, str) else value

    def list(self, value, path):
        key = OTHERS_DROPPED.get((self.api, path))
        if key and self.own:
            value = [v for v in value if v[key] is None or v[key].startswith(self.symbols.prefix)]
        if (self.api, path) in SETTINGS_LISTED:
            value = [v for v in value if v["Name"] not in WEIR_SETTINGS]
        by = UNORDERED.get((self.api, path))
        if by:
            value = sorted(value, key=lambda element: repr([element.get(field) for field in by]))
        value = [self.value(v, path + ".") if not isinstance(v, dict) else self.struct(v, path) for v in value]
        return sorted(value, key=repr) if by is not None or (key and self.own) else value

    def records(self, value):
        return [self.struct(batch, "Batch") for batch in records.decode(value)]


def text_of(data):
    """Bytes as a person reads them; long ones by their length, beginning and digest."""
    try:
        text = data.decode("ascii")
        text = repr(text) if text.isprintable() else "0x" + data.hex()
    except UnicodeDecodeError:
        text = "0x" + data.hex()
    if len(text) <= 80:
        return f"bytes {text}"
    return f"{len(data)} bytes {text[:40]}… sha1 {hashlib.sha1(data).hexdigest()[:12]}"
