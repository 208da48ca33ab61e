"""One look at the prediction log: the rows of a window as a profile in the bins of the live version's reference.

Memory does not depend on the number of rows: DuckDB spills what it cannot hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.data.duck import connect
from mlp_ci.data.duck_sql import literal, quoted
from mlp_ci.data.plan import microseconds
from mlp_ci.data.profile import PREDICTION, Profile, watched
from mlp_ci.data.profiling import profile_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlp_ci.monitor.windows import Span
    from mlp_ci.spec.data import Data

WINDOW = "window_rows"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the log says about a window.

    ``profile`` covers the inputs of all rows of the stage and the predictions of the live version. ``versions`` is
    how many rows each version answered; ``absent`` are watched columns that the log does not have; ``unreadable``
    the log's files that were left out.
    """

    rows: int
    versions: Mapping[int, int]
    profile: Profile
    absent: tuple[str, ...]
    unreadable: tuple[Path, ...]


def look_at(parts: list[Path], span: Span, version: int, data: Data, reference: Profile) -> Look:
    """Profile the rows of ``span`` in these files of the log."""
    features = watched({name: data.columns[name] for name in data.features})
    kinds = {name: reference.columns[name].kind for name in features if name in reference.columns}
    with connect() as connection:
        unreadable = load_rows(connection, parts, span, [*kinds, PREDICTION]) if parts else ()
        if not parts or len(unreadable) == len(parts):
            empty = Profile(rows=0, columns={})
            return Look(rows=0, versions={}, profile=empty, absent=(), unreadable=unreadable)
        there = {str(name) for name, *_ in connection.execute(f"DESCRIBE {WINDOW}").fetchall()}
        versions = connection.execute(f"SELECT version, count(*) FROM {WINDOW} GROUP BY version ORDER BY 1").fetchall()
        present = {name: kind for name, kind in kinds.items() if name in there}
        profile = profile_rows(connection, WINDOW, present, like=reference)
        if PREDICTION in reference.columns and PREDICTION in there:
            answered = f"(SELECT * FROM {WINDOW} WHERE version = {version:d})"
            kind = {PREDICTION: reference.columns[PREDICTION].kind}
            answers = profile_rows(connection, answered, kind, like=reference)
            profile = profile.with_column(PREDICTION, answers.columns[PREDICTION])
        return Look(
            rows=profile.rows,
            versions={int(v): int(n) for v, n in versions if v is not None},
            profile=profile,
            absent=tuple(name for name in kinds if name not in there),
            unreadable=unreadable,
        )


def load_rows(connection: Any, parts: list[Path], span: Span, wanted: list[str]) -> tuple[Path, ...]:
    """Load the window's rows and watched columns; returns the files that could not be read."""
    import duckdb

    try:
        _read(connection, parts, span, wanted)
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error:
        # One broken file must not blind the monitor: read the others, and say which one was left out.
        readable = [p for p in parts if _readable(connection, p)]
        if readable:
            _read(connection, readable, span, wanted)
        return tuple(p for p in parts if p not in readable)
    return ()


def _read(connection: Any, parts: list[Path], span: Span, wanted: list[str]) -> None:
    source = (
        f"read_parquet([{', '.join(literal(str(p)) for p in parts)}], union_by_name = true, hive_partitioning = false)"
    )
    names = [str(name) for name, *_ in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
    chosen = ", ".join(quoted(name) for name in names if name in {*wanted, "version"})
    inside = f"epoch_us(ts) >= {microseconds(span.since)} AND epoch_us(ts) < {microseconds(span.until)}"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {WINDOW} AS SELECT {chosen} FROM {source} WHERE {inside}")


def _readable(connection: Any, part: Path) -> bool:
    import duckdb

    try:
        names = connection.execute(
            f"SELECT * FROM read_parquet({literal(str(part))}, hive_partitioning = false)"
        ).description
        connection.fetchall()
    except duckdb.Error:
        return False
    return {"ts", "version"} <= {name for name, *_ in names}
