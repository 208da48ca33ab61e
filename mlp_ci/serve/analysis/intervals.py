"""Confidence sequences: intervals that hold at all looks at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_ci.serve.analysis.evidence import BEGINS, Table, log_ratio, log_sum, pooled

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = Any
# Bounds of a difference are tested against differences that are farther off by so many margins; weights of these.
FARTHER, WEIGHTS = (1.0, 3.0, 0.3), (0.6, 0.2, 0.2)
_GRID = np.geomspace(0.05, 50, 23)  # of the likely distance
PRIOR = 0.5  # Beta(1/2, 1/2)
_lgamma = np.vectorize(math.lgamma, otypes=[float])


def of_difference(tables: Sequence[Table], margin: float, alpha: float, least: float) -> tuple[Array, Array, Array]:
    """Difference of two shares, canary − stable, over all steps, and its bounds, each of which holds with 1 − alpha.

    The bounds are where the evidence (see ``evidence``) turns: every smaller difference has been refuted in favour of
    one that is larger, by the margin or 3 or 0.3 times as much (Turner & Grünwald 2023, "Exact anytime-valid confidence
    intervals for contingency tables and beyond"). So the lower bound passes 0 about when a check fails, and the upper
    one the margin when harm is ruled out. Fields of the tables are numbers or of shape (n,); so is what comes back.
    ``least``: alternatives' shares stay so far from 0 and 1.
    """
    used = [t for t in tables if t.both]
    canary, stable = standardised(used)
    found = np.asarray(canary - stable)
    turned = [Table(t.canary_hits, t.canary_rows, t.stable_hits, t.stable_rows) for t in used]
    low = found - _refuted(used, found, margin, (alpha, least))
    high = found + _refuted(turned, -found, margin, (alpha, least))
    return found, np.maximum(low, -1), np.minimum(high, 1)


def standardised(tables: Sequence[Table]) -> tuple[Array, Array]:
    """The shares of hits in canary and stable, both as if all requests had come in the canary's steps."""
    rows = sum(np.asarray(t.canary_rows, float) for t in tables)
    stable = sum(t.canary_rows * t.stable_hits / t.stable_rows for t in tables) / rows
    return np.asarray(sum(np.asarray(t.canary_hits, float) for t in tables) / rows), np.asarray(stable)


def _refuted(tables: Sequence[Table], found: Array, margin: float, limits: tuple[float, float]) -> Array:
    """How far below ``found`` the difference of the second arm from the first is refuted; 2 where nothing is."""
    alpha, least = limits
    last = np.shape(found)

    def evidence(distance: Array) -> Array:
        """For distances of shape (points, *found.shape)."""
        gap = (found - distance)[None]
        rate, share = pooled(tables)
        floor = np.maximum(least, rate / 20)
        apart = gap + margin * np.asarray(FARTHER).reshape(-1, *[1] * distance.ndim)
        one = np.clip(rate - share * apart, floor, 1 - floor)
        other = np.clip(one + apart, floor, 1 - floor)
        one = np.clip(one, floor, np.maximum(floor, other - gap))
        possible = (other - one > gap + 1e-12) & (np.abs(gap) < 1)
        safe = np.where(possible, gap, 0.0)
        logs = sum(log_ratio(t, one, other, safe) for t in tables)
        weights = np.log(np.asarray(WEIGHTS)).reshape(-1, *[1] * distance.ndim)
        return log_sum(np.where(possible, weights + logs, -np.inf))

    barrier = math.log(1 / alpha) - math.log(BEGINS[0])
    grid = _likely(tables, barrier) * _GRID.reshape(-1, *[1] * len(last))
    for _ in range(2):
        over = evidence(grid) >= barrier
        refuted = over.any(axis=0)
        first = np.where(refuted, np.argmax(over, axis=0), len(grid) - 1)[None]
        high = np.take_along_axis(grid, first, 0)
        low = np.take_along_axis(grid, np.maximum(first - 1, 0), 0)
        parts = np.linspace(0, 1, 9).reshape(-1, *[1] * len(last))
        grid = low + (high - low) * parts
    return np.where(refuted, high[0], 2.0)


def _likely(tables: Sequence[Table], barrier: float) -> Array:
    """About how far the bounds are: as of a normal distribution, and as of hits that are too few for it."""
    rate, share = pooled(tables)
    rows = sum(np.asarray(t.canary_rows + t.stable_rows, float) for t in tables)
    each = 1 / (rows * share) + 1 / (rows * (1 - share))
    return np.sqrt(2 * barrier * rate * (1 - rate) * each) + barrier * each / 4


def holds(hits: Array, rows: Array, share: float, alpha: float) -> Array:
    """Whether ``share`` can be the true share where ``hits`` of ``rows`` were seen, at all looks at once.

    It can unless the beta-binomial mixture has beaten its likelihood by ``1 / alpha`` (Robbins 1970, "Statistical
    methods related to the law of the iterated logarithm"; Howard, Ramdas, McAuliffe & Sekhon 2021, "Time-uniform,
    nonparametric, nonasymptotic confidence sequences", on conjugate mixtures). Where the share changes meanwhile, this
    is about its average over the requests.
    """
    hits = np.asarray(hits, float)
    misses = np.maximum(rows - hits, 0)
    mixed = _log_beta(PRIOR + hits, PRIOR + misses) - _log_beta(np.full_like(hits, PRIOR), np.full_like(hits, PRIOR))
    return _times_log(hits, np.asarray(share)) + _times_log(misses, np.asarray(1 - share)) >= mixed - math.log(
        1 / alpha
    )


def _times_log(count: Array, p: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(count > 0, count * np.log(p), 0.0)


def _log_beta(a: Array, b: Array) -> Array:
    return _lgamma(a) + _lgamma(b) - _lgamma(a + b)


def radius_of_mean(variance: float, alpha: float, scale: float) -> float:
    """How far a mean may be from its estimate of this variance (of the estimate), at all looks at once.

    The normal mixture of Robbins 1970 with a prior of standard deviation ``scale`` on the difference, as used by
    Johari, Koomen, Pekelis & Walsh 2022, "Always valid inference: continuous monitoring of A/B tests" (mSPRT), and for
    means of anything, asymptotically, by Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024, "Time-uniform central
    limit theory and asymptotic confidence sequences".
    """
    prior = scale**2
    if variance <= 1e-12 * prior:
        return 0.0
    return math.sqrt(
        variance * (variance + prior) / prior * (math.log((variance + prior) / variance) + 2 * math.log(1 / alpha))
    )
