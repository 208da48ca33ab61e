"""The pure steps of a rollout, and the state that a rollback reads."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_ci.errors import OutsideError
from mlp_ci.serve import artefacts
from mlp_ci.serve import state as states
from mlp_ci.serve.analysis import Analysis, Judged, Verdict
from mlp_ci.serve.measured import Measured, Seen
from mlp_ci.serve.rights import one_rollout
from mlp_ci.serve.rollout import steps
from mlp_ci.serve.rollout.progress import Look, Phase, Progress
from mlp_ci.serve.rollout.steps import Action
from mlp_ci.serve.state import REVERSAL_STEPS, Arm, Held, Interval, Place, Reversal, Server, State
from mlp_ci.spec.serve import Rollout

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2013, 4, 1, 12, tzinfo=UTC)
CANARY = Rollout.model_validate({"strategy": "canary", "steps": [10, 50, 100], "wait": "1h", "min_step": "5m"})
OK = (True, True, True)
DEAD = (False, False, False)


def said(verdict: str) -> Analysis:
    judged = Judged(metric="error_rate", verdict=Verdict(verdict), reason="4 of 10 against 1 of 90", margin=0.01)
    return Analysis(verdict=Verdict(verdict), judged=(judged,))


def at_step(step: int = 0, **changes: Any) -> Progress:
    progress = replace(steps.first(2, "sha256:2", 1, CANARY, NOW), step=step, step_started=NOW.isoformat())
    return replace(progress, **changes)


@pytest.mark.parametrize(
    ("progress", "verdict", "checks", "minutes", "action"),
    [
        (at_step(), "pass", OK, 4, Action.HOLD),  # min_step
        (at_step(), "pass", OK, 5, Action.ADVANCE),
        (at_step(), "pass", (True, False), 5, Action.HOLD),
        (at_step(), "pass", (), 5, Action.HOLD),
        (at_step(2), "pass", OK, 5, Action.SETTLE),
        (at_step(2), None, OK, 5, Action.SETTLE),  # nothing to compare with at 100 %
        (at_step(), "insufficient", OK, 59, Action.HOLD),
        (at_step(), "insufficient", OK, 60, Action.PAUSE),
        (at_step(), "fail", OK, 0, Action.ABORT),
        (at_step(), "pass", DEAD, 0, Action.ABORT),
        (at_step(phase=Phase.PAUSED, why="lunch"), "pass", OK, 90, Action.HOLD),
        (at_step(phase=Phase.PAUSED, why="lunch"), "fail", OK, 90, Action.ABORT),
        (at_step(ready=True), "insufficient", OK, 0, Action.SETTLE),
        (at_step(ready=True), "fail", OK, 0, Action.ABORT),
        (at_step(phase=Phase.ABORTED), "fail", DEAD, 90, Action.HOLD),
    ],
)
def test_what_a_step_does_next(
    progress: Progress, verdict: str | None, checks: tuple[bool, ...], minutes: int, action: Action
) -> None:
    analysis = said(verdict) if verdict else None
    assert steps.decide(progress, analysis, checks, NOW + timedelta(minutes=minutes), CANARY).action is action


@pytest.mark.parametrize(("wanted", "action"), [("advance", "advance"), ("pause", "pause"), ("abort", "abort")])
def test_what_cannot_be_told_is_decided_as_the_team_said(wanted: str, action: str) -> None:
    rollout = CANARY.model_copy(update={"on_insufficient": wanted, "wait": timedelta(minutes=6)})
    decision = steps.decide(at_step(), said("insufficient"), OK, NOW + timedelta(minutes=7), rollout)
    assert decision.action == action
    assert decision.why == "it cannot be told after 7 min: error_rate: 4 of 10 against 1 of 90"


@given(
    st.sampled_from(["pass", "fail", "insufficient", None]),
    st.lists(st.booleans(), max_size=5),
    st.integers(-(10**6), 10**6),
    st.sampled_from([Phase.RUNNING, Phase.PAUSED]),
    st.booleans(),
    st.integers(0, 2),
)
def test_traffic_never_grows_on_a_bad_sign_or_against_a_person(
    verdict: str | None, checks: list[bool], seconds: int, phase: Phase, ready: bool, step: int
) -> None:
    progress = at_step(step, phase=phase, ready=ready)
    decision = steps.decide(
        progress, said(verdict) if verdict else None, checks, NOW + timedelta(seconds=seconds), CANARY
    )
    more = decision.action in (Action.ADVANCE, Action.SETTLE)
    assert not (more and (verdict == "fail" or not checks or not checks[-1]))
    assert not (more and phase is Phase.PAUSED and not ready)
    assert (decision.action is Action.ABORT) == (verdict == "fail" or (len(checks) >= 3 and not any(checks[-3:])))
    assert decision.why


def counted(stable: int, canary: int, boot: str = "a") -> Measured:
    return Measured(
        boot=boot, versions={1: Seen(requests=stable, errors=1), 2: Seen(requests=canary, latency={3: canary})}
    )


def test_a_step_counts_from_where_it_began_also_when_the_gateway_was_started_anew() -> None:
    progress = steps.begun(at_step(step_started=""), counted(1000, 7), NOW)
    progress = steps.observed(progress, counted(1090, 17), NOW)
    assert progress.current
    assert (progress.current.stable.requests, progress.current.canary.requests) == (90, 10)
    assert progress.current.canary.latency == {3: 10}
    restarted = steps.observed(progress, counted(5, 3, "b"), NOW)  # what was before the look is not known
    assert restarted.current == progress.current
    progress = steps.observed(restarted, counted(14, 4, "b"), NOW)
    assert progress.current
    assert (progress.current.stable.requests, progress.current.canary.requests) == (99, 11)
    onward = steps.advanced(progress)
    assert (onward.weight, onward.step_started, onward.past, onward.current) == (50, "", (progress.current,), None)
    assert Progress.from_json(json.loads(json.dumps(onward.to_json()))) == onward


def test_a_clock_that_went_back_holds_no_step_for_ever() -> None:
    ahead = at_step(step_started=(NOW + timedelta(days=30)).isoformat(), boot="a")
    assert steps.elapsed(ahead, NOW) == timedelta(0)
    mended = steps.observed(ahead, counted(10, 10), NOW)
    assert mended.step_started == NOW.isoformat()
    assert steps.decide(mended, said("pass"), OK, NOW + timedelta(minutes=5), CANARY).action is Action.ADVANCE


def test_a_shadow_gets_copies_and_the_stable_version_all_answers() -> None:
    rollout = Rollout.model_validate({"strategy": "shadow", "steps": [20, 100]})
    progress = steps.first(2, "sha256:2", 1, rollout, NOW)
    assert steps.split(progress) == [Arm(version=1, weight=100), Arm(version=2, weight=20, arm="shadow")]
    assert steps.compared(replace(progress, step=1)), "at 100 % both still answer"
    assert not steps.compared(at_step(2))
    assert [a.weight for a in steps.split(at_step(2))] == [0, 100]


def test_only_bytes_that_were_healthy_lately_and_never_taken_away_skip_the_steps() -> None:
    def ran(digest: str, ended: datetime | None) -> Interval:
        return Interval(stage="s", version=1, digest=digest, started=NOW - timedelta(days=9), ended=ended)

    window, ago = timedelta(hours=24), NOW - timedelta(hours=23)
    assert steps.trusted([ran("a", ago)], [], "a", NOW, window) == ago
    assert steps.trusted([ran("b", ago)], [], "a", NOW, window) is None
    assert steps.trusted([ran("a", NOW - timedelta(hours=25))], [], "a", NOW, window) is None
    held = Held(version=1, digest="a", reason="", since="", known=True)
    assert steps.trusted([ran("a", ago)], [held], "a", NOW, window) is None


@given(st.lists(st.tuples(st.sampled_from(["m", "n"]), st.integers(0, 9)), max_size=400))
def test_looks_are_thinned_out_and_the_first_and_the_last_stay(made: list[tuple[str, int]]) -> None:
    progress = at_step()
    for metric, seen in made:
        progress = progress.looked((Look(at="", metric=metric, verdict="pass", seen=seen),))
    for metric in ("m", "n"):
        given_, kept = [s for m, s in made if m == metric], [k.seen for k in progress.looks if k.metric == metric]
        assert len(kept) <= 60
        assert kept[:1] == given_[:1]
        assert kept[-1:] == given_[-1:]


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


def test_the_version_before_is_kept_warm_only_where_that_is_wanted() -> None:
    state = _ran(1, 2, 3)
    assert state.warm() == {2, 3}
    state.serve = {"keep_previous": False}
    assert state.warm() == {3}
    state.serve["rollout"] = {"strategy": "blue-green"}
    assert state.warm() == {2, 3}
    state.arms = [Arm(version=3, weight=90), Arm(version=4, weight=10, arm="canary")]
    assert state.warm() == {2, 3, 4}


def test_a_deploy_or_a_rollback_ends_the_rollout() -> None:
    for version, phase in ((2, Phase.DONE), (1, Phase.ABORTED), (3, Phase.ABORTED)):
        state = _ran(1)
        state.progress = at_step()
        state.settle(version, f"sha256:{version}", NOW, "")
        assert state.progress.phase is phase
    state = _ran(1)
    state.progress = at_step()
    state.reverse(1, Held(version=2, digest="sha256:2", reason="slow", since=NOW.isoformat()), "bob")
    assert (state.progress.phase, state.progress.why) == (Phase.ABORTED, "slow")


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
    with states.changing(place) as state:
        state.progress = at_step(looks=(Look(at="", metric="m", verdict="pass", seen=1),))
    again = states.read(place)
    assert again
    assert again.progress == state.progress
    assert again.generation == 1, "how far a rollout is does not concern the gateway"


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
        with one_rollout(place):
            pass

    with one_rollout(place), pytest.raises(OutsideError, match="another deploy is under way for m in s"):
        second()
    second()


def test_nobody_else_sees_or_exchanges_what_is_served(tmp_path: Path) -> None:
    place = Place(tmp_path / "state" / "serve", "toy", "staging")
    with one_rollout(place), states.changing(place):
        pass
    for folder in (place.home, place.home / "toy", place.folder):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_only_the_files_of_versions_that_nobody_can_want_are_cleared_away(tmp_path: Path) -> None:
    place, old = Place(tmp_path, "m", "s"), time.time() - 7200
    folders = {n: artefacts.folder_of(tmp_path, f"sha256:{n:064x}") for n in range(1, 10)}
    for folder in folders.values():
        folder.mkdir(parents=True)
        os.utime(folder, (old, old))
    os.utime(folders[9])  # just fetched by another command
    with states.changing(place) as state:
        ran = _ran(1, 2, 3, 4, 5, 6, 7)
        state.history, state.live, state.arms = ran.history, ran.live, ran.arms
        state.held = [Held(version=6, digest=f"sha256:{6:064x}", reason="", since="")]
        state.progress = at_step(version=8, digest=f"sha256:{8:064x}")
    assert artefacts.clear(tmp_path) == [folders[n].name for n in (1, 6)]
    assert [n for n, folder in folders.items() if folder.exists()] == [2, 3, 4, 5, 7, 8, 9]
