"""Counts what is in a table of Weir's with programs that know nothing of Weir: `count.py PLACE [S3-ENDPOINT]`."""

import json
import sys

import deltalake
import polars

options = None
if len(sys.argv) > 2:
    options = {
        "AWS_ENDPOINT_URL": sys.argv[2],
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
frame = polars.read_delta(sys.argv[1], storage_options=options)
table = deltalake.DeltaTable(sys.argv[1], storage_options=options)
print(
    json.dumps(
        {
            "rows": frame.height,
            "offsets": frame["offset"].n_unique(),
            "low": frame["offset"].min(),
            "high": frame["offset"].max(),
            "files": len(table.file_uris()),
            "version": table.version(),
        }
    )
)
