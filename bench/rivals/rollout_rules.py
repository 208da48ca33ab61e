"""The rules by which others abort a canary, as their documentation and sources state them, on simulated streams.

- Flagger, documented example (fluxcd.io/flagger/usage/metrics): each minute the share of good requests must be at least
  99 %; rolled back after ``threshold`` failed checks (5), which are counted over the whole analysis; steps of 10 % up
  to 50 %, a minute each.
- Argo Rollouts, documented example (docs/features/analysis.md): every 5 minutes the share of good requests must be at
  least 95 %; more than ``failureLimit`` (3) failures abort.
- Kayenta (NetflixACAJudge, MannWhitneyClassifier): error rate by minute in both arms; fails when the lower 98 %
  confidence bound of the Hodges-Lehmann shift is above a quarter of the shift.

The documented thresholds know nothing of 1 % → 2 %, so each also gets a threshold half way between (98.5 %), and as
much time in each step as mlp-ci takes at 10 requests/s. An interval without requests is neither good nor bad for Argo;
Flagger does not advance without traffic, which is no abort until its deadline.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

RATE = 10.0  # requests per second, all versions
MINUTES = {1: 315, 10: 36, 50: 14}  # that the default analysis of mlp-ci asks for in each step
Z98 = 2.3263  # of a two-sided interval at 98 %


def games(_: Any) -> dict[str, Callable[[Any, np.random.Generator], int | None]]:
    """Title → rule; a rule says the step in which it aborted."""
    flagger = {10: 1, 20: 1, 30: 1, 40: 1, 50: 1}
    return {
        "Flagger's documented example (99 %, 5 failed minutes, 10 to 50 % in 5 minutes)": partial(
            watched, minutes=flagger, window=1, least=0.99, failures=5
        ),
        "Flagger's rule at 98.5 %, 5 failed minutes, mlp-ci's steps": partial(
            watched, minutes=MINUTES, window=1, least=0.985, failures=5
        ),
        "Argo Rollouts' documented example (95 %, every 5 minutes, failureLimit 3), mlp-ci's steps": partial(
            watched, minutes=MINUTES, window=5, least=0.95, failures=4
        ),
        "Argo Rollouts' rule at 98.5 %, mlp-ci's steps": partial(
            watched, minutes=MINUTES, window=5, least=0.985, failures=4
        ),
        "Kayenta's judge on error rates by minute, once at the end of each of mlp-ci's steps": kayenta,
    }


def watched(
    truth: Any, chance: np.random.Generator, *, minutes: dict[int, int], window: int, least: float, failures: int
) -> int | None:
    """Checks of a share of good requests in windows of some minutes; failures are counted over the whole rollout."""
    failed = 0
    for index, (weight, length) in enumerate(minutes.items()):
        requests = chance.poisson(RATE * 60 * window * weight / 100, max(1, length // window))
        bad = chance.binomial(requests, truth.canary)
        failed += int(np.sum(bad[requests > 0] / requests[requests > 0] > 1 - least + 1e-12))
        if failed >= failures:
            return min(index, len(truth.steps) - 1)
    return None


def kayenta(truth: Any, chance: np.random.Generator) -> int | None:
    """Mann-Whitney with its confidence interval of the shift, each step judged by itself."""
    for index, (weight, length) in enumerate(MINUTES.items()):
        rates = []
        for share, errors in ((1 - weight / 100, truth.stable), (weight / 100, truth.canary)):
            requests = chance.poisson(RATE * 60 * share, length)
            rates.append(chance.binomial(requests, errors)[requests > 0] / requests[requests > 0])
        control, experiment = rates
        if np.array_equal(control, experiment) or not experiment.size:
            continue
        apart = np.sort(np.subtract.outer(experiment, control).ravel())
        estimate = float(np.median(apart))
        if _lower(apart, len(experiment), len(control)) > 0.25 * abs(estimate):
            return index
    return None


def _lower(apart: np.ndarray, one: int, other: int) -> float:
    """The lower confidence bound of the shift, an order statistic of all differences (Hollander & Wolfe, chapter 4)."""
    middle, sd = one * other / 2, math.sqrt(one * other * (one + other + 1) / 12)
    at = math.floor(middle - Z98 * sd)
    return float(apart[at - 1]) if at >= 1 else -math.inf
