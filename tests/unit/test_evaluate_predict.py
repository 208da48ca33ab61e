"""How a model's answers are read, and how gates are judged, without a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlp_ci.errors import InputError
from mlp_ci.evaluate.bootstrap import Estimate
from mlp_ci.evaluate.evidence import evaluation_folder, evidence_bytes
from mlp_ci.evaluate.gates import Champion, Measured, Verdict, describe, judge, overall
from mlp_ci.evaluate.metrics import BINARY, MULTICLASS, REGRESSION, Predictions
from mlp_ci.evaluate.predict import interpret
from mlp_ci.evaluate.rows import HeldOut, class_name, read_held_out
from mlp_ci.report import Outcome
from mlp_ci.spec import Gate, parse_model
from mlp_ci.tracking import RunFact

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


# ---------------------------------------------------------------- gates


def measured(correct: int, rows_: int = 100, **metrics: float) -> Measured:
    """A binary model that is right on the first ``correct`` rows; targets alternate."""
    target = np.arange(rows_) % 2
    label = np.where(np.arange(rows_) < correct, target, 1 - target)
    predictions = Predictions(task=BINARY, target=target, label=label, classes=("0", "1"))
    found = {"accuracy": Estimate(value=correct / rows_), **{k: Estimate(value=v) for k, v in metrics.items()}}
    return Measured(predictions=predictions, metrics=found)


def gate(**fields: Any) -> Gate:
    return Gate(**fields)


def judged(
    rule: Gate, this: Measured, champion: Champion | None = None, kinds: list[str] | None = None, least: int = 10
) -> Verdict:
    champions = {champion.stage: champion} if champion else {}
    return judge(rule, this, champions, {"kind": np.asarray(kinds or [])}, least)


def test_limits() -> None:
    assert judged(gate(metric="accuracy", min=0.8), measured(80)).outcome is Outcome.PASS
    assert judged(gate(metric="accuracy", min=0.81), measured(80)).outcome is Outcome.FAIL
    assert judged(gate(metric="latency_p99_ms", max=20), measured(80, latency_p99_ms=19.9)).outcome is Outcome.PASS
    assert judged(gate(metric="latency_p99_ms", max=20), measured(80, latency_p99_ms=20.1)).outcome is Outcome.FAIL


def test_what_cannot_be_computed_decides_nothing() -> None:
    verdict = judged(gate(metric="roc_auc", min=0.5), measured(80))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "gives no probabilities" in verdict.message


def test_versus_allows_a_drop_up_to_the_limit() -> None:
    champion = Champion(stage="production", version=3, measured=measured(82))
    passing = judged(gate(metric="accuracy", versus="production", max_drop=0.02), measured(80), champion)
    assert passing.outcome is Outcome.PASS
    assert "against production (version 3: 0.82)" in passing.message
    failing = judged(gate(metric="accuracy", versus="production", max_drop=0.019), measured(80), champion)
    assert failing.outcome is Outcome.FAIL
    assert failing.details["difference_low"] < -0.02 < failing.details["difference_high"]


def test_versus_knows_which_way_is_better() -> None:
    champion = Champion(stage="production", version=3, measured=measured(80, latency_p50_ms=5.0))
    rule = gate(metric="latency_p50_ms", versus="production", max_drop=1)
    assert judged(rule, measured(80, latency_p50_ms=6.1), champion).outcome is Outcome.FAIL
    assert judged(rule, measured(80, latency_p50_ms=0.1), champion).outcome is Outcome.PASS


def test_no_champion_is_skipped_and_a_broken_one_is_undecided() -> None:
    rule = gate(metric="accuracy", versus="production", max_drop=0.02)
    none = Champion(stage="production", why="no version is in production yet")
    assert judged(rule, measured(80), none).outcome is Outcome.SKIP
    broken = Champion(stage="production", version=3, why="cannot be tried", broken=True)
    assert judged(rule, measured(80), broken).outcome is Outcome.INCONCLUSIVE
    both = gate(metric="accuracy", min=0.5, versus="production", max_drop=0.02)
    assert judged(both, measured(80), none).outcome is Outcome.PASS


def test_each_slice_is_judged_and_small_ones_are_not() -> None:
    kinds = ["good"] * 60 + ["bad"] * 35 + ["rare"] * 5
    verdict = judged(gate(metric="accuracy", slice="kind", min=0.9), measured(80), kinds=kinds)
    assert verdict.outcome is Outcome.FAIL
    assert "1 of 2 slices miss it: bad 0.5714" in verdict.message
    assert "not judged (too few rows, or one class only): rare (5)" in verdict.message
    assert [s["slice"] for s in verdict.details["slices"]] == ["good", "bad", "rare"]
    assert judged(gate(metric="accuracy", slice="kind", min=0.5), measured(80), kinds=kinds).outcome is Outcome.PASS
    alone = judged(gate(metric="accuracy", slice="kind", min=0.5), measured(80), kinds=kinds, least=99)
    assert alone.outcome is Outcome.INCONCLUSIVE


def test_a_slice_may_be_compared_with_a_champion() -> None:
    kinds = ["early"] * 50 + ["late"] * 50
    champion = Champion(stage="production", version=3, measured=measured(90))
    rule = gate(metric="accuracy", slice="kind", versus="production", max_drop=0.1)
    verdict = judged(rule, measured(80), champion, kinds)
    assert verdict.outcome is Outcome.FAIL
    assert "late 0.6 against 0.8" in verdict.message


def test_the_whole_is_as_bad_as_its_worst_gate() -> None:
    def of(*outcomes: Outcome) -> Outcome:
        return overall([Verdict(gate="g", metric="m", outcome=o, message="", details={}) for o in outcomes])

    assert of(Outcome.PASS, Outcome.SKIP) is Outcome.PASS
    assert of(Outcome.PASS, Outcome.INCONCLUSIVE) is Outcome.INCONCLUSIVE
    assert of(Outcome.INCONCLUSIVE, Outcome.FAIL) is Outcome.FAIL


def test_gates_are_described_in_the_words_of_model_yaml() -> None:
    rule = gate(metric="roc_auc", slice="carrier", min=0.7, versus="production", max_drop=0.005)
    assert describe(rule) == "roc_auc per carrier ≥ 0.7 versus production, max_drop 0.005"


# ---------------------------------------------------------------- evidence


def test_the_same_inputs_give_the_same_bytes() -> None:
    from datetime import UTC, datetime

    run = RunFact(run_id="r", status="FINISHED", started=datetime(2026, 1, 1, tzinfo=UTC))
    this = measured(80, odd=float("nan"))
    verdict = judged(gate(metric="accuracy", min=0.5), this)
    one = evidence_bytes({"b": 1, "a": (1, 2)}, run, (this, 100), {}, [verdict])
    two = evidence_bytes({"a": [1, 2], "b": 1}, run, (measured(80, odd=float("nan")), 100), {}, [verdict])
    assert one == two
    assert b"NaN" not in one
    assert evaluation_folder({"a": 1, "b": 2}) == evaluation_folder({"b": 2, "a": 1}) != evaluation_folder({"a": 1})
