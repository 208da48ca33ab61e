"""Measures a table where it lies, by SQL: the engine behind Spark and warehouses.

How a query is run is the opener's affair (:mod:`mlp_ci.data.engines.spark`, :mod:`mlp_ci.data.engines.warehouse`).
Aggregates come back, and five examples of what is wrong; never the rows.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from mlp_ci.data.engine import Example, Facts, Fault, Found, Membership, Repeats
from mlp_ci.data.engines import measure_sql as ms
from mlp_ci.data.engines.sql_answers import facts_of, number_of, text_of
from mlp_ci.data.engines.sql_dialects import quoted, translate
from mlp_ci.errors import InputError, OutsideError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlp_ci.data.engines.measure_sql import Relation
    from mlp_ci.data.plan import ColumnPlan, PhysicalColumn, Plan

EXAMPLES = 5
# Each look for examples is a query of its own; in a table with more broken rules than this, nobody reads them all.
EXAMPLES_PER_FILE = 50
# Databases limit how many expressions one query may have (SQLite: 2,000; PostgreSQL: 1,664).
MEASURES_AT_ONCE = 1_000
# Whole numbers from here on are not all doubles.
EXACT_IN_DOUBLES = 2**53
# Where an exact quantile is an aggregate; elsewhere rows are numbered in the order of their values.
_SORTS_IN_AGGREGATES = ("postgres", "spark")


class Answer(NamedTuple):
    """What a query gave: names and values of its columns."""

    names: tuple[str, ...]
    rows: list[tuple[Any, ...]]


class SqlTable:
    """An open table. Implements :class:`mlp_ci.data.engine.Engine`.

    ``run`` gets SQL in ``dialect`` and how many rows are wanted (0: all), and raises OutsideError where the database
    refuses it. ``others`` are the tables that checks between tables name.
    """

    def __init__(
        self, run: Callable[[str, int], Answer], dialect: str, data: Relation, others: Mapping[str, Relation]
    ) -> None:
        self.data = data
        self.others = others
        self.dialect = dialect
        self.ordered = bool(data.order)
        self._run = run
        self._examples_left = EXAMPLES_PER_FILE
        self._gapless: tuple[int, bool] | None = None

    def schema(self) -> tuple[PhysicalColumn, ...]:
        return tuple(c.physical for c in self.data.columns)

    # ------------------------------------------------------------ one column

    def facts(self, plan: Plan) -> Facts:
        """One scan over all columns (a few for very many), and one more where quantiles are asked for."""
        wanted = [
            (c.name, what, sql)
            for c in plan.columns
            for what, sql in ms.measures(self.data.column(c.name), c, self.dialect).items()
        ]
        rows = 0
        found: dict[str, dict[str, Any]] = {c.name: {} for c in plan.columns}
        for start in range(0, max(len(wanted), 1), MEASURES_AT_ONCE):
            batch = wanted[start : start + MEASURES_AT_ONCE]
            selected = ", ".join(["count(*)", *(sql for _, _, sql in batch)])
            (first,) = self._rows(f"SELECT {selected} FROM {self.data.name}")
            rows = int(first[0])
            for (name, what, _), value in zip(batch, first[1:], strict=True):
                found[name][what] = value
        quantiles = self._quantiles(plan, found)
        columns = {c.name: facts_of(self.data.column(c.name), c, rows, found[c.name]) for c in plan.columns}
        columns = {name: replace(facts, quantiles=quantiles.get(name, {})) for name, facts in columns.items()}
        return Facts(rows=rows, columns=columns)

    def _quantiles(self, plan: Plan, found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[float, int | float]]:
        ranks = [
            # 0.07 means seven hundredths, which no binary fraction is: 0.07 × 100 must be the 7th value.
            (c, at, max(1, math.ceil(Fraction(str(at)) * int(found[c.name]["finite"]))))
            for c in plan.columns
            if found[c.name].get("finite")
            for at in c.quantiles
        ]
        if not ranks:
            return {}
        if self.dialect in _SORTS_IN_AGGREGATES:
            values = self._percentiles(ranks, found)
        else:
            values = [self._at_rank(column, rank) for column, _, rank in ranks]
        result: dict[str, dict[float, int | float]] = {}
        for (column, at, rank), value in zip(ranks, values, strict=True):
            number = number_of(value)
            if number is None:
                continue
            if self.data.column(column.name).form == "int" and isinstance(number, float):
                # Spark gives a double, which holds whole numbers up to 2^53.
                number = (
                    number_of(self._at_rank(column, rank), whole=True)
                    if abs(number) >= EXACT_IN_DOUBLES
                    else int(number)
                )
            if number is not None:
                result.setdefault(column.name, {})[at] = number
        return result

    def _percentiles(
        self, ranks: Sequence[tuple[ColumnPlan, float, int]], found: Mapping[str, Mapping[str, Any]]
    ) -> list[Any]:
        """All quantiles in one scan. Half a rank lower, so that rounding cannot reach the next one."""
        selected = []
        for column, _, rank in ranks:
            share = (rank - 0.5) / int(found[column.name]["finite"])
            here = self.data.column(column.name)
            value = f"CASE WHEN {ms.finite(here, column)} THEN {ms.value(here, column)} END"
            selected.append(f"mlp_percentile({share!r}) WITHIN GROUP (ORDER BY {value})")
        (first,) = self._rows(f"SELECT {', '.join(selected)} FROM {self.data.name}")
        return list(first)

    def _at_rank(self, column: ColumnPlan, rank: int) -> Any:
        here = self.data.column(column.name)
        value = ms.value(here, column)
        numbered = (
            f"SELECT {value} AS v, row_number() OVER (ORDER BY {value}) AS place "
            f"FROM {self.data.name} WHERE {ms.finite(here, column)}"
        )
        ((found,),) = self._rows(f"SELECT v FROM ({numbered}) AS numbered WHERE place = {rank}")
        return found

    def membership(self, column: ColumnPlan) -> Membership:
        here = self.data.column(column.name)
        value = ms.set_value(here, column)
        present = ms.there(here, column)
        groups = f"SELECT {value} AS v, count(*) AS n FROM {self.data.name} WHERE {present} GROUP BY {value}"
        bad = ms.outside("v", column)
        ((distinct, outside, rows),) = self._rows(
            f"SELECT count(*), {ms.count_if(bad)}, sum(CASE WHEN {bad} THEN n END) FROM ({groups}) AS found"
        )
        if not outside:
            return Membership(rows=0, distinct=int(distinct), distinct_outside=0, values=())
        written = value if column.declared in ("string", "timestamp", "date") else ms.plain_text(here, "v")
        as_text = "v" if written == value else written
        shown = "v" if here.form in ("float", "decimal") else as_text
        most = self._rows(
            f"SELECT {shown}, n FROM ({groups}) AS found WHERE {bad} "
            f"ORDER BY n DESC, mlp_order({as_text}) LIMIT {EXAMPLES}"
        )
        values = tuple((str(text_of(v)), int(n)) for v, n in most)
        return Membership(rows=int(rows), distinct=int(distinct), distinct_outside=int(outside), values=values)

    def examples(self, column: ColumnPlan, fault: Fault, key: Sequence[str]) -> tuple[Example, ...]:
        if self._examples_left <= 0:
            return ()
        self._examples_left -= 1
        here = self.data.column(column.name)
        keys = [ms.shown(self.data.column(k)) for k in key]
        # Without an order of rows, that of the key: the same examples when it runs again.
        order = self.data.order or ", ".join(quoted(k) for k in key)
        found = self._rows(
            f"SELECT {', '.join([self.data.order or 'NULL', ms.shown(here), *keys])} FROM {self.data.name} "
            f"WHERE {ms.condition(here, column, fault, self.dialect)} "
            + (f"ORDER BY {order} " if order else "")
            + f"LIMIT {EXAMPLES}"
        )
        return tuple(
            Example(row=self._row_number(row), value=text_of(value), key=tuple(text_of(k) or "" for k in rest))
            for row, value, *rest in found
        )

    def counts(self, column: str, most: int) -> tuple[tuple[str, int], ...]:
        value = self._text(self.data, column)
        # A NaN is missing; a text may say nan.
        numbers = " AND v <> 'nan'" if self.data.column(column).form in ("float", "real", "decimal") else ""
        found = self._rows(
            f"SELECT v, count(*) AS n FROM (SELECT {value} AS v FROM {self.data.name}) AS texts "
            f"WHERE v IS NOT NULL{numbers} GROUP BY v ORDER BY n DESC, mlp_order(v) LIMIT {int(most)}"
        )
        return tuple((str(v), int(n)) for v, n in found)

    # ------------------------------------------------------------ rows against rows

    def repeats(self, columns: Sequence[str]) -> Repeats:
        here = [self.data.column(n) for n in columns] if columns else list(self.data.columns)
        # What has no order and no equality of its own, such as JSON, is compared as text.
        every = [
            f"mlp_text_other({quoted(c.physical.name)})" if c.form == "other" else quoted(c.physical.name) for c in here
        ]
        present = " AND ".join(f"{c} IS NOT NULL" for c in every) if columns else "TRUE"
        source = f"FROM {self.data.name} WHERE {present} GROUP BY {', '.join(every)} HAVING count(*) > 1"
        ((groups, rows),) = self._rows(f"SELECT count(*), sum(n) FROM (SELECT count(*) AS n {source}) AS found")
        if not groups:
            return Repeats(rows=0, examples=())
        first = f"min({self.data.order})" if self.data.order else "NULL"
        shown = [ms.shown(c) for c in here] if columns else []
        order = "2" if self.data.order else ", ".join(every)
        found = self._rows(
            f"SELECT count(*) AS n, {', '.join([first + ' AS first', *shown])} {source} "
            f"ORDER BY n DESC, {order} LIMIT {EXAMPLES}"
        )
        examples = tuple(
            (self._row_number(row), tuple(text_of(v) or "" for v in values), int(n)) for n, row, *values in found
        )
        return Repeats(rows=int(rows) - int(groups), examples=examples)

    def backwards(self, time: ColumnPlan) -> Found:
        if not self.data.order:
            what = "the rows of a table have no order, so no time can be before that of the row above"
            raise InputError(what, fix="drop data.checks.monotonic, or check a file")
        if not time.measurable:
            return Found(rows=0, columns=(time.name,))
        here = self.data.column(time.name)
        moment = ms.value(here, time)
        steps = (
            f"SELECT {self.data.order} AS place, {ms.shown(here)} AS shown, {moment} AS t, "
            f"lag({moment}) OVER (ORDER BY {self.data.order}) AS before "
            f"FROM {self.data.name} WHERE {moment} IS NOT NULL"
        )
        return self._found(f"FROM ({steps}) AS steps WHERE t < before", "place", ["shown"], (time.name,))

    def absent(self, columns: Sequence[str], other: str, other_columns: Sequence[str]) -> Found:
        mine = [self._text(self.data, n) for n in columns]
        theirs = [self._text(self._other(other), n) for n in other_columns]
        return self._matched(mine, other, theirs, "o.there IS NULL", columns)

    def shared(self, columns: Sequence[str], other: str) -> Found:
        if columns:
            mine = [self._text(self.data, n) for n in columns]
            theirs = [self._text(self._other(other), n) for n in columns]
            return self._matched(mine, other, theirs, "o.there IS NOT NULL", columns)
        names = [c.physical.name for c in self.data.columns]
        if set(names) != {c.physical.name for c in self._other(other).columns}:
            return Found(rows=0)
        # A null equals a null, and databases join fast only by what is equal: a text that no value has stands for it.
        mine = [f"coalesce('=' || {self._text(self.data, n)}, '')" for n in names]
        theirs = [f"coalesce('=' || {self._text(self._other(other), n)}, '')" for n in names]
        return self._matched(mine, other, theirs, "o.there IS NOT NULL", ())

    def _matched(
        self, mine: Sequence[str], other: str, theirs: Sequence[str], kept: str, columns: Sequence[str]
    ) -> Found:
        """Rows that have, or lack, a partner among the distinct rows of the other table."""
        every = [f"c{i}" for i in range(len(mine))]
        place = f"{self.data.order or 'NULL'} AS place"
        left = ", ".join([place, *(f"{sql} AS {c}" for sql, c in zip(mine, every, strict=True))])
        right = ", ".join(["1 AS there", *(f"{sql} AS {c}" for sql, c in zip(theirs, every, strict=True))])
        same = " AND ".join(f"d.{c} = o.{c}" for c in every)
        present = " AND ".join(f"d.{c} IS NOT NULL" for c in every)
        source = (
            f"FROM (SELECT {left} FROM {self.data.name}) AS d "
            f"LEFT JOIN (SELECT DISTINCT {right} FROM {self._other(other).name}) AS o ON {same} "
            f"WHERE {present} AND {kept}"
        )
        return self._found(source, "d.place", [f"d.{c}" for c in every] if columns else [], tuple(columns))

    def _found(self, source: str, place: str, shown: Sequence[str], columns: tuple[str, ...]) -> Found:
        ((rows,),) = self._rows(f"SELECT count(*) {source}")
        if not rows:
            return Found(rows=0, columns=columns)
        order = place if self.data.order else ", ".join(f"mlp_order({s})" for s in shown)
        found = self._rows(
            f"SELECT {', '.join([place, *shown])} {source} "
            + (f"ORDER BY {order} " if order else "")
            + f"LIMIT {EXAMPLES}"
        )
        examples = tuple((self._row_number(row), tuple(text_of(v) for v in values)) for row, *values in found)
        return Found(rows=int(rows), columns=columns, examples=examples)

    def crossed(self, column: ColumnPlan, target: str, groups: int) -> tuple[tuple[int, str, int], ...]:
        """See the protocol; all rows are looked at, and only as many groups as asked for come back."""
        here = self.data.column(column.name)
        label = self._text(self.data, target)
        numbers = column.measurable and column.declared in ms.ORDERED
        value = ms.value(here, column) if numbers else self._text(self.data, column.name)
        there = ms.finite(here, column) if numbers else f"{value} IS NOT NULL"
        pairs = f"SELECT {value} AS v, {label} AS y FROM {self.data.name} WHERE {there}"
        tallied = (
            f"SELECT v, y, count(*) AS n FROM ({pairs}) AS pairs WHERE v IS NOT NULL AND y IS NOT NULL GROUP BY v, y"
        )
        if numbers:
            # As many rows as have a smaller value, out of all: every value falls into one group as a whole.
            ranked = (
                f"SELECT y, n, sum(n) OVER (ORDER BY v) - sum(n) OVER (PARTITION BY v) AS below, "
                f"sum(n) OVER () AS total FROM ({tallied}) AS tallied"
            )
            placed = f"SELECT mlp_quotient(below * {int(groups)}, total) AS g, y, n FROM ({ranked}) AS ranked"
        else:
            sums = f"SELECT v, sum(n) AS rows_of FROM ({tallied}) AS tallied GROUP BY v"
            places = (
                f"SELECT v, row_number() OVER (ORDER BY rows_of DESC, mlp_order(v)) - 1 AS place FROM ({sums}) AS sums"
            )
            last = int(groups) - 1
            placed = (
                f"SELECT CASE WHEN p.place < {last} THEN p.place ELSE {last} END AS g, t.y, t.n "
                f"FROM ({tallied}) AS t JOIN ({places}) AS p ON t.v = p.v"
            )
        found = self._rows(f"SELECT g, y, sum(n) FROM ({placed}) AS placed GROUP BY g, y")
        return tuple(sorted((int(g), str(y), int(n)) for g, y, n in found))

    def query(self, sql: str) -> Found:
        from mlp_ci.data.engines import sql_query

        counted, found = sql_query.prepared(sql, {"data": self.data, **self.others}, self.dialect)
        try:
            ((rows,),) = self._run(counted, 0).rows
            answer = self._run(found, EXAMPLES)
        except OutsideError as error:
            # The place is known in what was translated only.
            raise InputError(error.what, why="the check cannot be run", fix="mend the query") from error
        examples = tuple((n, tuple(text_of(v) for v in values)) for n, values in sql_query.examples(*answer))
        columns = tuple(name for name in answer.names if name != sql_query.NUMBER)
        return Found(rows=int(rows), columns=columns, examples=examples)

    # ------------------------------------------------------------ asking

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._run(translate(sql, self.dialect), 0).rows

    def _other(self, name: str) -> Relation:
        if name not in self.others:
            what = f"{name} is not open beside {self.data.shown_as}"
            raise InputError(what, fix="check it where the data is a file")
        return self.others[name]

    def _text(self, relation: Relation, name: str) -> str:
        return ms.text(relation.column(name), relation.types.get(name))

    def _row_number(self, place: Any) -> int | None:
        """Which row it is from 1; a table that lost rows has gaps in what orders them."""
        if place is None:
            return None
        if self._gapless is None:
            order = self.data.order
            ((rows, first, last),) = self._rows(f"SELECT count(*), min({order}), max({order}) FROM {self.data.name}")
            self._gapless = (int(first), int(last) - int(first) + 1 == int(rows))
        first, gapless = self._gapless
        if gapless:
            return int(place) - first + 1
        ((before,),) = self._rows(f"SELECT count(*) FROM {self.data.name} WHERE {self.data.order} <= {int(place)}")
        return int(before)
