"""One open file and what DuckDB measures in it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mlp_ci.data.engine import ColumnFacts, Example, Facts, Fault, Found, Membership, Repeats
from mlp_ci.data.engines import duck_query, duck_rows
from mlp_ci.data.engines.duck_load import View, first_line, load
from mlp_ci.data.engines.duck_sql import (
    ROW,
    can_be_special,
    condition_for,
    finite_filter,
    is_there,
    measures_of,
    no_match,
    number_of,
    odd_fault_of,
    quoted,
    set_value_of,
    value_of,
)
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.data.plan import ColumnPlan, PhysicalColumn, Plan
    from mlp_ci.data.sources import Source

EXAMPLES = 5
# Each look for examples is a query of its own; in a file with more broken rules than this, nobody reads them all.
EXAMPLES_PER_FILE = 50
# A query with more aggregates than this takes more memory for its columns than for its rows.
MEASURES_AT_ONCE = 1_000
# Few distinct values among the first rows: look at each value once instead of at each row.
PROBE_ROWS, FEW = 10_000, 1_000
# Up to here a quantile holds all values in memory (8 bytes each); above, only those around it.
ROWS_AT_ONCE = 4_000_000
# In more rows than this, how features and target go together is looked at in a sample.
SAMPLE = 100_000


class DuckFile:
    """An open file. Implements :class:`mlp_ci.data.engine.Engine`; ``connection`` sees its rows as ``data``."""

    def __init__(self, connection: Any, data: View, others: Mapping[str, Source]) -> None:
        self.connection = connection
        self.text = data.text
        self.examples_left = EXAMPLES_PER_FILE
        self._data = data
        self._views = {"data": data}
        self._others = others
        self._rows: int | None = None
        self._sampled = ""
        self._hashes: set[str] = set()
        self._locked = False

    def schema(self) -> tuple[PhysicalColumn, ...]:
        return self._data.columns

    def _view(self, name: str) -> View:
        """One of the other sources, opened when it is first asked for."""
        if name not in self._views:
            self._views[name] = load(self.connection, self._others[name], name)
        return self._views[name]

    # ------------------------------------------------------------ one column

    def facts(self, plan: Plan) -> Facts:
        """One pass over all columns; further ones only over columns that need more than counts and extremes.

        Non-finite values are counted in the pass itself: Parquet's own statistics do not speak of them.
        """
        measures = [(c.name, what, sql) for c in plan.columns for what, sql in measures_of(c).items()]
        rows, *values = self._measured([("", "count(*)"), *((name, sql) for name, _, sql in measures)])
        self._rows = int(rows)
        found: dict[str, dict[str, Any]] = {c.name: {} for c in plan.columns}
        for (name, what, _), value in zip(measures, values, strict=True):
            found[name][what] = value if what in ("smallest", "largest", "mean") else int(value or 0)
        self._look_at_special([c for c in plan.columns if found[c.name].get("special")], found)
        wrong = [(c, fault) for c in plan.columns for fault in _out_of_bounds(c, found[c.name])]
        counts = iter(self._counts([(c.name, condition_for(c, fault)) for c, fault in wrong]))
        out: dict[str, dict[Fault, int]] = {c.name: {} for c in plan.columns}
        for column, fault in wrong:
            out[column.name][fault] = next(counts)
        for column in plan.columns:
            if column.regex is not None and column.measurable:
                out[column.name][Fault.NO_MATCH] = self._without_match(column)
        columns = {c.name: self._facts_of(c, found[c.name], out[c.name]) for c in plan.columns}
        return Facts(rows=int(rows), columns=columns)

    def _facts_of(self, column: ColumnPlan, found: Mapping[str, Any], out: Mapping[Fault, int]) -> ColumnFacts:
        odd_fault = odd_fault_of(column)
        nan = found.get("nan", 0)
        faults = {
            **out,
            Fault.INFINITE: found.get("special", 0) - nan,
            Fault.TOO_SHORT: found.get("short", 0),
            Fault.TOO_LONG: found.get("long", 0),
        }
        if odd_fault:
            faults[odd_fault] = found["odd"]
        mean = found.get("mean")
        return ColumnFacts(
            nulls=(self._rows or 0) - found["count"] + nan,
            nan=nan,
            smallest=number_of(found.get("smallest")),
            largest=number_of(found.get("largest")),
            faults={fault: int(number) for fault, number in faults.items() if number},
            mean=float(mean) if mean is not None and math.isfinite(mean) else None,
            quantiles=self._quantiles(column, found) if column.quantiles and column.measurable else {},
        )

    def _look_at_special(self, columns: list[ColumnPlan], found: dict[str, dict[str, Any]]) -> None:
        """Tell NaN from infinities, and find the extremes of the rest."""
        if not columns:
            return
        measures = []
        for column in columns:
            value = value_of(column)
            finite = finite_filter(column)
            asked = (f"count_if(isnan({value}))", f"min({value}){finite}", f"max({value}){finite}")
            measures += [(column.name, sql) for sql in asked]
        values = self._measured(measures)
        for i, column in enumerate(columns):
            nan, smallest, largest = values[i * 3 : i * 3 + 3]
            found[column.name] |= {"nan": int(nan or 0), "smallest": smallest, "largest": largest}

    def _counts(self, conditions: Sequence[tuple[str, str]]) -> list[int]:
        """How many rows fulfil each of these (column, condition)."""
        return [int(n or 0) for n in self._measured([(name, f"count_if({c})") for name, c in conditions])]

    def _measured(self, measures: Sequence[tuple[str, str]]) -> list[Any]:
        """Aggregates (column, SQL) over all rows: in one query, or in several where one would be too wide."""
        found: list[Any] = []
        for at in range(0, len(measures), MEASURES_AT_ONCE):
            now = measures[at : at + MEASURES_AT_ONCE]
            rows = self._data.part(name for name, _ in now if name)
            found += self._row(f"SELECT {', '.join(sql for _, sql in now)} FROM {rows}")
        return found

    def _without_match(self, column: ColumnPlan) -> int:
        """How many rows do not match: one look per value where few values repeat, else one per row."""
        import duckdb

        value = f"CAST({quoted(column.name)} AS VARCHAR)"
        rows = self._data.part([column.name])
        probe = f"SELECT count(DISTINCT v) FROM (SELECT {value} AS v FROM {rows} LIMIT {PROBE_ROWS})"
        few = (self._rows or 0) > PROBE_ROWS and int(self._row(probe)[0]) <= FEW
        try:
            if not few:
                return self._counts([(column.name, no_match(value, column))])[0]
            groups = f"SELECT {value} AS v, count(*) AS n FROM {rows} GROUP BY 1"
            return int(self._row(f"SELECT coalesce(sum(n), 0) FROM ({groups}) WHERE {no_match('v', column)}")[0])
        except duckdb.InvalidInputException as error:
            what = f"data.columns.{column.name}.regex {column.regex!r} is no expression of RE2: {first_line(error)}"
            fix = "RE2 has no look-around and no back-references: write it without, or as a query in data.checks.sql"
            raise InputError(what, fix=fix, file="model.yaml") from error

    def _quantiles(self, column: ColumnPlan, found: Mapping[str, Any]) -> dict[float, int | float]:
        """The values at exact ranks; in a large file without ever holding all values."""
        count = found["count"] - found.get("special", 0) - (found.get("odd", 0) if column.physical.text else 0)
        value, name = value_of(column), quoted(column.name)
        there = f"isfinite({name})" if can_be_special(column) else f"{name} IS NOT NULL"
        rows = self._data.part([column.name])
        if count <= 0:
            return {}
        found_values = {}
        for at in column.quantiles:
            # 0.07 means seven hundredths, which no binary fraction is: 0.07 × 100 must be the 7th value.
            offset = max(1, math.ceil(Fraction(str(at)) * count)) - 1
            within, skipped = there, 0
            if count > ROWS_AT_ONCE:
                within, skipped = self._around(column, there, at)
            sql = f"SELECT {value} FROM {rows} WHERE {within} ORDER BY 1 LIMIT 1 OFFSET {offset - skipped}"
            row = self.connection.execute(sql).fetchone() if offset >= skipped else None
            if row is None:  # the estimate was off: sort them all, on disk if need be
                row = self._row(f"SELECT {value} FROM {rows} WHERE {there} ORDER BY 1 LIMIT 1 OFFSET {offset}")
            number = number_of(row[0])
            if number is not None:
                found_values[at] = number
        return found_values

    def _around(self, column: ColumnPlan, there: str, at: float) -> tuple[str, int]:
        """A condition for the values near a quantile, and how many lie below it."""
        value, rows = value_of(column), self._data.part([column.name])
        ends = [max(0.0, at - 0.01), min(1.0, at + 0.01)]
        lower, upper = self._row(f"SELECT unnest([approx_quantile({value}, {ends})]) FROM {rows} WHERE {there}")[0]
        below = f"{there} AND {value} < {lower!r}"
        return f"{there} AND {value} BETWEEN {lower!r} AND {upper!r}", self._counts([(column.name, below)])[0]

    def membership(self, column: ColumnPlan) -> Membership:
        value, rows = set_value_of(column), self._data.part([column.name])
        row = self._row(
            f"WITH groups AS (SELECT {value} AS v, count(*) AS n FROM {rows} WHERE {is_there(column)} GROUP BY 1), "
            "judged AS (SELECT v, n, v NOT IN (SELECT unnest($allowed)) AS outside FROM groups) "
            "SELECT count(*), count(*) FILTER (WHERE outside), coalesce(sum(n) FILTER (WHERE outside), 0), "
            "max({'n': n, 'v': CAST(v AS VARCHAR)}, 5) FILTER (WHERE outside) FROM judged",
            {"allowed": list(column.allowed or ())},
        )
        distinct, outside, rows, values = row
        most = tuple((str(item["v"]), int(item["n"])) for item in values or ())
        return Membership(rows=int(rows), distinct=int(distinct), distinct_outside=int(outside), values=most)

    def examples(self, column: ColumnPlan, fault: Fault, key: Sequence[str]) -> tuple[Example, ...]:
        if self.examples_left <= 0:
            return ()
        self.examples_left -= 1
        shown = ", ".join([quoted(ROW), *(self._data.as_written(name) for name in (column.name, *key))])
        rows = self._data.part([column.name, *key], number=True)
        parameters = {"allowed": list(column.allowed or ())} if fault is Fault.OUTSIDE_SET else None
        found = self.connection.execute(
            f"SELECT {shown} FROM {rows} WHERE {condition_for(column, fault)} LIMIT {EXAMPLES}",
            parameters,
        ).fetchall()
        return tuple(
            Example(row=int(row), value=value, key=tuple("" if k is None else str(k) for k in rest))
            for row, value, *rest in found
        )

    def counts(self, column: str, most: int) -> tuple[tuple[str, int], ...]:
        value = self._data.as_text(column)
        # A NaN is missing; a text may say nan.
        kinds = {c.name: c.kind for c in self._data.columns}
        numbers = " AND v <> 'nan'" if kinds[column] == "float" else ""
        found = self.connection.execute(
            f"SELECT {value} AS v, count(*) AS n FROM {self._data.part([column])} WHERE v IS NOT NULL{numbers} "
            f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {int(most)}"
        ).fetchall()
        return tuple((str(v), int(n)) for v, n in found)

    # ------------------------------------------------------------ rows against rows

    def repeats(self, columns: Sequence[str]) -> Repeats:
        """Group by a hash of the columns first: where no hash repeats, no row does, and 8 bytes a row are enough."""
        if not columns and len(self.schema()) > duck_rows.WIDE:
            return self._repeats_of_wide_rows()
        again, examples = duck_rows.repeats(self._data, columns, EXAMPLES)
        if int(self._row(f"SELECT count(*) FROM ({again})")[0]) == 0:
            return Repeats(rows=0, examples=())
        found = self.connection.execute(examples).fetchall()
        shown = tuple(
            (int(first), tuple("" if v is None else str(v) for v in values) if columns else (), int(n))
            for first, values, n, _ in found
        )
        return Repeats(rows=int(found[0][3]) if found else 0, examples=shown)

    def _repeats_of_wide_rows(self) -> Repeats:
        groups = (
            f"SELECT min(row) AS first, count(*) AS n FROM {self._hashed(self._data)} GROUP BY h HAVING count(*) > 1"
        )
        found = self.connection.execute(
            f"SELECT first, n, sum(n - 1) OVER () FROM ({groups}) ORDER BY n DESC, first LIMIT {EXAMPLES}"
        ).fetchall()
        examples = tuple((int(first), (), int(n)) for first, n, _ in found)
        return Repeats(rows=int(found[0][2]) if found else 0, examples=examples)

    def _hashed(self, view: View) -> str:
        """(row, h) of every row, over all columns, some at a time; what follows FROM."""
        names = sorted(c.name for c in view.columns)
        if view.name not in self._hashes:
            for statement in duck_rows.hashes(view, names):
                self.connection.execute(statement)
            self._hashes.add(view.name)
        return duck_rows.hashed(view)

    def backwards(self, time: ColumnPlan) -> Found:
        if not time.measurable:
            return Found(rows=0, columns=(time.name,))
        return self._found(duck_rows.backwards(self._data, time), (time.name,))

    def absent(self, columns: Sequence[str], other: str, other_columns: Sequence[str]) -> Found:
        return self._found(duck_rows.matched("ANTI", self._data, columns, self._view(other), other_columns), columns)

    def shared(self, columns: Sequence[str], other: str) -> Found:
        theirs = self._view(other)
        if columns:
            return self._found(duck_rows.matched("SEMI", self._data, columns, theirs, columns), columns)
        if {c.name for c in self.schema()} != {c.name for c in theirs.columns}:
            return Found(rows=0)
        if len(self.schema()) > duck_rows.WIDE:
            there = f"SELECT h FROM {self._hashed(theirs)}"
            sql = f"SELECT row, CAST([] AS VARCHAR[]) AS shown FROM {self._hashed(self._data)} WHERE h IN ({there})"
            return self._found(sql, ())
        candidates, same = duck_rows.whole_rows(self._data, theirs)
        if int(self._row(f"SELECT count(*) FROM ({candidates})")[0]) == 0:
            return Found(rows=0)
        return self._found(same, ())

    def _found(self, sql: str, columns: Sequence[str]) -> Found:
        """What a query of (row, shown) finds: how many, and the first ones."""
        rows, first = self._row(f"SELECT count(*), min({{'row': row, 'shown': shown}}, {EXAMPLES}) FROM ({sql})")
        examples = tuple(
            (int(item["row"]), tuple(None if v is None else str(v) for v in item["shown"])) for item in first or ()
        )
        return Found(rows=int(rows), columns=tuple(columns), examples=examples)

    def crossed(self, column: ColumnPlan, target: str, groups: int) -> tuple[tuple[int, str, int], ...]:
        sql = duck_rows.crossed(self._data, self._sample(), column, target, int(groups))
        return tuple((int(g), str(y), int(n)) for g, y, n in self.connection.execute(sql).fetchall())

    def _sample(self) -> str:
        """The view with the rows by which features are judged."""
        if self._rows is None:
            self._rows = int(self._row("SELECT count(*) FROM data")[0])
        if self._rows <= 2 * SAMPLE:
            return "data"
        if not self._sampled:
            self._sampled = quoted("mlp-ci sample")
            self.connection.execute(
                f"CREATE TEMP TABLE {self._sampled} AS "
                f"SELECT * FROM data USING SAMPLE reservoir({SAMPLE} ROWS) REPEATABLE (17)"
            )
        return self._sampled

    def query(self, sql: str) -> Found:
        for name in duck_query.named(sql, self._others):
            self._view(name)
        if not self._locked:
            sources = [self._data.source, *self._others.values()]
            duck_query.lock(self.connection, [file for source in sources for file in source.files])
            self._locked = True
        return duck_query.run(self.connection, sql, self._views, EXAMPLES)

    def _row(self, sql: str, parameters: Any = None) -> tuple[Any, ...]:
        row = self.connection.execute(sql, parameters).fetchone()
        return tuple(row)


def _out_of_bounds(column: ColumnPlan, found: Mapping[str, Any]) -> list[Fault]:
    faults = []
    smallest, largest = found.get("smallest"), found.get("largest")
    if column.lower is not None and smallest is not None and smallest < column.lower:
        faults.append(Fault.BELOW)
    if column.upper is not None and largest is not None and largest > column.upper:
        faults.append(Fault.ABOVE)
    return faults
