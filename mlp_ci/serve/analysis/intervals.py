"""Confidence sequences: intervals that hold at all looks at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = Any
PRIOR = 0.5  # Beta(1/2, 1/2)
_lgamma = np.vectorize(math.lgamma, otypes=[float])


def of_share(hits: Array, rows: Array, alpha: float) -> tuple[Array, Array]:
    """Bounds of a share of which ``hits`` of ``rows`` were seen; (0, 1) where nothing was.

    All shares p at which the beta-binomial mixture has not beaten p's own likelihood by ``1 / alpha`` (Robbins 1970,
    "Statistical methods related to the law of the iterated logarithm", section on binomial mixtures; Howard, Ramdas,
    McAuliffe & Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences", prop. on mixtures).
    Where the share changes meanwhile, they are bounds of its average over the requests.
    """
    hits, rows = np.asarray(hits, float), np.asarray(rows, float)
    misses = np.maximum(rows - hits, 0)
    mixed = _log_beta(PRIOR + hits, PRIOR + misses) - _log_beta(np.full_like(hits, PRIOR), np.full_like(hits, PRIOR))
    limit = mixed - math.log(1 / alpha)
    best = np.where(rows > 0, hits / np.maximum(rows, 1), 0.5)

    def inside(p: Array) -> Array:
        return _times_log(hits, p) + _times_log(misses, 1 - p) >= limit

    return _edge(inside, best, np.zeros_like(best)), _edge(inside, best, np.ones_like(best))


def holds(hits: Array, rows: float, share: float, alpha: float) -> Array:
    """Whether ``share`` is within the bounds of :func:`of_share`, for each number of hits."""
    hits = np.asarray(hits, float)
    misses = np.maximum(rows - hits, 0)
    mixed = _log_beta(PRIOR + hits, PRIOR + misses) - _log_beta(np.full_like(hits, PRIOR), np.full_like(hits, PRIOR))
    return _times_log(hits, np.asarray(share)) + _times_log(misses, np.asarray(1 - share)) >= mixed - math.log(
        1 / alpha
    )


def _edge(inside: Any, within: Array, without: Array) -> Array:
    """Where ``inside`` ends between a point that is inside and one that may not be, on the outer side."""
    for _ in range(40):
        middle = (within + without) / 2
        held = inside(middle)
        within, without = np.where(held, middle, within), np.where(held, without, middle)
    return without


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
    if variance <= 0:
        return 0.0
    prior = scale**2
    return math.sqrt(
        variance * (variance + prior) / prior * (math.log((variance + prior) / variance) + 2 * math.log(1 / alpha))
    )
