"""Every attack, and its honest twin, against a real forge, real git and a real MLflow, judged as the commands judge.

`approvals` judges in a job whenever its workflow would run, and sets its status; `verify_intent`, which `deploy` asks
before it loads anything, judges what is on the default branch in the end. The same files go through the real workflows
in test_workflows.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlp_ci import clock
from mlp_ci.errors import MlpError, SpecError
from mlp_ci.promote import approvals, verify_intent
from mlp_ci.report import Finding, Outcome
from mlp_ci.sandbox.forge.server import ForgeServer
from tests.attacks import town as towns
from tests.attacks.registry import Registry, open_registry
from tests.attacks.replay import STATUS, Pull, Replay
from tests.attacks.story import Story, played_once, stories

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.attacks.town import Town


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgeServer]:
    with ForgeServer(tmp_path_factory.mktemp("attacks") / "forge") as server:
        yield server


@pytest.fixture(scope="module")
def registry(mlflow_server: str) -> Registry:
    return open_registry(mlflow_server)


@pytest.fixture
def town(story: Story, forge: ForgeServer, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Town:
    file = tmp_path / "clock"
    made = towns.Clock(file)
    monkeypatch.setenv(clock.ENV, str(file))
    return towns.found(forge, made, tmp_path, registry, story, {})


@dataclass
class Judged:
    """What `approvals` said last of each pull request: the status it set, and the rules that failed."""

    town: Town
    failed: dict[int, set[str]] = field(default_factory=dict)
    status: dict[int, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def __call__(self, pull: Pull) -> None:
        self.said.clear()
        event = {"pull_request": {"number": pull.number}, "number": pull.number}
        try:
            report = approvals(self.town.ctx(event), pr=None, commit=None)
        except MlpError as error:
            self._error(pull, error)
            return
        self.failed[pull.number] = failing(report.findings)
        self.said += sentences(report.findings)
        head = self.town.hub().pull(pull.number).head_sha
        newest = self.town.api("carol", "GET", f"/commits/{head}/statuses")
        self.status[pull.number] = next((s["state"] for s in newest if s["context"] == STATUS), "none")

    def _error(self, pull: Pull, error: MlpError) -> None:
        self.said.append(f"{error.what} → {error.fix}")
        self.failed[pull.number] = {kind_of(error)}
        self.status[pull.number] = "error"


def kind_of(error: MlpError) -> str:
    """What stopped a command before it came to a verdict: a file that cannot be read, or something else."""
    return "readable" if isinstance(error, SpecError) or "not a plain file" in error.what else "error"


def failing(findings: list[Finding]) -> set[str]:
    return {f.check for f in findings if f.outcome is Outcome.FAIL and f.severity != "warning"}


def sentences(findings: list[Finding]) -> list[str]:
    return [f"{f.outcome} {f.check}: {f.message}" for f in findings]


def deploys(town: Town, story: Story) -> tuple[bool, int | None, set[str], list[str]]:
    """What `deploy` would do in the stage: whether it may, which version, the rules that fail, all it says."""
    from mlp_ci.github import policy_of

    ctx = town.ctx()
    try:
        verdict = verify_intent(ctx, town.hub(), town.registry.tracking, policy_of(ctx).spec, story.stage)
    except MlpError as error:
        return False, None, {kind_of(error)}, [f"{error.what} → {error.fix}"]
    version = verdict.entry.version if verdict.entry else None
    return verdict.allowed, version, failing(verdict.reasons), sentences(verdict.reasons)


# Every third attack in the fast suite, on one forge; the others and all twins in the slow one, where the real workflows
# play every story once more.
STORIES = played_once("replay")
QUICK = [s for s in STORIES if not s.allowed][::3]
REPLAYED = [
    pytest.param(s, marks=pytest.mark.xdist_group("replay") if s in QUICK else pytest.mark.slow) for s in STORIES
]


@pytest.mark.parametrize("story", REPLAYED, ids=str)
def test_the_attack_is_refused_and_its_honest_twin_allowed(story: Story, town: Town) -> None:
    judged = Judged(town)
    replay = Replay(town, judged)
    replay.play(story.history)
    if "status" in story.rules:
        number = replay.pulls["it"].number
        told = f"approvals said {judged.status.get(number)}: {judged.said}"
        if story.allowed:
            assert judged.status[number] == "success", told
        else:
            assert judged.status[number] != "success", told
            assert set(story.rules["status"]) == judged.failed[number], told
    if story.version and ("deploy" in story.rules or story.allowed):
        allowed, version, failed, said = deploys(town, story)
        told = f"deploy may{'' if allowed else ' not'} run version {version}: {said}"
        if story.allowed:
            assert allowed, told
            assert version == story.version, told
        else:
            assert not allowed, told
            assert set(story.rules["deploy"]) == failed, told


@pytest.mark.parametrize("story", [s for s in stories(promotes=False) if "linter" in s.rules], ids=str)
def test_the_linter_finds_the_workflow_and_not_its_honest_twin(story: Story, tmp_path: Path) -> None:
    """zizmor as `make lint` runs it over the templates and the workflows of model repositories."""
    [step] = story.history
    file = tmp_path / step["path"]
    file.parent.mkdir(parents=True)
    file.write_text(step["text"])
    config = Path(__file__).parents[2] / ".github" / "zizmor.yml"
    command = [Path(sys.executable).with_name("zizmor"), "--offline", "--no-progress", "--quiet"]
    options = ["--persona=auditor", "--config", config, "--format", "json", file]
    found = json.loads(subprocess.run([*command, *options], capture_output=True, text=True, check=False).stdout)
    assert {finding["ident"] for finding in found} == set(story.rules["linter"])
