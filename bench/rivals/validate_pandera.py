"""The checks in pandera, all of them before it fails: on pandas, polars, or ibis over DuckDB.

The third argument names what is checked: ``pandas``, ``polars``, ``lazy`` (a polars LazyFrame as it comes), ``deep`` (a
LazyFrame whose data is checked too, which PANDERA_VALIDATION_DEPTH has to say) or ``ibis``. The first may name several
files, by commas; a check with a ``file`` concerns only that one.
"""

import importlib
import json
import os
import sys

files, checks, kind = sys.argv[1].split(","), json.loads(sys.argv[2]), sys.argv[3]
if kind == "deep":
    os.environ["PANDERA_VALIDATION_DEPTH"] = "SCHEMA_AND_DATA"  # pandera reads it when it is imported
pa = importlib.import_module(f"pandera.{'polars' if kind in ('lazy', 'deep') else kind}")

if kind == "pandas":
    import numpy as np
    import pandas as pd

    types = {"float": "float64", "int": "int64", "string": "str", "timestamp": "datetime64[us]"}
    finite = pa.Check(np.isfinite, name="finite")

    def enough(rows):
        return pa.Check(lambda frame: len(frame) >= rows, name="rows")

    def fresh(days):
        oldest = pd.Timestamp.now() - pd.Timedelta(days=days)
        return pa.Check(lambda times: times.max() >= oldest, name="fresh")

    read = pd.read_parquet

elif kind == "ibis":
    import ibis

    types = {name: ibis.dtype(name + "64" * (name != "string")) for name in ("float", "int", "string")}
    finite = pa.Check(lambda data: ~data.table[data.key].isinf(), name="finite")

    def enough(rows):
        return pa.Check(lambda data: data.table.count() >= rows, name="rows")

    def read(file):
        return ibis.duckdb.connect().read_parquet(file)

else:
    import polars as pl

    types = {"float": pl.Float64, "int": pl.Int64, "string": pl.String}
    finite = pa.Check(lambda data: data.lazyframe.select(pl.col(data.key).is_finite()), name="finite")

    def enough(rows):
        return pa.Check(lambda data: data.lazyframe.select(pl.len() >= rows), name="rows")

    read = pl.read_parquet if kind == "polars" else pl.scan_parquet

CHECKS = {
    "in": lambda value: pa.Check.isin(value, name="in"),
    "min": lambda value: pa.Check.ge(value, name="min"),
    "max": lambda value: pa.Check.le(value, name="max"),
    "finite": lambda _: finite,
}
if kind == "pandas":
    CHECKS["fresh"] = fresh


def schema_of(wanted):
    """All checks of one file."""
    columns, whole = {}, []
    for check in wanted:
        name, rule, value = check["column"], check["rule"], check["value"]
        if rule == "rows":
            whole.append(enough(value))
            continue
        column = columns.setdefault(name, {"dtype": None, "nullable": True, "unique": False, "checks": []})
        if rule in CHECKS:
            column["checks"].append(CHECKS[rule](value))
        elif rule == "type":
            column["dtype"] = types[value]
        elif rule == "nulls":
            column["nullable"] = False
        else:
            column["unique"] = True
    return pa.DataFrameSchema({name: pa.Column(**column) for name, column in columns.items()}, checks=whole)


NAMES = {"not_nullable": "nulls", "field_uniqueness": "key", "dtype": "type"}
asked, failed = 0, []
for i, file in enumerate(files):
    schema = schema_of([c for c in checks if c.get("file", i) == i])
    for column in schema.columns.values():
        asked += len(column.checks) + (column.dtype is not None) + (not column.nullable) + column.unique
    asked += len(schema.checks)
    try:
        schema.validate(read(file), lazy=True)
    except pa.errors.SchemaErrors as errors:
        for error in errors.schema_errors:
            said = str(error.check).split("(", maxsplit=1)[0]
            rule = getattr(error.check, "name", None) or NAMES.get(said, said)
            failed.append([rule, "" if rule == "rows" else str(error.schema.name)])
print(json.dumps({"checks": asked, "failed": failed}))
