"""Tables as they are written: the schema of all parts, and what a CSV can hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from mlp_ci.serve.batch.output import Plan, Progress


def schema_of(plan: Plan, progress: Progress, first: pa.Table) -> pa.Schema:
    """That of the parts that are there, so that all are alike; else that of the first rows."""
    import pyarrow as pa

    if progress.parts and plan.format == "parquet":
        import pyarrow.parquet as pq

        return pq.read_schema(plan.work / progress.parts[0].file).remove_metadata()
    # A column of nothing but nulls may hold numbers further down.
    fields = [pa.field(f.name, pa.float64() if pa.types.is_null(f.type) else f.type) for f in first.schema]
    return pa.schema(fields)


def as_written(table: pa.Table, written: str) -> pa.Table:
    """Lists and structures as JSON where a CSV is written."""
    import pyarrow as pa

    if written == "parquet" or not any(pa.types.is_nested(f.type) for f in table.schema):
        return table
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_nested(column.type):
            values = [None if value is None else json.dumps(value, default=str) for value in column.to_pylist()]
            column = pa.array(values, pa.string())
        columns[name] = column
    return pa.table(columns)
