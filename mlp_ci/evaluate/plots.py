"""What plots of an evaluation show, as plain data: computed once from the predictions, drawn by whoever tells of it.

:func:`facts` gives ``{"format": …, "task", "classes", "rows", "models": {"this": M, "<stage>": M}}``. An M has, as far
as the task and the predictions allow:

- ``roc``: ``[{"class", "fpr": […], "tpr": […]}]``, and ``pr``: ``[{"class", "recall", "precision", "share"}]``, each
  class against the rest (binary: only the positive one); ``share`` is how much of the rows the class is
- ``calibration``: ``[{"class", "bins": [{"predicted", "observed", "rows", "low", "high"}], "ece"}]``, bins of equal
  size; low and high are the 95 % Wilson interval (1927) of observed. Multiclass: the predicted class, ``(predicted)``
- ``confusion``: ``{"classes", "counts"}``, counts[actual][predicted]; multilabel: ``labels``, ``[{"class", "tp", …}]``
- ``scores``: ``{"edges", "counts": {class: […]}}``, the probability of the positive class by the actual class
- ``residuals``: ``{"edges", "counts"}`` of prediction - target, what lies outside counted in the bins at the ends; and
  ``predicted``: ``[{"predicted", "low", "middle", "high", "rows"}]``, 10 %, 50 % and 90 % of the target by prediction
- ``by_time``: ``[{"start": ISO text, "actual", "predicted", "rows"}]``, means, at most 100 (forecasting)
- ``queries``: ``{"edges", "counts"}`` of each query's ndcg (ranking)

Curves are thinned so that the whole stays below 50 kB. Numbers have four significant digits.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.evaluate.metrics import (
    BINARY,
    FORECASTING,
    METRICS,
    MULTILABEL,
    RANKING,
    Array,
    Predictions,
    value_of,
)
from mlp_ci.evaluate.metrics.ranking import gains, ordered

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "mlp-ci/plots/v1"
POINTS, POINTS_OF_MANY = 101, 41  # of a curve; where there are several
CURVES = 6  # classes with a curve, the most frequent
CONFUSED = 20  # classes with a row in the confusion matrix; the others are one
OTHER = "(other)"
CALIBRATION_BINS, HISTOGRAM_BINS, TIME_BINS = 10, 20, 100
Z = 1.959963984540054


def facts(models: Mapping[str, Predictions], times: Array | None = None) -> dict[str, Any]:
    """The plots of the new model, ``this``, and of each champion by its stage; ``times`` are the rows' in seconds."""
    this = models["this"]
    return {
        "format": FORMAT,
        "task": this.task,
        "classes": list(this.classes),
        "rows": len(this),
        "models": {name: _of(predictions, times) for name, predictions in models.items()},
    }


def _of(p: Predictions, times: Array | None) -> dict[str, Any]:
    if not len(p):
        return {}
    if p.task == RANKING:
        return _queries(p)
    if not p.classes and p.task != BINARY:
        found = {**_residuals(p), "predicted": _by_prediction(p)}
        return {**found, "by_time": _by_time(p, times)} if p.task == FORECASTING and times is not None else found
    found = {"labels": _labels(p)} if p.task == MULTILABEL else {"confusion": _confusion(p)}
    if p.probability is not None:
        found |= {**_curves(p), "calibration": _calibrations(p)}
        if p.probability.ndim == 1:
            found["scores"] = _scores(p)
    return found


def _short(values: Any) -> Any:
    """Four significant digits; NaN is null."""
    if isinstance(values, np.ndarray | list):
        return [_short(float(v)) for v in values]
    return float(f"{values:.4g}") if np.isfinite(values) else None


# ---------------------------------------------------------------- classes


def _against_rest(p: Predictions) -> list[tuple[str, Array, Array]]:
    """Class, score, whether it is the class: of the positive class, or of the most frequent ones."""
    score = p.probability
    if score is None:
        return []
    if score.ndim == 1:
        return [(p.classes[1] if len(p.classes) == 2 else "1", score, p.target == 1)]
    flags = p.target == 1 if p.task == MULTILABEL else p.target[:, None] == np.arange(len(p.classes))
    order = np.argsort(-flags.sum(axis=0), kind="stable")[:CURVES]
    return [(p.classes[i], score[:, i], flags[:, i]) for i in sorted(order.tolist())]


def _curves(p: Predictions) -> dict[str, Any]:
    sides = _against_rest(p)
    points = POINTS if len(sides) == 1 else POINTS_OF_MANY
    roc, pr = [], []
    for name, score, flags in sides:
        if flags.all() or not flags.any():
            continue
        order = np.argsort(-score, kind="stable")
        last = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])  # the end of each run of equal scores
        hits, seen = np.cumsum(flags[order])[last], last + 1
        recall, through = np.r_[0, hits / flags.sum()], np.r_[0, (seen - hits) / (~flags).sum()]
        kept = _thin(recall + through, points)
        roc.append({"class": name, "fpr": _short(through[kept]), "tpr": _short(recall[kept])})
        precision = np.r_[hits[0] / seen[0], hits / seen]
        kept = _thin(recall, points)
        share = _short(float(flags.mean()))
        pr.append({"class": name, "recall": _short(recall[kept]), "precision": _short(precision[kept]), "share": share})
    return {"roc": roc, "pr": pr}


def _thin(along: Array, points: int) -> Array:
    """Indices of at most so many points, evenly spread over the rising ``along``, the first and the last among them."""
    wanted = np.linspace(along[0], along[-1], points)
    return np.unique(np.r_[0, np.searchsorted(along, wanted).clip(0, len(along) - 1), len(along) - 1])


def _calibrations(p: Predictions) -> list[dict[str, Any]]:
    score = p.probability
    if score is None:
        return []
    if score.ndim == 2 and p.task != MULTILABEL:
        sides = [("(predicted)", score.max(axis=1), score.argmax(axis=1) == p.target)]
    else:
        sides = _against_rest(p)
    found = []
    for name, said, true in sides:
        alone = Predictions(task=BINARY, target=true.astype(int), label=true.astype(int), probability=said)
        found.append({"class": name, "bins": _bins(said, true), "ece": _short(value_of(METRICS["ece"], alone))})
    return found


def _bins(said: Array, true: Array) -> list[dict[str, Any]]:
    edges = np.unique(np.quantile(said, np.linspace(0, 1, CALIBRATION_BINS + 1)))
    place = np.clip(np.searchsorted(edges, said, side="right") - 1, 0, max(0, len(edges) - 2))
    found = []
    for i in np.unique(place):
        inside = place == i
        low, high = _wilson(int(true[inside].sum()), int(inside.sum()))
        one = {"predicted": said[inside].mean(), "observed": true[inside].mean(), "low": low, "high": high}
        found.append({**{k: _short(float(v)) for k, v in one.items()}, "rows": int(inside.sum())})
    return found


def _wilson(hits: int, rows: int) -> tuple[float, float]:
    share, more = hits / rows, Z**2 / rows
    middle, half = share + more / 2, Z * np.sqrt(share * (1 - share) / rows + more / (4 * rows))
    return max(0.0, float((middle - half) / (1 + more))), min(1.0, float((middle + half) / (1 + more)))


def _confusion(p: Predictions) -> dict[str, Any]:
    names = p.classes or ("0", "1")
    counts = np.bincount(p.target, minlength=len(names)) + np.bincount(p.label[p.label >= 0], minlength=len(names))
    kept = sorted(np.argsort(-counts, kind="stable")[:CONFUSED].tolist())
    place = np.full(len(names) + 1, len(kept))  # the last is for a label of -1: no class that is known
    place[kept] = np.arange(len(kept))
    table = np.zeros((len(kept) + 1, len(kept) + 1), dtype=int)
    np.add.at(table, (place[p.target], place[p.label]), 1)
    other = bool(table[-1].any() or table[:, -1].any())
    shown = [names[i] for i in kept] + [OTHER] * other
    return {"classes": shown, "counts": table[: len(shown), : len(shown)].tolist()}


def _labels(p: Predictions) -> list[dict[str, Any]]:
    said, true = p.label == 1, p.target == 1
    cells = {"tp": said & true, "fp": said & ~true, "fn": ~said & true, "tn": ~said & ~true}
    sums = {name: flags.sum(axis=0) for name, flags in cells.items()}
    order = np.argsort(-true.sum(axis=0), kind="stable")[:CONFUSED]
    return [{"class": p.classes[i], **{n: int(s[i]) for n, s in sums.items()}} for i in sorted(order.tolist())]


def _scores(p: Predictions) -> dict[str, Any]:
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    score = np.clip(np.asarray(p.probability), 0, 1)
    names = p.classes or ("0", "1")
    counts = {name: np.histogram(score[p.target == i], edges)[0].tolist() for i, name in enumerate(names)}
    return {"edges": _short(edges), "counts": counts}


# ---------------------------------------------------------------- numbers and orders


def _residuals(p: Predictions) -> dict[str, Any]:
    error = np.asarray(p.label - p.target, dtype=float)
    low, high = np.quantile(error, [0.005, 0.995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    return {"residuals": {"edges": _short(edges), "counts": np.histogram(np.clip(error, low, high), edges)[0].tolist()}}


def _by_prediction(p: Predictions) -> list[dict[str, Any]]:
    found = []
    for rows in np.array_split(np.argsort(p.label, kind="stable"), min(HISTOGRAM_BINS, len(p))):
        low, middle, high = np.quantile(p.target[rows], [0.1, 0.5, 0.9])
        one = {"predicted": p.label[rows].mean(), "low": low, "middle": middle, "high": high}
        found.append({**{k: _short(float(v)) for k, v in one.items()}, "rows": len(rows)})
    return found


def _by_time(p: Predictions, times: Array) -> list[dict[str, Any]]:
    edges = np.linspace(times.min(), times.max(), TIME_BINS + 1)
    place = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, TIME_BINS - 1)
    found = []
    for i in np.unique(place):
        rows = place == i
        start = datetime.fromtimestamp(float(times[rows].min()), UTC).isoformat().replace("+00:00", "Z")
        means = {"actual": _short(float(p.target[rows].mean())), "predicted": _short(float(p.label[rows].mean()))}
        found.append({"start": start, **means, "rows": int(rows.sum())})
    return found


def _queries(p: Predictions) -> dict[str, Any]:
    values = gains(ordered(p))
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    counts = np.histogram(np.clip(values[np.isfinite(values)], 0, 1), edges)[0]
    return {"queries": {"edges": _short(edges), "counts": counts.tolist()}}
