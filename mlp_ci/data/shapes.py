"""The shape of one column in constant size: counts of numbers in fixed bins, of categories, of the lengths of texts.

Shapes with the same bins add up: those of a day's hours are that of the day. A value stands in a shape only when at
least ``FEWEST`` rows share it; no row is kept.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

CATEGORIES = 100
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
        """The value below which ``share`` of the values lie, interpolated inside its bin; None without values.

        The rank of the result differs from ``share`` by at most the share of the bin that it falls into.
        """
        if not self.count or self.smallest is None or self.largest is None:
            return None
        wanted, below = share * self.count, 0
        lowers = [self.smallest, *self.edges]
        uppers = [*self.edges, self.largest]
        for lower, upper, count in zip(lowers, uppers, self.counts, strict=True):
            if count and below + count >= wanted:
                low, high = max(lower, self.smallest), min(upper, self.largest)
                inside = (wanted - below) / count
                return high if high <= low or math.isinf(high - low) else low + (high - low) * inside
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


def merged(name: str, one: ColumnProfile, two: ColumnProfile) -> ColumnProfile:
    """Two shapes of one column added up. Raises InputError when their bins differ."""
    if isinstance(one, CategoryProfile) and isinstance(two, CategoryProfile):
        return _merged_categories(one, two)
    if isinstance(one, NumberProfile) and isinstance(two, NumberProfile) and one.edges == two.edges:
        return _merged_numbers(one, two)
    if isinstance(one, TextProfile) and isinstance(two, TextProfile):
        length, words = merged(name, one.length, two.length), merged(name, one.words, two.words)
        assert isinstance(length, NumberProfile)
        assert isinstance(words, NumberProfile)
        return TextProfile(
            count=one.count + two.count,
            nulls=one.nulls + two.nulls,
            distinct=max(one.distinct, two.distinct),
            length=length,
            words=words,
        )
    msg = f"the profiles of {name} have different bins"
    raise InputError(msg, fix="profile both against the same reference")


def _merged_categories(one: CategoryProfile, two: CategoryProfile) -> CategoryProfile:
    counts = {v: one.counts.get(v, 0) + two.counts.get(v, 0) for v in {**one.counts, **two.counts}}
    kept, tail = counts, [a + b for a, b in zip(one.tail, two.tail, strict=True)]
    if len(counts) > CATEGORIES:
        kept = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:CATEGORIES])
        for value in counts.keys() - kept.keys():
            tail[bucket(value)] += counts[value]
    count = one.count + two.count
    return CategoryProfile(
        count=count,
        nulls=one.nulls + two.nulls,
        distinct=max(one.distinct, two.distinct),
        counts=kept,
        other=count - sum(kept.values()),
        tail=tuple(tail),
    )


def _merged_numbers(one: NumberProfile, two: NumberProfile) -> NumberProfile:
    """Means and deviations after Chan, Golub and LeVeque (1983)."""
    count = one.count + two.count
    mean = deviation = None
    known = [p for p in (one, two) if p.count]
    if known and all(p.mean is not None for p in known):
        shares = [(p, p.count / count) for p in known]
        mean = finite(sum((p.mean or 0.0) * share for p, share in shares))
        if mean is not None and all(p.deviation is not None for p in known):
            squares = sum(share * ((p.deviation or 0.0) ** 2 + ((p.mean or 0.0) - mean) ** 2) for p, share in shares)
            deviation = finite(math.sqrt(squares))
    return NumberProfile(
        count=count,
        nulls=one.nulls + two.nulls,
        mean=mean,
        deviation=deviation,
        smallest=min((p.smallest for p in known if p.smallest is not None), default=None),
        largest=max((p.largest for p in known if p.largest is not None), default=None),
        edges=one.edges,
        counts=tuple(a + b for a, b in zip(one.counts, two.counts, strict=True)),
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
        edges = tuple(float(e) for e in value["edges"])
        counts = tuple(natural(c) for c in value["counts"])
        if len(counts) != len(edges) + 1 or list(edges) != sorted(set(edges)) or sum(counts) != count:
            msg = "bins and counts do not fit together"
            raise ValueError(msg)
        names = ("mean", "deviation", "smallest", "largest")
        moments = {k: None if value.get(k) is None else finite_number(value[k]) for k in names}
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
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        msg = f"{value!r} is no count"
        raise ValueError(msg)
    return value


def finite_number(value: Any) -> float:
    """A finite number, or ValueError."""
    number = float(value)
    if not math.isfinite(number):
        msg = f"{value!r} is not finite"
        raise ValueError(msg)
    return number
