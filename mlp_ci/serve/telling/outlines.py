"""What both versions answered in this step, as outlines: how long it took, and what they predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from mlp_ci.data.words import cut
from mlp_ci.drawing.axes import Axis, Tick, steps
from mlp_ci.serve.measured import LATENCY_BOUNDS_MS, value_of_bin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.serve.measured import Seen
    from mlp_ci.serve.telling.facts import Facts

WIDTH, HEIGHT = 400.0, 100.0
CELLS = 50  # two bins of predictions from 0 to 1 in each
MOST_LABELS = 8
LEAST = 20  # answers of a version, below which its outline would only show chance
TAIL = 0.002  # share of the numbers at either end that no axis is stretched for


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Two histograms on one axis, each as a share of its own rows: SVG paths."""

    title: str
    unit: str
    stable: str
    canary: str
    ticks: tuple[Tick, ...]


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Texts that were predicted, the most frequent first: (text, its share with the old version, with the new one)."""

    title: str
    rows: tuple[tuple[str, float, float], ...]


def outlines(facts: Facts) -> list[Outline]:
    """Latency and numeric predictions of the current step; none before both versions answered enough."""
    if facts.current is None or min(facts.current.stable.requests, facts.current.canary.requests) < LEAST:
        return []
    stable, canary = facts.current.stable, facts.current.canary
    found = [_latency(stable, canary), _predicted(stable, canary)]
    return [o for o in found if o is not None]


def bars(facts: Facts) -> Bars | None:
    """Texts that were predicted in the current step; None where predictions are numbers, or too few."""
    if facts.current is None:
        return None
    stable, canary = _texts(facts.current.stable), _texts(facts.current.canary)
    if min(sum(stable.values()), sum(canary.values())) < LEAST:
        return None
    shares = {
        name: (stable.get(name, 0) / sum(stable.values()), canary.get(name, 0) / sum(canary.values()))
        for name in {**stable, **canary}
    }
    first = sorted(shares, key=lambda name: (-max(shares[name]), name))[:MOST_LABELS]
    return Bars(title="Predictions in this step", rows=tuple((cut(name, 40), *shares[name]) for name in first))


def _texts(seen: Seen) -> dict[str, int]:
    return {name.removeprefix("="): count for name, count in seen.predictions.items() if value_of_bin(name) is None}


# ---------------------------------------------------------------- numbers


def _latency(stable: Seen, canary: Seen) -> Outline | None:
    """On a logarithmic axis, as the bins are: equally wide cells, several bins each."""
    used = sorted({*stable.latency, *canary.latency})
    if not used or not stable.latency or not canary.latency:
        return None
    low, high = _inner(stable.latency, canary.latency)
    width = max(1, math.ceil((high - low + 3) / CELLS))
    count = max(4, math.ceil((high - low + 3) / width))
    first = max(0, low - 1)
    rows = [_cells({float(b): n for b, n in s.latency.items()}, first, width, count) for s in (stable, canary)]
    axis = Axis(low=float(first), high=float(first + width * count), length=WIDTH)
    return _outline("Latency in this step", "ms", rows, _decades(axis))


def _inner(*found: Mapping[int, int]) -> tuple[int, int]:
    """The bins that hold all but the tails of both."""
    ends = []
    for counts in found:
        order = sorted(counts)
        below = list(accumulate(counts[b] for b in order))
        ends.append(next(b for b, n in zip(order, below, strict=True) if n >= TAIL * below[-1]))
        ends.append(next(b for b, n in zip(order, below, strict=True) if n >= (1 - TAIL) * below[-1]))
    return min(ends), max(ends)


def _cells(counts: Mapping[float, int], first: float, width: float, cells: int) -> list[float]:
    """Shares of the rows in cells of equal width from ``first`` on; what is beyond an end stands at it."""
    row = [0] * cells
    for at, count in counts.items():
        row[min(cells - 1, max(0, int((at - first) / width)))] += count
    total = sum(row) or 1
    return [n / total for n in row]


def _decades(axis: Axis) -> tuple[Tick, ...]:
    """1, 2, 5, 10 … milliseconds, where they stand on an axis of bins."""
    ticks = []
    for power in range(-1, 6):
        for factor in (1, 2, 5):
            value = factor * 10.0**power
            place = math.log(value / LATENCY_BOUNDS_MS[0]) / math.log(1.1)
            if axis.low <= place <= axis.high:
                ticks.append(Tick(text=f"{value:g}", at=axis.per_cent(place)))
    crowded = len(ticks) > 7
    return tuple(t for t in ticks if not crowded or t.text.strip("0.") == "1")


def _predicted(stable: Seen, canary: Seen) -> Outline | None:
    numbers = [_numbers(s) for s in (stable, canary)]
    if min(sum(n.values()) for n in numbers) < LEAST:
        return None
    low = min(_quantile(n, TAIL) for n in numbers)
    high = max(_quantile(n, 1 - TAIL) for n in numbers)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    if not low < high:
        return None
    rows = [_cells(n, low, (high - low) / CELLS, CELLS) for n in numbers]
    return _outline("Predictions in this step", "", rows, Axis(low=low, high=high, length=WIDTH).ticks())


def _numbers(seen: Seen) -> dict[float, int]:
    found: dict[float, int] = {}
    for name, count in seen.predictions.items():
        value = value_of_bin(name)
        if value is not None:
            found[value] = found.get(value, 0) + count
    return found


def _quantile(counts: Mapping[float, int], share: float) -> float:
    order = sorted(counts)
    below = list(accumulate(counts[v] for v in order))
    return next(v for v, n in zip(order, below, strict=True) if n >= share * below[-1])


def _outline(title: str, unit: str, rows: Sequence[Sequence[float]], ticks: tuple[Tick, ...]) -> Outline:
    top = max(max(row) for row in rows)
    drawn = [steps(row, top, (WIDTH, HEIGHT)) for row in rows]
    return Outline(title=title, unit=unit, stable=drawn[0], canary=drawn[1], ticks=ticks)
