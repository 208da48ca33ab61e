"""Packing the prediction log: fewer files, every row once, whatever happens on the way."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import duckdb
import pytest

from mlp_ci.monitor.packing import FEWEST_FILES, PACKED, pack
from mlp_ci.monitor.windows import Span, hours, log_parts, replaces_file

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2013, 4, 8, 12, 30, tzinfo=UTC)
DAY = Span(since=NOW - timedelta(days=1), until=NOW)


def write(log: Path, hour: int, number: int, columns: str = "0.5 AS prediction", *, age: float = 3600) -> Path:
    """A part with the rows ``hour * 1000 + number * 10 + (0..9)``, written ``age`` seconds ago."""
    folder = log / "toy" / "stage=production" / "date=2013-04-08" / f"hour={hour:02}"
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"part-{number:03}.parquet"
    first = hour * 1000 + number * 10
    duckdb.connect().execute(
        f"COPY (SELECT TIMESTAMP '2013-04-08 {hour:02}:05:00' AS ts, 'r' || ({first} + i) AS request_id, "
        f"3::INTEGER AS version, {columns} FROM range(10) t(i)) TO '{part}'"
    )
    os.utime(part, (time.time() - age, time.time() - age))
    return part


def ids(log: Path) -> list[str]:
    """The request ids that a look sees, with repetitions."""
    names = ", ".join(f"'{p}'" for p in log_parts(log, "toy", "production", DAY))
    found = duckdb.sql(f"SELECT request_id FROM read_parquet([{names}], union_by_name = true) ORDER BY 1").fetchall()
    return [name for (name,) in found]


def packed(log: Path) -> int:
    return pack(log, "toy", "production", DAY, NOW)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    for hour in (10, 11):
        for number in range(6):
            write(tmp_path, hour, number)
    return tmp_path


def test_closed_hours_become_one_file_each_with_all_rows(log: Path) -> None:
    for number in range(5):
        write(log, 12, number)  # the hour that runs
    before = ids(log)
    assert len(before) == 170
    assert packed(log) == 2
    assert ids(log) == before
    files = {h.name: [p.name for p in sorted(h.iterdir())] for _, h in hours(log, "toy", "production", DAY)}
    assert [len(files[f"hour={h}"]) for h in (10, 11, 12)] == [1, 1, 5]
    assert files["hour=10"][0].startswith("part-"), "who reads part-*.parquet by hand reads on"
    assert packed(log) == 0


def test_rows_that_come_late_are_packed_with_the_rest(log: Path) -> None:
    packed(log)
    for number in range(10, 14):
        write(log, 10, number, "0.5 AS prediction, 7 AS another")
    before = ids(log)
    assert packed(log) == 1
    assert ids(log) == before


def test_few_files_and_fresh_ones_are_left_alone(tmp_path: Path) -> None:
    for number in range(FEWEST_FILES - 1):
        write(tmp_path, 9, number)
    for number in range(9):
        write(tmp_path, 10, number, age=3600 if number else 5)
    assert packed(tmp_path) == 0
    assert len(ids(tmp_path)) == 10 * (FEWEST_FILES - 1 + 9)


def test_a_broken_file_leaves_its_hour_as_it_is(log: Path) -> None:
    broken = write(log, 10, 7)
    broken.write_bytes(b"PAR1 and then nothing")
    os.utime(broken, (0, 0))
    assert packed(log) == 1
    assert len(list(broken.parent.iterdir())) == 7


@pytest.mark.parametrize("moment", ["merging", "noted", "in place", "removing"])
def test_killed_at_any_moment_every_row_is_seen_once(log: Path, moment: str) -> None:
    """The folder as a call leaves it that is killed at this moment, and then the next call."""
    before = ids(log)
    folder = log / "toy" / "stage=production" / "date=2013-04-08" / "hour=10"
    parts = sorted(folder.glob("part-*.parquet"))
    final = folder / f"{PACKED}abc.parquet"
    scratch = folder / f".{final.name}"
    names = ", ".join(f"'{p}'" for p in parts)
    duckdb.sql(f"COPY (SELECT * FROM read_parquet([{names}])) TO '{scratch}'")
    if moment != "merging":
        replaces_file(final).write_text(json.dumps([p.name for p in parts]))
    if moment in ("in place", "removing"):
        scratch.replace(final)
    if moment == "removing":
        parts[0].unlink()
        parts[3].unlink()
    assert ids(log) == before
    assert packed(log) >= 1
    assert ids(log) == before
    assert len(list(folder.iterdir())) == 1 if moment != "in place" else True
    packed(log)
    assert ids(log) == before


def test_a_look_during_packing_sees_every_row_once(tmp_path: Path) -> None:
    for hour in range(12):
        for number in range(8):
            write(tmp_path, hour, number)
    before, wrong, done = ids(tmp_path), list[int](), threading.Event()

    def look() -> None:
        while not done.is_set():
            parts = log_parts(tmp_path, "toy", "production", DAY)
            try:
                names = ", ".join(f"'{p}'" for p in parts)
                rows = duckdb.connect().execute(f"SELECT count(*) FROM read_parquet([{names}])").fetchone()
            except duckdb.Error:
                rows = None
            if rows is not None and rows[0] != len(before) and all(p.exists() for p in parts):
                wrong.append(rows[0])

    looking = threading.Thread(target=look)
    looking.start()
    assert packed(tmp_path) == 12
    done.set()
    looking.join()
    assert not wrong
    assert ids(tmp_path) == before


def test_two_at_once_and_no_log(log: Path, tmp_path: Path) -> None:
    with (log / "toy" / "stage=production" / ".packing.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert packed(log) == 0
    assert packed(log) == 2
    assert pack(tmp_path, "toy", "staging", DAY, NOW) == 0
    assert not (tmp_path / "toy" / "stage=staging").exists()


def test_what_a_killed_look_left_half_written_is_cleared_away(log: Path) -> None:
    folder = log / "toy" / "stage=production" / "date=2013-04-08" / "hour=10"
    old, fresh = folder / ".profile-v3-abc.json.1.part", folder / ".profile-v3-abc.json.2.part"
    for scratch in (old, fresh):
        scratch.write_text("{")
    os.utime(old, (0, 0))
    packed(log)
    assert (old.exists(), fresh.exists()) == (False, True), "another look may be writing the fresh one"
