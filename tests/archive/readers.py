"""Reads the table that tests/archive_table.rs has made with programs that know nothing of Weir: delta-rs, Polars and DuckDB.

Partition 0 has the offsets 0 to 1599, a millisecond apart from 2026-11-23 on; partition 3 had some, and they were deleted.
"""

import sys
from datetime import datetime, timedelta, timezone

import deltalake
import duckdb
import polars

place = sys.argv[1]
count = 1600
first = datetime(2026, 11, 23, tzinfo=timezone.utc)
last = first + timedelta(milliseconds=count - 1)
total = sum(offset % 7 for offset in range(count))


def check(reader, found, expected):
    if found != expected:
        sys.exit(f"{reader}: {found} instead of {expected}")


table = deltalake.DeltaTable(place)
protocol = table.protocol()
check("delta-rs", (protocol.min_reader_version, protocol.min_writer_version), (1, 2))
check("delta-rs", table.metadata().partition_columns, ["partition", "date"])

frame = polars.read_delta(place)
bounds = frame.select(
    rows=polars.len(),
    low=polars.col("offset").min(),
    high=polars.col("offset").max(),
    first=polars.col("timestamp").min(),
    last=polars.col("timestamp").max(),
)
check("Polars", bounds.row(0), (count, 0, count - 1, first, last))
check("Polars", frame["partition"].unique().to_list(), [0])
check("Polars", [str(day) for day in frame["date"].unique()], ["2026-11-23"])
totals = frame.select(polars.col("value_json").str.json_path_match("$.total").cast(polars.Int64).sum())
check("Polars, JSON", totals.item(), total)
check("Polars, skipping files", polars.scan_delta(place).filter(polars.col("offset") >= 1590).collect().height, 10)
row = frame.filter(polars.col("offset") == 1234).row(0, named=True)
check("Polars, a key", row["key"], b"cust-4")
check("Polars, a value", (row["value"], row["value_json"]), (None, '{"order":1234,"total":2}'))
check(
    "Polars, headers",
    row["headers"],
    [
        {"name": "trace", "value": b"1", "name_bytes": None},
        {"name": "\ufffd", "value": None, "name_bytes": b"\xff"},
    ],
)

# DuckDB's own delta extension comes from the network; the files that the table names it reads by itself.
files = table.file_uris()
found = duckdb.sql(
    """select count(*), min("offset"), max("offset"), min("timestamp") = $first, max("timestamp") = $last
       from read_parquet($files, hive_partitioning = true) where partition = 0""",
    params={"files": files, "first": first, "last": last},
).fetchall()[0]
check("DuckDB", found, (count, 0, count - 1, True, True))
found = duckdb.sql(
    """select sum(cast(value_json ->> '$.total' as bigint)) from read_parquet($files, hive_partitioning = true)""",
    params={"files": files},
).fetchall()[0]
check("DuckDB, JSON", found, (total,))
print(f"{count} records: delta-rs {deltalake.__version__}, Polars {polars.__version__}, DuckDB {duckdb.__version__}")
