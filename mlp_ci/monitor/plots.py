"""Then and now of one column as a drawing, from the two profiles: bars for categories, two outlines for numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlp_ci.data.profiles.histogram import apart, cell_edges, ends, heights, is_whole
from mlp_ci.data.profiles.profile import PREDICTION
from mlp_ci.data.profiles.shapes import CategoryProfile, ColumnProfile, NumberProfile, TextProfile
from mlp_ci.data.words import cut
from mlp_ci.drawing.axes import steps
from mlp_ci.monitor.words import show_number
from mlp_ci.printable import in_one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.data.drift.compare import ColumnDrift
    from mlp_ci.monitor.verdict import Verdict

CELLS = 36
MOST_BARS = 8
LABEL = 18
WIDTH, HEIGHT = 300, 110


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One category: its share then and now; ``width`` are both in per cent of the largest bar, None for no bars."""

    label: str
    then: float
    now: float
    width: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What is drawn for one column: bars for categories, two outlines for numbers."""

    drift: ColumnDrift
    title: str
    bars: tuple[Bar, ...] = ()
    then_path: str = ""
    now_path: str = ""
    low: str = ""
    middle: str = ""
    high: str = ""


def plot(verdict: Verdict, drift: ColumnDrift) -> Plot:
    """The drawing of one column."""
    then_side = verdict.reference.segments[drift.segment] if drift.segment else verdict.reference.profile
    now_side = verdict.look.segments[drift.segment] if drift.segment else verdict.look.profile
    then, now = then_side.columns[drift.column], now_side.columns[drift.column]
    title = "predictions" if drift.column == PREDICTION else drift.name
    if isinstance(then, TextProfile) and isinstance(now, TextProfile):
        then, now, title = then.length, now.length, f"{title} (length)"
    if isinstance(then, CategoryProfile) and isinstance(now, CategoryProfile):
        return Plot(drift=drift, title=title, bars=_category_bars(then, now))
    if isinstance(then, NumberProfile) and isinstance(now, NumberProfile):
        if len(then.edges) <= MOST_BARS:
            return Plot(drift=drift, title=title, bars=_number_bars(then, now))
        return _outlines(drift, title, then, now)
    return Plot(drift=drift, title=title)


# ---------------------------------------------------------------- categories


def _category_bars(then: CategoryProfile, now: CategoryProfile) -> tuple[Bar, ...]:
    labels = [*then.counts, "other"]
    a = [*then.counts.values(), then.other]
    b = [*(now.counts.get(name, 0) for name in then.counts), now.count - sum(now.counts.get(n, 0) for n in then.counts)]
    rows = [row for row in zip(labels, a, b, strict=True) if row[1] or row[2]]
    return _bars(rows, then, now)


def _number_bars(then: NumberProfile, now: NumberProfile) -> tuple[Bar, ...]:
    labels = [show_number(e) for e in then.edges]
    labels.append(f"> {labels[-1]}" if labels else "all")
    rows = [row for row in zip(labels, then.counts, now.counts, strict=True) if row[1] or row[2]]
    return _bars(rows, then, now, ordered=True)


def _bars(
    rows: Sequence[tuple[str, int, int]], then: ColumnProfile, now: ColumnProfile, *, ordered: bool = False
) -> tuple[Bar, ...]:
    """Bars by size (or in their own order), missing values last; small ones joined so that the card stays a card."""
    n, m = max(1, then.count + then.nulls), max(1, now.count + now.nulls)
    shares = [(label, a / n, b / m) for label, a, b in rows]
    if not ordered:
        shares.sort(key=lambda s: (s[0] == "other", -max(s[1], s[2]), s[0]))
    joined_label = ""
    if len(shares) > MOST_BARS:
        rest = shares[MOST_BARS - 1 :]
        joined_label = f"{len(rest)} more"
        shares = [*shares[: MOST_BARS - 1], (joined_label, sum(s[1] for s in rest), sum(s[2] for s in rest))]
    if then.nulls or now.nulls:
        shares.append(("missing", then.nulls / n, now.nulls / m))
    # What was joined has no bars: it would dwarf the values that are shown.
    drawn = {label for label, _, _ in shares} - {joined_label}
    top = max((max(a, b) for label, a, b in shares if label in drawn), default=0.0) or 1.0
    return tuple(
        Bar(
            label=in_one_line(cut(label, LABEL)) or "(empty)",
            then=a,
            now=b,
            width=(100 * a / top, 100 * b / top) if label in drawn else None,
        )
        for label, a, b in shares
    )


# ---------------------------------------------------------------- numbers


def _outlines(drift: ColumnDrift, title: str, then: NumberProfile, now: NumberProfile) -> Plot:
    low, high = _range(then, now)
    points = cell_edges(low, high, CELLS, whole=is_whole(then) and is_whole(now))
    heights_then, heights_now = heights(then, points), heights(now, points)
    top = max(*heights_then, *heights_now) or 1.0
    return Plot(
        drift=drift,
        title=title,
        then_path=steps(heights_then, top, (WIDTH, HEIGHT)),
        now_path=steps(heights_now, top, (WIDTH, HEIGHT)),
        low=_label(low, high - low),
        middle=_label((low + high) / 2, high - low),
        high=_label(high, high - low),
    )


def _range(then: NumberProfile, now: NumberProfile) -> tuple[float, float]:
    """What is drawn: all but the outermost values of both sides."""
    known = [end for profile in (then, now) if profile.count for end in ends(profile)]
    return apart(min(known, default=0.0), max(known, default=1.0))


def _label(value: float, span: float) -> str:
    """A number beside an axis that is ``span`` long: what cannot be seen there is zero."""
    return "0" if abs(value) < span / 500 else show_number(float(value))
