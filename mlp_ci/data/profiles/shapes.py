"""The shape of one column in constant size: counts of numbers in fixed bins, of categories, of the lengths of texts.

Shapes with the same bins add up: those of a day's hours are that of the day. A category stands in a shape only when at
least ``FEWEST`` rows share it; of a number its quantiles, smallest and largest value do, of a text none. No row is
kept.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CATEGORIES = 100
# Up to so many edges they are the values themselves.
FEW_VALUES = 24
# No table has more rows; a larger count is a damaged file.
MOST = 2**63
FEWEST = 5
# Rare values are counted by a hash of theirs, so that a change among them is seen without naming any (count sketch).
TAIL = 32


@dataclass(frozen=True, kw_only=True)
class NumberProfile:
    """``counts[i]`` values lie in (edges[i-1], edges[i]]; the first and last bins are open. NaN and ±inf are nulls.

    ``deviation`` is the standard deviation of the values themselves (divided by n); it and ``mean`` are None where
    adding the values up overflows. A quantile read from the bins is off by at most the share of one bin in rank.
    """

    count: int
    nulls: int
    mean: float | None
    deviation: float | None = None
    smallest: float | None
    largest: float | None
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    kind: ClassVar[str] = "number"

    def quantile(self, share: float) -> float | None:
        """The value below which ``share`` of the values lie; None without values.

        Where there are few edges, these are the values and one of them is meant; else it is interpolated inside its
        bin. The rank of the result differs from ``share`` by at most the share of the bin that it falls into.
        """
        if not self.count or self.smallest is None or self.largest is None:
            return None
        wanted, below = share * self.count, 0
        lowers = [self.smallest, *self.edges]
        uppers = [*self.edges, self.largest]
        for lower, upper, count in zip(lowers, uppers, self.counts, strict=True):
            if count and below + count >= wanted:
                low, high = max(lower, self.smallest), min(upper, self.largest)
                if len(self.edges) <= FEW_VALUES or high <= low or math.isinf(high - low):
                    return high
                inside = (wanted - below) / count
                return min(high, low + (high - low) * inside)
            below += count
        return self.largest


@dataclass(frozen=True, kw_only=True)
class CategoryProfile:
    """``counts`` of the most frequent values; all other values together in ``other``, by hash in ``tail``.

    ``distinct`` is exact for one file and a lower bound after profiles were added up. ``tail[i]`` counts the rows
    whose value is not in ``counts`` and has :func:`bucket` i.
    """

    count: int
    nulls: int
    distinct: int
    counts: Mapping[str, int]
    other: int
    tail: tuple[int, ...] = (0,) * TAIL

    kind: ClassVar[str] = "category"


@dataclass(frozen=True, kw_only=True)
class TextProfile:
    """Free text: how long it is in characters and in words, and what is missing; never what it says."""

    count: int
    nulls: int
    distinct: int
    length: NumberProfile
    words: NumberProfile

    kind: ClassVar[str] = "text"


ColumnProfile = NumberProfile | CategoryProfile | TextProfile


def bucket(value: str) -> int:
    """Which of the TAIL buckets a value is counted in: the first byte of its MD5, modulo TAIL."""
    return int(hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()[:2], 16) % TAIL


# ---------------------------------------------------------------- adding up


def merged(name: str, *columns: ColumnProfile) -> ColumnProfile:
    """Shapes of one column added up. Raises InputError when their bins differ."""
    numbers = [c for c in columns if isinstance(c, NumberProfile)]
    categories = [c for c in columns if isinstance(c, CategoryProfile)]
    texts = [c for c in columns if isinstance(c, TextProfile)]
    if len(numbers) == len(columns) and all(c.edges == numbers[0].edges for c in numbers):
        return _merged_numbers(numbers)
    if len(categories) == len(columns):
        return _merged_categories(categories)
    if len(texts) == len(columns):
        length, words = merged(name, *(c.length for c in texts)), merged(name, *(c.words for c in texts))
        assert isinstance(length, NumberProfile)
        assert isinstance(words, NumberProfile)
        return TextProfile(
            count=length.count,
            nulls=sum(c.nulls for c in texts),
            distinct=max(c.distinct for c in texts),
            length=length,
            words=words,
        )
    msg = f"the profiles of {name} have different bins"
    raise InputError(msg, fix="profile both against the same reference")


def _merged_categories(columns: Sequence[CategoryProfile]) -> CategoryProfile:
    names = {name: None for column in columns for name in column.counts}
    counts = {name: sum(column.counts.get(name, 0) for column in columns) for name in names}
    kept, tail = counts, [sum(buckets) for buckets in zip(*(c.tail for c in columns), strict=True)]
    if len(counts) > CATEGORIES:
        kept = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:CATEGORIES])
        for value in counts.keys() - kept.keys():
            tail[bucket(value)] += counts[value]
    count = sum(c.count for c in columns)
    return CategoryProfile(
        count=count,
        nulls=sum(c.nulls for c in columns),
        distinct=max(c.distinct for c in columns),
        counts=kept,
        other=count - sum(kept.values()),
        tail=tuple(tail),
    )


def _merged_numbers(columns: Sequence[NumberProfile]) -> NumberProfile:
    """Means and deviations after Chan, Golub and LeVeque (1983)."""
    import numpy as np

    count = sum(c.count for c in columns)
    mean = deviation = None
    known = [c for c in columns if c.count]
    if known and all(c.mean is not None for c in known):
        mean = finite(sum((c.mean or 0.0) * (c.count / count) for c in known))
        if mean is not None and all(c.deviation is not None for c in known):
            shares = np.array([c.count / count for c in known])
            means, deviations = np.array([c.mean for c in known]), np.array([c.deviation for c in known])
            with np.errstate(over="ignore"):
                deviation = finite(float(np.sqrt(np.sum(shares * (deviations**2 + (means - mean) ** 2)))))
    return NumberProfile(
        count=count,
        nulls=sum(c.nulls for c in columns),
        mean=mean,
        deviation=deviation,
        smallest=min((c.smallest for c in known if c.smallest is not None), default=None),
        largest=max((c.largest for c in known if c.largest is not None), default=None),
        edges=columns[0].edges,
        counts=tuple(np.sum([c.counts for c in columns], axis=0).tolist()),
    )


def finite(value: float) -> float | None:
    """A number, or None where values are so large that adding them up overflows."""
    return value if math.isfinite(value) else None


# ---------------------------------------------------------------- JSON


def column_to_json(column: ColumnProfile) -> dict[str, Any]:
    """Plain JSON values; :func:`column_from_json` reads them back."""
    return {"kind": column.kind, **asdict(column)}


def column_from_json(value: Mapping[str, Any]) -> ColumnProfile:
    """Read what :func:`column_to_json` wrote; raises KeyError, TypeError or ValueError for anything else."""
    count, nulls = natural(value["count"]), natural(value["nulls"])
    if value["kind"] == "number":
        edges = rising(value["edges"])
        counts = tuple(natural(c) for c in value["counts"])
        if len(counts) != len(edges) + 1 or sum(counts) != count:
            msg = "bins and counts do not fit together"
            raise ValueError(msg)
        names = ("mean", "deviation", "smallest", "largest")
        moments = {k: None if value.get(k) is None else finite_number(value[k]) for k in names}
        if count and (moments["smallest"] is None or moments["largest"] is None):
            msg = "there are values, but no smallest or largest one"
            raise ValueError(msg)
        return NumberProfile(count=count, nulls=nulls, edges=edges, counts=counts, **moments)
    if value["kind"] == "category":
        named = {str(v): natural(n) for v, n in value["counts"].items()}
        other, tail = natural(value["other"]), tuple(natural(n) for n in value["tail"])
        if sum(named.values()) + other != count or len(tail) != TAIL or sum(tail) != other:
            msg = "the counts of the categories do not add up"
            raise ValueError(msg)
        distinct = natural(value["distinct"])
        return CategoryProfile(count=count, nulls=nulls, distinct=distinct, counts=named, other=other, tail=tail)
    if value["kind"] == "text":
        length = column_from_json({**value["length"], "kind": "number"})
        words = column_from_json({**value["words"], "kind": "number"})
        assert isinstance(length, NumberProfile)
        assert isinstance(words, NumberProfile)
        distinct = natural(value["distinct"])
        return TextProfile(count=count, nulls=nulls, distinct=distinct, length=length, words=words)
    msg = f"unknown kind {str(value['kind'])[:40]!r}"
    raise ValueError(msg)


def natural(value: Any) -> int:
    """A count, or ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MOST:
        msg = f"{str(value)[:40]!r} is no count"
        raise ValueError(msg)
    return value


def rising(values: Any) -> tuple[float, ...]:
    """Edges of bins: finite numbers, each larger than the one before; or ValueError."""
    edges = tuple(finite_number(value) for value in values)
    if any(b <= a for a, b in itertools.pairwise(edges)):
        msg = "the edges do not rise"
        raise ValueError(msg)
    return edges


def finite_number(value: Any) -> float:
    """A finite number, or ValueError."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not -sys.float_info.max <= value <= sys.float_info.max:
        msg = f"{str(value)[:40]!r} is no finite number"
        raise ValueError(msg)
    return float(value)
