"""The SQL of the checks for engines that are reached by SQL: what a column is measured with, what makes a value wrong.

Written once, in DuckDB's dialect with the functions of :mod:`mlp_ci.data.engines.sql_dialects`, and translated from
there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlp_ci.data.engine import Fault
from mlp_ci.data.engines import regexes
from mlp_ci.data.engines.sql_dialects import literal, quoted
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.data.plan import ColumnPlan, PhysicalColumn

ORDERED = ("float", "int", "timestamp", "date")
# Sums of larger numbers than this could leave what a double can hold; they are added 2^20 times smaller.
LARGE, SMALLER = 1e290, 2.0**-20
_BEYOND_INTEGERS = 2**63
_REGEXES = {"postgres": regexes.postgres, "spark": regexes.java}


@dataclass(frozen=True)
class SqlColumn:
    """A column of a table. ``form`` says how its type is handled where its kind leaves that open.

    Forms: int, float, real (32 bits), decimal, string, bool, timestamp, zoned, date, other. ``written``: the values
    are text until they are read, as in a CSV.
    """

    physical: PhysicalColumn
    form: str
    written: bool = False


@dataclass(frozen=True)
class Relation:
    """Rows to measure: ``name`` is how FROM says it, ``types`` what the columns are declared as.

    ``order`` is what numbers the rows; empty where rows have no order. ``shown_as`` is what people call it.
    """

    name: str
    shown_as: str
    columns: tuple[SqlColumn, ...]
    types: Mapping[str, str] = field(default_factory=dict)
    order: str = ""

    def column(self, name: str) -> SqlColumn:
        """The column of this name. Raises InputError where there is none."""
        found = next((c for c in self.columns if c.physical.name == name), None)
        if found is None:
            there = ", ".join(c.physical.name for c in self.columns[:10])
            what = f"{self.shown_as} has no column {name}"
            raise InputError(what, fix=f"it has: {there}")
        return found


# ---------------------------------------------------------------- one value


def read(column: SqlColumn, declared: str | None) -> str:
    """The value as what it is declared, NULL where it cannot be read so."""
    raw = quoted(column.physical.name)
    return f"mlp_read_{declared or 'string'}({raw})" if column.physical.text else raw


def value(column: SqlColumn, plan: ColumnPlan) -> str:
    """A number that can be compared with bounds; times in microseconds."""
    plain = read(column, plan.declared)
    if plan.is_time and plan.measurable:
        return f"mlp_micros({plain})"
    if column.form in ("float", "real"):
        return f"CAST({plain} AS DOUBLE)"
    return plain


def can_be_special(plan: ColumnPlan) -> bool:
    return plan.physical.nan or (plan.physical.text and plan.declared == "float")


def there(column: SqlColumn, plan: ColumnPlan) -> str:
    """The condition under which a value is neither NULL nor NaN."""
    plain = read(column, plan.declared)
    return f"{plain} IS NOT NULL" + (f" AND NOT mlp_nan({plain})" if can_be_special(plan) else "")


def finite(column: SqlColumn, plan: ColumnPlan) -> str:
    """The condition under which a value is neither NULL nor NaN nor infinite."""
    infinite = f" AND NOT mlp_infinite({read(column, plan.declared)})" if can_be_special(plan) else ""
    return there(column, plan) + infinite


def text(column: SqlColumn, declared: str | None) -> str:
    """A value as text, the same for the same value in whatever type it is stored, as far as it is declared."""
    plain, kind = read(column, declared), column.physical.kind
    match declared:
        case "int" if kind == "float":
            return (
                f"CASE WHEN mlp_infinite({plain}) OR mlp_nan({plain}) OR mlp_fraction({plain}) "
                f"THEN mlp_text_float({plain}) ELSE mlp_text_whole({plain}) END"
            )
        case "float" if kind == "int" or column.form == "decimal":
            return f"mlp_text_float(CAST({plain} AS DOUBLE))"
        case "timestamp" if kind in ("timestamp", "date"):
            return f"mlp_text_time({plain})"
        case "date" if kind == "timestamp":
            return f"mlp_text_day({plain})"
    return plain_text(column, plain)


def plain_text(column: SqlColumn, plain: str) -> str:
    """A value as text, as its own type writes it."""
    match column.form:
        case "float" | "real":
            return f"mlp_text_float({plain})"
        case "bool":
            return f"mlp_text_bool({plain})"
        case "timestamp":
            return f"mlp_text_time({plain})"
        case "zoned":
            return f"mlp_text_time({plain}) || '+00'"
        case "other":
            return f"mlp_text_other({plain})"
    return f"CAST({plain} AS VARCHAR)"


def shown(column: SqlColumn) -> str:
    """A value for a person to read; numbers come as they are and are written by Python, the same for every engine."""
    raw = quoted(column.physical.name)
    if column.written or column.form in ("int", "float", "decimal", "string"):
        return f"CAST({raw} AS VARCHAR)" if column.form == "string" and not column.physical.text else raw
    if column.physical.text:
        return f"coalesce(mlp_text_bool({raw}), CAST({raw} AS VARCHAR))" if column.form == "bool" else raw
    return plain_text(column, raw)


def set_value(column: SqlColumn, plan: ColumnPlan) -> str:
    """The value in the type in which the allowed ones are written."""
    plain = read(column, plan.declared)
    if plan.declared in ("string", "timestamp", "date"):
        return plain_text(column, plain)
    return f"CAST({plain} AS DOUBLE)" if plan.physical.kind == "float" else plain


def allowed(plan: ColumnPlan) -> str:
    """The allowed values as a list of literals that can be compared with :func:`set_value`."""
    written = []
    for one in plan.allowed or ():
        if plan.declared in ("string", "timestamp", "date"):
            written.append(literal(str(one)))
        elif not isinstance(one, str):
            written.append(("TRUE" if one else "FALSE") if plan.declared == "bool" else number(one))
    # A list may not be empty, and nothing equals NULL.
    return ", ".join(written) or "NULL"


def number(bound: int | float | None) -> str:
    if isinstance(bound, int) and abs(bound) < _BEYOND_INTEGERS:
        return str(int(bound))
    return f"mlp_double({literal(repr(float(bound or 0)))})"


# ---------------------------------------------------------------- what is wrong


def condition(column: SqlColumn, plan: ColumnPlan, fault: Fault, dialect: str) -> str:
    """Whether one value has a fault; never NULL where it has."""
    raw, plain = quoted(column.physical.name), read(column, plan.declared)
    match fault:
        case Fault.NULL:
            return f"({raw} IS NULL OR mlp_nan({plain}))" if can_be_special(plan) else f"{raw} IS NULL"
        case Fault.UNREADABLE:
            return f"{raw} IS NOT NULL AND {plain} IS NULL"
        case Fault.NOT_WHOLE:
            return f"{finite(column, plan)} AND mlp_fraction({plain})"
        case Fault.NOT_MIDNIGHT:
            return f"mlp_micros({plain}) % 86400000000 <> 0"
        case Fault.INFINITE:
            return f"mlp_infinite({plain})"
        case Fault.BELOW:
            return f"{finite(column, plan)} AND {value(column, plan)} < {number(plan.lower)}"
        case Fault.ABOVE:
            return f"{finite(column, plan)} AND {value(column, plan)} > {number(plan.upper)}"
        case Fault.TOO_SHORT:
            return f"length(CAST({plain} AS VARCHAR)) < {number(plan.shortest)}"
        case Fault.TOO_LONG:
            return f"length(CAST({plain} AS VARCHAR)) > {number(plan.longest)}"
        case Fault.NO_MATCH:
            pattern = _REGEXES.get(dialect, str)(plan.regex or "")
            return f"NOT mlp_matches(CAST({plain} AS VARCHAR), {literal(pattern)})"
        case Fault.OUTSIDE_SET:
            return f"{there(column, plan)} AND {outside(set_value(column, plan), plan)}"


def outside(expression: str, plan: ColumnPlan) -> str:
    """Whether something that is not NULL is none of the allowed values."""
    return f"NOT coalesce({expression} IN ({allowed(plan)}), FALSE)"


def faults(plan: ColumnPlan) -> list[Fault]:
    """The faults that the first pass counts."""
    found = [Fault.INFINITE] if can_be_special(plan) else []
    if not plan.measurable:
        return found
    asked = {
        Fault.UNREADABLE: plan.physical.text,
        Fault.NOT_WHOLE: plan.whole,
        Fault.NOT_MIDNIGHT: plan.midnight or (plan.physical.text and plan.declared == "date"),
        Fault.BELOW: plan.lower is not None,
        Fault.ABOVE: plan.upper is not None,
        Fault.TOO_SHORT: plan.shortest is not None,
        Fault.TOO_LONG: plan.longest is not None,
        Fault.NO_MATCH: plan.regex is not None,
    }
    return found + [fault for fault, wanted in asked.items() if wanted]


def count_if(condition_: str) -> str:
    return f"count(CASE WHEN {condition_} THEN 1 END)"


def measures(column: SqlColumn, plan: ColumnPlan, dialect: str) -> dict[str, str]:
    """Aggregates of one column by what they say; what the plan does not need is left out."""
    found = {"count": f"count({quoted(column.physical.name)})"}
    if can_be_special(plan):
        found["nan"] = count_if(f"mlp_nan({read(column, plan.declared)})")
    found |= {fault.value: count_if(condition(column, plan, fault, dialect)) for fault in faults(plan)}
    if not plan.measurable or plan.declared not in ORDERED:
        return found
    here, whether = value(column, plan), finite(column, plan)
    guarded = f"CASE WHEN {whether} THEN {here} END" if can_be_special(plan) else here
    found |= {"smallest": f"min({guarded})", "largest": f"max({guarded})"}
    if plan.quantiles or plan.mean:
        found["finite"] = count_if(whether)
    if plan.mean and column.form in ("int", "decimal"):
        found["sum"] = f"sum({'mlp_exact(' + here + ')' if column.form == 'int' else here})"
    elif plan.mean:
        plain = f"CAST({here} AS DOUBLE)"
        found["sum"] = f"sum(CASE WHEN {whether} AND abs({plain}) < {LARGE!r} THEN {plain} END)"
        found["large"] = f"sum(CASE WHEN {whether} AND abs({plain}) >= {LARGE!r} THEN {plain} * {SMALLER!r} END)"
    return found
