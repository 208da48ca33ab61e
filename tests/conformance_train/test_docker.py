"""What a container of a training sees, and what becomes of it: with a real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlp_ci.context import load_context
from mlp_ci.tracking import Tracking, connect
from tests.conformance_train.conftest import IMAGE
from tests.training import BARE_MODEL, ModelRepo, make_repo

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docker")]

LOOK = """
import json, os, pathlib, socket
def tried(what):
    try:
        return str(what())
    except OSError as error:
        return type(error).__name__
work = pathlib.Path(os.environ["MLP_OUTPUT"]).parent.parent
seen = {
    "environ": dict(os.environ),
    "uid": os.getuid(),
    "data": tried(lambda: open(os.environ["MLP_DATA_TRAIN"], "a")),
    "git": tried(lambda: open(".git/hooks/post-commit", "w")),
    "repository": tried(lambda: open("written", "w")),
    "held out": sorted(str(p) for p in pathlib.Path(".").rglob("*") if "test" in p.name and p.suffix == ".csv"),
    "cache": sorted(str(p) for p in pathlib.Path(".dvc/cache").rglob("*") if p.is_file()),
    "work": sorted(p.name for p in work.iterdir()),
    "network": tried(lambda: socket.create_connection(("192.0.2.1", 80), 2)),
    "credentials": pathlib.Path(".git/config").read_text() + pathlib.Path(".dvc/config.local").read_text(),
    "interfaces": sorted(name for _, name in socket.if_nameindex()),
    "processes": len([p for p in pathlib.Path("/proc").iterdir() if p.name.isdigit()]),
    "status": pathlib.Path("/proc/self/status").read_text(),
}
print("SEEN" + json.dumps(seen))
"""


@pytest.fixture
def repo(tmp_path: Path) -> ModelRepo:
    repo = make_repo(tmp_path, LOOK + BARE_MODEL, remote=True)
    in_docker(repo)
    return repo


def in_docker(repo: ModelRepo, **train: object) -> None:
    repo.spec(train={"backend": "docker", "environment": {"image": IMAGE}, **train})
    repo.commit("Train in a container")


@pytest.fixture
def environ(docker: str, mlflow_server: str) -> dict[str, str]:
    return {**os.environ, "MLFLOW_TRACKING_URI": mlflow_server}


@pytest.fixture
def tracking(mlflow_server: str, tmp_path: Path) -> Tracking:
    return connect(load_context(tmp_path, environ={"MLFLOW_TRACKING_URI": mlflow_server}))


def train(repo: ModelRepo, environ: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlp_ci", "train", "--path", str(repo.path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**environ, **more})


def containers(environ: dict[str, str]) -> list[str]:
    command = ["docker", "ps", "--all", "--quiet"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environ).stdout.split()


def test_what_the_command_sees(repo: ModelRepo, environ: dict[str, str], tracking: Tracking) -> None:
    (repo.path / ".mlp" / "other").mkdir(parents=True)
    (repo.path / ".dvc" / "config.local").write_text("['remote \"storage\"']\n    password = opensesame\n")
    done = train(repo, environ, TEAM_SETTING="7", GITHUB_TOKEN="tok-123456", PYTHONPATH="/nowhere", DOCKER_X="1")
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("SEEN"))
    seen = json.loads(line.removeprefix("SEEN"))
    # Nothing but the contract, what the job says, and what the image says.
    inside = seen["environ"]
    assert inside["TEAM_SETTING"] == "7"
    assert inside["PATH"] == "/usr/bin:/bin", "the PATH is the image's"
    assert inside["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"
    assert not {"GITHUB_TOKEN", "PYTHONPATH", "VIRTUAL_ENV", "DOCKER_HOST", "DOCKER_X"} & set(inside)
    assert seen["uid"] == os.getuid()
    assert (seen["data"], seen["git"]) == ("OSError", "OSError"), "read-only"
    assert "written" in seen["repository"]
    assert (repo.path / "written").stat().st_uid == os.getuid()
    assert seen["held out"] == []
    assert seen["cache"] == [], "DVC's cache has the held-out data"
    assert len(seen["work"]) == 1, "other trainings are seen"
    assert seen["credentials"] == ""
    assert seen["interfaces"] == ["lo"]
    assert seen["network"] == "OSError"
    assert "CapEff:\t0000000000000000" in seen["status"]
    assert "NoNewPrivs:\t1" in seen["status"]
    assert "is no digest" in done.stdout
    assert containers(environ) == []
    run_id = next(w for w in done.stdout.split() if "/runs/" in w).rsplit("/", 1)[1]
    assert tracking.run(run_id).tags["mlp.image"].startswith("sha256:")
    assert tracking.run(run_id).tags["mlp.env"] == f"image {IMAGE}"


def test_memory_that_runs_out_is_said_so(tmp_path: Path, environ: dict[str, str]) -> None:
    repo = make_repo(tmp_path, "held = bytearray(600 << 20)\n", remote=True)
    in_docker(repo, resources={"memory_gb": 0.1})
    done = train(repo, environ)
    assert done.returncode in (3, 7), done.stdout + done.stderr
    assert "memory" in done.stderr
    assert containers(environ) == []


def test_a_container_that_outlived_mlp_ci_is_ended_by_the_next(tmp_path: Path, environ: dict[str, str]) -> None:
    slow = "import os, time\nprint('begun', flush=True)\ntime.sleep(0 if os.path.exists('fast') else 600)\n"
    repo = make_repo(tmp_path, slow + BARE_MODEL, remote=True)
    in_docker(repo)
    command = [sys.executable, "-m", "mlp_ci", "train", "--path", str(repo.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
    assert process.stdout
    for line in process.stdout:
        if "begun" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = containers(environ)
    assert len(left) == 1
    repo.write(".gitignore", "__pycache__/\n.mlp/\nfast\n")
    repo.write("fast", "")
    done = train(repo, environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert containers(environ) == []


def test_a_time_limit_ends_the_container_with_all_in_it(tmp_path: Path, environ: dict[str, str]) -> None:
    stubborn = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('begun')\ntime.sleep(600)\n"
    repo = make_repo(tmp_path, stubborn, remote=True)
    in_docker(repo, timeout="3s")
    began = time.monotonic()
    done = train(repo, environ, GITHUB_ACTIONS="true")  # in a job the time to end gently is short
    assert done.returncode == 3, done.stdout + done.stderr
    assert "longer than train.timeout" in done.stderr
    assert time.monotonic() - began < 60
    assert containers(environ) == []


@pytest.mark.parametrize(
    ("change", "said", "code"),
    [
        ({"environment": {"inherit": True}}, "train.environment says inherit, which is no image", 2),
        ({"environment": {"image": "registry.invalid/no:1"}}, "the image registry.invalid/no:1 cannot be had", 7),
        ({"resources": {"gpus": 1}}, "asks for 1 GPU", 7),
    ],
)
def test_what_cannot_be_started(
    repo: ModelRepo, environ: dict[str, str], change: dict[str, object], said: str, code: int
) -> None:
    in_docker(repo, **change)
    done = train(repo, environ)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stderr
    assert containers(environ) == []


def test_an_engine_that_does_not_answer(repo: ModelRepo, environ: dict[str, str], tmp_path: Path) -> None:
    done = train(repo, environ, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert done.returncode == 7
    assert "the Docker engine does not answer" in done.stderr
