"""What is promised of a rollout holds for every strategy, wherever versions run."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from mlp_ci.errors import InputError, RolloutAborted
from mlp_ci.serve.rollout.driving import roll_out
from mlp_ci.serve.rollout.ending import Failed
from mlp_ci.serve.rollout.progress import Phase
from mlp_ci.serve.rollout.standing import facts
from mlp_ci.serve.state import Arm
from mlp_ci.serve.targets import Why
from mlp_ci.serve.telling.ended import evidence
from mlp_ci.serve.telling.page import page
from mlp_ci.spec.serve import Rollout
from tests.pages import read
from tests.serve.conformance.stands import ROLLOUTS, Killed, Mortal, People
from tests.serving import slowness

if TYPE_CHECKING:
    from mlp_ci.serve.state import Place
    from tests.serve.conformance.stands import Stand

# The first container of a process waits for its image.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
COMPARED = ("canary", "ab", "shadow")
WATCH = 90.0


def all_on(version: int) -> list[Arm]:
    return [Arm(version=version, weight=100)]


@pytest.mark.parametrize("strategy", list(ROLLOUTS))
def test_a_strategy_from_the_first_version_to_the_rollback(stand: Stand, strategy: str) -> None:
    place = stand.place(strategy)
    first = roll_out(stand.target, place, stand.plan(stand.release(1), strategy, ask=True))
    assert first.phase is Phase.DONE
    assert stand.target.arms(place) == all_on(1)
    with People(stand.address(place)) as people:
        goes_through(stand, place, strategy)
        is_stopped(stand, place, strategy, people)
        goes_back(stand, place)
    assert people.statuses[200] > 500
    # Whatever failed was answered by the broken version, as it must where people meet it.
    assert people.failed == people.failed_at["3"], people.statuses


def goes_through(stand: Stand, place: Place, strategy: str) -> None:
    """A good version comes in: left in the middle, seen from outside, and gone on with."""
    release = stand.release(2)
    driven = roll_out(stand.target, place, stand.plan(release, strategy, ask=True))
    if strategy in COMPARED:
        assert driven.phase is Phase.RUNNING
        kept = stand.target.progress(place)
        assert kept is not None
        assert (kept.version, kept.stable, kept.step, kept.strategy) == (2, 1, 0, strategy)
        rollout = Rollout.model_validate({"strategy": strategy, **ROLLOUTS[strategy]})
        assert stand.target.arms(place)[1] == Arm(
            version=2, weight=rollout.weights[0], arm="shadow" if strategy == "shadow" else "canary"
        )
        told = facts(stand.target, place, rollout, datetime.now(UTC))
        assert "What comes next" in read(page(told)).headings
        driven = roll_out(stand.target, place, stand.plan(release, strategy, seconds=WATCH, ask=True))
        with pytest.raises(RolloutAborted):  # a second controller that still believes what it read
            stand.target.keep(place, replace(kept, why="late"), kept)
    assert driven.phase is Phase.DONE, driven.findings
    assert stand.target.arms(place) == all_on(2)
    fact = stand.target.live(place)
    assert fact is not None
    assert (fact.version, fact.previous, fact.running) == (2, 1, True)
    assert stand.target.healthy(place, 1)  # kept warm


def is_stopped(stand: Stand, place: Place, strategy: str, people: People) -> None:
    """A version that fails people is taken away; where nothing is compared, the smoke file stops it before."""
    broken = stand.release(3, broken=True)
    if strategy in COMPARED:
        with pytest.raises(Failed) as stopped:
            roll_out(stand.target, place, stand.plan(broken, strategy, seconds=WATCH))
        assert stopped.value.exit_code == 6
        assert stopped.value.reversal.held.digest == broken.digest
        assert stopped.value.facts is not None
        written = evidence(stopped.value.facts)
        assert "| errors | ✗ fail |" in written
        assert broken.digest in written
        assert broken.digest in {h.digest for h in stand.target.held(place)}
        with pytest.raises(RolloutAborted):  # no schedule brings it up again
            roll_out(stand.target, place, stand.plan(broken, strategy))
    else:
        with pytest.raises(InputError, match="smoke"):
            roll_out(stand.target, place, stand.plan(broken, strategy, ask=True))
    assert stand.target.arms(place) == all_on(2)
    assert not stand.target.healthy(place, 3)
    if strategy not in ("canary", "ab"):
        assert people.versions["3"] == 0  # nobody ever met it
        assert people.failed == 0
    if strategy == "ab":  # nobody was sent to and fro: every version is met in one stretch, the broken one at most once
        assert all(len(met) <= 4 for met in people.changes.values()), people.changes


def goes_back(stand: Stand, place: Place) -> None:
    """The way back is short."""
    began = time.monotonic()
    reversal, moved = stand.target.turn_back(place, 1, Why(reason="a test", now=datetime.now(UTC)))
    assert time.monotonic() - began < stand.seconds_back * slowness()
    assert moved
    assert reversal.version == 1
    assert stand.target.arms(place) == all_on(1)
    with pytest.raises(RolloutAborted, match="rolled back"):
        roll_out(stand.target, place, stand.plan(stand.release(2), "all-at-once"))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("strategy", ["canary", "ab"])
def test_a_controller_may_die_at_every_change(stand: Stand, strategy: str, after: bool) -> None:
    """A rollout with a new controller for every change: each goes on where the one before died, and no one notices."""
    place = stand.place(f"{strategy}-{after}".lower())
    roll_out(stand.target, place, stand.plan(stand.release(1), strategy))
    with People(stand.address(place)) as people:
        for version in (2, 3, 4):
            died, release = 0, stand.release(version)
            for death in range(1, 40):
                mortal = Mortal(stand.target, dies_at=death, after=after)
                try:
                    driven = roll_out(mortal, place, stand.plan(release, strategy, seconds=WATCH))
                except Killed:
                    died += 1
                    continue
                if driven.phase is Phase.DONE:
                    break
            assert stand.target.arms(place) == all_on(version)
            assert died >= 3
    assert people.failed == 0, people.statuses
    assert set(people.versions) == {"1", "2", "3", "4"}
    if strategy == "ab":  # from one version to the next, each in one stretch
        assert all(met == sorted(met) for met in people.changes.values()), people.changes
