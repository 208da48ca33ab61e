"""Intervals of metrics: what a metric might have been with other rows of the same kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.evaluate.bootstrap import degenerate, influence
from mlp_ci.evaluate.bootstrap.bca import bca
from mlp_ci.evaluate.bootstrap.design import Design, Units, design_of, units_of
from mlp_ci.evaluate.bootstrap.estimate import UNDEFINED, Certain, Estimate, estimate_of, undefined
from mlp_ci.evaluate.bootstrap.replicates import Chunks, is_ranked, replicates, row_weights
from mlp_ci.evaluate.metrics import METRICS, Array, Metric, Predictions, Sums, value_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REPLICATES = 2000
MOST_ROWS = 20_000  # for the monitor, which looks at many windows
LEVEL = 0.95
SEED = 20130101
FEWEST_UNITS = 5  # clusters or blocks of time: fewer say nothing about how much they differ
DEFINED = 0.5  # of the replicates must have a value


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How many replicates, which interval, and where chance begins. Above ``most_rows`` independent rows the replicates
    are of a fixed random choice of so many, and the interval is narrowed as the standard error is."""

    replicates: int = REPLICATES
    confidence: float = LEVEL
    seed: int = SEED
    most_rows: int | None = None


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
    """One metric of :func:`differences`, for single rows."""
    return differences([metric], this, other)[metric.name]


def draws(design: Design, settings: Settings = DEFAULTS) -> Iterator[Array]:
    """How often each row is drawn in each replicate, ``(some replicates, rows)``: what all metrics were computed on."""
    yield from row_weights(Chunks(units_of(design), settings.replicates, settings.seed), design.rows)


def resamples(rows: int, settings: Settings = DEFAULTS) -> Iterator[Array]:
    """:func:`draws` of independent rows."""
    yield from draws(Design(rows=rows), settings)


Models = tuple[Predictions, ...]


def _estimates(
    metrics: Sequence[Metric], models: Models, design: Design | None, settings: Settings
) -> dict[str, Estimate]:
    design = design or Design(rows=len(models[0]))
    points = {m.name: _point(metric=m, models=models) for m in metrics}
    made: dict[str, Estimate] = {}
    for metric in metrics:
        known = _without_replicates(metric, models, design, points[metric.name])
        if isinstance(known, Estimate):
            made[metric.name] = known
        elif known:
            belief, method = known
            error = (belief.bound(0.8413) - belief.bound(0.1587)) / 2  # as far as one of a normal variable reaches
            made[metric.name] = estimate_of(points[metric.name], belief, settings.confidence, error, method)
    rest = [m for m in metrics if m.name not in made]
    if rest:
        made |= _bootstrapped(rest, models, design, settings)
    return {m.name: made[m.name] for m in metrics}


def _point(metric: Metric, models: Models) -> float:
    values = [value_of(metric, m) for m in models]
    return values[0] if len(values) == 1 else values[0] - values[1]


def _without_replicates(
    metric: Metric, models: Models, design: Design, point: float
) -> Estimate | degenerate.Known | None:
    """What is known of a metric without drawing anything, if that is so."""
    if metric.values is None:
        return Estimate(value=point)
    if not np.isfinite(point) or design.rows < 2:
        return undefined(point)
    if len(models) == 2 and degenerate.same_predictions(*models):
        return Certain(0.0), degenerate.SAME
    return degenerate.few_events(metric, models) if design.independent else None


def _bootstrapped(metrics: Sequence[Metric], models: Models, design: Design, settings: Settings) -> dict[str, Estimate]:
    points = {m.name: _point(m, models) for m in metrics}
    models, design, narrowing = _sample(models, design, settings)
    units = units_of(design)
    if units.independent < FEWEST_UNITS:
        return {name: undefined(point) for name, point in points.items()}
    found = replicates(metrics, models, Chunks(units, settings.replicates, settings.seed))
    made = {}
    for metric in metrics:
        values = found[0, metric.name]
        if len(models) == 2:
            values = values - found[1, metric.name]
        point = points[metric.name]
        values = (
            point + (values[np.isfinite(values)] - (_point(metric, models) if narrowing < 1 else point)) * narrowing
        )
        if len(values) < settings.replicates * DEFINED:
            made[metric.name] = undefined(point)
        elif np.ptp(values) == 0:
            known = degenerate.without_variation(metric, models, point, units.independent)
            made[metric.name] = (
                estimate_of(point, known[0], settings.confidence, 0.0, known[1]) if known else undefined(point)
            )
        else:
            acceleration = influence.acceleration(_influences(metric, models, units), units.strata) * narrowing
            belief = bca(point, values, acceleration, units.independent)
            made[metric.name] = estimate_of(point, belief, settings.confidence, belief.standard_error, "bca")
    return made


def _sample(models: Models, design: Design, settings: Settings) -> tuple[Models, Design, float]:
    most = settings.most_rows
    if most is None or design.rows <= most or not design.independent:
        return models, design, 1.0
    some = np.sort(np.random.default_rng(settings.seed).choice(design.rows, most, replace=False))
    return tuple(m.take(some) for m in models), design.take(some), float(np.sqrt(most / design.rows))


def _influences(metric: Metric, models: Models, units: Units) -> Array:
    """How much each independent thing moves the metric, or the difference of two models."""
    found = [_influence(metric, m, units) for m in models]
    return found[0] if len(found) == 1 else found[0] - found[1]


def _influence(metric: Metric, model: Predictions, units: Units) -> Array:
    if isinstance(metric.values, Sums):
        return influence.of_sums(metric.values, model, units)
    if is_ranked(metric, model):
        score = np.asarray(model.probability)
        area = metric.values is METRICS["roc_auc"].values
        each = influence.of_area(model.target, score) if area else influence.of_average_precision(model.target, score)
        return units.gathered(each)
    return influence.by_groups(metric, model, units)


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
    "draws",
    "estimates",
    "resamples",
]
