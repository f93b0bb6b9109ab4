"""Fetches and starts the brokers, and ends them again."""

import ctypes
import fcntl
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zipfile

from .connection import Closed, Connection, NoAnswer
from .schema import Malformed

KAFKA = "4.3.1"
REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "weir" / f"kafka-{KAFKA}"
READY_SECONDS = 90

# The same on both sides, where the two have different defaults or where a test must not wait.
SHARED_SETTINGS = {
    "num.partitions": "2",
    "auto.create.topics.enable": "true",
    "default.replication.factor": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.max.size": "4",
    "max.connections": "10000",
    "max.incremental.fetch.session.cache.slots": "1000",
    "connections.max.idle.ms": "600000",
}

KAFKA_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "inter.broker.listener.name": "PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.min.isr": "1",
}

# Eligible leader replicas make Kafka store a cluster-wide min.insync.replicas: with one broker it only clouds where the value comes from.
FORMAT = ["kafka.tools.StorageTool", "format", "--standalone", "-t", "cGFyaXR5LWNsdXN0ZXItMQ"]
FORMAT += ["--feature", "eligible.leader.replicas.version=0"]


class CannotStart(Exception):
    """A broker is missing or did not come up."""


def kafka_libraries():
    """The folder of Kafka's jars, fetched by Maven when it is not there yet."""
    libraries = CACHE / "libs"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not libraries.exists():
            for tool in ("java", "mvn"):
                if not shutil.which(tool):
                    raise CannotStart(f"{tool} is not installed: on Debian or Ubuntu, apt-get install openjdk-17-jre-headless maven")
            partial = CACHE / "libs.partial"
            shutil.rmtree(partial, ignore_errors=True)
            pom = REPOSITORY / "tests" / "kafka" / "pom.xml"
            fetched = subprocess.run(
                ["mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={partial}"],
                capture_output=True,
                text=True,
            )
            if fetched.returncode:
                raise CannotStart(f"Maven could not fetch Kafka {KAFKA}:\n{fetched.stdout[-2000:]}{fetched.stderr[-2000:]}")
            partial.rename(libraries)
    return libraries


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _die_with_parent(kill):
    def set_signal():
        ctypes.CDLL(None).prctl(1, kill)  # PR_SET_PDEATHSIG: a harness that is killed leaves nobody behind

    return set_signal


class Broker:
    """A running broker, and what the harness knows about it."""

    def __init__(self, name, schemas, address, layout=None):
        self.name, self.schemas, self.address, self.layout = name, schemas, address, layout
        self.process = self.folder = None
        self.cluster_id = None
        self.versions = {}
        self.common_versions = {}

    def get_to_know(self):
        """Waits until the broker answers everything the cases take for granted, and learns its id and its versions."""
        deadline = time.monotonic() + READY_SECONDS
        problem = "nothing"
        while time.monotonic() < deadline:
            if self.process and self.process.poll() is not None:
                raise CannotStart(f"{self.name} ended with code {self.process.returncode}:\n{self.log_tail()}")
            try:
                if self._ask_who_it_is():
                    return
                problem = "no brokers or no coordinator yet"
            except (OSError, Closed, NoAnswer, Malformed) as failure:
                problem = f"{type(failure).__name__} {failure}"
            time.sleep(0.1)
        raise CannotStart(f"{self.name} is not ready after {READY_SECONDS} s ({problem}):\n{self.log_tail()}")

    def _ask_who_it_is(self):
        connection = Connection(self.address, self.schemas)
        try:

            def ask(api, version, **fields):
                frame, correlation_id = connection.frame(self.schemas[api], version, fields)
                connection.write(frame)
                return connection.read(self.schemas[api], version, correlation_id)

            known = ask("ApiVersions", 3, ClientSoftwareName="parity", ClientSoftwareVersion="1")
            self.versions = {
                self.schemas.by_key[a["ApiKey"]].name: (a["MinVersion"], a["MaxVersion"])
                for a in known["ApiKeys"]
                if a["ApiKey"] in self.schemas.by_key
            }
            metadata = ask("Metadata", 9, Topics=[])
            self.cluster_id = metadata["ClusterId"]
            if not metadata["Brokers"]:
                return False
            # Kafka creates its internal topics when the first group and the first transactional producer ask for their coordinator;
            # its first block of producer ids comes late as well.
            warm_up = [ask("FindCoordinator", 3, Key="warm-up", KeyType=kind) for kind in (0, 1)]
            if "InitProducerId" in self.versions:
                warm_up.append(ask("InitProducerId", 4, TransactionalId=None, TransactionTimeoutMs=1000))
            return not any(answer["ErrorCode"] for answer in warm_up)
        finally:
            connection.close()

    def log_tail(self):
        log = self.folder / "log" if self.folder else None
        return log.read_text(errors="replace")[-3000:] if log and log.exists() else ""

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def start_kafka(schemas, libraries, name="kafka"):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="weir-parity-kafka-"))
    port, controller = free_port(), free_port()
    settings = KAFKA_SETTINGS | SHARED_SETTINGS
    settings |= {
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "log.dirs": str(folder / "data"),
    }
    (folder / "server.properties").write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
    (folder / "log4j2.properties").write_text(
        "status = error\nappender.c.type = Console\nappender.c.name = C\nappender.c.layout.type = PatternLayout\n"
        "appender.c.layout.pattern = [%d] %p %m (%c)%n\nrootLogger.level = WARN\nrootLogger.appenderRef.c.ref = C\n"
    )
    java = ["java", "-Xms256m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    java += [f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}", "-cp", f"{libraries}/*"]
    formatted = subprocess.run(
        [*java, *FORMAT, "-c", folder / "server.properties"],
        capture_output=True,
        text=True,
    )
    broker = Broker(name, schemas, ("127.0.0.1", port))
    broker.folder = folder
    if formatted.returncode:
        broker.stop()
        raise CannotStart(f"Kafka's storage could not be formatted:\n{formatted.stdout[-2000:]}{formatted.stderr[-2000:]}")
    with open(folder / "log", "w") as log:
        broker.process = subprocess.Popen(
            [*java, "kafka.Kafka", folder / "server.properties"],
            stdout=log,
            stderr=log,
            preexec_fn=_die_with_parent(signal.SIGKILL),
        )
    return broker


def weir_binary():
    named = os.environ.get("WEIR_BIN")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    candidates = [pathlib.Path(named)] if named else [target / "release" / "weir", target / "debug" / "weir"]
    found = [c for c in candidates if c.is_file()]
    if not found:
        raise CannotStart(f"no Weir at {' or '.join(map(str, candidates))}: build it (make build) or set WEIR_BIN")
    return max(found, key=lambda path: path.stat().st_mtime)


def start_weir(schemas, layout):
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"weir-parity-{layout}-"))
    port = free_port()
    command = [weir_binary(), "--listen", f"127.0.0.1:{port}", "--data-dir", folder / "data", "--node-id", "1"]
    for name, value in (SHARED_SETTINGS | {"weir.layout": layout}).items():
        command += ["--override", f"{name}={value}"]
    broker = Broker(f"weir ({layout})", schemas, ("127.0.0.1", port), layout)
    broker.folder = folder
    # Weir reads its settings from WEIR_…: only what stands in the command counts here.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")}
    with open(folder / "log", "w") as log:
        broker.process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=_die_with_parent(signal.SIGTERM),
            start_new_session=True,
        )
    readable, _, _ = select.select([broker.process.stdout], [], [], READY_SECONDS)
    if not readable or not broker.process.stdout.readline():
        broker.process.poll()
        problem = f"{broker.name} printed no ready line:\n{broker.log_tail()}"
        broker.stop()
        raise CannotStart(problem)
    return broker


def jar(libraries):
    found = libraries / f"kafka-clients-{KAFKA}.jar"
    if not zipfile.is_zipfile(found):
        raise CannotStart(f"{found} is not a jar: remove {libraries} and run again")
    return found
