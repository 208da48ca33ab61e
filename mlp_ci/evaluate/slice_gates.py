"""Gates that must hold for each value of a column.

Such a gate passes when every judged slice passes. That is an intersection-union test (Berger, 1982): if one slice does
not meet the limit, the gate passes only if that one wrongly does, so nothing has to be corrected for the number of
slices. It fails when one slice fails, and among many slices one does by chance; so the p-values of failing are adjusted
by Holm's method (1979), which needs no assumption about how slices depend on each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.evaluate.bootstrap import Estimate, differences, estimates
from mlp_ci.evaluate.decision import Decision, holm, non_inferior, within
from mlp_ci.evaluate.gates import Part, rounded
from mlp_ci.evaluate.metrics import value_of
from mlp_ci.report import Outcome, worst

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.evaluate.gates import Champion, Measured, Rows
    from mlp_ci.evaluate.metrics import Array, Metric
    from mlp_ci.spec import Gate

MOST_SLICES = 100
NAMED = 10  # slices that a message names


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One value of a column: its metric and its decisions (limit, champion). Without decisions it is not judged."""

    name: str
    rows: int
    value: Estimate
    decisions: tuple[Decision, ...] = ()
    theirs: float | None = None
    difference: Estimate | None = None


def judge_slices(gate: Gate, metric: Metric, models: tuple[Measured, Champion | None], rows: Rows) -> Part:
    """Each value of the column that has enough rows; the others are listed, not judged."""
    column = rows.slices[str(gate.slice)]
    names, counts = np.unique(column, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_SLICES]
    left_out = max(0, len(names) - MOST_SLICES)
    found = [_looked_at(gate, metric, models, rows, column == names[i]) for i in order]
    found = [replace(s, name=str(names[i])) for s, i in zip(found, order, strict=True)]
    judged = [s for s in found if s.decisions]
    adjusted = _adjusted(judged)
    outcomes = [_outcome(s, p, rows.settings.confidence) for s, p in zip(judged, adjusted, strict=True)]
    by_name = {s.name: (p, o) for s, p, o in zip(judged, adjusted, outcomes, strict=True)}
    details: dict[str, Any] = {"slices": [_facts(s, *by_name.get(s.name, (None, None))) for s in found]}
    details["slices_left_out"] = left_out
    rest = _rest([s for s in found if not s.decisions], left_out)
    if not judged:
        message = f"no slice of {gate.slice} could be judged{rest}"
        return Part(outcome=Outcome.INCONCLUSIVE, message=message, details=details)
    outcome = worst(outcomes)
    return Part(outcome=outcome, message=_message(outcome, judged, outcomes) + rest, details=details)


def _looked_at(
    gate: Gate, metric: Metric, models: tuple[Measured, Champion | None], rows: Rows, chosen: Array
) -> Slice:
    this, champion = models
    count = int(chosen.sum())
    ours = this.predictions.take(chosen)
    theirs = champion.measured.predictions.take(chosen) if champion and champion.measured else None
    points = [value_of(metric, p) for p in (ours, theirs) if p is not None]
    if count < rows.min_slice_rows or not all(math.isfinite(v) for v in points):
        return Slice(name="", rows=count, value=Estimate(value=points[0]))
    design, settings = rows.design.take(chosen), rows.settings
    value = estimates([metric], ours, design, settings)[metric.name]
    decisions = []
    if gate.min is not None or gate.max is not None:
        decisions.append(within(value, count, minimum=gate.min, maximum=gate.max, confidence=settings.confidence))
    between = None
    if theirs is not None:
        between = differences([metric], ours, theirs, design, settings)[metric.name]
        decisions.append(_not_worse(gate, metric, between, count, settings.confidence))
    return Slice(
        name="",
        rows=count,
        value=value,
        decisions=tuple(decisions),
        theirs=points[1] if theirs is not None else None,
        difference=between,
    )


def _not_worse(gate: Gate, metric: Metric, between: Estimate, rows: int, confidence: float) -> Decision:
    margin = float(gate.max_drop or 0)
    return non_inferior(between, rows, margin=margin, higher_is_better=metric.higher_is_better, confidence=confidence)


def _adjusted(judged: Sequence[Slice]) -> list[float]:
    """Each slice's smallest p-value of failing, adjusted for all slices and parts."""
    flat = [(i, 1.0 if d.p_fail is None else d.p_fail) for i, s in enumerate(judged) for d in s.decisions]
    smallest = [1.0] * len(judged)
    for (index, _), p in zip(flat, holm([p for _, p in flat]), strict=True):
        smallest[index] = min(smallest[index], p)
    return smallest


def _outcome(one: Slice, p_fail: float, confidence: float) -> Outcome:
    if p_fail <= 1 - confidence:
        return Outcome.FAIL
    passed = all(d.outcome is Outcome.PASS for d in one.decisions)
    return Outcome.PASS if passed else Outcome.INCONCLUSIVE


def _facts(one: Slice, p_holm: float | None, outcome: Outcome | None) -> dict[str, Any]:
    """A row of the evidence; a slice that was not judged has no value, whatever could be computed."""
    found: dict[str, Any] = {"slice": one.name, "rows": one.rows, "value": None}
    found["outcome"] = str(outcome or Outcome.INCONCLUSIVE)
    if outcome is None:
        return found
    needed = _needed(one)
    found |= {"value": one.value.value, "low": one.value.low, "high": one.value.high, "p_holm": p_holm}
    found |= {"rows_needed": needed} if needed and outcome is Outcome.INCONCLUSIVE else {}
    if one.difference is not None:
        found |= {"champion": one.theirs, "difference": one.difference.value}
        found |= {"difference_low": one.difference.low, "difference_high": one.difference.high}
    return {k: v for k, v in found.items() if v is not None or k == "value"}


def _needed(one: Slice) -> int | None:
    return max((d.rows_needed for d in one.decisions if d.rows_needed), default=None)


def _message(outcome: Outcome, judged: Sequence[Slice], outcomes: Sequence[Outcome]) -> str:
    chosen = [s for s, o in zip(judged, outcomes, strict=True) if o is outcome]
    if outcome is Outcome.PASS:
        return f"{len(judged)} of {len(judged)} slices meet it"
    named = ", ".join(_named(s, outcome) for s in chosen[:NAMED])
    verb = "miss it" if outcome is Outcome.FAIL else "are not decided"
    return f"{len(chosen)} of {len(judged)} slices {verb}: {named}"


def _named(one: Slice, outcome: Outcome) -> str:
    text = f"{one.name} {one.value.value:.4g}" + (f" against {one.theirs:.4g}" if one.theirs is not None else "")
    needed = _needed(one)
    if outcome is Outcome.INCONCLUSIVE and needed:
        text += f" (about {rounded(needed - one.rows)} more rows of it would)"
    return text


def _rest(small: Sequence[Slice], left_out: int) -> str:
    names = ", ".join(f"{s.name} ({s.rows})" for s in small[:NAMED])
    text = f"; not judged (too few rows, or one class only): {names}" if small else ""
    return text + (f"; the {left_out} rarest values were not looked at" if left_out else "")
