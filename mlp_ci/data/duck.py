"""DuckDB, embedded: opens a Parquet, CSV or JSON-lines file and measures it in constant memory.

CSV has no types, so its columns are read as text and each value is then read as what ``model.yaml`` declares: a
value that cannot be read is counted and shown instead of ending the run.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.data.duck_sql import (
    ROW,
    condition_for,
    kind_of,
    literal,
    measures_of,
    number_of,
    odd_fault_of,
    quoted,
    raw_name,
    set_value_of,
    value_of,
)
from mlp_ci.data.engine import ColumnFacts, Example, Facts, Fault, Membership, Repeats
from mlp_ci.data.plan import ColumnPlan, PhysicalColumn, Plan
from mlp_ci.errors import InputError, MlpError, OutsideError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MEMORY_LIMIT = "300MB"
EXAMPLES = 5
# Each look for examples is a query of its own; in a file with more broken rules than this, nobody reads them all.
EXAMPLES_PER_FILE = 50
FORMATS = ".parquet, .csv, .csv.gz, .jsonl or .ndjson"

# What pandas reads as missing in a CSV, so that validation sees the nulls that training sees.
NULL_TEXTS = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"),
    *("NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)

_TEXT_AS = {
    "float": "TRY_CAST({} AS DOUBLE)",
    "int": "TRY_CAST(TRY_CAST({} AS DECIMAL(38, 6)) AS HUGEINT)",
    "bool": "TRY_CAST({} AS BOOLEAN)",
    "timestamp": "TRY_CAST({} AS TIMESTAMPTZ)",
    "date": "TRY_CAST({} AS DATE)",
    "string": "{}",
}


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
            what = f"the data does not fit: {_first_line(error)}"
            raise OutsideError(what, fix=f"free space in {tempfile.gettempdir()}, or set TMPDIR") from error
        finally:
            connection.close()


@contextlib.contextmanager
def open_file(
    file: Path, shown_as: str, types: Mapping[str, str], memory_limit: str = MEMORY_LIMIT
) -> Iterator[DuckFile]:
    """Open one data file. ``types`` says as what the values of a CSV are to be read (column → declared type).

    Raises InputError when the file cannot be read, with the line where the format has lines.
    """
    import duckdb

    with connect(memory_limit) as connection:
        try:
            text = _load(connection, file, shown_as, types)
            yield DuckFile(connection, text)
        except duckdb.OutOfMemoryException:
            raise
        except (duckdb.Error, UnicodeError) as error:
            raise _unreadable(error, file, shown_as) from error


def _load(connection: Any, file: Path, shown_as: str, types: Mapping[str, str]) -> bool:
    """Make the file's rows available as ``data``; whether its values are text."""
    suffix = _suffix(file)
    place = literal(str(file))
    if suffix == ".parquet":
        source = f"read_parquet({place}, file_row_number = true, hive_partitioning = false)"
        connection.execute(
            f"CREATE TEMP VIEW data AS SELECT * EXCLUDE (file_row_number), file_row_number + 1 AS {quoted(ROW)} "
            f"FROM {source}"
        )
        return False
    if suffix in (".jsonl", ".ndjson"):
        connection.execute(
            "CREATE TEMP TABLE loaded AS SELECT * "
            f"FROM read_ndjson({place}, sample_size = -1, map_inference_threshold = -1)"
        )
        connection.execute(f"CREATE TEMP VIEW data AS SELECT *, rowid + 1 AS {quoted(ROW)} FROM loaded")
        return False
    if suffix == ".csv":
        names, delimiter = _header(file, shown_as)
        columns = ", ".join(f"{literal(n)}: 'VARCHAR'" for n in names)
        nulls = ", ".join(literal(t) for t in NULL_TEXTS)
        connection.execute(
            f"CREATE TEMP TABLE loaded AS SELECT * FROM read_csv({place}, auto_detect = false, header = true, "
            f"delim = {literal(delimiter)}, quote = '\"', escape = '\"', columns = {{{columns}}}, nullstr = [{nulls}])"
        )
        read = ", ".join(f"{_TEXT_AS[types.get(n, 'string')].format(quoted(n))} AS {quoted(n)}" for n in names)
        raw = ", ".join(f"{quoted(n)} AS {quoted(raw_name(n))}" for n in names)
        connection.execute(f"CREATE TEMP VIEW data AS SELECT {read}, {raw}, rowid + 1 AS {quoted(ROW)} FROM loaded")
        return True
    msg = f"{shown_as} is in a format that mlp-ci does not read"
    raise InputError(msg, fix=f"write it as {FORMATS}")


def _suffix(file: Path) -> str:
    name = file.name.lower()
    return Path(name.removesuffix(".gz")).suffix if name.endswith((".csv.gz", ".jsonl.gz")) else Path(name).suffix


def _header(file: Path, shown_as: str) -> tuple[list[str], str]:
    """Column names and delimiter of a CSV."""
    opener = gzip.open if file.name.lower().endswith(".gz") else open
    try:
        with opener(file, "rt", encoding="utf-8-sig", newline="") as stream:
            start = stream.readline(1_000_000)
            delimiter = "," if "," in start else max(";\t|", key=start.count)
            rest = stream.read(100_000) if start.count('"') % 2 else ""
            names = next(csv.reader(io.StringIO(str(start) + str(rest)), delimiter=delimiter), [])
    except UnicodeDecodeError as error:
        raise _not_utf8(shown_as) from error
    except (OSError, EOFError, csv.Error) as error:
        msg = f"{shown_as} cannot be read: {error}"
        raise InputError(msg, fix="write the file again", file=shown_as, line=1) from error
    names = [n.strip() or f"column{i}" for i, n in enumerate(names)]
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            what = (
                f"the header names the column {name!r} twice"
                if seen[name.lower()] == name
                else (f"the header has the columns {seen[name.lower()]!r} and {name!r}, which differ only in case")
            )
            raise InputError(what, fix="give every column a name of its own", file=shown_as, line=1)
        seen[name.lower()] = name
    return names, delimiter


def _not_utf8(shown_as: str) -> InputError:
    msg = f"{shown_as} is not in UTF-8"
    fix = "write it with encoding='utf-8' (in pandas: df.to_csv(path, index=False)), then `dvc add` and `dvc push`"
    return InputError(msg, why="names and categories would be read wrongly", fix=fix)


def _unreadable(error: Exception, file: Path, shown_as: str) -> MlpError:
    text = str(error)
    if "not utf-8" in text.lower() or "invalid unicode" in text.lower() or isinstance(error, UnicodeError):
        return _not_utf8(shown_as)
    line = re.search(r"CSV Error on Line: (\d+)", text) or re.search(r"in line (\d+)", text)
    number = int(line[1]) if line else 0
    reason = _first_line(error)
    if "CSV Error" in text:
        rows = [r for r in text.splitlines() if r and not r.startswith(("Original Line", "Invalid Input", "Possible"))]
        reason = rows[0] if rows else reason
    reason = reason.replace(str(file), shown_as)
    fix = f"mend or write {shown_as} again, then `dvc add {shown_as} && dvc push` and commit"
    return InputError(f"{shown_as} cannot be read: {reason}", fix=fix, file=shown_as if number else "", line=number)


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    return re.sub(r"^[A-Z][A-Za-z /-]* Error: ", "", first)


# ---------------------------------------------------------------- measuring


@dataclass(frozen=True)
class _Found:
    """What the first pass says about a column, in the order of :func:`_measures`."""

    count: int
    smallest: Any
    largest: Any
    odd: int
    special: int
    nan: int = 0


def _facts(column: ColumnPlan, rows: int, found: _Found, out: dict[Fault, int]) -> ColumnFacts:
    odd_fault = odd_fault_of(column)
    faults = {**out, Fault.INFINITE: found.special - found.nan}
    if odd_fault:
        faults[odd_fault] = found.odd
    return ColumnFacts(
        nulls=rows - found.count + found.nan,
        nan=found.nan,
        smallest=number_of(found.smallest),
        largest=number_of(found.largest),
        faults={fault: int(number) for fault, number in faults.items() if number},
    )


def _out_of_bounds(column: ColumnPlan, found: _Found) -> list[Fault]:
    faults = []
    if column.lower is not None and found.smallest is not None and found.smallest < column.lower:
        faults.append(Fault.BELOW)
    if column.upper is not None and found.largest is not None and found.largest > column.upper:
        faults.append(Fault.ABOVE)
    return faults


class DuckFile:
    """An open file. Implements :class:`mlp_ci.data.engine.Engine`."""

    def __init__(self, connection: Any, text: bool) -> None:
        self.connection = connection
        self.text = text
        self.examples_left = EXAMPLES_PER_FILE

    def schema(self) -> tuple[PhysicalColumn, ...]:
        described = self.connection.execute("DESCRIBE SELECT * FROM data").fetchall()
        columns = [(str(name), str(kind)) for name, kind, *_ in described]
        raw = {raw_name(name) for name, _ in columns} if self.text else set()
        return tuple(
            PhysicalColumn(name=name, kind=kind_of(shown), shown="text", text=True)
            if self.text
            else PhysicalColumn(name=name, kind=kind_of(shown), shown=shown, nan=shown in ("FLOAT", "DOUBLE"))
            for name, shown in columns
            if name != ROW and name not in raw
        )

    def facts(self, plan: Plan) -> Facts:
        """One pass over all columns; a second one only over columns that hold NaN, infinities or values out of bounds.

        Non-finite values are counted in the pass itself: Parquet's own statistics do not speak of them.
        """
        measures = [m for column in plan.columns for m in measures_of(column)]
        rows, *values = self._row(f"SELECT {', '.join(['count(*)', *measures])} FROM data")
        found = {c.name: _Found(*values[i * 5 : i * 5 + 5]) for i, c in enumerate(plan.columns)}
        self._look_at_special([c for c in plan.columns if found[c.name].special], found)
        wrong = [(c, fault) for c in plan.columns for fault in _out_of_bounds(c, found[c.name])]
        counts = iter(self._counts([condition_for(column, fault) for column, fault in wrong]))
        out: dict[str, dict[Fault, int]] = {c.name: {} for c in plan.columns}
        for column, fault in wrong:
            out[column.name][fault] = next(counts)
        columns = {c.name: _facts(c, int(rows), found[c.name], out[c.name]) for c in plan.columns}
        return Facts(rows=int(rows), columns=columns)

    def _look_at_special(self, columns: list[ColumnPlan], found: dict[str, _Found]) -> None:
        """Tell NaN from infinities, and find the extremes of the rest."""
        if not columns:
            return
        measures = []
        for column in columns:
            value = value_of(column)
            finite = f"FILTER (WHERE isfinite({value}))"
            measures += [f"count(*) FILTER (WHERE isnan({value}))", f"min({value}) {finite}", f"max({value}) {finite}"]
        values = self._row(f"SELECT {', '.join(measures)} FROM data")
        for i, column in enumerate(columns):
            nan, smallest, largest = values[i * 3 : i * 3 + 3]
            found[column.name] = replace(found[column.name], nan=nan, smallest=smallest, largest=largest)

    def _counts(self, conditions: list[str]) -> list[int]:
        if not conditions:
            return []
        measures = ", ".join(f"count(*) FILTER (WHERE {c})" for c in conditions)
        return [int(n) for n in self._row(f"SELECT {measures} FROM data")]

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

    def _row(self, sql: str, parameters: Any = None) -> tuple[Any, ...]:
        row = self.connection.execute(sql, parameters).fetchone()
        return tuple(row)
