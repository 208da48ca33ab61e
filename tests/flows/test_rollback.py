"""Rollback, whole: traffic first and fast, then git, the alias and the deployment; whatever fails later is finished."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mlp_ci import serve
from mlp_ci.errors import InputError, NothingToDo
from mlp_ci.report import Outcome
from mlp_ci.serve import state as states
from mlp_ci.spec import load_model, parse_promotion
from tests.flows.served import BETTER, GOOD, Scene, messages, scene
from tests.serving import Load, ask, body, slowness, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def flights(tmp_path: Path, mlflow_server: str) -> Iterator[Scene]:
    with scene(tmp_path, mlflow_server) as made:
        yield made


@pytest.fixture
def twice(flights: Scene) -> Scene:
    """Version 1 ran in staging, version 2 runs there now."""
    for version in (GOOD, BETTER):
        flights.promote(staging=version)
        assert serve.deploy(flights.ctx, None).outcome is Outcome.PASS
    return flights


def in_git(flights: Scene) -> object:
    raw = flights.world.hub().read_file("promotion.yaml", "main")
    assert raw
    return parse_promotion(raw)


def test_traffic_goes_back_then_git_alias_and_record_follow(twice: Scene) -> None:
    with Load(twice.port("staging"), clients=2) as load:
        time.sleep(0.2)
        report = serve.rollback(twice.ctx, "staging", to="previous", reason="too many alarms")
        time.sleep(0.2)
    assert report.outcome is Outcome.PASS, messages(report)
    assert report.data["seconds_to_traffic"] < 2 * slowness()
    assert load.failed == 0
    assert (report.outputs["version"], report.outputs["pull-request"]) == ("1", "")
    assert ask(twice.port("staging"), body())[1]["x-model-version"] == "1"
    promotion = in_git(twice)
    assert promotion.stages["staging"].version == GOOD  # type: ignore[attr-defined]
    (held,) = promotion.quarantine  # type: ignore[attr-defined]
    assert (held.version, held.digest, held.reason) == (BETTER, twice.digests[BETTER], "too many alarms")
    assert twice.tracking.alias(twice.name, "staging") == GOOD
    newest = twice.world.hub().deployments("staging")[0]
    assert newest.payload["version"] == GOOD
    assert [i.version for i in serve.history(twice.ctx, load_model(twice.ctx.repo))] == [1, 2, 1]
    state = states.read(twice.place("staging"))
    assert state
    assert list(state.servers) == [1], "the bad version no longer runs"

    deployed = serve.deploy(twice.ctx, None)
    assert (deployed.outcome, deployed.outputs["deployed"]) == (Outcome.PASS, "[]"), messages(deployed)
    with pytest.raises(InputError, match="no other version ran before"):
        serve.rollback(twice.ctx, "staging", to="previous", reason="")
    with pytest.raises(NothingToDo):
        serve.rollback(twice.ctx, "staging", to="1", reason="")


def test_from_the_command_line_it_takes_less_than_two_seconds(twice: Scene) -> None:
    """With neither GitHub nor MLflow there: traffic does not wait for them, and the exit code says what is left."""
    port = twice.port("staging")
    env = {
        **os.environ,
        "GITHUB_REPOSITORY": "acme/arrival-delay",
        "GITHUB_API_URL": "http://127.0.0.1:9/api/v3",
        "GITHUB_TOKEN": "app-token",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "MLP_SERVE_HOME": str(twice.ctx.serve_home),
    }
    command = [sys.executable, "-m", "mlp_ci", "rollback", "--stage", "staging", "--path", str(twice.ctx.repo)]
    with Load(port, clients=2) as load:
        time.sleep(0.2)
        began = time.monotonic()
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: ask(port, path="/version")[2]["arms"][0]["version"] == 1, 10)
            took = time.monotonic() - began
            process.kill()
        time.sleep(1)
    assert took < 2 * slowness()
    assert load.failed == 0
    assert load.last["2"] < began + took + 0.5 * slowness()

    report = serve.rollback(twice.ctx, "staging", to="previous", reason="")
    assert report.outcome is Outcome.PASS, messages(report)
    assert "already" in messages(report), "the second run moved nothing, it finished the record"
    assert twice.live("staging") == GOOD
    assert in_git(twice).stages["staging"].version == GOOD  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_failing_record_is_reported_and_finished_by_the_same_command(twice: Scene) -> None:
    offline = replace(twice.ctx, tracking_uri="http://127.0.0.1:9")
    report = serve.rollback(offline, "staging", to="previous", reason="slow")
    assert report.exit_code == 7
    assert twice.live("staging") == GOOD
    (failed,) = [f for f in report.findings if f.outcome is Outcome.FAIL]
    assert failed.check == "alias"
    assert "run the same command again" in failed.fix
    assert twice.tracking.alias(twice.name, "staging") == BETTER
    again = serve.rollback(twice.ctx, "staging", to="previous", reason="slow")
    assert again.outcome is Outcome.PASS, messages(again)
    assert twice.tracking.alias(twice.name, "staging") == GOOD
    commits = twice.world.hub().commits_touching("promotion.yaml", "main")
    assert len([c for c in commits if c.message.startswith("Roll back")]) == 1


def test_deploy_does_not_undo_a_rollback_that_git_does_not_know_yet(twice: Scene) -> None:
    alone = twice.alone
    report = serve.rollback(alone, "staging", to="previous", reason="it lies")
    assert "change promotion.yaml by hand" in messages(report)
    deployed = serve.deploy(twice.ctx, None)
    assert deployed.exit_code == 5
    assert "version 2 was rolled back in staging: it lies" in messages(deployed)
    assert twice.live("staging") == GOOD
    twice.promote(staging=GOOD)
    assert serve.deploy(twice.ctx, None).outcome is Outcome.PASS
    twice.promote(staging=BETTER)  # people asked for it again, and git knows
    assert serve.deploy(twice.ctx, None).outcome is Outcome.PASS
    assert twice.live("staging") == BETTER


@pytest.mark.slow
def test_a_number_that_ran_here_comes_back_even_when_it_is_cold(twice: Scene) -> None:
    place = twice.place("staging")
    with states.changing(place) as state:
        del state.servers[GOOD]
    wait_until(lambda: "v1" not in states.read_json(place.processes_file)["children"])
    with Load(twice.port("staging"), clients=1) as load:
        report = serve.rollback(twice.ctx, "staging", to="1", reason="")
    assert report.outcome is Outcome.PASS, messages(report)
    assert load.failed == 0
    assert ask(twice.port("staging"), body())[1]["x-model-version"] == "1"


def test_a_rollback_ends_a_canary_that_is_under_way(flights: Scene) -> None:
    flights.promote(staging=GOOD)
    serve.deploy(flights.ctx, None)
    flights.promote(staging=BETTER)
    results: list[object] = []
    place = flights.place("staging")
    deploying = threading.Thread(target=lambda: results.append(serve.deploy(flights.ctx, None)))
    deploying.start()
    wait_until(lambda: (state := states.read(place)) is not None and state.canary() == BETTER)
    report = serve.rollback(flights.ctx, "staging", to="previous", reason="stop it")
    deploying.join()
    assert report.outcome is Outcome.PASS, messages(report)
    (deployed,) = results
    assert deployed.exit_code == 6  # type: ignore[attr-defined]
    assert "another command moved the traffic" in messages(deployed)
    assert flights.live("staging") == GOOD
    assert in_git(flights).stages["staging"].version == GOOD  # type: ignore[attr-defined]


def test_what_cannot_be_rolled_back_is_said(flights: Scene) -> None:
    with pytest.raises(InputError, match="nothing was ever deployed"):
        serve.rollback(flights.ctx, "staging", to="previous", reason="")
    flights.promote(staging=GOOD)
    serve.deploy(flights.ctx, None)
    with pytest.raises(InputError, match="no other version ran before version 1"):
        serve.rollback(flights.ctx, "staging", to="previous", reason="")
    with pytest.raises(InputError, match="version 9 never ran") as unknown:
        serve.rollback(flights.ctx, "staging", to="9", reason="")
    assert "versions that ran here: 1" in unknown.value.fix
    with pytest.raises(InputError, match="not 'last'"):
        serve.rollback(flights.ctx, "staging", to="last", reason="")


def test_the_way_to_the_traffic_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mlp_ci.serve import rollback; import mlp_ci.serve.targets.local;"
        "print([m for m in ('mlflow', 'github', 'pandas', 'numpy', 'duckdb', 'pyarrow', 'starlette', 'uvicorn', 'dvc')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
