"""From the ``data`` section of ``model.yaml`` and a file's columns to what an engine has to measure.

Pure values: nothing here knows an engine. Engines measure (:mod:`mlp_ci.data.engine`), and
:mod:`mlp_ci.data.checks.judge` compares the measurements with the plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from mlp_ci.errors import Problem, SpecError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.spec.data import Bound, Column, ColumnType, Data

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Which kinds of physical column can hold a declared type. A whole number is a float; a float column can hold whole
# numbers (pandas writes integers with gaps that way), so each value is looked at.
HOLDS: dict[str, tuple[str, ...]] = {
    "float": ("float", "int"),
    "int": ("int", "float"),
    "string": ("string",),
    "bool": ("bool",),
    "timestamp": ("timestamp", "date"),
    "date": ("date", "timestamp"),
}


@dataclass(frozen=True, kw_only=True)
class PhysicalColumn:
    """A column as it lies in the file. ``kind`` is a column type of ``model.yaml`` or ``other`` (nested, binary).

    ``text``: the format has no types (CSV), so the values are text until they are read as something.
    ``nan``: the column can hold NaN and infinities.
    """

    name: str
    kind: str
    shown: str
    text: bool = False
    nan: bool = False


@dataclass(frozen=True, kw_only=True)
class ColumnPlan:
    """What to measure in one column. Bounds of times are microseconds since 1970 in UTC."""

    name: str
    declared: str
    physical: PhysicalColumn
    lower: int | float | None = None
    upper: int | float | None = None
    whole: bool = False
    midnight: bool = False
    allowed: tuple[str | int | float | bool, ...] | None = None
    unique: bool = False
    nulls: float = 1.0
    shortest: int | float | None = None
    longest: int | float | None = None
    regex: str | None = None
    mean: bool = False
    quantiles: tuple[float, ...] = ()
    sensitive: bool = False

    @property
    def is_time(self) -> bool:
        return self.declared in ("timestamp", "date")

    @property
    def measurable(self) -> bool:
        """Whether the column can hold what is declared, so that values can be compared with bounds."""
        return self.physical.text or self.physical.kind in HOLDS[self.declared]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure in one file."""

    columns: tuple[ColumnPlan, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    key: tuple[str, ...]
    whole_rows: bool

    def column(self, name: str) -> ColumnPlan | None:
        return next((c for c in self.columns if c.name == name), None)


def types_wanted(data: Data) -> dict[str, ColumnType]:
    """Column → declared type, for every column the data section speaks of; what is not declared is a string."""
    wanted: dict[str, ColumnType] = {name: column.type for name, column in data.columns.items()}
    for name in data.key:
        wanted.setdefault(name, "string")
    if data.time:
        wanted.setdefault(data.time, "timestamp")
    return wanted


def compile_plan(data: Data, physical: Sequence[PhysicalColumn]) -> Plan:
    """The measurements that decide all checks of ``data`` for a file with these columns.

    Raises SpecError when a bound cannot be compared with the type of its column.
    """
    there = {c.name: c for c in physical}
    named = list(dict.fromkeys([*data.columns, *data.key, *([data.time] if data.time else []), data.target]))
    columns = tuple(_column_plan(name, data, there[name]) for name in named if name in there)
    key = data.key if all(name in there for name in data.key) else ()
    return Plan(
        columns=columns,
        missing=tuple(name for name in named if name not in there),
        unknown=tuple(name for name in there if name not in named),
        key=key,
        # Rows that differ in their key differ: whole rows are only compared where there is no key to compare.
        whole_rows=not key,
    )


def _column_plan(name: str, data: Data, physical: PhysicalColumn) -> ColumnPlan:
    column = data.columns.get(name)
    if column is None:
        default = "string" if physical.text or physical.kind == "other" else physical.kind
        declared = "timestamp" if name == data.time else default
        return ColumnPlan(name=name, declared=declared, physical=physical)
    return ColumnPlan(
        name=name,
        declared=column.type,
        physical=physical,
        lower=_bound(name, "min", column),
        upper=_bound(name, "max", column),
        whole=column.type == "int" and (physical.kind == "float" or physical.text),
        midnight=column.type == "date" and physical.kind == "timestamp",
        allowed=_allowed(column),
        unique=column.unique and data.key != (name,),
        nulls=column.nulls,
        shortest=column.length.min if column.length else None,
        longest=column.length.max if column.length else None,
        regex=column.regex,
        mean=column.mean is not None,
        quantiles=tuple(band.at for band in column.quantiles),
        sensitive=column.sensitive,
    )


def _allowed(column: Column) -> tuple[str | int | float | bool, ...] | None:
    if column.in_ is None:
        return None
    if column.type in ("string", "timestamp", "date"):
        return tuple(str(value) for value in column.in_)
    return column.in_


def _bound(name: str, which: str, column: Column) -> int | float | None:
    value: Bound | None = getattr(column, which)
    if value is None:
        return None
    is_time = isinstance(value, date)
    if is_time != (column.type in ("timestamp", "date")):
        what = f"data.columns.{name}.{which} is {'a date' if is_time else 'a number'}, but the column is {column.type}"
        fix = "write a number" if is_time else "write a date, such as 2026-01-31"
        raise SpecError([Problem(what=what, file="model.yaml", fix=fix)])
    return microseconds(value) if isinstance(value, date) else value


def microseconds(value: date | datetime) -> int:
    """Microseconds since 1970 in UTC; a time without a zone is UTC."""
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return (value - EPOCH) // timedelta(microseconds=1)


def instant(value: int) -> datetime:
    """The instant that many microseconds after 1970, cut to what Python can express."""
    latest = microseconds(datetime.max.replace(tzinfo=UTC))
    earliest = microseconds(datetime.min.replace(tzinfo=UTC))
    return EPOCH + timedelta(microseconds=max(earliest, min(latest, value)))
