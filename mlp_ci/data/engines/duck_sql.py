"""The SQL of the checks, in DuckDB's dialect: what one column is measured with, and what makes a value wrong."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlp_ci.data.engine import Fault

if TYPE_CHECKING:
    from mlp_ci.data.plan import ColumnPlan, PhysicalColumn

ROW = "mlp-ci row"


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("'", "''") + "'"


def raw_name(name: str) -> str:
    return f"mlp-ci raw {name}"


def kind_of(shown: str) -> str:
    """The column type of ``model.yaml`` that a type of DuckDB belongs to."""
    if shown in ("FLOAT", "DOUBLE") or shown.startswith("DECIMAL"):
        return "float"
    if shown in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT") or (
        shown.startswith("U") and shown.endswith("INT")
    ):
        return "int"
    if shown in ("VARCHAR", "UUID") or shown.startswith("ENUM"):
        return "string"
    if shown == "BOOLEAN":
        return "bool"
    if shown.startswith("TIMESTAMP"):
        return "timestamp"
    return "date" if shown == "DATE" else "other"


def value_of(column: ColumnPlan) -> str:
    name = quoted(column.name)
    return f"epoch_us({name})" if column.is_time and column.measurable else name


def set_value_of(column: ColumnPlan) -> str:
    """The column in the type in which the allowed values are written."""
    name = quoted(column.name)
    if column.declared == "int" and column.physical.kind == "float":
        return f"CAST({name} AS DOUBLE)"
    return f"CAST({name} AS VARCHAR)" if column.declared in ("string", "timestamp", "date") else name


def measures_of(column: ColumnPlan) -> dict[str, str]:
    """Aggregates of one column by what they say; what the plan does not need is left out."""
    name, value = quoted(column.name), value_of(column)
    # What is there and cannot be read is wrong, not missing: text is counted before it is read.
    measures = {"count": f"count({quoted(raw_name(column.name)) if column.physical.text else name})"}
    if column.measurable and column.declared in ("float", "int", "timestamp", "date"):
        measures |= {"smallest": f"min({value})", "largest": f"max({value})"}
    if fault := odd_fault_of(column):
        measures["odd"] = f"count_if({condition_for(column, fault)})"
    if can_be_special(column):
        measures["special"] = f"count_if(NOT isfinite({name}))"
    if not column.measurable:
        return measures
    if column.shortest is not None:
        measures["short"] = f"count_if({condition_for(column, Fault.TOO_SHORT)})"
    if column.longest is not None:
        measures["long"] = f"count_if({condition_for(column, Fault.TOO_LONG)})"
    if column.mean:
        # Numbers with a fraction are added with compensation: the order in which threads add must not be seen.
        exact = column.physical.kind == "int" or (column.physical.text and column.declared == "int")
        measures["mean"] = f"{'avg' if exact else 'favg'}({value}){finite_filter(column)}"
    return measures


def finite_filter(column: ColumnPlan) -> str:
    return f" FILTER (WHERE isfinite({quoted(column.name)}))" if can_be_special(column) else ""


def odd_fault_of(column: ColumnPlan) -> Any:
    """The fault that is counted in the first pass: values that are not of the declared type."""
    if not column.measurable:
        return None
    if column.physical.text:
        return Fault.UNREADABLE if column.declared != "string" else None
    if column.whole:
        return Fault.NOT_WHOLE
    return Fault.NOT_MIDNIGHT if column.midnight else None


def can_be_special(column: ColumnPlan) -> bool:
    return column.physical.nan or (column.physical.text and column.declared == "float")


def is_there(column: ColumnPlan) -> str:
    """Neither NULL nor NaN, which is missing as well."""
    there = f"{set_value_of(column)} IS NOT NULL"
    return f"{there} AND NOT isnan({quoted(column.name)})" if can_be_special(column) else there


def condition_for(column: ColumnPlan, fault: Fault) -> str:
    name, value = quoted(column.name), value_of(column)
    special = can_be_special(column)
    finite = f"isfinite({name}) AND " if special else ""
    match fault:
        case Fault.NULL:
            raw = f"{quoted(raw_name(column.name))} IS NULL" if column.physical.text else f"{name} IS NULL"
            return f"({raw} OR isnan({name}))" if special else raw
        case Fault.UNREADABLE if column.whole:
            # A whole number may be written 3.0; 3.5 is not one, and a cast would round it.
            raw = quoted(raw_name(column.name))
            return f"({raw} IS NOT NULL AND ({name} IS NULL OR TRY_CAST({raw} AS DECIMAL(38, 6)) <> {name}))"
        case Fault.UNREADABLE:
            return f"({quoted(raw_name(column.name))} IS NOT NULL AND {name} IS NULL)"
        case Fault.NOT_WHOLE:
            return f"({finite}{name} <> trunc({name}))"
        case Fault.NOT_MIDNIGHT:
            return f"(epoch_us({name}) % 86400000000 <> 0)"
        case Fault.INFINITE:
            return f"isinf({name})"
        case Fault.BELOW:
            return f"({finite}{value} < {_sql_number(column.lower)})"
        case Fault.ABOVE:
            return f"({finite}{value} > {_sql_number(column.upper)})"
        case Fault.OUTSIDE_SET:
            return f"({is_there(column)} AND {set_value_of(column)} NOT IN (SELECT unnest($allowed)))"
        case Fault.TOO_SHORT:
            return f"(length(CAST({name} AS VARCHAR)) < {_sql_number(column.shortest)})"
        case Fault.TOO_LONG:
            return f"(length(CAST({name} AS VARCHAR)) > {_sql_number(column.longest)})"
        case Fault.NO_MATCH:
            return no_match(f"CAST({name} AS VARCHAR)", column)


def no_match(value: str, column: ColumnPlan) -> str:
    return f"(NOT regexp_full_match({value}, {literal(column.regex or '')}))"


def text_of(physical: PhysicalColumn, declared: str | None) -> str:
    """A value as text, the same for the same value in whatever type a file holds it, as far as it can be declared."""
    name = quoted(physical.name)
    plain = f"CAST({name} AS VARCHAR)"
    match declared:
        case "int" if physical.kind == "float":
            return (
                f"CASE WHEN {name} = trunc({name}) THEN CAST(TRY_CAST({name} AS HUGEINT) AS VARCHAR) ELSE {plain} END"
            )
        case "float" if physical.kind == "int" or physical.shown.startswith("DECIMAL"):
            return f"CAST(CAST({name} AS DOUBLE) AS VARCHAR)"
        case "timestamp" if physical.kind in ("timestamp", "date"):
            return f"CAST(make_timestamp(epoch_us({name})) AS VARCHAR)"
        case "date" if physical.kind == "timestamp":
            return f"CAST(CAST(make_timestamp(epoch_us({name})) AS DATE) AS VARCHAR)"
        case _:
            return plain


def _sql_number(value: int | float | None) -> str:
    return f"CAST('{value!r}' AS DOUBLE)" if isinstance(value, float) else str(value)


def number_of(value: Any) -> int | float | None:
    if value is None or isinstance(value, int):
        return value
    number = float(value)
    return None if math.isnan(number) else number
