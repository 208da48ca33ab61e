"""Metrics that are measured while a model predicts: speed, size, memory, and how it bears rows that are spoilt.

Quantiles of times come with an interval from order statistics, which asks nothing of how times are distributed: of n
calls, X(k) lies above the q-quantile with probability P(Binomial(n, q) < k) (David & Nagaraja, Order Statistics, 2003,
section 7.1). It says what other calls on the same machine would give, not what another machine would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.evaluate.bootstrap import Estimate, differences
from mlp_ci.evaluate.metrics import (
    BINARY,
    FORECASTING,
    METRICS,
    MULTICLASS,
    MULTILABEL,
    RANKING,
    REGRESSION,
    Array,
    Metric,
    Predictions,
    metric_called,
    why_undefined,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mlp_ci.evaluate.answers import Predicted
    from mlp_ci.spec import Gate

QUANTILES = {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
SINGLE = ("load_seconds", "memory_mb", "model_size_mb")
METHOD = "order statistics"
PREFIX = "robustness_"
# By which a model is compared with itself where no gate says what counts; the first that can be computed.
HEADLINES = {
    BINARY: ("roc_auc", "accuracy"),
    MULTICLASS: ("log_loss", "accuracy"),
    MULTILABEL: ("micro_f1",),
    REGRESSION: ("rmse",),
    FORECASTING: ("mae",),
    RANKING: ("ndcg",),
}


@dataclass(frozen=True)
class OrderStatistics:
    """Where the ``share`` quantile of what was measured may lie; ``values`` in rising order. A ``Belief``."""

    values: tuple[float, ...]
    share: float

    def bound(self, share: float) -> float:
        """The quantile lies below it with confidence ``share``; infinite where too few values say so."""
        from scipy.special import bdtr  # the binomial distribution; scipy.stats takes a second to import

        below = bdtr(np.arange(len(self.values)), len(self.values), self.share)  # P(quantile < X(k + 1))
        if share < 0.5:
            count = int((below <= share).sum())
            return self.values[count - 1] if count else -math.inf
        first = int((below < share).sum())
        return self.values[first] if first < len(self.values) else math.inf

    def p_at_least(self, limit: float) -> float:
        """The p-value of "the quantile is less than the limit"."""
        from scipy.special import bdtr

        return float(bdtr(sum(v < limit for v in self.values), len(self.values), self.share))

    def p_at_most(self, limit: float) -> float:
        """The p-value of "the quantile is more than the limit"."""
        from scipy.special import bdtrc

        under = sum(v <= limit for v in self.values)
        return float(bdtrc(under - 1, len(self.values), self.share)) if under else 1.0


def quantile(values: Array, share: float, confidence: float = 0.95) -> Estimate:
    """A quantile of measured values with its interval; a bound that the values do not give is None."""
    belief = OrderStatistics(tuple(np.sort(values).tolist()), share)
    low, high = belief.bound((1 - confidence) / 2), belief.bound((1 + confidence) / 2)
    return Estimate(
        value=float(np.quantile(values, share)),
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
        method=METHOD,
        belief=belief,
    )


def measured(predicted: Predicted, folder: Path, confidence: float = 0.95) -> dict[str, Estimate]:
    """What was measured of one model: milliseconds of single rows, rows per second of batches, seconds to load it,
    megabytes (10^6 bytes) of its memory and of its files in ``folder``."""
    return estimates_of(facts(predicted, folder), confidence)


def facts(predicted: Predicted, folder: Path) -> dict[str, Any]:
    """What was measured of the model in ``folder``, as plain JSON values: single measurements, nothing summed up."""
    found: dict[str, Any] = {
        "latency_ms": [round(v, 4) for v in np.sort(predicted.latency_ms).tolist()],
        "rows_per_second": [round(v, 1) for v in np.sort(predicted.rows_per_second).tolist()],
        "load_seconds": predicted.load_seconds,
        "memory_mb": predicted.memory_mb,
        "model_size_mb": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6,
    }
    return {name: value for name, value in found.items() if value not in (None, [])}


def estimates_of(value: Mapping[str, Any], confidence: float = 0.95) -> dict[str, Estimate]:
    """The metrics in what :func:`facts` gave, with intervals for the quantiles of times."""
    found = {name: Estimate(value=float(value[name])) for name in SINGLE if name in value}
    if "latency_ms" in value:
        times = np.asarray(value["latency_ms"], dtype=float)
        found |= {name: quantile(times, share, confidence) for name, share in QUANTILES.items()}
    if "rows_per_second" in value:
        speeds = np.asarray(value["rows_per_second"], dtype=float)
        found["throughput_rows_per_second"] = quantile(speeds, 0.5, confidence)
    return found


# ---------------------------------------------------------------- robustness


def kinds_of(gates: Sequence[Gate]) -> tuple[str, ...]:
    """The perturbations that gates ask for: each costs a prediction of all held-out rows, so no other is tried."""
    named = {gate.metric.removeprefix(PREFIX) for gate in gates if gate.metric.startswith(PREFIX)}
    return tuple(sorted(named & {"missing", "noise"}))


def headline(gates: Sequence[Gate], predictions: Predictions) -> Metric:
    """What counts: the metric of the first gate that predictions can be computed by, else the usual one of the task."""
    names = [g.metric for g in gates if g.gap is None and not g.metric.startswith(PREFIX)]
    for name in (*names, *HEADLINES[predictions.task]):
        metric = METRICS.get(name) or _or_none(name)
        if metric and metric.values and metric.comparable and not why_undefined(metric, predictions):
            return metric
    return METRICS[HEADLINES[predictions.task][-1]]


def _or_none(name: str) -> Metric | None:
    from mlp_ci.errors import InputError

    try:
        return metric_called(name)
    except InputError:
        return None  # a team's own


def robustness(predicted: Predicted, metric: Metric, **drawing: Any) -> tuple[dict[str, Estimate], dict[str, str]]:
    """By name, how much worse ``metric`` gets on the spoilt rows, and why that is not known where it is not.

    Positive is worse, in the metric's own unit; both on the same rows, so the interval is a paired one. ``drawing`` is
    what :func:`~mlp_ci.evaluate.bootstrap.differences` takes: design and settings.
    """
    found, troubles = {}, {}
    for kind, other in predicted.perturbed.items():
        name = f"{PREFIX}{kind}"
        if isinstance(other, str):
            troubles[name] = other
            continue
        pair = (predicted.predictions, other) if metric.higher_is_better else (other, predicted.predictions)
        found[name] = differences([metric], *pair, **drawing)[metric.name]
    return found, troubles
