"""Metrics of predicted numbers, and of forecasts."""

from __future__ import annotations

import numpy as np

from mlp_ci.evaluate.metrics.kinds import TINY, Array, Predictions, Sums, mean_of, ratio


def _error(p: Predictions) -> Array:
    return np.asarray(p.label - p.target, dtype=float)


mse = mean_of(lambda p: _error(p) ** 2)
rmse = Sums(per_row=mse.per_row, combine=lambda s: np.sqrt(mse.combine(s)))
mae = mean_of(lambda p: np.abs(_error(p)))
mape = mean_of(lambda p: np.abs(_error(p)) / np.maximum(np.abs(p.target), TINY))
# Both zero is no error (Makridakis, 1993, has twice the error over the sum of both).
smape = mean_of(lambda p: 2 * np.abs(_error(p)) / np.maximum(np.abs(p.target) + np.abs(p.label), TINY))
bias = mean_of(_error)
abs_bias = Sums(per_row=bias.per_row, combine=lambda s: np.abs(bias.combine(s)))


def _sizes(p: Predictions) -> Array:
    return np.asarray(np.abs(np.stack([_error(p), p.target], axis=1).astype(float)))


# All errors together as a share of all that there was: what supply chains call WAPE or MAD/mean.
wape = Sums(per_row=_sizes, combine=lambda s: ratio(s[..., 0], s[..., 1]))


def _scaled(p: Predictions) -> Array:
    """Columns: the error in units of the row's naive forecast, and one; 0 both where the series has no such unit."""
    if p.scale is None:
        msg = "mase needs the scale of each row"
        raise ValueError(msg)
    known = np.isfinite(p.scale)
    return np.stack([np.where(known, np.abs(_error(p)) / np.where(known, p.scale, 1), 0), known], axis=1)


# Mean absolute scaled error (Hyndman & Koehler, 2006): below 1 is better than the seasonal naive forecast.
mase = Sums(per_row=_scaled, combine=lambda s: ratio(s[..., 0], s[..., 1]))


def pinball(share: float) -> Sums:
    """The loss that the quantile ``share`` makes smallest (Koenker & Bassett, 1978)."""
    return mean_of(lambda p: np.maximum(-share * _error(p), (1 - share) * _error(p)))


def _log_squares(p: Predictions) -> Array:
    # Not defined for numbers of -1 and below: NaN, which makes the whole NaN, as it must.
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((np.log1p(p.label.astype(float)) - np.log1p(p.target.astype(float))) ** 2)


_log_mse = mean_of(_log_squares)
rmsle = Sums(per_row=_log_mse.per_row, combine=lambda s: np.sqrt(_log_mse.combine(s)))


def _moments(p: Predictions) -> Array:
    """Columns: error, target, prediction, their squares and the last two's product, one.

    Target and prediction are centred first: a variance is the difference of two sums, and large numbers would cancel.
    """
    middle = float(np.mean(p.target)) if len(p) else 0.0
    actual, said, error = p.target - middle, p.label - middle, _error(p)
    columns = [error, actual, said, error**2, actual**2, said**2, actual * said, np.ones(len(p))]
    return np.stack(columns, axis=1).astype(float)


def _spread(sums: Array, first: int, second: int, product: int) -> Array:
    return np.asarray(sums[..., product] - ratio(sums[..., first] * sums[..., second], sums[..., 7]))


r2 = Sums(per_row=_moments, combine=lambda s: 1 - ratio(s[..., 3], _spread(s, 1, 1, 4)))
explained_variance = Sums(per_row=_moments, combine=lambda s: 1 - ratio(_spread(s, 0, 0, 3), _spread(s, 1, 1, 4)))


def _correlation(sums: Array) -> Array:
    return ratio(_spread(sums, 1, 2, 6), np.sqrt(np.maximum(_spread(sums, 1, 1, 4) * _spread(sums, 2, 2, 5), 0)))


correlation = Sums(per_row=_moments, combine=_correlation)


def median_ae(p: Predictions, weights: Array) -> Array:
    """The median of the absolute errors; between two in the middle, their mean."""
    error = np.abs(_error(p))
    order = np.argsort(error, kind="stable")
    found = np.full(len(weights), np.nan)
    # Resampled medians lie close to the middle, so that most weights are only summed up; what is left is seen whole.
    reach = int(6 * np.sqrt(len(error))) + 10
    left = np.flatnonzero(weights.sum(axis=1) > 0)
    for low, high in ((len(error) // 2 - reach, len(error) // 2 + reach), (0, len(error))):
        part = slice(max(0, low), high)
        values = _medians(error[order][part], order, part, weights[left])
        found[left] = values
        left = left[np.isnan(values)]
        if not len(left):
            break
    return found


def _medians(errors: Array, order: Array, part: slice, weights: Array) -> Array:
    """Weighted medians that lie in a part of all rows in their order, whose values are ``errors``; NaN for others."""
    below = np.zeros(len(order))
    below[order[: part.start]] = 1
    half = weights.sum(axis=1) / 2
    before = weights @ below
    reached = before[:, None] + np.cumsum(weights[:, order[part]], axis=1)
    first, second = (reached < half[:, None]).sum(axis=1), (reached <= half[:, None]).sum(axis=1)
    last = len(errors) - 1
    middle = (errors[np.minimum(first, last)] + errors[np.minimum(second, last)]) / 2
    return np.where(((before < half) | (part.start == 0)) & (second <= last), middle, np.nan)
