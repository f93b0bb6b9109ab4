"""The story told by kafka-python."""

from concurrent.futures import ThreadPoolExecutor

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic, OffsetSpec

from story import Record, Story, check, equal, until



def refused(key, value, headers):
    """kafka-python wants a key or a value, and no null header."""
    return (key is None and value is None) or any(data is None for _, data in headers)


story = Story("kafka-python", refused)
topic, group = story.topic, story.group
admin = KafkaAdminClient(bootstrap_servers=story.bootstrap)
every_partition = [TopicPartition(topic, partition) for partition in range(story.partitions)]


def consumer():
    return KafkaConsumer(
        bootstrap_servers=story.bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
    )


def produce(records, codec):
    producer = KafkaProducer(bootstrap_servers=story.bootstrap, compression_type=codec, linger_ms=20, acks="all")
    sent = [
        (record, producer.send(topic, record.value, record.key, record.headers, record.partition, record.timestamp))
        for record in records
    ]
    for record, future in sent:
        answer = future.get(30)
        equal("acknowledged", (answer.partition, answer.offset), (record.partition, record.offset))
    producer.close()


def taken(message):
    return Record(message.partition, message.offset, message.timestamp, message.key, message.value, list(message.headers))


def read(member, milliseconds):
    return [taken(message) for messages in member.poll(milliseconds).values() for message in messages]


def poll(member, count):
    got = []
    until(f"{count} records", lambda: got.extend(read(member, 500)) or len(got) >= count)
    return got


def offsets(specification):
    answers = admin.list_partition_offsets(dict.fromkeys(every_partition, specification))
    return [answers[partition].offset for partition in every_partition]


# create, list
admin.create_topics([NewTopic(topic, story.partitions, 1, topic_configs={"cleanup.policy": "delete"})])
story.ok("create")
until("the topic in the list", lambda: topic in admin.list_topics())
[described] = admin.describe_topics([topic])
equal("partitions", sorted(p["partition_index"] for p in described["partitions"]), list(range(story.partitions)))
check(all(p["leader_id"] >= 0 for p in described["partitions"]), "a partition has no leader")
story.ok("list")

# produce
for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
    produce(story.round(), codec)
equal("ends", offsets(OffsetSpec.LATEST), [len(records) for records in story.expected])
story.ok("produce")

# consume: two members share the partitions
first, second = consumer(), consumer()
# An assignment starts at what was committed, so a record may come again: it has to be the same one.
got = {first: {}, second: {}}
pollers = ThreadPoolExecutor(2)
for member in got:
    member.subscribe([topic])


def shared():
    # Each polls in a thread of its own: one that polls in turn, briefly, now and then leaves its join unfinished for good.
    for records, fresh in zip(got.values(), pollers.map(lambda member: read(member, 500), got)):
        for record in fresh:
            equal("a record that came again", record, records.setdefault(record[:2], record))
    held = {member: {p.partition for p in member.assignment()} for member in got}
    if not all(held.values()) or sum(map(len, held.values())) != story.partitions:
        return None
    read_by_holder = [r for member, records in got.items() for _, r in sorted(records.items()) if r.partition in held[member]]
    return read_by_holder if len(read_by_holder) >= story.produced else None


story.compare(until("both members have partitions, and have read them", shared), story.everything())
for member in got:
    member.commit()
story.ok("consume")

# takeover: one member leaves
first.close()
until("the other member has every partition", lambda: not read(second, 50) and len(second.assignment()) == story.partitions)
more = story.round(6)
produce(more, None)
story.compare(poll(second, len(more)), more)
second.commit()
story.ok("takeover")

# groups, while a member is there
described = admin.describe_groups([group])[group]
equal("state", described["group_state"], "Stable")
[only] = described["members"]
equal("assigned", only["member_assignment"]["assigned_partitions"], [{"topic": topic, "partitions": list(range(story.partitions))}])
check(group in [listing["group_id"] for listing in admin.list_groups()], "the group is not listed")
committed = admin.list_group_offsets([group])[group]
equal("committed", {p.partition: c.offset for p, c in committed.items()}, {p: len(r) for p, r in enumerate(story.expected)})
story.ok("groups")

# resume
middle = [len(records) // 2 for records in story.expected]
second.commit({partition: OffsetAndMetadata(middle[partition.partition], "half", -1) for partition in every_partition})
second.close(autocommit=False)
third = consumer()
third.subscribe([topic])
rest = [record for record in story.everything() if record.offset >= middle[record.partition]]
story.compare(poll(third, len(rest)), rest)
equal("metadata", third.committed(every_partition[0], metadata=True).metadata, "half")
third.close(autocommit=False)
story.ok("resume")

# seek
wanted = story.expected[1][len(story.expected[1]) // 2]
reader = consumer()
reader.assign([every_partition[1]])
found = reader.offsets_for_times({every_partition[1]: wanted.timestamp - 500})[every_partition[1]]
equal("offset and time of a time", (found.offset, found.timestamp), (wanted.offset, wanted.timestamp))
equal("offset after the last time", reader.offsets_for_times({every_partition[1]: wanted.timestamp + 10**9})[every_partition[1]], None)
reader.seek(every_partition[1], found.offset)
equal("record at a time", poll(reader, 1)[0], wanted)
reader.close()
story.ok("seek")

# config
admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "123456789"})])


def altered():
    configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])["topic"][topic]
    entry = configs.get("retention.ms", {})
    return (entry.get("value"), entry.get("config_source")) == ("123456789", "DYNAMIC_TOPIC_CONFIG")


until("the altered config reads back", altered)
story.ok("config")

# trim
equal("log start", admin.delete_records({every_partition[0]: 5})[every_partition[0]]["low_watermark"], 5)
equal("starts", offsets(OffsetSpec.EARLIEST), [5, 0, 0])
reader = consumer()
reader.assign([every_partition[0]])
reader.seek_to_beginning(every_partition[0])
equal("record at the log start", poll(reader, 1)[0], story.expected[0][5])
reader.close()
story.ok("trim")

# delete
equal("deleting the group", admin.delete_groups([group]), {group: "OK"})
check(group not in [listing["group_id"] for listing in admin.list_groups()], "the group is still listed")
admin.delete_topics([topic])
until("the topic is gone from the list", lambda: topic not in admin.list_topics())
story.ok("delete")
admin.close()
