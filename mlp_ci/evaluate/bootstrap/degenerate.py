"""Where replicates say nothing, or too little: (nearly) perfect shares, the same predictions, no variation."""

from __future__ import annotations

import numpy as np

from mlp_ci.evaluate.bootstrap.estimate import Belief, Certain
from mlp_ci.evaluate.bootstrap.exact import FEW, ClopperPearson, Discordant
from mlp_ci.evaluate.metrics import BINARY, MULTICLASS, MULTILABEL, RANKING, Array, Metric, Predictions, Sums

Known = tuple[Belief, str]  # and what the method is called
CLOPPER_PEARSON, CONSTANT, SAME = "clopper-pearson", "constant", "same predictions"
PROBE = np.array([[3.0, 8.0], [7.0, 7.0]])


def few_events(metric: Metric, models: tuple[Predictions, ...]) -> Known | None:
    """An exact interval for a share of independent rows with few hits or few misses; None where a bootstrap will do."""
    flags = [hits_of(metric, m) for m in models]
    if any(f is None for f in flags):
        return None
    hits = [f for f in flags if f is not None]
    if len(hits) == 1:
        found, rows = float(hits[0].sum()), len(hits[0])
        if rows and min(found, rows - found) < FEW:
            return ClopperPearson(found, rows), CLOPPER_PEARSON
        return None
    gained, lost = float((hits[0] > hits[1]).sum()), float((hits[0] < hits[1]).sum())
    return (Discordant(gained, lost, len(hits[0])), f"{CLOPPER_PEARSON}, paired") if gained + lost < FEW else None


def hits_of(metric: Metric, predictions: Predictions) -> Array | None:
    """One flag a row where the metric is the mean of such flags over all rows (accuracy); else None."""
    if not isinstance(metric.values, Sums) or predictions.task == RANKING:
        return None
    rows = metric.values.per_row(predictions)
    if rows.shape[1] != 2 or not ((rows[:, 1] == 1).all() and np.isin(rows[:, 0], (0, 1)).all()):
        return None
    return rows[:, 0] if np.allclose(metric.values.combine(PROBE), PROBE[:, 0] / PROBE[:, 1]) else None


def without_variation(metric: Metric, models: tuple[Predictions, ...], value: float, units: int) -> Known | None:
    """What to believe where all replicates are equal; None where that says nothing.

    A perfect score between 0 and 1 is one of so many rows without a mistake as the rarest class has, or so many units
    as were drawn: the fewest on which it can rest.
    """
    if len(models) == 2:
        return Certain(value), CONSTANT
    model = models[0]
    classes = model.task in (BINARY, MULTICLASS)
    if not classes and model.task not in (MULTILABEL, RANKING):
        return None
    rarest = int(np.unique(model.target, return_counts=True)[1].min()) if classes else units
    rests_on = min(units, rarest)
    if value == (1 if metric.higher_is_better else 0):
        return ClopperPearson(rests_on * value, rests_on), f"{CLOPPER_PEARSON}, {rests_on:,} rows"
    # A model that gives one answer to everything has a metric that does not depend on which rows are drawn.
    return (Certain(value), CONSTANT) if _says_one_thing(model) else None


def same_predictions(this: Predictions, other: Predictions) -> bool:
    """Whether two models cannot differ in any metric of these rows."""
    if (this.probability is None) != (other.probability is None):
        return False
    equal = np.array_equal(this.label, other.label, equal_nan=True) and np.array_equal(this.target, other.target)
    if this.probability is None or other.probability is None:
        return equal
    return equal and np.array_equal(this.probability, other.probability, equal_nan=True)


def _says_one_thing(model: Predictions) -> bool:
    said = model.label if model.probability is None else model.probability
    return bool((said == said[:1]).all())
