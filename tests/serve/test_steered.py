"""A rollout that a person has a say in, or that has to do without knowing: what the driver does and what is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from mlp_ci import clock
from mlp_ci.serve.rollout import steps
from mlp_ci.serve.rollout.progress import Phase
from mlp_ci.serve.telling.standing import Standing, steps_of
from tests.serve.ground import ERRORS, Ground, prepared

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return prepared(tmp_path, monkeypatch)


def test_a_person_who_pauses_after_promoting_is_heard(ground: Ground) -> None:
    ground.roll()
    kept = ground.progress
    ground.target.keep(ground.place, replace(kept, ready=True, by="ann"), kept)
    kept = ground.progress
    ground.target.keep(ground.place, steps.paused(kept, "not yet", "bob"), kept)
    assert (ground.roll().phase, ground.weights) == (Phase.PAUSED, {1: 90, 2: 10})
    kept = ground.progress
    ground.target.keep(ground.place, steps.resumed(kept, clock.now()), kept)
    assert (ground.roll().phase, ground.weights) == (Phase.RUNNING, {1: 90, 2: 10}), "it goes on with its steps"


def test_a_step_that_waited_for_a_person_keeps_its_beginning(ground: Ground) -> None:
    ground.target.each = 10
    ground.roll(analysis=ERRORS)
    began = ground.progress.step_started
    kept = ground.progress
    ground.target.keep(ground.place, steps.paused(kept, "wait"), kept)
    ground.pass_time(timedelta(hours=5))
    kept = ground.progress
    ground.target.keep(ground.place, steps.resumed(kept, clock.now()), kept)
    assert ground.roll(analysis=ERRORS).phase is Phase.RUNNING
    assert ground.progress.current
    assert ground.progress.current.started == began, "what was counted came since then, so is its rate"


def test_what_is_not_defined_on_the_labels_is_waited_for(ground: Ground) -> None:
    """NaN is no other NaN: what is kept of a rollout has to be alike all the same."""
    ground.target.each = 100
    nowhere = {"roc_auc": (50, float("nan"), float("nan"))}
    ground.labels = lambda _stage, _since, _versions: {1: nowhere, 2: nowhere}
    for _ in range(2):
        driven = ground.roll(analysis=[{"metric": "roc_auc", "max_drop": 0.02}], seconds=0.05)
        assert (driven.phase, ground.weights) == (Phase.RUNNING, {1: 90, 2: 10})
        assert "not defined on the labels" in driven.findings[-1].message


def test_a_step_that_was_left_without_knowing_is_told_as_that(ground: Ground) -> None:
    assert ground.roll(on_insufficient="advance").phase is Phase.RUNNING
    ground.pass_time(timedelta(hours=2))
    done = ground.roll(on_insufficient="advance")
    assert [s.undecided for s in ground.progress.past] == [True]
    assert done.facts
    assert [s.standing for s in steps_of(done.facts)] == [Standing.UNDECIDED, Standing.HERE, Standing.AHEAD]
    kept = ground.progress
    ground.target.keep(ground.place, replace(kept, ready=True, by="ann"), kept)
    done = ground.roll()
    assert done.facts
    assert [s.standing for s in steps_of(done.facts)] == [Standing.UNDECIDED, Standing.UNDECIDED, Standing.LEFT_OUT]
