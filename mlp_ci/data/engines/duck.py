"""DuckDB, embedded: opens data files and measures them in constant memory."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from typing import TYPE_CHECKING, Any

from mlp_ci import progress
from mlp_ci.data.engines.duck_file import DuckFile
from mlp_ci.data.engines.duck_load import describe, first_line, load, unreadable
from mlp_ci.data.engines.duck_sql import literal
from mlp_ci.data.sources import Source
from mlp_ci.errors import OutsideError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mlp_ci.data.plan import PhysicalColumn

MEMORY_LIMIT = "300MB"
LOOK_SECONDS = 0.25  # how often somebody who waits is told how far a pass is


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

    ``others`` can be read beside it, for checks between files, each under its name (anything but ``data``); they are
    opened when a check first speaks of them. Raises InputError when something cannot be read, with the line where the
    format has lines, and OutsideError when an address cannot be reached.
    """
    import duckdb

    source = file.typed(types) if isinstance(file, Source) else Source.parse(file, shown_as=shown_as, types=types)
    with connect(memory_limit) as connection, _watching(connection):
        try:
            yield DuckFile(connection, load(connection, source, "data"), others or {})
        except duckdb.OutOfMemoryException:
            raise
        except (duckdb.Error, UnicodeError) as error:
            raise unreadable(error, source) from error


@contextlib.contextmanager
def _watching(connection: Any) -> Iterator[None]:
    """Tell whoever waits how far the pass over the data is that is running."""
    if not progress.watched():
        yield
        return
    # DuckDB only counts when it may draw its own bar, which goes to stdout: it may, and has no ink.
    connection.execute("SET enable_progress_bar_print = false")
    connection.execute("SET enable_progress_bar = true")
    connection.execute(f"SET progress_bar_time = {round(LOOK_SECONDS * 1000)}")
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            percent = connection.query_progress()
            if percent > 0:
                progress.share(percent / 100)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        ended.set()
        looking.join()


def columns_of(source: Source) -> tuple[PhysicalColumn, ...]:
    """The columns of a source, without reading its rows where the format says them up front."""
    with connect() as connection:
        return describe(connection, source)
