"""Shares of rows (accuracy, recall ...) where a bootstrap cannot know: all rows right, or nearly all.

Of a thousand rows without a mistake every replicate has none either, and its interval has no width. Clopper & Pearson
(1934) ask instead which true shares would give such a sample often enough. Two models are compared by the rows on which
exactly one of them is right; the limits of both shares are put together as in Zou & Donner (2008), the squares of the
distances adding up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FEW = 20  # right or wrong rows below which the exact interval is used
STEPS = 60


@dataclass(frozen=True)
class ClopperPearson:
    """``hits`` of ``rows`` independent rows; ``rows`` > 0."""

    hits: float
    rows: float

    def bound(self, share: float) -> float:
        return self.lower(share) if share < 0.5 else self.upper(1 - share)

    def lower(self, alpha: float) -> float:
        from scipy.special import betaincinv

        return float(betaincinv(self.hits, self.rows - self.hits + 1, alpha)) if self.hits > 0 else 0.0

    def upper(self, alpha: float) -> float:
        from scipy.special import betaincinv

        return float(betaincinv(self.hits + 1, self.rows - self.hits, 1 - alpha)) if self.hits < self.rows else 1.0

    def p_at_least(self, limit: float) -> float:
        """The chance of so many hits or more if the share were the limit."""
        from scipy.special import betainc

        if limit <= 0 or self.hits == 0:
            return 0.0 if limit <= 0 else 1.0
        return 1.0 if limit > 1 else float(betainc(self.hits, self.rows - self.hits + 1, limit))

    def p_at_most(self, limit: float) -> float:
        return ClopperPearson(self.rows - self.hits, self.rows).p_at_least(1 - limit)


@dataclass(frozen=True)
class Discordant:
    """The difference of two shares of the same ``rows``: ``gained`` rows are a hit of the first alone, ``lost`` of the
    second alone."""

    gained: float
    lost: float
    rows: float

    @property
    def value(self) -> float:
        return (self.gained - self.lost) / self.rows

    def bound(self, share: float) -> float:
        more, less = ClopperPearson(self.gained, self.rows), ClopperPearson(self.lost, self.rows)
        p, q = self.gained / self.rows, self.lost / self.rows
        if share < 0.5:
            return self.value - math.hypot(p - more.lower(share), less.upper(share) - q)
        return self.value + math.hypot(more.upper(1 - share) - p, q - less.lower(1 - share))

    def p_at_least(self, limit: float) -> float:
        """By bisection: bounds grow with their share. At most a half, for which there is no bound."""
        if self.bound(0.5 - 1e-12) < limit:
            return 1.0
        low, high = 0.0, 0.5
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.bound(middle) >= limit else (middle, high)
        return high

    def p_at_most(self, limit: float) -> float:
        return Discordant(self.lost, self.gained, self.rows).p_at_least(-limit)
