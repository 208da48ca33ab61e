"""The runner with the real act and real git, on tiny repositories and a forge that is only a list."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from mlp_ci.sandbox import act
from mlp_ci.sandbox.execution import Event, JobState, Place
from mlp_ci.sandbox.runner import Runner, trigger_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ZERO = "0" * 40


def git(where: Path, *arguments: str) -> str:
    identity = {"GIT_AUTHOR_NAME": "alice", "GIT_AUTHOR_EMAIL": "alice@acme.test"}
    identity |= {"GIT_COMMITTER_NAME": "alice", "GIT_COMMITTER_EMAIL": "alice@acme.test"}
    done = subprocess.run(
        ["git", *arguments], cwd=where, env={**os.environ, **identity}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@dataclass
class Run:
    path: str
    name: str
    title: str
    event: Event
    status: str = "queued"
    conclusion: str = ""
    permissions: Mapping[str, str] | None = None
    jobs: dict[str, JobState] = field(default_factory=dict)
    log: str = ""


@dataclass
class ListForge:
    """The queue side of a forge, in memory."""

    events: list[Event] = field(default_factory=list)
    runs: dict[int, Run] = field(default_factory=dict)
    kept_secrets: dict[str, str] = field(default_factory=dict)
    kept_variables: dict[str, str] = field(default_factory=dict)
    cancelling: set[int] = field(default_factory=set)
    finished: list[Event] = field(default_factory=list)
    recovered: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def recover(self) -> None:
        self.recovered = True

    def take_events(self) -> Sequence[Event]:
        with self.lock:
            taken, self.events = self.events, []
        return taken

    def finish_event(self, event: Event) -> None:
        open_runs = [run for run in self.runs.values() if run.event == event and run.status != "completed"]
        assert not open_runs, "an event is finished when all its runs are"
        self.finished.append(event)

    def create_run(self, event: Event, path: str, name: str, title: str) -> tuple[int, int] | None:
        with self.lock:
            run = len(self.runs) + 1
            self.runs[run] = Run(path, name, title, event)
        return run, run

    def start_run(self, run: int) -> None:
        self.runs[run].status = "in_progress"

    def update_job(self, run: int, job: JobState) -> None:
        self.runs[run].jobs[job.id] = job

    def finish_run(self, run: int, conclusion: str) -> None:
        self.runs[run].conclusion = conclusion
        self.runs[run].status = "completed"

    def append_log(self, run: int, job: str, text: str) -> None:
        self.runs[run].log += text

    def mint_run_token(self, run: int, permissions: Mapping[str, str] | None) -> str:
        self.runs[run].permissions = permissions
        return f"run-token-{run}-sesame"

    def secrets(self, repository: str) -> Mapping[str, str]:
        return self.kept_secrets

    def variables(self, repository: str) -> Mapping[str, str]:
        return self.kept_variables

    def labels(self, repository: str) -> Sequence[str]:
        return ["gpu-big"]

    def cancel_requested(self, run: int) -> bool:
        return run in self.cancelling


@dataclass
class World:
    """A repository with its bare copy, and a runner at work on what happens to it."""

    forge: ListForge
    runner: Runner
    work: Path
    bare: Path

    def commit(self, files: Mapping[str, str], message: str = "Change") -> str:
        for name, text in files.items():
            (self.work / name).parent.mkdir(parents=True, exist_ok=True)
            (self.work / name).write_text(text, encoding="utf-8")
        git(self.work, "add", "-A")
        git(self.work, "commit", "--allow-empty", "-qm", message)
        return git(self.work, "rev-parse", "HEAD")

    def event(self, name: str, sha: str, payload: Mapping[str, Any], ref: str = "refs/heads/main") -> Event:
        action = str(payload.get("action", ""))
        return Event(1, "acme/flight-delay", self.bare, "main", name, action, payload, "alice", ref, sha)

    def push(self, files: Mapping[str, str], message: str = "Change", branch: str = "main") -> Event:
        old = git(self.work, "rev-parse", "HEAD") if (self.work / ".git" / "refs" / "heads" / "main").exists() else ZERO
        sha = self.commit(files, message)
        git(self.work, "push", "-q", str(self.bare), f"HEAD:refs/heads/{branch}")
        ref = f"refs/heads/{branch}"
        event = self.event("push", sha, {"ref": ref, "before": old, "after": sha}, ref)
        self.forge.events.append(event)
        return event

    def settled(self, timeout: float = 60) -> list[Run]:
        deadline = time.monotonic() + timeout
        while self.forge.events and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.runner.wait_idle(timeout), self.forge.runs
        return list(self.forge.runs.values())

    def until(self, condition: Any, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, self.forge.runs
            time.sleep(0.02)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    work, bare = tmp_path / "work", tmp_path / "flight-delay.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(bare))
    git(tmp_path, "init", "-q", "-b", "main", str(work))
    action = tmp_path / "mlp-ci" / "actions" / "echo" / "action.yml"
    action.parent.mkdir(parents=True)
    action.write_text(ECHO, encoding="utf-8")
    place = Place(
        root=tmp_path / "runner",
        server_url="http://127.0.0.1:9",
        api_url="http://127.0.0.1:9/api/v3",
        environment={"MLFLOW_TRACKING_URI": "http://127.0.0.1:8"},
        repositories={"acme/mlp-ci@v1": tmp_path / "mlp-ci"},
    )
    forge = ListForge()
    made = World(forge, Runner(forge, place), work, bare)
    made.runner.start()
    yield made
    made.runner.stop()
    assert not list(place.root.glob("run-*")), "a run left its folder behind"
    assert marked(place) == [], "a run left a process behind"


def marked(place: Place) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RUNNER_TRACKING_ID", "").startswith(place.tracking):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


ECHO = """
name: echo
description: Says a word
inputs:
  word: {description: What to say, default: nothing}
  token: {description: Token, default: "${{ github.token }}"}
outputs:
  said: {description: What was said, value: "${{ steps.run.outputs.said }}"}
runs:
  using: composite
  steps:
    - id: run
      shell: bash
      env: {WORD: "${{ inputs.word }}", TOKEN: "${{ inputs.token }}"}
      run: |
        echo "word: $WORD, token: $TOKEN"
        echo "said=$WORD" >> "$GITHUB_OUTPUT"
        echo "## Said $WORD" >> "$GITHUB_STEP_SUMMARY"
        test -f "$GITHUB_ACTION_PATH/action.yml"
"""


def workflow(steps: str, on: str = "push", more: str = "") -> dict[str, str]:
    text = f"name: Loop\non: {on}\npermissions: {{}}\n{more}\njobs:\n  one:\n    runs-on: ubuntu-latest\n    steps:\n"
    return {".github/workflows/loop.yml": text + "".join(f"      {line}\n" for line in steps.strip().splitlines())}


def test_a_push_runs_the_repositorys_own_workflow_as_on_github(world: World) -> None:
    world.forge.kept_secrets = {"MLP_CI_TOKEN": "app-token-sesame"}
    world.forge.kept_variables = {"LABEL": "gpu-small"}
    event = world.push(
        {
            "hello.txt": "hello\n",
            ".github/workflows/ci.yml": """
name: CI
on: {push: {branches: [main]}}
permissions: {}
jobs:
  check:
    name: Check it
    runs-on: [self-hosted, "${{ vars.LABEL }}"]
    permissions: {contents: read}
    outputs: {said: "${{ steps.echo.outputs.said }}"}
    steps:
      - uses: actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683
      - run: cat hello.txt; git log -1 --format=%s; git rev-parse --abbrev-ref HEAD; git remote get-url origin
      - id: echo
        uses: acme/mlp-ci/actions/echo@v1
        with: {word: "${{ github.event_name }}"}
      - run: echo "$A $B $C $D $E $F"
        env:
          A: ${{ github.repository }}
          B: ${{ github.actor }}
          C: ${{ github.sha }}
          D: ${{ github.ref }}
          E: ${{ github.api_url }}
          F: ${{ secrets.MLP_CI_TOKEN }}
      - run: echo "tracking $MLFLOW_TRACKING_URI as run $GITHUB_RUN_ID by $(command -v mlp-ci)"
  report:
    needs: check
    runs-on: ubuntu-latest
    permissions: {statuses: write}
    steps:
      - run: ls -A | wc -l; echo "before it said ${{ needs.check.outputs.said }}"
""",
        },
        message="Say hello\n\nin two lines",
    )
    [run] = world.settled()
    assert world.forge.finished == [event]
    assert (run.conclusion, run.name, run.title) == ("success", "CI", "Say hello")
    assert run.permissions == {"contents": "read", "statuses": "write"}
    assert {job.name: job.conclusion for job in run.jobs.values()} == {"Check it": "success", "report": "success"}
    assert run.jobs["check"].labels == ("self-hosted", "gpu-small")
    assert [step.conclusion for step in run.jobs["check"].steps] == ["success"] * 5
    assert run.jobs["check"].summary.strip() == "## Said push"
    lines = run.log.splitlines()
    assert {"hello", "Say hello", "main", "http://127.0.0.1:9/acme/flight-delay.git"} <= set(lines)
    assert f"acme/flight-delay alice {event.sha} refs/heads/main http://127.0.0.1:9/api/v3 ***" in lines
    assert "word: push, token: ***" in lines
    assert any(line.startswith("tracking http://127.0.0.1:8 as run 1 by /") for line in lines)
    assert lines[-2:] == ["0", "before it said push"], "a job without checkout starts in an empty folder"
    assert "sesame" not in run.log


def test_the_actions_of_this_repository_run_in_it_without_being_installed(world: World) -> None:
    """The real action, its real scripts, the real command line; there is no model in that folder, and it says so."""
    root = Path(__file__).resolve().parents[2]
    world.runner.place = replace(world.runner.place, repositories={"acme/mlp-ci@v1": root})
    world.push(workflow("- uses: acme/mlp-ci/actions/approvals@v1\n  with: {path: nowhere, format: json}"))
    started = time.monotonic()
    [run] = world.settled()
    assert time.monotonic() - started < 10, "act copied more than the actions"
    assert (run.conclusion, run.jobs["one"].conclusion) == ("failure", "failure")
    assert "installing it" not in run.log
    assert "nowhere" in run.log


def test_the_overhead_of_a_run_is_small(world: World) -> None:
    world.push(workflow("- uses: acme/mlp-ci/actions/echo@v1\n" * 4))
    started = time.monotonic()
    [run] = world.settled()
    assert run.conclusion == "success"
    assert time.monotonic() - started < 4, "4 steps should take well under 2 s on an idle machine"


def test_a_failing_step_fails_its_job_and_what_needs_it_is_skipped(world: World) -> None:
    world.push(
        {
            ".github/workflows/ci.yml": """
on: push
jobs:
  first:
    runs-on: ubuntu-latest
    steps:
      - run: echo '::error file=model.yaml,line=3,title=Bad::two%0Alines'; exit 3
      - run: echo never
      - if: always()
        run: echo afterwards
  second:
    needs: first
    runs-on: ubuntu-latest
    steps: [{run: echo never}]
  third:
    if: github.event_name == 'schedule'
    runs-on: ubuntu-latest
    steps: [{run: echo never}]
"""
        }
    )
    [run] = world.settled()
    assert run.conclusion == "failure"
    assert {id: job.conclusion for id, job in run.jobs.items()} == {
        "first": "failure",
        "second": "skipped",
        "third": "skipped",
    }
    [note] = run.jobs["first"].annotations
    assert (note.level, note.message, note.where["file"], note.where["line"]) == (
        "error",
        "two\nlines",
        "model.yaml",
        "3",
    )
    assert "##[error]Process completed with exit code 3." in run.log
    assert "afterwards" in run.log.splitlines()
    assert "never" not in run.log.splitlines()


def test_secrets_are_masked_line_by_line_and_reach_no_argument_list_and_no_other_step(world: World) -> None:
    world.forge.kept_secrets = {"KEY": "first-line-of-key\nsecond-line-of-key"}
    step = """
- run: |
    env | grep -c line-of-key || true
    tr '\\0' ' ' < /proc/$PPID/cmdline; echo
    find .. ../../.. -name 'secret-file*' -size +0 2>/dev/null | wc -l
    echo '::add-mask::masked-later'; echo "it is masked-later"
- run: echo "$KEY"
  env: {KEY: "${{ secrets.KEY }}"}
"""
    world.push(workflow(step))
    [run] = world.settled()
    assert run.conclusion == "success"
    assert "line-of-key" not in run.log
    lines = run.log.splitlines()
    assert lines.count("***") == 2, "each line of the secret is masked"
    assert "it is ***" in lines
    assert lines.count("0") == 2, "neither the environment nor a file on disk holds the secret"


def test_pull_requests_run_the_merge_and_forks_get_no_secret(world: World) -> None:
    world.forge.kept_secrets = {"KEY": "open-sesame"}
    step = """
- uses: actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683
- run: cat theirs.txt; echo "secret [$KEY] $GITHUB_REF $GITHUB_HEAD_REF $GITHUB_BASE_REF"; git status --short
  env: {KEY: "${{ secrets.KEY }}"}
"""
    world.commit(workflow(step, on="pull_request", more="concurrency: pr-${{ github.event.number }}"))
    base = git(world.work, "rev-parse", "HEAD")
    git(world.work, "push", "-q", str(world.bare), "HEAD:refs/heads/main")
    head = world.commit({"theirs.txt": "theirs\n"})
    git(world.work, "push", "-q", str(world.bare), "HEAD:refs/pull/7/merge")
    for owner, title in (("acme", "Ours"), ("mallory", "Theirs")):
        pull = {
            "title": title,
            "base": {"ref": "main", "sha": base, "repo": {"full_name": "acme/flight-delay"}},
            "head": {"ref": "topic", "sha": head, "repo": {"full_name": f"{owner}/flight-delay"}},
        }
        payload = {"action": "opened", "number": 7, "pull_request": pull}
        world.forge.events.append(world.event("pull_request", head, payload, "refs/pull/7/merge"))
        world.settled()
    ours, theirs = world.forge.runs.values()
    assert (ours.conclusion, theirs.conclusion) == ("success", "success")
    assert (ours.title, theirs.title) == ("Ours", "Theirs")
    assert "secret [***] refs/pull/7/merge topic main" in ours.log
    assert "secret [] refs/pull/7/merge topic main" in theirs.log
    assert "theirs" in ours.log.splitlines()


def test_a_dispatch_starts_only_the_workflow_it_names_with_the_defaults_filled_in(world: World) -> None:
    on = "{workflow_dispatch: {inputs: {stage: {default: production}, to: {type: string}}}}"
    world.push(
        workflow(
            '- run: echo "to [${{ inputs.to }}] in ${{ github.event.inputs.stage }}"',
            on=on,
            more="run-name: Back to ${{ inputs.to }}",
        )
    )
    world.commit(
        {".github/workflows/other.yml": "on: workflow_dispatch\njobs: {a: {runs-on: x, steps: [{run: 'true'}]}}"}
    )
    sha = git(world.work, "rev-parse", "HEAD")
    git(world.work, "push", "-q", str(world.bare), "HEAD:refs/heads/main")
    payload = {"workflow": ".github/workflows/loop.yml", "ref": "refs/heads/main", "inputs": {"to": "3"}}
    world.forge.events.append(world.event("workflow_dispatch", sha, payload))
    [run] = world.settled()
    assert (run.conclusion, run.title) == ("success", "Back to 3")
    assert "to [3] in production" in run.log


def test_a_newer_run_of_a_group_cancels_the_older_one_and_its_processes(world: World) -> None:
    more = "concurrency: {group: 'ci-${{ github.ref }}', cancel-in-progress: true}"
    world.push(workflow("- run: sleep 300 & sleep 299", more=more))
    world.until(lambda: any("sleep" in run.log for run in world.forge.runs.values()))
    started = time.monotonic()
    world.push({"again.txt": "x", **workflow("- run: echo quick", more=more)})
    first, second = world.settled()
    assert (first.conclusion, second.conclusion) == ("cancelled", "success")
    assert first.jobs["one"].conclusion == "cancelled"
    assert time.monotonic() - started < 20


PLANNED = """
name: Model CI
on: push
permissions: {}
jobs:
  plan:
    runs-on: ubuntu-latest
    outputs: {where: "${{ steps.a.outputs.where }}", minutes: "${{ steps.a.outputs.minutes }}"}
    steps:
      - id: a
        run: |
          echo 'where=["self-hosted", "gpu-big"]' >> "$GITHUB_OUTPUT"
          echo 'minutes=90' >> "$GITHUB_OUTPUT"
  train:
    needs: plan
    runs-on: ${{ fromJSON(needs.plan.outputs.where) }}
    timeout-minutes: ${{ fromJSON(needs.plan.outputs.minutes) }}
    concurrency: {group: "train-${{ github.ref }}", cancel-in-progress: true}
    steps: [{run: "echo training; COMMAND"}]
  judge:
    needs: [plan, train]
    if: ${{ !cancelled() && needs.train.result == 'success' }}
    runs-on: ubuntu-latest
    steps: [{run: "echo judged"}]
"""


def planned(command: str) -> dict[str, str]:
    return {".github/workflows/ci.yml": PLANNED.replace("COMMAND", command)}


def test_a_job_runs_where_an_earlier_job_says(world: World) -> None:
    world.push(planned("true"))
    [run] = world.settled()
    assert run.conclusion == "success"
    assert [job.labels for job in run.jobs.values()] == [
        ("ubuntu-latest",),
        ("self-hosted", "gpu-big"),
        ("ubuntu-latest",),
    ]


def test_a_newer_job_of_a_group_ends_the_older_one_politely_and_not_its_run_before(world: World) -> None:
    said = world.work.parent / "said-goodbye"
    world.push(planned(f"trap 'touch {said}; exit 1' TERM; while true; do sleep 0.05; done"))
    world.until(lambda: any("training" in run.log.splitlines() for run in world.forge.runs.values()))
    world.push({"again.txt": "x", **planned("true")})
    first, second = world.settled()
    assert (first.conclusion, second.conclusion) == ("cancelled", "success")
    assert [job.conclusion for job in first.jobs.values()] == ["success", "cancelled", "skipped"]
    assert "higher priority" in first.log
    assert said.exists()


def test_what_a_training_occupies_keeps_no_other_runner_busy(world: World) -> None:
    world.runner.parallel = 1
    go = world.work.parent / "go"
    deploy = {
        ".github/workflows/deploy.yml": "name: Deploy\non: workflow_dispatch\n"
        "jobs: {a: {runs-on: deploy-here, steps: [{run: 'echo deployed'}]}}\n"
    }
    sha = world.push({**deploy, **planned(f"while [ ! -f {go} ]; do sleep 0.05; done")}).sha
    world.until(lambda: any("training" in run.log.splitlines() for run in world.forge.runs.values()))
    world.push({"more.txt": "x"}, branch="topic")
    world.until(lambda: len(world.forge.runs) == 2)
    payload = {"workflow": ".github/workflows/deploy.yml", "ref": "refs/heads/main"}
    world.forge.events.append(world.event("workflow_dispatch", sha, payload))
    world.until(lambda: any(run.name == "Deploy" and run.conclusion for run in world.forge.runs.values()))
    first, second, deployed = world.forge.runs.values()
    assert (first.status, second.status) == ("in_progress", "queued")
    assert deployed.conclusion == "success"
    go.touch()
    assert [run.conclusion for run in world.settled()] == ["success"] * 3


def test_without_cancel_in_progress_one_run_waits_and_a_newer_one_takes_its_place(world: World) -> None:
    more = "concurrency: {group: deploy, cancel-in-progress: false}"
    files = workflow(
        '- run: \'while [ ! -e /tmp/none ] && [ ! -e "$GATE" ]; do sleep 0.05; done; echo "$GITHUB_SHA"\'', more=more
    )
    gate = world.work.parent / "gate"
    files = {name: text.replace("    steps:", f"    env: {{GATE: {gate}}}\n    steps:") for name, text in files.items()}
    world.push(files)
    world.until(lambda: any(run.status == "in_progress" for run in world.forge.runs.values()))
    world.push({"a": "1"})
    world.push({"a": "2"})
    world.until(lambda: len(world.forge.runs) == 3 and world.forge.runs[2].status == "completed")
    gate.touch()
    first, second, third = world.settled()
    assert (first.conclusion, second.conclusion, third.conclusion) == ("success", "cancelled", "success")


def test_a_job_over_its_time_is_ended_and_says_so(world: World) -> None:
    files = workflow("- run: sleep 200 & sleep 200\n- run: echo never")
    files = {name: text.replace("    steps:", "    timeout-minutes: 0.02\n    steps:") for name, text in files.items()}
    started = time.monotonic()
    world.push(files)
    [run] = world.settled()
    assert time.monotonic() - started < 20
    assert (run.conclusion, run.jobs["one"].conclusion) == ("failure", "timed_out")
    assert "maximum execution time of 0.02 minutes" in run.log
    assert "never" not in run.log.splitlines()


def test_a_run_can_be_cancelled_by_hand(world: World) -> None:
    world.push(workflow("- run: sleep 300"))
    world.until(lambda: any("sleep" in run.log for run in world.forge.runs.values()))
    world.forge.cancelling.add(1)
    [run] = world.settled()
    assert (run.conclusion, run.jobs["one"].conclusion) == ("cancelled", "cancelled")


def test_what_a_job_leaves_running_is_ended_unless_it_drops_the_tracking_variable(world: World, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    orphan_line = f"nohup sleep 300 >/dev/null 2>&1 & echo $! >> {pids}"
    served_line = f"RUNNER_TRACKING_ID= setsid nohup sleep 301 >/dev/null 2>&1 & echo $! >> {pids}"
    world.push(workflow(f"- run: '{orphan_line}; {served_line}; sleep 0.3'"))
    [run] = world.settled()
    orphan, served = (int(line) for line in pids.read_text().split())
    try:
        assert run.conclusion == "success"
        assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE
        assert psutil.Process(served).cmdline() == ["sleep", "301"]
    finally:
        os.kill(served, signal.SIGKILL)


def test_stopping_the_runner_cancels_what_runs_and_what_waits(world: World) -> None:
    for number in range(3):
        files = workflow("- run: sleep 300")
        world.push({f".github/workflows/w{number}.yml": files[".github/workflows/loop.yml"]})
    world.until(lambda: sum(run.status == "in_progress" for run in world.forge.runs.values()) == 2)
    world.until(lambda: len(world.forge.runs) >= 6)
    world.runner.stop()
    assert {run.conclusion for run in world.forge.runs.values()} == {"cancelled"}


def test_a_runner_that_was_killed_is_cleared_away_by_the_next(world: World, tmp_path: Path) -> None:
    root = tmp_path / "second"
    (root / "run-9" / "state").mkdir(parents=True)
    place = Place(root, "http://127.0.0.1:9", "http://127.0.0.1:9/api/v3")
    environment = {**os.environ, "RUNNER_TRACKING_ID": f"{place.tracking}/9"}
    left = subprocess.Popen(["sleep", "300"], env=environment)
    forge = ListForge()
    second = Runner(forge, place)
    second.start()
    assert left.wait(10) == -signal.SIGKILL
    second.stop()
    assert forge.recovered, "events that were under way are to be taken again"
    assert not (root / "run-9").exists()


def test_a_broken_workflow_file_is_a_failed_run_that_says_why(world: World) -> None:
    world.push({".github/workflows/bad.yml": "on: push\njobs: [", ".github/workflows/none.yml": "on: push\n"})
    bad, none = world.settled()
    assert (bad.conclusion, none.conclusion) == ("startup_failure", "startup_failure")
    assert "not readable YAML" in bad.log
    assert "no `on` or no `jobs`" in none.log


def test_an_action_that_is_not_on_this_machine_fails_with_its_name(world: World) -> None:
    world.push(workflow("- uses: somebody/else@v1"))
    [run] = world.settled()
    assert run.conclusion == "failure"
    assert "somebody/else" in run.log


def test_files_of_act_in_a_repository_are_not_read(world: World) -> None:
    planted = {
        ".env": "GITHUB_API_URL=http://evil.test\n",
        ".actrc": "--bind\n",
        ".secrets": "X=1\n",
        ".input": "a=b\n",
    }
    world.push({**planted, **workflow("- run: echo api=$GITHUB_API_URL x=[${{ secrets.X }}]")})
    [run] = world.settled()
    assert "api=http://127.0.0.1:9/api/v3 x=[]" in run.log


def test_two_runs_at_a_time(world: World) -> None:
    text = workflow("- run: sleep 0.5; echo done")[".github/workflows/loop.yml"]
    world.push({f".github/workflows/w{number}.yml": text for number in range(3)})
    most = 0
    while not world.forge.runs or any(run.status != "completed" for run in world.forge.runs.values()):
        most = max(most, sum(run.status == "in_progress" for run in world.forge.runs.values()))
        time.sleep(0.01)
    assert most == 2
    assert [run.conclusion for run in world.settled()] == ["success"] * 3


def test_path_filters_see_what_a_push_changed(world: World) -> None:
    world.push({"a.txt": "1", **workflow("- run: 'true'", on="{push: {paths: [promotion.yaml]}}")})
    world.push({"a.txt": "2"})
    assert world.settled() == []
    world.push({"promotion.yaml": "x"})
    [run] = world.settled()
    assert run.event.payload["after"] == git(world.work, "rev-parse", "HEAD")


def test_a_new_branch_is_compared_with_the_default_branch(world: World) -> None:
    first = world.push({"a.txt": "1"})
    world.commit({"b.txt": "1"})
    sha = world.commit({"c.txt": "1"})
    git(world.work, "push", "-q", str(world.bare), "HEAD:refs/heads/topic")
    event = world.event("push", sha, {"ref": "refs/heads/topic", "before": ZERO, "after": sha}, "refs/heads/topic")
    assert sorted(trigger_of(event).paths) == ["b.txt", "c.txt"]
    assert trigger_of(first).paths == ["a.txt"]


def test_the_mask_hides_values_and_lines_but_not_tiny_words() -> None:
    mask = act.Mask()
    mask.add("alpha-beta\ngamma-delta")
    mask.add("ab")
    assert mask("x alpha-beta y gamma-delta ab") == "x *** y *** ab"


def test_the_payload_is_the_event_file(world: World) -> None:
    world.push(workflow('- run: cat "$GITHUB_EVENT_PATH"'))
    [run] = world.settled()
    text = run.log[run.log.index("{") : run.log.rindex("}") + 1]
    assert json.loads(text)["after"] == run.event.sha
