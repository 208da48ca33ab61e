"""How a column is cut into the few groups that drift is decided on, fixed by the reference alone.

Few groups, because the population stability index grows with their number where nothing drifted; fixed, because
groups that move with the new data hide what they should show.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.data.profiles.shapes import (
    TAIL,
    CategoryProfile,
    ColumnProfile,
    NumberProfile,
    TextProfile,
    natural,
    rising,
)
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# PSI grows with the number of groups by about (groups - 1)(1/n + 1/m) where nothing drifted (Yurdakul 2018), so few
# are used; ten is what its usual thresholds (0.1, 0.2, 0.25) were made for. A number that repeats itself may have more:
# what lies below, between and above the values that fill a group alone.
NUMBER_GROUPS = 10
CATEGORY_GROUPS = 20
TAIL_GROUPS = 8


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Upper edges of the groups of a number (the last one is open), or the categories that are groups of their own.

    All other categories together are ``tail`` groups by hash. Missing values are one more group, the last.
    """

    edges: tuple[float, ...] | None = None
    names: tuple[str, ...] | None = None
    tail: int = 1

    def count(self, column: ColumnProfile) -> list[int]:
        """Rows in each group. Raises InputError when the column was counted in other bins or is of another kind."""
        if isinstance(column, TextProfile):
            column = column.length
        if isinstance(column, NumberProfile) and self.edges is not None:
            return [*self._numbers(column), column.nulls]
        if isinstance(column, CategoryProfile) and self.names is not None:
            named = [column.counts.get(name, 0) for name in self.names]
            return [*named, *self._tail(column, column.count - sum(named)), column.nulls]
        msg = "the profiles cannot be compared: the column is of another kind now"
        raise InputError(msg, fix="register the version again")

    def _numbers(self, column: NumberProfile) -> list[int]:
        counts = [0] * (len(self.edges or ()) + 1)
        known = set(column.edges)
        if any(edge not in known for edge in self.edges or ()):
            msg = "the profiles cannot be compared: they have different bins"
            raise InputError(msg, fix="profile both against the same reference, or register the version again")
        for edge, count in zip(column.edges, column.counts, strict=False):
            counts[bisect_left(self.edges or (), edge)] += count
        counts[-1] += column.counts[-1]
        return counts

    def _tail(self, column: CategoryProfile, rest: int) -> list[int]:
        """The rows of all other categories by hash; those with a name outside the groups fall in with their hash."""
        from mlp_ci.data.profiles.shapes import bucket

        if self.tail == 1:
            return [rest]
        tail = [0] * self.tail
        for index, count in enumerate(column.tail):
            tail[index % self.tail] += count
        for name, count in column.counts.items():
            if name not in (self.names or ()):
                tail[bucket(name) % self.tail] += count
        return tail

    @property
    def size(self) -> int:
        """How many groups there are, that of missing values included."""
        return len(self.edges) + 2 if self.edges is not None else len(self.names or ()) + self.tail + 1

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Groups:
        """Read what :meth:`to_json` wrote; raises KeyError, TypeError or ValueError for anything else."""
        edges, names = value["edges"], value["names"]
        if (edges is None) == (names is None) or not 1 <= natural(value["tail"]) <= TAIL:
            msg = "groups are either of numbers or of categories"
            raise ValueError(msg)
        if names is not None and len(set(names)) != len(names):
            msg = "a category is two groups"
            raise ValueError(msg)
        return Groups(
            edges=None if edges is None else rising(edges),
            names=None if names is None else tuple(str(n) for n in names),
            tail=natural(value["tail"]),
        )


def groups_of(reference: ColumnProfile) -> Groups:
    """The groups of a column: neighbouring bins of about equal share, or its most frequent categories."""
    if isinstance(reference, TextProfile):
        reference = reference.length
    if isinstance(reference, CategoryProfile):
        order = sorted(reference.counts, key=lambda name: (-reference.counts[name], name))
        names = tuple(order[: CATEGORY_GROUPS - 1])
        rest = reference.count - sum(reference.counts[name] for name in names)
        return Groups(names=names, tail=TAIL_GROUPS if rest * 4 > reference.count else 1)
    return Groups(edges=_equal_shares(reference.edges, reference.counts))


def _equal_shares(edges: Sequence[float], counts: Sequence[int]) -> tuple[float, ...]:
    """Those of the edges that cut the counts into groups of about equal share.

    A bin with a whole share or more (a value that many rows have) is a group of its own, and so is what lies before and
    behind it, however little: were it joined, a flag that one row in twenty carries could change without being seen.
    """
    total = sum(counts)
    if not total:
        return ()
    chosen: list[float] = []
    reached, start = 0, 0
    for i, count in enumerate(counts):
        full = count * NUMBER_GROUPS >= total
        if full:
            _join_remainder(chosen, start, reached * 2 * NUMBER_GROUPS < total)
            if i > 0 and (not chosen or chosen[-1] < edges[i - 1]):
                chosen.append(edges[i - 1])
        else:
            reached += count
        if i < len(edges) and (full or reached * NUMBER_GROUPS >= total):
            chosen.append(edges[i])
            reached = 0
        if full:
            start = len(chosen)
    _join_remainder(chosen, start, reached * 2 * NUMBER_GROUPS < total)
    return tuple(chosen)


def _join_remainder(chosen: list[float], start: int, small: bool) -> None:
    """A remainder with less than half a share would count for more than it is: it joins the group before."""
    if small and len(chosen) > start:
        chosen.pop()
