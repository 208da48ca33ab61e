"""``mlp-ci plan`` as the workflow asks it: outputs before a training, after it, and where nobody answers."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from tests.conftest import free_port
from tests.training import make_repo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

PLATFORM = """
apiVersion: mlp-ci/v1
runners:
  gpu-small: {labels: [self-hosted, gpu-small], usd_per_hour: 120.0, gpus: 1}
  deploy: {labels: [deploy]}
"""


def test_a_workflow_hears_where_to_train_and_then_that_it_need_not(
    tmp_path: Path, cli: Cli, mlflow_server: str
) -> None:
    repo = make_repo(tmp_path)
    repo.spec(train={"runner": "gpu-small"})
    repo.commit("Train on a GPU")
    (tmp_path / "platform.yaml").write_text(PLATFORM)

    def plan(**env: str) -> dict[str, str]:
        options = ("--path", repo.path, "--platform", tmp_path / "platform.yaml", "--format", "json")
        done = cli("plan", *options, **{"MLFLOW_TRACKING_URI": mlflow_server, **env})
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout)["outputs"])

    said = plan()
    assert (said["train"], said["judge"], said["sweep"]) == ("true", "true", "false")
    assert json.loads(said["runs-on"]) == json.loads(said["judge-runs-on"]) == ["self-hosted", "gpu-small"]
    assert (said["timeout-minutes"], said["gpus"], said["estimated-usd"]) == ("31", "1", "")
    assert said["reason"] == "the first training of this model"

    assert cli("train", "--path", repo.path, MLFLOW_TRACKING_URI=mlflow_server).returncode == 0
    again = plan()
    assert (again["train"], again["judge"], again["train-key"]) == ("false", "true", said["train-key"])
    assert again["run-id"]

    # Another parameter: now the price is known; and labels that model.yaml makes up lead nowhere.
    repo.write("params.yaml", "c: 2.0\n")
    repo.spec(train={"runner": ["self-hosted", "production"]})
    other = plan(MLP_CI_DEFAULT_RUNNER="cpu-box")
    assert (other["train"], json.loads(other["runs-on"])) == ("true", ["cpu-box"])
    assert other["reason"] == "since the newest run these changed: params"
    repo.spec(train={"runner": "gpu-small"})
    assert float(plan()["estimated-usd"]) > 0


def test_without_mlflow_nothing_is_planned(tmp_path: Path, cli: Cli) -> None:
    repo = make_repo(tmp_path)
    done = cli("plan", "--path", repo.path, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 7
    assert "cannot be reached" in done.stderr
