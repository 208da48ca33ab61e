"""What a profile looks like: bars, small histograms, words. Shared by the terminal's table and the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.data.plan import instant
from mlp_ci.data.profiles.histogram import histogram
from mlp_ci.data.profiles.shapes import CategoryProfile, NumberProfile
from mlp_ci.data.words import cut, show_share

if TYPE_CHECKING:
    from mlp_ci.data.profiles.shapes import ColumnProfile

BLOCKS = "\N{BRAILLE PATTERN BLANK}▁▂▃▄▅▆▇█"  # its first is a blank at which no line is broken
SPARK_CELLS = 12
MOST_BARS = 8
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
        return show_share(share) if share else "0"

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
        bars = [Bar(label=cut(v, LABEL) or "(empty)", rows=n, share=n / shape.count) for v, n in kept]
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
