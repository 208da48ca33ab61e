"""Scheduled workflows: when their hour comes, once, and never for hours that were missed."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_ci import clock
from mlp_ci.sandbox.forge import events
from mlp_ci.sandbox.forge.access import open_forge
from mlp_ci.sandbox.forge.seed import Seed, SeedRepo, SeedUser, apply
from mlp_ci.sandbox.schedule import Scheduler, is_due

NOON = datetime(2013, 4, 1, 12, tzinfo=UTC)
FILES = {
    ".github/workflows/monitor.yml": b"on:\n  schedule: [{cron: '23 * * * *'}]\njobs: {}\n",
    ".github/workflows/broken.yml": b"on: [\n",
    ".github/workflows/odd.yml": b"on:\n  schedule: [{cron: 'every day'}]\njobs: {}\n",
}


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    (tmp_path / "clock").write_text(NOON.isoformat())
    monkeypatch.setenv(clock.ENV, str(tmp_path / "clock"))
    forge = open_forge(tmp_path / "forge")
    people = (SeedUser("carol", role="admin", token="t"),)
    apply(forge, Seed("acme", users=people, repos=(SeedRepo("model", files=FILES), SeedRepo("empty"))))
    events.take_events(forge.store)
    return Scheduler(forge)


def test_an_hour_that_comes_starts_its_workflows_once(scheduler: Scheduler) -> None:
    assert scheduler.look(NOON + timedelta(seconds=5)) == []
    for minute in range(1, 23):
        assert scheduler.look(NOON + timedelta(minutes=minute)) == []
    assert scheduler.look(NOON + timedelta(minutes=23, seconds=2)) == [("acme/model", "23 * * * *")]
    assert scheduler.look(NOON + timedelta(minutes=23, seconds=7)) == []
    waiting = events.take_events(scheduler._forge.store)
    assert [(e.event, e.payload["schedule"]) for e in waiting] == [("schedule", "23 * * * *")]


def test_a_clock_that_is_moved_makes_up_for_nothing(scheduler: Scheduler) -> None:
    assert scheduler.look(NOON + timedelta(days=30)) == []
    assert scheduler.look(NOON) == []
    assert scheduler.look(NOON + timedelta(minutes=1)) == []


@given(st.integers(0, 59), st.integers(0, 3599), st.integers(20, 600))
def test_looks_in_a_row_miss_nothing_and_repeat_nothing(minute: int, start: int, length: int) -> None:
    """However the looks are spaced, an hour that lies in exactly one of them is found by exactly that one."""
    since = NOON + timedelta(seconds=start)
    looks = [since + timedelta(seconds=length * i) for i in range(14400 // length + 2)]
    found = [b for a, b in itertools.pairwise(looks) if is_due(f"{minute} * * * *", a, b)]
    hours = (NOON + timedelta(hours=h, minutes=minute) for h in range(6))
    expected = [h for h in hours if looks[0] < h <= looks[-1]]
    assert len(found) == len(expected)
