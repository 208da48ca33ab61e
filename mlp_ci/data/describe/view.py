"""What a profile looks like: bars, cells of a histogram, words. Shared by the terminal's table and the page."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.data.plan import instant
from mlp_ci.data.profiles.profile import FEW_VALUES
from mlp_ci.data.profiles.shapes import CategoryProfile, NumberProfile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.data.profiles.shapes import ColumnProfile

BLOCKS = "\N{BRAILLE PATTERN BLANK}▁▂▃▄▅▆▇█"  # its first is a blank at which no line is broken
SPARK_CELLS, CELLS = 12, 40
MOST_BARS = 8
# The outermost values would leave a histogram with all the rest in one cell; so they are drawn at its edge.
OUTERMOST = 0.002
LABEL = 22


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One value (or the rest) with its share of the values."""

    label: str
    rows: int
    share: float
    rest: bool = False


@dataclass(frozen=True, kw_only=True)
class ColumnView:
    """One column. ``distinct`` is exact or None, ``about`` an estimate; ``span`` are the ends of a column of times."""

    name: str
    type: str
    rows: int
    nulls: int
    distinct: int | None
    about: int | None
    unique: bool
    sensitive: bool
    shape: ColumnProfile | None
    span: tuple[Any, Any] | None

    @property
    def missing(self) -> str:
        """The share of missing values."""
        share = self.nulls / self.rows if self.rows else 0.0
        if share in (0.0, 1.0):
            return "0" if share == 0 else "100 %"
        return "<0.01 %" if share < 0.0001 else f"{share * 100:.3g} %"

    @property
    def distinct_words(self) -> str:
        if self.distinct is not None:
            return f"{self.distinct:,}"
        return f"~{float(f'{self.about:.2g}'):,.0f}" if self.about else ""

    @property
    def span_words(self) -> str:
        if self.span is None or self.span[0] is None:
            return ""
        low, high = (instant(int(v)) for v in self.span)
        midnight = all(v.time().isoformat() == "00:00:00" for v in (low, high))
        form = "%Y-%m-%d" if midnight or self.type == "date" else "%Y-%m-%d %H:%M"
        return f"{low:{form}} … {high:{form}}"


@dataclass(frozen=True, kw_only=True)
class FileView:
    """One file; ``repeated`` are the columns that hold one value only."""

    shown_as: str
    rows: int
    columns: tuple[ColumnView, ...]
    repeated: tuple[str, ...] = ()


def bars_of(shape: ColumnProfile | None) -> tuple[Bar, ...]:
    """The most frequent values and the rest; numbers with few values in their order. Empty for all other shapes."""
    if isinstance(shape, CategoryProfile) and shape.count:
        named = list(shape.counts.items())
        kept = named[:MOST_BARS]
        rest = shape.count - sum(n for _, n in kept)
        bars = [Bar(label=_label(v), rows=n, share=n / shape.count) for v, n in kept]
        others = max(0, shape.distinct - len(kept))
        if rest:
            bars.append(Bar(label=f"{others:,} others", rows=rest, share=rest / shape.count, rest=True))
        return tuple(bars)
    if isinstance(shape, NumberProfile) and shape.count and 0 < len(shape.edges) <= MOST_BARS:
        pairs = zip((*shape.edges, shape.largest), shape.counts, strict=True)
        return tuple(Bar(label=f"{v:,.6g}", rows=n, share=n / shape.count) for v, n in pairs if n and v is not None)
    return ()


def sparkline(shape: NumberProfile) -> str:
    """A histogram in one line of characters."""
    if not shape.count:
        return ""
    heights, _, _ = histogram(shape, SPARK_CELLS)
    top = max(heights) or 1.0
    # What is there is seen: only an empty cell is a blank.
    return "".join(BLOCKS[0 if h <= 0 else max(1, round(h / top * (len(BLOCKS) - 1)))] for h in heights)


def histogram(shape: NumberProfile, cells: int) -> tuple[list[float], float, float]:
    """Share of the values in each of ``cells`` cells of equal width, and between which numbers they lie.

    Inside a bin values are spread evenly; where the edges are the values themselves, each counts where it lies.
    """
    low, high = _ends(shape)
    if len(shape.edges) <= FEW_VALUES:
        if is_whole(shape) and 0 < high - low < cells:
            cells = int(high - low) + 1  # whole numbers get a cell each
            width = 1.0
        else:
            width = (high - low) / cells
        heights = [0.0] * cells
        for edge, count in zip((*shape.edges, shape.largest or 0.0), shape.counts, strict=True):
            heights[max(0, min(cells - 1, int((edge - low) / width)))] += count / shape.count
        return heights, low, high
    # A whole number fills the space around it, half of it on either side.
    half = 0.5 if is_whole(shape) else 0.0
    xs, ys = _cumulative(shape, (shape.smallest or 0.0) - 2 * half)
    width = (high - low + 2 * half) / cells
    below = [_between(low - 2 * half + i * width, xs, ys) for i in range(cells + 1)]
    below[0], below[-1] = 0.0, 1.0  # the outermost values count at the edges
    return [max(0.0, b - a) for a, b in itertools.pairwise(below)], low, high


def is_whole(shape: NumberProfile) -> bool:
    """Whether the bins end at whole numbers, as they do where all values are such; those beyond the values do not."""
    if shape.smallest is None or shape.largest is None:
        return False
    return all(edge.is_integer() for edge in shape.edges if shape.smallest <= edge <= shape.largest)


def _ends(shape: NumberProfile) -> tuple[float, float]:
    """Between which two numbers all but the outermost values lie; never equal."""
    low, high = shape.smallest or 0.0, shape.largest or 0.0
    if len(shape.edges) > FEW_VALUES:
        low, high = shape.quantile(OUTERMOST) or low, shape.quantile(1 - OUTERMOST) or high
    span, least = high - low, max(1e-300, abs(low) * 1e-12, abs(high) * 1e-12)
    if least < span < float("inf"):
        return low, high
    # One value, or several that a double hardly tells apart; or so far apart that their distance overflows.
    room = max(0.5, abs(low) * 1e-6)
    return (low - room, low + room) if span <= least else (low / 4, high / 4)


def _cumulative(shape: NumberProfile, start: float) -> tuple[list[float], list[float]]:
    """The share of values up to each edge, from ``start`` on, where none is yet."""
    xs, ys = [start], [0.0]
    ends = (*shape.edges, shape.largest or 0.0)
    for end, total in zip(ends, itertools.accumulate(shape.counts), strict=True):
        at = min(end, shape.largest or 0.0)
        if at > xs[-1]:
            xs.append(at)
            ys.append(total / shape.count)
        else:
            ys[-1] = max(ys[-1], total / shape.count)
    return xs, ys


def _between(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    if x < xs[0]:
        return 0.0
    if x >= xs[-1]:
        return ys[-1]
    i = bisect_right(xs, x)
    return ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1])


def _label(text: str) -> str:
    flat = " ".join(text.split()) or "(empty)"
    return flat if len(flat) <= LABEL else flat[: LABEL - 1] + "…"
