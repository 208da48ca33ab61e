"""What the prediction log says about windows of time, as profiles in the bins of the live version's reference.

Full hours are profiled once and kept (:mod:`mlp_ci.monitor.hours`); windows are added up from them. Only what is not
kept yet, and the broken hours at the ends of a window, is read. Memory does not depend on the number of rows: DuckDB
spills what it cannot hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mlp_ci.data.duck import connect
from mlp_ci.data.duck_sql import literal, quoted
from mlp_ci.data.plan import microseconds
from mlp_ci.data.profile import PREDICTION, Profile, watched
from mlp_ci.data.profiling import profile_groups
from mlp_ci.monitor.hours import HourStore, Kept, Slice, add_up
from mlp_ci.monitor.windows import Span, hours, parts_of
from mlp_ci.progress import doing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from mlp_ci.data.reference import Reference
    from mlp_ci.spec.data import Data

WINDOW = "window_rows"
HOUR = timedelta(hours=1)
# Hours that are read together: their rows lie in memory, or on disk, at the same time.
HOURS_AT_ONCE = 48


@dataclass(frozen=True, kw_only=True)
class Log:
    """The prediction log of one stage, and the version that it is looked at for."""

    folder: Path
    model: str
    stage: str
    version: int
    reference: Reference
    data: Data
    now: datetime


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the log says about a window.

    ``profile`` covers the inputs of all rows of the stage and the predictions of the live version, ``segments`` those
    of each segment. ``versions`` is how many rows each version answered; ``absent`` are watched columns that the log
    does not have; ``unreadable`` the log's files that were left out; ``read`` how many hours were read for it.
    """

    span: Span
    rows: int
    versions: Mapping[int, int]
    profile: Profile
    segments: Mapping[str, Profile]
    absent: tuple[str, ...]
    unreadable: tuple[str, ...]
    read: int = 0


def look_at(log: Log, spans: Sequence[Span]) -> list[Look]:
    """Each span's rows as one look; the hours of all spans are read at most once."""
    store = HourStore(log.version, log.reference.profile, log.reference.digest())
    full = {
        begin: folder
        for span in spans
        for begin, folder in hours(log.folder, log.model, log.stage, span)
        if _is_full(begin, span, log.now)
    }
    known, read = _known_hours(log, store, full)
    looks = []
    for span in spans:
        slices = [slice_ for begin, slice_ in known.items() if span.since <= begin and begin + HOUR <= span.until]
        broken = [
            (begin, folder)
            for begin, folder in hours(log.folder, log.model, log.stage, span)
            if not _is_full(begin, span, log.now)
        ]
        slices += [_scan(log, {b: parts_of(f)}, span).get(b, Slice()) for b, f in broken]
        looks.append(_look(log, span, add_up(slices), read if span is spans[0] else 0))
    return looks


def _is_full(begin: datetime, span: Span, now: datetime) -> bool:
    """Whether the hour is over and lies wholly in the span."""
    return span.since <= begin and begin + HOUR <= min(span.until, now)


def _look(log: Log, span: Span, found: Slice, read: int) -> Look:
    wanted = _kinds(log)
    return Look(
        span=span,
        rows=found.rows,
        versions=found.versions,
        profile=found.profile,
        segments=found.segments,
        absent=tuple(name for name in wanted if found.rows and name not in found.profile.columns),
        unreadable=found.unreadable,
        read=read,
    )


def _kinds(log: Log) -> dict[str, str]:
    """The watched inputs that the reference has, with their kind."""
    known = log.reference.profile.columns
    features = watched({name: log.data.columns[name] for name in log.data.features})
    return {name: known[name].kind for name in features if name in known}


# ---------------------------------------------------------------- full hours


def _known_hours(log: Log, store: HourStore, full: Mapping[datetime, Path]) -> tuple[dict[datetime, Slice], int]:
    """Every full hour's slice: as it was kept, with what came later added, or made now and kept."""
    known: dict[datetime, Slice] = {}
    lacking: dict[datetime, list[Path]] = {}
    kept: dict[datetime, Kept] = {}
    for begin, folder in sorted(full.items()):
        found, parts = store.load(folder), parts_of(folder)
        sizes = {p.name: p.stat().st_size for p in parts}
        if found is not None and all(sizes.get(name) == size for name, size in found.parts.items()):
            kept[begin] = found
            known[begin] = found.slice
            parts = [p for p in parts if p.name not in found.parts]
        if parts:
            lacking[begin] = parts
    begins = list(lacking)
    for i in range(0, len(begins), HOURS_AT_ONCE):
        some = begins[i : i + HOURS_AT_ONCE]
        if len(begins) > HOURS_AT_ONCE:
            doing(f"profiling the log, hour {i + 1} of {len(begins)}")
        read = _scan(log, {b: lacking[b] for b in some}, Span(since=some[0], until=some[-1] + HOUR))
        for begin in some:
            known[begin] = _keep(store, full[begin], kept.get(begin), (read.get(begin, Slice()), lacking[begin]))
    return dict(sorted(known.items())), len(begins)


def _keep(store: HourStore, folder: Path, before: Kept | None, new: tuple[Slice, Sequence[Path]]) -> Slice:
    slice_, parts = new
    whole = add_up([before.slice, slice_]) if before else slice_
    if not slice_.unreadable:
        sizes = {p.name: p.stat().st_size for p in parts if p.is_file()}
        if len(sizes) == len(parts):
            store.save(folder, Kept(parts={**(before.parts if before else {}), **sizes}, slice=whole))
    return whole


# ---------------------------------------------------------------- reading


def _scan(log: Log, files: Mapping[datetime, Sequence[Path]], span: Span) -> dict[datetime, Slice]:
    """Read the files of some hours: the rows of the span, profiled hour by hour."""
    parts = [p for some in files.values() for p in some]
    if not parts:
        return {}
    kinds, segments = _kinds(log), list(log.reference.segments)
    columns = {*kinds, PREDICTION, *(segment.partition("=")[0] for segment in segments)}
    found: dict[datetime, list[Slice]] = {begin: [] for begin in files}
    hour_of = {part: begin for begin, some in files.items() for part in some}
    with connect() as connection:
        alike, unreadable = _alike(connection, parts, columns)
        for names, some in alike.items():
            lost = load_rows(connection, list(some), span, [*names, "ts"])
            unreadable += lost
            if len(lost) == len(some):
                continue
            there = {name: kind for name, kind in kinds.items() if name in names}
            for begin, slice_ in _slices(connection, log, there, segments, PREDICTION in names).items():
                found.setdefault(begin, []).append(slice_)
    for part in unreadable:
        found[hour_of[part]].append(Slice(unreadable=(part.name,)))
    return {begin: add_up(some) for begin, some in found.items() if some}


def _slices(
    connection: Any, log: Log, kinds: Mapping[str, str], segments: Iterable[str], predictions: bool
) -> dict[datetime, Slice]:
    by, like = "epoch_us(ts) // 3600000000", log.reference.profile
    versions: dict[int, dict[int, int]] = {}
    for hour, version, rows in connection.execute(
        f"SELECT {by}, version, count(*) FROM {WINDOW} GROUP BY 1, 2 ORDER BY 2"
    ).fetchall():
        versions.setdefault(int(hour), {})[-1 if version is None else int(version)] = int(rows)
    profiles = profile_groups(connection, WINDOW, kinds, like=like, by=by)
    answers: dict[int, Profile] = {}
    if predictions and PREDICTION in like.columns:
        answered = f"(SELECT * FROM {WINDOW} WHERE version = {log.version:d})"
        kind = {PREDICTION: like.columns[PREDICTION].kind}
        answers = profile_groups(connection, answered, kind, like=like, by=by)
    parts: dict[int, dict[str, Profile]] = {}
    for segment in segments:
        column, _, value = segment.partition("=")
        if column in kinds:
            rows_of = f"(SELECT * FROM {WINDOW} WHERE CAST({quoted(column)} AS VARCHAR) = {literal(value)})"
            others = {name: kind for name, kind in kinds.items() if name != column}
            for hour, profile in profile_groups(connection, rows_of, others, like=like, by=by).items():
                parts.setdefault(hour, {})[segment] = profile
    found = {}
    for hour, profile in profiles.items():
        whole = profile.with_column(PREDICTION, answers[hour].columns[PREDICTION]) if hour in answers else profile
        counted = {v: n for v, n in versions.get(hour, {}).items() if v >= 0}
        found[_begin(hour)] = Slice(rows=profile.rows, versions=counted, profile=whole, segments=parts.get(hour, {}))
    return found


def _begin(hour: int) -> datetime:
    from mlp_ci.data.plan import EPOCH

    return EPOCH + timedelta(hours=hour)


def _alike(
    connection: Any, parts: Sequence[Path], wanted: set[str]
) -> tuple[dict[frozenset[str], list[Path]], tuple[Path, ...]]:
    """The files by which of the wanted columns they have, and those that cannot be read at all."""
    import duckdb

    try:
        columns = _columns_of(connection, parts)
        unreadable: tuple[Path, ...] = ()
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error:
        # One broken file must not blind the monitor: read the others, and say which one was left out.
        readable = [p for p in parts if _readable(connection, p)]
        unreadable = tuple(p for p in parts if p not in readable)
        columns = _columns_of(connection, readable) if readable else {}
    alike: dict[frozenset[str], list[Path]] = {}
    for part in parts:
        if part not in unreadable:
            alike.setdefault(frozenset(columns.get(str(part), set()) & wanted), []).append(part)
    return alike, unreadable


def _columns_of(connection: Any, parts: Sequence[Path]) -> dict[str, set[str]]:
    names = ", ".join(literal(str(p)) for p in parts)
    found: dict[str, set[str]] = {}
    for file, name in connection.execute(f"SELECT file_name, name FROM parquet_schema([{names}])").fetchall():
        found.setdefault(str(file), set()).add(str(name))
    return found


def load_rows(connection: Any, parts: list[Path], span: Span, wanted: list[str]) -> tuple[Path, ...]:
    """Load the window's rows and watched columns; returns the files that could not be read."""
    import duckdb

    try:
        _read(connection, parts, span, wanted)
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error:
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
