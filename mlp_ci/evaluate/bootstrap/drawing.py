"""Random weights: how often each unit is drawn, for many replicates at once.

Many units are drawn by the Poisson bootstrap (Hanley & MacGibbon 2006; Chamandy et al. 2012): each has its own weight,
with the mean, the variance and, to 2 %, the skewness of a Poisson variable of mean 1, made from one random byte. Given
their total, which the metrics do not depend on, that is the multinomial bootstrap. Few units are drawn multinomially.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlp_ci.evaluate.metrics import Array

# Of 256 bytes 94 give 0, 95 give 1, then 46, 16, 4 and 1: mean 1, variance 1, third central moment 0.984. The mean, the
# variance and the third moment of Poisson cannot all be met with 256ths.
CUTS = (94, 189, 235, 251, 255)
HEAVIEST = len(CUTS)
MANY = 4096  # units from which on weights are independent
BLOCK = 1 << 15  # bytes that stay in the first-level cache through all comparisons


def generator(seed: int, chunk: int) -> np.random.Generator:
    """The chance of one chunk of replicates: the same whichever thread draws it, and when."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(chunk,))))


def drawn(count: int, lanes: int, chance: np.random.Generator) -> Array:
    """How often each of ``count`` units is drawn in each of ``lanes`` replicates: ``(count, lanes)``."""
    return independent(count, lanes, chance) if count >= MANY else multinomial(count, count, lanes, chance)


def independent(count: int, lanes: int, chance: np.random.Generator) -> Array:
    """Weights of at most ``HEAVIEST``, as uint8."""
    size = count * lanes
    raw = chance.integers(0, 2**64 - 1, size=-(-size // 8), dtype=np.uint64, endpoint=True).astype("<u8", copy=False)
    given = raw.view(np.uint8)[:size]
    weights = np.empty(size, dtype=np.uint8)
    above = np.empty(BLOCK, dtype=bool)
    for start in range(0, size, BLOCK):
        some, into = given[start : start + BLOCK], weights[start : start + BLOCK]
        flags = above[: len(some)]
        np.greater_equal(some, CUTS[0], out=into.view(bool))
        for cut in CUTS[1:]:
            np.greater_equal(some, cut, out=flags)
            np.add(into, flags.view(np.uint8), out=into)
    return weights.reshape(count, lanes)


def multinomial(draws: int, count: int, lanes: int, chance: np.random.Generator) -> Array:
    """``draws`` draws from ``count`` units for each lane, as int64."""
    chosen = chance.integers(0, count, size=(draws, lanes)) * lanes + np.arange(lanes)
    return np.bincount(chosen.ravel(), minlength=count * lanes).reshape(count, lanes)
