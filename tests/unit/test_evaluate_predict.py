"""How a model's answers are read, without a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlp_ci.errors import InputError
from mlp_ci.evaluate.metrics import BINARY, MULTICLASS, REGRESSION
from mlp_ci.evaluate.predict import interpret
from mlp_ci.evaluate.rows import HeldOut, class_name, read_held_out
from mlp_ci.spec import parse_model

SPEC = """
apiVersion: mlp-ci/v1
name: m
team: t
data:
  train: train.csv
  test: test.csv
  target: y
  columns: {x: {type: float}}
train: {command: "true"}
evaluate: {gates: [{metric: accuracy, min: 0.5, slice: kind}]}
"""


def held_out(target: list[Any], tmp_path: Any, *, task: str = "auto") -> HeldOut:
    pd.DataFrame({"x": 0.5, "y": target, "kind": "a"}).to_parquet(tmp_path / "test.parquet")
    text = SPEC.replace("{gates:", f"{{task: {task}, gates:").replace("test.csv", "test.parquet")
    return read_held_out(tmp_path / "test.parquet", parse_model(text.encode()))


def rows(task: str, target: list[Any], classes: tuple[str, ...] = ()) -> HeldOut:
    return HeldOut(frame=None, task=task, target=np.asarray(target), classes=classes, slices={})


@pytest.mark.parametrize(
    ("target", "task", "classes"),
    [
        ([0, 1, 1], BINARY, ("0", "1")),
        ([False, True, True], BINARY, ("0", "1")),
        (["no", "yes", "yes"], BINARY, ("no", "yes")),
        ([10, 2, 1], MULTICLASS, ("1", "2", "10")),
        (["b", "a", "c"], MULTICLASS, ("a", "b", "c")),
        ([0.5, 1.5, 2.0], REGRESSION, ()),
        (list(range(30)), REGRESSION, ()),
    ],
)
def test_the_task_is_read_from_the_target(
    target: list[Any], task: str, classes: tuple[str, ...], tmp_path: Any
) -> None:
    found = held_out(target, tmp_path)
    assert (found.task, found.classes) == (task, classes)


@pytest.mark.parametrize(
    ("target", "task", "said"),
    [
        ([1, 1, 1], "binary", "every row of test.parquet has y = 1"),
        ([1.0, None, 0.0], "auto", "1 of 3 rows of test.parquet have no y"),
        ([], "auto", "has no rows"),
        (["a", "b"], "regression", "cannot be regression"),
        ([1, 2, 3], "binary", "y has 3 values"),
    ],
)
def test_targets_that_judge_nothing(target: list[Any], task: str, said: str, tmp_path: Any) -> None:
    with pytest.raises(InputError, match=said):
        held_out(target, tmp_path, task=task)


def test_a_missing_target_and_a_missing_slice(tmp_path: Any) -> None:
    spec = parse_model(SPEC.encode())
    (tmp_path / "test.csv").write_text("x,kind\n1,a\n")
    with pytest.raises(InputError, match="no column 'y', the target"):
        read_held_out(tmp_path / "test.csv", spec)
    (tmp_path / "test.csv").write_text("x,y\n1,0\n1,1\n")
    with pytest.raises(InputError, match="no column 'kind', and a gate slices by it"):
        read_held_out(tmp_path / "test.csv", spec)


def test_one_class_has_one_name() -> None:
    assert [class_name(v) for v in (1, 1.0, True, "1", "1.0", np.int64(1))] == ["1"] * 6
    assert [class_name(v) for v in ("a.0", "x", -1.0)] == ["a.0", "x", "-1"]


def test_binary_probabilities_are_of_the_positive_class() -> None:
    target = rows(BINARY, [0, 1], ("no", "yes"))
    stored = {
        "label": np.asarray(["yes", "no"]),
        "probability": np.asarray([[0.7, 0.3], [0.2, 0.8]]),
        "classes": np.asarray(["yes", "no"]),
    }
    found = interpret(stored, target)
    assert found.predictions.probability is not None
    assert found.predictions.probability.tolist() == [0.7, 0.2]
    assert found.logged.tolist() == [0.7, 0.2]
    assert found.predictions.label.tolist() == [1, 0]


def test_a_generic_predict_may_return_probabilities() -> None:
    found = interpret({"label": np.asarray([0.1, 0.9])}, rows(BINARY, [0, 1], ("0", "1")))
    assert found.predictions.label.tolist() == [0, 1]
    two = interpret({"label": np.asarray([[0.1, 0.9], [0.6, 0.4]])}, rows(BINARY, [0, 1], ("0", "1")))
    assert two.logged.tolist() == [0.9, 0.4]


def test_labels_without_probabilities() -> None:
    found = interpret({"label": np.asarray([1, 0])}, rows(BINARY, [0, 1], ("0", "1")))
    assert found.predictions.probability is None
    assert found.logged.tolist() == [1, 0]


def test_multiclass_probabilities_follow_their_names() -> None:
    stored = {
        "label": np.asarray(["c", "a"]),
        "probability": np.asarray([[0.8, 0.2], [0.1, 0.9]]),
        "classes": np.asarray(["c", "a"]),
    }
    found = interpret(stored, rows(MULTICLASS, [2, 0], ("a", "b", "c")))
    assert found.predictions.label.tolist() == [2, 0]
    assert found.logged.tolist() == ["c", "a"]


@pytest.mark.parametrize(
    ("stored", "task", "said"),
    [
        ({"label": np.asarray([1.0])}, REGRESSION, "1 predictions for 2 rows"),
        (
            {"label": np.asarray([1.0, np.nan])},
            REGRESSION,
            "1 of 2 predictions are NaN or infinite, the first in row 1",
        ),
        ({"label": np.asarray([1.0, np.inf])}, REGRESSION, "NaN or infinite"),
        ({"label": np.asarray([[1.0, 2.0], [1.0, 2.0]])}, REGRESSION, "not one number per row"),
        ({"label": np.asarray(["a", "b"])}, REGRESSION, "not one number per row"),
        ({"label": np.asarray([[1.0, 2.0, 3.0]] * 2)}, BINARY, "3 values per row"),
    ],
)
def test_answers_that_are_none(stored: dict[str, Any], task: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        interpret(stored, rows(task, [0, 1], ("0", "1")))


def test_a_model_of_other_classes() -> None:
    stored = {
        "label": np.asarray(["a", "b"]),
        "probability": np.asarray([[0.7, 0.3], [0.2, 0.8]]),
        "classes": np.asarray(["a", "b"]),
    }
    with pytest.raises(InputError, match="knows the classes a, b, the held-out data 0, 1"):
        interpret(stored, rows(BINARY, [0, 1], ("0", "1")))
