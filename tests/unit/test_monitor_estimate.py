"""Performance without labels: right when only the inputs move, wrong (and said so) when their meaning does."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import sklearn.isotonic
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_ci.data.profiles.outcomes import Outcomes, outcomes_of, probability_edges
from mlp_ci.errors import InputError
from mlp_ci.monitor.estimate import ASSUMPTION, ESTIMABLE, Estimate, calibration, estimate, scores_of
from mlp_ci.report import Outcome

Array = np.ndarray[Any, Any]
ROWS = 5000
WEIGHTS = np.asarray([1.2, -0.8, 0.5, 0.3])
MEASURED = {
    "roc_auc": sklearn.metrics.roc_auc_score,
    "pr_auc": sklearn.metrics.average_precision_score,
    "log_loss": sklearn.metrics.log_loss,
    "brier": sklearn.metrics.brier_score_loss,
    "accuracy": lambda y, p: sklearn.metrics.accuracy_score(y, p >= 0.5),
    "precision": lambda y, p: sklearn.metrics.precision_score(y, p >= 0.5),
    "recall": lambda y, p: sklearn.metrics.recall_score(y, p >= 0.5),
    "f1": lambda y, p: sklearn.metrics.f1_score(y, p >= 0.5),
}


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


@cache
def population(seed: int, rows: int = ROWS, *, shifted: bool = False, concept: bool = False) -> tuple[Array, Array]:
    """Targets, and the answers of a model that ranks well but is badly calibrated.

    ``shifted``: one input is larger and varies less. ``concept``: that input now works the other way.
    """
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 4))
    if shifted:
        x = x + np.asarray([1.0, -0.5, 0, 0])
        x[:, 0] *= 0.6
    log_odds = x @ WEIGHTS - 0.8 - (1.5 * x[:, 0] if concept else 0)
    target = (random.random(rows) < sigmoid(log_odds)).astype(int)
    return target, sigmoid(1.6 * (x @ WEIGHTS) - 0.5)


@cache
def held_out(seed: int) -> tuple[Outcomes, Array, Array]:
    target, said = population(seed)
    return outcomes_of(probability_edges(said), said, target), target, said


def counted(outcomes: Outcomes, said: Array) -> list[int]:
    bins = np.searchsorted(outcomes.edges, said, side="left")
    return [int(n) for n in np.bincount(bins, minlength=len(outcomes.rows))]


@cache
def runs(concept: bool, metric: str) -> list[tuple[Estimate, float]]:
    """Held-out sets and shifted windows: the estimate, and what labels of that window say."""
    found = []
    for seed in range(50 if metric == "roc_auc" and not concept else 20):
        outcomes, target, said = held_out(seed)
        then, now = population(1000 + seed, shifted=True, concept=concept)
        found.append(
            (
                estimate(metric, outcomes, counted(outcomes, now), MEASURED[metric](target, said)),
                MEASURED[metric](then, now),
            )
        )
    return found


@cache
def truth(metric: str, concept: bool) -> float:
    return float(MEASURED[metric](*population(99, 200_000, shifted=True, concept=concept)))


def test_a_shift_of_the_inputs_is_estimated_within_two_hundredths() -> None:
    right = truth("roc_auc", concept=False)
    errors = [abs((e.value or 0) - right) for e, _ in runs(False, "roc_auc")]
    assert sum(error <= 0.02 for error in errors) >= 45
    before = [e.evidence or 0 for e, _ in runs(False, "roc_auc")]
    assert abs(float(np.mean(before)) - right) > 0.03, "there is a change to be estimated"
    assert all(e.outcome == "lower" for e, _ in runs(False, "roc_auc"))


@pytest.mark.parametrize("metric", sorted(MEASURED))
def test_no_metric_has_a_bias_worth_a_word(metric: str) -> None:
    errors = [(e.value or 0) - truth(metric, concept=False) for e, _ in runs(False, metric)]
    assert abs(float(np.mean(errors))) <= 0.005


@pytest.mark.parametrize("metric", sorted(MEASURED))
def test_the_interval_holds_what_labels_would_have_said(metric: str) -> None:
    inside = sum(bool((e.low or 0) <= seen <= (e.high or 0)) for e, seen in runs(False, metric))
    assert inside >= 0.85 * len(runs(False, metric))


def test_when_the_meaning_of_the_inputs_changes_the_estimate_is_wrong() -> None:
    """The docs say so: no method without labels can see this."""
    right = truth("roc_auc", concept=True)
    assert all((e.value or 0) - right > 0.08 for e, _ in runs(True, "roc_auc"))
    assert ASSUMPTION in runs(True, "roc_auc")[0][0].sentence


def test_nothing_changed_is_seldom_called_lower() -> None:
    lower = 0
    for seed in range(60):
        outcomes, target, said = held_out(seed)
        window = counted(outcomes, population(5000 + seed)[1])
        lower += estimate("roc_auc", outcomes, window, MEASURED["roc_auc"](target, said)).outcome == "lower"
    assert lower <= 5


def test_a_change_smaller_than_what_matters_is_the_same() -> None:
    outcomes, target, said = held_out(1)
    window = counted(outcomes, population(2, shifted=True)[1])
    evidence = MEASURED["roc_auc"](target, said)
    found = estimate("roc_auc", outcomes, window, evidence)
    assert (found.outcome, found.change or 0) == ("lower", pytest.approx((found.value or 0) - evidence))
    assert estimate("roc_auc", outcomes, window, evidence, smallest=0.2).outcome == "same"


def test_the_held_out_data_itself_gives_the_evidence() -> None:
    outcomes, target, said = held_out(7)
    for metric, measure in MEASURED.items():
        evidence = float(measure(target, said))
        found = estimate(metric, outcomes, outcomes.rows, evidence)
        assert found.value == pytest.approx(evidence)
        assert (found.outcome, found.change) == ("same", pytest.approx(0))


def test_the_same_counts_give_the_same_estimate() -> None:
    outcomes, _, _ = held_out(4)
    assert estimate("f1", outcomes, outcomes.rows, 0.7) == estimate("f1", outcomes, list(outcomes.rows), 0.7)


def test_the_calibration_is_that_of_scikit_learn() -> None:
    outcomes, _, _ = held_out(8)
    rows, positives = np.asarray(outcomes.rows), np.asarray(outcomes.positives)
    there = rows > 0
    fit = sklearn.isotonic.IsotonicRegression(out_of_bounds="clip")
    fit.fit(scores_of(outcomes)[there], positives[there] / rows[there], sample_weight=rows[there])
    assert calibration(outcomes) == pytest.approx(fit.predict(scores_of(outcomes)))


# ---------------------------------------------------------------- what cannot be estimated


def told(metric: str = "roc_auc", **changes: Any) -> Estimate:
    outcomes, _, _ = held_out(3)
    given_ = {"outcomes": outcomes, "window_counts": outcomes.rows, "evidence": 0.8, **changes}
    return estimate(metric, **given_)


@pytest.mark.parametrize("metric", ["rmse", "macro_f1", "latency_p99_ms", "f0_5"])
def test_other_metrics_are_not_estimated(metric: str) -> None:
    found = told(metric)
    assert (found.outcome, found.value) == ("none", None)
    assert "possible are accuracy, brier" in found.sentence
    assert found.finding().outcome is Outcome.SKIP


def test_a_model_without_outcomes_is_not_estimated() -> None:
    assert told(outcomes=None).outcome == "none"


def few(outcomes: Outcomes) -> Outcomes:
    return Outcomes(edges=outcomes.edges, rows=outcomes.rows, positives=(0,) * len(outcomes.rows))


def test_too_little_is_said_not_guessed() -> None:
    outcomes, _, _ = held_out(3)
    nothing = [0] * len(outcomes.rows)
    beyond = [*nothing[:-1], 600]
    middle = [n if 0.2 < s < 0.8 else 0 for n, s in zip(outcomes.rows, scores_of(outcomes), strict=True)]
    low = [n if s < 0.4 else 0 for n, s in zip(outcomes.rows, scores_of(outcomes), strict=True)]
    hole = Outcomes(edges=outcomes.edges, rows=tuple(middle), positives=tuple(n // 2 for n in middle))
    for found, reason in (
        (told(window_counts=nothing), "0 predictions, 500 are needed"),
        (told(window_counts=outcomes.rows, min_rows=6000), "5,000 predictions, 6,000 are needed"),
        (told(outcomes=few(outcomes)), "0 rows of one class, 20 are needed"),
        (told(window_counts=beyond), "predictions that are no probabilities"),
        (told(outcomes=hole), "of the predictions lie where the held-out data has none"),
        (told(evidence=math.nan), "evidence does not have it"),
        (told("precision", window_counts=low), "not defined"),
    ):
        assert found.outcome == "insufficient"
        assert reason in found.sentence
        assert found.finding().outcome is Outcome.INCONCLUSIVE
        assert found.finding().severity == "notice"


def test_a_window_in_other_bins_is_an_error() -> None:
    with pytest.raises(InputError, match="3 bins of predictions, the held-out data"):
        told(window_counts=[200, 200, 200])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900), st.integers(0, 900)), max_size=12), st.data())
def test_any_counts_give_an_answer(cells: list[tuple[int, int, int]], data: Any) -> None:
    edges = tuple(sorted({round(i / (len(cells) + 1), 6) for i in range(1, len(cells))}))
    cells = (cells + [(0, 0, 0)] * (len(edges) + 1))[: len(edges) + 1]
    outcomes = Outcomes(
        edges=edges,
        rows=tuple(up + down for up, down, _ in cells),
        positives=tuple(up for up, _, _ in cells),
    )
    metric = data.draw(st.sampled_from(sorted(ESTIMABLE)))
    found = estimate(metric, outcomes, [n for _, _, n in cells], 0.7, min_rows=1)
    if found.value is None:
        assert found.reason
    else:
        assert found.low is not None
        assert found.high is not None
        assert math.isfinite(found.low)
        assert found.low <= found.high
