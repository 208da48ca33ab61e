"""Numbers and times as the drift report writes them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

DAY = timedelta(days=1)


def show_number(value: Any) -> str:
    """A number in as few digits as tell it apart."""
    if isinstance(value, float):
        size = abs(value)
        text = f"{value:,.0f}" if 1000 <= size < 1e9 else f"{value:.3g}"
        return text.replace("-", "−")
    return f"{value:,}"


def show_psi(value: float) -> str:
    """A PSI: two decimals where it matters, three where it is small."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def show_moment(moment: datetime, length: timedelta) -> str:
    """When a window of this length begins or ends, short: without the hour where windows are whole days."""
    return f"{moment:%-d %b}" if length >= DAY else f"{moment:%-d %b %H:%M}"


def without_repeats(names: Iterable[str]) -> list[str]:
    """Names of places, each once; the segments of a column that is named itself are left out."""
    once = list(dict.fromkeys(names))
    known = set(once)
    return [name for name in once if not any(name[:i] in known for i in _wheres(name))]


def _wheres(name: str) -> list[int]:
    word, found = " where ", []
    at = name.find(word)
    while at >= 0:
        found.append(at)
        at = name.find(word, at + 1)
    return found
