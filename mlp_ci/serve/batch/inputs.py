"""What is predicted: Parquet and CSV files one after the other, read in pieces, from any row on."""

from __future__ import annotations

import glob
import re
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mlp_ci import dvc
from mlp_ci.data.sources import Source, without_secrets
from mlp_ci.errors import InputError, OutsideError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

BATCH_ROWS = 16_384
BATCH_CELLS = 4_000_000  # wide rows come in smaller batches: about 32 MB of numbers
CSV_BLOCK = 4 * 1024 * 1024
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_PARTITION = re.compile(r"^([^=/]+)=(.*)$")


@dataclass(frozen=True, kw_only=True)
class File:
    """One file: its columns by name with their Arrow types, its size in the unit of the progress (rows, or bytes).

    ``partition``: columns that its path names (``date=2013-01-31``); ``identity`` changes when the file does.
    """

    place: str
    shown: str
    columns: Mapping[str, Any]
    size: int
    identity: tuple[Any, ...]
    partition: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [*self.columns, *(name for name in self.partition if name not in self.columns)]


@dataclass(frozen=True, kw_only=True)
class Input:
    """Files of one format whose rows stand one below the other. ``text``: columns whose values are text to be read."""

    source: Source
    files: tuple[File, ...]

    @property
    def names(self) -> list[str]:
        """All columns, in the order in which they first occur."""
        return list(dict.fromkeys(name for file in self.files for name in file.names))

    @property
    def text(self) -> frozenset[str]:
        partitions = {name for file in self.files for name in file.partition}
        return frozenset(self.names if self.source.format == "csv" else partitions)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def type_of(self, name: str) -> Any:
        """The Arrow type of a column that holds the values of all files. InputError where there is none."""
        import pyarrow as pa

        kinds = {file.columns.get(name, pa.string()): file.shown for file in self.files if name in file.names}
        try:
            [unified] = pa.unify_schemas([pa.schema([(name, kind)]) for kind in kinds], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            told = ", ".join(f"{kind} in {shown}" for kind, shown in kinds.items())
            msg = f"column {name} is of several types: {told}"
            raise InputError(msg, fix="write the files with one type for each column") from error
        return unified.type.value_type if pa.types.is_dictionary(unified.type) else unified.type


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """A row of a CSV with another number of values than the header has names."""

    row: int
    values: int
    names: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of one file; ``first`` counts from 0, without ragged rows, which were left out before or among them.

    ``behind``: how many ragged rows came before them in the file; ``done``: how much of the file is read after them;
    ``last``: nothing of the file comes after them.
    """

    file: int
    first: int
    rows: pa.RecordBatch
    ragged: tuple[Ragged, ...] = ()
    behind: int = 0
    done: int = 0
    last: bool = False

    @property
    def after(self) -> tuple[int, int]:
        """Where reading goes on after these rows: file, row in it."""
        return (self.file + 1, 0) if self.last else (self.file, self.first + int(self.rows.num_rows))

    def number_of(self, row: int) -> int:
        """The number in the file, from 1, of a row of this batch."""
        number = self.first + row + self.behind
        for one in self.ragged:
            number += one.row <= number
        return number + 1


def find(repo: Path, what: str) -> Source:
    """The files at a path, a glob or an address; what DVC tracks in ``repo`` under this path is fetched first."""
    inside = not Path(what).is_absolute() and "://" not in what and not glob.has_magic(what) and ".." not in what
    if inside and dvc.find_tracked(repo, what.rstrip("/")):
        path = what.rstrip("/")
        return Source.parse(dvc.pull(repo, [path])[path], shown_as=what)
    if "://" not in what and not glob.has_magic(what) and not Path(what).exists():
        msg = f"there is no {what}"
        raise InputError(msg, fix="correct --input: a file, a folder, a glob, an address, or what DVC tracks")
    return Source.parse(what)


def look(source: Source) -> Input:
    """The columns and the size of every file. InputError for a format, a file or a header that cannot be read."""
    if source.format not in ("parquet", "csv"):
        msg = f"{source.shown_as} is {source.format}; predict reads Parquet and CSV"
        raise InputError(msg, fix="write it as .parquet or .csv")
    files = tuple(_look_at(source, place) for place in source.files)
    return Input(source=source, files=files)


def batches(given: Input, columns: Sequence[str], rows: int, start: tuple[int, int]) -> Iterator[Batch]:
    """All rows from ``start`` (file, row in it) on, at most ``rows`` at a time, with these columns where they are."""
    for number in range(start[0], len(given.files)):
        first = start[1] if number == start[0] else 0
        file = given.files[number]
        read = _parquet if given.source.format == "parquet" else _csv
        held: Batch | None = None
        for batch in _read_or_told(read(given.source, file, columns, (rows, first)), given.source, file):
            if held is not None:
                yield held
            held = replace(batch, file=number, rows=_with_partition(batch.rows, file, columns))
        if held is not None:
            yield replace(held, last=True)


def batch_rows(given: Input, asked: int | None) -> int:
    """How many rows a model is given at once."""
    return asked or max(256, min(BATCH_ROWS, BATCH_CELLS // max(1, len(given.names))))


# ---------------------------------------------------------------- looking


def _look_at(source: Source, place: str) -> File:
    import pyarrow as pa

    shown = source.name_of(place)
    try:
        identity = _identity(source, place)
        if source.format == "parquet":
            import pyarrow.parquet as pq

            with _opened(source, place) as stream:
                file = pq.ParquetFile(stream)
                schema, size = file.schema_arrow, file.metadata.num_rows
            names, columns = schema.names, dict(zip(schema.names, schema.types, strict=True))
        else:
            names, size = _header(source, place), int(identity[0])
            columns = dict.fromkeys(names, pa.string())
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        far = bool(source.scheme) and not isinstance(error, pa.ArrowInvalid)
        raise (_far if far else _unreadable)(shown, error) from error
    except Exception as error:
        if not source.scheme:
            raise
        raise _far(shown, error) from error  # whatever a storage driver raises
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"{shown} has two columns called {twice}"
        raise InputError(msg, fix="give every column a name of its own")
    return File(
        place=place,
        shown=shown,
        columns=columns,
        size=size,
        identity=identity,
        partition={k: v for k, v in _partition(source, place).items() if k not in columns},
    )


def _partition(source: Source, place: str) -> dict[str, str | None]:
    """``year=2013/month=1/part-0.parquet``: columns whose values the path holds. None of a plain file."""
    if len(source.files) == 1 and not source.scheme and place == source.shown_as:
        return {}
    matches = [_PARTITION.match(part) for part in Path(place).parts[:-1]]
    found = {unquote(m[1]): unquote(m[2]) for m in matches if m}
    return {name: None if value == NO_VALUE else value for name, value in found.items()}


def _identity(source: Source, place: str) -> tuple[Any, ...]:
    if not source.scheme:
        stat = Path(place).stat()
        return (stat.st_size, stat.st_mtime_ns)
    try:
        info = source.filesystem().info(place)
    except Exception as error:  # whatever a storage driver raises
        msg = f"{source.shown_as} cannot be read: {type(error).__name__}"
        raise OutsideError(msg, fix="check the address, the network and the credentials") from error
    marks = [info.get(name) for name in ("ETag", "etag", "LastModified", "mtime", "updated")]
    return (int(info.get("size") or 0), *(str(mark) for mark in marks if mark))


def _opened(source: Source, place: str) -> Any:
    return source.filesystem().open(place, "rb") if source.scheme else Path(place).open("rb")


def _stream(source: Source, place: str) -> tuple[Any, Any]:
    """The file, which knows how much of it was read, and what its content is read from."""
    import pyarrow as pa

    raw = _opened(source, place)
    packed = place.partition("?")[0].lower().endswith(".gz")
    return raw, pa.CompressedInputStream(pa.PythonFile(raw, "r"), "gzip") if packed else pa.PythonFile(raw, "r")


def _delimiter(source: Source, place: str) -> str:
    """A comma, unless the header line has none of them and another sign that is usual."""
    raw, content = _stream(source, place)
    with raw:
        line = content.read(65_536).split(b"\n", 1)[0].decode("utf-8", "replace")
    return "," if "," in line else next((sign for sign in (";", "\t", "|") if sign in line), ",")


def _header(source: Source, place: str) -> list[str]:
    import pyarrow.csv as arrow_csv

    delimiter = _delimiter(source, place)
    raw, content = _stream(source, place)
    options = arrow_csv.ParseOptions(
        newlines_in_values=True, delimiter=delimiter, invalid_row_handler=lambda _row: "skip"
    )
    with raw:
        reader = arrow_csv.open_csv(
            content, read_options=arrow_csv.ReadOptions(use_threads=False), parse_options=options
        )
        return list(reader.schema.names)


def _far(shown: str, error: Exception) -> OutsideError:
    said = without_secrets(" ".join(str(error).split()))[:300] or type(error).__name__
    fix = "check the address, the network and the credentials; or fetch the file and predict it here"
    return OutsideError(f"{shown} cannot be read: {said}", fix=fix)


def _unreadable(shown: str, error: Exception) -> InputError:
    text = " ".join(str(error).split())
    # What stands in a row may be nobody's business: Arrow quotes the row that it cannot read.
    said = text if "Empty" in text or "magic" in text.lower() else type(error).__name__
    said = "it is not in UTF-8" if "UTF8" in text else said
    return InputError(
        f"{shown} cannot be read: {said}", fix="`mlp-ci data check` or the program that wrote it says more"
    )


# ---------------------------------------------------------------- reading


def _read_or_told(found: Iterator[Batch], source: Source, file: File) -> Iterator[Batch]:
    import pyarrow as pa

    try:
        yield from found
    except pa.ArrowInvalid as error:
        raise _unreadable(file.shown, error) from error
    except OSError as error:
        if source.scheme:
            raise _far(file.shown, error) from error
        if error.errno is not None:
            raise  # the machine's affair: the presenter knows what to say
        raise _unreadable(file.shown, error) from error
    except Exception as error:
        if not source.scheme:
            raise
        raise _far(file.shown, error) from error  # whatever a storage driver raises


def _parquet(source: Source, file: File, columns: Sequence[str], cut: tuple[int, int]) -> Iterator[Batch]:
    import pyarrow.parquet as pq

    rows, start = cut
    with _opened(source, file.place) as stream:
        # Without pre_buffer and with a buffer, a row group is read page by page, however large it is.
        parquet = pq.ParquetFile(stream, pre_buffer=False, buffer_size=1024 * 1024)
        at, groups = 0, list[int]()
        for group in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(group).num_rows
            if at + count <= start and not groups:
                at += count
            else:
                groups.append(group)
        wanted = [name for name in columns if name in file.columns]
        if not groups:
            return
        for batch in parquet.iter_batches(batch_size=rows, row_groups=groups, columns=wanted, use_threads=False):
            skipped = max(0, min(batch.num_rows, start - at))
            rest = batch.slice(skipped)
            if rest.num_rows:
                yield Batch(file=0, first=at + skipped, rows=rest, done=at + batch.num_rows)
            at += batch.num_rows


def _csv(source: Source, file: File, columns: Sequence[str], cut: tuple[int, int]) -> Iterator[Batch]:
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    rows, start = cut
    ragged: deque[Ragged] = deque()

    def leave_out(row: Any) -> str:
        # Its number counts the header as the first; ours counts from 0 without the header.
        ragged.append(Ragged(row=int(row.number) - 2, values=row.actual_columns, names=row.expected_columns))
        return "skip"

    wanted = [name for name in columns if name in file.columns]
    delimiter = _delimiter(source, file.place)
    raw, content = _stream(source, file.place)
    with raw:
        reader = arrow_csv.open_csv(
            content,
            # One thread: only so does Arrow say which row it left out.
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK),
            parse_options=arrow_csv.ParseOptions(
                newlines_in_values=True, delimiter=delimiter, invalid_row_handler=leave_out
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()),
                include_columns=wanted or None,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        at, behind = 0, 0
        for block in reader:
            for offset in range(0, block.num_rows, rows):
                piece = block.slice(offset, rows)
                found = []
                while ragged and ragged[0].row - behind < at + piece.num_rows:
                    one = ragged.popleft()
                    found += [one] if one.row - behind >= start else []  # else it was told when they were read
                    behind += 1
                skipped = max(0, min(piece.num_rows, start - at))
                rest = piece.slice(skipped)
                if rest.num_rows:
                    yield Batch(
                        file=0,
                        first=at + skipped,
                        rows=rest,
                        ragged=tuple(found),
                        behind=behind - len(found),
                        done=min(file.size, raw.tell()),
                    )
                at += piece.num_rows
        if ragged:  # after the last row
            empty = pa.record_batch({name: pa.array([], pa.string()) for name in wanted})
            yield Batch(file=0, first=at, rows=empty, ragged=tuple(ragged), behind=behind, done=file.size)


def _with_partition(rows: pa.RecordBatch, file: File, columns: Sequence[str]) -> pa.RecordBatch:
    import pyarrow as pa

    for name, value in file.partition.items():
        if name in columns:
            rows = rows.append_column(name, pa.repeat(pa.scalar(value, pa.string()), rows.num_rows))
    return rows
