"""A Redis server: asked over its Unix socket, or started with the settings that Weir gives its own."""

import contextlib
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

from . import machine

MODES = {
    "as it comes": {"appendonly": "yes", "appendfsync": "no"},
    "everysec": {"appendonly": "yes", "appendfsync": "everysec"},
    "no AOF": {"appendonly": "no"},
}
READS = {"xrange", "xrevrange", "xread", "xreadgroup"}


class RedisError(Exception):
    pass


def call(path, *words):
    """One command on a connection of its own."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        text = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in (str(word).encode() for word in words))
        connection.sendall(b"*%d\r\n" % len(words) + text)
        with connection.makefile("rb") as answer:
            return _answer(answer)


def _answer(file):
    line = file.readline()
    kind, rest = line[:1], line[1:].strip()
    if kind == b"-":
        raise RedisError(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        length = int(rest)
        return None if length < 0 else file.read(length + 2)[:-2].decode(errors="replace")
    if kind == b"*":
        return [_answer(file) for _ in range(int(rest))]
    return rest.decode()


def info(path, section):
    lines = call(path, "INFO", section).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def used_bytes(path):
    return int(info(path, "memory")["used_memory"])


def command_counts(path):
    stats = info(path, "commandstats")
    return {name.removeprefix("cmdstat_"): int(re.search(r"calls=(\d+)", text)[1]) for name, text in stats.items()}


def wait_for_rewrite(path, seconds=30):
    """Until the child that rewrites the append-only file has ended: its time belongs to what was measured."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = info(path, "persistence")
        if state["aof_rewrite_in_progress"] == "0" and state.get("aof_rewrite_scheduled", "0") == "0":
            return
        time.sleep(0.05)


def begin_small(path):
    """Each work finds a small file: what rewriting costs is then its own. Deleted topics' memory is given back first."""
    deadline = time.monotonic() + 20
    while info(path, "memory").get("lazyfree_pending_objects", "0") != "0" and time.monotonic() < deadline:
        time.sleep(0.02)
    if call(path, "CONFIG", "GET", "appendonly")[1] == "yes":
        with contextlib.suppress(RedisError):
            call(path, "BGREWRITEAOF")
        wait_for_rewrite(path)


class Server:
    """A Redis of the harness, with Weir's settings but for those of `mode` and `more`."""

    def __init__(self, folder, settings, mode, program=None, more=None):
        self.folder, self.settings, self.mode = folder, settings, mode
        self.program, self.more = program or shutil.which("redis-server") or "redis-server", more or {}
        self.socket = folder / "redis.sock"

    def start(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = []
        own = MODES[self.mode] | self.more | {"dir": self.folder, "unixsocket": self.socket, "logfile": self.folder / "redis.log"}
        for line in self.settings.splitlines():
            name = line.split(" ", 1)[0]
            if line and not line.startswith("#") and name not in own:
                lines.append(line)
        lines += [f"{name} {value}" if name == "replicaof" else f'{name} "{value}"' for name, value in own.items()]
        config = self.folder / "redis.conf"
        config.write_text("\n".join(lines) + "\n")
        self.process = subprocess.Popen([self.program, str(config)], stdout=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, RedisError):
                if call(self.socket, "PING") == "PONG":
                    return
            time.sleep(0.02)
        raise RuntimeError(f"the Redis in {self.folder} does not answer")

    def pids(self):
        return [self.process.pid, *machine.below(self.process.pid)]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def settings_of(data_dir):
    return (pathlib.Path(data_dir) / "redis.conf").read_text()
