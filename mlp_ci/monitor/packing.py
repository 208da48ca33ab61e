"""Packs the closed hours of the prediction log: the gateway writes a file a second, a look reads them for months.

The rows of an hour's files are written into one, and that it replaces them is noted beside it. Renaming it into place
is the one moment at which readers change over; only then the others are removed. Killed anywhere, the next call
finishes, and every row is always seen exactly once.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import uuid
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from mlp_ci.data.engines.duck import connect
from mlp_ci.data.engines.duck_sql import literal
from mlp_ci.monitor.hours import PREFIX, repoint
from mlp_ci.monitor.windows import hours, parts_of, replaced_by, replaces_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mlp_ci.monitor.windows import Span

FEWEST_FILES = 4
QUIET_SECONDS = 600.0  # of real time, whatever the project's clock says: nobody writes into the hour any more
PACKED = "part-packed-"


def pack(log: Path, model: str, stage: str, span: Span, now: datetime) -> int:
    """Pack the hours of the span that ended before ``now``; how many were packed.

    Does nothing where the log may only be read, or while another call is at it. An hour with a file that cannot be
    read stays as it is.
    """
    packed = 0
    try:
        with _alone(log / model / f"stage={stage}") as free:
            for begin, folder in hours(log, model, stage, span) if free else ():
                if begin + timedelta(hours=1) <= now:
                    _finish(folder)
                    packed += _pack_hour(folder)
    except OSError:  # a full disk or a log that is not ours: the look is done all the same
        return packed
    return packed


@contextmanager
def _alone(root: Path) -> Iterator[bool]:
    if not root.is_dir():
        yield False
        return
    with (root / ".packing.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _finish(folder: Path) -> None:
    """Do what a call that was killed left undone."""
    for scratch in folder.glob(f".{PACKED}*.parquet"):
        scratch.unlink()
    for scratch in folder.glob(f"{PREFIX}*.part"):  # of a look; another may be writing one now
        if scratch.stat().st_mtime < time.time() - QUIET_SECONDS:
            scratch.unlink(missing_ok=True)
    for part in folder.glob(f"{PACKED}*.parquet"):
        _remove_replaced(part)
    for note in folder.glob(f".{PACKED}*.replaces.json"):  # of a file that never came into place
        note.unlink()


def _remove_replaced(packed: Path) -> None:
    replaced = replaced_by(packed)
    if replaced:
        repoint(packed.parent, replaced, packed)
    for name in replaced:
        packed.with_name(name).unlink(missing_ok=True)
    replaces_file(packed).unlink(missing_ok=True)


def _pack_hour(folder: Path) -> int:
    parts = parts_of(folder)
    written = [p.stat().st_mtime for p in parts if not p.name.startswith(PACKED)]
    if len(parts) < FEWEST_FILES or max(written, default=0.0) > time.time() - QUIET_SECONDS:
        return 0
    final = folder / f"{PACKED}{uuid.uuid4().hex[:12]}.parquet"
    scratch = final.with_name(f".{final.name}")
    if not _merge(parts, scratch):
        scratch.unlink(missing_ok=True)
        return 0
    note = replaces_file(final)
    note.write_text(json.dumps([p.name for p in parts]), encoding="utf-8")
    for file in (scratch, note):
        _on_disk(file)
    scratch.replace(final)
    _on_disk(folder)
    _remove_replaced(final)
    return 1


def _merge(parts: Sequence[Path], target: Path) -> bool:
    """Write all rows of the parts into one file; False when they cannot all be read as one table."""
    import duckdb

    names = ", ".join(literal(str(p)) for p in parts)
    source = f"read_parquet([{names}], union_by_name = true, hive_partitioning = false)"
    place = literal(str(target))
    with connect() as connection:
        try:
            connection.execute(f"COPY (SELECT * FROM {source}) TO {place} (FORMAT parquet, COMPRESSION zstd)")
            return _count(connection, source) == _count(connection, f"read_parquet({place})")
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error:
            return False


def _count(connection: Any, source: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {source}").fetchone()[0])


def _on_disk(path: Path) -> None:
    """What is removed next must not be all that a power failure leaves."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
