"""The goals of the bench, each judged by figures of one run."""

from .bench import median, ratio

KB, SMALL, DEFAULT = (
    "produce 1 KB, 128 KB batches",
    "produce 100 B, 128 KB batches",
    "produce 1 KB, default batching (16 KB)",
)
SMALL_150 = "produce 100 B, 150 records a batch"
STEADY = "produce 1 KB at 10,000 records/s"
START = "consume from the start, 1 KB"
END_TO_END = "end to end, one at a time, 1 KB"
MODES = ("everysec", "as it comes", "no AOF")


def named(layout, mode):
    return f"weir {layout}" if mode == "as it comes" else f"weir {layout}, {mode}"


class Judge:
    def __init__(self, results):
        self.results, self.lines = results, []

    def add(self, goal, what, value, relation, target, unit="x", limit=None):
        """`value` is None where its work was not run, or failed. `limit` is what it would be if Weir cost nothing."""
        met = None
        if value is not None:
            met = value <= target if relation == "<=" else value >= target if relation == ">=" else value == target
        self.lines.append({"goal": goal, "what": what, "value": value, "relation": relation, "target": target, "unit": unit, "met": met, "limit": limit})

    def ratio(self, goal, what, title, key, contestant, relation, target, reference="kafka", over=None):
        row = self.results.get(title)
        is_there = row and contestant in row["runs"] and reference in row["runs"]
        value = ratio(row, key, contestant, reference, over) if is_there else None
        limit = self.limit(row, key, contestant) if is_there and reference == "kafka" else None
        self.add(goal, f"{what}: {contestant} / {reference}", value, relation, target, limit=limit)

    @staticmethod
    def limit(row, key, contestant):
        """Of CPU: Redis' part alone. Of a rate: what the same clients reach with a broker that keeps nothing."""
        if key == "cpu_us":
            return ratio(row, "redis_cpu_us", contestant, "kafka", "cpu_us")
        return ratio(row, key, "sink", "kafka") if key == "rate" and "sink" in row["runs"] else None


def judged(results, extras):
    judge = Judge(results)
    for goal, work, cpu, rate in (
        ("1", KB, (0.6, 0.4, 0.3), (1.1, 1.2, 1.25)),
        ("2", SMALL, (0.7, 0.5, 0.35), (1.05, 1.1, 1.15)),
        ("3", DEFAULT, (0.8, 0.5, 0.4), (1.1, 1.1, 1.1)),
    ):
        for mode, most, least in zip(MODES, cpu, rate, strict=True):
            contestant = named("batch", mode)
            judge.ratio(goal, f"{work}, server CPU", f"{work} [generator]", "cpu_us", contestant, "<=", most)
            judge.ratio(goal, f"{work}, perf-test's rate", f"{work} [tools]", "rate", contestant, ">=", least)
    for work, most in ((SMALL_150, 1.15), (DEFAULT, 1.3)):
        who = {"contestant": "weir record", "reference": "redis alone record"}
        title = f"{work} [generator]"
        judge.ratio("4", f"{work}, CPU of Redis", title, "redis_cpu_us", relation="<=", target=most, **who)
        judge.ratio("4", f"{work}, Weir's own CPU / Redis'", title, "broker_cpu_us", relation="<=", target=0.5, over="redis_cpu_us", **who)
        judge.ratio("4", f"{work}, rate", title, "rate", relation=">=", target=0.85, **who)
    for work, least in ((KB, 0.85), (SMALL, 0.5)):
        judge.ratio("4b", f"{work}, perf-test's rate", f"{work} [tools]", "rate", "weir record", ">=", least)
    for layout in ("batch", "record"):
        for key in ("p50_us", "p99_us", "p99.9_us"):
            name = key.removesuffix("_us")
            judge.ratio("5", f"{STEADY}, {name}", f"{STEADY} [generator]", key, f"weir {layout}", "<=", 1.0)
    for title, row in results.items():
        if row["name"].startswith("consume at the tail") and ", 50 " not in row["name"]:
            for layout in ("batch", "record"):
                judge.ratio("6", f"{row['name']}, server CPU", title, "cpu_us", f"weir {layout}", "<=", 1.0)
                reads = median(row["runs"].get(f"weir {layout}", []), "redis_reads")
                judge.add("6", f"{row['name']}, reads of Redis: weir {layout}", reads, "==", 0, "commands")
    for layout, least in (("batch", 0.9), ("record", 0.4)):
        for load in ("tools", "generator"):
            judge.ratio("7", f"{START} [{load}], rate", f"{START} [{load}]", "rate", f"weir {layout}", ">=", least)
    for layout in ("batch", "record"):
        for key, most in (("p50_us", 0.6), ("p99_us", 0.5)):
            name = key.removesuffix("_us")
            judge.ratio("8", f"{END_TO_END}, {name}", f"{END_TO_END} [generator]", key, f"weir {layout}", "<=", most)
    for title, row in results.items():
        if row["name"].startswith("commits"):
            judge.ratio("9", f"{row['name']}, rate", title, "rate", "weir batch", ">=", 3.0)
    _extras(judge, extras)
    return judge.lines


def _extras(judge, extras):
    footprint, scale, step = (extras.get(name) or {} for name in ("footprint", "scale", "step"))
    judge.add("10", "ready with an empty Redis", footprint.get("ready_seconds"), "<=", 0.3, "s")
    judge.add("10", "ready with 10,000 topics", footprint.get("ready_seconds_with_10000_topics"), "<=", 1.5, "s")
    judge.add("10", "idle, the broker alone", footprint.get("idle_broker_mib"), "<=", 25, "MiB")
    for layout in ("batch", "record"):
        judge.add("10", f"largest under full load, the broker alone, {layout}", footprint.get(f"peak_broker_mib_under_load_{layout}"), "<=", 150, "MiB")
    judge.add("11", "5,000 idle connections more", scale.get("mib_for_connections"), "<=", 100, "MiB")
    judge.add("11", "p99 of a produce among 10,000 partitions, 5,000 connections, 1,000 groups / on an empty broker", scale.get("p99_ratio"), "<=", 2)
    idle = [scale.get(name) for name in ("idle_cpu_percent", "idle_redis_cpu_percent")]
    judge.add("11", "CPU at idle with 10,000 partitions and 5,000 connections, with Redis", sum(idle) if None not in idle else None, "<=", 1, "%")
    spread = step.get("spread", {})
    largest = max(map(int, step.get("log, MB", {"1000": None}))) // 1000
    for kind, what in (("partitions", "1 to 100 partitions"), ("log, MB", f"10 MB to {largest} GB of log"), ("producers", "1 to 500 producers")):
        judge.add("12", f"server CPU per record, {what}: the most / the least", spread.get(kind), "<=", 1.15)
