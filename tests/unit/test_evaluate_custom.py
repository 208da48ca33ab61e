"""``evaluate.command``: metrics of the team's own, from a command that really runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlp_ci.errors import InputError
from mlp_ci.evaluate.answers import Predicted
from mlp_ci.evaluate.custom import Own, Trial, metric, read, require, run, write_predictions
from mlp_ci.evaluate.metrics import BINARY, MULTILABEL, Predictions
from mlp_ci.evaluate.predict import Where
from mlp_ci.spec import Gate, parse_model

# What a mistake costs: a false alarm 1, a miss 5. Any language would do.
COSTS = """
import json, os
import pandas as pd
said = pd.read_parquet(os.environ["MLP_PREDICTIONS"])
test = pd.read_csv(os.environ["MLP_DATA_TEST"])
assert os.path.isdir(os.environ["MLP_MODEL"])
yes, true = said["prediction"] == "1", test["y"] == 1
cost = (yes & ~true) * 1.0 + (~yes & true) * 5.0
with open(os.environ["MLP_OUTPUT"] + "/metrics.json", "w") as stream:
    json.dump({"cost": {"value": cost.mean(), "higher_is_better": False}, "mean_p": said["probability"].mean()}, stream)
"""


def gate_of(**fields: Any) -> Gate:
    return Gate(**fields)


def trial(folder: Path, command: str, **evaluate: Any) -> Trial:
    value = {
        "apiVersion": "mlp-ci/v1",
        "name": "m",
        "team": "t",
        "data": {"train": "a.csv", "test": "test.csv", "target": "y", "columns": {"x": {"type": "float"}}},
        "train": {"command": "true", "seed": 3},
        "evaluate": {"gates": [{"metric": "cost", "max": 1}], "command": command, **evaluate},
    }
    said = Predictions(
        task=BINARY,
        target=np.asarray([0, 1, 1]),
        label=np.asarray([1, 0, 1]),
        probability=np.asarray([0.75, 0.25, 0.5]),
        classes=("0", "1"),
    )
    (folder / "test.csv").write_text("x,y\n1,0\n2,1\n3,1\n")
    (folder / "model").mkdir(exist_ok=True)
    (folder / "costs.py").write_text(COSTS)
    return Trial(
        repo=folder,
        spec=parse_model(json.dumps(value).encode()),
        model=folder / "model",
        test=folder / "test.csv",
        predicted=Predicted(predictions=said, logged=np.asarray([0.75, 0.25, 0.5])),
        where=Where(python=Path(sys.executable), environ={"PATH": os.environ["PATH"]}),
    )


def test_a_command_judges_predictions(tmp_path: Path) -> None:
    found = run(trial(tmp_path, "python costs.py"))
    assert found == {"cost": Own(value=2.0, higher_is_better=False), "mean_p": Own(value=0.5)}
    assert not metric("cost", found["cost"]).higher_is_better
    assert not metric("mean_p", found["mean_p"]).comparable
    assert Own.from_json(json.loads(json.dumps(found["cost"].to_json()))) == found["cost"]
    assert run(trial(tmp_path, "")) == {}


def test_labels_come_as_text_and_probabilities_by_name(tmp_path: Path) -> None:
    target = np.asarray([[1, 1], [0, 1]])
    said = Predictions(task=MULTILABEL, target=target, label=target, probability=target * 0.5, classes=("a", "b"))
    write_predictions(Predicted(predictions=said, logged=np.asarray(["a|b", "b"])), tmp_path / "p.parquet")
    frame = pd.read_parquet(tmp_path / "p.parquet")
    assert frame.to_dict("list") == {
        "prediction": ["a|b", "b"],
        "probability_a": [0.5, 0.0],
        "probability_b": [0.5, 0.5],
    }


@pytest.mark.parametrize(
    ("command", "said", "more"),
    [
        ("echo what happened; exit 3", "evaluate.command ended with exit code 3", "what happened"),
        ("kill -9 $$", "evaluate.command was ended by SIGKILL", ""),
        ("true", "wrote no $MLP_OUTPUT/metrics.json", ""),
        ("echo start; sleep 60", "took longer than 1s and was stopped", "start"),
        ("echo '{' > $MLP_OUTPUT/metrics.json", "is not JSON", ""),
    ],
)
def test_a_command_that_breaks_its_contract(command: str, said: str, more: str, tmp_path: Path) -> None:
    limit = "1s" if "sleep" in command else "30s"
    with pytest.raises(InputError) as caught:
        run(trial(tmp_path, command, command_timeout=limit))
    assert said in caught.value.what
    assert more in caught.value.why
    assert caught.value.fix


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "holds no metrics"),
        ([1], "holds no metrics"),
        ({"cost": "high"}, "'cost' is not a finite number"),
        ({"cost": True}, "'cost' is not a finite number"),
        ({"cost": float("nan")}, "'cost' is not a finite number"),
        ({"cost": None}, "'cost' has no value"),
        ({"cost": {"low": 1}}, "'cost' has no value"),
        ({"cost": {"value": 1, "low": 0}}, "has one end of an interval"),
        ({"cost": {"value": 1, "low": 2, "high": 3}}, "does not lie between"),
        ({"cost": {"value": 1, "p": 3}}, "has 'p'"),
        ({"cost": {"value": 1, "higher_is_better": "yes"}}, "neither true nor false"),
        ({"accuracy": 1}, "is the name of a metric of mlp-ci"),
        ({"ndcg_at_7": 1}, "is the name of a metric of mlp-ci"),
        ({"a\nb": 1}, "is no name"),
    ],
)
def test_metrics_that_are_none(value: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(value))
    with pytest.raises(InputError) as caught:
        read(tmp_path / "metrics.json")
    assert said in caught.value.what


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"metric": "cots", "max": 1}, "a gate asks for cots, and evaluate.command wrote cost, mean_p"),
        ({"metric": "cost", "max": 1, "slice": "x"}, "one value of the whole"),
        ({"metric": "mean_p", "versus": "production", "max_drop": 0}, "nobody says which way is better"),
    ],
)
def test_gates_that_the_command_cannot_answer(gate: dict[str, Any], said: str) -> None:
    own = {"cost": Own(value=2.0, higher_is_better=False), "mean_p": Own(value=0.5)}
    require([gate_of(metric="cost", max=1), gate_of(metric="accuracy", min=0.5)], own)
    with pytest.raises(InputError) as caught:
        require([gate_of(**gate)], own)
    assert said in caught.value.what
    assert caught.value.fix


def test_an_interval_of_a_command_decides_like_any_other() -> None:
    found = Own(value=0.5, low=0.4, high=0.7).estimate()
    assert found.bound(0.025) == pytest.approx(0.4)
    assert found.bound(0.975) == pytest.approx(0.7)
    assert found.belief is not None
    assert found.belief.p_at_least(0.4) == pytest.approx(0.025)
    assert found.belief.p_at_most(0.7) == pytest.approx(0.025)
    assert Own(value=0.5).estimate().belief is None
    sure = Own(value=0.5, low=0.5, high=0.5).estimate()
    assert sure.belief is not None
    assert (sure.belief.p_at_least(0.4), sure.belief.p_at_least(0.6)) == (0, 1)
