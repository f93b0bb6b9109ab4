"""Goal 11: many partitions, connections and groups at once, and what a produce takes then."""

import statistics
import time

from . import machine
from .contestants import Contestant
from .footprint import running

PARTITIONS, ACTIVE, CONNECTIONS, GROUPS = 10_000, 1_000, 5_000, 1_000


def measure(bench):
    found = {}
    with running(bench) as weir:
        contestant = Contestant(weir)
        bench.generator.create(contestant, "few", 10)
        found["produce_empty"] = produce(bench, weir, "few")
        bench.generator.create(contestant, "active", ACTIVE)
        bench.generator.create(contestant, "silent", ACTIVE, count=PARTITIONS // ACTIVE - 1)
        fill(bench, weir)
        found["broker_mib_with_partitions"] = machine.resident_mib(weir.broker_pids())
        found["redis_mib_with_partitions"] = machine.resident_mib(weir.redis_pids())
        held = []
        try:
            at = ["--bootstrap", weir.bootstrap]
            before = machine.resident_mib(weir.broker_pids())
            held.append(bench.generator.hold("idle", *at, "--connections", CONNECTIONS)[0])
            found["mib_for_connections"] = machine.resident_mib(weir.broker_pids()) - before
            time.sleep(2)
            found["idle_cpu_percent"], found["idle_redis_cpu_percent"] = idle_cpu(weir)
            before = machine.resident_mib(weir.broker_pids())
            process, said = bench.generator.hold("join", *at, "--topic", "few", "--groups", GROUPS, "--members", 1)
            held.append(process)
            found["mib_for_groups"] = machine.resident_mib(weir.broker_pids()) - before
            found["join_seconds"] = said["seconds"]
            time.sleep(2)
            # Each member sends a heartbeat every three seconds.
            found["cpu_percent_with_heartbeats"] = sum(idle_cpu(weir))
            found["produce_many"] = produce(bench, weir, "active")
            found["produce_few_beside_many"] = produce(bench, weir, "few")
        finally:
            for process in held:
                process.stdin.close()
                process.wait(30)
    found["p99_ratio"] = found["produce_many"]["p99_us"] / found["produce_empty"]["p99_us"]
    found["p99_ratio_same_partitions"] = found["produce_few_beside_many"]["p99_us"] / found["produce_empty"]["p99_us"]
    return found


def fill(bench, weir):
    """A few records into each active partition."""
    at = ["--bootstrap", weir.bootstrap, "--topic", "active"]
    bench.generator.run("produce", *at, "--records-per-batch", 1, "--records", 3 * ACTIVE)


def produce(bench, weir, topic):
    """Small batches at a fixed rate; the median of five runs."""
    at = ["--bootstrap", weir.bootstrap, "--topic", topic]
    runs = [
        bench.generator.run("produce", *at, "--records-per-batch", 10, "--rate", 5_000, "--seconds", 2 * min(bench.scale, 1))
        for _ in range(5)
    ]
    return {f"{name}_us": statistics.median(run["latency_us"][name] for run in runs) for name in ("p50", "p99", "p99.9")}


def idle_cpu(weir, seconds=5):
    before = [machine.cpu_seconds(pids) for pids in (weir.broker_pids(), weir.redis_pids())]
    time.sleep(seconds)
    after = [machine.cpu_seconds(pids) for pids in (weir.broker_pids(), weir.redis_pids())]
    return [(late - early) / seconds * 100 for early, late in zip(before, after, strict=True)]
