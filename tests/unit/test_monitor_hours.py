"""The kept profiles of the log's hours: nothing is read twice, and what is kept says what the rows said."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlp_ci.data.drift.reference import Reference, reference_of
from mlp_ci.data.profiles.profile import profile_values
from mlp_ci.data.profiles.shapes import CategoryProfile, NumberProfile
from mlp_ci.monitor.hours import PREFIX
from mlp_ci.monitor.look import Log, Look, look_at
from mlp_ci.monitor.packing import pack
from mlp_ci.monitor.windows import Span
from mlp_ci.spec.data import Data

NOW = datetime(2013, 4, 8, 12, tzinfo=UTC)
DAY = Span(since=NOW - timedelta(days=1), until=NOW)
COLUMNS: dict[str, Any] = {
    "id": {"type": "int"},
    "distance": {"type": "float"},
    "carrier": {"type": "string"},
    "plane": {"type": "string"},
    "late": {"type": "int"},
}
ROWS = (
    "SELECT {first} + i AS id, i % 2 AS late, sin(({first} + i) * 12.9898) * 10 AS distance, "
    "['UA', 'AA', 'DL'][({first} + i) % 3 + 1] AS carrier, 'N' || (({first} + i) * 7 % 400) AS plane, "
    "0.5 + 0.4 * cos(({first} + i) * 78.233) AS prediction FROM range({rows}) t(i)"
)


def data(**columns: dict[str, Any]) -> Data:
    both = {**COLUMNS, **columns}
    return Data.model_validate(
        {"train": "a.parquet", "test": "b.parquet", "key": ["id"], "target": "late", "columns": both}
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    file = tmp_path_factory.mktemp("reference") / "train.parquet"
    duckdb.connect().execute(f"COPY ({ROWS.format(first=0, rows=5000)}) TO '{file}'")
    predictions = duckdb.connect().execute(f"SELECT prediction FROM '{file}'").fetchnumpy()["prediction"]
    return reference_of([file], data(), timedelta(days=1), ["carrier"]).with_predictions(profile_values(predictions))


def write(folder: Path, at: datetime, rows: int, *, first: int = 0, version: int = 3, without: str = "") -> Path:
    """Add a file to the log; its rows lie between ``at`` and the end of that hour."""
    hour = folder / "toy" / "stage=production" / f"date={at:%Y-%m-%d}" / f"hour={at:%H}"
    hour.mkdir(parents=True, exist_ok=True)
    part = hour / f"part-{len(list(hour.glob('part-*'))):03}.parquet"
    left = (at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1) - at).total_seconds()
    stamp = f"TIMESTAMP '{at:%Y-%m-%d %H:%M:%S}' + INTERVAL (i * {left / max(1, rows):.6f}) SECOND AS ts"
    numbered = f"SELECT *, row_number() OVER () - 1 AS i FROM ({ROWS.format(first=first, rows=rows)})"
    select = f"SELECT {stamp}, {version}::INTEGER AS version, * EXCLUDE (late, i{without}) FROM ({numbered})"
    duckdb.connect().execute(f"COPY ({select}) TO '{part}'")
    return part


def log(folder: Path, reference: Reference, *, version: int = 3, model: Data | None = None) -> Log:
    known = model or data()
    return Log(
        folder=folder, model="toy", stage="production", version=version, reference=reference, data=known, now=NOW
    )


def look(folder: Path, reference: Reference, span: Span = DAY, **more: Any) -> Look:
    return look_at(log(folder, reference, **more), [span])[0]


def said(found: Look) -> dict[str, Any]:
    """All that a look says and that adding up keeps exactly: rows, counts and extremes, of all and of each segment."""
    profiles = {"": found.profile, **{name: p for name, p in found.segments.items() if p.rows}}
    columns = {
        (segment, name): (c.count, c.nulls, c.counts, getattr(c, "tail", ()), *extremes(c))
        for segment, profile in profiles.items()
        for name, c in profile.columns.items()
        if isinstance(c, NumberProfile | CategoryProfile) and c.count + c.nulls
    }
    return {"rows": found.rows, "versions": found.versions, "columns": columns, "unreadable": found.unreadable}


def extremes(column: NumberProfile | CategoryProfile) -> tuple[Any, ...]:
    return (column.smallest, column.largest) if isinstance(column, NumberProfile) else ()


def parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob("part-*.parquet"))


def kept(folder: Path) -> list[Path]:
    return sorted(folder.rglob(f"{PREFIX}*.json"))


def spoil(files: list[Path]) -> None:
    """Make files unreadable that keep their names and sizes."""
    for file in files:
        file.write_bytes(b"\0" * file.stat().st_size)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six hours, two files each."""
    for hour in range(1, 7):
        for number in range(2):
            write(tmp_path, NOW - timedelta(hours=hour), 300, first=hour * 1000 + number * 300)
    return tmp_path


# ---------------------------------------------------------------- never twice


def test_an_hour_is_read_once(folder: Path, reference: Reference) -> None:
    first = look(folder, reference)
    assert (first.rows, first.read) == (3600, 6)
    spoil(parts(folder))
    again = look(folder, reference)
    assert again.read == 0
    assert said(again) == said(first)


def test_windows_that_overlap_share_their_hours(folder: Path, reference: Reference) -> None:
    look(folder, reference)
    spoil(parts(folder))
    shorter = look(folder, reference, Span(since=NOW - timedelta(hours=3), until=NOW))
    assert (shorter.rows, shorter.read) == (1800, 0)


def test_of_an_hour_with_a_late_file_only_that_is_read(folder: Path, reference: Reference) -> None:
    first = look(folder, reference)
    spoil(parts(folder))
    write(folder, NOW - timedelta(hours=3), 50, first=9000)
    late = look(folder, reference)
    assert (late.rows, late.read, late.unreadable) == (first.rows + 50, 1, ())
    spoil(parts(folder))
    assert said(look(folder, reference)) == said(late)


def test_rows_that_were_thrown_away_are_remembered(folder: Path, reference: Reference) -> None:
    first = look(folder, reference)
    for part in parts(folder):
        part.unlink()
    assert said(look(folder, reference)) == said(first)


def test_a_file_that_others_took_the_place_of_is_not_counted_twice(folder: Path, reference: Reference) -> None:
    """Somebody merged an hour's files with a tool of their own."""
    first = look(folder, reference)
    hour = parts(folder)[0].parent
    inside = sorted(hour.glob("part-*.parquet"))
    duckdb.connect().execute(f"COPY (SELECT * FROM '{hour}/part-*.parquet') TO '{hour}/part-merged.parquet'")
    for part in inside:
        part.unlink()
    again = look(folder, reference)
    assert (again.rows, again.read) == (first.rows, 1)


def test_the_hour_that_runs_is_not_kept(tmp_path: Path, reference: Reference) -> None:
    write(tmp_path, NOW - timedelta(hours=1), 100)
    now = NOW - timedelta(minutes=20)
    running = replace(log(tmp_path, reference), now=now)
    assert look_at(running, [Span(since=DAY.since, until=now)])[0].rows == 67
    assert kept(tmp_path) == []
    assert look(tmp_path, reference).rows == 100


def test_packing_leaves_what_is_kept_valid(tmp_path: Path, reference: Reference) -> None:
    for number in range(8):
        write(tmp_path, NOW - timedelta(hours=3), 50, first=number * 50)
    for part in parts(tmp_path):
        os.utime(part, (0, 0))
    first, other = look(tmp_path, reference), look(tmp_path, reference, version=2)
    assert pack(tmp_path, "toy", "production", DAY, NOW) == 1
    assert len(parts(tmp_path)) == 1
    spoil(parts(tmp_path))
    again = look(tmp_path, reference)
    assert (again.read, said(again)) == (0, said(first))
    assert said(look(tmp_path, reference, version=2)) == said(other)


def test_killed_before_the_kept_profile_followed_the_packing(tmp_path: Path, reference: Reference) -> None:
    for number in range(3):
        write(tmp_path, NOW - timedelta(hours=3), 50, first=number * 50)
    first = look(tmp_path, reference)
    hour = parts(tmp_path)[0].parent
    names = [part.name for part in parts(tmp_path)]
    packed = hour / "part-packed-abc.parquet"
    duckdb.connect().execute(f"COPY (SELECT * FROM '{hour}/part-0*.parquet') TO '{packed}'")
    (hour / ".part-packed-abc.replaces.json").write_text(json.dumps(names))
    assert said(look(tmp_path, reference)) == said(first)
    pack(tmp_path, "toy", "production", DAY, NOW)
    assert parts(tmp_path) == [packed]
    spoil([packed])
    assert said(look(tmp_path, reference)) == said(first)


# ---------------------------------------------------------------- what cannot be used


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another format": lambda v: {**v, "format": "mlp-ci/hour/v9"},
    "no mapping": lambda _: [1, 2, 3],
    "negative": lambda v: {**v, "rows": -5},
    "no profile": lambda v: {k: x for k, x in v.items() if k != "profile"},
    "unknown column": lambda v: {**v, "profile": {**v["profile"], "columns": {"ghost": {}}}},
    "bins of others": lambda v: _with_bins(v, [5000, 1]),
    "half a bin": lambda v: _with_bins(v, [0.5, 1]),
    "odd bins": lambda v: _with_bins(v, [1]),
    "truth for a count": lambda v: _with_bins(v, [0, True]),
    "does not add up": lambda v: _with_bins(v, [0, 1]),
    "text for sizes": lambda v: {**v, "parts": dict.fromkeys(v["parts"], "big")},
}


def _with_bins(value: dict[str, Any], bins: list[Any]) -> dict[str, Any]:
    columns = value["profile"]["columns"]
    changed = {**columns, "distance": {**columns["distance"], "bins": bins}}
    return {**value, "profile": {**value["profile"], "columns": changed}}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_profile_is_made_anew(folder: Path, reference: Reference, damage: str) -> None:
    first = look(folder, reference)
    for file in kept(folder):
        file.write_text(json.dumps(DAMAGES[damage](json.loads(file.read_text()))))
    again = look(folder, reference)
    assert (again.read, said(again)) == (6, said(first))
    assert look(folder, reference).read == 0


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_a_file_that_is_no_profile_is_made_anew(folder: Path, reference: Reference, content: bytes) -> None:
    first = look(folder, reference)
    for file in kept(folder):
        file.write_bytes(content)
    assert said(look(folder, reference)) == said(first)
    assert look(folder, reference).read == 0


def test_where_nothing_can_be_kept_the_look_is_the_same(folder: Path, reference: Reference) -> None:
    """A folder stands where the file would be written: refused for every user, as in a log that may only be read."""
    first = look(folder, reference)
    for file in kept(folder):
        file.unlink()
        file.mkdir()
    again = look(folder, reference)
    assert (again.read, said(again)) == (6, said(first))
    assert not list(folder.rglob("*.part"))


def test_another_version_or_reference_or_choice_of_columns_has_its_own(folder: Path, reference: Reference) -> None:
    first = look(folder, reference)
    assert look(folder, reference, version=2).read == 6
    assert look(folder, reference, version=2).profile.columns.get("prediction") is None
    smaller = replace(reference, segments={})
    assert look(folder, smaller).read == 6
    hidden = data(carrier={"type": "string", "sensitive": True})
    found = look(folder, reference, model=hidden)
    assert (found.read, "carrier" in found.profile.columns, dict(found.segments)) == (6, False, {})
    assert (look(folder, reference).read, look(folder, reference, model=hidden).read) == (0, 0)
    assert said(look(folder, reference)) == said(first)


# ---------------------------------------------------------------- files that are not all alike


def test_a_broken_file_is_tried_again_and_nothing_else(folder: Path, reference: Reference) -> None:
    first = look(folder, reference)
    good = parts(folder)
    broken = write(folder, NOW - timedelta(hours=2), 80, first=9000)
    whole = broken.read_bytes()
    broken.write_bytes(b"PAR1 and then nothing")
    for _ in range(2):
        found = look(folder, reference)
        assert (found.rows, found.read) == (first.rows, 1)
        assert found.unreadable == (f"date=2013-04-08/hour=10/{broken.name}",)
        spoil(good)
    broken.write_bytes(whole)
    mended = look(folder, reference)
    assert (mended.rows, mended.read, mended.unreadable) == (first.rows + 80, 1, ())


def test_a_column_that_an_older_version_did_not_log_is_not_null(tmp_path: Path, reference: Reference) -> None:
    write(tmp_path, NOW - timedelta(hours=3), 200, version=2, without=", carrier")
    write(tmp_path, NOW - timedelta(hours=3), 100, first=500)
    write(tmp_path, NOW - timedelta(hours=2), 400, version=2, without=", carrier, prediction")
    for _ in range(2):  # as read, and as kept
        found = look(tmp_path, reference)
        columns = {name: (c.count, c.nulls) for name, c in found.profile.columns.items()}
        assert columns == {"distance": (700, 0), "plane": (700, 0), "carrier": (100, 0), "prediction": (100, 0)}
        assert (found.absent, sum(p.rows for p in found.segments.values())) == ((), 100)
        spoil(parts(tmp_path))


def test_segments_are_kept_with_the_hour(folder: Path, reference: Reference) -> None:
    first = look(folder, reference)
    assert {name: p.rows for name, p in first.segments.items()} == {f"carrier={c}": 1200 for c in ("UA", "AA", "DL")}
    assert set(first.segments["carrier=UA"].columns) == {"distance", "plane"}
    spoil(parts(folder))
    assert look(folder, reference).segments == first.segments


# ---------------------------------------------------------------- several at once


def test_two_monitors_at_once_say_the_same(folder: Path, reference: Reference) -> None:
    alone = look(folder, reference)
    for file in kept(folder):
        file.unlink()
    found: list[Look] = []
    threads = [threading.Thread(target=lambda: found.append(look(folder, reference))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [said(f) for f in found] == [said(alone)] * 3
    assert look(folder, reference).read == 0
    assert not list(folder.rglob("*.part"))


def test_a_look_while_another_packs_loses_no_row_and_blames_no_file(tmp_path: Path, reference: Reference) -> None:
    for hour in range(1, 9):
        for number in range(6):
            os.utime(write(tmp_path, NOW - timedelta(hours=hour), 20, first=number * 20), (0, 0))
    found: list[Look] = []
    packing = threading.Thread(target=lambda: pack(tmp_path, "toy", "production", DAY, NOW))
    packing.start()
    while True:
        busy = packing.is_alive()
        for file in kept(tmp_path):
            file.unlink(missing_ok=True)
        found.append(look(tmp_path, reference))
        if not busy:
            break
    packing.join()
    assert {(f.rows, f.unreadable) for f in found} == {(960, ())}


# ---------------------------------------------------------------- kept and read are the same


hours_of_rows = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 59), st.integers(1, 40), st.sampled_from([2, 3]), st.booleans()),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=hours_of_rows, late=hours_of_rows, begin=st.integers(0, 300), length=st.integers(1, 480))
def test_kept_hours_add_up_to_what_one_reading_of_all_rows_says(
    reference: Reference,
    tmp_path_factory: pytest.TempPathFactory,
    files: list[tuple[int, int, int, int, bool]],
    late: list[tuple[int, int, int, int, bool]],
    begin: int,
    length: int,
) -> None:
    """Whatever the files, however late, for windows that begin and end within an hour."""
    folder = tmp_path_factory.mktemp("log")
    start = NOW - timedelta(hours=8)
    since = start + timedelta(minutes=begin)
    spans = [Span(since=since, until=min(NOW, since + timedelta(minutes=length))), Span(since=start, until=NOW)]
    draw = random.Random(begin)

    def add(these: list[tuple[int, int, int, int, bool]]) -> None:
        for hour, minute, rows, version, narrow in these:
            at = start + timedelta(hours=hour, minutes=minute)
            lacking = ", carrier" if narrow else ""
            write(folder, at, rows, first=draw.randrange(10_000), version=version, without=lacking)

    add(files)
    look_at(log(folder, reference), spans[:1])
    add(late)
    from_kept = look_at(log(folder, reference), spans)
    for file in kept(folder):
        file.unlink()
    at_once = look_at(log(folder, reference), spans)
    assert [said(f) for f in from_kept] == [said(f) for f in at_once]
    for ours, theirs in zip(from_kept, at_once, strict=True):
        for name, column in ours.profile.columns.items():
            if isinstance(column, NumberProfile):
                other = theirs.profile.columns[name]
                assert isinstance(other, NumberProfile)
                assert column.mean == pytest.approx(other.mean, abs=1e-9)
                assert column.deviation == pytest.approx(other.deviation, abs=1e-6)
