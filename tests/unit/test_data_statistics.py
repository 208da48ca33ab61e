"""Statistics from profiles against their exact values on the raw data, on fifty pairs of samples of every kind."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_ci.data.profiles import statistics
from mlp_ci.data.profiles.groups import groups_of
from mlp_ci.data.profiles.profile import profile_values
from mlp_ci.data.profiles.shapes import CategoryProfile, NumberProfile
from mlp_ci.data.profiles.statistics import (
    benjamini_hochberg,
    chi_square,
    distances,
    hellinger,
    jensen_shannon,
    kolmogorov_smirnov,
    kullback_leibler,
    population_stability_index,
    psi,
    wasserstein,
)
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    Draw = Callable[[np.random.Generator, int, float], np.ndarray]

KINDS: dict[str, Draw] = {
    "normal": lambda r, n, s: r.normal(s, 1, n),
    "lognormal": lambda r, n, s: r.lognormal(s, 1.2, n),
    "heavy tails": lambda r, n, s: r.standard_t(2, n) + s,
    "uniform": lambda r, n, s: r.uniform(s, 1 + s, n),
    "counts": lambda r, n, s: r.poisson(4 + 2 * s, n).astype(float),
    "flag": lambda r, n, s: r.binomial(1, 0.03 + 0.3 * s, n).astype(float),
    "few values": lambda r, n, s: r.choice([0.1, 0.5, 2.5, 10.0], n, p=[0.4 - 0.3 * s, 0.3, 0.2, 0.1 + 0.3 * s]),
    "ties": lambda r, n, s: np.round(r.normal(s, 1, n), 1),
    "many zeros": lambda r, n, s: np.where(r.random(n) < 0.8 - s / 2, 0.0, r.lognormal(0, 1, n)),
    "with nulls": lambda r, n, s: np.where(r.random(n) < 0.1 + s / 2, np.nan, r.gamma(2, 1 + s, n)),
}
PAIRS = list(range(50))


def pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two samples of 200 to 20,000; of a kind and with a shift (none in one of four) that depend on the seed."""
    random = np.random.default_rng(seed)
    n, m = (round(10 ** random.uniform(np.log10(200), np.log10(20000))) for _ in range(2))
    draw = list(KINDS.values())[seed % len(KINDS)]
    return draw(random, n, 0.0), draw(random, m, [0.0, 0.05, 0.2, 0.5][seed // len(KINDS) % 4])


def profiles(then: np.ndarray, now: np.ndarray) -> tuple[NumberProfile, NumberProfile]:
    one = profile_values(then)
    two = profile_values(now, like=one)
    assert isinstance(one, NumberProfile)
    assert isinstance(two, NumberProfile)
    return one, two


def cut(values: np.ndarray, edges: tuple[float, ...]) -> list[int]:
    """Raw values counted in groups, and the missing ones."""
    bounds = [-np.inf, *edges, np.inf]
    inside = [int(((values > a) & (values <= b)).sum()) for a, b in itertools.pairwise(bounds)]
    return [*inside, int(np.isnan(values).sum())]


def smoothed(then: list[int], now: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the groups that hold a row, with half an observation of the smaller side in each."""
    a, b = np.array(then, dtype=float), np.array(now, dtype=float)
    there = (a > 0) | (b > 0)
    more = 0.5 / min(a.sum(), b.sum())
    p, q = a[there] / a.sum() + more, b[there] / b.sum() + more
    return p / p.sum(), q / q.sum()


def bin_widths(profile: NumberProfile) -> float:
    """The mean width of the bins that a profile's values lie in."""
    assert profile.smallest is not None
    assert profile.largest is not None
    edges = np.clip([profile.smallest, *profile.edges, profile.largest], profile.smallest, profile.largest)
    return float(np.diff(edges) @ np.array(profile.counts)) / profile.count


@pytest.mark.parametrize("seed", PAIRS)
def test_what_looks_at_groups_is_exact(seed: int) -> None:
    then, now = pair(seed)
    one, two = profiles(then, now)
    groups = groups_of(one)
    assert groups.edges is not None
    a, b = cut(then, groups.edges), cut(now, groups.edges)
    assert groups.count(one) == a
    assert groups.count(two) == b
    found = distances(one, two, (groups.count(one), groups.count(two)))
    p, q = smoothed(a, b)
    assert found.kl == pytest.approx(scipy.stats.entropy(q, p), abs=1e-12)
    assert found.psi == pytest.approx(scipy.stats.entropy(q, p) + scipy.stats.entropy(p, q), abs=1e-12)
    assert found.psi == pytest.approx(psi(one, two), abs=1e-15)
    assert found.js == pytest.approx(scipy.spatial.distance.jensenshannon(a, b, base=2) ** 2, abs=1e-12)
    shares = np.sqrt(np.array(a) / sum(a)), np.sqrt(np.array(b) / sum(b))
    assert found.hellinger == pytest.approx(np.linalg.norm(shares[0] - shares[1]) / math.sqrt(2), abs=1e-12)
    filled = np.array([a, b])[:, (np.array(a) + np.array(b)) > 0]
    exact = scipy.stats.chi2_contingency(filled, correction=False)
    if exact.expected_freq.min() >= 5:
        assert found.chi_square == pytest.approx(exact.pvalue, rel=1e-8, abs=1e-300)


@pytest.mark.parametrize("seed", PAIRS)
def test_smoothing_adds_less_than_the_noise_of_the_smaller_sample(seed: int) -> None:
    then, now = pair(seed)
    one, two = profiles(then, now)
    a, b = (np.array(groups_of(one).count(side), dtype=float) for side in (one, two))
    there = (a > 0) & (b > 0)
    if not there.all() and ((a > 0) != (b > 0)).any():
        return  # Unsmoothed, PSI is infinite.
    p, q = a[there] / a.sum(), b[there] / b.sum()
    exact = float(np.sum((q - p) * np.log(q / p)))
    assert abs(psi(one, two) - exact) <= 0.05 * exact + (there.sum() - 1) / min(a.sum(), b.sum())


@pytest.mark.parametrize("seed", PAIRS)
def test_ks_is_at_most_one_bin_below_that_of_the_data(seed: int) -> None:
    then, now = pair(seed)
    one, two = profiles(then, now)
    then, now = then[np.isfinite(then)], now[np.isfinite(now)]
    exact = scipy.stats.ks_2samp(then, now, method="asymp")
    distance, p_value = kolmogorov_smirnov(one.counts, two.counts)
    largest = max(max(one.counts) / one.count, max(two.counts) / two.count)
    assert exact.statistic - largest - 1e-12 <= distance <= exact.statistic + 1e-12
    if distance == pytest.approx(exact.statistic, abs=1e-6) and min(one.count, two.count) > 500:
        assert p_value == pytest.approx(exact.pvalue, rel=0.2, abs=0.02)


@pytest.mark.parametrize("seed", PAIRS)
def test_wasserstein_is_within_half_a_bin_of_each_side(seed: int) -> None:
    then, now = pair(seed)
    one, two = profiles(then, now)
    exact = scipy.stats.wasserstein_distance(then[np.isfinite(then)], now[np.isfinite(now)])
    found = wasserstein(one, two)
    assert found is not None
    assert abs(found - exact) <= (bin_widths(one) + bin_widths(two)) / 2 + 1e-9


def test_wasserstein_of_few_distinct_values_is_exact() -> None:
    for kind in ("flag", "few values", "counts"):
        random = np.random.default_rng(5)
        then, now = KINDS[kind](random, 3000, 0.0), KINDS[kind](random, 1000, 0.4)
        found = wasserstein(*profiles(then, now))
        assert found == pytest.approx(scipy.stats.wasserstein_distance(then, now), rel=1e-2), kind


def test_values_beyond_the_reference_are_not_lost_to_wasserstein() -> None:
    random = np.random.default_rng(6)
    then, now = random.normal(0, 1, 5000), random.normal(30, 1, 5000)
    assert wasserstein(*profiles(then, now)) == pytest.approx(30, rel=0.02)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=30),
)
def test_no_table_of_counts_breaks_a_statistic(table: list[tuple[int, int]]) -> None:
    then, now = [a for a, _ in table], [b for _, b in table]
    values = {
        "psi": population_stability_index(then, now),
        "kl": kullback_leibler(then, now),
        "js": jensen_shannon(then, now),
        "hellinger": hellinger(then, now),
        "chi-square": chi_square(then, now),
        "ks": kolmogorov_smirnov(then, now)[0],
        "ks p": kolmogorov_smirnov(then, now)[1],
    }
    assert all(math.isfinite(v) and v >= 0 for v in values.values()), values
    assert all(v <= 1 for name, v in values.items() if name not in ("psi", "kl")), values
    assert population_stability_index(then, then) == pytest.approx(0, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 10**4)), min_size=1, max_size=30))
def test_distances_are_the_same_in_both_directions(table: list[tuple[int, int]]) -> None:
    then, now = [a for a, _ in table], [b for _, b in table]
    for symmetric in (population_stability_index, jensen_shannon, hellinger, chi_square):
        assert symmetric(then, now) == pytest.approx(symmetric(now, then), rel=1e-9, abs=1e-12)


def test_psi_by_hand() -> None:
    then, now = [5000, 5000], [6000, 4000]
    by_hand = (0.6 - 0.5) * math.log(0.6 / 0.5) + (0.4 - 0.5) * math.log(0.4 / 0.5)
    assert population_stability_index(then, now) == pytest.approx(by_hand, rel=1e-3)
    assert population_stability_index([100, 0], [100, 50]) < 5
    assert population_stability_index([0, 0], [10, 10]) == 0


def test_a_small_window_does_not_look_different_for_lacking_rare_values() -> None:
    million = [1_000_000, *[50] * 19]
    assert population_stability_index(million, [500, *[0] * 19]) < 0.01
    assert population_stability_index(million, [500, *[25] * 19]) > 0.5


def test_rare_groups_do_not_fake_significance() -> None:
    assert chi_square([1000, 1, 0, 1], [1000, 0, 1, 0]) > 0.2
    assert chi_square([3, 1], [1, 2]) == 1.0
    assert chi_square([100, 100], [0, 0]) == 1.0
    assert chi_square([10_000, 3, 2, 4, 6], [10_000, 30, 20, 40, 60]) < 1e-6


@pytest.mark.parametrize("seed", range(20))
def test_benjamini_hochberg(seed: int) -> None:
    p_values = np.random.default_rng(seed).uniform(0, 1, 30) ** 2
    assert benjamini_hochberg(p_values.tolist()) == pytest.approx(scipy.stats.false_discovery_control(p_values))
    assert benjamini_hochberg([]) == []


def test_categories_have_no_distance_on_a_line() -> None:
    then = profile_values(["a"] * 60 + ["b"] * 40)
    now = profile_values(["a"] * 50 + ["c"] * 50, like=then)
    assert isinstance(now, CategoryProfile)
    groups = groups_of(then)
    found = distances(then, now, (groups.count(then), groups.count(now)))
    assert (found.ks, found.ks_p, found.wasserstein) == (None, None, None)
    assert found.js == pytest.approx(scipy.spatial.distance.jensenshannon([60, 40, 0], [50, 0, 50], base=2) ** 2)


def test_profiles_in_other_bins_are_refused() -> None:
    one, other = profile_values(np.arange(9.0)), profile_values(np.arange(9.0) + 0.5)
    with pytest.raises(InputError, match="different bins"):
        psi(one, other)
    with pytest.raises(InputError, match="different bins"):
        distances(one, other, ([1], [1]))
    with pytest.raises(InputError, match="another kind"):
        psi(one, profile_values(["a"] * 9))


def test_what_has_no_values_has_no_distance() -> None:
    some = profile_values(np.arange(100.0))
    none = profile_values(np.full(50, np.nan), like=some)
    assert isinstance(some, NumberProfile)
    assert isinstance(none, NumberProfile)
    assert wasserstein(some, none) is None
    assert kolmogorov_smirnov(some.counts, none.counts) == (0.0, 1.0)
    assert psi(some, none) > 1  # That all values are missing is seen by the group of the missing ones.


@pytest.mark.parametrize("big", [1e300, 1.7e308])
def test_numbers_at_the_end_of_the_range(big: float) -> None:
    one = profile_values(np.array([-big, big] * 30))
    two = profile_values(np.array([-big] * 20 + [big] * 40), like=one)
    assert isinstance(one, NumberProfile)
    assert isinstance(two, NumberProfile)
    found = wasserstein(one, two)
    assert found is None or math.isfinite(found)
    assert psi(one, two) > 0


@pytest.mark.parametrize(("p", "shown"), [(0.0, "< 1e-6"), (0.00123, "0.0012"), (0.5, "0.50"), (1.0, "1.00")])
def test_p_values_for_people(p: float, shown: str) -> None:
    assert statistics.show_p(p) == shown
