"""Metrics of probabilities and scores: how well they order the rows, and how far they can be taken at their word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.evaluate.metrics.kinds import TINY, Array, Predictions, Sums, Values, chances, mean_of, ratio

if TYPE_CHECKING:
    from collections.abc import Callable

# Of the expected calibration error: as many as Guo et al. (2017) take.
BINS = 15

# ---------------------------------------------------------------- order


def _auc(score: Array, positive: Array, weights: Array) -> Array:
    """Mann-Whitney: the share of (positive, negative) pairs in the right order, ties counting half."""
    up, down = _by_score(score, positive, weights)
    below = np.cumsum(down, axis=1) - down / 2
    return ratio((up * below).sum(axis=1), up.sum(axis=1) * down.sum(axis=1))


def _average_precision(score: Array, positive: Array, weights: Array) -> Array:
    """Precision at each threshold, weighted by the recall that the threshold adds."""
    hits, misses = _by_score(-score, positive, weights)
    total = np.cumsum(hits + misses, axis=1)
    precision = np.divide(np.cumsum(hits, axis=1), total, out=np.zeros_like(total), where=total > 0)
    return ratio((hits * precision).sum(axis=1), hits.sum(axis=1))


def _by_score(score: Array, positive: Array, weights: Array) -> tuple[Array, Array]:
    """The weights of positives and of negatives at each different score, from the lowest up."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    flags, ordered = positive[order], weights[:, order]
    return np.add.reduceat(ordered * flags, starts, axis=1), np.add.reduceat(ordered * ~flags, starts, axis=1)


def roc_auc(p: Predictions, weights: Array) -> Array:
    """The share of (positive, negative) pairs in the right order, ties counting half."""
    return _auc(chances(p), p.target == 1, weights)


def pr_auc(p: Predictions, weights: Array) -> Array:
    """Average precision."""
    return _average_precision(chances(p), p.target == 1, weights)


def gini(p: Predictions, weights: Array) -> Array:
    """Somers' D of score and target: 2 × ROC AUC − 1."""
    return 2 * roc_auc(p, weights) - 1


def ks(p: Predictions, weights: Array) -> Array:
    """The largest distance between the distributions of the score of positives and negatives."""
    up, down = _by_score(chances(p), p.target == 1, weights)
    up_share = ratio(np.cumsum(up, axis=1), up.sum(axis=1, keepdims=True))
    down_share = ratio(np.cumsum(down, axis=1), down.sum(axis=1, keepdims=True))
    return np.asarray(np.abs(up_share - down_share).max(axis=1))


def recall_at_fpr(most: float) -> Values:
    """The largest recall of a threshold that lets at most this share of the negatives through."""

    def values(p: Predictions, weights: Array) -> Array:
        hits, misses = _by_score(-chances(p), p.target == 1, weights)
        recall = ratio(np.cumsum(hits, axis=1), hits.sum(axis=1, keepdims=True))
        through = ratio(np.cumsum(misses, axis=1), misses.sum(axis=1, keepdims=True))
        best = np.where(through <= most + TINY, recall, 0).max(axis=1)
        return np.where(np.isnan(recall[:, -1]) | np.isnan(through[:, -1]), np.nan, best)

    return values


def of_each_class(curve: Callable[[Array, Array, Array], Array]) -> Values:
    """The mean over the classes (or labels) of each one's curve against the rest, where that is defined."""

    def values(p: Predictions, weights: Array) -> Array:
        score = chances(p)
        flags = p.target == 1 if p.target.ndim == 2 else p.target[:, None] == np.arange(len(p.classes))
        found = np.stack([curve(score[:, i], flags[:, i], weights) for i in range(flags.shape[1])])
        defined = ~np.isnan(found)
        return ratio(np.where(defined, found, 0).sum(axis=0), defined.sum(axis=0))

    return values


macro_roc_auc = of_each_class(_auc)
macro_pr_auc = of_each_class(_average_precision)


def top_accuracy(k: int) -> Sums:
    """How often the target is among the ``k`` most probable classes; of equal ones the later is taken first."""

    def hit(p: Predictions) -> Array:
        score = chances(p)
        own = score[np.arange(len(p)), p.target][:, None]
        later = np.arange(score.shape[1]) > p.target[:, None]
        return np.asarray(((score > own) | ((score == own) & later)).sum(axis=1) < k)

    return mean_of(hit)


def _label_precision(p: Predictions) -> Array:
    """For each right label, the share of right ones among those at least as probable; 1 for a row without labels."""
    score, actual = chances(p), p.target == 1
    total = np.zeros(len(p))
    for label in range(score.shape[1]):
        ahead = score >= score[:, label : label + 1]
        total += np.where(actual[:, label], (ahead & actual).sum(axis=1) / ahead.sum(axis=1), 0)
    count = actual.sum(axis=1)
    return np.where((count > 0) & (count < actual.shape[1]), total / np.maximum(count, 1), 1.0)


label_ranking = mean_of(_label_precision)


def labels_at(k: int, *, recall: bool) -> Sums:
    """The share of right labels among the ``k`` most probable, of ``k`` or (recall) of the right ones."""

    def share(p: Predictions) -> Array:
        best = np.argsort(-chances(p), axis=1, kind="stable")[:, :k]
        hits = np.take_along_axis(p.target, best, axis=1).sum(axis=1)
        return np.asarray(hits / (np.maximum(p.target.sum(axis=1), 1) if recall else k))

    return mean_of(share)


# ---------------------------------------------------------------- probabilities at their word


def _log_losses(p: Predictions) -> Array:
    given = chances(p)
    if p.target.ndim == 2:
        chosen = np.where(p.target == 1, given, 1 - given)
        return np.asarray(-np.log(np.clip(chosen, TINY, 1 - TINY)).mean(axis=1))
    if given.ndim == 1:
        chosen = np.where(p.target == 1, given, 1 - given)
    else:
        chosen = given[np.arange(len(p)), p.target] / given.sum(axis=1)
    return np.asarray(-np.log(np.clip(chosen, TINY, 1 - TINY)))


def _squares(p: Predictions) -> Array:
    given = chances(p)
    if p.target.ndim == 2:
        return np.asarray(((given - p.target) ** 2).mean(axis=1))
    if given.ndim == 1:
        return np.asarray((given - p.target) ** 2)
    return np.asarray(((given - (p.target[:, None] == np.arange(given.shape[1]))) ** 2).sum(axis=1))


log_loss = mean_of(_log_losses)
brier = mean_of(_squares)


def _skill(p: Predictions) -> Array:
    return np.stack([_squares(p), p.target == 1, np.ones(len(p))], axis=1).astype(float)


# Against always saying the share of positives: 1 is perfect, 0 no better than that (Brier, 1950; Murphy, 1973).
brier_skill = Sums(
    per_row=_skill, combine=lambda s: 1 - ratio(s[..., 0] * s[..., 2], s[..., 1] * (s[..., 2] - s[..., 1]))
)


def confidence(p: Predictions) -> tuple[Array, Array]:
    """What was said and what came true, ``(rows,)`` each: of the positive class, or of the predicted one."""
    given = chances(p)
    if given.ndim == 1:
        return given, (p.target == 1).astype(float)
    return given.max(axis=1), (given.argmax(axis=1) == p.target).astype(float)


def _gaps(p: Predictions) -> Array:
    """Said minus came true, in the column of its bin; and one."""
    said, true = confidence(p)
    columns = np.zeros((len(p), BINS + 1))
    columns[np.arange(len(p)), np.clip((said * BINS).astype(int), 0, BINS - 1)] = said - true
    columns[:, BINS] = 1
    return columns


# Expected calibration error: the mean distance of said and came true over 15 bins of equal width (Guo et al., 2017).
ece = Sums(per_row=_gaps, combine=lambda s: ratio(np.abs(s[..., :BINS]).sum(-1), s[..., BINS]))
