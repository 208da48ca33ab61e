"""``mlp-ci report`` on a real run: the page, the card, and one comment on a pull request, silent when it can be."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci.context import load_context
from mlp_ci.tracking import Tracking, connect
from tests.pages import read
from tests.promotion import MODEL as FORGE_MODEL
from tests.promotion import World, running_world, world_seed
from tests.training import QUICK_TRAIN, ModelRepo, make_repo

if TYPE_CHECKING:
    from pathlib import Path

Cli = Callable[..., subprocess.CompletedProcess[str]]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def repo(tmp_path: Path) -> ModelRepo:
    return make_repo(tmp_path, QUICK_TRAIN)


@pytest.fixture
def run(cli: Cli, mlflow_server: str) -> Run:
    def call(command: str, repo: ModelRepo, *options: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        return cli(command, "--path", repo.path, *options, **{"MLFLOW_TRACKING_URI": mlflow_server, **env})

    return call


@pytest.fixture
def tracking(mlflow_server: str, tmp_path: Path) -> Tracking:
    return connect(load_context(tmp_path, environ={"MLFLOW_TRACKING_URI": mlflow_server}))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running_world(tmp_path / "world", world_seed(), "") as running:
        yield running


def comments(world: World, number: int) -> list[dict[str, Any]]:
    return world.hub().wire.pages(f"/repos/acme/{FORGE_MODEL}/issues/{number}/comments", "read")


def pull_job(world: World, folder: Path) -> tuple[int, dict[str, str]]:
    """An open pull request, and the environment of its job."""
    number = world.open("alice", {"train.py": b"x"}, "topic")
    event = folder / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": number}}))
    place = world.ctx("app").github
    assert place is not None
    return number, {
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_REPOSITORY": f"acme/{FORGE_MODEL}",
        "GITHUB_API_URL": place.api_url,
        "GITHUB_SERVER_URL": place.server_url,
        "GITHUB_TOKEN": place.token,
        "MLP_CI_COMMENT": "true",
    }


def test_a_run_is_told_of_from_what_is_stored(  # noqa: PLR0915 - one long set-up, looked at from all sides
    repo: ModelRepo, run: Run, tracking: Tracking, world: World, tmp_path: Path
) -> None:
    gates = [{"metric": "roc_auc", "min": 0.7}, {"metric": "accuracy", "slice": "kind", "min": 0.6}]
    repo.spec(evaluate={"gates": gates})
    repo.commit("Ask for more")
    number, env = pull_job(world, tmp_path)
    assert run("train", repo).returncode == 0
    unjudged = run("report", repo, **env)
    assert unjudged.returncode == 2
    assert "run `mlp-ci evaluate` first" in unjudged.stderr
    assert comments(world, number) == []
    judged = run("evaluate", repo, "--format", "json")
    assert judged.returncode == 0, judged.stdout + judged.stderr

    page = tmp_path / "report.html"
    first = run("report", repo, "--html", page, "--format", "json", **env)
    assert first.returncode == 0, first.stdout + first.stderr
    told = json.loads(first.stdout)
    assert told["outputs"]["gate"] == "pass"
    assert told["outputs"]["report"] == str(page)
    text = page.read_text()
    assert read(text).loaded == []
    assert "Pictures" in read(text).headings, "what the evaluation keeps for drawing is drawn"
    assert "2 of 2 gates passed on 400 held-out rows" in text
    run_id = told["data"]["run_id"]
    folder = tracking.run(run_id).tags["mlp.evaluation"]
    assert tracking.read_bytes(run_id, f"{folder}/report.html").decode() == text
    [comment] = comments(world, number)
    assert told["outputs"]["comment"] == comment["html_url"]
    assert f"artifacts/{folder}/report.html" in comment["body"]
    assert "| roc_auc |" in comment["body"]
    assert "```mermaid" in comment["body"]

    again = run("report", repo, **env)
    assert again.returncode == 0, again.stderr
    assert comments(world, number) == [comment], "the same facts write nothing, not even the same again"

    card = run("report", repo, "--card", "--comment")
    assert "no job of a pull request" in card.stderr
    assert card.stdout.startswith("---\n")
    assert "model-index:" in card.stdout
    assert "2 of 2 gates passed" in card.stderr
    assert run("register", repo, "--no-promote").returncode == 0
    assert tracking.read_bytes(run_id, f"{folder}/model-card.md").decode() == card.stdout

    other = world.open("alice", {"README.md": b"y"}, "words")
    (tmp_path / "event.json").write_text(json.dumps({"pull_request": {"number": other}}))
    silent = run("report", repo, **env)
    assert silent.returncode == 0, silent.stderr
    assert "which this pull request does not change" in silent.stdout
    assert comments(world, other) == [], "a pull request that leaves the model as it was gets no comment"

    nowhere = run("report", repo, "--comment", "--html", tmp_path / "no" / "folder.html")
    assert nowhere.returncode == 7
    assert "cannot be written" in nowhere.stderr

    tracking.log(run_id, tags={"mlp.evidence": "sha256:" + "0" * 64})
    forged = run("report", repo)
    assert forged.returncode == 3
    assert "changed after the evaluation wrote it" in forged.stderr
