"""A quantile of the latency, against that of the stable version: how many requests are slower than harm begins at.

The canary's quantile of level q is at least t exactly when a share of 1 − q or more of its requests takes t or longer.
So with t at the margin (the stable version's quantile, times the ratio or plus the milliseconds) this is a test of two
shares, as of errors.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.serve.analysis import intervals, samples
from mlp_ci.serve.analysis.errors import no_traffic
from mlp_ci.serve.analysis.evidence import Array, Table, log_above, log_evidence, pooled
from mlp_ci.serve.analysis.level import Level, rounded
from mlp_ci.serve.analysis.verdict import Judged, Need, Verdict
from mlp_ci.serve.measured import LATENCY_BOUNDS_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.measured import Seen
    from mlp_ci.serve.rollout.progress import Stratum
    from mlp_ci.spec.serve import Check

WEIGHTS = (0.75, 0.25)
# A version of whose requests fewer than this part of 1 − q are that slow has no worse quantile, whatever the other's
# are: without it a few slow first requests would be strong evidence.
HARMLESS = 0.2
BINS = len(LATENCY_BOUNDS_MS) + 1
EDGES = np.asarray([0.0, *LATENCY_BOUNDS_MS])
ASSUMED = 0.25  # of 1 − q: requests of the stable version beyond the margin, when nothing was measured


def judge(check: Check, strata: Sequence[Stratum], level: Level) -> Judged:
    """What the requests of all steps say, and whether those of the last are enough."""
    q, margin = quantile_of(check.metric), float(check.max_ratio or check.max_increase or 0)
    steps = [(_bins(s.stable), _bins(s.canary)) for s in strata]
    stable, canary = np.sum([old for old, _ in steps], axis=0), np.sum([new for _, new in steps], axis=0)
    tables = [table_of(check, q, step, stable) for step in steps]
    now, used = tables[-1], [t for t in tables if t.both]
    rows = int(now.canary_rows)
    judged = Judged(metric=check.metric, verdict=Verdict.INSUFFICIENT, reason=no_traffic(now), margin=margin, seen=rows)
    if not used:
        return judged
    effect, low, high = effect_of(check, q, (stable, canary), level.alpha)
    needed = _needed(float(baseline(used, 1 - q)), q, float(now.stable_rows / now.canary_rows) if rows else 1.0, level)
    old, new = quantile(stable, q), quantile(canary, q)
    judged = replace(judged, stable=old, canary=new, effect=effect, low=low, high=high, needed=needed)
    said = f"{new:.3g} ms, the old version {old:.3g} ms"
    if evidence(used, 1 - q) >= math.log(1 / level.alpha):
        slow, all_rows = sum(int(t.canary_hits) for t in used), sum(int(t.canary_rows) for t in used)
        reason = f"{said}: {slow:,} of {all_rows:,} requests are slower than {_harm(check, judged)}"
        return judged.failed(reason, 1.0 if check.max_ratio else 0.0)
    if not now.both:
        return judged
    if len(used) > 1 and evidence([now], 1 - q) >= math.log(1 / level.alpha):
        return judged.begun(said)
    _, _, highest = effect_of(check, q, steps[-1], level.alpha)
    if needed is None and (highest is None or highest >= margin):
        return replace(judged, reason=f"{said}: {_show(check, margin)} cannot be told apart by these latencies")
    ruled_out = ""
    if highest is not None and highest < margin and rows >= samples.LEAST:
        ruled_out = f"in this step at most {_show(check, highest)}, under {_show(check, margin)}"
    return judged.ended(said, ruled_out, _show(check, margin))


def need(check: Check, stable: Seen, others: float, level: Level) -> Need:
    """Requests of the canary, when ``others`` of the stable version come with each."""
    q, bins = quantile_of(check.metric), _bins(stable)
    name = check.metric.removeprefix("latency_").removesuffix("_ms")
    rows = bins.sum()
    if rows < 10 / (1 - q):
        base, why = ASSUMED * (1 - q), f"a {name} of {_show(check, float(check.max_ratio or check.max_increase or 0))}"
        return Need(metric=check.metric, requests=_needed(base, q, others, level), why=why)
    at = quantile(bins, q)
    edge = _edge(check, q, bins)
    base = float(bins[edge:].sum()) / rows
    harm = at * check.max_ratio if check.max_ratio else at + float(check.max_increase or 0)
    why = f"a {name} of {at:.3g} → {harm:.3g} ms"
    return Need(metric=check.metric, requests=_needed(base, q, others, level), why=why)


def quantile_of(metric: str) -> float:
    """0.99 of ``latency_p99_ms``."""
    return int(metric.removeprefix("latency_p").removesuffix("_ms")) / 100


def quantile(bins: np.ndarray, q: float) -> float:
    """The quantile in ms, within its bin by the logarithm."""
    wanted, reached = q * bins.sum(), np.cumsum(bins)
    at = int(np.searchsorted(reached, wanted, side="left"))
    at = min(at, BINS - 1)
    if at in (0, BINS - 1):
        return float(EDGES[max(at, 1)])
    part = (wanted - (reached[at] - bins[at])) / max(bins[at], 1)
    return float(EDGES[at] * (EDGES[at + 1] / EDGES[at]) ** part)


def evidence(tables: Sequence[Table], harm: float) -> Array:
    """The logarithm of the e-process that more of the canary's requests are slow, ``harm`` or three times as many."""
    stable = np.maximum(baseline(tables, harm), HARMLESS * harm)
    most = np.asarray([harm, min(0.95, 3 * harm) if harm < 0.4 else 0.5 + harm / 2])
    canary = np.broadcast_to(most.reshape(-1, *[1] * np.ndim(stable)), (2, *np.shape(stable)))
    found = log_evidence(tables, (np.minimum(stable, 0.99 * canary), canary), np.asarray(WEIGHTS))
    return np.minimum(found, log_above(tables, canary, np.asarray(WEIGHTS), HARMLESS * harm))


def baseline(tables: Sequence[Table], harm: float) -> Array:
    """The stable version's share of slow requests, by both together, if the canary's were ``harm``."""
    rate, share = pooled(tables)
    return np.maximum((rate - share * harm) / np.maximum(1 - share, 1e-9), 0.0)


def effect_of(
    check: Check, q: float, both: tuple[np.ndarray, np.ndarray], alpha: float
) -> tuple[float | None, float | None, float | None]:
    """Ratio or difference of the quantiles with its bounds, half of alpha for each version."""
    if not all(b.sum() for b in both):
        return None, None, None
    (old_low, old_high), (low, high) = (quantile_bounds(b, q, alpha / 2) for b in both)
    old, new = (quantile(b, q) for b in both)
    if check.max_ratio is not None:
        return (
            new / old,
            low / old_high if old_high else 0.0,
            high / old_low if old_low and math.isfinite(high) else None,
        )
    return (
        new - old,
        low - old_high if math.isfinite(old_high) else None,
        high - old_low if math.isfinite(high) else None,
    )


def quantile_bounds(bins: np.ndarray, q: float, alpha: float) -> tuple[float, float]:
    """Bounds of a quantile in ms at all looks at once, rounded outwards to the bins.

    Those values whose share of smaller requests could be q (Howard & Ramdas 2022, "Sequential estimation of quantiles
    with applications to A/B testing and best-arm identification": the quantile of a stream is tested by the coin flips
    "not above it", here by the beta-binomial mixture).
    """
    rows, below = float(bins.sum()), np.cumsum(bins)
    inside = intervals.holds(below, rows, q, alpha)
    under, over = np.flatnonzero(~inside & (below / rows < q)), np.flatnonzero(~inside & (below / rows > q))
    low = float(EDGES[under[-1] + 1]) if under.size and under[-1] + 1 < len(EDGES) else 0.0
    high = float(EDGES[over[0] + 1]) if over.size and over[0] + 1 < len(EDGES) else math.inf
    return low, high


def table_of(check: Check, q: float, both: tuple[np.ndarray, np.ndarray], all_stable: np.ndarray) -> Table:
    stable, canary = both
    enough = stable.sum() * (1 - q) >= 20  # else the quantile is taken from all steps
    edge = _edge(check, q, stable if enough else all_stable)
    return Table(stable[edge:].sum(), stable.sum(), canary[edge:].sum(), canary.sum())


def _edge(check: Check, q: float, stable: np.ndarray) -> int:
    """The first bin beyond the margin: from the last edge that is not above it, but above the stable quantile's bin."""
    at = quantile(stable, q)
    harm = at * check.max_ratio if check.max_ratio else at + float(check.max_increase or 0)
    below = bisect_right(LATENCY_BOUNDS_MS, harm) - 1
    return max(below, bisect_left(LATENCY_BOUNDS_MS, at)) + 1


def _needed(base: float, q: float, others: float, level: Level) -> int | None:
    if base > 0.9 * (1 - q):
        return None
    stable = rounded(max(base, HARMLESS * (1 - q)))
    return samples.of_shares(stable, 1 - q, rounded(others), samples.barrier_of(level.alpha, WEIGHTS[0]), level.power)


def _bins(seen: Seen) -> np.ndarray:
    found = np.zeros(BINS)
    for index, count in seen.latency.items():
        found[min(max(index, 0), BINS - 1)] += max(count, 0)
    return found


def _harm(check: Check, whole: Judged) -> str:
    assert whole.stable is not None
    at = whole.stable * check.max_ratio if check.max_ratio else whole.stable + float(check.max_increase or 0)
    return f"{at:.3g} ms ({_show(check, whole.margin)})"


def _show(check: Check, value: float) -> str:
    return f"{value:.3g} times the old one's" if check.max_ratio else f"{value:.3g} ms more"
