"""The command: starts the brokers, runs every case on each, compares, and says what it found."""

import argparse
import concurrent.futures
import contextlib
import pathlib
import secrets
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass

from . import brokers, cases, differences, schema
from .compare import Difference, compare
from .scenario import Abandoned, Scenario, Step

HERE = pathlib.Path(__file__).resolve().parents[1]
ABANDONED = "abandoned"
LONGEST_RUN_SECONDS = 1800
MOST_ASKED_AGAIN = 20


@dataclass(frozen=True)
class Task:
    case: cases.Case
    version: int

    def __str__(self):
        return f"{self.case.api} v{self.version} {self.case.name}"


@dataclass(frozen=True)
class Transcript:
    steps: list
    seconds: float


def arguments():
    parser = argparse.ArgumentParser(prog="tests/parity/run", description="Compares Weir's answers with Apache Kafka's, field by field.")
    parser.add_argument("--only", action="append", metavar="API", help="only this API's cases (may be given again)")
    parser.add_argument("--case", action="append", metavar="NAME", help="only cases of this name (may be given again)")
    parser.add_argument("--version", type=int, action="append", metavar="N", help="only this version (may be given again)")
    parser.add_argument("--layout", choices=("record", "batch", "both"), default="both", help="which of Weir's layouts (default: both)")
    parser.add_argument("--self", action="store_true", dest="self_test", help="Kafka against Kafka: shows that harness and cases are sound")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="use this running Kafka instead of starting one")
    parser.add_argument("--weir", metavar="HOST:PORT", help="use this running Weir instead of starting one")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="cases at a time on each broker (default: 4)")
    parser.add_argument("--list", action="store_true", help="print the cases and what each asks, and stop")
    parser.add_argument("--show", action="store_true", help="print every compared answer of the reference, too")
    parser.add_argument("--slow", action="store_true", help="print which cases took longest")
    parser.add_argument("--report", metavar="FILE", help="also write the differences to FILE, grouped by API")
    return parser.parse_args()


def address(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


@contextlib.contextmanager
def running(options, schemas, libraries):
    """The reference and the brokers that are compared with it, started together; whatever happens, they are stopped."""
    started = []
    try:
        if options.kafka:
            started.append(brokers.Broker("kafka", schemas, address(options.kafka)))
        else:
            started.append(brokers.start_kafka(schemas, libraries))
        if options.self_test:
            started.append(brokers.start_kafka(schemas, libraries, "kafka again"))
        elif options.weir:
            started.append(brokers.Broker("weir", schemas, address(options.weir)))
        else:
            for layout in ("record", "batch") if options.layout == "both" else (options.layout,):
                started.append(brokers.start_weir(schemas, layout))
        for broker in started:
            broker.get_to_know()
        yield started
    finally:
        for broker in started:
            broker.stop()


def plan(options, sides):
    """The tasks, and the ones that cannot run because a broker does not serve the version."""
    low = {api: max(s.versions.get(api, (0, -1))[0] for s in sides) for api in sides[0].versions}
    high = {api: min(s.versions.get(api, (0, -1))[1] for s in sides) for api in sides[0].versions}
    for side in sides:
        side.common_versions = {api: (low[api], high[api]) for api in low if low[api] <= high[api]}
    tasks, skipped = [], []
    for case in cases.load(HERE / "cases"):
        if options.only and case.api.lower() not in [o.lower() for o in options.only]:
            continue
        if options.case and case.name not in options.case:
            continue
        first, last = sides[0].versions.get(case.api, (0, 0))
        for version in range(first, last + 1):
            if version not in case.versions or (options.version and version not in options.version):
                continue
            served = low.get(case.api, 0) <= version <= high.get(case.api, 0)
            (tasks if served else skipped).append(Task(case, version))
    return tasks, skipped


def perform(task, broker, run_id):
    """The transcript of one case on one broker."""
    scenario = Scenario(broker, task.case, task.version, run_id)
    began = time.monotonic()
    try:
        task.case.script(scenario)
    except Abandoned as problem:
        scenario.steps.append(Step(ABANDONED, "", 0, str(problem)))
    except Exception as problem:  # noqa: BLE001 — an answer that a script could not read is a finding, not the end of the run
        where = traceback.extract_tb(problem.__traceback__)
        line = next((f"{pathlib.Path(f.filename).name}:{f.lineno}" for f in reversed(where) if "cases" in f.filename), "")
        scenario.steps.append(Step(ABANDONED, "", 0, f"{type(problem).__name__} {problem} at {line}"))
    finally:
        scenario.end()
    return Transcript(scenario.steps, time.monotonic() - began)


def perform_all(tasks, sides, jobs, run_id):
    transcripts = defaultdict(dict)
    pool = concurrent.futures.ThreadPoolExecutor(jobs * len(sides))
    try:
        for group in ([t for t in tasks if not t.case.alone], *([t] for t in tasks if t.case.alone)):
            started = {pool.submit(perform, task, side, run_id): (task, side) for task in group for side in sides}
            for done in concurrent.futures.as_completed(started):
                task, side = started[done]
                transcripts[task][side.name] = done.result()
    finally:
        # When the run is cut short, what still talks to a broker ends with that broker.
        pool.shutdown(wait=False, cancel_futures=True)
    return transcripts


def ask_kafka_again(tasks, transcripts, sides, jobs, run_id, meant):
    """Kafka itself is not always steady: about once in ten thousand requests it answers a fetch OFFSET_OUT_OF_RANGE right after the append.
    So what differs is asked of Kafka once more, and its second answers count where they are not its first. Weir is not asked again."""
    unexpected, _, _ = judge(tasks, transcripts, sides[0], sides[1:], meant)
    doubtful = list(dict.fromkeys(task for task, _, _, _ in unexpected))[:MOST_ASKED_AGAIN]
    unsteady = []
    kafkas = [side for side in sides if side.name.startswith("kafka")]
    for task, answers in perform_all(doubtful, kafkas, jobs, f"{run_id}again-").items():
        for name, transcript in answers.items():
            if differing(transcripts[task][name].steps, transcript.steps):
                transcripts[task][name] = transcript
                unsteady.append(f"{task} [{name}]")
    return unsteady


def differing(reference, other):
    """The differences between two transcripts, as (step label, difference)."""
    found = []
    theirs = {s.label: s for s in other}
    for step in reference:
        against = theirs.pop(step.label, None)
        if against is None:
            found.append((step.label, Difference("(the step)", "there", "not reached")))
        elif step.label == ABANDONED:
            found.append((step.label, Difference("(the script)", step.outcome, against.outcome)))
        elif isinstance(step.outcome, dict) and isinstance(against.outcome, dict):
            found += [(step.label, d) for d in compare(step.outcome, against.outcome)]
        elif step.outcome != against.outcome:
            found.append((step.label, Difference("(the answer)", str(step.outcome), str(against.outcome))))
    for label, step in theirs.items():
        found.append((label, Difference("(the step)", "not reached", str(step.outcome))))
    return found


def judge(tasks, transcripts, reference, sides, meant):
    """Per task the differences nobody asked for, and the entries of the file that no longer apply."""
    unexpected, met = [], 0
    index = defaultdict(list)
    for entry in meant:
        index[entry.api, entry.case, entry.step, entry.field].append(entry)
    for task in tasks:
        for side in sides:
            for label, difference in differing(transcripts[task][reference.name].steps, transcripts[task][side.name].steps):
                entry = next(
                    (
                        e
                        for e in index[task.case.api, task.case.name, label, difference.field]
                        if e.covers(task.version, side.layout) and (e.kafka, e.weir) == (difference.kafka, difference.weir)
                    ),
                    None,
                )
                if entry:
                    entry.seen.add((task.version, side.name))
                    met += 1
                else:
                    unexpected.append((task, side, label, difference))
    stale = []
    for entry in meant:
        expected = {
            (t.version, s.name)
            for t in tasks
            for s in sides
            if (t.case.api, t.case.name) == (entry.api, entry.case) and entry.covers(t.version, s.layout)
        }
        if expected - entry.seen:
            stale.append((entry, sorted(expected - entry.seen)))
    return unexpected, met, stale


def describe(unexpected):
    """Differences grouped so that one cause is one line: by API, case, step and field, with the versions and sides it was seen at."""
    groups = defaultdict(lambda: defaultdict(set))
    for task, side, label, difference in unexpected:
        groups[task.case.api][task.case.name, label, difference.field, difference.kafka, difference.weir].add((task.version, side.name))
    for api in sorted(groups):
        yield f"\n== {api}: {len(groups[api])} different"
        for (case, label, field, kafka, weir), where in groups[api].items():
            versions = runs(sorted({v for v, _ in where}))
            names = ", ".join(sorted({n for _, n in where}))
            yield f"{api} v{versions}  {case} / {label}  {field}    [{names}]\n      kafka: {kafka}\n      weir:  {weir}"


def runs(versions):
    out = []
    for version in versions:
        if out and version == out[-1][1] + 1:
            out[-1][1] = version
        else:
            out.append([version, version])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in out)


def main():
    options = arguments()
    began = time.monotonic()
    if options.list:
        for case in cases.load(HERE / "cases"):
            print(f"{case.api} {case.name}: {case.about}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"parity: not done after {LONGEST_RUN_SECONDS} s"))
    signal.alarm(LONGEST_RUN_SECONDS)
    try:
        meant = [] if options.self_test else differences.load(HERE / "differences.toml")
        libraries = brokers.kafka_libraries()
        schemas = schema.load(brokers.jar(libraries))
        with running(options, schemas, libraries) as sides:
            tasks, skipped = plan(options, sides)
            run_id = f"{secrets.token_hex(3)}-" if options.kafka or options.weir else ""
            transcripts = perform_all(tasks, sides, options.jobs, run_id)
            unsteady = ask_kafka_again(tasks, transcripts, sides, options.jobs, run_id, meant)
            for entry in meant:
                entry.seen.clear()
    except (brokers.CannotStart, differences.Wrong) as problem:
        print(f"parity: {problem}", file=sys.stderr)
        return 2
    reference, others = sides[0], sides[1:]
    if options.show:
        for task in tasks:
            for step in transcripts[task][reference.name].steps:
                print(f"{task} / {step.label}: {step.outcome}")
    return conclude(options, tasks, skipped, unsteady, transcripts, reference, others, meant, began)


def conclude(options, tasks, skipped, unsteady, transcripts, reference, others, meant, began):
    unexpected, met, stale = judge(tasks, transcripts, reference, others, meant)
    lines = list(describe(unexpected))
    for entry, where in stale:
        at = ", ".join(f"v{version} {side}" for version, side in where)
        lines.append(
            f"\nno longer so: {entry.api} v{entry.versions} {entry.case} / {entry.step} {entry.field} ({at}): take it out of differences.toml"
        )
    broken = {
        task: step.outcome
        for task in tasks
        for step in transcripts[task][reference.name].steps
        if step.label == ABANDONED or step.outcome is None
    }
    for task, outcome in broken.items():
        lines.append(f"\nthe script itself fails on Kafka: {task}: {outcome}")
    if unsteady:
        lines.append("\nKafka answered otherwise when asked again: " + ", ".join(unsteady))
    if skipped:
        by_api = Counter(t.case.api for t in skipped)
        lines.append("\nskipped, not served by every side: " + ", ".join(f"{api} ({n})" for api, n in sorted(by_api.items())))
    failed = {(task, side.name) for task, side, _, _ in unexpected} | {(task, side.name) for task in broken for side in others}
    compared = sum(len(transcripts[t][reference.name].steps) for t in tasks) * len(others)
    total = len(tasks) * len(others)
    summary = [
        f"\n{compared} requests compared ({len(tasks)} cases at their versions, {len(others)} broker{'s' * (len(others) != 1)}), "
        f"{met} differences meant ({len(meant)} entries), {len(unexpected)} not meant, {len(stale)} entries out of date, "
        f"{time.monotonic() - began:.0f} s",
        f"{total - len(failed)} passed, {len(failed) + len(stale)} failed, {len(skipped)} skipped",
    ]
    if options.slow:
        taken = sorted(((transcript.seconds, str(task), side) for task in tasks for side, transcript in transcripts[task].items()), reverse=True)
        lines += [f"{seconds:6.2f} s  {task} [{side}]" for seconds, task, side in taken[:40]]
    print("\n".join(lines + summary))
    if options.report:
        pathlib.Path(options.report).write_text("\n".join(lines + summary) + "\n")
    return 1 if unexpected or stale or broken else 0
