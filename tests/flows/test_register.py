"""``mlp-ci register`` and the comparison with what a stage has, on real models in a real MLflow."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from mlp_ci.context import load_context
from mlp_ci.tracking import Tracking, connect
from tests.training import QUICK_TRAIN, ModelRepo, make_repo, track

if TYPE_CHECKING:
    from pathlib import Path

Cli = Callable[..., subprocess.CompletedProcess[str]]
Run = Callable[..., subprocess.CompletedProcess[str]]


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


def outputs(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout)["outputs"])


def evaluated(run: Run, repo: ModelRepo) -> str:
    run_id = outputs(run("train", repo, "--format", "json"))["run-id"]
    outputs(run("evaluate", repo, "--format", "json"))
    return run_id


def test_a_version_is_registered_once_with_all_that_it_rests_on(repo: ModelRepo, run: Run, tracking: Tracking) -> None:
    run_id = evaluated(run, repo)
    first = outputs(run("register", repo, "--format", "json"))
    assert first["version"] == "1"
    version = tracking.version(repo.name, 1)
    made = tracking.run(run_id)
    assert (version.run_id, version.digest, version.gate) == (run_id, made.digest, "pass")
    assert version.evidence == made.tags["mlp.evidence"]
    assert version.commit == repo.git("rev-parse", "HEAD")
    assert set(version.data) == {"data/train.csv", "data/test.csv"}
    profile = tracking.read_json(run_id, "profile.json")
    assert set(profile["columns"]) == {"x", "noise", "prediction"}
    assert profile["columns"]["x"]["count"] == 1000
    assert profile["columns"]["prediction"]["count"] == 400
    second = outputs(run("register", repo, "--format", "json"))
    assert second == first
    assert len(tracking.versions(repo.name)) == 1


@pytest.mark.slow
def test_the_next_model_is_compared_with_the_one_in_the_stage(repo: ModelRepo, run: Run, tracking: Tracking) -> None:
    evaluated(run, repo)
    outputs(run("register", repo, "--format", "json"))
    tracking.set_alias(repo.name, "production", 1)
    repo.spec(evaluate={"gates": [{"metric": "roc_auc", "versus": "production", "max_drop": 0.005}]})
    repo.write("train.py", QUICK_TRAIN.replace('["x", "noise"]', '["noise"]'))
    repo.commit("Forget what matters")
    outputs(run("train", repo, "--format", "json"))
    worse = run("evaluate", repo)
    assert worse.returncode == 3, worse.stdout + worse.stderr
    assert "against production (version 1" in worse.stdout
    refused = run("register", repo)
    assert refused.returncode == 3
    assert "the gates did not pass" in refused.stderr
    assert len(tracking.versions(repo.name)) == 1
    repo.write("train.py", QUICK_TRAIN + "# as good as before\n")
    repo.commit("Remember it")
    evaluated(run, repo)
    assert outputs(run("register", repo, "--format", "json"))["version"] == "2"


@pytest.mark.slow
def test_what_the_rows_do_not_decide(repo: ModelRepo, run: Run, tracking: Tracking) -> None:
    """400 rows say 0.88 with an interval of about 0.84 to 0.91; what that means for 0.87 is on_inconclusive."""
    repo.spec(evaluate={"gates": [{"metric": "accuracy", "min": 0.87}], "on_inconclusive": "block"})
    repo.commit("Ask for what 400 rows cannot show")
    run_id = outputs(run("train", repo, "--format", "json"))["run-id"]
    blocked = run("evaluate", repo)
    assert blocked.returncode == 3, blocked.stdout + blocked.stderr
    assert "400 rows do not decide it, about" in " ".join(blocked.stdout.split())
    assert tracking.run(run_id).tags["mlp.gate"] == "inconclusive"
    refused = run("register", repo)
    assert refused.returncode == 3
    assert "on_inconclusive is block, so no version is registered" in refused.stderr
    repo.spec(evaluate={"on_inconclusive": "ask"})
    repo.commit("Ask a person")
    asked = outputs(run("evaluate", repo, "--format", "json"))
    assert asked["gate"] == "inconclusive"
    assert outputs(run("register", repo, "--format", "json"))["version"] == "1"
    first = tracking.version(repo.name, 1)
    assert first.gate == "inconclusive"
    evidence = tracking.read_json(run_id, first.evidence_file)
    assert (evidence["outcome"], evidence["on_inconclusive"]) == ("inconclusive", "ask")
    # With a gate that the rows decide, the same bytes are a new version; the first keeps its verdict and its evidence.
    repo.spec(evaluate={"gates": [{"metric": "accuracy", "min": 0.7}]})
    repo.commit("Leave more room")
    outputs(run("evaluate", repo, "--format", "json"))
    assert outputs(run("register", repo, "--format", "json"))["version"] == "2"
    second = tracking.version(repo.name, 2)
    assert (second.gate, second.digest) == ("pass", first.digest)
    assert tracking.read_json(run_id, second.evidence_file)["outcome"] == "pass"
    assert tracking.read_json(run_id, first.evidence_file) == evidence
    assert tracking.version(repo.name, 1).gate == "inconclusive"


@pytest.mark.slow
def test_a_champion_that_cannot_be_tried(repo: ModelRepo, run: Run, tracking: Tracking, tmp_path: Path) -> None:
    first = evaluated(run, repo)
    outputs(run("register", repo, "--format", "json"))
    tracking.set_alias(repo.name, "production", 1)
    lines = (repo.path / "data/test.csv").read_text().splitlines()
    fields = [line.split(",") for line in lines]
    repo.write("data/test.csv", "\n".join(",".join([f[0], f[1], *f[3:]]) for f in fields) + "\n")  # without noise
    track(repo, "data/test.csv")
    repo.spec(
        data={"columns": {"x": {"type": "float"}}},
        evaluate={"gates": [{"metric": "roc_auc", "min": 0.5, "versus": "production", "max_drop": 0.05}]},
    )
    repo.write("train.py", QUICK_TRAIN.replace('["x", "noise"]', '["x"]'))
    repo.commit("Do without noise")
    outputs(run("train", repo, "--format", "json"))
    done = run("evaluate", repo)
    said = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout + done.stderr  # inconclusive, and a person is asked
    assert "version 1 in production cannot be tried: the model reads noise" in said
    tracking.delete_run(first)
    tracking.remove_artifact(first, "model")
    gone = run("evaluate", repo, XDG_CACHE_HOME=str(tmp_path / "empty"))
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert "version 1 in production cannot be tried" in " ".join(gone.stdout.split())
    assert "Traceback" not in gone.stderr


@pytest.mark.slow
def test_evidence_of_a_registered_version_stays_as_it_is(repo: ModelRepo, run: Run, tracking: Tracking) -> None:
    run_id = evaluated(run, repo)
    outputs(run("register", repo, "--format", "json"))
    content = tracking.read_bytes(run_id, "evidence.json")
    repo.spec(evaluate={"gates": [{"metric": "accuracy", "min": 0.999}]})
    repo.commit("Ask for more")
    assert run("evaluate", repo).returncode == 3
    assert tracking.read_bytes(run_id, "evidence.json") == content
    assert run("register", repo).returncode == 3
    assert tracking.version(repo.name, 1).gate == "pass"


def test_without_evidence(repo: ModelRepo, run: Run) -> None:
    outputs(run("train", repo, "--format", "json"))
    done = run("register", repo)
    assert done.returncode == 2
    assert "run `mlp-ci evaluate` first" in done.stderr


@pytest.mark.slow
def test_evidence_for_other_gates(repo: ModelRepo, run: Run) -> None:
    evaluated(run, repo)
    repo.spec(evaluate={"gates": [{"metric": "accuracy", "min": 0.61}]})
    repo.commit("Ask for more")
    done = run("register", repo)
    assert done.returncode == 2
    assert "gates_spec changed since" in done.stderr


def test_evidence_that_was_changed_is_refused(repo: ModelRepo, run: Run, tracking: Tracking, tmp_path: Path) -> None:
    run_id = evaluated(run, repo)
    forged = tracking.download(run_id, "evidence.json", tmp_path)
    forged.write_text(forged.read_text().replace('"pass"', '"passed"'))
    tracking.log_file(run_id, forged, tracking.run(run_id).tags["mlp.evaluation"])
    done = run("register", repo)
    assert done.returncode == 3
    assert "the file was changed after the evaluation wrote it" in done.stderr
    assert tracking.versions(repo.name) == []


def test_a_stored_model_that_was_changed_is_refused(
    repo: ModelRepo, run: Run, tracking: Tracking, tmp_path: Path
) -> None:
    run_id = evaluated(run, repo)
    model = tracking.download(run_id, "model", tmp_path)
    (model / "extra.py").write_text("print('hello')")
    tracking.log_folder(run_id, model, "model")
    done = run("register", repo)
    assert done.returncode == 2
    assert "has digest sha256:" in done.stderr
    assert tracking.versions(repo.name) == []


@pytest.mark.slow
def test_a_dirty_tree_is_refused(repo: ModelRepo, run: Run) -> None:
    repo.write("extra.py", "x = 1\n")
    evaluated(run, repo)
    done = run("register", repo)
    assert done.returncode == 2
    assert "not what the commit says: extra.py" in done.stderr
    repo.commit("Add it")
    assert outputs(run("register", repo, "--format", "json"))["version"] == "1"


@pytest.mark.slow
def test_two_jobs_at_once_make_one_version(repo: ModelRepo, run: Run, tracking: Tracking) -> None:
    from concurrent.futures import ThreadPoolExecutor

    evaluated(run, repo)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: outputs(run("register", repo, "--format", "json")), range(2)))
    assert both[0] == both[1]
    assert len(tracking.versions(repo.name)) == 1


@pytest.mark.slow
def test_a_run_deleted_between_the_steps(repo: ModelRepo, run: Run, tracking: Tracking) -> None:
    tracking.delete_run(evaluated(run, repo))
    done = run("register", repo)
    assert done.returncode == 2
    assert "has not been trained" in done.stderr
