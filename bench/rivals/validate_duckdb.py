"""The checks as a careful person would write them for DuckDB: few queries, no engine of ours."""

import json
import sys

import duckdb

file, checks = sys.argv[1], json.loads(sys.argv[2])
source = f"read_parquet('{file}')"
connection = duckdb.connect()
connection.execute("SET enable_progress_bar = false")
connection.execute("SET memory_limit = '300MB'")
TYPES = {"float": "DOUBLE", "int": "BIGINT", "string": "VARCHAR"}
found = {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
finite = {c["column"] for c in checks if c["rule"] == "finite"}
AGGREGATES = {
    "rows": "count(*)",
    "nulls": "count(*) - count({0})",
    "finite": "count(*) FILTER (WHERE NOT isfinite({0}))",
    "min": "min({0})",
    "max": "max({0})",
}
asked = [c for c in checks if c["rule"] in AGGREGATES]
listed = ", ".join(AGGREGATES[c["rule"]].format(c["column"]) for c in asked)
values = connection.execute(f"SELECT {listed} FROM {source}").fetchone()
failed = []
for check, value in zip(asked, values, strict=True):
    rule, limit = check["rule"], check["value"]
    bad = {
        "rows": lambda v, limit: v < limit,
        "nulls": lambda v, _: v > 0,
        "finite": lambda v, _: v > 0,
        "min": lambda v, limit: v is not None and v < limit,
        "max": lambda v, limit: v is not None and v > limit,
    }
    if bad[rule](value, limit):
        failed.append([rule, check["column"]])
for check in checks:
    name, rule, bad = check["column"], check["rule"], False
    if rule == "type":
        bad = found[name] != TYPES[check["value"]]
    elif rule == "in":
        levels = ", ".join(f"('{v}')" for v in check["value"])
        groups = f"SELECT {name} AS v, count(*) AS n FROM {source} GROUP BY v"
        bad = bool(connection.execute(f"SELECT sum(n) FROM ({groups}) WHERE v NOT IN (VALUES {levels})").fetchone()[0])
    elif rule == "key":
        groups = f"SELECT {name} FROM {source} GROUP BY {name} HAVING count(*) > 1"
        bad = connection.execute(f"SELECT count(*) FROM ({groups})").fetchone()[0] > 0
    if bad:
        failed.append([rule, name])
print(json.dumps({"checks": len(checks), "failed": failed}))
