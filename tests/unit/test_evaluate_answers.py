"""What models may return, which columns they may read, and what is measured while they predict."""

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
from mlp_ci.evaluate import predictor
from mlp_ci.evaluate.answers import Predicted, interpret
from mlp_ci.evaluate.columns import check_reads, features_of, required_by
from mlp_ci.evaluate.measured import OrderStatistics, headline, kinds_of, measured, quantile, robustness
from mlp_ci.evaluate.metrics import (
    BINARY,
    FORECASTING,
    METRICS,
    MULTICLASS,
    MULTILABEL,
    RANKING,
    REGRESSION,
    Predictions,
)
from mlp_ci.evaluate.predict import Where, predict
from mlp_ci.evaluate.rows import HeldOut
from mlp_ci.spec import Gate, ModelSpec, parse_model


def rows(task: str, target: Any, classes: tuple[str, ...] = (), **more: Any) -> HeldOut:
    return HeldOut(frame=None, task=task, target=np.asarray(target), classes=classes, **more)


def spec(**evaluate: Any) -> ModelSpec:
    value = {
        "apiVersion": "mlp-ci/v1",
        "name": "m",
        "team": "t",
        "data": {
            "train": "train.csv",
            "test": "test.csv",
            "target": "y",
            "key": ["id"],
            "columns": {"x": {"type": "float"}, "kind": {"type": "string"}, "y": {"type": "int"}},
        },
        "train": {"command": "true"},
        "evaluate": {"gates": [{"metric": "accuracy", "min": 0.5}], **evaluate},
    }
    return parse_model(json.dumps(value).encode())


def gate(**fields: Any) -> Gate:
    return Gate(**fields)


def model(folder: Path, inputs: list[dict[str, Any]], code: str = "") -> Path:
    """A model folder that MLflow loads, without any framework."""
    (folder / "code").mkdir(parents=True)
    signature = {"inputs": json.dumps(inputs), "outputs": '[{"type": "double"}]'}
    description = {
        "flavors": {"python_function": {"loader_module": "small", "code": "code"}},
        "signature": signature,
    }
    (folder / "MLmodel").write_text(json.dumps(description))
    (folder / "code" / "small.py").write_text(code)
    return folder


X = {"name": "x", "type": "double"}

# ---------------------------------------------------------------- answers


LABELS = rows(MULTILABEL, [[1, 0], [0, 1]], ("a", "b"))


@pytest.mark.parametrize(
    "stored",
    [
        {"label": np.asarray([[0.9, 0.2], [0.4, 0.6]])},
        {"label": np.asarray([[0.2, 0.9, 0.1], [0.6, 0.4, 0.0]]), "names": np.asarray(["b", "a", "new"])},
        {"label": np.asarray(["a", " b |a"])},
        {"label": np.asarray([[1, 0], [1, 1]])},
    ],
)
def test_answers_of_several_labels(stored: dict[str, Any]) -> None:
    if stored["label"].shape[0] == 2 and stored["label"].ndim == 2 and stored["label"].dtype.kind == "f":
        found = interpret(stored, LABELS)
        assert found.predictions.probability is not None
        assert found.predictions.label[:, :2].tolist() == [[1, 0], [0, 1]]
        assert found.logged.tolist() == ["a", "b"]
        assert found.predictions.target[:, :2].tolist() == [[1, 0], [0, 1]]
    else:
        found = interpret(stored, LABELS)
        assert found.predictions.probability is None
        assert found.predictions.label.tolist() == [[1, 0], [1, 1]]
        assert found.logged.tolist() == ["a", "a|b"]


def test_numbers_carry_their_groups_and_scale() -> None:
    held_out = rows(RANKING, [0, 2], groups=np.asarray([0, 0]))
    found = interpret({"label": np.asarray([1.5, 0.2])}, held_out).predictions
    assert found.groups is not None
    assert (found.task, found.groups.tolist()) == (RANKING, [0, 0])
    series = rows(FORECASTING, [1.0, 2.0], scale=np.asarray([1.0, 1.0]))
    assert interpret({"label": np.asarray([1, 2])}, series).predictions.scale is not None


def test_columns_of_a_frame_name_the_classes() -> None:
    stored = {"label": np.asarray([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]), "names": np.asarray(["c", "a", "b"])}
    found = interpret(stored, rows(MULTICLASS, [1, 2], ("a", "b", "c"))).predictions
    assert found.label.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("stored", "held_out", "said"),
    [
        ({"label": np.asarray([[1, 0, 1]] * 2)}, LABELS, "returned 3 columns, and the held-out data has 2 labels"),
        ({"label": np.asarray([[1.5, 0.0]] * 2)}, LABELS, "below 0 or above 1"),
        ({"label": np.asarray([["a", "b"]] * 2)}, LABELS, "returned 2 columns"),
        ({"label": np.asarray([[np.nan, 0.0]] * 2)}, LABELS, "2 of 2 predictions are NaN or infinite"),
        ({"label": np.asarray([[1.0, 2.0]] * 2)}, rows(RANKING, [0, 1]), "not one number per row"),
        ({"label": np.asarray([1.0])}, rows(FORECASTING, [0, 1]), "1 predictions for 2 rows"),
    ],
)
def test_answers_that_do_not_fit_the_task(stored: dict[str, Any], held_out: HeldOut, said: str) -> None:
    with pytest.raises(InputError) as caught:
        interpret(stored, held_out)
    assert said in caught.value.what
    assert caught.value.fix


def test_frameworks_answer_in_many_shapes() -> None:
    assert predictor.as_array([["a"], ["a", "b"], []]).tolist() == ["a", "a|b", ""]
    assert predictor.as_array(pd.Series([("a", "b"), ("c",)])).tolist() == ["a|b", "c"]
    assert predictor.as_array(pd.DataFrame({"p": [0.5, 1.0]})).tolist() == [0.5, 1.0]
    frame = pd.DataFrame({"a": [0.1], "b": [0.9]})
    assert predictor.read(frame, None)["names"].tolist() == ["a", "b"]
    # A forest of several labels answers with one array for each.
    forest = [np.asarray([[0.3, 0.7], [1.0, 0.0]]), np.asarray([[1.0], [1.0]])]
    assert predictor.of_labels(forest).tolist() == [[0.7, 0.0], [0.0, 0.0]]


# ---------------------------------------------------------------- columns


def test_a_model_reads_only_what_model_yaml_describes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": [1], "x": [0.5], "kind": ["a"], "other": [1], "y": [1]})
    assert list(features_of(frame, spec()).columns) == ["x", "kind", "id"]
    check_reads(model(tmp_path / "good", [X, {"name": "gone", "type": "double", "required": False}]), frame, spec())
    for name, said in (
        ("y", "the model reads y, the target"),
        ("other", "the model reads other, which data.columns of model.yaml does not describe"),
        ("gone", "the model reads gone, and test.csv has no such column"),
    ):
        folder = model(tmp_path / name, [X, {"name": name, "type": "double"}])
        with pytest.raises(InputError) as caught:
            check_reads(folder, frame, spec())
        assert said in caught.value.what
        assert caught.value.fix
    assert required_by(model(tmp_path / "tensor", [{"type": "tensor", "tensor-spec": {}}])) == []
    assert required_by(tmp_path / "nothing") == []


# ---------------------------------------------------------------- in a process of their own

PICKY = """
import numpy as np

class Model:
    def __init__(self):
        self.weights = np.ones(8_000_000)  # 64 MB

    def predict(self, frame, params=None):
        if frame["x"].isna().any():
            raise ValueError("secret value")
        return frame["x"].to_numpy() * 2

def _load_pyfunc(path):
    return Model()
"""
LEAKY = "import nothing_of_this_name\n"


def test_what_is_measured_of_a_model(tmp_path: Path) -> None:
    """One model that dislikes missing values, and champions that cannot be tried; each has a process of its own."""
    x = np.linspace(-1, 1, 300)
    frame = pd.DataFrame({"id": np.arange(300), "x": x, "kind": "a", "y": 2 * x})
    held_out = HeldOut(frame=frame, task=REGRESSION, target=2 * x, classes=())
    folders = [
        model(tmp_path / "this", [X], PICKY),
        model(tmp_path / "moved on", [X, {"name": "dropped", "type": "double"}], PICKY),
        model(tmp_path / "broken", [X], LEAKY),
    ]
    where = Where(python=Path(sys.executable), environ={**os.environ, "PYTHONPATH": ""})
    this, moved_on, broken = predict(folders, held_out, spec(), where, ("missing", "noise"))
    assert isinstance(moved_on, InputError)
    assert "the model reads dropped, and test.csv has no such column" in moved_on.what
    assert isinstance(broken, InputError)
    assert "add nothing_of_this_name to the environment" in broken.fix
    assert isinstance(this, Predicted)
    assert this.predictions.label == pytest.approx(2 * x)
    found = measured(this, folders[0])
    assert set(found) >= {"latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "load_seconds", "model_size_mb"}
    assert 0 < found["latency_p50_ms"].value <= found["latency_p95_ms"].value <= found["latency_p99_ms"].value
    if sys.platform == "linux":
        assert 60 < found["memory_mb"].value < 200
    assert found["throughput_rows_per_second"].value > 1000
    # The reason is told without the message, which may hold values of the data.
    assert this.perturbed["missing"] == "the model refused rows with a tenth of the values missing (ValueError)"
    worse, troubles = robustness(this, METRICS["rmse"])
    assert list(troubles) == ["robustness_missing"]
    # x moves by a tenth of its spread, the prediction by twice that, and it was perfect before.
    assert worse["robustness_noise"].value == pytest.approx(0.2 * x.std(), rel=0.15)


@pytest.mark.slow
def test_classifiers_of_several_labels_and_orders_by_a_classifier(tmp_path: Path) -> None:
    """As MLflow saves them: a forest answers with a list of arrays, one against the rest with one array."""
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    x = pd.DataFrame({"x": np.linspace(-2, 2, 200)})
    labels = np.stack([x["x"] > 0, x["x"] > 1], axis=1).astype(int)
    models: dict[str, Any] = {
        "forest": RandomForestClassifier(20, random_state=1).fit(x, labels),
        "rest": OneVsRestClassifier(LogisticRegression()).fit(x, labels),
        "order": LogisticRegression().fit(x, labels[:, 1]),
    }
    for name, fitted in models.items():
        mlflow.sklearn.save_model(
            fitted,
            tmp_path / name,
            signature=infer_signature(x, fitted.predict(x)),
            pip_requirements=["scikit-learn"],
            serialization_format="cloudpickle",
        )
    where = Where(python=Path(sys.executable), environ=dict(os.environ))
    held_out = HeldOut(frame=x, task=MULTILABEL, target=labels, classes=("big", "red"))
    for said in predict([tmp_path / "forest", tmp_path / "rest"], held_out, spec(), where, ("missing",)):
        assert isinstance(said, Predicted), said
        assert said.predictions.probability is not None
        assert said.predictions.probability.shape == (200, 2)
        assert (said.predictions.label == labels).mean() > 0.9
    ranked = HeldOut(frame=x, task=RANKING, target=labels[:, 1] * 1.0, classes=(), groups=np.arange(200) // 100)
    (order,) = predict([tmp_path / "order"], ranked, spec(), where, ("missing",))
    assert isinstance(order, Predicted), order
    assert len(np.unique(order.predictions.label)) == 200
    # A linear model refuses missing values; the evaluation says so and goes on.
    assert order.perturbed == {"missing": "the model refused rows with a tenth of the values missing (ValueError)"}


# ---------------------------------------------------------------- spoilt rows


def test_a_tenth_of_the_values_goes_missing_and_types_stay_useful() -> None:
    frame = pd.DataFrame({"f": np.arange(2000.0), "i": np.arange(2000) % 100, "b": True, "t": ["a", "b"] * 1000})
    frame["i"] = frame["i"].astype("int8")
    missing = predictor.spoilt("missing", frame)
    assert missing.isna().mean().to_numpy() == pytest.approx(0.1, abs=0.03)
    noisy = predictor.spoilt("noise", frame)
    assert dict(noisy.dtypes) == dict(frame.dtypes)
    assert (noisy["f"] - frame["f"]).std() == pytest.approx(0.1 * frame["f"].std(), rel=0.1)
    assert (noisy["i"].min(), noisy["i"].max()) == (0, 99)
    assert sorted(noisy["t"]) == sorted(frame["t"])
    assert 0.02 < (noisy["t"] != frame["t"]).mean() < 0.08
    pd.testing.assert_frame_equal(noisy, predictor.spoilt("noise", frame))


def test_robustness_is_asked_for_by_gates_and_measured_in_their_first_metric() -> None:
    gates = [gate(metric=m, max=1) for m in ("latency_p99_ms", "own_metric", "roc_auc", "recall")]
    assert kinds_of(gates) == ()
    assert kinds_of([*gates, gate(metric="robustness_noise", max=0.1)]) == ("noise",)
    likely = Predictions(
        task=BINARY, target=np.asarray([0, 1]), label=np.asarray([0, 1]), probability=np.asarray([0.1, 0.9])
    )
    labels = Predictions(task=BINARY, target=np.asarray([0, 1]), label=np.asarray([0, 1]))
    assert headline(gates, likely).name == "roc_auc"
    assert headline(gates, labels).name == "recall"
    assert headline(gates[:2], labels).name == "accuracy"


# ---------------------------------------------------------------- quantiles of times


def test_order_statistics_cover_the_quantile_as_often_as_they_say() -> None:
    chance = np.random.default_rng(1)
    truth = -np.log(0.05)  # the 95 % quantile of the exponential distribution
    inside = above = 0
    for _ in range(400):
        found = quantile(chance.exponential(size=300), 0.95)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= truth <= found.high
        above += float(found.bound(0.05) or 0) <= truth
    assert 0.93 <= inside / 400 <= 0.99
    assert 0.93 <= above / 400 <= 0.99


def test_p_values_and_bounds_say_the_same() -> None:
    belief = OrderStatistics(tuple(np.sort(np.random.default_rng(2).exponential(size=200)).tolist()), 0.5)
    for share in (0.01, 0.05, 0.2):
        assert belief.p_at_least(belief.bound(share)) <= share < belief.p_at_least(belief.bound(share) + 0.02)
        assert belief.p_at_most(belief.bound(1 - share)) <= share < belief.p_at_most(belief.bound(1 - share) - 0.02)
    few = quantile(np.arange(20.0), 0.99)
    assert few.value == pytest.approx(18.81)
    assert few.high is None
