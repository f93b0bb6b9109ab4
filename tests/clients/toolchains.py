"""How each client is installed or built, in a cache outside the clone, and the command that tells its story."""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import typing

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "weir-tests"
INSTALL_SECONDS = 900
JAVA_FLAGS = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8"]


class Missing(Exception):
    """The client's toolchain is neither here nor installable."""


class Broken(Exception):
    """The client's own program does not build."""


def tool(name, what):
    path = shutil.which(name)
    if path is None:
        raise Missing(f"{name} is not installed ({what})")
    return path


def execute(processes, command, failure=Missing, **options):
    process = processes.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **options)
    try:
        output, _ = process.communicate(timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        output = f"not done after {INSTALL_SECONDS} s"
    finally:
        processes.end(process, 1)
    if process.returncode != 0:
        raise failure(f"{' '.join(map(str, command))}\n{output[-4000:]}")
    return output


@contextlib.contextmanager
def locked(name):
    """Two runs at once on one machine share the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def installed(name, key_files, install):
    """The folder that `install` fills, done once for each content of the key files."""
    digest = hashlib.sha256()
    for path in key_files:
        digest.update(pathlib.Path(path).read_bytes())
    with locked(name):
        folder = CACHE / f"{name}-{digest.hexdigest()[:16]}"
        if not (folder / ".done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install(folder)
            (folder / ".done").touch()
        return folder


def python(program, told="story"):
    def prepare(processes):
        requirements = HERE / "python" / f"{program}.requirements.txt"

        def install(folder):
            execute(processes, [sys.executable, "-m", "venv", str(folder / "venv")])
            execute(processes, [folder / "venv/bin/pip", "install", "--quiet", "--require-virtualenv", "-r", requirements])

        folder = installed(f"python-{program}", [requirements], install)
        return [str(folder / "venv/bin/python"), str(HERE / "python" / f"{program}_{told}.py")]

    return prepare


def go(program):
    def prepare(processes):
        binary = tool("go", "Go")
        source = HERE / "go"
        wanted = re.search(r"^go (\d+)\.(\d+)", (source / "go.mod").read_text(), re.M).groups()
        version = subprocess.run([binary, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
        found = re.match(r"go(\d+)\.(\d+)", version)
        if found is None or tuple(map(int, found.groups())) < tuple(map(int, wanted)):
            raise Missing(f"Go {'.'.join(wanted)} or newer is needed, here is {version.strip() or 'an unknown version'}")
        with locked("go"):
            target = CACHE / "go"
            target.mkdir(exist_ok=True)
            environment = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly -buildvcs=false"}
            execute(processes, [binary, "mod", "download"], cwd=source, env=environment)
            execute(processes, [binary, "build", "-o", f"{target}/", "./..."], failure=Broken, cwd=source, env=environment)
        return [str(target / program)]

    return prepare


def node(program):
    def prepare(processes):
        binary, npm = tool("node", "Node.js"), tool("npm", "Node.js")
        source = HERE / program
        keys = [source / "package.json", source / "package-lock.json"]

        def install(folder):
            for path in keys:
                shutil.copy(path, folder)
            execute(processes, [npm, "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder)

        folder = installed(program, keys, install)
        # The program stands beside its modules, which is where Node.js looks for them.
        shutil.copy(source / "story.js", folder)
        return [binary, str(folder / "story.js")]

    return prepare


def archive_classes(processes, folder):
    """Dozens of tools are started: with their common classes in an archive each takes half the time."""
    (folder / "impatient.properties").write_text("default.api.timeout.ms=500\nrequest.timeout.ms=500\n")
    command = [tool("java", "Java 17"), f"-XX:ArchiveClassesAtExit={folder}/tools.jsa", *JAVA_FLAGS, "-cp", f"{folder}/libs/*"]
    command += ["org.apache.kafka.tools.TopicCommand", "--bootstrap-server", "127.0.0.1:1", "--list"]
    command += ["--command-config", f"{folder}/impatient.properties"]
    with contextlib.suppress(Missing):  # there is no broker
        execute(processes, command)


def java_libraries(processes):
    pom = HERE / "java" / "pom.xml"
    maven = tool("mvn", "Maven")

    def install(folder):
        execute(processes, [maven, "-q", "-B", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={folder}/libs"])
        archive_classes(processes, folder)

    return installed("java", [pom], install)


def java(processes):
    binary, _ = tool("java", "Java 17"), tool("javac", "a JDK, 17 or newer")
    folder = java_libraries(processes)
    return [binary, *JAVA_FLAGS, "-cp", f"{folder}/libs/*", str(HERE / "java" / "Story.java")]


def java_program(name):
    """Compiled once: it runs where processors are scarce."""

    def prepare(processes):
        binary, compiler = tool("java", "Java 17"), tool("javac", "a JDK, 17 or newer")
        libraries, source = java_libraries(processes), HERE / "java" / f"{name}.java"

        def install(folder):
            execute(processes, [compiler, "-cp", f"{libraries}/libs/*", "-d", folder, source], failure=Broken)

        folder = installed(f"java-{name.lower()}", [HERE / "java" / "pom.xml", source], install)
        return [binary, *JAVA_FLAGS, "-cp", f"{folder}:{libraries}/libs/*", name]

    return prepare


def java_tools(processes):
    binary = tool("java", "Java 17")
    folder = java_libraries(processes)
    start = [binary, f"-XX:SharedArchiveFile={folder}/tools.jsa", *JAVA_FLAGS, "-cp", f"{folder}/libs/*"]
    return [sys.executable, str(HERE / "java" / "tools_story.py"), *start]


def rdkafka(program):
    def prepare(processes):
        return [str(rdkafka_programs(processes) / program)]

    return prepare


def rdkafka_programs(processes):
    cargo, manifest = tool("cargo", "Rust"), ["--locked", "--manifest-path", HERE / "rdkafka/Cargo.toml"]
    with locked("rdkafka"):
        target = CACHE / "rdkafka"
        execute(processes, [cargo, "fetch", *manifest])
        execute(processes, [cargo, "build", *manifest, "--target-dir", target], failure=Broken)
    return target / "debug"


def kcat(_processes):
    return [sys.executable, str(HERE / "kcat" / "story.py"), tool("kcat", "kcat")]


@dataclasses.dataclass(frozen=True, eq=False)
class Client:
    name: str
    prepare: typing.Callable
    transactional: bool = False
    """Also shows that a transactional producer fails soon where transactions are not served."""
    more_steps: tuple = ()


# The slowest first, so that none runs alone at the end.
CLIENTS = [
    Client("java-tools", java_tools, more_steps=("perf",)),
    Client("kcat", kcat),
    Client("java", java, transactional=True),
    Client("franz-go", go("franz-go"), transactional=True),
    Client("kafka-go", go("kafka-go")),
    Client("sarama", go("sarama")),
    Client("rdkafka", rdkafka("rdkafka-story"), transactional=True),
    Client("kafkajs", node("kafkajs")),
    Client("kafka-python", python("kafka_python")),
    Client("aiokafka", python("aiokafka")),
    Client("confluent-kafka", python("confluent_kafka"), transactional=True),
]

# Those that meet restarting brokers (rolling).
ROLLING = [
    Client("java", java_program("Rolling")),
    Client("librdkafka", rdkafka("rolling")),
    Client("franz-go", go("rolling")),
    Client("kafka-python", python("kafka_python", told="rolling")),
]
