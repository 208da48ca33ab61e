"""Compares what an engine measured with what ``model.yaml`` asks for: one :class:`Check` per rule and column.

Asks the engine for examples only where a rule is broken. Values and extremes of sensitive columns are never shown.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mlp_ci.data.engine import ColumnFacts, Engine, Example, Facts, Fault
from mlp_ci.data.plan import ColumnPlan, Plan, compile_plan, instant
from mlp_ci.report import Outcome
from mlp_ci.spec.quantities import show_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlp_ci.spec.data import Data

SHOWN_LENGTH = 40
HIDDEN = "hidden"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One rule applied to one column (or to the whole file, when ``column`` is empty)."""

    rule: str
    column: str
    outcome: Outcome
    message: str
    rows: int = 0
    fix: str = ""
    severity: str = "error"


@dataclass(frozen=True, kw_only=True)
class ColumnSummary:
    """One line of the table of a file."""

    name: str
    type: str
    nulls: float | None
    smallest: str
    largest: str
    distinct: int | None
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class FileVerdict:
    """Everything that was found out about one file. ``newest`` is the largest value of ``data.time``."""

    rows: int
    newest: datetime | None
    checks: tuple[Check, ...]
    columns: tuple[ColumnSummary, ...]


def judge_file(engine: Engine, data: Data) -> FileVerdict:
    """Measure one open file and judge every rule of ``data`` that concerns a single file."""
    plan = compile_plan(data, engine.schema())
    facts = engine.facts(plan)
    shown_key = plan.key if not any(c.sensitive for c in plan.columns if c.name in plan.key) else ()
    checks = [*_columns_exist(plan), *_row_count(data, facts)]
    distinct: dict[str, int] = {}
    for column in plan.columns:
        found = list(_column_checks(engine, column, facts, shown_key, data))
        if column.allowed is not None and column.measurable:
            check, distinct[column.name] = _membership(engine, column, shown_key)
            found.append(check)
        checks += found
    checks += _repetitions(engine, plan, data, facts.rows)
    newest = facts.columns[data.time].largest if data.time and data.time in facts.columns else None
    return FileVerdict(
        rows=facts.rows,
        newest=instant(int(newest)) if newest is not None else None,
        checks=tuple(checks),
        columns=tuple(_summary(c, facts, checks, distinct) for c in plan.columns),
    )


def freshness(newest: Iterable[datetime | None], data: Data, now: datetime) -> Check | None:
    """Whether the newest row of all files is young enough; None when that is not asked."""
    limit = data.checks.freshness
    if limit is None:
        return None
    column = data.time or ""
    known = [n for n in newest if n is not None]
    if not column:
        message = "freshness is asked for, but `data.time` names no column"
        return Check(
            rule="freshness", column="", outcome=Outcome.FAIL, message=message, fix="add `time: <column>` under `data`"
        )
    if not known:
        message = "no row has a time, so nobody can say how old the data is"
        return Check(rule="freshness", column=column, outcome=Outcome.FAIL, message=message)
    age = now - max(known)
    shown = f"newest row is from {max(known):%Y-%m-%d %H:%M} UTC, {_age(age)}"
    if age > limit:
        fix = f"refresh the data, or raise data.checks.freshness above {show_duration(limit)}"
        message = f"{shown}; allowed are {show_duration(limit)}"
        return Check(rule="freshness", column=column, outcome=Outcome.FAIL, message=message, fix=fix)
    return Check(rule="freshness", column=column, outcome=Outcome.PASS, message=shown)


def _age(age: timedelta) -> str:
    if age < timedelta(0):
        return f"{show_duration(timedelta(seconds=round(-age.total_seconds() / 60) * 60))} in the future"
    return f"{show_duration(timedelta(seconds=round(age.total_seconds() / 60) * 60))} old"


# ---------------------------------------------------------------- whole file


def _columns_exist(plan: Plan) -> Iterator[Check]:
    for name in plan.missing:
        close = difflib.get_close_matches(name, plan.unknown, n=1, cutoff=0.6)
        there = ", ".join(plan.unknown[:10]) or "no column that model.yaml does not know"
        fix = f"did you mean `{close[0]}`?" if close else f"the file also has: {there}"
        message = "the file has no such column"
        yield Check(rule="columns", column=name, outcome=Outcome.FAIL, message=message, fix=fix)
    if plan.unknown:
        many = f" and {len(plan.unknown) - 10} more" if len(plan.unknown) > 10 else ""
        message = f"model.yaml does not know {', '.join(_cut(n) for n in plan.unknown[:10])}{many}: not checked"
        fix = "describe them under data.columns, or leave them out of the file"
        yield Check(rule="columns", column="", outcome=Outcome.FAIL, message=message, fix=fix, severity="warning")


def _row_count(data: Data, facts: Facts) -> Iterator[Check]:
    limits = data.checks.rows
    outcome, message, fix = Outcome.PASS, f"{facts.rows:,} rows", ""
    if facts.rows < limits.min:
        outcome = Outcome.FAIL
        message = f"{facts.rows:,} rows, at least {limits.min:,} are needed"
        fix = "add rows, or lower data.checks.rows.min"
    elif limits.max is not None and facts.rows > limits.max:
        outcome = Outcome.FAIL
        message = f"{facts.rows:,} rows, at most {limits.max:,} are allowed"
        fix = "drop rows, or raise data.checks.rows.max"
    elif facts.rows == 0:
        outcome, message, fix = Outcome.FAIL, "0 rows: there is nothing to train on", "write the data"
    yield Check(rule="rows", column="", outcome=outcome, message=message, fix=fix)


def _repetitions(engine: Engine, plan: Plan, data: Data, rows: int) -> Iterator[Check]:
    if rows == 0:
        return
    by_name = {c.name: c for c in plan.columns}
    for columns, rule in [(plan.key, "key"), *(((c.name,), "unique") for c in plan.columns if c.unique)]:
        if not columns:
            continue
        name = ", ".join(columns)
        repeats = engine.repeats(columns)
        if not repeats.rows:
            yield Check(rule=rule, column=name, outcome=Outcome.PASS, message="no value occurs twice")
            continue
        secret = any(by_name[c].sensitive for c in columns)
        examples = "; ".join(
            f"row {row}" + ("" if secret else f": {', '.join(_cut(v) for v in values)}") + f" ({n}×)"
            for row, values, n in repeats.examples
        )
        message = f"{_rows(repeats.rows)} repeat the {name} of another row: {examples}"
        fix = f"keep one row per {name}" if rule == "key" else f"remove the repeats, or drop `unique` of {name}"
        yield Check(rule=rule, column=name, outcome=Outcome.FAIL, message=message, rows=repeats.rows, fix=fix)
    if not plan.whole_rows:
        return
    repeats = engine.repeats(())
    limit = data.checks.duplicates
    examples = ", ".join(f"row {row} ({n}×)" for row, _, n in repeats.examples)
    message = f"{_rows(repeats.rows)} repeat another row exactly" + (f": {examples}" if examples else "")
    if repeats.rows <= limit:
        yield Check(rule="duplicates", column="", outcome=Outcome.PASS, message=message)
        return
    fix = "drop the repeats, or raise data.checks.duplicates"
    message += f"; allowed are {limit:,}"
    yield Check(rule="duplicates", column="", outcome=Outcome.FAIL, message=message, rows=repeats.rows, fix=fix)


# ---------------------------------------------------------------- one column


def _column_checks(
    engine: Engine, column: ColumnPlan, facts: Facts, key: tuple[str, ...], data: Data
) -> Iterator[Check]:
    found = facts.columns[column.name]
    yield _type(engine, column, found, key)
    if facts.rows:
        yield _nulls(engine, column, facts, key, data)
    if not column.measurable:
        return
    if column.declared == "float":
        yield _fault(engine, column, found, key, Fault.INFINITE)
    if column.lower is not None:
        yield _fault(engine, column, found, key, Fault.BELOW)
    if column.upper is not None:
        yield _fault(engine, column, found, key, Fault.ABOVE)


def _type(engine: Engine, column: ColumnPlan, found: ColumnFacts, key: tuple[str, ...]) -> Check:
    if not column.measurable:
        message = f"is declared {column.declared}, and the file holds {column.physical.shown}"
        other = column.physical.kind
        fix = (
            "nested and binary values cannot be checked: split the column into plain ones"
            if other == "other"
            else f"write the column as {column.declared}, or declare `type: {other}`"
        )
        return Check(rule="type", column=column.name, outcome=Outcome.FAIL, message=message, fix=fix)
    for fault in (Fault.UNREADABLE, Fault.NOT_WHOLE, Fault.NOT_MIDNIGHT):
        if fault in found.faults:
            return _fault(engine, column, found, key, fault)
    return Check(rule="type", column=column.name, outcome=Outcome.PASS, message=column.physical.shown)


def _nulls(engine: Engine, column: ColumnPlan, facts: Facts, key: tuple[str, ...], data: Data) -> Check:
    found = facts.columns[column.name]
    share = found.nulls / facts.rows
    reason, limit = "", column.nulls
    if column.name == data.target:
        reason, limit = "the target may not be missing", 0.0
    elif column.name in data.key:
        reason, limit = "a key may not be missing", 0.0
    counted = f" ({found.nan:,} of them NaN)" if found.nan else ""
    message = f"{_rows(found.nulls)} of {facts.rows:,} missing{counted}, {_percent(share)}"
    if share <= limit:
        return Check(rule="nulls", column=column.name, outcome=Outcome.PASS, message=message)
    message += f"; {reason or f'allowed are {_percent(limit)}'}"
    if found.nulls == facts.rows:
        message = f"all {facts.rows:,} values are missing; {reason or f'allowed are {_percent(limit)}'}"
    else:
        message += _places(engine.examples(column, Fault.NULL, key), key, show_values=False)
    fix = "fill or drop these rows" if reason else f"fill them, or raise `nulls` of {column.name}"
    return Check(rule="nulls", column=column.name, outcome=Outcome.FAIL, message=message, rows=found.nulls, fix=fix)


_RULES = {
    Fault.UNREADABLE: "type",
    Fault.NOT_WHOLE: "type",
    Fault.NOT_MIDNIGHT: "type",
    Fault.INFINITE: "finite",
    Fault.BELOW: "min",
    Fault.ABOVE: "max",
}


def _fault(engine: Engine, column: ColumnPlan, found: ColumnFacts, key: tuple[str, ...], fault: Fault) -> Check:
    rows = found.faults.get(fault, 0)
    rule = _RULES[fault]
    if not rows:
        message = {"finite": "no infinity", "min": "no value below", "max": "no value above"}.get(rule, "as declared")
        return Check(rule=rule, column=column.name, outcome=Outcome.PASS, message=message)
    bound = column.lower if fault is Fault.BELOW else column.upper
    be = "is" if rows == 1 else "are"
    what, fix = {
        Fault.UNREADABLE: (f"cannot be read as {column.declared}", f"write them as {column.declared}"),
        Fault.NOT_WHOLE: (
            "is not a whole number" if rows == 1 else "are not whole numbers",
            "write whole numbers, or declare `type: float`",
        ),
        Fault.NOT_MIDNIGHT: ("has a time of day" if rows == 1 else "have a time of day", "declare `type: timestamp`"),
        Fault.INFINITE: (f"{be} infinite", "write a number, or leave the value out"),
        Fault.BELOW: (f"{be} below {_shown(bound, column)}", f"mend them, or lower `min` of {column.name}"),
        Fault.ABOVE: (f"{be} above {_shown(bound, column)}", f"mend them, or raise `max` of {column.name}"),
    }[fault]
    places = _places(engine.examples(column, fault, key), key, show_values=not column.sensitive)
    message = f"{rows:,} value{'s' if rows != 1 else ''} {what}{places}"
    return Check(rule=rule, column=column.name, outcome=Outcome.FAIL, message=message, rows=rows, fix=fix)


def _membership(engine: Engine, column: ColumnPlan, key: tuple[str, ...]) -> tuple[Check, int]:
    found = engine.membership(column)
    if not found.rows:
        message = f"{found.distinct:,} values, all allowed"
        return Check(rule="in", column=column.name, outcome=Outcome.PASS, message=message), found.distinct
    message = f"{_rows(found.rows)} hold {found.distinct_outside:,} value{'s' if found.distinct_outside != 1 else ''}"
    message += " that `in` does not allow"
    if column.sensitive:
        message += _places(engine.examples(column, Fault.OUTSIDE_SET, key), key, show_values=False)
        fix = f"mend them, or add them to `in` of {column.name}"
    else:
        message += ": " + ", ".join(f"{_cut(v)!r} ({n:,}×)" for v, n in found.values)
        message += _places(engine.examples(column, Fault.OUTSIDE_SET, key), key, show_values=False).replace(":", ";", 1)
        close = difflib.get_close_matches(found.values[0][0], [str(a) for a in column.allowed or ()], n=1, cutoff=0.6)
        fix = f"did you mean {close[0]!r}? " if close else ""
        fix += f"Mend them, or add them to `in` of {column.name}"
    return (
        Check(rule="in", column=column.name, outcome=Outcome.FAIL, message=message, rows=found.rows, fix=fix),
        found.distinct,
    )


def _summary(column: ColumnPlan, facts: Facts, checks: list[Check], distinct: dict[str, int]) -> ColumnSummary:
    found = facts.columns[column.name]
    bad = any(
        c.outcome is Outcome.FAIL and c.severity == "error" and column.name in c.column.split(", ") for c in checks
    )
    hide = column.sensitive and (found.smallest is not None or found.largest is not None)
    return ColumnSummary(
        name=column.name,
        type=column.declared,
        nulls=found.nulls / facts.rows if facts.rows else None,
        smallest=HIDDEN if hide else _shown(found.smallest, column),
        largest=HIDDEN if hide else _shown(found.largest, column),
        distinct=distinct.get(column.name),
        outcome=Outcome.FAIL if bad else Outcome.PASS,
    )


# ---------------------------------------------------------------- words


def _places(examples: tuple[Example, ...], key: tuple[str, ...], *, show_values: bool) -> str:
    """``: `` and where the wrong values are, by key when there is one that may be shown, else by row number."""
    parts = []
    for example in examples:
        place = ", ".join(f"{k}={_cut(v)}" for k, v in zip(key, example.key, strict=False)) or f"row {example.row}"
        parts.append(f"{_cut(example.value or '')!r} ({place})" if show_values else place)
    return ": " + ", ".join(parts) if parts else ""


def _shown(value: int | float | None, column: ColumnPlan) -> str:
    if value is None:
        return ""
    if column.is_time:
        moment = instant(int(value))
        return f"{moment:%Y-%m-%d}" if column.declared == "date" else f"{moment:%Y-%m-%d %H:%M}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN_LENGTH else flat[: SHOWN_LENGTH - 1] + "…"


def _rows(count: int) -> str:
    return f"{count:,} row{'s' if count != 1 else ''}"


def _percent(share: float) -> str:
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    return "less than 0.01 %" if share < 0.0001 else f"{share * 100:.4g} %"
