"""What each level of `weir.durability` costs, beside `memory` in the same round: docs/reliability.md has the table."""

import contextlib
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

from . import redis
from .contestants import Contestant
from .footprint import running

REPEATS = 3
PARTITIONS, SECONDS = 6, 3
# Batches of 16 records, far below what any level takes but the last.
RATE, RECORDS_PER_BATCH = 4_000, 16
NEWER = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "newer-redis"

NO_FILE, EACH_WRITE, EACH_SECOND, NO_SYNC = (
    {"appendonly": "no"},
    {"appendonly": "yes", "appendfsync": "always"},
    {"appendonly": "yes", "appendfsync": "everysec"},
    {"appendonly": "yes", "appendfsync": "no"},
)
# What is set, how many replicas there are, and the level. With the first of each server the others are compared.
LEVELS = [
    (NO_FILE, 0, "memory"),
    (NO_SYNC, 0, "written"),
    (EACH_WRITE, 0, "fsync"),
    (NO_FILE, 1, "replicas:1"),
    (NO_FILE, 2, "replicas:2"),
]
# The distribution's server has no `WAITAOF`.
NEWER_ALONE = [(EACH_SECOND, 0, "fsync")]


def measure(bench):
    settings = getattr(bench, "settings", None) or bench._settings()
    newer = subprocess.run([NEWER], capture_output=True, text=True, check=True).stdout.strip()
    cells = [(shutil.which("redis-server"), *level) for level in LEVELS]
    cells += [(newer, *level) for level in LEVELS + NEWER_ALONE]
    cells += [(None, None, 0, level) for level in ("written", "fsync")]
    runs = {}
    for number in range(1, REPEATS + 1):
        for program, own, replicas, level in cells:
            with servers(bench, settings, program, own, replicas) as (name, arguments):
                figures = one_run(bench, arguments, level)
            print(f"round {number}  {name:40} {level:12} {figures}", flush=True)
            runs.setdefault((name, level), []).append(figures)
    return judged(runs)


def judged(runs):
    """Medians; the rate also as a part of what the distribution's server does under `memory`, round by round."""
    first = next(iter(runs.values()))
    found = {}
    for (name, level), figures in runs.items():
        middle = {key: statistics.median(one[key] for one in figures) for key in figures[0]}
        middle["of_memory"] = statistics.median(one["rate"] / base["rate"] for one, base in zip(figures, first, strict=True))
        found.setdefault(name, {})[level] = middle
    return found


def one_run(bench, arguments, level):
    with running(bench, ["--override", f"weir.durability={level}", *arguments]) as weir:
        contestant = Contestant(weir, "batch")
        seconds = SECONDS * min(bench.scale, 1)
        for topic in ("fast", "steady"):
            bench.generator.create(contestant, topic, PARTITIONS)
        at = ["--bootstrap", weir.bootstrap, "--seconds", seconds]
        fast = bench.generator.run("produce", *at, "--topic", "fast")
        steady = ["--topic", "steady", "--rate", RATE, "--records-per-batch", RECORDS_PER_BATCH]
        steady = bench.generator.run("produce", *at, *steady)
    latency = steady["latency_us"]
    return {"rate": fast["rate"], "p50_ms": latency["p50"] / 1000, "p99_ms": latency["p99"] / 1000}


@contextlib.contextmanager
def servers(bench, settings, program, own, replicas):
    """A Redis with replicas, or none where Weir has its own; gives its name, and what Weir is told of it."""
    if program is None:
        yield "embedded", []
        return
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder, contextlib.ExitStack() as running_servers:

        def start(name, more):
            server = redis.Server(pathlib.Path(folder) / name, settings, "no AOF", program, own | more)
            running_servers.callback(server.stop)
            server.start()
            return server

        port = bench.free_port()
        master = start("master", {"port": port})
        for number in range(replicas):
            start(f"replica-{number}", {"port": bench.free_port(), "replicaof": f"127.0.0.1 {port}"})
        wait_for_replicas(master, replicas)
        version = redis.info(master.socket, "server")["redis_version"].strip()
        file = {"no": "no append-only file"}.get(own["appendonly"]) or f"appendfsync {own['appendfsync']}"
        yield f"{version}, {file}", ["--redis-url", f"redis+unix://{master.socket}"]


def wait_for_replicas(master, count):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        facts = redis.info(master.socket, "replication")
        if sum("state=online" in value for name, value in facts.items() if name.startswith("slave")) == count:
            return
        time.sleep(0.05)
    raise RuntimeError("the replicas do not catch up")


def table(found):
    lines = ["| Redis | level | records/s | to `memory` | p50 | p99 |", "|---|---|---|---|---|---|"]
    for name, levels in found.items():
        for level, figures in levels.items():
            cells = (f"{figures['rate']:,.0f}", f"{figures['of_memory']:.2g}", f"{figures['p50_ms']:.1f} ms", f"{figures['p99_ms']:.0f} ms")
            lines.append(f"| {name} | `{level}` | {' | '.join(cells)} |")
    return lines
