"""A run as text: the tables, and where they go in the READMEs."""

import json
import pathlib
import re

from . import charts, durability
from .bench import median, ratio
from .works import CEILING, CLIENTS, MAIN, OTHER_MODES

ORDER = (*MAIN, *OTHER_MODES, *CEILING, *CLIENTS)
START, END = "<!-- bench: {} -->", "<!-- end of bench: {} -->"


def head(run):
    rounds = f"medians of {run['rounds']} round{'s' if run['rounds'] != 1 else ''}"
    return f"{run['machine']}; {run['date']}; commit {run['commit']}; `{run['command']}`; {rounds}, ratios within a round."


def number(value, digits=2):
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or digits == 0 else f"{value:.{digits}f}"


def milliseconds(value):
    return "" if value is None else number(value / 1000, 2)


def work_tables(run):
    lines = []
    for load, title in (("generator", "With the load generator"), ("tools", "With Kafka's own tools (their latencies are whole milliseconds)")):
        rows = [row for row in run["results"].values() if row["load"] == load]
        if not rows:
            continue
        lines += [
            f"### {title}",
            "",
            "| work | contestant | rate /s | x Kafka | server CPU us | x Kafka | of it Redis | p50 ms | p99 ms | p99.9 ms | max ms | broker MiB | Redis B per record (per payload byte) | B moved per payload byte |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
            *(work_line(row, contestant, row["runs"][contestant]) for row in rows for contestant in ORDER if contestant in row["runs"]),
            "",
        ]
    return "\n".join(lines)


def work_line(row, contestant, runs):
    if all("failed" in one for one in runs):
        return f"| {row['name']} | {contestant} | failed |" + " |" * 11
    beside = lambda key: ratio(row, key, contestant, "kafka") if "kafka" in row["runs"] else None  # noqa: E731
    held = median(runs, "redis_bytes_per_record")
    share = median(runs, "redis_bytes_per_payload_byte")
    cells = [
        row["name"], contestant,
        number(median(runs, "rate"), 0), number(beside("rate")),
        number(median(runs, "cpu_us")), number(beside("cpu_us")),
        number(median(runs, "redis_cpu_us")) if median(runs, "redis_mib") else "",
        *(milliseconds(median(runs, f"{name}_us")) for name in ("p50", "p99", "p99.9", "max")),
        number(median(runs, "broker_mib"), 0),
        f"{held:,.0f} ({share:.2f})" if held else "",
        number(median(runs, "moved_bytes_per_payload_byte")),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def extras_tables(run):
    lines = []
    if run.get("starts"):
        lines += ["### Start and memory", "", "| server | start to ready, s | broker when idle, MiB | its Redis, MiB |", "|---|---|---|---|"]
        for name, start in run["starts"].items():
            lines.append(f"| {name} | {start['ready_seconds']:.2f} | {start['broker_mib']:.0f} | {number(start['redis_mib'] or None, 0)} |")
        lines.append("")
    for name, title in (("footprint", "Footprint"), ("scale", "Many of everything"), ("step", "Cost in step")):
        found = run.get("extras", {}).get(name)
        if found:
            lines += [f"### {title}", "", "| what | figure |", "|---|---|"]
            lines += [f"| {what} | {number(value, 3)} |" for what, value in flat(found)]
            lines.append("")
    if found := run.get("extras", {}).get("durability"):
        lines += ["### What each level of durability costs", "", *durability.table(found), ""]
    return "\n".join(lines)


def flat(found, before=""):
    for name, value in found.items():
        label = f"{before}{name}".replace("_", " ")
        if isinstance(value, dict):
            yield from flat(value, f"{label}, ")
        else:
            yield label, value


def measured(goals):
    return [goal for goal in goals if goal["value"] is not None]


def goal_table(goals):
    lines = ["| # | goal | measured | wanted | met | limit |", "|---|---|---|---|---|---|"]
    for goal in measured(goals):
        unit = "x" if goal["unit"] == "x" else f" {goal['unit']}"
        value = f"{number(goal['value'])}{unit}"
        met = "yes" if goal["met"] else "**no**"
        limit = number(goal.get("limit")) + unit if goal.get("limit") is not None else ""
        lines.append(f"| {goal['goal']} | {goal['what']} | {value} | {goal['relation']} {goal['target']:g}{unit} | {met} | {limit} |")
    return "\n".join(lines)


def summary(goals):
    met, known = sum(goal["met"] is True for goal in goals), len(measured(goals))
    missing = f"; {len(goals) - known} were not measured" if known < len(goals) else ""
    return f"{met} of {known} measured goals are met{missing}."


def whole(run):
    failed = "\n".join(f"- {text.splitlines()[0]}" for text in run["failures"])
    parts = [head(run)]
    if measured(run["goals"]):
        parts += ["## Goals", summary(run["goals"]), goal_table(run["goals"])]
    parts += ["## Figures", work_tables(run), extras_tables(run)]
    if failed:
        parts += ["## Failed", failed]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def write(run, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest.json").write_text(json.dumps(run, indent=1))
    (folder / "latest.md").write_text(whole(run))
    for name, text in charts.all_charts(run).items():
        (folder / f"{name}.svg").write_text(text)


def publish(run, repository):
    """Puts a run into the READMEs, between their markers."""
    folder = repository / "benches" / "charts"
    folder.mkdir(exist_ok=True)
    drawn = charts.all_charts(run)
    for name, text in drawn.items():
        (folder / f"{name}.svg").write_text(text)
    pictures = lambda at: "\n".join(f"![{charts.TITLES[name]}]({at}{name}.svg)\n" for name in drawn)  # noqa: E731
    replace(repository / "benches" / "README.md", "latest", "\n".join([whole(run).replace("## Figures", f"{pictures('charts/')}\n## Figures")]))
    extract = "\n\n".join([head(run), summary(run["goals"]) + " All figures, the goals and how to run it: [benches/README.md](benches/README.md).", extract_table(run), start_sentence(run), pictures("benches/charts/")])
    replace(repository / "README.md", "latest", extract)


# What benches/README.md has and the extract leaves out.
DETAILS = ("acks=1", "partition", "idempotent", "150 records", "lz4", "50 groups")


def extract_table(run):
    lines = ["| work | | Kafka | Weir `batch` | Weir `record` |", "|---|---|---|---|---|"]
    for row in run["results"].values():
        is_steady = row["name"].startswith("end to end") or "10,000 records/s" in row["name"]
        is_detail = any(detail in row["name"] for detail in DETAILS) or (is_steady and row["load"] == "tools")
        if is_detail or not {"kafka", "weir batch", "weir record"} <= row["runs"].keys():
            continue
        keys = [("rate", "records/s, Kafka's tools", 0)] if row["load"] == "tools" else [("cpu_us", "server CPU us per record", 2)]
        if is_steady:
            keys = [("p50_us", "p50 ms", 2), ("p99_us", "p99 ms", 2)]
        for key, what, digits in keys:
            cells = []
            for contestant in ("kafka", "weir batch", "weir record"):
                value = median(row["runs"][contestant], key)
                beside = ratio(row, key, contestant, "kafka") if contestant != "kafka" else None
                scaled = value / 1000 if value is not None and key.startswith("p") else value
                cells.append(number(scaled, digits) + (f" ({beside:.2f} x)" if beside else ""))
            lines.append(f"| {row['name']} | {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def start_sentence(run):
    found = run["extras"].get("footprint")
    if not found:
        return ""
    whole_mib = found["idle_broker_mib"] + found["idle_redis_mib"]
    return (
        f"Weir is ready in {found['ready_seconds']:.2f} s with an empty Redis ({found['ready_seconds_with_10000_topics']:.2f} s with 10,000 topics) "
        f"and takes {found['idle_broker_mib']:.0f} MiB when idle, {whole_mib:.0f} MiB with its Redis."
    )


def replace(path, name, text):
    start, end = START.format(name), END.format(name)
    old = path.read_text()
    if start not in old or end not in old:
        raise SystemExit(f"{path} has no markers {start} and {end}")
    pattern = re.escape(start) + r".*?" + re.escape(end)
    path.write_text(re.sub(pattern, lambda _: f"{start}\n{text}\n{end}", old, flags=re.S))


def load(path, fingerprint=None):
    run = json.loads(pathlib.Path(path).read_text())
    if fingerprint and run["fingerprint"] != fingerprint:
        raise SystemExit(f"{path} is of another machine ({run['machine']}): figures of different machines are not compared")
    return run


def comparison(old, new):
    """Ratios beside an earlier run of the same machine: only ratios to Kafka, since absolute figures move from run to run."""
    if old["fingerprint"] != new["fingerprint"]:
        raise SystemExit("these runs are of different machines: they are not compared")
    lines = ["| work | contestant | figure | then | now |", "|---|---|---|---|---|"]
    for title, row in new["results"].items():
        before = old["results"].get(title)
        for contestant in row["runs"]:
            for key in ("rate", "cpu_us", "p99_us"):
                if contestant == "kafka" or not before or not {"kafka", contestant} <= (before["runs"].keys() & row["runs"].keys()):
                    continue
                then, now = (ratio(one, key, contestant, "kafka") for one in (before, row))
                if then is not None and now is not None:
                    lines.append(f"| {title} | {contestant} | {key} x Kafka | {then:.2f} | {now:.2f} |")
    return "\n".join(lines)
