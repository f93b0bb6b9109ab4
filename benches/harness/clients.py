"""Who sends the load: the generator of benches/load, and Kafka's own command-line tools."""

import json
import os
import re
import subprocess

PATIENCE = 150
LARGE_BATCHES = ["batch.size=131072", "linger.ms=5"]


class LoadFailed(Exception):
    pass


def _run(command, timeout):
    try:
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as late:
        raise LoadFailed(f"{command[0]} did not end within {timeout} s") from late
    return done


class Generator:
    def __init__(self, binary):
        self.binary = binary

    def run(self, command, *arguments, timeout=PATIENCE):
        done = _run([self.binary, command, *arguments], timeout)
        if done.returncode:
            raise LoadFailed(f"load {command} {' '.join(map(str, arguments))}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
        return json.loads(done.stdout)

    def create(self, contestant, topic, partitions=1, count=None):
        configs = [word for config in contestant.configs for word in ("--config", config)]
        many = ["--count", count] if count else []
        self.run("create", "--bootstrap", contestant.server.bootstrap, "--topic", topic, "--partitions", partitions, *configs, *many)

    def delete(self, contestant, topic, count=None):
        many = ["--count", count] if count else []
        self.run("delete", "--bootstrap", contestant.server.bootstrap, "--topic", topic, *many)

    def hold(self, command, *arguments):
        """Starts a subcommand that stays; returns it once it says that it is there."""
        process = subprocess.Popen(
            [str(self.binary), command, *map(str, arguments), "--hold"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        line = process.stdout.readline()
        if not line:
            raise LoadFailed(f"load {command}: {process.communicate()[1][-1500:]}")
        return process, json.loads(line)


class Tools:
    def __init__(self, libraries):
        self.libraries = libraries
        quiet = os.path.join(os.path.dirname(str(libraries)), "bench-log4j2.properties")
        with open(quiet, "w") as file:
            file.write("status = error\nrootLogger.level = off\n")
        self.java = ["java", "-Xmx512m", "-XX:+UseG1GC", f"-Dlog4j2.configurationFile={quiet}", "-cp", f"{libraries}/*"]

    def run(self, tool, *arguments, timeout=PATIENCE):
        done = _run([*self.java, f"org.apache.kafka.tools.{tool}", *arguments], timeout)
        if done.returncode:
            raise LoadFailed(f"{tool} {' '.join(map(str, arguments))}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
        return done.stdout

    def produce(self, at, topic, records, size, properties, rate=-1):
        # One option with all of them: given several times, only the last one counts.
        options = ["--command-property", *properties] if properties else []
        printed = self.run(
            "ProducerPerformance", "--bootstrap-server", at, "--topic", topic, "--num-records", records,
            "--record-size", size, "--throughput", rate, *options,
        )  # fmt: skip
        found = re.search(
            r"(\d+) records sent, ([\d.]+) records/sec .*?([\d.]+) ms avg latency, ([\d.]+) ms max latency, "
            r"(\d+) ms 50th, (\d+) ms 95th, (\d+) ms 99th, (\d+) ms 99.9th",
            printed.strip().splitlines()[-1],
        )
        if not found or int(found[1]) != records:
            raise LoadFailed(f"ProducerPerformance printed\n{printed[-1500:]}")
        latency = {"p50": int(found[5]), "p99": int(found[7]), "p99.9": int(found[8]), "max": float(found[4])}
        return {"records": records, "rate": float(found[2]), "latency_us": {name: value * 1000 for name, value in latency.items()}}

    def consume(self, at, topic, records):
        printed = self.run(
            "ConsumerPerformance", "--bootstrap-server", at, "--topic", topic, "--num-records", records, "--timeout", 30000
        )
        # start, end, MB, MB/s, records, records/s, rebalance ms, fetch ms, fetch MB/s, fetch records/s
        fields = [field.strip() for field in printed.strip().splitlines()[-1].split(",")]
        if int(float(fields[4])) < records:
            raise LoadFailed(f"only {fields[4]} of {records} records were consumed from {at}:\n{printed[-1500:]}")
        return {"records": records, "rate": float(fields[9])}

    def end_to_end(self, at, topic, records, size):
        printed = self.run("EndToEndLatency", at, topic, records, "all", size)
        found = re.search(r"50th\s*=\s*(\d+), 99th\s*=\s*(\d+), 99.9th\s*=\s*(\d+)", printed)
        if not found:
            raise LoadFailed(f"EndToEndLatency printed\n{printed[-1500:]}")
        latency = dict(zip(("p50", "p99", "p99.9"), (int(text) * 1000 for text in found.groups()), strict=True))
        return {"records": records, "latency_us": latency}
