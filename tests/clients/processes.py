"""Programs that the tests start, and what they leave behind."""

import os
import pathlib
import signal
import socket
import subprocess
import threading

STOP_SECONDS = 15


class Processes:
    """Everything that was started, so that nothing is left behind."""

    def __init__(self):
        self.lock = threading.Lock()
        self.running = set()
        self.closed = False

    def start(self, command, **options):
        with self.lock:
            if self.closed:
                raise RuntimeError("stopping")
            process = subprocess.Popen(command, start_new_session=True, **{"stdin": subprocess.DEVNULL, **options})
            self.running.add(process)
            return process

    def end(self, process, grace):
        """True if the process ended by itself after SIGTERM; its whole group is gone in any case."""
        clean = True
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                clean = False
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        with self.lock:
            self.running.discard(process)
        return clean

    def end_all(self):
        with self.lock:
            self.closed = True
            running = list(self.running)
        for process in running:
            self.end(process, STOP_SECONDS)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def left_over(folder):
    """Processes that name `folder` on their command line, or work in it: nothing may outlive its broker."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            where = os.readlink(entry / "cwd")
        except OSError:
            continue
        if str(folder) in line or where.startswith(str(folder)):
            found.append((int(entry.name), line))
    return found


def tail(path, lines=40):
    text = path.read_text(errors="replace").splitlines()
    return "\n".join("    " + line[:400] for line in text[-lines:])
