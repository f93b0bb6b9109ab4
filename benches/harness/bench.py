"""The whole run: builds, starts everybody, lets them take turns, and stops everybody whatever happens."""

import contextlib
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from . import machine, redis
from .clients import LARGE_BATCHES, Generator, Tools
from .contestants import Contestant, Kafka, RedisAlone, Sink, Weir
from .works import run_cell

LEAST_FREE_GIB = 4


def _build(repository, features):
    """Weir and the generator in one go, so that both share what is built; the generator's path has a hash in it."""
    command = ["cargo", "build", "--release", "--locked", "--bin", "weir", "--bench", "load", *(f"--features={name}" for name in features)]
    done = subprocess.run(
        [*command, "--message-format", "json-render-diagnostics"], cwd=repository, stdout=subprocess.PIPE, text=True, check=True
    )
    found = {}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable"):
            found[message["target"]["name"]] = message["executable"]
    return found["weir"], found["load"]


def built(repository, features=(), again=True):
    """The paths of Weir and of the generator, as they were built before unless `again`."""
    if again:
        return _build(repository, features)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", repository / "target")) / "release"
    generators = [path for path in (target / "deps").glob("load-*") if path.suffix == "" and os.access(path, os.X_OK)]
    if not generators or not (target / "weir").exists():
        sys.exit("nothing is built: run without --no-build")
    return target / "weir", max(generators, key=lambda path: path.stat().st_mtime)


class Bench:
    def __init__(self, weir, load, libraries, free_port, scale):
        self.weir, self.libraries, self.free_port, self.scale = weir, libraries, free_port, scale
        self.generator = Generator(load)
        self.tools = Tools(libraries) if libraries else None
        self.contestants, self.servers = {}, []
        self.results, self.failures = {}, []
        self.starts = {}

    def new_weir(self, mode="as it comes", more=()):
        return Weir(self.weir, mode, getattr(self, "settings", None), self.free_port, more)

    def start(self, names, alone="as it comes"):
        """Starts the servers of the contestants that are named; `alone` is the mode of Redis alone."""
        self.settings = self._settings()
        servers = [self.new_weir(mode) for mode in redis.MODES] + [RedisAlone(self.settings, alone)]
        if self.libraries:
            servers = [Kafka(self.libraries, self.free_port), *servers, Sink(self.generator, self.free_port)]
        for server in servers:
            layouts = ["batch", "record"] if isinstance(server, (Weir, RedisAlone)) else [None]
            for contestant in (Contestant(server, layout) for layout in layouts):
                if contestant.name in names:
                    self.contestants[contestant.name] = contestant
        self.servers = list({id(one.server): one.server for one in self.contestants.values()}.values())
        for server in self.servers:
            try:
                self._start(server)
            except Exception as error:  # noqa: BLE001 (the others go on without it)
                self.fail(f"starting {server.name}", error)
                self.contestants = {name: one for name, one in self.contestants.items() if one.server is not server}

    def _start(self, server):
        server.start()
        if server.keeps_topics:
            time.sleep(2)
            self.starts[server.name] = {
                "ready_seconds": server.ready_seconds,
                "broker_mib": machine.resident_mib(server.broker_pids()),
                "redis_mib": machine.resident_mib(server.redis_pids()),
            }

    def _settings(self):
        """What Weir writes into its Redis' configuration."""
        weir = Weir(self.weir, "as it comes", None, self.free_port)
        weir.start()
        try:
            return redis.settings_of(weir.folder / "data")
        finally:
            weir.stop()

    def warm_up(self):
        """Kafka's code is compiled while it runs; the others get the same."""
        for contestant in self.contestants.values():
            # One layout is enough for Weir, which only has to touch its memory.
            is_warm = contestant.layout == "record" and self.libraries
            if not is_warm and contestant.server.keeps_topics:
                try:
                    self._warm_up(contestant)
                except Exception as error:  # noqa: BLE001 (its works will tell more)
                    self.fail(f"warming up {contestant.name}", error)

    def _warm_up(self, contestant):
        is_kafka = contestant.name == "kafka"
        seconds = 4 * min(self.scale, 1) if is_kafka else 1
        at = ["--bootstrap", contestant.server.bootstrap, "--topic", "warm-up"]
        self.generator.create(contestant, "warm-up", 6)
        for shape in ([], ["--record-size", 100], ["--batch-bytes", 16_384]):
            self.generator.run("produce", *at, "--seconds", seconds, *shape)
        self.generator.run("consume", *at, "--seconds", seconds)
        if is_kafka:
            self.tools.produce(contestant.server.bootstrap, "warm-up", int(200_000 * self.scale), 1024, LARGE_BATCHES)
            single = ["--bootstrap", contestant.server.bootstrap, "--topic", "warm-up-single"]
            self.generator.create(contestant, "warm-up-single", 1)
            self.generator.run("end-to-end", *single, "--records", 100_000, "--seconds", seconds)
            self.generator.run("commits", *single, "--members", 10, "--seconds", seconds)
            self.generator.delete(contestant, "warm-up-single")
        self.generator.delete(contestant, "warm-up")

    def one_round(self, number, works):
        for work in works:
            names = [name for name in work.who if name in self.contestants]
            # Another order in each round, so that nobody is always the first.
            turn = number % len(names) if names else 0
            for name in names[turn:] + names[:turn]:
                self.cell(number, work, self.contestants[name])

    def cell(self, number, work, contestant):
        self._wait_for_room()
        row = self.results.setdefault(work.title, {"name": work.name, "load": work.load, "runs": {}})
        runs = row["runs"].setdefault(contestant.name, [])
        if not contestant.server.is_alive():
            self.fail(f"round {number}, {contestant.server.name}", RuntimeError("it has ended; it is started again"))
        try:
            for _, figures in run_cell(self, work, contestant, number):
                runs.append(figures | {"round": number})
                shown = {key: figures[key] for key in ("rate", "cpu_us", "p50_us", "p99_us") if key in figures}
                text = ", ".join(f"{key} {value:,.2f}" for key, value in shown.items())
                print(f"round {number}  {work.title:60} {contestant.name:22} {text}", flush=True)
        except Exception as error:  # noqa: BLE001 (a cell that fails is told, and the others go on)
            self.fail(f"round {number}, {work.title}, {contestant.name}", error)
            runs.append({"round": number, "failed": f"{type(error).__name__}: {error}"[:500]})

    def fail(self, where, error):
        text = f"{where}: {type(error).__name__}: {error}"
        self.failures.append(text[:2000])
        print(f"FAILED {text[:2000]}", file=sys.stderr, flush=True)

    def _wait_for_room(self, seconds=90):
        """Kafka removes its files a while after a topic is deleted."""
        deadline = time.monotonic() + seconds
        while min(machine.available_gib(tempfile.gettempdir())) < LEAST_FREE_GIB and time.monotonic() < deadline:
            time.sleep(1)

    def stop(self):
        for server in self.servers:
            with contextlib.suppress(Exception):
                server.stop()


def median(runs, key):
    values = [run[key] for run in runs if key in run]
    return statistics.median(values) if values else None


def ratio(row, key, contestant, reference, over=None):
    """Median over the rounds of the ratio within a round. `over` is the reference's figure if it has another name."""
    runs = {name: {run["round"]: run for run in row["runs"].get(name, [])} for name in (contestant, reference)}
    found = []
    for number, run in runs[contestant].items():
        other = runs[reference].get(number, {})
        if key in run and other.get(over or key):
            found.append(run[key] / other[over or key])
    return statistics.median(found) if found else None


def provenance(repository, command):
    git = lambda *words: subprocess.run(["git", *words], cwd=repository, capture_output=True, text=True).stdout.strip()  # noqa: E731
    return {
        "machine": machine.description(),
        "fingerprint": machine.fingerprint(),
        "date": datetime.date.today().isoformat(),
        "commit": git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else ""),
        "command": command,
        "load_average": os.getloadavg()[0],
    }
