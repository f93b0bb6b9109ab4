"""As ../count.py, with Spark: `count.py PLACE JARS`, where JARS is a folder with Delta's jars."""

import json
import pathlib
import sys

import pyspark
from pyspark.sql import SparkSession

place, jars = sys.argv[1], sorted(pathlib.Path(sys.argv[2]).glob("*.jar"))
spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.jars", ",".join(map(str, jars)))
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.ui.enabled", "false")
    .config("spark.ui.showConsoleProgress", "false")
    # By default hundreds, for clusters.
    .config("spark.sql.shuffle.partitions", 2)
    .config("spark.databricks.delta.snapshotPartitions", 2)
    .config("spark.log.level", "ERROR")
    .getOrCreate()
)
spark.read.format("delta").load(place).createOrReplaceTempView("orders")
found = spark.sql(
    """SELECT partition, count(*) AS rows, count(DISTINCT offset) AS offsets, min(offset) AS low, max(offset) AS high,
              unix_millis(min(timestamp)) AS first, unix_millis(max(timestamp)) AS last,
              count_if(get_json_object(value_json, '$.order_id') = concat_ws('-', 'ord', partition, offset)) AS orders
       FROM orders GROUP BY partition ORDER BY partition"""
)
delta = next(jar.stem.rpartition("-")[2] for jar in jars if jar.name.startswith("delta-spark"))
print(
    json.dumps(
        {
            "readers": f"Spark {pyspark.__version__}, delta-spark {delta}",
            "partitions": [row.asDict() for row in found.collect()],
        }
    )
)
spark.stop()
