"""kafka-python while brokers restart; what it prints is described in the README above."""

import os
import sys
import threading
import time

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.consumer.subscription_state import ConsumerRebalanceListener

TOPIC = os.environ["TOPIC"]
PARTITIONS = int(os.environ["PARTITIONS"])
RATE = int(os.environ["RATE"])
PATIENCE = int(os.environ["PATIENCE"])
BOOTSTRAP = os.environ["BOOTSTRAP"].split(",")

delivered = set()
acknowledged = []
ready = threading.Event()
produced = threading.Event()
telling = threading.Lock()


def tell(what):
    line = what.replace("\n", " ")
    with telling:
        print(int(time.time() * 1000), line, flush=True)


class Member(threading.Thread, ConsumerRebalanceListener):
    def __init__(self, name):
        super().__init__(name=name, daemon=True)
        self.held = 0

    def changed(self, what, partitions):
        tell(f"{what} {self.name} {','.join(sorted(str(p.partition) for p in partitions))}")

    def on_partitions_assigned(self, assigned):
        self.changed("assigned", assigned)
        self.held = len(assigned)

    def on_partitions_revoked(self, revoked):
        # Also told before the first assignment, of nothing.
        if revoked:
            self.held = 0
            self.changed("revoked", revoked)

    def on_partitions_lost(self, lost):
        self.held = 0
        self.changed("lost", lost)

    def run(self):
        consumer = KafkaConsumer(
            bootstrap_servers=BOOTSTRAP,
            group_id=os.environ["GROUP"],
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=200,
        )
        try:
            consumer.subscribe([TOPIC], listener=self)
            committed = time.monotonic()
            while not produced.is_set() or len(delivered) < len(acknowledged):
                # kafka-python 3.0 forgets that it joins when a poll ends between its leader's JoinGroup and SyncGroup, after it has
                # heard of a new topic: its session then ends. So no poll ends while the group forms.
                for messages in consumer.poll(100 if ready.is_set() else 10_000).values():
                    for message in messages:
                        sequence = message.value.split(b":", 1)[0].decode()
                        tell(f"read {self.name} {message.partition} {message.offset} {sequence}")
                        delivered.add((message.partition, message.offset))
                if ready.is_set() and time.monotonic() - committed > 0.3:
                    consumer.commit()
                    committed = time.monotonic()
            consumer.commit()
            tell(f"finished {self.name}")
        except Exception as error:
            tell(f"error {self.name} {error!r}")
            raise
        consumer.close(autocommit=False)


def produce(finishing):
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP)

    def sent(sequence):
        def taken(placed):
            acknowledged.append(sequence)
            tell(f"ack {sequence} {placed.partition} {placed.offset}")

        value = b"%d:%s" % (sequence, b"x" * 100)
        future = producer.send(TOPIC, value, partition=sequence % PARTITIONS)
        future.add_callback(taken)
        future.add_errback(lambda error: tell(f"error producer {sequence} {error!r}"))

    began, sequence = time.monotonic(), 0
    while not finishing.wait(max(0, began + sequence / RATE - time.monotonic())):
        sent(sequence)
        sequence += 1
    producer.flush(PATIENCE)
    producer.close()


admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])
admin.close()
members = [Member("one"), Member("two")]
for member in members:
    member.start()
while any(member.held != PARTITIONS // 2 for member in members):
    time.sleep(0.01)
tell("ready")
ready.set()
finishing = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), finishing.set()), daemon=True).start()
produce(finishing)
tell(f"produced {len(acknowledged)}")
produced.set()
deadline = time.monotonic() + PATIENCE
for member in members:
    member.join(max(0.01, deadline - time.monotonic()))
if any(member.is_alive() for member in members):
    tell(f"error members have read {len(delivered)} of {len(acknowledged)} records")
