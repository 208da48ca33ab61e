"""Replicates against scikit-learn and a plain bootstrap, intervals against scipy and the truth, degenerate rows."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from mlp_ci.errors import InputError
from mlp_ci.evaluate.bootstrap import Design, Settings, design_of, differences, draws, estimates, influence
from mlp_ci.evaluate.bootstrap.bca import bca
from mlp_ci.evaluate.bootstrap.blocks import block_length, circle
from mlp_ci.evaluate.bootstrap.design import Units, units_of
from mlp_ci.evaluate.bootstrap.drawing import HEAVIEST, independent
from mlp_ci.evaluate.bootstrap.exact import ClopperPearson, Discordant
from mlp_ci.evaluate.bootstrap.replicates import Chunks, replicates
from mlp_ci.evaluate.metrics import BINARY, FORECASTING, METRICS, REGRESSION, Array, Predictions

FIVE = ("roc_auc", "pr_auc", "log_loss", "accuracy", "f1")
SKLEARN: dict[str, Any] = {
    "roc_auc": lambda p, w: sk.roc_auc_score(p.target, p.probability, sample_weight=w),
    "pr_auc": lambda p, w: sk.average_precision_score(p.target, p.probability, sample_weight=w),
    "log_loss": lambda p, w: sk.log_loss(p.target, p.probability, sample_weight=w),
    "accuracy": lambda p, w: sk.accuracy_score(p.target, p.label, sample_weight=w),
    "f1": lambda p, w: sk.f1_score(p.target, p.label, sample_weight=w),
}


def of(target: Array, probability: Array) -> Predictions:
    label = (probability >= 0.5).astype(int)
    return Predictions(task=BINARY, target=target, label=label, probability=probability, classes=("0", "1"))


def pair(rows: int, digits: int = 9, seed: int = 0, share: float = 0.3) -> tuple[Predictions, Predictions]:
    chance = np.random.default_rng(seed)
    target = (chance.random(rows) < share).astype(int)
    shared = 1.3 * target - 1.2 + chance.normal(size=rows)
    one, two = (1 / (1 + np.exp(-(shared + 0.4 * chance.normal(size=rows)))) for _ in range(2))
    return of(target, one.round(digits)), of(target, two.round(digits))


def numbers(rows: int, seed: int = 0) -> Predictions:
    chance = np.random.default_rng(seed)
    target = 2 * chance.normal(size=rows)
    return Predictions(task=REGRESSION, target=target, label=target + chance.normal(size=rows))


def designs(rows: int) -> list[Design]:
    codes = np.arange(rows)
    return [
        Design(rows=rows),
        Design(rows=rows, strata=(codes % 7 == 0).astype(int)),
        Design(rows=rows, clusters=codes // 40),  # larger than a period: heavy sums
        Design(rows=rows, times=60.0 * codes, block=60.0 * 30),
    ]


@pytest.mark.parametrize(("rows", "digits"), [(300, 9), (301, 1), (5000, 9), (5003, 2)])
def test_every_replicate_is_what_scikit_learn_says_of_its_weights(rows: int, digits: int) -> None:
    """Few rows and many, with ties and without, for all designs, both models on the same weights."""
    models = pair(rows, digits)
    for design in designs(rows):
        setting = Settings(replicates=131, seed=3)
        weights = np.concatenate(list(draws(design, setting)))
        found = replicates([METRICS[n] for n in FIVE], models, Chunks(units_of(design), 131, 3))
        for index, model in enumerate(models):
            for at in (0, 127, 130):
                expected = {name: SKLEARN[name](model, weights[at]) for name in FIVE}
                assert {name: found[index, name][at] for name in FIVE} == pytest.approx(expected, rel=1e-6)


def test_weights_are_those_of_a_bootstrap() -> None:
    """Mean and variance of a Poisson variable; clusters and blocks together, strata as large as they are."""
    weights = independent(20_000, 64, np.random.default_rng(0)).astype(float)
    assert weights.max() <= HEAVIEST
    assert weights.mean() == pytest.approx(1, abs=0.005)
    assert weights.var() == pytest.approx(1, abs=0.01)
    plain, strata, clusters, blocks = (next(draws(d, Settings(replicates=64))) for d in designs(700))
    assert (plain.sum(axis=1) == 700).all()
    assert (strata[:, ::7].sum(axis=1) == 100).all()
    assert (clusters.reshape(64, -1, 20)[:, 0::2] == clusters.reshape(64, -1, 20)[:, 0::2, :1]).all()
    assert blocks.mean() == pytest.approx(1, abs=0.05)
    near, far = np.mean(blocks[:, 1:] * blocks[:, :-1]), np.mean(blocks[:, 200:] * blocks[:, :-200])
    assert near > far + 0.5


def test_the_spread_is_that_of_a_plain_bootstrap() -> None:
    """Weights of bytes against rows drawn by numpy, over 2,000 and 1,000 replicates: within Monte Carlo error."""
    this, other = pair(4500)
    names = ("roc_auc", "pr_auc", "log_loss")
    found = differences([METRICS[n] for n in names], this, other)
    chance = np.random.default_rng(5)
    rows = chance.integers(0, 4500, size=(1000, 4500)) + 4500 * np.arange(1000)[:, None]
    weights = np.bincount(rows.ravel(), minlength=1000 * 4500).reshape(1000, 4500).astype(float)
    for name in names:
        values = METRICS[name].values
        assert values
        plain = np.concatenate([values(this, w) - values(other, w) for w in np.array_split(weights, 20)])
        # Standard errors of 2,000 and of 1,000 replicates vary by 1.6 and 2.2 %, their ratio by 2.7 %: four of those.
        assert found[name].standard_error == pytest.approx(plain.std(), rel=0.11)


def test_the_interval_is_scipys() -> None:
    """BCa of a skewed mean, but for the widening by Student's quantile, which is undone here."""
    losses = np.random.default_rng(1).exponential(size=150)
    drawn = np.concatenate([w @ losses / 150 for w in draws(Design(rows=150), Settings(replicates=20_000))])
    apart = (losses - losses.mean()) / 150
    mine = bca(float(losses.mean()), drawn, influence.acceleration(apart), 1e9)
    scipys = stats.bootstrap((losses,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(2))
    expected = scipys.confidence_interval
    assert (mine.bound(0.025), mine.bound(0.975)) == pytest.approx(tuple(expected), abs=0.006)


@pytest.mark.parametrize("name", ["roc_auc", "pr_auc", "log_loss", "f1"])
def test_influence_is_the_derivative_by_a_weight(name: str) -> None:
    from mlp_ci.evaluate.bootstrap import _influence

    model, _ = pair(400, digits=2)
    found = _influence(METRICS[name], model, Units(count=400))
    values = METRICS[name].values
    assert values
    step = 1e-4 * np.eye(400)
    slope = (values(model, 1 + step) - values(model, 1 - step)) / 2e-4
    assert found == pytest.approx(slope, abs=1e-6 * np.abs(slope).max())


def test_results_do_not_depend_on_threads_or_cores() -> None:
    """The same digits in a process with one core and one BLAS thread."""
    code = """
import os, sys
if len(sys.argv) > 1: os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
import numpy as np
from mlp_ci.evaluate.bootstrap import differences
from mlp_ci.evaluate.metrics import BINARY, METRICS, Predictions
chance = np.random.default_rng(0)
target = (chance.random(5000) < 0.3).astype(int)
def model():
    p = (0.3 * target + chance.random(5000)) / 1.3
    return Predictions(task=BINARY, target=target, label=(p > 0.5).astype(int), probability=p, classes=("0", "1"))
names = ("roc_auc", "pr_auc", "log_loss", "accuracy", "f1")
print({n: e.facts() for n, e in differences([METRICS[n] for n in names], model(), model()).items()})
"""
    said = [subprocess.check_output([sys.executable, "-c", code, *more], text=True) for more in ([], ["one"])]
    assert said[0] == said[1]
    assert said[0].count("bca") == len(FIVE)


def test_many_rows_may_be_sampled() -> None:
    model, _ = pair(8000)
    whole = estimates([METRICS["roc_auc"]], model)["roc_auc"]
    part = estimates([METRICS["roc_auc"]], model, settings=Settings(most_rows=2000))["roc_auc"]
    assert part.value == whole.value
    assert part.standard_error == pytest.approx(whole.standard_error, rel=0.15)


# ---------------------------------------------------------------- degenerate rows


def test_all_right_is_not_certainty() -> None:
    target = np.arange(200) % 2
    perfect = of(target, np.where(target == 1, 0.9, 0.1) + 0.0001 * np.arange(200) / 200)
    found = estimates([METRICS[n] for n in ("accuracy", "roc_auc", "f1", "log_loss", "pr_auc")], perfect)
    assert found["accuracy"].method == "clopper-pearson"
    assert found["accuracy"].low == pytest.approx(stats.binomtest(200, 200).proportion_ci().low)
    assert found["accuracy"].bound(0.05) == pytest.approx(0.05 ** (1 / 200))
    for name in ("roc_auc", "f1", "pr_auc"):
        assert found[name].method == "clopper-pearson, 100 rows"
        assert found[name].low == pytest.approx(0.025 ** (1 / 100))
    assert found["log_loss"].method == "bca"


def test_few_mistakes_are_counted_exactly_and_many_are_not() -> None:
    target = np.ones(1000, dtype=int)
    for wrong, method in ((5, "clopper-pearson"), (60, "bca")):
        label = (np.arange(1000) >= wrong).astype(int)
        found = estimates([METRICS["accuracy"]], Predictions(task=BINARY, target=target, label=label))["accuracy"]
        exact = stats.binomtest(1000 - wrong, 1000).proportion_ci()
        assert found.method == method
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=0.0025 if wrong == 60 else 1e-9)


def test_two_models_that_differ_in_few_rows() -> None:
    target = np.ones(500, dtype=int)
    one = Predictions(task=BINARY, target=target, label=np.ones(500, dtype=int))
    same = differences([METRICS["accuracy"]], one, one)["accuracy"]
    assert (same.value, same.low, same.high, same.method) == (0, 0, 0, "same predictions")
    # The same answers, of different probabilities: on other rows they may differ, by at most 1 - alpha^(1/n).
    sure, unsure = of(target, np.full(500, 0.9)), of(target, np.full(500, 0.8))
    found = differences([METRICS["accuracy"]], sure, unsure)["accuracy"]
    assert found.method == "clopper-pearson, paired"
    assert (found.low, found.high) == pytest.approx((0.025 ** (1 / 500) - 1, 1 - 0.025 ** (1 / 500)))


def test_what_has_no_interval_says_so() -> None:
    one_class = of(np.ones(50, dtype=int), np.linspace(0.2, 0.8, 50))
    empty = one_class.take(np.zeros(50, dtype=bool))
    single = one_class.take(np.arange(50) == 3)
    for model in (one_class, empty, single):
        found = estimates([METRICS["roc_auc"]], model)["roc_auc"]
        assert (found.low, found.high, found.method, found.belief) == (None, None, "undefined", None)
    flawless = Predictions(task=REGRESSION, target=np.arange(100.0), label=np.arange(100.0))
    assert estimates([METRICS["rmse"]], flawless)["rmse"].method == "undefined"
    few = estimates([METRICS["rmse"]], numbers(40), Design(rows=40, clusters=np.arange(40) // 10))["rmse"]
    assert (few.low, few.method) == (None, "undefined")


def test_a_constant_score_is_half_for_certain() -> None:
    model = of(np.arange(100) % 2, np.full(100, 0.3))
    found = estimates([METRICS["roc_auc"]], model)["roc_auc"]
    assert (found.value, found.low, found.high, found.method) == (0.5, 0.5, 0.5, "constant")


def test_a_rare_class_is_in_every_replicate() -> None:
    target = (np.arange(400) < 3).astype(int)
    model = of(target, np.random.default_rng(0).random(400))
    design = design_of(BINARY, target)
    assert design.strata is not None
    assert all((w[:, :3].sum(axis=1) == 3).all() for w in draws(design))
    assert estimates([METRICS["roc_auc"]], model, design)["roc_auc"].low is not None


# ---------------------------------------------------------------- designs


def test_designs() -> None:
    target, group, times = np.arange(100) % 2, np.arange(100) // 5, 60.0 * np.arange(100)
    assert design_of(BINARY, target) == Design(rows=100)
    assert units_of(design_of(BINARY, target, group=group)).count == 20
    forecast = design_of(FORECASTING, target, group=group, times=times, loss=np.random.default_rng(0).random(100))
    assert forecast.clusters is None
    assert forecast.block is not None
    assert 60 <= forecast.block <= 60 * 25
    with pytest.raises(InputError, match="exclude each other"):
        design_of(BINARY, target, group=group, times=times, block=60.0)
    taken = design_of(BINARY, target, group=group).take(np.arange(100) < 50)
    assert taken.rows == 50
    assert units_of(taken).count == 10


def test_rows_that_are_alike_count_for_less() -> None:
    """Ten copies of each row say as much as one; neighbours in time that are alike likewise."""
    model = numbers(300)
    copies = model.take(np.repeat(np.arange(300), 10))
    alone = estimates([METRICS["rmse"]], model)["rmse"]
    grouped = estimates([METRICS["rmse"]], copies, Design(rows=3000, clusters=np.repeat(np.arange(300), 10)))["rmse"]
    assert grouped.standard_error == pytest.approx(alone.standard_error, rel=0.1)
    times = np.arange(3000.0)
    length = block_length(times, (copies.label - copies.target) ** 2)
    assert 10 <= length <= 60
    blocks = estimates([METRICS["rmse"]], copies, Design(rows=3000, times=times, block=length))["rmse"]
    naive = estimates([METRICS["rmse"]], copies)["rmse"]
    assert blocks.standard_error == pytest.approx(alone.standard_error, rel=0.25)
    assert naive.standard_error == pytest.approx((alone.standard_error or 0) / 10**0.5, rel=0.1)
    assert block_length(times, np.random.default_rng(0).normal(size=3000)) < 5


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=60), st.floats(1e-3, 1e7), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_every_row_is_on_the_circle(times: list[float], block: float, seed: int) -> None:
    where = np.array(times)
    round_, cells = circle(where, block)
    assert cells.min() >= 0
    assert cells.max() < round_.count
    weights = round_.draw(4, np.random.default_rng(seed))
    assert (weights.sum(axis=0) == round_.blocks * round_.length).all()


# ---------------------------------------------------------------- bounds


@given(
    st.lists(st.integers(-50, 50), min_size=60, max_size=200).filter(lambda v: len(set(v)) > 5),
    st.floats(-0.1, 0.1),
    st.floats(-60, 60),
    st.sampled_from([0.2, 0.05, 0.01, 1e-4, 1e-7]),
)
@settings(max_examples=200, deadline=None)
def test_bounds_and_p_values_say_the_same(values: list[int], acceleration: float, limit: float, alpha: float) -> None:
    """The p-value is at most alpha just where the bound at alpha is on the good side of the limit."""
    belief = bca(float(np.median(values)), np.array(values, dtype=float), acceleration, 50)
    shares = [belief.bound(s) for s in (1e-6, 0.05, 0.3, 0.5, 0.7, 0.95, 1 - 1e-6)]
    assert all(a <= b for a, b in pairwise(shares))
    low, high = belief.bound(alpha), belief.bound(1 - alpha)
    if abs(low - limit) > 1e-6:
        assert (belief.p_at_least(limit) <= alpha) == (low >= limit)
    if abs(high - limit) > 1e-6:
        assert (belief.p_at_most(limit) <= alpha * (1 + 1e-6)) == (high <= limit)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(31, 300), st.floats(-0.5, 0.5))
@settings(max_examples=100, deadline=None)
def test_exact_bounds_and_p_values_say_the_same(gained: int, lost: int, rows: int, limit: float) -> None:
    both = Discordant(gained, min(lost, rows - gained), rows)
    share = ClopperPearson(gained, rows)
    for belief, at in ((both, limit), (share, abs(limit))):
        low, high = belief.bound(0.05), belief.bound(0.95)
        assert low <= belief.value if isinstance(belief, Discordant) else low <= gained / rows <= high
        if abs(low - at) > 1e-9:
            assert (belief.p_at_least(at) <= 0.05) == (low >= at)
        if abs(high - at) > 1e-9:
            assert (belief.p_at_most(at) <= 0.05) == (high <= at)


# ---------------------------------------------------------------- coverage in small; bench/coverage.py is in large


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss", "accuracy", "rmse"])
def test_intervals_contain_the_truth_as_often_as_they_say(metric: str) -> None:
    """240 samples of 250 rows: 95 %, less or more three standard errors of 1.4 points."""
    draw = numbers if metric == "rmse" else lambda rows, seed: pair(rows, seed=seed)[0]
    large = draw(1_000_000, 10**6)
    truth = estimates([METRICS[metric]], large, settings=Settings(replicates=10))[metric].value
    inside = 0
    for seed in range(240):
        found = estimates([METRICS[metric]], draw(250, seed), settings=Settings(replicates=500))[metric]
        inside += found.low is not None and found.high is not None and found.low <= truth <= found.high
    assert 0.95 - 0.042 <= inside / 240 <= 0.95 + 0.042


def test_facts_hold_no_distribution() -> None:
    found = estimates([METRICS["roc_auc"]], pair(300)[0])["roc_auc"]
    assert set(found.facts()) == {"value", "low", "high", "standard_error", "method"}
    assert replace(found, belief=None) == found
