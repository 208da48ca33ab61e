"""Windows back in time: as long as the one that is judged, without gaps, and no further than makes sense."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_ci.data.drift.calibration import SCALES
from mlp_ci.monitor.look import Log
from mlp_ci.monitor.timeline import LONGEST, MOST_WINDOWS, missed, spans_back
from mlp_ci.monitor.verdict import Past
from mlp_ci.monitor.windows import Span

NOW = datetime(2013, 4, 8, tzinfo=UTC)
DAY = timedelta(days=1)


def log(folder: Path, first: datetime | None) -> Log:
    if first:
        (folder / "toy" / "stage=production" / f"date={first:%Y-%m-%d}" / f"hour={first:%H}").mkdir(parents=True)
    unused = cast(Any, None)
    return Log(folder=folder, model="toy", stage="production", version=1, reference=unused, data=unused, now=NOW)


def test_a_log_that_is_empty_or_younger_has_one_window(tmp_path: Path) -> None:
    span = Span(since=NOW - 7 * DAY, until=NOW)
    assert spans_back(log(tmp_path, None), span, 2) == [span]
    assert spans_back(log(tmp_path, NOW - 2 * DAY), span, 2) == [span]


def test_windows_go_back_to_the_first_hour_of_the_log(tmp_path: Path) -> None:
    found = spans_back(log(tmp_path, NOW - 16 * DAY), Span(since=NOW - 7 * DAY, until=NOW), 2)
    assert [(NOW - s.until).days for s in found] == [0, 7, 14]


@settings(max_examples=50, deadline=None)
@given(minutes=st.integers(1, 60 * 24 * 60), offset=st.integers(0, 59), persistence=st.integers(1, 12))
def test_windows_are_whole_hours_without_a_gap(
    tmp_path_factory: pytest.TempPathFactory, minutes: int, offset: int, persistence: int
) -> None:
    until = NOW - timedelta(minutes=offset)
    span = Span(since=until - timedelta(minutes=minutes), until=until)
    found = spans_back(log(tmp_path_factory.mktemp("log"), NOW - 2000 * DAY), span, persistence)
    assert found[0] is span
    assert found[0].since - found[1].until < timedelta(hours=1)
    assert all(newer.since == older.until for newer, older in itertools.pairwise(found[1:]))
    assert len({s.until - s.since for s in found[1:]}) == 1
    assert all((s.since.minute, s.since.second) == (0, 0) for s in found[1:])
    needed = max(2 * persistence, SCALES[-1])
    assert needed <= len(found) <= max(MOST_WINDOWS, needed)
    assert len(found) == needed or sum((s.until - s.since for s in found[1:]), timedelta()) <= LONGEST


def test_an_alarm_is_missed_where_nobody_looked_at_its_end_or_later() -> None:
    past = Past(span=Span(since=NOW - DAY, until=NOW), rows=9, outcome="alarm", psi={}, drifted=("x",), suspected=())
    assert missed(past, NOW - timedelta(hours=1))
    assert not missed(past, NOW)
    assert not missed(past, None), "before the first look there was nobody to miss it"
