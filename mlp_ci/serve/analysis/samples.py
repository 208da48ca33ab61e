"""How many requests a step needs, so that harm as large as the margin is seen with the wanted power."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

from mlp_ci.serve.analysis.evidence import BEGINS, nearest_null

LEAST = 30  # requests of the new version without which nothing passes
MOST = 10**12
LUMPS = 0.3  # labels come in lots: between 40 looks the evidence stays so far below its highest (Siegmund's correction)
_PHI = NormalDist().cdf


@lru_cache(maxsize=4096)
def of_shares(stable: float, canary: float, others: float, barrier: float, power: float) -> int | None:
    """Requests of the canary until the evidence passes ``barrier`` (a logarithm) with probability ``power``.

    ``stable`` and ``canary`` are the shares of hits, in truth and in the alternative; ``others`` requests of the stable
    version come with each of the canary. The log likelihood ratio is taken for a Brownian motion with its drift and
    variance, whose first passage has a known distribution (Siegmund 1985, "Sequential Analysis", chapter III). But
    there are never fewer than what brings enough hits with probability ``power`` (Poisson).
    """
    if not 0 <= stable < canary <= 1:
        return None
    share = 1 / (1 + others)
    null = share * canary + (1 - share) * stable
    floor = max(stable, 1e-12)
    up, down = _logit(canary) - _logit(null), _logit(floor) - _logit(null)
    drift = _divergence(canary, null) + others * _divergence(stable, null)
    variance = canary * (1 - canary) * up**2 + others * stable * (1 - stable) * down**2
    # It jumps over the barrier with a hit, by half of a hit's worth on average.
    moved = first_passage(drift, variance, barrier + math.log(canary / null) / 2, power)
    if moved is None:
        return None
    enough = _poisson_mean(math.ceil(barrier / math.log(canary / null)), power) / canary
    return max(LEAST, math.ceil(max(moved, enough)))


def of_shares_apart(stable: float, apart: float, gap: float, others: float) -> tuple[float, float]:
    """Drift and variance of the log likelihood ratio for shares ``apart``, against a null hypothesis of ``gap``."""
    canary = stable + apart
    a0, b0 = (float(x) for x in nearest_null(stable, canary, 1 / (1 + others), gap))
    up, down = _logit(canary) - _logit(b0), _logit(stable) - _logit(a0)
    drift = _divergence(canary, b0) + others * _divergence(stable, a0)
    return drift, canary * (1 - canary) * up**2 + others * stable * (1 - stable) * down**2


def first_passage(drift: float, variance: float, barrier: float, power: float) -> float | None:
    """When a Brownian motion has passed ``barrier`` with probability ``power``; None: practically never."""
    if drift <= 0 or variance <= 0:
        return None

    def passed(time: float) -> float:
        sd = math.sqrt(variance * time)
        reflected = _PHI((-barrier - drift * time) / sd)
        more = math.exp(min(700.0, 2 * drift * barrier / variance)) * reflected if reflected else 0.0
        return _PHI((drift * time - barrier) / sd) + more

    return _least(passed, power)


def of_means(variance: float, margin: float, barrier: float, power: float) -> int | None:
    """Rows of the canary for a mean: ``variance`` of the difference of means, times the canary's rows."""
    if not (variance > 0 and margin > 0):
        return None
    drift = margin**2 / (2 * variance)
    found = first_passage(drift, 2 * drift, barrier + LUMPS, power)
    return None if found is None else max(LEAST, math.ceil(found))


def barrier_of(alpha: float, weight: float) -> float:
    """What the log likelihood ratio of one alternative must reach in a first step, so that the average fails."""
    return math.log(1 / alpha) - math.log(weight * BEGINS[0])


def _poisson_mean(least: int, power: float) -> float:
    """The mean at which at least so many come with probability ``power``."""

    def chance(mean: float) -> float:
        term, total = math.exp(-mean), 0.0
        for k in range(least):
            total += term
            term *= mean / (k + 1)
        return 1 - total

    return 0.0 if least > 60 else _least(chance, power) or 0.0


def _least(rises: object, level: float) -> float | None:
    assert callable(rises)
    high = 1.0
    while rises(high) < level:
        high *= 2
        if high > MOST:
            return None
    low = 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) >= level else (middle, high)
    return high


def _logit(p: float) -> float:
    p = min(max(p, 1e-12), 1 - 1e-12)
    return math.log(p) - math.log1p(-p)


def _divergence(one: float, other: float) -> float:
    first = one * math.log(one / other) if one > 0 else 0.0
    second = (1 - one) * math.log((1 - one) / (1 - other)) if one < 1 else 0.0
    return first + second
