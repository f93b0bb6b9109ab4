"""Goal 10: how soon Weir serves, and how much memory it takes."""

import contextlib
import signal
import statistics
import subprocess
import time

from . import machine
from .contestants import Contestant

TOPICS = 10_000


def measure(bench):
    found = {}
    ready, idle_broker, idle_redis = [], [], []
    for _ in range(3):
        with running(bench) as weir:
            ready.append(weir.ready_seconds)
            time.sleep(1)
            idle_broker.append(machine.resident_mib(weir.broker_pids()))
            idle_redis.append(machine.resident_mib(weir.redis_pids()))
    found["ready_seconds"] = statistics.median(ready)
    found["idle_broker_mib"], found["idle_redis_mib"] = statistics.median(idle_broker), statistics.median(idle_redis)

    with running(bench) as weir:
        bench.generator.create(Contestant(weir), "many", count=TOPICS)
        ready = []
        for _ in range(3):
            restart(weir)
            ready.append(weir.ready_seconds)
        found["ready_seconds_with_10000_topics"] = statistics.median(ready)
        found["idle_broker_mib_with_10000_topics"] = machine.resident_mib(weir.broker_pids())

    for layout in ("batch", "record"):
        with running(bench) as weir:
            contestant = Contestant(weir, layout)
            bench.generator.create(contestant, "load", 6)
            at = ["--bootstrap", weir.bootstrap, "--topic", "load"]
            seconds = 6 * min(bench.scale, 1)
            # Producers at full speed, and consumers at the tail and from the start beside them.
            command = [bench.generator.binary, "consume", *at, "--consumers", 4, "--seconds", seconds]
            consumers = [subprocess.Popen([*map(str, command), *more], stdout=subprocess.DEVNULL) for more in ([], ["--at-end"])]
            bench.generator.run("produce", *at, "--connections", 4, "--seconds", seconds)
            for consumer in consumers:
                consumer.wait(60)
            found[f"peak_broker_mib_under_load_{layout}"] = machine.resident_mib(weir.broker_pids(), "VmHWM")
            found[f"broker_mib_after_load_{layout}"] = machine.resident_mib(weir.broker_pids())
    return found


@contextlib.contextmanager
def running(bench, more=()):
    weir = bench.new_weir(more=more)
    try:
        weir.start()
        yield weir
    finally:
        weir.stop()


def restart(weir):
    """Ends it and starts it again on its data."""
    weir.process.send_signal(signal.SIGTERM)
    weir.process.wait(60)
    began = time.monotonic()
    with open(weir.folder / "log", "a") as log:
        weir.process = subprocess.Popen(weir.command(), stdout=subprocess.PIPE, stderr=log, start_new_session=True)
    weir.wait_until_ready(began)
    weir.ready_seconds = time.monotonic() - began
