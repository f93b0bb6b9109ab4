"""The story told by confluent-kafka (librdkafka)."""

import time

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
)

from story import Record, Story, check, equal, until

story = Story("confluent-kafka")
topic, group = story.topic, story.group
admin = AdminClient({"bootstrap.servers": story.bootstrap})


def consumer(**settings):
    return Consumer(
        {
            "bootstrap.servers": story.bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
        }
        | settings
    )


def produce(records, codec):
    acknowledged = {}

    def delivered(error, message):
        check(error is None, f"producing with {codec}: {error}")
        acknowledged[message.partition(), message.offset()] = True

    producer = Producer({"bootstrap.servers": story.bootstrap, "compression.type": codec, "linger.ms": 20, "acks": "all"})
    for record in records:
        producer.produce(
            topic, record.value, record.key, record.partition, delivered, timestamp=record.timestamp, headers=record.headers
        )
    equal("records not delivered", producer.flush(30), 0)
    equal("acknowledged offsets", sorted(acknowledged), sorted((record.partition, record.offset) for record in records))


def taken(message):
    check(message.error() is None, f"consuming: {message.error()}")
    return Record(
        message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value(), message.headers() or []
    )


def poll(member, count):
    got = []
    until(f"{count} records", lambda: got.extend(map(taken, member.consume(count - len(got), 0.5))) or len(got) >= count)
    return got


def results(futures):
    return {key: future.result(30) for key, future in futures.items()}


def offsets(specification):
    asked = {TopicPartition(topic, partition): specification for partition in range(story.partitions)}
    return {key.partition: answer.offset for key, answer in results(admin.list_offsets(asked)).items()}


# create, list
results(admin.create_topics([NewTopic(topic, story.partitions, 1, config={"cleanup.policy": "delete"})]))
story.ok("create")
listed = until("the topic in the list", lambda: admin.list_topics(timeout=10).topics.get(topic))
equal("partitions", sorted(listed.partitions), list(range(story.partitions)))
check(all(partition.leader >= 0 for partition in listed.partitions.values()), "a partition has no leader")
story.ok("list")

# produce
for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
    produce(story.round(), codec)
equal("ends", offsets(OffsetSpec.latest()), {partition: len(records) for partition, records in enumerate(story.expected)})
story.ok("produce")

# consume: two members share the partitions; each assignment starts at what was committed, that is from the beginning
first, second = consumer(), consumer()
got = {first: [], second: []}
for member in got:
    member.subscribe([topic], on_assign=lambda member, _partitions: got[member].clear())


def shared():
    for member, records in got.items():
        records += [taken(message) for message in member.consume(100, 0.05)]
    held = [len(member.assignment()) for member in got]
    return min(held) > 0 and sum(held) == story.partitions and sum(map(len, got.values())) >= story.produced


until("both members have partitions, and together every record", shared)
story.compare([record for records in got.values() for record in records], story.everything())
for member, records in got.items():
    equal("partitions read", {record.partition for record in records}, {p.partition for p in member.assignment()})
    member.commit(asynchronous=False)
story.ok("consume")

# takeover: one member leaves
first.close()
until("the other member has every partition", lambda: not second.consume(1, 0.05) and len(second.assignment()) == story.partitions)
more = story.round(6)
produce(more, "none")
story.compare(poll(second, len(more)), more)
second.commit(asynchronous=False)
story.ok("takeover")

# groups, while a member is there
described = admin.describe_consumer_groups([group])[group].result(30)
equal("members", len(described.members), 1)
equal("assigned", sorted(p.partition for p in described.members[0].assignment.topic_partitions), list(range(story.partitions)))
equal("state", described.state.name, "STABLE")
check(group in [listing.group_id for listing in admin.list_consumer_groups().result(30).valid], "the group is not listed")
committed = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(30).topic_partitions
equal("committed", sorted((p.partition, p.offset) for p in committed), [(p, len(r)) for p, r in enumerate(story.expected)])
story.ok("groups")

# resume
middle = [len(records) // 2 for records in story.expected]
second.commit(offsets=[TopicPartition(topic, p, offset, metadata="half") for p, offset in enumerate(middle)], asynchronous=False)
second.close()
third = consumer()
third.subscribe([topic])
rest = [record for record in story.everything() if record.offset >= middle[record.partition]]
story.compare(poll(third, len(rest)), rest)
equal("metadata", third.committed([TopicPartition(topic, 0)], 10)[0].metadata, "half")
third.close()
story.ok("resume")

# seek
wanted = story.expected[1][len(story.expected[1]) // 2]
reader = consumer()
found = reader.offsets_for_times([TopicPartition(topic, 1, wanted.timestamp - 500)], 10)
equal("offset of a time", found[0].offset, wanted.offset)
equal("offset after the last time", reader.offsets_for_times([TopicPartition(topic, 1, wanted.timestamp + 10**9)], 10)[0].offset, -1)
reader.assign(found)
equal("record at a time", poll(reader, 1)[0], wanted)
reader.close()
story.ok("seek")

# config
resource = ConfigResource(
    ConfigResource.Type.TOPIC,
    topic,
    incremental_configs=[ConfigEntry("retention.ms", "123456789", incremental_operation=AlterConfigOpType.SET)],
)
results(admin.incremental_alter_configs([resource]))


def retention():
    [configs] = results(admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)])).values()
    return configs["retention.ms"].value == "123456789" and not configs["retention.ms"].is_default


until("the altered config reads back", retention)
story.ok("config")

# trim
low = results(admin.delete_records([TopicPartition(topic, 0, 5)]))
equal("log start", [answer.low_watermark for answer in low.values()], [5])
equal("starts", offsets(OffsetSpec.earliest()), {0: 5, 1: 0, 2: 0})
reader = consumer()
reader.assign([TopicPartition(topic, 0, 0)])
equal("record at the log start", poll(reader, 1)[0], story.expected[0][5])
reader.close()
story.ok("trim")

# delete
results(admin.delete_consumer_groups([group]))
check(group not in [listing.group_id for listing in admin.list_consumer_groups().result(30).valid], "the group is still listed")
results(admin.delete_topics([topic]))
until("the topic is gone from the list", lambda: topic not in admin.list_topics(timeout=10).topics)
story.ok("delete")

if story.refuses_transactions:
    producer = Producer({"bootstrap.servers": story.bootstrap, "transactional.id": group})
    started = time.monotonic()
    try:
        producer.init_transactions(10)
        check(False, "init_transactions succeeded")
    except KafkaException as exception:
        equal("error", exception.args[0].code(), KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    check(time.monotonic() - started < 5, "init_transactions took more than 5 s")
    story.ok("transactions")
