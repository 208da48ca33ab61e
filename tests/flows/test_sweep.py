"""``mlp-ci sweep`` and ``train`` with a search: real processes, a real MLflow, killed at awkward moments."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlp_ci.context import load_context
from mlp_ci.errors import InputError
from mlp_ci.sweep import sweep
from mlp_ci.sweep.trials import COMPLETE, FAILED, PARENT, PRUNED, RUNNING
from mlp_ci.tracking import RunFact, Tracking, connect
from tests.flows.test_train import wait_until
from tests.training import BARE_MODEL, ModelRepo, make_repo

Cli = Callable[..., subprocess.CompletedProcess[str]]

# The best c is 3. Leaves a line per start with what it was given, so that tests see what really ran.
SCORED = (
    BARE_MODEL
    + """
import json, time, yaml
params = yaml.safe_load(open(os.environ["MLP_PARAMS"]))
with open(os.environ["MLP_TRACES"], "a") as stream:
    stream.write(json.dumps({"c": params["c"], "run": os.environ["MLFLOW_RUN_ID"],
        "data": os.environ["MLP_DATA_TRAIN"], "test": os.path.exists("data/test.csv"),
        "resumed": sorted(os.listdir(os.environ["MLP_CHECKPOINTS"]))}) + "\\n")
(out.parent / "metrics.json").write_text(json.dumps({"score": -abs(params["c"] - 3)}))
"""
)
PLATFORM = "{apiVersion: mlp-ci/v1, runners: {default: {labels: [x]}}}"
GRID = {
    "parameters": {"c": {"int": [1, 6]}},
    "metric": "score",
    "direction": "maximize",
    "sampler": "grid",
    "trials": 6,
}


@pytest.fixture
def tracking(mlflow_server: str, tmp_path: Path) -> Tracking:
    return connect(load_context(tmp_path, environ={"MLFLOW_TRACKING_URI": mlflow_server}))


@pytest.fixture
def call(cli: Cli, mlflow_server: str) -> Cli:
    def run(command: str, repo: ModelRepo, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        return cli(command, "--path", repo.path, *options, MLFLOW_TRACKING_URI=mlflow_server, **env)

    return run


def repo_with(
    folder: Path, train: str = SCORED, /, environment: dict[str, str] | None = None, **sweep: Any
) -> ModelRepo:
    """A model repository with a search; the command finds its file of traces by a variable of its own."""
    repo = make_repo(folder, train)
    traces = folder / "traces"
    names = {"MLP_TRACES": str(traces), **(environment or {})}
    command = " ".join(f"{k}={v}" for k, v in names.items()) + " python train.py"
    repo.spec(train={"command": command, "sweep": {**GRID, **sweep}})
    repo.commit("Search")
    return repo


def traces(repo: ModelRepo) -> list[dict[str, Any]]:
    file = repo.path.parent / "traces"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def trials_of(tracking: Tracking, repo: ModelRepo, sweep_run: str) -> list[RunFact]:
    runs = tracking.tagged(repo.name, PARENT, sweep_run)
    return sorted((r for r in runs if "mlp.trial" in r.tags), key=lambda r: int(r.tags["mlp.trial"]))


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def states(found: dict[str, Any]) -> list[str]:
    return [t["state"] for t in found["data"]["trials"]]


def start(repo: ModelRepo, server: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mlp_ci", "sweep", "--path", str(repo.path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": server},
    )


def test_train_searches_a_grid_and_trains_the_best(tmp_path: Path, call: Cli, tracking: Tracking) -> None:
    repo = repo_with(tmp_path)
    trained = answer(call("train", repo, "--format", "json"))
    run = tracking.run(trained["outputs"]["run-id"])
    seen = traces(repo)
    assert sorted(t["c"] for t in seen[:-1]) == [1, 2, 3, 4, 5, 6], "a grid covers all, once"
    assert seen[-1]["c"] == 3
    assert seen[-1]["run"] == run.run_id
    assert not any(t["test"] for t in seen), "no trial sees held-out data"
    assert json.loads(run.tags["mlp.sweep_params"]) == {"c": 3}
    assert run.params["c"] == "3"
    parent = run.tags["mlp.sweep"]
    children = trials_of(tracking, repo, parent)
    assert [c.tags["mlp.trial_state"] for c in children] == [COMPLETE] * 6
    assert {c.tags["mlflow.parentRunId"] for c in children} == {parent}
    assert {c.params["c"] for c in children} == set("123456")
    best = next(c for c in children if c.params["c"] == "3")
    assert best.metrics["score"] == 0
    assert best.tags["mlp.trial"] == run.tags["mlp.sweep_trial"]
    page = tracking.read_bytes(parent, "sweep.html").decode()
    assert "score" in page
    assert "<script" not in page

    # The same again trains nothing; a longer search of the same space does only what is new.
    assert answer(call("train", repo, "--format", "json"))["outputs"]["trained"] == "false"
    repo.spec(train={"sweep": {**GRID, "sampler": "random", "trials": 5, "jobs": 2}})
    again = answer(call("sweep", repo, "--format", "json"))
    assert again["outputs"]["best-value"] == "0.0"
    assert again["outputs"]["sweep-run"] == parent
    assert len(traces(repo)) == 7, "neither trained"
    assert again["data"]["best"] == int(run.tags["mlp.sweep_trial"])


SLOW = SCORED.replace(
    "import json, time, yaml",
    """import json, time, yaml
place = pathlib.Path(os.environ["MLP_CHECKPOINTS"])
here = sorted(p.name for p in place.iterdir())""",
).replace(
    "(out.parent",
    """(place / "step").write_text("1")
if str(params["c"]) in os.environ["MLP_STOPS_AT"] and not here:
    time.sleep(60)
(out.parent""",
)


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_where_it_was(
    tmp_path: Path, call: Cli, tracking: Tracking, mlflow_server: str
) -> None:
    repo = repo_with(tmp_path, SLOW, {"MLP_STOPS_AT": "45"})
    codes = []
    for kind in (signal.SIGKILL, signal.SIGTERM):
        before = len(traces(repo))
        process = start(repo, mlflow_server)
        wait_until(lambda known=before: any(t["c"] in (4, 5) and not t["resumed"] for t in traces(repo)[known:]), 60)
        os.kill(process.pid, kind)
        process.communicate()
        codes.append(process.returncode)
    assert codes == [-9, 130]
    found = answer(call("sweep", repo, "--format", "json"))
    assert states(found) == [COMPLETE] * 6
    seen = sorted(t["c"] for t in traces(repo))
    assert seen == [1, 2, 3, 4, 4, 5, 5, 6], "only what was cut off began again"
    again = [t for t in traces(repo) if t["c"] == 4][1]
    assert again["resumed"] == ["step"], "from its checkpoints"
    assert again["run"] == next(t["run"] for t in traces(repo) if t["c"] == 4), "in the same run"
    attempts = {t["params"]["c"]: t["attempts"] for t in found["data"]["trials"]}
    assert sorted([attempts.pop(4), attempts.pop(5)]) == [1, 2], "to be asked to stop counts for nothing"
    assert set(attempts.values()) == {1}
    assert not (repo.path / ".mlp" / "held-out").exists()
    assert (repo.path / "data" / "test.csv").exists()


@pytest.mark.slow
def test_two_workers_share_the_trials(tmp_path: Path, call: Cli, tracking: Tracking, mlflow_server: str) -> None:
    repo = repo_with(tmp_path, SCORED + "\ntime.sleep(0.4)\n", jobs=2)
    other = ModelRepo(path=tmp_path / "other" / "repo", name=repo.name)
    subprocess.run(["cp", "-r", repo.path, other.path.parent.mkdir() or other.path], check=True)
    workers = [start(r, mlflow_server, "--job", str(i), "--of", "2") for i, r in enumerate((repo, other), start=1)]
    said = [w.communicate(timeout=120)[0] for w in workers]
    assert [w.returncode for w in workers] == [0, 0], said
    assert sorted(t["c"] for t in traces(repo)) == [1, 2, 3, 4, 5, 6], "no trial twice, none left out"
    began = [len(re.findall(r"^mlp-ci: trial \d+: c \d$", text, re.MULTILINE)) for text in said]
    assert sum(began) == 6
    assert min(began) >= 1, "both worked"
    found = answer(call("sweep", repo, "--format", "json"))
    assert [t["number"] for t in found["data"]["trials"]] == [1, 2, 3, 4, 5, 6]


PROGRESS = SCORED.replace(
    "(out.parent",
    """for step in range(1, 40):
    with open(os.environ["MLP_PROGRESS"], "a") as stream:
        stream.write(json.dumps({"step": step, "value": -abs(params["c"] - 3) + step / 1000}) + "\\n")
    if params["c"] == 9:
        time.sleep(0.5)
(out.parent""",
)


@pytest.mark.slow
def test_a_trial_that_falls_behind_is_ended(tmp_path: Path, call: Cli, tracking: Tracking) -> None:
    # The last point of this grid is the worst: the order is drawn by the seed, which is chosen for that.
    choice = [1, 2, 3, 4, 5, 9]
    repo = repo_with(tmp_path, PROGRESS, parameters={"c": {"choice": choice}}, pruner="median")
    repo.spec(train={"seed": _seed_with_last(choice, 9)})
    found = answer(call("sweep", repo, "--format", "json"))
    last = found["data"]["trials"][-1]
    assert last["params"] == {"c": 9}
    assert (last["state"], last["value"]) == (PRUNED, None)
    assert "behind" in last["reason"]
    assert last["seconds"] < 15, "39 steps would have taken 20 s"
    assert states(found)[:-1] == [COMPLETE] * 5
    assert tracking.curve(found["data"]["trials"][0]["run_id"], "progress")[39] == pytest.approx(
        found["data"]["trials"][0]["value"] + 0.039
    )


def _seed_with_last(choice: list[int], last: int) -> int:
    from mlp_ci.spec.sweep import Sweep
    from mlp_ci.sweep.study import Study

    for seed in range(1000):
        sweep = Sweep.model_validate({**GRID, "parameters": {"c": {"choice": choice}}})
        order = [v["c"] for v in Study(sweep, maximize=True, seed=seed)._grid()]
        if order[-1] == last:
            return seed
    raise AssertionError


@pytest.mark.parametrize(
    ("sweep", "says"), [({"time": "1s"}, "s of 1s"), ({"budget_usd": 0.01}, "$0.05 of $0.01")], ids=["time", "money"]
)
def test_budgets_of_time_and_money_end_a_search(tmp_path: Path, call: Cli, sweep: dict[str, Any], says: str) -> None:
    repo = repo_with(tmp_path, SCORED + "\ntime.sleep(1)\n", **sweep)
    (tmp_path / "platform.yaml").write_text(PLATFORM.replace("labels: [x]", "labels: [x], usd_per_hour: 72"))
    found = answer(call("sweep", repo, "--format", "json", "--platform", str(tmp_path / "platform.yaml")))
    assert states(found) == [COMPLETE], "the first trial alone is over the budget"
    assert len(traces(repo)) == 1
    seconds = found["data"]["trials"][0]["seconds"]
    assert seconds > 1
    assert says.replace("0.05", f"{seconds / 50:.2f}") in found["data"]["budget"]


@pytest.mark.parametrize(
    ("train", "says"),
    [
        (SCORED.replace('"score"', '"accuracy"'), "wrote no score to $MLP_OUTPUT/metrics.json"),
        ("raise SystemExit('no such depth')", "all 3 trials failed"),
    ],
    ids=["no-metric", "all-fail"],
)
def test_a_command_that_no_trial_can_mend_ends_the_search(tmp_path: Path, call: Cli, train: str, says: str) -> None:
    repo = repo_with(tmp_path, train)
    done = call("train", repo)
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    if "all" in says:
        assert "no such depth" in done.stdout, "the log of each trial was shown"
        assert "delete the run of the sweep" in done.stderr


def test_what_cannot_be_searched_is_said_before_anything_is_trained(tmp_path: Path, mlflow_server: str) -> None:
    repo = repo_with(tmp_path)
    (tmp_path / "platform.yaml").write_text(PLATFORM)
    environ = {**os.environ, "MLFLOW_TRACKING_URI": mlflow_server}
    ctx = load_context(repo.path, platform_file=tmp_path / "platform.yaml", environ=environ)
    count = {"count": 2}
    for changes, says in (
        ({"parameters": {"cc": {"int": [1, 6]}}}, "did you mean `c`?"),
        ({"metric": "something", "direction": None}, "direction: maximize"),
        ({"budget_usd": 3}, "usd_per_hour"),
        ({"metric": "roc_aucc", "folds": count}, "did you mean `roc_auc`?"),
        ({"metric": "rmse", "direction": None, "folds": count}, "no metric of a binary model"),
        ({"metric": "latency_p99_ms", "direction": None, "folds": count}, "measured on a machine"),
        ({"metric": "roc_auc", "direction": "minimize", "folds": count}, "direction: maximize"),
        ({"metric": "roc_auc", "folds": {"kind": "group", "column": "who"}}, "no column 'who'"),
        ({"metric": "roc_auc", "folds": {"kind": "time"}}, "data.time"),
    ):
        repo.spec(train={"sweep": {**GRID, **changes}})
        with pytest.raises(InputError) as refused:
            sweep(ctx, log=io.StringIO())
        assert says in refused.value.what + refused.value.fix, changes
    repo.spec(train={"sweep": None})
    with pytest.raises(InputError, match="describes no search"):
        sweep(ctx, log=io.StringIO())
    assert not traces(repo)


# The model of a fold: predicts 1 where x is above c, without scikit-learn; says what it was trained on.
FOLDED = """
import json, os, pathlib, yaml
import pandas as pd
import mlflow.pyfunc
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

frame = pd.read_csv(os.environ["MLP_DATA_TRAIN"])
c = yaml.safe_load(open(os.environ["MLP_PARAMS"]))["c"]
with open(os.environ["MLP_TRACES"], "a") as stream:
    stream.write(json.dumps({"c": c, "ids": frame["id"].tolist(), "whole": os.path.exists("data/train.csv"),
        "test": os.path.exists("data/test.csv"), "run": os.environ["MLFLOW_RUN_ID"]}) + "\\n")

class Cut(mlflow.pyfunc.PythonModel):
    def __init__(self, c):
        self.c = c
    def predict(self, context, model_input, params=None):
        return (model_input["x"] > self.c).astype(int)

signature = ModelSignature(Schema([ColSpec("double", "x")]), Schema([ColSpec("long")]))
mlflow.pyfunc.save_model(os.environ["MLP_OUTPUT"] + "/model", python_model=Cut(c), signature=signature,
    pip_requirements=["mlflow"])
"""


@pytest.mark.slow
def test_folds_are_trained_apart_and_judged_on_the_rest(tmp_path: Path, call: Cli, tracking: Tracking) -> None:
    repo = repo_with(
        tmp_path,
        FOLDED,
        parameters={"c": {"choice": [0.0, 1.5]}},
        metric="accuracy",
        direction=None,
        folds={"kind": "group", "column": "kind", "count": 2},
    )
    found = answer(call("sweep", repo, "--format", "json"))
    seen = traces(repo)
    assert len(seen) == 4
    assert not any(t["whole"] or t["test"] for t in seen), "neither all of the training data nor held-out data"
    rows = [line.split(",") for line in (repo.path / "data" / "train.csv").read_text().splitlines()[1:]]
    kinds = {row[0]: row[3] for row in rows}
    for c in (0.0, 1.5):
        apart = [{kinds[i] for i in t["ids"]} for t in seen if t["c"] == c]
        assert sorted(map(sorted, apart)) == [["a"], ["b"]], "a group is never parted"
    for trial in found["data"]["trials"]:
        cut = trial["params"]["c"]
        right = {kind: sum((float(r[1]) > cut) == (r[4] == "1") for r in rows if r[3] == kind) / 300 for kind in "ab"}
        assert sorted(trial["folds"]) == pytest.approx(sorted(right.values()))
        assert trial["value"] == pytest.approx(sum(right.values()) / 2)
        assert trial["spread"] == pytest.approx(abs(right["a"] - right["b"]) / 2**0.5)
        run = tracking.run(trial["run_id"])
        assert run.metrics["accuracy_fold_1"] == trial["folds"][0]
        assert run.metrics["accuracy_std"] == pytest.approx(trial["spread"])
    assert found["data"]["trials"][found["data"]["best"] - 1]["params"] == {"c": 0.0}
    assert yaml.safe_load((repo.path / "params.yaml").read_text()) == {"c": 1.0}, "the team's file stays"
    assert not [p for p in (repo.path / ".mlp").iterdir() if p.name.startswith("sweep-")], "nothing is left behind"
    assert {FAILED, RUNNING} & set(states(found)) == set()

    # The loop after it takes the best trial's parameters for those of any other training.
    for command in (("train",), ("evaluate",), ("register", "--no-promote")):
        done = call(command[0], repo, *command[1:])
        assert done.returncode == 0, done.stdout + done.stderr
    (version,) = tracking.versions(repo.name)
    tags = tracking.client.get_model_version(repo.name, str(version.number)).tags
    assert json.loads(tags["mlp.sweep_params"]) == {"c": 0.0}
    assert tags["mlp.sweep_trial"] == str(found["data"]["best"])
    assert tracking.run(version.run_id).params["c"] == "0.0"
    assert len(traces(repo)) == 5
    assert traces(repo)[-1]["whole"], "the best is trained on all of the training data"
