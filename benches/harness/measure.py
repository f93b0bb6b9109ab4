"""One cell: a step of a work on one contestant, and what it cost the server."""

import dataclasses

from . import machine, redis


@dataclasses.dataclass
class Sample:
    broker_cpu: float
    redis_cpu: float
    moved_bytes: int
    redis_bytes: int
    commands: dict


def sample(server):
    socket = server.redis_socket
    return Sample(
        machine.cpu_seconds(server.broker_pids()),
        machine.cpu_seconds(server.redis_pids()),
        machine.moved_bytes([*server.broker_pids(), *server.redis_pids()]),
        redis.used_bytes(socket) if socket else 0,
        redis.command_counts(socket) if socket else {},
    )


def measured(contestant, step, record_size=None):
    """Runs `step`, which tells how many `records` (or commits, members) it moved. Times are microseconds for one of them."""
    server = contestant.server
    before = sample(server)
    said = step()
    if server.redis_socket:
        # Its memory counts before the rewrite's child gives back what it copied; its time after.
        held = redis.used_bytes(server.redis_socket)
        redis.wait_for_rewrite(server.redis_socket)
    after = sample(server)
    count = said.get("records") or said.get("commits") or said.get("members") or 1
    broker = (after.broker_cpu - before.broker_cpu) / count * 1e6
    below = (after.redis_cpu - before.redis_cpu) / count * 1e6
    figures = {"count": count, "cpu_us": broker + below, "broker_cpu_us": broker, "redis_cpu_us": below}
    if said.get("rate"):
        figures["rate"] = said["rate"]
    for source, prefix in (("latency_us", ""), ("delivery_us", "delivery_"), ("stable_us", "")):
        for name, value in said.get(source, {}).items():
            if name in ("p50", "p99", "p99.9", "max"):
                figures[f"{prefix}{name}_us"] = value
    if "generator_cpu_seconds" in said:
        figures["generator_cpu_us"] = said["generator_cpu_seconds"] / count * 1e6
    if record_size:
        figures["moved_bytes_per_payload_byte"] = (after.moved_bytes - before.moved_bytes) / count / record_size
    figures["broker_mib"] = machine.resident_mib(server.broker_pids())
    if server.redis_socket:
        figures["redis_mib"] = machine.resident_mib(server.redis_pids())
        calls = {name: calls - before.commands.get(name, 0) for name, calls in after.commands.items()}
        figures["redis_reads"] = sum(calls.get(name, 0) for name in redis.READS)
        figures["redis_commands"] = sum(calls.values()) / count
        if record_size:
            held_more = max(held, after.redis_bytes) - before.redis_bytes
            figures["redis_bytes_per_record"] = held_more / count
            figures["redis_bytes_per_payload_byte"] = held_more / count / record_size
    return figures
