"""What can be read: a local file, a folder of files, a glob, or an address, as a list of files of one format."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError, OutsideError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FORMATS = ".parquet, .csv, .csv.gz, .jsonl, .ndjson, .arrow or .feather"
_FORMAT_OF = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".jsonl.gz": "json",
    ".ndjson.gz": "json",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
# Scheme of an address → the package that reads it. fsspec itself comes with DVC.
_DRIVERS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
_ADDRESS = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Files of one format whose rows stand one below the other, in this order.

    ``format`` is parquet, csv, json (one object per line) or arrow. ``shown_as`` is what people call it. ``types``
    says as what the values of a CSV are to be read (column → declared type); the others carry their own types.
    """

    files: tuple[str, ...]
    format: str
    shown_as: str
    scheme: str = ""
    types: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, what: str | Path, *, shown_as: str = "", types: Mapping[str, str] | None = None) -> Source:
        """What a file, a folder, a glob or an address holds.

        Raises InputError where nothing is there, formats are mixed or unknown, or the package for an address lacks.
        """
        text = str(what)
        address = _ADDRESS.match(text)
        shown = shown_as or (without_secrets(text) if address else text)
        if address:
            scheme = address[1].lower()
            files = _remote_files(text, scheme, shown)
        else:
            scheme, files = "", _local_files(Path(text), shown)
        return cls(
            files=files, format=_one_format(files, shown), shown_as=shown, scheme=scheme, types=dict(types or {})
        )

    def typed(self, types: Mapping[str, str]) -> Source:
        """The same files, read with these types."""
        return replace(self, types=dict(types))

    def name_of(self, file: str) -> str:
        """What people call one of the files."""
        if len(self.files) == 1:
            return self.shown_as
        return (
            f"{self.shown_as.rstrip('/')}/{Path(file).name}" if not glob.has_magic(self.shown_as) else Path(file).name
        )

    def filesystem(self) -> Any:
        """The fsspec filesystem behind an address. Raises InputError where its package is not installed."""
        return filesystem(self.scheme)


def suffix_of(name: str) -> str:
    """The part of a name that says the format: ``.parquet``, ``.csv.gz``."""
    lowered = re.split(r"[?#]", name)[0].lower() if "://" in name else name.lower()
    plain = lowered.removesuffix(".gz")
    return Path(plain).suffix + (".gz" if plain != lowered else "")


def without_secrets(address: str) -> str:
    """An address without user, password and query, which may hold a signature."""
    return re.sub(r"(://)[^/@]*@", r"\1", address.partition("?")[0])


def filesystem(scheme: str) -> Any:
    """The fsspec filesystem for a scheme. Raises InputError for an unknown one and for a missing package."""
    package = _DRIVERS.get(scheme)
    if package is None:
        msg = f"mlp-ci does not read {scheme}:// addresses"
        raise InputError(msg, fix="use s3://, gs://, https:// or a path")
    try:
        import fsspec

        files = fsspec.filesystem(scheme)
    except ImportError as error:
        msg = f"{scheme}:// addresses need the package {package}, which is not installed"
        raise InputError(msg, fix=f"pip install {package}") from error
    if scheme in ("http", "https"):
        # DuckDB asks when a file changed, and a web server need not know; for one run it does not matter.
        files.modified = lambda _path: datetime.fromtimestamp(0, tz=UTC)
    return files


def _remote_files(text: str, scheme: str, shown: str) -> tuple[str, ...]:
    files = filesystem(scheme)
    if suffix_of(text) in _FORMAT_OF and not glob.has_magic(text.partition("?")[0]):
        return (text,)
    try:
        pattern = text if glob.has_magic(text) else text.rstrip("/") + "/*"
        found = [files.unstrip_protocol(name) for name in files.glob(pattern)]
    except Exception as error:  # whatever a storage driver raises, it did not list
        msg = f"{shown} cannot be listed: {_first_line(error)}"
        raise OutsideError(msg, fix="check the address, the network and the credentials") from error
    return _data_files(found, shown)


def _local_files(place: Path, shown: str) -> tuple[str, ...]:
    if place.is_dir():
        return _data_files([str(f) for f in place.rglob("*") if f.is_file()], shown)
    if place.exists() or not glob.has_magic(str(place)):
        return (str(place),)
    found = glob.glob(str(place), recursive=True)  # noqa: PTH207 (Path.glob takes no absolute patterns)
    return _data_files([f for f in found if Path(f).is_file()], shown)


def _data_files(found: Iterable[str], shown: str) -> tuple[str, ...]:
    """In the order of their names, without what tools leave behind (``.gitignore``, ``_SUCCESS``)."""
    chosen = sorted(name for name in found if not Path(name).name.startswith((".", "_")))
    if not chosen:
        msg = f"{shown} holds no file"
        raise InputError(msg, fix=f"put {FORMATS} files there, or correct the path")
    return tuple(chosen)


def _one_format(files: tuple[str, ...], shown: str) -> str:
    formats = {name: _FORMAT_OF.get(suffix_of(name)) for name in files}
    unknown = [name for name, kind in formats.items() if kind is None]
    if unknown:
        place = shown if len(files) == 1 else f"{Path(unknown[0]).name} in {shown}"
        msg = f"{place} is in a format that mlp-ci does not read"
        raise InputError(msg, fix=f"write it as {FORMATS}")
    if len(set(formats.values())) > 1:
        first, other = files[0], next(f for f in files if formats[f] != formats[files[0]])
        msg = f"{shown} holds files of several formats: {Path(first).name} and {Path(other).name}"
        raise InputError(msg, fix="keep files of one format in a folder")
    return str(formats[files[0]])


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return without_secrets(lines[0]) if lines else type(error).__name__
