"""Drift: each statistic against scipy, and decisions on data whose drift is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats

from mlp_ci.data import drift
from mlp_ci.data.drift import Decision, compare
from mlp_ci.data.profile import CategoryProfile, NumberProfile, Profile, profile_values
from mlp_ci.errors import InputError
from mlp_ci.spec.model import Drift

SPEC = Drift.model_validate({})


def pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two samples that differ a little, of a kind that depends on the seed."""
    random = np.random.default_rng(seed)
    n, m = int(random.integers(300, 6000)), int(random.integers(300, 6000))
    shift = random.choice([0.0, 0.02, 0.1, 0.5])
    draw = [
        lambda k, s: random.normal(s, 1, k),
        lambda k, s: random.lognormal(s, 1, k),
        lambda k, s: random.exponential(1 + s, k),
        lambda k, s: random.uniform(s, 1 + s, k),
    ][seed % 4]
    return draw(n, 0.0), draw(m, shift)


def profiles(then: np.ndarray, now: np.ndarray) -> tuple[NumberProfile, NumberProfile]:
    one = profile_values(then)
    two = profile_values(now, like=one)
    assert isinstance(one, NumberProfile)
    assert isinstance(two, NumberProfile)
    return one, two


@pytest.mark.parametrize("seed", range(50))
def test_ks_from_profiles_is_ks_from_data(seed: int) -> None:
    then, now = pair(seed)
    one, two = profiles(then, now)
    exact = scipy.stats.ks_2samp(then, now, method="asymp")
    distance, p_value = drift.kolmogorov_smirnov(one.counts, two.counts)
    assert exact.statistic - 1 / 200 - 1e-9 <= distance <= exact.statistic + 1e-9
    if distance == pytest.approx(exact.statistic, abs=1e-4):
        assert p_value == pytest.approx(exact.pvalue, rel=0.15, abs=0.01)


@pytest.mark.parametrize("x", [0.01, 0.2, 0.5, 0.9, 0.99999, 1.0, 1.2, 2.0, 4.0, 20.0])
def test_kolmogorovs_tail(x: float) -> None:
    assert drift.kolmogorov_tail(x) == pytest.approx(scipy.stats.kstwobign.sf(x), rel=1e-7, abs=1e-15)


@pytest.mark.parametrize("df", [1, 2, 3, 10, 99, 500])
@pytest.mark.parametrize("ratio", [0.001, 0.3, 0.9, 1.0, 1.1, 1.5, 3.0, 20.0])
def test_the_tail_of_chi_square(df: int, ratio: float) -> None:
    expected = scipy.stats.chi2.sf(df * ratio, df)
    assert drift.upper_gamma(df / 2, df * ratio / 2) == pytest.approx(expected, rel=1e-8, abs=1e-13)


@pytest.mark.parametrize("seed", range(50))
def test_chi_square_and_jensen_shannon(seed: int) -> None:
    random = np.random.default_rng(seed)
    k = int(random.integers(2, 12))
    shares = random.dirichlet(np.full(k, 3.0))
    then = random.multinomial(int(random.integers(500, 5000)), 0.7 * shares + 0.3 / k)
    now = random.multinomial(int(random.integers(500, 5000)), 0.7 * shares + 0.3 / k)
    expected = scipy.stats.chi2_contingency([then, now], correction=False)
    if expected.expected_freq.min() >= 5:
        assert drift.chi_square(then.tolist(), now.tolist()) == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    js = scipy.spatial.distance.jensenshannon(then, now, base=2) ** 2
    assert drift.jensen_shannon(then.tolist(), now.tolist()) == pytest.approx(js, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_benjamini_hochberg(seed: int) -> None:
    p_values = np.random.default_rng(seed).uniform(0, 1, 30) ** 2
    assert drift.benjamini_hochberg(p_values.tolist()) == pytest.approx(scipy.stats.false_discovery_control(p_values))


def test_psi_by_hand() -> None:
    then, now = [5000, 5000], [6000, 4000]
    by_hand = (0.6 - 0.5) * math.log(0.6 / 0.5) + (0.4 - 0.5) * math.log(0.4 / 0.5)
    assert drift.population_stability_index(then, now) == pytest.approx(by_hand, rel=1e-3)
    assert drift.population_stability_index(then, then) == 0
    assert drift.population_stability_index([100, 0], [100, 50]) < 5
    assert drift.population_stability_index([0, 0], [10, 10]) == 0


def test_rare_expected_counts_do_not_fake_significance() -> None:
    assert drift.chi_square([1000, 1, 0, 1], [1000, 0, 1, 0]) > 0.2
    assert drift.chi_square([3, 1], [1, 2]) == 1.0
    assert drift.chi_square([100, 100], [0, 0]) == 1.0


def test_groups_hold_about_a_tenth_of_the_reference() -> None:
    then, now = drift.grouped([5] * 201, [1] * 201, 10)
    assert len(then) == 10
    assert sum(then) == 1005
    assert sum(now) == 201
    tied, _ = drift.grouped([900, 50, 50], [1, 1, 1], 10)
    assert tied == [900, 100]


def whole(rows: int, seed: int, shift: float = 0.0, columns: int = 20) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    values = {f"x{i}": random.normal(0, 1, rows) for i in range(columns)}
    values["x0"] = values["x0"] + shift
    return values


def reference_and_current(then: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> tuple[Profile, Profile]:
    reference = Profile(rows=len(then["x0"]), columns={n: profile_values(v) for n, v in then.items()})
    current = {n: profile_values(v, like=reference.columns[n]) for n, v in now.items()}
    return reference, Profile(rows=len(now["x0"]), columns=current)


def test_one_drifted_column_among_twenty_is_found_and_stands_first() -> None:
    found = compare(*reference_and_current(whole(20000, 1), whole(5000, 2, shift=0.6)), SPEC)
    assert found[0].column == "x0"
    assert [d.decision for d in found] == [Decision.DRIFTED] + [Decision.STABLE] * 19
    assert "large" in found[0].reason


def test_a_real_but_small_difference_is_not_an_alarm() -> None:
    found = compare(*reference_and_current(whole(50000, 1), whole(50000, 2, shift=0.1)), SPEC)
    x0 = next(d for d in found if d.column == "x0")
    assert x0.p_adjusted < 1e-6
    assert x0.decision is Decision.STABLE
    assert "small" in x0.reason


def test_too_few_rows_decide_nothing() -> None:
    found = compare(*reference_and_current(whole(20000, 1), whole(100, 2, shift=3)), SPEC)
    assert {d.decision for d in found} == {Decision.INSUFFICIENT}
    assert "500 are needed" in found[0].reason


def test_nothing_drifted_means_no_alarm_in_two_hundred_looks() -> None:
    then = whole(5000, 0)
    assert not [
        d
        for seed in range(1, 201)
        for d in compare(*reference_and_current(then, whole(500, seed)), SPEC)
        if d.decision is Decision.DRIFTED
    ]


def test_values_that_go_missing_are_drift() -> None:
    then = whole(5000, 1, columns=3)
    now = whole(5000, 2, columns=3)
    now["x1"][:2500] = np.nan
    found = compare(*reference_and_current(then, now), SPEC)
    assert (found[0].column, found[0].decision) == ("x1", Decision.DRIFTED)
    assert (found[0].nulls_then, found[0].nulls_now) == (0.0, 0.5)


def test_a_new_category_is_drift() -> None:
    then = profile_values(["a"] * 600 + ["b"] * 400)
    now = profile_values(["a"] * 500 + ["c"] * 500, like=then)
    found = compare(Profile(rows=1000, columns={"s": then}), Profile(rows=1000, columns={"s": now}), SPEC)
    assert found[0].decision is Decision.DRIFTED
    assert found[0].test == "chi-square"


def test_constant_and_empty_columns_are_stable_or_insufficient() -> None:
    same = profile_values(np.ones(1000))
    found = compare(Profile(rows=1000, columns={"c": same}), Profile(rows=1000, columns={"c": same}), SPEC)
    assert found[0].decision is Decision.STABLE
    nothing = profile_values(np.array([]), like=same)
    found = compare(Profile(rows=1000, columns={"c": same}), Profile(rows=0, columns={"c": nothing}), SPEC)
    assert found[0].decision is Decision.INSUFFICIENT


def test_profiles_with_other_bins_are_refused() -> None:
    one = Profile(rows=9, columns={"x": profile_values(np.arange(9.0))})
    other = Profile(rows=9, columns={"x": profile_values(np.arange(9.0) + 0.5)})
    words = Profile(rows=9, columns={"x": CategoryProfile(count=9, nulls=0, distinct=1, counts={"a": 9}, other=0)})
    for wrong in (other, words):
        with pytest.raises(InputError, match="different bins"):
            compare(one, wrong, SPEC)
