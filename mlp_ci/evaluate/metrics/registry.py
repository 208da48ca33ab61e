"""Every metric by its name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.errors import InputError
from mlp_ci.evaluate.metrics import classification, numbers
from mlp_ci.evaluate.metrics.kinds import BINARY, MULTICLASS, REGRESSION, TASKS, Metric, Predictions, Values

if TYPE_CHECKING:
    from collections.abc import Mapping


def _metric(name: str, tasks: tuple[str, ...], better: str, values: Values | None, probability: bool = False) -> Metric:
    return Metric(
        name=name, tasks=tasks, higher_is_better=better == "higher", values=values, needs_probability=probability
    )


METRICS: Mapping[str, Metric] = {
    m.name: m
    for m in (
        _metric("roc_auc", (BINARY,), "higher", classification.roc_auc, True),
        _metric("pr_auc", (BINARY,), "higher", classification.pr_auc, True),
        _metric("log_loss", (BINARY, MULTICLASS), "lower", classification.log_loss, True),
        _metric("brier", (BINARY,), "lower", classification.brier, True),
        _metric("accuracy", (BINARY, MULTICLASS), "higher", classification.accuracy),
        _metric("f1", (BINARY,), "higher", classification.f1),
        _metric("precision", (BINARY,), "higher", classification.precision),
        _metric("recall", (BINARY,), "higher", classification.recall),
        _metric("macro_f1", (MULTICLASS,), "higher", classification.macro_f1),
        _metric("rmse", (REGRESSION,), "lower", numbers.rmse),
        _metric("mae", (REGRESSION,), "lower", numbers.mae),
        _metric("r2", (REGRESSION,), "higher", numbers.r2),
        _metric("mape", (REGRESSION,), "lower", numbers.mape),
        _metric("latency_p50_ms", TASKS, "lower", None),
        _metric("latency_p99_ms", TASKS, "lower", None),
        _metric("model_size_mb", TASKS, "lower", None),
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
