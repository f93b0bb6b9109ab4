"""What delta-rs does with a table's log like Weir's: the figures and the reasons of ADR 18. Not a test; its output is for people.

    $(scripts/archive-python) tests/archive/delta_rs.py

The table has 10,000 files of 100 partitions in 2,000 versions and a checkpoint 20 versions ago. Its server is tests/archive/s3_server.py.
"""

import http.client
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import deltalake
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.transaction import AddAction

VERSIONS, PARTITIONS, FILES_OF_A_VERSION = 2_000, 100, 5
INSTANT = 1_795_392_000_000
COLUMNS = [("offset", "long"), ("timestamp", "timestamp"), ("key", "binary"), ("value", "binary"), ("value_json", "string")]
COLUMNS += [("partition", "integer"), ("date", "date")]


def add(partition, number):
    first = number * 1_000
    statistics = {
        "numRecords": 1_000,
        "minValues": {"offset": first, "timestamp": "2026-11-23T00:00:00.000Z"},
        "maxValues": {"offset": first + 999, "timestamp": "2026-11-23T00:16:39.000Z"},
        "nullCount": {"offset": 0, "timestamp": 0},
    }
    tags = {"start_offset": first, "end_offset": first + 1_000, "max_timestamp": INSTANT, "footer_bytes": 50_000}
    return {
        "path": f"partition={partition}/date=2026-11-23/{uuid.uuid4().hex}.parquet",
        "partitionValues": {"date": "2026-11-23", "partition": str(partition)},
        "size": 128_000_000,
        "modificationTime": INSTANT,
        "dataChange": True,
        "stats": json.dumps(statistics),
        "tags": {f"weir.{name}": str(value) for name, value in tags.items()},
    }


def actions(version):
    yield {"commitInfo": {"timestamp": INSTANT, "operation": "WRITE", "operationParameters": {}}}
    if version == 0:
        fields = [{"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind in COLUMNS]
        yield {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}
        yield {
            "metaData": {
                "id": str(uuid.uuid4()),
                "format": {"provider": "parquet", "options": {}},
                "schemaString": json.dumps({"type": "struct", "fields": fields}),
                "partitionColumns": ["partition", "date"],
                "configuration": {},
            }
        }
    for file in range(version * FILES_OF_A_VERSION, (version + 1) * FILES_OF_A_VERSION):
        partition, number = file % PARTITIONS, file // PARTITIONS
        for kind, value in (("start", 0), ("end", (number + 1) * 1_000), ("epoch", 1)):
            yield {"txn": {"appId": f"weir-{kind}-{partition}", "version": value}}
        yield {"add": add(partition, number)}


def generate(folder):
    log = folder / "_delta_log"
    log.mkdir(parents=True)
    for version in range(VERSIONS):
        lines = "".join(json.dumps(action) + "\n" for action in actions(version))
        (log / f"{version:020}.json").write_text(lines)
        if version == VERSIONS - 21:
            DeltaTable(folder).create_checkpoint()


def commit(table, partition, version):
    file = f"partition={partition}/date=2026-11-23/{uuid.uuid4().hex}.parquet"
    values = {"partition": str(partition), "date": "2026-11-23"}
    moved = [Transaction(f"weir-end-{partition}", version)]
    table.create_write_transaction(
        [AddAction(file, 1_000, values, INSTANT, True, '{"numRecords":1000}')],
        "append",
        table.schema(),
        ["partition", "date"],
        commit_properties=CommitProperties(app_transactions=moved),
        post_commithook_properties=PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False),
    )


def attempt(what, work):
    try:
        work()
        print(f"{what}: done")
    except Exception as error:
        print(f"{what}: {type(error).__name__}: {str(error).splitlines()[0]}")


def cpu_ms():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1_000


def measure(what, work, times=20):
    walls, cpu = [], cpu_ms()
    for _ in range(times):
        begun = time.perf_counter()
        work()
        walls.append((time.perf_counter() - begun) * 1_000)
    print(f"{what}: median {sorted(walls)[times // 2]:.1f} ms, CPU {(cpu_ms() - cpu) / times:.1f} ms")


def resident_mb():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1_024 for line in lines if line.startswith("VmRSS"))


def in_a_folder(folder):
    begun, cpu, memory = time.perf_counter(), cpu_ms(), resident_mb()
    table = DeltaTable(folder)
    took = (time.perf_counter() - begun) * 1_000
    print(f"load: {took:.0f} ms, CPU {cpu_ms() - cpu:.0f} ms, resident memory +{resident_mb() - memory:.1f} MB")
    measure("update, nothing new", table.update_incremental)
    # A commit leaves the object as it was; so each is followed by an update by one version.
    measure("commit, and update by one version", lambda: (commit(table, 3, 1), table.update_incremental()))
    measure("checkpoint", table.create_checkpoint, times=3)

    other = DeltaTable(folder)
    table.delete("partition = 4")
    attempt("append to partition 5 after a deletion from partition 4", lambda: commit(other, 5, 1))


class Server:
    def __init__(self):
        script = pathlib.Path(__file__).with_name("s3_server.py")
        self.process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())

    def http(self, method, path, body=b""):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        signature = "AWS4-HMAC-SHA256 Credential=key/20261123/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        connection.request(method, path, body, {"Authorization": signature, "Host": "127.0.0.1"})
        answer = connection.getresponse().read()
        connection.close()
        return answer.decode()

    def requests(self, what=None):
        lines = self.http("GET", "/-/requests").splitlines()
        if what:
            shown = [line.replace("/archive/orders/_delta_log/", "") for line in lines]
            print(f"{what}: {len(shown)} requests" + (f": {', '.join(shown)}" if len(shown) < 12 else ""))


def in_a_bucket(folder):
    server = Server()
    try:
        server.http("PUT", "/archive")
        with ThreadPoolExecutor(4) as pool:
            put = lambda path: server.http("PUT", f"/archive/orders/_delta_log/{path.name}", path.read_bytes())
            list(pool.map(put, (folder / "_delta_log").iterdir()))
        options = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "aws_conditional_put": "etag",
        }
        table, other = (DeltaTable("s3://archive/orders", storage_options=options) for _ in range(2))
        server.requests()
        table.update_incremental()
        server.requests("update, nothing new")
        commit(table, 3, 1)
        server.requests("commit")
        other.update_incremental()
        server.requests("update by one version")
        other.transaction_version("weir-end-99")
        server.requests("one application's version")
        commit(other, 5, 1)
        server.requests("another commit")
        table.update_incremental()
        server.requests()
        server.http("GET", "/-/weather?status=500&method=PUT&part=_delta_log&after=1")
        attempt("a commit whose answer was lost", lambda: commit(table, 7, 77))
        table.update_incremental()
        print(f"and yet its version is there: {table.transaction_version('weir-end-7') == 77}")
    finally:
        server.process.kill()


with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place) / "orders"
    generate(folder)
    print(f"deltalake {deltalake.__version__}")
    in_a_bucket(folder)
    in_a_folder(folder)
