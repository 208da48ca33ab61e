"""The clock: real, still, or going on from another time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlp_ci import clock
from mlp_ci.errors import InputError


def test_without_a_file_it_is_the_real_time() -> None:
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_an_instant_alone_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "clock"
    file.write_text("2013-04-01T06:00:00+00:00\n")
    monkeypatch.setenv(clock.ENV, str(file))
    assert clock.now() == clock.now() == datetime(2013, 4, 1, 6, tzinfo=UTC)


def test_a_moved_clock_goes_on_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "clock"
    monkeypatch.setenv(clock.ENV, str(file))
    clock.set_instant(file, datetime(2013, 4, 1, tzinfo=UTC))
    first = clock.now()
    assert timedelta(0) <= first - datetime(2013, 4, 1, tzinfo=UTC) < timedelta(minutes=1)
    assert clock.now() > first


@pytest.mark.parametrize("text", ["yesterday", "2013-13-01", ""])
def test_what_is_no_date_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError) as caught:
        clock.parse_instant(text)
    assert "2026-01-31" in caught.value.fix


def test_dates_without_a_zone_are_utc() -> None:
    assert clock.parse_instant("2013-04-01") == datetime(2013, 4, 1, tzinfo=UTC)
    assert clock.parse_instant("2013-04-01T02:00:00+02:00") == datetime(2013, 4, 1, tzinfo=UTC)
