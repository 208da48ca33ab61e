"""A number with what is known about it: an interval, and one-sided bounds for whoever has to decide something."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

UNDEFINED = "undefined"  # an interval was tried for, and the rows do not give one


class Belief(Protocol):
    """Where the true value may lie: the confidence intervals of all levels at once."""

    def bound(self, share: float) -> float:
        """The value that the true one is below with confidence ``share``: 0.05 gives the lower 95 % bound."""
        ...

    def p_at_least(self, limit: float) -> float:
        """The p-value of "the true value is less than this": the smallest share whose bound reaches the limit."""
        ...

    def p_at_most(self, limit: float) -> float:
        """The p-value of "the true value is more than this"."""
        ...


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric's value with its interval at the confidence that was asked for.

    ``method`` says how the interval was made, and is empty for a measured number (a size), which has none. Where the
    rows do not give an interval, it is ``undefined``, and the bounds are None.
    """

    value: float
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None
    method: str = ""
    belief: Belief | None = field(default=None, repr=False, compare=False)

    def bound(self, share: float) -> float | None:
        """One-sided bound: the true value lies below it with confidence ``share`` (0.05: the lower 95 % bound)."""
        return None if self.belief is None else self.belief.bound(share)

    def facts(self) -> dict[str, Any]:
        """What the evidence keeps."""
        numbers = {"value": self.value, "low": self.low, "high": self.high, "standard_error": self.standard_error}
        kept: dict[str, Any] = {k: v for k, v in numbers.items() if v is not None}
        return kept | ({"method": self.method} if self.method else {})


@dataclass(frozen=True)
class Certain:
    """No doubt: the value cannot be another with other rows."""

    value: float

    def bound(self, share: float) -> float:
        del share
        return self.value

    def p_at_least(self, limit: float) -> float:
        return 0.0 if self.value >= limit else 1.0

    def p_at_most(self, limit: float) -> float:
        return 0.0 if self.value <= limit else 1.0


def estimate_of(value: float, belief: Belief, confidence: float, standard_error: float, method: str) -> Estimate:
    """An estimate whose two-sided interval leaves out the same share on either side."""
    return Estimate(
        value=value,
        low=belief.bound((1 - confidence) / 2),
        high=belief.bound((1 + confidence) / 2),
        standard_error=standard_error,
        method=method,
        belief=belief,
    )


def undefined(value: float) -> Estimate:
    """An estimate without an interval, because the rows do not give one."""
    return Estimate(value=value, method=UNDEFINED)
