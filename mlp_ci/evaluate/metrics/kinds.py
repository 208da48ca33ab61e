"""What a metric and the predictions it judges are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BINARY, MULTICLASS, REGRESSION = "binary", "multiclass", "regression"
MULTILABEL, RANKING, FORECASTING = "multilabel", "ranking", "forecasting"
TASKS = (BINARY, MULTICLASS, MULTILABEL, REGRESSION, RANKING, FORECASTING)
# Probabilities of exactly 0 or 1 are moved in by this much before a logarithm, as scikit-learn does for doubles.
TINY = float(np.finfo(np.float64).eps)
THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Targets and predictions of the same rows.

    ``target`` holds class indices (binary: 1 is the positive class) or numbers; ``label`` the predicted class indices
    or numbers; ``probability`` is ``(rows,)`` for binary, ``(rows, classes)`` for multiclass, None if there is none.
    Multilabel: ``target`` and ``label`` are 0 or 1, ``(rows, classes)``, and so is the shape of ``probability``.
    Ranking: ``target`` is the relevance, ``label`` the score, ``groups`` the query of each row.
    Forecasting: ``groups`` is the series of each row (None: one series), ``scale`` the error of the seasonal naive
    forecast of each row's series, ``(rows,)``.
    """

    task: str
    target: Array
    label: Array
    probability: Array | None = None
    classes: tuple[str, ...] = ()
    groups: Array | None = None
    scale: Array | None = None

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: Array) -> Predictions:
        """The predictions of some rows: indices or a mask."""
        return Predictions(
            task=self.task,
            target=self.target[rows],
            label=self.label[rows],
            probability=None if self.probability is None else self.probability[rows],
            classes=self.classes,
            groups=None if self.groups is None else self.groups[rows],
            scale=None if self.scale is None else self.scale[rows],
        )


Values = Callable[[Predictions, Array], Array]


@dataclass(frozen=True, kw_only=True)
class Sums:
    """A metric that depends on the rows only through weighted sums over them, so that any number of replicates is one
    matrix product, and leaving one row out a subtraction.

    ``per_row(predictions)`` is ``(rows, k)``, ``combine`` takes sums of its rows, ``(…, k)``, and returns ``(…)``.
    An instance is called like any other ``values``.
    """

    per_row: Callable[[Predictions], Array]
    combine: Callable[[Array], Array]

    def __call__(self, predictions: Predictions, weights: Array) -> Array:
        return self.combine(weights @ self.per_row(predictions))


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric: for which tasks, which way is better, and whether it needs probabilities.

    ``values`` is None for what is measured rather than computed (latency, size) and for a team's own metrics.
    ``usual``: reported for every model; others only where a gate names them. Not ``comparable``: neither more nor less
    is better (a rate, a signed error), so it has no champion to be worse than.
    """

    name: str
    tasks: tuple[str, ...]
    higher_is_better: bool
    values: Values | None = None
    needs_probability: bool = False
    usual: bool = True
    comparable: bool = True


def ratio(above: Array, below: Array) -> Array:
    """``above / below``, NaN where ``below`` is not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def mean_of(row_value: Callable[[Predictions], Array]) -> Sums:
    """The weighted mean of a value that each row has on its own."""

    def per_row(p: Predictions) -> Array:
        values = np.asarray(row_value(p), dtype=float)
        return np.stack([values, np.ones(len(p))], axis=1)

    return Sums(per_row=per_row, combine=lambda s: ratio(s[..., 0], s[..., 1]))


def chances(p: Predictions) -> Array:
    """The probabilities; ValueError where the model gave none."""
    if p.probability is None:
        msg = "the metric needs probabilities"
        raise ValueError(msg)
    return p.probability
