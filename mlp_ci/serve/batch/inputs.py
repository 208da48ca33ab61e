"""What is predicted: Parquet and CSV files one after the other, read in pieces, from any row on."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mlp_ci import dvc
from mlp_ci.data.sources import Source, without_secrets
from mlp_ci.errors import InputError, MlpError, OutsideError

if TYPE_CHECKING:
    from collections.abc import Mapping


BATCH_ROWS = 16_384
BATCH_CELLS = 4_000_000  # wide rows come in smaller batches: about 32 MB of numbers
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


def require_unchanged(given: Input) -> None:
    """InputError when a file is not what it was when it was looked at."""
    changed = [file.shown for file in given.files if not _is_as_it_was(given.source, file)]
    if changed:
        msg = f"{changed[0]} changed while it was read"
        raise InputError(msg, fix="run again once nobody writes it; better, let its writer rename a finished file")


def _is_as_it_was(source: Source, file: File) -> bool:
    try:
        return _identity(source, file.place) == file.identity
    except FileNotFoundError:
        return False


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

            with opened(source, place) as stream:
                file = pq.ParquetFile(stream)
                schema, size = file.schema_arrow, file.metadata.num_rows
            names, columns = schema.names, dict(zip(schema.names, schema.types, strict=True))
        else:
            names, size = _header(source, place), int(identity[0])
            columns = dict.fromkeys(names, pa.string())
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        away = bool(source.scheme) and not isinstance(error, pa.ArrowInvalid)
        raise (unreachable if away else unreadable)(shown, error) from error
    except MlpError:
        raise
    except Exception as error:
        if not source.scheme:
            raise
        raise unreachable(shown, error) from error  # whatever a storage driver raises
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


def opened(source: Source, place: str) -> Any:
    import pyarrow as pa

    return pa.PythonFile(source.filesystem().open(place, "rb"), "r") if source.scheme else pa.OSFile(place)


def content_of(source: Source, place: str) -> tuple[Any, Any]:
    """The file, which knows how much of it was read, and what its content is read from."""
    import pyarrow as pa

    raw = opened(source, place)
    packed = place.partition("?")[0].lower().endswith(".gz")
    return raw, pa.CompressedInputStream(raw, "gzip") if packed else raw


def delimiter_of(source: Source, place: str) -> str:
    """A comma, unless the header line has none of them and another sign that is usual."""
    raw, content = content_of(source, place)
    with raw:
        line = content.read(65_536).split(b"\n", 1)[0].decode("utf-8", "replace")
    line = re.sub(r'"[^"]*"', "", line)  # a comma in a name separates nothing
    return "," if "," in line else next((sign for sign in (";", "\t", "|") if sign in line), ",")


def _header(source: Source, place: str) -> list[str]:
    import pyarrow.csv as arrow_csv

    sign = delimiter_of(source, place)
    raw, content = content_of(source, place)
    options = arrow_csv.ParseOptions(newlines_in_values=True, delimiter=sign, invalid_row_handler=lambda _row: "skip")
    with raw:
        reader = arrow_csv.open_csv(
            content, read_options=arrow_csv.ReadOptions(use_threads=False), parse_options=options
        )
        return list(reader.schema.names)


def unreachable(shown: str, error: Exception) -> OutsideError:
    said = without_secrets(" ".join(str(error).split()))[:300] or type(error).__name__
    fix = "check the address, the network and the credentials; or fetch the file and predict it here"
    return OutsideError(f"{shown} cannot be read: {said}", fix=fix)


def unreadable(shown: str, error: Exception) -> InputError:
    text = " ".join(str(error).split())
    # What stands in a row may be nobody's business: Arrow quotes the row that it cannot read.
    said = text if "Empty" in text or "magic" in text.lower() else type(error).__name__
    said = "it is not in UTF-8" if "UTF8" in text else said
    return InputError(
        f"{shown} cannot be read: {said}", fix="`mlp-ci data check` or the program that wrote it says more"
    )
