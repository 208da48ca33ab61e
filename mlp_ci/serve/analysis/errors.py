"""The rates of errors and of refusals: shares of requests, against those of the stable version."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mlp_ci.serve.analysis import intervals, samples
from mlp_ci.serve.analysis.evidence import Array, Table, log_above, log_evidence, pooled
from mlp_ci.serve.analysis.level import Level, percent, points, rounded
from mlp_ci.serve.analysis.verdict import Judged, Need, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.measured import Seen
    from mlp_ci.serve.rollout.progress import Stratum
    from mlp_ci.spec.serve import Check


@dataclass(frozen=True)
class Rate:
    """What is counted, and what the evidence is for.

    ``weights`` are of a version that is worse by the margin, by three times the margin, and by hits that the stable
    version never has, however few. A canary that has them more rarely than ``floor`` of the margin does not fail,
    however few the stable version has: a few in a row, as from one client, are no harm.
    """

    field: str
    noun: str
    weights: tuple[float, float, float]
    floor: float = 0.0

    def table(self, stratum: Stratum) -> Table:
        """The hits of both versions in one step."""
        old, new = stratum.stable, stratum.canary
        hits, more = getattr(old, self.field), getattr(new, self.field)
        return Table(min(hits, old.requests), old.requests, min(more, new.requests), new.requests)


RATES = {
    "error_rate": Rate("errors", "errors", (0.6, 0.2, 0.2)),
    # What a client sends wrongly, several times in a row, is no fault of the version that it meets.
    "rejection_rate": Rate("rejected", "refused", (0.75, 0.25, 0.0), floor=0.25),
}
NEVER = 1e-9
ASSUMED = 0.01  # hits of a version of which nothing was measured
FEW = 100  # requests that tell nothing of a rate
FEWEST = 2  # errors of the new version that may end a rollout: one is chance, whatever the odds
FEW_ERRORS = 0.1  # of the margin: errors that the old version never had, and that may pass


def judge(check: Check, strata: Sequence[Stratum], level: Level) -> Judged:
    """What the requests of all steps say, and whether those of the last are enough."""
    rate, margin = RATES[check.metric], float(check.max_increase or 0)
    tables = [rate.table(s) for s in strata]
    now, used = tables[-1], [t for t in tables if t.both]
    judged = Judged(
        metric=check.metric,
        verdict=Verdict.INSUFFICIENT,
        reason=no_traffic(now),
        margin=margin,
        seen=int(now.canary_rows),
    )
    if not used:
        return judged
    canary, stable = (float(v) for v in intervals.standardised(used))
    _, low, high = (float(v) for v in intervals.of_difference(used, margin, level.alpha, NEVER))
    needed = _needed(
        rate, margin, (_share([t.stable_hits for t in used], [t.stable_rows for t in used]), _others(now)), level
    )
    judged = replace(judged, stable=stable, canary=canary, effect=canary - stable, low=low, high=high, needed=needed)
    found = float(evidence(used, margin, rate))
    if found >= math.log(1 / level.alpha) and sum(float(t.canary_hits) for t in used) >= FEWEST:
        failed = judged.failed("", 0.0)
        return replace(failed, reason=_worse(used, failed, (found, rate)))
    if not now.both:
        return judged
    if rate.weights[2] and _undecided(used, judged):
        return replace(judged, reason=_unheard_of(used, rate) + ": cannot tell yet whether that is chance")
    said = f"{percent(canary)} {rate.noun}, the old version {percent(stable)}"
    if len(used) > 1 and float(evidence([now], margin, rate)) >= math.log(1 / level.alpha):
        return judged.begun(said)
    highest = float(intervals.of_difference([now], margin, level.alpha, NEVER)[2])
    proven = highest < margin and judged.seen >= samples.LEAST
    ruled_out = f"in this step at most {percent(highest)} more, under {percent(margin)}" if proven else ""
    return judged.ended(said, ruled_out, f"{percent(margin)} more")


def need(check: Check, stable: Seen, others: float, level: Level) -> Need:
    """Requests of the canary, when ``others`` of the stable version come with each."""
    rate, margin = RATES[check.metric], float(check.max_increase or 0)
    known = stable.requests >= FEW
    base = _share([getattr(stable, rate.field)], [stable.requests]) if known else ASSUMED
    assumed = "" if known else " (assumed)"
    why = f"{percent(rounded(base))}{assumed} → {percent(rounded(base) + margin)} {rate.noun}"
    return Need(metric=check.metric, requests=_needed(rate, margin, (base, others), level), why=why)


def evidence(tables: Sequence[Table], margin: float, rate: Rate = RATES["error_rate"]) -> Array:
    """The logarithm of the e-process; an array where the tables' fields are arrays over looks."""
    base = np.maximum(baseline(tables, margin), rate.floor * margin)
    canary = np.minimum(np.stack([base + margin, base + 3 * margin, np.full_like(base, NEVER)]), 0.999)
    stable = np.minimum(np.stack([base, base, np.zeros_like(base)]), 0.99 * canary)
    used = [i for i, weight in enumerate(rate.weights) if weight]
    weights = np.asarray(rate.weights)[used]
    found = log_evidence(tables, (stable[used], canary[used]), weights)
    return np.minimum(found, log_above(tables, canary[used], weights, rate.floor * margin)) if rate.floor else found


def baseline(tables: Sequence[Table], margin: float) -> Array:
    """The stable version's share of hits, by both together, if the canary's were worse by the margin."""
    rate, share = pooled(tables)
    return np.maximum(rate - margin * share, rate / 20)


def no_traffic(now: Table) -> str:
    """Why nothing can be said of this step."""
    if not now.canary_rows:
        return "the new version got no requests in this step"
    return "the old version got no requests in this step: nothing to compare with"


def _needed(rate: Rate, margin: float, truth: tuple[float, float], level: Level) -> int | None:
    """For a share of hits of the stable version, and its requests per request of the canary."""
    base, others = rounded(max(truth[0], rate.floor * margin)), rounded(truth[1])
    barrier = samples.barrier_of(level.alpha, rate.weights[0])
    return samples.of_shares(base, base + margin, others, barrier, level.power)


def _others(now: Table) -> float:
    return float(now.stable_rows / now.canary_rows) if now.both else 1.0


def _share(hits: Sequence[Array], rows: Sequence[Array]) -> float:
    return (float(sum(hits)) + 0.5) / (float(sum(rows)) + 1)


def _undecided(tables: Sequence[Table], judged: Judged) -> bool:
    """Errors that the old version never had: they end in a failure, or until they are shown to be very few."""
    if sum(float(t.stable_hits) for t in tables) or not sum(float(t.canary_hits) for t in tables):
        return False
    return judged.high is None or judged.high > FEW_ERRORS * judged.margin


def _unheard_of(tables: Sequence[Table], rate: Rate) -> str:
    hits, rows, _, old = _sums(tables)
    noun = rate.noun.removesuffix("s") if hits == 1 else rate.noun
    return f"{hits:,} {noun} in {rows:,} requests, the old version had none in {old:,}"


def _worse(tables: Sequence[Table], judged: Judged, why: tuple[float, Rate]) -> str:
    found, rate = why
    hits, rows, old_hits, old_rows = _sums(tables)
    if not old_hits:
        return _unheard_of(tables, rate)
    odds = f"{min(math.exp(min(found, 50)), 1e6):,.0f} times as likely if it is worse"
    said = f"{percent(judged.canary or 0)} {rate.noun}, the old version {percent(judged.stable or 0)}"
    counted = f"{hits:,} of {rows:,} requests, {old_hits:,} of {old_rows:,}"
    return f"{said} ({counted}): {points(judged.low or 0, judged.high or 0)}, {odds}"


def _sums(tables: Sequence[Table]) -> tuple[int, int, int, int]:
    return (
        sum(int(t.canary_hits) for t in tables),
        sum(int(t.canary_rows) for t in tables),
        sum(int(t.stable_hits) for t in tables),
        sum(int(t.stable_rows) for t in tables),
    )
