"""``mlp-ci evaluate`` as a person and a job run it, on real models in a real MLflow."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from mlp_ci.context import load_context
from mlp_ci.data.profiles.outcomes import Outcomes
from mlp_ci.evaluate.importance import Importance
from mlp_ci.monitor.estimate import estimate
from mlp_ci.tracking import Tracking, connect
from tests.training import FAST_TRAIN, QUICK_TRAIN, ModelRepo, make_repo, rows, track

if TYPE_CHECKING:
    from pathlib import Path

Cli = Callable[..., subprocess.CompletedProcess[str]]
Run = Callable[..., subprocess.CompletedProcess[str]]
MADE = "model = Model(dict(zip(columns, weights)))"


@pytest.fixture
def repo(tmp_path: Path) -> ModelRepo:
    return make_repo(tmp_path, QUICK_TRAIN)


@pytest.fixture
def run(cli: Cli, mlflow_server: str) -> Run:
    def call(command: str, repo: ModelRepo, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        return cli(command, "--path", repo.path, *options, **{"MLFLOW_TRACKING_URI": mlflow_server, **env})

    return call


@pytest.fixture
def tracking(mlflow_server: str, tmp_path: Path) -> Tracking:
    return connect(load_context(tmp_path, environ={"MLFLOW_TRACKING_URI": mlflow_server}))


def gates(repo: ModelRepo, *wanted: dict[str, object], **evaluate: object) -> None:
    repo.spec(evaluate={"gates": list(wanted), **evaluate})


def trained(run: Run, repo: ModelRepo) -> str:
    done = run("train", repo, "--format", "json")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["outputs"]["run-id"])


def test_evidence_is_kept_with_the_run_and_made_once(repo: ModelRepo, run: Run, tracking: Tracking) -> None:
    repo.write("train.py", FAST_TRAIN)
    gates(
        repo,
        {"metric": "roc_auc", "min": 0.7, "versus": "production", "max_drop": 0.01},
        {"metric": "accuracy", "slice": "kind", "min": 0.6},
        {"metric": "latency_p99_ms", "max": 2000},
        min_slice_rows=100,
    )
    run_id = trained(run, repo)
    first = run("evaluate", repo, "--format", "json")
    assert first.returncode == 0, first.stdout + first.stderr
    report = json.loads(first.stdout)
    assert report["outputs"]["gate"] == "pass"
    evidence = tracking.read_json(run_id, "evidence.json")
    auc = evidence["metrics"]["roc_auc"]
    assert 0.7 < auc["low"] < auc["value"] < auc["high"] < 1
    assert evidence["rows"] == 400
    assert evidence["test"]["digest"].startswith("md5:")
    assert {"brier", "f1", "latency_p50_ms", "model_size_mb", "pr_auc"} <= set(evidence["metrics"])
    assert [g["outcome"] for g in evidence["gates"]] == ["pass", "pass", "pass"]
    assert "no version is in production yet" in evidence["gates"][0]["message"]
    tags = tracking.run(run_id).tags
    assert (tags["mlp.gate"], tags["mlp.evidence"]) == ("pass", report["outputs"]["evidence"])
    content = tracking.read_bytes(run_id, "evidence.json")
    again = json.loads(run("evaluate", repo, "--format", "json").stdout)
    assert again["data"]["reused"]
    assert again["outputs"] == report["outputs"]
    assert tracking.read_bytes(run_id, "evidence.json") == content


@pytest.mark.slow
def test_evidence_can_be_made_again_byte_for_byte(
    repo: ModelRepo, run: Run, tracking: Tracking, tmp_path: Path
) -> None:
    """In another folder and process, from the same inputs: only what was measured then is read instead of measured."""
    gates(
        repo,
        {"metric": "roc_auc", "min": 0.7},
        {"metric": "accuracy", "gap": "kind", "max": 0.2},
        {"metric": "latency_p99_ms", "max": 2000},
        slices=["kind"],
        reuse_warning=2,
    )
    run_id = trained(run, repo)
    first = run("evaluate", repo, "--format", "json")
    assert first.returncode == 0, first.stdout + first.stderr
    content = tracking.read_bytes(run_id, "evidence.json")
    folder = tracking.run(run_id).tags["mlp.evaluation"]
    tracking.remove_artifact(run_id, folder)
    assert not tracking.has_artifact(run_id, f"{folder}/evidence.json")
    copy = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(repo.path), str(copy)], check=True)
    for name in ("model.yaml", "data/test.csv"):
        (copy / name).write_bytes((repo.path / name).read_bytes())
    again = run("evaluate", ModelRepo(path=copy, name=repo.name), "--format", "json", PYTHONHASHSEED="7")
    assert again.returncode == 0, again.stdout + again.stderr
    assert not json.loads(again.stdout)["data"]["reused"]
    assert tracking.read_bytes(run_id, f"{folder}/evidence.json") == content
    value = json.loads(content)
    assert value["format"] == "mlp-ci/evidence/v2"
    assert {s["slice"] for s in value["slices"]["declared"]} == {"a", "b"}
    assert value["slices"]["search"]["tried"] > 0
    assert value["fairness"][0]["column"] == "kind"
    assert value["reuse"] == {"models": 1, "warning_at": 2, "worn": False}
    assert set(value["code"]) == {"mlp_ci", "metrics", "numpy", "scipy", "python"}
    assert value["measurements"][value["model_digest"]].startswith("sha256:")
    assert value["intervals"]["design"]["rows"] == 400
    assert str(repo.path) not in content.decode()
    # Another model on the same rows is the second, each time that it is looked at.
    repo.write("params.yaml", "c: 0.001\n")
    second = trained(run, repo)
    told = json.loads(run("evaluate", repo, "--format", "json").stdout)
    assert told["data"]["evidence"]["reuse"] == {"models": 2, "warning_at": 2, "worn": True}
    assert any("2 models were judged on these held-out rows" in f["message"] for f in told["findings"])
    assert json.loads(run("evaluate", repo, "--format", "json").stdout)["data"]["reused"]
    assert tracking.run(second).tags["mlp.gate"] == "pass"


@pytest.mark.slow
def test_what_monitoring_needs_is_kept_beside_the_evidence(repo: ModelRepo, run: Run, tracking: Tracking) -> None:
    run_id = trained(run, repo)
    first = run("evaluate", repo)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "What the predictions rest on" in first.stdout
    folder = tracking.run(run_id).tags["mlp.evaluation"]
    importance = Importance.from_json(tracking.read_json(run_id, f"{folder}/importance.json"))
    assert set(importance.shares) == {"x", "noise"}
    assert importance.shares["x"] > 0.9
    assert sum(importance.shares.values()) == pytest.approx(1)
    assert importance.rows == 400
    outcomes = Outcomes.from_json(tracking.read_json(run_id, f"{folder}/outcomes.json"))
    profile = tracking.read_json(run_id, f"{folder}/prediction-profile.json")["columns"]["prediction"]
    assert list(outcomes.edges) == profile["edges"]
    assert list(outcomes.rows) == profile["counts"]
    held_out = (repo.path / "data/test.csv").read_text().splitlines()[1:]
    assert sum(outcomes.positives) == sum(line.endswith(",1") for line in held_out)
    auc = tracking.read_json(run_id, "evidence.json")["metrics"]["roc_auc"]["value"]
    assert estimate("roc_auc", outcomes, outcomes.rows, auc, min_rows=100).value == pytest.approx(auc)
    again = json.loads(run("evaluate", repo, "--format", "json").stdout)
    assert again["data"]["importance"] == importance.shares


@pytest.mark.slow
def test_a_model_that_refuses_shuffled_rows_is_evaluated_all_the_same(
    repo: ModelRepo, run: Run, tracking: Tracking
) -> None:
    picky = """
class Picky:
    classes_ = [0, 1]
    def predict_proba(self, X):
        import numpy as np
        known = X["x"].round(4).astype(str) + "/" + X["noise"].round(4).astype(str)
        if len(known) > 400:
            raise ValueError(f"never seen: {known.iloc[0]}")
        return np.column_stack([1 - (X["x"] > 0), X["x"] > 0]).astype(float)
    def predict(self, X):
        return (X["x"] > 0).astype(int)
model = Picky()
"""
    repo.write("train.py", QUICK_TRAIN.replace(MADE, picky))
    run_id = trained(run, repo)
    done = run("evaluate", repo)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the model refused rows with one column shuffled (ValueError)" in " ".join(done.stdout.split())
    assert "never seen" not in done.stdout + done.stderr
    folder = tracking.run(run_id).tags["mlp.evaluation"]
    assert tracking.read_json(run_id, f"{folder}/importance.json")["importance"] == {}


def test_a_failed_gate_says_no(repo: ModelRepo, run: Run, tracking: Tracking) -> None:
    gates(repo, {"metric": "accuracy", "min": 0.99})
    run_id = trained(run, repo)
    done = run("evaluate", repo)
    assert done.returncode == 3
    assert "accuracy ≥ 0.99" in done.stdout
    assert "0 of 1 gates passed" in done.stdout
    assert tracking.run(run_id).tags["mlp.gate"] == "fail"


@pytest.mark.slow
def test_the_model_is_fetched_on_another_machine(repo: ModelRepo, run: Run, tmp_path: Path) -> None:
    trained(run, repo)
    copy = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(repo.path), str(copy)], check=True)
    (copy / "data/test.csv").write_bytes((repo.path / "data/test.csv").read_bytes())
    done = run("evaluate", ModelRepo(path=copy, name=repo.name), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "cache").glob("mlp-ci/models/*/model/MLmodel"))) == 1


def test_changed_bytes_in_the_artefact_store_are_refused(
    repo: ModelRepo, run: Run, tracking: Tracking, tmp_path: Path
) -> None:
    run_id = trained(run, repo)
    model = next(repo.path.glob(".mlp/*/output/model"))
    (model / "model.pkl").write_bytes(b"something else")
    tracking.log_folder(run_id, model, "model")
    done = run("evaluate", repo)
    assert done.returncode == 2
    assert "has digest sha256:" in done.stderr
    assert not list((tmp_path / "cache").glob("models/*/model"))


def test_nothing_trained_and_something_else_trained(repo: ModelRepo, run: Run) -> None:
    done = run("evaluate", repo)
    assert done.returncode == 2
    assert "run `mlp-ci train` first" in done.stderr
    trained(run, repo)
    repo.write("params.yaml", "c: 3.0\n")
    done = run("evaluate", repo)
    assert done.returncode == 2
    assert "these changed: params" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"metric": "roc_acu", "min": 0.5}, "did you mean `roc_auc`?"),
        ({"metric": "rmse", "max": 0.5}, "metrics of a binary model"),
        ({"metric": "accuracy", "slice": "colour", "min": 0.5}, "has no column 'colour', and a gate slices by it"),
        ({"metric": "latency_p99_ms", "slice": "kind", "max": 5}, "has no slices"),
        ({"metric": "accuracy", "versus": "production", "max_drop": 0.1}, "no gate could be judged"),
        ({"metric": "accuracy", "slice": "id", "min": 0.5}, "no gate could be judged"),
    ],
)
def test_gates_that_cannot_be_judged(repo: ModelRepo, run: Run, gate: dict[str, object], said: str) -> None:
    gates(repo, gate)
    trained(run, repo)
    done = run("evaluate", repo)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_held_out_data_of_one_class(repo: ModelRepo, run: Run) -> None:
    lines = rows(100, 3, flip=0).splitlines()
    repo.write("data/test.csv", "\n".join([lines[0], *(x for x in lines[1:] if x.endswith(",1"))]) + "\n")
    track(repo, "data/test.csv")
    repo.spec(evaluate={"task": "binary"})
    trained(run, repo)
    done = run("evaluate", repo)
    assert done.returncode == 2
    assert "every row of data/test.csv has y = 1" in done.stderr


@pytest.mark.slow
def test_a_model_that_cannot_predict_says_why(repo: ModelRepo, run: Run) -> None:
    text = QUICK_TRAIN.replace('["x", "noise"]', '["x", "noise", "id"]')
    repo.write("train.py", text.replace("float(row[name])", 'float(row[name].rpartition("-")[2]) / 1000'))
    trained(run, repo)
    done = run("evaluate", repo)
    assert done.returncode == 2
    assert "the model cannot predict the held-out rows" in done.stderr


def test_loading_a_model_sees_no_secrets_and_no_targets(repo: ModelRepo, run: Run, tmp_path: Path) -> None:
    spy = f"""
class Spy:
    classes_ = [0, 1]
    def predict_proba(self, X):
        import json, os
        import numpy as np
        with open(r"{tmp_path}/seen", "w") as stream:
            json.dump([sorted(os.environ), list(X.columns)], stream)
        return np.column_stack([1 - (X["x"] > 0), X["x"] > 0]).astype(float)
    def predict(self, X):
        return (X["x"] > 0).astype(int)
model = Spy()
"""
    repo.write("train.py", QUICK_TRAIN.replace(MADE, spy))
    trained(run, repo)
    secrets = {
        "GITHUB_TOKEN": "ghs_verysecret1",
        "MY_SECRET": "hushhush",
        "MLFLOW_TRACKING_PASSWORD": "open sesame",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
        "HF_TOKEN": "hf_123456789",
        "WAREHOUSE_URL": "postgres://reader:wizard1@127.0.0.1/flights",
    }
    done = run("evaluate", repo, **secrets)
    assert done.returncode == 0, done.stdout + done.stderr
    environ, columns = json.loads((tmp_path / "seen").read_text())
    assert not {*secrets, "MLFLOW_TRACKING_URI"} & set(environ)
    assert "PATH" in environ
    assert columns == ["x", "noise"]
