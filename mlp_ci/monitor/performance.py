"""How good the live version's answers were, once labels have arrived, against its own evidence.

What makes an alarm is said in :mod:`mlp_ci.monitor.promise`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.data.words import show_share
from mlp_ci.errors import InputError, MlpError
from mlp_ci.evaluate.bootstrap import MOST_ROWS, Estimate, Settings, estimates
from mlp_ci.evaluate.metrics import BINARY, METRICS, REGRESSION, THRESHOLD, Array, Metric, Predictions
from mlp_ci.monitor import estimate as expected
from mlp_ci.monitor.labelled import Labelled, join_labels
from mlp_ci.monitor.promise import (
    ALARM,
    ALPHA,
    INSUFFICIENT,
    PASS,
    Promise,
    WindowPerformance,
    persistent,
    together,
    unrest_of,
)
from mlp_ci.report import Finding, Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.data.profiles.outcomes import Outcomes
    from mlp_ci.monitor.windows import Span
    from mlp_ci.spec.model import ModelSpec

# Rows of one window that are resampled (its interval is narrowed to all of them): thirty windows in about a second.
WINDOW_ROWS = 2_000
# Less is within what chance makes of it.
SHOWN_UNREST = 1.2
# Without a word from the team, an estimated loss of this size is worth mentioning.
WORTH_MENTIONING = 0.01


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one version answered: the files of the prediction log, and the evidence it was registered with."""

    parts: Sequence[Path]
    version: int
    evidence: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PerformanceLook:
    """One metric over the labelled rows of a window; ``low`` and ``high`` bound it with 95 % confidence.

    ``windows`` is the timeline, oldest first; ``rule`` says which of the two ways an alarm was seen in; ``notices``
    are what was left out and why.
    """

    metric: str
    outcome: str
    rows: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    evidence: float | None = None
    max_drop: float = 0.0
    reason: str = ""
    answered: int = 0
    alpha: float = ALPHA
    rule: str = ""
    windows: tuple[WindowPerformance, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def shown_evidence(self) -> str:
        if self.value is None or self.evidence is None:
            return self.reason
        return f"{self.evidence:.3f} in the evidence; {self.rows:,} labelled rows"

    @property
    def sentence(self) -> str:
        """The middle of a sentence: what happened to the metric."""
        if self.value is None or self.evidence is None:
            return f"{self.metric} is unknown: {self.reason}"
        return f"{self.metric} went from {self.evidence:.3f} to {self.value:.3f}"

    def finding(self) -> Finding:
        """What the report says about it."""
        outcome = {PASS: Outcome.PASS, ALARM: Outcome.FAIL}.get(self.outcome, Outcome.INCONCLUSIVE)
        message = self.sentence
        if self.value is not None:
            message += f" (95 %: {self.low:.3f} – {self.high:.3f}) on {self.rows:,} labelled rows"
            message += f"; accepted is a drop of {self.max_drop:g}"
        if self.rule:
            message += f"; seen {self.rule}"
        message += "".join(f"; {notice}" for notice in self.notices)
        severity = "warning" if outcome is Outcome.FAIL else "notice"
        return Finding(check="performance", outcome=outcome, subject=self.metric, message=message, severity=severity)


def performance_by_window(
    repo: Path, spec: ModelSpec, answers: Answers, span: Span, windows: Sequence[Span] = (), *, alpha: float = ALPHA
) -> PerformanceLook | None:
    """The metric of ``monitor.performance`` over ``span`` and over each of ``windows``; None when nobody asked for it.

    The files of ``answers`` must cover all of them; the log and the labels are read once. ``alpha`` is the chance of a
    false alarm that this look may run. What stands in the way (no labels yet, too few, an unreachable remote) makes it
    ``insufficient`` with a reason: labels that are late must not blind the look at drift.
    """
    wanted = spec.monitor.performance
    if wanted is None or spec.monitor.labels is None:
        return None
    unknown = PerformanceLook(metric=wanted.metric, outcome=INSUFFICIENT, rows=0, max_drop=wanted.max_drop, alpha=alpha)
    try:
        metric = metric_named(wanted.metric)
        promise = Promise(
            metric=metric,
            evidence=evidence_estimate(answers.evidence, wanted.metric),
            max_drop=wanted.max_drop,
            alpha=alpha,
            persistence=spec.monitor.drift.persistence,
        )
        labelled = join_labels(repo, spec, answers.parts, [span, *windows], answers.version)
    except MlpError as error:
        return replace(unknown, reason=error.what)
    min_rows = spec.monitor.drift.min_rows
    whole = measured_window(metric, labelled, (span, labelled.answered[0]), min_rows, MOST_ROWS)
    order = sorted(zip(windows, labelled.answered[1:], strict=True), key=lambda pair: pair[0].until)
    timeline = tuple(measured_window(metric, labelled, pair, min_rows, WINDOW_ROWS) for pair in order)
    promise = replace(promise, unrest=unrest_of(timeline))
    known = replace(unknown, windows=timeline, notices=_notices(labelled, answers.version, promise.unrest))
    return judged(promise, known, whole)


# ---------------------------------------------------------------- the decision


def measured_window(
    metric: Metric, labelled: Labelled, window: tuple[Span, int], min_rows: int, most_rows: int
) -> WindowPerformance:
    """The metric in one span, of whose answers so many may have a label; not judged yet."""
    span, answered = window
    labels, predictions = labelled.within(span)
    found = WindowPerformance(
        since=span.since.astimezone(UTC).isoformat(),
        until=span.until.astimezone(UTC).isoformat(),
        answered=answered,
        rows=len(labels),
        outcome=INSUFFICIENT,
    )
    try:
        value, low, high = measure(metric, labels, predictions, min_rows, most_rows=most_rows)
    except MlpError as error:
        return replace(found, reason=error.what)
    return replace(found, outcome=PASS, value=value, low=low, high=high)


def judged(promise: Promise, known: PerformanceLook, whole: WindowPerformance) -> PerformanceLook:
    """The verdict over the whole window and its timeline, which were measured before."""
    known = replace(known, windows=tuple(promise.judge(w) for w in known.windows))
    whole = promise.judge(whole, promise.alpha / 2)
    run = persistent(known.windows, promise.persistence)
    if run and not promise.broken_by(*together(run), promise.alpha / 2):
        run = []
    shown, rule = whole, ""
    if whole.outcome == ALARM:
        rule = f"over the whole window, at {show_share(1 - promise.alpha / 2)} confidence"
    elif run:
        rule = f"in {len(run)} windows in a row, the last until {run[0].until}"
        shown = whole if whole.value is not None else run[0]
    return replace(
        known,
        outcome=ALARM if rule else whole.outcome,
        rows=shown.rows,
        answered=shown.answered,
        value=shown.value,
        low=shown.low,
        high=shown.high,
        evidence=None if shown.value is None else promise.evidence.value,
        reason=shown.reason,
        rule=rule,
    )


def _notices(labelled: Labelled, version: int, unrest: float) -> tuple[str, ...]:
    said = []
    if labelled.conflicting:
        said.append(f"{labelled.conflicting:,} answers have labels that contradict each other and are left out")
    if labelled.elsewhere:
        others = sum(labelled.elsewhere.values())
        said.append(f"{others:,} labelled answers are of other versions than {version} and are left out")
    if unrest >= SHOWN_UNREST:
        said.append(f"windows vary {unrest:.1f} times as much as their rows explain, and limits are that much wider")
    return tuple(said)


# ---------------------------------------------------------------- without labels


def estimate_performance(
    spec: ModelSpec, evidence: Mapping[str, Any], outcomes: Outcomes | None, window_counts: Sequence[int]
) -> expected.Estimate:
    """What the metric probably is before labels arrive: that of ``monitor.performance``, else the first gate that can
    be estimated, else roc_auc. ``window_counts`` are the window's predictions in the bins of ``outcomes``. What does
    not fit is ``insufficient``: an estimate must not blind the look at drift.
    """
    wanted = spec.monitor.performance
    gates = [g for g in spec.evaluate.gates if g.metric in expected.ESTIMABLE]
    metric = wanted.metric if wanted else gates[0].metric if gates else "roc_auc"
    try:
        return expected.estimate(
            metric,
            outcomes,
            window_counts,
            evidence_estimate(evidence, metric).value if outcomes else math.nan,
            min_rows=spec.monitor.drift.min_rows,
            smallest=wanted.max_drop if wanted else WORTH_MENTIONING,
        )
    except MlpError as error:
        rows = int(sum(window_counts))
        return expected.Estimate(metric=metric, outcome=INSUFFICIENT, rows=rows, reason=error.what)


# ---------------------------------------------------------------- measuring


def evidence_estimate(evidence: Mapping[str, Any], metric: str) -> Estimate:
    """The metric of the version's evidence, with its interval where it has one. InputError when it is not there."""
    metrics = evidence.get("metrics")
    found = metrics.get(metric) if isinstance(metrics, Mapping) else None
    numbers = found if isinstance(found, Mapping) else {"value": found}
    value, low, high = (_number(numbers.get(name)) for name in ("value", "low", "high"))
    if value is None:
        msg = f"the version's evidence has no {metric}"
        raise InputError(msg, fix=f"add a gate on {metric}, and evaluate again")
    return Estimate(value=value, low=low, high=high)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def measure(
    metric: Metric, labels: Array, predictions: Array, min_rows: int, *, most_rows: int = MOST_ROWS
) -> tuple[float, float, float]:
    """The metric and its 95 % interval, made as the evidence's are. InputError when the rows do not decide."""
    if len(labels) < min_rows:
        msg = f"{len(labels):,} labelled rows, {min_rows:,} are needed"
        raise InputError(msg)
    settings = Settings(most_rows=most_rows)
    found = estimates([metric], predictions_of(metric, labels, predictions), settings=settings)[metric.name]
    if found.low is None or found.high is None:
        msg = f"{metric.name} is not defined on the rows of this window"
        raise InputError(msg)
    return found.value, found.low, found.high


# ---------------------------------------------------------------- metrics

# Classes by name are not in the log as numbers, and what is measured rather than computed needs no labels.
LIVE = {m.name: m for m in METRICS.values() if m.values and m.comparable and {BINARY, REGRESSION} & set(m.tasks)}


def metric_named(name: str) -> Metric:
    """The metric of this name, as in the evidence. InputError names those that can be measured on live data."""
    if name not in LIVE:
        msg = f"{name} cannot be measured on live data; possible are {', '.join(sorted(LIVE))}"
        raise InputError(msg)
    return LIVE[name]


def predictions_of(metric: Metric, labels: Array, predictions: Array) -> Predictions:
    """Labels and logged predictions as the evidence's metrics take them; the larger of two labels is the positive one.

    Predictions between 0 and 1 are probabilities, cut at a half where a class is asked for; others are classes, or
    scores where only their order counts. InputError when the metric needs what is not there.
    """
    if REGRESSION in metric.tasks:
        return Predictions(task=REGRESSION, target=labels, label=predictions)
    shares = bool(((predictions >= 0) & (predictions <= 1)).all())
    flags = bool(np.isin(labels, (0, 1)).all())
    if metric.name == "accuracy" and not (shares and flags):
        return Predictions(task=BINARY, target=labels, label=predictions)
    if metric.name != "accuracy" and len(np.unique(labels)) != 2:
        msg = "the labels of this window do not have two classes"
        raise InputError(msg)
    if metric.name in ("log_loss", "brier", "brier_skill", "ece") and not shares:
        msg = f"{metric.name} needs probabilities, and the log has predictions that are none"
        raise InputError(msg)
    positive = 1.0 if flags else labels.max()
    return Predictions(
        task=BINARY,
        target=(labels == positive).astype(int),
        label=(predictions >= THRESHOLD if shares else predictions == positive).astype(int),
        probability=predictions,
    )
