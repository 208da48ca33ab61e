"""Axes and outlines of a drawing: numbers to places, and where the marks stand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A mark on an axis: its text, and how far it is from the left or the top, in per cent."""

    text: str
    at: float


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis from ``low`` to ``high`` (never equal) over ``length`` units of a drawing."""

    low: float
    high: float
    length: float

    def place(self, value: float) -> float:
        """How far along the axis, in units of the drawing; values beyond an end stand at it."""
        share = (value - self.low) / (self.high - self.low)
        return self.length * min(1.0, max(0.0, share))

    def per_cent(self, value: float) -> float:
        return 100 * self.place(value) / self.length

    def ticks(self, about: int = 5) -> tuple[Tick, ...]:
        """Marks at round numbers (1, 2 or 5 times a power of ten apart), about as many as asked for."""
        step = _round_step((self.high - self.low) / max(1, about))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return tuple(Tick(text=_shown(i * step), at=self.per_cent(i * step)) for i in range(first, last + 1))


def axis_over(values: Sequence[float], length: float, *, room: float = 0.06) -> Axis:
    """An axis on which all these values stand, with a share of ``room`` at both ends."""
    known = [v for v in values if math.isfinite(v)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    pad = (high - low) * room or abs(high) * 0.05 or 0.5
    return Axis(low=low - pad, high=high + pad, length=length)


def line(points: Sequence[tuple[float, float]]) -> str:
    """An SVG path through points of the drawing."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""


def steps(
    shares: Sequence[float], top: float, size: tuple[float, float], span: tuple[float, float] | None = None
) -> str:
    """An SVG path along the tops of cells of equal width, from the ground and back; ``size`` is (width, height).

    The cells fill the width, or the part of it between the two places of ``span``.
    """
    height = size[1]
    left, right = span or (0.0, size[0])
    cell = (right - left) / len(shares)
    parts = [f"M{left:.6g} {height}"]
    for i, share in enumerate(shares):
        parts.append(f"V{height - (height - 4) * share / top:.1f}H{left + (i + 1) * cell:.1f}")
    return "".join(parts) + f"V{height}Z"


def _round_step(least: float) -> float:
    if least <= 0 or not math.isfinite(least):
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _shown(value: float) -> str:
    text = f"{value:,.0f}" if abs(value) >= 1000 and float(value).is_integer() else f"{round(value, 12):.6g}"
    return text.replace("-", "−")
