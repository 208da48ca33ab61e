"""Evidence that a share is larger in the canary than in the stable version, which may be looked at at any time.

The evidence is an e-process: under the null hypothesis its expected value is at most 1 whenever one looks, so that it
reaches ``1 / alpha`` ever with probability ``alpha`` at most (Ville 1939). For one alternative (a, b), the share of
hits in stable and canary, and a block of requests of which the canary got the share w, it is the likelihood ratio

    (b / a0)^hits_c ((1 - b) / (1 - b0))^misses_c (a / a0)^hits_s ((1 - a) / (1 - a0))^misses_s

whose denominator (a0, b0) is the null hypothesis's nearest point in Kullback-Leibler divergence weighted by w: Turner,
Ly & Grünwald 2024, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping", eq. for
the simple null hypothesis a0 = b0 = w b + (1 - w) a, and Turner & Grünwald 2023, "Exact anytime-valid confidence
intervals for contingency tables and beyond", for a null hypothesis that allows a difference. It holds whatever the
share of hits is, and when it changes with the time of day for both. Steps multiply (strata: Turner & Grünwald 2023,
"Safe sequential testing and effect estimation in stratified count data"); alternatives are averaged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = Any  # numpy.ndarray of floats

# In which step harm begins: an average over these keeps a step full of harmless requests from hiding harm that only a
# larger share of the traffic brings out. The first has most, since it costs log(1 / 0.8) there.
BEGINS = (0.8, 0.1, 0.05, 0.05)
TINY = 1e-12


@dataclass(frozen=True)
class Table:
    """Hits among the requests of both versions in one step; each field a number or an array over what is tested."""

    stable_hits: Array
    stable_rows: Array
    canary_hits: Array
    canary_rows: Array

    @property
    def share(self) -> Array:
        """The canary's part of the requests, as it came out."""
        return np.asarray(self.canary_rows / np.maximum(self.canary_rows + self.stable_rows, TINY))

    @property
    def both(self) -> bool:
        """Whether both versions answered anything."""
        return bool(np.all(np.asarray(self.canary_rows) > 0) and np.all(np.asarray(self.stable_rows) > 0))


def nearest_null(stable: Array, canary: Array, share: Array, gap: float = 0.0) -> tuple[Array, Array]:
    """The point (a0, a0 + gap) nearest to (stable, canary), where canary - stable ≥ gap; all arrays alike.

    The derivative of the weighted divergence rises between ``stable`` and ``canary - gap``: bisection.
    """
    if gap == 0:
        middle = share * canary + (1 - share) * stable
        return middle, middle
    low, high = np.array(stable, float), np.array(canary - gap, float)
    for _ in range(50):
        a = np.clip((low + high) / 2, TINY, 1 - gap - TINY)
        b = a + gap
        slope = share * (b - canary) / (b * (1 - b)) + (1 - share) * (a - stable) / (a * (1 - a))
        low, high = np.where(slope < 0, a, low), np.where(slope < 0, high, a)
    a = np.clip((low + high) / 2, TINY, 1 - gap - TINY)
    return a, a + gap


def log_ratio(table: Table, stable: Array, canary: Array, gap: float = 0.0) -> Array:
    """The logarithm of the likelihood ratio above, for each alternative."""
    a0, b0 = nearest_null(stable, canary, table.share, gap)
    return _of_arm(table.canary_hits, table.canary_rows, canary, b0) + _of_arm(
        table.stable_hits, table.stable_rows, stable, a0
    )


def _of_arm(hits: Array, rows: Array, one: Array, null: Array) -> Array:
    misses = np.maximum(np.asarray(rows, float) - hits, 0)
    return _times_log(hits, one, null) + _times_log(misses, 1 - one, 1 - null)


def _times_log(count: Array, one: Array, null: Array) -> Array:
    """count · log(one / null), 0 where there is nothing to count; -inf where the alternative rules it out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = count * (np.log(np.maximum(one, 0)) - np.log(np.maximum(null, TINY)))
    return np.where(np.asarray(count) > 0, found, 0.0)


def log_evidence(tables: Sequence[Table], alternatives: tuple[Array, Array], weights: Array, gap: float = 0.0) -> float:
    """The logarithm of the e-process over all steps, averaged over the alternatives and over where harm begins.

    ``alternatives`` are the shares of hits in (stable, canary), each of shape (n,), ``weights`` of shape (n,) sum to
    at most 1; fields of the tables are numbers or of shape (n,). A step in which one version had no traffic says
    nothing.
    """
    stable, canary = (np.asarray(a, float) for a in alternatives)
    steps = [log_ratio(t, stable, canary, gap) if t.both else np.zeros_like(stable) for t in tables]
    return log_average(steps, np.asarray(weights, float))


def log_average(steps: Sequence[Array], weights: Array) -> float:
    """log of Σ over alternatives and beginnings of weight · Π of the steps since then; see :data:`BEGINS`."""
    parts = [np.log(weights) + math.log(1 - sum(BEGINS[: len(steps)]) + TINY)]
    total = np.zeros_like(weights)
    for index in reversed(range(len(steps))):
        total = total + steps[index]
        if index < len(BEGINS):
            parts.append(np.log(weights) + math.log(BEGINS[index]) + total)
    whole = np.concatenate(parts)
    top = float(np.max(whole))
    return top + math.log(float(np.sum(np.exp(whole - top)))) if math.isfinite(top) else -math.inf
