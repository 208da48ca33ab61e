"""How good the live version's answers were, once labels have arrived, against its own evidence.

Labels are joined with the prediction log by ``request_id`` where the labels have it, else by the model's key. An
alarm needs the whole confidence interval to lie beyond the drop that the team accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci import dvc
from mlp_ci.data.duck import open_file
from mlp_ci.data.duck_sql import quoted
from mlp_ci.data.plan import types_wanted
from mlp_ci.errors import InputError, MlpError
from mlp_ci.evaluate.bootstrap import estimates
from mlp_ci.evaluate.metrics import BINARY, METRICS, MULTICLASS, REGRESSION, THRESHOLD, Array, Metric, Predictions
from mlp_ci.monitor.look import WINDOW, load_rows
from mlp_ci.report import Finding, Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.monitor.windows import Span
    from mlp_ci.spec.model import ModelSpec

PASS, ALARM, INSUFFICIENT = "pass", "alarm", "insufficient"
REQUEST = "request_id"


@dataclass(frozen=True, kw_only=True)
class PerformanceLook:
    """One metric over the labelled rows of a window; ``low`` and ``high`` bound it with 95 % confidence."""

    metric: str
    outcome: str
    rows: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    evidence: float | None = None
    max_drop: float = 0.0
    reason: str = ""

    @property
    def shown_value(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return "unknown"
        return f"{self.value:.3f} ({self.low:.3f} – {self.high:.3f})"

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
        severity = "warning" if outcome is Outcome.FAIL else "notice"
        return Finding(check="performance", outcome=outcome, subject=self.metric, message=message, severity=severity)


def look_at_performance(
    repo: Path, spec: ModelSpec, parts: list[Path], span: Span, version: int, evidence: Mapping[str, Any]
) -> PerformanceLook | None:
    """The metric of ``monitor.performance`` for one version in a window; None when nobody asked for it.

    What stands in the way (no labels yet, too few, an unreachable remote) makes it ``insufficient`` with a reason:
    labels that are late must not blind the look at drift.
    """
    wanted = spec.monitor.performance
    if wanted is None or spec.monitor.labels is None:
        return None
    unknown = PerformanceLook(metric=wanted.metric, outcome=INSUFFICIENT, rows=0, max_drop=wanted.max_drop)
    try:
        expected = evidence_value(evidence, wanted.metric)
        metric = metric_named(wanted.metric)
        labels, predictions = _joined(repo, spec, parts, span, version)
        value, low, high = measure(metric, labels, predictions, spec.monitor.drift.min_rows)
    except MlpError as error:
        return PerformanceLook(**{**vars(unknown), "reason": error.what})
    drop = (expected - high) if metric.higher_is_better else (low - expected)
    return PerformanceLook(
        metric=wanted.metric,
        outcome=ALARM if drop > wanted.max_drop else PASS,
        rows=len(labels),
        value=value,
        low=low,
        high=high,
        evidence=expected,
        max_drop=wanted.max_drop,
    )


def evidence_value(evidence: Mapping[str, Any], metric: str) -> float:
    """The metric that the version's evidence gives, whether written as a number or with its interval."""
    metrics = evidence.get("metrics")
    found = metrics.get(metric) if isinstance(metrics, Mapping) else None
    value = found.get("value") if isinstance(found, Mapping) else found
    if not isinstance(value, int | float) or isinstance(value, bool):
        msg = f"the version's evidence has no {metric}"
        raise InputError(msg, fix=f"add a gate on {metric}, and evaluate again")
    return float(value)


def measure(metric: Metric, labels: Array, predictions: Array, min_rows: int) -> tuple[float, float, float]:
    """The metric and its 95 % interval, made as the evidence's are. InputError when the rows do not decide."""
    if len(labels) < min_rows:
        msg = f"{len(labels):,} labelled rows, {min_rows:,} are needed"
        raise InputError(msg)
    found = estimates([metric], predictions_of(metric, labels, predictions))[metric.name]
    if found.low is None or found.high is None:
        msg = f"{metric.name} is not defined on the rows of this window"
        raise InputError(msg)
    return found.value, found.low, found.high


def _joined(repo: Path, spec: ModelSpec, parts: list[Path], span: Span, version: int) -> tuple[Array, Array]:
    """Labels and predictions of the rows that have both, as numbers."""
    data, path = spec.data, spec.monitor.labels or ""
    file = dvc.pull(repo, [path])[path]
    with open_file(file, path, types_wanted(data)) as labelled:
        connection = labelled.connection
        there = {c.name for c in labelled.schema()}
        unreadable = load_rows(connection, parts, span, ["prediction", REQUEST, *data.key]) if parts else ()
        if len(unreadable) == len(parts):
            msg = "no predictions in this window"
            raise InputError(msg)
        logged = {str(name) for name, *_ in connection.execute(f"DESCRIBE {WINDOW}").fetchall()}
        by = _join_columns(there, logged, data.key, path)
        if data.target not in there:
            msg = f"{path} has no column {data.target}"
            raise InputError(msg)
        on = " AND ".join(f"CAST(l.{quoted(c)} AS VARCHAR) = CAST(w.{quoted(c)} AS VARCHAR)" for c in by)
        columns = ", ".join(quoted(c) for c in by)
        found = connection.execute(
            f"SELECT TRY_CAST(l.target AS DOUBLE) AS label, TRY_CAST(w.prediction AS DOUBLE) AS prediction "
            f"FROM {WINDOW} w JOIN (SELECT {columns}, any_value({quoted(data.target)}) AS target FROM data "
            f"GROUP BY {columns}) l ON {on} WHERE w.version = {version:d} AND label IS NOT NULL "
            "AND isfinite(label) AND w.prediction IS NOT NULL AND isfinite(TRY_CAST(w.prediction AS DOUBLE))"
        ).fetchnumpy()
    return _plain(found["label"]), _plain(found["prediction"])


def _plain(values: Any) -> Array:
    return np.asarray(np.ma.compressed(values), dtype=float)


def _join_columns(labels: set[str], log: set[str], key: tuple[str, ...], path: str) -> tuple[str, ...]:
    if REQUEST in labels:
        return (REQUEST,)
    if key and labels.issuperset(key) and log.issuperset(key):
        return key
    have = f"{REQUEST} or {', '.join(key)}" if key else REQUEST
    msg = f"{path} and the prediction log cannot be joined: both need {have}"
    raise InputError(msg)


# ---------------------------------------------------------------- metrics

# Classes by name are not in the log as numbers, and what is measured rather than computed needs no labels.
LIVE = {m.name: m for m in METRICS.values() if m.values and set(m.tasks) != {MULTICLASS}}


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
    if metric.name in ("log_loss", "brier") and not shares:
        msg = f"{metric.name} needs probabilities, and the log has predictions that are none"
        raise InputError(msg)
    positive = 1.0 if flags else labels.max()
    return Predictions(
        task=BINARY,
        target=(labels == positive).astype(int),
        label=(predictions >= THRESHOLD if shares else predictions == positive).astype(int),
        probability=predictions,
    )
