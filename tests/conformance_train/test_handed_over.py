"""Trainings that are handed over to a cluster: what is refused before, who follows which job, how ends are told."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlp_ci.context import load_context
from mlp_ci.errors import InputError, MlpError, OutsideError
from mlp_ci.spec import default_platform, load_model
from mlp_ci.train import backends
from mlp_ci.train.backends import handing_over
from mlp_ci.train.key import train_key
from tests.conformance_train.cluster import ClusterStandIn
from tests.conftest import free_port
from tests.training import BARE_MODEL, ModelRepo, make_repo

IMAGE = "registry.example/train@sha256:" + "0" * 64
IN_IMAGE = {"environment": {"image": IMAGE}}
ADDRESS = "https://github.example/acme/model.git"
HTTP = {
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    "GITHUB_REPOSITORY": "acme/model",
    "GITHUB_SERVER_URL": "https://github.example",
}


@pytest.fixture
def repo(tmp_path: Path) -> ModelRepo:
    return make_repo(tmp_path)


def hand_over(repo: ModelRepo, backend: str, **environ: str) -> str:
    """Ask for a training there, in this process; its log."""
    ctx = load_context(repo.path, environ={**HTTP, "MLP_CI_BACKEND": backend, "HOME": str(repo.path.parent), **environ})
    spec = load_model(ctx.repo)
    there = backends.elsewhere(ctx, spec)
    assert there
    log = io.StringIO()
    there.train(train_key(ctx, spec), log)
    return log.getvalue()


def with_train(repo: ModelRepo, **train: Any) -> None:
    repo.spec(train=train)
    repo.commit("Change")


@pytest.mark.parametrize(
    ("backend", "train", "environ", "kind", "said"),
    [
        ("ray", {}, {}, InputError, "nothing says where the cluster is"),
        ("ray", IN_IMAGE, {}, InputError, "train.environment is an image"),
        ("ray", {}, {"MLFLOW_TRACKING_URI": "sqlite:///x.db"}, InputError, "cannot reach MLflow at sqlite"),
        ("kubernetes", {}, {}, InputError, "which image the job runs in"),
        ("kubernetes", {"environment": {"image": IMAGE}}, {}, InputError, "nothing says where the cluster is"),
        (
            "kubernetes",
            {"environment": {"image": IMAGE}},
            {"MLFLOW_TRACKING_URI": ""},
            InputError,
            "cannot reach MLflow",
        ),
        (
            "kubernetes",
            {"environment": {"image": IMAGE}},
            {"GITHUB_REPOSITORY": ""},
            InputError,
            "fetches the code from",
        ),
        ("slurm", {}, {}, InputError, "there is no back end 'slurm'"),
    ],
)
def test_what_is_missing_is_said_before_anything_starts(
    repo: ModelRepo,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    train: dict[str, Any],
    environ: dict[str, str],
    kind: type[MlpError],
    said: str,
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    if train:
        with_train(repo, **train)
    with pytest.raises(kind, match=said) as refused:
        hand_over(repo, backend, **environ)
    assert refused.value.fix


def test_a_ray_cluster_that_nobody_answers_for(repo: ModelRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: `make ray` installs it")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(OutsideError, match="cannot be reached"):
        hand_over(repo, "ray")


def test_a_cluster_that_nobody_answers_for(repo: ModelRepo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = f"http://127.0.0.1:{free_port()}"
    with_train(repo, environment={"image": IMAGE})
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    config: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "current-context": "x", "contexts": [context]}
    config |= {"clusters": [{"name": "x", "cluster": {"server": place}}], "users": [{"name": "x", "user": {}}]}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with pytest.raises(OutsideError, match="cannot be reached"):
        hand_over(repo, "kubernetes")


def test_a_cluster_trains_what_a_commit_describes(repo: ModelRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    repo.write("train.py", BARE_MODEL + "# not committed\n")
    with pytest.raises(InputError, match=r"not committed: train\.py"):
        hand_over(repo, "ray")


def test_another_key_there_is_refused_with_what_differs(repo: ModelRepo) -> None:
    ctx = load_context(repo.path, environ=HTTP)
    key = train_key(ctx, load_model(ctx.repo))
    parts = json.dumps({**key.parts, "environment": "inherit python=3.99.0 abc"})
    meant = {"MLP_CI_EXPECTED_KEY": "f" * 64, "MLP_CI_EXPECTED_PARTS": parts}
    with pytest.raises(InputError, match="environment differ") as refused:
        backends.check_expected(load_context(repo.path, environ={**HTTP, **meant}), key)
    assert "3.99.0" in refused.value.why
    backends.check_expected(load_context(repo.path, environ={**HTTP, "MLP_CI_EXPECTED_KEY": key.digest}), key)
    with pytest.raises(InputError, match="cannot be read"):
        load_context(repo.path, environ={**HTTP, **meant, "PET_NNODES": "many"})


def test_no_secret_is_handed_over(repo: ModelRepo) -> None:
    environ = {**HTTP, "MLFLOW_TRACKING_URI": "http://ann:opensesame@mlflow:5000", "GITHUB_TOKEN": "tok-123456"}
    ctx = load_context(repo.path, environ=environ)
    spec = load_model(ctx.repo)
    given = handing_over.variables(ctx, spec, train_key(ctx, spec), default_platform())
    assert given["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert not [v for v in given.values() if "opensesame" in v or "tok-123456" in v]


# ---------------------------------------------------------------- with the stand-in of a cluster


def kubernetes(repo: ModelRepo, cluster: ClusterStandIn, server: str, **train: Any) -> dict[str, str]:
    """Have ``repo`` train in the cluster, which fetches it from this disk; the environment to train with."""
    with_train(repo, backend="kubernetes", environment={"image": IMAGE}, **train)
    with Path(os.environ["GIT_CONFIG_GLOBAL"]).open("a") as config:
        config.write(f'[url "{repo.path.as_uri()}"]\n\tinsteadOf = {ADDRESS}\n')
    return {**os.environ, **HTTP, "MLFLOW_TRACKING_URI": server, "KUBECONFIG": str(cluster.folder / "kubeconfig")}


def command(repo: Path) -> list[str]:
    return [sys.executable, "-m", "mlp_ci", "train", "--path", str(repo)]


def test_the_manifest_can_be_seen_before(repo: ModelRepo, cluster: ClusterStandIn) -> None:
    environ = kubernetes(repo, cluster, "http://127.0.0.1:9", nodes=2)
    done = subprocess.run([*command(repo.path), "--manifest"], capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    documents = list(yaml.safe_load_all(done.stdout))
    assert [d["kind"] for d in documents] == ["Job", "Service", "TrainJob"]
    assert cluster.applied == []


@pytest.mark.slow
def test_who_asks_again_finds_the_job_that_runs(tmp_path: Path, cluster: ClusterStandIn, mlflow_server: str) -> None:
    repo = make_repo(tmp_path, "import time\nprint('begun')\ntime.sleep(8)\n" + BARE_MODEL, remote=True)
    environ = kubernetes(repo, cluster, mlflow_server)
    first = subprocess.Popen(command(repo.path), stdout=subprocess.PIPE, text=True, env=environ)
    assert first.stdout
    for line in first.stdout:
        if "begun" in line:
            break
    other = tmp_path / "another-machine"
    subprocess.run(["git", "clone", "--quiet", str(repo.path), str(other)], check=True)
    second = subprocess.run(command(other), capture_output=True, text=True, check=False, env=environ)
    rest, _ = first.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0), rest + second.stdout + second.stderr
    assert "runs in mlp-ci already; following it" in second.stdout
    assert "made a model" in second.stdout
    assert len(cluster.applied) == 1


@pytest.mark.slow
def test_ends_that_only_the_cluster_knows(tmp_path: Path, cluster: ClusterStandIn, mlflow_server: str) -> None:
    repo = make_repo(tmp_path, "raise SystemExit(1)\n", remote=True)
    environ = kubernetes(repo, cluster, mlflow_server)
    cluster.reason = "OOMKilled"
    done = subprocess.run(command(repo.path), capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 3, done.stderr
    assert "ran out of memory" in done.stderr
    cluster.reason, cluster.condition = "", "DeadlineExceeded"
    done = subprocess.run(command(repo.path), capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 3, done.stderr
    assert "took too long" in done.stderr


TOGETHER = """
import os, pathlib
import torch, torch.distributed as dist
dist.init_process_group("gloo")
number = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(number)
print("machine", dist.get_rank(), "of", dist.get_world_size(), "sum", number.item(), flush=True)
if dist.get_rank() == 0:
    pathlib.Path("sum").write_text(str(number.item()))
dist.destroy_process_group()
if int(os.environ["RANK"]):
    raise SystemExit
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_machines_train_together(tmp_path: Path, cluster: ClusterStandIn, mlflow_server: str) -> None:
    """A real torchrun on each of two pods; only the first machine records."""
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    repo = make_repo(tmp_path, TOGETHER + BARE_MODEL, remote=True)
    environ = kubernetes(repo, cluster, mlflow_server, nodes=2, timeout="300s")
    done = subprocess.run(
        [*command(repo.path), "--format", "json"], capture_output=True, text=True, check=False, env=environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
    logs = [pod.log.read_text() for pods in cluster.pods.values() for pod in pods]
    assert re.search(r"machine 0 of 2 sum 3\.0", logs[0]), logs[0]
    assert re.search(r"machine 1 of 2 sum 3\.0", logs[1]), logs[1]
    assert "as machine 1 of 2" in logs[1]
    assert "MLflow run" not in logs[1]
    assert len(cluster.services) == 1
    assert json.loads(done.stdout)["outputs"]["trained"] == "true"
