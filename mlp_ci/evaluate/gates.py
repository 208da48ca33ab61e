"""Judges the gates of model.yaml by intervals: pure values in, a verdict with a reason for every gate out.

A gate passes when the rows show that it holds, and fails when they show that it does not; else it is inconclusive, and
says how many rows would probably decide it. What "show" means is in :mod:`mlp_ci.evaluate.decision`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlp_ci.evaluate.bootstrap import Design, Estimate, Settings
from mlp_ci.evaluate.decision import Decision, non_inferior, within
from mlp_ci.evaluate.measured import METHOD as MEASURED
from mlp_ci.evaluate.metrics import Array, Metric, Predictions, metric_called, why_undefined
from mlp_ci.report import Outcome, worst

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.spec import Gate


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model on the held-out rows: its predictions and all its metrics (also the measured ones), by name.

    ``troubles``: metric → why it has no value. ``own``: the team's own metrics.
    """

    predictions: Predictions
    metrics: Mapping[str, Estimate]
    troubles: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, Metric] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The version that a stage has. ``measured`` is None when there is none or it could not be tried: ``why`` says.

    ``differences``: metric → this minus champion, on the same rows, both drawn together.
    """

    stage: str
    version: int | None = None
    digest: str = ""
    measured: Measured | None = None
    differences: Mapping[str, Estimate] = field(default_factory=dict)
    why: str = ""
    broken: bool = False


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The held-out rows as gates look at them: how they are drawn, the columns that slice them, and how many a slice
    needs to be judged."""

    design: Design
    settings: Settings
    slices: Mapping[str, Array] = field(default_factory=dict)
    min_slice_rows: int = 50


@dataclass(frozen=True, kw_only=True)
class Part:
    """The judgement of a part of a gate; ``details`` are the values behind it."""

    outcome: Outcome
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The judgement of one gate; ``details`` are the values behind it, for the evidence."""

    gate: str
    metric: str
    outcome: Outcome
    message: str
    details: Mapping[str, Any]


def judge(gate: Gate, this: Measured, champions: Mapping[str, Champion], rows: Rows) -> Verdict:
    """One gate: its limits, over all rows or for each value of its slice, its comparison with a champion, its gap."""
    from mlp_ci.evaluate.gaps import judge_gap
    from mlp_ci.evaluate.slice_gates import judge_slices

    metric = this.own.get(gate.metric) or metric_called(gate.metric, this.predictions.task)
    champion = champions[gate.versus] if gate.versus else None
    tried = champion is not None and champion.measured is not None
    limited = gate.min is not None or gate.max is not None
    parts: list[Part] = []
    if gate.gap:
        parts.append(judge_gap(gate, metric, this, rows))
    elif gate.slice and (limited or tried):
        parts.append(judge_slices(gate, metric, (this, champion), rows))
    elif limited:
        parts.append(_judge_limits(gate, metric, this, rows))
    if champion and not (gate.slice and tried):
        parts.append(_judge_versus(gate, metric, (this, champion), rows))
    details: dict[str, Any] = gate.model_dump(mode="json", exclude_none=True, exclude={"metric"})
    needed = [int(p.details["rows_needed"]) for p in parts if p.details.get("rows_needed")]
    for part in parts:
        details |= {k: v for k, v in part.details.items() if v is not None}
    details |= {"rows_needed": max(needed)} if needed else {}
    return Verdict(
        gate=describe(gate),
        metric=gate.metric,
        outcome=worst([p.outcome for p in parts]),
        message="; ".join(p.message for p in parts),
        details=details,
    )


def overall(verdicts: Sequence[Verdict]) -> Outcome:
    """The verdict of the whole: one failed gate fails it, one undecided gate leaves it undecided."""
    return worst([v.outcome for v in verdicts])


def describe(gate: Gate) -> str:
    """A gate in the words of model.yaml: ``roc_auc per carrier ≥ 0.65``."""
    parts = [gate.metric + (f" per {gate.slice}" if gate.slice else "")]
    parts += [f"gap over {gate.gap}"] if gate.gap else []
    parts += [f"≥ {gate.min:g}"] if gate.min is not None else []
    parts += [f"≤ {gate.max:g}"] if gate.max is not None else []
    parts += [f"versus {gate.versus}, max_drop {gate.max_drop:g}"] if gate.versus else []
    return " ".join(parts)


def _judge_limits(gate: Gate, metric: Metric, this: Measured, rows: Rows) -> Part:
    found = this.metrics.get(metric.name)
    if found is None or not math.isfinite(found.value):
        return Part(outcome=Outcome.INCONCLUSIVE, message=f"{metric.name} cannot be computed: {_why_not(metric, this)}")
    count = len(this.predictions)
    decided = within(found, count, minimum=gate.min, maximum=gate.max, confidence=rows.settings.confidence)
    details = {"value": found.value, "low": found.low, "high": found.high, **said_by(decided)}
    message = f"{metric.name} is {shown(found)}{undecided(decided, found, count)}"
    return Part(outcome=decided.outcome, message=message, details=details)


def _why_not(metric: Metric, this: Measured) -> str:
    unasked = "it was not measured" if metric.values is None else "it is not defined on these rows"
    return this.troubles.get(metric.name) or why_undefined(metric, this.predictions) or unasked


def _judge_versus(gate: Gate, metric: Metric, models: tuple[Measured, Champion], rows: Rows) -> Part:
    this, champion = models
    if champion.measured is None:
        return Part(outcome=Outcome.INCONCLUSIVE if champion.broken else Outcome.SKIP, message=champion.why)
    ours, theirs = this.metrics.get(metric.name), champion.measured.metrics.get(metric.name)
    if ours is None or theirs is None or not (math.isfinite(ours.value) and math.isfinite(theirs.value)):
        return Part(outcome=Outcome.INCONCLUSIVE, message=f"{metric.name} cannot be computed for both versions")
    between = champion.differences.get(metric.name) or Estimate(value=ours.value - theirs.value)
    count = len(this.predictions)
    decided = non_inferior(
        between,
        count,
        margin=float(gate.max_drop or 0),
        higher_is_better=metric.higher_is_better,
        confidence=rows.settings.confidence,
    )
    details = {
        "champion": theirs.value,
        "difference": between.value,
        "difference_low": between.low,
        "difference_high": between.high,
        **{k if k == "rows_needed" else f"{k}_versus": v for k, v in said_by(decided).items()},
    }
    name = f"{gate.versus} (version {champion.version}: {theirs.value:.4g})"
    message = f"{ours.value:.4g}, {shown(between, signed=True)} against {name}{undecided(decided, between, count)}"
    return Part(outcome=decided.outcome, message=message, details=details)


def said_by(decided: Decision) -> dict[str, Any]:
    """What the evidence keeps of a decision besides its outcome."""
    found = {"p_pass": decided.p_pass, "p_fail": decided.p_fail, "rows_needed": decided.rows_needed}
    return {k: v for k, v in found.items() if v is not None}


def undecided(decided: Decision, estimate: Estimate, rows: int, what: str = "rows") -> str:
    """The rest of a sentence where the rows did not decide; empty where they did."""
    if decided.outcome is not Outcome.INCONCLUSIVE:
        return ""
    if estimate.method == MEASURED:
        return ": what was measured does not decide it"
    if estimate.low is None:
        return f": {rows:,} {what} give no interval, so nothing is decided"
    if decided.rows_needed is None:
        return f": {rows:,} {what} do not decide it, and it is so near to the limit that no sensible number would"
    return f": {rows:,} {what} do not decide it, about {rounded(decided.rows_needed - rows)} more would"


def rounded(count: int) -> str:
    """A number of rows with two digits that mean something: ``2,300``."""
    if count < 10:
        return str(max(1, count))
    step = 10 ** (len(str(count)) - 2)
    return f"{math.ceil(count / step) * step:,}"


def shown(estimate: Estimate, *, signed: bool = False) -> str:
    """``0.8312 (0.8104 to 0.8511)``."""
    form = "+.4g" if signed else ".4g"
    text = format(estimate.value, form)
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} ({format(estimate.low, form)} to {format(estimate.high, form)})"
