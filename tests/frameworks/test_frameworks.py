"""Each example of the template as its team goes on: init, data, train, cut off, resumed, evaluate, register, serve."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml

from mlp_ci.context import load_context
from mlp_ci.serve.model import load
from mlp_ci.tracking import connect

Cli = Callable[..., subprocess.CompletedProcess[str]]

NEEDS = {
    "xgboost": ["xgboost", "sklearn"],
    "lightgbm": ["lightgbm", "sklearn"],
    "pytorch": ["torch"],
    "onnx": ["onnx", "onnxruntime", "skl2onnx"],
    "anything": [],
}
RESUMING = {"xgboost": "going on after round 20", "pytorch": "going on after epoch"}


@dataclass(frozen=True)
class Loop:
    """A model repository of one example, and the commands in it."""

    repo: Path
    cli: Cli
    tracking_uri: str

    def __call__(self, command: str, *options: str) -> dict[str, object]:
        done = self.run(command, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    def run(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        environ = {"MLFLOW_TRACKING_URI": self.tracking_uri}
        return self.cli(command, "--path", self.repo, "--format", "json", *options, **environ)


def started(cli: Cli, folder: Path, example: str, tracking_uri: str) -> Loop:
    """What `mlp-ci init` makes and its README says to do next; the packages are those of this machine."""
    missing = [m for m in NEEDS[example] if importlib.util.find_spec(m) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed: `make frameworks` installs it")
    repo, store = folder / f"returns-{example}", folder / "store"
    store.mkdir()
    init = cli("init", repo, "--team", "growth", "--owner", "acme", "--example", example, "--remote", str(store))
    assert init.returncode == 0, init.stderr
    file = repo / "model.yaml"
    value = yaml.safe_load(file.read_text())
    assert value["train"]["environment"] == {"pip": "requirements.txt"}, "an example names what it needs"
    value["train"]["environment"] = {"inherit": True}  # tests install nothing
    file.write_text(yaml.safe_dump(value, sort_keys=False))
    commands = (
        [sys.executable, "data/refresh.py"],
        [sys.executable, "-m", "dvc", "add", "-q", "data/train.csv", "data/test.csv"],
        [sys.executable, "-m", "dvc", "push", "-q"],
        ["git", "add", "-A"],
        ["git", "commit", "-q", "-m", "Add the first data"],
    )
    for command in commands:
        subprocess.run(command, cwd=repo, check=True, capture_output=True, env={**os.environ, "MLP_NOW": "2026-01-01"})
    return Loop(repo=repo, cli=cli, tracking_uri=tracking_uri)


@pytest.mark.slow
@pytest.mark.parametrize("example", list(NEEDS))
def test_a_framework_goes_round_the_loop(cli: Cli, tmp_path: Path, mlflow_server: str, example: str) -> None:
    loop = started(cli, tmp_path, example, mlflow_server)
    run_id = str(loop("train")["outputs"]["run-id"])  # type: ignore[index]
    evaluated = loop("evaluate")
    assert evaluated["outcome"] in ("pass", "inconclusive"), evaluated["findings"]
    metrics = evaluated["data"]["evidence"]["metrics"]  # type: ignore[index]
    assert metrics["roc_auc"]["value"] > 0.75
    assert metrics["roc_auc"]["low"] < metrics["roc_auc"]["value"] < metrics["roc_auc"]["high"]
    loop("register", "--no-promote")
    tracking = connect(load_context(tmp_path, environ={"MLFLOW_TRACKING_URI": mlflow_server}))
    assert [v.run_id for v in tracking.versions(loop.repo.name)] == [run_id]
    served = load(tracking.download(run_id, "model", tmp_path / "served"))
    rows = pd.read_csv(loop.repo / "data" / "test.csv").head(5)
    columns = {rule.name: rows[rule.name].tolist() for rule in served.signature.rules}
    answers = [a["probability"] if isinstance(a, dict) else a for a in served.predict(served.signature.frame(columns))]
    assert len(answers) == 5
    assert all(0 <= float(a) <= 1 for a in answers)


@pytest.mark.slow
@pytest.mark.parametrize("example", list(RESUMING))
def test_a_training_that_is_cut_off_ends_with_the_same_model(
    cli: Cli, tmp_path: Path, mlflow_server: str, example: str
) -> None:
    loop = started(cli, tmp_path, example, mlflow_server)
    whole = loop("train")
    script = loop.repo / "train.py"
    source = script.read_text()
    # Another key for the same training, which loses its machine after the first checkpoint.
    lost = source.replace("  # whole or not at all\n", "  # whole or not at all\n" + LOST[example])
    assert lost != source
    script.write_text(lost)
    cut = loop.run("train")
    assert cut.returncode == 7, cut.stderr
    (loop.repo / ".mlp" / "lost-once").touch()
    resumed = loop.run("train")
    assert resumed.returncode == 0, resumed.stderr
    assert RESUMING[example] in resumed.stderr
    tracking = connect(load_context(tmp_path, environ={"MLFLOW_TRACKING_URI": mlflow_server}))
    ids = [str(whole["outputs"]["run-id"]), str(json.loads(resumed.stdout)["outputs"]["run-id"])]  # type: ignore[index]
    test = pd.read_csv(loop.repo / "data" / "test.csv")
    predicted = []
    for number, run_id in enumerate(ids):
        served = load(tracking.download(run_id, "model", tmp_path / f"model-{number}"))
        columns = {rule.name: test[rule.name].tolist() for rule in served.signature.rules}
        predicted.append(served.predict(served.signature.frame(columns)))
    assert predicted[0] == predicted[1]


# `.mlp` is not in git, so it is no part of the key.
DIE = "if not os.path.exists('.mlp/lost-once'):\n{0}    os.kill(os.getpid(), 9)\n"
LOST = {"xgboost": "        " + DIE.format("        "), "pytorch": "        " + DIE.format("        ")}
