"""A profile: the shape of each column in constant size, so that drift needs no data.

Numbers are counted in fixed bins between quantiles of the reference, categories as the counts of the most frequent
values. Counts are exact, profiles with the same bins add up, and no row is kept: a value stands in a profile only
when at least ``FEWEST`` rows share it, and columns marked sensitive are left out.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.data.duck import MEMORY_LIMIT, open_file
from mlp_ci.data.duck_sql import quoted
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from mlp_ci.spec.data import Column, Data

FORMAT = "mlp-ci/profile/v1"
PREDICTION = "prediction"
# 200 bins: KS from binned counts is exact at every edge and misses at most the mass of one bin in between.
BINS = 200
# Empty bins beyond the reference on either side, together as wide as its range: a shift is seen where it went.
MARGIN = 20
FEW_VALUES = 24
# Edges need not be exact quantiles, only fixed: a sample of this size puts them within 0.3 % of the mass.
EDGE_SAMPLE = 100_000
CATEGORIES = 100
FEWEST = 5


@dataclass(frozen=True, kw_only=True)
class NumberProfile:
    """``counts[i]`` values lie in (edges[i-1], edges[i]]; the first and last bins are open. NaN and ±inf are nulls."""

    count: int
    nulls: int
    mean: float | None
    smallest: float | None
    largest: float | None
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    kind = "number"


@dataclass(frozen=True, kw_only=True)
class CategoryProfile:
    """``counts`` of the most frequent values, all other values together in ``other``.

    ``distinct`` is exact for one file and a lower bound after profiles were added up.
    """

    count: int
    nulls: int
    distinct: int
    counts: Mapping[str, int]
    other: int

    kind = "category"


ColumnProfile = NumberProfile | CategoryProfile


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The profile of some rows: one :class:`ColumnProfile` per watched column.

    The profile of predictions stands under ``prediction``; it may cover other rows than the inputs, so rows are
    counted per column (``count + nulls``).
    """

    rows: int
    columns: Mapping[str, ColumnProfile]

    def with_column(self, name: str, column: ColumnProfile) -> Profile:
        """A copy that also holds ``column``, for example the predictions under ``prediction``."""
        return Profile(rows=self.rows, columns={**self.columns, name: column})

    def merge(self, other: Profile) -> Profile:
        """The profile of both sets of rows together. Raises InputError when the bins differ."""
        if self.columns.keys() != other.columns.keys():
            names = ", ".join(sorted(self.columns.keys() ^ other.columns.keys()))
            msg = f"profiles of different columns do not add up: {names}"
            raise InputError(msg, fix="profile both against the same reference")
        columns = {name: merged(name, column, other.columns[name]) for name, column in self.columns.items()}
        return Profile(rows=self.rows + other.rows, columns=columns)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_json` reads them back."""
        columns = {name: {"kind": c.kind, **asdict(c)} for name, c in self.columns.items()}
        return {"format": FORMAT, "rows": self.rows, "columns": columns}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Profile:
        """Read what :meth:`to_json` wrote; raises InputError for anything else."""
        if value.get("format") != FORMAT:
            what = f"the profile has the format {str(value.get('format'))[:60]!r}, and this mlp-ci reads {FORMAT!r}"
            raise InputError(what, fix="use the mlp-ci that registered the version, or register a new version")
        try:
            columns = {str(name): _column_from_json(column) for name, column in value["columns"].items()}
            return Profile(rows=_natural(value["rows"]), columns=columns)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"the profile is damaged: {error!r}"
            raise InputError(msg, fix="register the version again") from error


def merged(name: str, one: ColumnProfile, two: ColumnProfile) -> ColumnProfile:
    """Two profiles of one column added up. Raises InputError when their bins differ."""
    if isinstance(one, CategoryProfile) and isinstance(two, CategoryProfile):
        counts = {v: one.counts.get(v, 0) + two.counts.get(v, 0) for v in {**one.counts, **two.counts}}
        kept = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:CATEGORIES])
        count = one.count + two.count
        return CategoryProfile(
            count=count,
            nulls=one.nulls + two.nulls,
            distinct=max(one.distinct, two.distinct),
            counts=kept,
            other=count - sum(kept.values()),
        )
    if isinstance(one, NumberProfile) and isinstance(two, NumberProfile) and one.edges == two.edges:
        count = one.count + two.count
        total = sum(p.mean * p.count for p in (one, two) if p.mean is not None)
        return NumberProfile(
            count=count,
            nulls=one.nulls + two.nulls,
            mean=_mean(total / count) if count else None,
            smallest=min((p.smallest for p in (one, two) if p.smallest is not None), default=None),
            largest=max((p.largest for p in (one, two) if p.largest is not None), default=None),
            edges=one.edges,
            counts=tuple(a + b for a, b in zip(one.counts, two.counts, strict=True)),
        )
    msg = f"the profiles of {name} have different bins"
    raise InputError(msg, fix="profile both against the same reference")


# ---------------------------------------------------------------- making profiles


def profile_file(
    path: Path,
    columns: Mapping[str, Column],
    *,
    like: Profile | None = None,
    memory_limit: str = MEMORY_LIMIT,
) -> Profile:
    """The profile of a data file's watched columns (``data.columns`` of ``model.yaml``).

    ``like``: count into the bins and categories of that profile, so that the two can be compared. Raises InputError
    for a file that cannot be read or lacks a watched column.
    """
    kinds = watched(columns)
    types: dict[str, str] = {name: column.type for name, column in columns.items()}
    with open_file(path, path.name, types, memory_limit) as file:
        missing = [name for name in kinds if name not in {c.name for c in file.schema()}]
        if missing:
            msg = f"{path.name} has no column {', '.join(missing)}"
            raise InputError(msg, fix="`mlp-ci validate` says what the file has")
        return profile_rows(file.connection, "data", kinds, like=like)


def reference_profile(train: Path, data: Data, predictions: Iterable[Any] | None = None) -> Profile:
    """What a version's ``profile.json`` holds: its training inputs, and its predictions for the held-out data.

    ``predictions`` must be what serving logs: the probability of the positive class where the model gives one, else
    the predicted value or class.
    """
    profile = profile_file(train, {name: data.columns[name] for name in data.features})
    return profile if predictions is None else profile.with_column(PREDICTION, profile_values(predictions))


def watched(columns: Mapping[str, Column]) -> dict[str, str]:
    """Column → number or category, for the columns that drift is watched in."""
    kinds = {"float": "number", "int": "number", "string": "category", "bool": "category"}
    return {
        name: kinds[column.type]
        for name, column in columns.items()
        if column.type in kinds and column.monitor and not column.sensitive
    }


def profile_rows(connection: Any, source: str, kinds: Mapping[str, str], *, like: Profile | None = None) -> Profile:
    """The profile of a table or view of an open DuckDB; ``kinds`` says number or category for each column.

    Without ``like`` a sample fixes the bins first. Then one pass counts all numbers, and one grouping per category.
    """
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    edges = _edges_like(like, numbers) if like else _edges_of_sample(connection, source, numbers)
    measures = ["count(*)"]
    for name in numbers:
        value = _number(name)
        measures += [f"count({value})", f"avg({value})", f"min({value})", f"max({value})"]
        measures.append(f"histogram({value}, CAST($e{len(measures)} AS DOUBLE[]))" if edges[name] else "NULL")
    # Each parameter is named after its place in the list of measures.
    bins = {f"e{5 * i + 5}": list(edges[name]) for i, name in enumerate(numbers) if edges[name]}
    rows, *values = connection.execute(f"SELECT {', '.join(measures)} FROM {source}", bins).fetchone()
    profiles: dict[str, ColumnProfile] = {}
    for i, name in enumerate(numbers):
        profiles[name] = _number_profile(int(rows), edges[name], values[5 * i : 5 * i + 5])
    for name, kind in kinds.items():
        if kind == "category":
            known = like.columns[name] if like else None
            profiles[name] = _category_profile(connection, source, name, int(rows), known)
    return Profile(rows=int(rows), columns={name: profiles[name] for name in kinds})


def profile_values(values: Iterable[Any], *, like: ColumnProfile | None = None) -> ColumnProfile:
    """The profile of values in memory, such as the predictions for the test data: numbers, or class names."""
    import numpy as np

    array = np.asarray(list(values) if not isinstance(values, np.ndarray) else values)
    if array.dtype.kind in "fiub" and not (isinstance(like, CategoryProfile) or array.dtype.kind == "b"):
        numbers = array.astype(float).ravel()
        finite = numbers[np.isfinite(numbers)]
        edges = like.edges if isinstance(like, NumberProfile) else edges_between(finite)
        counts = np.bincount(np.searchsorted(np.asarray(edges), finite, side="left"), minlength=len(edges) + 1)
        return NumberProfile(
            count=int(finite.size),
            nulls=int(numbers.size - finite.size),
            mean=_mean(float(np.sum(finite / finite.size))) if finite.size else None,
            smallest=float(finite.min()) if finite.size else None,
            largest=float(finite.max()) if finite.size else None,
            edges=tuple(edges),
            counts=tuple(int(c) for c in counts),
        )
    texts = [_text(v) for v in array.ravel().tolist() if v is not None and v == v]  # noqa: PLR0124 (NaN)
    found: dict[str, int] = {}
    for text in texts:
        found[text] = found.get(text, 0) + 1
    known = list(like.counts) if isinstance(like, CategoryProfile) else None
    kept = {v: found.get(v, 0) for v in known} if known is not None else _frequent(found.items())
    return CategoryProfile(
        count=len(texts),
        nulls=int(array.size) - len(texts),
        distinct=len(found),
        counts=kept,
        other=len(texts) - sum(kept.values()),
    )


def edges_between(values: Any) -> tuple[float, ...]:
    """Edges for the bins of these finite numbers: all values where there are few of them, else quantiles.

    Between two edges lies at most 1/BINS of the values, unless one value alone has more. Beyond them follow MARGIN
    equal bins on either side, empty but for the tails; not for a handful of values, which are more like categories.
    """
    import numpy as np

    if values.size == 0:
        return ()
    edges = np.unique(values)
    if edges.size > BINS:
        edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf"))
    if edges.size > FEW_VALUES:
        with np.errstate(over="ignore"):
            steps = (edges[-1] - edges[0]) * np.arange(1, MARGIN + 1) / MARGIN
            edges = np.unique(np.concatenate([edges[0] - steps, edges, edges[-1] + steps]))
        edges = edges[np.isfinite(edges)]
    return tuple(float(v) for v in edges)


def _edges_like(like: Profile, numbers: Sequence[str]) -> dict[str, tuple[float, ...]]:
    found = {}
    for name in numbers:
        column = like.columns.get(name)
        if not isinstance(column, NumberProfile):
            msg = f"the reference profile does not hold {name} as a number"
            raise InputError(
                msg, why="the column's type changed since the version was registered", fix="register again"
            )
        found[name] = column.edges
    return found


def _edges_of_sample(connection: Any, source: str, numbers: Sequence[str]) -> dict[str, tuple[float, ...]]:
    import numpy as np

    if not numbers:
        return {}
    chosen = ", ".join(f"{_number(name)} AS {quoted(name)}" for name in numbers)
    sampled = connection.execute(
        f"SELECT {chosen} FROM {source} USING SAMPLE reservoir({EDGE_SAMPLE} ROWS) REPEATABLE (17)"
    ).fetchnumpy()
    return {name: edges_between(np.ma.compressed(sampled[name])) for name in numbers}


def _number(name: str) -> str:
    value = f"TRY_CAST({quoted(name)} AS DOUBLE)"
    return f"CASE WHEN isfinite({value}) THEN {value} END"


def _number_profile(rows: int, edges: tuple[float, ...], found: Sequence[Any]) -> NumberProfile:
    count, mean, smallest, largest, histogram = found
    counted = {float(edge): int(n) for edge, n in histogram.items()} if histogram else {}
    inside = [counted.get(edge, 0) for edge in edges]
    return NumberProfile(
        count=int(count),
        nulls=rows - int(count),
        mean=None if mean is None else _mean(float(mean)),
        smallest=smallest,
        largest=largest,
        edges=edges,
        counts=(*inside, int(count) - sum(inside)),
    )


def _category_profile(
    connection: Any, source: str, name: str, rows: int, like: ColumnProfile | None
) -> CategoryProfile:
    value = f"CAST({quoted(name)} AS VARCHAR)"
    groups = f"SELECT {value} AS v, count(*) AS n FROM {source} WHERE {quoted(name)} IS NOT NULL GROUP BY v"
    known = list(like.counts) if isinstance(like, CategoryProfile) else None
    keep = "FILTER (WHERE v IN (SELECT unnest($known)))" if known is not None else f"FILTER (WHERE n >= {FEWEST})"
    # LIST of the n largest: a column with millions of values must not come back whole.
    limit = max(1, len(known)) if known is not None else CATEGORIES
    sql = (
        f"WITH groups AS ({groups}) "
        f"SELECT count(*), coalesce(sum(n), 0), max({{'n': n, 'v': v}}, {limit}) {keep} FROM groups"
    )
    distinct, count, top = connection.execute(sql, {"known": known} if known is not None else None).fetchone()
    found = {str(item["v"]): int(item["n"]) for item in top or ()}
    kept = {v: found.get(v, 0) for v in known} if known is not None else _frequent(found.items())
    return CategoryProfile(
        count=int(count),
        nulls=rows - int(count),
        distinct=int(distinct),
        counts=kept,
        other=int(count) - sum(kept.values()),
    )


def _mean(value: float) -> float | None:
    """A mean, or None where the values are so large that adding them up overflows."""
    return value if math.isfinite(value) else None


def _frequent(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    shared = [(value, n) for value, n in counts if n >= FEWEST]
    return dict(sorted(shared, key=lambda item: (-item[1], item[0]))[:CATEGORIES])


def _text(value: Any) -> str:
    """A value as DuckDB writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---------------------------------------------------------------- reading JSON


def _column_from_json(value: Mapping[str, Any]) -> ColumnProfile:
    count, nulls = _natural(value["count"]), _natural(value["nulls"])
    if value["kind"] == "number":
        edges = tuple(float(e) for e in value["edges"])
        counts = tuple(_natural(c) for c in value["counts"])
        if len(counts) != len(edges) + 1 or list(edges) != sorted(set(edges)) or sum(counts) != count:
            msg = "bins and counts do not fit together"
            raise ValueError(msg)
        extremes = {k: None if value[k] is None else _finite(value[k]) for k in ("mean", "smallest", "largest")}
        return NumberProfile(count=count, nulls=nulls, edges=edges, counts=counts, **extremes)
    if value["kind"] == "category":
        named = {str(v): _natural(n) for v, n in value["counts"].items()}
        other = _natural(value["other"])
        if sum(named.values()) + other != count:
            msg = "the counts of the categories do not add up"
            raise ValueError(msg)
        distinct = _natural(value["distinct"])
        return CategoryProfile(count=count, nulls=nulls, distinct=distinct, counts=named, other=other)
    msg = f"unknown kind {str(value['kind'])[:40]!r}"
    raise ValueError(msg)


def _natural(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        msg = f"{value!r} is no count"
        raise ValueError(msg)
    return value


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        msg = f"{value!r} is not finite"
        raise ValueError(msg)
    return number
