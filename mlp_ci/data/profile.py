"""A profile: the shape of each column in constant size, so that drift needs no data.

Numbers are counted in fixed bins between quantiles of the reference, categories as the counts of the most frequent
values, free text by its length. Counts are exact, profiles with the same bins add up, and no row is kept; columns
marked sensitive are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.data.duck import MEMORY_LIMIT, open_file
from mlp_ci.data.duck_sql import quoted
from mlp_ci.data.shapes import (
    CATEGORIES,
    FEWEST,
    TAIL,
    CategoryProfile,
    ColumnProfile,
    NumberProfile,
    TextProfile,
    bucket,
    column_from_json,
    column_to_json,
    finite,
    merged,
    natural,
)
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from mlp_ci.spec.data import Column

FORMAT = "mlp-ci/profile/v2"
PREDICTION = "prediction"
# 200 bins: KS from binned counts is exact at every edge and misses at most the mass of one bin in between.
BINS = 200
# Empty bins beyond the reference on either side, together as wide as its range: a shift is seen where it went.
MARGIN = 20
FEW_VALUES = 24
# Edges need not be exact quantiles, only fixed: a sample of this size puts them within 0.3 % of the mass.
EDGE_SAMPLE = 100_000
# Strings are text rather than categories where most rows hold a rare value and values have several words.
TEXT_WORDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The profile of some rows: one :data:`ColumnProfile` per watched column.

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
        columns = {name: column_to_json(column) for name, column in self.columns.items()}
        return {"format": FORMAT, "rows": self.rows, "columns": columns}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Profile:
        """Read what :meth:`to_json` wrote; raises InputError for anything else."""
        require_format(value)
        try:
            columns = {str(name): column_from_json(column) for name, column in value["columns"].items()}
            return Profile(rows=natural(value["rows"]), columns=columns)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"the profile is damaged: {error!r}"
            raise InputError(msg, fix="register the version again") from error


def require_format(value: Mapping[str, Any]) -> None:
    """Raise InputError for a profile that another version of mlp-ci wrote in another way."""
    if value.get("format") == FORMAT:
        return
    what = f"the profile has the format {str(value.get('format'))[:60]!r}, and this mlp-ci reads {FORMAT!r}"
    why = "profiles are compared bin by bin, so both must have been made in the same way"
    raise InputError(what, why=why, fix="use the mlp-ci that registered the version, or register a new version")


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
    known = like.columns if like else {}
    profiles: dict[str, ColumnProfile] = {}
    texts = [name for name, kind in kinds.items() if kind == "text" or isinstance(known.get(name), TextProfile)]
    for name, kind in kinds.items():
        if kind == "category" and name not in texts:
            found = _category_profile(connection, source, name, known.get(name))
            profiles[name] = found
            if not known and _is_text(connection, source, name, found):
                texts.append(name)
    numbers = {name: number_sql(name) for name, kind in kinds.items() if kind == "number"}
    lengths = {(name, what): sql for name in texts for what, sql in _text_measures(name).items()}
    edges = _edges(connection, source, {**numbers, **lengths}, like)
    rows, counted = _count_numbers(connection, source, {**numbers, **lengths}, edges)
    for name in texts:
        profiles[name] = _text_profile(connection, source, name, (counted[name, "length"], counted[name, "words"]))
    return Profile(rows=rows, columns={name: counted[name] if name in numbers else profiles[name] for name in kinds})


def _count_numbers(
    connection: Any, source: str, slots: Mapping[Any, str], edges: Mapping[Any, tuple[float, ...]]
) -> tuple[int, dict[Any, NumberProfile]]:
    """One pass that counts every expression of ``slots`` in its bins; with the number of rows."""
    measures, parameters = ["count(*)"], {}
    for i, (slot, value) in enumerate(slots.items()):
        # Squares around a value of the middle: around zero, large values would lose all their digits.
        centre = edges[slot][len(edges[slot]) // 2] if edges[slot] else 0.0
        parameters[f"c{i}"] = centre
        measures += [f"count({value})", f"avg({value})", f"avg(pow({value} - $c{i}, 2))"]
        measures += [f"min({value})", f"max({value})"]
        measures.append(f"histogram({value}, CAST($e{i} AS DOUBLE[]))" if edges[slot] else "NULL")
        if edges[slot]:
            parameters[f"e{i}"] = list(edges[slot])  # type: ignore[assignment]
    rows, *values = connection.execute(f"SELECT {', '.join(measures)} FROM {source}", parameters).fetchone()
    counted = {}
    for i, slot in enumerate(slots):
        found = values[6 * i : 6 * i + 6]
        counted[slot] = _number_profile(int(rows), edges[slot], found, parameters[f"c{i}"])
    return int(rows), counted


def profile_values(values: Iterable[Any], *, like: ColumnProfile | None = None) -> ColumnProfile:
    """The profile of values in memory, such as the predictions for the test data: numbers, or class names."""
    import numpy as np

    array = np.asarray(list(values) if not isinstance(values, np.ndarray) else values)
    if array.dtype.kind in "fiub" and not (isinstance(like, CategoryProfile) or array.dtype.kind == "b"):
        numbers = array.astype(float).ravel()
        there = numbers[np.isfinite(numbers)]
        edges = like.edges if isinstance(like, NumberProfile) else edges_between(there)
        counts = np.bincount(np.searchsorted(np.asarray(edges), there, side="left"), minlength=len(edges) + 1)
        return NumberProfile(
            count=int(there.size),
            nulls=int(numbers.size - there.size),
            mean=_moment(np.mean, there),
            deviation=_moment(np.std, there),
            smallest=float(there.min()) if there.size else None,
            largest=float(there.max()) if there.size else None,
            edges=tuple(edges),
            counts=tuple(int(c) for c in counts),
        )
    texts = [_text(v) for v in array.ravel().tolist() if v is not None and v == v]  # noqa: PLR0124 (NaN)
    found: dict[str, int] = {}
    for text in texts:
        found[text] = found.get(text, 0) + 1
    known = list(like.counts) if isinstance(like, CategoryProfile) else None
    kept = {v: found.get(v, 0) for v in known} if known is not None else _frequent(found.items())
    tail = [0] * TAIL
    for value in found.keys() - kept.keys():
        tail[bucket(value)] += found[value]
    return CategoryProfile(
        count=len(texts),
        nulls=int(array.size) - len(texts),
        distinct=len(found),
        counts=kept,
        other=len(texts) - sum(kept.values()),
        tail=tuple(tail),
    )


def _moment(measure: Any, values: Any) -> float | None:
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        return finite(float(measure(values))) if values.size else None


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


def _edges(
    connection: Any, source: str, slots: Mapping[Any, str], like: Profile | None
) -> dict[Any, tuple[float, ...]]:
    return {slot: _edges_like(like, slot) for slot in slots} if like else _edges_of_sample(connection, source, slots)


def _edges_like(like: Profile, slot: Any) -> tuple[float, ...]:
    """The reference's edges for a number (by name) or for a measure of a text (by name and measure)."""
    name, what = slot if isinstance(slot, tuple) else (slot, "")
    column = like.columns.get(name)
    if isinstance(column, TextProfile) and what:
        return column.length.edges if what == "length" else column.words.edges
    if not isinstance(column, NumberProfile):
        msg = f"the reference profile does not hold {name} as a number"
        raise InputError(msg, why="the column's type changed since the version was registered", fix="register again")
    return column.edges


def _edges_of_sample(connection: Any, source: str, slots: Mapping[Any, str]) -> dict[Any, tuple[float, ...]]:
    import numpy as np

    if not slots:
        return {}
    chosen = ", ".join(f"{value} AS s{i}" for i, value in enumerate(slots.values()))
    sampled = connection.execute(
        f"SELECT {chosen} FROM {source} USING SAMPLE reservoir({EDGE_SAMPLE} ROWS) REPEATABLE (17)"
    ).fetchnumpy()
    return {slot: edges_between(np.ma.compressed(sampled[f"s{i}"])) for i, slot in enumerate(slots)}


def number_sql(name: str) -> str:
    """A column as a finite number; null for everything else."""
    value = f"TRY_CAST({quoted(name)} AS DOUBLE)"
    return f"CASE WHEN isfinite({value}) THEN {value} END"


def _number_profile(rows: int, edges: tuple[float, ...], found: Sequence[Any], centre: float) -> NumberProfile:
    count, mean, square, smallest, largest, histogram = found
    counted = {float(edge): int(n) for edge, n in histogram.items()} if histogram else {}
    inside = [counted.get(edge, 0) for edge in edges]
    return NumberProfile(
        count=int(count),
        nulls=rows - int(count),
        mean=None if mean is None else finite(float(mean)),
        deviation=_deviation(mean, square, centre),
        smallest=smallest,
        largest=largest,
        edges=edges,
        counts=(*inside, int(count) - sum(inside)),
    )


def _deviation(mean: float | None, square: float | None, centre: float) -> float | None:
    """The standard deviation from the mean square distance to ``centre``."""
    if mean is None or square is None:
        return None
    try:
        return finite(max(0.0, square - (mean - centre) ** 2) ** 0.5)
    except OverflowError:
        return None


def _category_profile(connection: Any, source: str, name: str, like: ColumnProfile | None) -> CategoryProfile:
    value = f"CAST({quoted(name)} AS VARCHAR)"
    groups = f"SELECT {value} AS v, count(*) AS n FROM {source} GROUP BY v"
    known = list(like.counts) if isinstance(like, CategoryProfile) else None
    keep = "v IN (SELECT unnest($known))" if known is not None else f"n >= {FEWEST}"
    # LIST of the n largest: a column with millions of values must not come back whole.
    limit = max(1, len(known)) if known is not None else CATEGORIES
    sql = (
        f"WITH groups AS ({groups}) SELECT count(v), coalesce(sum(n) FILTER (WHERE v IS NOT NULL), 0), "
        "coalesce(sum(n) FILTER (WHERE v IS NULL), 0), "
        f"max({{'n': n, 'v': v}}, {limit}) FILTER (WHERE v IS NOT NULL AND {keep}) FROM groups"
    )
    distinct, count, nulls, top = connection.execute(sql, {"known": known} if known is not None else None).fetchone()
    found = {str(item["v"]): int(item["n"]) for item in top or ()}
    kept = {v: found.get(v, 0) for v in known} if known is not None else _frequent(found.items())
    other = int(count) - sum(kept.values())
    return CategoryProfile(
        count=int(count),
        nulls=int(nulls),
        distinct=int(distinct),
        counts=kept,
        other=other,
        tail=_tail(connection, groups, list(kept)) if other else (0,) * TAIL,
    )


def _tail(connection: Any, groups: str, kept: list[str]) -> tuple[int, ...]:
    found = connection.execute(
        f"SELECT CAST('0x' || substr(md5(v), 1, 2) AS INTEGER) % {TAIL} AS b, CAST(sum(n) AS BIGINT) FROM ({groups}) "
        "WHERE v IS NOT NULL AND v NOT IN (SELECT unnest(CAST($kept AS VARCHAR[]))) GROUP BY b",
        {"kept": kept},
    ).fetchall()
    tail = [0] * TAIL
    for index, count in found:
        tail[int(index)] = int(count)
    return tuple(tail)


# ---------------------------------------------------------------- text


def _text_measures(name: str) -> dict[str, str]:
    value = f"CAST({quoted(name)} AS VARCHAR)"
    words = f"len(string_split_regex(trim({value}), '\\s+'))"
    return {"length": f"CAST(length({value}) AS DOUBLE)", "words": f"CAST({words} AS DOUBLE)"}


def _is_text(connection: Any, source: str, name: str, found: CategoryProfile) -> bool:
    if found.other * 2 <= found.count or found.distinct <= CATEGORIES:
        return False
    words = _text_measures(name)["words"]
    mean = connection.execute(f"SELECT avg({words}) FROM (SELECT * FROM {source} LIMIT 10000)").fetchone()[0]
    return mean is not None and float(mean) >= TEXT_WORDS


def _text_profile(
    connection: Any, source: str, name: str, measured: tuple[NumberProfile, NumberProfile]
) -> TextProfile:
    length, words = measured
    distinct = connection.execute(f"SELECT approx_count_distinct({quoted(name)}) FROM {source}").fetchone()[0]
    return TextProfile(count=length.count, nulls=length.nulls, distinct=int(distinct), length=length, words=words)


def _frequent(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    shared = [(value, n) for value, n in counts if n >= FEWEST]
    return dict(sorted(shared, key=lambda item: (-item[1], item[0]))[:CATEGORIES])


def _text(value: Any) -> str:
    """A value as DuckDB writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


__all__ = [
    "PREDICTION",
    "CategoryProfile",
    "ColumnProfile",
    "NumberProfile",
    "Profile",
    "TextProfile",
    "edges_between",
    "merged",
    "profile_file",
    "profile_rows",
    "profile_values",
    "watched",
]
