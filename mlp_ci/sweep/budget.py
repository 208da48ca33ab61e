"""What a search may use: trials, seconds, money; all jobs and all attempts together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.sweep.trials import Trial


@dataclass(frozen=True, kw_only=True)
class Budget:
    """``seconds`` and ``usd`` are None where they have no limit, ``price`` (USD an hour) where it is not known."""

    trials: int
    seconds: float | None = None
    usd: float | None = None
    price: float | None = None

    def cost(self, trials: Sequence[Trial]) -> float | None:
        """What the trials have cost so far, in USD."""
        return None if self.price is None else self.price * _seconds(trials) / 3600

    def spent(self, trials: Sequence[Trial]) -> str:
        """Why no trial may begin any more, or an empty text."""
        if len(trials) >= self.trials:
            return f"all {self.trials} trials have begun"
        return self.over(trials)

    def over(self, trials: Sequence[Trial]) -> str:
        """Why not even a trial that was cut off may go on: time or money is used up. Else an empty text."""
        seconds, cost = _seconds(trials), self.cost(trials)
        if self.seconds is not None and seconds >= self.seconds:
            return f"the trials took {shown_seconds(seconds)}, of {shown_seconds(self.seconds)} allowed"
        if self.usd is not None and cost is not None and cost >= self.usd:
            return f"the trials cost ${cost:,.2f}, of ${self.usd:,.2f} allowed"
        return ""

    def said(self, trials: Sequence[Trial]) -> str:
        """What is used, of what: ``4 of at most 20 trials, 3m12s of 1h, $0.05 of $2.00``."""
        seconds, cost = _seconds(trials), self.cost(trials)
        parts = [f"{len(trials)} of at most {self.trials} trials", shown_seconds(seconds)]
        if self.seconds is not None:
            parts[1] += f" of {shown_seconds(self.seconds)}"
        if cost is not None:
            parts.append(f"${cost:,.2f}" + (f" of ${self.usd:,.2f}" if self.usd is not None else ""))
        return ", ".join(parts)


def shown_seconds(seconds: float) -> str:
    """For people: ``9.3s``, ``3m12s``, ``2h05m``."""
    if seconds < 60:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(math.floor(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


def _seconds(trials: Sequence[Trial]) -> float:
    return sum(t.seconds for t in trials)
