"""That the analysis is wrong as rarely as it says: exactly where that can be computed, else in small simulations.

``bench/rollouts.py`` simulates thousands of whole rollouts; here are the formulas and enough of it to notice a slip.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlp_ci.serve.analysis import errors, intervals, labelled, samples
from mlp_ci.serve.analysis.evidence import BEGINS, Table, log_average, log_ratio, nearest_null

RATES = (0.001, 0.01, 0.1, 0.5, 0.9)


def binomial(rows: int, share: float) -> np.ndarray:
    """The probabilities of 0 to ``rows`` hits."""
    k = np.arange(rows + 1)
    lgamma = np.vectorize(math.lgamma)
    choose = lgamma(rows + 1) - lgamma(k + 1) - lgamma(rows - k + 1)
    return np.exp(choose + k * math.log(share) + (rows - k) * math.log1p(-share))


def expected(rows: tuple[int, int], truth: tuple[float, float], alternative: tuple[float, float], gap: float) -> float:
    """The expected value of the likelihood ratio, summed over everything that can happen."""
    old, new = rows
    hits = np.meshgrid(np.arange(old + 1.0), np.arange(new + 1.0), indexing="ij")
    ratio = np.exp(log_ratio(Table(hits[0], float(old), hits[1], float(new)), *alternative, gap))
    return float(np.sum(np.outer(binomial(old, truth[0]), binomial(new, truth[1])) * ratio))


@pytest.mark.parametrize("rows", [(99, 1), (180, 20), (50, 50), (3, 40)])
@pytest.mark.parametrize("alternative", [(0.01, 0.02), (0.05, 0.5), (1e-6, 0.3), (0.4, 0.5)])
def test_evidence_is_worth_one_at_most_whatever_the_rate_is(
    rows: tuple[int, int], alternative: tuple[float, float]
) -> None:
    """Turner, Ly & Grünwald: an e-value for every rate that both versions may have."""
    for rate in RATES:
        assert expected(rows, (rate, rate), alternative, 0.0) <= 1 + 1e-9


@pytest.mark.parametrize("rows", [(180, 20), (50, 50)])
def test_and_against_a_null_hypothesis_that_allows_a_difference(rows: tuple[int, int]) -> None:
    for rate in (0.01, 0.1, 0.5, 0.9):
        for apart in (-0.02, 0.0, 0.05):
            if 0 < rate + apart < 1:
                assert expected(rows, (rate, rate + apart), (0.45, 0.55), 0.05) <= 1 + 1e-9
                assert expected(rows, (rate, rate + apart), (0.02, 0.12), 0.05) <= 1 + 1e-9


def test_the_nearest_null_is_the_nearest() -> None:
    chance = np.random.default_rng(1)
    stable, canary = 10 ** chance.uniform(-5, -0.01, (2, 3000))
    share = 10 ** chance.uniform(-3, -0.05, 3000)
    gap = np.clip((canary - stable) * chance.uniform(-1, 1, 3000), -0.95, 0.95)
    one, other = nearest_null(stable, canary, share, gap)
    assert np.allclose(other - one, gap)

    def divergence(a: np.ndarray) -> np.ndarray:
        def of(p: np.ndarray, q: np.ndarray) -> np.ndarray:
            return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))

        return share * of(canary, a + gap) + (1 - share) * of(stable, a)

    low, high = np.maximum(-gap, 0), np.minimum(1 - gap, 1)
    for part in (0.999, 0.99, 0.5):
        for end in (low, high):
            assert (divergence(one) <= divergence(part * one + (1 - part) * end) + 1e-12).all()


def test_the_average_begins_at_one() -> None:
    for steps in range(1, 7):
        nothing = [np.zeros(3)] * steps
        assert log_average(nothing, np.asarray([0.6, 0.2, 0.2])) == pytest.approx(0.0, abs=1e-9)
    assert sum(BEGINS) == pytest.approx(1)


def rollout(chance: np.random.Generator, rates: tuple[float, float], weight: int, seen: int) -> Table:
    """Counts after every request of the canary, as arrays."""
    others = np.cumsum(chance.geometric(weight / 100, seen) - 1)
    old = np.cumsum(chance.binomial(np.diff(others, prepend=0), rates[0]))
    new = np.cumsum(chance.random(seen) < rates[1])
    return Table(old.astype(float), others.astype(float), new.astype(float), np.arange(1.0, seen + 1))


def aborted(rates: tuple[float, float], weight: int, repeats: int) -> float:
    """The share of steps in which the error rate failed at any look."""
    needed = samples.of_shares(rates[0], rates[0] + 0.01, (100 - weight) / weight, samples.barrier_of(0.05, 0.6), 0.8)
    assert needed is not None
    chance = np.random.default_rng([weight, round(1e4 * rates[1])])
    tables = (rollout(chance, rates, weight, needed) for _ in range(repeats))
    return sum(errors.evidence([t], 0.01).max() >= math.log(20) for t in tables) / repeats


@pytest.mark.parametrize("weight", [1, 50])
def test_a_harmless_version_is_aborted_rarely_and_a_harmful_one_mostly(weight: int) -> None:
    """200 each: 5 % and a standard error of 1.5 points; 80 % and one of 2.8."""
    assert aborted((0.01, 0.01), weight, 200) <= 0.05 + 2 * 0.015
    assert aborted((0.01, 0.02), weight, 200) >= 0.8 - 2 * 0.028
    assert aborted((0.0, 0.02), weight, 100) >= 0.8


def test_bounds_hold_at_all_looks_at_once() -> None:
    chance, missed, looks = np.random.default_rng(3), [0, 0], np.unique(np.geomspace(20, 2000, 25).astype(int)) - 1
    for _ in range(150):
        table = rollout(chance, (0.02, 0.035), 50, 2000)
        at = Table(*(column[looks] for column in vars(table).values()))
        _, low, high = intervals.of_difference([at], 0.01, 0.05, 1e-9)
        missed[0] += bool((low > 0.015).any())
        missed[1] += bool((high < 0.015).any())
    assert max(missed) <= 150 * (0.05 + 2 * 0.018)


def test_bounds_of_a_quantile_hold_at_all_looks_at_once() -> None:
    """The share below the true quantile is a coin: its bounds fail with alpha at most, ever."""
    chance, missed = np.random.default_rng(4), 0
    for _ in range(200):
        below = np.cumsum(chance.random(3000) < 0.99)
        looks = np.arange(10, 3000, 20)
        missed += not all(intervals.holds(below[looks], looks + 1.0, 0.99, 0.05))
    assert missed <= 200 * (0.05 + 2 * 0.0155)


def test_means_by_the_mixture_are_wrong_rarely() -> None:
    chance, failed, missed, found = np.random.default_rng(5), 0, 0, 0
    n = np.arange(50, 4000, 100)
    for _ in range(200):
        for drop in (0.0, 0.05):
            right = [np.cumsum(chance.random(4000) < share)[n - 1] / n for share in (0.8, 0.8 - drop)]
            variance = (right[0] * (1 - right[0]) + right[1] * (1 - right[1])) / n
            seen = list(zip(right[1] - right[0], variance, strict=True))
            fails = any(labelled.log_evidence(e, v, 0.05, (-1,)) >= math.log(20) for e, v in seen)
            found += fails and drop > 0
            failed += fails and drop == 0
            missed += drop == 0 and any(abs(e) > intervals.radius_of_mean(v, 0.05, 0.05) for e, v in seen)
    assert failed <= 200 * (0.05 + 2 * 0.0155)
    assert missed <= 200 * (0.05 + 2 * 0.0155)
    assert found >= 200 * 0.8


def test_a_brownian_motion_passes_when_it_is_said_to() -> None:
    """Against the normal limit: without a barrier worth mentioning it is the time for the drift alone."""
    time = samples.first_passage(0.01, 0.02, 4.0, 0.8)
    assert time is not None
    chance = np.random.default_rng(6)
    steps = int(time)
    paths = np.cumsum(0.01 + math.sqrt(0.02) * chance.normal(size=(2000, steps)), axis=1)
    assert (paths.max(axis=1) >= 4.0).mean() == pytest.approx(0.8, abs=0.03)
    assert samples.first_passage(0.0, 0.02, 4.0, 0.8) is None
