"""``mlp-ci rollout`` and ``deploy --watch | --plan``, whole: a forge, MLflow, real processes, real requests."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci import clock, serve
from mlp_ci.errors import InputError, NothingToDo
from mlp_ci.report import Outcome
from mlp_ci.serve import flow_deploy, flow_rollout
from mlp_ci.serve import state as states
from mlp_ci.serve.asked import Moved, open_job
from mlp_ci.serve.rollout.progress import Phase
from mlp_ci.serve.targets import Why
from mlp_ci.serve.targets.local import local
from tests.flows.paper import Paper
from tests.flows.served import BETTER, DECIDED, GOOD, Scene, messages, scene, written
from tests.serving import Load, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def flights(tmp_path: Path, mlflow_server: str) -> Iterator[Scene]:
    """Version 1 serves staging, and version 2 is asked for; a step waits for its data."""
    with scene(tmp_path, mlflow_server, rollout=DECIDED) as made:
        made.promote(staging=GOOD)
        assert serve.deploy(made.ctx, None).outcome is Outcome.PASS
        made.promote(staging=BETTER)
        yield made


def weights(flights: Scene) -> dict[int, int]:
    return {a.version: a.weight for a in local.arms(flights.place("staging"))}


def test_people_have_a_say_in_a_rollout(flights: Scene, tmp_path: Path) -> None:
    planned = serve.plan(flights.ctx, None)
    assert weights(flights) == {1: 100}, "a plan changes nothing"
    assert "+ traffic of" in planned.document
    assert "10 %, 50 %, 100 %" in planned.document
    assert any(f.check == "forecast" for f in planned.findings)
    with pytest.raises(NothingToDo, match="no rollout is under way"):
        flow_rollout.pause(flights.ctx, "staging", "")

    begun = serve.deploy(flights.ctx, None)
    assert (begun.outcome, begun.outputs["rollout"], begun.outputs["deployed"]) == (Outcome.PASS, "running", "[]")
    assert weights(flights) == {1: 90, 2: 10}
    assert flights.tracking.alias(flights.name, "staging") == GOOD, "nothing is announced before it is so"
    assert not [f for f in serve.disagreements(flights.ctx) if f.outcome is Outcome.FAIL]

    flow_rollout.steer(flights.ctx, "pause", "staging", "Ann is out")
    with pytest.raises(NothingToDo, match="is paused already: Ann is out"):
        flow_rollout.pause(flights.ctx, "staging", "")
    assert serve.deploy(flights.ctx, None).outputs["rollout"] == "paused"
    with pytest.raises(NothingToDo, match=r"no rollout is under way .* in production, but one is in staging") as asked:
        flow_rollout.abort(flights.ctx, "production", "")
    assert asked.value.fix == "say which is meant: --stage staging"
    for bad, why in ((tmp_path / "no" / "page.html", "there is no folder"), (tmp_path, "is a folder")):
        with pytest.raises(InputError, match=why):
            flow_rollout.status(flights.ctx, "staging", bad)
    page = tmp_path / "page.html"
    status = flow_rollout.status(flights.ctx, "staging", page)
    assert (status.outputs["rollout"], status.exit_code) == ("paused", 0)
    assert "Ann is out" in page.read_text()
    flow_rollout.resume(flights.ctx, "staging")
    assert serve.deploy(flights.ctx, None).outputs["rollout"] == "running"
    with pytest.raises(InputError, match="'stop' is nothing that can be done"):
        flow_rollout.steer(flights.ctx, "stop", "staging", "")

    flow_rollout.promote(flights.ctx, "staging")
    done = serve.deploy(flights.ctx, None)
    assert (done.outputs["rollout"], flights.live("staging")) == ("done", BETTER), messages(done)
    assert flights.tracking.alias(flights.name, "staging") == BETTER
    assert flights.records() == [("staging", GOOD, "promotion"), ("staging", BETTER, "promotion")]


@pytest.mark.slow
def test_a_rollout_that_a_person_aborts_is_rolled_back_and_begins_anew_only_where_git_says_so(flights: Scene) -> None:
    serve.deploy(flights.ctx, None)
    with pytest.raises(NothingToDo, match="no rollout was aborted"):
        flow_rollout.retry(flights.ctx, "staging")
    report = flow_rollout.abort(flights.ctx, "staging", "it lies")
    assert report.outcome is Outcome.PASS, messages(report)
    assert (report.command, report.outputs["rollout"]) == ("rollout abort", "aborted")
    assert weights(flights) == {1: 100}
    asked = flights.asked()
    assert asked.stages["staging"].version == GOOD
    assert [(q.version, q.reason) for q in asked.quarantine] == [(BETTER, "it lies")]
    with pytest.raises(InputError, match=r"version 2 is quarantined in promotion\.yaml"):
        flow_rollout.retry(flights.ctx, "staging")
    assert flow_rollout.status(flights.ctx, "staging").outputs["rollout"] == "aborted"


@pytest.mark.slow
def test_a_deploy_that_watches_hears_a_person_and_reaches_the_end_by_data(flights: Scene) -> None:
    """Real requests decide: two versions that both answer; the latency check is left to its own tests."""
    results: list[Any] = []
    place = flights.place("staging")

    def run() -> None:
        results.append(serve.deploy(flights.ctx, None, watch=timedelta(seconds=40)))

    with Load(flights.port("staging"), clients=2) as load:
        watching = threading.Thread(target=run)
        watching.start()
        wait_until(lambda: (p := local.progress(place)) is not None and bool(p.looks))
        flow_rollout.pause(flights.ctx, "staging", "a moment")
        time.sleep(1)
        paused = local.progress(place)
        flow_rollout.promote(flights.ctx, "staging")
        watching.join()
        time.sleep(0.3)
    assert paused
    assert (paused.phase, paused.weight) == (Phase.PAUSED, 10)
    (report,) = results
    assert report.outputs["rollout"] == "done", messages(report)
    assert load.failed == 0
    assert load.versions["2"] > 0
    kept = local.progress(place)
    assert kept
    assert kept.past == () or kept.past[0].canary.requests > 0
    assert kept.current
    assert kept.looks
    state = states.read(place)
    assert state
    assert state.live == BETTER


def test_the_smoke_file_is_the_one_of_the_default_branch_and_its_mistakes_move_nothing(
    tmp_path: Path, mlflow_server: str
) -> None:
    with scene(tmp_path, mlflow_server, models=written) as flights:
        paper = Paper()
        model = flights.world.hub().read_file("model.yaml", "main") or b""
        flights.promote(staging=GOOD)

        def deployed(**files: bytes) -> flow_deploy.Done:
            endings = {"model": "yaml", "smoke": "jsonl"}
            flights.world.push("carol", {f"{name}.{endings[name]}": text for name, text in files.items()}, "Ask")
            return flow_deploy.bring(replace(open_job(flights.ctx), target=paper), "staging")  # type: ignore[arg-type]

        with pytest.raises(InputError, match=r"names smoke\.jsonl, and commit \w+ has no such file"):
            deployed(model=model.replace(b"serve:\n", b"serve:\n  smoke: smoke.jsonl\n"))
        with pytest.raises(InputError, match="line 2 of the smoke file is no JSON") as bad:
            deployed(smoke=b'{"request": {}}\n{')
        assert (bad.value.file, bad.value.line) == ("smoke.jsonl", 2)
        with pytest.raises(InputError, match=r"line 1: it predicts \[1\], not \[2\]"):
            deployed(smoke=b'{"request": {}, "predictions": [2]}\n')
        assert paper.moves == []
        done = deployed(smoke=b'{"request": {}, "predictions": [1]}\n{"request": {}}\n')
        assert done.exit_code == 0, done.findings
        assert paper.moves == [GOOD]
        (said,) = [f.message for f in done.findings if f.check == "smoke" and f.message.startswith("it ")]
        assert said == "it answers all 2 questions of the smoke file"


def test_what_a_killed_abort_left_running_ends_with_the_next_deploy(tmp_path: Path, mlflow_server: str) -> None:
    with scene(tmp_path, mlflow_server, models=written, rollout=DECIDED) as flights:
        paper, place = Paper(), flights.place("staging")

        def deployed(version: int) -> flow_deploy.Done:
            flights.promote(staging=version)
            return flow_deploy.bring(replace(open_job(flights.ctx), target=paper), "staging")  # type: ignore[arg-type]

        deployed(GOOD)
        assert deployed(BETTER).rollout == "running"
        paper.turn_back(place, GOOD, Why(reason="it lies", now=clock.now()))  # killed here: before what follows
        state = states.read(place)
        assert state
        assert set(state.servers) == {GOOD, BETTER}
        with pytest.raises(Moved):
            flow_deploy.bring(replace(open_job(flights.ctx), target=paper), "staging")  # type: ignore[arg-type]
        flow_deploy.bring(replace(open_job(flights.ctx), target=paper), "staging")  # type: ignore[arg-type]
        state = states.read(place)
        assert state
        assert set(state.servers) == {GOOD}
