"""Who takes part: a server that runs during the whole bench, and what is asked of its topics."""

import contextlib
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from . import machine, redis

READY_SECONDS = 90


class CannotStart(Exception):
    pass


class Process:
    """What Kafka and Weir have in common."""

    name: str

    keeps_topics = True

    def __init__(self, name, free_port):
        self.name, self.free_port = name, free_port
        self.folder = self.process = None

    def start(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="weir-bench-"))
        self.port = self.free_port()
        command = self.command()
        # Weir reads its settings from WEIR_…: only what stands in the command counts here.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")}
        began = time.monotonic()
        # The sink ends with its standard input: with this process, not with whatever this process was given.
        with open(self.folder / "log", "w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True, env=environment
            )
        self.wait_until_ready(began)
        self.ready_seconds = time.monotonic() - began
        os.set_blocking(self.process.stdout.fileno(), False)

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def log_tail(self):
        log = self.folder / "log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else ""

    def stop(self):
        if self.is_alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def ensure_running(self):
        if not self.is_alive():
            self.stop()
            self.start()


class Kafka(Process):
    def __init__(self, libraries, free_port):
        super().__init__("kafka", free_port)
        self.libraries = libraries

    def command(self):
        controller = self.free_port()
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": self.folder / "data",
            "offsets.topic.replication.factor": 1,
            "group.initial.rebalance.delay.ms": 0,
            # Deleted topics shall not fill the disk during the run.
            "log.segment.delete.delay.ms": 1000,
        }
        properties = self.folder / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        quiet = self.folder / "log4j2.properties"
        quiet.write_text("status = error\nrootLogger.level = off\n")
        java = ["java", "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35"]
        java += [f"-Dlog4j2.configurationFile={quiet}", "-cp", f"{self.libraries}/*"]
        identity = ["format", "--standalone", "-t", "YmVuY2gtY2x1c3Rlci0wMQ", "-c", str(properties)]
        subprocess.run([*java, "kafka.tools.StorageTool", *identity], check=True, capture_output=True)
        return [*java, "kafka.Kafka", str(properties)]

    def wait_until_ready(self, began):
        while time.monotonic() - began < READY_SECONDS:
            if not self.is_alive():
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise CannotStart(f"kafka did not start:\n{self.log_tail()}")

    def broker_pids(self):
        return [self.process.pid, *machine.below(self.process.pid)]

    def redis_pids(self):
        return []

    redis_socket = None


class Weir(Process):
    """With its embedded Redis as it comes, or with a Redis of the harness in another mode."""

    def __init__(self, binary, mode, settings, free_port, more=()):
        super().__init__(f"weir, {mode}", free_port)
        self.binary, self.mode, self.settings, self.more = binary, mode, settings, more
        self.server = None

    def command(self):
        command = [str(self.binary), "--listen", self.bootstrap, "--data-dir", str(self.folder / "data")]
        command += ["--override", "group.initial.rebalance.delay.ms=0", "--override", "log.level=warn", *self.more]
        if self.mode == "as it comes":
            self.redis_socket = self.folder / "data" / "redis.sock"
        else:
            self.server = redis.Server(self.folder / "redis", self.settings, self.mode)
            self.server.start()
            self.redis_socket = self.server.socket
            command += ["--redis-url", f"redis+unix://{self.redis_socket}"]
        return command

    def wait_until_ready(self, began):
        readable, _, _ = select.select([self.process.stdout], [], [], READY_SECONDS)
        if not readable or not self.process.stdout.readline():
            raise CannotStart(f"{self.name} did not start:\n{self.log_tail()}")

    def ensure_running(self):
        if self.server and self.server.process.poll() is not None:
            self.stop()
        super().ensure_running()

    def broker_pids(self):
        return [self.process.pid]

    def redis_pids(self):
        return self.server.pids() if self.server else machine.below(self.process.pid)

    def stop(self):
        try:
            if self.is_alive():
                self.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(30)
            if self.server:
                self.server.stop()
        finally:
            super().stop()


class RedisAlone:
    """The ceiling: the same server without Weir before it."""

    name = "redis alone"
    bootstrap = None
    keeps_topics = False

    def __init__(self, settings, mode="as it comes"):
        self.settings, self.mode = settings, mode
        self.server = None

    def start(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="weir-bench-"))
        self.server = redis.Server(self.folder / "redis", self.settings, self.mode)
        self.server.start()
        self.redis_socket = self.server.socket

    def is_alive(self):
        return self.server is not None and self.server.process.poll() is None

    def ensure_running(self):
        if not self.is_alive():
            self.stop()
            self.start()

    def broker_pids(self):
        return []

    def redis_pids(self):
        return self.server.pids()

    def stop(self):
        if self.server:
            self.server.stop()
            shutil.rmtree(self.folder, ignore_errors=True)


class Sink(Process):
    """A broker that answers and keeps nothing: what the clients alone reach. Written as the load generator is."""

    keeps_topics = False
    redis_socket = None

    def __init__(self, generator, free_port):
        super().__init__("sink", free_port)
        self.generator = generator

    def command(self):
        return [str(self.generator.binary), "sink", "--listen", self.bootstrap]

    def wait_until_ready(self, began):
        readable, _, _ = select.select([self.process.stdout], [], [], READY_SECONDS)
        if not readable or not self.process.stdout.readline():
            raise CannotStart(f"the sink did not start:\n{self.log_tail()}")

    def broker_pids(self):
        return [self.process.pid]

    def redis_pids(self):
        return []


class Contestant:
    """A server, and the layout of the topics that are made there."""

    def __init__(self, server, layout=None):
        self.server, self.layout = server, layout
        self.name = server.name if layout is None else f"{server.name.split(',')[0]} {layout}"
        if isinstance(server, Weir) and server.mode != "as it comes":
            self.name += f", {server.mode}"
        self.configs = []
        # A topic without any config is in the record layout: what Weir is out of the box.
        if isinstance(server, Weir) and layout == "batch":
            self.configs = ["weir.layout=batch"]
