"""Intervals of metrics: what a metric might have been with other rows of the same kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.evaluate.bootstrap.bca import bca
from mlp_ci.evaluate.bootstrap.design import Design, design_of, units_of, weights_of
from mlp_ci.evaluate.bootstrap.estimate import UNDEFINED, Estimate, estimate_of, undefined
from mlp_ci.evaluate.metrics import Array, Metric, Predictions, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

REPLICATES = 2000
MOST_ROWS = 20_000
LEVEL = 0.95
SEED = 20130101
GROUPS = 200  # of the grouped jackknife that the acceleration comes from


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How many replicates, which interval, and where chance begins. Above ``most_rows`` rows the replicates are of a
    fixed random choice of so many, and the interval is narrowed as the standard error is."""

    replicates: int = REPLICATES
    confidence: float = LEVEL
    seed: int = SEED
    most_rows: int = MOST_ROWS


DEFAULTS = Settings()


def estimates(
    metrics: Sequence[Metric], predictions: Predictions, design: Design | None = None, settings: Settings = DEFAULTS
) -> dict[str, Estimate]:
    """Each computed metric over all rows with its interval; ``design`` None draws single rows."""
    return _estimates(metrics, (predictions,), design, settings)


def differences(
    metrics: Sequence[Metric],
    this: Predictions,
    other: Predictions,
    design: Design | None = None,
    settings: Settings = DEFAULTS,
) -> dict[str, Estimate]:
    """``this`` minus ``other`` on the same rows: in every replicate both have the same weights."""
    return _estimates(metrics, (this, other), design, settings)


def difference(metric: Metric, this: Predictions, other: Predictions) -> Estimate:
    """One metric of ``differences``."""
    return differences([metric], this, other)[metric.name]


def resamples(rows: int, settings: Settings = DEFAULTS) -> Iterator[Array]:
    """How often each of independent rows is drawn, some replicates at a time."""
    return weights_of(Design(rows=rows), settings.replicates, settings.seed)


def _estimates(
    metrics: Sequence[Metric], models: tuple[Predictions, ...], design: Design | None, settings: Settings
) -> dict[str, Estimate]:
    whole = models
    rows = len(models[0])
    design = design or Design(rows=rows)
    narrowing = 1.0
    if rows > settings.most_rows and design.clusters is None and design.times is None:
        some = np.sort(np.random.default_rng(settings.seed).choice(rows, settings.most_rows, replace=False))
        models = tuple(m.take(some) for m in models)
        design = Design(rows=len(some), strata=None if design.strata is None else design.strata[some])
        narrowing = float(np.sqrt(settings.most_rows / rows))
    found: dict[str, list[Array]] = {m.name: [] for m in metrics}
    if rows:
        for weights in weights_of(design, settings.replicates, settings.seed):
            for metric in metrics:
                found[metric.name].append(_values(metric, models, weights))
    made = {}
    for metric in metrics:
        point, centre = _point(metric, whole), _point(metric, models)
        if metric.values is None or not rows:
            made[metric.name] = Estimate(value=point)
            continue
        replicates = point + (np.concatenate(found[metric.name]) - centre) * narrowing
        made[metric.name] = _interval(point, replicates, settings, lambda m=metric: _acceleration(m, models, design))  # type: ignore[misc]
    return made


def _point(metric: Metric, models: tuple[Predictions, ...]) -> float:
    values = [value_of(metric, m) for m in models]
    return values[0] if len(values) == 1 else values[0] - values[1]


def _values(metric: Metric, models: tuple[Predictions, ...], weights: Array) -> Array:
    if metric.values is None:
        return np.full(len(weights), np.nan)
    values = [metric.values(m, weights) for m in models]
    return values[0] if len(values) == 1 else values[0] - values[1]


def _interval(point: float, replicates: Array, settings: Settings, acceleration: Callable[[], float]) -> Estimate:
    defined = replicates[np.isfinite(replicates)]
    if len(defined) < settings.replicates / 2 or not np.isfinite(point):
        return undefined(point)
    belief = bca(point, defined, acceleration())
    return estimate_of(point, belief, settings.confidence, belief.standard_error, "bca")


def _acceleration(metric: Metric, models: tuple[Predictions, ...], design: Design) -> float:
    """From a jackknife that leaves out groups of units: a third of the skewness of the mean's influence, over 2."""
    units = units_of(design)
    count = int(units.max()) + 1
    groups = np.random.default_rng(0).permutation(count)[units] % min(count, GROUPS)
    found = []
    for start in range(0, min(count, GROUPS), 20):
        left_out = np.arange(start, min(start + 20, count, GROUPS))
        found.append(_values(metric, models, (groups[None, :] != left_out[:, None]).astype(float)))
    values = np.concatenate(found)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return 0.0
    apart = values.mean() - values
    spread = float((apart**2).sum())
    return float((apart**3).sum() / (6 * spread**1.5)) if spread > 0 else 0.0


__all__ = [
    "LEVEL",
    "MOST_ROWS",
    "REPLICATES",
    "SEED",
    "UNDEFINED",
    "Design",
    "Estimate",
    "Settings",
    "design_of",
    "difference",
    "differences",
    "estimates",
    "resamples",
]
