"""The runner and the real forge together: what people do there starts the repository's workflows, and shows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from mlp_ci.sandbox.execution import Place
from mlp_ci.sandbox.forge import checks, pulls, repositories, runs, seed
from mlp_ci.sandbox.forge.access import Actor
from mlp_ci.sandbox.forge.records import CheckRun, Event, Job, Run, Token
from mlp_ci.sandbox.forge.seed import Seed, SeedRepo, SeedTeam, SeedUser
from mlp_ci.sandbox.forge.server import ForgeServer
from mlp_ci.sandbox.forge_queue import ForgeQueue
from mlp_ci.sandbox.preparation import read_only
from mlp_ci.sandbox.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SEED = Seed(
    org="acme",
    users=tuple(SeedUser(login, token=f"{login}-token") for login in ("alice", "bob", "mallory")),
    teams=(SeedTeam("growth-ml", ("alice", "bob"), {"flight-delay": "write"}),),
    repos=(SeedRepo("flight-delay", secrets={"KEY": "open-sesame"}, variables={"WORD": "hello"}),),
)
POST_STATUS = """
      - run: |
          import json, os, urllib.request
          base = f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}"
          data = json.dumps({"state": "success", "context": "said", "description": os.environ["WORD"]}).encode()
          ask = urllib.request.Request(f"{base}/statuses/{os.environ['GITHUB_SHA']}", data, method="POST")
          ask.add_header("Authorization", f"Bearer {os.environ['TOKEN']}")
          print("answered", urllib.request.urlopen(ask).status)
        shell: python
        env: {TOKEN: "${{ github.token }}", WORD: "${{ vars.WORD }}"}
"""


class Sandbox:
    """A forge with a runner at work."""

    def __init__(self, server: ForgeServer, root: Path) -> None:
        self.forge = server.forge
        self.api = f"{server.url}/api/v3/repos/acme/flight-delay"
        seed.apply(self.forge, SEED)
        self.repo = seed.repo_of(self.forge, "acme/flight-delay")
        self.place = Place(root, server.url, f"{server.url}/api/v3")
        self.runner = Runner(ForgeQueue(self.forge), self.place)

    def actor(self, login: str) -> Actor:
        user = self.forge.store.user(login)
        assert user is not None
        return Actor(user)

    def commit(self, files: Mapping[str, str], branch: str = "main", by: str = "alice") -> str:
        tips = self.forge.git.refs(self.repo, "refs/heads")
        if f"refs/heads/{branch}" not in tips and tips:
            made = self.ask("/git/refs", method="POST", ref=f"refs/heads/{branch}", sha=tips["refs/heads/main"])
            assert made.status_code == 201
        content = {name: text.encode() for name, text in files.items()}
        return repositories.commit_files(self.forge, self.repo, self.actor(by), content, "Change", branch)

    def settled(self) -> list[Run]:
        deadline = time.monotonic() + 60
        while self.forge.store.count(Event, "state != 'done'"):
            assert time.monotonic() < deadline, self.forge.store.find(Event)
            time.sleep(0.02)
        assert self.runner.wait_idle(10)
        return self.forge.store.find(Run)

    def ask(self, path: str, login: str = "alice", method: str = "GET", **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {login}-token"}
        return httpx.request(method, f"{self.api}{path}", headers=headers, json=body or None, follow_redirects=True)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with ForgeServer(tmp_path / "forge") as server:
        made = Sandbox(server, tmp_path / "runner")
        made.runner.start()
        yield made
        made.runner.stop()


def workflow(on: str, steps: str, more: str = "") -> str:
    job = "jobs:\n  one:\n    name: Do it\n    runs-on: ubuntu-latest\n    permissions: {statuses: write}\n    steps:"
    return f"name: Loop\non: {on}\npermissions: {{}}\n{more}\n{job}{steps}"


def test_a_push_shows_as_a_run_with_job_steps_log_check_and_the_status_its_token_may_write(sandbox: Sandbox) -> None:
    extra = "\n      - run: echo '## All is well' >> \"$GITHUB_STEP_SUMMARY\"; echo '::notice file=a.py,line=2::look'\n"
    sha = sandbox.commit({".github/workflows/loop.yml": workflow("push", POST_STATUS + extra)})
    [run] = sandbox.settled()
    assert (run.status, run.conclusion, run.name, run.title) == ("completed", "success", "Loop", "Change")
    job = sandbox.ask(f"/actions/runs/{run.id}/jobs").json()["jobs"][0]
    assert (job["name"], job["conclusion"], job["labels"]) == ("Do it", "success", ["ubuntu-latest"])
    assert [(step["number"], step["conclusion"]) for step in job["steps"]] == [(1, "success"), (2, "success")]
    log = sandbox.ask(f"/actions/jobs/{job['id']}/logs").text
    assert "answered 201" in log
    assert "##[notice]look" in log
    [check] = checks.check_runs(sandbox.forge, sandbox.repo, sha)
    assert (check.name, check.conclusion) == ("Do it", "success")
    assert check.output["summary"].strip() == "## All is well"
    assert check.output["text"] == "- **notice** a.py:2: look"
    [status] = checks.latest_statuses(sandbox.forge, sandbox.repo, sha)
    assert (status.context, status.description) == ("said", "hello")
    assert sandbox.forge.store.count(Token, "kind = 'run'") == 0, "the run's token dies with it"


def test_a_token_without_the_permission_is_refused(sandbox: Sandbox) -> None:
    text = workflow("push", POST_STATUS).replace("statuses: write", "contents: read")
    sandbox.commit({".github/workflows/loop.yml": text})
    [run] = sandbox.settled()
    assert run.conclusion == "failure"
    assert "403" in runs.read_log(sandbox.forge, run)


def test_a_pull_request_starts_its_own_workflows_and_the_default_branchs(sandbox: Sandbox) -> None:
    say = '\n      - run: echo "$GITHUB_EVENT_NAME $GITHUB_REF [$KEY]"\n        env: {KEY: "${{ secrets.KEY }}"}\n'
    on_target = "{pull_request_target: {paths: [promotion.yaml]}, pull_request_review: {types: [submitted]}}"
    sandbox.commit(
        {
            ".github/workflows/own.yml": workflow("pull_request", say).replace("Loop", "Own"),
            ".github/workflows/target.yml": workflow(on_target, say).replace("Loop", "Target"),
        }
    )
    changed = workflow(on_target, "\n      - run: echo evil\n").replace("Loop", "Target")
    sandbox.commit({"promotion.yaml": "x", ".github/workflows/target.yml": changed}, branch="topic")
    pull = pulls.open_pull(
        sandbox.forge, sandbox.repo, sandbox.actor("alice"), ("topic", "main"), ("Promote", "Please"), draft=False
    )
    found = {run.name: run for run in sandbox.settled()}
    assert {name: (run.conclusion, run.title) for name, run in found.items()} == {
        "Own": ("success", "Promote"),
        "Target": ("success", "Promote"),
    }
    assert f"pull_request refs/pull/{pull.number}/merge [***]" in runs.read_log(sandbox.forge, found["Own"])
    target = runs.read_log(sandbox.forge, found["Target"])
    assert "pull_request_target refs/heads/main [***]" in target
    assert "evil" not in target, "the workflow of the default branch runs, not the one under review"
    names = {check.name for check in checks.check_runs(sandbox.forge, sandbox.repo, pull.head_sha)}
    assert names == {"Do it"}

    assert sandbox.ask(f"/pulls/{pull.number}/reviews", "bob", "POST", event="APPROVE").status_code == 200
    assert len([run for run in sandbox.settled() if run.event == "pull_request_review"]) == 1


def test_a_dispatch_by_the_api_runs_with_its_inputs_and_can_be_cancelled(sandbox: Sandbox) -> None:
    on = "{workflow_dispatch: {inputs: {to: {default: one}}}}"
    text = workflow(on, "\n      - run: echo to ${{ inputs.to }}; sleep 300\n", "run-name: Back to ${{ inputs.to }}")
    sandbox.commit({".github/workflows/loop.yml": text})
    answer = sandbox.ask("/actions/workflows/loop.yml/dispatches", method="POST", ref="main", inputs={"to": "3"})
    assert answer.status_code in (200, 204)
    deadline = time.monotonic() + 30
    while not (found := sandbox.forge.store.find(Run)) or "to 3" not in runs.read_log(sandbox.forge, found[0]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert found[0].title == "Back to 3"
    assert sandbox.ask(f"/actions/runs/{found[0].id}/cancel", method="POST").status_code == 202
    [run] = sandbox.settled()
    assert (run.status, run.conclusion) == ("completed", "cancelled")
    assert {job.conclusion for job in sandbox.forge.store.find(Job)} == {"cancelled"}


def test_a_deleted_branch_starts_nothing(sandbox: Sandbox) -> None:
    sandbox.commit({".github/workflows/loop.yml": workflow("push", "\n      - run: 'true'\n")})
    sandbox.commit({"a": "b"}, branch="topic")
    sandbox.settled()
    before = sandbox.forge.store.count(Run)
    assert before == 3, "main, the new branch, and the commit on it"
    assert sandbox.ask("/git/refs/heads/topic", method="DELETE").status_code == 204
    sandbox.settled()
    assert sandbox.forge.store.count(Run) == before


def test_what_a_killed_runner_had_begun_is_run_by_the_next(sandbox: Sandbox) -> None:
    """The first runner dies between creating the run and ending it; the second ends the same run."""
    sandbox.runner.stop()
    sandbox.commit({".github/workflows/loop.yml": workflow("push", "\n      - run: echo done\n")})
    dead = ForgeQueue(sandbox.forge)
    [event] = dead.take_events()
    created = dead.create_run(event, ".github/workflows/loop.yml", "Loop", "Change")
    assert created is not None
    dead.start_run(created[0])

    sandbox.runner = Runner(ForgeQueue(sandbox.forge), sandbox.place)
    sandbox.runner.start()
    [run] = sandbox.settled()
    assert (run.id, run.conclusion) == (created[0], "success")
    assert sandbox.forge.store.count(CheckRun) == 1


def test_the_code_of_a_fork_writes_nothing_reads_no_secret_and_starts_nothing_at_home(sandbox: Sandbox) -> None:
    said = '\n      - run: echo "key [$KEY]"\n        env: {KEY: "${{ secrets.KEY }}"}\n'
    base = {
        ".github/workflows/loop.yml": workflow("pull_request", said + POST_STATUS.lstrip("\n")),
        ".github/workflows/target.yml": workflow("pull_request_target", POST_STATUS),
    }
    sandbox.commit(base)
    assert sandbox.ask("/forks", "mallory", "POST").status_code == 202
    fork = seed.repo_of(sandbox.forge, "mallory/flight-delay")
    theirs = {".github/workflows/mine.yml": workflow("[push, pull_request]", said), "new.txt": "x"}
    content = {name: text.encode() for name, text in theirs.items()}
    repositories.commit_files(sandbox.forge, fork, sandbox.actor("mallory"), content, "Mine", "main")
    assert sandbox.settled() == []
    opened = sandbox.ask("/pulls", "mallory", "POST", title="Mine", head="mallory:main", base="main")
    assert opened.status_code == 201, opened.text
    found = {run.path.rpartition("/")[2]: run for run in sandbox.settled()}
    assert {name: run.conclusion for name, run in found.items()} == {
        "loop.yml": "failure",
        "mine.yml": "success",
        "target.yml": "success",
    }
    log = runs.read_log(sandbox.forge, found["loop.yml"])
    assert "key []" in log
    assert "HTTP Error 403" in log
    assert "key []" in runs.read_log(sandbox.forge, found["mine.yml"])
    assert "answered 201" in runs.read_log(sandbox.forge, found["target.yml"])


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (None, {"contents": "read"}),
        ({}, {}),
        ({"contents": "none", "id-token": "write", "statuses": "write"}, {"statuses": "read"}),
    ],
)
def test_a_token_for_a_forks_code_only_reads_what_was_asked_for(
    asked: dict[str, str] | None, given: dict[str, str]
) -> None:
    assert read_only(asked) == given
