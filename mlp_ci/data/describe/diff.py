"""What changed between two versions of data: rows by key, columns, and what is in them.

Both lie in one DuckDB, as ``before`` and ``data``. Rows are compared by 64-bit hashes, joined once; a column's two
distributions by profiles with the same bins. Of sensitive columns only nulls are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlp_ci.data.engines.duck_sql import quoted
from mlp_ci.data.profiles.profiling import profile_rows
from mlp_ci.data.profiles.shapes import CategoryProfile, NumberProfile
from mlp_ci.data.profiles.statistics import psi
from mlp_ci.progress import doing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from mlp_ci.data.plan import PhysicalColumn
    from mlp_ci.data.profiles.shapes import ColumnProfile

COLUMNS_PER_QUERY = 100
NAMED_VALUES = 5
# With more levels than this on either side, which of them are new says nothing.
MOST_LEVELS = 100_000
_NUMBERS, _LEVELS, _TIMES = ("int", "float"), ("string", "bool"), ("timestamp", "date")


@dataclass(frozen=True, kw_only=True)
class RowChanges:
    """How many rows each side has; those added, removed and changed by ``key``, or as whole rows where it is empty."""

    before: int
    now: int
    added: int
    removed: int
    changed: int | None
    key: tuple[str, ...]

    @property
    def any(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True, kw_only=True)
class Values:
    """Values that one side has and the other has not: how many, and the most frequent of them with their rows."""

    count: int = 0
    most: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ColumnChanges:
    """One column on both sides; a side that lacks it has no type. Profiles only where both can be compared."""

    name: str
    type_before: str
    type_now: str
    sensitive: bool = False
    nulls_before: float = 0.0
    nulls_now: float = 0.0
    before: ColumnProfile | None = None
    now: ColumnProfile | None = None
    psi: float | None = None
    span_before: tuple[Any, Any] | None = None
    span_now: tuple[Any, Any] | None = None
    new: Values = field(default_factory=Values)
    gone: Values = field(default_factory=Values)
    changed_rows: int | None = None

    @property
    def schema_change(self) -> str:
        """added, removed, retyped, or empty."""
        if not self.type_before:
            return "added"
        if not self.type_now:
            return "removed"
        return "retyped" if self.type_before != self.type_now else ""

    @property
    def moved(self) -> bool:
        """Whether anything about it differs at all."""
        shapes = (self.before, self.now)
        differ = self.nulls_before != self.nulls_now or self.span_before != self.span_now or shapes[0] != shapes[1]
        return bool(self.schema_change or differ or self.changed_rows)

    @property
    def weight(self) -> tuple[int, float, float, int]:
        """What sorts columns: by schema, then by how far the distribution moved, then by what else differs."""
        return (
            -bool(self.schema_change),
            -(self.psi or 0.0),
            -abs(self.nulls_now - self.nulls_before),
            -(self.changed_rows or 0) - self.new.count - self.gone.count,
        )


@dataclass(frozen=True, kw_only=True)
class Changes:
    """All of it; columns with the largest changes first."""

    rows: RowChanges
    columns: tuple[ColumnChanges, ...]

    @property
    def any(self) -> bool:
        return self.rows.any or any(c.moved for c in self.columns)


def compare(
    connection: Any,
    before: Sequence[PhysicalColumn],
    now: Sequence[PhysicalColumn],
    *,
    types: Mapping[str, tuple[str, str]],
    key: Sequence[str],
    sensitive: Collection[str],
) -> Changes:
    """Compare the views ``before`` and ``data``. ``types`` are (before, now) as what each text column is read."""
    sides = _Sides(connection, before, now, types)
    shared = [name for name in sides.now if name in sides.before]
    open_ = [name for name in shared if name not in sensitive]
    doing("comparing rows")
    rows, per_column = sides.rows(shared, [k for k in key if k in shared])
    doing("comparing columns")
    nulls = {view: sides.nulls(view, shared) for view in ("before", "data")}
    counts = {"before": rows.before, "data": rows.now}
    profiles = _profiles(sides, open_)
    spans = {view: sides.spans(view, open_) for view in ("before", "data")}
    columns = []
    for name in dict.fromkeys([*sides.now, *sides.before]):
        then, current = profiles.get(name, (None, None))
        new, gone = sides.levels(name) if _few_levels(then, current) and name not in key else (Values(), Values())
        columns.append(
            ColumnChanges(
                name=name,
                type_before=sides.shown("before", name),
                type_now=sides.shown("data", name),
                sensitive=name in sensitive,
                nulls_before=nulls["before"].get(name, 0) / max(1, counts["before"]),
                nulls_now=nulls["data"].get(name, 0) / max(1, counts["data"]),
                before=then,
                now=current,
                psi=psi(then, current) if then and current else None,
                span_before=spans["before"].get(name),
                span_now=spans["data"].get(name),
                new=new,
                gone=gone,
                changed_rows=per_column.get(name),
            )
        )
    return Changes(rows=rows, columns=tuple(sorted(columns, key=lambda c: c.weight)))


def _profiles(sides: _Sides, names: Iterable[str]) -> dict[str, tuple[ColumnProfile, ColumnProfile]]:
    kinds = {}
    for name in names:
        a, b = sides.kind("before", name), sides.kind("data", name)
        for group, kind in ((_NUMBERS, "number"), (_LEVELS, "category")):
            if a in group and b in group:
                kinds[name] = kind
    if not kinds:
        return {}
    then = profile_rows(sides.connection, "before", kinds)
    now = profile_rows(sides.connection, "data", kinds, like=then)
    return {name: (then.columns[name], now.columns[name]) for name in kinds}


def _few_levels(then: ColumnProfile | None, now: ColumnProfile | None) -> bool:
    sides = [p for p in (then, now) if isinstance(p, CategoryProfile)]
    # A profile made like another one counts all of its values, and names those of the other.
    return len(sides) == 2 and all(p.distinct <= MOST_LEVELS for p in sides)


class _Sides:
    """The two views, and the questions asked of them."""

    def __init__(
        self,
        connection: Any,
        before: Sequence[PhysicalColumn],
        now: Sequence[PhysicalColumn],
        types: Mapping[str, tuple[str, str]],
    ) -> None:
        self.connection = connection
        self.before = {c.name: c for c in before}
        self.now = {c.name: c for c in now}
        self._types = types

    def kind(self, view: str, name: str) -> str:
        """As what the values of a column are read."""
        column = (self.before if view == "before" else self.now)[name]
        if not column.text:
            return column.kind
        return self._types.get(name, ("string", "string"))[view == "data"] or "string"

    def shown(self, view: str, name: str) -> str:
        """The type of a column for people; empty where the side has no such column."""
        column = (self.before if view == "before" else self.now).get(name)
        if column is None:
            return ""
        both_plain = all(name in side and not side[name].text for side in (self.before, self.now))
        return column.shown if both_plain or column.kind == "other" else self.kind(view, name)

    # ------------------------------------------------------------ rows

    def rows(self, shared: Sequence[str], key: Sequence[str]) -> tuple[RowChanges, dict[str, int]]:
        """Rows that came, went and changed; and for each column, in how many of the changed rows it did."""
        before, now = (int(self._row(f"SELECT count(*) FROM {view}")[0]) for view in ("before", "data"))
        by = list(key) or list(shared)
        if not by:
            changes = RowChanges(before=before, now=now, added=now, removed=before, changed=None, key=())
            return changes, {}
        rest = [name for name in shared if name not in key] if key else []
        sides = ", ".join(
            f"{alias} AS (SELECT k, count(*) AS n, bit_xor(h) AS h "
            f"FROM (SELECT {self._hash(by)} AS k, {self._hash(rest)} AS h FROM {view}) GROUP BY k)"
            for alias, view in (("a", "before"), ("b", "data"))
        )
        with_values = f"WITH {sides} "
        added, removed, changed = self._row(
            f"{with_values} SELECT coalesce(sum(greatest(coalesce(b.n, 0) - coalesce(a.n, 0), 0)), 0), "
            "coalesce(sum(greatest(coalesce(a.n, 0) - coalesce(b.n, 0), 0)), 0), "
            "coalesce(sum(b.n) FILTER (WHERE a.n = b.n AND a.h <> b.h), 0) FROM a FULL OUTER JOIN b ON a.k = b.k"
        )
        per_column = {}
        if key and changed:
            self.connection.execute(
                f"CREATE OR REPLACE TEMP TABLE moved AS {with_values} "
                "SELECT a.k FROM a JOIN b ON a.k = b.k WHERE a.n = 1 AND b.n = 1 AND a.h <> b.h"
            )
            per_column = self._changed_columns(by, rest)
        changes = RowChanges(
            before=before,
            now=now,
            added=int(added),
            removed=int(removed),
            changed=int(changed) if key else None,
            key=tuple(key),
        )
        return changes, per_column

    def _changed_columns(self, key: Sequence[str], names: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        by = self._hash(key)
        for some in _batches(names):
            values = ", ".join(f"{self._comparable(name)} AS v{i}" for i, name in enumerate(some))
            sides = [
                f"(SELECT {by} AS k, {values} FROM {view} WHERE {by} IN (SELECT moved.k FROM moved))"
                for view in ("before", "data")
            ]
            counts = ", ".join(f"count(*) FILTER (WHERE a.v{i} IS DISTINCT FROM b.v{i})" for i in range(len(some)))
            row = self._row(f"SELECT {counts} FROM {sides[0]} a JOIN {sides[1]} b ON a.k = b.k")
            found |= dict(zip(some, map(int, row), strict=True))
        return found

    def _hash(self, names: Sequence[str]) -> str:
        # The constant makes a hash of no column at all, and one that null does not share with its row.
        return f"hash({', '.join(['1', *map(self._comparable, names)])})"

    def _comparable(self, name: str) -> str:
        """A column in a type that both sides share, so that equal values are equal."""
        a, b = self.before[name], self.now[name]
        column = quoted(name)
        kinds = {self.kind("before", name), self.kind("data", name)}
        if a.shown == b.shown and len(kinds) == 1:
            return column
        if kinds <= set(_NUMBERS):
            return f"CAST({column} AS DOUBLE)"
        if kinds <= set(_TIMES):
            return f"epoch_us({column})"
        return f"CAST({column} AS VARCHAR)"

    # ------------------------------------------------------------ columns

    def nulls(self, view: str, names: Sequence[str]) -> dict[str, int]:
        """How many rows of a view lack a value; NaN is none."""
        side = self.before if view == "before" else self.now
        found: dict[str, int] = {}
        for some in _batches(names):
            measures = [
                f"count(*) FILTER (WHERE {quoted(n)} IS NULL{f' OR isnan({quoted(n)})' if side[n].nan else ''})"
                for n in some
            ]
            found |= dict(zip(some, map(int, self._row(f"SELECT {', '.join(measures)} FROM {view}")), strict=True))
        return found

    def spans(self, view: str, names: Sequence[str]) -> dict[str, tuple[Any, Any]]:
        """The first and the last of every column of times, as microseconds since 1970."""
        times = [n for n in names if {self.kind("before", n), self.kind("data", n)} <= set(_TIMES)]
        found: dict[str, tuple[Any, Any]] = {}
        for some in _batches(times):
            measures = [
                f"epoch_us({end}({quoted(n)}) FILTER (WHERE isfinite({quoted(n)})))"
                for n in some
                for end in ("min", "max")
            ]
            row = self._row(f"SELECT {', '.join(measures)} FROM {view}")
            found |= {name: (row[2 * i], row[2 * i + 1]) for i, name in enumerate(some)}
        return found

    def levels(self, name: str) -> tuple[Values, Values]:
        """Values that came, and values that went."""
        return self._only_in("data", "before", name), self._only_in("before", "data", name)

    def _only_in(self, view: str, other: str, name: str) -> Values:
        value = f"CAST({quoted(name)} AS VARCHAR)"
        count, most = self._row(
            f"SELECT count(*), max({{'n': n, 'v': v}}, {NAMED_VALUES}) FROM "
            f"(SELECT {value} AS v, count(*) AS n FROM {view} WHERE {quoted(name)} IS NOT NULL GROUP BY 1) "
            f"WHERE v NOT IN (SELECT {value} FROM {other} WHERE {quoted(name)} IS NOT NULL)"
        )
        return Values(count=int(count), most=tuple((str(m["v"]), int(m["n"])) for m in most or ()))

    def _row(self, sql: str) -> tuple[Any, ...]:
        return tuple(self.connection.execute(sql).fetchone())


def _batches(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[i : i + COLUMNS_PER_QUERY] for i in range(0, len(names), COLUMNS_PER_QUERY))


def numbers_of(profile: ColumnProfile | None) -> NumberProfile | None:
    """The profile, if it is one of numbers."""
    return profile if isinstance(profile, NumberProfile) else None
