"""The checks on whole files and between files: rows, repeats, order, classes, leakage, a team's own SQL."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from mlp_ci.data.checks.predictive import ordering
from mlp_ci.data.checks.verdict import Check
from mlp_ci.data.checks.wording import HIDDEN, band, found_places, place, rows, within
from mlp_ci.data.words import cut, show_share
from mlp_ci.errors import InputError
from mlp_ci.report import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlp_ci.data.checks.judge_columns import Look
    from mlp_ci.data.engine import Facts
    from mlp_ci.data.plan import ColumnPlan, Plan
    from mlp_ci.spec.data import Data, Query

# A target with more values than this has no classes.
MOST_CLASSES = 100
# A feature is cut into so many groups; fewer rows of a class than FEWEST say nothing.
GROUPS, FEWEST = 200, 10


def columns_exist(plan: Plan) -> Iterator[Check]:
    for name in plan.missing:
        close = difflib.get_close_matches(name, plan.unknown, n=1, cutoff=0.6)
        there = ", ".join(cut(n) for n in plan.unknown[:10]) or "no column that model.yaml does not know"
        fix = f"did you mean `{close[0]}`?" if close else f"the file also has: {there}"
        message = "the file has no such column"
        yield Check(rule="column", column=name, outcome=Outcome.FAIL, message=message, fix=fix)
    if plan.unknown:
        many = f" and {len(plan.unknown) - 10:,} more" if len(plan.unknown) > 10 else ""
        message = f"model.yaml does not know {', '.join(cut(n) for n in plan.unknown[:10])}{many}: not checked"
        fix = "describe them under data.columns, or leave them out of the file"
        yield Check(rule="column", column="", outcome=Outcome.FAIL, message=message, fix=fix, severity="warning")


def row_count(data: Data, facts: Facts) -> Check:
    limits = data.checks.rows
    outcome, message, fix = Outcome.PASS, rows(facts.rows), ""
    if facts.rows < limits.min:
        outcome = Outcome.FAIL
        message = f"{rows(facts.rows)}, at least {limits.min:,} are needed"
        fix = "add rows, or lower data.checks.rows.min"
    elif limits.max is not None and facts.rows > limits.max:
        outcome = Outcome.FAIL
        message = f"{rows(facts.rows)}, at most {limits.max:,} are allowed"
        fix = "drop rows, or raise data.checks.rows.max"
    elif facts.rows == 0:
        outcome, message, fix = Outcome.FAIL, "0 rows: there is nothing to train on", "write the data"
    return Check(rule="rows", column="", outcome=outcome, message=message, fix=fix)


def repetitions(look: Look) -> Iterator[Check]:
    """Uniqueness of the key, of columns that say so, and of whole rows where there is no key."""
    unique = [((c.name,), "unique") for c in look.plan.columns if c.unique]
    for columns, rule in [(look.plan.key, "key"), *unique]:
        if columns:
            yield _unique(look, columns, rule)
    if not look.plan.whole_rows:
        return
    repeats = look.engine.repeats(())
    limit = look.data.checks.duplicates
    examples = ", ".join(f"{place(row)} ({n}×)" for row, _, n in repeats.examples)
    message = f"{rows(repeats.rows)} repeat another row exactly" + (f": {examples}" if examples else "")
    if repeats.rows <= limit:
        yield Check(rule="duplicates", column="", outcome=Outcome.PASS, message=message)
        return
    fix = "drop the repeats, or raise data.checks.duplicates"
    message += f"; allowed are {limit:,}"
    yield Check(rule="duplicates", column="", outcome=Outcome.FAIL, message=message, rows=repeats.rows, fix=fix)


def _unique(look: Look, columns: Sequence[str], rule: str) -> Check:
    name = ", ".join(columns)
    repeats = look.engine.repeats(columns)
    if not repeats.rows:
        return Check(rule=rule, column=name, outcome=Outcome.PASS, message="no value occurs twice")
    secret = bool(sensitive(look.plan.columns) & set(columns))
    examples = "; ".join(
        place(row) + ("" if secret else f": {', '.join(cut(v) for v in values)}") + f" ({n}×)"
        for row, values, n in repeats.examples
    )
    message = f"{rows(repeats.rows)} repeat the {name} of another row: {examples}"
    fix = f"keep one row per {name}" if rule == "key" else f"remove the repeats, or drop `unique` of {name}"
    return Check(rule=rule, column=name, outcome=Outcome.FAIL, message=message, rows=repeats.rows, fix=fix)


def monotonic(look: Look) -> Iterator[Check]:
    """Whether time goes forward from row to row, where that is asked."""
    if not look.data.checks.monotonic:
        return
    name = look.data.time or ""
    time = look.plan.column(name)
    if not name:
        message = "the order of time is asked for, but `data.time` names no column"
        fix = "add `time: <column>` under `data`"
        yield Check(rule="monotonic", column="", outcome=Outcome.FAIL, message=message, fix=fix)
    if time is None or not time.measurable:
        return  # that it lacks, or is no time, is said by another check
    try:
        found = look.engine.backwards(time)
    except InputError as error:  # rows of a warehouse have no order
        yield Check(rule="monotonic", column=name, outcome=Outcome.SKIP, message=error.what)
        return
    if not found.rows:
        yield Check(rule="monotonic", column=name, outcome=Outcome.PASS, message="time never goes back")
        return
    message = f"{rows(found.rows)} {'is' if found.rows == 1 else 'are'} earlier than the row above"
    message += found_places(found, {name} if time.sensitive else set())
    fix = f"sort the rows by {name}, or drop data.checks.monotonic"
    yield Check(rule="monotonic", column=name, outcome=Outcome.FAIL, message=message, rows=found.rows, fix=fix)


def balance(look: Look) -> Iterator[Check]:
    """Whether each class of the target has a share of the rows within the band."""
    allowed = look.data.checks.balance
    target = look.plan.column(look.data.target)
    if allowed is None or target is None or not target.measurable:
        return
    counts = look.engine.counts(target.name, MOST_CLASSES + 1)
    total = sum(n for _, n in counts)
    if not total:
        yield Check(rule="balance", column=target.name, outcome=Outcome.SKIP, message="the target has no value")
        return
    if len(counts) > MOST_CLASSES:
        message = f"the target has more than {MOST_CLASSES} values, so it has no classes to balance"
        fix = "drop data.checks.balance; `mean` and `quantiles` describe a number"
        yield Check(rule="balance", column=target.name, outcome=Outcome.FAIL, message=message, fix=fix)
        return
    wrong = [(value, n) for value, n in counts if not within(n / total, allowed)]
    told = [(HIDDEN if target.sensitive else cut(value), n) for value, n in wrong or counts]
    message = ", ".join(f"{value}: {show_share(n / total)}" for value, n in told[:5])
    message += f" and {len(told) - 5} more" if len(told) > 5 else ""
    if not wrong:
        yield Check(rule="balance", column=target.name, outcome=Outcome.PASS, message=message)
        return
    message += f"; every class must have a share of {band(allowed)}"
    fix = "look at how the rows were chosen, or move the band of data.checks.balance"
    count = sum(n for _, n in wrong)
    yield Check(rule="balance", column=target.name, outcome=Outcome.FAIL, message=message, rows=count, fix=fix)


# ---------------------------------------------------------------- leakage


def leakage(look: Look, held_out: str) -> Iterator[Check]:
    """Whether rows of this file are in the one opened as ``held_out``: by key, or whole rows where there is none."""
    if not look.data.checks.leakage.rows:
        return
    key = look.plan.key
    if look.data.key and not key:
        return  # a missing key column is said by another check
    name = ", ".join(key)
    try:
        found = look.engine.shared(key, held_out)
    except InputError as error:
        yield Check(rule="leakage", column=name, outcome=Outcome.FAIL, message=error.what, fix=error.fix)
        return
    what = f"{name} of a row" if key else "whole row"
    if not found.rows:
        message = f"no {what} is also in the held-out data"
        yield Check(rule="leakage", column=name, outcome=Outcome.PASS, message=message)
        return
    message = f"{rows(found.rows)} {'is' if found.rows == 1 else 'are'} also in the held-out data"
    message += f", by {name}" if key else " with all values"
    message += found_places(found, sensitive(look.plan.columns))
    fix = "take them out of one of the files: a model is not tested by what it has seen"
    # Without a key two rows may be equal and still speak of different things.
    severity = "error" if key else "warning"
    yield Check(
        rule="leakage",
        column=name,
        outcome=Outcome.FAIL,
        message=message,
        rows=found.rows,
        fix=fix,
        severity=severity,
    )


def predictive(look: Look) -> Iterator[Check]:
    """Whether a feature alone orders the two classes of the target nearly perfectly."""
    limit = look.data.checks.leakage.predictive
    target = look.plan.column(look.data.target)
    if limit is None or target is None or not target.measurable:
        return
    classes = look.engine.counts(target.name, 3)
    if len(classes) != 2 or min(n for _, n in classes) < FEWEST:
        return
    features = [c for c in look.plan.columns if c.name in look.data.features and c.measurable]
    for feature in features:
        ordered = feature.declared in ("float", "int", "timestamp", "date")
        auc = ordering(look.engine.crossed(feature, target.name, GROUPS), classes[0][0], ordered=ordered, least=FEWEST)
        if auc is None:
            continue
        message = f"alone orders {target.name} with a ROC AUC of {auc:.3f}"
        if auc < limit:
            yield Check(rule="predictive", column=feature.name, outcome=Outcome.PASS, message=message)
            continue
        message += f"; {limit:g} or more looks like something known only afterwards"
        fix = "leave it out of data.columns, or raise data.checks.leakage.predictive (null turns it off)"
        yield Check(rule="predictive", column=feature.name, outcome=Outcome.FAIL, message=message, fix=fix)


# ---------------------------------------------------------------- a team's own SQL


def queries(look: Look) -> Iterator[Check]:
    """What the queries of ``data.checks.sql`` find. Raises InputError, naming the query, for one that cannot run."""
    for asked in look.data.checks.sql:
        yield _query(look, asked)


def _query(look: Look, asked: Query) -> Check:
    try:
        found = look.engine.query(asked.query)
    except InputError as error:
        what = f"data.checks.sql {asked.name!r}: {error.what}"
        raise InputError(what, why=error.why, fix=error.fix, file="model.yaml") from error
    severity = "warning" if asked.severity == "warn" else "error"
    if not found.rows:
        return Check(rule="sql", column=asked.name, outcome=Outcome.PASS, message="no row found", severity=severity)
    secret = {c.name for c in look.plan.columns if c.sensitive}
    hidden = set() if not secret else _hidden(asked.query, found.columns, secret, look)
    message = rows(found.rows)
    if any(row is not None for row, _ in found.examples) or set(found.columns) - hidden:
        message += _cells(found_places(found, hidden), found.columns, hidden)
    return Check(
        rule="sql",
        column=asked.name,
        outcome=Outcome.FAIL,
        message=message,
        rows=found.rows,
        fix="mend these rows, or the query",
        severity=severity,
    )


def _cells(text: str, columns: Sequence[str], hidden: set[str]) -> str:
    named = [cut(c) for c in columns if c not in hidden]
    return f" ({', '.join(named[:8])}{', …' if len(named) > 8 else ''}){text}" if named else text


def _hidden(sql: str, columns: Sequence[str], secret: set[str], look: Look) -> set[str]:
    """Columns of a result that are not shown: all of them where the query speaks of a sensitive column by name.

    Otherwise those that are not columns of the file: what they were made of is not known.
    """
    lowered = sql.lower()
    if any(re.search(rf"(?<!\w){re.escape(name.lower())}(?!\w)", lowered) for name in secret):
        return set(columns)
    harmless = {c.name for c in look.engine.schema()} - secret
    return {name for name in columns if name not in harmless}


def sensitive(columns: Sequence[ColumnPlan]) -> set[str]:
    return {c.name for c in columns if c.sensitive}
