"""ROC AUC and average precision of many replicates at once, without sorting or searching in any of them.

Rows are sorted by score once. The weight of all negatives above a positive is a prefix sum; how many of them there are
is the same in every replicate. Prefix sums are kept in periods of 32 rows, within which small weights add up to a byte,
so that additions and gathers move bytes, 128 replicates side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlp_ci.evaluate.bootstrap.design import Units
    from mlp_ci.evaluate.metrics import Array

PERIOD = 32  # 32 rows of weight 5 (drawing.HEAVIEST) are 160, and 160 * 5 * 32 fit into 16 bits
STRETCH = 32  # periods that are worked on at a time: a few hundred kB, which the second-level cache holds
EXACT = 1 << 23  # weights of fewer rows are exact as 32-bit floats


@dataclass(frozen=True)
class Prefix:
    """Sums of the weights before a row: ``within`` its period, ``(periods * 32, lanes)``, plus those ``before`` the
    period, ``(periods, lanes)``; ``total`` of all, ``(lanes,)``."""

    within: Array
    before: Array
    total: Array

    def at(self, rows: Array, kind: type) -> Array:
        """The weight of the first so many rows, for each of ``rows``."""
        return np.add(self.within.take(rows, axis=0), self.before.take(rows // PERIOD, axis=0), dtype=kind)


def prefix_of(weights: Array) -> Prefix:
    """The prefix sums of padded weights ``(periods * 32, lanes)`` of which the last row is 0."""
    lanes = weights.shape[1]
    each = weights.reshape(-1, PERIOD, lanes)
    within = np.empty_like(each)
    within[:, 0] = 0
    for row in range(1, PERIOD):
        np.add(within[:, row - 1], each[:, row - 1], out=within[:, row])
    sums = within[:, -1].astype(np.float64)
    sums += each[:, -1]
    before = np.zeros((len(each) + 1, lanes))
    np.cumsum(sums, axis=0, out=before[1:])
    return Prefix(within=within.reshape(-1, lanes), before=before[:-1], total=before[-1])


class Ranked:
    """One model's positives and negatives, by falling score. ``target`` is 1 for positives, scores are not NaN."""

    def __init__(self, target: Array, score: Array, units: Units) -> None:
        positive = target == 1
        order = np.argsort(-score, kind="stable")
        ups, downs = order[positive[order]], order[~positive[order]]
        self.ups, self.downs = units.of_rows(ups), units.of_rows(downs)
        scores, others = -score[ups], -score[downs]
        # How many negatives score more than each positive, and how many at least as much; likewise of positives.
        self.above = _padded(np.searchsorted(others, scores, side="left"))
        self.level = _padded(np.searchsorted(others, scores, side="right"))
        self.reached = _padded(np.searchsorted(scores, scores, side="right"))
        self.tied = bool((self.above != self.level).any())
        self.kind: type = np.float32 if len(target) < EXACT else np.float64

    def values(self, weights: Array, *, auc: bool, average_precision: bool) -> tuple[Array | None, Array | None]:
        """Both metrics for weights ``(units, lanes)``; NaN where a replicate has none of a class."""
        if not (len(self.ups) and len(self.downs)):
            nothing = np.full(weights.shape[1], np.nan)
            return nothing, nothing
        positives, negatives = _gathered(weights, self.ups), _gathered(weights, self.downs)
        ups, downs = prefix_of(positives), prefix_of(negatives)
        with np.errstate(divide="ignore", invalid="ignore"):
            area = self._area(positives, ups, downs) if auc else None
            average = self._average(positives, ups, downs) if average_precision else None
        return area, average

    def _area(self, positives: Array, ups: Prefix, downs: Prefix) -> Array:
        """The weight of pairs in the right order, over that of all; ties count half."""
        wrong = self._pairs(positives, ups, downs, self.level)
        if self.tied:
            wrong = (wrong + self._pairs(positives, ups, downs, self.above)) / 2
        return np.asarray(1 - wrong / (ups.total * downs.total))

    def _pairs(self, positives: Array, ups: Prefix, downs: Prefix, counts: Array) -> Array:
        """Sum over the positives: their weight times that of the first ``counts`` negatives; exact whole numbers."""
        wide = np.uint16 if positives.dtype == np.uint8 else np.float64
        lanes = positives.shape[1]
        found = np.zeros(lanes)
        for start in range(0, len(counts), STRETCH * PERIOD):
            stretch = slice(start, start + STRETCH * PERIOD)
            products = downs.within.take(counts[stretch], axis=0).astype(wide)
            np.multiply(products, positives[stretch], out=products, dtype=wide)
            found += _halved(products.reshape(-1, PERIOD, lanes)).sum(axis=0, dtype=np.float64)
        # What lies before the periods: each period's sum, times the weight of the positives that come after it.
        periods = len(downs.before)
        real = counts[: len(self.ups)] // PERIOD
        until = ups.at(np.searchsorted(real, np.arange(periods), side="right"), np.float64)
        sums = np.diff(np.concatenate([downs.before, downs.total[None]]), axis=0)
        return np.asarray(found + (sums * (ups.total - until)).sum(axis=0))

    def _average(self, positives: Array, ups: Prefix, downs: Prefix) -> Array:
        """The mean over the positives of the precision among all rows that score at least as much."""
        lanes = positives.shape[1]
        found = np.zeros(lanes)
        before_up: Array = ups.before.astype(self.kind)
        before_down: Array = downs.before.astype(self.kind)
        for start in range(0, len(self.level), STRETCH * PERIOD):
            stretch = slice(start, start + STRETCH * PERIOD)
            hits = before_up.take(self.reached[stretch] // PERIOD, axis=0)
            hits += ups.within.take(self.reached[stretch], axis=0)
            seen = before_down.take(self.level[stretch] // PERIOD, axis=0)
            seen += downs.within.take(self.level[stretch], axis=0)
            seen += hits
            np.divide(hits, np.maximum(seen, 1, out=seen), out=hits)
            hits *= positives[stretch]
            found += _halved(hits.reshape(-1, PERIOD, lanes)).sum(axis=0, dtype=np.float64)
        return np.asarray(found / ups.total)


def _padded(counts: Array) -> Array:
    """To whole periods, and one row more than there are, as the weights are padded."""
    full = np.zeros((len(counts) // PERIOD + 1) * PERIOD, dtype=np.intp)
    full[: len(counts)] = counts
    return full


def _gathered(weights: Array, units: Array) -> Array:
    """The weights of these units, padded with zeros to whole periods and at least one row more."""
    lanes = weights.shape[1]
    full = np.empty(((len(units) // PERIOD + 1) * PERIOD, lanes), dtype=weights.dtype)
    weights.take(units, axis=0, out=full[: len(units)], mode="clip")
    full[len(units) :] = 0
    return full


def _halved(periods: Array) -> Array:
    """Sums over the second axis, a power of two long, by adding its halves: ``(periods, lanes)``. Overwrites."""
    count = periods.shape[1]
    while count > 1:
        count //= 2
        np.add(periods[:, :count], periods[:, count : 2 * count], out=periods[:, :count])
    return np.asarray(periods[:, 0])
