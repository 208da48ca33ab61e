"""Metrics of classes and of their probabilities."""

from __future__ import annotations

import numpy as np

from mlp_ci.evaluate.metrics.kinds import TINY, Array, Predictions, Sums, chances, mean_of, ratio


def roc_auc(p: Predictions, weights: Array) -> Array:
    """Mann-Whitney: the share of (positive, negative) pairs in the right order, ties counting half."""
    score = chances(p)
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    positive = p.target[order] == 1
    sorted_weights = weights[:, order]
    up = np.add.reduceat(sorted_weights * positive, starts, axis=1)
    down = np.add.reduceat(sorted_weights * ~positive, starts, axis=1)
    below = np.cumsum(down, axis=1) - down / 2
    return ratio((up * below).sum(axis=1), up.sum(axis=1) * down.sum(axis=1))


def pr_auc(p: Predictions, weights: Array) -> Array:
    """Average precision: precision at each threshold, weighted by the recall that the threshold adds."""
    score = chances(p)
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    positive = p.target[order] == 1
    sorted_weights = weights[:, order]
    hits = np.add.reduceat(sorted_weights * positive, starts, axis=1)
    seen = np.add.reduceat(sorted_weights, starts, axis=1)
    total = np.cumsum(seen, axis=1)
    precision = np.divide(np.cumsum(hits, axis=1), total, out=np.zeros_like(total), where=total > 0)
    return ratio((hits * precision).sum(axis=1), hits.sum(axis=1))


def _log_losses(p: Predictions) -> Array:
    given = chances(p)
    if given.ndim == 1:
        chosen = np.where(p.target == 1, given, 1 - given)
    else:
        chosen = given[np.arange(len(p)), p.target] / given.sum(axis=1)
    return np.asarray(-np.log(np.clip(chosen, TINY, 1 - TINY)))


log_loss = mean_of(_log_losses)
brier = mean_of(lambda p: (chances(p) - p.target) ** 2)
accuracy = mean_of(lambda p: p.label == p.target)


def _positives(p: Predictions) -> Array:
    """Columns: true positive, predicted positive, positive."""
    predicted, actual = p.label == 1, p.target == 1
    return np.stack([predicted & actual, predicted, actual], axis=1).astype(float)


precision = Sums(per_row=_positives, combine=lambda s: ratio(s[..., 0], s[..., 1]))
recall = Sums(per_row=_positives, combine=lambda s: ratio(s[..., 0], s[..., 2]))
f1 = Sums(per_row=_positives, combine=lambda s: ratio(2 * s[..., 0], s[..., 1] + s[..., 2]))


def _of_each_class(p: Predictions) -> Array:
    """The columns of :func:`_positives` for each class in turn, ``(rows, 3 × classes)``."""
    indices = np.arange(len(p.classes))
    predicted, actual = p.label[:, None] == indices, p.target[:, None] == indices
    return np.concatenate([predicted & actual, predicted, actual], axis=1).astype(float)


def _macro_f1(sums: Array) -> Array:
    hits, predicted, actual = np.split(sums, 3, axis=-1)
    scores = ratio(2 * hits, predicted + actual)
    occurs = ~np.isnan(scores)
    return ratio(np.where(occurs, scores, 0).sum(axis=-1), occurs.sum(axis=-1))


# The mean over the classes that occur (among targets or predictions) of each one's F1.
macro_f1 = Sums(per_row=_of_each_class, combine=_macro_f1)
