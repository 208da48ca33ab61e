"""Metrics against scikit-learn, intervals against theory."""

from __future__ import annotations

import numpy as np
import pytest

from mlp_ci.errors import InputError
from mlp_ci.evaluate.bootstrap import REPLICATES, difference, estimates, resamples
from mlp_ci.evaluate.metrics import (
    BINARY,
    METRICS,
    MULTICLASS,
    REGRESSION,
    Predictions,
    computable,
    metric_called,
    value_of,
)


def binary(rows: int = 500, seed: int = 0, *, digits: int = 2, skill: float = 1.0) -> Predictions:
    """Scores rounded to ``digits``, so that there are ties."""
    chance = np.random.default_rng(seed)
    target = chance.integers(0, 2, rows)
    score = np.round(1 / (1 + np.exp(-(skill * (2 * target - 1) + chance.normal(size=rows)))), digits)
    return Predictions(
        task=BINARY, target=target, label=(score >= 0.5).astype(int), probability=score, classes=("0", "1")
    )


def multiclass(rows: int = 400, seed: int = 0) -> Predictions:
    chance = np.random.default_rng(seed)
    target = chance.integers(0, 3, rows)
    raw = chance.random((rows, 4)) + np.eye(4)[target]
    probability = raw / raw.sum(axis=1, keepdims=True)
    label = probability.argmax(axis=1)
    return Predictions(
        task=MULTICLASS, target=target, label=label, probability=probability, classes=("a", "b", "c", "d")
    )


def regression(rows: int = 400, seed: int = 0) -> Predictions:
    chance = np.random.default_rng(seed)
    target = chance.normal(1e6, 3, rows)
    return Predictions(task=REGRESSION, target=target, label=target + chance.normal(size=rows))


def test_the_interval_of_the_accuracy_is_the_binomial_one() -> None:
    p = binary(2000, digits=8)
    found = estimates([METRICS["accuracy"]], p)["accuracy"]
    half = 1.96 * (found.value * (1 - found.value) / 2000) ** 0.5
    assert found.low == pytest.approx(found.value - half, abs=half * 0.25)
    assert found.high == pytest.approx(found.value + half, abs=half * 0.25)


def test_the_interval_of_many_rows_is_as_narrow_as_theirs() -> None:
    p = binary(80_000, digits=8)
    found = estimates([METRICS["accuracy"]], p)["accuracy"]
    half = 1.96 * (found.value * (1 - found.value) / 80_000) ** 0.5
    assert found.low is not None
    assert found.high is not None
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.2)


def test_a_paired_difference_is_narrower_than_the_intervals() -> None:
    one = binary(1000, digits=8)
    assert one.probability is not None
    other = Predictions(
        task=BINARY, target=one.target, label=one.label, probability=one.probability * 0.99, classes=one.classes
    )
    between = difference(METRICS["roc_auc"], one, other)
    assert (between.value, between.low, between.high) == pytest.approx((0, 0, 0))


def test_the_same_rows_give_the_same_interval() -> None:
    assert estimates(computable(binary()), binary()) == estimates(computable(binary()), binary())
    assert sum(len(w) for w in resamples(10)) == REPLICATES


def test_one_class_only_is_not_defined() -> None:
    p = binary().take(np.flatnonzero(binary().target == 1))
    assert np.isnan(value_of(METRICS["roc_auc"], p))


@pytest.mark.parametrize(
    ("name", "task", "said"),
    [
        ("roc_acu", None, "did you mean `roc_auc`?"),
        ("rmse", BINARY, "metrics of a binary model"),
        ("zzz", None, "metrics: "),
    ],
)
def test_a_metric_that_does_not_exist(name: str, task: str | None, said: str) -> None:
    with pytest.raises(InputError) as caught:
        metric_called(name, task)
    assert said in caught.value.fix
