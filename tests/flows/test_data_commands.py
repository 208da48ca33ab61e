"""``mlp-ci data …`` from the command line: real git, real DVC with a folder as remote, and a real forge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from tests.promotion import MODEL as FORGE_MODEL
from tests.promotion import World, running_world, world_seed

pytestmark = pytest.mark.xdist_group("data-commands")  # what they clone is made once

Cli = Callable[..., subprocess.CompletedProcess[str]]
MODEL = """\
apiVersion: mlp-ci/v1
name: toy
team: growth
data:
  train: data/train.parquet
  test: data/test.parquet
  key: [id]
  target: late
  columns:
    id: {type: int}
    speed: {type: float}
    late: {type: int, in: [0, 1]}
train: {command: "true"}
evaluate: {gates: [{metric: roc_auc, min: 0.5}]}
"""
ROWS = "SELECT i AS id, {} AS speed, i % 2 AS late FROM range({}) t(i)"


def run(folder: Path, *command: str) -> str:
    command = (sys.executable, "-m", *command) if command[0] == "dvc" else command
    done = subprocess.run(
        command,
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"CI": "1"},
    )
    return done.stdout.strip()


def write(repo: Path, name: str, select: str) -> None:
    duckdb.connect().execute(f"COPY ({select}) TO '{repo / 'data' / name}' (FORMAT parquet)")


def publish(repo: Path, message: str) -> None:
    run(repo, "dvc", "add", "-q", "data/train.parquet", "data/test.parquet")
    run(repo, "dvc", "push", "-q")
    run(repo, "git", "add", ".")
    run(repo, "git", "commit", "-q", "-m", message)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose branch ``topic`` changed the training data; each test clones it, with the remote beside it."""
    folder = tmp_path_factory.mktemp("data-commands")
    repo = folder / "author"
    (repo / "data").mkdir(parents=True)
    (folder / "remote").mkdir()
    run(repo, "git", "init", "-q", "-b", "main")
    run(repo, "dvc", "init", "-q")
    run(repo, "dvc", "remote", "add", "-q", "-d", "store", "../remote")
    (repo / "model.yaml").write_text(MODEL)
    write(repo, "train.parquet", ROWS.format("i * 1.0", 1000))
    write(repo, "test.parquet", f"SELECT * REPLACE (id + 90000 AS id) FROM ({ROWS.format('i * 1.0', 100)})")
    publish(repo, "Data")
    run(repo, "git", "checkout", "-q", "-b", "topic")
    write(repo, "train.parquet", ROWS.format("CASE WHEN i < 300 THEN 5000.0 ELSE i * 1.0 END", 1100))
    publish(repo, "Newer data")
    run(repo, "git", "checkout", "-q", "main")
    return folder


@pytest.fixture
def job(made: Path, tmp_path: Path) -> Path:
    """A fresh clone on ``topic``, beside the remote that its configuration names."""
    (tmp_path / "remote").symlink_to(made / "remote")
    run(tmp_path, "git", "clone", "-q", "-b", "topic", str(made / "author"), "job")
    return tmp_path / "job"


def test_one_command_says_what_this_branch_did_to_the_data(job: Path, cli: Cli) -> None:
    done = cli("data", "diff", "-C", job, "--format", "json")
    assert done.returncode == 0, done.stderr
    train, test = json.loads(done.stdout)["data"]["compared"]
    assert train["rows"] == {"before": 1000, "now": 1100, "added": 100, "removed": 0, "changed": 300, "key": ["id"]}
    assert test["same"] is True
    assert not (job / "data" / "test.parquet").exists(), "what is the same need not be fetched"
    shown = cli("data", "diff", "data/train.parquet", "-C", job)
    assert "1,000 → 1,100 rows, 100 added, 300 changed" in shown.stdout


def test_a_revision_is_fetched_by_dvc(job: Path, cli: Cli) -> None:
    there = cli("data", "diff", "data/train.parquet@origin/main", "data/train.parquet@HEAD", "-C", job)
    assert there.returncode == 0, there.stderr
    assert "100 added, 300 changed" in there.stdout
    (job.parent / "remote").unlink()
    (job.parent / "remote").mkdir()
    gone = cli("data", "diff", "data/train.parquet@origin/main", "data/train.parquet@HEAD", "-C", job)
    assert gone.returncode in (2, 7)
    assert "data/train.parquet" in gone.stderr
    assert "fix:" in gone.stderr


def test_changes_that_nobody_added_yet_are_compared_as_they_lie_here(job: Path, cli: Cli) -> None:
    write(job, "train.parquet", ROWS.format("i * 1.0", 990))
    done = cli("data", "diff", "data/train.parquet", "-C", job, "--base", "origin/main")
    assert "1,000 → 990 rows, 10 removed" in done.stdout


def test_a_file_in_git_and_a_new_one(job: Path, cli: Cli) -> None:
    (job / "small.csv").write_text("id,v\n1,a\n2,b\n")
    run(job, "git", "add", "small.csv")
    run(job, "git", "commit", "-q", "-m", "Small")
    (job / "small.csv").write_text("id,v\n1,a\n2,c\n3,c\n")
    assert "2 → 3 rows, 1 added, 1 changed" in cli("data", "diff", "small.csv", "-C", job, "--base", "HEAD").stdout
    assert "small.csv is new" in cli("data", "diff", "small.csv", "-C", job, "--base", "HEAD~1").stdout
    wrong = cli("data", "diff", "small.csv", "-C", job, "--base", "nowhere")
    assert wrong.returncode == 2
    assert "git knows no revision nowhere" in wrong.stderr


def test_a_shallow_checkout_says_what_is_missing(made: Path, tmp_path: Path, cli: Cli) -> None:
    run(tmp_path, "git", "clone", "-q", "--depth", "1", "-b", "topic", f"file://{made / 'author'}", "job")
    event = tmp_path / "event.json"
    base = run(made / "author", "git", "rev-parse", "main")
    event.write_text(json.dumps({"pull_request": {"number": 1, "base": {"sha": base}}}))
    done = cli("data", "diff", "-C", tmp_path / "job", GITHUB_EVENT_PATH=str(event), GITHUB_REPOSITORY="acme/toy")
    assert done.returncode == 2
    assert "fetch-depth: 0" in done.stderr


def test_outside_a_pull_request_there_is_nothing_to_comment_on(job: Path, cli: Cli) -> None:
    done = cli("data", "diff", "-C", job, "--comment")
    assert done.returncode == 0
    assert "no job of a pull request" in done.stdout


# ---------------------------------------------------------------- the comment


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running_world(tmp_path / "world", world_seed(), "") as running:
        yield running


def comments(world: World, number: int) -> list[dict[str, Any]]:
    return world.hub().wire.pages(f"/repos/acme/{FORGE_MODEL}/issues/{number}/comments", "read")


def test_a_pull_request_gets_one_comment_that_follows_it(job: Path, world: World, cli: Cli, tmp_path: Path) -> None:
    number = world.open("alice", {"train.py": b"x"}, "topic")
    base = run(job, "git", "rev-parse", "origin/main")
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": number, "base": {"sha": base}}}))
    place = world.ctx("app").github
    assert place is not None
    env = {
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_REPOSITORY": f"acme/{FORGE_MODEL}",
        "GITHUB_API_URL": place.api_url,
        "GITHUB_SERVER_URL": place.server_url,
        "GITHUB_TOKEN": place.token,
        "MLP_CI_COMMENT": "true",
    }
    run(job, "git", "checkout", "-q", "--detach", "origin/main")
    same = cli("data", "diff", "-C", job, **env)
    assert same.returncode == 0, same.stderr
    assert comments(world, number) == [], "no comment is begun where nothing changed"
    run(job, "git", "checkout", "-q", "topic")
    assert cli("data", "diff", "-C", job, **env).returncode == 0
    assert cli("data", "diff", "-C", job, **env).returncode == 0
    [comment] = comments(world, number)
    assert "1,000 → 1,100 rows, 100 added, 300 changed" in comment["body"]
    assert "| speed | before |" in comment["body"]
    run(job, "git", "checkout", "-q", "--detach", "origin/main")
    assert cli("data", "diff", "-C", job, **env).returncode == 0
    [comment] = comments(world, number)
    assert "is what it was" in comment["body"]


# ---------------------------------------------------------------- the other commands


def test_infer_prints_nothing_but_yaml_and_validate_takes_what_it_writes(job: Path, cli: Cli) -> None:
    run(job, "dvc", "pull", "-q")
    done = cli("data", "infer", job / "data" / "train.parquet", "-C", job)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["data"]["columns"]) == {"id", "speed", "late"}
    assert "3 columns of" in done.stderr
    written = cli("data", "infer", job / "data" / "train.parquet", "-C", job, "--write")
    assert written.returncode == 0, written.stderr
    assert "in 1,100 rows" in (job / "model.yaml").read_text()
    assert cli("lint", "-C", job).returncode == 0
    assert cli("validate", "-C", job).returncode == 0


def test_profile_and_check(job: Path, cli: Cli) -> None:
    run(job, "dvc", "pull", "-q")
    file = job / "data" / "train.parquet"
    drawn = cli("data", "profile", file, "-C", job, "--report", job / "page.html")
    assert drawn.returncode == 0, drawn.stderr
    assert "1,100 rows, 3 columns" in drawn.stdout
    assert "</html>" in (job / "page.html").read_text()
    assert cli("data", "check", file, "-C", job).returncode == 0
    write(job, "bad.parquet", "SELECT i AS id, i * 1.0 AS speed, i AS late FROM range(50) t(i)")
    bad = cli("data", "check", job / "data" / "bad.parquet", "-C", job)
    assert bad.returncode == 3
    assert "late" in bad.stdout


def test_help_teaches_and_is_quick(cli: Cli) -> None:
    shown = cli("data", "--help").stdout
    for command in ("infer", "diff", "profile", "check"):
        assert command in shown
        assert "`mlp-ci data" in cli("data", command, "--help").stdout.replace("\n", " ")
    looked = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mlp_ci", "data", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for heavy in ("duckdb", "numpy", "jinja2", "scipy"):
        assert f"| {heavy}\n" not in looked.stderr.replace("|   ", "| "), heavy
