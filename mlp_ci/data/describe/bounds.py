"""How far numbers may go: bounds around what was seen, on the scale that fits the numbers. Pure functions."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import TYPE_CHECKING

from mlp_ci.data.describe.patterns import words_of

if TYPE_CHECKING:
    from mlp_ci.data.describe.survey import ColumnSurvey

Number = int | float
# From here on a tail is heavy: normal numbers reach 2.5 times as far as their 95th percentile, exponential ones 4.
HEAVY = 6.0
LONGEST_TAIL = 1e4

# Words in a name → the range that nature or the calendar gives; only where the values keep to it.
_WHOLE_RANGES: dict[str, tuple[int, int]] = {
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 59),
    "month": (1, 12),
    "quarter": (1, 4),
    "week": (1, 53),
    "day": (1, 31),
    "dayofyear": (1, 366),
    "yearday": (1, 366),
}
_WEEKDAYS = {"weekday", "dayofweek", "dow"}
_RANGES: dict[str, tuple[int, int]] = {
    "latitude": (-90, 90),
    "lat": (-90, 90),
    "longitude": (-180, 180),
    "lon": (-180, 180),
    "lng": (-180, 180),
    "percent": (0, 100),
    "percentage": (0, 100),
    "pct": (0, 100),
}
_SHARES = {"share", "rate", "ratio", "probability", "prob", "fraction", "score", "auc", "proportion", "p"}


def bounds(column: ColumnSurvey, margin: float) -> tuple[Number, Number, str]:
    """Smallest and largest value to allow, and in a few words why. The column has at least one finite value.

    ``margin`` 0 is exactly what was seen; 0.1 leaves a tenth of the range on either side, more where a tail is heavy.
    Never inside what was seen, and beyond zero only where values are.
    """
    low, high = column.smallest, column.largest
    assert low is not None
    assert high is not None
    if margin == 0:
        return low, high, "exactly these"
    natural = natural_range(column)
    if natural:
        return *natural, "what the name allows" if set(words_of(column.name)) - _SHARES else "shares"
    percent = f"{margin * 100:g} % margin"
    spread = high - low
    below, heavy_below = _room(column, low, 0.05, margin)
    above, heavy_above = _room(column, high, 0.95, margin)
    lower, upper = low - below, high + above
    if low >= 0 and (lower < 0 or low <= margin * spread):
        lower = 0
    if high <= 0 < upper:
        upper = 0
    lower, upper = _outward(lower, upper, spread, whole=column.type == "int")
    tail = {(True, False): "more below, where a tail is heavy", (False, True): "more above, where the tail is heavy"}
    what = tail.get((heavy_below and lower < 0, heavy_above), "")
    return min(lower, low), max(upper, high), f"{percent}, {what}" if what else percent


def natural_range(column: ColumnSurvey) -> tuple[int, int] | None:
    """The range that the column's name stands for, if all values keep to it."""
    low, high = column.smallest or 0, column.largest or 0
    words = words_of(column.name)
    names = [*words, "".join(words[-3:]), "".join(words[-2:])]
    found: list[tuple[int, int]] = [_RANGES[w] for w in names if w in _RANGES]
    if column.type == "int":
        if _WEEKDAYS & set(names):
            found = [(0, 6), (1, 7), (0, 7)]
        elif "of" not in words or "dayofyear" in names:
            found += [
                _WHOLE_RANGES[w] for w in (*reversed(names[-2:]), words[-1] if words else "") if w in _WHOLE_RANGES
            ]
            found = found[:1] if len(words) <= 2 else found
    elif low >= 0 and high <= 1 and (_SHARES & set(words) or (low < 0.1 and high > 0.9 and not column.whole)):
        found.append((0, 1))
    return next(((a, b) for a, b in found if a <= low and high <= b), None)


def _room(column: ColumnSurvey, end: Number, at: float, margin: float) -> tuple[float, bool]:
    """How far beyond ``end`` values may lie, and whether that is because of a heavy tail."""
    spread = float((column.largest or 0) - (column.smallest or 0))
    median, body = column.quantiles.get(0.5), column.quantiles.get(at)
    if median is None or body is None or not math.isfinite(spread):
        return (margin * spread if math.isfinite(spread) else 0.0), False
    tail = abs(float(end) - median)
    if tail == 0:
        return margin * spread, False
    ratio = tail / max(abs(body - median), tail / LONGEST_TAIL)
    if ratio <= HEAVY:
        return margin * spread, False
    # On a logarithmic scale: a tail that is a hundred times as long as the body may be 2.5 times longer still.
    factor = min(ratio ** (2 * margin), 1 + 100 * margin)
    return max(tail * (factor - 1), margin * spread), True


def _outward(low: Number, high: Number, spread: Number, *, whole: bool) -> tuple[Number, Number]:
    """Both ends rounded away from the middle, to two digits of the range; whole numbers stay whole."""
    if spread == 0 or not all(map(math.isfinite, (low, high, spread))):
        return low, high
    with localcontext() as context:
        context.prec = 700  # the whole range of doubles
        step = Decimal(10) ** (math.floor(math.log10(spread)) - 1)
        step = max(step, Decimal(1)) if whole else step
        lower = (Decimal(low) / step).to_integral_value(ROUND_FLOOR) * step
        upper = (Decimal(high) / step).to_integral_value(ROUND_CEILING) * step
        # A remainder from binary fractions, such as 5500.000000001, must not cost a whole step.
        lower = _near(low, lower + step, step, lower)
        upper = _near(high, upper - step, step, upper)
        return (int(lower), int(upper)) if whole else (_plain(lower), _plain(upper))


def _near(value: Number, rounder: Decimal, step: Decimal, otherwise: Decimal) -> Decimal:
    return rounder if abs(Decimal(value) - rounder) <= step / 1_000_000 else otherwise


def _plain(value: Decimal) -> Number:
    return int(value) if value == value.to_integral_value() and abs(value) < Decimal(10) ** 15 else float(value)


def round_up(value: float, digits: int = 2) -> float:
    """Rounded up to so many significant digits; 0 stays 0."""
    if value <= 0:
        return 0.0
    step = Decimal(10) ** (math.floor(math.log10(value)) - digits + 1)
    return float((Decimal(repr(value)) / step).to_integral_value(ROUND_CEILING) * step)


def round_down(value: int, digits: int = 1) -> int:
    """Rounded down to so many significant digits."""
    if value <= 0:
        return 0
    step = 10 ** max(0, len(str(value)) - digits)
    return int(value // step * step)
