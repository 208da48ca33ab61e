"""What a database answers, as facts of a column: numbers exact, values as DuckDB writes them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mlp_ci.data.engine import ColumnFacts, Fault
from mlp_ci.data.engines.measure_sql import SMALLER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.data.engines.measure_sql import SqlColumn
    from mlp_ci.data.plan import ColumnPlan


def facts_of(here: SqlColumn, column: ColumnPlan, rows: int, found: Mapping[str, Any]) -> ColumnFacts:
    """The facts of one column from the measures that one query gave."""
    nan = int(found.get("nan") or 0)
    faults = {fault: int(found[fault.value]) for fault in Fault if found.get(fault.value)}
    whole = column.is_time or here.form == "int"
    return ColumnFacts(
        nulls=rows - int(found["count"]) + nan,
        nan=nan,
        smallest=number_of(found.get("smallest"), whole=whole),
        largest=number_of(found.get("largest"), whole=whole),
        faults=faults,
        mean=_mean(found),
    )


def _mean(found: Mapping[str, Any]) -> float | None:
    count = int(found.get("finite") or 0)
    if not count or ("sum" not in found and "large" not in found):
        return None
    small = found.get("sum")
    exact = Fraction(small) if small is not None else Fraction(0)
    large = found.get("large")
    if large is not None:
        exact += Fraction(large) / Fraction(SMALLER)
    try:
        return float(exact / count)
    except OverflowError:
        return None


def number_of(value: Any, *, whole: bool = False) -> int | float | None:
    """A number as Python has it, whole where it is and may be; None for NaN."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if whole and value == int(value):
        return int(value)
    number = float(value)
    return None if math.isnan(number) else number


def text_of(value: Any) -> str | None:
    """A value as DuckDB writes it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        plain = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        written = plain.isoformat(sep=" ")
        return (written.rstrip("0") if plain.microsecond else written) + ("+00" if value.tzinfo else "")
    return str(value)
