"""The checks on one column: type, missing values, bounds, sets, texts, bands, references."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlp_ci.data.checks.verdict import Check
from mlp_ci.data.checks.wording import (
    HIDDEN,
    band,
    found_places,
    number,
    places,
    rows,
    shown,
    values,
    within,
)
from mlp_ci.data.engine import Engine, Facts, Fault
from mlp_ci.data.words import cut, show_share
from mlp_ci.errors import InputError
from mlp_ci.report import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlp_ci.data.plan import ColumnPlan, Plan
    from mlp_ci.spec.data import Column, Data, QuantileBand


@dataclass(frozen=True, kw_only=True)
class Look:
    """One file being looked at. ``key`` names rows in messages; it is empty where a part of it is sensitive."""

    engine: Engine
    data: Data
    plan: Plan
    facts: Facts
    key: tuple[str, ...]
    distinct: dict[str, int]


def column_checks(look: Look, column: ColumnPlan) -> Iterator[Check]:
    """All checks on one column; how many distinct values it has is noted in ``look.distinct`` when it is seen."""
    yield _type(look, column)
    if look.facts.rows:
        yield _nulls(look, column)
    if not column.measurable:
        return
    if column.declared == "float":
        yield _fault(look, column, Fault.INFINITE)
    for fault, asked in (
        (Fault.BELOW, column.lower),
        (Fault.ABOVE, column.upper),
        (Fault.TOO_SHORT, column.shortest),
        (Fault.TOO_LONG, column.longest),
        (Fault.NO_MATCH, column.regex),
    ):
        if asked is not None:
            yield _fault(look, column, fault)
    if column.allowed is not None:
        yield _membership(look, column)
    declared = look.data.columns.get(column.name)
    if declared is not None:
        yield from _bands(look, column, declared)
        if declared.references:
            yield _references(look, column, declared.references.file, declared.references.column)


def _type(look: Look, column: ColumnPlan) -> Check:
    if not column.measurable:
        message = f"is declared {column.declared}, and the file holds {cut(column.physical.shown)}"
        other = column.physical.kind
        fix = (
            "nested and binary values cannot be checked: split the column into plain ones"
            if other == "other"
            else f"write the column as {column.declared}, or declare `type: {other}`"
        )
        return Check(rule="type", column=column.name, outcome=Outcome.FAIL, message=message, fix=fix)
    for fault in (Fault.UNREADABLE, Fault.NOT_WHOLE, Fault.NOT_MIDNIGHT):
        if fault in look.facts.columns[column.name].faults:
            return _fault(look, column, fault)
    return Check(rule="type", column=column.name, outcome=Outcome.PASS, message=column.physical.shown)


def _nulls(look: Look, column: ColumnPlan) -> Check:
    found, total = look.facts.columns[column.name], look.facts.rows
    share = found.nulls / total
    reason, limit = "", column.nulls
    if column.name == look.data.target:
        reason, limit = "the target may not be missing", 0.0
    elif column.name in look.data.key:
        reason, limit = "a key may not be missing", 0.0
    counted = f" ({found.nan:,} of them NaN)" if found.nan else ""
    message = f"{rows(found.nulls)} of {total:,} missing{counted}, {show_share(share)}"
    if share <= limit:
        return Check(rule="nulls", column=column.name, outcome=Outcome.PASS, message=message)
    message += f"; {reason or f'allowed are {show_share(limit)}'}"
    if found.nulls == total:
        message = f"all {total:,} values are missing; {reason or f'allowed are {show_share(limit)}'}"
    else:
        message += places(look.engine.examples(column, Fault.NULL, look.key), look.key, show_values=False)
    fix = "fill or drop these rows" if reason else f"fill them, or raise `nulls` of {column.name}"
    return Check(rule="nulls", column=column.name, outcome=Outcome.FAIL, message=message, rows=found.nulls, fix=fix)


_RULES = {
    Fault.UNREADABLE: "type",
    Fault.NOT_WHOLE: "type",
    Fault.NOT_MIDNIGHT: "type",
    Fault.INFINITE: "finite",
    Fault.BELOW: "min",
    Fault.ABOVE: "max",
    Fault.TOO_SHORT: "length",
    Fault.TOO_LONG: "length",
    Fault.NO_MATCH: "regex",
}
_HOLDS = {
    Fault.INFINITE: "no infinity",
    Fault.BELOW: "no value below",
    Fault.ABOVE: "no value above",
    Fault.TOO_SHORT: "no value too short",
    Fault.TOO_LONG: "no value too long",
    Fault.NO_MATCH: "every value matches",
}


def _fault(look: Look, column: ColumnPlan, fault: Fault) -> Check:
    count = look.facts.columns[column.name].faults.get(fault, 0)
    rule = _RULES[fault]
    if not count:
        return Check(rule=rule, column=column.name, outcome=Outcome.PASS, message=_HOLDS.get(fault, "as declared"))
    what, fix = _wrong(column, fault, one=count == 1)
    at = places(look.engine.examples(column, fault, look.key), look.key, show_values=not column.sensitive)
    message = f"{values(count)} {what}{at}"
    return Check(rule=rule, column=column.name, outcome=Outcome.FAIL, message=message, rows=count, fix=fix)


def _wrong(column: ColumnPlan, fault: Fault, *, one: bool) -> tuple[str, str]:
    """What is wrong with values of this fault, and how to mend it."""
    be, have, name = ("is", "has", column.name) if one else ("are", "have", column.name)
    match fault:
        case Fault.UNREADABLE:
            return f"cannot be read as {column.declared}", f"write them as {column.declared}"
        case Fault.NOT_WHOLE:
            what = "is not a whole number" if one else "are not whole numbers"
            return what, "write whole numbers, or declare `type: float`"
        case Fault.NOT_MIDNIGHT:
            return f"{have} a time of day", "declare `type: timestamp`"
        case Fault.INFINITE:
            return f"{be} infinite", "write a number, or leave the value out"
        case Fault.BELOW:
            return f"{be} below {shown(column.lower, column)}", f"mend them, or lower `min` of {name}"
        case Fault.ABOVE:
            return f"{be} above {shown(column.upper, column)}", f"mend them, or raise `max` of {name}"
        case Fault.TOO_SHORT:
            least = number(column.shortest or 0)
            return f"{have} fewer than {least} characters", f"mend them, or lower `length: {{min}}` of {name}"
        case Fault.TOO_LONG:
            most = number(column.longest or 0)
            return f"{have} more than {most} characters", f"mend them, or raise `length: {{max}}` of {name}"
        case Fault.NO_MATCH:
            does = "does" if one else "do"
            return f"{does} not match {cut(column.regex or '')!r}", f"mend them, or widen `regex` of {name}"
    return f"{be} {fault}", "mend them"


def _membership(look: Look, column: ColumnPlan) -> Check:
    found = look.engine.membership(column)
    look.distinct[column.name] = found.distinct
    if not found.rows:
        message = f"{values(found.distinct)}, all allowed"
        return Check(rule="in", column=column.name, outcome=Outcome.PASS, message=message)
    message = f"{rows(found.rows)} hold {values(found.distinct_outside)} that `in` does not allow"
    at = places(look.engine.examples(column, Fault.OUTSIDE_SET, look.key), look.key, show_values=False)
    fix = f"mend them, or add them to `in` of {column.name}"
    if column.sensitive:
        message += at
    else:
        message += ": " + ", ".join(f"{cut(v)!r} ({n:,}×)" for v, n in found.values) + at.replace(":", ";", 1)
        close = difflib.get_close_matches(found.values[0][0], [str(a) for a in column.allowed or ()], n=1, cutoff=0.6)
        fix = (f"did you mean {close[0]!r}? " if close else "") + f"Mend them, or add them to `in` of {column.name}"
    return Check(rule="in", column=column.name, outcome=Outcome.FAIL, message=message, rows=found.rows, fix=fix)


def _bands(look: Look, column: ColumnPlan, declared: Column) -> Iterator[Check]:
    """Where mean and quantiles lie."""
    found = look.facts.columns[column.name]
    wrong = sum(found.faults.get(f, 0) for f in (Fault.INFINITE, Fault.UNREADABLE))
    there = look.facts.rows - found.nulls - wrong > 0
    asked: list[tuple[str, str, float | int | None, QuantileBand | None]] = []
    if declared.mean:
        asked.append(("mean", "the mean", found.mean, None))
    for at in declared.quantiles:
        name = "the median" if at.at == 0.5 else f"the {at.at:g} quantile"
        asked.append(("quantiles", name, found.quantiles.get(at.at), at))
    for rule, name, value, quantile in asked:
        allowed = quantile or declared.mean
        if allowed is None:
            continue
        if not there:
            yield Check(rule=rule, column=column.name, outcome=Outcome.SKIP, message=f"{name}: there is no value")
            continue
        if value is None:
            message = f"{name} cannot be computed: the values are too large to add up"
            fix = "mend the values; `max` finds them"
            yield Check(rule=rule, column=column.name, outcome=Outcome.FAIL, message=message, fix=fix)
            continue
        message = f"{name} is {HIDDEN if column.sensitive else number(value)}"
        if within(value, allowed):
            yield Check(rule=rule, column=column.name, outcome=Outcome.PASS, message=message)
            continue
        message += f"; it must be {band(allowed)}"
        fix = f"look at what changed in {column.name} (`mlp-ci data diff`), or move the band of `{rule}`"
        yield Check(rule=rule, column=column.name, outcome=Outcome.FAIL, message=message, fix=fix)


def _references(look: Look, column: ColumnPlan, file: str, theirs: str) -> Check:
    try:
        found = look.engine.absent([column.name], file, [theirs])
    except InputError as error:
        return Check(rule="references", column=column.name, outcome=Outcome.FAIL, message=error.what, fix=error.fix)
    if not found.rows:
        message = f"every value is in {theirs} of {file}"
        return Check(rule="references", column=column.name, outcome=Outcome.PASS, message=message)
    hidden = {column.name} if column.sensitive else set()
    one = found.rows == 1
    message = f"{rows(found.rows)} {'holds' if one else 'hold'} a value that {theirs} of {file} does not have"
    message += found_places(found, hidden)
    fix = f"mend them, or add them to {file}"
    return Check(rule="references", column=column.name, outcome=Outcome.FAIL, message=message, rows=found.rows, fix=fix)
