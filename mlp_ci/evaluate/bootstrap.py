"""Percentile bootstrap intervals: what a metric might have been with other rows of the same kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.evaluate.metrics import Array, Metric, Predictions, value_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REPLICATES = 500
MOST_ROWS = 20_000
LEVEL = 0.95
SEED = 20130101
CHUNK = 50  # replicates at a time: 50 × 20,000 doubles are 8 MB


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric's value with its interval; the bounds are None where too few replicates define the metric."""

    value: float
    low: float | None = None
    high: float | None = None


def estimates(
    metrics: Sequence[Metric], predictions: Predictions, *, most_rows: int = MOST_ROWS
) -> dict[str, Estimate]:
    """Each metric over all rows, with a 95 % percentile interval from 500 resamples (Efron & Tibshirani, 1993).

    Above ``most_rows`` rows the resamples are of a fixed random choice of so many, and the interval is narrowed by
    the square root of the ratio, as the standard error is.
    """
    point = {m.name: value_of(m, predictions) for m in metrics}
    sample, narrowing = _sample(predictions, most_rows)
    found: dict[str, list[Array]] = {m.name: [] for m in metrics}
    for weights in resamples(len(sample)):
        for metric in metrics:
            if metric.values:
                found[metric.name].append(metric.values(sample, weights))
    return {
        m.name: _estimate(point[m.name], value_of(m, sample), np.concatenate(found[m.name]), narrowing) for m in metrics
    }


def difference(metric: Metric, this: Predictions, other: Predictions) -> Estimate:
    """``this`` minus ``other`` on the same rows, both resampled together."""
    point = value_of(metric, this) - value_of(metric, other)
    one, narrowing = _sample(this)
    two, _ = _sample(other)
    if metric.values is None:
        return Estimate(value=point)
    found = [metric.values(one, weights) - metric.values(two, weights) for weights in resamples(len(one))]
    return _estimate(point, value_of(metric, one) - value_of(metric, two), np.concatenate(found), narrowing)


def resamples(rows: int) -> Iterator[Array]:
    """How often each row is drawn, for ``CHUNK`` resamples at a time; the same for the same number of rows."""
    chance = np.random.default_rng(SEED)
    for start in range(0, REPLICATES, CHUNK):
        count = min(CHUNK, REPLICATES - start)
        drawn = chance.integers(0, rows, size=(count, rows)) + np.arange(count)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows).astype(float)


def _sample(predictions: Predictions, most_rows: int = MOST_ROWS) -> tuple[Predictions, float]:
    if len(predictions) <= most_rows:
        return predictions, 1.0
    rows = np.sort(np.random.default_rng(SEED).choice(len(predictions), most_rows, replace=False))
    return predictions.take(rows), float(np.sqrt(most_rows / len(predictions)))


def _estimate(point: float, centre: float, replicates: Array, narrowing: float) -> Estimate:
    defined = replicates[np.isfinite(replicates)]
    if len(defined) < REPLICATES / 2 or not np.isfinite(point):
        return Estimate(value=point)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(
        value=point,
        low=float(point + (low - centre) * narrowing),
        high=float(point + (high - centre) * narrowing),
    )
