"""What the kernel says of this machine and of the processes on it."""

import contextlib
import hashlib
import os
import pathlib
import platform
import re

TICKS = os.sysconf("SC_CLK_TCK")


def description():
    model = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) / 1024**2
    return f"{os.cpu_count()} cores, {model[1] if model else platform.machine()}, {memory:.0f} GiB, Linux {platform.release()}"


def fingerprint():
    """The same for all runs on one machine as it is, and for no other machine."""
    identity = pathlib.Path("/etc/machine-id")
    text = identity.read_text() if identity.exists() else platform.node()
    return hashlib.sha256(f"{text.strip()} {description()}".encode()).hexdigest()[:16]


def children(pid):
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def below(pid):
    return [one for child in children(pid) for one in [child, *below(child)]]


def cpu_seconds(pids):
    """User and system time of the processes, with what their ended children took (Redis' rewrites of its file)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / TICKS


def moved_bytes(pids):
    """Bytes that the processes gave to `read` and `write` and their like (not to `recv`): each was copied once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += sum(map(int, re.findall(r"^[rw]char: (\d+)", pathlib.Path(f"/proc/{pid}/io").read_text(), re.MULTILINE)))
    return total


def resident_mib(pids, which="VmRSS"):
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            found = re.search(rf"{which}:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
            total += int(found[1]) if found else 0
    return total / 1024


def available_gib(folder):
    """Memory and disk that are left: what a work may fill."""
    memory = int(re.search(r"MemAvailable:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) / 1024**2
    disk = os.statvfs(folder)
    return memory, disk.f_bavail * disk.f_frsize / 1024**3
