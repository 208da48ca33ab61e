"""Compares what an engine measured with what ``model.yaml`` asks for: one :class:`Check` per rule and column.

Asks the engine for examples only where a rule is broken. Values and extremes of sensitive columns are never shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.data.checks.acceptance import graded, outcomes
from mlp_ci.data.checks.judge_columns import Look, column_checks
from mlp_ci.data.checks.judge_rows import (
    balance,
    columns_exist,
    leakage,
    monotonic,
    predictive,
    queries,
    repetitions,
    row_count,
)
from mlp_ci.data.checks.verdict import Check, ColumnSummary, FileVerdict
from mlp_ci.data.checks.wording import HIDDEN, age, shown
from mlp_ci.data.plan import ColumnPlan, compile_plan, instant
from mlp_ci.report import Outcome
from mlp_ci.spec.quantities import show_duration

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from mlp_ci.data.engine import Engine
    from mlp_ci.spec.data import Data

__all__ = ["Check", "ColumnSummary", "FileVerdict", "freshness", "judge_file"]


def judge_file(engine: Engine, data: Data, *, held_out: str = "") -> FileVerdict:
    """Measure one open file and judge every rule of ``data`` that concerns it.

    ``held_out``: the file is training data, and the engine was opened with the held-out data under this name. Raises
    SpecError for a bound of the wrong kind and InputError for a query of ``checks.sql`` that cannot be run.
    """
    schema = engine.schema()
    plan = compile_plan(data, schema)
    facts = engine.facts(plan)
    key = plan.key if not any(c.sensitive for c in plan.columns if c.name in plan.key) else ()
    look = Look(engine=engine, data=data, plan=plan, facts=facts, key=key, distinct={})
    checks = [*columns_exist(plan), row_count(data, facts)]
    for column in plan.columns:
        checks += column_checks(look, column)
    if facts.rows:
        checks += [*repetitions(look), *monotonic(look), *balance(look)]
        if held_out:
            checks += [*leakage(look, held_out), *predictive(look)]
        checks += queries(look)
    checks = graded(checks, data)
    newest = facts.columns[data.time].largest if data.time and data.time in facts.columns else None
    return FileVerdict(
        rows=facts.rows,
        newest=instant(int(newest)) if newest is not None else None,
        checks=tuple(checks),
        columns=outcomes((_summary(look, c) for c in plan.columns), checks),
        schema=schema,
    )


def freshness(newest: Iterable[datetime | None], data: Data, now: datetime) -> Check | None:
    """Whether the newest row of all files is young enough; None when that is not asked."""
    limit = data.checks.freshness
    if limit is None:
        return None
    check = _freshness(max((n for n in newest if n is not None), default=None), data, now)
    return graded([check], data)[0]


def _freshness(newest: datetime | None, data: Data, now: datetime) -> Check:
    limit = data.checks.freshness
    column = data.time or ""
    if not column or limit is None:
        message = "freshness is asked for, but `data.time` names no column"
        fix = "add `time: <column>` under `data`"
        return Check(rule="freshness", column="", outcome=Outcome.FAIL, message=message, fix=fix)
    if newest is None:
        message = "no row has a time, so nobody can say how old the data is"
        fix = f"fill {column}, or drop data.checks.freshness"
        return Check(rule="freshness", column=column, outcome=Outcome.FAIL, message=message, fix=fix)
    since = now - newest
    named = data.columns.get(column)
    message = f"newest row is from {newest:%Y-%m-%d %H:%M} UTC, {age(since)}"
    if named is not None and named.sensitive:
        message = "newest row is too old" if since > limit else "newest row is young enough"
    if since > limit:
        fix = f"refresh the data, or raise data.checks.freshness above {show_duration(limit)}"
        message += f"; allowed are {show_duration(limit)}"
        return Check(rule="freshness", column=column, outcome=Outcome.FAIL, message=message, fix=fix)
    return Check(rule="freshness", column=column, outcome=Outcome.PASS, message=message)


def _summary(look: Look, column: ColumnPlan) -> ColumnSummary:
    found = look.facts.columns[column.name]
    hide = column.sensitive and (found.smallest is not None or found.largest is not None)
    return ColumnSummary(
        name=column.name,
        type=column.declared,
        nulls=found.nulls / look.facts.rows if look.facts.rows else None,
        smallest=HIDDEN if hide else shown(found.smallest, column),
        largest=HIDDEN if hide else shown(found.largest, column),
        distinct=look.distinct.get(column.name),
        outcome=Outcome.PASS,
    )
