"""The SQL that compares rows with rows: repeats, order, rows of another file, features against the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.data.engines.duck_sql import ROW, can_be_special, quoted, value_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.data.engines.duck_load import View
    from mlp_ci.data.plan import ColumnPlan


# A row of more columns is hashed some columns at a time: held all at once, they would not fit into the memory. Equal
# hashes of such rows count as equal rows; among ten million different rows that is wrong once in 400,000 files.
WIDE = 500
HASH = "mlp-ci hash"  # no column of a file is called that


def repeats(view: View, columns: Sequence[str], examples: int) -> tuple[str, str]:
    """One query for the hashes that occur again, one for (first row, values, how often, all repeating rows)."""
    names = columns or [c.name for c in view.columns]
    every = [view.raw(n) for n in names]
    present = " AND ".join(f"{c} IS NOT NULL" for c in every) if columns else "true"
    hashed = f"hash({', '.join(every)})"
    again = f"SELECT {hashed} AS h FROM {view.part(names)} WHERE {present} GROUP BY 1 HAVING count(*) > 1"
    shown = ", ".join(f"CAST({c} AS VARCHAR)" for c in every)
    found = (
        f"WITH candidates AS MATERIALIZED "
        f"(SELECT *, {hashed} AS {quoted(HASH)} FROM {view.part(names, number=True)} "
        f"WHERE {present} AND {hashed} IN ({again})), "
        f"groups AS (SELECT min({quoted(ROW)}) AS first, count(*) AS n, ANY_VALUE([{shown}]) AS shown "
        f"FROM candidates GROUP BY {quoted(HASH)}, {', '.join(every)} HAVING count(*) > 1) "
        f"SELECT first, shown, n, sum(n - 1) OVER () FROM groups ORDER BY n DESC, first LIMIT {examples}"
    )
    return again, found


def backwards(view: View, time: ColumnPlan) -> str:
    """(row, shown) of the rows whose time is before that of the last row with a time."""
    value = value_of(time)
    steps = (
        f"SELECT {quoted(ROW)} AS row, {view.as_written(time.name)} AS shown, {value} AS t, "
        f"lag({value}) OVER () AS before FROM {view.part([time.name], number=True)} WHERE {value} IS NOT NULL"
    )
    return f"SELECT row, [shown] AS shown FROM ({steps}) WHERE t < before"


def matched(kind: str, view: View, columns: Sequence[str], other: View, other_columns: Sequence[str]) -> str:
    """(row, shown) of the rows that have (SEMI) or lack (ANTI) a row with the same values in ``other``."""
    mine = ", ".join(f"{view.as_text(n)} AS c{i}" for i, n in enumerate(columns))
    theirs = ", ".join(f"{other.as_text(n)} AS c{i}" for i, n in enumerate(other_columns))
    every = [f"c{i}" for i in range(len(columns))]
    present = " AND ".join(f"{c} IS NOT NULL" for c in every)
    same = " AND ".join(f"d.{c} = o.{c}" for c in every)
    return (
        f"SELECT row, [{', '.join(every)}] AS shown "
        f"FROM (SELECT {quoted(ROW)} AS row, {mine} FROM {view.part(columns, number=True)}) d "
        f"{kind} JOIN (SELECT {theirs} FROM {other.part(other_columns)}) o ON {same} WHERE {present}"
    )


def whole_rows(view: View, other: View) -> tuple[str, str]:
    """Rows that are also in ``other``: those whose hash is, and of these (row, shown) of those that really are.

    8 bytes a row decide for nearly all rows; only those whose hash is on both sides are compared in full.
    """
    names = [c.name for c in view.columns]
    mine, theirs = [view.as_text(n) for n in names], [other.as_text(n) for n in names]
    here, there = f"hash({', '.join(mine)})", f"hash({', '.join(theirs)})"
    ours, others = view.part(names, number=True), other.part(names)
    candidates = f"SELECT * FROM {ours} WHERE {here} IN (SELECT {there} FROM {others})"
    left = ", ".join(f"{sql} AS c{i}" for i, sql in enumerate(mine))
    right = ", ".join(f"{sql} AS c{i}" for i, sql in enumerate(theirs))
    same = " AND ".join(f"d.c{i} IS NOT DISTINCT FROM o.c{i}" for i in range(len(names)))
    found = (
        f"SELECT row, CAST([] AS VARCHAR[]) AS shown FROM "
        f"(SELECT {quoted(ROW)} AS row, {left} FROM ({candidates})) d SEMI JOIN "
        f"(SELECT {right} FROM {others} WHERE {there} IN (SELECT {here} FROM {ours})) o ON {same}"
    )
    return candidates, found


def crossed(view: View, rows_from: str, column: ColumnPlan, target: str, groups: int) -> str:
    """(group, value of the target, rows) over the rows of ``rows_from``, a view with the columns of ``view``."""
    label = view.as_text(target)
    if column.measurable and column.declared in ("float", "int", "timestamp", "date"):
        value = value_of(column)
        finite = f" AND isfinite({quoted(column.name)})" if can_be_special(column) else ""
        there = f"{value} IS NOT NULL{finite} AND {label} IS NOT NULL"
        pairs = f"SELECT {value} AS v, {label} AS y FROM {rows_from} WHERE {there}"
        # Equal values share a rank, and so a group.
        grouped = f"SELECT y, (rank() OVER (ORDER BY v) - 1) * {groups} // count(*) OVER () AS g FROM ({pairs})"
    else:
        value = view.as_text(column.name)
        pairs = f"SELECT {value} AS v, {label} AS y FROM {rows_from} WHERE {value} IS NOT NULL AND {label} IS NOT NULL"
        places = f"SELECT v, row_number() OVER (ORDER BY count(*) DESC, v) - 1 AS place FROM ({pairs}) GROUP BY v"
        grouped = f"SELECT y, least(place, {groups - 1}) AS g FROM ({pairs}) JOIN ({places}) USING (v)"
    return f"SELECT g, y, count(*) FROM ({grouped}) GROUP BY g, y ORDER BY g, y"


def hashes(view: View, names: Sequence[str]) -> list[str]:
    """Statements that make a table of (row, h) with one line per row and WIDE columns."""
    table = quoted(f"mlp-ci hashes {view.name}")
    made = [f"CREATE TEMP TABLE {table} (row BIGINT, h UBIGINT)"]
    for at in range(0, len(names), WIDE):
        part = list(names[at : at + WIDE])
        values = ", ".join([str(at), *(view.as_text(n) for n in part)])
        made.append(f"INSERT INTO {table} SELECT {quoted(ROW)}, hash({values}) FROM {view.part(part, number=True)}")
    return made


def hashed(view: View) -> str:
    return f"(SELECT row, bit_xor(h) AS h FROM {quoted(f'mlp-ci hashes {view.name}')} GROUP BY row)"
