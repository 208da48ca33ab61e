"""Metrics that labels give once they come: a mean of each version with its variance; two-sided where both ways harm."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.serve.analysis import intervals, samples
from mlp_ci.serve.analysis.evidence import log_average
from mlp_ci.serve.analysis.verdict import Judged, Need, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.analysis.level import Level
    from mlp_ci.serve.measured import Seen
    from mlp_ci.serve.rollout.progress import Stratum
    from mlp_ci.spec.serve import Check

LEAST = 30  # labelled rows of each version: the test is asymptotic
NOTHING = 1e-12  # of the margin's square: a variance that is none
FACTORS, WEIGHTS = (1.0, 2.0), (0.75, 0.25)  # worse by the margin, and by twice as much


def judge(check: Check, strata: Sequence[Stratum], level: Level) -> Judged:
    """By the newest means, which are of the whole rollout."""
    allowed, harm = float(check.max_drop or 0), harmful(check.metric)
    margin = -allowed if harm == (-1,) else allowed
    judged = Judged(metric=check.metric, verdict=Verdict.INSUFFICIENT, reason="no labels have come yet", margin=margin)
    old, new = (s.means.get(check.metric) for s in (strata[-1].stable, strata[-1].canary))
    if new is None or old is None:
        return judged
    rows = min(old[0], new[0])
    judged = replace(judged, seen=new[0])
    if not all(math.isfinite(v) for v in (*old[1:], *new[1:])) or min(old[2], new[2]) < 0:
        return replace(judged, reason="it is not defined on the labels that have come")
    effect = new[1] - old[1]
    judged = replace(judged, stable=old[1], canary=new[1], effect=effect)
    if rows < LEAST:
        return replace(judged, reason=f"{rows:,} labels, at least {LEAST} are needed of each version")
    variance = old[2] / old[0] + new[2] / new[0]
    radius = intervals.radius_of_mean(variance, level.alpha, allowed)
    barrier = samples.barrier_of(level.alpha, WEIGHTS[0] / len(harm))
    needed = samples.of_means(variance * new[0], allowed, barrier, level.power) or samples.LEAST
    judged = replace(judged, low=effect - radius, high=effect + radius, needed=needed)
    said = f"{new[1]:.4g}, the old version {old[1]:.4g}"
    if log_evidence(effect, variance, allowed, harm) >= math.log(1 / level.alpha):
        failed = judged.failed("", 0.0)
        return replace(failed, reason=f"{said}: {failed.low or 0:+.2g} to {failed.high or 0:+.2g}")
    proven = max(side * effect for side in harm) + radius < allowed
    ruled_out = f"worse by {allowed:.3g} is ruled out" if proven else ""
    return judged.ended(said, ruled_out, f"{allowed:.3g}", "labelled rows")


def need(check: Check, stable: Seen, others: float, level: Level) -> Need:
    """Labelled rows of the canary, when ``others`` of the stable version come with each."""
    allowed, harm = float(check.max_drop or 0), harmful(check.metric)
    known = stable.means.get(check.metric)
    if known is None or not known[2] > 0 or not math.isfinite(known[2]):
        return Need(metric=check.metric, requests=None, why="known once labels come", unit="labelled rows")
    barrier = samples.barrier_of(level.alpha, WEIGHTS[0] / len(harm))
    rows = samples.of_means(known[2] * (1 + 1 / others), allowed, barrier, level.power)
    return Need(metric=check.metric, requests=rows, why=f"{check.metric} worse by {allowed:.3g}", unit="labelled rows")


def harmful(metric: str) -> tuple[int, ...]:
    """The directions in which a change is harm: −1 where more is better, 1 where less is, both for any other."""
    from mlp_ci.errors import InputError
    from mlp_ci.evaluate.metrics import metric_called

    try:
        found = metric_called(metric)
    except InputError:
        return (-1, 1)
    if not found.comparable:
        return (-1, 1)
    return (-1,) if found.higher_is_better else (1,)


def log_evidence(effect: float, variance: float, allowed: float, harm: Sequence[int]) -> float:
    """The logarithm of the mixture sequential probability ratio for a difference of the allowed one, or twice it."""
    if variance <= NOTHING * allowed**2:
        return math.inf if max(side * effect for side in harm) >= allowed else -math.inf
    sizes = np.asarray([side * factor * allowed for side in harm for factor in FACTORS])
    weights = np.asarray([w / len(harm) for _ in harm for w in WEIGHTS])
    return float(log_average([sizes * (effect - sizes / 2) / variance], weights))
