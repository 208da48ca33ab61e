"""What was measured of the versions that answer: counts that add up, small enough for an annotation.

The gateway fills them, the targets hand them out, the analysis of a rollout reads them. All counts are cumulative since
whoever counts began (its ``boot``); what happened since some moment is the difference of two of them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from mlp_ci.spec.model import ModelSpec

    # What labels say of versions: metric → (rows, value, variance); the value's standard error is √(variance / rows).
    Means = Mapping[str, tuple[int, float, float]]
    # Asked for a stage, since a moment, of some versions; by version. Whoever drives a rollout does not know labels:
    # it is handed one of these, made for a working tree, its model and the prediction log (None: there are no labels).
    Labels = Callable[[str, datetime, tuple[int, ...]], Mapping[int, Means]]
    LabelsOf = Callable[[Path, ModelSpec, Path], Labels | None]

# Upper bounds of the latency bins in milliseconds: each a tenth more than the one before, from 0.1 ms to over a minute,
# so that a quantile is known within 10 %. One more bin holds what is slower.
LATENCY_BOUNDS_MS = tuple(0.1 * 1.1**k for k in range(142))
LABELS = 200  # different texts that are told apart among predictions; the rest is one bin
OTHER = "other"
_HUNDREDTHS = (*(f"p{n:02d}" for n in range(100)), "p99")
_PER_DECADE = 48  # bins of numbers outside of 0 to 1: each 5 % wide


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one version answered. ``errors`` are its own faults (5xx, no answer), ``rejected`` what it refused (4xx).

    ``latency`` maps the index of a bin of LATENCY_BOUNDS_MS to requests; ``predictions`` maps a bin of
    :func:`prediction_bin` to rows. ``means`` maps a metric that labels give to (rows, mean, variance).
    """

    requests: int = 0
    errors: int = 0
    rejected: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)
    predictions: Mapping[str, int] = field(default_factory=dict)
    means: Mapping[str, tuple[int, float, float]] = field(default_factory=dict)

    def since(self, before: Seen) -> Seen:
        """What was added to ``before``; all of it when counting began anew in between. ``means`` stay as they are."""
        if self.requests < before.requests:
            return self
        return Seen(
            requests=self.requests - before.requests,
            errors=max(0, self.errors - before.errors),
            rejected=max(0, self.rejected - before.rejected),
            latency=_minus(self.latency, before.latency),
            predictions=_minus(self.predictions, before.predictions),
            means=self.means,
        )

    def plus(self, other: Seen) -> Seen:
        """Both together; ``means`` are the other's, which are newer."""
        return Seen(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            rejected=self.rejected + other.rejected,
            latency=_plus(self.latency, other.latency),
            predictions=_plus(self.predictions, other.predictions),
            means={**self.means, **other.means},
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "errors": self.errors,
            "rejected": self.rejected,
            "latency": {str(k): v for k, v in self.latency.items()},
            "predictions": dict(self.predictions),
            # What is not defined on the labels is null: JSON has no NaN, and two of them are never alike.
            "means": {k: [v[0], *(x if math.isfinite(x) else None for x in v[1:])] for k, v in self.means.items()},
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Seen:
        """Raises KeyError, TypeError or ValueError for anything that :meth:`to_json` does not write."""
        return cls(
            requests=int(raw["requests"]),
            errors=int(raw["errors"]),
            rejected=int(raw.get("rejected", 0)),
            latency={int(k): int(v) for k, v in raw.get("latency", {}).items()},
            predictions={str(k): int(v) for k, v in raw.get("predictions", {}).items()},
            means={str(k): (int(v[0]), _number(v[1]), _number(v[2])) for k, v in raw.get("means", {}).items()},
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Everything counted at one moment: ``versions`` by version, for ``seconds`` (0: not known) until now.

    ``boot`` changes whenever a count may have become smaller: a counter began anew. What was counted under another
    boot cannot be subtracted, and whoever follows a rollout begins again from the first look at the new one.
    """

    boot: str = ""
    seconds: float = 0.0
    versions: Mapping[int, Seen] = field(default_factory=dict)


def latency_bin(milliseconds: float) -> int:
    """The index of the bin that a latency falls into."""
    return bisect_left(LATENCY_BOUNDS_MS, milliseconds)


def prediction_bin(value: Any) -> str:
    """The bin of one prediction: of a number by its size, of anything else its text.

    Numbers from 0 to 1 fall into hundredths (``p00`` to ``p99``), others into bins 5 % wide (``n…`` with the
    zero-padded rank), so that sorting the names of number bins sorts the numbers. NaN and null have bins of their own.
    """
    if type(value) is float:  # nearly always; the gateway does this for every row
        return _number_bin(value)
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, int | float):
        return _number_bin(float(value))
    text = str(value)
    return f"={text[:80]}"


def value_of_bin(name: str) -> float | None:
    """About the middle of a bin of numbers; None for texts, NaN, null and whatever else is no bin of numbers."""
    kind, digits = name[:1], name[1:]
    if kind not in ("p", "q", "n") or not digits.isdecimal():
        return None
    if kind == "p":
        return (int(digits) + 0.5) / 100
    rank = int(digits) if kind == "q" else 99999 - int(digits)
    size = math.pow(10.0, (rank - 600) / _PER_DECADE)
    return size if kind == "q" else -size


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _number_bin(value: float) -> str:
    if 0.0 <= value <= 1.0:
        return _HUNDREDTHS[int(value * 100)]
    if math.isnan(value):
        return "nan"
    size = min(abs(value), 1e300)
    rank = round(math.log10(max(size, 1e-12)) * _PER_DECADE)  # -576 and up
    rank = rank + 600
    return f"q{rank:05d}" if value > 0 else f"n{99999 - rank:05d}"


def _minus(now: Mapping[Any, int], before: Mapping[Any, int]) -> dict[Any, int]:
    return {k: v - before.get(k, 0) for k, v in now.items() if v > before.get(k, 0)}


def _plus(one: Mapping[Any, int], other: Mapping[Any, int]) -> dict[Any, int]:
    return {k: one.get(k, 0) + other.get(k, 0) for k in {**one, **other}}
