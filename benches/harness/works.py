"""The works: what each contestant is asked to do, in short cells."""

import contextlib
import re

from . import redis
from .clients import LARGE_BATCHES
from .contestants import RedisAlone
from .measure import measured

MAIN = ("kafka", "weir batch", "weir record")
OTHER_MODES = tuple(f"weir {layout}, {mode}" for layout in ("batch", "record") for mode in ("everysec", "no AOF"))
CEILING = ("redis alone batch", "redis alone record")
CLIENTS = ("sink",)
GROUPS = ("kafka", "weir batch")


class Work:
    """`cells` yields names of rows and their figures for one contestant and a topic that is there."""

    def __init__(self, name, load, who, cells, partitions=6):
        self.name, self.load, self.who, self.cells, self.partitions = name, load, who, cells, partitions

    @property
    def title(self):
        return f"{self.name} [{self.load}]"


def produce(name, who, shape, size=1024, partitions=6, more=(), seconds=3.0):
    def cells(bench, contestant, topic):
        shaped = ["--record-size", size, *shape]
        if isinstance(contestant.server, RedisAlone):
            arguments = ["redis", "--socket", contestant.server.redis_socket, "--key", topic, "--layout", contestant.layout]
            arguments += ["--partitions", partitions]
        else:
            arguments = ["produce", "--bootstrap", contestant.server.bootstrap, "--topic", topic, *more]
        step = lambda: bench.generator.run(*arguments, *shaped, "--seconds", seconds * bench.scale)  # noqa: E731
        yield name, measured(contestant, step, size)

    return Work(name, "generator", who, cells, partitions)


def produce_by_tool(name, who, properties, records, size=1024, rate=-1):
    def cells(bench, contestant, topic):
        at, count = contestant.server.bootstrap, int(records * bench.scale)
        step = lambda: bench.tools.produce(at, topic, count, size, ["acks=all", *properties], rate)  # noqa: E731
        yield name, measured(contestant, step, size)

    return Work(name, "tools", who, cells)


def consume(name, load, who, records):
    def cells(bench, contestant, topic):
        at, count = contestant.server.bootstrap, int(records * bench.scale)
        bench.generator.run("produce", "--bootstrap", at, "--topic", topic, "--records", count)
        if load == "tools":
            step = lambda: bench.tools.consume(at, topic, count)  # noqa: E731
        else:
            step = lambda: bench.generator.run(  # noqa: E731
                "consume", "--bootstrap", at, "--topic", topic, "--records", count, "--seconds", 60
            )
        yield name, measured(contestant, step)

    return Work(name, load, who, cells)


def tail(groups, rate, who, seconds=3.0):
    name = f"consume at the tail, {groups} group{'s' if groups > 1 else ''}, {rate:,} records/s"

    def cells(bench, contestant, topic):
        arguments = ["--bootstrap", contestant.server.bootstrap, "--topic", topic, "--groups", groups, "--rate", rate]
        step = lambda: bench.generator.run("tail", *arguments, "--records-per-batch", 16, "--seconds", seconds * bench.scale)  # noqa: E731
        figures = measured(contestant, step)
        # What counts here is the way to the consumers.
        for quantile in ("p50", "p99", "p99.9", "max"):
            figures[f"{quantile}_us"] = figures.pop(f"delivery_{quantile}_us")
        yield name, figures

    return Work(name, "generator", who, cells)


def end_to_end(load, who, seconds=2.0):
    name = "end to end, one at a time, 1 KB"

    def cells(bench, contestant, topic):
        at = contestant.server.bootstrap
        if load == "tools":
            step = lambda: bench.tools.end_to_end(at, topic, int(3000 * bench.scale), 1024)  # noqa: E731
        else:
            step = lambda: bench.generator.run(  # noqa: E731
                "end-to-end", "--bootstrap", at, "--topic", topic, "--records", 100_000, "--seconds", seconds * bench.scale
            )
        figures = measured(contestant, step)
        for quantile in ("p50", "p99", "p99.9", "max"):
            if f"delivery_{quantile}_us" in figures:
                figures[f"{quantile}_us"] = figures.pop(f"delivery_{quantile}_us")
        yield name, figures

    return Work(name, load, who, cells, partitions=1)


def commits(members, who=GROUPS, seconds=2.0):
    name = f"commits, groups of {members} member{'s' if members > 1 else ''}"

    def cells(bench, contestant, topic):
        arguments = ["--bootstrap", contestant.server.bootstrap, "--topic", topic, "--group", topic]
        arguments += ["--members", members, "--heartbeat-ms", 20, "--seconds", seconds * bench.scale]
        yield name, measured(contestant, lambda: bench.generator.run("commits", *arguments))

    return Work(name, "generator", who, cells, partitions=100)


def join(members):
    name = f"group join of {members} members"

    def cells(bench, contestant, topic):
        arguments = ["--bootstrap", contestant.server.bootstrap, "--topic", topic, "--group", topic, "--members", members]
        yield name, measured(contestant, lambda: bench.generator.run("join", *arguments, "--heartbeat-ms", 20))

    return Work(name, "generator", GROUPS, cells)


def all_works():
    everybody = MAIN + OTHER_MODES
    return [
        produce("produce 1 KB, 128 KB batches", everybody + CEILING + CLIENTS, []),
        produce("produce 100 B, 128 KB batches", everybody + CEILING + CLIENTS, [], size=100),
        produce("produce 1 KB, default batching (16 KB)", everybody + CEILING + CLIENTS, ["--batch-bytes", 16_384]),
        produce("produce 100 B, 150 records a batch", MAIN + CEILING, ["--records-per-batch", 150], size=100),
        produce("produce 1 KB, 128 KB batches, lz4", MAIN, ["--compression", "lz4", "--payload", "json"]),
        produce("produce 1 KB, 128 KB batches, acks=1", MAIN, [], more=["--acks", 1]),
        produce("produce 1 KB, 128 KB batches, 1 partition", MAIN, [], partitions=1),
        produce("produce 1 KB, 128 KB batches, 100 partitions", MAIN, [], partitions=100),
        produce("produce 1 KB, 128 KB batches, idempotent", MAIN, [], more=["--idempotent"]),
        produce("produce 1 KB at 10,000 records/s", MAIN, ["--records-per-batch", 16], more=["--rate", 10_000]),
        consume("consume from the start, 1 KB", "generator", MAIN, 400_000),
        tail(1, 20_000, MAIN),
        tail(10, 5_000, MAIN),
        tail(50, 1_000, MAIN),
        end_to_end("generator", everybody),
        *(commits(members) for members in (1, 10, 100)),
        join(100),
        produce_by_tool("produce 1 KB, 128 KB batches", everybody + CLIENTS, LARGE_BATCHES, 300_000),
        produce_by_tool("produce 100 B, 128 KB batches", everybody + CLIENTS, LARGE_BATCHES, 1_500_000, size=100),
        produce_by_tool("produce 1 KB, default batching (16 KB)", everybody + CLIENTS, [], 150_000),
        produce_by_tool("produce 1 KB, 128 KB batches, lz4", MAIN, [*LARGE_BATCHES, "compression.type=lz4"], 300_000),
        produce_by_tool("produce 1 KB at 10,000 records/s", MAIN, [], 40_000, rate=10_000),
        consume("consume from the start, 1 KB", "tools", MAIN, 600_000),
        end_to_end("tools", MAIN),
    ]


def run_cell(bench, work, contestant, number):
    """Figures of one work on one contestant, with nothing left behind. Raises what went wrong."""
    server = contestant.server
    server.ensure_running()
    topic = re.sub(r"[^a-z0-9]+", "-", f"{work.name} {work.load} {number} {contestant.layout}".lower()).strip("-")
    if server.redis_socket:
        redis.begin_small(server.redis_socket)
    if server.keeps_topics:
        bench.generator.create(contestant, topic, work.partitions)
    try:
        return list(work.cells(bench, contestant, topic))
    finally:
        with contextlib.suppress(Exception):
            if server.keeps_topics:
                bench.generator.delete(contestant, topic)
            elif server.redis_socket:
                for partition in range(work.partitions):
                    redis.call(server.redis_socket, "UNLINK", f"{topic}:{partition}")
