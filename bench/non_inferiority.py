"""How often the gate `versus` passes, fails or cannot say, in simulation: at the margin it may pass 5 times in 100.

Two models of which the truth is known are judged on the same rows, `--repeats` times (2,000): first at the margin
itself, where every pass is false, for four metrics; then with several true differences and numbers of rows, which is
the power. Each repeat is a new sample and a whole paired bootstrap.

The champion's scores are normal, 1.19 standard deviations higher for positives (30 % of the rows), which is an ROC AUC
of 0.8. The challenger's separate them more or less well; its errors are correlated 0.9 with the champion's, as those of
a model trained again on newer data are. Probabilities are the true ones of each model.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm

from mlp_ci.evaluate.bootstrap import Settings, design_of, differences
from mlp_ci.evaluate.decision import non_inferior
from mlp_ci.evaluate.metrics import BINARY, METRICS, REGRESSION, Predictions

SHARE = 0.3
APART = math.sqrt(2) * float(norm.ppf(0.8))  # standard deviations between the classes at an ROC AUC of 0.8
ALIKE = 0.9
MARGINS = {"roc_auc": 0.01, "accuracy": 0.01, "log_loss": 0.01, "rmse": 0.02}
ROWS = (500, 1000, 2000, 5000, 10_000)
DIFFERENCES = (-0.02, -0.01, -0.005, 0.0, 0.005)


def logit(score: float, apart: float) -> float:
    """The true log odds of a positive at this score."""
    return apart * score - apart**2 / 2 + math.log(SHARE / (1 - SHARE))


def expected(metric: str, apart: float) -> float:
    """The true value of the metric for a model that separates the classes by ``apart``; for rmse the error itself."""
    if metric == "rmse":
        return apart
    if metric == "roc_auc":
        return float(norm.cdf(apart / math.sqrt(2)))
    cut = apart / 2 - math.log(SHARE / (1 - SHARE)) / apart  # where the probability is a half
    if metric == "accuracy":
        return float(SHARE * norm.sf(cut - apart) + (1 - SHARE) * norm.cdf(cut))

    def loss(score: float) -> float:
        odds = logit(score, apart)
        up, down = SHARE * norm.pdf(score - apart), (1 - SHARE) * norm.pdf(score)
        return float(up * np.logaddexp(0, -odds) + down * np.logaddexp(0, odds))

    return float(quad(loss, -10, 10 + apart, limit=200)[0])


def apart_for(metric: str, worse_by: float) -> float:
    """How far the challenger separates the classes, so that it is worse than the champion by this in truth."""
    if metric == "rmse":
        return 1 + worse_by
    higher = METRICS[metric].higher_is_better
    wanted = expected(metric, APART) + (-worse_by if higher else worse_by)
    return float(brentq(lambda apart: expected(metric, apart) - wanted, 0.5, 3.0, xtol=1e-12))


def pair(metric: str, apart: float, rows: int, chance: np.random.Generator) -> tuple[Predictions, Predictions]:
    """Challenger and champion on the same rows."""
    shared, first, second = chance.normal(size=(3, rows))
    noise = [math.sqrt(ALIKE) * shared + math.sqrt(1 - ALIKE) * own for own in (first, second)]
    if metric == "rmse":
        target = chance.normal(size=rows)
        labels = (target + apart * noise[0], target + noise[1])
        one, two = (Predictions(task=REGRESSION, target=target, label=label) for label in labels)
        return one, two
    target = (chance.random(rows) < SHARE).astype(int)
    made = []
    for distance, own in ((apart, noise[0]), (APART, noise[1])):
        odds = distance * (target * distance + own) - distance**2 / 2 + math.log(SHARE / (1 - SHARE))
        label = (odds >= 0).astype(int)
        made.append(Predictions(task=BINARY, target=target, label=label, probability=expit(odds), classes=("0", "1")))
    return made[0], made[1]


@dataclass(frozen=True)
class Case:
    """One question to the gate."""

    metric: str
    worse_by: float
    rows: int
    replicates: int = 2000


def answers(case: Case, seeds: range) -> list[str]:
    """What the gate says about some samples."""
    apart, metric, said = apart_for(case.metric, case.worse_by), METRICS[case.metric], []
    for seed in seeds:
        chance = np.random.default_rng([seed, case.rows, round(1e6 * (case.worse_by + 1))])
        this, other = pair(case.metric, apart, case.rows, chance)
        design = design_of(this.task, this.target)
        settings = Settings(replicates=case.replicates)
        found = differences([metric], this, other, design, settings)[case.metric]
        better = metric.higher_is_better
        decided = non_inferior(found, case.rows, margin=MARGINS[case.metric], higher_is_better=better)
        said.append(str(decided.outcome))
    return said


def judged(case: Case, repeats: int, pool: ProcessPoolExecutor) -> Counter[str]:
    """How often the gate gave each answer."""
    parts = [range(start, min(start + 25, repeats)) for start in range(0, repeats, 25)]
    return Counter(answer for part in pool.map(partial(answers, case), parts) for answer in part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--power-repeats", type=int, default=200)
    given = parser.parse_args()
    began = time.perf_counter()
    with ProcessPoolExecutor() as pool:
        print(f"at the margin, {given.repeats:,} repeats: per cent that pass (all of them false), fail, cannot say")
        for metric, margin in MARGINS.items():
            for rows in (1000, 5000):
                found = judged(Case(metric, margin, rows), given.repeats, pool)
                share = found["pass"] / given.repeats
                error = 100 * math.sqrt(share * (1 - share) / given.repeats)
                rest = " ".join(f"{100 * found[o] / given.repeats:6.1f}" for o in ("fail", "inconclusive"))
                print(
                    f"{metric:9} margin {margin:<5} {rows:6,} rows  {100 * share:5.1f} ± {error:.1f}  {rest}",
                    flush=True,
                )
        repeats = given.power_repeats
        print(f"roc_auc, margin {MARGINS['roc_auc']}, {repeats:,} repeats: per cent pass / fail, by true difference")
        print(f"{'rows':>7}  " + "  ".join(f"{d:+9.3f}" for d in DIFFERENCES))
        for rows in ROWS:
            cells = []
            for true in DIFFERENCES:
                found = judged(Case("roc_auc", -true, rows, 500), repeats, pool)
                cells.append(f"{100 * found['pass'] / repeats:4.0f}/{100 * found['fail'] / repeats:<4.0f}")
            print(f"{rows:7,}  " + "  ".join(cells), flush=True)
    print(f"({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main()
