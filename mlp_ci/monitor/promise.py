"""Whether live performance breaks what the evidence promised. Pure functions of values and their intervals.

The alarm keeps to a risk α per look, of which half goes to each of two ways of seeing a drop:

- the **whole** window: the lower limit of the drop, at risk α/2, lies beyond ``max_drop``;
- **persistence**: in each of the last k windows with enough labels that do not overlap, the lower limit at 2.5 % (the
  95 % interval) lies beyond it, and so does that of the k windows together at risk α/2.

So a look raises a false alarm with a chance of at most α, whether or not looks and windows are independent. The
evidence was measured on finitely many rows, too, and its error is the same in every window; the limit of the drop
counts both (Zou & Donner 2008: the squared distances to the two limits add up). Intervals are 95 % bootstrap intervals,
widened to other risks by the ratio of normal quantiles.

Rows of one day share its weather: windows then vary more than their rows explain, and an interval that takes rows for
independent is too short. How much more, is seen in the windows themselves: the median distance of neighbours, over what
chance would make of it. By that the limits of live windows are widened. One lasting drop is one distance among many and
leaves the median as it is.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.evaluate.bootstrap import Estimate
    from mlp_ci.evaluate.metrics import Metric

PASS, ALARM, INSUFFICIENT = "pass", "alarm", "insufficient"
# What one look may risk unless it is told less; half of it is the 2.5 % on one side of a 95 % interval.
ALPHA = 0.05
SIDE = 0.025
SIDE_QUANTILE = NormalDist().inv_cdf(1 - SIDE)
# With fewer windows than this, their distances tell nothing.
FEWEST_WINDOWS = 6
# The median distance from zero of a standard normal number.
MEDIAN_DISTANCE = NormalDist().inv_cdf(0.75)


@dataclass(frozen=True, kw_only=True)
class WindowPerformance:
    """One window of the timeline, times in ISO 8601. ``rows`` of ``answered`` answers have a label by now.

    ``outcome``: pass, alarm (the drop is beyond what is accepted, in this window alone) or insufficient (``reason``).
    """

    since: str
    until: str
    answered: int
    rows: int
    outcome: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What the evidence says, the drop that is accepted, and the risk that a look may run of a false alarm.

    ``unrest``: how much more live windows vary than their rows explain, at least 1 (:func:`unrest_of`).
    """

    metric: Metric
    evidence: Estimate
    max_drop: float
    alpha: float = ALPHA
    persistence: int = 2
    unrest: float = 1.0

    def broken_by(self, value: float, low: float, high: float, risk: float) -> bool:
        """Whether the lower limit of the drop lies beyond what is accepted; ``risk`` is the chance that it is missed.

        ``low`` and ``high`` bound the value with 95 % confidence as far as independent rows go.
        """
        told = self.evidence
        ours, theirs = (high - value, told.value - (told.value if told.low is None else told.low))
        drop = told.value - value
        if not self.metric.higher_is_better:
            ours, theirs = (value - low, (told.value if told.high is None else told.high) - told.value)
            drop = -drop
        return drop - math.hypot(ours * self.unrest, theirs) * _widening(risk) > self.max_drop

    def judge(self, window: WindowPerformance, risk: float = SIDE) -> WindowPerformance:
        """The window with its outcome, if it was measured."""
        if window.value is None or window.low is None or window.high is None:
            return window
        broken = self.broken_by(window.value, window.low, window.high, risk)
        return replace(window, outcome=ALARM if broken else PASS)


@cache
def _widening(risk: float) -> float:
    """From the half-width of a 95 % interval to one that is missed on one side with this risk."""
    return NormalDist().inv_cdf(1 - risk) / SIDE_QUANTILE


def separate(windows: Sequence[WindowPerformance]) -> list[WindowPerformance]:
    """The windows that were measured and do not overlap, newest first: those that share rows share their chance."""
    chosen: list[WindowPerformance] = []
    for window in sorted(windows, key=lambda w: w.until, reverse=True):
        if window.value is not None and not (chosen and window.until > chosen[-1].since):
            chosen.append(window)
    return chosen


def unrest_of(windows: Sequence[WindowPerformance]) -> float:
    """How many times as far neighbouring windows lie apart as their intervals explain: the median, at least 1.

    Distances of neighbours (von Neumann 1941) do not grow with a slow trend, nor their median with one sudden drop.
    """
    told = separate(windows)
    if len(told) < FEWEST_WINDOWS:
        return 1.0
    widths = [(float(w.high or 0) - float(w.low or 0)) / 2 / SIDE_QUANTILE for w in told]
    values = [float(w.value or 0) for w in told]
    errors = [math.hypot(*pair) for pair in itertools.pairwise(widths)]
    apart = [abs(b - a) for a, b in itertools.pairwise(values)]
    known = [distance / error for distance, error in zip(apart, errors, strict=True) if error > 0]
    return max(1.0, median(known) / MEDIAN_DISTANCE) if known else 1.0


def persistent(windows: Sequence[WindowPerformance], persistence: int) -> list[WindowPerformance]:
    """The last ``persistence`` separate windows, newest first, if each is beyond what is accepted; else nothing."""
    last = separate(windows)[:persistence]
    return last if len(last) == persistence and all(w.outcome == ALARM for w in last) else []


def together(windows: Sequence[WindowPerformance]) -> tuple[float, float, float]:
    """Value, low and high of separate windows as one: the mean by rows, the half-widths as of independent samples."""
    rows = sum(w.rows for w in windows)
    shares = [(w.rows / rows, float(w.value or 0), float(w.low or 0), float(w.high or 0)) for w in windows]
    value = sum(share * v for share, v, _, _ in shares)
    below = math.hypot(*(share * (v - low) for share, v, low, _ in shares))
    above = math.hypot(*(share * (high - v) for share, v, _, high in shares))
    return value, value - below, value + above
