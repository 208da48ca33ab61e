"""What plots show, as plain data: against scikit-learn's curves, and never large."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from mlp_ci.evaluate.metrics import BINARY, FORECASTING, METRICS, MULTICLASS, Predictions, value_of
from mlp_ci.evaluate.plots import facts
from tests.unit.test_metrics_of_all_tasks import ALL, binary


def area(x: list[float], y: list[float]) -> float:
    return float(np.trapezoid(y, x))


def test_curves_of_two_classes_keep_their_areas() -> None:
    p = binary(3, rows=20_000, digits=8)
    this = facts({"this": p})["models"]["this"]
    (roc,), (pr,) = this["roc"], this["pr"]
    assert (roc["class"], len(roc["fpr"]) <= 101, roc["fpr"][0], roc["tpr"][-1]) == ("1", True, 0, 1)
    assert area(roc["fpr"], roc["tpr"]) == pytest.approx(value_of(METRICS["roc_auc"], p), abs=0.002)
    assert area(pr["recall"], pr["precision"]) == pytest.approx(value_of(METRICS["pr_auc"], p), abs=0.005)
    assert pr["share"] == pytest.approx(p.target.mean(), abs=1e-4)
    assert this["confusion"]["counts"] == sk.confusion_matrix(p.target, p.label).tolist()
    assert sum(map(sum, this["scores"]["counts"].values())) == 20_000
    (calibration,) = this["calibration"]
    assert calibration["ece"] == pytest.approx(value_of(METRICS["ece"], p), rel=1e-3)
    for one in calibration["bins"]:
        assert one["rows"] == pytest.approx(2000, abs=2)
        assert one["low"] < one["observed"] < one["high"]


@pytest.mark.parametrize("task", ALL)
def test_every_task_has_plots_below_50_kilobytes(task: str) -> None:
    p = ALL[task]
    times = np.arange(len(p)) * 3600.0
    found = facts({"this": p, "production": p, "staging": p}, times)
    text = json.dumps(found, allow_nan=False)
    assert 500 < len(text) < 50_000
    assert found == facts({"this": p, "production": p, "staging": p}, times)
    this = found["models"]["this"]
    kinds = {
        "binary": {"roc", "pr", "calibration", "confusion", "scores"},
        "multiclass": {"roc", "pr", "calibration", "confusion"},
        "multilabel": {"roc", "pr", "calibration", "labels"},
        "regression": {"residuals", "predicted"},
        "forecasting": {"residuals", "predicted", "by_time"},
        "ranking": {"queries"},
    }
    assert set(this) == kinds[task]
    if task == FORECASTING:
        assert this["by_time"][0]["start"] == "1970-01-01T00:00:00Z"
        assert sum(b["rows"] for b in this["by_time"]) == len(p)


def test_many_classes_stay_small_and_are_counted_whole() -> None:
    chance = np.random.default_rng(1)
    target, label = chance.integers(0, 60, 5000), chance.integers(0, 60, 5000)
    names = tuple(f"class {i}" for i in range(60))
    likely = chance.dirichlet(np.ones(60), 5000)
    p = Predictions(task=MULTICLASS, target=target, label=label, probability=likely, classes=names)
    found = facts({"this": p, "production": p})
    assert len(json.dumps(found)) < 50_000
    confusion = found["models"]["this"]["confusion"]
    assert confusion["classes"][-1] == "(other)"
    assert np.sum(confusion["counts"]) == 5000


def test_odd_predictions_are_no_crash() -> None:
    target = np.asarray([0, 1, 1])
    unknown = Predictions(task=BINARY, target=target, label=np.asarray([0, -1, 1]), classes=("no", "yes"))
    confusion = facts({"this": unknown})["models"]["this"]["confusion"]
    assert confusion == {"classes": ["no", "yes", "(other)"], "counts": [[1, 0, 0], [0, 1, 1], [0, 0, 0]]}
    one: dict[str, Any] = {"task": BINARY, "target": np.ones(3, dtype=int), "label": np.ones(3, dtype=int)}
    alone = facts({"this": Predictions(**one, probability=np.full(3, 0.7), classes=("0", "1"))})["models"]["this"]
    assert alone["roc"] == []
    assert alone["calibration"][0]["bins"][0]["rows"] == 3
    same = Predictions(task="regression", target=np.ones(3), label=np.ones(3))
    assert sum(facts({"this": same})["models"]["this"]["residuals"]["counts"]) == 3
