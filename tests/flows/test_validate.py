"""``mlp-ci validate`` as a job runs it: a fresh checkout, real DVC with a folder as remote, a real process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import duckdb
import pytest

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


@cache
def published(place: Path) -> Path:
    """A folder with the repository `author` and its remote; once, for all tests to copy."""
    repo = Path(mkdtemp(prefix="published-", dir=place)) / "author"
    (repo / "data").mkdir(parents=True)
    (repo.parent / "remote").mkdir()
    run(repo, "git", "init", "-q")
    run(repo, "dvc", "init", "-q")
    run(repo, "dvc", "remote", "add", "-q", "-d", "store", "../remote")
    (repo / "model.yaml").write_text(MODEL)
    write(repo, "train.parquet", ROWS.format(start=0, end=400))
    write(repo, "test.parquet", ROWS.format(start=400, end=500))
    publish(repo)
    return repo.parent


@pytest.fixture
def repo(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shutil.copytree(published(tmp_path_factory.getbasetemp()), tmp_path, dirs_exist_ok=True)
    return tmp_path / "author"


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
    assert "| distance | float | 0 % | 0 | 99 |" in summary.read_text()
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


@pytest.mark.slow
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


# ---------------------------------------------------------------- between files and between versions


def change(repo: Path, old: str, new: str) -> None:
    text = (repo / "model.yaml").read_text()
    assert old in text
    (repo / "model.yaml").write_text(text.replace(old, new))


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def check_of(report: dict[str, Any], rule: str, file: str = "data/train.parquet") -> dict[str, Any]:
    return next(c for c in report["data"]["files"][file]["checks"] if c["rule"] == rule)


@pytest.mark.slow
def test_columns_that_changed_since_the_last_version(repo: Path, cli: Cli, at: dict[str, str]) -> None:
    first = report_of(cli("validate", "-C", repo, "--format", "json", **at))
    assert check_of(first, "schema")["message"] == "the first version of this data"
    more = ROWS.replace("AS late", "AS late, 1 AS wind").replace("* 1.0", "* 1.0::DOUBLE")
    write(repo, "train.parquet", more.format(start=0, end=400))
    publish(repo)
    done = cli("validate", "-C", checkout(repo), "--format", "json", **at)
    assert done.returncode == 0, done.stdout
    check = check_of(report_of(done), "schema")
    assert check["message"].startswith("the columns changed since commit ")
    assert check["message"].endswith("new: wind; another type: distance (DECIMAL(21,1) → DOUBLE)")
    assert check["severity"] == "warning"
    change(repo, "freshness: 10d}", "freshness: 10d, schema: error}")
    assert cli("validate", "-C", repo, **at).returncode == 3


@pytest.mark.slow
def test_an_earlier_version_that_is_not_here_is_said(repo: Path, cli: Cli, at: dict[str, str]) -> None:
    old = (repo / "data" / "train.parquet.dvc").read_text().partition("md5: ")[2][:32]
    write(repo, "train.parquet", ROWS.format(start=0, end=390))
    publish(repo)
    for store in (repo.parent / "remote", repo / ".dvc" / "cache"):
        (store / "files" / "md5" / old[:2] / old[2:]).unlink()
    check = check_of(report_of(cli("validate", "-C", checkout(repo), "--format", "json", **at)), "schema")
    assert check["outcome"] == "skip"
    assert "neither in DVC's cache nor in a local remote" in check["message"]


@pytest.mark.parametrize("tracked_by", ["git", "dvc"])
def test_values_that_a_tracked_file_knows(repo: Path, cli: Cli, at: dict[str, str], tracked_by: str) -> None:
    (repo / "data" / "carriers.csv").write_text("code,name\nUA,United\n")
    if tracked_by == "dvc":
        run(repo, "dvc", "add", "-q", "data/carriers.csv")
        run(repo, "dvc", "push", "-q")
    change(repo, "in: [UA, AA]", "references: {file: data/carriers.csv, column: code}")
    run(repo, "git", "add", ".")
    run(repo, "git", "commit", "-q", "-m", "Reference")
    done = cli("validate", "-C", checkout(repo), **at)
    assert done.returncode == 3
    assert "200 rows hold a value that code of data/carriers.csv does not have: AA (row 2)" in " ".join(
        done.stdout.split()
    )


def test_a_reference_that_nobody_tracks(repo: Path, cli: Cli, at: dict[str, str]) -> None:
    (repo / "data" / "carriers.csv").write_text("code\nUA\n")
    change(repo, "in: [UA, AA]", "references: {file: data/carriers.csv, column: code}")
    done = cli("validate", "-C", repo, **at)
    assert done.returncode == 2
    assert "tracked neither by DVC nor by git" in done.stderr


@pytest.mark.slow
def test_training_data_may_be_a_folder(repo: Path, cli: Cli, at: dict[str, str]) -> None:
    (repo / "data" / "train").mkdir()
    for i in range(4):
        write(repo, f"train/part-{i}.parquet", ROWS.format(start=i * 100, end=i * 100 + 100))
    change(repo, "train: data/train.parquet", "train: data/train")
    change(repo, "max: 100, nulls", "max: 98, nulls")
    run(repo, "dvc", "add", "-q", "data/train")
    run(repo, "dvc", "push", "-q")
    run(repo, "git", "add", ".")
    run(repo, "git", "commit", "-q", "-m", "Folder")
    done = cli("validate", "-C", checkout(repo), "--format", "json", **at)
    assert done.returncode == 3, done.stderr
    report = report_of(done)
    assert report["data"]["files"]["data/train"]["rows"] == 400
    assert check_of(report, "max", "data/train")["message"] == (
        "4 values are above 98: '99.0' (id=99), '99.0' (id=199), '99.0' (id=299), '99.0' (id=399)"
    )


def test_rows_in_both_files_and_own_queries(repo: Path, cli: Cli, at: dict[str, str]) -> None:
    write(repo, "test.parquet", ROWS.format(start=390, end=500))
    publish(repo)
    query = "{name: small, query: SELECT id FROM data WHERE distance = 7 AND id > 100, severity: warn}"
    change(repo, "freshness: 10d}", f"freshness: 10d, sql: [{query}]}}")
    done = cli("validate", "-C", repo, **at)
    assert done.returncode == 3
    assert "10 rows are also in the held-out data, by id" in done.stdout
    suppress = "[{check: leakage, reason: the split is being redone, until: 2013-02-01}]"
    change(repo, "freshness: 10d, ", f"freshness: 10d, suppress: {suppress}, ")
    done = cli("validate", "-C", repo, **at)
    assert done.returncode == 0, done.stdout
    said = " ".join(done.stdout.split())
    assert "(accepted until 2013-02-01: the split is being redone)" in said
    assert "small 3 rows (id): 107; 207; 307" in said.replace("data/train.parquet ", "")


def test_a_query_that_cannot_run_exits_2_and_names_its_place(repo: Path, cli: Cli, at: dict[str, str]) -> None:
    change(repo, "freshness: 10d}", "freshness: 10d, sql: [{name: q, query: SELECT distanze FROM data}]}")
    done = cli("validate", "-C", repo, **at)
    assert done.returncode == 2
    assert "data.checks.sql 'q': Referenced column" in done.stderr
    assert "line 1, column 8" in " ".join(done.stderr.split())
