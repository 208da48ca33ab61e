"""Makes the rows of a source available in DuckDB as a view, with the number of each row from 1.

CSV has no types, so its columns are read as text and each value is then read as what ``model.yaml`` declares: a
value that cannot be read is counted and shown instead of ending the run.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import itertools
import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.data.engines.duck_sql import ROW, kind_of, literal, quoted, raw_name, text_of
from mlp_ci.data.plan import PhysicalColumn
from mlp_ci.errors import InputError, MlpError, OutsideError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mlp_ci.data.sources import Source

# What pandas reads as missing in a CSV, so that validation sees the nulls that training sees.
NULL_TEXTS = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"),
    *("NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)

# Text files up to this size are held in memory.
IN_MEMORY = 30_000_000

_TEXT_AS = {
    "float": "TRY_CAST({} AS DOUBLE)",
    "int": "TRY_CAST(TRY_CAST({} AS DECIMAL(38, 6)) AS HUGEINT)",
    "bool": "TRY_CAST({} AS BOOLEAN)",
    "timestamp": "TRY_CAST({} AS TIMESTAMPTZ)",
    "date": "TRY_CAST({} AS DATE)",
    "string": "{}",
}


@dataclass(frozen=True)
class View:
    """An open source. ``text``: its values are text, each read as what the column is declared as.

    ``rows`` is what follows FROM, and ``number`` the number of a row there.
    """

    name: str
    source: Source
    text: bool
    columns: tuple[PhysicalColumn, ...]
    rows: str
    number: str

    def part(self, names: Iterable[str], *, number: bool = False) -> str:
        """What follows FROM to read only these columns, and the row's number as ROW.

        DuckDB looks at every column of a view before it drops those that a query does not name: with ten thousand of
        them that takes half a second for each query.
        """
        chosen = [sql for name in dict.fromkeys(names) for sql in self._reading(name)]
        chosen += [f"{self.number} AS {quoted(ROW)}"] if number or not chosen else []
        return f"(SELECT {', '.join(chosen)} FROM {self.rows})"

    def _reading(self, name: str) -> list[str]:
        if not self.text:
            return [quoted(name)]
        value = _TEXT_AS[self.source.types.get(name, "string")].format(quoted(name))
        return [f"{value} AS {quoted(name)}", f"{quoted(name)} AS {quoted(raw_name(name))}"]

    @cached_property
    def _by_name(self) -> dict[str, PhysicalColumn]:
        return {c.name: c for c in self.columns}

    def as_text(self, name: str) -> str:
        """A column as comparable text; raises InputError when the source has no such column."""
        column = self._by_name.get(name)
        if column is None:
            there = ", ".join(c.name for c in self.columns[:10])
            msg = f"{self.source.shown_as} has no column {name}"
            raise InputError(msg, fix=f"it has: {there}")
        return text_of(column, self.source.types.get(name))

    def as_written(self, name: str) -> str:
        """A column as the file writes it."""
        return f"CAST({self.raw(name)} AS VARCHAR)"

    def raw(self, name: str) -> str:
        return quoted(raw_name(name)) if self.text else quoted(name)


def load(connection: Any, source: Source, name: str) -> View:
    """Make the rows of ``source`` available under ``name``. Raises MlpError for what cannot be read."""
    import duckdb

    if source.scheme:
        connection.register_filesystem(source.filesystem())
    try:
        rows, number = _LOAD[source.format](connection, source, name)
        described = connection.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, UnicodeError) as error:
        raise unreadable(error, source) from error
    text = source.format == "csv"
    columns = tuple(_columns(described, source))
    view = View(name=name, source=source, text=text, columns=columns, rows=rows, number=number)
    everything = view.part([c.name for c in columns], number=True)
    connection.execute(f"CREATE TEMP VIEW {quoted(name)} AS SELECT * FROM {everything}")
    return view


def describe(connection: Any, source: Source) -> tuple[PhysicalColumn, ...]:
    """The columns of a source; of a CSV only the header is read. Raises MlpError for what cannot be read."""
    if source.format != "csv":
        return load(connection, source, "described").columns
    names, _ = _header(source, source.files[0])
    return tuple(PhysicalColumn(name=name, kind="string", shown="text", text=True) for name in names)


def _columns(described: Sequence[Sequence[Any]], source: Source) -> list[PhysicalColumn]:
    types = {str(name): str(kind) for name, kind, *_ in described}
    types.pop({"parquet": "file_row_number", "arrow": ROW}.get(source.format, ""), None)  # we asked for it
    _none_like_ours(types, source)
    if source.format == "csv":
        kinds = source.types
        return [PhysicalColumn(name=n, kind=kinds.get(n, "string"), shown="text", text=True) for n in types]
    return [
        PhysicalColumn(name=name, kind=kind_of(shown), shown=shown, nan=shown in ("FLOAT", "DOUBLE"))
        for name, shown in types.items()
    ]


def _none_like_ours(names: Iterable[str], source: Source) -> None:
    known = {name.lower() for name in names}
    raw = {raw_name(name) for name in known} if source.format == "csv" else set()
    taken = sorted(known & {ROW, *raw})
    if taken:
        msg = f"{source.shown_as} has a column named {taken[0]!r}, a name that mlp-ci uses itself"
        raise InputError(msg, fix="give the column another name")


def _load_parquet(connection: Any, source: Source, name: str) -> tuple[str, str]:
    del name
    number = "file_row_number + 1"
    if len(source.files) > 1:
        files = _list(source.files)
        schemas: dict[str, set[tuple[str, str]]] = {file: set() for file in source.files}
        described = connection.execute(
            f"SELECT file_name, name, concat_ws(' ', type, converted_type, logical_type) FROM parquet_schema({files})"
        )
        for file, column, kind in described.fetchall():
            schemas[str(file)].add((str(column), str(kind)))
        _same_columns(source, schemas)
        counted = connection.execute(f"SELECT file_name, num_rows FROM parquet_file_metadata({files})").fetchall()
        rows = {str(file): int(n) for file, n in counted}
        before, starts = 0, []
        for file in source.files:
            starts.append(str(before))
            before += rows[file]
        number += f" + list_extract([{', '.join(starts)}], CAST(file_index AS BIGINT) + 1)"
    return f"read_parquet({_list(source.files)}, file_row_number = true, hive_partitioning = false)", number


def _same_columns(source: Source, schemas: Mapping[str, set[tuple[str, str]]]) -> None:
    """Raise InputError, naming the file, unless all files have the same columns of the same types."""
    first = source.files[0]
    for file in source.files[1:]:
        other = schemas[first] ^ schemas[file]
        if other:
            columns = ", ".join(sorted({name for name, _ in other})[:5])
            shown = source.name_of(file)
            msg = f"{shown} has other columns than {source.name_of(first)}: {columns}"
            fix = "write all files of a folder with the same columns and types"
            raise InputError(msg, why="the rows of all files stand in one table", fix=fix, file=shown)


def _table(connection: Any, source: Source, name: str) -> str:
    """A name for the table that rows of text are loaded into: in memory, or where they are many in a file that is gone
    afterwards. A file is compressed and leaves the memory to the checks.
    """
    size = sum(Path(f).stat().st_size for f in source.files if Path(f).is_file()) if not source.scheme else math.inf
    if size <= IN_MEMORY:
        return quoted(f"mlp-ci loaded {name}")
    scratch = connection.execute("SELECT current_setting('temp_directory')").fetchone()[0]
    database = quoted(f"mlp-ci {name}")
    place = Path(str(scratch)) / f"loaded-{hashlib.sha256(name.encode()).hexdigest()[:16]}.duckdb"
    place.parent.mkdir(parents=True, exist_ok=True)
    connection.execute(f"ATTACH {literal(str(place))} AS {database}")
    return f"{database}.main.loaded"


def _load_json(connection: Any, source: Source, name: str) -> tuple[str, str]:
    table = _table(connection, source, name)
    connection.execute(
        f"CREATE TABLE {table} AS SELECT * "
        f"FROM read_ndjson({_list(source.files)}, sample_size = -1, map_inference_threshold = -1)"
    )
    return table, "rowid + 1"


def _load_arrow(connection: Any, source: Source, name: str) -> tuple[str, str]:
    try:
        import pyarrow as pa
        from pyarrow import dataset
    except ImportError as error:
        msg = f"{source.shown_as} is an Arrow file, and the package pyarrow is not installed"
        raise InputError(msg, fix="pip install pyarrow, or write the data as Parquet") from error
    try:
        files = source.filesystem() if source.scheme else None
        opened = dataset.dataset(list(source.files), format="ipc", filesystem=files)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(error, source) from error
    schemas = {str(f.path): {(c.name, str(c.type)) for c in f.physical_schema} for f in opened.get_fragments()}
    if len(source.files) > 1 and schemas.keys() == set(source.files):
        _same_columns(source, schemas)
    _none_like_ours(opened.schema.names, source)
    registered = f"mlp-ci arrow {name}"
    connection.register(registered, opened)
    # A row number that is not used costs nothing: DuckDB drops it from the plan.
    return f"(SELECT *, row_number() OVER () AS {quoted(ROW)} FROM {quoted(registered)})", quoted(ROW)


def _load_csv(connection: Any, source: Source, name: str) -> tuple[str, str]:
    names, delimiter = _header(source, source.files[0])
    headers = {file: _header(source, file) for file in source.files}
    # The place of a column and what separates it count as well: nothing but the header says which column a value is of.
    _same_columns(source, {f: {(n, f"{i}{mark}") for i, n in enumerate(ns)} for f, (ns, mark) in headers.items()})
    columns = ", ".join(f"{literal(n)}: 'VARCHAR'" for n in names)
    nulls = ", ".join(literal(t) for t in NULL_TEXTS)
    table = _table(connection, source, name)
    connection.execute(
        f"CREATE TABLE {table} AS SELECT * FROM read_csv({_list(source.files)}, auto_detect = false, "
        f"header = true, delim = {literal(delimiter)}, quote = '\"', escape = '\"', columns = {{{columns}}}, "
        f"nullstr = [{nulls}])"
    )
    return table, "rowid + 1"


_LOAD = {"parquet": _load_parquet, "json": _load_json, "arrow": _load_arrow, "csv": _load_csv}


def _list(files: tuple[str, ...]) -> str:
    return f"[{', '.join(literal(f) for f in files)}]"


def _header(source: Source, file: str) -> tuple[list[str], str]:
    """Column names and delimiter of a CSV."""
    shown = source.name_of(file)
    try:
        with _open(source, file) as stream:
            start = stream.readline(1_000_000)
            delimiter = "," if "," in start else max(";\t|", key=start.count)
            rest = stream.read(100_000) if start.count('"') % 2 else ""
            names = next(csv.reader(io.StringIO(str(start) + str(rest)), delimiter=delimiter), [])
    except UnicodeDecodeError as error:
        raise _not_utf8(shown) from error
    except (OSError, EOFError, csv.Error) as error:
        if source.scheme:
            raise unreadable(error, source) from error
        msg = f"{shown} cannot be read: {error}"
        raise InputError(msg, fix="write the file again", file=shown, line=1) from error
    names = [n.strip() or f"column{i}" for i, n in enumerate(names)]
    broken = next((n for n in names if "\n" in n or "\r" in n), None)
    if broken is not None:
        what = f"the header of {shown} has a column whose name spans lines: {' '.join(broken.split())[:60]!r}"
        raise InputError(what, fix="write the name on one line", file=shown, line=1)
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            what = (
                f"the header names the column {name!r} twice"
                if seen[name.lower()] == name
                else (f"the header has the columns {seen[name.lower()]!r} and {name!r}, which differ only in case")
            )
            raise InputError(what, fix="give every column a name of its own", file=shown, line=1)
        seen[name.lower()] = name
    return names, delimiter


def _open(source: Source, file: str) -> Any:
    zipped = file.lower().split("?")[0].endswith(".gz")
    if source.scheme:
        compression = "gzip" if zipped else None
        return source.filesystem().open(file, "rt", encoding="utf-8-sig", newline="", compression=compression)
    return (gzip.open if zipped else open)(file, "rt", encoding="utf-8-sig", newline="")


def _not_utf8(shown_as: str) -> InputError:
    msg = f"{shown_as} is not in UTF-8"
    fix = "write it with encoding='utf-8' (in pandas: df.to_csv(path, index=False)), then `dvc add` and `dvc push`"
    return InputError(msg, why="names and categories would be read wrongly", fix=fix)


def unreadable(error: Exception, source: Source) -> MlpError:
    """What to tell people when a file cannot be read, with the line where the format has lines."""
    text = _plain(error)
    shown = next((source.name_of(f) for f in source.files if f in text), source.shown_as)
    if "not utf-8" in text.lower() or "invalid unicode" in text.lower() or isinstance(error, UnicodeError):
        return _not_utf8(shown)
    line = re.search(r"CSV Error on Line: (\d+)", text) or re.search(r"in line (\d+)", text)
    number = int(line[1]) if line else 0
    if number and source.format == "csv":
        number = _line_of(source, next((f for f in source.files if f in text), source.files[0]), number)
    reason = first_line(error)
    if "CSV Error" in text:
        rows = [r for r in text.splitlines() if r and not r.startswith(("Original Line", "Invalid Input", "Possible"))]
        reason = rows[0] if rows else reason
    for file in source.files:
        reason = reason.replace(file, source.name_of(file))
    what = f"{shown} cannot be read: {reason}"
    if source.scheme:
        return OutsideError(what, fix="check the address, the network and the credentials, or write the file again")
    fix = f"mend or write {shown} again, then `dvc add {source.shown_as} && dvc push` and commit"
    return InputError(what, fix=fix, file=shown if number else "", line=number)


def _line_of(source: Source, file: str, record: int) -> int:
    """The line on which a record begins: DuckDB counts records, and a quoted value may hold line breaks."""
    try:
        with _open(source, file) as stream:
            records = csv.reader(stream)
            for _ in itertools.islice(records, record - 1):
                pass
            return records.line_num + 1
    except (OSError, EOFError, csv.Error, UnicodeError):
        return record


def first_line(error: Exception) -> str:
    lines = [line for line in _plain(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    return re.sub(r"^[A-Z][A-Za-z /-]* Error: ", "", first)


def _plain(error: Exception) -> str:
    """What DuckDB says, also where it was told to say it as JSON."""
    text = str(error)
    kind, _, rest = text.partition(": ")
    if not rest.startswith("{"):
        return text
    try:
        return f"{kind}: {json.loads(rest)['exception_message']}"
    except (ValueError, KeyError, TypeError):
        return text
