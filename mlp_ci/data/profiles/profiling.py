"""Makes profiles of the rows of an open DuckDB: one pass counts all numbers, one grouping each category.

Rows can be profiled in groups, such as the hours of a log, in the same number of passes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlp_ci.data.engines.duck import MEMORY_LIMIT, open_file
from mlp_ci.data.engines.duck_sql import quoted
from mlp_ci.data.profiles.profile import Profile, edges_between, frequent, watched
from mlp_ci.data.profiles.shapes import (
    CATEGORIES,
    FEWEST,
    TAIL,
    CategoryProfile,
    ColumnProfile,
    NumberProfile,
    TextProfile,
    finite,
)
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mlp_ci.spec.data import Column

# Edges need not be exact quantiles, only fixed: a sample of this size puts them within 0.3 % of the mass.
EDGE_SAMPLE = 100_000
# Strings are text rather than categories where most rows hold a rare value and values have several words.
TEXT_WORDS = 3.0
# A query with the measures of more columns than this is planned longer than it runs.
COLUMNS_A_PASS = 200
ALL = "0"

Slot = str | tuple[str, str]  # a number by its name, or a measure of a text by name and measure


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


def profile_rows(connection: Any, source: str, kinds: Mapping[str, str], *, like: Profile | None = None) -> Profile:
    """The profile of a table or view of an open DuckDB; ``kinds`` says number or category for each column.

    Without ``like`` a sample fixes the bins first, and categories that hold free text become text.
    """
    if like is None:
        like = _first(connection, source, kinds)
    return profile_groups(connection, source, kinds, like=like, by=ALL).get(0) or _empty(kinds, like)


def profile_groups(
    connection: Any, source: str, kinds: Mapping[str, str], *, like: Profile, by: str
) -> dict[int, Profile]:
    """The profile of each group of rows; ``by`` is SQL that gives each row the whole number of its group."""
    known = {name: like.columns.get(name) for name in kinds}
    slots = {slot: sql for name in kinds for slot, sql in _slots(name, kinds[name], known[name]).items()}
    edges = {slot: _edges_like(like, slot) for slot in slots}
    rows, numbers = _numbers(connection, source, slots, edges, by)
    found: dict[int, dict[str, ColumnProfile]] = {group: {} for group in rows}
    for name, kind in kinds.items():
        column = known[name]
        if isinstance(column, TextProfile):
            distinct = _distinct(connection, source, name, by)
            for group in rows:
                length, words = numbers[group][name, "length"], numbers[group][name, "words"]
                found[group][name] = TextProfile(
                    count=length.count, nulls=length.nulls, distinct=distinct[group], length=length, words=words
                )
        elif kind == "number":
            for group in rows:
                found[group][name] = numbers[group][name]
        else:
            names = list(column.counts) if isinstance(column, CategoryProfile) else None
            for group, category in _categories(connection, source, name, names, by).items():
                found[group][name] = category
    return {group: Profile(rows=rows[group], columns=columns) for group, columns in found.items()}


def number_sql(name: str) -> str:
    """A column as a finite number; null for everything else."""
    value = f"TRY_CAST({quoted(name)} AS DOUBLE)"
    return f"CASE WHEN isfinite({value}) THEN {value} END"


# ---------------------------------------------------------------- a profile from nothing


def _first(connection: Any, source: str, kinds: Mapping[str, str]) -> Profile:
    """A profile without rows that fixes bins, categories and what is text, from a sample where that is enough."""
    columns: dict[str, ColumnProfile] = {}
    numbers = {name: number_sql(name) for name, kind in kinds.items() if kind == "number"}
    for name, kind in kinds.items():
        if kind != "number":
            found = _categories(connection, source, name, None, ALL).get(0, _NO_CATEGORIES)
            columns[name] = found
            if kind == "text" or _is_text(connection, source, name, found):
                numbers.update({(name, what): sql for what, sql in _text_measures(name).items()})
    edges = _edges_of_sample(connection, source, numbers)
    for slot, found_edges in edges.items():
        if not isinstance(slot, tuple):
            columns[slot] = _no_numbers(found_edges)
    for name in {slot[0] for slot in edges if isinstance(slot, tuple)}:
        length, words = _no_numbers(edges[name, "length"]), _no_numbers(edges[name, "words"])
        columns[name] = TextProfile(count=0, nulls=0, distinct=0, length=length, words=words)
    return Profile(rows=0, columns={name: columns[name] for name in kinds})


_NO_CATEGORIES = CategoryProfile(count=0, nulls=0, distinct=0, counts={}, other=0)


def _no_numbers(edges: tuple[float, ...]) -> NumberProfile:
    counts = (0,) * (len(edges) + 1)
    return NumberProfile(count=0, nulls=0, mean=None, smallest=None, largest=None, edges=edges, counts=counts)


def _empty(kinds: Mapping[str, str], like: Profile) -> Profile:
    """The profile of no rows, in the bins of another."""
    columns: dict[str, ColumnProfile] = {}
    for name in kinds:
        column = like.columns[name]
        if isinstance(column, NumberProfile):
            columns[name] = _no_numbers(column.edges)
        elif isinstance(column, TextProfile):
            length, words = _no_numbers(column.length.edges), _no_numbers(column.words.edges)
            columns[name] = TextProfile(count=0, nulls=0, distinct=0, length=length, words=words)
        else:
            counts = dict.fromkeys(column.counts, 0)
            columns[name] = CategoryProfile(count=0, nulls=0, distinct=0, counts=counts, other=0)
    return Profile(rows=0, columns=columns)


def _edges_of_sample(connection: Any, source: str, slots: Mapping[Any, str]) -> dict[Any, tuple[float, ...]]:
    import numpy as np

    if not slots:
        return {}
    chosen = ", ".join(f"{value} AS s{i}" for i, value in enumerate(slots.values()))
    sampled = connection.execute(
        f"SELECT {chosen} FROM {source} USING SAMPLE reservoir({EDGE_SAMPLE} ROWS) REPEATABLE (17)"
    ).fetchnumpy()
    return {slot: edges_between(np.ma.compressed(sampled[f"s{i}"])) for i, slot in enumerate(slots)}


def _is_text(connection: Any, source: str, name: str, found: CategoryProfile) -> bool:
    if found.other * 2 <= found.count or found.distinct <= CATEGORIES:
        return False
    words = _text_measures(name)["words"]
    mean = connection.execute(f"SELECT avg({words}) FROM (SELECT * FROM {source} LIMIT 10000)").fetchone()[0]
    return mean is not None and float(mean) >= TEXT_WORDS


# ---------------------------------------------------------------- numbers


def _slots(name: str, kind: str, like: ColumnProfile | None) -> dict[Slot, str]:
    if isinstance(like, TextProfile):
        return {(name, what): sql for what, sql in _text_measures(name).items()}
    return {name: number_sql(name)} if kind == "number" else {}


def _text_measures(name: str) -> dict[str, str]:
    value = f"CAST({quoted(name)} AS VARCHAR)"
    words = f"len(string_split_regex(trim({value}), '\\s+'))"
    return {"length": f"CAST(length({value}) AS DOUBLE)", "words": f"CAST({words} AS DOUBLE)"}


def _edges_like(like: Profile, slot: Slot) -> tuple[float, ...]:
    """The reference's edges for a number (by name) or for a measure of a text (by name and measure)."""
    name, what = slot if isinstance(slot, tuple) else (slot, "")
    column = like.columns.get(name)
    if isinstance(column, TextProfile) and what:
        return column.length.edges if what == "length" else column.words.edges
    if not isinstance(column, NumberProfile):
        msg = f"the reference profile does not hold {name} as a number"
        raise InputError(msg, why="the column's type changed since the version was registered", fix="register again")
    return column.edges


def _numbers(
    connection: Any, source: str, slots: Mapping[Slot, str], edges: Mapping[Slot, tuple[float, ...]], by: str
) -> tuple[dict[int, int], dict[int, dict[Any, NumberProfile]]]:
    """The rows of each group, and every expression of ``slots`` counted in its bins."""
    rows: dict[int, int] = {}
    counted: dict[int, dict[Any, NumberProfile]] = {}
    names = list(slots)
    for start in range(0, max(1, len(names)), COLUMNS_A_PASS):
        part = names[start : start + COLUMNS_A_PASS]
        sql, parameters = _number_query(source, {slot: slots[slot] for slot in part}, edges, by)
        for group, count, *values in connection.execute(sql, parameters).fetchall():
            if not count:
                continue
            rows[int(group)] = int(count)
            into = counted.setdefault(int(group), {})
            for i, slot in enumerate(part):
                into[slot] = _number_profile(int(count), edges[slot], values[6 * i : 6 * i + 6])
    return rows, counted


def _number_query(
    source: str, slots: Mapping[Slot, str], edges: Mapping[Slot, tuple[float, ...]], by: str
) -> tuple[str, dict[str, Any]]:
    measures, parameters, values = ["g", "count(*)"], {}, [f"{by} AS g"]
    for i, (slot, value) in enumerate(slots.items()):
        # Each value is worked out once, below all that is measured of it.
        values.append(f"{value} AS s{i}")
        away = f"(s{i} - CAST($c{i} AS DOUBLE))"
        measures += [f"count(s{i})", f"avg(s{i})", f"avg({away} * {away})", f"min(s{i})", f"max(s{i})"]
        measures.append(f"histogram(s{i}, CAST($e{i} AS DOUBLE[]))" if edges[slot] else "NULL")
        parameters[f"c{i}"] = _centre(edges[slot])
        if edges[slot]:
            parameters[f"e{i}"] = list(edges[slot])  # type: ignore[assignment]
    source = f"(SELECT {', '.join(values)} FROM {source})"
    measures[0] = "g" if by != ALL else ALL
    grouping = "" if by == ALL else " GROUP BY g"
    return f"SELECT {', '.join(measures)} FROM {source}{grouping}", parameters


def _centre(edges: tuple[float, ...]) -> float:
    """A value of the middle: squares around zero would lose all the digits of large values."""
    return edges[len(edges) // 2] if edges else 0.0


def _number_profile(rows: int, edges: tuple[float, ...], found: Sequence[Any]) -> NumberProfile:
    count, mean, square, smallest, largest, histogram = found
    counted = {float(edge): int(n) for edge, n in histogram.items()} if histogram else {}
    inside = [counted.get(edge, 0) for edge in edges]
    return NumberProfile(
        count=int(count),
        nulls=rows - int(count),
        mean=None if mean is None else finite(float(mean)),
        deviation=_deviation(mean, square, _centre(edges)),
        smallest=smallest,
        largest=largest,
        edges=edges,
        counts=(*inside, int(count) - sum(inside)),
    )


def _deviation(mean: float | None, square: float | None, centre: float) -> float | None:
    """The standard deviation from the mean square distance to ``centre``."""
    if mean is None or square is None or not (math.isfinite(mean) and math.isfinite(square)):
        return None
    try:
        return finite(max(0.0, square - (mean - centre) ** 2) ** 0.5)
    except OverflowError:
        return None


def _distinct(connection: Any, source: str, name: str, by: str) -> dict[int, int]:
    grouping = "" if by == ALL else " GROUP BY 1"
    found = connection.execute(f"SELECT {by}, approx_count_distinct({quoted(name)}) FROM {source}{grouping}").fetchall()
    return {int(group): int(count) for group, count in found}


# ---------------------------------------------------------------- categories


def _categories(
    connection: Any, source: str, name: str, known: list[str] | None, by: str
) -> dict[int, CategoryProfile]:
    """The counts of ``known`` values (else of the most frequent ones) in each group, and the rest by hash."""
    value = f"CAST({quoted(name)} AS VARCHAR)"
    groups = f"SELECT {by} AS w, {value} AS v, count(*) AS n FROM {source} GROUP BY 1, 2"
    keep = "v IN (SELECT unnest($known))" if known is not None else f"n >= {FEWEST}"
    # LIST of the n largest: a column with millions of values must not come back whole.
    limit = max(1, len(known)) if known is not None else CATEGORIES
    sql = (
        f"WITH groups AS ({groups}) SELECT w, count(v), coalesce(sum(n) FILTER (WHERE v IS NOT NULL), 0), "
        "coalesce(sum(n) FILTER (WHERE v IS NULL), 0), "
        f"max({{'n': n, 'v': v}}, {limit}) FILTER (WHERE v IS NOT NULL AND {keep}) FROM groups GROUP BY w"
    )
    table = connection.execute(sql, {"known": known} if known is not None else None).fetchall()
    found = {}
    for group, distinct, count, nulls, top in table:
        there = {str(item["v"]): int(item["n"]) for item in top or ()}
        kept = {v: there.get(v, 0) for v in known} if known is not None else frequent(there.items())
        found[int(group)] = CategoryProfile(
            count=int(count),
            nulls=int(nulls),
            distinct=int(distinct),
            counts=kept,
            other=int(count) - sum(kept.values()),
        )
    if any(c.other for c in found.values()):
        kept_names = known if known is not None else list(found[0].counts)
        tails = _tails(connection, groups, kept_names)
        return {group: _with_tail(c, tails.get(group, {})) for group, c in found.items()}
    return found


def _tails(connection: Any, groups: str, kept: list[str]) -> dict[int, dict[int, int]]:
    table = connection.execute(
        f"SELECT w, CAST('0x' || substr(md5(v), 1, 2) AS INTEGER) % {TAIL} AS b, CAST(sum(n) AS BIGINT) "
        f"FROM ({groups}) WHERE v IS NOT NULL AND v NOT IN (SELECT unnest(CAST($kept AS VARCHAR[]))) GROUP BY w, b",
        {"kept": kept},
    ).fetchall()
    found: dict[int, dict[int, int]] = {}
    for group, index, count in table:
        found.setdefault(int(group), {})[int(index)] = int(count)
    return found


def _with_tail(column: CategoryProfile, tail: Mapping[int, int]) -> CategoryProfile:
    return CategoryProfile(
        count=column.count,
        nulls=column.nulls,
        distinct=column.distinct,
        counts=column.counts,
        other=column.other,
        tail=tuple(tail.get(i, 0) for i in range(TAIL)),
    )
