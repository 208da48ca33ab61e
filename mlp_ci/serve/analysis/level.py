"""What one metric may spend, and numbers as its reasons write them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """Of one metric: how often it may fail a harmless version, and how surely it must see a harmful one."""

    alpha: float
    power: float


def rounded(value: float, digits: int = 2) -> float:
    """To so many significant digits, so that what is asked for does not tremble with every request."""
    return (
        value
        if value == 0 or not math.isfinite(value)
        else round(value, digits - 1 - math.floor(math.log10(abs(value))))
    )


def percent(share: float) -> str:
    """``1.2 %``: as many digits as tell it apart."""
    return f"{100 * share:.3g} %"


def points(low: float, high: float) -> str:
    """An interval of shares in percentage points."""
    return f"{_signed(100 * low)} to {_signed(100 * high)} points"


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−")
