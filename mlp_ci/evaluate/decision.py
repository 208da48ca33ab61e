"""Yes, no, or the rows do not say: what an estimate with its bounds decides about a limit. Pure.

A limit is met when the one-sided bound at the gate's confidence is on its good side, and missed when the other bound is
on its bad side. So at most ``1 - confidence`` of the models that do not meet it pass, and as few that do meet it fail.

A bootstrap's bounds are right on average and a little off for one metric or another: taken exactly at the confidence,
5.2 (± 0.2) instead of 5 in 100 passed falsely in simulation. So they are taken at nine tenths of the error allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlp_ci.evaluate.bootstrap.estimate import UNDEFINED
from mlp_ci.report import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.evaluate.bootstrap.estimate import Estimate

PROBABLY = 0.8  # the chance that as many rows as ``rows_needed`` decide it
# An estimate so near to its limit that a thousand times the rows were needed says only that it is near.
MOST_TIMES = 1000
CAUTION = 0.9


@dataclass(frozen=True, kw_only=True)
class Decision:
    """``p_pass`` is the p-value of "the limit is missed", ``p_fail`` of "it is met"; None without an interval.

    ``rows_needed`` is how many rows in all would probably (80 %) decide it if the estimate is right; None where it is
    decided, or where no sensible number would do.
    """

    outcome: Outcome
    p_pass: float | None = None
    p_fail: float | None = None
    rows_needed: int | None = None


def within(
    estimate: Estimate,
    rows: int,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    confidence: float = 0.95,
) -> Decision:
    """Whether the true value is at least ``minimum`` and at most ``maximum``; ``rows`` is what the estimate is from."""
    value = estimate.value
    if not math.isfinite(value) or estimate.method == UNDEFINED:
        return Decision(outcome=Outcome.INCONCLUSIVE)
    belief = estimate.belief
    if belief is None:
        met = (minimum is None or value >= minimum) and (maximum is None or value <= maximum)
        return Decision(outcome=Outcome.PASS if met else Outcome.FAIL)
    error = CAUTION * (1 - confidence)
    low, high = belief.bound(error), belief.bound(1 - error)
    passing, failing = [0.0], [1.0]
    if minimum is not None:
        passing.append(belief.p_at_least(minimum))
        failing.append(max(belief.p_at_most(minimum), 1 - passing[-1]))
    if maximum is not None:
        passing.append(belief.p_at_most(maximum))
        failing.append(max(belief.p_at_least(maximum), 1 - passing[-1]))
    p_pass, p_fail = max(passing), min(failing)
    if (minimum is None or low >= minimum) and (maximum is None or high <= maximum):
        outcome = Outcome.PASS
    elif (minimum is not None and high < minimum) or (maximum is not None and low > maximum):
        outcome = Outcome.FAIL
    else:
        needed = rows_needed(value, (low, high), rows, (minimum, maximum), confidence)
        return Decision(outcome=Outcome.INCONCLUSIVE, p_pass=p_pass, p_fail=p_fail, rows_needed=needed)
    return Decision(outcome=outcome, p_pass=p_pass, p_fail=p_fail)


def non_inferior(
    difference: Estimate, rows: int, *, margin: float, higher_is_better: bool, confidence: float = 0.95
) -> Decision:
    """Whether this model is worse than the other by at most ``margin`` (>= 0); ``difference`` is this minus other.

    With a margin of 0 it must be shown to be no worse at all: it passes when it is clearly better, or when the two
    cannot differ because their predictions are the same.
    """
    if higher_is_better:
        return within(difference, rows, minimum=-margin, confidence=confidence)
    return within(difference, rows, maximum=margin, confidence=confidence)


def rows_needed(
    value: float,
    bounds: tuple[float, float],
    rows: int,
    limits: tuple[float | None, float | None],
    confidence: float,
) -> int | None:
    """How many rows in all would probably decide it, if the true value is ``value``.

    ``bounds`` are the lower and upper one-sided bounds at ``confidence``. Their distance h from the value shrinks with
    the square root of the rows. To be decided with chance 80 %, the distance d to the limit must be as large as the
    bound's distance and what the value itself varies by: rows * (h / d * (z_confidence + z_80) / z_confidence)^2.
    """
    from scipy.special import ndtri

    minimum, maximum = limits
    factor = 1 + float(ndtri(PROBABLY)) / float(ndtri(confidence))
    needed = []
    for limit, good in ((minimum, value - (minimum or 0)), (maximum, (maximum or 0) - value)):
        if limit is None:
            continue
        distance = abs(good)
        reach = value - bounds[0] if limit <= value else bounds[1] - value
        # In this order, because a distance may be too small to divide by.
        hopeless = reach * factor > distance * math.sqrt(MOST_TIMES)
        needed.append((good < 0, math.inf if hopeless else rows * (reach / distance * factor) ** 2))
    missed = [n for bad, n in needed if bad]
    most = max(missed or [n for _, n in needed])
    if not math.isfinite(most):
        return None
    return max(rows + 1, math.ceil(most))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given: the chance of one false finding among all is held."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
