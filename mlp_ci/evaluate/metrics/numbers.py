"""Metrics of predicted numbers."""

from __future__ import annotations

import numpy as np

from mlp_ci.evaluate.metrics.kinds import TINY, Array, Predictions, Sums, mean_of, ratio


def _error(p: Predictions) -> Array:
    return np.asarray(p.label - p.target, dtype=float)


_squares = mean_of(lambda p: _error(p) ** 2)
rmse = Sums(per_row=_squares.per_row, combine=lambda s: np.sqrt(_squares.combine(s)))
mae = mean_of(lambda p: np.abs(_error(p)))
mape = mean_of(lambda p: np.abs(_error(p)) / np.maximum(np.abs(p.target), TINY))


def _spreads(p: Predictions) -> Array:
    """Columns: squared error, target and squared target (centred: the variance is a difference of two sums, and large
    numbers would cancel in it), one."""
    centred = p.target - (p.target.mean() if len(p) else 0.0)
    return np.stack([_error(p) ** 2, centred, centred**2, np.ones(len(p))], axis=1)


r2 = Sums(per_row=_spreads, combine=lambda s: 1 - ratio(s[..., 0], s[..., 2] - ratio(s[..., 1] ** 2, s[..., 3])))
