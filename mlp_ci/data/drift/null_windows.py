"""Cuts the reference into windows as long as those that will be judged, and counts each column's groups in them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.data.engines.duck_sql import ROW, quoted
from mlp_ci.data.profiles.groups import groups_of
from mlp_ci.data.profiles.profile import profile_values
from mlp_ci.data.profiles.profiling import number_sql

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from mlp_ci.data.profiles.groups import Groups
    from mlp_ci.data.profiles.shapes import ColumnProfile

MOST = 128
# Where more would fit, runs of neighbouring windows are spread over the reference: neighbours show how windows add up.
RUN = 8
# With fewer windows their variation is a guess; windows are rather cut shorter, which makes them vary more.
FEWEST = 8
ROWS_EACH = 200
MOST_BY_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How rows fall into windows: ``index`` is SQL that gives each row its window, or null between windows.

    ``seconds`` is how long a window is, None where the data has no time and windows are neighbouring rows. ``run``
    windows follow each other without a gap, then the next run begins.
    """

    index: str
    count: int
    seconds: float | None
    run: int


def cut(connection: Any, source: str, time: str | None, window: timedelta) -> Cut:
    """Windows over the rows of ``source`` (which has ROW): as long as ``window``, at most MOST of them."""
    rows = int(connection.execute(f"SELECT count(*) FROM {source}").fetchone()[0])
    if time is not None:
        moment = f"epoch_us({quoted(time)})"
        first, last = connection.execute(f"SELECT min({moment}), max({moment}) FROM {source}").fetchone()
        if first is not None and last > first:
            return _by_time(moment, (int(first), int(last) + 1), window, rows)
    count = max(1, min(MOST_BY_ROWS, rows // ROWS_EACH))
    return Cut(index=f"(({quoted(ROW)} - 1) * {count}) // {max(1, rows)}", count=count, seconds=None, run=count)


def _by_time(moment: str, ends: tuple[int, int], window: timedelta, rows: int) -> Cut:
    first, total = ends[0], ends[1] - ends[0]
    length = min(round(window.total_seconds() * 1e6), total // FEWEST or 1)
    fit = max(1, min(total // length, rows // ROWS_EACH or 1))
    runs, run = (MOST // RUN, RUN) if fit > MOST else (1, fit)
    # Where there are too few rows for more, each window stands alone, as far from the others as they go.
    alone = runs == 1 and fit < total // length
    stride = total // fit if alone else length
    apart = total // runs
    place = f"({moment} - {first})"
    within = f"({place} % {apart})"
    inside = f"{place} // {apart} < {runs} AND {within} // {stride} < {run} AND {within} % {stride} < {length}"
    index = f"CASE WHEN {inside} THEN ({place} // {apart}) * {run} + {within} // {stride} END"
    return Cut(index=index, count=runs * run, seconds=length / 1e6, run=1 if alone else run)


def window_counts(
    connection: Any, source: str, windows: Cut, groups: Mapping[str, Groups]
) -> dict[str, list[tuple[int, ...]]]:
    """For each column the rows of ``source`` in each of its groups: one entry a window, in order of time."""
    cut_rows = f"(SELECT *, {windows.index} AS w FROM {source}) WHERE w IS NOT NULL"
    found = _numbers(connection, cut_rows, {n: g for n, g in groups.items() if g.edges is not None})
    for name, group in groups.items():
        if group.names is not None:
            found[name] = _categories(connection, cut_rows, name, group)
    return {n: [found[n].get(w, (0,) * g.size) for w in range(windows.count)] for n, g in groups.items()}


def _numbers(connection: Any, source: str, groups: Mapping[str, Groups]) -> dict[str, dict[int, tuple[int, ...]]]:
    if not groups:
        return {}
    # Text is grouped by its length; which columns are text is known by what the file holds.
    texts = {
        str(n)
        for n, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {source} LIMIT 0").fetchall()
        if kind == "VARCHAR"
    }
    measures, parameters = ["w", "count(*)"], {}
    for i, (name, group) in enumerate(groups.items()):
        value = f"CAST(length({quoted(name)}) AS DOUBLE)" if name in texts else number_sql(name)
        parameters[f"e{i}"] = list(group.edges or ())
        measures.append(f"count({value})")
        measures.append(f"histogram({value}, CAST($e{i} AS DOUBLE[]))" if group.edges else "NULL")
    used = {key: edges for key, edges in parameters.items() if edges}
    table = connection.execute(f"SELECT {', '.join(measures)} FROM {source} GROUP BY w ORDER BY w", used).fetchall()
    found: dict[str, dict[int, tuple[int, ...]]] = {name: {} for name in groups}
    for window, rows, *values in table:
        for i, (name, group) in enumerate(groups.items()):
            count, histogram = int(values[2 * i]), values[2 * i + 1] or {}
            inside = [int(histogram.get(edge, 0)) for edge in group.edges or ()]
            found[name][int(window)] = (*inside, count - sum(inside), int(rows) - count)
    return found


def _categories(connection: Any, source: str, name: str, group: Groups) -> dict[int, tuple[int, ...]]:
    value = f"CAST({quoted(name)} AS VARCHAR)"
    # The place of a value among the named ones, behind them its place in the tail; null for missing values.
    tail = f"CAST('0x' || substr(md5(v), 1, 2) AS INTEGER) % 32 % {group.tail}"
    named = f"coalesce(list_position($names, v) - 1, {len(group.names or ())} + {tail})"
    place = f"CASE WHEN v IS NOT NULL THEN {named} END"
    table = connection.execute(
        f"SELECT w, {place} AS g, CAST(sum(n) AS BIGINT) FROM "
        f"(SELECT w, {value} AS v, count(*) AS n FROM {source} GROUP BY w, v) GROUP BY w, g ORDER BY w",
        {"names": list(group.names or ())},
    ).fetchall()
    found: dict[int, list[int]] = {}
    for window, index, count in table:
        row = found.setdefault(int(window), [0] * group.size)
        row[group.size - 1 if index is None else int(index)] += int(count)
    return {window: tuple(row) for window, row in found.items()}


def windows_of(values: Any, like: ColumnProfile) -> list[list[int]]:
    """Counts of the groups of ``like`` in neighbouring parts of a sequence of values, such as predictions."""
    groups, count = groups_of(like), max(1, min(MOST_BY_ROWS, len(values) // ROWS_EACH))
    ends = [i * len(values) // count for i in range(count + 1)]
    return [groups.count(profile_values(values[a:b], like=like)) for a, b in itertools.pairwise(ends)]
