"""The driver of a rollout on a target that runs nothing: what was counted is what a test says was counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci import clock
from mlp_ci.errors import InputError, OutsideError, RolloutAborted
from mlp_ci.report import Outcome
from mlp_ci.serve import state as states
from mlp_ci.serve.rollout import driving, standing, steps
from mlp_ci.serve.rollout.driving import Plan, roll_out
from mlp_ci.serve.rollout.ending import Failed, guard
from mlp_ci.serve.rollout.progress import Phase
from mlp_ci.serve.smoke import Smoke
from mlp_ci.serve.state import Arm, Place
from mlp_ci.serve.targets import Settings, Why
from mlp_ci.spec.serve import Serve
from tests.serve.ground import ERRORS, Ground, Scripted, prepared

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlp_ci.serve.targets import Target


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return prepared(tmp_path, monkeypatch)


def test_a_good_version_gets_all_traffic_once_each_step_has_its_data(ground: Ground) -> None:
    ground.target.each = 1000
    first = ground.roll(analysis=ERRORS)
    assert (first.phase, ground.weights) == (Phase.RUNNING, {1: 90, 2: 10}), "a tick ends where it has to wait"
    assert first.findings[-1].outcome is Outcome.INCONCLUSIVE
    assert [f.message for f in first.findings if f.check == "forecast"], "what it needs is said before it starts"
    done = ground.roll(analysis=ERRORS, seconds=30)
    assert (done.phase, ground.weights) == (Phase.DONE, {2: 100})
    assert [f.message.split(" %")[0] for f in done.findings if f.check == "step"] == ["10", "50", "100"]
    assert ground.progress.phase is Phase.DONE
    assert [s.weight for s in ground.progress.past] == [10, 50]
    assert all(s.canary.requests >= 100 and s.stable.requests >= 100 for s in ground.progress.past)
    assert {look.metric for look in ground.progress.looks} == {"error_rate"}


def test_a_bad_version_is_taken_away_with_the_evidence(ground: Ground) -> None:
    ground.target.each, ground.target.bad = 2000, {1: 0.01, 2: 0.2}
    with pytest.raises(Failed, match=r"aborted at 10 %: error_rate") as failed:
        ground.roll(analysis=ERRORS, seconds=30)
    assert ground.weights == {1: 100}
    assert (ground.progress.phase, failed.value.exit_code) == (Phase.ABORTED, 6)
    assert failed.value.facts
    assert failed.value.facts.analysis
    assert [j.verdict for j in failed.value.facts.analysis.judged] == ["fail"]
    (held,) = ground.target.held(ground.place)
    assert (held.version, held.known) == (2, False)
    assert "aborted at 10 %" in held.reason
    assert ground.target.unfinished(ground.place)[0].left == ("git", "alias", "record", "deployment")
    with pytest.raises(RolloutAborted, match="was rolled back"):
        ground.roll()


def test_labels_that_come_decide_and_stay_known(ground: Ground) -> None:
    """What labels say of both versions is asked for since the rollout began, and kept when nobody can be asked."""
    check, asked = [{"metric": "accuracy", "max_drop": 0.02}], list[Any]()
    ground.target.each = 100
    means: dict[int, dict[str, tuple[int, float, float]]] = {}

    def labels(stage: str, since: datetime, versions: tuple[int, ...]) -> dict[int, Any]:
        asked.append((stage, since, versions))
        return means

    ground.labels = labels
    assert "no labels have come yet" in str(ground.roll(analysis=check).findings[-1].message)
    assert asked[0] == ("production", datetime.fromisoformat(ground.progress.started), (1, 2))
    means = {1: {"accuracy": (500, 0.9, 0.09)}, 2: {"accuracy": (60, 0.88, 0.1)}}
    assert "60 labelled rows of the" in str(ground.roll(analysis=check).findings[-1].message)
    means = {}
    ground.roll(analysis=check)
    assert ground.progress.current
    assert ground.progress.current.canary.means == {"accuracy": (60, 0.88, 0.1)}
    means = {1: {"accuracy": (5000, 0.9, 0.09)}, 2: {"accuracy": (2000, 0.8, 0.16)}}
    with pytest.raises(Failed, match=r"aborted at 10 %: accuracy: 0.8, the old version 0.9"):
        ground.roll(analysis=check)


@pytest.mark.parametrize(("wish", "phase"), [("pause", Phase.PAUSED), ("advance", Phase.DONE), ("abort", None)])
def test_no_traffic_is_insufficient_and_after_the_wait_the_team_has_said_what_happens(
    ground: Ground, wish: str, phase: Phase | None
) -> None:
    assert ground.roll(on_insufficient=wish).phase is Phase.RUNNING
    ground.pass_time(timedelta(hours=2))
    if phase is None:
        with pytest.raises(Failed, match="cannot be told after 2 h"):
            ground.roll(on_insufficient=wish)
        return
    steps_left = 1 if wish == "pause" else 2
    for _ in range(steps_left):
        driven = ground.roll(on_insufficient=wish)
        ground.pass_time(timedelta(hours=2))
    assert driven.phase is phase
    if phase is Phase.PAUSED:
        assert "rollout resume" in driven.findings[-1].fix
        assert ground.roll(on_insufficient=wish).phase is Phase.PAUSED, "nothing but a person ends it"
        kept = ground.progress
        ground.target.keep(ground.place, steps.resumed(kept, clock.now()), kept)
        assert ground.roll(on_insufficient=wish).phase is Phase.RUNNING, "it may wait as long again"


def test_a_server_that_dies_ends_its_rollout_in_one_tick(ground: Ground) -> None:
    ground.roll()
    ground.target.well = False
    with pytest.raises(Failed, match="3 health checks in a row"):
        ground.roll()
    assert ground.weights == {1: 100}


def test_harm_is_found_also_while_a_rollout_may_not_go_on(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A freeze, a registry that is down: nothing moves on, but what does harm goes."""
    monkeypatch.setattr("mlp_ci.serve.rollout.ending.CHECK_PAUSE", 0)
    rollout = Serve.model_validate({"rollout": {"strategy": "canary", "analysis": ERRORS}}).rollout
    target: Target = ground.target
    digest = ground.release(2).digest
    guard(target, ground.place, digest, rollout)  # nothing is under way
    ground.target.each = 100
    ground.roll(analysis=ERRORS)
    kept = ground.progress
    guard(target, ground.place, digest, rollout)
    seen = ground.progress.current
    assert (ground.weights, replace(ground.progress, current=kept.current)) == ({1: 90, 2: 10}, kept)
    ground.target.boot, ground.target.counts = "b", {}
    guard(target, ground.place, digest, rollout)  # the gateway was started anew: counted from here
    assert (ground.progress.boot, ground.progress.current) == ("b", seen)
    ground.target.each, ground.target.bad = 5000, {2: 0.5}
    with pytest.raises(Failed, match="aborted at 10 %: error_rate"):
        guard(target, ground.place, digest, rollout)
    assert ground.weights == {1: 100}
    other = ground.release(3).digest
    ground.target.bad = {}
    ground.roll(3)
    ground.target.well = False
    with pytest.raises(Failed, match="3 health checks in a row"):
        guard(target, ground.place, other, rollout)


@pytest.mark.parametrize(
    ("strategy", "split"),
    [
        ({"strategy": "blue-green", "steps": [], "min_step": "1h"}, [(1, 0, "stable"), (2, 100, "canary")]),
        ({"strategy": "shadow", "steps": []}, [(1, 100, "stable"), (2, 100, "shadow")]),
        ({"strategy": "ab", "steps": [], "sticky": "user"}, [(1, 50, "stable"), (2, 50, "canary")]),
    ],
)
def test_each_strategy_splits_the_traffic_in_its_way(
    ground: Ground, strategy: dict[str, Any], split: list[tuple[int, int, str]]
) -> None:
    ground.target.each = 100
    assert ground.roll(**strategy, analysis=ERRORS, wait="9h").phase is Phase.RUNNING
    assert [(a.version, a.weight, a.arm) for a in ground.target.arms(ground.place)] == split
    route = states.read_json(ground.place.gateway_file)["routes"][0]
    assert (route["sticky"], ground.progress.digest in route["salt"]) == (strategy.get("sticky"), True)
    ground.pass_time(timedelta(minutes=61))
    assert ground.roll(**strategy, analysis=ERRORS, wait="9h", seconds=20).phase is Phase.DONE
    assert ground.weights == {2: 100}


def test_what_git_no_longer_asks_for_goes(ground: Ground) -> None:
    ground.roll(2)
    assert ground.roll(3).phase is Phase.RUNNING
    assert ground.weights == {1: 90, 3: 10}
    assert (ground.progress.version, ground.progress.phase) == (3, Phase.RUNNING)
    ground.roll(1)
    assert (ground.weights, ground.progress.phase) == ({1: 100}, Phase.ABORTED)


def test_a_version_that_was_healthy_here_lately_skips_the_steps(ground: Ground) -> None:
    ground.target.each = 200_000
    assert ground.roll(2, seconds=20, analysis=ERRORS).phase is Phase.DONE
    back = ground.roll(1, trust="1h")
    assert (back.phase, ground.weights) == (Phase.DONE, {1: 100})
    assert any("so no step is needed" in f.message for f in back.findings)
    ground.pass_time(timedelta(hours=2))
    ground.target.each = 0
    assert ground.roll(2, trust="1h").phase is Phase.RUNNING


def test_what_answers_clients_wrongly_after_the_last_step_goes_back(ground: Ground) -> None:
    ground.target.answer = 500
    with pytest.raises(Failed, match="has the traffic and does not answer its own input example"):
        ground.roll(strategy="all-at-once", steps=[])
    assert ground.weights == {1: 100}
    assert ground.target.held(ground.place)[0].version == 2
    with pytest.raises(InputError, match="has the traffic"):
        fresh = Ground(Place(ground.place.home, "other", "production"), Scripted(answer=500), ground.file)
        fresh.roll(1)


def test_a_question_of_the_smoke_file_that_is_answered_wrongly_moves_no_traffic(ground: Ground) -> None:
    serve = Serve.model_validate({"rollout": {"strategy": "canary"}})
    question = Smoke(line=4, body=b"{}", predictions=[2], tolerance=0.5)
    plan = Plan(release=ground.release(2), settings=Settings(serve=serve), smoke=(question,))
    target: Target = ground.target
    with pytest.raises(InputError, match=r"smoke file as it should: line 4: it predicts \[1\], not \[2\]"):
        roll_out(target, ground.place, plan)
    assert ground.weights == {1: 100}
    assert driving.roll_out(target, ground.place, replace(plan, smoke=(replace(question, tolerance=1),))).findings


# ---------------------------------------------------------------- others, and bad luck


class Kill(BaseException):
    """The driver is killed."""


@pytest.mark.parametrize("function", ["keep", "shift", "measured", "healthy", "settle", "prepare"])
@pytest.mark.parametrize("before", [True, False])
def test_killed_anywhere_the_next_one_goes_on(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, function: str, before: bool
) -> None:
    real = getattr(ground.target, function)
    ground.target.each = 200_000
    for number in range(1, 12):
        calls = iter(range(1, 1000))

        def dies(*args: Any, at: int = number, calls: Any = calls, **kwargs: Any) -> Any:
            now = next(calls) == at
            if now and before:
                raise Kill
            result = real(*args, **kwargs)
            if now:
                raise Kill
            return result

        monkeypatch.setattr(ground.target, function, dies, raising=False)
        try:
            ground.roll(seconds=20, analysis=ERRORS)
        except Kill:
            continue
        break
    monkeypatch.setattr(ground.target, function, real, raising=False)
    assert number > 1, "it was never killed"
    assert ground.roll(seconds=20, analysis=ERRORS).phase is Phase.DONE
    assert ground.weights == {2: 100}
    assert [i.version for i in ground.target.history(ground.place.home, "flights")] == [1, 2]
    assert ground.target.held(ground.place) == []


def meanwhile(ground: Ground, function: str, number: int, happens: Callable[[], object]) -> None:
    """Something that another command does right before the n-th call of a function."""
    real, calls = getattr(ground.target, function), iter(range(1, 10_000))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            setattr(ground.target, function, real)
            happens()
        return real(*args, **kwargs)

    setattr(ground.target, function, call)


def test_of_two_controllers_at_once_one_stops_and_the_other_goes_on(ground: Ground) -> None:
    ground.target.each = 1000
    ground.roll(analysis=ERRORS)
    meanwhile(ground, "healthy", 2, lambda: ground.roll(analysis=ERRORS, seconds=20))
    with pytest.raises(RolloutAborted, match=r"another command (drives the rollout|moved the traffic)"):
        ground.roll(analysis=ERRORS, seconds=20)
    assert (ground.weights, ground.progress.phase) == ({2: 100}, Phase.DONE)
    assert ground.target.moves.count(2) == 1


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("function", ["healthy", "measured", "arms"])
def test_a_person_who_pauses_is_heard_and_one_who_rolls_back_has_the_last_word(
    ground: Ground, function: str, number: int
) -> None:
    ground.roll(analysis=ERRORS)

    def killed() -> None:
        raise Kill

    def pause() -> None:
        kept = ground.progress
        ground.target.keep(ground.place, steps.paused(kept, "wait for Ann", "bob"), kept)
        meanwhile(ground, "healthy", 3, killed)

    meanwhile(ground, function, number, pause)
    with pytest.raises(Kill):
        ground.roll(analysis=ERRORS, seconds=60)
    driven = ground.roll(analysis=ERRORS)
    assert (driven.phase, driven.findings[-1].message.split(": ")[-1]) == (Phase.PAUSED, "wait for Ann")
    weights = ground.weights

    def back() -> None:
        ground.target.turn_back(ground.place, 1, Why(reason="it lies", now=clock.now()))

    kept = ground.progress
    ground.target.keep(ground.place, steps.resumed(kept, clock.now()), kept)
    meanwhile(ground, function, number, back)
    with pytest.raises(RolloutAborted):
        ground.roll(analysis=ERRORS, seconds=60)
    assert weights[1] > 0
    assert ground.weights == {1: 100}


def test_promote_goes_to_the_end_and_nobody_who_can_count_is_waited_for(ground: Ground) -> None:
    ground.roll()
    kept = ground.progress
    ground.target.keep(ground.place, replace(kept, ready=True, by="ann"), kept)
    ground.target.deaf = 3
    done = ground.roll(seconds=20)
    assert (done.phase, ground.weights) == (Phase.DONE, {2: 100})
    assert any("promoted by ann" in f.message for f in done.findings)


def test_when_nobody_can_say_what_was_measured_the_command_says_so(ground: Ground) -> None:
    ground.roll()
    ground.target.deaf = 1000
    with pytest.raises(OutsideError, match="the gateway is down"):
        ground.roll()
    assert ground.weights == {1: 90, 2: 10}
    target: Target = ground.target
    rollout = Serve.model_validate({}).rollout
    facts = standing.facts(target, ground.place, rollout, clock.now())
    assert facts.progress == ground.progress, "what was seen last is still told"


def test_a_canary_that_somebody_left_without_a_rollout_goes(ground: Ground) -> None:
    ground.target.prepare(ground.place, ground.release(3), Settings(serve=Serve.model_validate({})))
    ground.target.shift(ground.place, [Arm(version=1, weight=50), Arm(version=3, weight=50, arm="canary")])
    assert ground.roll(2).phase is Phase.RUNNING
    assert ground.weights == {1: 90, 2: 10}
