"""What the prediction log says about windows of time, as profiles in the bins of the live version's reference.

Full hours are profiled once and kept (:mod:`mlp_ci.monitor.hours`); windows are added up from them. Only what is not
kept yet, and the broken hours at the ends of a window, is read. Memory does not depend on the number of rows: DuckDB
spills what it cannot hold.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mlp_ci.data.engines.duck import connect
from mlp_ci.data.engines.duck_sql import literal, quoted
from mlp_ci.data.plan import microseconds
from mlp_ci.data.profiles.profile import PREDICTION, Profile, watched
from mlp_ci.data.profiles.profiling import profile_groups
from mlp_ci.monitor.hours import HourStore, Kept, Slice, add_up, sizes_of
from mlp_ci.monitor.windows import Span, hours, parts_of
from mlp_ci.progress import doing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from mlp_ci.data.drift.reference import Reference
    from mlp_ci.spec.data import Data

WINDOW = "window_rows"
HOUR = timedelta(hours=1)
# Hours that are read together: their rows lie in memory, or on disk, at the same time.
HOURS_AT_ONCE = 48
# Packing may replace files between listing and reading them; then the hour is listed again. Files that can be read one
# by one but not together are tried again as often.
ATTEMPTS = 6
OWN = {"ts", "version"}


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
    whole = Span(since=min(s.since for s in spans), until=max(s.until for s in spans))
    there = list(hours(log.folder, log.model, log.stage, whole))
    full = {begin: folder for begin, folder in there if any(_is_full(begin, span, log.now) for span in spans)}
    known, read = _known_hours(log, full)
    looks = []
    for span in spans:
        inside = [(b, folder) for b, folder in there if b < span.until and b + HOUR > span.since]
        slices = [known[b] for b, _ in inside if b in known and _is_full(b, span, log.now)]
        slices += [_broken(log, b, folder, span) for b, folder in inside if not _is_full(b, span, log.now)]
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


def _known_hours(log: Log, full: Mapping[datetime, Path]) -> tuple[dict[datetime, Slice], int]:
    """Every full hour's slice: as it was kept, with what came later added, or made now and kept."""
    store = _store(log)
    known: dict[datetime, Slice] = {}
    read: set[datetime] = set()
    pending = dict(sorted(full.items()))
    for attempt in range(ATTEMPTS):
        again: dict[datetime, Path] = {}
        lacking: dict[datetime, _Lacking] = {}
        for begin, folder in pending.items():
            found = _lacking(store, folder)
            if found.parts:
                lacking[begin] = found
            elif found.kept:
                known[begin] = found.kept.slice
        for begin, new in _scan_in_turn(log, {b: list(found.parts) for b, found in lacking.items()}):
            if attempt + 1 < ATTEMPTS and not all(p.exists() for p in lacking[begin].parts):
                again[begin] = pending[begin]
            else:
                known[begin] = _keep(store, pending[begin], lacking[begin], new)
        read |= lacking.keys()
        pending = again
    return known, len(read)


def _store(log: Log) -> HourStore:
    """What is kept holds for one version, its reference, and the columns that model.yaml lets one look at."""
    text = json.dumps([log.reference.digest(), _kinds(log)], sort_keys=True)
    return HourStore(log.version, log.reference.profile, hashlib.sha256(text.encode()).hexdigest())


@dataclass(frozen=True, kw_only=True)
class _Lacking:
    """What is kept of an hour, and the files (with their bytes) that it does not cover."""

    kept: Kept | None
    parts: Mapping[Path, int]


def _lacking(store: HourStore, folder: Path) -> _Lacking:
    kept, sizes = store.load(folder), sizes_of(folder)
    by_name = {part.name: size for part, size in sizes.items()}
    # Where the rows were thrown away, what is kept of them still holds; where others took their place, it does not.
    if kept is None or (sizes and any(by_name.get(name) != size for name, size in kept.parts.items())):
        return _Lacking(kept=None, parts=sizes)
    return _Lacking(kept=kept, parts={part: size for part, size in sizes.items() if part.name not in kept.parts})


def _scan_in_turn(log: Log, files: Mapping[datetime, Sequence[Path]]) -> Iterator[tuple[datetime, Slice]]:
    """Read the hours, so many at once as may lie in memory."""
    begins = list(files)
    for i in range(0, len(begins), HOURS_AT_ONCE):
        some = begins[i : i + HOURS_AT_ONCE]
        if len(begins) > HOURS_AT_ONCE:
            doing(f"profiling the log, hour {i + 1} of {len(begins)}")
        found = _scan(log, {b: files[b] for b in some}, Span(since=some[0], until=some[-1] + HOUR))
        yield from ((begin, found.get(begin, Slice())) for begin in some)


def _keep(store: HourStore, folder: Path, before: _Lacking, new: Slice) -> Slice:
    """Keep what could be read: a file that could not is tried again by the next look, and only that."""
    whole = add_up([before.kept.slice, new]) if before.kept else new
    names = before.kept.parts if before.kept else {}
    readable = {part.name: size for part, size in before.parts.items() if _shown(part) not in new.unreadable}
    if readable and all(part.exists() for part in before.parts):
        store.save(folder, Kept(parts={**names, **readable}, slice=whole))
    return whole


def _broken(log: Log, begin: datetime, folder: Path, span: Span) -> Slice:
    """The rows of an hour that is not over, or of which only a part is asked for."""
    found = Slice()
    for _ in range(ATTEMPTS):
        parts = parts_of(folder)
        found = _scan(log, {begin: parts}, span).get(begin, Slice())
        if all(part.exists() for part in parts):
            break
    return found


def _shown(part: Path) -> str:
    """A file of the log as a person finds it."""
    return "/".join(part.parts[-3:])


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
                if begin in found:  # rows outside the hour of their folder are nobody's
                    found[begin].append(slice_)
    for part in unreadable:
        found[hour_of[part]].append(Slice(unreadable=(_shown(part),)))
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
    """The files by which of the wanted columns they have, and those that cannot be read as a part of the log."""
    columns: dict[str, set[str]] = {}
    _all_that_can(connection, parts, lambda some: columns.update(_columns_of(connection, some)))
    alike: dict[frozenset[str], list[Path]] = {}
    for part in parts:
        there = columns.get(str(part), set())
        if there >= OWN:
            alike.setdefault(frozenset(there & wanted), []).append(part)
    return alike, tuple(p for p in parts if not columns.get(str(p), set()) >= OWN)


def _columns_of(connection: Any, parts: Sequence[Path]) -> dict[str, set[str]]:
    """The columns of each file, not the fields inside of them: the schema comes as a tree, each node before its own."""
    names = ", ".join(literal(str(p)) for p in parts)
    found: dict[str, set[str]] = {}
    inside: dict[str, int] = {}  # nodes to come that lie in a column
    table = connection.execute(f"SELECT file_name, name, coalesce(num_children, 0) FROM parquet_schema([{names}])")
    for file, name, children in table.fetchall():
        if file not in found:
            found[file], inside[file] = set(), 0  # the root
            continue
        if not inside[file]:
            found[file].add(name)
            inside[file] = 1
        inside[file] += int(children) - 1
    return found


def load_rows(connection: Any, parts: list[Path], span: Span, wanted: list[str]) -> tuple[Path, ...]:
    """Load the window's rows and watched columns; returns the files that could not be read."""
    readable = _all_that_can(connection, parts, lambda some: _read(connection, some, span, wanted))
    return tuple(p for p in parts if p not in readable)


def _all_that_can(connection: Any, parts: Sequence[Path], read: Callable[[list[Path]], object]) -> list[Path]:
    """Read the files at once, without those that cannot be: one broken file must not blind the monitor.

    Others may be replaced while these are tried, so a failure that a lost file explains is no attempt.
    """
    import duckdb

    readable, unexplained = list(parts), 0
    while readable and unexplained < ATTEMPTS:
        try:
            read(readable)
            return readable
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error:
            still = [p for p in readable if _readable(connection, p)]
            unexplained += len(still) == len(readable)
            readable = still
    return []


def _read(connection: Any, parts: list[Path], span: Span, wanted: list[str]) -> None:
    source = (
        f"read_parquet([{', '.join(literal(str(p)) for p in parts)}], union_by_name = true, hive_partitioning = false)"
    )
    names = [str(name) for name, *_ in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
    chosen = ", ".join(quoted(name) for name in names if name in {*wanted, "version"})
    inside = f"epoch_us(ts) >= {microseconds(span.since)} AND epoch_us(ts) < {microseconds(span.until)}"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {WINDOW} AS SELECT {chosen} FROM {source} WHERE {inside}")


def _readable(connection: Any, part: Path) -> bool:
    """Whether all of a file can be read, and has times and versions."""
    import duckdb

    source = f"read_parquet({literal(str(part))}, hive_partitioning = false)"
    try:
        connection.execute(
            f"SELECT count(epoch_us(ts)), count(CAST(version AS INTEGER)), count(COLUMNS(*)) FROM {source}"
        ).fetchall()
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error:
        return False
    return True
