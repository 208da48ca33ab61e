"""``mlp-ci reproduce`` with real trainings: one that comes out the same, one only in its bytes, one by chance."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci.context import load_context
from mlp_ci.tracking import connect
from tests.training import FAST_TRAIN, ModelRepo, make_repo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

NOTE = """
import uuid
with open(os.environ["MLP_OUTPUT"] + "/model/note.txt", "w") as stream:
    stream.write(str(uuid.uuid4()))
"""
CHANCE = FAST_TRAIN.replace("X, y = frame", "import random\nframe = frame.sample(frac=0.3)\nX, y = frame")


def registered(tmp_path: Path, cli: Cli, server: str, code: str) -> ModelRepo:
    repo = make_repo(tmp_path, code, remote=True)
    for command in (["train"], ["evaluate"], ["register", "--no-promote"]):
        done = cli(*command, "--path", repo.path, MLFLOW_TRACKING_URI=server)
        assert done.returncode == 0, done.stdout + done.stderr
    return repo


def reproduced(cli: Cli, repo: ModelRepo, server: str, code: int, version: str = "1") -> dict[str, Any]:
    done = cli("reproduce", version, "--path", repo.path, "--format", "json", MLFLOW_TRACKING_URI=server)
    assert done.returncode == code, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.slow
def test_a_version_comes_out_again_from_its_commit_in_a_run_of_its_own(
    tmp_path: Path, cli: Cli, mlflow_server: str
) -> None:
    repo = registered(tmp_path, cli, mlflow_server, FAST_TRAIN)
    tracking = connect(load_context(repo.path, environ={"MLFLOW_TRACKING_URI": mlflow_server}))
    version = tracking.version(repo.name, 1)
    # What lies here now is another model; the version is rebuilt from its commit.
    repo.write("train.py", "raise SystemExit(1)\n")
    repo.commit("Break it")
    subprocess.run(["rm", "-rf", str(repo.path / "data" / "train.csv")], check=True)
    before = repo.git("status", "--short")
    said = reproduced(cli, repo, mlflow_server, 0)
    assert said["outputs"]["result"] == "same-bytes"
    run = tracking.run(said["outputs"]["run-id"])
    assert run.run_id != version.run_id
    assert (run.tags["mlp.reproduces"], run.tags["mlp.reproduction_of"]) == ("1", version.run_id)
    assert run.tags["mlp.reproduction"] == "same bytes"
    assert tracking.find_run(repo.name, version.train_key).run_id == version.run_id  # type: ignore[union-attr]
    assert [v.number for v in tracking.versions(repo.name)] == [1]
    assert repo.git("status", "--short") == before
    assert repo.git("worktree", "list").count("\n") == 0
    missing = reproduced(cli, repo, mlflow_server, 2, "7")
    assert "there is no version 7" in missing["error"]["what"]


@pytest.mark.slow
def test_other_bytes_with_the_same_predictions_are_the_same_model(tmp_path: Path, cli: Cli, mlflow_server: str) -> None:
    repo = registered(tmp_path, cli, mlflow_server, FAST_TRAIN + NOTE)
    said = reproduced(cli, repo, mlflow_server, 0)
    assert said["outputs"]["result"] == "same-predictions"
    assert said["data"]["files"] == ["note.txt"]
    assert (said["data"]["share"], said["data"]["most"]) == (0.0, 0.0)


@pytest.mark.slow
def test_a_training_by_chance_is_told_with_its_cause(tmp_path: Path, cli: Cli, mlflow_server: str) -> None:
    repo = registered(tmp_path, cli, mlflow_server, CHANCE.replace('int(os.environ["MLP_SEED"])', "None"))
    said = reproduced(cli, repo, mlflow_server, 3)
    assert said["outputs"]["result"] == "different"
    assert said["data"]["share"] > 0.5
    assert said["data"]["most"] > 1e-4
    assert said["data"]["causes"][0] == "the machines and packages are the same, so training itself varies"
