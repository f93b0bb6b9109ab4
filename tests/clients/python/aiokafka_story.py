"""The story told by aiokafka."""

import asyncio

from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    OffsetAndMetadata,
    TopicPartition,
)
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from story import DEADLINE, Record, Story, check, equal


def refused(key, value, headers):
    """aiokafka wants a key or a value, and no null header."""
    return (key is None and value is None) or any(data is None for _, data in headers)


story = Story("aiokafka", refused)
topic, group = story.topic, story.group
every_partition = [TopicPartition(topic, partition) for partition in range(story.partitions)]


async def until(what, attempt):
    async def again():
        while not await attempt():
            await asyncio.sleep(0.05)

    try:
        await asyncio.wait_for(again(), DEADLINE)
    except TimeoutError:
        check(False, f"not within {DEADLINE} s: {what}")


async def consumer(listener=None):
    made = AIOKafkaConsumer(
        bootstrap_servers=story.bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
    )
    if listener is not None:
        made.subscribe([topic], listener=listener)
    await made.start()
    return made


async def produce(records, codec):
    producer = AIOKafkaProducer(bootstrap_servers=story.bootstrap, compression_type=codec, linger_ms=20, acks="all")
    await producer.start()
    sent = [
        await producer.send(topic, record.value, record.key, record.partition, record.timestamp, record.headers)
        for record in records
    ]
    for record, future in zip(records, sent):
        answer = await future
        equal("acknowledged", (answer.partition, answer.offset), (record.partition, record.offset))
    await producer.stop()


def taken(message):
    return Record(message.partition, message.offset, message.timestamp, message.key, message.value, list(message.headers))


async def read(member, milliseconds):
    answer = await member.getmany(timeout_ms=milliseconds)
    return [taken(message) for messages in answer.values() for message in messages]


async def poll(member, count):
    got = []

    async def enough():
        got.extend(await read(member, 500))
        return len(got) >= count

    await until(f"{count} records", enough)
    return got


class Forget(ConsumerRebalanceListener):
    """An assignment starts at what was committed: what was read before does not count."""

    def __init__(self):
        self.records = []

    def on_partitions_revoked(self, revoked):
        pass

    def on_partitions_assigned(self, assigned):
        self.records.clear()


def succeeded(what, answers):
    for answer in answers:
        check(answer[0 if isinstance(answer[0], int) else 1] == 0, f"{what}: {answer}")


async def create(admin):
    answer = await admin.create_topics([NewTopic(topic, story.partitions, 1, topic_configs={"cleanup.policy": "delete"})])
    succeeded("creating the topic", answer.topic_errors)
    story.ok("create")

    async def listed():
        return topic in await admin.list_topics()

    await until("the topic in the list", listed)
    [described] = await admin.describe_topics([topic])
    equal("partitions", sorted(p["partition"] for p in described["partitions"]), list(range(story.partitions)))
    check(all(p["leader"] >= 0 for p in described["partitions"]), "a partition has no leader")
    story.ok("list")


async def consume(admin):
    for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
        await produce(story.round(), codec)
    story.ok("produce")

    # Two members share the partitions.
    got = {}
    for _ in range(2):
        listener = Forget()
        got[await consumer(listener)] = listener.records
    first, second = got

    async def shared():
        for member, records in got.items():
            records += await read(member, 50)
        held = [len(member.assignment()) for member in got]
        return min(held) > 0 and sum(held) == story.partitions and sum(map(len, got.values())) >= story.produced

    await until("both members have partitions, and together every record", shared)
    story.compare([record for records in got.values() for record in records], story.everything())
    for member, records in got.items():
        equal("partitions read", {record.partition for record in records}, {p.partition for p in member.assignment()})
        await member.commit()
    equal("ends", await second.end_offsets(every_partition), {p: len(story.expected[p.partition]) for p in every_partition})
    story.ok("consume")

    # One member leaves.
    await first.stop()

    async def taken_over():
        return not await read(second, 50) and len(second.assignment()) == story.partitions

    await until("the other member has every partition", taken_over)
    more = story.round(6)
    await produce(more, None)
    story.compare(await poll(second, len(more)), more)
    await second.commit()
    story.ok("takeover")

    # While a member is there.
    [answer] = await admin.describe_consumer_groups([group])
    [(error, name, state, _, _, members)] = [found[:6] for found in answer.groups]
    equal("the group", (error, name, state, len(members)), (0, group, "Stable", 1))
    check(group in [name for name, _ in await admin.list_consumer_groups()], "the group is not listed")
    committed = await admin.list_consumer_group_offsets(group)
    equal("committed", {p.partition: c.offset for p, c in committed.items()}, {p: len(r) for p, r in enumerate(story.expected)})
    story.ok("groups")

    middle = [len(records) // 2 for records in story.expected]
    await second.commit({partition: OffsetAndMetadata(middle[partition.partition], "half") for partition in every_partition})
    await second.stop()
    third = await consumer(Forget())
    rest = [record for record in story.everything() if record.offset >= middle[record.partition]]
    story.compare(await poll(third, len(rest)), rest)
    equal("committed", await third.committed(every_partition[0]), middle[0])
    await third.stop()
    story.ok("resume")


async def seek():
    wanted = story.expected[1][len(story.expected[1]) // 2]
    reader = await consumer()
    partition = every_partition[1]
    reader.assign([partition])
    found = (await reader.offsets_for_times({partition: wanted.timestamp - 500}))[partition]
    equal("offset and time of a time", (found.offset, found.timestamp), (wanted.offset, wanted.timestamp))
    equal("after the last time", (await reader.offsets_for_times({partition: wanted.timestamp + 10**9}))[partition], None)
    reader.seek(partition, found.offset)
    equal("record at a time", (await poll(reader, 1))[0], wanted)
    await reader.stop()
    story.ok("seek")


async def administer(admin):
    asked = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "123456789"})
    for answer in await admin.alter_configs([asked]):
        succeeded("altering", answer.resources)

    async def altered():
        [answer] = await admin.describe_configs([asked])
        return [entry[:2] for entry in answer.resources[0][4]] == [("retention.ms", "123456789")]

    await until("the altered config reads back", altered)
    story.ok("config")

    equal("log start", await admin.delete_records({every_partition[0]: RecordsToDelete(5)}), {every_partition[0]: 5})
    reader = await consumer()
    reader.assign([every_partition[0]])
    equal("start", await reader.beginning_offsets(every_partition), dict(zip(every_partition, [5, 0, 0])))
    await reader.seek_to_beginning(every_partition[0])
    equal("record at the log start", (await poll(reader, 1))[0], story.expected[0][5])
    await reader.stop()
    story.ok("trim")

    answer = await admin.delete_topics([topic])
    succeeded("deleting the topic", answer.topic_error_codes)

    async def gone():
        return topic not in await admin.list_topics()

    await until("the topic is gone from the list", gone)
    story.ok("delete")
    story.unsupported("delete-group", "aiokafka has no call to delete a group")


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=story.bootstrap)
    await admin.start()
    await create(admin)
    await consume(admin)
    await seek()
    await administer(admin)
    await admin.close()


asyncio.run(main())
