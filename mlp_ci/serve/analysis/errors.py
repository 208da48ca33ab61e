"""The error rate: a share of requests, against that of the stable version."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.serve.analysis import intervals, samples
from mlp_ci.serve.analysis.evidence import Array, Table, log_evidence, pooled
from mlp_ci.serve.analysis.level import Level, percent, points, rounded
from mlp_ci.serve.analysis.verdict import Judged, Need, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.measured import Seen
    from mlp_ci.serve.rollout.progress import Stratum
    from mlp_ci.spec.serve import Check

# Worse by the margin, by three times the margin, and by errors that the stable version never has, however few.
WEIGHTS = (0.6, 0.2, 0.2)
NEVER = 1e-9
ASSUMED = 0.01  # errors of a version of which nothing was measured
FEW_ERRORS = 0.1  # of the margin: errors that the old version never had, and that may pass
FEW = 100  # requests that tell nothing of an error rate


def judge(check: Check, strata: Sequence[Stratum], level: Level) -> Judged:
    """What the requests of all steps say, and whether those of the last are enough."""
    margin = float(check.max_increase or 0)
    tables = [_table(s.stable, s.canary) for s in strata]
    now = tables[-1]
    whole = Judged(
        metric=check.metric, verdict=Verdict.INSUFFICIENT, reason="", margin=margin, seen=int(now.canary_rows)
    )
    if not any(t.both for t in tables):
        return _with(whole, Verdict.INSUFFICIENT, no_traffic(now))
    base = float(baseline(tables, margin))
    needed = samples.of_shares(
        rounded(base),
        rounded(base) + margin,
        rounded(float(now.stable_rows / now.canary_rows)) if now.both else 1.0,
        samples.barrier_of(level.alpha, WEIGHTS[0]),
        level.power,
    )
    canary, stable = (float(v) for v in intervals.standardised([t for t in tables if t.both]))
    _, low, high = (float(v) for v in intervals.of_difference(tables, margin, level.alpha, NEVER))
    whole = Judged(
        **{
            **vars(whole),
            "stable": stable,
            "canary": canary,
            "effect": canary - stable,
            "low": low,
            "high": high,
            "needed": needed,
        }
    )
    found = float(evidence(tables, margin))
    if found >= math.log(1 / level.alpha):
        return _with(whole, Verdict.FAIL, _worse(tables, whole, found))
    said = f"{percent(canary)} errors, the old version {percent(stable)}"
    if not now.both:
        return _with(whole, Verdict.INSUFFICIENT, no_traffic(now))
    if _undecided(tables, margin, level.alpha):
        return _with(whole, Verdict.INSUFFICIENT, _unheard_of(tables) + ": cannot tell yet whether that is chance")
    highest = float(intervals.of_difference(tables[-1:], margin, level.alpha, NEVER)[2])
    if highest < margin and now.canary_rows >= samples.LEAST:
        return _with(
            whole, Verdict.PASS, f"{said}: in this step at most {percent(highest)} more, under {percent(margin)}"
        )
    if needed is not None and now.canary_rows >= needed:
        return _with(
            whole,
            Verdict.PASS,
            f"{said}: no harm seen in the {needed:,} requests that {percent(margin)} more would take",
        )
    wanted = f"of the {needed:,} needed" if needed is not None else "so far"
    return _with(whole, Verdict.INSUFFICIENT, f"{said}: {int(now.canary_rows):,} requests {wanted}")


def need(check: Check, stable: Seen, others: float, level: Level) -> Need:
    """Requests of the canary, when ``others`` of the stable version come with each."""
    margin = float(check.max_increase or 0)
    known = stable.requests >= FEW
    base = rounded((stable.errors + 0.5) / (stable.requests + 1) if known else ASSUMED)
    barrier = samples.barrier_of(level.alpha, WEIGHTS[0])
    requests = samples.of_shares(base, base + margin, rounded(others), barrier, level.power)
    assumed = "" if known else " (assumed)"
    return Need(
        metric=check.metric, requests=requests, why=f"{percent(base)}{assumed} → {percent(base + margin)} errors"
    )


def evidence(tables: Sequence[Table], margin: float) -> Array:
    """The logarithm of the e-process; an array where the tables' fields are arrays over looks."""
    base = baseline(tables, margin)
    canary = np.minimum(np.stack([base + margin, base + 3 * margin, np.full_like(base, NEVER)]), 0.999)
    stable = np.minimum(np.stack([base, base, np.zeros_like(base)]), 0.99 * canary)
    return log_evidence(tables, (stable, canary), np.asarray(WEIGHTS))


def baseline(tables: Sequence[Table], margin: float) -> Array:
    """The stable version's share of errors, by both together, if the canary's were worse by the margin."""
    rate, share = pooled(tables)
    return np.maximum(rate - margin * share, rate / 20)


def no_traffic(now: Table) -> str:
    """Why nothing can be said of this step."""
    if not now.canary_rows:
        return "the new version got no requests in this step"
    return "the old version got no requests in this step: nothing to compare with"


def _table(stable: Seen, canary: Seen) -> Table:
    return Table(
        min(stable.errors, stable.requests), stable.requests, min(canary.errors, canary.requests), canary.requests
    )


def _undecided(tables: Sequence[Table], margin: float, alpha: float) -> bool:
    """Errors that the old version never had: they end in a failure, or until they are shown to be very few."""
    if sum(float(t.stable_hits) for t in tables) or not sum(float(t.canary_hits) for t in tables):
        return False
    return float(intervals.of_difference(tables, margin, alpha, NEVER)[2]) > FEW_ERRORS * margin


def _unheard_of(tables: Sequence[Table]) -> str:
    hits, rows, old = (
        int(sum(float(x) for x in v))
        for v in zip(*[(t.canary_hits, t.canary_rows, t.stable_rows) for t in tables], strict=True)
    )
    return f"{hits:,} error{'s' * (hits > 1)} in {rows:,} requests, the old version had none in {old:,}"


def _worse(tables: Sequence[Table], whole: Judged, found: float) -> str:
    hits, rows = (int(sum(x)) for x in zip(*[(t.canary_hits, t.canary_rows) for t in tables], strict=True))
    old_hits, old_rows = (int(sum(x)) for x in zip(*[(t.stable_hits, t.stable_rows) for t in tables], strict=True))
    if not old_hits:
        return _unheard_of(tables)
    assert whole.stable is not None and whole.canary is not None and whole.low is not None and whole.high is not None  # noqa: PT018
    odds = f"{min(math.exp(min(found, 50)), 1e6):,.0f}"
    return (
        f"{percent(whole.canary)} errors, the old version {percent(whole.stable)} ({hits:,} of {rows:,} requests, "
        f"{old_hits:,} of {old_rows:,}): {points(whole.low, whole.high)}, {odds} times as likely if it is worse"
    )


def _with(whole: Judged, verdict: Verdict, reason: str) -> Judged:
    return Judged(**{**vars(whole), "verdict": verdict, "reason": reason})
