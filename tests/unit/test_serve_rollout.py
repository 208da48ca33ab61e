"""The pure steps of a rollout, and the state that a rollback reads."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_ci.errors import OutsideError
from mlp_ci.serve import state as states
from mlp_ci.serve.rollout import Action, Pace, Seen, judge, steps_left
from mlp_ci.serve.state import REVERSAL_STEPS, Arm, Held, Place, Reversal, Server, State

if TYPE_CHECKING:
    from pathlib import Path

PACE = Pace(seconds=1.0, checks=3, failed_checks=3, errors=3, margin=0.02)
OK = (True, True, True)


@pytest.mark.parametrize(
    ("seen", "action"),
    [
        (Seen(seconds=0.5, checks=OK), Action.HOLD),
        (Seen(seconds=2, checks=OK[:2]), Action.HOLD),
        (Seen(seconds=2, checks=OK), Action.ADVANCE),
        (Seen(seconds=2, checks=(*OK, False)), Action.HOLD),
        (Seen(seconds=0.1, checks=(*OK, False, False, False)), Action.ABORT),
        (Seen(seconds=0.1, checks=OK, canary_requests=10, canary_errors=3, stable_requests=90), Action.ABORT),
        (Seen(seconds=2, checks=OK, canary_requests=10, canary_errors=2, stable_requests=90), Action.HOLD),
        (Seen(seconds=10, checks=OK, canary_requests=10, canary_errors=2, stable_requests=90), Action.ABORT),
        (Seen(seconds=2, checks=OK, canary_requests=500, canary_errors=2, stable_requests=90), Action.ADVANCE),
        (
            Seen(seconds=2, checks=OK, canary_requests=10, canary_errors=5, stable_requests=90, stable_errors=45),
            Action.ADVANCE,
        ),
    ],
)
def test_what_a_step_does_next(seen: Seen, action: Action) -> None:
    assert judge(seen, PACE)[0] is action


def test_the_reason_of_an_abort_has_the_numbers() -> None:
    seen = Seen(seconds=1, checks=OK, canary_requests=10, canary_errors=4, stable_requests=90, stable_errors=1)
    assert judge(seen, PACE)[1] == "4 of its 10 requests failed, against 1 of 90 on the version before"


@given(
    st.builds(
        Seen,
        seconds=st.floats(0, 100),
        checks=st.lists(st.booleans(), max_size=8),
        stable_requests=st.integers(0, 1000),
        canary_requests=st.integers(0, 1000),
    )
)
def test_without_an_error_only_health_can_abort(seen: Seen) -> None:
    action, _ = judge(seen, PACE)
    assert (action is Action.ABORT) == (len(seen.checks) >= 3 and not any(seen.checks[-3:]))


def test_a_killed_rollout_goes_on_at_its_step() -> None:
    assert steps_left([1, 10, 50, 100], 0) == [1, 10, 50, 100]
    assert steps_left([1, 10, 50, 100], 10) == [10, 50, 100]
    assert steps_left([100], 100) == [100]


def _ran(*versions: int) -> State:
    state = State(model="m", stage="s")
    for hour, version in enumerate(versions):
        state.hand_over(version, f"sha256:{version:064x}", datetime(2013, 4, 1, hour, tzinfo=UTC))
    return state


def test_the_version_before_is_the_last_other_one_that_was_not_rolled_back() -> None:
    assert _ran().previous() is None
    assert _ran(1).previous() is None
    assert _ran(1, 2).previous() == 1
    assert _ran(1, 2, 3).previous() == 2
    state = _ran(1, 2, 1)
    assert state.previous() == 2
    state.held = [Held(version=2, digest=f"sha256:{2:064x}", reason="", since="")]
    assert state.previous() is None


def _turned_back(*versions: int, done: tuple[str, ...] = ()) -> State:
    """The last version was rolled back to the one before it."""
    state = _ran(*versions)
    back, bad = versions[-2:]
    held = Held(version=bad, digest=f"sha256:{bad:064x}", reason="", since=f"2013-04-0{bad}T00:00:00+00:00")
    state.reversal = Reversal(held=held, version=back, digest=f"sha256:{back:064x}", done=done)
    return state


def test_a_rollback_that_git_does_not_know_outlives_the_next_deploy() -> None:
    state = _turned_back(1, 2, done=("alias",))
    state.overtake("deploy")
    assert state.reversal is None
    (left,) = state.overtaken
    assert left.left == ("git", "record"), "the alias belongs to what is live, and that is another version now"
    state.note(replace(left, done=(*left.done, "git"), commit="c1"))
    assert [(o.left, o.commit) for o in state.overtaken] == [(("record",), "c1")]
    state.note(replace(state.overtaken[0], done=("alias", "git", "record")))
    assert state.overtaken == []


def test_a_rollback_of_a_rollback_leaves_both_to_be_told() -> None:
    state = _turned_back(1, 2, 3)
    state.overtake("rollback")
    assert [o.left for o in state.overtaken] == [("git", "record", "deployment")]
    state.overtake("rollback")
    assert len(state.overtaken) == 1


def test_a_finished_rollback_is_forgotten_when_the_traffic_moves_on() -> None:
    state = _turned_back(1, 2, done=REVERSAL_STEPS)
    assert state.reversal
    assert state.reversal.finished
    state.overtake("deploy")
    assert state.overtaken == []


def test_intervals_follow_each_other_without_a_gap() -> None:
    history = _ran(1, 2, 2, 1).history
    assert [h["version"] for h in history] == [1, 2, 1]
    assert [h["ended"] for h in history] == [history[1]["started"], history[2]["started"], None]


def test_the_state_survives_its_file(tmp_path: Path) -> None:
    place = Place(tmp_path, "m", "s")
    held = Held(version=2, digest="sha256:2", reason="slow", since="2013-04-01T00:00:00+00:00")
    with states.changing(place) as state:
        state.servers[1] = Server(version=1, digest="sha256:1", port=4000, artefact="/a", python="/p")
        state.arms = [Arm(version=1, weight=100)]
        state.held = [held]
        state.reversal = Reversal(held=held, version=1, digest="sha256:1", done=("git",))
        state.overtaken = [Reversal(held=held, version=1, digest="sha256:1", pull=3, overtaken="deploy")]
        wanted = state
    assert states.read(place) == wanted
    plan = states.read_json(place.gateway_file)
    (route,) = plan["routes"]
    arm = {"version": 1, "weight": 100, "arm": "stable", "url": "http://127.0.0.1:4000", "digest": "sha256:1"}
    assert route["arms"] == [arm]
    assert wanted.generation == 1
    with states.changing(place):
        pass
    again = states.read(place)
    assert again
    assert again.generation == 1, "nothing changed, so nothing was written"


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path, "m", "s")

    def fails() -> None:
        with states.changing(place) as state:
            state.live = 3
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert states.read(place) is None


def test_a_gateway_file_that_a_killed_command_left_behind_is_mended(tmp_path: Path) -> None:
    place = Place(tmp_path, "m", "s")
    with states.changing(place) as state:
        state.gateway_port = 4000
    place.gateway_file.write_text("{}")
    with states.changing(place):
        pass
    assert states.read_json(place.gateway_file)["generation"] == 1


def test_a_broken_state_file_is_named(tmp_path: Path) -> None:
    place = Place(tmp_path, "m", "s")
    place.folder.mkdir(parents=True)
    place.state_file.write_text('{"model": "m"}')
    with pytest.raises(OutsideError, match=r"state\.json cannot be read"):
        states.read(place)


def test_two_deploys_of_a_stage_do_not_run_at_once(tmp_path: Path) -> None:
    place = Place(tmp_path, "m", "s")

    def second() -> None:
        with states.one_rollout(place):
            pass

    with states.one_rollout(place), pytest.raises(OutsideError, match="another deploy is under way for m in s"):
        second()
    second()


def test_nobody_else_sees_or_exchanges_what_is_served(tmp_path: Path) -> None:
    place = Place(tmp_path / "state" / "serve", "toy", "staging")
    with states.one_rollout(place), states.changing(place):
        pass
    for folder in (place.home, place.home / "toy", place.folder):
        assert folder.stat().st_mode & 0o777 == 0o700
