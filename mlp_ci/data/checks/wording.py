"""How checks speak of values, rows and places: short, flat, and never a value of a sensitive column."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mlp_ci.data.plan import ColumnPlan, instant
from mlp_ci.data.words import cut
from mlp_ci.spec.quantities import show_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.data.engine import Example, Found
    from mlp_ci.spec.data import Range

HIDDEN = "hidden"


def rows(count: int) -> str:
    return f"{count:,} row{'s' if count != 1 else ''}"


def values(count: int) -> str:
    return f"{count:,} value{'s' if count != 1 else ''}"


def shown(value: int | float | None, column: ColumnPlan) -> str:
    """A bound or an extreme of a column: a time as a time, a number with its thousands apart."""
    if value is None:
        return ""
    if column.is_time:
        moment = instant(int(value))
        return f"{moment:%Y-%m-%d}" if column.declared == "date" else f"{moment:%Y-%m-%d %H:%M}"
    return number(value)


def number(value: int | float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def band(allowed: Range) -> str:
    """``between 1 and 5``, ``at least 1``, ``at most 5``."""
    if allowed.min is None and allowed.max is not None:
        return f"at most {number(allowed.max)}"
    if allowed.max is None and allowed.min is not None:
        return f"at least {number(allowed.min)}"
    return f"between {number(allowed.min or 0)} and {number(allowed.max or 0)}"


def within(value: float, allowed: Range) -> bool:
    return (allowed.min is None or value >= allowed.min) and (allowed.max is None or value <= allowed.max)


def place(row: int | None) -> str:
    """Where a row is; rows of a warehouse's table have no number."""
    return "a row" if row is None else f"row {row:,}"


def places(examples: Sequence[Example], key: Sequence[str], *, show_values: bool) -> str:
    """``: `` and where the wrong values are, by key when there is one that may be shown, else by row number."""
    parts = []
    for example in examples:
        at = ", ".join(f"{k}={cut(v)}" for k, v in zip(key, example.key, strict=False)) or place(example.row)
        parts.append(f"{cut(example.value or '')!r} ({at})" if show_values else at)
    return ": " + ", ".join(parts) if parts else ""


def found_places(found: Found, hidden: set[str]) -> str:
    """``: `` and the rows that were found, with their values but for those of ``hidden`` columns."""
    parts = []
    for row, texts in found.examples:
        told = [
            cut("missing" if text is None else text)
            for name, text in zip(found.columns, texts, strict=False)
            if name not in hidden
        ]
        parts.append(f"{', '.join(told)} ({place(row)})" if told and row is not None else ", ".join(told) or place(row))
    return ": " + "; ".join(parts) if parts else ""


def age(since: timedelta) -> str:
    minutes = timedelta(seconds=round(abs(since.total_seconds()) / 60) * 60)
    return f"{show_duration(minutes)} {'in the future' if since < timedelta(0) else 'old'}"
