"""How often rollouts are aborted, in simulation: harmless versions at most 5 times in 100, twice the errors 80 times.

Each line is `--repeats` rollouts (2,000) of one version through steps of 1, 10 and 50 % with the sample that the
analysis asks for, and says how many were aborted in the first step, by the end of the second, by the end of the third.
Evidence is looked at after every request of the new version, of which there is at most one a second at 10 requests/s
(at 50 % after every fifth and after every error: at least once a second); `once` looks at the end of each step only.
Then the whole analysis as `deploy` runs it, whose steps end when it says so; then the rules of Kayenta, Argo Rollouts
and Flagger on streams of the same kind.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import NormalDist

import numpy as np

from mlp_ci.serve.analysis import Design, analyse, errors, labelled, latency, predictions, required
from mlp_ci.serve.analysis.evidence import Table
from mlp_ci.serve.measured import LATENCY_BOUNDS_MS, Seen
from mlp_ci.serve.rollout.progress import Stratum
from mlp_ci.spec.serve import DEFAULT_ANALYSIS, Check

sys.path.insert(0, str(Path(__file__).parent / "rivals"))
import rollout_rules

STEPS = (1, 10, 50)
DESIGN = Design(false_abort=0.05, power=0.8)
LOOKS = 40  # of a step, where each costs a new histogram
BINS = len(LATENCY_BOUNDS_MS) + 1


@dataclass(frozen=True)
class Truth:
    """One version beside another. Latencies are log-normal, predictions of both beta-like, labels right or wrong."""

    name: str
    stable: float = 0.01  # share of errors
    canary: float = 0.01
    slower: float = 1.0  # the canary's latencies, times
    spread: float = 0.5  # of the logarithm of latencies
    shifted: float = 0.0  # distance of the predictions
    accuracy: float = 0.9  # of the canary; 0.9 of the stable version
    tide: float = 1.0  # errors of both go up and down by this factor during each step
    uneven: float = 0.0  # of the logarithm of what a user's requests weigh: sticky arms get another share than asked
    margin: float = 0.01
    steps: Sequence[int] = STEPS


def errors_of(truth: Truth, chance: np.random.Generator, *, once: bool = False) -> int | None:
    """The step in which a rollout that checks the error rate alone was aborted."""
    check = Check(metric="error_rate", max_increase=truth.margin)
    past: list[Table] = []
    for index, weight in enumerate(truth.steps):
        needed = asked(check, truth, weight)
        share = weight / 100
        if truth.uneven:
            odds = share / (1 - share) * math.exp(chance.normal(0, truth.uneven))
            share = odds / (1 + odds)
        rows = np.arange(1.0, needed + 1)
        between = chance.geometric(share, needed) - 1
        tide = np.exp(math.log(truth.tide) * np.sin(np.linspace(0, 2 * np.pi, needed)))
        hits = np.cumsum(chance.random(needed) < truth.canary * tide)
        old = np.cumsum(chance.binomial(between, np.minimum(truth.stable * tide, 1)))
        now = Table(old.astype(float), np.cumsum(between).astype(float), hits.astype(float), rows)
        if weight > 10:  # five requests a second: every fifth, and each that brought an error
            looks = (rows % 5 == 0) | (np.diff(hits, prepend=0) > 0) | (rows == needed)
            now = Table(*(column[looks] for column in vars(now).values()))
        found = errors.evidence([*past, now], truth.margin)
        if (found[-1] if once else found.max()) >= math.log(1 / DESIGN.false_abort):
            return index
        past.append(Table(*(float(column[-1]) for column in vars(now).values())))
    return None


@cache
def asked(check: Check, truth: Truth, weight: int) -> int:
    """The sample that the analysis asks for before a step, knowing the stable version well."""
    known = Seen(
        requests=1_000_000,
        errors=round(1_000_000 * truth.stable),
        latency=_counts(_slow(truth, 1.0) * 1e6),
        predictions={f"p{k:02d}": 10_000 for k in range(100)},
        means={"accuracy": (1_000_000, 0.9, 0.09)},
    )
    return max(need.requests or 0 for need in required([check], weight, DESIGN, known))


def latency_of(truth: Truth, chance: np.random.Generator, *, metric: str = "latency_p99_ms") -> int | None:
    """The same for a quantile of the latency that may double."""
    check, q = Check(metric=metric, max_ratio=2.0), latency.quantile_of(metric)
    old_shares, shares = _slow(truth, 1.0), _slow(truth, truth.slower)
    past: list[tuple[np.ndarray, np.ndarray]] = []
    for index, weight in enumerate(truth.steps):
        sizes = _sizes(asked(check, truth, weight))
        stable = np.cumsum([chance.multinomial(_others(n, weight, chance), old_shares) for n in sizes], axis=0)
        canary = np.cumsum([chance.multinomial(n, shares) for n in sizes], axis=0)
        for both in zip(stable, canary, strict=True):
            steps = [*past, both]
            whole = np.sum([s for s, _ in steps], axis=0)
            tables = [latency.table_of(check, q, step, whole) for step in steps]
            if float(latency.evidence(tables, 1 - q)) >= math.log(1 / DESIGN.false_abort):
                return index
        past.append((stable[-1], canary[-1]))
    return None


def predictions_of(truth: Truth, chance: np.random.Generator, *, categories: int = 0) -> int | None:
    """The same for predictions that may be 0.1 apart: numbers from 0 to 1, or categories."""
    check = Check(metric="predictions", max_distance=0.1)
    old_shares, shares, names = _predicted(truth.shifted, categories)
    past: list[tuple[dict[str, int], dict[str, int]]] = []
    for index, weight in enumerate(truth.steps):
        sizes = _sizes(asked(check, truth, weight))
        stable = np.cumsum([chance.multinomial(_others(n, weight, chance), old_shares) for n in sizes], axis=0)
        canary = np.cumsum([chance.multinomial(n, shares) for n in sizes], axis=0)
        for old, new in zip(stable, canary, strict=True):
            here = (_named(names, old), _named(names, new))
            steps = [*past, here]
            sets = predictions.sets_of([counts for both in steps for counts in both])
            tables = [predictions.table_of(_one_row_each(o), _one_row_each(n), sets) for o, n in steps]
            if len(sets.members) and predictions.evidence(tables, 0.1) >= math.log(1 / DESIGN.false_abort):
                return index
        past.append(here)
    return None


def labels_of(truth: Truth, chance: np.random.Generator) -> int | None:
    """The same for an accuracy that may drop by 0.02; means are of the whole rollout, so there is one step."""
    sizes = np.cumsum(_sizes(asked(Check(metric="accuracy", max_drop=0.02), truth, 50)))
    right = [np.cumsum(chance.random(sizes[-1]) < share)[sizes - 1] / sizes for share in (0.9, truth.accuracy)]
    for old, new, n in zip(*right, sizes, strict=True):
        variance = (old * (1 - old) + new * (1 - new)) / n
        if n >= labelled.LEAST and labelled.log_evidence(new - old, variance, 0.02, (-1,)) >= math.log(20):
            return 0
    return None


def whole_of(truth: Truth, chance: np.random.Generator) -> int | None:
    """The default analysis as a controller runs it, some 20 looks a step: on when it passes; None when all did."""
    past: list[Stratum] = []
    old_shares, shares = _slow(truth, 1.0), _slow(truth, truth.slower)
    for index, weight in enumerate(truth.steps):
        size = max(1, max(asked(check, truth, weight) for check in DEFAULT_ANALYSIS) // 20)
        now = Stratum(weight=weight, started="")
        while True:
            others = _others(size, weight, chance)
            new = Seen(
                requests=size,
                errors=chance.binomial(size, truth.canary),
                latency=_counts(chance.multinomial(size, shares)),
            )
            old = Seen(
                requests=others,
                errors=chance.binomial(others, truth.stable),
                latency=_counts(chance.multinomial(others, old_shares)),
            )
            now = replace(now, stable=now.stable.plus(old), canary=now.canary.plus(new))
            found = analyse(DEFAULT_ANALYSIS, [*past, now], DESIGN)
            if found.verdict == "fail":
                return index
            if found.verdict == "pass" or now.canary.requests > 400 * size:
                break
        past.append(now)
    return None


def _sizes(needed: int) -> np.ndarray:
    return np.diff(np.linspace(0, needed, LOOKS + 1).astype(int))


def _others(requests: int, weight: float, chance: np.random.Generator) -> int:
    """Requests of the stable version while the canary answered so many."""
    return int(chance.negative_binomial(requests, weight / 100)) if requests else 0


@cache
def _slow(truth: Truth, slower: float) -> np.ndarray:
    """Shares of the latency bins of a log-normal with a median of 5 ms."""
    below = [NormalDist().cdf(math.log(bound / (5 * slower)) / truth.spread) for bound in LATENCY_BOUNDS_MS]
    return np.diff(np.concatenate([[0.0], below, [1.0]]))


def _predicted(apart: float, categories: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Shares of predictions in stable and canary that are ``apart``, and the names of their bins."""
    if categories:
        names = [f"=class {k}" for k in range(categories)]
        old = np.arange(categories, 0, -1.0)
        old /= old.sum()
        half = np.where(np.arange(categories) % 2 == 0, -1.0, 1.0) * old
        half = np.where(half < 0, half / -half[half < 0].sum(), half / half[half > 0].sum())
        return old, old + apart * half, names
    names = [f"p{k:02d}" for k in range(100)]
    old = np.full(100, 0.01)
    middle = np.where(np.arange(100) < 50, -1.0, 1.0) / 50
    return old, old + apart * middle, names


def _counts(bins: np.ndarray) -> dict[int, int]:
    return {int(k): int(bins[k]) for k in np.flatnonzero(bins)}


def _named(names: Sequence[str], counts: np.ndarray) -> dict[str, int]:
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def _one_row_each(counts: dict[str, int]) -> Seen:
    return Seen(requests=sum(counts.values()), predictions=counts)


Game = Callable[[Truth, np.random.Generator], int | None]


def _some(game: Game, truth: Truth, seeds: range) -> Counter[int | None]:
    return Counter(game(truth, np.random.default_rng([seed, 6])) for seed in seeds)


def played(game: Game, truth: Truth, repeats: int, pool: ProcessPoolExecutor) -> str:
    """Per cent aborted by the end of each step, as text; the standard error is at most 1.1 points at 2,000."""
    parts = [range(start, min(start + 50, repeats)) for start in range(0, repeats, 50)]
    found: Counter[int | None] = sum(pool.map(partial(_some, game, truth), parts), Counter())
    aborted = np.cumsum([found[index] for index in range(len(truth.steps))])
    return "  ".join(f"{100 * count / repeats:6.2f}" for count in aborted)


ERRORS = (
    Truth("1 % → 1 % errors"),
    Truth("1 % → 1 %, of both by the time of day, 3 times more, 3 times less", tide=3.0),
    Truth("1 % → 1 %, sticky arms that get another share than asked", uneven=0.5),
    Truth("0.1 % → 0.1 %", stable=0.001, canary=0.001),
    Truth("5 % → 5 %, margin 3 points", stable=0.05, canary=0.05, margin=0.03),
    Truth("1 % → 1 %, one step of 50 %", steps=(50,)),
    Truth("1 % → 1.25 %, a quarter of the margin", canary=0.0125),
    Truth("1 % → 1.5 %, half of the margin", canary=0.015),
    Truth("1 % → 2 %, the margin", canary=0.02),
    Truth("1 % → 2 %, one step of 50 %", canary=0.02, steps=(50,)),
    Truth("0.1 % → 1.1 %", stable=0.001, canary=0.011),
    Truth("5 % → 8 %, margin 3 points", stable=0.05, canary=0.08, margin=0.03),
    Truth("0 → 1 %", stable=0.0, canary=0.01),
    Truth("0 → 2 %", stable=0.0, canary=0.02),
)
LATENCIES = (
    Truth("p99 the same"),
    Truth("p99 the same, heavy tail", spread=1.2),
    Truth("p99 the same, one step of 50 %, heavy tail", spread=1.2, steps=(50,)),
    Truth("p99 1.4 times", slower=1.4),
    Truth("p99 twice, the margin", slower=2.0),
    Truth("p99 twice, heavy tail", slower=2.0, spread=1.2),
)
PREDICTIONS = (
    Truth("predictions the same"),
    Truth("0.05 apart, half of the margin", shifted=0.05),
    Truth("0.1 apart, the margin", shifted=0.1),
)
LABELS = (
    Truth("accuracy the same", steps=(50,)),
    Truth("accuracy 0.02 lower, the margin", accuracy=0.88, steps=(50,)),
)
WHOLE = (
    Truth("as before"),
    Truth("1 % → 2 % errors", canary=0.02),
    Truth("p99 twice", slower=2.0),
    Truth("0 → 1 % errors", stable=0.0, canary=0.01),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--only", choices=("errors", "latency", "predictions", "labels", "whole", "rivals"))
    given = parser.parse_args()
    sections: tuple[tuple[str, str, Game, Sequence[Truth]], ...] = (
        ("errors", "errors, margin 1 point, every look", errors_of, ERRORS),
        ("errors", "the same, once a step", partial(errors_of, once=True), (ERRORS[0], ERRORS[8])),
        ("latency", f"p99 of the latency, margin twice, {LOOKS} looks a step", latency_of, LATENCIES),
        ("predictions", f"predictions from 0 to 1, margin 0.1, {LOOKS} looks a step", predictions_of, PREDICTIONS),
        ("predictions", "predictions of 5 categories", partial(predictions_of, categories=5), PREDICTIONS),
        ("labels", f"accuracy by labels, margin 0.02, {LOOKS} looks", labels_of, LABELS),
        ("whole", "the default analysis (errors, refusals, p99), steps end as it says", whole_of, WHOLE),
        *(
            ("rivals", name, game, tuple(WHOLE[i] for i in (0, 1, 3)))
            for name, game in rollout_rules.games(Truth).items()
        ),
    )
    print(f"{given.repeats:,} rollouts each: per cent aborted by the end of each step (1, 10, 50 %)")
    print("must be: harmless at most 5 by the last; worse by the margin at least 80 by the second; 0 → some all")
    with ProcessPoolExecutor() as pool:
        for kind, title, game, truths in sections:
            if given.only in (None, kind):
                began = time.perf_counter()
                print(f"\n{title}", flush=True)
                for truth in truths:
                    print(f"  {truth.name:68} {played(game, truth, given.repeats, pool)}", flush=True)
                print(f"  ({time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
