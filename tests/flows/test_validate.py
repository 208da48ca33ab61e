"""``mlp-ci validate`` as a job runs it: a fresh checkout, real DVC with a folder as remote, a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import duckdb
import pytest

if TYPE_CHECKING:
    from pathlib import Path

MODEL = """\
apiVersion: mlp-ci/v1
name: toy
team: growth
data:
  train: data/train.parquet
  test: data/test.parquet
  key: [id]
  time: at
  target: late
  columns:
    distance: {type: float, min: 0, max: 100, nulls: 0.0}
    carrier: {type: string, in: [UA, AA]}
    late: {type: int, min: 0, max: 1}
  checks: {rows: {min: 50}, freshness: 10d}
train: {command: "true"}
evaluate: {gates: [{metric: roc_auc, min: 0.5}]}
"""
ROWS = (
    "SELECT i AS id, TIMESTAMP '2013-01-01' + INTERVAL 1 HOUR * i AS at, i % 100 * 1.0 AS distance, "
    "['UA', 'AA'][i % 2 + 1] AS carrier, i % 2 AS late FROM range({start}, {end}) t(i)"
)
Cli = Callable[..., subprocess.CompletedProcess[str]]


def run(folder: Path, *command: str) -> None:
    command = (sys.executable, "-m", *command) if command[0] == "dvc" else command
    subprocess.run(
        command, cwd=folder, check=True, capture_output=True, stdin=subprocess.DEVNULL, env=os.environ | {"CI": "1"}
    )


def publish(repo: Path) -> None:
    run(repo, "dvc", "add", "-q", "data/train.parquet", "data/test.parquet")
    run(repo, "dvc", "push", "-q")
    run(repo, "git", "add", ".")
    run(repo, "git", "commit", "-q", "-m", "Data")


def write(repo: Path, name: str, select: str) -> None:
    duckdb.connect().execute(f"COPY ({select}) TO '{repo / 'data' / name}' (FORMAT parquet)")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    repo = tmp_path / "author"
    (repo / "data").mkdir(parents=True)
    (tmp_path / "remote").mkdir()
    run(repo, "git", "init", "-q")
    run(repo, "dvc", "init", "-q")
    run(repo, "dvc", "remote", "add", "-q", "-d", "store", "../remote")
    (repo / "model.yaml").write_text(MODEL)
    write(repo, "train.parquet", ROWS.format(start=0, end=400))
    write(repo, "test.parquet", ROWS.format(start=400, end=500))
    publish(repo)
    return repo


@pytest.fixture
def at(tmp_path: Path) -> dict[str, str]:
    """The clock of 1 February 2013, a week after the newest row."""
    (tmp_path / "now").write_text("2013-01-28T00:00:00+00:00")
    return {"MLP_CLOCK_FILE": str(tmp_path / "now")}


def checkout(repo: Path) -> Path:
    run(repo.parent, "git", "clone", "-q", str(repo), "job")
    return repo.parent / "job"


def test_a_fresh_checkout_is_fetched_and_passes(repo: Path, cli: Cli, at: dict[str, str], tmp_path: Path) -> None:
    job = checkout(repo)
    output, summary = tmp_path / "output", tmp_path / "summary"
    done = cli(
        "validate", "-C", job, **at, GITHUB_ACTIONS="true", GITHUB_OUTPUT=str(output), GITHUB_STEP_SUMMARY=str(summary)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the data is as model.yaml says" in done.stdout
    assert "data-digest<<" in output.read_text()
    assert "| distance | float | 0 | 0 | 99 |" in summary.read_text()
    assert (job / "data" / "train.parquet").is_file()
    again = cli("validate", "-C", job, "--format", "json", **at)
    report = json.loads(again.stdout)
    assert report["outputs"]["data-digest"].startswith("sha256:")
    assert report["outputs"]["data-digest"] in output.read_text()
    assert report["data"]["files"]["data/test.parquet"]["rows"] == 100


def test_broken_data_exits_3_and_says_what_and_where(repo: Path, cli: Cli, at: dict[str, str]) -> None:
    broken = ROWS.format(start=0, end=400).replace(
        "i % 100 * 1.0", "CASE i WHEN 7 THEN -2 WHEN 9 THEN NULL ELSE 1.0 END"
    )
    write(repo, "train.parquet", broken)
    publish(repo)
    done = cli("validate", "-C", checkout(repo), **at, GITHUB_ACTIONS="true")
    assert done.returncode == 3
    assert "1 value is below 0: '-2.0' (id=7)" in done.stdout
    assert "1 row of 400 missing" in done.stdout
    assert "::error title=min::data/train.parquet distance: 1 value is below 0" in done.stdout


def test_stale_data_exits_3(repo: Path, cli: Cli, at: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "now").write_text("2013-03-01T00:00:00+00:00")
    done = cli("validate", "-C", repo, **at)
    assert done.returncode == 3
    assert "allowed are 10d" in done.stdout


def test_bad_input_exits_2_without_a_traceback(repo: Path, cli: Cli, at: dict[str, str]) -> None:
    (repo / "data" / "train.parquet").write_bytes(b"this is no parquet file")
    publish(repo)
    done = cli("validate", "-C", repo, **at)
    assert done.returncode == 2
    assert "data/train.parquet cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_data_that_was_never_pushed_exits_2(repo: Path, cli: Cli, at: dict[str, str]) -> None:
    write(repo, "train.parquet", ROWS.format(start=0, end=410))
    run(repo, "dvc", "add", "-q", "data/train.parquet")
    run(repo, "git", "commit", "-q", "-a", "-m", "Forget to push")
    done = cli("validate", "-C", checkout(repo), **at)
    assert done.returncode == 2
    assert "data/train.parquet: the DVC remote" in done.stderr
    assert "dvc push" in done.stderr


def test_no_pandas_on_the_way(repo: Path, at: dict[str, str]) -> None:
    code = (
        "import sys; from mlp_ci.__main__ import main; sys.argv = ['mlp-ci', 'validate', '-C', sys.argv[1]]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('HEAVY', sorted({'pandas', 'pyarrow', 'mlflow', 'scipy', 'sklearn', 'dvc'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(repo)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **at})
    assert "HEAVY []" in done.stdout
