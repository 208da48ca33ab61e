"""The templates taken up in a repository of the sandbox: real forge, real act, real actions and scripts.

Only the command line is a recorder: it says which command ran with what, and answers the outputs a workflow reads.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from mlp_ci import __version__
from mlp_ci.sandbox.execution import Place
from mlp_ci.sandbox.forge import events, pulls, repositories, runs, seed
from mlp_ci.sandbox.forge.access import Actor
from mlp_ci.sandbox.forge.records import Event, Run
from mlp_ci.sandbox.forge.seed import Seed, SeedRepo, SeedTeam, SeedUser
from mlp_ci.sandbox.forge.server import ForgeServer
from mlp_ci.sandbox.forge_queue import ForgeQueue
from mlp_ci.sandbox.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
RECORDER = f"""#!/bin/bash
[ "$1" != --version ] || {{ echo "mlp-ci {__version__}"; exit 0; }}
case "$GITHUB_TOKEN" in app-token) token=app ;; ghs_*) token=run ;; *) token=none ;; esac
[ "$1" != sweep ] || sleep "0.$MLP_CI_JOB" # two jobs at once may write into one line
echo "ran $1 token=$token stage=$MLP_CI_STAGE to=$MLP_CI_TO reason=$MLP_CI_REASON pr=$MLP_CI_PR files=$(ls | wc -l)"
[ "$1$MLP_CI_OPEN" != approvalstrue ] || echo "ran --open"
[ "$1" != audit ] || echo "ran --since=$MLP_CI_SINCE --repair=$MLP_CI_REPAIR"
if [ "$1" = plan ]; then cat >> "$GITHUB_OUTPUT" <<END
train=${{TRAIN:-true}}
judge=true
sweep=${{SWEEP:-false}}
runs-on=["self-hosted"]
judge-runs-on=["ubuntu-latest"]
timeout-minutes=9
matrix={{"job": [1, 2], "of": [2]}}
END
fi
while [ "$1" = train ] && [ -n "$HOLD" ] && [ ! -f "$HOLD" ]; do sleep 0.05; done
echo "drifted=$DRIFTED" >> "$GITHUB_OUTPUT"
exit "${{EXIT:-0}}"
"""
SEED = Seed(
    org="acme",
    users=(
        SeedUser("alice", token="alice-token"),
        SeedUser("bob", token="bob-token"),
        SeedUser("mlp-ci[bot]", kind="Bot", role="", token="app-token"),
    ),
    teams=(SeedTeam("growth-ml", ("alice", "bob"), {"flight-delay": "write"}),),
    repos=(SeedRepo("flight-delay"),),
    secrets={"MLP_CI_TOKEN": "app-token"},
)


class Organisation:
    """acme, whose flight-delay has taken up every template, and a runner at work."""

    def __init__(self, server: ForgeServer, tmp: Path) -> None:
        self.forge = server.forge
        self.api = f"{server.url}/api/v3/repos/acme/flight-delay"
        seed.apply(self.forge, SEED)
        self.repo = seed.repo_of(self.forge, "acme/flight-delay")
        tools = tmp / "bin"
        tools.mkdir()
        (tools / "mlp-ci").write_text(RECORDER, encoding="utf-8")
        (tools / "mlp-ci").chmod(0o755)
        self.environment = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
        place = Place(tmp / "runner", server.url, f"{server.url}/api/v3", self.environment, {"acme/mlp-ci@v1": ROOT})
        self.runner = Runner(ForgeQueue(self.forge), place)
        files = {f".github/workflows/{name}.yml": text for name, text in templates(tmp).items()}
        self.commit({**files, "model.yaml": "name: flight-delay\n"}, push=False)

    def actor(self, login: str) -> Actor:
        user = self.forge.store.user(login)
        assert user is not None
        return Actor(user)

    def commit(self, files: Mapping[str, str], branch: str = "main", *, push: bool = True) -> str:
        content = {name: text.encode() for name, text in files.items()}
        sha = repositories.commit_files(self.forge, self.repo, self.actor("alice"), content, "Change", branch)
        if not push:
            for event in events.take_events(self.forge.store):
                events.finish_event(self.forge.store, event)
        return sha

    def branch(self, name: str) -> None:
        headers = {"Authorization": "Bearer alice-token"}
        sha = self.forge.git.refs(self.repo, "refs/heads/main")["refs/heads/main"]
        made = httpx.post(f"{self.api}/git/refs", json={"ref": f"refs/heads/{name}", "sha": sha}, headers=headers)
        assert made.status_code == 201

    def runs(self, name: str) -> list[Run]:
        return self.forge.store.find(Run, "name = ?", name)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def commands(self) -> dict[str, list[str]]:
        """Workflow → the lines the recorder wrote in its runs, once nothing is left to do."""
        deadline = time.monotonic() + 60
        while self.forge.store.count(Event, "state != 'done'"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        found: dict[str, list[str]] = {}
        for run in self.forge.store.find(Run):
            log = runs.read_log(self.forge, run)
            assert run.conclusion in ("success", "skipped"), log
            found.setdefault(run.name, []).extend(line for line in log.splitlines() if line.startswith("ran "))
        return found


def templates(tmp: Path) -> dict[str, str]:
    """The templates as the sandbox's organisation offers them, by the tool that a release uses."""
    import subprocess

    folder = tmp / "workflow-templates"
    shutil.copytree(ROOT / "workflow-templates", folder)
    command = [sys.executable, ROOT / "tools" / "rewrite_refs.py", "--to", "acme/mlp-ci@v1", folder]
    subprocess.run(command, check=True, capture_output=True)
    return {
        file.stem: file.read_text(encoding="utf-8").replace("$default-branch", "main") for file in folder.glob("*.yml")
    }


@pytest.fixture
def acme(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Organisation]:
    with ForgeServer(tmp_path / "forge") as server:
        made = Organisation(server, tmp_path)
        made.environment.update(getattr(request, "param", {}))
        made.runner.start()
        yield made
        made.runner.stop()


def without_details(lines: list[str]) -> list[str]:
    return [" ".join(line.split()[1:3]) for line in lines]


def test_a_push_goes_from_the_plan_to_registration_with_the_apps_token(acme: Organisation) -> None:
    acme.commit({"train.py": "x"})
    found = acme.commands()
    assert without_details(found.pop("Model CI")) == [
        "plan token=run",
        "validate token=run",
        "train token=run",
        "evaluate token=run",
        "register token=app",
    ]
    assert not any(found.values()), "promotion.yaml has not changed, so nothing is deployed"


@pytest.mark.parametrize("acme", [{"TRAIN": "false"}], indirect=True)
def test_what_is_trained_already_is_judged_and_registered_all_the_same(acme: Organisation) -> None:
    acme.commit({"train.py": "x"})
    ran = [line.split()[0] for line in without_details(acme.commands()["Model CI"])]
    assert ran == ["plan", "validate", "evaluate", "register"]


@pytest.mark.parametrize("acme", [{"SWEEP": "true"}], indirect=True)
def test_a_search_runs_in_jobs_of_its_own_before_the_training(acme: Organisation) -> None:
    acme.commit({"train.py": "x"})
    ran = [line.split()[0] for line in without_details(acme.commands()["Model CI"])]
    assert ran == ["plan", "validate", "sweep", "sweep", "train", "evaluate", "register"]


def test_a_pull_request_is_checked_without_a_secret_and_not_registered(acme: Organisation) -> None:
    acme.branch("topic")
    acme.commit({"train.py": "y"}, "topic")
    pulls.open_pull(acme.forge, acme.repo, acme.actor("alice"), ("topic", "main"), ("Try", None), draft=False)
    found = acme.commands()
    assert sorted(without_details(found.pop("Model CI"))) == [
        "data token=run",
        "evaluate token=run",
        "plan token=run",
        "report token=run",
        "train token=run",
        "validate token=run",
    ]
    assert without_details(found.pop("Promotion")) == ["approvals token=app"], "a required status must always come"
    assert not any(found.values())


def test_a_rollback_does_not_wait_for_a_training(acme: Organisation, tmp_path: Path) -> None:
    """One runner for trainings, one for deployments; the first is taken, and a second training waits for it."""
    go = tmp_path / "go"
    acme.environment["HOLD"] = str(go)
    acme.runner.parallel = 1
    acme.commit({"train.py": "x"})
    acme.until(lambda: any("ran train" in runs.read_log(acme.forge, run) for run in acme.runs("Model CI")))
    acme.branch("topic")
    acme.commit({"train.py": "y"}, "topic")
    pulls.open_pull(acme.forge, acme.repo, acme.actor("alice"), ("topic", "main"), ("Try", None), draft=False)
    started = time.monotonic()
    dispatch(acme, "rollback.yml", {"stage": "production", "reason": "p99"})
    acme.until(lambda: any(run.status == "completed" for run in acme.runs("Rollback")))
    waited = time.monotonic() - started
    acme.until(lambda: len(acme.runs("Model CI")) == 2)
    assert [run.conclusion for run in acme.runs("Rollback")] == ["success"]
    assert sorted(run.status for run in acme.runs("Model CI")) == ["in_progress", "queued"]
    assert waited < 20
    go.touch()
    acme.commands()


def test_a_promotion_is_judged_at_every_review_without_its_code_and_deployed_after_the_merge(
    acme: Organisation,
) -> None:
    acme.branch("promote")
    acme.commit({"promotion.yaml": "stages: {}\n"}, "promote")
    pull = pulls.open_pull(
        acme.forge, acme.repo, acme.actor("alice"), ("promote", "main"), ("Promote", None), draft=False
    )
    expected = f"ran approvals token=app stage= to= reason= pr={pull.number} files=0"
    assert acme.commands()["Promotion"] == [expected]
    headers = {"Authorization": "Bearer bob-token"}
    answer = httpx.post(f"{acme.api}/pulls/{pull.number}/reviews", json={"event": "APPROVE"}, headers=headers)
    assert answer.status_code == 200
    found = acme.commands()
    assert found["Promotion"] == [expected, expected]
    assert not found.get("Deploy")
    acme.commit({"promotion.yaml": "stages: {}\n"})
    [line] = acme.commands()["Deploy"]
    assert line == "ran deploy token=app stage= to= reason= pr= files=2"


@pytest.mark.parametrize(
    ("acme", "retrains"), [({"DRIFTED": "true"}, True), ({"DRIFTED": "false"}, False)], indirect=["acme"]
)
def test_a_schedule_watches_and_retrains_only_after_an_alarm(acme: Organisation, *, retrains: bool) -> None:
    events.scheduled(acme.forge, acme.repo, "23 * * * *")
    lines = without_details(acme.commands()["Monitor"])
    assert lines == ["monitor token=run", "cost token=run", *(["retrain token=app"] if retrains else [])]


def test_a_schedule_of_another_workflow_starts_that_one_only(acme: Organisation) -> None:
    events.scheduled(acme.forge, acme.repo, "13,43 * * * *")
    assert list(acme.commands()) == ["Deploy"]


def test_a_schedule_judges_all_open_promotions_again(acme: Organisation) -> None:
    events.scheduled(acme.forge, acme.repo, "19,49 * * * *")
    assert acme.commands() == {"Promotion": ["ran approvals token=app stage= to= reason= pr= files=0", "ran --open"]}


@pytest.mark.parametrize(("cron", "since"), [("37 * * * *", "7d"), ("7 5 * * 0", "")])
def test_an_audit_asks_for_the_last_week_each_hour_and_for_all_each_week(
    acme: Organisation, cron: str, since: str
) -> None:
    events.scheduled(acme.forge, acme.repo, cron)
    ran = "ran audit token=app stage= to= reason= pr= files=1"
    assert acme.commands() == {"Audit": [ran, f"ran --since={since} --repair=false"]}


def test_a_repair_is_asked_for_by_hand(acme: Organisation) -> None:
    assert dispatch(acme, "audit.yml", {"repair": "true"}).status_code in (200, 204)
    lines = acme.commands()["Audit"]
    assert [line for line in lines if line.startswith("ran --")] == ["ran --since= --repair=true"]


def test_a_rollback_gets_what_the_person_typed(acme: Organisation) -> None:
    reason = "p99; $(touch /tmp/owned) `id` \"quoted\" 'too'"
    inputs = {"stage": "production", "to": "3", "reason": reason}
    answer = dispatch(acme, "rollback.yml", inputs)
    assert answer.status_code in (200, 204)
    assert acme.commands() == {
        "Rollback": [f"ran rollback token=app stage=production to=3 reason={reason} pr= files=1"]
    }
    assert not Path("/tmp/owned").exists()


@pytest.mark.parametrize("acme", [{"EXIT": "4"}], indirect=True)
def test_nothing_to_do_leaves_the_job_green(acme: Organisation) -> None:
    dispatch(acme, "deploy.yml", {"stage": "staging"})
    [line] = acme.commands()["Deploy"]
    assert "stage=staging" in line


def dispatch(acme: Organisation, name: str, inputs: Mapping[str, Any]) -> httpx.Response:
    headers = {"Authorization": "Bearer alice-token"}
    body = {"ref": "main", "inputs": inputs}
    return httpx.post(f"{acme.api}/actions/workflows/{name}/dispatches", json=body, headers=headers)
