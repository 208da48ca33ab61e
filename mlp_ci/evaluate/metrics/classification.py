"""Metrics of predicted classes: functions of the counts of a confusion matrix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlp_ci.evaluate.metrics.kinds import Array, Predictions, Sums, mean_of, ratio

accuracy = mean_of(lambda p: p.label == p.target)

# ---------------------------------------------------------------- two classes


def _cells(p: Predictions) -> Array:
    """Columns: true positive, false positive, false negative, true negative."""
    predicted, actual = p.label == 1, p.target == 1
    cells = [predicted & actual, predicted & ~actual, ~predicted & actual, ~predicted & ~actual]
    return np.stack(cells, axis=1).astype(float)


def _of_cells(combine: Callable[[Array, Array, Array, Array], Array]) -> Sums:
    return Sums(per_row=_cells, combine=lambda s: combine(s[..., 0], s[..., 1], s[..., 2], s[..., 3]))


precision = _of_cells(lambda tp, fp, fn, tn: ratio(tp, tp + fp))
recall = _of_cells(lambda tp, fp, fn, tn: ratio(tp, tp + fn))
specificity = _of_cells(lambda tp, fp, fn, tn: ratio(tn, tn + fp))
negative_predictive_value = _of_cells(lambda tp, fp, fn, tn: ratio(tn, tn + fn))
false_positive_rate = _of_cells(lambda tp, fp, fn, tn: ratio(fp, fp + tn))
false_negative_rate = _of_cells(lambda tp, fp, fn, tn: ratio(fn, fn + tp))
selection_rate = _of_cells(lambda tp, fp, fn, tn: ratio(tp + fp, tp + fp + fn + tn))


def fbeta(beta: float) -> Sums:
    """The harmonic mean of precision and recall, recall counting ``beta`` times as much (van Rijsbergen, 1979)."""
    more = beta**2
    return _of_cells(lambda tp, fp, fn, tn: ratio((1 + more) * tp, (1 + more) * tp + more * fn + fp))


f1 = fbeta(1)


# ---------------------------------------------------------------- more classes, and labels


def of_each_class(p: Predictions) -> Array:
    """Hits, predicted, actual: ``(rows, 3 × classes)``, first all hits, then all predicted, then all actual."""
    if p.target.ndim == 2:
        predicted, actual = p.label == 1, p.target == 1
    else:
        indices = np.arange(max(2, len(p.classes)))
        predicted, actual = p.label[:, None] == indices, p.target[:, None] == indices
    return np.concatenate([predicted & actual, predicted, actual], axis=1).astype(float)


def _of_classes(combine: Callable[[Array, Array, Array], Array]) -> Sums:
    """``combine`` takes hits, predicted and actual, ``(…, classes)`` each."""

    def apart(sums: Array) -> Array:
        hits, predicted, actual = np.split(sums, 3, axis=-1)
        return combine(hits, predicted, actual)

    return Sums(per_row=of_each_class, combine=apart)


Score = Callable[[Array, Array, Array], Array]


def _precision(hits: Array, predicted: Array, actual: Array) -> Array:
    return ratio(hits, predicted)


def _recall(hits: Array, predicted: Array, actual: Array) -> Array:
    return ratio(hits, actual)


def _f1(hits: Array, predicted: Array, actual: Array) -> Array:
    return ratio(2 * hits, predicted + actual)


SCORES: dict[str, Score] = {"precision": _precision, "recall": _recall, "f1": _f1}


def macro(score: Score) -> Sums:
    """The mean over the classes that occur, among targets or predictions; 0 for one that is never hit."""

    def combine(hits: Array, predicted: Array, actual: Array) -> Array:
        occurs = predicted + actual > 0
        return ratio(np.where(occurs, np.nan_to_num(score(hits, predicted, actual)), 0).sum(-1), occurs.sum(-1))

    return _of_classes(combine)


def weighted(score: Score) -> Sums:
    """The mean over the classes, each as often as it is in the targets."""

    def combine(hits: Array, predicted: Array, actual: Array) -> Array:
        return ratio((actual * np.nan_to_num(score(hits, predicted, actual))).sum(-1), actual.sum(-1))

    return _of_classes(combine)


def micro(score: Score) -> Sums:
    """The score of all classes' counts together."""
    return _of_classes(lambda h, p, a: score(h.sum(-1), p.sum(-1), a.sum(-1)))


def of_class(score: Score, name: str) -> Sums:
    """The score of one class against the rest; NaN where no class has the name."""

    def per_row(p: Predictions) -> Array:
        if name not in p.classes:
            return np.zeros((len(p), 3))
        index, many = p.classes.index(name), len(p.classes)
        return of_each_class(p)[:, [index, many + index, 2 * many + index]]

    return Sums(per_row=per_row, combine=lambda s: score(s[..., 0], s[..., 1], s[..., 2]))


@_of_classes
def balanced_accuracy(hits: Array, predicted: Array, actual: Array) -> Array:
    """The mean recall of the classes that are in the targets; not defined for one class."""
    there = (actual > 0).sum(-1)
    return np.where(there > 1, ratio(np.nan_to_num(ratio(hits, actual)).sum(-1), there), np.nan)


@_of_classes
def mcc(hits: Array, predicted: Array, actual: Array) -> Array:
    """The correlation of predicted and actual class (Matthews, 1975; for more than two Gorodkin, 2004)."""
    total = actual.sum(-1)
    together = hits.sum(-1) * total - (predicted * actual).sum(-1)
    spread = (total**2 - (predicted**2).sum(-1)) * (total**2 - (actual**2).sum(-1))
    return ratio(together, np.sqrt(np.maximum(spread, 0)))


@_of_classes
def cohen_kappa(hits: Array, predicted: Array, actual: Array) -> Array:
    """Agreement beyond chance (Cohen, 1960)."""
    total, chance = actual.sum(-1), (predicted * actual).sum(-1)
    return ratio(total * hits.sum(-1) - chance, total**2 - chance)


def _distances(p: Predictions) -> Array:
    indices = np.arange(len(p.classes))
    both = [p.label[:, None] == indices, p.target[:, None] == indices]
    return np.concatenate([(p.label - p.target)[:, None] ** 2, *both], axis=1).astype(float)


def _quadratic(sums: Array) -> Array:
    predicted, actual = np.split(sums[..., 1:], 2, axis=-1)
    place = np.arange(predicted.shape[-1])
    far = (place[:, None] - place) ** 2
    chance = np.einsum("...i,ij,...j->...", predicted, far, actual)
    return 1 - ratio(sums[..., 0] * actual.sum(-1), chance)


# Kappa where a class two steps off is four times as wrong (Cohen, 1968); for classes in an order.
quadratic_kappa = Sums(per_row=_distances, combine=_quadratic)

# ---------------------------------------------------------------- labels, row by row


def _of_labels(row_value: Callable[[Array, Array], Array]) -> Sums:
    """``row_value`` takes predicted and actual labels, ``(rows, labels)`` of flags."""
    return mean_of(lambda p: row_value(p.label == 1, p.target == 1))


subset_accuracy = _of_labels(lambda predicted, actual: (predicted == actual).all(axis=1))
hamming_loss = _of_labels(lambda predicted, actual: (predicted != actual).mean(axis=1))


def _or_one(above: Array, below: Array) -> Array:
    """No label expected and none predicted is right."""
    return np.where(below > 0, above / np.maximum(below, 1), 1.0)


samples_jaccard = _of_labels(lambda y, t: _or_one((y & t).sum(axis=1), (y | t).sum(axis=1)))
samples_f1 = _of_labels(lambda y, t: _or_one(2 * (y & t).sum(axis=1), y.sum(axis=1) + t.sum(axis=1)))
