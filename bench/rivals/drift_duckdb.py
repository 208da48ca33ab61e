"""DuckDB without any profile: it reads both sides and counts both into the same bins; no test, no decision."""

import json
import sys

import duckdb

job = json.loads(sys.argv[1])
connection = duckdb.connect()
connection.execute("SET enable_progress_bar = false")
for file in (job["reference"], *job["windows"]):
    parts = [f"histogram({name}, ?::DOUBLE[])" for name in job["numbers"]]
    parts += [f"histogram({name})" for name in job["texts"]]
    bins = [job["edges"][name] for name in job["numbers"]]
    connection.execute(f"SELECT {', '.join(parts)} FROM read_parquet('{file}')", bins).fetchall()
print(json.dumps([{"flagged": None, "alarm": None}]))
