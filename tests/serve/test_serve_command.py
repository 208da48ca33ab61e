"""``mlp-ci serve``: a version of the registry or a folder, in the foreground, without the job's secrets."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from mlp_ci.tracking import Tracking, artifact_digest
from tests.predicting import MODEL_YAML, save, simple
from tests.serving import ask, body, wait_until

if TYPE_CHECKING:
    from pathlib import Path

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_a_registered_version_is_fetched_verified_and_served(tmp_path: Path, mlflow_server: str) -> None:
    name = f"flights-{uuid.uuid4().hex[:8]}"
    (tmp_path / "model.yaml").write_text(MODEL_YAML.format(name=name) + "serve: {workers: 2}\n")
    tracking = Tracking(mlflow_server)
    experiment = tracking.experiment(name, create=True)
    assert experiment
    run = tracking.start_run(experiment, "run", {}, datetime(2013, 4, 1, tzinfo=UTC))
    model = save(tmp_path / "made", simple())
    tracking.log_folder(run, model, "model")
    tracking.register_model(name, "", {})
    tracking.create_version(name, run, {"mlp.digest": artifact_digest(model), "mlp.gate": "pass"}, "")
    secret = {"MLFLOW_TRACKING_URI": mlflow_server, "GITHUB_TOKEN": "hush", "MLP_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "mlp_ci", "serve", "1", "--path", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **secret})
    try:
        assert process.stdout
        said = process.stdout.readline()
        found = re.search(rf"serving version 1 of {name} on http://127.0.0.1:(\d+) ", said)
        assert found, said
        port = int(found[1])

        def answers() -> bool:
            try:
                return ask(port, path="/health")[0] == 200
            except OSError:
                return False

        wait_until(answers)
        assert ask(port, path="/version")[2]["digest"] == artifact_digest(model)
        assert ask(port, body())[2] == {"predictions": [107.0]}
        assert "} 2" in next(line for line in ask(port, path="/metrics")[2].splitlines() if "_workers{" in line)
        environ = open(f"/proc/{process.pid}/environ").read()  # noqa: PTH123, SIM115
        assert "hush" not in environ
        assert "MLFLOW_TRACKING_URI" not in environ
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("version", "code", "says"),
    [("nowhere", 2, "neither the number of a version nor the folder"), ("3", 2, "model.yaml")],
)
def test_what_cannot_be_served_is_told(cli: Cli, tmp_path: Path, version: str, code: int, says: str) -> None:
    done = cli("serve", version, "--path", tmp_path, "--port", "0")
    assert done.returncode == code, done.stderr
    assert says in done.stderr


def test_a_port_in_use_is_told(cli: Cli, tmp_path: Path) -> None:
    model = save(tmp_path / "model", simple())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli("serve", model, "--path", tmp_path, "--port", str(port))
    assert done.returncode == 7
    assert f"127.0.0.1:{port} cannot be listened on" in done.stderr
    assert "--port" in done.stderr
