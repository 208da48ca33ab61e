"""Blocks of time: rows that are near each other in time are drawn together, because their errors are alike.

The circular block bootstrap (Politis & Romano 1992; moving blocks: Künsch 1989): stretches of one length begin at
random times, and time is a circle, so that the first and the last rows are drawn as often as all others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.evaluate.bootstrap.drawing import multinomial

if TYPE_CHECKING:
    from mlp_ci.evaluate.metrics import Array

CELLS = 24  # a block begins at any of so many points of its length
MOST_CELLS = 50_000


@dataclass(frozen=True)
class Circle:
    """Time cut into ``count`` cells of equal length, ``length`` of which are a block."""

    count: int
    length: int

    @property
    def blocks(self) -> int:
        """How many blocks are drawn, and as many would lie side by side."""
        return max(1, round(self.count / self.length))

    def draw(self, lanes: int, chance: np.random.Generator) -> Array:
        """How often each cell is covered by a block: ``(count, lanes)``."""
        starts = multinomial(self.blocks, self.count, lanes, chance)
        sums = np.cumsum(np.concatenate([starts[-self.length :], starts]), axis=0)
        return np.asarray(sums[self.length :] - sums[: -self.length])


def circle(times: Array, block: float) -> tuple[Circle, Array]:
    """The circle of these times (seconds) with this block length, and the cell of each row.

    Blocks so short that there were more than ``MOST_CELLS`` are made longer: the rows of one are then still few.
    """
    span = float(times.max() - times.min())
    block = max(block, span / MOST_CELLS)
    many = max(1.0, span / block)
    length = int(max(1, min(CELLS, MOST_CELLS // many)))
    # One cell more than fits: the last time is in a cell as well. Fewer than two blocks are no blocks to choose from.
    count = max(2 * length, math.floor(span / block * length) + 1)
    cells = np.floor((times - times.min()) / block * length).astype(np.int64)
    return Circle(count=count, length=length), np.minimum(cells, count - 1)


def block_length(times: Array, loss: Array) -> float:
    """The block length in seconds for a loss of each row at its time, by Politis & White (2004).

    With the correction of Patton, Politis & White (2009), for circular blocks: (2 G^2 / D)^(1/3) n^(1/3) of the n
    distinct times, where G = sum |k| R(k) and D = 4/3 (sum R(k))^2 over the autocovariances R of the mean loss at each
    time, tapered flat-top beyond the lag M from which on they are not significant. At least one step, at most a quarter
    of the whole, so that there are blocks to choose from.
    """
    moments, index = np.unique(times, return_inverse=True)
    n = len(moments)
    if n < 8:
        return float(max(moments[-1] - moments[0], 1.0)) / 2 if n > 1 else 1.0
    step = float(moments[-1] - moments[0]) / (n - 1)
    series = np.bincount(index, weights=loss) / np.bincount(index)
    steps = min(max(1.0, _steps(series)), n / 4)
    return steps * step


def _steps(series: Array) -> float:
    """The block length in steps of an evenly spaced series."""
    n = len(series)
    centred = series - series.mean()
    most = min(n - 1, math.ceil(math.sqrt(n)) + max(5, math.ceil(math.log10(n))))
    covariances = np.array([centred[: n - k] @ centred[k:] / n for k in range(most + 1)])
    if covariances[0] <= 0:
        return 1.0
    quiet = np.abs(covariances[1:] / covariances[0]) < 2 * math.sqrt(math.log10(n) / n)
    run = max(5, math.ceil(math.sqrt(math.log10(n))))
    first = next((m for m in range(len(quiet) - run + 1) if quiet[m : m + run].all()), None)
    loud = np.flatnonzero(~quiet)
    last = int(loud[-1]) + 1 if loud.size else 1
    lag = min(2 * max(1, last if first is None else first), most)
    lags = np.arange(-lag, lag + 1)
    taper = np.clip(2 * (1 - np.abs(lags) / lag), 0, 1)
    tapered = taper * covariances[np.abs(lags)]
    g, d = float((np.abs(lags) * tapered).sum()), 4 / 3 * float(tapered.sum()) ** 2
    return (2 * g**2 / d) ** (1 / 3) * n ** (1 / 3) if d > 0 else 1.0
