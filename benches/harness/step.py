"""Goal 12: what a record costs does not depend on how many partitions, how long a log, how many producers."""

import statistics
import tempfile

from . import machine, redis
from .contestants import Contestant
from .footprint import running
from .measure import measured

REPEATS = 5
RATE = 20_000
PARTITIONS = (1, 10, 100)
LOGS_MB = (10, 100, 1_000, 4_000)
# What the largest takes in Redis, in its file and in what rewrites it.
MEMORY_GIB, DISK_GIB = 10, 12
PRODUCERS = (1, 10, 100, 500)
# Long enough that it does not count what it costs to connect the producers.
PRODUCERS_SECONDS, SECONDS = 6, 2


def measure(bench):
    memory, disk = machine.available_gib(tempfile.gettempdir())
    logs = LOGS_MB if memory >= MEMORY_GIB and disk >= DISK_GIB else LOGS_MB[:-1]
    found = {}
    with running(bench) as weir:
        contestant = Contestant(weir, "batch")
        settings = {}
        for partitions in PARTITIONS:
            topic = f"partitions-{partitions}"
            bench.generator.create(contestant, topic, partitions)
            settings["partitions", partitions] = (topic, 1)
        for megabytes in logs:
            topic = f"log-{megabytes}"
            bench.generator.create(contestant, topic, 1)
            records = megabytes * 1000
            at = ["--bootstrap", weir.bootstrap, "--topic", topic]
            bench.generator.run("produce", *at, "--records", records)
            settings["log, MB", megabytes] = (topic, 1)
        for producers in PRODUCERS:
            topic = f"producers-{producers}"
            bench.generator.create(contestant, topic, 10)
            settings["producers", producers] = (topic, producers)
        # The rewrite of a file that holds all this has nothing to do with the records that follow.
        redis.wait_for_rewrite(weir.redis_socket)
        redis.call(weir.redis_socket, "CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
        runs = {setting: [] for setting in settings}
        for _ in range(REPEATS):
            for setting, (topic, producers) in settings.items():
                seconds = PRODUCERS_SECONDS if setting[0] == "producers" else SECONDS
                arguments = ["--bootstrap", weir.bootstrap, "--topic", topic, "--connections", producers, "--rate", RATE]
                arguments += ["--records-per-batch", 16, "--seconds", seconds * min(bench.scale, 1)]
                figures = measured(contestant, lambda arguments=arguments: bench.generator.run("produce", *arguments))
                runs[setting].append(figures)
        for (kind, size), figures in runs.items():
            found.setdefault(kind, {})[str(size)] = {
                key: statistics.median(run[key] for run in figures) for key in ("cpu_us", "broker_cpu_us", "redis_cpu_us", "p99_us")
            }
    # The most against the least.
    found["spread"] = {
        kind: max(one["cpu_us"] for one in sizes.values()) / min(one["cpu_us"] for one in sizes.values())
        for kind, sizes in found.items()
    }
    return found
