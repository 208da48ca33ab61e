"""Evidence that a share is larger in the canary than in the stable version, which may be looked at at any time.

The evidence is an e-process: under the null hypothesis its expected value is at most 1 whenever one looks, so that it
reaches ``1 / alpha`` ever with probability ``alpha`` at most (Ville 1939). For one alternative (a, b), the share of
hits in stable and canary, and a block of requests of which the canary got the share w, it is the likelihood ratio

    (b / b0)^hits_c ((1 - b) / (1 - b0))^misses_c (a / a0)^hits_s ((1 - a) / (1 - a0))^misses_s

whose denominator (a0, b0) is the null hypothesis's nearest point in Kullback-Leibler divergence weighted by w: Turner,
Ly & Grünwald 2024, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping", where
a0 = b0 = w b + (1 - w) a for the simple null hypothesis; Turner & Grünwald 2023, "Exact anytime-valid confidence
intervals for contingency tables and beyond", for one that allows a difference. It holds whatever the share of hits is,
and when it changes with the time of day for both. Steps multiply (strata: Turner & Grünwald 2023, "Safe sequential
testing and effect estimation in stratified count data"); alternatives are averaged.
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
# larger share of the traffic brings out. The first has most, since it costs log(1 / 0.8) there; every other step has
# some, however many there are: 1 / (k (k + 1)) adds up to 1, and what is beyond the hundredth is the hundredth's.
BEGINS = (0.8, *(0.2 / (k * (k + 1)) for k in range(1, 100)), 0.2 / 100)
TINY = 1e-12


@dataclass(frozen=True)
class Table:
    """Hits among the requests of both versions in one step; each field a number, or an array over what is tested."""

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


def pooled(tables: Sequence[Table]) -> tuple[Array, Array]:
    """The share of hits among the requests of both versions together, and the canary's part of the requests.

    Alternatives are chosen by these: if the versions are alike, the sum says nothing of who had the hits, so that what
    is chosen by it keeps the evidence's expected value at 1.
    """
    hits = sum(np.asarray(t.canary_hits + t.stable_hits, float) for t in tables)
    canary = sum(np.asarray(t.canary_rows, float) for t in tables)
    rows = canary + sum(np.asarray(t.stable_rows, float) for t in tables)
    return (hits + 0.5) / (rows + 1), canary / np.maximum(rows, 1)


def nearest_null(stable: Array, canary: Array, share: Array, gap: Array = 0.0) -> tuple[Array, Array]:
    """The point (a, a + gap) nearest to (stable, canary), arrays alike, by the divergence weighted with ``share``.

    Nearest is what maximises a likelihood in which the two shares were seen: the cubic equation of Miettinen & Nurminen
    1985, "Comparative analysis of two rates", in the closed form of Farrington & Manning 1990, "Test statistics and
    sample size formulae for comparative binomial trials with null hypothesis of non-zero risk difference".
    """
    if np.ndim(gap) == 0 and gap == 0:
        middle = share * canary + (1 - share) * stable
        return middle, middle
    others = (1 - share) / share
    a = 1 + others
    b = -(1 + others + canary + others * stable + gap * (others + 2)) / (3 * a)
    c = (gap * gap + gap * (2 * canary + others + 1) + canary + others * stable) / (3 * a)
    d = -canary * gap * (1 + gap) / (2 * a)
    v = b**3 - 1.5 * b * c + d
    u = np.where(v < 0, -1.0, 1.0) * np.sqrt(np.maximum(b * b - c, 0))
    turned = (math.pi + np.arccos(np.clip(v / np.where(u == 0, TINY, u**3), -1, 1))) / 3
    low, high = np.maximum(-gap, 0) + TINY, np.minimum(1 - gap, 1) - TINY
    found = np.clip(2 * u * np.cos(turned) - b - gap, low, high)
    for _ in range(2):  # Newton's steps: the cosine loses digits near 0
        there = found + gap
        slope = share * (there - canary) / (there * (1 - there)) + (1 - share) * (found - stable) / (
            found * (1 - found)
        )
        bend = share * _bend(canary, there) + (1 - share) * _bend(stable, found)
        found = np.clip(found - slope / bend, low, high)
    return found, found + gap


def _slope(seen: Array, p: Array) -> Array:
    """First derivative of the divergence of ``seen`` from ``p`` by p."""
    return (p - seen) / (p * (1 - p))


def _bend(seen: Array, p: Array) -> Array:
    """Second derivative of the divergence of ``seen`` from ``p`` by p."""
    return seen / p**2 + (1 - seen) / (1 - p) ** 2


def log_ratio(table: Table, stable: Array, canary: Array, gap: Array = 0.0) -> Array:
    """The logarithm of the likelihood ratio above for each alternative; 0 where one version had no traffic."""
    share = np.clip(table.share, TINY, 1 - TINY)
    a0, b0 = nearest_null(stable, canary, share, gap)
    found = _of_arm(table.canary_hits, table.canary_rows, canary, b0) + _of_arm(
        table.stable_hits, table.stable_rows, stable, a0
    )
    said = (np.asarray(table.canary_rows) > 0) & (np.asarray(table.stable_rows) > 0)
    return np.where(said, found, 0.0)


def _of_arm(hits: Array, rows: Array, one: Array, null: Array) -> Array:
    misses = np.maximum(np.asarray(rows, float) - hits, 0)
    return _times_log(hits, one, null) + _times_log(misses, 1 - one, 1 - null)


def _times_log(count: Array, one: Array, null: Array) -> Array:
    """count · log(one / null), 0 where there is nothing to count; -inf where the alternative rules it out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = count * (np.log(np.maximum(one, 0)) - np.log(np.maximum(null, TINY)))
    return np.where(np.asarray(count) > 0, found, 0.0)


def log_evidence(tables: Sequence[Table], alternatives: tuple[Array, Array], weights: Array, gap: float = 0.0) -> Array:
    """The logarithm of the e-process over all steps, averaged over the alternatives and over where harm begins.

    ``alternatives`` are the shares of hits in (stable, canary), alternatives along the first axis; ``weights`` of shape
    (alternatives,) sum to at most 1. Fields of the tables, and further axes of the alternatives, may be arrays: the
    evidence is an array over these.
    """
    stable, canary = (np.asarray(a, float) for a in alternatives)
    return log_average([log_ratio(t, stable, canary, gap) for t in tables], np.asarray(weights, float))


def log_above(tables: Sequence[Table], canary: Array, weights: Array, floor: float) -> Array:
    """The same evidence that the canary's share of hits is above ``floor``, whatever the stable version's is.

    Only where both say so is the canary worse than the stable version *and* than the floor: the lesser of two
    e-processes is one for the union of their null hypotheses.
    """
    canary = np.asarray(canary, float)
    steps = [_of_arm(t.canary_hits, t.canary_rows, canary, np.full_like(canary, floor)) for t in tables]
    return log_average(steps, np.asarray(weights, float))


def log_average(steps: Sequence[Array], weights: Array) -> Array:
    """log of Σ over alternatives and beginnings of weight · Π of the steps since then; see :data:`BEGINS`."""
    shape = (-1, *[1] * (np.ndim(steps[0]) - 1))
    logs = np.broadcast_to(np.log(weights).reshape(shape), np.shape(steps[0]))
    parts = [logs + math.log(1 - sum(BEGINS[: len(steps)]) + TINY)]
    total = np.zeros_like(logs)
    for index in reversed(range(len(steps))):
        total = total + steps[index]
        if index < len(BEGINS):
            parts.append(logs + math.log(BEGINS[index]) + total)
    return log_sum(np.concatenate(parts))


def log_sum(logs: Array) -> Array:
    """log Σ exp along the first axis."""
    top = np.maximum(np.max(logs, axis=0), -1e300)
    with np.errstate(divide="ignore"):  # all impossible: -inf
        return top + np.log(np.sum(np.exp(logs - top), axis=0))
