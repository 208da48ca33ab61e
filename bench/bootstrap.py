"""10,000 bootstrap replicates of ROC AUC, PR AUC and log loss on 100,000 rows, two models paired (at most 5 s).

The rival is what everybody writes: scikit-learn's three functions on drawn rows, in a loop; a few replicates are timed
and scaled. scipy.stats.bootstrap is the same loop with the three functions inside, and takes as long. Results are
compared: standard errors and intervals of both, and values replicate by replicate with the weights as sample_weight.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from mlp_ci.evaluate.bootstrap import Design, Settings, differences, draws
from mlp_ci.evaluate.bootstrap.design import units_of
from mlp_ci.evaluate.bootstrap.replicates import Chunks, replicates
from mlp_ci.evaluate.metrics import BINARY, METRICS, Predictions

NAMES = ("roc_auc", "pr_auc", "log_loss")
COMPARED = 200  # replicates of the rival on fewer rows, to compare standard errors
FEWER = 10_000


def models(rows: int, share: float) -> tuple[Predictions, Predictions]:
    """Two models that are right about as often, with errors that are much alike."""
    chance = np.random.default_rng(1)
    target = (chance.random(rows) < share).astype(int)
    shared = 1.5 * target - 1.8 + chance.normal(size=rows)
    made = []
    for _ in range(2):
        probability = 1 / (1 + np.exp(-(shared + 0.3 * chance.normal(size=rows))))
        label = (probability >= 0.5).astype(int)
        made.append(Predictions(task=BINARY, target=target, label=label, probability=probability, classes=("0", "1")))
    return made[0], made[1]


def by_sklearn(this: Predictions, other: Predictions, count: int) -> np.ndarray:
    """Differences of the three metrics for so many draws: ``(count, 3)``."""
    from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

    chance = np.random.default_rng(2)
    found = []
    for _ in range(count):
        rows = chance.integers(0, len(this), len(this))
        target, one, two = this.target[rows], this.probability[rows], other.probability[rows]
        functions = (roc_auc_score, average_precision_score, log_loss)
        found.append([f(target, one) - f(target, two) for f in functions])
    return np.array(found)


def ours(this: Predictions, other: Predictions, count: int) -> float:
    """Seconds for everything: values, replicates, acceleration, intervals."""
    began = time.perf_counter()
    differences([METRICS[n] for n in NAMES], this, other, settings=Settings(replicates=count))
    return time.perf_counter() - began


def worst_value(this: Predictions) -> float:
    """The largest relative difference from scikit-learn with the same weights."""
    from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

    design, settings = Design(rows=len(this)), Settings(replicates=20)
    weights = np.concatenate(list(draws(design, settings)))
    metrics = [METRICS[n] for n in NAMES]
    found = replicates(metrics, [this], Chunks(units_of(design), settings.replicates, settings.seed))
    worst = 0.0
    for name, function in zip(NAMES, (roc_auc_score, average_precision_score, log_loss), strict=True):
        for value, w in zip(found[0, name], weights, strict=True):
            worst = max(worst, abs(value / function(this.target, this.probability, sample_weight=w) - 1))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--replicates", type=int, default=10_000)
    given = parser.parse_args()
    print(f"{given.replicates:,} replicates of {given.rows:,} rows, two models, {os.cpu_count()} cores")
    for share in (0.1, 0.25, 0.5):
        this, other = models(given.rows, share)
        seconds = min(ours(this, other, given.replicates) for _ in range(3))
        began = time.perf_counter()
        by_sklearn(this, other, 10)
        rival = (time.perf_counter() - began) / 10 * given.replicates
        print(
            f"{100 * share:.0f} % positives: mlp-ci {seconds:.1f} s; scikit-learn in a loop {rival:,.0f} s "
            f"(10 replicates timed): {rival / seconds:.0f} times as long",
            flush=True,
        )
    this, other = models(FEWER, 0.25)
    print(f"largest relative difference from scikit-learn with the same weights: {worst_value(this):.1e}")
    plain = by_sklearn(this, other, COMPARED)
    found = differences([METRICS[n] for n in NAMES], this, other, settings=Settings(replicates=given.replicates))
    expected = 1 / np.sqrt(2 * COMPARED)
    print(f"standard errors of the differences, {FEWER:,} rows; {COMPARED} replicates of scikit-learn ± {expected:.0%}")
    for name, error in zip(NAMES, plain.std(axis=0, ddof=1), strict=True):
        mine = found[name].standard_error or 0.0
        print(f"  {name:9} mlp-ci {mine:.3e}   scikit-learn {error:.3e}   ratio {mine / error:.3f}")


if __name__ == "__main__":
    main()
