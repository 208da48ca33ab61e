"""Weighted sums of columns over the rows for many replicates, the same to the last bit on every machine.

A matrix product of floats depends on the order of its additions, and so on the number of cores. Here each column, less
its mean, is rounded to whole numbers so small that every sum of them is exact in a double (a relative error of about
2^-30 of the largest value): then no order matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlp_ci.evaluate.bootstrap.design import Units
    from mlp_ci.evaluate.metrics import Array

HEAVY = 8.0  # no replicate has more than so many times the units as its total weight
SMALL = 1 << 18  # multiplications that a BLAS does in one thread: ours are used already


@dataclass(frozen=True)
class Columns:
    """``whole`` numbers, ``(columns, units)``, to be divided by 2^``powers``; ``means`` come on top."""

    whole: Array
    powers: Array
    means: Array
    varying: Array

    def sums(self, weights: Array) -> Array:
        """For weights ``(units, lanes)``: ``(lanes, columns)``."""
        lanes = weights.shape[1]
        total = np.zeros(lanes)
        found = np.zeros((len(self.whole), lanes))
        step = max(64, min(1024, SMALL // max(1, lanes * len(self.whole))))
        buffer = np.empty((step, lanes))
        ones = np.ones(step)
        for start in range(0, len(weights), step):
            some = weights[start : start + step]
            part = buffer[: len(some)]
            np.copyto(part, some)
            total += ones[: len(some)] @ part
            found += self.whole[:, start : start + step] @ part
        sums = np.outer(self.means, total)
        sums[self.varying] += np.ldexp(found, -self.powers[:, None])
        return np.asarray(sums.T)


def columns_of(rows: Array, units: Units) -> Columns:
    """The columns of ``(rows, columns)`` numbers, added up for each unit. NaN and infinity stay what they are."""
    each = rows.T
    if units.codes is not None:
        each = np.stack([np.bincount(units.codes, weights=c, minlength=units.count) for c in each])
    means = each.mean(axis=1)
    # Whole numbers (counts, flags) are exact as they are; where a mean is not finite, so is no sum.
    apart = each - means[:, None]
    largest = np.abs(apart).max(axis=1)
    varying = np.flatnonzero((largest > 0) & np.isfinite(largest))
    room = 53 - math.ceil(math.log2(HEAVY * max(2, units.count)))
    powers = room - np.frexp(largest[varying])[1]
    whole = np.rint(np.ldexp(apart[varying], powers[:, None]))
    return Columns(whole=np.ascontiguousarray(whole), powers=powers, means=means, varying=varying)
