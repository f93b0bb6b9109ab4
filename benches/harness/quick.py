"""`make bench-quick`: Weir beside Redis alone, and the ratios beside those that are kept in benches/baseline.json.

Redis alone is the measure, so neither Kafka nor a quiet machine is needed, and ratios of different machines are near enough to each
other for a guard with wide limits.
"""

import json

from .works import CEILING, commits, consume, end_to_end, produce, tail

# Without the append-only file: the disk of a busy machine is not what is guarded here.
MODE = "no AOF"
WEIR = ("weir batch, no AOF", "weir record, no AOF")
REFERENCE = "redis alone record"
# How many times worse than the baseline is plainly worse; a busy machine takes half of a rate away.
MOST = {"cpu_us": 1.5, "rate": 2.2, "p50_us": 2.5}


def works():
    return [
        produce("produce 1 KB, 128 KB batches", WEIR + CEILING, [], seconds=1),
        produce("produce 100 B, 128 KB batches", WEIR + CEILING, [], size=100, seconds=1),
        produce("produce 1 KB, default batching (16 KB)", WEIR + CEILING, ["--batch-bytes", 16_384], seconds=1),
        consume("consume from the start, 1 KB", "generator", WEIR, 200_000),
        tail(10, 5_000, WEIR, seconds=2),
        end_to_end("generator", WEIR, seconds=1),
        commits(10, WEIR[:1], seconds=1),
    ]


def kept(title):
    """The figures that tell something about a work: no rate where it is fixed, no latency where queues make it."""
    if title.startswith(("produce", "consume from")):
        return ("cpu_us", "rate")
    if "tail" in title:
        return ("cpu_us", "redis_reads")
    # One at a time, the CPU's waking and sleeping is what costs, and that depends on who else is awake.
    return ("p50_us",) if "end to end" in title else ("cpu_us", "p50_us")


def best(runs, key):
    """What a busy machine disturbs least."""
    values = [run[key] for run in runs if key in run]
    return (max if key == "rate" else min)(values) if values else None


def ratios(results):
    """Every figure of Weir over what Redis alone does in this run with an entry per record: in the same work, or else in the first."""
    found = {}
    first = next(iter(results.values()))["runs"].get(REFERENCE, [])
    for title, row in results.items():
        for contestant in WEIR:
            for key in kept(title):
                value = best(row["runs"].get(contestant, []), key)
                unit = 1 if key == "redis_reads" else best(row["runs"].get(REFERENCE) or first, "cpu_us" if key == "p50_us" else key)
                if value is not None and unit:
                    found[f"{title}, {contestant}, {key}"] = value / unit
    return found


def judged(found, baseline):
    """Lines of a table, and those that regressed."""
    lines = ["| figure, as a ratio to Redis alone | baseline | now | |", "|---|---|---|---|"]
    regressed = []
    for name, now in found.items():
        then = baseline.get(name)
        key = name.rsplit(", ", 1)[1]
        verdict = ""
        if then is None:
            verdict = "new"
        elif key == "redis_reads":
            verdict = "worse" if now > then else ""
        elif (then / now if key == "rate" else now / then) > MOST[key]:
            verdict = "worse"
        if verdict == "worse":
            regressed.append(name)
        lines.append(f"| {name} | {'' if then is None else f'{then:.3f}'} | {now:.3f} | {verdict} |")
    regressed += [f"{name} (not measured)" for name in baseline if name not in found]
    return "\n".join(lines), regressed


def load_baseline(path):
    return json.loads(path.read_text())["ratios"] if path.exists() else {}


def save_baseline(path, found, made):
    rounded = {name: float(f"{value:.4g}") for name, value in found.items()}
    path.write_text(json.dumps({**made, "ratios": rounded}, indent=1) + "\n")
