"""Counts what is in a table of Weir's with programs that know nothing of Weir: `count.py PLACE [S3-ENDPOINT]`."""

import json
import os
import sys

import deltalake
import polars

options = None
if len(sys.argv) > 2:
    options = {
        "AWS_ENDPOINT_URL": sys.argv[2],
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": os.environ.get("AWS_ACCESS_KEY_ID", "key"),
        "AWS_SECRET_ACCESS_KEY": os.environ.get("AWS_SECRET_ACCESS_KEY", "secret"),
        "AWS_REGION": "us-east-1",
    }
offset, order = polars.col("offset"), polars.col("value_json").str.json_path_match("$.order_id")
place = polars.format("ord-{}-{}", "partition", "offset")
found = (
    polars.scan_delta(sys.argv[1], storage_options=options)
    .group_by("partition")
    .agg(
        rows=polars.len(),
        offsets=offset.n_unique(),
        low=offset.min(),
        high=offset.max(),
        first=polars.col("timestamp").min().dt.epoch("ms"),
        last=polars.col("timestamp").max().dt.epoch("ms"),
        # Of the orders of tests/archive/proof, each says where it lies.
        orders=(order == place).sum(),
    )
    .sort("partition")
    .collect()
    .to_dicts()
)
table = deltalake.DeltaTable(sys.argv[1], storage_options=options)
print(
    json.dumps(
        {
            "rows": sum(partition["rows"] for partition in found),
            "offsets": sum(partition["offsets"] for partition in found),
            "low": min((partition["low"] for partition in found), default=None),
            "high": max((partition["high"] for partition in found), default=None),
            "files": len(table.file_uris()),
            "version": table.version(),
            "readers": f"Polars {polars.__version__}, delta-rs {deltalake.__version__}",
            "partitions": found,
        }
    )
)
