"""BCa intervals: percentiles of the replicates, corrected for bias and acceleration.

Efron, "Better bootstrap confidence intervals" (1987); DiCiccio & Efron, "Bootstrap confidence intervals" (1996).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlp_ci.evaluate.metrics import Array


@dataclass(frozen=True)
class Bca:
    """The replicates in order, and by how much their percentiles are moved.

    ``replicates`` are sorted and finite; ``bias`` is z0 and ``acceleration`` a of the sources. Beyond the outermost
    replicates the distribution goes on as a normal one with ``standard_error``: a p-value of one in a million needs no
    million replicates.
    """

    replicates: Array
    bias: float
    acceleration: float
    standard_error: float

    def bound(self, share: float) -> float:
        z = self.bias + ndtri(share)
        return self._quantile(self.bias + z / max(1 - self.acceleration * z, 1e-9))

    def below(self, limit: float) -> tuple[float, float]:
        first, last = (self._normal(self.replicates, limit, side) for side in ("left", "right"))
        return self._share(first), self._share(last)

    def _share(self, z: float) -> float:
        w = z - self.bias
        return ndtr(w / max(1 + self.acceleration * w, 1e-9) - self.bias)

    def _quantile(self, z: float) -> float:
        """The replicate at the share that a normal variable is below z."""
        edge = self._edge()
        if abs(z) >= edge:
            end = self.replicates[0 if z < 0 else -1]
            return float(end + np.sign(z) * (abs(z) - edge) * self.standard_error)
        count = len(self.replicates)
        return float(np.interp(ndtr(z) * (count + 1), np.arange(1, count + 1), self.replicates))

    def _normal(self, ordered: Array, limit: float, side: str) -> float:
        """z for which ``_quantile`` is the limit: the smallest such (left) or the largest (right)."""
        count, edge = len(ordered), self._edge()
        at = int(np.searchsorted(ordered, limit, side=side))  # type: ignore[call-overload]
        if at in (0, count):
            gap = abs(limit - ordered[0 if at == 0 else -1])
            beyond = gap / self.standard_error if self.standard_error > 0 else (0.0 if gap == 0 else np.inf)
            return float((-1 if at == 0 else 1) * (edge + beyond))
        under, over = ordered[at - 1], ordered[at]
        rank = at + (limit - under) / (over - under) if over > under else at
        return ndtri(rank / (count + 1))

    def _edge(self) -> float:
        return -ndtri(1 / (len(self.replicates) + 1))


def bca(value: float, replicates: Array, acceleration: float) -> Bca:
    """The distribution from finite replicates of ``value``; half of those equal to it count as below (ties)."""
    ordered = np.sort(replicates)
    count = len(ordered)
    below = (np.searchsorted(ordered, value, "left") + np.searchsorted(ordered, value, "right")) / 2
    bias = ndtri(float(np.clip(below, 0.5, count - 0.5)) / count)
    return Bca(ordered, bias, acceleration, float(ordered.std(ddof=1)))


def ndtr(z: float) -> float:
    """The share of a standard normal variable below z."""
    from scipy.special import ndtr as share_below

    return float(share_below(z))


def ndtri(share: float) -> float:
    """What a standard normal variable is below of with this chance."""
    from scipy.special import ndtri as quantile

    return float(quantile(share))
