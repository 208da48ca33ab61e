"""How good the live version's answers were, once labels have arrived, against its own evidence.

Labels are joined with the prediction log by ``request_id`` where the labels have it, else by the model's key. An
alarm needs the whole confidence interval to lie beyond the drop that the team accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci import dvc
from mlp_ci.data.duck import open_file
from mlp_ci.data.duck_sql import quoted
from mlp_ci.data.plan import types_wanted
from mlp_ci.errors import InputError, MlpError
from mlp_ci.monitor.look import WINDOW, load_rows
from mlp_ci.report import Finding, Outcome

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from mlp_ci.monitor.windows import Span
    from mlp_ci.spec.model import ModelSpec

    Numbers = np.ndarray[Any, np.dtype[Any]]

PASS, ALARM, INSUFFICIENT = "pass", "alarm", "insufficient"
REQUEST = "request_id"
RESAMPLES = 200
# More labelled rows than this are sampled: the interval is then narrower than any drop that a team writes down.
MOST_ROWS = 50_000
SEED = 17


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


@dataclass(frozen=True, kw_only=True)
class Metric:
    """``compute(labels, predictions)``; ``better`` is 1 where more is better and -1 where less is."""

    compute: Callable[[Numbers, Numbers], float]
    better: int
    two_classes: bool = False


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
    drop = (expected - high) if metric.better > 0 else (low - expected)
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


def measure(metric: Metric, labels: Numbers, predictions: Numbers, min_rows: int) -> tuple[float, float, float]:
    """The metric and its 95 % bootstrap interval (percentiles; Efron 1979). InputError when the rows do not decide."""
    import numpy as np

    if len(labels) < min_rows:
        msg = f"{len(labels):,} labelled rows, {min_rows:,} are needed"
        raise InputError(msg)
    if metric.two_classes and len(np.unique(labels)) != 2:
        msg = "the labels of this window do not have two classes"
        raise InputError(msg)
    random = np.random.default_rng(SEED)
    if len(labels) > MOST_ROWS:
        chosen = random.choice(len(labels), MOST_ROWS, replace=False)
        labels, predictions = labels[chosen], predictions[chosen]
    values = []
    for _ in range(RESAMPLES):
        rows = random.integers(0, len(labels), len(labels))
        if not metric.two_classes or len(np.unique(labels[rows])) == 2:
            values.append(metric.compute(labels[rows], predictions[rows]))
    low, high = np.quantile(values, [0.025, 0.975])
    return metric.compute(labels, predictions), float(low), float(high)


def _joined(repo: Path, spec: ModelSpec, parts: list[Path], span: Span, version: int) -> tuple[Numbers, Numbers]:
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


def _plain(values: Any) -> Numbers:
    import numpy as np

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


def metric_named(name: str) -> Metric:
    """The metric of this name. InputError names those that can be measured on live data."""
    if name not in METRICS:
        msg = f"{name} cannot be measured on live data; possible are {', '.join(sorted(METRICS))}"
        raise InputError(msg)
    return METRICS[name]


def roc_auc(labels: Numbers, predictions: Numbers) -> float:
    """Area under the ROC curve, as the Mann-Whitney statistic with ties shared (Hanley & McNeil 1982)."""
    import numpy as np

    _, inverse, counts = np.unique(predictions, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive = labels == labels.max()
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def accuracy(labels: Numbers, predictions: Numbers) -> float:
    """Share of right answers. Labels of 0 and 1 with predictions between them are probabilities, cut at a half."""
    import numpy as np

    if np.isin(labels, (0, 1)).all() and ((predictions >= 0) & (predictions <= 1)).all():
        predictions = (predictions >= 0.5).astype(float)
    return float((labels == predictions).mean())


def _log_loss(labels: Numbers, predictions: Numbers) -> float:
    import numpy as np

    p = np.clip(predictions, 1e-15, 1 - 1e-15)
    return float(-(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean())


METRICS: Mapping[str, Metric] = {
    "roc_auc": Metric(compute=roc_auc, better=1, two_classes=True),
    "accuracy": Metric(compute=accuracy, better=1),
    "log_loss": Metric(compute=_log_loss, better=-1),
    "brier": Metric(compute=lambda y, p: float(((y - p) ** 2).mean()), better=-1),
    "rmse": Metric(compute=lambda y, p: float(((y - p) ** 2).mean() ** 0.5), better=-1),
    "mae": Metric(compute=lambda y, p: float(abs(y - p).mean()), better=-1),
}
