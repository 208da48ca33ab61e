"""BCa intervals: percentiles of the replicates, corrected for bias and acceleration.

Efron, "Better bootstrap confidence intervals" (1987); DiCiccio & Efron, "Bootstrap confidence intervals" (1996). The
normal quantile is replaced by Student's, times the root of n / (n - 1), because replicates vary a little less than the
metric does: Hesterberg, "What teachers should know about the bootstrap" (2015), section 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlp_ci.evaluate.metrics import Array

LEAST = 1e-9  # of 1 - a z, which is near 1 unless the acceleration is absurd


@dataclass(frozen=True)
class Bca:
    """The replicates in order, and by how much their percentiles are moved.

    ``replicates`` are sorted, finite and not all equal; ``bias`` is z0 and ``acceleration`` a of the sources; ``units``
    is how many things were drawn. Beyond the outermost replicates the distribution goes on as a normal one with
    ``standard_error``: a p-value of one in a million needs no million replicates.
    """

    replicates: Array
    bias: float
    acceleration: float
    standard_error: float
    units: float

    def bound(self, share: float) -> float:
        z = self.bias + self._widened(share)
        return self._quantile(self.bias + z / max(1 - self.acceleration * z, LEAST))

    def p_at_least(self, limit: float) -> float:
        return self._share(self._normal(limit, left=True))

    def p_at_most(self, limit: float) -> float:
        return 1 - self._share(self._normal(limit, left=False))

    def _widened(self, share: float) -> float:
        from scipy.special import stdtrit

        return float(stdtrit(self.units - 1, share)) * math.sqrt(self.units / (self.units - 1))

    def _share(self, z: float) -> float:
        """``bound`` turned round, from the normal variable behind a replicate."""
        from scipy.special import stdtr

        w = z - self.bias
        t = w / max(1 + self.acceleration * w, LEAST) - self.bias
        return float(stdtr(self.units - 1, t / math.sqrt(self.units / (self.units - 1))))

    def _quantile(self, z: float) -> float:
        """The replicate at the share that a normal variable is below z."""
        edge = self._edge()
        if abs(z) >= edge:
            end = self.replicates[0 if z < 0 else -1]
            return float(end + math.copysign(abs(z) - edge, z) * self.standard_error)
        count = len(self.replicates)
        return float(np.interp(share_below(z) * (count + 1), np.arange(1, count + 1), self.replicates))

    def _normal(self, limit: float, *, left: bool) -> float:
        """z for which ``_quantile`` is the limit: the smallest such (left) or the largest."""
        ordered, count, edge = self.replicates, len(self.replicates), self._edge()
        at = int(np.searchsorted(ordered, limit, side="left" if left else "right"))
        if at in (0, count):
            beyond = abs(limit - ordered[0 if at == 0 else -1]) / self.standard_error
            return math.copysign(edge + float(beyond), -1 if at == 0 else 1)
        under, over = float(ordered[at - 1]), float(ordered[at])
        return normal_quantile((at + (limit - under) / (over - under)) / (count + 1))

    def _edge(self) -> float:
        return -normal_quantile(1 / (len(self.replicates) + 1))


def bca(value: float, replicates: Array, acceleration: float, units: float) -> Bca:
    """The distribution from finite replicates of ``value``; half of those equal to it count as below (ties)."""
    ordered = np.sort(replicates)
    count = len(ordered)
    below = float(np.searchsorted(ordered, value, "left") + np.searchsorted(ordered, value, "right")) / 2
    bias = normal_quantile(min(max(below, 0.5), count - 0.5) / count)
    return Bca(ordered, bias, acceleration, float(ordered.std(ddof=1)), units)


def share_below(z: float) -> float:
    """The share of a standard normal variable below z."""
    from scipy.special import ndtr

    return float(ndtr(z))


def normal_quantile(share: float) -> float:
    """What a standard normal variable is below with this chance."""
    from scipy.special import ndtri

    return float(ndtri(share))
