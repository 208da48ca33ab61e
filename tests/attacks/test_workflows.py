"""The same attacks and twins through the real workflows: act runs promotion.yml and deploy.yml, a target serves.

Refused: the status is not success, and the deployment fails or does nothing; the attacker's version runs nowhere.
Allowed: the status is success and the target serves the version. Twins that are one and the same history are played
once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml

from mlp_ci import clock
from mlp_ci.sandbox.forge.records import Job, Run
from mlp_ci.serve.state import Place
from mlp_ci.serve.targets.local import local
from tests.attacks import machine
from tests.attacks import town as towns
from tests.attacks.registry import Registry, open_registry, real_models
from tests.attacks.replay import STATUS, Pull, Replay
from tests.attacks.story import Story, played_once, stories

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.attacks.machine import Machine
    from tests.attacks.town import Town

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def registry(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return open_registry(mlflow_server, real_models(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def acme(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("acme")
    (folder / "clock").write_text(towns.BEGIN.isoformat())
    with machine.running(folder, registry.tracking.uri, folder / "clock") as made:
        yield made


@pytest.fixture
def town(story: Story, acme: Machine, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Town:
    made = towns.Clock(acme.folder / "clock", runs=True)
    monkeypatch.setenv(clock.ENV, str(made.file))
    founded = towns.found(acme.server, made, tmp_path, registry, story, machine.templates("promotion", "deploy"))
    acme.forget()
    return founded


def rules_of(comment: str) -> set[str]:
    """The rules that fail by the table of the one comment."""
    return set(re.findall(r"^\| ([\w:-]+) \| ✗", comment, re.MULTILINE))


@pytest.mark.parametrize("story", played_once("workflows"), ids=str)
def test_the_workflows_refuse_the_attack_and_let_its_honest_twin_through(
    story: Story, town: Town, acme: Machine
) -> None:
    seen: dict[int, tuple[str, str]] = {}

    def watch(pull: Pull) -> None:
        acme.work(town)
        head = town.head(pull.branch) or pull.heads[-1]
        newest = town.api("carol", "GET", f"/commits/{head}/statuses")
        state = next((s["state"] for s in newest if s["context"] == STATUS), "none")
        comments = town.api("carol", "GET", f"/issues/{pull.number}/comments")
        said = next((c["body"] for c in comments if "<!-- mlp-ci approvals -->" in c["body"]), "")
        seen[pull.number] = (state, said)

    replay = Replay(town, watch, deployed=lambda: acme.work(town))
    replay.play(story.history)
    acme.work(town)
    try:
        _check(story, town, acme, replay, seen)
    finally:
        local.stop(Place(acme.serve_home, town.model, story.stage))


def _check(story: Story, town: Town, acme: Machine, replay: Replay, seen: dict[int, tuple[str, str]]) -> None:
    if "status" in story.rules:
        state, said = seen[replay.pulls["it"].number]
        assert (state == "success") == story.allowed, (state, said)
        if rules := set(story.rules["status"]) - {"error"}:
            assert rules <= rules_of(said), said
    if not story.version:
        return
    deployments = acme.runs(town, "Deploy")
    log = acme.log(deployments[-1]) if deployments else ""
    fact = local.live(Place(acme.serve_home, town.model, story.stage))
    if story.allowed:
        assert deployments, "nothing was deployed"
        assert deployments[-1].conclusion == "success", log
        assert fact, log
        assert (fact.version, fact.running) == (story.version, True), log
        return
    assert fact is None or (fact.version, fact.digest) != (story.version, town.versions[story.version].digest), log
    if "deploy" in story.rules:
        assert deployments, "the attack never came to the deployment"
        assert deployments[-1].conclusion == "failure", log
        # What stops the command before it comes to any rule is told in words of its own.
        if rules := set(story.rules["deploy"]) - {"error", "readable", "model", "artefact"}:
            assert rules <= set(re.findall(r"✗ .*\(([\w:-]+)\)", log)), log


def other(place: str) -> list[Story]:
    return [s for s in stories(promotes=False) if place in s.rules]


@pytest.mark.parametrize("story", other("runner"), ids=str)
def test_no_job_takes_the_code_of_a_fork_to_the_teams_runner(story: Story, town: Town, acme: Machine) -> None:
    templates = machine.templates("model-ci")
    replay = Replay(town, lambda _: acme.work(town))
    replay.do_push({"by": "carol", "branch": "main", "files": {path: raw.decode() for path, raw in templates.items()}})
    acme.forget()
    replay.play(story.history)
    acme.work(town)
    [run] = acme.runs(town, "Model CI")
    jobs = {j.name: j for j in town.forge.store.find(Job, "run_id = ?", run.id)}
    names = yaml.safe_load(templates[".github/workflows/model-ci.yml"])["jobs"]
    ran = {id for id, job in names.items() if jobs[job["name"]].conclusion != "skipped"}
    if story.allowed:
        assert {"plan", "data"} <= ran
        assert jobs[names["plan"]["name"]].labels == ["gpu-small"]
    else:
        assert not ran & set(story.rules["runner"]), acme.log(run)


@pytest.mark.parametrize("story", other("log"), ids=str)
def test_a_secret_does_not_stand_in_a_log(story: Story, town: Town, acme: Machine) -> None:
    """The twin shows that the same words do stand there when they are no secret."""
    replay = Replay(town, lambda _: acme.work(town))
    replay.play(story.history)
    acme.work(town)
    found = town.forge.store.find(Run, "repo_id = ?", town.repo.id)
    assert found, "no workflow ran"
    logs = "".join(acme.log(run) for run in found)
    assert ("correct-horse-battery-staple" in logs) == story.allowed, logs
