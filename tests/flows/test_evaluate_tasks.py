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
