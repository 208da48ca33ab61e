"""The same small model on each back end that this machine can run: same run, same result, same ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mlp_ci.context import load_context
from mlp_ci.tracking import RunFact, Tracking, artifact_digest, connect
from tests.conformance_train.conftest import IMAGE
from tests.training import ModelRepo, make_repo

# A logistic regression by gradient descent in plain Python, so that it is the same to the last bit anywhere. It writes
# a checkpoint at each step, and speaks to MLflow by its REST API as a library for logging would.
TRAIN = '''
import csv, json, math, os, pathlib, time, urllib.request

params = dict(line.split(": ") for line in open(os.environ["MLP_PARAMS"]).read().splitlines())
if "fail" in params:
    print("nothing will come of this")
    raise SystemExit(int(params["fail"]))
assert not pathlib.Path("data/test.csv").exists(), "held-out data is here"
table = list(csv.DictReader(open(os.environ["MLP_DATA_TRAIN"])))
rows = [(1.0, float(r["x"]), float(r["noise"]), int(r["y"])) for r in table]
state_file = pathlib.Path(os.environ["MLP_CHECKPOINTS"]) / "state.json"
state = json.loads(state_file.read_text()) if state_file.exists() else {"step": 0, "weights": [0.0, 0.0, 0.0]}
print("going on from step", state["step"])
w, pause = state["weights"], 0 if state["step"] else float(params["pause"])
for step in range(state["step"], 20):
    gradient, loss = [0.0] * 3, 0.0
    for *x, y in rows:
        p = 1 / (1 + math.exp(-sum(a * b for a, b in zip(w, x))))
        loss -= math.log(p if y else 1 - p)
        gradient = [g + (p - y) * a for g, a in zip(gradient, x)]
    w = [a - float(params["rate"]) * g / len(rows) for a, g in zip(w, gradient)]
    state_file.with_suffix(".new").write_text(json.dumps({"step": step + 1, "weights": w}))
    state_file.with_suffix(".new").replace(state_file)
    print("step", step + 1, "of 20")
    time.sleep(pause)
body = {"run_id": os.environ["MLFLOW_RUN_ID"], "key": "logged_loss", "value": loss / len(rows), "timestamp": 1}
asked = urllib.request.Request(
    os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/runs/log-metric",
    json.dumps(body).encode(), {"Content-Type": "application/json"},
)
urllib.request.urlopen(asked).read()
out = pathlib.Path(os.environ["MLP_OUTPUT"])
(out / "model").mkdir()
(out / "model" / "weights.json").write_text(json.dumps([os.environ["MLP_SEED"], w]))
(out / "model" / "MLmodel").write_text("""flavors:
  python_function: {loader_module: nothing}
signature: {inputs: '[{"name": "x", "type": "double"}]', outputs: '[{"type": "long"}]'}
""")
(out / "metrics.json").write_text(json.dumps({"loss": loss / len(rows)}))
'''
BACKENDS = [
    "runner",
    "kubernetes",
    pytest.param("docker", marks=[pytest.mark.slow, pytest.mark.xdist_group("docker")]),
    pytest.param("ray", marks=[pytest.mark.slow, pytest.mark.xdist_group("ray")]),
]
NEVER_PULLED = "registry.example/train@sha256:" + "0" * 64


@dataclass
class Bench:
    """A model repository whose training runs on one back end, and how to train it."""

    repo: ModelRepo
    environ: dict[str, str]
    tracking: Tracking
    train: dict[str, object] = field(default_factory=dict)

    def params(self, **params: object) -> None:
        self.repo.write("params.yaml", "".join(f"{k}: {v}\n" for k, v in params.items()))
        self.repo.commit("Other params")

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "mlp_ci", "train", "--path", str(self.repo.path)]

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *options], capture_output=True, text=True, check=False, env={**os.environ, **self.environ}
        )

    def trained(self, done: subprocess.CompletedProcess[str]) -> RunFact:
        assert done.returncode == 0, done.stdout + done.stderr
        return self.tracking.run(json.loads(done.stdout)["outputs"]["run-id"])


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path, mlflow_server: str) -> Bench:
    """Every back end in turn."""
    repo = make_repo(tmp_path, TRAIN, remote=True)
    repo.write("params.yaml", "rate: 0.5\npause: 0\n")
    repo.git("rm", "-q", "--cached", "--ignore-unmatch", "data/test.csv")
    backend = request.param
    environ = {"MLFLOW_TRACKING_URI": mlflow_server}
    change: dict[str, object] = {"backend": backend}
    match backend:
        case "docker":
            environ["DOCKER_HOST"] = request.getfixturevalue("docker_engine")
            change |= {"environment": {"image": IMAGE}, "resources": {"memory_gb": 0.5, "cpus": 1}}
        case "ray":
            environ["RAY_API_SERVER_ADDRESS"] = request.getfixturevalue("ray_cluster")
        case "kubernetes":
            environ["KUBECONFIG"] = str(request.getfixturevalue("cluster").folder / "kubeconfig")
            environ |= {"GITHUB_REPOSITORY": "acme/model", "GITHUB_SERVER_URL": "https://github.example"}
            change |= {"environment": {"image": NEVER_PULLED}}
            fetched_from(repo, "https://github.example/acme/model.git")
    repo.spec(train=change)
    repo.commit("Train there")
    tracking = connect(load_context(tmp_path, environ={"MLFLOW_TRACKING_URI": mlflow_server}))
    return Bench(repo, environ, tracking, change)


def fetched_from(repo: ModelRepo, address: str) -> None:
    """Who fetches from ``address`` gets the repository on this disk."""
    with Path(os.environ["GIT_CONFIG_GLOBAL"]).open("a") as config:
        config.write(f'[url "{repo.path.as_uri()}"]\n\tinsteadOf = {address}\n')


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the model that the command makes where nobody runs it for us."""
    folder = tmp_path_factory.mktemp("by-hand")
    repo = make_repo(folder, TRAIN)
    repo.write("params.yaml", "rate: 0.5\npause: 0\n")
    (repo.path / "data/test.csv").unlink()
    places = {"MLP_OUTPUT": folder / "output", "MLP_CHECKPOINTS": folder / "checkpoints"}
    for place in places.values():
        place.mkdir()
    given = {
        **{name: str(place) for name, place in places.items()},
        "MLP_PARAMS": "params.yaml",
        "MLP_DATA_TRAIN": "data/train.csv",
        "MLP_SEED": "17",
        "MLFLOW_RUN_ID": "",
        "MLFLOW_TRACKING_URI": "",
    }
    script = re.sub(r"body = .*\.read\(\)\n", "", TRAIN[TRAIN.index("import csv") :], flags=re.DOTALL)
    subprocess.run([sys.executable, "-c", script], cwd=repo.path, check=True, env={**os.environ, **given})
    return artifact_digest(folder / "output" / "model")


def test_same_run_and_result(bench: Bench, expected: str) -> None:
    run = bench.trained(bench.run("--format", "json"))
    assert run.digest == expected
    assert run.params == {"rate": "0.5", "pause": "0"}
    assert run.metrics["logged_loss"] == run.metrics["loss"]
    assert run.tags["mlp.commit"] == bench.repo.git("rev-parse", "HEAD")
    assert {k: run.tags[f"mlp.{k}"] for k in ("status", "dirty", "seed", "command", "team", "lease")} == {
        "status": "trained",
        "dirty": "false",
        "seed": "17",
        "command": "python train.py",
        "team": "growth",
        "lease": "",
    }
    again = bench.run("--format", "json")
    assert json.loads(again.stdout)["outputs"] == {**json.loads(again.stdout)["outputs"], "trained": "false"}
    assert bench.trained(again).run_id == run.run_id


@pytest.mark.slow
def test_same_failure(bench: Bench) -> None:
    bench.params(fail=3)
    done = bench.run()
    assert done.returncode == 2, done.stdout + done.stderr
    assert "nothing will come of this" in done.stdout
    assert "nothing will come of this" in done.stderr
    assert "failed with exit code" in done.stderr


@pytest.mark.slow
def test_stopped_gently_and_resumed(bench: Bench, expected: str) -> None:
    bench.params(rate=0.5, pause=1)
    process = subprocess.Popen(
        bench.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **bench.environ}
    )
    seen = until(process, "step 5 of 20")
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=90)
    assert process.returncode == 130, seen + rest
    done = bench.run("--format", "json")
    run = bench.trained(done)
    assert run.digest == expected
    began = re.search(r"going on from step (\d+)", done.stderr)
    assert began, done.stderr
    assert int(began[1]) >= 5
    assert "mlp.reason" not in run.tags or run.tags["mlp.reason"] == ""


def until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    pytest.fail(f"ended without {text!r}:\n{seen}")
