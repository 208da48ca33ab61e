"""Judges the gates of model.yaml: pure values in, a verdict with a reason for every gate out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.evaluate.bootstrap import Estimate, difference
from mlp_ci.evaluate.metrics import Array, Metric, Predictions, metric_called, value_of
from mlp_ci.report import Outcome, worst

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.spec import Gate

MOST_SLICES = 100


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model on the held-out rows: its predictions and all its metrics (also the measured ones), by name."""

    predictions: Predictions
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The version that a stage has. ``measured`` is None when there is none or it could not be tried: ``why`` says."""

    stage: str
    version: int | None = None
    digest: str = ""
    measured: Measured | None = None
    why: str = ""
    broken: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The judgement of one gate; ``details`` are the values behind it, for the evidence."""

    gate: str
    metric: str
    outcome: Outcome
    message: str
    details: Mapping[str, Any]


def judge(
    gate: Gate, this: Measured, champions: Mapping[str, Champion], slices: Mapping[str, Array], min_rows: int
) -> Verdict:
    """One gate: its limits, over all rows or for each value of its slice, and its comparison with a champion."""
    metric = metric_called(gate.metric, this.predictions.task)
    parts: list[tuple[Outcome, str, dict[str, Any]]] = []
    champion = champions[gate.versus] if gate.versus else None
    limited = gate.min is not None or gate.max is not None
    tried = champion is not None and champion.measured is not None
    if gate.slice and (limited or tried):
        parts.append(_judge_slices(gate, metric, (this, champion), slices[gate.slice], min_rows))
    elif limited:
        parts.append(_judge_limits(gate, metric, this))
    if champion and not (gate.slice and tried):
        parts.append(_judge_versus(gate, metric, this, champion))
    outcome = worst([p[0] for p in parts])
    details: dict[str, Any] = {}
    for _, _, part in parts:
        details |= part
    message = "; ".join(p[1] for p in parts)
    return Verdict(gate=describe(gate), metric=gate.metric, outcome=outcome, message=message, details=details)


def overall(verdicts: Sequence[Verdict]) -> Outcome:
    """The verdict of the whole: one failed gate fails it, one undecided gate leaves it undecided."""
    return worst([v.outcome for v in verdicts])


def describe(gate: Gate) -> str:
    """A gate in the words of model.yaml: ``roc_auc per carrier ≥ 0.65``."""
    parts = [gate.metric + (f" per {gate.slice}" if gate.slice else "")]
    parts += [f"≥ {gate.min:g}"] if gate.min is not None else []
    parts += [f"≤ {gate.max:g}"] if gate.max is not None else []
    parts += [f"versus {gate.versus}, max_drop {gate.max_drop:g}"] if gate.versus else []
    return " ".join(parts)


def _within(gate: Gate, value: float) -> bool:
    return (gate.min is None or value >= gate.min) and (gate.max is None or value <= gate.max)


def _judge_limits(gate: Gate, metric: Metric, this: Measured) -> tuple[Outcome, str, dict[str, Any]]:
    found = this.metrics.get(metric.name)
    if found is None or not math.isfinite(found.value):
        why = "the model gives no probabilities" if metric.needs_probability else "it is not defined on these rows"
        return Outcome.INCONCLUSIVE, f"{metric.name} cannot be computed: {why}", {}
    outcome = Outcome.PASS if _within(gate, found.value) else Outcome.FAIL
    return outcome, f"{metric.name} is {shown(found)}", {"value": found.value, "low": found.low, "high": found.high}


def _judge_slices(
    gate: Gate, metric: Metric, models: tuple[Measured, Champion | None], column: Array, min_rows: int
) -> tuple[Outcome, str, dict[str, Any]]:
    """Each value of the column that has enough rows; the others are listed, not judged."""
    this, champion = models
    other = champion.measured if champion else None
    names, counts = np.unique(column, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rows, failed, judged, small = [], [], 0, []
    for i in order[:MOST_SLICES]:
        name, count = str(names[i]), int(counts[i])
        chosen = column == names[i]
        value = value_of(metric, this.predictions.take(chosen)) if count >= min_rows else math.nan
        theirs = value_of(metric, other.predictions.take(chosen)) if other and math.isfinite(value) else value
        decided = math.isfinite(value) and math.isfinite(theirs)
        drop = theirs - value if metric.higher_is_better else value - theirs
        passed = decided and _within(gate, value) and drop <= float(gate.max_drop or 0)
        verdict = Outcome.INCONCLUSIVE if not decided else Outcome.PASS if passed else Outcome.FAIL
        rows.append({"slice": name, "rows": count, "value": value if decided else None, "outcome": str(verdict)})
        judged += decided
        if not decided:
            small.append(f"{name} ({count})")
        elif not passed:
            failed.append(f"{name} {value:.4g}" + (f" against {theirs:.4g}" if other else ""))
    left_out = max(0, len(names) - MOST_SLICES)
    details = {"slices": rows, "slices_left_out": left_out}
    rest = f"; not judged (too few rows, or one class only): {', '.join(small[:10])}" if small else ""
    rest += f"; the {left_out} rarest values were not looked at" if left_out else ""
    if failed:
        return Outcome.FAIL, f"{len(failed)} of {judged} slices miss it: {', '.join(failed[:10])}{rest}", details
    if not judged:
        return Outcome.INCONCLUSIVE, f"no slice of {gate.slice} could be judged{rest}", details
    return Outcome.PASS, f"{judged} of {judged} slices meet it{rest}", details


def _judge_versus(
    gate: Gate, metric: Metric, this: Measured, champion: Champion
) -> tuple[Outcome, str, dict[str, Any]]:
    if champion.measured is None:
        return (Outcome.INCONCLUSIVE if champion.broken else Outcome.SKIP), champion.why, {}
    ours, theirs = this.metrics.get(metric.name), champion.measured.metrics.get(metric.name)
    if ours is None or theirs is None or not (math.isfinite(ours.value) and math.isfinite(theirs.value)):
        return Outcome.INCONCLUSIVE, f"{metric.name} cannot be computed for both versions", {}
    if metric.values:
        between = difference(metric, this.predictions, champion.measured.predictions)
    else:
        between = Estimate(value=ours.value - theirs.value)
    drop = -between.value if metric.higher_is_better else between.value
    allowed = float(gate.max_drop or 0)
    outcome = Outcome.PASS if drop <= allowed else Outcome.FAIL
    name = f"{gate.versus} (version {champion.version}: {theirs.value:.4g})"
    details = {
        "champion": theirs.value,
        "difference": between.value,
        "difference_low": between.low,
        "difference_high": between.high,
    }
    return outcome, f"{ours.value:.4g}, {shown(between, signed=True)} against {name}", details


def shown(estimate: Estimate, *, signed: bool = False) -> str:
    """``0.8312 (0.8104 to 0.8511)``."""
    form = "+.4g" if signed else ".4g"
    text = format(estimate.value, form)
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} ({format(estimate.low, form)} to {format(estimate.high, form)})"
