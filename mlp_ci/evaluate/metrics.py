"""Metrics of held-out predictions, for any row weights at once, so that a bootstrap is a few matrix products.

Every function takes the predictions and a matrix of weights, one row per replicate (shape ``(replicates, rows)``), and
returns one value per replicate; weights of one give the ordinary metric, equal to scikit-learn's. A value that is not
defined (one class only, nothing predicted positive) is NaN.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlp_ci.errors import InputError

Array = np.ndarray[Any, Any]
BINARY, MULTICLASS, REGRESSION = "binary", "multiclass", "regression"
# Probabilities of exactly 0 or 1 are moved in by this much before a logarithm, as scikit-learn does for doubles.
TINY = float(np.finfo(np.float64).eps)
THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Targets and predictions of the same rows.

    ``target`` holds class indices (binary: 1 is the positive class) or numbers; ``label`` the predicted class indices
    or numbers; ``probability`` is ``(rows,)`` for binary, ``(rows, classes)`` for multiclass, None if there is none.
    """

    task: str
    target: Array
    label: Array
    probability: Array | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: Array) -> Predictions:
        """The predictions of some rows: indices or a mask."""
        chosen = None if self.probability is None else self.probability[rows]
        return Predictions(
            task=self.task,
            target=self.target[rows],
            label=self.label[rows],
            probability=chosen,
            classes=self.classes,
        )


Values = Callable[[Predictions, Array], Array]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric: for which tasks, which way is better, and whether it needs probabilities. ``values`` is None for
    what is measured rather than computed (latency, size)."""

    name: str
    tasks: tuple[str, ...]
    higher_is_better: bool
    values: Values | None = None
    needs_probability: bool = False


def _ratio(above: Array, below: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _mean(per_row: Array, weights: Array) -> Array:
    return _ratio(weights @ per_row, weights.sum(axis=1))


def _probability(p: Predictions) -> Array:
    if p.probability is None:
        msg = "the metric needs probabilities"
        raise ValueError(msg)
    return p.probability


def _roc_auc(p: Predictions, weights: Array) -> Array:
    """Mann-Whitney: the share of (positive, negative) pairs in the right order, ties counting half."""
    score = _probability(p)
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    positive = p.target[order] == 1
    sorted_weights = weights[:, order]
    up = np.add.reduceat(sorted_weights * positive, starts, axis=1)
    down = np.add.reduceat(sorted_weights * ~positive, starts, axis=1)
    below = np.cumsum(down, axis=1) - down / 2
    return _ratio((up * below).sum(axis=1), up.sum(axis=1) * down.sum(axis=1))


def _pr_auc(p: Predictions, weights: Array) -> Array:
    """Average precision: precision at each threshold, weighted by the recall that the threshold adds."""
    score = _probability(p)
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    positive = p.target[order] == 1
    sorted_weights = weights[:, order]
    hits = np.add.reduceat(sorted_weights * positive, starts, axis=1)
    seen = np.add.reduceat(sorted_weights, starts, axis=1)
    total = np.cumsum(seen, axis=1)
    precision = np.divide(np.cumsum(hits, axis=1), total, out=np.zeros_like(total), where=total > 0)
    return _ratio((hits * precision).sum(axis=1), hits.sum(axis=1))


def _log_loss(p: Predictions, weights: Array) -> Array:
    probability = _probability(p)
    if probability.ndim == 1:
        chosen = np.where(p.target == 1, probability, 1 - probability)
    else:
        chosen = probability[np.arange(len(p)), p.target] / probability.sum(axis=1)
    return _mean(-np.log(np.clip(chosen, TINY, 1 - TINY)), weights)


def _brier(p: Predictions, weights: Array) -> Array:
    return _mean((_probability(p) - p.target) ** 2, weights)


def _accuracy(p: Predictions, weights: Array) -> Array:
    return _mean((p.label == p.target).astype(float), weights)


def _counts(p: Predictions, weights: Array, index: int) -> tuple[Array, Array, Array]:
    """Weighted true positives, predicted and actual rows of one class."""
    predicted, actual = p.label == index, p.target == index
    return weights @ (predicted & actual), weights @ predicted, weights @ actual


def _precision(p: Predictions, weights: Array) -> Array:
    hits, predicted, _ = _counts(p, weights, 1)
    return _ratio(hits, predicted)


def _recall(p: Predictions, weights: Array) -> Array:
    hits, _, actual = _counts(p, weights, 1)
    return _ratio(hits, actual)


def _f1(p: Predictions, weights: Array) -> Array:
    hits, predicted, actual = _counts(p, weights, 1)
    return _ratio(2 * hits, predicted + actual)


def _macro_f1(p: Predictions, weights: Array) -> Array:
    """The mean over the classes that occur (among targets or predictions) of each one's F1."""
    scores = []
    for index in range(len(p.classes)):
        hits, predicted, actual = _counts(p, weights, index)
        scores.append(_ratio(2 * hits, predicted + actual))
    stacked = np.stack(scores)
    occurs = ~np.isnan(stacked)
    return _ratio(np.where(occurs, stacked, 0).sum(axis=0), occurs.sum(axis=0))


def _error(p: Predictions) -> Array:
    return np.asarray(p.label - p.target, dtype=float)


def _rmse(p: Predictions, weights: Array) -> Array:
    return np.sqrt(_mean(_error(p) ** 2, weights))


def _mae(p: Predictions, weights: Array) -> Array:
    return _mean(np.abs(_error(p)), weights)


def _mape(p: Predictions, weights: Array) -> Array:
    return _mean(np.abs(_error(p)) / np.maximum(np.abs(p.target), TINY), weights)


def _r2(p: Predictions, weights: Array) -> Array:
    # Centred first: the variance is the difference of two sums, and large numbers would cancel in it.
    centred = p.target - p.target.mean()
    total = weights.sum(axis=1)
    spread = weights @ centred**2 - _ratio((weights @ centred) ** 2, total)
    return 1 - _ratio(weights @ _error(p) ** 2, spread)


def _metric(name: str, tasks: tuple[str, ...], better: str, values: Values | None, probability: bool = False) -> Metric:
    return Metric(
        name=name, tasks=tasks, higher_is_better=better == "higher", values=values, needs_probability=probability
    )


_ALL_TASKS = (BINARY, MULTICLASS, REGRESSION)
METRICS: Mapping[str, Metric] = {
    m.name: m
    for m in (
        _metric("roc_auc", (BINARY,), "higher", _roc_auc, True),
        _metric("pr_auc", (BINARY,), "higher", _pr_auc, True),
        _metric("log_loss", (BINARY, MULTICLASS), "lower", _log_loss, True),
        _metric("brier", (BINARY,), "lower", _brier, True),
        _metric("accuracy", (BINARY, MULTICLASS), "higher", _accuracy),
        _metric("f1", (BINARY,), "higher", _f1),
        _metric("precision", (BINARY,), "higher", _precision),
        _metric("recall", (BINARY,), "higher", _recall),
        _metric("macro_f1", (MULTICLASS,), "higher", _macro_f1),
        _metric("rmse", (REGRESSION,), "lower", _rmse),
        _metric("mae", (REGRESSION,), "lower", _mae),
        _metric("r2", (REGRESSION,), "higher", _r2),
        _metric("mape", (REGRESSION,), "lower", _mape),
        _metric("latency_p50_ms", _ALL_TASKS, "lower", None),
        _metric("latency_p99_ms", _ALL_TASKS, "lower", None),
        _metric("model_size_mb", _ALL_TASKS, "lower", None),
    )
}


def metric_called(name: str, task: str | None = None) -> Metric:
    """The metric of this name; InputError with the nearest name when there is none, or none for the task."""
    metric = METRICS.get(name)
    names = [m.name for m in METRICS.values() if task is None or task in m.tasks]
    if metric is None:
        close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
        fix = f"did you mean `{close[0]}`?" if close else f"metrics: {', '.join(names)}"
        msg = f"there is no metric {name!r}"
        raise InputError(msg, fix=fix, file="model.yaml")
    if task is not None and task not in metric.tasks:
        msg = f"{name} is no metric of a {task} model"
        raise InputError(msg, fix=f"metrics of a {task} model: {', '.join(names)}", file="model.yaml")
    return metric


def computable(predictions: Predictions) -> list[Metric]:
    """The computed metrics that these predictions allow."""
    return [
        m
        for m in METRICS.values()
        if m.values and predictions.task in m.tasks and not (m.needs_probability and predictions.probability is None)
    ]


def value_of(metric: Metric, predictions: Predictions) -> float:
    """The metric over all rows once; NaN where it is not defined."""
    if metric.values is None or not len(predictions):
        return float("nan")
    return float(metric.values(predictions, np.ones((1, len(predictions))))[0])
