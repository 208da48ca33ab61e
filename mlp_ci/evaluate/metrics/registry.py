"""Every metric by its name. Names with a number or a class in them are made when they are asked for."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.errors import InputError
from mlp_ci.evaluate.metrics import classification as classes
from mlp_ci.evaluate.metrics import numbers, ranking
from mlp_ci.evaluate.metrics import probabilities as chance
from mlp_ci.evaluate.metrics.kinds import (
    BINARY,
    FORECASTING,
    MULTICLASS,
    MULTILABEL,
    RANKING,
    REGRESSION,
    TASKS,
    Array,
    Metric,
    Predictions,
    Sums,
    Values,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

CLASSES = (BINARY, MULTICLASS)
SEVERAL = (MULTICLASS, MULTILABEL)
NUMBERS = (REGRESSION, FORECASTING)
HIGHER, LOWER = True, False


def _usual(name: str, tasks: tuple[str, ...], better: bool, values: Values | None) -> Metric:
    return Metric(name=name, tasks=tasks, higher_is_better=better, values=values)


def _asked(name: str, tasks: tuple[str, ...], better: bool, values: Values | None) -> Metric:
    return Metric(name=name, tasks=tasks, higher_is_better=better, values=values, usual=False)


def _likely(name: str, tasks: tuple[str, ...], better: bool, values: Values, *, usual: bool = True) -> Metric:
    return Metric(name=name, tasks=tasks, higher_is_better=better, values=values, needs_probability=True, usual=usual)


def _rate(name: str, tasks: tuple[str, ...], values: Values, *, usual: bool = False) -> Metric:
    return Metric(name=name, tasks=tasks, higher_is_better=HIGHER, values=values, usual=usual, comparable=False)


_BINARY = (
    _likely("roc_auc", (BINARY,), HIGHER, chance.roc_auc),
    _likely("pr_auc", (BINARY,), HIGHER, chance.pr_auc),
    _likely("log_loss", (BINARY, MULTICLASS, MULTILABEL), LOWER, chance.log_loss),
    _likely("brier", (BINARY, MULTICLASS, MULTILABEL), LOWER, chance.brier),
    _likely("brier_skill", (BINARY,), HIGHER, chance.brier_skill, usual=False),
    _likely("ece", CLASSES, LOWER, chance.ece),
    _likely("gini", (BINARY,), HIGHER, chance.gini, usual=False),
    _likely("ks", (BINARY,), HIGHER, chance.ks, usual=False),
    _usual("accuracy", CLASSES, HIGHER, classes.accuracy),
    _usual("f1", (BINARY,), HIGHER, classes.f1),
    _usual("precision", (BINARY,), HIGHER, classes.precision),
    _usual("recall", (BINARY,), HIGHER, classes.recall),
    _usual("specificity", (BINARY,), HIGHER, classes.specificity),
    _usual("balanced_accuracy", CLASSES, HIGHER, classes.balanced_accuracy),
    _usual("mcc", CLASSES, HIGHER, classes.mcc),
    _asked("cohen_kappa", CLASSES, HIGHER, classes.cohen_kappa),
    _asked("negative_predictive_value", (BINARY,), HIGHER, classes.negative_predictive_value),
    _asked("false_positive_rate", (BINARY,), LOWER, classes.false_positive_rate),
    _asked("false_negative_rate", (BINARY,), LOWER, classes.false_negative_rate),
    _rate("selection_rate", (BINARY,), classes.selection_rate),
)
_SEVERAL = (
    _usual("macro_f1", SEVERAL, HIGHER, classes.macro(classes.SCORES["f1"])),
    _usual("macro_precision", SEVERAL, HIGHER, classes.macro(classes.SCORES["precision"])),
    _usual("macro_recall", SEVERAL, HIGHER, classes.macro(classes.SCORES["recall"])),
    _usual("weighted_f1", SEVERAL, HIGHER, classes.weighted(classes.SCORES["f1"])),
    _asked("weighted_precision", SEVERAL, HIGHER, classes.weighted(classes.SCORES["precision"])),
    _asked("weighted_recall", SEVERAL, HIGHER, classes.weighted(classes.SCORES["recall"])),
    _asked("quadratic_kappa", (MULTICLASS,), HIGHER, classes.quadratic_kappa),
    _likely("macro_roc_auc", SEVERAL, HIGHER, chance.macro_roc_auc, usual=False),
    _likely("macro_pr_auc", SEVERAL, HIGHER, chance.macro_pr_auc, usual=False),
    _usual("micro_f1", (MULTILABEL,), HIGHER, classes.micro(classes.SCORES["f1"])),
    _usual("micro_precision", (MULTILABEL,), HIGHER, classes.micro(classes.SCORES["precision"])),
    _usual("micro_recall", (MULTILABEL,), HIGHER, classes.micro(classes.SCORES["recall"])),
    _usual("samples_f1", (MULTILABEL,), HIGHER, classes.samples_f1),
    _usual("samples_jaccard", (MULTILABEL,), HIGHER, classes.samples_jaccard),
    _usual("subset_accuracy", (MULTILABEL,), HIGHER, classes.subset_accuracy),
    _usual("hamming_loss", (MULTILABEL,), LOWER, classes.hamming_loss),
    _likely("label_ranking", (MULTILABEL,), HIGHER, chance.label_ranking),
)
_NUMBERS = (
    _usual("rmse", NUMBERS, LOWER, numbers.rmse),
    _usual("mae", NUMBERS, LOWER, numbers.mae),
    _usual("r2", NUMBERS, HIGHER, numbers.r2),
    _usual("mape", NUMBERS, LOWER, numbers.mape),
    _usual("wape", NUMBERS, LOWER, numbers.wape),
    _rate("bias", NUMBERS, numbers.bias, usual=True),
    _usual("smape", (FORECASTING,), LOWER, numbers.smape),
    _usual("mase", (FORECASTING,), LOWER, numbers.mase),
    _usual("median_ae", (REGRESSION,), LOWER, numbers.median_ae),
    _asked("abs_bias", NUMBERS, LOWER, numbers.abs_bias),
    _asked("mse", NUMBERS, LOWER, numbers.mse),
    _asked("rmsle", NUMBERS, LOWER, numbers.rmsle),
    _asked("explained_variance", NUMBERS, HIGHER, numbers.explained_variance),
    _asked("correlation", NUMBERS, HIGHER, numbers.correlation),
)
_RANKING = (
    _usual("ndcg", (RANKING,), HIGHER, ranking.ndcg()),
    _usual("ndcg_at_10", (RANKING,), HIGHER, ranking.ndcg(10)),
    _usual("map", (RANKING,), HIGHER, ranking.mean_average_precision),
    _usual("mrr", (RANKING,), HIGHER, ranking.mrr),
    _usual("precision_at_10", (RANKING,), HIGHER, ranking.precision(10)),
    _usual("recall_at_10", (RANKING,), HIGHER, ranking.recall(10)),
)
_MEASURED = (
    *(_usual(f"latency_{q}_ms", TASKS, LOWER, None) for q in ("p50", "p95", "p99")),
    _usual("throughput_rows_per_second", TASKS, HIGHER, None),
    _usual("load_seconds", TASKS, LOWER, None),
    _usual("memory_mb", TASKS, LOWER, None),
    _usual("model_size_mb", TASKS, LOWER, None),
    # Of the new model alone: a champion is not tried on spoilt rows.
    *(
        Metric(name=f"robustness_{kind}", tasks=TASKS, higher_is_better=LOWER, usual=False, comparable=False)
        for kind in ("missing", "noise")
    ),
)
METRICS: Mapping[str, Metric] = {m.name: m for m in (*_BINARY, *_SEVERAL, *_NUMBERS, *_RANKING, *_MEASURED)}

# A pattern of names, and the metric that its groups make; ValueError for a number that makes none.
_PATTERNS: Mapping[str, Callable[..., Metric]] = {
    r"ndcg_at_(\d+)": lambda n, k: _asked(n, (RANKING,), HIGHER, ranking.ndcg(_place(k))),
    r"hit_rate_at_(\d+)": lambda n, k: _asked(n, (RANKING,), HIGHER, ranking.hit_rate(_place(k))),
    r"(precision|recall)_at_(\d+)": lambda n, which, k: _at(n, which, _place(k)),
    r"top_(\d+)_accuracy": lambda n, k: _likely(n, (MULTICLASS,), HIGHER, chance.top_accuracy(_place(k)), usual=False),
    r"recall_at_fpr_(0\.\d+)": lambda n, most: _likely(
        n, (BINARY,), HIGHER, chance.recall_at_fpr(_share(most)), usual=False
    ),
    r"pinball_at_(0\.\d+)": lambda n, share: _asked(n, NUMBERS, LOWER, numbers.pinball(_share(share))),
    r"f(\d+(?:\.\d+)?)": lambda n, beta: _asked(n, (BINARY,), HIGHER, classes.fbeta(_share(beta, most=100))),
    r"(precision|recall|f1)_of_(.+)": lambda n, score, name: _asked(
        n, SEVERAL, HIGHER, classes.of_class(classes.SCORES[score], name)
    ),
}
# How those are told to somebody who looks for a name, and for which tasks.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "ndcg_at_K": (RANKING,),
    "hit_rate_at_K": (RANKING,),
    "precision_at_K": (RANKING, MULTILABEL),
    "recall_at_K": (RANKING, MULTILABEL),
    "top_K_accuracy": (MULTICLASS,),
    "recall_at_fpr_SHARE": (BINARY,),
    "pinball_at_QUANTILE": NUMBERS,
    "fBETA": (BINARY,),
    "precision_of_CLASS": SEVERAL,
    "recall_of_CLASS": SEVERAL,
    "f1_of_CLASS": SEVERAL,
}


def _place(text: str) -> int:
    if not 1 <= int(text) <= 100_000:
        raise ValueError(text)
    return int(text)


def _share(text: str, most: float = 1.0) -> float:
    if not 0 < float(text) < most:
        raise ValueError(text)
    return float(text)


def _at(name: str, which: str, most: int) -> Metric:
    """For rankings; for several labels per row it is the place of a label."""
    in_query = ranking.precision(most) if which == "precision" else ranking.recall(most)
    in_row = chance.labels_at(most, recall=which == "recall")

    def per_row(p: Predictions) -> Array:
        return in_row.per_row(p) if p.task == MULTILABEL else in_query.per_row(p)

    # Both are a mean: the sum of a value, and of how much it counts.
    return _asked(name, (RANKING, MULTILABEL), HIGHER, Sums(per_row=per_row, combine=in_query.combine))


def _made(name: str) -> Metric | None:
    """The metric of a name with a number or a class in it."""
    for pattern, make in _PATTERNS.items():
        match = re.fullmatch(pattern, name)
        if match:
            try:
                return make(name, *match.groups())
            except ValueError:
                return None
    return None


def metric_called(name: str, task: str | None = None, *, versus: bool = False) -> Metric:
    """The metric of this name.

    InputError with the nearest name when there is none, none for the task, or (``versus``) none that two models can be
    compared by.
    """
    metric = METRICS.get(name) or _made(name)
    if metric is None:
        names = names_for(task)
        close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
        fix = f"did you mean `{close[0]}`?" if close else f"metrics: {', '.join(names)}"
        msg = f"there is no metric {name!r}"
        raise InputError(msg, fix=fix, file="model.yaml")
    if task is not None and task not in metric.tasks:
        msg = f"{name} is no metric of a {task} model"
        raise InputError(msg, fix=f"metrics of a {task} model: {', '.join(names_for(task))}", file="model.yaml")
    if versus and not metric.comparable:
        alone = metric.values is None
        why = "is measured of the new model alone" if alone else "has no better and worse"
        msg = f"{name} {why}, so no version can be compared with another by it"
        fix = "use abs_bias" if name == "bias" else "bound it with min and max"
        raise InputError(msg, fix=fix, file="model.yaml")
    return metric


def names_for(task: str | None) -> list[str]:
    """All names that a gate may use for a task, with the patterns of those that have a number or a class in them."""
    known = [m.name for m in METRICS.values() if task is None or task in m.tasks]
    return [*known, *(name for name, tasks in FAMILIES.items() if task is None or task in tasks)]


def computable(predictions: Predictions, named: Iterable[str] = ()) -> list[Metric]:
    """The computed metrics that these predictions allow: the usual ones, and those that gates name."""
    asked = {n: m for n in named if (m := METRICS.get(n) or _made(n)) is not None}
    wanted = {**{n: m for n, m in METRICS.items() if m.usual or n in asked}, **asked}
    return [m for m in wanted.values() if m.values and not why_undefined(m, predictions)]


def why_undefined(metric: Metric, predictions: Predictions) -> str:
    """Why these predictions do not allow the metric, whatever the rows; empty when they do."""
    if predictions.task not in metric.tasks:
        return f"{metric.name} is no metric of a {predictions.task} model"
    if metric.needs_probability and predictions.probability is None:
        return "the model gives no probabilities"
    if metric.values is None:
        return ""
    named = metric.name.partition("_of_")[2]
    if named and set(metric.tasks) == set(SEVERAL) and named not in predictions.classes:
        return f"no row and no prediction has the class {named}; there are {', '.join(predictions.classes[:20])}"
    if metric.name == "mase" and (predictions.scale is None or not np.isfinite(predictions.scale).any()):
        return "every series of the held-out rows is too short, or never changes"
    if "_at_" in metric.name and predictions.task == MULTILABEL and predictions.probability is None:
        return "the model gives no probabilities"
    if predictions.task == RANKING and predictions.groups is None:
        return "evaluate.group does not say which rows belong to one query"
    return ""


def value_of(metric: Metric, predictions: Predictions) -> float:
    """The metric over all rows once; NaN where it is not defined."""
    if metric.values is None or not len(predictions) or why_undefined(metric, predictions):
        return float("nan")
    return float(metric.values(predictions, np.ones((1, len(predictions))))[0])
