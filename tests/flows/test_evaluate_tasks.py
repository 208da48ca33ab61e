"""Train and evaluate as a person does, for the tasks beyond classes and numbers, and with metrics of one's own."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.training import ModelRepo, make_repo, track

if TYPE_CHECKING:
    from pathlib import Path

Run = Callable[..., subprocess.CompletedProcess[str]]

# A model without any framework: MLflow calls `_load_pyfunc` of the module beside it.
SAVE = """
import json, os, pathlib
out = pathlib.Path(os.environ["MLP_OUTPUT"]) / "model"
(out / "code").mkdir(parents=True)
inputs = json.dumps([{"name": n, "type": t} for n, t in %(inputs)r])
(out / "MLmodel").write_text(json.dumps({
    "flavors": {"python_function": {"loader_module": "small", "code": "code"}},
    "signature": {"inputs": inputs, "outputs": '[{"type": "double"}]'},
}))
(out / "code" / "small.py").write_text('''
class Model:
    def predict(self, frame, params=None):
        %(predict)s

def _load_pyfunc(path):
    return Model()
''')
"""
OWN = """
import json, os
import pandas as pd
said, test = pd.read_parquet(os.environ["MLP_PREDICTIONS"]), pd.read_csv(os.environ["MLP_DATA_TEST"])
late = (test["y"] - said["prediction"]).clip(lower=0).mean()
with open(os.environ["MLP_OUTPUT"] + "/metrics.json", "w") as stream:
    json.dump({"understock": {"value": late, "higher_is_better": False}}, stream)
"""


def lines(header: str, rows: list[list[Any]]) -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


def multilabel() -> tuple[str, str, list[list[Any]]]:
    chance = random.Random(1)
    rows = []
    for i in range(400):
        x = chance.gauss(0, 1)
        said = x if chance.random() > 0.1 else -x
        rows.append([i, f"{x:.3f}", "|".join(["red"] * (said > 0) + ["big"] * (said > 1))])
    predict = "import pandas as pd; x = frame['x']; return pd.DataFrame({'red': 1.0 * (x > 0), 'big': 0.9 * (x > 1)})"
    return "id,x,y", predict, rows


def ranked() -> tuple[str, str, list[list[Any]]]:
    chance = random.Random(2)
    rows = []
    for i in range(600):
        relevance = chance.choice([0, 0, 0, 1, 2])
        rows.append([i, f"{relevance + chance.gauss(0, 1):.3f}", relevance, f"q{i // 10}"])
    return "id,x,y,query", "return frame['x'].to_numpy()", rows


def series() -> tuple[str, str, list[list[Any]]]:
    chance = random.Random(3)
    rows = []
    for i in range(300):
        for name in "ab":
            y = 10 + (i % 7) + chance.gauss(0, 0.5)
            rows.append([f"{name}{i}", i % 7, f"{y:.3f}", name, f"2025-{1 + i // 28:02d}-{1 + i % 28:02d}T00:00:00"])
    return "id,x,y,shop,day", "return 10.0 + frame['x']", rows


TASKS: dict[str, tuple[Any, dict[str, Any], set[str]]] = {
    "multilabel": (
        multilabel,
        {
            "gates": [{"metric": "micro_f1", "min": 0.6}, {"metric": "recall_of_big", "min": 0.3}],
        },
        {"macro_f1", "label_ranking", "hamming_loss", "subset_accuracy"},
    ),
    "ranking": (
        ranked,
        {"gates": [{"metric": "ndcg_at_3", "min": 0.4}, {"metric": "robustness_noise", "max": 0.5}], "group": "query"},
        {"ndcg", "map", "mrr", "precision_at_10", "ndcg_at_3", "robustness_noise"},
    ),
    "forecasting": (
        series,
        {
            "gates": [
                {"metric": "mase", "max": 0.9},
                {"metric": "mae", "slice": "shop", "max": 0.6},
                {"metric": "understock", "max": 0.5},
            ],
            "group": "shop",
            "season": 7,
            "command": "python own.py",
        },
        {"mase", "smape", "wape", "bias", "understock", "latency_p95_ms", "memory_mb", "load_seconds"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_task_from_training_to_evidence(task: str, tmp_path: Path, cli: Run, mlflow_server: str) -> None:
    make, evaluate, expected = TASKS[task]
    header, predict, rows = make()
    inputs = [("x", "long" if task == "forecasting" else "double")]
    repo: ModelRepo = make_repo(tmp_path, SAVE % {"inputs": inputs, "predict": predict})
    repo.write("own.py", OWN)
    half = len(rows) // 2  # whole queries, and the later times
    for name, part in (("train", rows[:half]), ("test", rows[half:])):
        repo.write(f"data/{name}.csv", lines(header, part))
        track(repo, f"data/{name}.csv")
    kind = "int" if task == "forecasting" else "float"
    data: dict[str, Any] = {"columns": {"x": {"type": kind}}}
    if task == "forecasting":
        data["time"] = "day"
    repo.spec(data=data, evaluate={"task": task, **evaluate})
    repo.commit("Say what counts")
    for command in ("train", "evaluate"):
        done = cli(command, "--path", repo.path, "--format", "json", MLFLOW_TRACKING_URI=mlflow_server)
        assert done.returncode == 0, done.stdout + done.stderr
    evidence = json.loads(done.stdout)["data"]["evidence"]
    assert evidence["decided_task"] == task
    assert expected <= set(evidence["metrics"])
    assert [g["outcome"] for g in evidence["gates"]] == ["pass"] * len(evaluate["gates"])
    first = evidence["metrics"][evaluate["gates"][0]["metric"]]
    assert first["low"] < first["value"] < first["high"]
    done = cli("register", "--path", repo.path, "--format", "json", MLFLOW_TRACKING_URI=mlflow_server)
    assert done.returncode == 0, done.stdout + done.stderr


# What predict does, which inputs the signature names, and what the evaluation says.
REFUSED = {
    "NaN": ("return frame['x'] * float('nan')", [], "150 of 150 predictions are NaN or infinite, the first in row 0"),
    "too few": ("return frame['x'].to_numpy()[:-1]", [], "the model returned 149 predictions for 150 rows"),
    "two each": ("import numpy as np; return np.stack([frame['x']] * 2, axis=1)", [], "not one number per row"),
    "the target": ("return frame['y']", [("y", "double")], "the model reads y, the target"),
    "not described": ("return frame['x']", [("day", "string"), ("shop", "string")], "the model reads shop, which"),
    "not there": ("return frame['x']", [("z", "double")], "the model reads z, and data/test.csv has no such column"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_cannot_be_judged(case: str, tmp_path: Path, cli: Run, mlflow_server: str) -> None:
    predict, more, said = REFUSED[case]
    header, _, rows = series()
    repo = make_repo(tmp_path, SAVE % {"inputs": [("x", "long"), *more], "predict": predict})
    for name, part in (("train", rows[:150]), ("test", rows[150:300])):
        repo.write(f"data/{name}.csv", lines(header, part))
        track(repo, f"data/{name}.csv")
    columns = {"x": {"type": "int"}}
    repo.spec(
        data={"columns": columns, "time": "day"},
        evaluate={"task": "regression", "gates": [{"metric": "mae", "max": 1}]},
    )
    repo.commit("Say what counts")
    assert cli("train", "--path", repo.path, MLFLOW_TRACKING_URI=mlflow_server).returncode == 0
    done = cli("evaluate", "--path", repo.path, MLFLOW_TRACKING_URI=mlflow_server)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in " ".join(done.stderr.split())
    assert "Traceback (most recent call last)" not in done.stderr
