"""How often 95 % intervals of the gates contain the true value in simulation (wanted: 94 to 96 times in 100).

Four worlds whose truth is known from millions of rows: independent rows of a classifier and of a regression, rows in
clusters that share an error, and hourly rows whose errors are alike for hours (AR(1), the block length chosen as for a
forecast). And shares near 1, where a plain bootstrap fails. `--repeats` (default 1,000 a world; the docs' table is
10,000) has a standard error of 0.7 points at 1,000 and 0.2 at 10,000. `missed` is a one-sided 95 % bound on the wrong
side of the truth, which is what a gate uses: it should be 5.
"""

from __future__ import annotations

import argparse
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import lfilter
from scipy.special import expit

from mlp_ci.evaluate.bootstrap import Design, Estimate, Settings, design_of, estimates
from mlp_ci.evaluate.metrics import BINARY, FORECASTING, METRICS, REGRESSION, Array, Metric, Predictions, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SETTINGS = Settings(replicates=2000)
TRUTH_ROWS, TRUTH_SAMPLES = 1_000_000, 10


def classifier(rows: int, chance: np.random.Generator) -> tuple[Predictions, Design]:
    """30 % positives, an ROC AUC of about 0.82, probabilities that are somewhat off."""
    target = (chance.random(rows) < 0.3).astype(int)
    probability = expit(-1.1 + 1.3 * (target - 0.35) + chance.normal(size=rows))
    return _binary(target, probability), design_of(BINARY, target)


def nearly_perfect(rows: int, chance: np.random.Generator) -> tuple[Predictions, Design]:
    """Right 995 times in 1,000, with half of the rows positive."""
    target = (chance.random(rows) < 0.5).astype(int)
    wrong = chance.random(rows) < 0.005
    return _binary(target, np.where(wrong, 0.9 - 0.8 * target, 0.1 + 0.8 * target)), design_of(BINARY, target)


def numbers(rows: int, chance: np.random.Generator) -> tuple[Predictions, Design]:
    """Normal errors of standard deviation 1 on a target of 2."""
    target = 2 * chance.normal(size=rows)
    label = target + chance.normal(size=rows)
    return Predictions(task=REGRESSION, target=target, label=label), design_of(REGRESSION, target)


def clustered(rows: int, chance: np.random.Generator) -> tuple[Predictions, Design]:
    """Clusters of ten rows; half of the variance of the error, and of the score, is the cluster's."""
    group = np.arange(rows) // 10
    count = int(group[-1]) + 1
    target = (chance.random(rows) < 0.3).astype(int)
    shared = chance.normal(size=count)[group]
    score = 1.3 * (target - 0.35) + math.sqrt(0.5) * (shared + chance.normal(size=rows))
    return _binary(target, expit(score - 1.1)), design_of(BINARY, target, group=group)


def hourly(rows: int, chance: np.random.Generator) -> tuple[Predictions, Design]:
    """One row an hour; the error is 0.7 times that of the hour before and news."""
    # A hundred hours before the first, so that it is like all others.
    news = math.sqrt(1 - 0.7**2) * chance.normal(size=rows + 100)
    error = lfilter([1.0], [1.0, -0.7], news)[100:]
    target = np.zeros(rows)
    times = 3600.0 * np.arange(rows)
    return (
        Predictions(task=FORECASTING, target=target, label=error),
        design_of(FORECASTING, target, times=times, loss=error**2),
    )


def _binary(target: Array, probability: Array) -> Predictions:
    label = (probability >= 0.5).astype(int)
    return Predictions(task=BINARY, target=target, label=label, probability=probability, classes=("0", "1"))


@dataclass(frozen=True)
class World:
    """What is drawn, and which metrics of it."""

    name: str
    draw: Callable[[int, np.random.Generator], tuple[Predictions, Design]]
    metrics: tuple[str, ...]
    rows: tuple[int, ...]

    def measured(self) -> list[Metric]:
        return [METRICS[name] for name in self.metrics]


SHARES = ("accuracy", "f1", "precision", "recall")
WORLDS = (
    World("classifier", classifier, ("roc_auc", "pr_auc", "log_loss", "brier", *SHARES), (200, 1000)),
    World("regression", numbers, ("rmse", "mae", "r2"), (200, 1000)),
    World("clusters of 10", clustered, ("roc_auc", "log_loss", "accuracy"), (1000,)),
    World("hourly, AR(1) 0.7", hourly, ("rmse", "mae"), (1000, 5000)),
    World("99.5 % right", nearly_perfect, ("accuracy",), (200, 1000)),
)


def truth(world: World) -> dict[str, float]:
    """The metrics of many rows; for a long chain of hours, of as many independent ones (the errors are the same)."""
    draw = numbers if world.draw is hourly else world.draw
    chance = np.random.default_rng(99)
    found = []
    for _ in range(TRUTH_SAMPLES):
        predictions, _ = draw(TRUTH_ROWS, chance)
        found.append([value_of(m, predictions) for m in world.measured()])
    return dict(zip(world.metrics, np.mean(found, axis=0).tolist(), strict=True))


def one(index: int, rows: int, seed: int) -> dict[str, Estimate]:
    """The intervals of one sample."""
    world = WORLDS[index]
    predictions, design = world.draw(rows, np.random.default_rng([seed, rows, index]))
    return estimates(world.measured(), predictions, design, SETTINGS)


def several(job: tuple[int, int, range]) -> list[dict[str, tuple[float, float, float, float]]]:
    """Low, high and both one-sided bounds of some samples, by metric."""
    index, rows, seeds = job
    return [{n: _numbers(e) for n, e in one(index, rows, seed).items()} for seed in seeds]


def _numbers(found: Estimate) -> tuple[float, float, float, float]:
    bounds = (found.low, found.high, found.bound(0.05), found.bound(0.95))
    return tuple(math.nan if b is None else b for b in bounds)  # type: ignore[return-value]


@dataclass(frozen=True)
class Covered:
    """Of how many intervals contained the truth, and bounds missed it, in per cent."""

    world: str
    metric: str
    rows: int
    repeats: int
    inside: float
    above: float
    below: float


def covered(index: int, repeats: int) -> Iterator[Covered]:
    """One world, for each number of rows and metric."""
    world, known = WORLDS[index], truth(WORLDS[index])
    for rows in world.rows:
        jobs = [(index, rows, range(start, min(start + 25, repeats))) for start in range(0, repeats, 25)]
        with ProcessPoolExecutor() as pool:
            samples = [sample for part in pool.map(several, jobs) for sample in part]
        for name, value in known.items():
            low, high, under, over = np.array([s[name] for s in samples]).T
            inside = (low <= value) & (value <= high)
            shares = [100 * float(np.mean(flags)) for flags in (inside, under > value, over < value)]
            yield Covered(world.name, name, rows, len(samples), *shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    given = parser.parse_args()
    print(f"{given.repeats:,} samples each, {SETTINGS.replicates:,} replicates; per cent of samples")
    print(f"{'world':18} {'metric':10} {'rows':>6} {'inside':>7} {'missed: lower':>14} {'upper':>6}")
    for index in range(len(WORLDS)):
        began = time.perf_counter()
        for found in covered(index, given.repeats):
            numbers = f"{found.inside:7.1f} {found.above:14.1f} {found.below:6.1f}"
            print(f"{found.world:18} {found.metric:10} {found.rows:6,} {numbers}", flush=True)
        print(f"  ({time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
