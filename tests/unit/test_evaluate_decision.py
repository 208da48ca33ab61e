"""Pass, fail or inconclusive: properties of the decision, rows that decide, Holm's correction, the gate's errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mlp_ci.evaluate.bootstrap.estimate import UNDEFINED, Certain, Estimate, undefined
from mlp_ci.evaluate.decision import CAUTION, MOST_TIMES, holm, non_inferior, rows_needed, within
from mlp_ci.report import Outcome

finite = st.floats(-1, 1)
errors = st.floats(1e-4, 0.5)
P = st.lists(st.floats(0, 1), max_size=30)


@dataclass(frozen=True)
class Normal:
    """What is believed of a mean."""

    value: float
    error: float

    def bound(self, share: float) -> float:
        return NormalDist(self.value, self.error).inv_cdf(share)

    def p_at_least(self, limit: float) -> float:
        return NormalDist(self.value, self.error).cdf(limit)

    def p_at_most(self, limit: float) -> float:
        return 1 - self.p_at_least(limit)


def estimate(value: float, error: float) -> Estimate:
    return Estimate(value=value, standard_error=error, method="bca", belief=Normal(value, error))


@given(finite, errors, finite, st.floats(0.6, 0.99))
def test_the_three_answers(value: float, error: float, limit: float, confidence: float) -> None:
    found = estimate(value, error)
    decided = within(found, 100, minimum=limit, confidence=confidence)
    level = CAUTION * (1 - confidence)
    low, high = Normal(value, error).bound(level), Normal(value, error).bound(1 - level)
    expected = Outcome.PASS if low >= limit else Outcome.FAIL if high < limit else Outcome.INCONCLUSIVE
    assert decided.outcome is expected
    assert decided.p_pass is not None
    assert decided.p_fail is not None
    assume(min(abs(low - limit), abs(high - limit)) > 1e-9)
    assert (decided.p_pass <= level) == (expected is Outcome.PASS)
    assert (decided.p_fail <= level) == (expected is Outcome.FAIL)
    assert (decided.rows_needed is not None) <= (expected is Outcome.INCONCLUSIVE)
    # The other side of the world: at most, of the negative number.
    mirrored = within(estimate(-value, error), 100, maximum=-limit, confidence=confidence)
    assert mirrored.outcome is expected
    assert mirrored.rows_needed == pytest.approx(decided.rows_needed, abs=1)


@given(finite, errors, finite, finite)
def test_two_limits_are_both_to_be_met(value: float, error: float, one: float, two: float) -> None:
    least, most = min(one, two), max(one, two)
    found = estimate(value, error)
    both = within(found, 100, minimum=least, maximum=most).outcome
    each = {within(found, 100, minimum=least).outcome, within(found, 100, maximum=most).outcome}
    assert (both is Outcome.PASS) == (each == {Outcome.PASS})
    assert (both is Outcome.FAIL) == (Outcome.FAIL in each)


@given(finite, errors, st.floats(0, 0.5))
def test_non_inferiority_is_a_limit_on_the_difference(value: float, error: float, margin: float) -> None:
    found = estimate(value, error)
    higher = non_inferior(found, 100, margin=margin, higher_is_better=True)
    lower = non_inferior(estimate(-value, error), 100, margin=margin, higher_is_better=False)
    assert higher.outcome is lower.outcome
    assert higher.outcome is within(found, 100, minimum=-margin).outcome
    wider = non_inferior(found, 100, margin=margin + 0.1, higher_is_better=True)
    assert not (higher.outcome is Outcome.PASS and wider.outcome is not Outcome.PASS)


def test_a_margin_of_zero_can_be_met() -> None:
    same = Estimate(value=0.0, low=0.0, high=0.0, method="same predictions", belief=Certain(0.0))
    for higher in (True, False):
        decided = non_inferior(same, 100, margin=0, higher_is_better=higher)
        assert (decided.outcome, decided.p_pass, decided.p_fail) == (Outcome.PASS, 0.0, 1.0)
    assert non_inferior(estimate(0.02, 0.01), 100, margin=0, higher_is_better=True).outcome is Outcome.PASS
    assert non_inferior(estimate(0.0, 0.01), 100, margin=0, higher_is_better=True).outcome is Outcome.INCONCLUSIVE
    assert non_inferior(estimate(-0.02, 0.01), 100, margin=0, higher_is_better=True).outcome is Outcome.FAIL


def test_numbers_without_an_interval() -> None:
    """A measured one is compared; one whose interval the rows do not give decides nothing."""
    assert within(Estimate(value=3.0), 100, maximum=3.0).outcome is Outcome.PASS
    assert within(Estimate(value=3.1), 100, maximum=3.0).outcome is Outcome.FAIL
    assert undefined(3.1).method == UNDEFINED
    assert within(undefined(3.1), 100, maximum=3.0).outcome is Outcome.INCONCLUSIVE
    assert within(estimate(math.nan, 0.1), 100, maximum=3.0).outcome is Outcome.INCONCLUSIVE


def test_as_many_rows_decide_it_four_times_in_five() -> None:
    """Samples of as many rows as are needed, if the estimate was the truth."""
    value, spread, rows, limit = 0.82, 0.4, 200, 0.8
    bounds = tuple(Normal(value, spread / rows**0.5).bound(s) for s in (0.05, 0.95))
    needed = rows_needed(value, (bounds[0], bounds[1]), rows, (limit, None), 0.95)
    assert needed is not None
    error = spread / needed**0.5
    values = np.random.default_rng(0).normal(value, error, size=3000)
    passed = np.mean([within(estimate(v, error), needed, minimum=limit).outcome is Outcome.PASS for v in values])
    assert passed == pytest.approx(0.8, abs=0.03)


def test_no_number_of_rows_decides_what_lies_on_the_limit() -> None:
    assert within(estimate(0.8, 0.01), 100, minimum=0.8).rows_needed is None
    assert within(estimate(0.8 + 1e-9, 0.01), 100, minimum=0.8).rows_needed is None
    near = within(estimate(0.801, 0.01), 100, minimum=0.8).rows_needed
    assert near is not None
    assert 100 < near <= 100 * MOST_TIMES


@given(P)
def test_holm(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= 1 and a <= len(p_values) * p + 1e-12 for p, a in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert all(np.diff(np.array(adjusted)[order]) >= 0)
    # By hand, step by step: rejected while p <= alpha / (how many are left).
    rejected, left = 0, len(p_values)
    for index in order:
        if p_values[index] > 0.05 / left:
            break
        rejected, left = rejected + 1, left - 1
    assert abs(sum(a <= 0.05 for a in adjusted) - rejected) <= sum(abs(a - 0.05) < 1e-12 for a in adjusted)


def test_the_gate_errs_as_seldom_as_it_says() -> None:
    """Two models on the same rows, the challenger worse by just the margin: bench/non_inferiority.py in small.

    200 comparisons: 5 % less or more four standard errors of 1.5 points, which only a broken gate misses.
    """
    from mlp_ci.evaluate.bootstrap import Settings, differences
    from mlp_ci.evaluate.metrics import METRICS, REGRESSION, Predictions

    said = []
    for seed in range(200):
        chance = np.random.default_rng(seed)
        shared, one, two = chance.normal(size=(3, 400))
        target = np.zeros(400)
        this, other = (
            Predictions(task=REGRESSION, target=target, label=scale * (0.95 * shared + (1 - 0.95**2) ** 0.5 * own))
            for scale, own in ((1.02, one), (1.0, two))
        )
        found = differences([METRICS["rmse"]], this, other, settings=Settings(replicates=400))["rmse"]
        said.append(non_inferior(found, 400, margin=0.02, higher_is_better=False).outcome)
    assert said.count(Outcome.PASS) <= 22
    assert said.count(Outcome.FAIL) <= 22
    assert said.count(Outcome.PASS) + said.count(Outcome.FAIL) >= 4
