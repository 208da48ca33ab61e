"""Profiles in few bytes: without what the reference says already, for the many that a log keeps of its hours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.data.profiles.profile import Profile
from mlp_ci.data.profiles.shapes import (
    MOST,
    TAIL,
    CategoryProfile,
    ColumnProfile,
    NumberProfile,
    TextProfile,
    finite_number,
    natural,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def compact(profile: Profile) -> dict[str, Any]:
    """Plain JSON values; :func:`expand` reads them back with the reference in whose bins the profile was made."""
    return {"rows": profile.rows, "columns": {name: _column(c) for name, c in profile.columns.items()}}


def expand(value: Mapping[str, Any], like: Profile) -> Profile:
    """Read what :func:`compact` wrote; raises KeyError, TypeError or ValueError for anything else."""
    columns = {name: _expanded(column, like.columns[name]) for name, column in value["columns"].items()}
    return Profile(rows=natural(value["rows"]), columns=columns)


def _column(column: ColumnProfile) -> dict[str, Any]:
    value: dict[str, Any] = {"n": column.count, "missing": column.nulls}
    if isinstance(column, NumberProfile):
        moments = [column.mean, column.deviation, column.smallest, column.largest]
        return {**value, "moments": moments, "bins": _sparse(column.counts)}
    value["distinct"] = column.distinct
    if isinstance(column, TextProfile):
        return {**value, "length": _column(column.length), "words": _column(column.words)}
    return {**value, "counts": _sparse(tuple(column.counts.values())), "tail": _sparse(column.tail)}


def _expanded(value: Mapping[str, Any], like: ColumnProfile) -> ColumnProfile:
    count, nulls = natural(value["n"]), natural(value["missing"])
    if isinstance(like, NumberProfile):
        counts = _dense(value["bins"], len(like.counts))
        if sum(counts) != count:
            msg = "bins and counts do not fit together"
            raise ValueError(msg)
        mean, deviation, smallest, largest = (None if m is None else finite_number(m) for m in value["moments"])
        return NumberProfile(
            count=count,
            nulls=nulls,
            mean=mean,
            deviation=deviation,
            smallest=smallest,
            largest=largest,
            edges=like.edges,
            counts=counts,
        )
    distinct = natural(value["distinct"])
    if isinstance(like, TextProfile):
        length, words = _expanded(value["length"], like.length), _expanded(value["words"], like.words)
        assert isinstance(length, NumberProfile)
        assert isinstance(words, NumberProfile)
        return TextProfile(count=count, nulls=nulls, distinct=distinct, length=length, words=words)
    named = dict(zip(like.counts, _dense(value["counts"], len(like.counts)), strict=True))
    tail = _dense(value["tail"], TAIL)
    if sum(named.values()) + sum(tail) != count:
        msg = "the counts of the categories do not add up"
        raise ValueError(msg)
    return CategoryProfile(count=count, nulls=nulls, distinct=distinct, counts=named, other=sum(tail), tail=tail)


def _sparse(counts: Sequence[int]) -> list[int]:
    """Place, count, place, count, … of what is not zero."""
    return [n for i, count in enumerate(counts) if count for n in (i, count)]


def _dense(pairs: Sequence[int], size: int) -> tuple[int, ...]:
    """What :func:`_sparse` wrote. Checked as a whole: a log has hundreds of hours, each with thousands of these."""
    counts = [0] * size
    if set(map(type, pairs)) - {int} or min(pairs, default=0) < 0 or max(pairs, default=0) >= MOST:
        msg = "places and counts are whole numbers"
        raise ValueError(msg)
    for place, count in zip(pairs[::2], pairs[1::2], strict=True):
        counts[place] = count
    return tuple(counts)
