"""DuckDB, embedded: opens data files and measures them in constant memory."""

from __future__ import annotations

import contextlib
import math
import tempfile
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mlp_ci.data import duck_query
from mlp_ci.data.duck_load import first_line, load, unreadable
from mlp_ci.data.duck_sql import (
    ROW,
    can_be_special,
    condition_for,
    finite_filter,
    kind_of,
    literal,
    measures_of,
    no_match,
    number_of,
    odd_fault_of,
    quoted,
    raw_name,
    set_value_of,
    text_of,
    value_of,
)
from mlp_ci.data.engine import ColumnFacts, Example, Facts, Fault, Found, Membership, Repeats
from mlp_ci.data.plan import ColumnPlan, PhysicalColumn, Plan
from mlp_ci.data.sources import Source
from mlp_ci.errors import InputError, OutsideError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

MEMORY_LIMIT = "300MB"
EXAMPLES = 5
# Each look for examples is a query of its own; in a file with more broken rules than this, nobody reads them all.
EXAMPLES_PER_FILE = 50
# Few distinct values among the first rows: look at each value once instead of at each row.
PROBE_ROWS, FEW = 10_000, 1_000
# Up to here a quantile holds all values in memory (8 bytes each); above, only those around it.
ROWS_AT_ONCE = 4_000_000
# In more rows than this, how features and target go together is looked at in a sample.
SAMPLE = 100_000


@contextlib.contextmanager
def connect(memory_limit: str = MEMORY_LIMIT) -> Iterator[Any]:
    """A DuckDB in memory that spills into a folder which is gone afterwards. Raises OutsideError when it is full."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as scratch:
        connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "temp_directory": scratch})
        try:
            connection.execute(f"SET memory_limit = {literal(memory_limit)}")
            connection.execute("SET TimeZone = 'UTC'")
            # DuckDB draws its progress bar on stdout, where `--format json` allows nothing but data.
            connection.execute("SET enable_progress_bar = false")
            yield connection
        except duckdb.OutOfMemoryException as error:
            what = f"the data does not fit: {first_line(error)}"
            raise OutsideError(what, fix=f"free space in {tempfile.gettempdir()}, or set TMPDIR") from error
        finally:
            connection.close()


@contextlib.contextmanager
def open_file(
    file: Path | str | Source,
    shown_as: str,
    types: Mapping[str, str],
    memory_limit: str = MEMORY_LIMIT,
    others: Mapping[str, Source] | None = None,
) -> Iterator[DuckFile]:
    """Open a data file, a folder, a glob or an address. ``types`` says what the columns are declared as.

    ``others`` are opened beside it, for checks between files, each under its name (anything but ``data``). Raises
    InputError when something cannot be read, with the line where the format has lines.
    """
    import duckdb

    source = file.typed(types) if isinstance(file, Source) else Source.parse(file, shown_as=shown_as, types=types)
    reading = source
    with connect(memory_limit) as connection:
        try:
            opened = {"data": _View(load(connection, source, "data"), types)}
            for name, other in (others or {}).items():
                reading = other
                opened[name] = _View(load(connection, other, name), other.types)
            reading = source
            files = [f for s in (source, *(others or {}).values()) for f in s.files]
            yield DuckFile(connection, opened, files)
        except duckdb.OutOfMemoryException:
            raise
        except (duckdb.Error, UnicodeError) as error:
            raise unreadable(error, reading) from error


class _View:
    """An open source: whether its values are text, and what its columns are declared as."""

    def __init__(self, text: bool, types: Mapping[str, str]) -> None:
        self.text = text
        self.types = types
        self.columns: tuple[PhysicalColumn, ...] | None = None


class DuckFile:
    """An open file. Implements :class:`mlp_ci.data.engine.Engine`; ``connection`` sees its rows as ``data``."""

    def __init__(self, connection: Any, views: Mapping[str, _View], files: Sequence[str]) -> None:
        self.connection = connection
        self.text = views["data"].text
        self.examples_left = EXAMPLES_PER_FILE
        self._views = views
        self._files = files
        self._rows: int | None = None
        self._sampled = ""
        self._locked = False

    def schema(self) -> tuple[PhysicalColumn, ...]:
        return self._schema("data")

    def _schema(self, view: str) -> tuple[PhysicalColumn, ...]:
        known = self._views[view]
        if known.columns is None:
            described = self.connection.execute(f"DESCRIBE SELECT * FROM {quoted(view)}").fetchall()
            columns = [(str(name), str(kind)) for name, kind, *_ in described]
            raw = {raw_name(name) for name, _ in columns} if known.text else set()
            known.columns = tuple(
                PhysicalColumn(name=name, kind=kind_of(shown), shown="text", text=True)
                if known.text
                else PhysicalColumn(name=name, kind=kind_of(shown), shown=shown, nan=shown in ("FLOAT", "DOUBLE"))
                for name, shown in columns
                if name != ROW and name not in raw
            )
        return known.columns

    # ------------------------------------------------------------ one column

    def facts(self, plan: Plan) -> Facts:
        """One pass over all columns; further ones only over columns that need more than counts and extremes.

        Non-finite values are counted in the pass itself: Parquet's own statistics do not speak of them.
        """
        measures = [(c.name, what, sql) for c in plan.columns for what, sql in measures_of(c).items()]
        rows, *values = self._row(f"SELECT {', '.join(['count(*)', *(sql for _, _, sql in measures)])} FROM data")
        self._rows = int(rows)
        found: dict[str, dict[str, Any]] = {c.name: {} for c in plan.columns}
        for (name, what, _), value in zip(measures, values, strict=True):
            found[name][what] = value
        self._look_at_special([c for c in plan.columns if found[c.name].get("special")], found)
        wrong = [(c, fault) for c in plan.columns for fault in _out_of_bounds(c, found[c.name])]
        counts = iter(self._counts([condition_for(column, fault) for column, fault in wrong]))
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
        nan = int(found.get("nan") or 0)
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
            measures += [f"count(*) FILTER (WHERE isnan({value}))", f"min({value}){finite}", f"max({value}){finite}"]
        values = self._row(f"SELECT {', '.join(measures)} FROM data")
        for i, column in enumerate(columns):
            nan, smallest, largest = values[i * 3 : i * 3 + 3]
            found[column.name] |= {"nan": nan, "smallest": smallest, "largest": largest}

    def _counts(self, conditions: list[str]) -> list[int]:
        if not conditions:
            return []
        measures = ", ".join(f"count(*) FILTER (WHERE {c})" for c in conditions)
        return [int(n) for n in self._row(f"SELECT {measures} FROM data")]

    def _without_match(self, column: ColumnPlan) -> int:
        """How many rows do not match: one look per value where few values repeat, else one per row."""
        import duckdb

        value = f"CAST({quoted(column.name)} AS VARCHAR)"
        probe = f"SELECT count(DISTINCT v) FROM (SELECT {value} AS v FROM data LIMIT {PROBE_ROWS})"
        few = (self._rows or 0) > PROBE_ROWS and int(self._row(probe)[0]) <= FEW
        try:
            if not few:
                return self._counts([no_match(value, column)])[0]
            groups = f"SELECT {value} AS v, count(*) AS n FROM data GROUP BY v"
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
        if count <= 0:
            return {}
        found_values = {}
        for at in column.quantiles:
            # 0.07 means seven hundredths, which no binary fraction is: 0.07 × 100 must be the 7th value.
            offset = max(1, math.ceil(Fraction(str(at)) * count)) - 1
            within, skipped = there, 0
            if count > ROWS_AT_ONCE:
                within, skipped = self._around(value, there, at)
            sql = f"SELECT {value} FROM data WHERE {within} ORDER BY 1 LIMIT 1 OFFSET {offset - skipped}"
            row = self.connection.execute(sql).fetchone() if offset >= skipped else None
            if row is None:  # the estimate was off: sort them all, on disk if need be
                row = self._row(f"SELECT {value} FROM data WHERE {there} ORDER BY 1 LIMIT 1 OFFSET {offset}")
            number = number_of(row[0])
            if number is not None:
                found_values[at] = number
        return found_values

    def _around(self, value: str, there: str, at: float) -> tuple[str, int]:
        """A condition for the values near a quantile, and how many lie below it."""
        ends = [max(0.0, at - 0.01), min(1.0, at + 0.01)]
        lower, upper = self._row(f"SELECT unnest([approx_quantile({value}, {ends})]) FROM data WHERE {there}")[0]
        below = f"{there} AND {value} < {lower!r}"
        return f"{there} AND {value} BETWEEN {lower!r} AND {upper!r}", self._counts([below])[0]

    def membership(self, column: ColumnPlan) -> Membership:
        value = set_value_of(column)
        row = self._row(
            f"WITH groups AS (SELECT {value} AS v, count(*) AS n FROM data WHERE {value} IS NOT NULL GROUP BY v), "
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
        keys = [f"CAST({quoted(raw_name(k)) if self.text else quoted(k)} AS VARCHAR)" for k in key]
        shown = quoted(raw_name(column.name)) if self.text else quoted(column.name)
        parameters = {"allowed": list(column.allowed or ())} if fault is Fault.OUTSIDE_SET else None
        found = self.connection.execute(
            f"SELECT {', '.join([quoted(ROW), f'CAST({shown} AS VARCHAR)', *keys])} FROM data "
            f"WHERE {condition_for(column, fault)} LIMIT {EXAMPLES}",
            parameters,
        ).fetchall()
        return tuple(
            Example(row=int(row), value=value, key=tuple("" if k is None else str(k) for k in rest))
            for row, value, *rest in found
        )

    def counts(self, column: str, most: int) -> tuple[tuple[str, int], ...]:
        value = self._text("data", column)
        found = self.connection.execute(
            f"SELECT {value} AS v, count(*) AS n FROM data WHERE {value} IS NOT NULL "
            f"GROUP BY v ORDER BY n DESC, v LIMIT {int(most)}"
        ).fetchall()
        return tuple((str(v), int(n)) for v, n in found)

    # ------------------------------------------------------------ rows against rows

    def repeats(self, columns: Sequence[str]) -> Repeats:
        """Group by a hash of the columns first: where no hash repeats, no row does, and 8 bytes a row are enough."""
        names = [c.name for c in self.schema()] if not columns else list(columns)
        every = [quoted(raw_name(n)) if self.text else quoted(n) for n in names]
        present = " AND ".join(f"{c} IS NOT NULL" for c in every) if columns else "true"
        hashed = f"hash({', '.join(every)})"
        again = f"SELECT {hashed} AS h FROM data WHERE {present} GROUP BY h HAVING count(*) > 1"
        if int(self._row(f"SELECT count(*) FROM ({again})")[0]) == 0:
            return Repeats(rows=0, examples=())
        shown = ", ".join(f"CAST({c} AS VARCHAR)" for c in every)
        found = self.connection.execute(
            f"WITH candidates AS MATERIALIZED "
            f"(SELECT *, {hashed} AS h FROM data WHERE {present} AND {hashed} IN ({again})), "
            f"groups AS (SELECT min({quoted(ROW)}) AS first, count(*) AS n, ANY_VALUE([{shown}]) AS shown "
            f"FROM candidates GROUP BY h, {', '.join(every)} HAVING count(*) > 1) "
            f"SELECT first, shown, n, sum(n - 1) OVER () FROM groups ORDER BY n DESC, first LIMIT {EXAMPLES}"
        ).fetchall()
        examples = tuple(
            (int(first), tuple("" if v is None else str(v) for v in values) if columns else (), int(n))
            for first, values, n, _ in found
        )
        return Repeats(rows=int(found[0][3]) if found else 0, examples=examples)

    def backwards(self, time: ColumnPlan) -> Found:
        if not time.measurable:
            return Found(rows=0, columns=(time.name,))
        value = value_of(time)
        shown = quoted(raw_name(time.name)) if self.text else quoted(time.name)
        steps = (
            f"SELECT {quoted(ROW)} AS row, CAST({shown} AS VARCHAR) AS shown, {value} AS t, "
            f"lag({value}) OVER () AS before FROM data WHERE {value} IS NOT NULL"
        )
        return self._found(f"SELECT row, [shown] AS shown FROM ({steps}) WHERE t < before", (time.name,))

    def absent(self, columns: Sequence[str], other: str, other_columns: Sequence[str]) -> Found:
        return self._matched("ANTI", columns, other, other_columns)

    def shared(self, columns: Sequence[str], other: str) -> Found:
        if columns:
            return self._matched("SEMI", columns, other, columns)
        names = [c.name for c in self.schema()]
        if set(names) != {c.name for c in self._schema(other)}:
            return Found(rows=0)
        mine = [self._text("data", n) for n in names]
        theirs = [self._text(other, n) for n in names]
        # 8 bytes a row decide for nearly all rows; only those whose hash is on both sides are compared in full.
        there = f"SELECT hash({', '.join(theirs)}) FROM {quoted(other)}"
        candidates = f"SELECT * FROM data WHERE hash({', '.join(mine)}) IN ({there})"
        if int(self._row(f"SELECT count(*) FROM ({candidates})")[0]) == 0:
            return Found(rows=0)
        here = f"SELECT hash({', '.join(mine)}) FROM data"
        left = ", ".join(f"{sql} AS c{i}" for i, sql in enumerate(mine))
        right = ", ".join(f"{sql} AS c{i}" for i, sql in enumerate(theirs))
        same = " AND ".join(f"d.c{i} IS NOT DISTINCT FROM o.c{i}" for i in range(len(names)))
        return self._found(
            f"SELECT row, [] AS shown FROM (SELECT {quoted(ROW)} AS row, {left} FROM ({candidates})) d SEMI JOIN "
            f"(SELECT {right} FROM {quoted(other)} WHERE hash({', '.join(theirs)}) IN ({here})) o ON {same}",
            (),
        )

    def _matched(self, kind: str, columns: Sequence[str], other: str, other_columns: Sequence[str]) -> Found:
        mine = ", ".join(f"{self._text('data', n)} AS c{i}" for i, n in enumerate(columns))
        theirs = ", ".join(f"{self._text(other, n)} AS c{i}" for i, n in enumerate(other_columns))
        every = [f"c{i}" for i in range(len(columns))]
        present = " AND ".join(f"{c} IS NOT NULL" for c in every)
        same = " AND ".join(f"d.{c} = o.{c}" for c in every)
        return self._found(
            f"SELECT row, [{', '.join(every)}] AS shown FROM (SELECT {quoted(ROW)} AS row, {mine} FROM data) d "
            f"{kind} JOIN (SELECT {theirs} FROM {quoted(other)}) o ON {same} WHERE {present}",
            tuple(columns),
        )

    def _found(self, sql: str, columns: tuple[str, ...]) -> Found:
        """What a query of (row, shown) finds: how many, and the first ones."""
        rows, first = self._row(f"SELECT count(*), min({{'row': row, 'shown': shown}}, {EXAMPLES}) FROM ({sql})")
        examples = tuple(
            (int(item["row"]), tuple(None if v is None else str(v) for v in item["shown"])) for item in first or ()
        )
        return Found(rows=int(rows), columns=columns, examples=examples)

    def crossed(self, column: ColumnPlan, target: str, groups: int) -> tuple[tuple[int, str, int], ...]:
        """See the protocol; a sample of SAMPLE rows stands for a file with more."""
        view = self._sample()
        label = self._text("data", target)
        value = value_of(column) if column.declared in ("float", "int", "timestamp", "date") else ""
        finite = f" AND isfinite({quoted(column.name)})" if can_be_special(column) else ""
        if value and column.measurable:
            there = f"{value} IS NOT NULL{finite} AND {label} IS NOT NULL"
            pairs = f"SELECT {value} AS v, {label} AS y FROM {view} WHERE {there}"
            ranked = f"SELECT y, (rank() OVER (ORDER BY v) - 1) * {int(groups)} // count(*) OVER () AS g FROM ({pairs})"
        else:
            value = self._text("data", column.name)
            pairs = f"SELECT {value} AS v, {label} AS y FROM {view} WHERE {value} IS NOT NULL AND {label} IS NOT NULL"
            places = f"SELECT v, row_number() OVER (ORDER BY count(*) DESC, v) - 1 AS place FROM ({pairs}) GROUP BY v"
            ranked = f"SELECT y, least(place, {int(groups) - 1}) AS g FROM ({pairs}) JOIN ({places}) USING (v)"
        found = self.connection.execute(f"SELECT g, y, count(*) FROM ({ranked}) GROUP BY g, y ORDER BY g, y").fetchall()
        return tuple((int(g), str(y), int(n)) for g, y, n in found)

    def _sample(self) -> str:
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
        if not self._locked:
            duck_query.lock(self.connection, self._files)
            self._locked = True
        columns = {name: [c.name for c in self._schema(name)] for name in self._views}
        return duck_query.run(self.connection, sql, columns, EXAMPLES)

    def _text(self, view: str, name: str) -> str:
        """A column as text; what cannot be read as declared stays as it is written."""
        column = next(c for c in self._schema(view) if c.name == name)
        return text_of(column, self._views[view].types.get(name))

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
